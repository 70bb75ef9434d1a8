//! The journal: intent in memory, and on disk behind it. A change is applied to memory and queued on the thread of
//! the call, which never touches storage; the writer thread makes it durable and then says so.
//!
//! Lock order: `files`, then `inbox`, then `health` and `opened`. `inbox` is held for microseconds only.

mod ack;
mod batch;
mod gauges;
mod history;
mod inbox;
mod upkeep;
mod writer;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

pub use self::ack::{Ack, Done, Persisted, Reply};
pub use self::batch::{AppliedMutation, Mutation, Precondition};
pub use self::gauges::Reading;
pub use self::history::{HistoryFilter, PointInTime};
use self::inbox::{Access, Core, Job, QUEUE_BYTES, QUEUE_CHANGES, Waiting};
use self::upkeep::Maintenance;
use self::writer::Writer;
use crate::error::{Code, Error, Result};
use crate::model::{Args, Entry, Kind, NamingRules, Op, State, Stream, check_key};
use crate::settings::{Durability, OnError, Settings};
pub use crate::storage::crash_counters::CrashCounters;
pub use crate::storage::db::SCHEMA_VERSION;
use crate::storage::env::{Env, System};
use crate::storage::intent::Applied;
pub use crate::storage::intent::Cause;
pub use crate::storage::offline_hints::OfflineHints;
pub use crate::storage::paths::SnapshotFile;
use crate::storage::paths::{JournalPaths, log_of};

