//! Ties the parts together for one server: settings, journal, reconciler, and the status that tells of all three.
//! A journal that cannot be opened is a state of the journal, not an error: the server runs on, and is told why.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;

use crate::BUILD_ID;
use crate::error::{Code, Error, Result};
use crate::journal::{Ack, Call, Condition, Deaths, Done, Journal, Report, SCHEMA_VERSION};
use crate::reconcile::{self, Add, Handle, Host, Pace, Progress};
use crate::record::{Kind, State, redact};
use crate::settings::{OnError, Restore, Settings};

/// Proxies started a second for each poller thread of the host, where the ini leaves it open.
const RATE_PER_THREAD: u64 = 1000;
/// How many entries are copied while the lock that recording needs is held.
const WALK: usize = 1000;

pub struct Plugin {
    settings: Settings,
    problems: Vec<String>,
    host_threads: u64,
    journal: Arc<Journal>,
    reconciler: OnceLock<Arc<Handle>>,
}

impl Plugin {
    /// Reads the settings (ini pairs without the section) and opens the journal. `host_threads` is how many
    /// pollers the server has. Blocks on the disk. Fails with [`Code::Disabled`], and where no journal can ever be
    /// had with these settings.
    pub fn open<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        base_dir: &Path,
        host_threads: u64,
    ) -> Result<Plugin> {
        let (settings, problems) = Settings::read(pairs, base_dir);
        for problem in &problems {
            log::error!("journal: {problem}");
        }
        if !settings.enable {
            return Err(Error::new(Code::Disabled, "[journal] enable is 0"));
        }
        let journal = Arc::new(Journal::open(&settings)?);
        Ok(Plugin { settings, problems, host_threads: host_threads.max(1), journal, reconciler: OnceLock::new() })
    }

    /// Begins the restore, once intent is known. Once; later calls do nothing.
    pub fn start(&self, host: Arc<dyn Host>) -> Result<()> {
        if self.reconciler.get().is_some() {
            return Ok(());
        }
        let pace = Pace {
            restore: self.settings.restore == Restore::Eager,
            per_second: match self.settings.restore_rate {
                0 => RATE_PER_THREAD * self.host_threads,
                rate => rate,
            },
            revive: self.settings.revive,
        };
        let handle = reconcile::start(host, Arc::new(Wanted::of(Arc::clone(&self.journal))), pace)?;
        let handle = Arc::clone(self.reconciler.get_or_init(|| handle));
        let undone = Arc::clone(&handle);
        self.journal.when_undone(move |kind, key| undone.converge((kind, Arc::clone(key))));
        self.journal.when_known(move || handle.begin());
        Ok(())
    }

    /// See [`Journal::admit`].
    pub fn admit(&self) -> Result<()> {
        self.journal.admit()
    }

    /// Answers an add that no journal can hold; with `on_error=reject` it is undone.
    pub fn refuse(&self, kind: Kind, key: &str, error: Error, done: Done) {
        let undone = self.settings.on_error == OnError::Reject && !self.wants(kind, key, 0);
        if let Some(reconciler) = self.reconciler().filter(|_| undone) {
            reconciler.converge((kind, key.into()));
        }
        done.call(Ack { undone, ..Ack::failed(error) });
    }

    /// See [`Journal::record`].
    pub fn record(&self, call: Call<'_>, done: Done) {
        self.journal.record(call, done);
    }

    /// See [`Journal::wants`].
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        self.journal.wants(kind, key, seq)
    }

    /// Where the host's answers go; none while nothing is being restored.
    pub fn reconciler(&self) -> Option<&Handle> {
        self.reconciler.get().map(Arc::as_ref)
    }

    /// Ends the reconciler, then the journal, with all that is queued on disk and acknowledged.
    pub fn close(&self) {
        if let Some(reconciler) = self.reconciler() {
            reconciler.stop();
        }
        self.journal.close();
    }

    /// The state of everything, as one JSON object.
    pub fn status(&self) -> Result<String> {
        let report = self.journal.report();
        let shown = self.reconciler().map(Handle::shown).unwrap_or_default();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            build_id: BUILD_ID,
            schema: SCHEMA_VERSION,
            sqlite: rusqlite::version(),
            file: self.settings.path.display().to_string(),
            state: match report.condition {
                Condition::Healthy => "ok",
                Condition::StorageFailed => "storage_failed",
                Condition::Unavailable => "unavailable",
                Condition::ReadOnly => "read_only",
            },
            durability: self.settings.durability.name(),
            snapshot: SnapshotStatus::of(&report),
            queue: QueueStatus { depth: report.queue, capacity: report.queue_capacity },
            restore: RestoreStatus::new(self, &shown.progress, shown.elapsed.as_secs_f64(), shown.last_error),
            last_error: report.last_error.map(|(at, error)| ErrorStatus { at, message: error.message }),
            proxies: report.by_state,
            seq: report.seq,
            durable_seq: report.durable_seq,
            settings_errors: &self.problems,
        };
        // Errors quote what the server said of a camera.
        serde_json::to_string(&status)
            .map(|status| redact(&status))
            .map_err(|error| Error::new(Code::Panic, format!("cannot write the status: {error}")))
    }
}

