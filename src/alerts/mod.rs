//! Alerts: what needs attention, sent to an address of the operator's (`alert_url`) in the manner of MediaServer's hooks.
//! One thread, zlmj-alerts, looks at the proxies, the history and the storage, and sends. Nothing else waits for it.

mod alert;
mod outbox;
mod post;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::alert::{Alert, Event};
use self::outbox::Outbox;
use self::post::Receiver;
use self::watch::Watch;
use crate::capture::GAVE_UP;
use crate::error::Result;
use crate::journal::{Condition, HistoryFilter};
use crate::model::{Change, LABEL, Op, ProxyKey, State, redact};
use crate::plugin::{Background, MOVED, Plugin, Stop};

/// How often the proxies are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often to look whether there is an `alert_url` now.
const LOOK_FOR_URL: Duration = Duration::from_secs(5);
/// Labels of removed proxies are looked up in the history: at most so many of them at each look.
const MOST_LABELS: usize = 20;
/// The most changes of one look.
const MOST_CHANGES: usize = 10_000;

/// Starts the thread, which ends up to 10 s after its handle is dropped if it is just sending.
pub fn start(plugin: Arc<Plugin>) -> Result<Background> {
    Background::start("zlmj-alerts", "sending alerts", |stop| Alerting::new(plugin).run(stop))
}

struct Alerting {
    plugin: Arc<Plugin>,
    began: Instant,
    watch: Watch,
    outbox: Outbox,
    /// The last change of history that was looked at; `None` before the first look.
    seq: Option<u64>,
    is_restored: bool,
    /// Since when the storage fails.
    storage_failed: Option<i64>,
    /// When the watched file was refused.
    file_refused: Option<i64>,
    next_look: Duration,
}

impl Alerting {
    fn new(plugin: Arc<Plugin>) -> Alerting {
        Alerting {
            plugin,
            began: Instant::now(),
            watch: Watch::default(),
            outbox: Outbox::default(),
            seq: None,
            is_restored: false,
            storage_failed: None,
            file_refused: None,
            next_look: Duration::ZERO,
        }
    }

    fn run(mut self, stop: &Stop) {
        let mut wait = Duration::ZERO;
        while stop.wait(wait) {
            let settings = self.plugin.journal().settings();
            wait = LOOK_FOR_URL;
            match &settings.alert_url {
                // What was, is no news for a receiver that is named later.
                None => {
                    let is_restored = self.plugin.reconciler().is_some_and(|it| it.shown(None, 0).finished);
                    self = Alerting { is_restored, ..Alerting::new(self.plugin) };
                    self.plugin.alert_counts().waiting(0);
                }
                Some(url) => {
                    let target = Receiver { url, secret: settings.alert_secret.as_deref() };
                    self.step(&target, settings.alert_after);
                    let wake = self.outbox.wake().unwrap_or(Duration::MAX).min(self.next_look);
                    wait = wake.saturating_sub(self.began.elapsed());
                }
            }
        }
    }

    fn step(&mut self, target: &Receiver<'_>, after: Duration) {
        let now = self.began.elapsed();
        if now >= self.next_look {
            self.next_look = now + LOOK;
            let alerts = self.look(after, now);
            let dropped = self.outbox.put(alerts);
            self.plugin.alert_counts().dropped(dropped as u64);
            self.plugin.alert_counts().waiting(self.outbox.len() as u64);
        }
        let Some(batch) = self.outbox.next(now) else { return };
        let count = batch.len();
        let sent = target.post(&self.plugin.capture().facts().server_id, &batch);
        let now = self.began.elapsed();
        match sent {
            Ok(()) => {
                self.outbox.sent(count, now);
                self.plugin.alert_counts().sent(count as u64);
            }
            Err(error) => {
                let why = redact(&error);
                log::warn!("journal: {count} alerts could not be sent and are tried again: {why}");
                self.outbox.failed(now);
                self.plugin.alert_counts().failed(why);
            }
        }
        self.plugin.alert_counts().waiting(self.outbox.len() as u64);
    }

    fn look(&mut self, after: Duration, now: Duration) -> Vec<Alert> {
        let wall = self.plugin.journal().now_ms();
        let mut alerts = self.of_proxies(after, now, wall);
        alerts.extend(self.of_history());
        alerts.extend(self.of_storage(wall));
        alerts.extend(self.of_file(wall));
        for alert in &mut alerts {
            let entry = alert.proxy.as_ref().and_then(|(kind, key)| self.plugin.journal().get(*kind, key));
            alert.label = alert.label.take().or_else(|| Some(entry?.args.read().get(LABEL)?.to_owned()));
            alert.why = redact(&alert.why);
        }
        alerts
    }

