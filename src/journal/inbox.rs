//! Intent, and the queue of changes to write. Changes come in only by [`Inbox::submit`], and only the writer takes them
//! out. The lock is held for microseconds. Knows nothing of files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ack::{Ack, Done, Persisted};
use crate::error::{Code, Error, Result};
use crate::model::{Args, Change, Op, ProxyKey, State};
use crate::storage::cipher::ArgsCipher;
use crate::storage::intent::{Applied, Intent};

/// The maximum of changes that may wait for the disk, and of their memory.
pub const QUEUE_CHANGES: usize = 1 << 16;
const QUEUE_BYTES: usize = 256 << 20;
/// The initial capacity of the queue: more changes at once are rare.
const USUAL_BATCH: usize = 256;
/// From this many callers on, they share commits: the next commit waits for as many changes as there were callers, up
/// to `SHARED_WELL` and `SHARE_WAIT`.
const SHARED_FROM: usize = 5;
const SHARED_WELL: usize = 16;
const SHARE_WAIT: Duration = Duration::from_millis(1);

#[derive(Default)]
pub struct Inbox {
    inner: Mutex<Inner>,
    wake_writer: Condvar,
    /// As many changes are queued as the writer awaits.
    all_queued: Condvar,
}

/// What a submission reads and changes, under the lock.
#[derive(Default)]
pub struct Inner {
    intent: Intent,
    queue: Vec<Job>,
    queued_bytes: usize,
    /// When the oldest job came that is not answered yet.
    waiting_since: Option<Instant>,
    /// The number of changes that the writer awaits; 0 if none.
    awaited: usize,
    /// Memory has a change that is not queued: the file must be rewritten.
    needs_rewrite: bool,
    is_closing: bool,
    /// There is no writer any more: memory changes alone.
    is_abandoned: bool,
    chores: Chores,
    standing: Standing,
    /// While the file is not read: the calls since the start, the last one of each proxy, and their memory.
    kept: BTreeMap<ProxyKey, Change>,
    kept_bytes: usize,
    /// Called when it is read.
    begin: Option<Box<dyn FnOnce() + Send>>,
    /// Changes in memory that are not in the file, for the history at the next rewrite.
    unwritten: Vec<Change>,
}

/// A change on its way to disk, or a call without a change that waits for those before it.
pub struct Job {
    pub seq: u64,
    /// The change on which its result depends: its own, or an earlier one that already did what the call wants.
    pub stands_on: Option<u64>,
    pub applied: Option<Applied>,
    pub done: Option<Done>,
}

/// Whether changes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    Written,
    /// The file has a newer schema.
    ReadOnly,
    /// The file could not be read yet.
    #[default]
    NotRead,
}

/// Maintenance that only the writing connection may do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Chores {
    /// Copy the rest of the log that the last checkpoint left, so that the log starts over.
    pub finish_checkpoint: bool,
    /// Prune history up to this change and older than this time.
    pub prune: Option<(u64, i64)>,
}

/// A change that was made.
pub struct Made {
    pub seq: u64,
    /// The arguments of the proxy before it.
    pub before: Option<Args>,
}

/// The next work for the writer.
pub struct Work {
    /// When it was taken.
    pub taken: Instant,
    pub jobs: Vec<Job>,
    pub chores: Chores,
    pub repair: Repair,
    pub is_last: bool,
}

pub enum Repair {
    None,
    /// The file must be rewritten with this intent, which includes the jobs.
    Rewrite(Intent),
    /// The file was not opened yet.
    Open,
}

impl Inner {
    fn push(&mut self, job: Job) {
        self.queued_bytes += job.applied.as_ref().map_or(0, |applied| applied.change.bytes());
        self.queue.push(job);
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Keeps a change that is not written now for the history.
    fn missed(&mut self, applied: Applied) {
        if self.unwritten.len() < QUEUE_CHANGES {
            self.unwritten.push(applied.change);
        }
    }

    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    pub fn standing(&self) -> Standing {
        match self.standing {
            Standing::Written if self.is_abandoned => Standing::ReadOnly,
            standing => standing,
        }
    }

    /// Fails if the queue has no room for so many bytes.
    pub fn has_room(&self, bytes: usize) -> Result<()> {
        let waiting = self.queue.len();
        if waiting < QUEUE_CHANGES && self.queued_bytes + bytes <= QUEUE_BYTES {
            return Ok(());
        }
        let why = format!("{waiting} changes are already waiting for the disk: it is too slow or stuck");
        Err(Error::new(Code::QueueFull, why))
    }

    /// Changes intent, and queues the change if the file may be written. `None` if nothing changes.
    pub fn change(&mut self, change: Change) -> Option<Made> {
        let applied = self.intent.change(change)?;
        let seq = applied.change.seq;
        let before = applied.before.as_ref().map(|entry| entry.args.clone());
        if self.standing() == Standing::Written {
            self.push(Job { seq, stands_on: Some(seq), applied: Some(applied), done: None });
        }
        Some(Made { seq, before })
    }

    /// Changes only memory; the writer then rewrites the file.
    pub fn change_unwritten(&mut self, change: Change) {
        if let Some(applied) = self.intent.change(change) {
            self.missed(applied);
            self.needs_rewrite = true;
        }
    }

    /// Change `seq` already did what the submission wants.
    pub fn relies_on(&mut self, seq: u64) {
        self.push(Job { seq: self.intent.seq(), stands_on: Some(seq), applied: None, done: None });
    }

    /// Keeps the change until the file is read; drops it if too much is kept already.
    pub fn keep(&mut self, change: Change) {
        let Inner { kept, kept_bytes, .. } = self;
        let size = change.bytes();
        if kept.len() < QUEUE_CHANGES && *kept_bytes + size <= QUEUE_BYTES {
            *kept_bytes += size;
            kept.insert((change.kind, Arc::clone(&change.key)), change);
        }
    }
}

impl Inbox {
    // ---- submissions

