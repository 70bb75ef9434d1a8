//! Intent, and the queue of what is to be written of it. Its state is nobody else's: changes come in by [`Inbox::submit`]
//! alone, and only the writer takes them out. Held for microseconds. Knows nothing of files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ack::{Done, Refusal};
use super::gauges::Gauges;
use crate::error::{Code, Error, Result};
use crate::model::{Args, Change, Kind, Op, ProxyKey, State as ProxyState};
use crate::storage::cipher::ArgsCipher;
use crate::storage::intent::{Applied, Edit, Intent};

/// Changes that may wait for the disk, and the memory they may take.
pub const QUEUE_CHANGES: usize = 1 << 16;
const QUEUE_BYTES: usize = 256 << 20;
/// More changes at once are rare.
const USUAL_BATCH: usize = 256;
/// So many callers at once share their commits: the next one waits for the changes of as many, but for no more than
/// share its costs well, and not for long.
const SHARED_FROM: usize = 5;
const SHARED_WELL: usize = 16;
const SHARE_WAIT: Duration = Duration::from_millis(1);

pub struct Inbox {
    state: Mutex<State>,
    gauges: Arc<Gauges>,
    wake_writer: Condvar,
    /// As many changes are queued as the writer waits for.
    all_queued: Condvar,
}

struct State {
    intent: Intent,
    queue: Vec<Job>,
    queued_bytes: usize,
    /// The writer waits for so many; 0 when it does not.
    awaited: usize,
    /// Memory has a change that was not queued: the file must be rewritten.
    needs_rewrite: bool,
    is_closing: bool,
    chores: Chores,
    access: Access,
    /// Changes that are in memory but not in the file: history, for the next rewrite.
    unwritten: Vec<Change>,
}

/// A change on its way to disk, or (without one) a call that waits for those before it.
pub struct Job {
    pub seq: u64,
    pub applied: Option<Applied>,
    /// Without a change of its own: the one by which things are already as the call wants them.
    relies_on: Option<u64>,
    pub done: Option<Done>,
}

/// What may be done to the file.
enum Access {
    /// It was read: memory holds all of it, and is written to it.
    Open,
    /// It was read, and must not be written.
    ReadOnly,
    /// It was not read yet. The calls since the start wait here, the last for each proxy.
    Waiting { calls: BTreeMap<ProxyKey, Edit>, bytes: usize, begin: Option<Begin> },
}

/// Whether what is submitted is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Written,
    /// The file is newer than we are.
    ReadOnly,
    /// The file could not be read yet.
    NotRead,
}

/// Told once that intent is known.
pub type Begin = Box<dyn FnOnce() + Send>;

/// Housekeeping that only the writing connection may do.
#[derive(Debug, Default, Clone, Copy)]
pub struct Chores {
    /// Copy what little of the log the last checkpoint left, so that the log starts over.
    pub finish_checkpoint: bool,
    /// Drop history up to this change and older than this time.
    pub prune: Option<(u64, i64)>,
}

/// What the writer has to do next.
pub struct Work {
    /// When it was taken, as the gauges have it.
    pub taken: u64,
    pub jobs: Vec<Job>,
    pub chores: Chores,
    pub repair: Repair,
    pub is_last: bool,
}

pub enum Repair {
    None,
    /// The file must be rewritten: intent as of the jobs taken.
    Rewrite(Intent),
    /// The file was never opened.
    Open,
}

/// The inbox, as who submits has it: alone, until he is through.
pub struct Turn<'a> {
    state: &'a mut State,
    gauges: &'a Gauges,
    relies_on: Option<u64>,
    has_queued: bool,
}

/// A change of memory, and the arguments before and after it.
pub struct Changed {
    pub seq: u64,
    pub before: Option<Args>,
    pub after: Option<Args>,
}

