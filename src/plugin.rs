//! Ties the parts together for one server: settings, journal, reconciler, and the status that tells of all three.
//! A journal that cannot be opened is a state of the plugin, not an error: the server runs on, and is told why.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::BUILD_ID;
use crate::error::{Code, Error, Result};
use crate::journal::{Ack, Call, Done, Journal, Report, SCHEMA_VERSION};
use crate::reconcile::{self, Add, Handle, Host, Pace, Progress};
use crate::record::{Kind, State};
use crate::settings::{Restore, Settings};

/// Proxies started a second for each poller thread of the host, where the ini leaves it open.
const RATE_PER_THREAD: u64 = 1000;
/// How many entries are copied while the lock that recording needs is held.
const WALK: usize = 1000;

pub struct Plugin {
    settings: Settings,
    problems: Vec<String>,
    host_threads: u64,
    journal: Result<Arc<Journal>>,
    reconciler: OnceLock<Arc<Handle>>,
}

impl Plugin {
    /// Reads the settings (ini pairs without the section) and opens the journal. `host_threads` is how many
    /// pollers the server has. Blocks on the disk. The one error is [`Code::Disabled`].
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
        let journal = Journal::open(&settings).map(Arc::new);
        if let Err(error) = &journal {
            log::error!("journal: {error}. The server runs without a journal: nothing is remembered or restored");
        }
        Ok(Plugin { settings, problems, host_threads: host_threads.max(1), journal, reconciler: OnceLock::new() })
    }

    /// Begins the restore. Once; later calls do nothing.
    pub fn start(&self, host: Arc<dyn Host>) -> Result<()> {
        let Ok(journal) = &self.journal else {
            return Ok(());
        };
        if self.settings.restore == Restore::Off || self.reconciler.get().is_some() {
            return Ok(());
        }
        let pace = Pace {
            per_second: match self.settings.restore_rate {
                0 => RATE_PER_THREAD * self.host_threads,
                rate => rate,
            },
            revive: self.settings.revive,
        };
        let handle = reconcile::start(host, Arc::new(Wanted(Arc::clone(journal))), pace)?;
        self.reconciler.get_or_init(|| handle).begin();
        Ok(())
    }

    /// See [`Journal::record`].
    pub fn record(&self, call: Call<'_>, done: Done) {
        match &self.journal {
            Ok(journal) => journal.record(call, done),
            Err(error) => done.call(Ack { seq: 0, result: Err(error.clone()) }),
        }
    }

    /// See [`Journal::wants`].
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        self.journal.as_ref().is_ok_and(|journal| journal.wants(kind, key, seq))
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
        if let Ok(journal) = &self.journal {
            journal.close();
        }
    }

    /// The state of everything, as one JSON object.
    pub fn status(&self) -> Result<String> {
        let report = self.journal.as_ref().map(|journal| journal.report());
        let shown = self.reconciler().map(Handle::shown).unwrap_or_default();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            build_id: BUILD_ID,
            schema: SCHEMA_VERSION,
            sqlite: rusqlite::version(),
            file: self.settings.path.display().to_string(),
            state: match &report {
                Ok(report) if report.healthy => "ok",
                Ok(_) => "storage_failed",
                Err(_) => "unavailable",
            },
            durability: self.settings.durability.name(),
            proxies: State::ALL
                .iter()
                .map(|state| {
                    let count = report.as_ref().ok().and_then(|report| report.by_state.get(state.name()));
                    (state.name(), count.copied().unwrap_or(0))
                })
                .collect(),
            seq: report.as_ref().map_or(0, |report| report.seq),
            durable_seq: report.as_ref().map_or(0, |report| report.durable_seq),
            snapshot: report.as_ref().ok().and_then(SnapshotStatus::of),
            queue: QueueStatus {
                depth: report.as_ref().map_or(0, |report| report.queue),
                capacity: report.as_ref().map_or(0, |report| report.queue_capacity),
            },
            restore: RestoreStatus::new(self, &shown.progress, shown.elapsed.as_secs_f64(), shown.last_error),
            last_error: match &report {
                Ok(report) => report
                    .last_error
                    .as_ref()
                    .map(|(at, error)| ErrorStatus { at: Some(*at), message: error.message.clone() }),
                Err(error) => Some(ErrorStatus { at: None, message: error.message.clone() }),
            },
            settings_errors: &self.problems,
        };
        serde_json::to_string(&status)
            .map_err(|error| Error::new(Code::Panic, format!("cannot write the status: {error}")))
    }
}

/// Intent as the reconciler needs it.
struct Wanted(Arc<Journal>);

impl reconcile::Intent for Wanted {
    fn wanted(&self) -> Vec<((Kind, Arc<str>), u64)> {
        let mut wanted = Vec::new();
        let mut cursor = None;
        loop {
            let piece = self.0.after(cursor.as_ref(), WALK);
            let Some((last, _)) = piece.last() else { break };
            cursor = Some(last.clone());
            wanted.extend(
                piece
                    .into_iter()
                    .filter(|(_, entry)| entry.state == State::Enabled)
                    .map(|(key, entry)| (key, entry.seq)),
            );
        }
        // The oldest first: they are what the server has run the longest.
        wanted.sort_by_key(|(_, seq)| *seq);
        wanted
    }

    fn add(&self, (kind, key): &(Kind, Arc<str>), seq: u64) -> Option<Add> {
        let entry = self.0.get(*kind, key)?;
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
    at: Option<i64>,
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
            revived: progress.revived,
            last_error,
        }
    }
}
