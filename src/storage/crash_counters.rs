//! Which proxies may have crashed the server. Only a crash counts: the host's handler of crash signals writes what was
//! being worked on (see cpp/crash.h), and the next process counts that here. A killed process or a power loss leaves
//! nothing. The files are not synced, since they must survive the process, not the machine. A damaged one counts
//! nothing. Used on the reconciler's thread.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::paths::{JournalPaths, NoteFile};
use crate::model::{Kind, ProxyKey};

/// How often the server has crashed while it worked on each proxy.
pub struct CrashCounters {
    file: NoteFile,
    of: BTreeMap<ProxyKey, Record>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Record {
    /// The change of the entry. With another change the proxy counts as another one.
    seq: u64,
    crashes: u32,
    /// It was quarantined before and released once.
    released: bool,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    kind: String,
    key: String,
    #[serde(flatten)]
    record: Record,
}

impl CrashCounters {
    /// Reads what previous processes have left, and counts the crash of the last one. `known` has each proxy of the
    /// journal with its last change. Call it once per process.
    pub fn read(paths: &JournalPaths, known: impl Iterator<Item = (ProxyKey, u64)>) -> Self {
        let file = NoteFile::new(paths, ".suspects");
        let lines: Vec<Line> = serde_json::from_slice(&file.read()).unwrap_or_default();
        let accused = accused(paths);
        let mut suspects = Self { file, of: BTreeMap::new() };
        if lines.is_empty() && accused.is_empty() {
            return suspects;
        }
        let known: HashMap<ProxyKey, u64> = known.collect();
        for Line { kind, key, record } in lines {
            let key = Kind::from_name(&kind).map(|kind| (kind, key.into()));
            if let Some(key) = key.filter(|key| known.contains_key(key)) {
                suspects.of.insert(key, record);
            }
        }
        for (key, seq) in known.into_iter().filter(|(_, seq)| accused.contains(seq)) {
            let mut record = suspects.record(&key, seq);
            record.crashes += 1;
            log::warn!("journal: the server has crashed while {} {} was being started", key.0.name(), key.1);
            suspects.of.insert(key, record);
        }
        suspects.write();
        suspects
    }

    fn record(&self, key: &ProxyKey, seq: u64) -> Record {
        let found = self.of.get(key).filter(|record| record.seq == seq);
        found.copied().unwrap_or(Record { seq, crashes: 0, released: false })
    }

    /// The number of consecutive crashes in which the server was working on it.
    pub fn crashes(&self, key: &ProxyKey, seq: u64) -> u32 {
        self.record(key, seq).crashes
    }

    /// The server has survived its start.
    pub fn acquit(&mut self, key: &ProxyKey, seq: u64) {
        if self.of.get(key).is_some_and(|record| record.seq == seq) {
            self.of.remove(key);
            self.write();
        }
    }

    /// Marks it as quarantined. Returns true if it is not released again automatically, because it was released once
    /// before.
    pub fn set_aside(&mut self, key: &ProxyKey, seq: u64) -> bool {
        let released = self.record(key, seq).released;
        if self.of.get(key).is_some_and(|record| record.seq != seq) {
            self.of.remove(key);
            self.write();
        }
        released
    }

    /// Whether it has not been released yet.
    pub fn may_be_released(&self, key: &ProxyKey) -> bool {
        self.of.get(key).is_none_or(|record| !record.released)
    }

    /// It is enabled again by change `seq`, with `crashes` as its count.
    pub fn release(&mut self, key: &ProxyKey, seq: u64, crashes: u32) {
        self.of.insert(key.clone(), Record { seq, crashes, released: true });
        self.write();
    }

    fn write(&mut self) {
        let line = |((kind, key), record): (&ProxyKey, &Record)| Line {
            kind: kind.name().to_owned(),
            key: key.to_string(),
            record: *record,
        };
        let lines: Vec<Line> = self.of.iter().map(line).collect();
        let content =
            if lines.is_empty() { Ok(Vec::new()) } else { serde_json::to_vec(&lines).map_err(Into::into) };
        self.file
            .write(content, "If the server crashes again, its next start will not know the number of crashes");
    }
}

/// The changes that the last process was working on when it crashed, one per line. If the file cannot be removed, it is
/// ignored: it would count at every start.
fn accused(paths: &JournalPaths) -> Vec<u64> {
    let path = paths.crash();
    let Ok(text) = paths.env.read(&path) else { return Vec::new() };
    if let Err(error) = paths.env.remove(&path) {
        log::warn!("journal: cannot remove {}: {error}. It is ignored", path.display());
        return Vec::new();
    }
    let text = String::from_utf8(text).unwrap_or_default();
    let lines: Option<Vec<u64>> = text.split_terminator('\n').map(|line| line.parse().ok()).collect();
    lines.filter(|_| text.ends_with('\n')).unwrap_or_default()
}
