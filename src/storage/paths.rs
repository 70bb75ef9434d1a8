//! The paths of the journal and of the files beside it, which all begin with its name since several journals may share
//! a directory, and the file operations that make a file appear complete or not at all. Knows nothing of the files'
//! content.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::env::{Env, Stat};
use crate::error::{Code, Error, Result};

/// The paths of one journal, derived from that of the database.
#[derive(Clone)]
pub struct JournalPaths {
    pub env: Arc<dyn Env>,
    pub file: PathBuf,
    dir: PathBuf,
    name: String,
}

/// The suffixes of a database and of what SQLite keeps beside it.
const SIDECARS: &[&str] = &["", "-wal", "-shm", "-journal"];
/// A mark is written alternately to two sectors, so that a torn write never damages the other.
const MARK_SLOT: usize = 512;

/// Why files are moved to quarantine.
#[derive(Debug, Clone, Copy)]
pub struct QuarantineReason {
    /// Part of the folder's name.
    name: &'static str,
    /// How many folders with this reason keep their files: repeated failures must not fill the disk.
    kept: usize,
}

pub const DAMAGED: QuarantineReason = QuarantineReason { name: "damaged", kept: 8 };
pub const REPLACED: QuarantineReason = QuarantineReason { name: "replaced", kept: 4 };

