//! The journal: intent in memory, followed by the file. A change is made in memory and queued on the thread of the
//! call, which never touches storage. The writer thread makes it durable and then reports that.
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
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

pub use self::ack::{Ack, Done, JournalWord, Persisted, Reply};
pub use self::batch::{AppliedMutation, Mutation, Precondition, Scope};
use self::core::Core;
pub use self::gauges::Reading;
pub use self::history::PointInTime;
use self::inbox::{Inner, QUEUE_CHANGES, Standing};
use self::upkeep::Maintenance;
use self::writer::Writer;
use crate::error::{Code, Error, Result};
use crate::model::{Args, Change, Entry, Kind, Op, ProxyKey, State, check_key};
use crate::settings::{OnError, Settings};
pub use crate::storage::crash_counters::CrashCounters;
pub use crate::storage::db::{HistoryFilter, SCHEMA_VERSION};
use crate::storage::env::{Env, System};
pub use crate::storage::intent::Cause;
use crate::storage::intent::Intent;
pub use crate::storage::offline_hints::OfflineHints;
pub use crate::storage::paths::SnapshotFile;
use crate::storage::paths::{JournalPaths, log_of};

/// A call that MediaServer has carried out, or an event.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// What the call did.
    pub op: Op,
    /// The kind of the proxy.
    pub kind: Kind,
    /// The key that the server gave to the proxy: 1 to 4096 bytes.
    pub key: &'a str,
    /// Only for an add.
    pub args: Option<Args>,
    /// An add of a proxy that the server already had and did not change. No change if that is enabled, with any
    /// arguments.
    pub already_exists: bool,
    /// Who called, and with which API call.
    pub cause: Cause,
}

/// The state of the journal, for operators.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whether changes are written.
    pub condition: Condition,
    /// The number of proxies in each state, by the name of the state. All states are there.
    pub by_state: BTreeMap<&'static str, u64>,
    /// The number of the last change, on disk or not; 0 if there was none.
    pub seq: u64,
    /// The number of the last change on disk; 0 if there is none.
    pub durable_seq: u64,
    /// The last change in the database file without its log.
    pub file_seq: u64,
    /// Changes, and calls that depend on them, that the writer has not taken yet.
    pub queue: usize,
    /// The number from which on further ones are not taken into the queue.
    pub queue_capacity: usize,
    /// Time that the oldest unacknowledged change has waited.
    pub ack_lag: Duration,
    /// The newest snapshot; `None` if there is none, or the journal was not opened yet.
    pub snapshot: Option<SnapshotFile>,
    /// Arguments are encrypted.
    pub encrypted: bool,
    /// When (milliseconds since 1970-01-01 UTC), and the error.
    pub last_error: Option<(i64, Error)>,
}

/// Whether changes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// They are.
    #[serde(rename = "ok")]
    Healthy,
    /// It cannot be written at the moment. Retried until it can.
    StorageFailed,
    /// It could not be opened yet. Retried every second.
    Unavailable,
    /// It was written by a newer version: its proxies are restored, but nothing is recorded.
    ReadOnly,
}

/// An open journal. Dropping it closes it.
pub struct Journal {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens or creates the journal; see [`Journal::open_in`].
    pub fn open(options: &Settings) -> Result<Journal> {
        Self::open_in(options, Arc::new(System))
    }

    /// Opens or creates the journal, recovers what can be recovered, and starts its threads. If it cannot be opened,
    /// its [`Condition`] says so, nothing on disk is changed, and opening is retried every second. Fails only if the
    /// path names no file or a thread cannot be started. Blocks on the disk.
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

    /// The settings that apply now. Any thread.
    pub fn settings(&self) -> Arc<Settings> {
        self.core.options()
    }

    /// Replaces the settings, except `path`, `key_file` and `restore`, which stay as they were at the opening.
    pub fn set_settings(&self, settings: Settings) {
        *self.core.options.write() = Arc::new(settings);
    }

    /// Calls `told` once when intent is known: at once, or on the writer thread when the journal could be opened.
    pub fn on_loaded(&self, told: impl FnOnce() + Send + 'static) {
        self.core.inbox.on_loaded(told);
    }

    /// `told` is called on the writer thread for every proxy whose change was undone. Only the first call has an
    /// effect.
    pub fn on_undone(&self, told: impl Fn(Kind, &Arc<str>) + Send + Sync + 'static) {
        let _ = self.core.converge.set(Box::new(told));
    }

