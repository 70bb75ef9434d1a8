//! Ties the parts together for one server: settings, journal, reconciler, and the status that tells of all three.
//! A journal that cannot be opened is a state of the journal, not an error: the server runs on, and is told why.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;

use crate::BUILD_ID;
use crate::error::{Code, Error, Result};
use crate::journal::{Ack, Call, Condition, Dark, Deaths, Done, Journal, Report, SCHEMA_VERSION};
use crate::reconcile::{self, Handle, Host, Key, Limits, Shown, SourceReport, Start, Trouble};
use crate::record::{Entry, Kind, Op, State, redact};
use crate::settings::{OnError, OnGiveUp, OnIdleClose, Restore, Settings};

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
        let limits = Limits {
            start: if self.settings.restore == Restore::Eager { Start::All } else { Start::Asked },
            per_second: match self.settings.restore_rate {
                0 => RATE_PER_THREAD * self.host_threads,
                rate => rate,
            },
            per_origin: self.settings.restore_per_origin,
            revive: self.settings.revive,
            forget_given_up: self.settings.on_give_up == OnGiveUp::Forget,
            // Random for each process.
            seed: RandomState::new().hash_one(()),
        };
        let handle = reconcile::start(host, Arc::new(JournaledIntent::of(Arc::clone(&self.journal))), limits)?;
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

    /// What the end of a proxy that nobody watched does to it.
    pub fn idle_close(&self) -> Op {
        match self.settings.on_idle_close {
            OnIdleClose::Forget => Op::Remove,
            OnIdleClose::Dormant => Op::Set(State::Dormant),
        }
    }

    /// A player waits for a stream that the server does not have. Any thread, takes microseconds.
    pub fn player_waits(&self, kind: Kind, key: &str) {
        if self.settings.restore != Restore::Off {
            self.wake(kind, key, "a player asked for it");
        }
    }

    /// Has a proxy started that is enabled or dormant. False where there is none.
    fn wake(&self, kind: Kind, key: &str, reason: &str) -> bool {
        if let Some(entry) = self.journal.get(kind, key).filter(|entry| entry.state == State::Dormant) {
            self.journal.change(kind, key, entry.seq, Op::Set(State::Enabled), reason);
        }
        let wanted = self.wants(kind, key, 0);
        if let Some(reconciler) = self.reconciler().filter(|_| wanted) {
            reconciler.ask_for((kind, key.into()));
        }
        wanted
    }

    /// Restores all that is enabled and not there, or the proxies of one key, dormant or not, whatever the settings say
    /// of the start. Returns how many that are wanted this is about.
    pub fn restore(&self, only: Option<&str>) -> Result<u64> {
        let reconciler = self.reconciler().ok_or_else(|| {
            Error::new(Code::Closed, "the server has not come so far as to restore anything: ask again later")
        })?;
        let Some(key) = only else {
            reconciler.restore_all();
            return Ok(self.journal.count(State::Enabled));
        };
        match Kind::ALL.iter().filter(|kind| self.wake(**kind, key, "restoreJournal")).count() as u64 {
            0 => Err(Error::invalid(format!(
                "the journal has no proxy {key:?} that is enabled or dormant: see proxies_view with sqlite3"
            ))),
            asked => Ok(asked),
        }
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

    /// The state of everything, as one JSON object, with at most `most` of the proxies that do not play, or with
    /// those of one key.
    pub fn status(&self, only: Option<&str>, most: usize) -> Result<String> {
        let report = self.journal.report();
        let shown = self.reconciler().map(|reconciler| reconciler.shown(only, most)).unwrap_or_default();
        let now_ms = self.journal.now_ms();
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
            restore: RestoreStatus::new(self, &shown),
            now: NowStatus::new(&shown, now_ms),
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

/// Intent as the reconciler needs it, and the notes of what is being started and what does not play.
struct JournaledIntent {
    journal: Arc<Journal>,
    notes: Mutex<Option<Notes>>,
}

struct Notes {
    deaths: Deaths,
    dark: Dark,
}

impl JournaledIntent {
    fn of(journal: Arc<Journal>) -> Self {
        Self { journal, notes: Mutex::new(None) }
    }

    /// The notes are read when they are first asked for: by then the journal is ours.
    fn notes<T>(&self, ask: impl FnOnce(&mut Notes) -> T) -> T {
        let read = || Notes { deaths: self.journal.deaths(), dark: self.journal.dark() };
        ask(self.notes.lock().get_or_insert_with(read))
    }

    fn want(&self, key: Key, entry: Entry) -> reconcile::Wanted {
        let seq = entry.seq;
        self.notes(|notes| reconcile::Wanted {
            key,
            seq,
            args: entry.args,
            deaths: notes.deaths.of(seq),
            dark_since: notes.dark.of(seq),
        })
    }

    fn enabled(&self, (kind, key): &Key) -> Option<Entry> {
        self.journal.get(*kind, key).filter(|entry| entry.state == State::Enabled)
    }
}

impl reconcile::Intent for JournaledIntent {
    fn wanted(&self) -> Vec<reconcile::Wanted> {
        let mut wanted = Vec::new();
        let mut cursor = None;
        loop {
            let piece = self.journal.after(cursor.as_ref(), WALK);
            let Some((last, _)) = piece.last() else { break };
            cursor = Some(last.clone());
            let enabled = piece.into_iter().filter(|(_, entry)| entry.state == State::Enabled);
            wanted.extend(enabled.map(|(key, entry)| self.want(key, entry)));
        }
        wanted
    }

    fn wants(&self, key: &Key) -> Option<reconcile::Wanted> {
        self.enabled(key).map(|entry| self.want(key.clone(), entry))
    }

    fn body(&self, key: &Key, seq: u64) -> Option<Vec<u8>> {
        let entry = self.enabled(key).filter(|entry| entry.seq == seq)?;
        entry
            .args
            .request_body(key.0.info().replay)
            .inspect_err(|error| log::error!("journal: {} {} cannot be replayed: {error}", key.0.name(), key.1))
            .ok()
    }

    fn begins(&self, seq: u64) {
        self.notes(|notes| notes.deaths.begins(seq));
    }

    fn survived(&self, seq: u64) {
        self.notes(|notes| notes.deaths.survived(seq));
    }

    fn quarantine(&self, (kind, key): &Key, seq: u64, reason: &str) {
        self.journal.change(*kind, key, seq, Op::Set(State::Quarantined), reason);
        self.survived(seq);
    }

    fn forget(&self, (kind, key): &Key, seq: u64) {
        self.journal.change(*kind, key, seq, Op::Remove, "the server gave it up (on_give_up=forget)");
    }

    fn dark(&self, dark: Vec<(u64, i64)>) {
        self.notes(|notes| notes.dark.note(dark));
    }

    fn clean_end(&self) {
        self.notes(|notes| notes.deaths.clean_end());
    }

    fn now_ms(&self) -> i64 {
        self.journal.now_ms()
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
    now: NowStatus,
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

/// Of the restore after the start, or of the last one that was asked for.
#[derive(Serialize)]
struct RestoreStatus {
    phase: &'static str,
    seconds: f64,
    total: usize,
    done: usize,
    present: usize,
    started: usize,
    live: usize,
    failing: usize,
    connecting: usize,
    waiting: usize,
    unwanted: usize,
    quarantined: usize,
    /// Proxies answered for a second, of late.
    rate: f64,
    eta_sec: Option<f64>,
    to_50_sec: Option<f64>,
    to_95_sec: Option<f64>,
    to_100_sec: Option<f64>,
    worst_origins: Vec<OriginStatus>,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct OriginStatus {
    host: String,
    total: usize,
    failing: usize,
    last_error: String,
}

/// Of all proxies that run or should.
#[derive(Serialize)]
struct NowStatus {
    playing: usize,
    retrying: usize,
    connecting: usize,
    waiting: usize,
    down: usize,
    revived: usize,
    restarted: usize,
    asked: usize,
    given_up: usize,
    proxies: Vec<ProxyStatus>,
}

#[derive(Serialize)]
struct ProxyStatus {
    kind: &'static str,
    key: String,
    state: &'static str,
    attempts: u32,
    last_error: String,
    next_try_at: Option<i64>,
}

impl RestoreStatus {
    fn new(plugin: &Plugin, shown: &Shown) -> Self {
        let phase = match (plugin.settings.restore, plugin.reconciler()) {
            (_, None) => "not started",
            (Restore::Off, _) if shown.progress.total == 0 => "off",
            _ if shown.finished => "done",
            _ => "running",
        };
        let progress = &shown.progress;
        let seconds = |time: std::time::Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
        RestoreStatus {
            phase,
            seconds: seconds(shown.elapsed),
            total: progress.total,
            done: progress.done(),
            present: progress.present,
            started: progress.started,
            live: progress.live,
            failing: progress.failing,
            connecting: progress.connecting,
            waiting: progress.waiting,
            unwanted: progress.unwanted,
            quarantined: progress.quarantined,
            rate: (shown.rate * 10.0).round() / 10.0,
            eta_sec: shown.eta.map(seconds),
            to_50_sec: progress.half_after.map(seconds),
            to_95_sec: progress.most_after.map(seconds),
            to_100_sec: progress.all_after.map(seconds),
            worst_origins: shown.worst.iter().map(OriginStatus::of).collect(),
            last_error: shown.last_error.clone(),
        }
    }
}

impl OriginStatus {
    fn of(report: &SourceReport) -> Self {
        let SourceReport { host, total, failing, last_error } = report.clone();
        OriginStatus { host, total, failing, last_error }
    }
}

impl NowStatus {
    fn new(shown: &Shown, now_ms: i64) -> Self {
        let progress = &shown.progress;
        NowStatus {
            playing: shown.now.playing,
            retrying: shown.now.retrying,
            connecting: shown.now.connecting,
            waiting: shown.now.waiting,
            down: shown.now.down,
            revived: progress.revived,
            restarted: progress.restarted,
            asked: progress.asked,
            given_up: progress.given_up,
            proxies: shown.troubles.iter().map(|trouble| ProxyStatus::of(trouble, now_ms)).collect(),
        }
    }
}

impl ProxyStatus {
    fn of(trouble: &Trouble, now_ms: i64) -> Self {
        let next_try = trouble.next_try.and_then(|pause| i64::try_from(pause.as_millis()).ok());
        ProxyStatus {
            kind: trouble.key.0.name(),
            key: trouble.key.1.to_string(),
            state: trouble.state,
            attempts: trouble.attempts,
            last_error: trouble.last_error.clone(),
            next_try_at: next_try.map(|pause| now_ms + pause),
        }
    }
}
