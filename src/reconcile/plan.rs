//! The plan: given intent, what the server lists, the clock and what was tried so far, which proxies to start
//! next. Pure: no threads, no clock of its own, no host. Times are durations since the reconciler started.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Added;
use crate::record::Kind;

pub type Key = (Kind, Arc<str>);

/// The longest pause between two attempts at one proxy.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(30 * 60);
/// An add that was not answered for this long counts as failed.
const LOST: Duration = Duration::from_secs(120);

/// How far the reconciler is. The numbers are of proxies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Wanted when the first pass began.
    pub total: usize,
    /// Of these, found listed already.
    pub present: usize,
    /// Handed to the server.
    pub started: usize,
    /// Answered: plays.
    pub live: usize,
    /// Answered: the first connect failed, or the server refused. MediaServer keeps trying those it has kept.
    pub failing: usize,
    /// Given up because someone deleted or replaced it meanwhile.
    pub unwanted: usize,
    /// Not started yet.
    pub waiting: usize,
    /// Started and not answered yet.
    pub connecting: usize,
    /// Every proxy of the first pass is answered for.
    pub finished: bool,
    /// Adds after the first pass, of what had failed in it and was then given up by the server.
    pub revived: usize,
}

/// A proxy whose add has failed.
#[derive(Debug, Clone)]
struct Attempt {
    seq: u64,
    failures: u32,
    not_before: Duration,
}

struct InFlight {
    key: Key,
    seq: u64,
    since: Duration,
    first_pass: bool,
}

pub struct Plan {
    /// First pause after a failed add; zero: one attempt, never another.
    revive: Duration,
    due: VecDeque<(Key, u64)>,
    in_flight: BTreeMap<u64, InFlight>,
    attempts: BTreeMap<Key, Attempt>,
    progress: Progress,
    passes: usize,
}

impl Plan {
    pub fn new(revive: Duration) -> Self {
        Self {
            revive,
            due: VecDeque::new(),
            in_flight: BTreeMap::new(),
            attempts: BTreeMap::new(),
            progress: Progress::default(),
            passes: 0,
        }
    }

