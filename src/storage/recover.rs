//! Opens the journal in any state of its files: as it is, or with the newest state that can be proven. For each key,
//! the newest valid snapshot counts up to its change; after that, the row with the highest change number of all that
//! have a valid checksum.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::cipher::ArgsCipher;
use super::db::{self, Content, Store};
use super::intent::{Digest, Intent};
use super::paths::{DAMAGED, JournalPaths, QuarantineReason, REPLACED, log_of};
use super::rows::{Incident, Row};
use super::salvage::Pages;
use crate::error::{Code, Error, Result};
use crate::model::{Change, Entry, Kind, ProxyKey};

/// Change numbers that a recovery skips: lost rows may have had numbers that callers know, and no number may be used
/// twice.
const SEQ_GAP: u64 = 1_000_000;
/// The maximum number of changes that a new file takes over from the old one.
const HISTORY: usize = 100_000;

/// An open journal, and its recovery.
pub struct Opened {
    pub store: Store,
    pub intent: Intent,
    /// For a damaged file: what was damaged, where it is kept, and what was recovered.
    pub report: Option<String>,
}

/// Opens the journal at `paths`, whose lock is held. With a cipher, arguments are encrypted. Fails with
/// [`Code::KeyMissing`], without changing anything, if they are encrypted with another key.
pub fn open(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>) -> Result<Opened> {
    let recovered = paths.recovered();
    if paths.stat(&paths.file)?.is_none() {
        if paths.stat(&recovered)?.is_some() && is_whole(paths, &recovered, cipher)? {
            // There was a crash between moving the old files away and this rename. Move the rest of them.
            paths.quarantine_files(DAMAGED)?;
            paths.publish(&recovered, &paths.file)?;
        } else if paths.list_snapshots().is_empty() && paths.stat(&log_of(&paths.file))?.is_none() {
            paths.quarantine_files(DAMAGED)?;
            let content = Content { intent: Intent::starting_at(0, cipher), ..Content::default() };
            db::create(paths, &paths.file, &content)?;
        }
    }
    paths.remove_database(&recovered)?;
    paths.remove_database(&paths.unfinished(&paths.file))?;
    match open_healthy(paths, cipher) {
        Ok(opened) if cipher.map(|cipher| cipher.id) == opened.store.key_id()? => Ok(opened),
        Ok(Opened { store, intent, .. }) => encrypt_file(paths, store, intent),
        Err(error) if error.code == Code::Corrupt => recover(paths, cipher, &error.message),
        Err(_) if paths.stat(&paths.file)?.is_none() => {
            recover(paths, cipher, &format!("{} is missing", paths.file.display()))
        }
        Err(error) => Err(error),
    }
}

/// Writes a new file, encrypted: the old one would still contain the plain text.
fn encrypt_file(paths: &JournalPaths, store: Store, intent: Intent) -> Result<Opened> {
    store.abandon();
    let seq = intent.seq();
    let content = with_old_history(paths, intent, seq);
    let report = format!(
        "The arguments of all {} proxies and of {} changes are now encrypted with the key of [journal] key_file",
        content.intent.digest().count,
        content.history.len()
    );
    log::info!("journal: {report}");
    replace(paths, content, report, REPLACED)
}

/// Whether a file is undamaged. Fails if the disk has an error: then nothing is known.
fn is_whole(paths: &JournalPaths, path: &Path, cipher: Option<&Arc<ArgsCipher>>) -> Result<bool> {
    match db::load(paths, path, cipher) {
        Ok(_) => Ok(true),
        Err(error) if error.code == Code::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_healthy(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>) -> Result<Opened> {
    let mut store = Store::open(paths, &paths.file)?;
    let intent = store.load(cipher)?;
    not_behind(paths, &intent)?;
    store.trust(paths, &paths.file)?;
    Ok(Opened { store, intent, report: None })
}

/// SQLite takes a damaged log for a shorter one, and a missing log for none. Fails if newer changes than those that it
/// has read are known to have been on disk.
fn not_behind(paths: &JournalPaths, intent: &Intent) -> Result<()> {
    let (file, last) = (paths.file.display(), intent.seq());
    let marked = paths.read_mark();
    if marked > last {
        return Err(Error::corrupt(format!(
            "{file} ends with change {last}, but change {marked} was already on disk: part of the file or of its log \
             is lost, or it is an old copy"
        )));
    }
    let snapshot = paths.list_snapshots().first().map_or(0, |snapshot| snapshot.seq);
    if snapshot > last {
        return Err(Error::corrupt(format!(
            "{file} ends with change {last}, but there is a snapshot after change {snapshot}"
        )));
    }
    if !Pages::new(&[], &paths.read(&log_of(&paths.file))?).log_is_damaged {
        return Ok(());
    }
    let found = Evidence::read(paths, intent.cipher())?;
    if found.seq <= last {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the log of {file} is damaged in the middle: SQLite stops at change {last}, and changes up to {} follow after \
         it",
        found.seq
    )))
}

/// Replaces the journal with a new file, in which `report` says why, and moves the old one to quarantine. A crash at
/// any point leaves either the old files or the complete new one.
pub fn replace(
    paths: &JournalPaths,
    mut content: Content,
    report: String,
    because: QuarantineReason,
) -> Result<Opened> {
    content.incidents.insert(Incident { at: paths.env.now_ms(), report });
    let recovered = paths.recovered();
    db::create(paths, &recovered, &content)?;
    paths.quarantine_files(because)?;
    paths.publish(&recovered, &paths.file)?;
    open_healthy(paths, content.intent.cipher())
}

