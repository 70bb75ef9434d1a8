//! What the journal's threads share: intent and the queue in front, the health of the storage, which files are open.
//! Knows nothing of how changes are written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, RwLock};

use super::ack::Done;
use super::gauges::Gauges;
use crate::error::{Code, Error, Result};
use crate::model::{Args, Change, Kind, Op, ProxyKey};
use crate::settings::Settings;
use crate::storage::cipher::ArgsCipher;
use crate::storage::intent::{Applied, Cause, Intent};
use crate::storage::paths::{JournalPaths, SnapshotFile, log_of};

/// Changes that may wait for the disk, and the memory they may take.
pub const QUEUE_CHANGES: usize = 1 << 16;
pub const QUEUE_BYTES: usize = 256 << 20;

/// A change on its way to disk, or (without one) a call that waits for those before it.
pub struct Job {
    pub seq: u64,
    pub applied: Option<Applied>,
    /// Without a change of its own: the one by which things are already as the call wants them.
    pub relies_on: Option<u64>,
    pub done: Option<Done>,
}

impl Job {
    /// A change that nobody waits for.
    pub fn of(applied: Applied) -> Job {
        Job { seq: applied.change.seq, applied: Some(applied), relies_on: None, done: None }
    }

    /// The change that it stands and falls with.
    pub fn stands_on(&self) -> Option<u64> {
        self.applied.as_ref().map(|applied| applied.change.seq).or(self.relies_on)
    }
}

/// Housekeeping that only the writing connection may do, asked for by the maintenance thread.
#[derive(Debug, Default, Clone, Copy)]
pub struct Chores {
    /// Copy what little of the log the last checkpoint left, so that the log starts over.
    pub finish_checkpoint: bool,
    /// Drop history up to this change and older than this time.
    pub prune: Option<(u64, i64)>,
}

/// Told of a proxy that the server should be brought back to intent for.
pub type Converge = Box<dyn Fn(Kind, &Arc<str>) + Send + Sync>;

/// What the threads share.
pub struct Core {
    options: RwLock<Arc<Settings>>,
    pub paths: JournalPaths,
    pub inbox: Mutex<Inbox>,
    pub wake_writer: Condvar,
    /// As many changes are queued as the writer waits for.
    pub all_queued: Condvar,
    pub stop_maintenance: Mutex<bool>,
    pub wake_maintenance: Condvar,
    pub health: Mutex<Health>,
    /// Held by whoever opens or moves the files, other than the writer's own connection.
    pub files: Mutex<()>,
    /// Which files the writer's connection has open.
    pub opened: Mutex<Option<OpenFiles>>,
    pub converge: OnceLock<Converge>,
    pub durable_seq: AtomicU64,
    /// The last change that the database file has without its log.
    pub file_seq: AtomicU64,
    pub gauges: Gauges,
    /// Something was written since the last checkpoint.
    pub dirty: AtomicBool,
    /// The log has grown so long that one should come now.
    pub checkpoint_due: AtomicBool,
    /// What the file has may stand nowhere else.
    pub snapshot_due: AtomicBool,
}

/// What callers touch.
pub struct Inbox {
    pub intent: Intent,
    pub queue: Vec<Job>,
    pub queued_bytes: usize,
    /// The writer waits for so many; 0 when it does not.
    pub awaited: usize,
    /// Memory has a change that was not queued: the file must be rewritten.
    pub needs_rewrite: bool,
    pub closing: bool,
    pub chores: Chores,
    pub access: Access,
    /// Changes that are in memory but not in the file: history, for the next rewrite.
    pub unwritten: Vec<Change>,
}

/// What may be done to the file.
pub enum Access {
    /// It was read: memory holds all of it, and is written to it.
    Open,
    /// It was read, and must not be written.
    ReadOnly,
    /// It was not read yet. The calls since the start wait here, the last for each proxy.
    Waiting { calls: BTreeMap<ProxyKey, Waiting>, bytes: usize, begin: Option<Begin> },
}

/// A call that came while the journal could not be opened.
pub struct Waiting {
    pub at: i64,
    pub op: Op,
    /// Of an add.
    pub args: Option<Args>,
    pub cause: Cause,
}

/// Told once that intent is known.
pub type Begin = Box<dyn FnOnce() + Send>;

/// The database and its log, as [`env::Stat::identity`] tells them.
pub type Identity = [(u64, u64); 2];

/// The files that are open, to be told from those at the journal's paths.
pub struct OpenFiles {
    pub identity: Identity,
    /// False once the log is not there any more.
    pub log_is_there: Box<dyn Fn() -> bool + Send>,
}

#[derive(Default)]
pub struct Health {
    /// The storage does not work now.
    pub failure: Option<(i64, Error)>,
    /// The last thing that went wrong, also when it is mended.
    pub last_error: Option<(i64, Error)>,
    pub snapshot: Option<SnapshotFile>,
}

