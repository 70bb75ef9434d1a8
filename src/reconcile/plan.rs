//! The plan: decides the next actions from intent, what the server has, the limits, and what was tried before. Pure: no
//! threads, no clock, no host. Times are durations since the reconciler began; wall clock times (`wall`), only for
//! sorting and information, are milliseconds since 1970-01-01 UTC.

mod answers;
mod events;
mod transitions;
mod urls;
mod view;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use indexmap::IndexMap;

use super::chain::Chains;
use super::host::{Added, Listed, UsedUrl, Wanted};
use super::progress::{Meter, Progress, SourceReport};
use super::proxy::{Part, Phase, PhaseCounts, Proxy, Unhealthy, UnhealthyProxy};
use super::queue::{PROCESSES, Queue, Rank};
use crate::memory::give_back;
use crate::model::{Existing, Kind, NamingRules, ProxyKey};
use crate::settings::{LONGEST_PAUSE_SEC, RestoreMode};

/// The longest pause between two attempts for one proxy.
const LONGEST_BACKOFF: Duration = Duration::from_secs(LONGEST_PAUSE_SEC);
/// An add without an answer for this long counts as failed.
const LOST: Duration = Duration::from_secs(120);
/// After this many consecutive exceptions, or consecutive crashes while the server worked on it, a proxy is
/// quarantined.
const MOST_CRASHES: u32 = 3;
/// A crash this soon after the answer counts against the proxy, whose first data are read then.
pub const SETTLES: Duration = Duration::from_secs(2);
/// How long to wait for first media: they come with the next key frame, or MediaServer reports a timeout after 5 s.
const FIRST_MEDIA: Duration = Duration::from_secs(10);
/// A start has gone well this long after the restore is over.
const WELL: Duration = Duration::from_secs(10);
/// A player's request retries a proxy at once, but not sooner than this after the last attempt.
const ASKED_AGAIN: Duration = Duration::from_secs(2);
/// A blocked proxy is retried after this long, in case an event was missed.
const BLOCKED_AGAIN: Duration = Duration::from_secs(300);
/// The longest and the shortest time between two comparisons of intent with the server; they use at most 1/LOOK_SHARE
/// of the time.
const LOOK_AT_LEAST: Duration = Duration::from_secs(10);
const LOOK_AT_MOST: Duration = Duration::from_secs(1);
const LOOK_SHARE: u32 = 100;
/// A thread cannot sleep between two of 10,000 starts per second: it may catch up on this much.
const CATCH_UP: Duration = Duration::from_millis(5);
/// The value of `last_played` for a proxy that played when it was last checked.
const PLAYED: i64 = i64::MAX;

/// The limits of the reconciler.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Which enabled proxies are started automatically. In any case: those that a player, a push (not with `Off`) or an
    /// operator asks for, and those that have run since the start.
    pub mode: RestoreMode,
    /// Proxies started per second, at least 1.
    pub per_second: u64,
    /// Concurrent first connects to one remote host; 0: no limit.
    pub per_origin: usize,
    /// Concurrent starts of processes; 0: no limit.
    pub processes: usize,
    /// The first pause before a lost proxy is added again; it doubles. Zero: never.
    pub revive: Duration,
    /// For how long a URL of a pull must have failed before its next one is used.
    pub failover: Duration,
    /// A random seed, so that servers differ in their jitter.
    pub seed: u64,
}

/// The next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start it with call `call`, from this URL if it has several.
    Start { call: u64, key: ProxyKey, seq: u64, existing: Existing, url: Option<String> },
    /// Note that it plays from another of its URLs than the journal has.
    Note { key: ProxyKey, seq: u64, used: UsedUrl },
    /// Ask whether this URL answers.
    Probe { ticket: u64, url: String },
    /// Quarantine it.
    SetAside { key: ProxyKey, seq: u64, why: String },
    /// The server has survived its start: it is no longer a suspect.
    Acquit { key: ProxyKey, seq: u64 },
    /// The start has gone well: release the quarantined proxies, with this crash count.
    Release { crashes: u32 },
}

struct Call {
    key: ProxyKey,
    since: Duration,
    existing: Existing,
}

