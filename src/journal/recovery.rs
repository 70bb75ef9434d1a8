//! Opening the journal, whatever state its files are in: as it is, or else from the newest state that can be
//! proven. One rule decides what that is: the newest good snapshot is the word on every key up to its change, and
//! after that, of all rows whose checksums hold, the change with the highest number counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::intent::{Digest, Intent};
use super::place::{Because, Place, log_of};
use super::rows::{Incident, Row};
use super::salvage::Pages;
use super::store::{self, Content, Store};
use super::vault::Vault;
use crate::error::{Code, Error, Result};
use crate::record::{Change, Entry, Kind};

/// Change numbers that a recovery leaves out. The lost rows may have carried numbers that somebody was told; none
/// of those is given twice.
const SEQ_GAP: u64 = 1_000_000;
/// Rows of history that a fresh file takes over from the old one.
const HISTORY: usize = 100_000;

/// An open journal, and what had to be done to open it.
pub struct Opened {
    pub store: Store,
    pub intent: Intent,
    /// What was damaged, where it is kept and what was recovered from what; none for a healthy file.
    pub report: Option<String>,
}

/// Opens the journal at `place`, whose lock is held. What is in it is sealed with the vault's key, where there is one. Fails
/// with [`Code::KeyMissing`], and leaves everything as it is, where it is sealed with another.
pub fn open(place: &Place, vault: Option<&Arc<Vault>>) -> Result<Opened> {
    let recovered = place.recovered();
    if place.stat(&place.file)?.is_none() {
        if place.stat(&recovered)?.is_some() && is_whole(place, &recovered, vault)? {
            // A crash between putting the old files away and this rename. What is left of them follows.
            place.quarantine_files(Because::Damaged)?;
            place.publish(&recovered, &place.file)?;
        } else if place.list_snapshots().is_empty() && place.stat(&log_of(&place.file))?.is_none() {
            place.quarantine_files(Because::Damaged)?;
            let content = Content { intent: Intent::default().sealing(vault), ..Content::default() };
            store::create(place, &place.unfinished(), &content)?;
            place.publish(&place.unfinished(), &place.file)?;
        }
    }
    place.remove_database(&recovered)?;
    place.remove_database(&place.unfinished())?;
    match open_healthy(place, vault) {
        Ok((store, intent)) if vault.map(|vault| vault.id) == store.key_id()? => {
            Ok(Opened { store, intent, report: None })
        }
        Ok((store, intent)) => seal(place, store, intent),
        Err(error) if error.code == Code::Corrupt => recover(place, vault, &error.message),
        Err(_) if place.stat(&place.file)?.is_none() => {
            recover(place, vault, &format!("{} is gone", place.file.display()))
        }
        Err(error) => Err(error),
    }
}

/// Reads a journal that must not be written: its schema is newer.
pub fn read_only(place: &Place, vault: Option<&Arc<Vault>>) -> Result<Intent> {
    Store::open_for_reading(place, &place.file)?.load(vault)
}

/// Writes a journal that was not sealed afresh with a key: the old file would still hold what was in it.
fn seal(place: &Place, store: Store, intent: Intent) -> Result<Opened> {
    store.abandon();
    let (history, mut incidents) = salvage_history(place, intent.seq(), intent.vault());
    let report = format!(
        "The arguments of all {} proxies and of {} changes are sealed with the key of [journal] key_file from now on",
        intent.digest().count,
        history.len()
    );
    log::info!("journal: {report}");
    incidents.insert(Incident { at: place.env.now_ms(), report });
    let content = Content { intent, history, incidents };
    let store = replace(place, &content, Because::Replaced)?;
    Ok(Opened { store, intent: content.intent, report: None })
}

/// False for a file that has been damaged. An error, where the disk does not tell: then nothing is decided.
fn is_whole(place: &Place, path: &Path, vault: Option<&Arc<Vault>>) -> Result<bool> {
    match Store::open_for_reading(place, path).and_then(|store| store.load(vault)) {
        Ok(_) => Ok(true),
        Err(error) if error.code == Code::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_healthy(place: &Place, vault: Option<&Arc<Vault>>) -> Result<(Store, Intent)> {
    let mut store = Store::open(place, &place.file)?;
    let intent = store.load(vault)?;
    not_behind(place, &intent)?;
    store.trust(place, &place.file)?;
    Ok((store, intent))
}

/// SQLite takes a damaged log for one that ends there, and a missing one for none at all. An error where it is known
/// that what it has read is not the newest that was on disk.
fn not_behind(place: &Place, intent: &Intent) -> Result<()> {
    let marked = place.read_mark();
    if marked > intent.seq() {
        return Err(Error::corrupt(format!(
            "{} ends with change {}, but change {marked} had been on disk: part of it or of its log is lost, or the \
             file is an old copy",
            place.file.display(),
            intent.seq()
        )));
    }
    let snapshot = place.list_snapshots().first().map_or(0, |snapshot| snapshot.seq);
    if snapshot > intent.seq() {
        return Err(Error::corrupt(format!(
            "{} ends with change {}, but there is a snapshot after change {snapshot}",
            place.file.display(),
            intent.seq()
        )));
    }
    let log = read(place, &log_of(&place.file))?;
    if !Pages::new(&[], &log).log_is_damaged {
        return Ok(());
    }
    let found = Evidence::of_files(&read(place, &place.file)?, &log, intent.vault());
    if found.seq <= intent.seq() {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the log of {} is damaged in its middle: SQLite stops at change {}, behind it lie changes up to {}",
        place.file.display(),
        intent.seq(),
        found.seq
    )))
}

