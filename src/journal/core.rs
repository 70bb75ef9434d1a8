//! What the journal's threads share: the inbox, the health of the storage, which files are open. Knows nothing of how
//! changes are written.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, RwLock};

use super::ack::{Ack, Done, Persisted, Refusal};
use super::gauges::Gauges;
use super::inbox::{Inbox, Submitted, Turn};
use crate::error::{Code, Error, Result};
use crate::model::Kind;
use crate::settings::{Durability, Settings};
use crate::storage::paths::{JournalPaths, SnapshotFile, log_of};

/// Told of a proxy that the server should be brought back to intent for.
pub type Converge = Box<dyn Fn(Kind, &Arc<str>) + Send + Sync>;

/// What the threads share.
pub struct Core {
    options: RwLock<Arc<Settings>>,
    pub paths: JournalPaths,
    pub inbox: Inbox,
    pub stop_maintenance: Mutex<bool>,
    pub wake_maintenance: Condvar,
    pub health: Mutex<Health>,
    /// Held by whoever opens or moves the files, other than the writer's own connection.
    pub files: Mutex<()>,
    /// Which files the writer's connection has open.
    pub opened: Mutex<Option<OpenFiles>>,
    pub converge: OnceLock<Converge>,
    pub durable_seq: AtomicU64,
    /// The last change that the database file has without its log.
    pub file_seq: AtomicU64,
    pub gauges: Arc<Gauges>,
    /// Something was written since the last checkpoint.
    pub dirty: AtomicBool,
    /// The log has grown so long that one should come now.
    pub checkpoint_due: AtomicBool,
    /// What the file has may stand nowhere else.
    pub snapshot_due: AtomicBool,
}

/// The database and its log, as [`env::Stat::identity`] tells them.
pub type Identity = [(u64, u64); 2];

/// The files that are open, to be told from those at the journal's paths.
pub struct OpenFiles {
    pub identity: Identity,
    /// False once the log is not there any more.
    pub log_is_there: Box<dyn Fn() -> bool + Send>,
}

#[derive(Default)]
pub struct Health {
    /// The storage does not work now.
    pub failure: Option<(i64, Error)>,
    /// The last thing that went wrong, also when it is mended.
    pub last_error: Option<(i64, Error)>,
    pub snapshot: Option<SnapshotFile>,
}

impl Core {
    /// As [`Inbox::submit`], told at once where the settings say so.
    pub fn submit<T>(
        &self,
        done: Done,
        work: impl FnOnce(&mut Turn<'_>) -> std::result::Result<T, Refusal>,
    ) -> std::result::Result<T, (Done, Refusal)> {
        let is_told_now = self.options().durability == Durability::Async;
        let Submitted { value, seq, done } = self.inbox.submit(done, is_told_now, work)?;
        if let Some(done) = done {
            let failure = self.health.lock().failure.clone();
            let result = failure.map_or(Ok(Persisted::Soon), |(_, error)| Err(error));
            done.call(Ack { seq, result, undone: false });
        }
        Ok(value)
    }

    pub fn new(options: Settings, paths: JournalPaths) -> Self {
        let gauges = Arc::new(Gauges::new());
        Self {
            options: RwLock::new(Arc::new(options)),
            paths,
            durable_seq: AtomicU64::new(0),
            file_seq: AtomicU64::new(0),
            inbox: Inbox::new(Arc::clone(&gauges)),
            gauges,
            stop_maintenance: Mutex::new(false),
            wake_maintenance: Condvar::new(),
            health: Mutex::new(Health::default()),
            files: Mutex::new(()),
            opened: Mutex::new(None),
            converge: OnceLock::new(),
            dirty: AtomicBool::new(false),
            checkpoint_due: AtomicBool::new(false),
            snapshot_due: AtomicBool::new(false),
        }
    }

    /// The settings as they are now.
    pub fn options(&self) -> Arc<Settings> {
        Arc::clone(&self.options.read())
    }

    pub fn set_options(&self, options: Settings) {
        *self.options.write() = Arc::new(options);
    }

    pub fn is_healthy(&self) -> bool {
        self.health.lock().failure.is_none()
    }

    pub fn failed(&self, error: Error) {
        self.gauges.failed();
        let mut health = self.health.lock();
        health.last_error = Some((self.paths.env.now_ms(), error));
        health.failure = health.last_error.clone();
    }

    /// Why the storage does not work now.
    pub fn last_failure(&self) -> Error {
        self.health
            .lock()
            .failure
            .as_ref()
            .map_or_else(|| Error::new(Code::Storage, "the journal cannot be written"), |(_, error)| error.clone())
    }

    /// An error that leaves the journal writable.
    pub fn noted(&self, error: Error) {
        self.gauges.failed();
        self.health.lock().last_error = Some((self.paths.env.now_ms(), error));
    }

    /// A defect of ours ended the writer: nothing more becomes durable, and everyone is told so.
    pub fn writer_died(&self) {
        let error = Error::new(Code::Panic, "the journal's writer thread panicked: restart the server");
        log::error!("journal: {error}");
        self.failed(error);
        self.inbox.abandon();
    }

    pub fn recovered(&self) {
        self.health.lock().failure = None;
    }

    pub fn undone(&self, kind: Kind, key: &Arc<str>) {
        if let Some(converge) = self.converge.get() {
            converge(kind, key);
        }
    }

    /// Which files stand at the journal's paths now; none where one is missing.
    pub fn standing(&self) -> Option<Identity> {
        let identity = |path| Some(self.paths.env.stat(path).ok()??.identity);
        Some([identity(&self.paths.file)?, identity(&log_of(&self.paths.file))?])
    }

    /// Notes which files are open now.
    pub fn opened(&self) {
        // Where it cannot be watched, the look once a second has to do.
        let log_is_there = self.paths.env.watch(&log_of(&self.paths.file)).unwrap_or_else(|_| Box::new(|| true));
        *self.opened.lock() = self.standing().map(|identity| OpenFiles { identity, log_is_there });
    }

    /// An error where the log that is open was deleted or replaced: what is written to it is lost with this process.
    /// Quick.
    pub fn log_is_there(&self) -> Result<()> {
        self.gone_unless(|open| (open.log_is_there)())
    }

    /// An error where any file that is open is no longer the one at its path.
    pub fn files_are_there(&self) -> Result<()> {
        self.gone_unless(|open| self.standing() == Some(open.identity))
    }

    pub fn gone_unless(&self, there: impl FnOnce(&OpenFiles) -> bool) -> Result<()> {
        if self.opened.lock().as_ref().is_none_or(there) {
            return Ok(());
        }
        let file = self.paths.file.display();
        Err(Error::new(
            Code::Storage,
            format!("{file} or its log was deleted or replaced while the server was running"),
        ))
    }
}
