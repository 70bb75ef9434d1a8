//! The plan as operators see it.

use crate::model::ProxyKey;
use std::cmp::Reverse;
use std::time::Duration;

use super::{
    Kind, Meter, PLAYED, Phase, PhaseCounts, Plan, Progress, Proxy, SourceReport, Unhealthy, UnhealthyProxy,
};

impl Plan {
    pub fn progress(&self) -> &Progress {
        &self.meter.progress
    }

    /// The restore as a whole.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The hosts with the most failures in the restore, the worst first.
    pub fn worst(&self, most: usize) -> Vec<SourceReport> {
        self.meter.worst(most, |remote_host| self.queue.host(remote_host))
    }

    /// Whether every proxy of the restore has a result.
    pub fn is_restored(&self) -> bool {
        let has_looked = self.looks > u64::from(self.asking.is_some());
        has_looked && !self.restoring && self.meter.progress.is_finished()
    }

    pub fn census(&self) -> PhaseCounts {
        self.census
    }

    /// The counts of one kind.
    pub fn census_of(&self, kind: Kind) -> PhaseCounts {
        let mut census = PhaseCounts::default();
        for (_, proxy) in self.proxies.iter().filter(|((its, _), _)| *its == kind) {
            *census.of(&proxy.phase) += 1;
        }
        census
    }

    pub fn eta(&self, now: Duration) -> Option<Duration> {
        self.meter.eta(now).filter(|_| !self.restoring)
    }

    /// The proxies that do not play.
    pub fn troubles(&self) -> impl Iterator<Item = Unhealthy<'_>> {
        let troubled = self.proxies.iter().filter(|(_, proxy)| proxy.phase != Phase::Playing);
        troubled.map(|(key, proxy)| proxy.unhealthy(key))
    }

    /// The proxies that do not play, those with the most attempts first; or only the one of this key.
    pub fn unhealthy(&self, only: Option<&str>, most: usize, now: Duration) -> Vec<UnhealthyProxy> {
        if most == 0 && only.is_none() {
            return Vec::new();
        }
        let mut found: Vec<_> = self
            .proxies
            .iter()
            .filter(|((_, key), proxy)| only.map_or(proxy.phase != Phase::Playing, |only| only == key.as_ref()))
            .collect();
        let worst = |(_, proxy): &(&ProxyKey, &Proxy)| (Reverse(proxy.attempts()), proxy.seq);
        if found.len() > most {
            // With 100,000 proxies, only those that are shown are sorted.
            found.select_nth_unstable_by_key(most, worst);
            found.truncate(most);
        }
        found.sort_by_key(worst);
        found.into_iter().map(|(key, proxy)| proxy.shown(key, now)).collect()
    }

    /// Each of these, if it is known, whether it plays or not.
    pub fn shown<'a>(
        &self,
        keys: impl Iterator<Item = &'a ProxyKey>,
        now: Duration,
    ) -> Vec<Option<UnhealthyProxy>> {
        keys.map(|key| self.proxies.get(key).map(|proxy| proxy.shown(key, now))).collect()
    }

    /// The changes of the proxies that do not play, and when each last played (0: never).
    pub fn dark(&self) -> impl Iterator<Item = (u64, i64)> {
        self.proxies.values().filter_map(|proxy| match proxy.phase {
            Phase::Playing => None,
            _ => Some((proxy.seq, proxy.last_played)).filter(|(_, last_played)| *last_played != PLAYED),
        })
    }
}
