//! The status of the plugin for operators, as one JSON object.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Reply, Request};
use crate::BUILD_ID;
use crate::error::Result;
use crate::journal::SCHEMA_VERSION;
use crate::model::{redact, redact_all};
use crate::plugin::Plugin;
use crate::reconcile::{ReconcileStatus, UnhealthyProxy};
use crate::settings::RestoreMode;

/// How many proxies that do not play are shown by default.
const SHOWN: u64 = 20;
const MOST_SHOWN: usize = 10_000;

#[derive(Deserialize)]
struct Args<'a> {
    limit: Option<u64>,
    key: Option<&'a str>,
}

/// Shows at most `limit` of the proxies that do not play, or only those with the given `key`.
pub fn status(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Args { limit, key } = request.args()?;
    let most = usize::try_from(limit.unwrap_or(SHOWN)).map_or(MOST_SHOWN, |limit| limit.min(MOST_SHOWN));
    let journal = plugin.journal();
    let shown = plugin.reconciler().map(|reconciler| reconciler.shown(key, most));
    let (settings, report) = (journal.settings(), journal.report());
    let phase = match (settings.restore, &shown) {
        (_, None) => "not started",
        (RestoreMode::Off, Some(shown)) if shown.progress.total == 0 => "off",
        (_, Some(shown)) if shown.finished => "done",
        _ => "running",
    };
    let shown = shown.unwrap_or_default();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build_id": BUILD_ID,
        "schema": SCHEMA_VERSION,
        "sqlite": rusqlite::version(),
        "file": settings.path.display().to_string(),
        "state": report.condition,
        "durability": settings.durability.name(),
        "encrypted": report.encrypted,
        "proxies": report.by_state,
        "seq": report.seq,
        "durable_seq": report.durable_seq,
        "file_seq": report.file_seq,
        "snapshot": report.snapshot,
        "queue": {"depth": report.queue, "capacity": report.queue_capacity},
        "restore": restore_of(&shown, phase),
        "now": now_of(&shown, journal.now_ms()),
        "last_error": report.last_error.map(|(at, error)| json!({"at": at, "message": error.message})),
        "settings_errors": plugin.problems(),
    });
    // Errors may quote the server's messages with URLs.
    Ok(Reply::success(redact_all(status, redact)))
}

/// The restore after the start, or the last one that was requested.
fn restore_of(shown: &ReconcileStatus, phase: &str) -> Value {
    let progress = &shown.progress;
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    json!({
        "phase": phase,
        "seconds": seconds(shown.elapsed),
        "done": progress.done(),
        "total": progress.total,
        "present": progress.present,
        "started": progress.started,
        "live": progress.live,
        "connected": progress.connected,
        "failing": progress.failing,
        "blocked": progress.blocked,
        "unwanted": progress.unwanted,
        "quarantined": progress.quarantined,
        "waiting": progress.waiting,
        "connecting": progress.connecting,
        "rate": (shown.rate * 10.0).round() / 10.0,
        "eta_sec": shown.eta.map(seconds),
        "to_50_sec": progress.half_after.map(seconds),
        "to_95_sec": progress.most_after.map(seconds),
        "to_100_sec": progress.all_after.map(seconds),
        "worst_origins": shown.worst,
        "last_error": shown.last_error,
    })
}

/// All proxies that play or should play.
fn now_of(shown: &ReconcileStatus, now_ms: i64) -> Value {
    let (counts, progress) = (&shown.now, &shown.progress);
    let unhealthy = |proxy: &UnhealthyProxy| {
        let next_try = proxy.next_try.and_then(|pause| i64::try_from(pause.as_millis()).ok());
        json!({
            "kind": proxy.key.0,
            "key": proxy.key.1,
            "state": proxy.state,
            "attempts": proxy.attempts,
            "last_error": proxy.last_error,
            "next_try_at": next_try.map(|pause| now_ms + pause),
        })
    };
    json!({
        "playing": counts.playing,
        "retrying": counts.retrying,
        "connecting": counts.connecting,
        "waiting": counts.waiting,
        "down": counts.down,
        "blocked": counts.blocked,
        "revived": progress.revived,
        "asked": progress.asked,
        "given_up": progress.given_up,
        "proxies": shown.troubles.iter().map(unhealthy).collect::<Value>(),
    })
}
