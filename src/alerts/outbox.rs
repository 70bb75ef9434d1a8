//! The alerts that wait to be sent: how many in one call, when, and what is dropped. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::alert::Alert;

/// The most that wait; the oldest are dropped. A receiver that is off for an hour costs alerts, and nothing else.
pub const MOST_WAITING: usize = 10_000;
/// The most in one call.
pub const MOST_TOGETHER: usize = 100;
/// The shortest pause between two calls, and after a call that failed, when it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Outbox {
    waiting: VecDeque<Alert>,
    not_before: Duration,
    /// Calls that have failed in a row.
    failures: u32,
}

impl Outbox {
    /// Returns how many were dropped for these.
    pub fn put(&mut self, alerts: impl IntoIterator<Item = Alert>) -> usize {
        self.waiting.extend(alerts);
        let dropped = self.waiting.len().saturating_sub(MOST_WAITING);
        self.waiting.drain(..dropped);
        dropped
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the next call may be made; `None` if nothing waits.
    pub fn wake(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(self.not_before)
    }

    /// The alerts of the next call, if there is one now. They stay until [`Outbox::sent`].
    pub fn next(&self, now: Duration) -> Option<Vec<&Alert>> {
        let is_time = self.wake().is_some_and(|at| at <= now);
        is_time.then(|| self.waiting.iter().take(MOST_TOGETHER).collect())
    }

    /// The first `count` have arrived.
    pub fn sent(&mut self, count: usize, now: Duration) {
        self.waiting.drain(..count.min(self.waiting.len()));
        (self.failures, self.not_before) = (0, now + PAUSE);
    }

    /// The last call has failed.
    pub fn failed(&mut self, now: Duration) {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        (self.failures, self.not_before) = (self.failures + 1, now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::super::alert::Event;
    use super::*;

    fn alerts(from: i64, count: i64) -> impl Iterator<Item = Alert> {
        (from..from + count).map(|at| Alert::of(Event::StorageOk, None, at, at))
    }

    fn sec(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn they_go_in_calls_of_many_one_a_second() {
        let mut outbox = Outbox::default();
        assert_eq!((outbox.wake(), outbox.next(sec(5)).is_none()), (None, true));
        outbox.put(alerts(0, 150));
        assert_eq!(outbox.next(sec(5)).unwrap().len(), MOST_TOGETHER);
        outbox.sent(MOST_TOGETHER, sec(5));
        assert!(outbox.next(sec(5)).is_none());
        let rest = outbox.next(sec(6)).unwrap();
        assert_eq!((rest.len(), rest[0].at), (50, 100));
        outbox.sent(50, sec(6));
        assert_eq!(outbox.wake(), None);
    }

    #[test]
    fn a_receiver_that_fails_is_called_with_growing_pauses_and_costs_the_oldest_alerts() {
        let mut outbox = Outbox::default();
        outbox.put(alerts(0, 1));
        let mut now = Duration::ZERO;
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                outbox.failed(now);
                let pause = outbox.wake().unwrap() - now;
                now += pause;
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(outbox.put(alerts(1, MOST_WAITING as i64 + 1)), 2);
        assert_eq!((outbox.len(), outbox.next(now).unwrap()[0].at), (MOST_WAITING, 2));
        outbox.sent(1, now);
        outbox.failed(now);
        assert_eq!(outbox.wake().unwrap() - now, PAUSE, "it has worked in between");
    }
}
