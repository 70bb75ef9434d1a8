//! What the journal needs from the machine: files, directories, a clock. [`System`] is the real machine. Tests replace
//! it with one that forgets what was not synced, fails, or is full. Nothing else in the journal may access files,
//! except SQLite, through [`Env::vfs`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The status of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// It is a directory.
    pub is_dir: bool,
    /// Its size in bytes.
    pub len: u64,
    /// Distinguishes the file from others that had the same name: device and inode, where available.
    pub identity: (u64, u64),
}

/// Each call is one step that either happens or fails. Any thread.
pub trait Env: Send + Sync {
    /// The SQLite VFS for database files; `None`: SQLite's default.
    fn vfs(&self) -> Option<&str> {
        None
    }
    /// Milliseconds since 1970-01-01 UTC. The clock may jump.
    fn now_ms(&self) -> i64;
    /// `None` if nothing is there.
    fn stat(&self, path: &Path) -> io::Result<Option<Stat>>;
    /// Returns a fast check whether the file that is now at the path has been deleted or replaced. Not for database
    /// files: on Unix, closing such a file would release SQLite's locks on it.
    fn watch(&self, path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>>;
    /// The whole content of a file. Fails if there is none.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The paths of everything in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Creates a directory (0700) in an existing one. Succeeds if it already exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates an empty file (0600), or truncates an existing one.
    fn create(&self, path: &Path) -> io::Result<()>;
    /// Writes to a file (0600), which is created if necessary and grows as needed.
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// When this returns, the content of the file, or the names in the directory, survive a power loss.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Replaces `to` atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Fails if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, which is created if necessary, until the result is dropped. `None` if another process has it
    /// locked.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>>;
}

/// The page size of the page cache.
const PAGE: usize = 4096;

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Env for System {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Stat { is_dir: found.is_dir(), len: found.len(), identity: identity(&found) })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks the name that the kernel shows for the descriptor. Not by `stat`: since Linux 6.13, reading a file's
    /// times makes the next write store a new one, and the next sync takes half as long again.
    #[cfg(target_os = "linux")]
    fn watch(&self, path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>> {
        use std::os::fd::AsRawFd;
        let file = File::open(path)?;
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let name = fs::read_link(&link)?;
        Ok(Box::new(move || {
            // The closure must own the file to keep the descriptor open.
            let _ = &file;
            fs::read_link(&link).is_ok_and(|now| now == name)
        }))
    }

    #[cfg(not(target_os = "linux"))]
    fn watch(&self, path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>> {
        let (path, before) = (path.to_owned(), identity(&fs::metadata(path)?));
        Ok(Box::new(move || fs::metadata(&path).is_ok_and(|now| identity(&now) == before)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg(unix)]
        let created = std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(dir);
        #[cfg(not(unix))]
        let created = fs::create_dir(dir);
        match created {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        private(OpenOptions::new().create(true).truncate(true).write(true)).open(path).map(drop)
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = private(OpenOptions::new().create(true).truncate(false).write(true)).open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        // Page by page: a larger write may become one large folio of the page cache, and on ext4 (Linux 6.16 and later)
        // each later small write into that, as to a log, takes time for every block in it.
        bytes.chunks(PAGE).try_for_each(|page| file.write_all(page))
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) {
            return File::open(path)?.sync_all();
        }
        // Elsewhere only files opened for writing can be synced, and directories not at all.
        if path.is_dir() { Ok(()) } else { OpenOptions::new().write(true).open(path)?.sync_all() }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let file = private(OpenOptions::new().create(true).truncate(false).write(true)).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(Locked(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Unlocks explicitly: a child that was just forked shares the descriptor until it executes another program.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(unix)]
fn identity(found: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> (u64, u64) {
    (0, 0)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
