//! Opening the journal, whatever state its files are in: as it is, or else from the newest state that can be
//! proven. One rule decides what that is: of all that is known about a key (good snapshot, rows of `journal` and
//! of `proxies` whose checksums hold), the change with the highest number counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::intent::Intent;
use super::place::{self, Place};
use super::store::{self, Store};
use crate::error::{Code, Result};
use crate::record::{Entry, Kind, Op, State};

/// Change numbers that a recovery leaves out. The lost rows may have carried numbers that somebody was told; none
/// of those is given twice.
const SEQ_GAP: u64 = 1_000_000;

/// An open journal, and what had to be done to open it.
pub struct Opened {
    pub store: Store,
    pub intent: Intent,
    /// What was damaged, where it is kept and what was recovered from what; none for a healthy file.
    pub report: Option<String>,
}

/// Opens the journal at `place`, whose lock is held. `now` is in milliseconds UTC.
pub fn open(place: &Place, now: i64) -> Result<Opened> {
    let recovered = place.recovered();
    if !place.file.exists() {
        // The log of a database that is gone must not be taken for that of the next one.
        place.quarantine_files(now)?;
        // A crash between putting the damaged files away and this rename.
        let left_whole = recovered.exists() && is_whole(&recovered)?;
        if left_whole {
            place.adopt_recovered()?;
        } else if place.list_snapshots().is_empty() {
            store::create(&recovered, &Intent::default())?;
            place.adopt_recovered()?;
        }
    }
    place::remove_file(&recovered)?;
    match open_healthy(place) {
        Ok((store, intent)) => Ok(Opened { store, intent, report: None }),
        Err(error) if error.code == Code::Corrupt || !place.file.exists() => recover(place, now, &error.message),
        Err(error) => Err(error),
    }
}

/// False for a file that was not written to its end. An error, where the disk does not tell: then nothing is decided.
fn is_whole(path: &Path) -> Result<bool> {
    match Store::open_for_reading(path).and_then(|store| store.load()) {
        Ok(_) => Ok(true),
        Err(error) if error.code == Code::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_healthy(place: &Place) -> Result<(Store, Intent)> {
    let store = Store::open(&place.file)?;
    let intent = store.load()?;
    store.trust(&place.file)?;
    Ok((store, intent))
}

/// Puts a fresh file with `intent` in the journal's place; what was there goes to quarantine. A crash at any point
/// leaves either the old files or the whole fresh one to be found.
pub fn replace(place: &Place, intent: &Intent, now: i64) -> Result<(Store, String)> {
    store::create(&place.recovered(), intent)?;
    let kept = place.quarantine_files(now)?;
    place.adopt_recovered()?;
    let (store, _) = open_healthy(place)?;
    let kept = kept.map_or_else(
        || "there was no old file to keep".to_owned(),
        |folder| format!("the old files are kept in {}", folder.display()),
    );
    Ok((store, kept))
}

fn recover(place: &Place, now: i64, damage: &str) -> Result<Opened> {
    let mut evidence = Evidence::default();
    let mut sources = Vec::new();
    for snapshot in place.list_snapshots() {
        match Store::open_for_reading(&snapshot.path).and_then(|store| store.load()) {
            Ok(intent) => {
                evidence.snapshot(&intent);
                sources.push(format!(
                    "the snapshot {} with {} proxies",
                    snapshot.path.display(),
                    intent.digest().count
                ));
                break;
            }
            Err(error) => sources.push(format!("not the snapshot {}: {error}", snapshot.path.display())),
        }
    }
    if let Ok(damaged) = Store::open_for_reading(&place.file) {
        let (mut changes, mut rows) = (0_u64, 0_u64);
        let bad_changes = damaged.salvage_journal(|change| {
            changes += 1;
            let entry = match (change.op, change.args) {
                (Op::Add, Some(args)) => Some(Entry {
                    args,
                    state: State::Enabled,
                    seq: change.seq,
                    created_at: change.at,
                    updated_at: change.at,
                }),
                _ => None,
            };
            evidence.weigh(change.kind, change.key, change.seq, entry);
        });
        let bad_rows = damaged.salvage_proxies(|kind, key, entry| {
            rows += 1;
            evidence.weigh(kind, key.into(), entry.seq, Some(entry));
        });
        sources.push(format!(
            "{changes} journal rows and {rows} proxy rows of the damaged file ({bad_changes} and {bad_rows} \
             places in it unreadable)"
        ));
    }
    let intent = evidence.into_intent();
    let (store, kept) = replace(place, &intent, now)?;
    let report = format!(
        "{damage}. Recovered {} proxies from: {}; {kept}. Compare with what should be there.",
        intent.digest().count,
        sources.join("; "),
    );
    Ok(Opened { store, intent, report: Some(report) })
}

/// What is known of each key: the highest change number, and the entry after it, or none where it was removed.
#[derive(Default)]
struct Evidence {
    keys: BTreeMap<(Kind, Arc<str>), (u64, Option<Entry>)>,
    seq: u64,
}

impl Evidence {
    fn snapshot(&mut self, intent: &Intent) {
        self.seq = self.seq.max(intent.seq());
        for (kind, key, entry) in intent.iter() {
            self.weigh(kind, Arc::clone(key), entry.seq, Some(entry.clone()));
        }
    }

    fn weigh(&mut self, kind: Kind, key: Arc<str>, seq: u64, entry: Option<Entry>) {
        self.seq = self.seq.max(seq);
        let known = self.keys.entry((kind, key)).or_insert((0, None));
        // A row of `proxies` says more (state, age) than the journal row of the same number: it comes later.
        if seq >= known.0 {
            *known = (seq, entry);
        }
    }

    fn into_intent(self) -> Intent {
        let mut intent = Intent::starting_at(self.seq + SEQ_GAP);
        for ((kind, key), (_, entry)) in self.keys {
            if let Some(entry) = entry {
                intent.put(kind, key, entry);
            }
        }
        intent
    }
}
