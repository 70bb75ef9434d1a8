//! The journal: intent in memory, and on disk behind it. A change is applied to memory and queued on the thread of
//! the call, which never touches storage; the writer thread makes it durable and then says so.
//!
//! Lock order: `files`, then `front`, then `health`. `front` is held for microseconds only.

mod intent;
mod maintenance;
mod place;
mod recovery;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

pub use self::intent::Cause;
use self::intent::Intent;
use self::maintenance::Maintenance;
use self::place::Place;
pub use self::place::SnapshotFile;
pub use self::store::SCHEMA_VERSION;
use self::writer::{Chores, Job, Writer};
use crate::error::{Code, Error, Result};
use crate::record::{Args, Entry, Kind, Op, State, check_key};
use crate::settings::{Durability, Settings};

/// Changes that may wait for the disk, and the memory they may take.
const QUEUE_CHANGES: usize = 1 << 16;
const QUEUE_BYTES: usize = 256 << 20;

/// How an acknowledged change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persisted {
    /// On disk: no crash takes it back.
    Yes,
    /// `durability=async`: in the queue.
    Soon,
}

/// The end of one recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The change by which intent is what the call asked for; 0 when it was never applied.
    pub seq: u64,
    pub result: Result<Persisted>,
}

/// Told exactly once how a recorded call ended: on the writer thread, or on the caller's own for
/// `durability=async` and for refusals. What it calls must not block. Dropped untold, it tells of a failure:
/// whatever goes wrong in here, no reply is ever left hanging.
pub struct Done(Option<Box<dyn FnOnce(Ack) + Send>>);

impl Done {
    pub fn new(told: impl FnOnce(Ack) + Send + 'static) -> Done {
        Done(Some(Box::new(told)))
    }

    pub fn call(mut self, ack: Ack) {
        if let Some(told) = self.0.take() {
            told(ack);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Ack { seq: 0, result: Err(Error::new(Code::Panic, "the journal lost track of this call")) });
        }
    }
}

/// A call that MediaServer has carried out.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub op: Op,
    pub kind: Kind,
    pub key: &'a str,
    /// Of an add; empty for a removal.
    pub args: Option<Args>,
    pub cause: Cause,
}

/// What an operator wants to know of the journal.
#[derive(Debug, Clone)]
pub struct Report {
    pub file: PathBuf,
    pub by_state: BTreeMap<&'static str, u64>,
    pub seq: u64,
    pub durable_seq: u64,
    pub queue: usize,
    pub queue_capacity: usize,
    pub snapshot: Option<SnapshotFile>,
    pub healthy: bool,
    /// When (milliseconds UTC) and what.
    pub last_error: Option<(i64, Error)>,
}

/// What the threads share.
struct Core {
    options: Settings,
    place: Place,
    front: Mutex<Front>,
    wake_writer: Condvar,
    stop_maintenance: Mutex<bool>,
    wake_maintenance: Condvar,
    health: Mutex<Health>,
    /// Held by whoever opens or moves the files, other than the writer's own connection.
    files: Mutex<()>,
    durable_seq: AtomicU64,
    /// Something was written since the last checkpoint.
    dirty: AtomicBool,
    /// The log has grown so long that one should come now.
    checkpoint_due: AtomicBool,
}

/// What callers touch.
struct Front {
    intent: Intent,
    queue: Vec<Job>,
    queued_bytes: usize,
    /// Memory has a change that was not queued: the file must be rewritten.
    behind: bool,
    closing: bool,
    chores: Chores,
}

#[derive(Default)]
struct Health {
    /// The storage does not work now.
    failure: Option<(i64, Error)>,
    /// The last thing that went wrong, also when it is mended.
    last_error: Option<(i64, Error)>,
    snapshot: Option<SnapshotFile>,
}

/// An open journal. Dropping it closes it.
pub struct Journal {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    /// Held, and with it the journal, until the process ends or the journal is closed.
    _lock: File,
}