    /// With `on_error=reject`, fails if a call should be refused before the server carries it out.
    pub fn admit(&self) -> Result<()> {
        match (self.core.options().on_error, &self.core.health.lock().failure) {
            (OnError::Reject, Some(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Fails while the journal could not be opened, and intent is unknown.
    pub fn check_loaded(&self) -> Result<()> {
        match self.core.inbox.report(|_| ()) {
            (Standing::NotRead, ..) => Err(self.core.last_failure()),
            _ => Ok(()),
        }
    }

    /// Records a call. Intent has changed when this returns; `done` is called when the change is on disk. Takes
    /// microseconds and touches no storage: made for media threads. Calls on one key are recorded in the order in which
    /// they arrive. An add of a proxy that is enabled with the same arguments changes nothing.
    pub fn record(&self, call: Call<'_>, done: Done) {
        self.queue(call, done);
        self.wake();
    }

    /// The same for a caller that holds a lock: call [`Journal::wake`] after releasing it.
    pub fn queue(&self, call: Call<'_>, done: Done) {
        let (kind, key) = (call.kind, call.key);
        let checked = check_key(key).and(match (call.op, &call.args) {
            (Op::Add, Some(_)) | (Op::Remove | Op::Set(_), None) => Ok(()),
            _ => Err(Error::invalid("an add must have arguments, and other calls must not")),
        });
        if let Err(error) = checked {
            return done.call(error.into());
        }
        let (at, is_undone) = (self.now_ms(), self.settings().on_error == OnError::Reject);
        let submitted = self.core.submit(done, |inbox| self.take_in(inbox, call, at, is_undone));
        if let Err((done, refusal)) = submitted {
            if refusal.undone {
                self.core.undone(kind, &key.into());
            }
            done.call(refusal);
        }
    }

    /// Wakes the writer.
    pub fn wake(&self) {
        self.core.inbox.wake();
    }

    /// Records a call at that time; `is_undone` if it is to be undone when it cannot be written.
    fn take_in(
        &self,
        inbox: &mut Inner,
        call: Call<'_>,
        at: i64,
        is_undone: bool,
    ) -> std::result::Result<(), Ack> {
        let Call { op, kind, key, args, already_exists, cause: Cause { caller: origin, reason } } = call;
        let durable = self.core.durable_seq.load(Ordering::Acquire);
        // A change that is not on disk may yet be undone, and this call must then be undone with it.
        let is_the_same = |entry: &Entry| args.as_ref() == Some(&entry.args) && entry.seq <= durable;
        let there = inbox.intent().get(kind, key);
        let wanted = there.filter(|entry| op == Op::Add && entry.state == State::Enabled);
        let relies_on = wanted.filter(|entry| already_exists || is_the_same(entry)).map(|entry| entry.seq);
        let is_change = relies_on.is_none() && (op == Op::Add || there.is_some());
        let change = Change { seq: 0, at, op, kind, key: key.into(), args, origin, reason };
        if inbox.standing() != Standing::Written {
            let refusal = Ack::from(self.core.last_failure());
            match inbox.standing() {
                _ if is_undone => return Err(Ack { undone: true, ..refusal }),
                Standing::NotRead => inbox.keep(change),
                _ if is_change => drop(inbox.change(change)),
                _ => {}
            }
            return Err(Ack { seq: inbox.intent().seq(), ..refusal });
        }
        if let Err(error) = inbox.has_room(change.bytes()) {
            if is_change && !is_undone {
                inbox.change_unwritten(change);
            }
            return Err(Ack { seq: inbox.intent().seq(), undone: is_change && is_undone, ..error.into() });
        }
        match relies_on {
            Some(seq) => inbox.relies_on(seq),
            None => drop(inbox.change(change)),
        }
        Ok(())
    }

    /// Makes a change of our own. Returns false if it changes nothing, or if the entry is no longer that of change
    /// `seq`. Touches no storage.
    pub fn change(&self, kind: Kind, key: &str, seq: u64, op: Op, reason: &str) -> bool {
        let (at, origin, reason) = (self.now_ms(), "zlm-journal".to_owned(), reason.to_owned());
        let change = Change { seq: 0, at, op, kind, key: key.into(), args: None, origin, reason };
        let submitted = self.core.submit(Done::new(drop), |inbox| {
            let is_as_expected = inbox.intent().get(kind, key).is_some_and(|entry| entry.seq == seq);
            let changed = is_as_expected.then(|| inbox.change(change)).flatten();
            changed.ok_or_else(|| Error::new(Code::Conflict, "it is not as it was").into())
        });
        self.wake();
        submitted.is_ok()
    }

    /// Milliseconds since 1970-01-01 UTC, by the system clock.
    pub fn now_ms(&self) -> i64 {
        self.core.paths.env.now_ms()
    }

    /// Its files, and those beside it.
    pub fn paths(&self) -> &JournalPaths {
        &self.core.paths
    }

    /// Reads intent under its lock: for microseconds, and without a system call. Whoever reads many entries does so in
    /// pages.
    pub fn look<T>(&self, at: impl FnOnce(&Intent) -> T) -> T {
        self.core.inbox.look(at)
    }

    /// Whether the proxy is enabled exactly as change `seq` left it; with 0, in any version.
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        self.look(|intent| {
            let entry = intent.get(kind, key);
            entry.is_some_and(|entry| (entry.seq == seq || seq == 0) && entry.state == State::Enabled)
        })
    }

    /// Whether the proxy should run now, exactly as change `seq` left it; with 0, in any version.
    pub fn is_due(&self, kind: Kind, key: &str, seq: u64) -> bool {
        let now = self.now_ms();
        self.look(|intent| {
            intent.get(kind, key).is_some_and(|entry| (entry.seq == seq || seq == 0) && entry.is_due(now))
        })
    }

    /// A copy of one entry.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Entry> {
        self.look(|intent| intent.get(kind, key).cloned())
    }

    /// At most `most` entries after `cursor`, ordered by kind and key.
    pub fn after(&self, cursor: Option<&ProxyKey>, most: usize) -> Vec<(ProxyKey, Entry)> {
        self.look(|intent| intent.after(cursor, most))
    }

    /// All entries, ordered by kind and key, a page at a time, so that a recording call waits for one page at most.
    pub fn entries(&self) -> impl Iterator<Item = (ProxyKey, Entry)> + '_ {
        pages(|cursor, most| self.after(cursor, most))
    }

    /// The enabled proxies with hours, likewise.
    pub fn timed(&self) -> impl Iterator<Item = (ProxyKey, Entry)> + '_ {
        let timed = pages(|cursor, most| self.core.inbox.look(|intent| intent.timed_after(cursor, most)));
        timed.filter(|(_, entry)| entry.state == State::Enabled)
    }

