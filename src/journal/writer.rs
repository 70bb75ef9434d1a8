//! The writer thread: takes everything from the queue, writes it in one transaction, then acknowledges it. It owns the
//! only writing connection. After a failed commit, nothing on disk is trusted: all of intent is written from memory to
//! a new file, and until that has succeeded, nothing is acknowledged as durable. A journal that could not be opened is
//! retried in the same way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::ack::{Ack, Done, Persisted};
use super::core::Core;
use super::inbox::{Chores, Job, Repair};
use crate::error::{Code, Error, Result};
use crate::settings::OnError;
use crate::storage::cipher::ArgsCipher;
use crate::storage::db::{self, LOG_PAGES, Store};
use crate::storage::intent::{Applied, Intent};
use crate::storage::paths::REPLACED;
use crate::storage::recover::{self, Opened};

const PRUNE_ROWS: u32 = 1000;
/// The pause between attempts to write or open a journal that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A forked child of a previous server that crashed may hold the lock for a moment.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// How long a deleted log may be written to before that is noticed: a check costs a twentieth of a commit.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A failure is logged again after this many attempts.
const SAY_EVERY: u32 = 60;

pub struct Writer {
    core: Arc<Core>,
    store: Option<Store>,
    lock: Option<Box<dyn Send>>,
    retry_at: Option<Instant>,
    attempts: u32,
    /// The length of the log when a checkpoint was last asked for; 0 after the log has started over.
    asked_at: u32,
    /// When the log was last known to exist.
    looked_at: Instant,
    /// The number of calls that the last commit answered or that came during it.
    callers: usize,
}

impl Writer {
    /// Opens the journal on this thread, or leaves that to a retry.
    pub fn open(core: Arc<Core>) -> Self {
        let looked_at = Instant::now();
        let mut writer = Self {
            core,
            store: None,
            lock: None,
            retry_at: None,
            attempts: 0,
            asked_at: 0,
            looked_at,
            callers: 0,
        };
        writer.try_to_open();
        writer
    }

    pub fn run(mut self) {
        loop {
            let work = self.core.inbox.next(self.store.is_some(), self.retry_at, self.callers);
            match &work.repair {
                Repair::None => {}
                Repair::Rewrite(intent) => self.rewrite(intent),
                Repair::Open => self.try_to_open(),
            }
            let jobs = work.jobs.len();
            self.settle(work.jobs, matches!(work.repair, Repair::Rewrite(_)));
            self.callers = jobs + self.core.inbox.answered(work.taken);
            if let Err(error) = self.do_chores(work.chores) {
                self.fail(&error);
            }
            if work.is_last {
                return;
            }
        }
    }

    /// Writes the jobs, unless a rewrite has just done so, and calls every `done`.
    fn settle(&mut self, mut jobs: Vec<Job>, rewritten: bool) {
        let batch: Vec<Applied> = jobs.iter_mut().filter_map(|job| job.applied.take()).collect();
        let outcome = match &mut self.store {
            None => Err(self.core.last_failure()),
            Some(_) if rewritten || jobs.is_empty() => Ok(()),
            Some(store) => {
                let began = Instant::now();
                let committed = store.commit(&batch);
                if !batch.is_empty() {
                    self.core.gauges.committed(committed.as_ref().map_or(0, |()| batch.len()), began.elapsed());
                }
                // What was written to a deleted file is not on disk.
                if began.saturating_duration_since(self.looked_at) < LOOK_EVERY {
                    committed
                } else {
                    self.looked_at = began;
                    committed.and_then(|()| self.core.log_is_there())
                }
            }
        };
        let mut undone = BTreeSet::new();
        match &outcome {
            Ok(()) => {
                if let Some(last) = jobs.last() {
                    self.core.durable_seq.fetch_max(last.seq, Ordering::Release);
                }
                if !batch.is_empty() {
                    self.ask_for_checkpoint();
                }
            }
            Err(error) => {
                // The change may be on disk or not after a failed sync: the file is no longer trusted.
                if self.store.is_some() {
                    self.fail(error);
                }
                undone = self.take_back(batch);
            }
        }
        Done::call_all(jobs.into_iter().filter_map(|Job { seq, stands_on, done, .. }| {
            let result = outcome.clone().map(|()| Persisted::Yes);
            let undone = stands_on.is_some_and(|seq| undone.contains(&seq));
            Some((done?, Ack { seq, result, undone }))
        }));
    }