/// A file that is not there is empty.
fn read(place: &Place, path: &Path) -> Result<Vec<u8>> {
    match place.stat(path)? {
        None => Ok(Vec::new()),
        Some(_) => place.env.read(path).map_err(|error| Error::io("cannot read", path, &error)),
    }
}

/// Puts a fresh file in the journal's place; what was there goes to quarantine. A crash at any point leaves either the
/// old files or the whole fresh one to be found.
pub fn replace(place: &Place, content: &Content, because: Because) -> Result<Store> {
    let recovered = place.recovered();
    store::create(place, &place.unfinished(), content)?;
    place.publish(&place.unfinished(), &recovered)?;
    place.quarantine_files(because)?;
    place.publish(&recovered, &place.file)?;
    let (store, _) = open_healthy(place, content.intent.vault())?;
    Ok(store)
}

/// What the old files still hold besides intent, to be taken over into a fresh one: history up to change `seq`, and
/// incidents. A disk that does not give it keeps nobody from a fresh file.
pub fn salvage_history(
    place: &Place,
    seq: u64,
    vault: Option<&Arc<Vault>>,
) -> (BTreeMap<u64, Change>, BTreeSet<Incident>) {
    let files = read(place, &place.file).and_then(|database| Ok((database, read(place, &log_of(&place.file))?)));
    let Ok((database, log)) = files else {
        return Default::default();
    };
    let mut found = Evidence::of_files(&database, &log, vault);
    found.history.retain(|number, _| *number <= seq);
    (found.history, found.incidents)
}

fn recover(place: &Place, vault: Option<&Arc<Vault>>, damage: &str) -> Result<Opened> {
    let mut sources = Vec::new();
    let mut snapshot = Intent::default();
    for file in place.list_snapshots() {
        match Store::open_for_reading(place, &file.path).and_then(|store| store.load(vault)) {
            Ok(intent) => {
                sources.push(format!(
                    "the snapshot {} with {} proxies",
                    file.path.display(),
                    intent.digest().count
                ));
                snapshot = intent;
                break;
            }
            Err(error) if error.code == Code::KeyMissing => return Err(error),
            Err(error) => sources.push(format!("not the snapshot {}: {error}", file.path.display())),
        }
    }
    let known = place.read_mark();
    let files = (read(place, &place.file)?, read(place, &log_of(&place.file))?);
    let found = Evidence::of_files(&files.0, &files.1, vault);
    // With the right key some may be locked all the same: somebody has altered them.
    if found.locked > 0 && (vault.is_none() || found.unlocked == 0) {
        return Err(Error::new(
            Code::KeyMissing,
            format!(
                "{damage}. It is sealed with a key, and [journal] key_file does not name that one: put it back"
            ),
        ));
    }
    let mut found = found.after(&snapshot);
    sources.push(format!(
        "{} changes and {} proxies in the damaged files after that",
        found.numbers.len(),
        found.keys.values().filter(|(_, entry)| entry.is_some()).count()
    ));
    let mut lost = found.lost(snapshot.seq(), known);
    let (history, mut incidents) = (std::mem::take(&mut found.history), std::mem::take(&mut found.incidents));
    let sums = found.sums_after(known);
    let mut intent = found.into_intent(&snapshot, known, vault);
    if prove(&mut intent, &sums) {
        lost = "The sums over it prove that no proxy is missing".to_owned();
    }
    let report = format!(
        "{damage}. Recovered {} proxies from: {}. {lost}. The damaged files are kept in quarantine/ beside the \
         journal. Compare with what should be there",
        intent.digest().count,
        sources.join("; "),
    );
    incidents.insert(Incident { at: place.env.now_ms(), report: report.clone() });
    let content = Content { intent, history, incidents };
    let store = replace(place, &content, Because::Damaged)?;
    Ok(Opened { store, intent: content.intent, report: Some(report) })
}

/// True when the sums over all proxies hold for these. Where it takes that, one is dropped: the row that said of its
/// removal is lost, but the sums without it hold.
fn prove(intent: &mut Intent, sums: &[Digest]) -> bool {
    let now = intent.digest();
    if sums.contains(&now) {
        return true;
    }
    let removed = intent.iter().find_map(|(kind, key, entry)| {
        let without = Digest { count: now.count - 1, xor: now.xor ^ entry.crc(kind, key) };
        sums.contains(&without).then(|| (kind, Arc::clone(key)))
    });
    removed.is_some_and(|(kind, key)| intent.forget(kind, &key))
}

