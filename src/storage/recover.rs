//! Opening the journal, whatever state its files are in: as it is, or else from the newest state that can be
//! proven. One rule decides what that is: the newest good snapshot is the word on every key up to its change, and
//! after that, of all rows whose checksums hold, the change with the highest number counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::cipher::ArgsCipher;
use super::db::{self, Content, Store};
use super::intent::{Digest, Intent};
use super::paths::{JournalPaths, QuarantineReason, log_of};
use super::rows::{Incident, Row};
use super::salvage::Pages;
use crate::error::{Code, Error, Result};
use crate::model::{Change, Entry, Kind, ProxyKey};

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

/// Opens the journal at `paths`, whose lock is held. What is in it is encrypted with the cipher's key, where there is one. Fails
/// with [`Code::KeyMissing`], and leaves everything as it is, where it is sealed with another.
pub fn open(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>) -> Result<Opened> {
    let recovered = paths.recovered();
    if paths.stat(&paths.file)?.is_none() {
        if paths.stat(&recovered)?.is_some() && is_whole(paths, &recovered, cipher)? {
            // A crash between putting the old files away and this rename. What is left of them follows.
            paths.quarantine_files(QuarantineReason::Damaged)?;
            paths.publish(&recovered, &paths.file)?;
        } else if paths.list_snapshots().is_empty() && paths.stat(&log_of(&paths.file))?.is_none() {
            paths.quarantine_files(QuarantineReason::Damaged)?;
            let content = Content { intent: Intent::default().sealing(cipher), ..Content::default() };
            db::create(paths, &paths.unfinished(), &content)?;
            paths.publish(&paths.unfinished(), &paths.file)?;
        }
    }
    paths.remove_database(&recovered)?;
    paths.remove_database(&paths.unfinished())?;
    match open_healthy(paths, cipher) {
        Ok((store, intent)) if cipher.map(|cipher| cipher.id) == store.key_id()? => {
            Ok(Opened { store, intent, report: None })
        }
        Ok((store, intent)) => seal(paths, store, intent),
        Err(error) if error.code == Code::Corrupt => recover(paths, cipher, &error.message),
        Err(_) if paths.stat(&paths.file)?.is_none() => {
            recover(paths, cipher, &format!("{} is missing", paths.file.display()))
        }
        Err(error) => Err(error),
    }
}

/// Reads a journal that must not be written: its schema is newer.
pub fn read_only(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>) -> Result<Intent> {
    Store::open_for_reading(paths, &paths.file)?.load(cipher)
}

/// Writes a journal that was not sealed afresh with a key: the old file would still hold what was in it.
fn seal(paths: &JournalPaths, store: Store, intent: Intent) -> Result<Opened> {
    store.abandon();
    let (history, mut incidents) = salvage_history(paths, intent.seq(), intent.cipher());
    let report = format!(
        "The arguments of all {} proxies and of {} changes are now encrypted with the key of [journal] key_file",
        intent.digest().count,
        history.len()
    );
    log::info!("journal: {report}");
    incidents.insert(Incident { at: paths.env.now_ms(), report });
    let content = Content { intent, history, incidents };
    let store = replace(paths, &content, QuarantineReason::Replaced)?;
    Ok(Opened { store, intent: content.intent, report: None })
}

/// False for a file that has been damaged. An error, where the disk does not tell: then nothing is decided.
fn is_whole(paths: &JournalPaths, path: &Path, cipher: Option<&Arc<ArgsCipher>>) -> Result<bool> {
    match Store::open_for_reading(paths, path).and_then(|store| store.load(cipher)) {
        Ok(_) => Ok(true),
        Err(error) if error.code == Code::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_healthy(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>) -> Result<(Store, Intent)> {
    let mut store = Store::open(paths, &paths.file)?;
    let intent = store.load(cipher)?;
    not_behind(paths, &intent)?;
    store.trust(paths, &paths.file)?;
    Ok((store, intent))
}

/// SQLite takes a damaged log for one that ends there, and a missing one for none at all. An error where it is known
/// that what it has read is not the newest that was on disk.
fn not_behind(paths: &JournalPaths, intent: &Intent) -> Result<()> {
    let marked = paths.read_mark();
    if marked > intent.seq() {
        return Err(Error::corrupt(format!(
            "{} ends with change {}, but change {marked} was already on disk: part of the file or of its log is lost, \
             or it is an old copy",
            paths.file.display(),
            intent.seq()
        )));
    }
    let snapshot = paths.list_snapshots().first().map_or(0, |snapshot| snapshot.seq);
    if snapshot > intent.seq() {
        return Err(Error::corrupt(format!(
            "{} ends with change {}, but there is a snapshot after change {snapshot}",
            paths.file.display(),
            intent.seq()
        )));
    }
    let log = read(paths, &log_of(&paths.file))?;
    if !Pages::new(&[], &log).log_is_damaged {
        return Ok(());
    }
    let found = Evidence::of_files(&read(paths, &paths.file)?, &log, intent.cipher());
    if found.seq <= intent.seq() {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the log of {} is damaged in the middle: SQLite stops at change {}, and changes up to {} follow after it",
        paths.file.display(),
        intent.seq(),
        found.seq
    )))
}