    fn of_proxies(&mut self, after: Duration, now: Duration, wall: i64) -> Vec<Alert> {
        let Some(reconciler) = self.plugin.reconciler() else { return Vec::new() };
        let shown = reconciler.shown(None, 0);
        // What has not been tried yet is not down.
        let mut alerts = reconciler.troubles(|troubles| {
            let troubles = troubles.filter(|trouble| trouble.state != "waiting" || trouble.attempts > 0);
            self.watch.look(troubles, after, now, wall)
        });
        // What was given up or disabled a moment ago.
        alerts.retain(|alert| {
            let journal = self.plugin.journal();
            let is_due = |(kind, key): &ProxyKey| journal.is_due(*kind, key, 0);
            let gone = alert.proxy.as_ref().filter(|key| alert.event == Event::ProxyDown && !is_due(key));
            gone.inspect(|key| self.watch.forget(key)).is_none()
        });
        let was_restored = std::mem::replace(&mut self.is_restored, shown.finished);
        if shown.finished && !was_restored && shown.progress.total > 0 {
            let since = wall - i64::try_from(shown.elapsed.as_millis()).unwrap_or(0);
            let count = shown.progress.total as u64;
            let restore = Some(shown.progress);
            alerts.push(Alert { count, restore, ..Alert::of(Event::RestoreDone, None, wall, since) });
        }
        alerts
    }

    /// What the journal has noted of MediaServer's and its own doings.
    fn of_history(&mut self) -> Vec<Alert> {
        let journal = self.plugin.journal();
        if journal.check_loaded().is_err() {
            return Vec::new();
        }
        let until = journal.report().durable_seq;
        // What was before the start is no news.
        let after = *self.seq.get_or_insert(until);
        if until <= after {
            return Vec::new();
        }
        let filter = HistoryFilter {
            after,
            before: Some(until + 1),
            is_own: true,
            limit: MOST_CHANGES,
            ..HistoryFilter::default()
        };
        let changes = match journal.history(&filter) {
            Ok(changes) => changes,
            Err(error) => {
                log::debug!("journal: the history cannot be read for the alerts: {error}");
                return Vec::new();
            }
        };
        self.seq = Some(until);
        let mut alerts: Vec<Alert> = changes.into_iter().rev().filter_map(of_change).collect();
        // Their entries are gone.
        for alert in alerts.iter_mut().filter(|alert| alert.event == Event::ProxyGivenUp).take(MOST_LABELS) {
            alert.label = alert.proxy.as_ref().and_then(|proxy| self.last_label(proxy));
        }
        alerts
    }

    fn last_label(&self, (kind, key): &ProxyKey) -> Option<String> {
        let filter = HistoryFilter {
            kind: Some(*kind),
            prefix: Some(key.to_string()),
            limit: 8,
            ..HistoryFilter::default()
        };
        let changes = self.plugin.journal().history(&filter).ok()?;
        let args = changes.into_iter().find(|change| change.key == *key && change.args.is_some())?.args?;
        Some(args.read().get(LABEL)?.to_owned())
    }

    fn of_storage(&mut self, wall: i64) -> Option<Alert> {
        let report = self.plugin.journal().report();
        match (report.condition == Condition::Healthy, self.storage_failed) {
            (false, None) => {
                self.storage_failed = Some(wall);
                let why = report.last_error.map_or_else(String::new, |(_, error)| error.message);
                Some(Alert { why, ..Alert::of(Event::StorageFailed, None, wall, wall) })
            }
            (true, Some(since)) => {
                self.storage_failed = None;
                Some(Alert::of(Event::StorageOk, None, wall, since))
            }
            _ => None,
        }
    }

    fn of_file(&mut self, wall: i64) -> Option<Alert> {
        let status = self.plugin.file_status();
        let refused_at = status.as_ref().and_then(|status| status.refused_at);
        let before = std::mem::replace(&mut self.file_refused, refused_at);
        match (refused_at, before) {
            (Some(at), before) if before != Some(at) => {
                let why = status.and_then(|status| status.error).unwrap_or_default();
                Some(Alert { why, ..Alert::of(Event::FileRefused, None, wall, at) })
            }
            (None, Some(since)) => Some(Alert::of(Event::FileOk, None, wall, since)),
            _ => None,
        }
    }
}

fn of_change(change: Change) -> Option<Alert> {
    let event = match change.op {
        Op::Set(State::Quarantined) => Event::ProxySetAside,
        Op::Remove if change.reason == GAVE_UP => Event::ProxyGivenUp,
        Op::Add if change.reason.starts_with(MOVED) => Event::ProxyMoved,
        Op::Add | Op::Remove | Op::Set(_) => return None,
    };
    // A note says more than its reason, which is not encrypted.
    let noted = change.args.as_ref().and_then(|args| Some(args.in_use()?.why.clone()));
    let why = noted.filter(|_| event == Event::ProxyMoved).unwrap_or(change.reason);
    Some(Alert { why, count: 1, ..Alert::of(event, Some((change.kind, change.key)), change.at, change.at) })
}
