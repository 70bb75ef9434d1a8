//! The URLs of one pull: which of them is in use, and when it goes to another one. Pure.

use std::time::Duration;

use super::queue::RemoteHost;
use crate::model::url::direct_schema;
use crate::model::{Args, Backups, Existing};

/// How often the first URL is asked whether it answers, while another one plays.
pub const FIRST_PROBE: Duration = Duration::from_secs(10);
/// The longest pause after questions that it did not answer.
const LONGEST_PROBE: Duration = Duration::from_secs(300);
/// For so long the first URL must have answered before the pull goes back to it. Twice as long each time that it did not
/// play, or failed, soon after.
const PROBATION: Duration = Duration::from_secs(60);
const LONGEST_PROBATION: Duration = Duration::from_secs(3600);
/// A first URL that fails this long after the pull went back to it has failed anew.
const TRUSTED: Duration = Duration::from_secs(3600);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The URL in use has failed for long enough: the next one is used.
    Next,
    /// The first URL is asked whether it answers.
    Probe,
}

#[derive(Debug)]
pub struct Urls {
    urls: Vec<String>,
    hosts: Vec<RemoteHost>,
    /// The one that is in use or tried, and the one that the journal has as in use.
    now: usize,
    recorded: usize,
    /// Why it is in use.
    why: String,
    /// How long a URL may fail; `None`: as the settings say.
    patience: Option<Duration>,
    goes_back: bool,
    may_retry: bool,
    /// Since when the one in use is tried without success.
    failing: Option<Duration>,
    probe: Option<Probe>,
    probation: Duration,
    went_back: Option<Duration>,
    /// When something is due next, as it was last said.
    pub alarm: Option<Duration>,
}

#[derive(Debug)]
struct Probe {
    /// `None` while it is asked.
    at: Option<Duration>,
    answers_since: Option<Duration>,
    failures: u32,
}

impl Urls {
    /// `None` for a pull without backup URLs.
    pub fn of(args: &Args, first: &str, mut host: impl FnMut(&str) -> RemoteHost) -> Option<Box<Urls>> {
        let Backups { urls: backups, patience, goes_back, in_use } = args.backups()?;
        let urls: Vec<String> =
            std::iter::once(first).chain(backups.iter().map(String::as_str)).map(str::to_owned).collect();
        let now = in_use.as_ref().and_then(|in_use| urls.iter().position(|its| *its == in_use.url)).unwrap_or(0);
        Some(Box::new(Urls {
            hosts: urls.iter().map(|url| host(url)).collect(),
            urls,
            now,
            recorded: now,
            why: String::new(),
            patience: *patience,
            goes_back: *goes_back,
            may_retry: args.may_retry(),
            failing: None,
            probe: None,
            probation: PROBATION,
            went_back: None,
            alarm: None,
        }))
    }

    /// What was known of the same URLs before.
    pub fn with_past_of(self: Box<Self>, past: Option<Box<Urls>>) -> Box<Urls> {
        match past {
            Some(past) if past.urls == self.urls => Box::new(Urls {
                recorded: self.recorded,
                patience: self.patience,
                goes_back: self.goes_back,
                may_retry: self.may_retry,
                alarm: None,
                ..*past
            }),
            _ => self,
        }
    }

    pub fn url(&self) -> &str {
        self.urls.get(self.now).map_or("", String::as_str)
    }

    pub fn first(&self) -> &str {
        self.urls.first().map_or("", String::as_str)
    }

    pub fn host(&self) -> Option<RemoteHost> {
        self.hosts.get(self.now).copied()
    }

    /// 1 for the first.
    pub fn number(&self) -> usize {
        self.now + 1
    }

    /// The journal has one of the backups as in use.
    pub fn is_on_backup(&self) -> bool {
        self.recorded != 0
    }

    /// It is tried, or has failed.
    pub fn fails(&mut self, now: Duration) {
        self.failing.get_or_insert(now);
        self.probe = None;
    }

    /// It plays. Returns why it is in use, if the journal does not have it so.
    pub fn plays(&mut self, now: Duration, first_probe: Duration) -> Option<&str> {
        self.failing = None;
        if self.now != 0 && self.goes_back && self.probe.is_none() {
            self.probe = Some(Probe { at: Some(now + first_probe), answers_since: None, failures: 0 });
        }
        (std::mem::replace(&mut self.recorded, self.now) != self.now).then_some(&self.why)
    }

    /// For how long the one in use has failed.
    pub fn failed_for(&self, now: Duration) -> Duration {
        self.failing.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// When something is due.
    pub fn wake(&self, patience: Duration) -> Option<Duration> {
        let failed = self.failing.map(|since| since + self.patience.unwrap_or(patience));
        let probe = self.probe.as_ref().and_then(|probe| probe.at);
        failed.into_iter().chain(probe).min()
    }

    pub fn due(&self, now: Duration, patience: Duration) -> Option<Due> {
        let patience = self.patience.unwrap_or(patience);
        match (self.failing, self.probe.as_ref().and_then(|probe| probe.at)) {
            (Some(since), _) if now >= since + patience => Some(Due::Next),
            (_, Some(at)) if now >= at => Some(Due::Probe),
            _ => None,
        }
    }

    /// The next one is used, since this one has failed.
    pub fn goes_on(&mut self, now: Duration, why: String) -> Existing {
        if self.now == 0 && self.went_back.is_some_and(|since| now < since + TRUSTED) {
            self.probation = (self.probation * 2).min(LONGEST_PROBATION);
        } else if self.now == 0 {
            self.probation = PROBATION;
        }
        let next = (self.now + 1) % self.urls.len().max(1);
        self.uses(next, why)
    }

    /// The first one is asked.
    pub fn asks(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.at = None;
        }
    }

    /// The answer. Returns for how long the first one has answered, if that is long enough to go back to it.
    pub fn answered(
        &mut self,
        answers: bool,
        now: Duration,
        jittered: impl Fn(Duration) -> Duration,
    ) -> Option<Duration> {
        let probe = self.probe.as_mut().filter(|probe| probe.at.is_none())?;
        let pause = if answers {
            probe.failures = 0;
            let since = *probe.answers_since.get_or_insert(now);
            if now >= since + self.probation {
                return Some(now - since);
            }
            FIRST_PROBE
        } else {
            probe.answers_since = None;
            probe.failures += 1;
            FIRST_PROBE.saturating_mul(1 << probe.failures.min(10)).min(LONGEST_PROBE)
        };
        probe.at = Some(now + jittered(pause));
        None
    }

    pub fn goes_back(&mut self, now: Duration, why: String) -> Existing {
        self.went_back = Some(now);
        self.uses(0, why)
    }

    fn uses(&mut self, which: usize, why: String) -> Existing {
        let before = direct_schema(self.url());
        (self.now, self.why, self.failing, self.probe) = (which, why, None, None);
        match self.may_retry && before == direct_schema(self.url()) {
            true => Existing::Update,
            false => Existing::Replace,
        }
    }
}
