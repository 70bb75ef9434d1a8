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
/// A connect may count as playing for as long as MediaServer waits for media (5 s, and its look every 2.5 s).
const PLAYS_FOR_SURE: Duration = Duration::from_secs(8);
/// A URL is given twice as long each time that all have failed, up to this.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The URL in use has failed for long enough: the next one is used.
    Next,
    /// It has played for long enough, and the journal does not have it as in use.
    Note,
    /// The first URL is asked whether it answers.
    Probe,
}

#[derive(Debug, Clone)]
pub struct Urls {
    urls: Vec<String>,
    hosts: Vec<RemoteHost>,
    /// The one that is in use or tried, the one that the server was told last, and the one that the journal has.
    now: usize,
    told: usize,
    recorded: usize,
    /// Why it is in use, without an address; and the error of the one before, redacted.
    why: String,
    error: String,
    /// How long a URL may fail; `None`: as the settings say.
    patience: Option<Duration>,
    goes_back: bool,
    may_retry: bool,
    /// Since when the one in use is tried without success, and since when it plays.
    failing: Option<Duration>,
    playing: Option<Duration>,
    /// How many have failed since one has played.
    failed: u32,
    /// The journal is being told.
    notes: bool,
    probe: Option<Probe>,
    probation: Duration,
    went_back: Option<Duration>,
    /// When something is due next, as it was last said.
    pub alarm: Option<Duration>,
}