/// A call that MediaServer has carried out, or an event in it.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub op: Op,
    pub kind: Kind,
    pub key: &'a str,
    /// Of an add, and of nothing else.
    pub args: Option<Args>,
    /// An add of what the server had already, and left as it was: it changes nothing where that is wanted, with
    /// whatever arguments.
    pub already_exists: bool,
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
    /// The last change that a plain copy of the database file has.
    pub file_seq: u64,
    pub queue: usize,
    pub queue_capacity: usize,
    pub snapshot: Option<SnapshotFile>,
    /// Arguments are sealed with a key.
    pub encrypted: bool,
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
        let paths = JournalPaths::new(&options.path, env)?;
        let core = Arc::new(Core::new(options.clone(), paths));
        let journal = Journal { core: Arc::clone(&core), writer: Mutex::new(None), maintenance: Mutex::new(None) };
        let writer = Writer::open(Arc::clone(&core));
        let inbox = Arc::clone(&core);
        *journal.writer.lock() = Some(spawn("zlmj-writer", move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                inbox.writer_died();
            }
        })?);
        *journal.maintenance.lock() = Some(spawn("zlmj-upkeep", move || Maintenance::new(core).run())?);
        Ok(journal)
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.core.options()
    }

    /// Has other settings count from now on; where the file is, its key and what is started stay as they were opened with.
    pub fn set_settings(&self, settings: Settings) {
        self.core.set_options(settings);
    }

    /// Has `begin` told once when intent is known: at once, or on the writer thread when the journal could be opened.
    pub fn on_loaded(&self, told: impl FnOnce() + Send + 'static) {
        {
            let mut inbox = self.core.inbox.lock();
            if let Access::Waiting { begin, .. } = &mut inbox.access {
                *begin = Some(Box::new(told));
                return;
            }
        }
        told();
    }

    /// Has `told` called, on the writer thread, for every proxy whose change was undone. The first call counts.
    pub fn on_undone(&self, told: impl Fn(Kind, &Arc<str>) + Send + Sync + 'static) {
        let _ = self.core.converge.set(Box::new(told));
    }

    /// With `on_error=reject`, the reason why a call should be refused before the server carries it out.
    pub fn admit(&self) -> Result<()> {
        match (self.core.options().on_error, &self.core.health.lock().failure) {
            (OnError::Reject, Some((_, error))) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Fails for as long as nobody knows what is wanted: the journal could not be opened yet.
    pub fn check_loaded(&self) -> Result<()> {
        match self.core.inbox.lock().access {
            Access::Waiting { .. } => Err(self.core.last_failure()),
            Access::Open | Access::ReadOnly => Ok(()),
        }
    }

    /// Records a call. Intent is changed when this returns; `done` is told when the change is on disk. Takes
    /// microseconds and touches no storage: made for media threads. Two calls on one key are recorded in the
    /// order in which they get here. An add of what is wanted already, alike in every argument, changes nothing.
    pub fn record(&self, call: Call<'_>, done: Done) {
        self.queue(call, done);
        self.wake();
    }

    /// The same for a caller who holds a lock that others wait for: [`Journal::wake`] is to follow when it is released.
    pub fn queue(&self, call: Call<'_>, done: Done) {
        if let Err((done, ack)) = self.enqueue(call, done) {
            done.call(ack);
        }
    }

    /// Has what was queued written.
    pub fn wake(&self) {
        self.core.wake_writer.notify_one();
    }

    fn enqueue(&self, call: Call<'_>, done: Done) -> std::result::Result<(), (Done, Ack)> {
        let reject = self.core.options().on_error == OnError::Reject;
        let checked = check_key(call.key).and(match (call.op, &call.args) {
            (Op::Add, Some(_)) | (Op::Remove | Op::Set(_), None) => Ok(()),
            _ => Err(Error::invalid("an add has arguments, and no other call has")),
        });
        if let Err(error) = checked {
            return Err((done, Ack::failed(error)));
        }
        let at = self.now_ms();
        let mut inbox = self.core.inbox.lock();
        if inbox.closing {
            let error = Error::new(Code::Closed, "the journal is closed: the server is stopping");
            return Err((done, Ack::failed(error)));
        }
        if reject && !matches!(inbox.access, Access::Open) {
            drop(inbox);
            self.core.undone(call.kind, &call.key.into());
            return Err((done, Ack { undone: true, ..Ack::failed(self.core.last_failure()) }));
        }
        if let Access::Waiting { calls, bytes, .. } = &mut inbox.access {
            let error = self.core.last_failure();
            let size = call.key.len() + call.args.as_ref().map_or(0, |args| args.as_str().len());
            if calls.len() < QUEUE_CHANGES && *bytes + size <= QUEUE_BYTES {
                *bytes += size;
                let waiting = Waiting { at, op: call.op, args: call.args, cause: call.cause };
                calls.insert((call.kind, call.key.into()), waiting);
            }
            return Err((done, Ack::failed(error)));
        }
        let durable = self.core.durable_seq.load(Ordering::Acquire);
        // One that is not on disk may yet be undone, and this call must then be undone with it.
        let is_the_same = |entry: &Entry| call.args.as_ref() == Some(&entry.args) && entry.seq <= durable;
        let wanted = inbox.intent.get(call.kind, call.key).filter(|entry| entry.state == State::Enabled);
        let relies_on = wanted
            .filter(|entry| call.op == Op::Add && (call.already_exists || is_the_same(entry)))
            .map(|entry| entry.seq);
        let applied = match relies_on {
            Some(_) => None,
            None => inbox.intent.change(at, call.op, call.kind, call.key, call.args, call.cause),
        };
        let seq = inbox.intent.seq();
        if matches!(inbox.access, Access::ReadOnly) {
            return Err((done, Ack { seq, ..Ack::failed(self.core.last_failure()) }));
        }
        let bytes = applied.as_ref().map_or(0, Applied::bytes);
        if inbox.queue.len() >= QUEUE_CHANGES || inbox.queued_bytes + bytes > QUEUE_BYTES {
            let error = Error::new(
                Code::QueueFull,
                format!("{} changes wait for the disk already: it is too slow or stuck", inbox.queue.len()),
            );
            let undone = reject && applied.is_some();
            match applied {
                Some(applied) if reject => {
                    inbox.intent.take_back(&applied);
                    drop(inbox);
                    self.core.undone(applied.change.kind, &applied.change.key);
                }
                // Memory has it, the queue does not: the writer will bring the whole of memory to disk instead.
                applied => {
                    inbox.missed(applied);
                    inbox.needs_rewrite = true;
                    self.core.wake_writer.notify_one();
                }
            }
            return Err((done, Ack { seq, result: Err(error), undone }));
        }
        let (now, later) = match self.core.options().durability {
            Durability::Full => (None, Some(done)),
            Durability::Async => (Some(done), None),
        };
        self.core.queue(&mut inbox, Job { seq, applied, relies_on, done: later });
        drop(inbox);
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
        let mut inbox = self.core.inbox.lock();
        if inbox.intent.get(kind, key).is_none_or(|entry| entry.seq != seq) {
            return false;
        }
        let cause = Cause { origin: "zlm-journal".to_owned(), reason: reason.to_owned() };
        let Some(applied) = inbox.intent.change(at, op, kind, key, None, cause) else {
            return false;
        };
        if matches!(inbox.access, Access::Open) {
            self.core.queue(&mut inbox, Job::of(applied));
            self.core.wake_writer.notify_one();
        }
        true
    }

    /// Milliseconds since 1970-01-01 UTC, as the machine has it.
    pub fn now_ms(&self) -> i64 {
        self.core.paths.env.now_ms()
    }

    /// What did not play when the server was last looked at.
    pub fn dark(&self) -> OfflineHints {
        OfflineHints::read(&self.core.paths)
    }

    /// What the server may have crashed of; counts its last crash. `known` is each proxy with its last change. Once a
    /// process.
    pub fn suspects(&self, known: impl Iterator<Item = ((Kind, Arc<str>), u64)>) -> CrashCounters {
        CrashCounters::read(&self.core.paths, known)
    }

    /// Where a crash signal's handler is to note what is being worked on: the number of each change on a line of its own.
    pub fn crash_file(&self) -> PathBuf {
        self.core.paths.crash()
    }

    /// True while the proxy is wanted exactly as change `seq` left it; with 0, in whatever way.
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        let inbox = self.core.inbox.lock();
        inbox
            .intent
            .get(kind, key)
            .is_some_and(|entry| (entry.seq == seq || seq == 0) && entry.state == State::Enabled)
    }

    /// How many there are in a state.
    pub fn count(&self, state: State) -> u64 {
        self.core.inbox.lock().intent.count(state)
    }

    /// A copy of one entry.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Entry> {
        self.core.inbox.lock().intent.get(kind, key).cloned()
    }

    /// The proxies with whose close this source of the server ends, and the other way round.
    pub fn producers(&self, stream: &Stream, rules: &NamingRules) -> Vec<(Kind, Arc<str>)> {
        self.core.inbox.lock().intent.producers(stream, rules)
    }

    /// The proxies that take this source of the server by name.
    pub fn takers(&self, schema: &str, stream: &Stream, rules: &NamingRules) -> Vec<(Kind, Arc<str>)> {
        self.core.inbox.lock().intent.takers(schema, stream, rules)
    }

    /// At most `most` entries after `cursor`, in the order of kind and key.
    pub fn after(&self, cursor: Option<&(Kind, Arc<str>)>, most: usize) -> Vec<((Kind, Arc<str>), Entry)> {
        self.core.inbox.lock().intent.after(cursor, most)
    }

    /// All entries, in the order of kind and key, a page at a time: whoever records waits for no more than one page.
    pub fn entries(&self) -> impl Iterator<Item = ((Kind, Arc<str>), Entry)> + '_ {
        const PAGE: usize = 1000;
        let mut cursor = None;
        std::iter::from_fn(move || {
            let page = self.after(cursor.as_ref(), PAGE);
            cursor = Some(page.last()?.0.clone());
            Some(page)
        })
        .flatten()
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
        let paths = &self.core.paths;
        let size = |path: &std::path::Path| paths.env.stat(path).ok().flatten().map_or(0, |stat| stat.len);
        let snapshots = paths.list_snapshots().iter().map(|snapshot| size(&snapshot.path)).sum();
        [size(&paths.file), size(&log_of(&paths.file)), snapshots]
    }

    pub fn report(&self) -> Report {
        let inbox = self.core.inbox.lock();
        let by_state = State::ALL.iter().map(|&state| (state.name(), inbox.intent.count(state))).collect();
        let (seq, queue) = (inbox.intent.seq(), inbox.queue.len());
        let health = self.core.health.lock();
        let condition = match (&inbox.access, &health.failure) {
            (Access::Open, None) => Condition::Healthy,
            (Access::Open, Some(_)) => Condition::StorageFailed,
            (Access::Waiting { .. }, _) => Condition::Unavailable,
            (Access::ReadOnly, _) => Condition::ReadOnly,
        };
        Report {
            file: self.core.paths.file.clone(),
            condition,
            by_state,
            seq,
            durable_seq: self.core.durable_seq.load(Ordering::Acquire),
            file_seq: self.core.file_seq.load(Ordering::Acquire),
            queue,
            queue_capacity: QUEUE_CHANGES,
            snapshot: health.snapshot.clone(),
            encrypted: inbox.intent.cipher().is_some(),
            last_error: health.last_error.clone(),
        }
    }

    /// Writes what is queued, acknowledges it and ends the threads. Later calls are refused. Blocks on the disk.
    pub fn close(&self) {
        // Maintenance first: it asks the writer for chores.
        *self.core.stop_maintenance.lock() = true;
        self.core.wake_maintenance.notify_all();
        join(&self.maintenance);
        self.core.inbox.lock().closing = true;
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
