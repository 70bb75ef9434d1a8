//! Which proxies did not play when the server was last checked, stored beside the journal, so that the next start
//! begins with those that did. Only a hint: it is not synced, and if it is lost, only the order of the start suffers.
//! Used on the reconciler's thread.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::env::Env;
use super::paths::{JournalPaths, with_suffix};

/// When each proxy was last seen playing, in milliseconds since 1970-01-01 UTC, 0 for never; by the change of its
/// entry.
pub struct OfflineHints {
    env: Arc<dyn Env>,
    path: PathBuf,
    noted: BTreeMap<u64, i64>,
    failed: bool,
}

impl OfflineHints {
    pub fn read(paths: &JournalPaths) -> Self {
        let path = paths.dark();
        let text = paths.env.read(&path).unwrap_or_default();
        let line = |line: &str| {
            let (seq, last_played) = line.split_once(' ')?;
            Some((seq.parse().ok()?, last_played.parse().ok().filter(|ms| *ms >= 0)?))
        };
        let noted = String::from_utf8_lossy(&text).lines().filter_map(line).collect();
        Self { env: Arc::clone(&paths.env), path, noted, failed: false }
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
        if let Err(error) = self.write()
            && !std::mem::replace(&mut self.failed, true)
        {
            log::warn!(
                "journal: cannot write {}: {error}. The next start will not know what did not play",
                self.path.display()
            );
        }
    }

    fn write(&self) -> io::Result<()> {
        let text: String = self.noted.iter().map(|(seq, last_played)| format!("{seq} {last_played}\n")).collect();
        let new: &Path = &with_suffix(&self.path, ".unfinished");
        self.env.create(new)?;
        self.env.write_at(new, 0, text.as_bytes())?;
        self.env.rename(new, &self.path)
    }
}