impl Journal {
    /// Opens or creates the journal, recovering what can be recovered, and starts its threads. Fails only when
    /// nothing can be written at that path or the file is another's, and then leaves everything as it was.
    pub fn open(options: &Settings) -> Result<Journal> {
        let place = Place::new(&options.path)?;
        place.prepare()?;
        let lock = place.lock()?;
        let opened = recovery::open(&place, now_ms())?;
        let mut health = Health { snapshot: place.list_snapshots().into_iter().next(), ..Health::default() };
        if let Some(report) = opened.report {
            log::error!("journal: {report}");
            health.last_error = Some((now_ms(), Error::corrupt(report)));
        }
        log::info!(
            "journal: {} open, {} proxies, last change {}",
            place.file.display(),
            opened.intent.digest().count,
            opened.intent.seq()
        );
        let core = Arc::new(Core {
            options: options.clone(),
            place,
            durable_seq: AtomicU64::new(opened.intent.seq()),
            front: Mutex::new(Front {
                intent: opened.intent,
                queue: Vec::new(),
                queued_bytes: 0,
                behind: false,
                closing: false,
                chores: Chores::default(),
            }),
            wake_writer: Condvar::new(),
            stop_maintenance: Mutex::new(false),
            wake_maintenance: Condvar::new(),
            health: Mutex::new(health),
            files: Mutex::new(()),
            dirty: AtomicBool::new(false),
            checkpoint_due: AtomicBool::new(false),
        });
        let journal = Journal {
            core: Arc::clone(&core),
            writer: Mutex::new(None),
            maintenance: Mutex::new(None),
            _lock: lock,
        };
        let writer = Writer::new(Arc::clone(&core), opened.store);
        let front = Arc::clone(&core);
        *journal.writer.lock() = Some(spawn("zlmj-writer", move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                front.writer_died();
            }
        })?);
        *journal.maintenance.lock() = Some(spawn("zlmj-upkeep", move || Maintenance::new(core).run())?);
        Ok(journal)
    }

    /// Records a call. Intent is changed when this returns; `done` is told when the change is on disk. Takes
    /// microseconds and touches no storage: made for media threads. Two calls on one key are recorded in the
    /// order in which they get here.
    pub fn record(&self, call: Call<'_>, done: Done) {
        if let Err((done, seq, error)) = self.enqueue(call, done) {
            done.call(Ack { seq, result: Err(error) });
        }
    }

    fn enqueue(&self, call: Call<'_>, done: Done) -> std::result::Result<(), (Done, u64, Error)> {
        if let Err(error) = check_key(call.key) {
            return Err((done, 0, error));
        }
        let at = now_ms();
        let mut front = self.core.front.lock();
        if front.closing {
            return Err((done, 0, Error::new(Code::Closed, "the journal is closed: the server is stopping")));
        }
        let applied = match (call.op, call.args) {
            (Op::Add, Some(args)) => Some(front.intent.add(at, call.kind, call.key, args, call.cause)),
            (Op::Add, None) => return Err((done, 0, Error::invalid("an add has arguments"))),
            (Op::Remove, _) => front.intent.remove(at, call.kind, call.key, call.cause),
        };
        let seq = front.intent.seq();
        let bytes = applied.as_ref().map_or(0, |applied| {
            applied.change.args.as_ref().map_or(0, |args| args.as_str().len()) + applied.change.key.len()
        });
        if front.queue.len() >= QUEUE_CHANGES || front.queued_bytes + bytes > QUEUE_BYTES {
            // Memory has it, the queue does not: the writer will bring the whole of memory to disk instead.
            front.behind = true;
            self.core.wake_writer.notify_one();
            return Err((
                done,
                seq,
                Error::new(
                    Code::QueueFull,
                    format!("{} changes wait for the disk already: it is too slow or stuck", front.queue.len()),
                ),
            ));
        }
        let (now, later) = match self.core.options.durability {
            Durability::Full => (None, Some(done)),
            Durability::Async => (Some(done), None),
        };
        front.queued_bytes += bytes;
        front.queue.push(Job { seq, applied, done: later });
        drop(front);
        self.core.wake_writer.notify_one();
        if let Some(done) = now {
            let result = match &self.core.health.lock().failure {
                Some((_, error)) => Err(error.clone()),
                None => Ok(Persisted::Soon),
            };
            done.call(Ack { seq, result });
        }
        Ok(())
    }

    /// True while the proxy is wanted exactly as change `seq` left it.
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        let front = self.core.front.lock();
        front.intent.get(kind, key).is_some_and(|entry| entry.seq == seq && entry.state == State::Enabled)
    }

    /// A copy of one entry.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Entry> {
        self.core.front.lock().intent.get(kind, key).cloned()
    }

    /// At most `most` entries after `cursor`, in the order of kind and key.
    pub fn after(&self, cursor: Option<&(Kind, Arc<str>)>, most: usize) -> Vec<((Kind, Arc<str>), Entry)> {
        self.core.front.lock().intent.after(cursor, most)
    }

    /// Makes a snapshot now. Blocks on the disk: not for media threads. None when nothing was ever journaled.
    pub fn take_snapshot(&self) -> Result<Option<SnapshotFile>> {
        self.core.take_snapshot()
    }

    pub fn report(&self) -> Report {
        let (by_state, seq, queue) = {
            let front = self.core.front.lock();
            let counts = State::ALL.iter().map(|&state| (state.name(), front.intent.count(state)));
            (counts.collect(), front.intent.seq(), front.queue.len())
        };
        let health = self.core.health.lock();
        Report {
            file: self.core.place.file.clone(),
            by_state,
            seq,
            durable_seq: self.core.durable_seq.load(Ordering::Acquire),
            queue,
            queue_capacity: QUEUE_CHANGES,
            snapshot: health.snapshot.clone(),
            healthy: health.failure.is_none(),
            last_error: health.last_error.clone(),
        }
    }

    /// Writes what is queued, acknowledges it and ends the threads. Later calls are refused. Blocks on the disk.
    pub fn close(&self) {
        // Maintenance first: it asks the writer for chores.
        *self.core.stop_maintenance.lock() = true;
        self.core.wake_maintenance.notify_all();
        join(&self.maintenance);
        self.core.front.lock().closing = true;
        self.core.wake_writer.notify_all();
        join(&self.writer);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::new(Code::Storage, format!("cannot start the thread {name}: {error}")))
}

