//! State changes of one proxy, and their counts.

use std::cmp::Reverse;
use std::time::Duration;

use super::{
    Action, BLOCKED_AGAIN, LOOK_AT_MOST, MOST_CRASHES, PLAYED, PROCESSES, Part, Phase, Plan, Progress, Proxy,
    Rank, Wanted,
};
use crate::model::url::host_of;
use crate::model::{ProxyKey, redact_reason};
use crate::reconcile::Listed;
use crate::reconcile::urls::Urls;

impl Plan {
    /// Adds a proxy that the server does not have as far as we know. `past`: what was known of it under another change.
    pub(super) fn know(&mut self, want: Wanted, past: Option<Proxy>, since: Duration, not_before: Duration) {
        let phase = Phase::Down { since, not_before, blocked: false };
        let info = want.key.0.info();
        let args = want.args.read();
        let remote_host = match info.is_process {
            true => PROCESSES,
            false => self.queue.remote_host(args.get(info.connects_to).and_then(host_of)),
        };
        self.chains.add(&want.key, &args);
        let first = args.get(info.connects_to).unwrap_or_default();
        let past = past.and_then(|past| past.urls);
        let urls =
            Urls::of(&want.args, first, |url| self.queue.remote_host(host_of(url))).map(|urls| match &past {
                Some(past) => urls.with_past_of(past),
                None => urls,
            });
        if let Some(past) = &past {
            // Intent knows only of URLs that have played, and the server may have been told of another one.
            self.mark_stale(&want.key, past.change_to(urls.as_ref().map_or(first, |urls| urls.url())));
        }
        if let Some(urls) = &urls {
            self.several += 1;
            self.chains.redirect(&want.key, urls.url());
            self.touched.push(want.key.clone());
        }
        let remote_host = urls.as_ref().and_then(|urls| urls.host()).unwrap_or(remote_host);
        let proxy = Proxy {
            seq: want.seq,
            remote_host,
            crashes: want.crashes,
            phase,
            failures: 0,
            throws: 0,
            last_error: None,
            last_played: want.dark_since.unwrap_or(PLAYED),
            part: None,
            changed: Duration::ZERO,
            stream_changed: None,
            is_asked_for: false,
            look: self.looks,
            urls,
        };
        *self.census.of(&phase) += 1;
        self.proxies.insert(want.key, proxy);
    }

    /// Makes it part of the restore.
    pub(super) fn count(&mut self, key: &ProxyKey) {
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        if proxy.part.replace(Part::Waiting).is_none() {
            self.meter.counts(proxy.remote_host);
            self.meter.progress.waiting += 1;
        }
    }

    /// The restore has nothing to do for it: it already exists.
    pub(super) fn is_here(&mut self, key: &ProxyKey) {
        self.counts_as(key, |part| part == Part::Waiting, |progress| &mut progress.present);
    }

    /// Its call has begun. Returns false if it is not part of the restore, or counts as connected until it plays or fails.
    pub(super) fn counts_as_started(&mut self, key: &ProxyKey) -> bool {
        let part = self.proxies.get_mut(key).and_then(|proxy| proxy.part.as_mut());
        let Some(part) = part.filter(|part| **part != Part::Connected) else { return false };
        let progress = &mut self.meter.progress;
        progress.started += usize::from(*part == Part::Waiting);
        *progress.of(*part) -= 1;
        *part = Part::Started;
        progress.connecting += 1;
        true
    }

    /// Ends the part of a proxy in the restore, if it is one of `from`, and counts it as `to`. Returns whether it was.
    pub(super) fn counts_as(
        &mut self,
        key: &ProxyKey,
        from: impl FnOnce(Part) -> bool,
        to: impl FnOnce(&mut Progress) -> &mut usize,
    ) -> bool {
        let Some(proxy) = self.proxies.get_mut(key) else { return false };
        let Some(part) = proxy.part.take_if(|part| from(*part)) else { return false };
        *self.meter.progress.of(part) -= 1;
        *to(&mut self.meter.progress) += 1;
        true
    }

    /// Also if it had connected without media.
    pub(super) fn has_failed(&mut self, key: &ProxyKey, why: &str) {
        if self.counts_as(key, |part| part != Part::Waiting, |progress| &mut progress.failing)
            && let Some(proxy) = self.proxies.get(key)
        {
            self.meter.failed(proxy.remote_host, why);
        }
    }

    pub(super) fn plays(&mut self, key: &ProxyKey, wall: i64) {
        self.is_here(key);
        self.counts_as(key, |part| part != Part::Waiting, |progress| &mut progress.live);
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        (proxy.failures, proxy.throws, proxy.last_error, proxy.last_played) = (0, 0, None, wall);
        self.move_to(key, Phase::Playing);
    }