    /// The only way in. `work` reads and changes intent atomically. `done` is called when all of that is on disk, or
    /// now, with the result that `told_now` then has. If `work` fails, nothing of it is queued, whatever it changed in memory, and
    /// `done` is returned. Call [`Inbox::wake`] afterwards.
    pub fn submit<T>(
        &self,
        done: Done,
        told_now: Option<impl FnOnce() -> Result<Persisted>>,
        work: impl FnOnce(&mut Inner) -> std::result::Result<T, Ack>,
    ) -> std::result::Result<T, (Done, Ack)> {
        let mut state = self.inner.lock();
        if state.is_closing {
            let error = Error::new(Code::Closed, "the journal is closed: the server is stopping");
            return Err((done, error.into()));
        }
        let before = state.queue.len();
        let value = match work(&mut state) {
            Ok(value) => value,
            Err(refusal) => return Err((done, refusal)),
        };
        let seq = state.intent.seq();
        let (now, later) = match told_now {
            Some(result) => (Some((done, result)), None),
            None => (None, Some(done)),
        };
        match state.queue.get_mut(before..).and_then(<[Job]>::last_mut) {
            Some(job) => job.done = later,
            None => state.push(Job { seq, stands_on: None, applied: None, done: later }),
        }
        if state.awaited > 0 && state.queue.len() >= state.awaited {
            self.all_queued.notify_one();
        }
        drop(state);
        if let Some((done, result)) = now {
            done.call(Ack { seq, result: result(), undone: false });
        }
        Ok(value)
    }

    pub fn wake(&self) {
        self.wake_writer.notify_one();
    }

    pub fn look<T>(&self, at: impl FnOnce(&Intent) -> T) -> T {
        at(&self.inner.lock().intent)
    }

    /// Whether changes are written, how many wait for the disk, how long the oldest has, and what `of` reads from
    /// intent.
    pub fn report<T>(&self, of: impl FnOnce(&Intent) -> T) -> (Standing, usize, Duration, T) {
        let state = self.inner.lock();
        let lag = state.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        (state.standing, state.queue.len(), lag, of(&state.intent))
    }

    /// What arguments are encrypted with.
    pub fn cipher(&self) -> Option<Arc<ArgsCipher>> {
        self.look(|intent| intent.cipher().cloned())
    }

    /// Calls `told` once when intent is known: at once, or on the writer thread.
    pub fn on_loaded(&self, told: impl FnOnce() + Send + 'static) {
        let mut state = self.inner.lock();
        if state.standing == Standing::NotRead {
            state.begin = Some(Box::new(told));
        } else {
            drop(state);
            told();
        }
    }

    /// Refuses further submissions; the queue is still written.
    pub fn close(&self) {
        self.inner.lock().is_closing = true;
        self.wake_writer.notify_all();
    }

    // ---- for the maintenance thread

    pub fn order_rewrite(&self) {
        self.inner.lock().needs_rewrite = true;
        self.wake();
    }

    pub fn order(&self, change: impl FnOnce(&mut Chores)) {
        change(&mut self.inner.lock().chores);
        self.wake();
    }

    // ---- for the writer

