//! A machine whose disk a test can look into, fail, fill, and cut the power of. Files live in memory; every write,
//! truncate, sync, create, rename and delete is a step of a log, in which a test can put marks of its own. Database
//! files get there through a SQLite VFS ([`vfs`]), all else through the journal's own `Env`.
//!
//! What a power loss may do is modelled after the weakest disks and file systems that the journal is made for: of
//! what was not synced, any part may be lost, also a later write and not an earlier one; a sector of 512 bytes may
//! hold garbage; a file's name is lost with its directory's last changes, whether or not its content was synced. A
//! rename happens or does not. What was synced stays.

pub mod vfs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use zlm_journal::storage::env::{Env, Stat};

pub const PAGE: usize = 4096;
pub const SECTOR: usize = 512;

pub type Inode = u64;

/// A file's bytes, by pages that images share; one that is not there is zeros.
#[derive(Clone, Default)]
pub struct Content {
    pub len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Content {
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE - within));
            let number = at / PAGE as u64;
            if self.pages.contains_key(&number) || *now != [0; PAGE][..now.len()] {
                let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
                Arc::make_mut(page)[within..within + now.len()].copy_from_slice(now);
            }
            at += now.len() as u64;
            rest = later;
        }
        self.len = self.len.max(at);
    }

    /// Fills `to`, as far as the file reaches; returns how much that is.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> usize {
        let there = self.len.saturating_sub(offset).min(to.len() as u64) as usize;
        let mut done = 0;
        while done < there {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let now = (there - done).min(PAGE - within);
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => to[done..done + now].copy_from_slice(&page[within..within + now]),
                None => to[done..done + now].fill(0),
            }
            done += now;
        }
        there
    }

    pub fn truncate(&mut self, len: u64) {
        if len < self.len {
            let keep = len.div_ceil(PAGE as u64);
            self.pages.split_off(&keep);
            let within = (len % PAGE as u64) as usize;
            if within > 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE as u64))
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }
}

/// Names and contents, at one moment.
#[derive(Clone, Default)]
pub struct Image {
    pub names: BTreeMap<PathBuf, Inode>,
    pub dirs: BTreeSet<PathBuf>,
    pub files: BTreeMap<Inode, Content>,
}

impl Image {
    pub fn content(&self, path: &Path) -> Option<&Content> {
        self.files.get(self.names.get(path)?)
    }

    pub fn content_mut(&mut self, path: &Path) -> Option<&mut Content> {
        self.files.get_mut(self.names.get(path)?)
    }

    /// What is in a directory is lost with the directory's own name.
    pub fn without_orphans(mut self) -> Image {
        let is_there = |dirs: &BTreeSet<PathBuf>, path: &Path| {
            let mut above = path.ancestors().skip(1).filter(|above| !dir().starts_with(above));
            above.all(|above| dirs.contains(above))
        };
        let dirs = self.dirs.clone();
        self.dirs.retain(|path| is_there(&dirs, path));
        self.names.retain(|path, _| is_there(&dirs, path));
        self
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Write { file, offset, bytes } => self.files.entry(*file).or_default().write(*offset, bytes),
            Step::Truncate { file, len } => self.files.entry(*file).or_default().truncate(*len),
            Step::Create { path, file } => {
                self.files.entry(*file).or_default();
                self.names.insert(path.clone(), *file);
            }
            Step::Rename { from, to, file } => {
                if self.names.get(from) == Some(file) {
                    self.names.remove(from);
                }
                self.names.insert(to.clone(), *file);
            }
            Step::Remove { path, file } => {
                if self.names.get(path) == Some(file) {
                    self.names.remove(path);
                }
            }
            Step::MakeDir(path) => {
                self.dirs.insert(path.clone());
            }
            Step::SyncFile(_) | Step::SyncDir(_) | Step::Mark(_) => {}
        }
    }
}