impl Inbox {
    /// Remembers a change that the file does not get now, so that history has it later.
    pub fn missed(&mut self, applied: Option<Applied>) {
        if self.unwritten.len() < QUEUE_CHANGES {
            self.unwritten.extend(applied.map(|applied| applied.change));
        }
    }
}

impl Core {
    pub fn new(options: Settings, paths: JournalPaths) -> Self {
        Self {
            options: RwLock::new(Arc::new(options)),
            paths,
            durable_seq: AtomicU64::new(0),
            file_seq: AtomicU64::new(0),
            gauges: Gauges::new(),
            inbox: Mutex::new(Inbox {
                intent: Intent::default(),
                queue: Vec::new(),
                queued_bytes: 0,
                awaited: 0,
                needs_rewrite: false,
                closing: false,
                chores: Chores::default(),
                access: Access::Waiting { calls: BTreeMap::new(), bytes: 0, begin: None },
                unwritten: Vec::new(),
            }),
            wake_writer: Condvar::new(),
            all_queued: Condvar::new(),
            stop_maintenance: Mutex::new(false),
            wake_maintenance: Condvar::new(),
            health: Mutex::new(Health::default()),
            files: Mutex::new(()),
            opened: Mutex::new(None),
            converge: OnceLock::new(),
            dirty: AtomicBool::new(false),
            checkpoint_due: AtomicBool::new(false),
            snapshot_due: AtomicBool::new(false),
        }
    }

    /// Puts in what is to be written. The writer is to be woken when the lock is released.
    pub fn queue(&self, inbox: &mut Inbox, job: Job) {
        inbox.queued_bytes += job.applied.as_ref().map_or(0, Applied::bytes);
        inbox.queue.push(job);
        self.gauges.queued();
        if inbox.queue.len() == inbox.awaited {
            self.all_queued.notify_one();
        }
    }

    /// The settings as they are now.
    pub fn options(&self) -> Arc<Settings> {
        Arc::clone(&self.options.read())
    }

    pub fn set_options(&self, options: Settings) {
        *self.options.write() = Arc::new(options);
    }

    pub fn is_healthy(&self) -> bool {
        self.health.lock().failure.is_none()
    }

    pub fn failed(&self, error: Error) {
        self.gauges.failed();
        let mut health = self.health.lock();
        health.last_error = Some((self.paths.env.now_ms(), error));
        health.failure = health.last_error.clone();
    }

    /// What intent is sealed with.
    pub fn cipher(&self) -> Option<Arc<ArgsCipher>> {
        self.inbox.lock().intent.cipher().cloned()
    }

    /// Why the storage does not work now.
    pub fn last_failure(&self) -> Error {
        self.health
            .lock()
            .failure
            .as_ref()
            .map_or_else(|| Error::new(Code::Storage, "the journal cannot be written"), |(_, error)| error.clone())
    }

    /// An error that leaves the journal writable.
    pub fn noted(&self, error: Error) {
        self.gauges.failed();
        self.health.lock().last_error = Some((self.paths.env.now_ms(), error));
    }

    /// A defect of ours ended the writer: nothing more becomes durable, and everyone is told so.
    pub fn writer_died(&self) {
        let error = Error::new(Code::Panic, "the journal's writer ended in a panic: restart the server");
        log::error!("journal: {error}");
        self.failed(error);
        let untold = {
            let mut inbox = self.inbox.lock();
            inbox.closing = true;
            std::mem::take(&mut inbox.queue)
        };
        drop(untold);
    }

    pub fn recovered(&self) {
        self.health.lock().failure = None;
    }

    pub fn undone(&self, kind: Kind, key: &Arc<str>) {
        if let Some(converge) = self.converge.get() {
            converge(kind, key);
        }
    }

    /// Which files stand at the journal's paths now; none where one is missing.
    pub fn standing(&self) -> Option<Identity> {
        let identity = |path| Some(self.paths.env.stat(path).ok()??.identity);
        Some([identity(&self.paths.file)?, identity(&log_of(&self.paths.file))?])
    }

    /// Notes which files are open now.
    pub fn opened(&self) {
        // Where it cannot be watched, the look once a second has to do.
        let log_is_there = self.paths.env.watch(&log_of(&self.paths.file)).unwrap_or_else(|_| Box::new(|| true));
        *self.opened.lock() = self.standing().map(|identity| OpenFiles { identity, log_is_there });
    }

    /// An error where the log that is open was deleted or replaced: what is written to it is lost with this process.
    /// Quick.
    pub fn log_is_there(&self) -> Result<()> {
        self.gone_unless(|open| (open.log_is_there)())
    }

    /// An error where any file that is open is no longer the one at its path.
    pub fn files_are_there(&self) -> Result<()> {
        self.gone_unless(|open| self.standing() == Some(open.identity))
    }

    pub fn gone_unless(&self, there: impl FnOnce(&OpenFiles) -> bool) -> Result<()> {
        if self.opened.lock().as_ref().is_none_or(there) {
            return Ok(());
        }
        let file = self.paths.file.display();
        Err(Error::new(
            Code::Storage,
            format!("{file} or its log was deleted or replaced under the running server"),
        ))
    }
}
