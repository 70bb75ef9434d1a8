//! The metrics in the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/).

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::{Reply, Request};
use crate::BUILD_ID;
use crate::error::Result;
use crate::journal::{Condition, Journal};
use crate::model::{Kind, State};
use crate::plugin::{AlertReading, Plugin};
use crate::reconcile::PhaseCounts;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP zlm_journal_{name} {help}\n# TYPE zlm_journal_{name} {kind}");
    }

    /// The labels' values have nothing that must be escaped.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "zlm_journal_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }
}

/// All metrics. Takes milliseconds with tens of thousands of proxies.
pub fn page(plugin: &Plugin, _: &Request<'_>) -> Result<Reply> {
    let mut page = Page::default();
    page.family("info", "gauge", "The build; always 1.");
    page.sample("info", &[("version", env!("CARGO_PKG_VERSION")), ("build_id", BUILD_ID)], 1);
    of_storage(&mut page, plugin.journal());
    of_proxies(&mut page, plugin);
    if let Some(file) = plugin.file_status() {
        page.gauge("file_ok", "1 if what the watched file has is applied.", u8::from(file.error.is_none()));
        page.gauge("file_proxies", "Proxies in the watched file when it was last applied.", file.entries);
        page.gauge("file_foreign_proxies", "Keys in it that others had added before.", file.foreign);
    }
    of_alerts(&mut page, &plugin.alert_counts().read());
    Ok(Reply { content_type: CONTENT_TYPE, body: page.0 })
}

fn of_storage(page: &mut Page, journal: &Journal) {
    let (report, reading, [file, log, snapshots]) = (journal.report(), journal.gauges(), journal.sizes());
    page.gauge("healthy", "1 if the journal can be written.", u8::from(report.condition == Condition::Healthy));
    page.family("commit_seconds", "histogram", "Duration of commits, including the sync to disk.");
    for (bound, count) in &reading.commits {
        let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
        page.sample("commit_seconds_bucket", &[("le", &bound)], count);
    }
    let commits = reading.commits.last().map_or(0, |(_, count)| *count);
    page.sample("commit_seconds_sum", &[], reading.commit_time.as_secs_f64());
    page.sample("commit_seconds_count", &[], commits);
    page.counter("changes_total", "Changes written since the start.", reading.changes);
    page.counter("errors_total", "Failed writes, openings and maintenance tasks since the start.", reading.errors);
    page.gauge("queue_changes", "Changes waiting for the disk.", report.queue);
    page.gauge("queue_capacity_changes", "Most changes that may wait.", report.queue_capacity);
    page.gauge("ack_lag_seconds", "Age of the oldest unacknowledged change.", report.ack_lag.as_secs_f64());
    page.gauge("last_change", "The number of the last change.", report.seq);
    page.gauge("last_durable_change", "The number of the last change on disk.", report.durable_seq);
    page.family("file_bytes", "gauge", "Size of the files.");
    for (name, size) in [("database", file), ("log", log), ("snapshots", snapshots)] {
        page.sample("file_bytes", &[("file", name)], size);
    }
    if let Some(snapshot) = &report.snapshot {
        let age = journal.now_ms().saturating_sub(snapshot.at).max(0) as f64 / 1000.0;
        page.gauge("snapshot_age_seconds", "Age of the newest snapshot.", age);
        page.gauge("snapshot_last_change", "The number of the last change in the newest snapshot.", snapshot.seq);
    }
}

fn of_alerts(page: &mut Page, alerts: &AlertReading) {
    page.counter("alerts_sent_total", "Alerts that have arrived, since the start.", alerts.sent);
    page.counter("alerts_dropped_total", "Alerts that were dropped because too many waited.", alerts.dropped);
    page.counter("alert_calls_failed_total", "Calls to alert_url that failed.", alerts.failed);
    page.gauge("alerts_waiting", "Alerts that wait to be sent.", alerts.waiting);
}

fn of_proxies(page: &mut Page, plugin: &Plugin) {
    let mut wanted: BTreeMap<(Kind, State), u64> = BTreeMap::new();
    for ((kind, _), entry) in plugin.journal().entries() {
        *wanted.entry((kind, entry.state)).or_default() += 1;
    }
    let of = |kind: Kind, state: State| wanted.get(&(kind, state)).copied().unwrap_or(0);
    page.family("intent_proxies", "gauge", "Proxies in the journal.");
    for kind in Kind::ALL {
        for state in State::ALL {
            page.sample("intent_proxies", &[("kind", kind.name()), ("state", state.name())], of(*kind, *state));
        }
    }
    let now = plugin.journal().now_ms();
    let mut off_hours: BTreeMap<Kind, u64> = BTreeMap::new();
    for ((kind, _), _) in plugin.journal().off_hours(now) {
        *off_hours.entry(kind).or_default() += 1;
    }
    let off_hours = |kind: Kind| off_hours.get(&kind).copied().unwrap_or(0);
    page.family("not_due_proxies", "gauge", "Enabled proxies that are not due, by their hours.");
    for kind in Kind::ALL {
        page.sample("not_due_proxies", &[("kind", kind.name())], off_hours(*kind));
    }
    let Some(reconciler) = plugin.reconciler() else { return };
    let census = reconciler.census();
    page.family("actual_proxies", "gauge", "Enabled proxies by their state in the server.");
    for (kind, census) in &census {
        let PhaseCounts { playing, retrying, connecting, waiting, down, blocked } = *census;
        for (doing, count) in [
            ("playing", playing),
            ("retrying", retrying),
            ("connecting", connecting),
            ("waiting", waiting),
            ("down", down),
            ("blocked", blocked),
        ] {
            page.sample("actual_proxies", &[("kind", kind.name()), ("doing", doing)], count);
        }
    }
    page.family("drift_proxies", "gauge", "Enabled proxies that do not play, though it is their time.");
    for (kind, census) in &census {
        let due = of(*kind, State::Enabled).saturating_sub(off_hours(*kind));
        let drift = due.saturating_sub(census.playing as u64);
        page.sample("drift_proxies", &[("kind", kind.name())], drift);
    }
    let shown = reconciler.shown(None, 0);
    let progress = shown.progress;
    page.gauge("restore_finished", "1 if every proxy of the restore has a result.", u8::from(shown.finished));
    page.gauge("restore_proxies", "Proxies in the restore.", progress.total);
    page.gauge("restore_answered_proxies", "Proxies of the restore with a result.", progress.done());
    page.gauge("restore_seconds", "Duration of the restore so far, or in total.", shown.elapsed.as_secs_f64());
    page.counter(
        "revived_total",
        "Proxies started again: lost ones, and those whose hours began.",
        progress.revived,
    );
    page.counter("asked_total", "Proxies started on demand or after a release.", progress.asked);
    page.gauge("on_backup_proxies", "Pulls that play from a backup URL, or did so last.", shown.on_backup);
    page.counter("url_moves_total", "How often a pull went to another of its URLs.", progress.moved);
    page.counter("given_up_total", "Proxies forgotten because the server gave them up.", progress.given_up);
    page.counter("quarantined_total", "Proxies quarantined after crashes or exceptions.", progress.quarantined);
}