/// The content of a new file: intent, and from the old files the history up to change `seq` and the incidents, unless
/// the disk cannot be read.
pub fn with_old_history(paths: &JournalPaths, intent: Intent, seq: u64) -> Content {
    let Evidence { mut history, incidents, .. } = Evidence::read(paths, intent.cipher()).unwrap_or_default();
    history.retain(|number, _| *number <= seq);
    Content { intent, history, incidents }
}

fn recover(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>, damage: &str) -> Result<Opened> {
    let mut sources = Vec::new();
    let mut snapshot = Intent::default();
    for file in paths.list_snapshots() {
        match db::load(paths, &file.path, cipher) {
            Ok(intent) => {
                let count = intent.digest().count;
                sources.push(format!("the snapshot {} with {count} proxies", file.path.display()));
                snapshot = intent;
                break;
            }
            Err(error) if error.code == Code::KeyMissing => return Err(error),
            Err(error) => sources.push(format!("the snapshot {} was not used: {error}", file.path.display())),
        }
    }
    let known = paths.read_mark();
    let found = Evidence::read(paths, cipher)?;
    // With the right key, some rows may still be locked because they were altered.
    if found.locked > 0 && (cipher.is_none() || found.decrypted == 0) {
        let why = "It is encrypted with a key that [journal] key_file does not provide: restore that key file";
        return Err(Error::new(Code::KeyMissing, format!("{damage}. {why}")));
    }
    let mut found = found.after(&snapshot);
    sources.push(format!(
        "{} later changes and {} later proxies from the damaged files",
        found.numbers.len(),
        found.keys.values().filter(|(_, entry)| entry.is_some()).count()
    ));
    let mut lost = found.lost(snapshot.seq(), known);
    let (history, incidents) = (std::mem::take(&mut found.history), std::mem::take(&mut found.incidents));
    let sums = found.sums_after(known);
    let mut intent = found.into_intent(&snapshot, known, cipher);
    if prove(&mut intent, &sums) {
        lost = "The digest proves that no proxy is missing".to_owned();
    }
    let report = format!(
        "{damage}. Recovered {} proxies from: {}. {lost}. The damaged files are kept in quarantine/ beside the \
         journal. Compare the result with the proxies that you expect",
        intent.digest().count,
        sources.join("; "),
    );
    let opened = replace(paths, Content { intent, history, incidents }, report.clone(), DAMAGED)?;
    Ok(Opened { report: Some(report), ..opened })
}

/// Whether a stored digest matches intent. If it matches without one of the entries, that one is dropped: the row of
/// its removal was lost.
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

/// The rows that were found, and for each key the highest change number, with the entry after it or `None` if it was
/// removed.
#[derive(Default)]
struct Evidence {
    keys: BTreeMap<ProxyKey, (u64, Option<Entry>)>,
    history: BTreeMap<u64, Change>,
    incidents: BTreeSet<Incident>,
    numbers: BTreeSet<u64>,
    seq: u64,
    /// The numbers of rows with readable arguments, and of rows that the key does not decrypt.
    decrypted: u64,
    locked: u64,
    /// Stored digests with their changes.
    sums: Vec<(u64, Digest)>,
}

impl Evidence {
    fn read(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>) -> Result<Self> {
        let (database, log) = (paths.read(&paths.file)?, paths.read(&log_of(&paths.file))?);
        let mut evidence = Self::default();
        Pages::new(&database, &log).rows(|row| match row.in_memory(cipher.map(Arc::as_ref)) {
            Err(_) => evidence.locked += 1,
            Ok(row) => {
                evidence.decrypted += u64::from(row.has_args());
                evidence.add(row);
            }
        });
        Ok(evidence)
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
        // A row of `proxies` also has `created_at`, which the row of the change with the same number lacks.
        if seq > known.0 || (seq == known.0 && complete) {
            *known = (seq, entry);
        }
    }

    /// Drops what the snapshot already covers.
    fn after(mut self, snapshot: &Intent) -> Self {
        self.keys.retain(|_, (seq, _)| *seq > snapshot.seq());
        self.numbers.retain(|seq| *seq > snapshot.seq());
        self
    }

    /// Describes which changes are known to have been on disk but were not found. Numbers that an earlier recovery
    /// skipped are not missing.
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

    /// The digests that were stored with the newest known change or later, even if its row was not found.
    fn sums_after(&self, known: u64) -> Vec<Digest> {
        let newest = self.seq.max(known);
        self.sums.iter().filter(|(seq, _)| *seq >= newest).map(|(_, digest)| *digest).collect()
    }

    fn into_intent(self, snapshot: &Intent, known: u64, cipher: Option<&Arc<ArgsCipher>>) -> Intent {
        let mut last = self.seq.max(snapshot.seq()).max(known);
        let of_snapshot = snapshot.iter().map(|(kind, key, entry)| ((kind, Arc::clone(key)), entry.clone()));
        let mut entries: Vec<_> = of_snapshot.filter(|(key, _)| !self.keys.contains_key(key)).collect();
        entries.extend(self.keys.into_iter().filter_map(|(key, (_, entry))| Some((key, entry?))));
        // If files written by two servers were mixed, numbers may occur twice: give each entry one of its own.
        let mut numbers = BTreeSet::new();
        for (_, entry) in &mut entries {
            if !numbers.insert(entry.seq) {
                last += 1;
                entry.seq = last;
            }
        }
        let mut intent = Intent::starting_at(last + SEQ_GAP, cipher);
        for ((kind, key), entry) in entries {
            intent.put(kind, key, entry);
        }
        intent
    }
}