#[derive(Default)]
pub struct Plan {
    limits: Limits,
    proxies: IndexMap<ProxyKey, Proxy>,
    /// What the server has under these keys is not what is wanted: it is changed or replaced when they are started.
    stale: HashMap<ProxyKey, Existing>,
    queue: Queue,
    chains: Chains,
    calls: HashMap<u64, Call>,
    last_call: u64,
    /// Answered calls for suspects, in order, and when the server will have survived each.
    settling: VecDeque<(Duration, u64, ProxyKey, u64)>,
    /// Proxies that connected during the restore, in order, and until when to wait for their first media.
    awaited: VecDeque<(Duration, ProxyKey)>,
    /// Quarantined proxies have been released in this run.
    has_released: bool,
    actions: VecDeque<Action>,
    /// Proxies with several URLs whose phase was set, and when something is due for others.
    touched: Vec<ProxyKey>,
    alarms: BTreeSet<(Duration, ProxyKey)>,
    /// How many have several URLs.
    several: usize,
    /// The first URLs that are being asked.
    probes: HashMap<u64, ProxyKey>,
    last_probe: u64,
    meter: Meter,
    census: PhaseCounts,
    /// The current or next comparison belongs to a restore: missing proxies are due at once.
    restoring: bool,
    /// During a comparison: the time that the host has spent on it.
    asking: Option<Duration>,
    looks: u64,
    next_look: Duration,
    soonest_look: Duration,
    next_start: Duration,
}

impl Plan {
    /// A proxy loop through the addresses in `rules` is not started.
    pub fn new(limits: Limits, rules: NamingRules) -> Self {
        Self {
            limits,
            queue: Queue::new(limits.per_origin, limits.processes),
            chains: Chains::new(rules),
            restoring: limits.mode == RestoreMode::Eager,
            ..Self::default()
        }
    }

    /// Starts every enabled proxy, whatever [`Limits::mode`] says, with the next comparison.
    pub fn restore_all(&mut self, now: Duration) {
        self.limits.mode = RestoreMode::Eager;
        self.restoring = true;
        self.next_look = now;
    }

    /// Applies other limits; mode and jitter stay.
    pub fn set_limits(&mut self, limits: Limits, now: Duration) {
        self.limits = Limits { mode: self.limits.mode, seed: self.limits.seed, ..limits };
        self.queue.set_places(limits.per_origin, limits.processes);
        self.look_by(now);
    }

    /// When to compare intent with the server.
    pub fn wake_to_look(&self) -> Duration {
        self.next_look
    }

    /// When there may be something to start if no event comes before.
    pub fn wake_to_start(&self) -> Duration {
        if !self.actions.is_empty() || !self.touched.is_empty() {
            return Duration::ZERO;
        }
        let start = self.queue.wake().map_or(Duration::MAX, |at| at.max(self.next_start));
        let settled = self.settling.front().map_or(Duration::MAX, |(at, ..)| *at);
        let silent = self.awaited.front().map_or(Duration::MAX, |(until, _)| *until);
        let alarm = self.alarms.first().map_or(Duration::MAX, |(at, _)| *at);
        start.min(settled).min(silent).min(alarm).min(self.well_at().unwrap_or(Duration::MAX))
    }

    /// When this start will have gone well, if that was not yet handled.
    fn well_at(&self) -> Option<Duration> {
        self.meter.ended().filter(|_| self.is_restored() && !self.has_released).map(|ended| ended + WELL)
    }

    /// Reserves memory for the proxies that are started automatically; returns their number.
    pub fn expect(&mut self, wanted: usize) -> usize {
        let count = if self.limits.mode == RestoreMode::Eager { wanted } else { 0 };
        self.proxies.reserve_exact(count);
        count
    }

    /// Begins a comparison.
    pub fn begin_look(&mut self, now: Duration, wall: i64) {
        self.give_up_on_lost_calls(now, wall);
        self.looks += 1;
        self.asking = Some(Duration::ZERO);
        if self.restoring {
            // If another comparison is running, this one takes over.
            self.proxies.values_mut().for_each(|proxy| proxy.part = None);
            self.meter.begin(now);
        }
    }

    /// Compares some of intent with what the server does, which was asked for at `asked` and answered at `now`.
    pub fn compare(
        &mut self,
        some: impl IntoIterator<Item = (Wanted, Option<Listed>)>,
        asked: Duration,
        now: Duration,
        wall: i64,
    ) {
        let Some(asking) = &mut self.asking else { return };
        *asking += now.saturating_sub(asked);
        for (want, there) in some {
            self.compare_one(want, there.as_ref(), asked, now, wall);
        }
    }

