//! Events between two comparisons: a proxy is added, asked for or released, or its input stream comes or goes.

use crate::model::{Existing, ProxyKey};
use std::time::Duration;

use super::{ASKED_AGAIN, Phase, Plan, Proxy, Wanted};
use crate::settings::RestoreMode;

impl Plan {
    /// A player waits for a proxy: it is tried before all others, unless it has just failed.
    pub fn ask_for(&mut self, want: Wanted, now: Duration) {
        let key = want.key.clone();
        match self.proxies.get(&key).filter(|proxy| proxy.seq == want.seq).map(|proxy| proxy.phase) {
            None => {
                let past = self.drop_proxy(&key);
                if self.is_bearable(&want) {
                    self.know(want, past, now, now);
                    self.enqueue(&key, false);
                }
            }
            Some(Phase::Waiting { .. }) => self.enqueue(&key, false),
            Some(Phase::Down { since, .. }) if now >= since + ASKED_AGAIN => self.enqueue(&key, false),
            // The server seems to have lost it.
            Some(Phase::Playing) => {
                self.look_anew(&key, now);
                self.look_by(now);
            }
            Some(Phase::Down { .. } | Phase::Connecting { .. } | Phase::Connected | Phase::Retrying { .. }) => {}
        }
    }

    /// An operator starts a proxy: as if a player waited for it, but also if it has failed a moment ago.
    pub fn start_now(&mut self, want: Wanted, now: Duration) {
        let known = self.proxies.get(&want.key).filter(|proxy| proxy.seq == want.seq);
        // One of unknown state that has not failed may play: see look_anew.
        let has_failed = |proxy: &Proxy| matches!(proxy.phase, Phase::Down { .. }) && proxy.last_error.is_some();
        if known.is_some_and(has_failed) {
            return self.enqueue(&want.key, false);
        }
        let key = want.key.clone();
        self.ask_for(want, now);
        if let Some(proxy) = self.proxies.get_mut(&key).filter(|proxy| matches!(proxy.phase, Phase::Down { .. })) {
            proxy.is_asked_for = true;
            self.look_by(now);
        }
    }

    /// A quarantined proxy was released.
    pub fn released(&mut self, want: Wanted, now: Duration) {
        if self.limits.mode == RestoreMode::Eager {
            self.ask_for(want, now);
        }
    }

    /// The hours of a proxy have begun: it is started in its turn.
    pub fn hours_began(&mut self, want: Wanted, now: Duration) {
        let key = want.key.clone();
        let is_known = self.proxies.get(&key).is_some_and(|proxy| proxy.seq == want.seq);
        if self.limits.mode == RestoreMode::Eager && !is_known && self.is_bearable(&want) {
            let past = self.drop_proxy(&key);
            self.know(want, past, now, now);
            self.enqueue(&key, true);
        }
    }

    /// A client's add has succeeded: the proxy has run since the start, so it is kept running in every mode.
    pub fn called_for(&mut self, want: Wanted, now: Duration) {
        let key = want.key.clone();
        if self.proxies.get(&key).is_none_or(|proxy| proxy.seq != want.seq) {
            self.drop_proxy(&key);
            let not_before = now + self.pause(&key, 0);
            // The client has told the server which URL to use.
            self.know(want, None, now, not_before);
        }
    }

    /// The stream that a proxy takes from this server was registered: it can be started.
    pub fn source_came(&mut self, want: Wanted, now: Duration) {
        let key = want.key.clone();
        let known = self.proxies.get_mut(&key).filter(|proxy| proxy.seq == want.seq);
        let phase = known.map(|proxy| {
            proxy.stream_changed = Some(now);
            proxy.phase
        });
        match phase {
            None if self.limits.mode == RestoreMode::Off => {}
            None => self.ask_for(want, now),
            Some(Phase::Down { .. }) => self.enqueue(&key, true),
            // It took the previous stream, and ends with that.
            Some(Phase::Connected | Phase::Playing | Phase::Retrying { .. }) => self.look_anew(&key, now),
            Some(Phase::Waiting { .. } | Phase::Connecting { .. }) => {}
        }
    }

    /// The stream that a proxy takes from this server has ended: the proxy ends too, and waits for it.
    pub fn source_gone(&mut self, key: &ProxyKey, now: Duration) {
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        proxy.stream_changed = Some(now);
        if !matches!(proxy.phase, Phase::Waiting { .. } | Phase::Connecting { .. }) {
            proxy.changed = now;
            self.waits_for(key, "the stream that it takes is gone".to_owned(), now);
        }
    }

    /// Starts it at once, whatever its phase.
    pub fn put_back(&mut self, want: Wanted, existing: Existing, now: Duration) {
        self.mark_stale(&want.key, existing);
        let past = self.drop_proxy(&want.key);
        if self.is_bearable(&want) {
            let key = want.key.clone();
            self.know(want, past, now, now);
            self.enqueue(&key, false);
        }
    }
}
