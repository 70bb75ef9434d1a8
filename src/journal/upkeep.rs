//! The maintenance thread: checkpoints and snapshots, on a connection of its own, so that no commit waits for them. It
//! orders from the writer what only the writing connection may do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::core::Core;
use crate::error::{Code, Result};
use crate::storage::db::{self, Content, Store};
use crate::storage::paths::{DAMAGED, REPLACED, SnapshotFile};

/// Changes are in the database file at the latest after this time.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);

pub struct Maintenance {
    core: Arc<Core>,
    /// The last change that was noted as being on disk.
    marked: u64,
    /// The file was fully checked once since it was opened.
    verified: bool,
    checkpointed: Instant,
    snapshotted: Instant,
}

impl Maintenance {
    pub fn new(core: Arc<Core>) -> Self {
        let now = Instant::now();
        Self { core, marked: 0, verified: false, checkpointed: now, snapshotted: now }
    }

    pub fn run(mut self) {
        loop {
            {
                let mut stopping = self.core.stop_maintenance.lock();
                if !*stopping {
                    self.core.wake_maintenance.wait_for(&mut stopping, TICK);
                }
                if *stopping {
                    break;
                }
            }
            if let Err(error) = self.tick() {
                log::error!("journal: {error}");
                self.core.noted(error);
            }
        }
    }

    fn tick(&mut self) -> Result<()> {
        // Also without calls, a journal that was deleted is soon rewritten.
        if let Err(error) = self.core.files_are_there() {
            self.core.noted(error);
            self.core.inbox.order_rewrite();
        }
        // Nothing was written since the last check: a checkpoint now delays nobody, and makes a plain copy of the
        // database file a backup.
        let is_quiet = !self.mark()?;
        if !self.verified && self.core.is_healthy() {
            self.verified = true;
            self.core.seal_what_is_old()?;
            self.verify()?;
        }
        let overdue = self.checkpointed.elapsed() >= CHECKPOINT_EVERY;
        let is_dirty = self.core.dirty.load(Ordering::Relaxed);
        if (is_dirty && (is_quiet || overdue)) || self.core.checkpoint_due.swap(false, Ordering::Relaxed) {
            self.checkpointed = Instant::now();
            self.core.checkpoint()?;
        }
        let fresh = self.core.is_healthy() && self.core.snapshot_due.swap(false, Ordering::Relaxed);
        if fresh || self.snapshotted.elapsed() >= self.core.options().snapshot_every {
            self.snapshotted = Instant::now();
            self.core.take_snapshot()?;
        }
        Ok(())
    }

    /// Checks once what the start does not read, history and indexes, while the server is already running.
    fn verify(&self) -> Result<()> {
        let _files = self.core.files.lock();
        let core = Arc::clone(&self.core);
        let verified = Store::open_for_reading(&self.core.paths, &self.core.paths.file)
            .and_then(|mut store| store.verify(move || core.stop_maintenance.try_lock().is_none_or(|stop| *stop)));
        self.core.rewrite_if_corrupt(verified)
    }

    /// Notes the last change on disk. Returns whether it is a new one.
    fn mark(&mut self) -> Result<bool> {
        let _files = self.core.files.lock();
        let durable = self.core.durable_seq.load(Ordering::Acquire);
        let is_new = durable > self.marked && self.core.is_healthy();
        if is_new {
            self.core.paths.write_mark(durable)?;
            self.marked = durable;
        }
        Ok(is_new)
    }
}

impl Core {
    pub fn checkpoint(&self) -> Result<()> {
        let _files = self.files.lock();
        if !self.is_healthy() {
            return Ok(());
        }
        self.dirty.store(false, Ordering::Relaxed);
        self.copy_log(&Store::open(&self.paths, &self.paths.file)?)?;
        self.inbox.order(|due| due.finish_checkpoint = true);
        Ok(())
    }

    /// Copies the log into the database on this connection, and notes the last change in the database.
    pub fn copy_log(&self, store: &Store) -> Result<()> {
        let durable = self.durable_seq.load(Ordering::Acquire);
        let is_whole = store.checkpoint()?;
        log::debug!("journal: checkpoint up to change {durable}{}", if is_whole { "" } else { " (incomplete)" });
        if is_whole {
            self.file_seq.fetch_max(durable, Ordering::Release);
        }
        Ok(())
    }

