//! Counters of commits and errors, for monitoring; the queue is in `Journal::report`. Any thread, without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the histogram of commits, in microseconds.
const BOUNDS: [u64; 13] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

#[derive(Default)]
pub struct Gauges {
    classes: [AtomicU64; BOUNDS.len() + 1],
    commit_micros: AtomicU64,
    changes: AtomicU64,
    errors: AtomicU64,
}

/// A reading of the gauges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The number of commits up to each bound, cumulative; the last has no bound.
    pub commits: Vec<(Option<Duration>, u64)>,
    /// The total duration of all commits.
    pub commit_time: Duration,
    /// The number of changes on disk.
    pub changes: u64,
    /// The number of failed writes, openings and maintenance tasks.
    pub errors: u64,
}

impl Gauges {
    pub fn committed(&self, changes: usize, took: Duration) {
        let class = BOUNDS.iter().position(|bound| micros(took) <= *bound).unwrap_or(BOUNDS.len());
        if let Some(class) = self.classes.get(class) {
            class.fetch_add(1, Relaxed);
        }
        self.commit_micros.fetch_add(micros(took), Relaxed);
        self.changes.fetch_add(changes as u64, Relaxed);
    }

    pub fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub fn read(&self) -> Reading {
        let bounds = BOUNDS.iter().map(|bound| Some(Duration::from_micros(*bound))).chain([None]);
        let mut so_far = 0;
        let commits = bounds.zip(&self.classes).map(|(bound, class)| {
            so_far += class.load(Relaxed);
            (bound, so_far)
        });
        Reading {
            commits: commits.collect(),
            commit_time: Duration::from_micros(self.commit_micros.load(Relaxed)),
            changes: self.changes.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_by_how_long_they_took() {
        let gauges = Gauges::default();
        for (changes, micros) in [(1, 50), (64, 100), (1, 101), (5, 2_000_000)] {
            gauges.committed(changes, Duration::from_micros(micros));
        }
        gauges.failed();
        let reading = gauges.read();
        let counts: Vec<u64> = reading.commits.iter().map(|(_, count)| *count).collect();
        assert_eq!((counts[0], counts[1], counts[12], counts[13]), (2, 3, 3, 4));
        assert_eq!((reading.changes, reading.errors), (71, 1));
        assert_eq!(reading.commit_time, Duration::from_micros(2_000_251));
    }
}
