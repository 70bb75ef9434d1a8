//! Which proxies did not play when the server was last checked, stored beside the journal, so that the next start
//! begins with those that did. Only a hint: it is not synced, and if it is lost, only the order of the start suffers.
//! Used on the reconciler's thread.

use std::collections::BTreeMap;

use super::paths::{JournalPaths, NoteFile};

/// When each proxy was last seen playing, in milliseconds since 1970-01-01 UTC, 0 for never; by the change of its
/// entry.
pub struct OfflineHints {
    file: NoteFile,
    noted: BTreeMap<u64, i64>,
}

impl OfflineHints {
    /// Reads what the last process has noted; none if that cannot be read.
    pub fn read(paths: &JournalPaths) -> Self {
        let file = NoteFile::new(paths, ".dark");
        let line = |line: &str| {
            let (seq, last_played) = line.split_once(' ')?;
            Some((seq.parse().ok()?, last_played.parse().ok().filter(|ms| *ms >= 0)?))
        };
        let noted = String::from_utf8_lossy(&file.read()).lines().filter_map(line).collect();
        Self { file, noted }
    }

    /// `None` if it played when last checked, or did not exist then.
    pub fn of(&self, seq: u64) -> Option<i64> {
        self.noted.get(&seq).copied()
    }

    /// Stores the proxies that do not play now.
    pub fn note(&mut self, dark: Vec<(u64, i64)>) {
        let dark = BTreeMap::from_iter(dark);
        if dark == self.noted {
            return;
        }
        self.noted = dark;
        let text: String = self.noted.iter().map(|(seq, last_played)| format!("{seq} {last_played}\n")).collect();
        self.file.write(Ok(text.into_bytes()), "The next start will not know what did not play");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::env::System;

    #[test]
    fn what_was_noted_is_read_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let paths = JournalPaths::new(&dir.path().join("proxies.db"), Arc::new(System)).unwrap();
        let mut hints = OfflineHints::read(&paths);
        hints.note(vec![(7, 1000), (8, 0)]);
        let mut next = OfflineHints::read(&paths);
        assert_eq!([7, 8, 9].map(|seq| next.of(seq)), [Some(1000), Some(0), None]);
        next.note(Vec::new());
        assert_eq!(OfflineHints::read(&paths).of(7), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }
}
