//! Pulls with several URLs: when one goes to the next, and back to the first.

use std::time::Duration;

use super::{Action, Existing, Phase, Plan};
use crate::model::ProxyKey;
use crate::reconcile::host::UsedUrl;
use crate::reconcile::urls::{Due, FIRST_PROBE};

impl Plan {
    /// The number of pulls that play from a backup URL, or did so last.
    pub fn on_backup(&self) -> usize {
        let of_several = if self.several == 0 { None } else { Some(self.proxies.values()) };
        let urls = of_several.into_iter().flatten().filter_map(|proxy| proxy.urls.as_ref());
        urls.filter(|urls| urls.is_on_backup()).count()
    }

    /// The journal has noted which URL this proxy plays from, as change `seq`; `None`: it could not.
    pub fn noted(&mut self, key: &ProxyKey, before: u64, seq: Option<u64>, now: Duration) {
        let Some(proxy) = self.proxies.get_mut(key).filter(|proxy| proxy.seq == before) else { return };
        proxy.seq = seq.unwrap_or(before);
        if let Some(urls) = &mut proxy.urls {
            urls.ends_note(seq.is_some(), now);
        }
        self.touched.push(key.clone());
    }

    /// The answer to a probe.
    pub fn probed(&mut self, ticket: u64, answers: bool, now: Duration) {
        let Some(key) = self.probes.remove(&ticket) else { return };
        let (seed, of) = (self.limits.seed, (&key, ticket));
        let Some(urls) = self.proxies.get_mut(&key).and_then(|proxy| proxy.urls.as_mut()) else { return };
        match urls.answered(answers, now, |pause| super::jittered(seed, pause, of)) {
            Some(existing) => self.tries_url(&key, existing, now),
            None => self.touched.push(key),
        }
    }

    /// Handles what has changed, and what is due.
    pub(super) fn settle_urls(&mut self, now: Duration) {
        for key in std::mem::take(&mut self.touched) {
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
            Phase::Playing => urls.plays(now, first_probe),
            // Its turn has not come.
            Phase::Waiting { .. } => {}
            // It is not known what it does.
            Phase::Down { .. } if proxy.last_error.is_none() => {}
            Phase::Down { .. } if self.limits.revive.is_zero() => urls.rests(),
            Phase::Connecting { .. } | Phase::Connected | Phase::Retrying { .. } | Phase::Down { .. } => {
                urls.fails(now);
            }
        }
        match urls.due(now, patience) {
            Some(Due::Next) => {
                let existing = urls.goes_on(now, proxy.last_error.as_deref().unwrap_or("no media"));
                self.tries_url(key, existing, now);
                return;
            }
            Some(Due::Note) => {
                let ago = urls.begins_note().map_or(Duration::ZERO, |since| now.saturating_sub(since));
                let (why, error) = urls.why();
                let used = UsedUrl {
                    url: urls.url().to_owned(),
                    number: urls.number(),
                    ago,
                    why: why.to_owned(),
                    error: error.to_owned(),
                };
                self.meter.progress.moved += 1;
                self.actions.push_back(Action::Note { key: key.clone(), seq: proxy.seq, used });
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
        proxy.changed = now;
        proxy.remote_host = urls.host().unwrap_or(proxy.remote_host);
        self.chains.redirect(key, urls.url());
        self.mark_stale(key, existing);
        self.enqueue(key, true);
    }

    /// It has come back by itself from the URL before, while it waited for its turn to be started from the next one.
    pub(super) fn stays_with_url(&mut self, key: &ProxyKey) {
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        let Some(urls) = proxy.urls.as_mut().filter(|_| matches!(proxy.phase, Phase::Waiting { .. })) else {
            return;
        };
        if urls.stays() {
            let (url, host) = (urls.url().to_owned(), urls.host());
            self.stale.remove(key);
            self.chains.redirect(key, &url);
            self.move_to(key, Phase::Connected);
            if let Some((proxy, host)) = self.proxies.get_mut(key).zip(host) {
                proxy.remote_host = host;
            }
        }
    }
}
