//! The journal: intent in memory, and on disk behind it. A change is applied to memory and queued on the thread of
//! the call, which never touches storage; the writer thread makes it durable and then says so.
//!
//! Lock order: `files`, then `front`, then `health` and `opened`. `front` is held for microseconds only.

mod dark;
mod deaths;
pub mod env;
mod gauges;
mod history;
mod intent;
mod maintenance;
mod many;
mod place;
mod recovery;
mod salvage;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

pub use self::dark::Dark;
pub use self::deaths::Deaths;
use self::env::{Env, System};
use self::gauges::Gauges;
pub use self::gauges::Reading;
pub use self::history::{HistoryFilter, Moment};
pub use self::intent::Cause;
use self::intent::{Applied, Intent};
use self::maintenance::Maintenance;
pub use self::many::{Step, Unchanged};
pub use self::place::SnapshotFile;
use self::place::{Place, log_of};
pub use self::store::SCHEMA_VERSION;
use self::writer::{Chores, Job, Writer};
use crate::error::{Code, Error, Result};
use crate::record::{Args, Change, Entry, Kind, Op, State, check_key};
use crate::settings::{Durability, OnError, Settings};

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
    /// `on_error=reject`: intent is again what it was before the call, and the server is to be brought back to it.
    pub undone: bool,
}

impl Ack {
    pub fn failed(error: Error) -> Ack {
        Ack { seq: 0, result: Err(error), undone: false }
    }
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
            told(Ack::failed(Error::new(Code::Panic, "the journal lost track of this call")));
        }
    }
}

/// A call that MediaServer has carried out, or an event in it.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub op: Op,
    pub kind: Kind,
    pub key: &'a str,
    /// Of an add, and of nothing else.
    pub args: Option<Args>,
    /// An add of what the server had already, and left as it was: it changes nothing where that is wanted.
    pub again: bool,
    pub cause: Cause,
}

/// What an operator wants to know of the journal.
#[derive(Debug, Clone)]
pub struct Report {
    pub file: PathBuf,
    pub condition: Condition,
    pub by_state: BTreeMap<&'static str, u64>,
    pub seq: u64,
    pub durable_seq: u64,
    pub queue: usize,
    pub queue_capacity: usize,
    pub snapshot: Option<SnapshotFile>,
    /// When (milliseconds UTC) and what.
    pub last_error: Option<(i64, Error)>,
}

/// Whether the journal works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Healthy,
    /// It was open, and now cannot be written. It heals by itself.
    StorageFailed,
    /// It could not be opened yet. It is tried again every second.
    Unavailable,
    /// It was written by a newer version: it is restored from, and nothing is recorded.
    ReadOnly,
}

/// Told of a proxy that the server should be brought back to intent for.
type Converge = Box<dyn Fn(Kind, &Arc<str>) + Send + Sync>;

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
    /// Which files the writer's connection has open.
    opened: Mutex<Option<OpenFiles>>,
    converge: OnceLock<Converge>,
    durable_seq: AtomicU64,
    gauges: Gauges,
    /// Something was written since the last checkpoint.
    dirty: AtomicBool,
    /// The log has grown so long that one should come now.
    checkpoint_due: AtomicBool,
    /// What the file has may stand nowhere else.
    snapshot_due: AtomicBool,
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
    access: Access,
    /// Changes that are in memory but not in the file: history, for the next rewrite.
    unwritten: Vec<Change>,
}

/// What may be done to the file.
enum Access {
    /// It was read: memory holds all of it, and is written to it.
    Open,
    /// It was read, and must not be written.
    ReadOnly,
    /// It was not read yet. The calls since the start wait here, the last for each proxy.
    Waiting { calls: BTreeMap<(Kind, Arc<str>), Waiting>, bytes: usize, begin: Option<Begin> },
}

/// A call that came while the journal could not be opened.
struct Waiting {
    at: i64,
    op: Op,
    /// Of an add.
    args: Option<Args>,
    cause: Cause,
}

/// Told once that intent is known.
type Begin = Box<dyn FnOnce() + Send>;

/// The database and its log, as [`env::Stat::identity`] tells them.
type Identity = [(u64, u64); 2];

/// The files that are open, to be told from those at the journal's paths.
struct OpenFiles {
    identity: Identity,
    /// False once the log is not there any more.
    log_is_there: Box<dyn Fn() -> bool + Send>,
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
}

impl Journal {
    /// Opens or creates the journal on this machine; see [`Journal::open_in`].
    pub fn open(options: &Settings) -> Result<Journal> {
        Self::open_in(options, Arc::new(System))
    }

