//! What the journal needs of the machine: files, directories, a clock. [`System`] is the machine itself. Tests stand
//! another in its place, which forgets what was not synced, fails, or fills up; nothing else in the journal may touch
//! a file. Database files are SQLite's business: it reaches them through [`Env::vfs`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub is_dir: bool,
    pub len: u64,
    /// Tells the file from any other that ever had its name: device and inode, where there are such.
    pub identity: (u64, u64),
}

/// Each call is one step that either happens or fails. Any thread.
pub trait Env: Send + Sync {
    /// The SQLite VFS for database files; none: SQLite's own.
    fn vfs(&self) -> Option<&str> {
        None
    }
    /// Milliseconds since 1970-01-01 UTC, by a clock that may step.
    fn now_ms(&self) -> i64;
    /// None where nothing is there.
    fn stat(&self, path: &Path) -> io::Result<Option<Stat>>;
    /// Tells from now on, quickly, whether the file that is at the path now has not been deleted or replaced since. Not
    /// for database files: on Unix, closing such a file would drop SQLite's locks on it.
    fn watch(&self, path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// All that is in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes one directory, 0700, whose parent exists. One that is there already is no error.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes an empty file, 0600, in place of whatever was there.
    fn create(&self, path: &Path) -> io::Result<()>;
    /// Writes into a file, 0600, which is made where it does not exist and grows as needed.
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// When this returns, the content of the file, or the names in the directory, outlive a power loss.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Replaces what was at `to`, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, made where it does not exist, for as long as what this returns lives. None where another has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>>;
}

/// Bytes that are cached as one piece.
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

    fn watch(&self, path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>> {
        watch(path)
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
        // A page at a time: what is written at once may share one large folio of the page cache, and on ext4 (Linux 6.16
        // and later) each small write into that, as those of a log are, then costs time for every block in it.
        bytes.chunks(PAGE).try_for_each(|page| file.write_all(page))
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) {
            return File::open(path)?.sync_all();
        }
        // Elsewhere only what may be written can be synced, and a directory cannot: renames are the file system's own
        // business.
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

/// Unlocks by itself: a child that was forked this moment has the descriptor too, until it becomes another program.
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

/// By the name that the kernel shows for the descriptor. Not by `stat`: since Linux 6.13 whoever asks for a file's times
/// makes the next write note a new one, and the next sync half as slow again.
#[cfg(target_os = "linux")]
fn watch(path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>> {
    use std::os::fd::AsRawFd;
    let file = File::open(path)?;
    let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let name = fs::read_link(&link)?;
    Ok(Box::new(move || {
        // The descriptor lives as long as this closure.
        let _ = &file;
        fs::read_link(&link).is_ok_and(|now| now == name)
    }))
}

#[cfg(not(target_os = "linux"))]
fn watch(path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>> {
    let (path, before) = (path.to_owned(), identity(&fs::metadata(path)?));
    Ok(Box::new(move || fs::metadata(&path).is_ok_and(|now| identity(&now) == before)))
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
