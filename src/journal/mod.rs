//! The journal: intent in memory, and on disk behind it. A change is applied to memory and queued on the thread of
//! the call, which never touches storage; the writer thread makes it durable and then says so.
//!
//! Lock order: `files`, then `inbox`, then `health` and `opened`. `inbox` is held for microseconds only.

mod ack;
mod batch;
mod core;
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

use self::ack::Refusal;
pub use self::ack::{Ack, Done, JournalWord, Persisted, Reply};
pub use self::batch::{AppliedMutation, Mutation, Precondition};
use self::core::Core;
pub use self::gauges::Reading;
pub use self::history::{HistoryFilter, PointInTime};
use self::inbox::{QUEUE_CHANGES, Standing, Turn};
use self::upkeep::Maintenance;
use self::writer::Writer;
use crate::error::{Code, Error, Result};
use crate::model::{Args, Entry, Kind, NamingRules, Op, ProxyKey, State, Stream, check_key};
use crate::settings::{OnError, Settings};
pub use crate::storage::crash_counters::CrashCounters;
pub use crate::storage::db::SCHEMA_VERSION;
use crate::storage::env::{Env, System};
pub use crate::storage::intent::Cause;
use crate::storage::intent::Edit;
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
        self.core.inbox.on_loaded(Box::new(told));
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

    /// Records a call. Intent is changed when this returns; `done` is told when the change is on disk. Takes
    /// microseconds and touches no storage: made for media threads. Two calls on one key are recorded in the
    /// order in which they get here. An add of what is wanted already, alike in every argument, changes nothing.
    pub fn record(&self, call: Call<'_>, done: Done) {
        self.queue(call, done);
        self.wake();
    }

    /// The same for a caller who holds a lock that others wait for: [`Journal::wake`] is to follow when it is released.
    pub fn queue(&self, call: Call<'_>, done: Done) {
        let (kind, key) = (call.kind, call.key);
        let checked = check_key(key).and(match (call.op, &call.args) {
            (Op::Add, Some(_)) | (Op::Remove | Op::Set(_), None) => Ok(()),
            _ => Err(Error::invalid("an add must have arguments, and other calls must not")),
        });
        let submitted = match checked {
            Ok(()) => self.core.submit(done, |turn| self.take_in(turn, call)),
            Err(error) => Err((done, error.into())),
        };
        if let Err((done, refusal)) = submitted {
            if refusal.undone {
                self.core.undone(kind, &key.into());
            }
            done.call(refusal.into());
        }
    }

    /// Has what was queued written.
    pub fn wake(&self) {
        self.core.inbox.wake();
    }

    fn take_in(&self, turn: &mut Turn<'_>, call: Call<'_>) -> std::result::Result<(), Refusal> {
        let Call { op, kind, key, args, already_exists, cause } = call;
        let is_undone = self.core.options().on_error == OnError::Reject;
        let durable = self.core.durable_seq.load(Ordering::Acquire);
        // One that is not on disk may yet be undone, and this call must then be undone with it.
        let is_the_same = |entry: &Entry| args.as_ref() == Some(&entry.args) && entry.seq <= durable;
        let wanted = turn.intent().get(kind, key).filter(|entry| entry.state == State::Enabled);
        let relies_on = wanted.filter(|entry| op == Op::Add && (already_exists || is_the_same(entry)));
        let relies_on = relies_on.map(|entry| entry.seq);
        let edit = Edit { at: self.now_ms(), op, args, cause };
        match (turn.standing(), turn.has_room(edit.bytes(key)), relies_on) {
            (Standing::Written, Ok(()), Some(seq)) => turn.relies_on(seq),
            (Standing::Written, Ok(()), None) => drop(turn.change(edit, kind, key)),
            (Standing::Written, Err(error), _) if is_undone => {
                return Err(Refusal { undone: true, ..error.into() });
            }
            (Standing::Written, Err(error), _) => {
                if relies_on.is_none() {
                    turn.change_unwritten(edit, kind, key);
                }
                return Err(Refusal { seq: turn.intent().seq(), ..error.into() });
            }
            _ if is_undone => return Err(Refusal { undone: true, ..self.core.last_failure().into() }),
            (Standing::NotRead, ..) => {
                turn.keep(edit, (kind, key.into()));
                return Err(self.core.last_failure().into());
            }
            (Standing::ReadOnly, ..) => {
                if relies_on.is_none() {
                    turn.change(edit, kind, key);
                }
                return Err(Refusal { seq: turn.intent().seq(), ..self.core.last_failure().into() });
            }
        }
        Ok(())
    }

    /// Changes what is wanted by ourselves, without a call of anybody's. False when that changes nothing, or the proxy
    /// is no longer wanted as change `seq` left it. Touches no storage.
    pub fn change(&self, kind: Kind, key: &str, seq: u64, op: Op, reason: &str) -> bool {
        let cause = Cause { origin: "zlm-journal".to_owned(), reason: reason.to_owned() };
        let edit = Edit { at: self.now_ms(), op, args: None, cause };
        let submitted = self.core.submit(Done::new(drop), |turn| {
            let is_as_expected = turn.intent().get(kind, key).is_some_and(|entry| entry.seq == seq);
            let changed = is_as_expected.then(|| turn.change(edit, kind, key)).flatten();
            changed.ok_or_else(|| Refusal::from(Error::new(Code::Conflict, "it is not as it was")))
        });
        self.wake();
        submitted.is_ok()
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
    pub fn suspects(&self, known: impl Iterator<Item = (ProxyKey, u64)>) -> CrashCounters {
        CrashCounters::read(&self.core.paths, known)
    }

    /// Where a crash signal's handler is to note what is being worked on: the number of each change on a line of its own.
    pub fn crash_file(&self) -> PathBuf {
        self.core.paths.crash()
    }

    /// True while the proxy is wanted exactly as change `seq` left it; with 0, in whatever way.
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        self.core.inbox.look(|intent| {
            let entry = intent.get(kind, key);
            entry.is_some_and(|entry| (entry.seq == seq || seq == 0) && entry.state == State::Enabled)
        })
    }

    /// How many there are in a state.
    pub fn count(&self, state: State) -> u64 {
        self.core.inbox.look(|intent| intent.count(state))
    }

    /// A copy of one entry.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Entry> {
        self.core.inbox.look(|intent| intent.get(kind, key).cloned())
    }

    /// The proxies with whose close this source of the server ends, and the other way round.
    pub fn producers(&self, stream: &Stream, rules: &NamingRules) -> Vec<ProxyKey> {
        self.core.inbox.look(|intent| intent.producers(stream, rules))
    }

    /// The proxies that take this source of the server by name.
    pub fn takers(&self, schema: &str, stream: &Stream, rules: &NamingRules) -> Vec<ProxyKey> {
        self.core.inbox.look(|intent| intent.takers(schema, stream, rules))
    }

    /// At most `most` entries after `cursor`, in the order of kind and key.
    pub fn after(&self, cursor: Option<&ProxyKey>, most: usize) -> Vec<(ProxyKey, Entry)> {
        self.core.inbox.look(|intent| intent.after(cursor, most))
    }

    /// All entries, in the order of kind and key, a page at a time: whoever records waits for no more than one page.
    pub fn entries(&self) -> impl Iterator<Item = (ProxyKey, Entry)> + '_ {
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
        let inbox = &self.core.inbox;
        let (queue, standing) = inbox.standing();
        let (by_state, seq, encrypted) = inbox.look(|intent| {
            let by_state = State::ALL.iter().map(|&state| (state.name(), intent.count(state))).collect();
            (by_state, intent.seq(), intent.cipher().is_some())
        });
        let health = self.core.health.lock();
        let condition = match (standing, &health.failure) {
            (Standing::Written, None) => Condition::Healthy,
            (Standing::Written, Some(_)) => Condition::StorageFailed,
            (Standing::NotRead, _) => Condition::Unavailable,
            (Standing::ReadOnly, _) => Condition::ReadOnly,
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
            encrypted,
            last_error: health.last_error.clone(),
        }
    }

    /// Writes what is queued, acknowledges it and ends the threads. Later calls are refused. Blocks on the disk.
    pub fn close(&self) {
        // Maintenance first: it asks the writer for chores.
        *self.core.stop_maintenance.lock() = true;
        self.core.wake_maintenance.notify_all();
        join(&self.maintenance);
        self.core.inbox.close();
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
        log::error!("journal: a thread panicked");
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}