/// One step of the log.
#[derive(Clone)]
pub enum Step {
    Write {
        file: Inode,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Truncate {
        file: Inode,
        len: u64,
    },
    Create {
        path: PathBuf,
        file: Inode,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        file: Inode,
    },
    Remove {
        path: PathBuf,
        file: Inode,
    },
    MakeDir(PathBuf),
    SyncFile(Inode),
    SyncDir(PathBuf),
    /// Put there by the test: change so many was acknowledged.
    Mark(u64),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Write { file, offset, bytes } => write!(f, "write {} bytes to {file} at {offset}", bytes.len()),
            Step::Truncate { file, len } => write!(f, "truncate {file} to {len}"),
            Step::Create { path, file } => write!(f, "create {file}, {}", path.display()),
            Step::Rename { from, to, file } => write!(f, "rename {file}, {} to {}", from.display(), to.display()),
            Step::Remove { path, file } => write!(f, "remove {file}, {}", path.display()),
            Step::MakeDir(path) => write!(f, "mkdir {}", path.display()),
            Step::SyncFile(file) => write!(f, "sync {file}"),
            Step::SyncDir(path) => write!(f, "sync {}", path.display()),
            Step::Mark(number) => write!(f, "acknowledged {number}"),
        }
    }
}

impl Step {
    /// The file whose content it changes.
    pub fn file(&self) -> Option<Inode> {
        match self {
            Step::Write { file, .. } | Step::Truncate { file, .. } => Some(*file),
            _ => None,
        }
    }

    /// The directories whose names it changes.
    pub fn dirs(&self) -> Vec<&Path> {
        match self {
            Step::Create { path, .. } | Step::Remove { path, .. } | Step::MakeDir(path) => {
                path.parent().into_iter().collect()
            }
            Step::Rename { from, to, .. } => from.parent().into_iter().chain(to.parent()).collect(),
            _ => Vec::new(),
        }
    }
}

/// What a storage call is for, as faults see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    Write,
    Sync,
    Names,
}

/// Decides, before each storage call, whether it fails. Called with the number of the call.
pub type Fault = Box<dyn Fn(u64, Call) -> Option<io::ErrorKind> + Send + Sync>;
/// Decides whether a step is left out of the log: what a careless program forgets to do.
pub type Forgets = Box<dyn Fn(&Step) -> bool + Send + Sync>;

#[derive(Default)]
struct State {
    now: Image,
    log: Vec<Step>,
    logging: bool,
    last_inode: Inode,
    locked: BTreeSet<Inode>,
    fault: Option<Fault>,
    forgets: Option<Forgets>,
}

/// The machine. Clones are the same one.
#[derive(Clone)]
pub struct Sim(Arc<Inner>);

pub(crate) struct Inner {
    number: u64,
    /// Of its VFS.
    name: String,
    state: Mutex<State>,
    clock: AtomicI64,
    calls: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        vfs::unregister(self.number);
    }
}

impl Sim {
    /// A machine that starts with this on its disk. Its directory is [`Sim::dir`].
    pub fn with(mut image: Image) -> Sim {
        vfs::install();
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        image.dirs.extend(dir().ancestors().map(Path::to_owned));
        let last_inode = image.files.keys().max().copied().unwrap_or(0);
        let state = State { now: image, last_inode, ..State::default() };
        let inner = Arc::new(Inner {
            number,
            name: format!("zlmj-sim-{number}"),
            state: Mutex::new(state),
            clock: AtomicI64::new(1_700_000_000_000),
            calls: AtomicU64::new(0),
        });
        vfs::register(number, &inner);
        Sim(inner)
    }

    pub fn new() -> Sim {
        Self::with(Image::default())
    }

    pub fn image(&self) -> Image {
        self.0.state.lock().now.clone()
    }

    /// From here on steps are kept; returns the disk that they begin with.
    pub fn begin_log(&self) -> Image {
        let mut state = self.0.state.lock();
        state.logging = true;
        state.now.clone()
    }

    pub fn take_log(&self) -> Vec<Step> {
        std::mem::take(&mut self.0.state.lock().log)
    }

    pub fn peek_log(&self) -> Vec<Step> {
        self.0.state.lock().log.clone()
    }

    pub fn mark(&self, number: u64) {
        self.0.state.lock().step(Step::Mark(number));
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.0.state.lock().fault = fault;
    }

    pub fn set_forgets(&self, forgets: Forgets) {
        self.0.state.lock().forgets = Some(forgets);
    }

