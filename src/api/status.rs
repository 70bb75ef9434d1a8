//! The status of the plugin for operators, as one JSON object.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::list::in_use;
use super::{Reply, Request};
use crate::BUILD_ID;
use crate::error::{Code, Error, Result};
use crate::journal::{Condition, Journal, SCHEMA_VERSION, SnapshotFile};
use crate::model::{InUse, redact, redact_all};
use crate::plugin::{AlertReading, FileStatus, Plugin};
use crate::reconcile::{PhaseCounts, Progress, ReconcileStatus, SourceReport, UnhealthyProxy};
use crate::settings::{Durability, RestoreMode, Settings};

/// How many proxies that do not play are shown by default.
const SHOWN: u64 = 20;
const MOST_SHOWN: usize = 10_000;

#[derive(Deserialize)]
struct Call<'a> {
    limit: Option<u64>,
    key: Option<&'a str>,
}

/// Shows at most `limit` of the proxies that do not play, or only those with the given `key`.
pub fn status(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Call { limit, key } = request.args()?;
    let most = usize::try_from(limit.unwrap_or(SHOWN)).map_or(MOST_SHOWN, |limit| limit.min(MOST_SHOWN));
    let journal = plugin.journal();
    let shown = plugin.reconciler().map(|reconciler| reconciler.shown(key, most));
    let (settings, problems, report) = (journal.settings(), plugin.problems(), journal.report());
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        build_id: BUILD_ID,
        schema: SCHEMA_VERSION,
        sqlite: rusqlite::version(),
        file: settings.path.display().to_string(),
        state: report.condition,
        durability: settings.durability,
        encrypted: report.encrypted,
        snapshot: report.snapshot,
        queue: QueueStatus { depth: report.queue, capacity: report.queue_capacity },
        restore: RestoreStatus::new(&settings, shown.as_ref()),
        now: NowStatus::new(shown.unwrap_or_default(), off_hours(plugin, key, most), most, journal),
        last_error: report.last_error.map(|(at, error)| ErrorStatus { at, message: error.message }),
        proxies: report.by_state,
        seq: report.seq,
        durable_seq: report.durable_seq,
        file_seq: report.file_seq,
        watched_file: plugin.file_status(),
        alerts: settings.alert_url.is_some().then(|| plugin.alert_counts().read()),
        settings_errors: &problems,
    };
    let status = serde_json::to_value(&status)
        .map_err(|error| Error::new(Code::Panic, format!("cannot write the status: {error}")))?;
    // Errors may quote the server's messages with URLs.
    Ok(Reply::success(redact_all(status, redact)))
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    build_id: &'static str,
    schema: i32,
    sqlite: &'static str,
    file: String,
    state: Condition,
    durability: Durability,
    encrypted: bool,
    proxies: std::collections::BTreeMap<&'static str, u64>,
    seq: u64,
    durable_seq: u64,
    file_seq: u64,
    snapshot: Option<SnapshotFile>,
    queue: QueueStatus,
    restore: RestoreStatus,
    now: NowStatus,
    last_error: Option<ErrorStatus>,
    watched_file: Option<FileStatus>,
    /// `None` without an `alert_url`.
    alerts: Option<AlertReading>,
    settings_errors: &'a [String],
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

/// The restore after the start, or the last one that was requested.
#[derive(Serialize)]
struct RestoreStatus {
    phase: &'static str,
    seconds: f64,
    done: usize,
    #[serde(flatten)]
    progress: Progress,
    /// Proxies with a result per second, recently.
    rate: f64,
    eta_sec: Option<f64>,
    to_50_sec: Option<f64>,
    to_95_sec: Option<f64>,
    to_100_sec: Option<f64>,
    worst_origins: Vec<SourceReport>,
    last_error: Option<String>,
}

/// All proxies that play or should play.
#[derive(Serialize)]
struct NowStatus {
    #[serde(flatten)]
    counts: PhaseCounts,
    revived: usize,
    asked: usize,
    given_up: usize,
    /// Pulls that play from a backup URL, or did so last; and how often one went to another of its URLs.
    on_backup: usize,
    moved: usize,
    /// Enabled proxies outside of their hours; no other count has them.
    off_hours: usize,
    proxies: Vec<ProxyStatus>,
}

#[derive(Serialize)]
struct ProxyStatus {
    #[serde(flatten)]
    trouble: UnhealthyProxy,
    next_try_at: Option<i64>,
    /// Only if it plays from a backup URL, or did so last.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use: Option<InUse>,
}

impl RestoreStatus {
    fn new(settings: &Settings, shown: Option<&ReconcileStatus>) -> Self {
        let phase = match (settings.restore, shown) {
            (_, None) => "not started",
            (RestoreMode::Off, Some(shown)) if shown.progress.total == 0 => "off",
            (_, Some(shown)) if shown.finished => "done",
            _ => "running",
        };
        let shown = &shown.cloned().unwrap_or_default();
        let progress = &shown.progress;
        let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
        RestoreStatus {
            phase,
            seconds: seconds(shown.elapsed),
            done: progress.done(),
            progress: progress.clone(),
            rate: (shown.rate * 10.0).round() / 10.0,
            eta_sec: shown.eta.map(seconds),
            to_50_sec: progress.half_after.map(seconds),
            to_95_sec: progress.most_after.map(seconds),
            to_100_sec: progress.all_after.map(seconds),
            worst_origins: shown.worst.clone(),
            last_error: shown.last_error.clone(),
        }
    }
}

impl NowStatus {
    fn new(
        shown: ReconcileStatus,
        (off_hours, asleep): (usize, Vec<ProxyStatus>),
        most: usize,
        journal: &Journal,
    ) -> Self {
        let Progress { revived, asked, given_up, moved, .. } = shown.progress;
        let of_proxy = |trouble: UnhealthyProxy| {
            let pause = trouble.next_try.and_then(|pause| i64::try_from(pause.as_millis()).ok());
            let in_use = journal.get(trouble.kind, &trouble.key).and_then(|entry| in_use(&entry.args, false));
            ProxyStatus { trouble, next_try_at: pause.map(|pause| journal.now_ms() + pause), in_use }
        };
        let proxies = shown.troubles.into_iter().map(of_proxy).chain(asleep).take(most).collect();
        NowStatus {
            counts: shown.now,
            revived,
            asked,
            given_up,
            on_backup: shown.on_backup,
            moved,
            off_hours,
            proxies,
        }
    }
}

/// How many enabled proxies are outside of their hours, and `most` of them, or only the one with this key.
fn off_hours(plugin: &Plugin, only: Option<&str>, most: usize) -> (usize, Vec<ProxyStatus>) {
    let now = plugin.journal().now_ms();
    let (mut count, mut shown) = (0, Vec::new());
    for ((kind, key), entry) in plugin.journal().off_hours(now) {
        count += 1;
        if shown.len() < most && only.is_none_or(|only| only == &*key) {
            shown.push(ProxyStatus {
                trouble: UnhealthyProxy {
                    kind,
                    key: key.to_string(),
                    state: "off_hours",
                    attempts: 0,
                    url: None,
                    last_error: String::new(),
                    next_try: None,
                },
                next_try_at: entry.args.hours().and_then(|hours| hours.next_change(now)),
                in_use: None,
            });
        }
    }
    (count, shown)
}