    /// Those of them that are outside of their hours at this time, in milliseconds since 1970-01-01 UTC.
    pub fn off_hours(&self, at: i64) -> impl Iterator<Item = (ProxyKey, Entry)> + '_ {
        self.timed().filter(move |(_, entry)| entry.is_off_hours(at))
    }

    /// Makes a snapshot. `None` if nothing was ever journaled. Blocks on the disk: not for media threads.
    pub fn take_snapshot(&self) -> Result<Option<SnapshotFile>> {
        self.core.take_snapshot()
    }

    /// Copies the log into the database file. This also happens once a minute and whenever the log has grown. Blocks on
    /// the disk: not for media threads.
    pub fn checkpoint(&self) -> Result<()> {
        self.core.checkpoint()
    }

    /// What the journal has done since it was opened.
    pub fn gauges(&self) -> Reading {
        self.core.gauges.read()
    }

    /// The sizes of the database, its log, and all snapshots together, in bytes. Touches the disk.
    pub fn sizes(&self) -> [u64; 3] {
        let paths = &self.core.paths;
        let size = |path: &std::path::Path| paths.env.stat(path).ok().flatten().map_or(0, |stat| stat.len);
        let snapshots = paths.list_snapshots().iter().map(|snapshot| size(&snapshot.path)).sum();
        [size(&paths.file), size(&log_of(&paths.file)), snapshots]
    }

    /// The state of the journal now. Never waits for the disk. Any thread.
    pub fn report(&self) -> Report {
        let (standing, queue, ack_lag, (by_state, seq, encrypted)) = self.core.inbox.report(|intent| {
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
            condition,
            by_state,
            seq,
            durable_seq: self.core.durable_seq.load(Ordering::Acquire),
            file_seq: self.core.file_seq.load(Ordering::Acquire),
            queue,
            queue_capacity: QUEUE_CHANGES,
            ack_lag,
            snapshot: health.snapshot.clone(),
            encrypted,
            last_error: health.last_error.clone(),
        }
    }

    /// Writes the queue, acknowledges it and ends the threads. Later calls are refused. Blocks on the disk.
    pub fn close(&self) {
        // Maintenance first: it gives chores to the writer.
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
        .map_err(|error| Error::storage(format!("cannot start the thread {name}: {error}")))
}

/// A second caller waits for the first.
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

/// All entries, each page from the last entry of the one before.
fn pages(
    mut after: impl FnMut(Option<&ProxyKey>, usize) -> Vec<(ProxyKey, Entry)>,
) -> impl Iterator<Item = (ProxyKey, Entry)> {
    const PAGE: usize = 1000;
    let mut cursor: Option<ProxyKey> = None;
    std::iter::from_fn(move || {
        let page = after(cursor.as_ref(), PAGE);
        cursor = Some(page.last()?.0.clone());
        Some(page)
    })
    .flatten()
}