/// What became of a submission.
pub struct Submitted<T> {
    pub value: T,
    /// The change by which intent is as it asked for.
    pub seq: u64,
    /// Where nobody is to wait for the disk: to be told now.
    pub done: Option<Done>,
}

impl Job {
    /// The change that it stands and falls with.
    pub fn stands_on(&self) -> Option<u64> {
        self.applied.as_ref().map(|applied| applied.change.seq).or(self.relies_on)
    }
}

impl State {
    fn push(&mut self, gauges: &Gauges, job: Job) {
        self.queued_bytes += job.applied.as_ref().map_or(0, Applied::bytes);
        self.queue.push(job);
        gauges.queued();
    }

    /// Remembers a change that the file does not get now, so that history has it later.
    fn missed(&mut self, applied: Applied) {
        if self.unwritten.len() < QUEUE_CHANGES {
            self.unwritten.push(applied.change);
        }
    }
}

impl Turn<'_> {
    pub fn intent(&self) -> &Intent {
        &self.state.intent
    }

    pub fn standing(&self) -> Standing {
        match self.state.access {
            Access::Open => Standing::Written,
            Access::ReadOnly => Standing::ReadOnly,
            Access::Waiting { .. } => Standing::NotRead,
        }
    }

    /// An error where the queue has no room for so many bytes.
    pub fn has_room(&self, bytes: usize) -> Result<()> {
        if self.state.queue.len() < QUEUE_CHANGES && self.state.queued_bytes + bytes <= QUEUE_BYTES {
            return Ok(());
        }
        Err(Error::new(
            Code::QueueFull,
            format!(
                "{} changes are already waiting for the disk: it is too slow or stuck",
                self.state.queue.len()
            ),
        ))
    }

    /// Changes memory, and has that written where the file may be. None where it changes nothing.
    pub fn change(&mut self, edit: Edit, kind: Kind, key: &str) -> Option<Changed> {
        let applied = self.state.intent.change(edit, kind, key)?;
        let seq = applied.change.seq;
        let (before, after) =
            (applied.before.as_ref().map(|entry| entry.args.clone()), applied.change.args.clone());
        if self.standing() == Standing::Written {
            self.state.push(self.gauges, Job { seq, applied: Some(applied), relies_on: None, done: None });
            self.has_queued = true;
        }
        Some(Changed { seq, before, after })
    }

    /// Changes memory alone: the writer brings the whole of it to disk instead.
    pub fn change_unwritten(&mut self, edit: Edit, kind: Kind, key: &str) {
        if let Some(applied) = self.state.intent.change(edit, kind, key) {
            self.state.missed(applied);
            self.state.needs_rewrite = true;
        }
    }

    /// Things are already as the submission wants them, by this change.
    pub fn relies_on(&mut self, seq: u64) {
        self.relies_on = Some(seq);
    }

    /// Keeps it until the file is read; what comes when too much is kept is lost.
    pub fn keep(&mut self, edit: Edit, key: ProxyKey) {
        let Access::Waiting { calls, bytes, .. } = &mut self.state.access else { return };
        let size = edit.bytes(&key.1);
        if calls.len() < QUEUE_CHANGES && *bytes + size <= QUEUE_BYTES {
            *bytes += size;
            calls.insert(key, edit);
        }
    }
}

impl Inbox {
    pub fn new(gauges: Arc<Gauges>) -> Inbox {
        Inbox {
            state: Mutex::new(State {
                intent: Intent::default(),
                queue: Vec::new(),
                queued_bytes: 0,
                awaited: 0,
                needs_rewrite: false,
                is_closing: false,
                chores: Chores::default(),
                access: Access::Waiting { calls: BTreeMap::new(), bytes: 0, begin: None },
                unwritten: Vec::new(),
            }),
            gauges,
            wake_writer: Condvar::new(),
            all_queued: Condvar::new(),
        }
    }

    // ---- whoever wants something of it

