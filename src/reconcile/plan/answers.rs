//! The results of a call: its answer, the first media, or neither.

use crate::model::ProxyKey;
use std::time::Duration;

use super::{Added, Call, Existing, FIRST_MEDIA, LOST, Listed, Part, Phase, Plan, Proxy, SETTLES, Wanted};
use crate::memory::give_back;

impl Plan {
    /// The proxy of an unanswered call.
    pub fn called(&self, call: u64) -> Option<ProxyKey> {
        self.calls.get(&call).map(|call| call.key.clone())
    }

    /// Handles the answer to a call. Late answers to calls that count as lost are ignored.
    pub fn answered(&mut self, call: u64, answer: Added, now: Duration, wall: i64) {
        self.queue.answered(call);
        let Some(Call { key, since, existing }) = self.calls.remove(&call) else {
            self.queue.over(call);
            return;
        };
        give_back(&mut self.calls);
        // Nothing was tried, so what was to be changed is still there. A pull that was changed and failed is retried.
        let is_untried = matches!(answer, Added::Unwanted | Added::Blocked(_));
        if is_untried || (existing == Existing::Update && matches!(answer, Added::Failed(_) | Added::Threw(_))) {
            self.mark_stale(&key, existing);
        }
        self.settle(call, &key, answer.is_over(), now);
        let its = self.proxies.get_mut(&key).filter(|proxy| proxy.phase == Phase::Connecting { call });
        if let Some(proxy) = its {
            proxy.changed = now;
            let stream_changed = proxy.stream_changed;
            let has_started = |part| part == Part::Started;
            match answer {
                Added::Accepted => self.plays(&key, wall),
                Added::Connected => {
                    if proxy.part == Some(Part::Started) {
                        proxy.part = Some(Part::Connecting);
                        self.awaited.push_back((now + FIRST_MEDIA, key.clone()));
                    }
                    self.move_to(&key, Phase::Connected);
                    // The event of its media may have come before.
                    self.look_by(now);
                }
                Added::Present => {
                    self.counts_as(&key, has_started, |progress| &mut progress.present);
                    self.look_anew(&key, now);
                }
                // It was registered after the host had looked for it.
                Added::Blocked(_) if stream_changed > Some(since) => {
                    self.counts_as(&key, has_started, |progress| &mut progress.blocked);
                    self.enqueue(&key, true);
                }
                Added::Blocked(why) => self.waits_for(&key, why, now),
                Added::Unwanted => drop(self.drop_proxy(&key)),
                Added::Retrying(why) => {
                    proxy.failures += 1;
                    self.retries(&key, 1, Some(why), wall);
                }
                Added::Failed(ref why) | Added::Threw(ref why) => {
                    self.fails(&key, why.clone(), matches!(answer, Added::Threw(_)), now, wall);
                }
            }
        }
        self.meter.note(now);
    }

    /// Handles that a call was answered: a suspect is cleared once the server has survived for a moment longer.
    fn settle(&mut self, call: u64, key: &ProxyKey, is_over: bool, now: Duration) {
        let suspect = self.proxies.get(key).filter(|proxy| is_over && proxy.crashes > 0);
        match suspect.filter(|proxy| proxy.phase == Phase::Connecting { call }).map(|proxy| proxy.seq) {
            Some(seq) => self.settling.push_back((now + SETTLES, call, key.clone(), seq)),
            None => self.queue.over(call),
        }
    }

    /// The media of a connected proxy have arrived, for the first time or again.
    pub fn media_came(&mut self, key: &ProxyKey, now: Duration, wall: i64) {
        self.stays_with_url(key);
        let waits = |proxy: &&mut Proxy| matches!(proxy.phase, Phase::Connected | Phase::Retrying { .. });
        if let Some(proxy) = self.proxies.get_mut(key).filter(waits) {
            proxy.changed = now;
            self.plays(key, wall);
            self.meter.note(now);
        }
    }

    /// The media of a proxy have stopped, and the server reconnects.
    pub fn media_went(&mut self, want: &Wanted, there: &Listed, now: Duration, wall: i64) {
        let news = self.news(want, Some(there));
        let its =
            self.proxies.get_mut(&want.key).filter(|proxy| proxy.seq == want.seq && proxy.phase == Phase::Playing);
        if let (Some(proxy), Listed::Retrying { failures, .. }) = (its, there) {
            proxy.changed = now;
            self.retries(&want.key, *failures, news, wall);
        }
    }

    /// A proxy has connected, but its media did not arrive in time.
    pub(super) fn sends_nothing(&mut self, key: &ProxyKey, now: Duration) {
        if self.counts_as(key, |part| part == Part::Connecting, |progress| &mut progress.connected) {
            self.proxies.entry(key.clone()).and_modify(|proxy| proxy.part = Some(Part::Connected));
            self.meter.note(now);
        }
    }

    pub(super) fn give_up_on_lost_calls(&mut self, now: Duration, wall: i64) {
        let lost = self.calls.iter().filter(|(_, call)| now.saturating_sub(call.since) >= LOST);
        for (call, key, existing) in
            lost.map(|(call, its)| (*call, its.key.clone(), its.existing)).collect::<Vec<_>>()
        {
            // Nobody knows whether what was to be changed is still there.
            self.mark_stale(&key, existing);
            self.answered(call, Added::Failed("the server did not answer".to_owned()), now, wall);
        }
    }
}