/// A file that is not there is empty.
fn read(paths: &JournalPaths, path: &Path) -> Result<Vec<u8>> {
    match paths.stat(path)? {
        None => Ok(Vec::new()),
        Some(_) => paths.env.read(path).map_err(|error| Error::io("cannot read", path, &error)),
    }
}

/// Puts a fresh file in the journal's place; what was there goes to quarantine. A crash at any point leaves either the
/// old files or the whole fresh one to be found.
pub fn replace(paths: &JournalPaths, content: &Content, because: QuarantineReason) -> Result<Store> {
    let recovered = paths.recovered();
    db::create(paths, &paths.unfinished(), content)?;
    paths.publish(&paths.unfinished(), &recovered)?;
    paths.quarantine_files(because)?;
    paths.publish(&recovered, &paths.file)?;
    let (store, _) = open_healthy(paths, content.intent.cipher())?;
    Ok(store)
}

/// What the old files still hold besides intent, to be taken over into a fresh one: history up to change `seq`, and
/// incidents. A disk that does not give it keeps nobody from a fresh file.
pub fn salvage_history(
    paths: &JournalPaths,
    seq: u64,
    cipher: Option<&Arc<ArgsCipher>>,
) -> (BTreeMap<u64, Change>, BTreeSet<Incident>) {
    let files = read(paths, &paths.file).and_then(|database| Ok((database, read(paths, &log_of(&paths.file))?)));
    let Ok((database, log)) = files else {
        return Default::default();
    };
    let mut found = Evidence::of_files(&database, &log, cipher);
    found.history.retain(|number, _| *number <= seq);
    (found.history, found.incidents)
}

fn recover(paths: &JournalPaths, cipher: Option<&Arc<ArgsCipher>>, damage: &str) -> Result<Opened> {
    let mut sources = Vec::new();
    let mut snapshot = Intent::default();
    for file in paths.list_snapshots() {
        match Store::open_for_reading(paths, &file.path).and_then(|store| store.load(cipher)) {
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
            Err(error) => sources.push(format!("the snapshot {} was not used: {error}", file.path.display())),
        }
    }
    let known = paths.read_mark();
    let files = (read(paths, &paths.file)?, read(paths, &log_of(&paths.file))?);
    let found = Evidence::of_files(&files.0, &files.1, cipher);
    // With the right key some may be locked all the same: somebody has altered them.
    if found.locked > 0 && (cipher.is_none() || found.decrypted == 0) {
        return Err(Error::new(
            Code::KeyMissing,
            format!(
                "{damage}. It is encrypted with a key that [journal] key_file does not provide: restore that key file"
            ),
        ));
    }
    let mut found = found.after(&snapshot);
    sources.push(format!(
        "{} later changes and {} later proxies from the damaged files",
        found.numbers.len(),
        found.keys.values().filter(|(_, entry)| entry.is_some()).count()
    ));
    let mut lost = found.lost(snapshot.seq(), known);
    let (history, mut incidents) = (std::mem::take(&mut found.history), std::mem::take(&mut found.incidents));
    let sums = found.sums_after(known);
    let mut intent = found.into_intent(&snapshot, known, cipher);
    if prove(&mut intent, &sums) {
        lost = "The sums over it prove that no proxy is missing".to_owned();
    }
    let report = format!(
        "{damage}. Recovered {} proxies from: {}. {lost}. The damaged files are kept in quarantine/ beside the \
         journal. Compare the result with the proxies that you expect",
        intent.digest().count,
        sources.join("; "),
    );
    incidents.insert(Incident { at: paths.env.now_ms(), report: report.clone() });
    let content = Content { intent, history, incidents };
    let store = replace(paths, &content, QuarantineReason::Damaged)?;
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
    keys: BTreeMap<ProxyKey, (u64, Option<Entry>)>,
    history: BTreeMap<u64, Change>,
    incidents: BTreeSet<Incident>,
    numbers: BTreeSet<u64>,
    seq: u64,
    /// Rows with arguments that can be read, and those that no key at hand unlocks.
    decrypted: u64,
    locked: u64,
    /// The sums over all proxies after a change.
    sums: Vec<(u64, Digest)>,
}

impl Evidence {
    fn of_files(database: &[u8], log: &[u8], cipher: Option<&Arc<ArgsCipher>>) -> Self {
        let mut evidence = Self::default();
        Pages::new(database, log).rows(|row| match row.kept(cipher.map(Arc::as_ref)) {
            Err(_) => evidence.locked += 1,
            Ok(row) => {
                evidence.decrypted += u64::from(row.has_args());
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

    fn into_intent(self, snapshot: &Intent, known: u64, cipher: Option<&Arc<ArgsCipher>>) -> Intent {
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
        let mut intent = Intent::starting_at(last + SEQ_GAP).sealing(cipher);
        for ((kind, key), entry) in entries {
            intent.put(kind, key, entry);
        }
        intent
    }
}