impl JournalPaths {
    pub fn new(file: &Path, env: Arc<dyn Env>) -> Result<JournalPaths> {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Error::invalid(format!("[journal] path={} does not name a file", file.display())))?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        Ok(JournalPaths { env, file: dir.join(name), name: name.to_owned(), dir })
    }

    /// Creates the directories (0700), and fails if the path is a directory itself.
    pub fn prepare(&self) -> Result<()> {
        for dir in [&self.dir, &self.snapshots(), &self.quarantine()] {
            self.ensure_dir(dir)?;
        }
        if self.stat(&self.file)?.is_some_and(|found| found.is_dir) {
            let file = self.file.display();
            return Err(Error::storage(format!(
                "[journal] path={file} is a directory: name a file in it instead"
            )));
        }
        Ok(())
    }

    /// Creates a directory and its parents durably. An existing one may have just been created by a process that died
    /// before syncing it, so its name is synced too. If its parent may not be opened, it is not ours and existed
    /// before.
    fn ensure_dir(&self, dir: &Path) -> Result<()> {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if self.stat(dir)?.is_some_and(|found| found.is_dir) {
            return match self.env.sync(parent) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    Err(Error::io("cannot sync", parent, &error))
                }
                _ => Ok(()),
            };
        }
        if parent != dir {
            self.ensure_dir(parent)?;
        }
        self.env.create_dir(dir).map_err(|error| Error::io("cannot create the directory", dir, &error))?;
        self.sync(parent)
    }

    /// Locks the journal for this process until the result is dropped.
    pub fn lock(&self) -> Result<Box<dyn Send>> {
        let path = self.beside(".lock");
        match self.env.lock(&path) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(Error::new(
                Code::Locked,
                format!(
                    "another server uses the journal {}: set a different [journal] path for each server",
                    self.file.display()
                ),
            )),
            Err(error) => Err(Error::io("cannot lock", &path, &error)),
        }
    }

    /// False if the lock file was deleted.
    pub fn is_locked(&self) -> Result<bool> {
        Ok(self.stat(&self.beside(".lock"))?.is_some())
    }

    fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    fn quarantine(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    /// Where a database is written that will be moved to `path` when it is valid.
    pub fn unfinished(&self, path: &Path) -> PathBuf {
        path.with_file_name(format!("{}.unfinished", self.name))
    }

    /// A complete replacement of the journal that is about to be renamed.
    pub fn recovered(&self) -> PathBuf {
        self.beside(".recovered")
    }

    /// Where a handler of crash signals writes what was being worked on: the number of each change, one per line; see
    /// `crash_counters`.
    pub fn crash(&self) -> PathBuf {
        self.beside(".crash")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        with_suffix(&self.file, suffix)
    }

    /// Moves the file and its sidecars, if any, to a new folder of the quarantine. The database is moved first,
    /// durably: without it, the next start knows that its sidecars must follow, while a database without its log would
    /// look like an older state.
    pub fn quarantine_files(&self, because: QuarantineReason) -> Result<()> {
        let mut files = Vec::new();
        for suffix in SIDECARS {
            let path = self.beside(suffix);
            if self.stat(&path)?.is_some() {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        let at = self.env.now_ms();
        let folder_no = |number| self.quarantine().join(format!("{}-{at}-{number}-{}", self.name, because.name));
        let mut number = 0;
        while self.stat(&folder_no(number))?.is_some() {
            number += 1;
        }
        let folder = folder_no(number);
        self.ensure_dir(&folder)?;
        for path in &files {
            if let Some(name) = path.file_name() {
                self.publish(path, &folder.join(name))?;
                self.sync(&self.dir)?;
            }
        }
        for old in self.quarantined(because).iter().skip(because.kept) {
            let _ = self.empty(old);
        }
        Ok(())
    }

    /// The folders of the quarantine with one reason, the newest first.
    pub fn quarantined(&self, because: QuarantineReason) -> Vec<PathBuf> {
        let end = format!("-{}", because.name);
        let mut folders = self.env.list(&self.quarantine()).unwrap_or_default();
        folders.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&format!("{}-", self.name)) && name.ends_with(&end)
        });
        folders.sort();
        folders.reverse();
        folders
    }

    /// The database in a folder of the quarantine, if it was not removed.
    pub fn database_in(&self, folder: &Path) -> Option<PathBuf> {
        let database = folder.join(&self.name);
        self.stat(&database).ok().flatten().map(|_| database)
    }

    /// Removes the files in a folder of the quarantine. The folder stays as a record of when it happened.
    pub fn empty(&self, folder: &Path) -> Result<()> {
        let files = self.env.list(folder).map_err(|error| Error::io("cannot list", folder, &error))?;
        files.iter().try_for_each(|file| self.remove(file))
    }

    /// Gives a complete, synced file its final name, durably in the directory of that.
    pub fn publish(&self, from: &Path, to: &Path) -> Result<()> {
        let renamed = self.env.rename(from, to);
        renamed.map_err(|error| Error::io(&format!("cannot move {} to", from.display()), to, &error))?;
        to.parent().map_or(Ok(()), |dir| self.sync(dir))
    }

    /// The snapshots, the newest first.
    pub fn list_snapshots(&self) -> Vec<SnapshotFile> {
        let prefix = format!("{}.", self.name);
        let mut found: Vec<SnapshotFile> = self
            .env
            .list(&self.snapshots())
            .unwrap_or_default()
            .into_iter()
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?;
                let (seq, at) = name.strip_prefix(&prefix)?.strip_suffix(".snapshot")?.split_once('-')?;
                Some(SnapshotFile { seq: seq.parse().ok()?, at: at.parse().ok()?, path })
            })
            .collect();
        found.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.seq, snapshot.at)));
        found
    }

    /// The path of a new snapshot of the state after change `seq`.
    pub fn snapshot(&self, seq: u64) -> SnapshotFile {
        let at = self.env.now_ms();
        let name = format!("{}.{seq:020}-{at}.snapshot", self.name);
        SnapshotFile { seq, at, path: self.snapshots().join(name) }
    }

    /// The highest change that is known to be on disk; 0 if none is, or the mark cannot be read.
    pub fn read_mark(&self) -> u64 {
        let bytes = self.env.read(&self.beside(".mark")).unwrap_or_default();
        bytes.chunks(MARK_SLOT).filter_map(parse_mark).max().unwrap_or(0)
    }

    /// Durably marks changes up to `seq` as on disk, so that the next start notices a missing log.
    pub fn write_mark(&self, seq: u64) -> Result<()> {
        let path = self.beside(".mark");
        let mut slot = format!("{seq} {:08x}\n", crc32fast::hash(&seq.to_le_bytes())).into_bytes();
        slot.resize(MARK_SLOT, b' ');
        let bytes = self.env.read(&path).unwrap_or_default();
        let marks =
            bytes.chunks(MARK_SLOT).enumerate().filter_map(|(slot, bytes)| Some((parse_mark(bytes)?, slot)));
        let offset = if marks.max().is_some_and(|(_, slot)| slot == 0) { MARK_SLOT as u64 } else { 0 };
        self.env.write_at(&path, offset, &slot).map_err(|error| Error::io("cannot write", &path, &error))?;
        self.sync(&path)
    }

    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        self.env.stat(path).map_err(|error| Error::io("cannot get the status of", path, &error))
    }

    pub fn sync(&self, path: &Path) -> Result<()> {
        self.env.sync(path).map_err(|error| Error::io("cannot sync", path, &error))
    }

    /// Reads a file; a missing one is empty.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        match self.env.read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(|error| Error::io("cannot read", path, &error)),
        }
    }

    /// Removes a file; succeeds if there is none.
    pub fn remove(&self, path: &Path) -> Result<()> {
        match self.env.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove", path, &error)),
            _ => Ok(()),
        }
    }

    /// Removes an invalid database with its sidecars.
    pub fn remove_database(&self, path: &Path) -> Result<()> {
        SIDECARS.iter().try_for_each(|suffix| self.remove(&with_suffix(path, suffix)))
    }

    /// Extends a file to at least `bytes` with allocated zeros, and makes its name durable.
    pub fn preallocate(&self, path: &Path, bytes: u64) -> Result<()> {
        const ZEROS: &[u8] = &[0; 1 << 16];
        let mut len = self.stat(path)?.map_or(0, |found| found.len);
        if len >= bytes {
            return Ok(());
        }
        while len < bytes {
            let missing = usize::try_from(bytes - len).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..missing).unwrap_or(ZEROS);
            self.env.write_at(path, len, zeros).map_err(|error| Error::io("cannot preallocate", path, &error))?;
            len += zeros.len() as u64;
        }
        self.sync(path)?;
        self.sync(&self.dir)
    }
}