    /// Ends a comparison: proxies that were not compared are no longer enabled.
    pub fn end_look(&mut self, now: Duration) {
        let Some(asking) = self.asking.take() else { return };
        self.restoring = false;
        let unwanted: Vec<ProxyKey> = self
            .proxies
            .iter()
            .filter(|(_, proxy)| proxy.look != self.looks)
            .map(|(key, _)| key.clone())
            .collect();
        for key in unwanted {
            self.drop_proxy(&key);
        }
        self.stale.retain(|key, _| self.proxies.contains_key(key));
        self.stale.shrink_to_fit();
        self.settle_circles();
        self.meter.note(now);

        self.soonest_look = now + LOOK_AT_MOST.max(asking * LOOK_SHARE);
        let revive = self.limits.revive;
        let usual = if revive.is_zero() { LOOK_AT_LEAST } else { revive.clamp(LOOK_AT_MOST, LOOK_AT_LEAST) };
        self.next_look = (now + self.jittered(usual, self.looks)).max(self.soonest_look);
        let next_try = |proxy: &Proxy| match proxy.phase {
            Phase::Down { not_before, blocked: false, .. } => Some(not_before),
            _ => None,
        };
        if let Some(at) = self.proxies.values().filter_map(next_try).min().filter(|_| !revive.is_zero()) {
            self.look_by(at);
        }
    }

    fn compare_one(&mut self, want: Wanted, there: Option<&Listed>, asked: Duration, now: Duration, wall: i64) {
        let restoring = self.restoring;
        let (key, seq) = (want.key.clone(), want.seq);
        let is_stale = there.is_some() && self.stale.contains_key(&key);
        let news = self.news(&want, there);
        let is_known = self.proxies.get(&key).is_some_and(|proxy| proxy.seq == seq);
        if !is_known {
            let past = self.drop_proxy(&key);
            let has_its_turn = self.limits.mode == RestoreMode::Eager;
            if there.is_none() && (!has_its_turn || !self.is_bearable(&want)) {
                return;
            }
            let not_before = if is_stale { now } else { now + self.pause(&key, 0) };
            self.know(want, past, now, not_before);
        }
        let Some(proxy) = self.proxies.get_mut(&key) else { return };
        proxy.look = self.looks;
        let phase = proxy.phase;
        // What was listed is older than what we know, or the answer to the add will tell.
        let is_late = is_known && (proxy.changed >= asked || matches!(phase, Phase::Connecting { .. }));
        let is_asked_for = !is_late && std::mem::take(&mut proxy.is_asked_for);
        if restoring {
            self.count(&key);
        }
        match (phase, there) {
            _ if is_late && !restoring => {}
            (Phase::Down { .. }, _) if is_late => self.enqueue(&key, true),
            (Phase::Connected | Phase::Playing | Phase::Retrying { .. }, _) if is_late => self.is_here(&key),
            (Phase::Waiting { .. }, _) if is_late => {}
            // Late, too: its answer will tell the rest.
            (Phase::Connecting { .. }, _) => {
                self.counts_as_started(&key);
            }
            (_, None) if restoring => self.enqueue(&key, true),
            // It has to be changed: that the server has it means nothing.
            (Phase::Waiting { .. }, _) if is_stale => {}
            (Phase::Down { not_before, .. }, _) if is_stale && !restoring && now < not_before => {}
            (_, Some(_)) if is_stale => self.enqueue(&key, true),
            (_, Some(Listed::Playing)) => self.plays(&key, wall),
            (_, Some(Listed::Connecting)) => {
                self.is_here(&key);
                self.move_to(&key, Phase::Connected);
            }
            (_, Some(Listed::Retrying { failures, .. })) => {
                self.is_here(&key);
                self.retries(&key, *failures, news, wall);
            }
            (Phase::Connected | Phase::Playing | Phase::Retrying { .. }, None) => {
                self.fails(&key, "the server gave it up or lost it".to_owned(), false, now, wall);
            }
            (Phase::Down { not_before, .. }, None) => {
                if is_asked_for || now >= not_before && !self.limits.revive.is_zero() {
                    self.enqueue(&key, true);
                }
            }
            (Phase::Waiting { .. }, None) => {}
        }
    }