#[derive(Debug, Clone)]
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
        let of_note = in_use.as_ref().and_then(|in_use| urls.iter().position(|its| *its == in_use.url));
        let now = of_note.unwrap_or(0);
        Some(Box::new(Urls {
            hosts: urls.iter().map(|url| host(url)).collect(),
            urls,
            now,
            told: now,
            recorded: now,
            why: String::new(),
            error: String::new(),
            patience: *patience,
            goes_back: *goes_back,
            may_retry: args.may_retry(),
            failing: None,
            playing: None,
            failed: 0,
            notes: false,
            probe: None,
            probation: PROBATION,
            went_back: None,
            alarm: None,
        }))
    }

    /// What was known of the same URLs before. The one that is tried now has not failed yet.
    pub fn with_past_of(self: Box<Self>, past: &Urls) -> Box<Urls> {
        if past.urls != self.urls || past.recorded != self.recorded {
            return self;
        }
        let Urls { patience, goes_back, may_retry, .. } = *self;
        let (failing, notes, alarm) = (None, false, None);
        Box::new(Urls { patience, goes_back, may_retry, failing, notes, alarm, ..past.clone() })
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

    pub fn why(&self) -> (&str, &str) {
        (&self.why, &self.error)
    }

    /// It plays from one of the backups, or did so last.
    pub fn is_on_backup(&self) -> bool {
        if self.playing.is_some() { self.now != 0 } else { self.recorded != 0 }
    }

    /// What it takes to let a server that was told of this URL use another one.
    pub fn change_to(&self, url: &str) -> Existing {
        let told = self.urls.get(self.told).map_or("", String::as_str);
        match () {
            () if told == url => Existing::Keep,
            () if self.may_retry && direct_schema(told) == direct_schema(url) => Existing::Update,
            () => Existing::Replace,
        }
    }

    /// The server is told of the one that is in use.
    pub fn tells(&mut self) {
        self.told = self.now;
    }

    /// Before the server was told of the next one, it plays from the one before: that is in use again. Returns false if
    /// it was told.
    pub fn stays(&mut self) -> bool {
        let is_other = self.now != self.told;
        self.now = self.told;
        is_other
    }

    /// It is tried, or has failed.
    pub fn fails(&mut self, now: Duration) {
        if self.playing.take().is_some_and(|since| now >= since + PLAYS_FOR_SURE) {
            (self.failing, self.failed) = (None, 0);
        }
        self.failing.get_or_insert(now);
        self.probe = None;
    }

    /// It is left as it is.
    pub fn rests(&mut self) {
        self.failing = None;
    }

    /// It plays, or seems to.
    pub fn plays(&mut self, now: Duration, first_probe: Duration) {
        self.playing.get_or_insert(now);
        if self.now != 0 && self.goes_back && self.probe.is_none() {
            self.probe = Some(Probe { at: Some(now + first_probe), answers_since: None, failures: 0 });
        }
    }

    fn patience(&self, usual: Duration) -> Duration {
        let patience = self.patience.unwrap_or(usual);
        let rounds = self.failed / u32::try_from(self.urls.len()).unwrap_or(u32::MAX).max(1);
        patience.saturating_mul(1 << rounds.min(10)).min(LONGEST_PATIENCE.max(patience))
    }

    /// When each of these is due; `patience` as the settings say.
    fn times(&self, patience: Duration) -> [(Due, Option<Duration>); 3] {
        let (is_noted, plays) = (self.now == self.recorded || self.notes, self.playing);
        [
            (Due::Next, self.failing.filter(|_| plays.is_none()).map(|since| since + self.patience(patience))),
            (Due::Note, plays.filter(|_| !is_noted).map(|since| since + PLAYS_FOR_SURE)),
            (Due::Probe, self.probe.as_ref().and_then(|probe| probe.at)),
        ]
    }

    pub fn wake(&self, patience: Duration) -> Option<Duration> {
        self.times(patience).into_iter().filter_map(|(_, at)| at).min()
    }

    pub fn due(&self, now: Duration, patience: Duration) -> Option<Due> {
        self.times(patience).into_iter().find(|(_, at)| at.is_some_and(|at| at <= now)).map(|(due, _)| due)
    }

    /// The journal is told. Returns since when it plays.
    pub fn begins_note(&mut self) -> Option<Duration> {
        self.notes = true;
        self.playing
    }

    /// The journal has it as in use, or could not take it.
    pub fn ends_note(&mut self, is_noted: bool, now: Duration) {
        self.notes = false;
        if is_noted {
            self.recorded = self.now;
        } else if self.playing.is_some() {
            // To be tried again.
            self.playing = Some(now);
        }
    }

    /// The next one is used, since this one has failed.
    pub fn goes_on(&mut self, now: Duration, error: &str) -> Existing {
        let failed_for = self.failing.map_or(Duration::ZERO, |since| now.saturating_sub(since)).as_secs();
        let why = format!("URL {} has failed for {failed_for} s", self.number());
        if self.now == 0 {
            let is_vain = self.went_back.is_some_and(|since| now < since + TRUSTED);
            self.probation = if is_vain { (self.probation * 2).min(LONGEST_PROBATION) } else { PROBATION };
        }
        self.failed += 1;
        self.uses((self.now + 1) % self.urls.len().max(1), why, error)
    }

    /// The first one is asked.
    pub fn asks(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.at = None;
        }
    }

    /// The answer of the first one. Returns how to go back to it, if it has answered for long enough.
    pub fn answered(
        &mut self,
        answers: bool,
        now: Duration,
        jittered: impl Fn(Duration) -> Duration,
    ) -> Option<Existing> {
        let probe = self.probe.as_mut().filter(|probe| probe.at.is_none())?;
        if !answers {
            probe.answers_since = None;
            probe.failures += 1;
            let pause = FIRST_PROBE.saturating_mul(1 << probe.failures.min(10)).min(LONGEST_PROBE);
            probe.at = Some(now + jittered(pause));
            return None;
        }
        probe.failures = 0;
        let since = *probe.answers_since.get_or_insert(now);
        if now < since + self.probation {
            probe.at = Some(now + jittered(FIRST_PROBE));
            return None;
        }
        (self.went_back, self.failed) = (Some(now), 0);
        let why = format!("URL 1 has answered for {} s", (now - since).as_secs());
        Some(self.uses(0, why, ""))
    }

    fn uses(&mut self, which: usize, why: String, error: &str) -> Existing {
        (self.now, self.why, self.error) = (which, why, error.to_owned());
        (self.failing, self.playing, self.notes, self.probe) = (None, None, false, None);
        self.change_to(self.url())
    }
}
