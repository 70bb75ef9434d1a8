//! The watched file (`[journal] file`): what it has is wanted, under the label `file`. Applied as one change at the start
//! and each time that it changes, whether it is written in place, renamed over, or reached by a link that is changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::diff::{Desired, Diff};
use super::formats;
use crate::error::{Code, Error, Result};
use crate::journal::Cause;
use crate::model::{Entry, LABEL, ProxyKey, redact};
use crate::plugin::{Background, FileStatus, Plugin, Stop};

/// How often it is looked at. A file is read once it has not changed between two looks: it is not half written.
const LOOK: Duration = Duration::from_secs(1);
/// The label of what it has.
pub const FILE_LABEL: &str = "file";
const MOST_BYTES: u64 = 64 << 20;

/// What shows that a file is another one, or was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Print {
    /// Where links lead.
    path: PathBuf,
    len: u64,
    modified: Option<SystemTime>,
    /// Device, inode and time of change, where there are such.
    identity: [i64; 4],
}

struct Watching {
    plugin: Arc<Plugin>,
    /// As it was at the last look, and as it was when it was last applied or refused.
    seen: Option<std::result::Result<Print, String>>,
    done: Option<std::result::Result<Print, String>>,
}

/// Starts the thread.
pub fn watch(plugin: Arc<Plugin>) -> Result<Background> {
    let watching = Watching { plugin, seen: None, done: None };
    Background::start("zlmj-file", "watching the file", |stop| watching.run(stop))
}

impl Watching {
    fn run(mut self, stop: &Stop) {
        loop {
            match self.plugin.journal().settings().file.clone() {
                Some(path) => self.look(&path),
                None => {
                    (self.seen, self.done) = (None, None);
                    self.plugin.set_file_status(None);
                }
            }
            if !stop.wait(LOOK) {
                return;
            }
        }
    }

    fn look(&mut self, path: &Path) {
        let now = print_of(path);
        let is_quiet = self.seen.replace(now.clone()).is_some_and(|before| before == now);
        if self.done.as_ref() == Some(&now) || !is_quiet || self.plugin.journal().check_loaded().is_err() {
            return;
        }
        let read = now.clone().map_err(Error::invalid).and_then(|print| content_of(&print.path));
        if print_of(path) != now {
            // It was written while it was read: the next look tells.
            return;
        }
        let applied = read.and_then(|content| apply(&self.plugin, path, &content));
        let at = self.plugin.journal().now_ms();
        let before = self.plugin.file_status();
        match applied {
            Ok(Applied { entries, changed, foreign }) => {
                if changed > 0 || before.as_ref().is_none_or(|before| before.error.is_some()) {
                    log::info!(
                        "journal: {} was applied: {entries} proxies, {changed} of them changed",
                        path.display()
                    );
                }
                let foreign = foreign.into_iter().map(|(_, key)| key.to_string()).collect();
                self.plugin.set_file_status(Some(FileStatus::applied(path, at, entries, foreign)));
                self.done = Some(now);
            }
            // A call came in between.
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => {
                let why = redact(&error.message);
                if before.as_ref().and_then(|before| before.error.as_ref()) != Some(&why) {
                    log::error!("journal: {} was not applied, and nothing was changed: {why}", path.display());
                    self.plugin.set_file_status(Some(FileStatus::refused(before, path, at, &why)));
                }
                // Other errors are not the file's.
                self.done = Some(now).filter(|_| error.code == Code::InvalidArgument);
            }
        }
    }
}

fn print_of(path: &Path) -> std::result::Result<Print, String> {
    let print = || {
        let path = fs::canonicalize(path)?;
        let found = fs::metadata(&path)?;
        Ok(Print { path, len: found.len(), modified: found.modified().ok(), identity: identity_of(&found) })
    };
    print().map_err(|error: std::io::Error| format!("it cannot be read: {error}"))
}

#[cfg(unix)]
fn identity_of(found: &fs::Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt;
    [found.dev().cast_signed(), found.ino().cast_signed(), found.ctime(), found.ctime_nsec()]
}

#[cfg(not(unix))]
fn identity_of(_: &fs::Metadata) -> [i64; 4] {
    [0; 4]
}

/// What was applied.
struct Applied {
    entries: usize,
    changed: usize,
    /// What others have added under keys that it has: left alone.
    foreign: Vec<ProxyKey>,
}

fn apply(plugin: &Plugin, path: &Path, content: &[u8]) -> Result<Applied> {
    let desired = formats::read(content, formats::Format::of(path), Some(FILE_LABEL))?;
    let entries = desired.len();
    let (desired, present, foreign) = of_file(plugin, desired);
    let diff = Diff::between(desired, present, true);
    let changed = diff.added.len() + diff.updated.len() + diff.removed.len();
    if changed > 0 {
        let cause = Cause { caller: "zlm-journal".to_owned(), reason: "the file has changed".to_owned() };
        // Whether it is on disk yet or not: it is applied again at the next start.
        plugin.change_all(diff.mutations, None, &cause)?;
    }
    Ok(Applied { entries, changed, foreign })
}

type Entries = Vec<(ProxyKey, Entry)>;

/// The desired proxies that are not others', what the journal has of the file, and the keys that are others'.
fn of_file(
    plugin: &Plugin,
    mut desired: BTreeMap<ProxyKey, Desired>,
) -> (BTreeMap<ProxyKey, Desired>, Entries, Vec<ProxyKey>) {
    let (mut present, mut foreign) = (Vec::new(), Vec::new());
    for (key, entry) in plugin.journal().entries() {
        if entry.args.read().get(LABEL) == Some(FILE_LABEL) {
            present.push((key, entry));
        } else if desired.remove(&key).is_some() {
            foreign.push(key);
        }
    }
    (desired, present, foreign)
}

fn content_of(path: &Path) -> Result<Vec<u8>> {
    let unread = |error: std::io::Error| Error::invalid(format!("it cannot be read: {error}"));
    let found = fs::metadata(path).map_err(unread)?;
    if !found.is_file() {
        return Err(Error::invalid("it is not a file: name a file of type JSON, CSV or YAML in [journal] file"));
    }
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(unread)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(unread)?;
    if content.len() as u64 > MOST_BYTES {
        return Err(Error::invalid(format!("it is larger than {} MiB, the limit", MOST_BYTES >> 20)));
    }
    Ok(content)
}