    /// The next action, if there is one now.
    pub fn next(&mut self, now: Duration) -> Option<Action> {
        self.settle_urls(now);
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        while self.awaited.front().is_some_and(|(until, _)| *until <= now)
            && let Some((_, key)) = self.awaited.pop_front()
        {
            self.sends_nothing(&key, now);
            give_back(&mut self.awaited);
        }
        if self.settling.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, call, key, seq)) = self.settling.pop_front()
        {
            self.queue.over(call);
            if let Some(proxy) = self.proxies.get_mut(&key).filter(|proxy| proxy.seq == seq) {
                proxy.crashes = 0;
            }
            return Some(Action::Acquit { key, seq });
        }
        if self.well_at().is_some_and(|at| at <= now) {
            self.has_released = true;
            return Some(Action::Release { crashes: MOST_CRASHES - 1 });
        }
        if now < self.next_start {
            return None;
        }
        let call = self.last_call + 1;
        let mut key = self.queue.pop(call, now)?;
        while let Some(circle) = self.chains.circle(&key).map(str::to_owned) {
            self.queue.answered(call);
            self.queue.over(call);
            self.waits_for(&key, circle, now);
            key = self.queue.pop(call, now)?;
        }
        let proxy = self.proxies.get_mut(&key)?;
        let (seq, Phase::Waiting { rank }) = (proxy.seq, proxy.phase) else { return None };
        let url = proxy.urls.as_mut().map(|urls| {
            urls.tells();
            urls.url().to_owned()
        });
        let existing = self.stale.remove(&key).unwrap_or(Existing::Keep);
        // A change in place has lost nothing, and nobody asked for it.
        if !self.counts_as_started(&key) && existing != Existing::Update {
            let Progress { revived, asked, .. } = &mut self.meter.progress;
            *(if rank.nobody_waits { revived } else { asked }) += 1;
        }
        self.last_call = call;
        self.calls.insert(call, Call { key: key.clone(), since: now, existing });
        self.move_to(&key, Phase::Connecting { call });
        let usual = Duration::from_secs(1) / u32::try_from(self.limits.per_second).unwrap_or(u32::MAX).max(1);
        self.next_start = self.next_start.max(now.saturating_sub(CATCH_UP)) + self.jittered(usual, call);
        Some(Action::Start { call, key, seq, existing, url })
    }

    /// Logs new proxy loops, and starts proxies that are no longer in one.
    fn settle_circles(&mut self) {
        let (closed, opened) = self.chains.news();
        for (key, circle) in closed {
            log::warn!("journal: {} {}: {circle}. None of them is started", key.0.name(), key.1);
            if let Some(proxy) = self.proxies.get_mut(&key) {
                proxy.last_error = Some(circle.into());
            }
        }
        for key in opened {
            if self.proxies.get(&key).is_some_and(|proxy| matches!(proxy.phase, Phase::Down { .. })) {
                self.enqueue(&key, true);
            }
        }
    }

    /// What the server has is not what is wanted. What has to be replaced is not changed in place instead.
    fn mark_stale(&mut self, key: &ProxyKey, existing: Existing) {
        if existing != Existing::Keep {
            let its = self.stale.entry(key.clone()).or_insert(existing);
            *its = existing.max(*its);
        }
    }

    // ---- time

    pub fn given_up(&mut self) {
        self.meter.progress.given_up += 1;
    }

    /// Compares at `at` at the latest, unless that was just done.
    pub fn look_by(&mut self, at: Duration) {
        self.next_look = self.next_look.min(at.max(self.soonest_look));
    }

    /// The pause after so many consecutive failures.
    fn pause(&self, key: &ProxyKey, failures: u32) -> Duration {
        let pause = self.limits.revive.saturating_mul(1 << failures.min(20)).min(LONGEST_BACKOFF);
        self.jittered(pause, (key, failures)).min(LONGEST_BACKOFF)
    }

    /// Up to a fifth more or less, so that servers that were restarted together do not act in step.
    fn jittered(&self, duration: Duration, of: impl Hash) -> Duration {
        jittered(self.limits.seed, duration, of)
    }
}

fn jittered(seed: u64, duration: Duration, of: impl Hash) -> Duration {
    let mut hasher = DefaultHasher::new();
    (seed, of).hash(&mut hasher);
    duration / 1000 * (800 + (hasher.finish() % 401) as u32)
}

#[cfg(test)]
mod tests;
