//! Where the journal lives: the file, what lies beside it (journals in one directory share it: all that is theirs
//! bears their name), and the file-system steps that make a file appear
//! whole or not at all. Knows nothing of what is in the files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

/// The paths of one journal. All derive from that of the database file.
#[derive(Debug, Clone)]
pub struct Place {
    pub file: PathBuf,
    dir: PathBuf,
    name: String,
}

impl Place {
    pub fn new(file: &Path) -> Result<Place> {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Error::invalid(format!("[journal] path={} names no file", file.display())))?;
        let dir = match file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Place { file: dir.join(name), name: name.to_owned(), dir })
    }

    /// Makes the directories (0700), refuses a path that is itself one.
    pub fn prepare(&self) -> Result<()> {
        for dir in [&self.dir, &self.snapshots(), &self.quarantine()] {
            create_dir(dir).map_err(|error| Error::io("cannot create the directory", dir, &error))?;
        }
        if self.file.is_dir() {
            return Err(Error::new(
                Code::Storage,
                format!("[journal] path={} is a directory: name a file in it instead", self.file.display()),
            ));
        }
        Ok(())
    }

    /// Takes the journal for this process, for as long as the file that it returns lives.
    pub fn lock(&self) -> Result<File> {
        let path = self.dir.join(format!("{}.lock", self.name));
        let file = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(&path)
            .map_err(|error| Error::io("cannot open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                Code::Locked,
                format!(
                    "another server has the journal {}: give each server a [journal] path of its own",
                    self.file.display()
                ),
            )),
            Err(TryLockError::Error(error)) => Err(Error::io("cannot lock", &path, &error)),
        }
    }

    pub fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub fn quarantine(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    /// A complete replacement of the journal, on its way to become it.
    pub fn recovered(&self) -> PathBuf {
        self.dir.join(format!("{}.recovered", self.name))
    }

    /// What SQLite keeps beside the file.
    fn sidecar(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}{suffix}", self.name))
    }

    /// Moves the file and its sidecars, as far as they exist, into a new folder of the quarantine. Returns the
    /// folder, or none when there was nothing to move. The database goes first, and durably: without it the next
    /// start knows that its sidecars are to follow, while a database without its log would pass for an older state.
    pub fn quarantine_files(&self, at: i64) -> Result<Option<PathBuf>> {
        let files: Vec<PathBuf> = ["", "-wal", "-shm", "-journal"]
            .iter()
            .map(|suffix| self.sidecar(suffix))
            .filter(|path| fs::symlink_metadata(path).is_ok())
            .collect();
        if files.is_empty() {
            return Ok(None);
        }
        let mut number = 0;
        let mut folder = self.quarantine().join(format!("{}-{at}-{number}", self.name));
        while folder.exists() {
            number += 1;
            folder = self.quarantine().join(format!("{}-{at}-{number}", self.name));
        }
        create_dir(&folder).map_err(|error| Error::io("cannot create the directory", &folder, &error))?;
        sync_dir(&self.quarantine())?;
        for path in &files {
            if let Some(name) = path.file_name() {
                rename(path, &folder.join(name))?;
                sync_dir(&folder)?;
                sync_dir(&self.dir)?;
            }
        }
        Ok(Some(folder))
    }

    /// Makes the complete replacement the journal. Nothing may be left at its place.
    pub fn adopt_recovered(&self) -> Result<()> {
        rename(&self.recovered(), &self.file)?;
        sync_dir(&self.dir)
    }

    /// The snapshots, newest first.
    pub fn list_snapshots(&self) -> Vec<SnapshotFile> {
        let prefix = format!("{}.", self.name);
        let Ok(entries) = fs::read_dir(self.snapshots()) else {
            return Vec::new();
        };
        let mut found: Vec<SnapshotFile> = entries
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                let name = path.file_name()?.to_str()?;
                let (seq, at) = name.strip_prefix(&prefix)?.strip_suffix(".snapshot")?.split_once('-')?;
                Some(SnapshotFile { seq: seq.parse().ok()?, at: at.parse().ok()?, path })
            })
            .collect();
        found.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.seq, snapshot.at)));
        found
    }

    /// The name of a snapshot of the state after change `seq`, made at `at` (milliseconds UTC).
    pub fn snapshot(&self, seq: u64, at: i64) -> SnapshotFile {
        let name = format!("{}.{seq:020}-{at}.snapshot", self.name);
        SnapshotFile { seq, at, path: self.snapshots().join(name) }
    }

    /// Gives a complete, synced file its final name.
    pub fn publish_snapshot(&self, temporary: &Path, snapshot: &SnapshotFile) -> Result<()> {
        rename(temporary, &snapshot.path)?;
        sync_dir(&self.snapshots())
    }

    /// Where a snapshot is written before it is known to be good.
    pub fn temporary_snapshot(&self) -> PathBuf {
        self.snapshots().join(format!("{}.unfinished", self.name))
    }
}

/// A snapshot by its name; what is in it is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub seq: u64,
    pub at: i64,
    pub path: PathBuf,
}

/// The name of the write-ahead log that SQLite keeps beside a database.
pub fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Makes a file at least `bytes` long, the new part being zeros that take up room on the disk. SQLite reads zeros at
/// the end of its log as the end of it.
pub fn preallocate(path: &Path, bytes: u64) -> Result<()> {
    let fill = || -> io::Result<()> {
        let mut file = private(OpenOptions::new().create(true).append(true)).open(path)?;
        let missing = bytes.saturating_sub(file.metadata()?.len());
        if missing > 0 {
            io::copy(&mut io::repeat(0).take(missing), &mut file)?;
            file.sync_all()?;
        }
        Ok(())
    };
    fill().map_err(|error| Error::io("cannot make room in", path, &error))
}

/// Creates an empty file that only this user may read, in place of whatever was there.
pub fn create_private(path: &Path) -> Result<File> {
    private(OpenOptions::new().create(true).truncate(true).write(true))
        .open(path)
        .map_err(|error| Error::io("cannot create", path, &error))
}

pub fn sync_file(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| Error::io("cannot sync", path, &error))
}

/// A rename is durable only once its directory is.
fn sync_dir(path: &Path) -> Result<()> {
    if cfg!(unix) {
        sync_file(path)?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::io(&format!("cannot move {} to", from.display()), to, &error))
}

/// `rm`, for which a file that is not there is as good as gone.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove", path, &error)),
        _ => Ok(()),
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