/// Intent as the reconciler needs it, and the note of what is being started.
struct Wanted {
    journal: Arc<Journal>,
    deaths: Mutex<Option<Deaths>>,
}

impl Wanted {
    fn of(journal: Arc<Journal>) -> Self {
        Self { journal, deaths: Mutex::new(None) }
    }

    /// The note is read when it is first asked for: by then the journal is ours.
    fn deaths<T>(&self, ask: impl FnOnce(&mut Deaths) -> T) -> T {
        ask(self.deaths.lock().get_or_insert_with(|| self.journal.deaths()))
    }
}

impl reconcile::Intent for Wanted {
    fn wanted(&self) -> Vec<reconcile::Wanted> {
        let mut wanted = Vec::new();
        let mut cursor = None;
        loop {
            let piece = self.journal.after(cursor.as_ref(), WALK);
            let Some((last, _)) = piece.last() else { break };
            cursor = Some(last.clone());
            wanted.extend(piece.into_iter().filter(|(_, entry)| entry.state == State::Enabled).map(
                |(key, entry)| {
                    let deaths = self.deaths(|deaths| deaths.of(entry.seq));
                    reconcile::Wanted { key, seq: entry.seq, deaths }
                },
            ));
        }
        // The oldest first: they are what the server has run the longest.
        wanted.sort_by_key(|want| want.seq);
        wanted
    }

    fn wants(&self, (kind, key): &(Kind, Arc<str>)) -> Option<u64> {
        self.journal.get(*kind, key).filter(|entry| entry.state == State::Enabled).map(|entry| entry.seq)
    }

    fn begins(&self, seq: u64) {
        self.deaths(|deaths| deaths.begins(seq));
    }

    fn survived(&self, seq: u64) {
        self.deaths(|deaths| deaths.survived(seq));
    }

    fn quarantine(&self, (kind, key): &(Kind, Arc<str>), seq: u64, reason: &str) {
        self.journal.quarantine(*kind, key, seq, reason);
        self.survived(seq);
    }

    fn clean_end(&self) {
        self.deaths(Deaths::clean_end);
    }

    fn add(&self, (kind, key): &(Kind, Arc<str>), seq: u64) -> Option<Add> {
        let entry = self.journal.get(*kind, key)?;
        if entry.seq != seq || entry.state != State::Enabled {
            return None;
        }
        match entry.args.request_body(kind.info().replay) {
            Ok(body) => Some(Add { kind: *kind, key: Arc::clone(key), seq, body }),
            Err(error) => {
                log::error!("journal: {} cannot be replayed: {error}", kind.name());
                None
            }
        }
    }
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    build_id: &'static str,
    schema: i32,
    sqlite: &'static str,
    file: String,
    state: &'static str,
    durability: &'static str,
    proxies: std::collections::BTreeMap<&'static str, u64>,
    seq: u64,
    durable_seq: u64,
    snapshot: Option<SnapshotStatus>,
    queue: QueueStatus,
    restore: RestoreStatus,
    last_error: Option<ErrorStatus>,
    settings_errors: &'a [String],
}

#[derive(Serialize)]
struct SnapshotStatus {
    seq: u64,
    at: i64,
    file: String,
}

impl SnapshotStatus {
    fn of(report: &Report) -> Option<Self> {
        report.snapshot.as_ref().map(|snapshot| SnapshotStatus {
            seq: snapshot.seq,
            at: snapshot.at,
            file: snapshot.path.display().to_string(),
        })
    }
}

#[derive(Serialize)]
struct QueueStatus {
    depth: usize,
    capacity: usize,
}

#[derive(Serialize)]
struct ErrorStatus {
    at: i64,
    message: String,
}

#[derive(Serialize)]
struct RestoreStatus {
    phase: &'static str,
    seconds: f64,
    total: usize,
    present: usize,
    started: usize,
    live: usize,
    failing: usize,
    connecting: usize,
    waiting: usize,
    unwanted: usize,
    quarantined: usize,
    revived: usize,
    last_error: Option<String>,
}

impl RestoreStatus {
    fn new(plugin: &Plugin, progress: &Progress, seconds: f64, last_error: Option<String>) -> Self {
        let phase = match (plugin.settings.restore, plugin.reconciler()) {
            (Restore::Off, _) => "off",
            (_, None) => "not started",
            _ if progress.finished => "done",
            _ => "running",
        };
        RestoreStatus {
            phase,
            seconds,
            total: progress.total,
            present: progress.present,
            started: progress.started,
            live: progress.live,
            failing: progress.failing,
            connecting: progress.connecting,
            waiting: progress.waiting,
            unwanted: progress.unwanted,
            quarantined: progress.quarantined,
            revived: progress.revived,
            last_error,
        }
    }
}
