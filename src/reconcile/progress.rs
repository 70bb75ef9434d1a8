//! How far a restore is: counts of proxies, the pace, when half of it was done, and which sources are bad. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::proxy::Part;
use super::queue::RemoteHost;

/// The pace is that of the last so many seconds.
const RECENT: Duration = Duration::from_secs(5);
const SAMPLES_APART: Duration = Duration::from_millis(250);

/// The numbers are of proxies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Wanted when the restore began.
    pub total: usize,
    /// Of these, found in the server's list already, or added by someone else meanwhile.
    pub present: usize,
    /// Handed to the server.
    pub started: usize,
    /// Answered: plays.
    pub live: usize,
    /// Has connected, and has neither played nor failed for a while.
    pub connected: usize,
    /// Answered: the first connect failed, or the server refused. MediaServer keeps trying those it has kept.
    pub failing: usize,
    /// Cannot be started as things are: the stream that it takes is not there, and the like.
    pub blocked: usize,
    /// Given up because someone deleted or replaced it meanwhile.
    pub unwanted: usize,
    /// Set aside: the server crashed or threw of it again and again.
    pub quarantined: usize,
    /// Not started yet.
    pub waiting: usize,
    /// Started and not answered yet, or connected just now.
    pub connecting: usize,
    /// Started again after the restore: what the server had lost.
    #[serde(skip)]
    pub revived: usize,
    /// Started outside the restore: a player or an operator asked, or it was set aside and released.
    #[serde(skip)]
    pub asked: usize,
    /// Forgotten because the server gave it up (on_give_up=forget).
    #[serde(skip)]
    pub given_up: usize,
    /// When so much was answered for, from the beginning.
    #[serde(skip)]
    pub half_after: Option<Duration>,
    #[serde(skip)]
    pub most_after: Option<Duration>,
    #[serde(skip)]
    pub all_after: Option<Duration>,
}

impl Progress {
    /// How many are answered for, in whatever way.
    pub fn done(&self) -> usize {
        self.present + self.live + self.connected + self.failing + self.blocked + self.unwanted
    }

    pub fn of(&mut self, part: Part) -> &mut usize {
        match part {
            Part::Waiting => &mut self.waiting,
            Part::Connecting => &mut self.connecting,
            Part::Connected => &mut self.connected,
        }
    }

    pub fn is_finished(&self) -> bool {
        self.waiting + self.connecting == 0
    }
}

/// What became of the proxies of one source host at the restore.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SourceReport {
    pub host: String,
    pub total: usize,
    pub failing: usize,
    pub last_error: String,
}

/// Keeps the counts of one restore.
#[derive(Default)]
pub struct Meter {
    pub progress: Progress,
    began: Duration,
    /// How much was done at some recent moments.
    samples: VecDeque<(Duration, usize)>,
    sources: HashMap<RemoteHost, SourceReport>,
}

impl Meter {
    /// A restore begins. What was revived before stays counted.
    pub fn begin(&mut self, now: Duration) {
        let Progress { revived, asked, given_up, quarantined, .. } = self.progress;
        *self = Meter {
            progress: Progress { revived, asked, given_up, quarantined, ..Progress::default() },
            began: now,
            ..Meter::default()
        };
    }

    /// Since the restore began, until it was over.
    pub fn elapsed(&self, now: Duration) -> Duration {
        self.progress.all_after.unwrap_or_else(|| now.saturating_sub(self.began))
    }

    /// When the restore was over.
    pub fn ended(&self) -> Option<Duration> {
        self.progress.all_after.map(|after| self.began + after)
    }

    /// One more of `origin` belongs to this restore.
    pub fn counts(&mut self, remote_host: RemoteHost) {
        self.progress.total += 1;
        self.sources.entry(remote_host).or_default().total += 1;
    }

    pub fn failed(&mut self, remote_host: RemoteHost, why: &str) {
        let source = self.sources.entry(remote_host).or_default();
        source.failing += 1;
        why.clone_into(&mut source.last_error);
    }

    /// To be called after each change of the counts.
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

    /// Proxies answered for a second, of late.
    pub fn rate(&self, now: Duration) -> f64 {
        let Some((at, done)) = self.samples.front() else { return 0.0 };
        let seconds = now.saturating_sub(*at).as_secs_f64();
        if seconds == 0.0 { 0.0 } else { self.progress.done().saturating_sub(*done) as f64 / seconds }
    }

    /// How much longer the restore takes at that pace; none where nothing moves.
    pub fn eta(&self, now: Duration) -> Option<Duration> {
        let left = self.progress.waiting + self.progress.connecting;
        let rate = self.rate(now);
        match left {
            0 => Some(Duration::ZERO),
            _ if rate > 0.0 => Duration::try_from_secs_f64(left as f64 / rate).ok(),
            _ => None,
        }
    }

    /// The sources with the most failures, the worst first, less their names.
    pub fn worst(&self, most: usize) -> Vec<(RemoteHost, SourceReport)> {
        let mut bad: Vec<_> = self.sources.iter().filter(|(_, source)| source.failing > 0).collect();
        bad.sort_by_key(|(remote_host, source)| (std::cmp::Reverse(source.failing), **remote_host));
        bad.into_iter().take(most).map(|(remote_host, source)| (*remote_host, source.clone())).collect()
    }
}