    pub(super) fn fails(&mut self, key: &ProxyKey, why: String, threw: bool, now: Duration, wall: i64) {
        let failures = self.proxies.get(key).map_or(0, |proxy| proxy.failures);
        let not_before = now + self.pause(key, failures);
        self.has_failed(key, &why);
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        proxy.failures += 1;
        proxy.throws = if threw { proxy.throws + 1 } else { 0 };
        if proxy.last_played == PLAYED {
            proxy.last_played = wall;
        }
        if proxy.throws >= MOST_CRASHES {
            let seq = proxy.seq;
            self.set_aside(key.clone(), seq, format!("its add threw {MOST_CRASHES} times in a row: {why}"));
            return;
        }
        proxy.last_error = Some(why.into());
        self.move_to(key, Phase::Down { since: now, not_before, blocked: false });
        if !self.limits.revive.is_zero() {
            self.look_by(not_before);
        }
    }

    /// A new error of the server about a proxy, redacted.
    pub(super) fn news(&self, want: &Wanted, there: Option<&Listed>) -> Option<String> {
        let Some(Listed::Retrying { failures, error: Some(error) }) = there else { return None };
        let known = self.proxies.get(&want.key).filter(|proxy| proxy.seq == want.seq).map(|proxy| proxy.phase);
        let is_news = known != Some(Phase::Retrying { failures: *failures });
        is_news.then(|| redact_reason(error, &want.args.read()))
    }

    /// The server has it, and it reconnects by itself.
    pub(super) fn retries(&mut self, key: &ProxyKey, failures: u32, why: Option<String>, wall: i64) {
        self.has_failed(key, why.as_deref().unwrap_or("it connected but sent no media"));
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        if let Some(why) = why {
            proxy.last_error = Some(why.into());
        }
        if proxy.last_played == PLAYED {
            proxy.last_played = wall;
        }
        self.move_to(key, Phase::Retrying { failures });
    }

    /// Something that it needs is missing; this is not a failure.
    pub(super) fn waits_for(&mut self, key: &ProxyKey, why: String, now: Duration) {
        let not_before = now + self.jittered(BLOCKED_AGAIN, (key, now));
        self.counts_as(key, |_| true, |progress| &mut progress.blocked);
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        proxy.last_error = Some(why.into());
        self.move_to(key, Phase::Down { since: now, not_before, blocked: true });
    }

    /// Its state is unknown: it is due if the next comparison does not find it.
    pub(super) fn look_anew(&mut self, key: &ProxyKey, now: Duration) {
        self.move_to(key, Phase::Down { since: now, not_before: now, blocked: false });
        self.look_by(now + LOOK_AT_MOST);
    }

    /// Returns false, and quarantines it, if the server has crashed too often while starting it.
    pub(super) fn is_bearable(&mut self, want: &Wanted) -> bool {
        if want.crashes >= MOST_CRASHES {
            let why = format!("the server crashed {} times while starting it", want.crashes);
            self.set_aside(want.key.clone(), want.seq, why);
        }
        want.crashes < MOST_CRASHES
    }

    pub(super) fn set_aside(&mut self, key: ProxyKey, seq: u64, why: String) {
        self.drop_proxy(&key);
        self.meter.progress.quarantined += 1;
        self.actions.push_back(Action::SetAside { key, seq, why });
    }

    pub(super) fn enqueue(&mut self, key: &ProxyKey, nobody_waits: bool) {
        let Some(proxy) = self.proxies.get(key) else { return };
        let rank =
            Rank { crashes: proxy.crashes, nobody_waits, last_played: Reverse(proxy.last_played), seq: proxy.seq };
        let remote_host = proxy.remote_host;
        self.move_to(key, Phase::Waiting { rank });
        self.queue.push(remote_host, rank, key.clone());
    }

    pub(super) fn drop_proxy(&mut self, key: &ProxyKey) -> Option<Proxy> {
        self.counts_as(key, |_| true, |progress| &mut progress.unwanted);
        let proxy = self.proxies.swap_remove(key)?;
        if let Some(urls) = &proxy.urls {
            self.several -= 1;
            if let Some(at) = urls.alarm {
                self.alarms.remove(&(at, key.clone()));
            }
        }
        self.chains.remove(key);
        *self.census.of(&proxy.phase) -= 1;
        if let Phase::Waiting { rank } = proxy.phase {
            self.queue.remove(proxy.remote_host, rank);
        }
        Some(proxy)
    }

    pub(super) fn move_to(&mut self, key: &ProxyKey, phase: Phase) {
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        *self.census.of(&proxy.phase) -= 1;
        *self.census.of(&phase) += 1;
        if proxy.urls.is_some() {
            self.touched.push(key.clone());
        }
        if let Phase::Waiting { rank } = std::mem::replace(&mut proxy.phase, phase) {
            self.queue.remove(proxy.remote_host, rank);
        }
    }
}