    /// Undoes what was not written if the settings say so. Returns the numbers of the undone changes.
    fn take_back(&self, batch: Vec<Applied>) -> BTreeSet<u64> {
        if self.core.options().on_error == OnError::Accept {
            self.core.inbox.missed(batch);
            return BTreeSet::new();
        }
        let undone = self.core.inbox.take_back(batch);
        for applied in &undone {
            self.core.undone(applied.change.kind, &applied.change.key);
        }
        undone.iter().map(|applied| applied.change.seq).collect()
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

    // ---- opening

    fn try_to_open(&mut self) {
        let core = Arc::clone(&self.core);
        let _files = core.files.lock();
        match self.open_files() {
            Ok(opened) => self.opened(opened),
            Err(error) if error.code == Code::NewerSchema => {
                let read =
                    self.cipher().and_then(|cipher| db::load(&core.paths, &core.paths.file, cipher.as_ref()));
                match read {
                    Ok(intent) => self.opened_read_only(intent, error),
                    Err(unread) => self.fail(&error.context(unread)),
                }
            }
            Err(error) => {
                self.fail(&error.context(format!("the journal {} cannot be opened", core.paths.file.display())));
            }
        }
    }

    fn open_files(&mut self) -> Result<Opened> {
        self.core.paths.prepare()?;
        let mut attempts = 0;
        while self.lock.is_none() {
            attempts += 1;
            match self.core.paths.lock() {
                Ok(lock) => self.lock = Some(lock),
                Err(error) if error.code == Code::Locked && attempts < LOCK_ATTEMPTS => thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(error),
            }
        }
        let opened = self.cipher().and_then(|cipher| recover::open(&self.core.paths, cipher.as_ref()));
        if opened.is_err() {
            // So that another server can try.
            self.lock = None;
        }
        opened
    }

    /// Read at each attempt: the disk with the key may be mounted later.
    fn cipher(&self) -> Result<Option<Arc<ArgsCipher>>> {
        let options = self.core.options();
        options.key_file.as_ref().map(|file| ArgsCipher::read(&*self.core.paths.env, file)).transpose()
    }

    fn opened(&mut self, opened: Opened) {
        let core = Arc::clone(&self.core);
        log::info!(
            "journal: {} open, {} proxies, last change {}",
            core.paths.file.display(),
            opened.intent.digest().count,
            opened.intent.seq()
        );
        core.durable_seq.store(opened.intent.seq(), Ordering::Release);
        // Have the log of the last run copied soon.
        core.dirty.store(true, Ordering::Relaxed);
        self.store = Some(opened.store);
        self.healed();
        let newest = core.paths.list_snapshots().into_iter().next();
        // Have a snapshot made soon after each start, however short the last run was.
        let snapshot = newest.as_ref().map_or(0, |snapshot| snapshot.seq);
        core.snapshot_due.store(opened.intent.seq() > snapshot, Ordering::Relaxed);
        core.health.lock().snapshot = newest;
        if let Some(report) = opened.report {
            log::error!("journal: {report}");
            core.health.lock().last_error = Some((core.paths.env.now_ms(), Error::corrupt(report)));
        }
        core.inbox.loaded(opened.intent, true);
    }

    fn opened_read_only(&mut self, intent: Intent, error: Error) {
        log::error!("journal: {error}. {} proxies are restored from it", intent.digest().count);
        self.core.durable_seq.store(intent.seq(), Ordering::Release);
        self.core.failed(error);
        self.core.inbox.loaded(intent, false);
    }

    // ---- failing and healing

    fn rewrite(&mut self, intent: &Intent) {
        // No other connection of ours may hold the old file while it is moved.
        let core = Arc::clone(&self.core);
        let _files = core.files.lock();
        self.drop_store();
        match self.write_afresh(intent) {
            Ok(store) => {
                log::warn!(
                    "journal: all {} proxies were rewritten to {}, which is complete again; the old files, if any, \
                     are in quarantine/",
                    intent.digest().count,
                    core.paths.file.display()
                );
                self.store = Some(store);
                core.snapshot_due.store(true, Ordering::Relaxed);
                core.inbox.rewritten(intent.seq());
                core.durable_seq.fetch_max(intent.seq(), Ordering::Release);
                core.file_seq.store(intent.seq(), Ordering::Release);
                self.healed();
            }
            Err(error) => self.fail(&error.context("the journal still cannot be written")),
        }
    }

    fn write_afresh(&mut self, intent: &Intent) -> Result<Store> {
        let paths = &self.core.paths;
        paths.prepare()?;
        if !paths.is_locked()? {
            // The lock was deleted with its directory.
            self.lock = Some(paths.lock()?);
        }
        let durable = self.core.durable_seq.load(Ordering::Acquire);
        let mut content = recover::with_old_history(paths, intent.clone(), durable);
        content.history.extend(self.core.inbox.unwritten().into_iter().map(|change| (change.seq, change)));
        let report = self.core.health.lock().last_error.as_ref().map_or_else(
            || "The file was rewritten from memory".to_owned(),
            |(_, error)| format!("The file was rewritten from memory after: {error}"),
        );
        recover::replace(paths, content, report, REPLACED).map(|opened| opened.store)
    }

    fn healed(&mut self) {
        self.retry_at = None;
        self.attempts = 0;
        self.asked_at = 0;
        self.core.opened();
        self.core.health.lock().failure = None;
    }

    /// Drops the connection without writing, and schedules the next attempt.
    fn fail(&mut self, error: &Error) {
        self.drop_store();
        // The first rewrite may succeed at once; further attempts wait.
        self.retry_at = Some(Instant::now() + if self.attempts == 0 { Duration::ZERO } else { RETRY });
        if self.attempts.is_multiple_of(SAY_EVERY) {
            log::error!(
                "journal: {error}. The server keeps running, but its calls are not journaled. This is retried every \
                 second"
            );
        }
        self.attempts += 1;
        self.core.failed(error.clone());
    }

    fn drop_store(&mut self) {
        *self.core.opened.lock() = None;
        if let Some(store) = self.store.take() {
            store.abandon();
        }
    }

    fn do_chores(&self, chores: Chores) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        if chores.finish_checkpoint {
            self.core.copy_log(store)?;
        }
        if let Some((seq, before)) = chores.prune
            && store.prune(seq, before, PRUNE_ROWS)? == PRUNE_ROWS as usize
        {
            // There is more to prune: continue after the jobs that are waiting.
            self.core.inbox.order(|due| due.prune = chores.prune);
        }
        Ok(())
    }
}
