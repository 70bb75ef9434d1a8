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

/// So many exceptions running, and so many deaths of the server running in which it was being started, and a proxy is
/// set aside.
pub const MOST_DEATHS: u32 = 3;
/// What was being started when the server died comes last: so many at once, and the next ones when they are answered,
/// or after this long.
const SUSPECTS: (usize, Duration) = (32, Duration::from_secs(2));
/// What was being started in two deaths running is started alone, so that a third one tells.
const PRIME_SUSPECTS: (usize, Duration) = (1, Duration::from_secs(15));

/// A proxy that should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub key: Key,
    /// The change that made it what it is.
    pub seq: u64,
    /// In how many deaths of the server running it was being started.
    pub deaths: u32,
}

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
    /// Set aside: the server died or threw of it again and again.
    pub quarantined: usize,
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
    /// The last so many of these were exceptions.
    throws: u32,
    not_before: Duration,
}

/// Suspects that were started together.
#[derive(Default)]
struct Group {
    started: usize,
    since: Duration,
    unanswered: BTreeSet<u64>,
    /// The proxy that `next` has just named is one of them.
    next: bool,
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
    /// Those of which the server may have died, the least suspect first.
    suspects: VecDeque<Wanted>,
    group: Group,
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
            suspects: VecDeque::new(),
            group: Group::default(),
            in_flight: BTreeMap::new(),
            attempts: BTreeMap::new(),
            progress: Progress::default(),
            passes: 0,
        }
    }

    /// Begins a pass: what of `wanted`, in the order to start them, is not in `actual` is due.
    /// After the first pass only what has failed is, and only when it has waited long enough: of a proxy that has
    /// played since the start nobody knows yet why it is gone, it may have been closed for lack of viewers.
    pub fn observe(&mut self, wanted: Vec<Wanted>, actual: &HashSet<Key>, now: Duration) {
        let lost: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, call)| now.saturating_sub(call.since) >= LOST)
            .map(|(call, _)| *call)
            .collect();
        for call in lost {
            let _ = self.answered(call, &Added::Failed("no answer".to_owned()), now);
        }
        let in_flight: BTreeSet<&Key> = self.in_flight.values().map(|call| &call.key).collect();
        let first = self.passes == 0;
        if first {
            self.progress.total = wanted.len();
        } else {
            // A proxy that was deleted or replaced has no failures any more.
            let now_wanted: BTreeMap<&Key, u64> = wanted.iter().map(|want| (&want.key, want.seq)).collect();
            self.attempts.retain(|key, attempt| now_wanted.get(key) == Some(&attempt.seq));
        }
        self.due.clear();
        self.suspects.clear();
        for Wanted { key, seq, deaths } in wanted {
            if actual.contains(&key) {
                self.progress.present += usize::from(first);
                continue;
            }
            let its_turn = match self.attempts.get(&key) {
                Some(attempt) => attempt.not_before <= now,
                None => first,
            };
            if !its_turn || in_flight.contains(&key) {
                continue;
            }
            if deaths == 0 {
                self.due.push_back((key, seq));
            } else {
                self.suspects.push_back(Wanted { key, seq, deaths });
            }
        }
        self.suspects.make_contiguous().sort_by_key(|suspect| suspect.deaths);
        self.passes += 1;
    }

    /// True while another pass could find something to do.
    pub fn is_unsettled(&self) -> bool {
        self.passes == 0 || !self.attempts.is_empty() || !self.in_flight.is_empty()
    }

    /// Has a proxy started, as change `seq` left it, before all others: a call that ended it was undone.
    pub fn want(&mut self, key: Key, seq: u64) {
        self.due.push_front((key, seq));
    }

    /// The next proxy to start now, with its change.
    pub fn next(&mut self, now: Duration) -> Option<(Key, u64)> {
        self.group.next = false;
        if let Some(due) = self.due.pop_front() {
            return Some(due);
        }
        let (most, patience) = if self.suspects.front()?.deaths == 1 { SUSPECTS } else { PRIME_SUSPECTS };
        if self.group.unanswered.is_empty() || now >= self.group.since + patience {
            self.group = Group { since: now, ..Group::default() };
        } else if self.group.started >= most {
            return None;
        }
        self.group.started += 1;
        self.group.next = true;
        let suspect = self.suspects.pop_front()?;
        Some((suspect.key, suspect.seq))
    }

    pub fn has_due(&self) -> bool {
        !self.due.is_empty() || !self.suspects.is_empty()
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
        if std::mem::take(&mut self.group.next) {
            self.group.unanswered.insert(call);
        }
        self.in_flight.insert(call, InFlight { key, seq, since: now, first_pass });
    }

    /// Say that a due proxy turned out to be wanted no more before it was started.
    pub fn skipped(&mut self) {
        self.progress.unwanted += usize::from(self.passes == 1);
    }

    /// Say that a proxy was set aside.
    pub fn quarantined(&mut self) {
        self.progress.quarantined += 1;
    }

    /// Takes the answer to call `call`, and says whose it was, and whether that proxy should be set aside. Answers to
    /// calls that are long given up on are ignored.
    pub fn answered(&mut self, call: u64, answer: &Added, now: Duration) -> Option<(Key, u64, bool)> {
        self.group.unanswered.remove(&call);
        let InFlight { key, seq, first_pass, .. } = self.in_flight.remove(&call)?;
        let mut unbearable = false;
        let counter = match answer {
            Added::Accepted => {
                self.attempts.remove(&key);
                &mut self.progress.live
            }
            Added::Unwanted => {
                self.attempts.remove(&key);
                &mut self.progress.unwanted
            }
            Added::Failed(_) | Added::Threw(_) => {
                let fresh = Attempt { seq, failures: 0, throws: 0, not_before: now };
                let attempt = self.attempts.entry(key.clone()).or_insert(fresh);
                let pause = self.revive.saturating_mul(1 << attempt.failures.min(20));
                attempt.seq = seq;
                attempt.failures += 1;
                attempt.throws = if matches!(answer, Added::Threw(_)) { attempt.throws + 1 } else { 0 };
                attempt.not_before = now + pause.min(LONGEST_BACKOFF);
                unbearable = attempt.throws >= MOST_DEATHS;
                &mut self.progress.failing
            }
        };
        if first_pass {
            *counter += 1;
            self.progress.connecting -= 1;
        }
        if unbearable {
            self.attempts.remove(&key);
        }
        Some((key, seq, unbearable))
    }

    pub fn progress(&self) -> Progress {
        let waiting = if self.passes == 1 { self.due.len() + self.suspects.len() } else { 0 };
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

    fn wanted(names: &[&str]) -> Vec<Wanted> {
        names.iter().zip(1..).map(|(name, seq)| Wanted { key: key(name), seq, deaths: 0 }).collect()
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
        assert_eq!(plan.next(secs(0)), Some((key("c"), 1)));
        plan.started(7, key("c"), 1, secs(0));
        assert_eq!(plan.next(secs(0)), Some((key("b"), 3)));
        plan.started(8, key("b"), 3, secs(0));
        assert_eq!(plan.next(secs(0)), None);
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
        plan.next(secs(0));
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
            plan.next(secs(0));
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
        plan.next(secs(0));
        plan.started(1, key("a"), 1, secs(0));
        plan.answered(1, &Added::Failed("off".into()), secs(0));
        assert!(plan.is_unsettled());
        plan.observe(wanted(&["a"]), &actual(&[]), secs(1000));
        plan.next(secs(0));
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
        plan.next(secs(0));
        plan.started(1, key("a"), 1, secs(0));
        plan.answered(1, &Added::Failed("off".into()), secs(0));
        plan.observe(vec![Wanted { key: key("a"), seq: 9, deaths: 0 }], &actual(&["a"]), secs(1000));
        assert!(!plan.is_unsettled());
    }

    #[test]
    fn what_nobody_wants_any_more_is_left_alone() {
        let mut plan = Plan::new(REVIVE);
        plan.observe(wanted(&["a", "b"]), &actual(&[]), secs(0));
        plan.next(secs(0));
        plan.skipped();
        plan.next(secs(0));
        plan.started(1, key("b"), 2, secs(0));
        plan.answered(1, &Added::Unwanted, secs(0));
        assert_eq!(plan.progress().unwanted, 2);
        assert!(plan.progress().finished);
        plan.observe(Vec::new(), &actual(&[]), secs(60));
        assert!(!plan.has_due());
    }

    #[test]
    fn suspects_come_last_the_worst_alone() {
        let mut plan = Plan::new(REVIVE);
        let deaths = |seq| if seq == 50 { 2 } else { u32::from(seq <= 40) };
        let all =
            (1..=50).map(|seq| Wanted { key: key(&format!("k{seq:02}")), seq, deaths: deaths(seq) }).collect();
        plan.observe(all, &actual(&[]), secs(0));
        let start = |plan: &mut Plan, now| {
            let mut started = Vec::new();
            while let Some((key, seq)) = plan.next(now) {
                plan.started(seq, key, seq, now);
                started.push(seq);
            }
            started
        };
        // The innocent, and at most 32 of those with one death; none of them answers.
        let first = start(&mut plan, secs(0));
        assert_eq!(first, (41..=49).chain(1..=32).collect::<Vec<_>>());
        assert!(start(&mut plan, secs(1)).is_empty());
        assert_eq!(start(&mut plan, secs(2)), (33..=40).collect::<Vec<_>>());
        for call in 1..=40 {
            plan.answered(call, &Added::Failed("off".into()), secs(3));
        }
        assert_eq!(start(&mut plan, secs(3)), [50]);
        assert!(!plan.has_due());
    }

    #[test]
    fn of_two_that_killed_twice_the_second_waits_for_the_first() {
        let mut plan = Plan::new(REVIVE);
        let two = ["a", "b"].map(|name| Wanted { key: key(name), seq: 1, deaths: 2 });
        plan.observe(two.to_vec(), &actual(&[]), secs(0));
        let (first, seq) = plan.next(secs(0)).unwrap();
        plan.started(1, first, seq, secs(0));
        assert_eq!(plan.next(secs(14)), None);
        plan.answered(1, &Added::Accepted, secs(14));
        assert_eq!(plan.next(secs(14)), Some((key("b"), 1)));
    }

    #[test]
    fn three_exceptions_running_are_enough() {
        let mut plan = Plan::new(REVIVE);
        let answers = ["threw", "threw", "failed", "threw", "threw", "threw"];
        for (call, answer) in (1..).zip(answers) {
            plan.observe(wanted(&["a"]), &actual(&[]), secs(call * 10_000));
            let (key, seq) = plan.next(secs(call * 10_000)).unwrap();
            plan.started(call, key, seq, secs(call * 10_000));
            let answer = if answer == "threw" { Added::Threw("x".into()) } else { Added::Failed("x".into()) };
            let (_, _, unbearable) = plan.answered(call, &answer, secs(call * 10_000)).unwrap();
            assert_eq!(unbearable, call == 6);
        }
        assert!(!plan.is_unsettled());
    }
}