/// Whoever comes second waits for the first.
fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    if let Some(thread) = thread.lock().take()
        && thread.join().is_err()
    {
        log::error!("journal: a thread ended in a panic");
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Core {
    fn is_healthy(&self) -> bool {
        self.health.lock().failure.is_none()
    }

    fn failed(&self, error: Error) {
        let mut health = self.health.lock();
        health.last_error = Some((now_ms(), error));
        health.failure = health.last_error.clone();
    }

    /// Why the storage does not work now.
    fn last_failure(&self) -> Error {
        self.health
            .lock()
            .failure
            .as_ref()
            .map_or_else(|| Error::new(Code::Storage, "the journal cannot be written"), |(_, error)| error.clone())
    }

    /// An error that leaves the journal writable.
    fn noted(&self, error: Error) {
        self.health.lock().last_error = Some((now_ms(), error));
    }

    /// A defect of ours ended the writer: nothing more becomes durable, and everyone is told so.
    fn writer_died(&self) {
        let error = Error::new(Code::Panic, "the journal's writer ended in a panic: restart the server");
        log::error!("journal: {error}");
        self.failed(error);
        let untold = {
            let mut front = self.front.lock();
            front.closing = true;
            std::mem::take(&mut front.queue)
        };
        drop(untold);
    }

    fn recovered(&self) {
        self.health.lock().failure = None;
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
