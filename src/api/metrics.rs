//! The metrics in the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::{Reply, Request};
use crate::BUILD_ID;
use crate::error::Result;
use crate::journal::{Condition, Journal};
use crate::model::{Entry, Kind, ProxyKey, State};
use crate::plugin::{AlertReading, Plugin};
use crate::reconcile::PhaseCounts;

/// Of so many pulls that play from a backup it is said which one; all are counted.
const MOST_NAMED: usize = 1000;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP zlm_journal_{name} {help}\n# TYPE zlm_journal_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let label = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
        let labels: Vec<String> = labels.iter().map(label).collect();
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

/// The value of a label, as the format has it.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n").into()
}

/// All metrics. Takes milliseconds with tens of thousands of proxies.
pub fn page(plugin: &Plugin, _: &Request<'_>) -> Result<Reply> {
    let mut page = Page::default();
    page.family("info", "gauge", "The build; always 1.");
    page.sample("info", &[("version", env!("CARGO_PKG_VERSION")), ("build_id", BUILD_ID)], 1);
    of_storage(&mut page, plugin.journal());
    of_proxies(&mut page, plugin);
    of_urls(&mut page, plugin.journal().entries());
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

/// Which of its URLs a pull plays from, as the journal has noted it.
fn of_urls(page: &mut Page, entries: impl Iterator<Item = (ProxyKey, Entry)>) {
    page.family(
        "backup_url_since_timestamp_seconds",
        "gauge",
        "Since when a pull plays from a backup URL: which one (2 is the first backup), and why. At most 1000 of them.",
    );
    let enabled = entries.filter(|(_, entry)| entry.state == State::Enabled);
    let noted = enabled.filter_map(|((_, key), entry)| {
        let backups = entry.args.backups()?;
        let in_use = backups.in_use.as_ref()?;
        let number = backups.urls.iter().position(|url| *url == in_use.url)? + 2;
        Some((key, number.to_string(), in_use.clone()))
    });
    for (key, number, in_use) in noted.take(MOST_NAMED) {
        let labels = [("key", &*key), ("url", &number), ("why", &in_use.why)];
        page.sample("backup_url_since_timestamp_seconds", &labels, in_use.since as f64 / 1000.0);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Args, InUse};

    fn entry(in_use: Option<&str>, state: State) -> Entry {
        let backups = r#"["rtsp://b/1","rtsp://c/1"]"#;
        let pairs = [("url", "rtsp://a/1"), ("journal_backup_urls", backups)];
        let args =
            Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap();
        let why = "URL 1 has failed for 10 s".to_owned();
        let in_use = in_use.map(|url| InUse { url: url.to_owned(), since: 1_795_446_000_500, why });
        Entry { args: args.noting(in_use.as_ref()).unwrap(), state, seq: 1, created_at: 0, updated_at: 0 }
    }

    fn samples(entries: Vec<(String, Entry)>) -> Vec<String> {
        let mut page = Page::default();
        of_urls(&mut page, entries.into_iter().map(|(key, entry)| ((Kind::Pull, key.as_str().into()), entry)));
        page.0.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn the_url_in_use_is_told_of_pulls_that_play_from_a_backup() {
        let told = samples(vec![
            ("v/live/a".to_owned(), entry(None, State::Enabled)),
            ("v/live/b".to_owned(), entry(Some("rtsp://b/1"), State::Enabled)),
            ("v/live/c\"\\\n".to_owned(), entry(Some("rtsp://c/1"), State::Enabled)),
            ("v/live/d".to_owned(), entry(Some("rtsp://c/1"), State::Disabled)),
        ]);
        let line = |key: &str, url: u64| {
            format!(
                r#"zlm_journal_backup_url_since_timestamp_seconds{{key="{key}",url="{url}",why="URL 1 has failed for 10 s"}} 1795446000.5"#
            )
        };
        assert_eq!(told, [line("v/live/b", 2), line(r#"v/live/c\"\\\n"#, 3)]);
    }

    #[test]
    fn the_page_stays_bounded_however_many_play_from_backups() {
        let on_backup = entry(Some("rtsp://b/1"), State::Enabled);
        let all = (0..MOST_NAMED + 1).map(|n| (format!("v/live/{n}"), on_backup.clone())).collect();
        assert_eq!(samples(all).len(), MOST_NAMED);
    }
}
