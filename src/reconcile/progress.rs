//! The progress of a restore: counts, pace, and the worst hosts. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::proxy::Part;
use super::queue::RemoteHost;

/// The pace is that of this period.
const RECENT: Duration = Duration::from_secs(5);
const SAMPLES_APART: Duration = Duration::from_millis(250);

/// All numbers are of proxies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Enabled when the restore began.
    pub total: usize,
    /// Of these, already in the server, or added by others in the meantime.
    pub present: usize,
    /// Passed to the server.
    pub started: usize,
    /// Answered, and playing.
    pub live: usize,
    /// Connected, but without media for a while.
    pub connected: usize,
    /// Answered: the first connect failed, or the server refused. MediaServer retries those that it has kept.
    pub failing: usize,
    /// Not startable at the moment: the input stream is missing, or the like.
    pub blocked: usize,
    /// Deleted, disabled or replaced in the meantime.
    pub unwanted: usize,
    /// Quarantined after repeated crashes or exceptions.
    pub quarantined: usize,
    /// Not started yet.
    pub waiting: usize,
    /// Started and not yet answered, or just connected.
    pub connecting: usize,
    /// Lost by the server and started again after the restore.
    #[serde(skip)]
    pub revived: usize,
    /// Started outside the restore: on demand, or after a quarantine.
    #[serde(skip)]
    pub asked: usize,
    /// Removed because the server gave them up (on_give_up=forget).
    #[serde(skip)]
    pub given_up: usize,
    /// Pulls that play from another of their URLs than before.
    #[serde(skip)]
    pub moved: usize,
    /// When 50, 95 and 100 % were done, since the beginning.
    #[serde(skip)]
    pub half_after: Option<Duration>,
    /// When 95 % were done; `None` before that.
    #[serde(skip)]
    pub most_after: Option<Duration>,
    /// When all were done; `None` before that.
    #[serde(skip)]
    pub all_after: Option<Duration>,
}

impl Progress {
    /// The number of proxies with a result.
    pub fn done(&self) -> usize {
        self.present + self.live + self.connected + self.failing + self.blocked + self.unwanted
    }

    /// The count of this part, to be changed.
    pub fn of(&mut self, part: Part) -> &mut usize {
        match part {
            Part::Waiting => &mut self.waiting,
            Part::Started | Part::Connecting => &mut self.connecting,
            Part::Connected => &mut self.connected,
        }
    }

    /// Whether all proxies of the restore have a result; also true of a restore without any.
    pub fn is_finished(&self) -> bool {
        self.waiting + self.connecting == 0
    }
}

/// The restore of the proxies of one remote host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SourceReport {
    /// The host; empty for proxies whose URL names none.
    pub host: String,
    /// Its proxies in the restore.
    pub total: usize,
    /// Those of them whose result was a failure.
    pub failing: usize,
    /// The error of the last failure; empty if there was none.
    pub last_error: String,
}

/// Keeps the counts of one restore.
#[derive(Default)]
pub struct Meter {
    pub progress: Progress,
    began: Duration,
    /// The number of results at some recent times.
    samples: VecDeque<(Duration, usize)>,
    sources: HashMap<RemoteHost, SourceReport>,
}

impl Meter {
    /// Begins a restore. Counts that are not of a restore stay.
    pub fn begin(&mut self, now: Duration) {
        let Progress { revived, asked, given_up, moved, quarantined, .. } = self.progress;
        *self = Meter {
            progress: Progress { revived, asked, given_up, moved, quarantined, ..Progress::default() },
            began: now,
            ..Meter::default()
        };
    }

    /// The duration of the restore so far, or in total.
    pub fn elapsed(&self, now: Duration) -> Duration {
        self.progress.all_after.unwrap_or_else(|| now.saturating_sub(self.began))
    }

    /// When the restore ended.
    pub fn ended(&self) -> Option<Duration> {
        self.progress.all_after.map(|after| self.began + after)
    }

    /// Adds a proxy of this host to the restore.
    pub fn counts(&mut self, remote_host: RemoteHost) {
        self.progress.total += 1;
        self.sources.entry(remote_host).or_default().total += 1;
    }

    pub fn failed(&mut self, remote_host: RemoteHost, why: &str) {
        let source = self.sources.entry(remote_host).or_default();
        source.failing += 1;
        why.clone_into(&mut source.last_error);
    }

    /// Call it after each change of the counts.
    pub fn note(&mut self, now: Duration) {
        let (done, total) = (self.progress.done(), self.progress.total);
        let after = now.saturating_sub(self.began);
        let reached = |reached: bool, when: &mut Option<Duration>| {
            if reached {
                when.get_or_insert(after);
            }
        };
        reached(done * 100 >= total * 50, &mut self.progress.half_after);
        reached(done * 100 >= total * 95, &mut self.progress.most_after);
        reached(self.progress.is_finished(), &mut self.progress.all_after);
        if self.samples.back().is_none_or(|(at, _)| now >= *at + SAMPLES_APART) {
            self.samples.push_back((now, done));
        }
        while self.samples.front().is_some_and(|(at, _)| now > *at + RECENT) {
            self.samples.pop_front();
        }
    }

    /// Proxies with a result per second, recently.
    pub fn rate(&self, now: Duration) -> f64 {
        let Some((at, done)) = self.samples.front() else { return 0.0 };
        let seconds = now.saturating_sub(*at).as_secs_f64();
        if seconds == 0.0 { 0.0 } else { self.progress.done().saturating_sub(*done) as f64 / seconds }
    }

    /// The remaining time at the recent pace; `None` if nothing moves.
    pub fn eta(&self, now: Duration) -> Option<Duration> {
        let left = self.progress.waiting + self.progress.connecting;
        let rate = self.rate(now);
        match left {
            0 => Some(Duration::ZERO),
            _ if rate > 0.0 => Duration::try_from_secs_f64(left as f64 / rate).ok(),
            _ => None,
        }
    }

    /// The hosts with the most failures, the worst first, with their names.
    pub fn worst<'a>(&self, most: usize, name: impl Fn(RemoteHost) -> &'a str) -> Vec<SourceReport> {
        let mut bad: Vec<_> = self.sources.iter().filter(|(_, source)| source.failing > 0).collect();
        bad.sort_by_key(|(remote_host, source)| (std::cmp::Reverse(source.failing), **remote_host));
        let named = |(remote_host, source): (&RemoteHost, &SourceReport)| SourceReport {
            host: name(*remote_host).to_owned(),
            ..source.clone()
        };
        bad.into_iter().take(most).map(named).collect()
    }
}
