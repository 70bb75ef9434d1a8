//! What the journal's threads share: the inbox, the health of the storage, the open files. Knows nothing of how changes
//! are written.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, RwLock};

use super::ack::{Ack, Done, Persisted};
use super::gauges::Gauges;
use super::inbox::{Inbox, Inner};
use crate::error::{Code, Error, Result};
use crate::model::Kind;
use crate::settings::{Durability, Settings};
use crate::storage::paths::{JournalPaths, SnapshotFile, log_of};

/// Called for a proxy that the server has to bring back to intent.
pub type Converge = Box<dyn Fn(Kind, &Arc<str>) + Send + Sync>;

pub struct Core {
    pub options: RwLock<Arc<Settings>>,
    pub paths: JournalPaths,
    pub inbox: Inbox,
    pub stop_maintenance: Mutex<bool>,
    pub wake_maintenance: Condvar,
    pub health: Mutex<Health>,
    /// Held while files are opened or moved, except by the writer's own connection.
    pub files: Mutex<()>,
    /// The files that the writer's connection has open.
    pub opened: Mutex<Option<OpenFiles>>,
    pub converge: OnceLock<Converge>,
    pub durable_seq: AtomicU64,
    /// The last change in the database file without its log.
    pub file_seq: AtomicU64,
    pub gauges: Gauges,
    /// Something was written since the last checkpoint.
    pub dirty: AtomicBool,
    /// The log has grown so long that a checkpoint is due.
    pub checkpoint_due: AtomicBool,
    /// The content of the file may not be in any snapshot.
    pub snapshot_due: AtomicBool,
}

/// The database and its log, by [`env::Stat::identity`].
pub type Identity = [(u64, u64); 2];

/// The open files, to detect that others are at their paths.
pub struct OpenFiles {
    pub identity: Identity,
    /// False once the log was deleted or replaced.
    pub log_is_there: Box<dyn Fn() -> bool + Send>,
}

#[derive(Default)]
pub struct Health {
    /// Set while the storage does not work.
    pub failure: Option<Error>,
    /// The last error, also after recovery, and when it came (milliseconds since 1970-01-01 UTC).
    pub last_error: Option<(i64, Error)>,
    pub snapshot: Option<SnapshotFile>,
}

impl Core {
    /// As [`Inbox::submit`]; with `durability=async`, `done` is called at once.
    pub fn submit<T>(
        &self,
        done: Done,
        work: impl FnOnce(&mut Inner) -> std::result::Result<T, Ack>,
    ) -> std::result::Result<T, (Done, Ack)> {
        let is_told_now = self.options().durability == Durability::Async;
        let result = || self.health.lock().failure.clone().map_or(Ok(Persisted::Soon), Err);
        self.inbox.submit(done, is_told_now.then_some(result), work)
    }

    pub fn new(options: Settings, paths: JournalPaths) -> Self {
        Self {
            options: RwLock::new(Arc::new(options)),
            paths,
            durable_seq: AtomicU64::new(0),
            file_seq: AtomicU64::new(0),
            inbox: Inbox::default(),
            gauges: Gauges::default(),
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

    pub fn options(&self) -> Arc<Settings> {
        Arc::clone(&self.options.read())
    }

    pub fn is_healthy(&self) -> bool {
        self.health.lock().failure.is_none()
    }

    pub fn failed(&self, error: Error) {
        self.noted(error.clone());
        self.health.lock().failure = Some(error);
    }

    /// Why the storage does not work.
    pub fn last_failure(&self) -> Error {
        let failure = self.health.lock().failure.clone();
        failure.unwrap_or_else(|| Error::storage("the journal cannot be written"))
    }

    /// Notes an error that leaves the journal writable.
    pub fn noted(&self, error: Error) {
        self.gauges.failed();
        self.health.lock().last_error = Some((self.paths.env.now_ms(), error));
    }

    /// A bug ended the writer: nothing becomes durable any more, and all callers are told so.
    pub fn writer_died(&self) {
        let error = Error::new(Code::Panic, "the journal's writer thread panicked: restart the server");
        log::error!("journal: {error}");
        self.failed(error);
        self.inbox.abandon();
    }

    pub fn undone(&self, kind: Kind, key: &Arc<str>) {
        if let Some(converge) = self.converge.get() {
            converge(kind, key);
        }
    }

    /// The files at the journal's paths now; `None` if one is missing.
    pub fn standing(&self) -> Option<Identity> {
        let identity = |path| Some(self.paths.env.stat(path).ok()??.identity);
        Some([identity(&self.paths.file)?, identity(&log_of(&self.paths.file))?])
    }

    /// Notes the files that are open now.
    pub fn opened(&self) {
        // If the log cannot be watched, the check once a second has to do.
        let log_is_there = self.paths.env.watch(&log_of(&self.paths.file)).unwrap_or_else(|_| Box::new(|| true));
        *self.opened.lock() = self.standing().map(|identity| OpenFiles { identity, log_is_there });
    }

    /// Fails if the open log was deleted or replaced: what is written to it is lost with this process. Quick.
    pub fn log_is_there(&self) -> Result<()> {
        self.gone_unless(|open| (open.log_is_there)())
    }

    /// Fails if an open file is no longer the one at its path.
    pub fn files_are_there(&self) -> Result<()> {
        self.gone_unless(|open| self.standing() == Some(open.identity))
    }

    fn gone_unless(&self, there: impl FnOnce(&OpenFiles) -> bool) -> Result<()> {
        if self.opened.lock().as_ref().is_none_or(there) {
            return Ok(());
        }
        let file = self.paths.file.display();
        Err(Error::storage(format!("{file} or its log was deleted or replaced while the server was running")))
    }
}