/// What rows are found, and what they say of each key: the highest change number, and the entry after it, or none
/// where it was removed.
#[derive(Default)]
struct Evidence {
    keys: BTreeMap<(Kind, Arc<str>), (u64, Option<Entry>)>,
    history: BTreeMap<u64, Change>,
    incidents: BTreeSet<Incident>,
    numbers: BTreeSet<u64>,
    seq: u64,
    /// Rows with arguments that can be read, and those that no key at hand unlocks.
    unlocked: u64,
    locked: u64,
    /// The sums over all proxies after a change.
    sums: Vec<(u64, Digest)>,
}

impl Evidence {
    fn of_files(database: &[u8], log: &[u8], vault: Option<&Arc<Vault>>) -> Self {
        let mut evidence = Self::default();
        Pages::new(database, log).rows(|row| match row.kept(vault.map(Arc::as_ref)) {
            Err(_) => evidence.locked += 1,
            Ok(row) => {
                evidence.unlocked += u64::from(row.has_args());
                evidence.add(row);
            }
        });
        evidence
    }

    fn add(&mut self, row: Row) {
        match row {
            Row::Change(change) => {
                let entry = change.entry();
                self.weigh(change.kind, Arc::clone(&change.key), change.seq, entry, false);
                self.history.insert(change.seq, change);
                if self.history.len() > HISTORY {
                    self.history.pop_first();
                }
            }
            Row::Proxy(kind, key, entry) => self.weigh(kind, key.into(), entry.seq, Some(entry), true),
            Row::Sums { seq, digest } => self.sums.push((seq, digest)),
            Row::Meta(..) => {}
            Row::Incident(incident) => {
                self.incidents.insert(incident);
            }
        }
    }

    fn weigh(&mut self, kind: Kind, key: Arc<str>, seq: u64, entry: Option<Entry>, complete: bool) {
        self.seq = self.seq.max(seq);
        self.numbers.insert(seq);
        let known = self.keys.entry((kind, key)).or_insert((0, None));
        // A row of `proxies` says more (its age) than the journal row of the same number.
        if seq > known.0 || (seq == known.0 && complete) {
            *known = (seq, entry);
        }
    }

    /// Of what a snapshot has, it is the word.
    fn after(mut self, snapshot: &Intent) -> Self {
        self.keys.retain(|_, (seq, _)| *seq > snapshot.seq());
        self.numbers.retain(|seq| *seq > snapshot.seq());
        self
    }

    /// In words, which changes are known to have been on disk and are nowhere to be found. Numbers that an earlier
    /// recovery left out are not missing.
    fn lost(&self, from: u64, known: u64) -> String {
        let mut lost = Vec::new();
        let mut count = 0;
        let mut last = from;
        for &seq in self.numbers.iter().chain([&(known + 1)]) {
            let missing = seq.saturating_sub(last + 1);
            if missing > 0 && missing < SEQ_GAP - 1 {
                count += missing;
                lost.push(if missing == 1 {
                    format!("{}", last + 1)
                } else {
                    format!("{}-{}", last + 1, seq - 1)
                });
            }
            last = last.max(seq);
        }
        if lost.is_empty() {
            return format!("Every change up to {} is accounted for", self.seq.max(from));
        }
        let more = if lost.len() > 20 { ", …" } else { "" };
        lost.truncate(20);
        format!("LOST: {count} changes, numbers {}{more}", lost.join(", "))
    }

    /// The sums that were written with the newest change of all, whether its own row is found or is only known to have been
    /// on disk, or later.
    fn sums_after(&self, known: u64) -> Vec<Digest> {
        let newest = self.seq.max(known);
        self.sums.iter().filter(|(seq, _)| *seq >= newest).map(|(_, digest)| *digest).collect()
    }

    fn into_intent(self, snapshot: &Intent, known: u64, vault: Option<&Arc<Vault>>) -> Intent {
        let mut last = self.seq.max(snapshot.seq()).max(known);
        let of_snapshot = snapshot.iter().map(|(kind, key, entry)| ((kind, Arc::clone(key)), entry.clone()));
        let mut entries: Vec<_> = of_snapshot.filter(|(key, _)| !self.keys.contains_key(key)).collect();
        entries.extend(self.keys.into_iter().filter_map(|(key, (_, entry))| Some((key, entry?))));
        // Files that two servers have written, copied into each other, have numbers twice. Each change has one of its own.
        let mut numbers = BTreeSet::new();
        for (_, entry) in &mut entries {
            if !numbers.insert(entry.seq) {
                last += 1;
                entry.seq = last;
            }
        }
        let mut intent = Intent::starting_at(last + SEQ_GAP).sealing(vault);
        for ((kind, key), entry) in entries {
            intent.put(kind, key, entry);
        }
        intent
    }
}