    /// The only way in. `work` looks at intent and changes it, all at once for everybody else; `done` is told when all of
    /// that is on disk, or handed back where `is_told_now`. Where `work` fails, nothing may have been changed. The writer
    /// is to be woken, with [`Inbox::wake`].
    pub fn submit<T>(
        &self,
        done: Done,
        is_told_now: bool,
        work: impl FnOnce(&mut Turn<'_>) -> std::result::Result<T, Refusal>,
    ) -> std::result::Result<Submitted<T>, (Done, Refusal)> {
        let mut state = self.state.lock();
        if state.is_closing {
            let error = Error::new(Code::Closed, "the journal is closed: the server is stopping");
            return Err((done, error.into()));
        }
        let mut turn = Turn { state: &mut state, gauges: &self.gauges, relies_on: None, has_queued: false };
        let value = match work(&mut turn) {
            Ok(value) => value,
            Err(refusal) => return Err((done, refusal)),
        };
        let (relies_on, has_queued) = (turn.relies_on, turn.has_queued);
        let seq = state.intent.seq();
        let (now, later) = if is_told_now { (Some(done), None) } else { (None, Some(done)) };
        match state.queue.last_mut().filter(|_| has_queued) {
            Some(job) => job.done = later,
            None => state.push(&self.gauges, Job { seq, applied: None, relies_on, done: later }),
        }
        if state.awaited > 0 && state.queue.len() >= state.awaited {
            self.all_queued.notify_one();
        }
        Ok(Submitted { value, seq, done: now })
    }

    pub fn wake(&self) {
        self.wake_writer.notify_one();
    }

    pub fn look<T>(&self, at: impl FnOnce(&Intent) -> T) -> T {
        at(&self.state.lock().intent)
    }

    /// How many changes wait for the disk, and whether those that come are written.
    pub fn standing(&self) -> (usize, Standing) {
        let mut state = self.state.lock();
        let queued = state.queue.len();
        let turn = Turn { state: &mut state, gauges: &self.gauges, relies_on: None, has_queued: false };
        (queued, turn.standing())
    }

    /// What intent is sealed with.
    pub fn cipher(&self) -> Option<Arc<ArgsCipher>> {
        self.look(|intent| intent.cipher().cloned())
    }

    /// Has `begin` told once when intent is known: at once, or on the writer thread.
    pub fn on_loaded(&self, told: Begin) {
        let mut state = self.state.lock();
        match &mut state.access {
            Access::Waiting { begin, .. } => *begin = Some(told),
            Access::Open | Access::ReadOnly => {
                drop(state);
                told();
            }
        }
    }

    /// Nothing is taken in any more; what is queued is written.
    pub fn close(&self) {
        self.state.lock().is_closing = true;
        self.wake_writer.notify_all();
    }

    // ---- for the maintenance thread

    pub fn order_rewrite(&self) {
        self.state.lock().needs_rewrite = true;
        self.wake();
    }

    pub fn order(&self, change: impl FnOnce(&mut Chores)) {
        change(&mut self.state.lock().chores);
        self.wake();
    }

    // ---- for the writer

    /// Waits for something to do. `callers` is how many were acknowledged last or came meanwhile.
    pub fn next(&self, is_open: bool, retry_at: Option<Instant>, callers: usize) -> Work {
        let mut state = self.state.lock();
        loop {
            let is_broken = match state.access {
                Access::Open => !is_open || state.needs_rewrite,
                Access::Waiting { .. } => !state.is_closing,
                Access::ReadOnly => false,
            };
            let is_due = is_broken && (state.is_closing || retry_at.is_none_or(|at| at <= Instant::now()));
            let is_idle =
                state.queue.is_empty() && !state.chores.finish_checkpoint && state.chores.prune.is_none();
            if is_due || !is_idle || state.is_closing {
                if !is_due && !state.is_closing && !state.queue.is_empty() {
                    self.wait_for_others(&mut state, callers);
                }
                // Media threads fill the next one: as long as this one was, it need not grow under them.
                let room = Vec::with_capacity(state.queue.len().min(USUAL_BATCH));
                let jobs = std::mem::replace(&mut state.queue, room);
                state.queued_bytes = 0;
                state.needs_rewrite &= !is_due;
                let repair = match state.access {
                    _ if !is_due => Repair::None,
                    Access::Waiting { .. } => Repair::Open,
                    _ => Repair::Rewrite(state.intent.clone()),
                };
                let chores = std::mem::take(&mut state.chores);
                return Work { taken: self.gauges.now(), jobs, chores, repair, is_last: state.is_closing };
            }
            match retry_at.filter(|_| is_broken) {
                Some(at) => {
                    self.wake_writer.wait_until(&mut state, at);
                }
                None => self.wake_writer.wait(&mut state),
            }
        }
    }

    /// Who was just told that his change is on disk has the next one under way. A commit costs as much of the processors,
    /// which the pollers need, as several changes do.
    fn wait_for_others(&self, state: &mut MutexGuard<'_, State>, callers: usize) {
        let awaited = callers.min(SHARED_WELL);
        if awaited < SHARED_FROM || state.queue.len() >= awaited {
            return;
        }
        state.awaited = awaited;
        self.all_queued.wait_for(state, SHARE_WAIT);
        state.awaited = 0;
    }

    /// All that was taken then is answered. Returns how many have come meanwhile.
    pub fn answered(&self, taken: u64) -> usize {
        let state = self.state.lock();
        self.gauges.answered(taken, state.queue.is_empty());
        state.queue.len()
    }

    /// These are in memory and not in the file.
    pub fn missed(&self, batch: Vec<Applied>) {
        let mut state = self.state.lock();
        batch.into_iter().for_each(|applied| state.missed(applied));
    }

    /// Undoes what was not written, the newest first. One that a later call on the same key has built on is left to that
    /// call. Returns those undone.
    pub fn take_back(&self, batch: Vec<Applied>) -> Vec<Applied> {
        let mut undone = Vec::new();
        let mut state = self.state.lock();
        let queued = state.queue.iter().filter_map(|job| job.applied.as_ref());
        let later: BTreeSet<ProxyKey> =
            queued.map(|applied| (applied.change.kind, Arc::clone(&applied.change.key))).collect();
        for applied in batch.into_iter().rev() {
            let is_set_aside = applied.change.op == Op::Set(ProxyState::Quarantined);
            if is_set_aside || later.contains(&(applied.change.kind, Arc::clone(&applied.change.key))) {
                state.missed(applied);
            } else {
                state.intent.take_back(&applied);
                undone.push(applied);
            }
        }
        undone
    }

    /// The file's intent is that of memory from now on, with the calls that have come meanwhile on top.
    pub fn loaded(&self, intent: Intent, is_written: bool) {
        let mut state = self.state.lock();
        let access = if is_written { Access::Open } else { Access::ReadOnly };
        let Access::Waiting { calls, begin, .. } = std::mem::replace(&mut state.access, access) else { return };
        state.intent = intent;
        let mut turn = Turn { state: &mut state, gauges: &self.gauges, relies_on: None, has_queued: false };
        for ((kind, key), edit) in calls {
            turn.change(edit, kind, &key);
        }
        drop(state);
        if let Some(begin) = begin {
            begin();
        }
    }

    /// All up to this change is in the file.
    pub fn rewritten(&self, seq: u64) {
        self.state.lock().unwritten.retain(|change| change.seq > seq);
    }

    pub fn unwritten(&self) -> Vec<Change> {
        self.state.lock().unwritten.clone()
    }

    /// The writer is no more: nothing is taken in, and who waits is told so.
    pub fn abandon(&self) {
        let untold = {
            let mut state = self.state.lock();
            state.is_closing = true;
            std::mem::take(&mut state.queue)
        };
        drop(untold);
    }
}