    /// Opens or creates the journal, recovering what can be recovered, and starts its threads. Where it cannot be
    /// opened, that is its [`Condition`], and it is tried again every second; nothing on disk is changed. Fails only
    /// for a path that names no file, or when the machine gives no threads. Blocks on the disk.
    pub fn open_in(options: &Settings, env: Arc<dyn Env>) -> Result<Journal> {
        let place = Place::new(&options.path, env)?;
        let core = Arc::new(Core {
            options: options.clone(),
            place,
            durable_seq: AtomicU64::new(0),
            gauges: Gauges::new(),
            front: Mutex::new(Front {
                intent: Intent::default(),
                queue: Vec::new(),
                queued_bytes: 0,
                behind: false,
                closing: false,
                chores: Chores::default(),
                access: Access::Waiting { calls: BTreeMap::new(), bytes: 0, begin: None },
                unwritten: Vec::new(),
            }),
            wake_writer: Condvar::new(),
            stop_maintenance: Mutex::new(false),
            wake_maintenance: Condvar::new(),
            health: Mutex::new(Health::default()),
            files: Mutex::new(()),
            opened: Mutex::new(None),
            converge: OnceLock::new(),
            dirty: AtomicBool::new(false),
            checkpoint_due: AtomicBool::new(false),
            snapshot_due: AtomicBool::new(false),
        });
        let journal = Journal { core: Arc::clone(&core), writer: Mutex::new(None), maintenance: Mutex::new(None) };
        let writer = Writer::open(Arc::clone(&core));
        let front = Arc::clone(&core);
        *journal.writer.lock() = Some(spawn("zlmj-writer", move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                front.writer_died();
            }
        })?);
        *journal.maintenance.lock() = Some(spawn("zlmj-upkeep", move || Maintenance::new(core).run())?);
        Ok(journal)
    }

    /// Has `begin` told once when intent is known: at once, or on the writer thread when the journal could be opened.
    pub fn when_known(&self, told: impl FnOnce() + Send + 'static) {
        {
            let mut front = self.core.front.lock();
            if let Access::Waiting { begin, .. } = &mut front.access {
                *begin = Some(Box::new(told));
                return;
            }
        }
        told();
    }

    /// Has `told` called, on the writer thread, for every proxy whose change was undone. The first call counts.
    pub fn when_undone(&self, told: impl Fn(Kind, &Arc<str>) + Send + Sync + 'static) {
        let _ = self.core.converge.set(Box::new(told));
    }

    /// With `on_error=reject`, the reason why a call should be refused before the server carries it out.
    pub fn admit(&self) -> Result<()> {
        match (self.core.options.on_error, &self.core.health.lock().failure) {
            (OnError::Reject, Some((_, error))) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Records a call. Intent is changed when this returns; `done` is told when the change is on disk. Takes
    /// microseconds and touches no storage: made for media threads. Two calls on one key are recorded in the
    /// order in which they get here.
    pub fn record(&self, call: Call<'_>, done: Done) {
        if let Err((done, ack)) = self.enqueue(call, done) {
            done.call(ack);
        }
    }

    fn enqueue(&self, call: Call<'_>, done: Done) -> std::result::Result<(), (Done, Ack)> {
        let reject = self.core.options.on_error == OnError::Reject;
        let checked = check_key(call.key).and(match (call.op, &call.args) {
            (Op::Add, Some(_)) | (Op::Remove | Op::Set(_), None) => Ok(()),
            _ => Err(Error::invalid("an add has arguments, and no other call has")),
        });
        if let Err(error) = checked {
            return Err((done, Ack::failed(error)));
        }
        let at = self.now_ms();
        let mut front = self.core.front.lock();
        if front.closing {
            let error = Error::new(Code::Closed, "the journal is closed: the server is stopping");
            return Err((done, Ack::failed(error)));
        }
        if reject && !matches!(front.access, Access::Open) {
            drop(front);
            self.core.undone(call.kind, &call.key.into());
            return Err((done, Ack { undone: true, ..Ack::failed(self.core.last_failure()) }));
        }
        if let Access::Waiting { calls, bytes, .. } = &mut front.access {
            let error = self.core.last_failure();
            let size = call.key.len() + call.args.as_ref().map_or(0, |args| args.as_str().len());
            if calls.len() < QUEUE_CHANGES && *bytes + size <= QUEUE_BYTES {
                *bytes += size;
                let waiting = Waiting { at, op: call.op, args: call.args, cause: call.cause };
                calls.insert((call.kind, call.key.into()), waiting);
            }
            return Err((done, Ack::failed(error)));
        }
        let is_wanted =
            || front.intent.get(call.kind, call.key).is_some_and(|entry| entry.state == State::Enabled);
        let applied = if call.again && is_wanted() {
            None
        } else {
            front.intent.change(at, call.op, call.kind, call.key, call.args, call.cause)
        };
        let seq = front.intent.seq();
        if matches!(front.access, Access::ReadOnly) {
            return Err((done, Ack { seq, ..Ack::failed(self.core.last_failure()) }));
        }
        let bytes = applied.as_ref().map_or(0, Applied::bytes);
        if front.queue.len() >= QUEUE_CHANGES || front.queued_bytes + bytes > QUEUE_BYTES {
            let error = Error::new(
                Code::QueueFull,
                format!("{} changes wait for the disk already: it is too slow or stuck", front.queue.len()),
            );
            let undone = reject && applied.is_some();
            match applied {
                Some(applied) if reject => {
                    front.intent.take_back(&applied);
                    drop(front);
                    self.core.undone(applied.change.kind, &applied.change.key);
                }
                // Memory has it, the queue does not: the writer will bring the whole of memory to disk instead.
                applied => {
                    front.missed(applied);
                    front.behind = true;
                    self.core.wake_writer.notify_one();
                }
            }
            return Err((done, Ack { seq, result: Err(error), undone }));
        }
        let (now, later) = match self.core.options.durability {
            Durability::Full => (None, Some(done)),
            Durability::Async => (Some(done), None),
        };
        front.queued_bytes += bytes;
        front.queue.push(Job { seq, applied, done: later });
        self.core.gauges.queued();
        drop(front);
        self.core.wake_writer.notify_one();
        if let Some(done) = now {
            let result = match &self.core.health.lock().failure {
                Some((_, error)) => Err(error.clone()),
                None => Ok(Persisted::Soon),
            };
            done.call(Ack { seq, result, undone: false });
        }
        Ok(())
    }

    /// Changes what is wanted by ourselves, without a call of anybody's. False when that changes nothing, or the proxy
    /// is no longer wanted as change `seq` left it. Touches no storage.
    pub fn change(&self, kind: Kind, key: &str, seq: u64, op: Op, reason: &str) -> bool {
        let at = self.now_ms();
        let mut front = self.core.front.lock();
        if front.intent.get(kind, key).is_none_or(|entry| entry.seq != seq) {
            return false;
        }
        let cause = Cause { origin: "zlm-journal".to_owned(), reason: reason.to_owned() };
        let Some(applied) = front.intent.change(at, op, kind, key, None, cause) else {
            return false;
        };
        if matches!(front.access, Access::Open) {
            let seq = front.intent.seq();
            front.queued_bytes += applied.bytes();
            front.queue.push(Job { seq, applied: Some(applied), done: None });
            self.core.gauges.queued();
            self.core.wake_writer.notify_one();
        }
        true
    }

    /// Milliseconds since 1970-01-01 UTC, as the machine has it.
    pub fn now_ms(&self) -> i64 {
        self.core.place.env.now_ms()
    }

    /// What did not play when the server was last looked at.
    pub fn dark(&self) -> Dark {
        Dark::read(&self.core.place)
    }

    /// What was being started when the server died.
    pub fn deaths(&self) -> Deaths {
        Deaths::read(&self.core.place)
    }

    /// True while the proxy is wanted exactly as change `seq` left it; with 0, in whatever way.
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        let front = self.core.front.lock();
        front
            .intent
            .get(kind, key)
            .is_some_and(|entry| (entry.seq == seq || seq == 0) && entry.state == State::Enabled)
    }

    /// How many there are in a state.
    pub fn count(&self, state: State) -> u64 {
        self.core.front.lock().intent.count(state)
    }

    /// A copy of one entry.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Entry> {
        self.core.front.lock().intent.get(kind, key).cloned()
    }

    /// The proxies with whose end the stream `vhost/app/stream` of this server goes, and the other way round.
    pub fn makers(&self, stream: &str) -> Vec<(Kind, Arc<str>)> {
        self.core.front.lock().intent.makers(stream)
    }

    /// Copies of the entries whose key begins so.
    pub fn with_prefix(&self, kind: Kind, prefix: &str) -> Vec<((Kind, Arc<str>), Entry)> {
        self.core.front.lock().intent.with_prefix(kind, prefix)
    }

    /// At most `most` entries after `cursor`, in the order of kind and key.
    pub fn after(&self, cursor: Option<&(Kind, Arc<str>)>, most: usize) -> Vec<((Kind, Arc<str>), Entry)> {
        self.core.front.lock().intent.after(cursor, most)
    }

    /// Makes a snapshot now. Blocks on the disk: not for media threads. None when nothing was ever journaled.
    pub fn take_snapshot(&self) -> Result<Option<SnapshotFile>> {
        self.core.take_snapshot()
    }

    /// Copies the log into the database file now, as happens by itself once a minute and whenever the log has grown.
    /// Blocks on the disk: not for media threads.
    pub fn checkpoint(&self) -> Result<()> {
        self.core.checkpoint()
    }

    /// What the journal has done since it was opened.
    pub fn gauges(&self) -> Reading {
        self.core.gauges.read()
    }

    /// The size of the database, of its log, and of all snapshots together, in bytes. Touches the disk.
    pub fn sizes(&self) -> [u64; 3] {
        let place = &self.core.place;
        let size = |path: &std::path::Path| place.env.stat(path).ok().flatten().map_or(0, |stat| stat.len);
        let snapshots = place.list_snapshots().iter().map(|snapshot| size(&snapshot.path)).sum();
        [size(&place.file), size(&log_of(&place.file)), snapshots]
    }

    pub fn report(&self) -> Report {
        let front = self.core.front.lock();
        let by_state = State::ALL.iter().map(|&state| (state.name(), front.intent.count(state))).collect();
        let (seq, queue) = (front.intent.seq(), front.queue.len());
        let health = self.core.health.lock();
        let condition = match (&front.access, &health.failure) {
            (Access::Open, None) => Condition::Healthy,
            (Access::Open, Some(_)) => Condition::StorageFailed,
            (Access::Waiting { .. }, _) => Condition::Unavailable,
            (Access::ReadOnly, _) => Condition::ReadOnly,
        };
        Report {
            file: self.core.place.file.clone(),
            condition,
            by_state,
            seq,
            durable_seq: self.core.durable_seq.load(Ordering::Acquire),
            queue,
            queue_capacity: QUEUE_CHANGES,
            snapshot: health.snapshot.clone(),
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

impl Front {
    /// Remembers a change that the file does not get now, so that history has it later.
    fn missed(&mut self, applied: Option<Applied>) {
        if self.unwritten.len() < QUEUE_CHANGES {
            self.unwritten.extend(applied.map(|applied| applied.change));
        }
    }
}

impl Core {
    fn is_healthy(&self) -> bool {
        self.health.lock().failure.is_none()
    }

    fn failed(&self, error: Error) {
        self.gauges.failed();
        let mut health = self.health.lock();
        health.last_error = Some((self.place.env.now_ms(), error));
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
        self.gauges.failed();
        self.health.lock().last_error = Some((self.place.env.now_ms(), error));
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

    fn undone(&self, kind: Kind, key: &Arc<str>) {
        if let Some(converge) = self.converge.get() {
            converge(kind, key);
        }
    }

    /// Which files stand at the journal's paths now; none where one is missing.
    fn standing(&self) -> Option<Identity> {
        let identity = |path| Some(self.place.env.stat(path).ok()??.identity);
        Some([identity(&self.place.file)?, identity(&log_of(&self.place.file))?])
    }

    /// Notes which files are open now.
    fn opened(&self) {
        // Where it cannot be watched, the look once a second has to do.
        let log_is_there = self.place.env.watch(&log_of(&self.place.file)).unwrap_or_else(|_| Box::new(|| true));
        *self.opened.lock() = self.standing().map(|identity| OpenFiles { identity, log_is_there });
    }

    /// An error where the log that is open was deleted or replaced: what is written to it is lost with this process.
    /// Quick.
    fn log_is_there(&self) -> Result<()> {
        self.gone_unless(|open| (open.log_is_there)())
    }

    /// An error where any file that is open is no longer the one at its path.
    fn files_are_there(&self) -> Result<()> {
        self.gone_unless(|open| self.standing() == Some(open.identity))
    }

    fn gone_unless(&self, there: impl FnOnce(&OpenFiles) -> bool) -> Result<()> {
        if self.opened.lock().as_ref().is_none_or(there) {
            return Ok(());
        }
        let file = self.place.file.display();
        Err(Error::new(
            Code::Storage,
            format!("{file} or its log was deleted or replaced under the running server"),
        ))
    }
}