    /// Begins a pass: what of `wanted` (key and change number, in the order to start them) is not in `actual` is due.
    /// After the first pass only what has failed is, and only when it has waited long enough: of a proxy that has
    /// played since the start nobody knows yet why it is gone, it may have been closed for lack of viewers.
    pub fn observe(&mut self, wanted: Vec<(Key, u64)>, actual: &HashSet<Key>, now: Duration) {
        let lost: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, call)| now.saturating_sub(call.since) >= LOST)
            .map(|(call, _)| *call)
            .collect();
        for call in lost {
            self.answered(call, &Added::Failed("no answer".to_owned()), now);
        }
        let in_flight: BTreeSet<&Key> = self.in_flight.values().map(|call| &call.key).collect();
        let first = self.passes == 0;
        if first {
            self.progress.total = wanted.len();
        } else {
            // A proxy that was deleted or replaced has no failures any more.
            let now_wanted: BTreeMap<&Key, u64> = wanted.iter().map(|(key, seq)| (key, *seq)).collect();
            self.attempts.retain(|key, attempt| now_wanted.get(key) == Some(&attempt.seq));
        }
        self.due.clear();
        for (key, seq) in wanted {
            if actual.contains(&key) {
                self.progress.present += usize::from(first);
                continue;
            }
            let its_turn = match self.attempts.get(&key) {
                Some(attempt) => attempt.not_before <= now,
                None => first,
            };
            if its_turn && !in_flight.contains(&key) {
                self.due.push_back((key, seq));
            }
        }
        self.passes += 1;
    }

    /// True while another pass could find something to do.
    pub fn is_unsettled(&self) -> bool {
        self.passes == 0 || !self.attempts.is_empty() || !self.in_flight.is_empty()
    }

    /// The next proxy to start.
    pub fn next(&mut self) -> Option<(Key, u64)> {
        self.due.pop_front()
    }

    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Say that `key` was handed to the server as call `call`.
    pub fn started(&mut self, call: u64, key: Key, seq: u64, now: Duration) {
        let first_pass = self.passes == 1;
        if first_pass {
            self.progress.started += 1;
            self.progress.connecting += 1;
        } else {
            self.progress.revived += 1;
        }
        self.in_flight.insert(call, InFlight { key, seq, since: now, first_pass });
    }

    /// Say that a due proxy turned out to be wanted no more before it was started.
    pub fn skipped(&mut self) {
        self.progress.unwanted += usize::from(self.passes == 1);
    }

    /// Takes the answer to call `call`. Answers to calls that are long given up on are ignored.
    pub fn answered(&mut self, call: u64, answer: &Added, now: Duration) {
        let Some(InFlight { key, seq, first_pass, .. }) = self.in_flight.remove(&call) else {
            return;
        };
        let counter = match answer {
            Added::Accepted => {
                self.attempts.remove(&key);
                &mut self.progress.live
            }
            Added::Unwanted => {
                self.attempts.remove(&key);
                &mut self.progress.unwanted
            }
            Added::Failed(_) => {
                let attempt = self.attempts.entry(key).or_insert(Attempt { seq, failures: 0, not_before: now });
                let pause = self.revive.saturating_mul(1 << attempt.failures.min(20));
                attempt.seq = seq;
                attempt.failures += 1;
                attempt.not_before = now + pause.min(LONGEST_BACKOFF);
                &mut self.progress.failing
            }
        };
        if first_pass {
            *counter += 1;
            self.progress.connecting -= 1;
        }
    }

    pub fn progress(&self) -> Progress {
        let waiting = if self.passes == 1 { self.due.len() } else { 0 };
        let finished = self.passes > 0 && waiting + self.progress.connecting == 0;
        Progress { waiting, finished, ..self.progress.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVIVE: Duration = Duration::from_secs(30);

    fn key(name: &str) -> Key {
        (Kind::Pull, name.into())
    }

    fn wanted(names: &[&str]) -> Vec<(Key, u64)> {
        names.iter().zip(1..).map(|(name, seq)| (key(name), seq)).collect()
    }

    fn actual(names: &[&str]) -> HashSet<Key> {
        names.iter().map(|name| key(name)).collect()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_first_pass_starts_what_is_missing_in_order() {
        let mut plan = Plan::new(REVIVE);
        plan.observe(wanted(&["c", "a", "b"]), &actual(&["a"]), secs(0));
        assert_eq!(plan.next(), Some((key("c"), 1)));
        plan.started(7, key("c"), 1, secs(0));
        assert_eq!(plan.next(), Some((key("b"), 3)));
        plan.started(8, key("b"), 3, secs(0));
        assert_eq!(plan.next(), None);
        assert!(!plan.progress().finished);

        plan.answered(7, &Added::Accepted, secs(1));
        plan.answered(8, &Added::Failed("off".into()), secs(10));
        let progress = plan.progress();
        assert_eq!((progress.total, progress.present, progress.live, progress.failing), (3, 1, 1, 1));
        assert!(progress.finished);
    }

    #[test]
    fn what_is_being_started_is_not_started_twice() {
        let mut plan = Plan::new(REVIVE);
        plan.observe(wanted(&["a"]), &actual(&[]), secs(0));
        plan.next();
        plan.started(1, key("a"), 1, secs(0));
        plan.observe(wanted(&["a"]), &actual(&[]), secs(30));
        assert!(!plan.has_due());
        // Its answer never comes: in the end that counts as a failure, and it is tried again.
        plan.observe(wanted(&["a"]), &actual(&[]), secs(200));
        assert!(!plan.has_due());
        plan.observe(wanted(&["a"]), &actual(&[]), secs(300));
        assert!(plan.has_due());
    }

    #[test]
    fn what_fails_and_is_dropped_by_the_server_is_tried_ever_less_often() {
        let mut plan = Plan::new(REVIVE);
        let mut now = secs(0);
        let mut pauses = Vec::new();
        let mut last = None;
        for call in 0..12 {
            // Look every second until it is due.
            while {
                plan.observe(wanted(&["a"]), &actual(&[]), now);
                !plan.has_due()
            } {
                now += secs(1);
            }
            pauses.extend(last.map(|last: Duration| (now - last).as_secs()));
            last = Some(now);
            plan.next();
            plan.started(call, key("a"), 1, now);
            plan.answered(call, &Added::Failed("off".into()), now);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800, 1800, 1800]);
        assert_eq!(plan.progress().revived, 11);
    }

    #[test]
    fn what_has_played_is_not_started_again_when_it_is_gone() {
        let mut plan = Plan::new(REVIVE);
        plan.observe(wanted(&["a"]), &actual(&[]), secs(0));
        plan.next();
        plan.started(1, key("a"), 1, secs(0));
        plan.answered(1, &Added::Failed("off".into()), secs(0));
        assert!(plan.is_unsettled());
        plan.observe(wanted(&["a"]), &actual(&[]), secs(1000));
        plan.next();
        plan.started(2, key("a"), 1, secs(1000));
        plan.answered(2, &Added::Accepted, secs(1000));
        assert!(!plan.is_unsettled());
        plan.observe(wanted(&["a"]), &actual(&[]), secs(5000));
        assert!(!plan.has_due());
    }

    #[test]
    fn a_proxy_that_was_replaced_has_no_failures() {
        let mut plan = Plan::new(REVIVE);
        plan.observe(wanted(&["a"]), &actual(&[]), secs(0));
        plan.next();
        plan.started(1, key("a"), 1, secs(0));
        plan.answered(1, &Added::Failed("off".into()), secs(0));
        plan.observe(vec![(key("a"), 9)], &actual(&["a"]), secs(1000));
        assert!(!plan.is_unsettled());
    }

    #[test]
    fn what_nobody_wants_any_more_is_left_alone() {
        let mut plan = Plan::new(REVIVE);
        plan.observe(wanted(&["a", "b"]), &actual(&[]), secs(0));
        plan.next();
        plan.skipped();
        plan.next();
        plan.started(1, key("b"), 2, secs(0));
        plan.answered(1, &Added::Unwanted, secs(0));
        assert_eq!(plan.progress().unwanted, 2);
        assert!(plan.progress().finished);
        plan.observe(Vec::new(), &actual(&[]), secs(60));
        assert!(!plan.has_due());
    }
}
