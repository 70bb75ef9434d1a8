//! The writer thread: waits, takes all that is queued, writes it in one transaction, then acknowledges. It owns
//! the one writing connection. After a failed commit nothing on disk is believed any more: the whole of intent is
//! written from memory to a fresh file, and until that has worked nothing is acknowledged as durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::intent::{Applied, Intent};
use super::recovery;
use super::store::{LOG_PAGES, Store};
use super::{Ack, Core, Done, Persisted, now_ms};
use crate::error::Error;

/// A change on its way to disk, or (without one) a call that waits for those before it.
pub struct Job {
    pub seq: u64,
    pub applied: Option<Applied>,
    pub done: Option<Done>,
}

/// Housekeeping that only the writing connection may do, asked for by the maintenance thread.
#[derive(Debug, Default, Clone, Copy)]
pub struct Chores {
    /// Copy what little of the log the last checkpoint left, so that the log starts over.
    pub finish_checkpoint: bool,
    /// Drop history up to this change and older than this time.
    pub prune: Option<(u64, i64)>,
}

const PRUNE_ROWS: u32 = 1000;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

pub struct Writer {
    core: Arc<Core>,
    store: Option<Store>,
    retry: Duration,
    retry_at: Option<Instant>,
    /// Length of the log when a checkpoint was last asked for; 0 once it has started over.
    asked_at: u32,
}

/// What one turn of the loop has to do.
struct Work {
    jobs: Vec<Job>,
    chores: Chores,
    /// Set when the file must be rewritten: intent as of the jobs taken.
    rewrite: Option<Intent>,
    last: bool,
}

impl Writer {
    pub fn new(core: Arc<Core>, store: Store) -> Self {
        Self { core, store: Some(store), retry: FIRST_RETRY, retry_at: None, asked_at: 0 }
    }

    pub fn run(mut self) {
        loop {
            let work = self.wait();
            if let Some(intent) = &work.rewrite {
                self.rewrite(intent);
            }
            self.settle(work.jobs, work.rewrite.is_some());
            self.do_chores(work.chores);
            if work.last {
                return;
            }
        }
    }

    fn wait(&mut self) -> Work {
        let mut front = self.core.front.lock();
        loop {
            let broken = self.store.is_none() || front.behind;
            let due = broken && (front.closing || self.retry_at.is_none_or(|at| at <= Instant::now()));
            let idle = front.queue.is_empty() && !front.chores.finish_checkpoint && front.chores.prune.is_none();
            if due || !idle || front.closing {
                let queue = std::mem::take(&mut front.queue);
                front.queued_bytes = 0;
                front.behind &= !due;
                return Work {
                    jobs: queue,
                    chores: std::mem::take(&mut front.chores),
                    rewrite: due.then(|| front.intent.clone()),
                    last: front.closing,
                };
            }
            match self.retry_at.filter(|_| broken) {
                Some(at) => {
                    self.core.wake_writer.wait_until(&mut front, at);
                }
                None => self.core.wake_writer.wait(&mut front),
            }
        }
    }

    /// Writes the jobs unless a rewrite has just done so, and tells every caller how it ended.
    fn settle(&mut self, jobs: Vec<Job>, rewritten: bool) {
        let (mut batch, mut waiting) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for job in jobs {
            batch.extend(job.applied);
            waiting.push((job.seq, job.done));
        }
        let outcome = match &mut self.store {
            None => Err(self.core.last_failure()),
            Some(_) if rewritten || batch.is_empty() => Ok(()),
            Some(store) => store.commit(&batch),
        };
        match &outcome {
            Ok(()) => {
                if let Some((seq, _)) = waiting.last() {
                    self.core.durable_seq.fetch_max(*seq, Ordering::Release);
                }
                if !batch.is_empty() {
                    self.ask_for_checkpoint();
                }
            }
            // Not an answer to "is it on disk?": after a failed sync it may or may not be there.
            Err(error) if self.store.is_some() => self.fail(error),
            Err(_) => {}
        }
        for (seq, done) in waiting {
            if let Some(done) = done {
                done.call(Ack { seq, result: outcome.clone().map(|()| Persisted::Yes) });
            }
        }
    }

    fn ask_for_checkpoint(&mut self) {
        self.core.dirty.store(true, Ordering::Relaxed);
        let pages = self.store.as_ref().map_or(0, Store::log_pages);
        if pages < self.asked_at {
            self.asked_at = 0;
        }
        if pages - self.asked_at >= LOG_PAGES / 2 {
            self.asked_at = pages;
            self.core.checkpoint_due.store(true, Ordering::Relaxed);
            self.core.wake_maintenance.notify_one();
        }
    }

    fn rewrite(&mut self, intent: &Intent) {
        // No reader of ours may hold the old file while it is moved away.
        let core = Arc::clone(&self.core);
        let _files = core.files.lock();
        self.store = None;
        match recovery::replace(&self.core.place, intent, now_ms()) {
            Ok((store, kept)) => {
                log::warn!(
                    "journal: all {} proxies were written afresh to {}, it is complete again; {kept}",
                    intent.digest().count,
                    self.core.place.file.display()
                );
                self.store = Some(store);
                self.retry = FIRST_RETRY;
                self.retry_at = None;
                self.core.durable_seq.fetch_max(intent.seq(), Ordering::Release);
                self.core.recovered();
            }
            Err(error) => {
                self.fail(&error.context("still cannot write the journal"));
            }
        }
    }

    /// Drops the connection without a further word to the disk, and plans the next attempt.
    fn fail(&mut self, error: &Error) {
        self.store = None;
        self.retry_at = Some(Instant::now() + self.retry);
        log::error!(
            "journal: {error}. Calls are answered with persisted:false; next attempt in {} s",
            self.retry.as_secs()
        );
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
        self.core.failed(error.clone());
    }

    fn do_chores(&mut self, chores: Chores) {
        let Some(store) = &self.store else { return };
        let mut outcome = Ok(());
        if chores.finish_checkpoint {
            outcome = store.checkpoint();
        }
        if let (Ok(()), Some((seq, before))) = (&outcome, chores.prune) {
            match store.prune(seq, before, PRUNE_ROWS) {
                // Not all of it yet: the rest after whoever is waiting.
                Ok(rows) if rows == PRUNE_ROWS as usize => {
                    self.core.front.lock().chores.prune = chores.prune;
                }
                Ok(_) => {}
                Err(error) => outcome = Err(error),
            }
        }
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }
}
