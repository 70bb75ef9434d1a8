//! Pulls with several URLs: when one goes to the next, and back to the first.

use std::time::Duration;

use super::{Action, Existing, Phase, Plan};
use crate::model::{ProxyKey, redact_value};
use crate::reconcile::urls::{Due, FIRST_PROBE};

impl Plan {
    /// The number of pulls that play from a backup URL, or did so last.
    pub fn on_backup(&self) -> usize {
        self.proxies.values().filter_map(|proxy| proxy.urls.as_ref()).filter(|urls| urls.is_on_backup()).count()
    }

    /// The journal has noted the URL of this proxy, as change `seq`.
    pub fn noted(&mut self, key: &ProxyKey, before: u64, seq: u64) {
        if let Some(proxy) = self.proxies.get_mut(key).filter(|proxy| proxy.seq == before) {
            proxy.seq = seq;
        }
    }

    /// The answer to a probe.
    pub fn probed(&mut self, ticket: u64, answers: bool, now: Duration) {
        let Some(key) = self.probes.remove(&ticket) else { return };
        let (seed, of) = (self.limits.seed, (&key, ticket));
        let Some(urls) = self.proxies.get_mut(&key).and_then(|proxy| proxy.urls.as_mut()) else { return };
        let jittered = |pause| super::jittered(seed, pause, of);
        if let Some(time) = urls.answered(answers, now, jittered) {
            let why = format!("{} has answered for {} s", redact_value(urls.first()), time.as_secs());
            let existing = urls.goes_back(now, why);
            self.tries_url(&key, existing, now);
        } else {
            self.moved.push(key);
        }
    }

    /// Handles what has changed, and what is due.
    pub(super) fn settle_urls(&mut self, now: Duration) {
        for key in std::mem::take(&mut self.moved) {
            self.settle_url(&key, now);
        }
        while let Some((at, key)) = self.alarms.first().filter(|(at, _)| *at <= now).cloned() {
            self.alarms.remove(&(at, key.clone()));
            self.settle_url(&key, now);
        }
    }

    fn settle_url(&mut self, key: &ProxyKey, now: Duration) {
        let (patience, first_probe) = (self.limits.failover, self.jittered(FIRST_PROBE, key));
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        let Some(urls) = &mut proxy.urls else { return };
        match proxy.phase {
            Phase::Playing => {
                if let Some(why) = urls.plays(now, first_probe) {
                    let why = why.to_owned();
                    let (url, is_first) = (urls.url().to_owned(), !urls.is_on_backup());
                    self.meter.progress.moved += 1;
                    self.actions.push_back(Action::Moved { key: key.clone(), seq: proxy.seq, url, is_first, why });
                }
            }
            // Its turn has not come.
            Phase::Waiting { .. } => {}
            Phase::Connecting { .. } | Phase::Connected | Phase::Retrying { .. } | Phase::Down { .. } => {
                urls.fails(now);
            }
        }
        match urls.due(now, patience) {
            Some(Due::Next) => {
                let failed = urls.failed_for(now).as_secs();
                let error = proxy.last_error.as_deref().unwrap_or("no media");
                let why = format!("{} has failed for {failed} s: {error}", redact_value(urls.url()));
                let existing = urls.goes_on(now, why);
                self.tries_url(key, existing, now);
                return;
            }
            Some(Due::Probe) => {
                urls.asks();
                self.last_probe += 1;
                self.probes.insert(self.last_probe, key.clone());
                self.actions.push_back(Action::Probe { ticket: self.last_probe, url: urls.first().to_owned() });
            }
            None => {}
        }
        let alarm = urls.wake(patience);
        let before = std::mem::replace(&mut urls.alarm, alarm);
        if before != alarm
            && let Some(before) = before
        {
            self.alarms.remove(&(before, key.clone()));
        }
        if let Some(alarm) = alarm {
            self.alarms.insert((alarm, key.clone()));
        }
    }

    /// It is started from the URL that it uses now.
    fn tries_url(&mut self, key: &ProxyKey, existing: Existing, now: Duration) {
        // Takes it out of the queue of its former host.
        self.move_to(key, Phase::Down { since: now, not_before: now, blocked: false });
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        let Some(urls) = &proxy.urls else { return };
        (proxy.changed, proxy.failures) = (now, 0);
        proxy.remote_host = urls.host().unwrap_or(proxy.remote_host);
        self.chains.redirect(key, urls.url());
        self.is_stale(key, existing);
        self.enqueue(key, true);
    }
}