fn parse_mark(slot: &[u8]) -> Option<u64> {
    let (seq, crc) = std::str::from_utf8(slot).ok()?.trim_end().split_once(' ')?;
    let seq: u64 = seq.parse().ok()?;
    (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(&seq.to_le_bytes())).then_some(seq)
}

/// A snapshot by its name; its content is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotFile {
    /// The last change that it includes.
    pub seq: u64,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Where it lies.
    #[serde(rename = "file", serialize_with = "shown")]
    pub path: PathBuf,
}

/// Also if it is not UTF-8.
fn shown<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// A file beside the journal that is replaced as a whole. It is not synced, since it must survive the process, not the
/// machine.
pub struct NoteFile {
    paths: JournalPaths,
    path: PathBuf,
    has_failed: bool,
}

impl NoteFile {
    pub fn new(paths: &JournalPaths, suffix: &str) -> NoteFile {
        NoteFile { paths: paths.clone(), path: paths.beside(suffix), has_failed: false }
    }

    /// Its content; empty if it cannot be read.
    pub fn read(&self) -> Vec<u8> {
        self.paths.read(&self.path).unwrap_or_default()
    }

    /// Replaces the content; without any, the file is removed. Logs the first failure, with what it leads to.
    pub fn write(&mut self, content: io::Result<Vec<u8>>, otherwise: &str) {
        if let Err(error) = content.and_then(|content| self.try_write(&content))
            && !std::mem::replace(&mut self.has_failed, true)
        {
            log::warn!("journal: cannot write {}: {error}. {otherwise}", self.path.display());
        }
    }

    fn try_write(&self, content: &[u8]) -> io::Result<()> {
        let env = &self.paths.env;
        if content.is_empty() {
            return match env.remove(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let new = with_suffix(&self.path, ".unfinished");
        env.create(&new)?;
        env.write_at(&new, 0, content)?;
        env.rename(&new, &self.path)
    }
}

/// The path of SQLite's write-ahead log of a database.
pub fn log_of(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