    /// Waits for work. `callers` is the number of calls that the last commit answered or that came during it.
    pub fn next(&self, is_open: bool, retry_at: Option<Instant>, callers: usize) -> Work {
        let mut state = self.inner.lock();
        loop {
            let is_broken = match state.standing {
                Standing::Written => !is_open || state.needs_rewrite,
                Standing::NotRead => !state.is_closing,
                Standing::ReadOnly => false,
            };
            let is_due = is_broken && (state.is_closing || retry_at.is_none_or(|at| at <= Instant::now()));
            let is_idle = state.queue.is_empty() && state.chores == Chores::default();
            if is_due || !is_idle || state.is_closing {
                if !is_due && !state.is_closing && !state.queue.is_empty() {
                    self.wait_for_others(&mut state, callers);
                }
                // Allocated here, so that the queue need not grow on media threads.
                let room = Vec::with_capacity(state.queue.len().min(USUAL_BATCH));
                let jobs = std::mem::replace(&mut state.queue, room);
                state.queued_bytes = 0;
                state.needs_rewrite &= !is_due;
                let repair = match state.standing {
                    _ if !is_due => Repair::None,
                    Standing::NotRead => Repair::Open,
                    _ => Repair::Rewrite(state.intent.clone()),
                };
                let chores = std::mem::take(&mut state.chores);
                return Work { taken: Instant::now(), jobs, chores, repair, is_last: state.is_closing };
            }
            match retry_at.filter(|_| is_broken) {
                Some(at) => {
                    self.wake_writer.wait_until(&mut state, at);
                }
                None => self.wake_writer.wait(&mut state),
            }
        }
    }

    /// Waits for further calls: callers that were just answered usually send their next one at once, and a commit costs
    /// as much processor time, which the pollers need, as several changes.
    fn wait_for_others(&self, state: &mut MutexGuard<'_, Inner>, callers: usize) {
        let awaited = callers.min(SHARED_WELL);
        if awaited < SHARED_FROM || state.queue.len() >= awaited {
            return;
        }
        state.awaited = awaited;
        self.all_queued.wait_for(state, SHARE_WAIT);
        state.awaited = 0;
    }

    /// Everything that was taken at `taken` is answered. Returns the number of jobs that have come since.
    pub fn answered(&self, taken: Instant) -> usize {
        let mut state = self.inner.lock();
        state.waiting_since = (!state.queue.is_empty()).then_some(taken);
        state.queue.len()
    }

    /// Keeps changes that are in memory but were not written.
    pub fn missed(&self, batch: Vec<Applied>) {
        let mut state = self.inner.lock();
        batch.into_iter().for_each(|applied| state.missed(applied));
    }

    /// Undoes changes that were not written, the newest first, and returns them. Not undone: changes on a key that a
    /// later queued call has changed too.
    pub fn take_back(&self, batch: Vec<Applied>) -> Vec<Applied> {
        let mut undone = Vec::new();
        let mut state = self.inner.lock();
        let queued = state.queue.iter().filter_map(|job| job.applied.as_ref());
        let later: BTreeSet<ProxyKey> =
            queued.map(|applied| (applied.change.kind, Arc::clone(&applied.change.key))).collect();
        for applied in batch.into_iter().rev() {
            let is_set_aside = applied.change.op == Op::Set(State::Quarantined);
            if is_set_aside || later.contains(&(applied.change.kind, Arc::clone(&applied.change.key))) {
                state.missed(applied);
            } else {
                state.intent.take_back(&applied);
                undone.push(applied);
            }
        }
        undone
    }

    /// The file was read: intent is what it has, plus the calls that have come since the start.
    pub fn loaded(&self, intent: Intent, is_written: bool) {
        let mut state = self.inner.lock();
        if state.standing != Standing::NotRead {
            return;
        }
        state.standing = if is_written { Standing::Written } else { Standing::ReadOnly };
        state.intent = intent;
        let (kept, begin) = (std::mem::take(&mut state.kept), state.begin.take());
        for change in kept.into_values() {
            state.change(change);
        }
        drop(state);
        if let Some(begin) = begin {
            begin();
        }
    }

    /// The file has everything up to this change.
    pub fn rewritten(&self, seq: u64) {
        self.inner.lock().unwritten.retain(|change| change.seq > seq);
    }

    pub fn unwritten(&self) -> Vec<Change> {
        self.inner.lock().unwritten.clone()
    }

    /// The writer has died: changes stay in memory, and the queued ones fail.
    pub fn abandon(&self) {
        let mut state = self.inner.lock();
        state.is_abandoned = true;
        let untold = std::mem::take(&mut state.queue);
        drop(state);
        drop(untold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_that_of_the_oldest_that_waits() {
        let inbox = Inbox::default();
        let since = || inbox.inner.lock().waiting_since;
        let call =
            || assert!(inbox.submit(Done::new(drop), None::<fn() -> Result<Persisted>>, |_| Ok(())).is_ok());
        let lag = || inbox.report(|_| ()).2;
        assert_eq!(lag(), Duration::ZERO);
        call();
        let first = since();
        std::thread::sleep(Duration::from_millis(2));
        call();
        assert_eq!(since(), first);
        assert!(lag() >= Duration::from_millis(2));
        let taken = Instant::now();
        // One more came while those were written.
        inbox.answered(taken);
        assert_eq!(since(), Some(taken));
        inbox.inner.lock().queue.clear();
        inbox.answered(Instant::now());
        assert_eq!(lag(), Duration::ZERO);
    }
}