    /// Makes a snapshot of what is on disk, unless nothing has changed since the last one. It gets its name only when
    /// it is complete, verified and synced. Returns the newest snapshot.
    pub fn take_snapshot(&self) -> Result<Option<SnapshotFile>> {
        let _files = self.files.lock();
        if !self.is_healthy() {
            return Err(self.last_failure().context("no snapshot"));
        }
        let newest = self.paths.list_snapshots().into_iter().next();
        // Checks each row as it is read: a snapshot also tests the journal itself.
        let intent = db::load(&self.paths, &self.paths.file, self.inbox.cipher().as_ref());
        let intent = self
            .rewrite_if_corrupt(intent)
            .map_err(|error| error.context(format!("cannot make a snapshot of {}", self.paths.file.display())))?;
        if newest.as_ref().is_some_and(|snapshot| snapshot.seq == intent.seq()) {
            return Ok(newest);
        }
        let snapshot = self.paths.snapshot(intent.seq());
        db::create(&self.paths, &snapshot.path, &Content { intent, ..Content::default() })?;
        self.health.lock().snapshot = Some(snapshot.clone());
        self.drop_old_snapshots()?;
        Ok(Some(snapshot))
    }

    /// With a key, none of our files may show URLs: older snapshots are encrypted, and plain files that were replaced
    /// are deleted. Damaged ones are left to the operator, who may still need them.
    fn seal_what_is_old(&self) -> Result<()> {
        let Some(cipher) = self.inbox.cipher() else { return Ok(()) };
        let _files = self.files.lock();
        let is_encrypted = |path: &Path| {
            let key_id = Store::open_for_reading(&self.paths, path).and_then(|store| store.key_id());
            key_id.is_ok_and(|id| id == Some(cipher.id))
        };
        for snapshot in self.paths.list_snapshots() {
            if is_encrypted(&snapshot.path) {
                continue;
            }
            match db::load(&self.paths, &snapshot.path, Some(&cipher)) {
                Ok(intent) => {
                    db::create(&self.paths, &snapshot.path, &Content { intent, ..Content::default() })?;
                }
                Err(error) => log::error!(
                    "journal: cannot encrypt {}: {error}. Remove it if the URLs in it must not be readable",
                    snapshot.path.display()
                ),
            }
        }
        let holds_more =
            |folder: &PathBuf| self.paths.database_in(folder).is_some_and(|file| !is_encrypted(&file));
        for folder in self.paths.quarantined(REPLACED).iter().filter(|folder| holds_more(folder)) {
            self.paths.empty(folder)?;
        }
        for folder in self.paths.quarantined(DAMAGED).iter().filter(|folder| holds_more(folder)) {
            log::warn!(
                "journal: {} has unencrypted files from before key_file was set: remove them if they are not needed",
                folder.display()
            );
        }
        Ok(())
    }

    /// Memory is not damaged: if the file is, it is rewritten from memory.
    fn rewrite_if_corrupt<T>(&self, read: Result<T>) -> Result<T> {
        if let Err(error) = &read
            && error.code == Code::Corrupt
        {
            log::error!("journal: {error}. It is being rewritten from memory");
            self.noted(error.clone());
            self.inbox.order_rewrite();
        }
        read
    }

    /// Keeps the newest snapshots, and prunes the history that none of them needs.
    fn drop_old_snapshots(&self) -> Result<()> {
        let snapshots = self.paths.list_snapshots();
        for old in snapshots.iter().skip(self.options().snapshot_keep) {
            self.paths.remove(&old.path)?;
        }
        // The second newest: if the newest proves damaged, that one must still lead to the present.
        if let Some(older) = snapshots.get(1) {
            let history = i64::try_from(self.options().history.as_millis()).unwrap_or(i64::MAX);
            let before = self.paths.env.now_ms().saturating_sub(history);
            self.inbox.order(|due| due.prune = Some((older.seq, before)));
        }
        Ok(())
    }
}