    /// Storage calls so far.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub fn step_clock(&self, by: i64) {
        self.0.clock.fetch_add(by, Ordering::SeqCst);
    }

    /// `rm -rf` of the journal's directory.
    pub fn delete_journal(&self) {
        let mut state = self.0.state.lock();
        let gone = dir().join("journal");
        state.now.names.retain(|path, _| !path.starts_with(&gone));
        state.now.dirs.retain(|path| !path.starts_with(&gone));
    }

    pub fn env(&self) -> Arc<dyn Env> {
        Arc::new(self.clone())
    }
}

/// The directory that every such machine has.
pub fn dir() -> &'static Path {
    Path::new("/sim")
}

impl Inner {
    fn call(&self, call: Call) -> io::Result<()> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        match &self.state.lock().fault {
            Some(fault) => fault(number, call).map_or(Ok(()), |kind| Err(kind.into())),
            None => Ok(()),
        }
    }
}

impl State {
    fn step(&mut self, step: Step) {
        self.now.apply(&step);
        if self.logging && !self.forgets.as_ref().is_some_and(|forgets| forgets(&step)) {
            self.log.push(step);
        }
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        self.now.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file at the path, made where it does not exist.
    fn make(&mut self, path: &Path) -> io::Result<Inode> {
        if let Ok(file) = self.find(path) {
            return Ok(file);
        }
        if !path.parent().is_some_and(|parent| self.now.dirs.contains(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.last_inode += 1;
        let file = self.last_inode;
        self.step(Step::Create { path: path.to_owned(), file });
        Ok(file)
    }
}

impl Env for Sim {
    fn vfs(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    fn now_ms(&self) -> i64 {
        self.0.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        self.0.call(Call::Read)?;
        let state = self.0.state.lock();
        if state.now.dirs.contains(path) {
            return Ok(Some(Stat { is_dir: true, len: 0, identity: (0, 0) }));
        }
        Ok(state.now.names.get(path).map(|file| Stat {
            is_dir: false,
            len: state.now.files[file].len,
            identity: (1, *file),
        }))
    }

    fn watch(&self, path: &Path) -> io::Result<Box<dyn Fn() -> bool + Send>> {
        self.0.call(Call::Read)?;
        let (state, path) = (Arc::downgrade(&self.0), path.to_owned());
        let file = self.0.state.lock().find(&path)?;
        Ok(Box::new(move || {
            state.upgrade().is_some_and(|inner| inner.state.lock().find(&path).is_ok_and(|now| now == file))
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.call(Call::Read)?;
        let state = self.0.state.lock();
        Ok(state.now.files[&state.find(path)?].bytes())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.call(Call::Read)?;
        let state = self.0.state.lock();
        let all = state.now.names.keys().chain(&state.now.dirs);
        Ok(all.filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.call(Call::Names)?;
        let mut state = self.0.state.lock();
        if !state.now.dirs.contains(dir) {
            state.step(Step::MakeDir(dir.to_owned()));
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        self.0.call(Call::Names)?;
        let mut state = self.0.state.lock();
        let file = state.make(path)?;
        state.step(Step::Truncate { file, len: 0 });
        Ok(())
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.call(Call::Write)?;
        let mut state = self.0.state.lock();
        let file = state.make(path)?;
        state.step(Step::Write { file, offset, bytes: bytes.into() });
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.0.call(Call::Sync)?;
        let mut state = self.0.state.lock();
        let step = if state.now.dirs.contains(path) {
            Step::SyncDir(path.to_owned())
        } else {
            Step::SyncFile(state.find(path)?)
        };
        state.step(step);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.call(Call::Names)?;
        let mut state = self.0.state.lock();
        let file = state.find(from)?;
        state.step(Step::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.call(Call::Names)?;
        let mut state = self.0.state.lock();
        let file = state.find(path)?;
        state.step(Step::Remove { path: path.to_owned(), file });
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        self.0.call(Call::Names)?;
        let mut state = self.0.state.lock();
        let file = state.make(path)?;
        if !state.locked.insert(file) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock { sim: self.clone(), file })))
    }
}

struct Lock {
    sim: Sim,
    file: Inode,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.sim.0.state.lock().locked.remove(&self.file);
    }
}
