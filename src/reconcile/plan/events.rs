//! What comes between two looks at the server: somebody adds or asks for a proxy, one is released, or the stream that one
//! takes comes or goes.

use crate::model::ProxyKey;
use std::time::Duration;

use super::{ASKED_AGAIN, Phase, Plan, Wanted};
use crate::settings::RestoreMode;

impl Plan {
    /// A player waits for a stream that is not there, or an operator asks for it: it is tried before all others.
    pub fn ask_for(&mut self, want: Wanted, now: Duration) {
        let key = want.key.clone();
        match self.proxies.get(&key).filter(|proxy| proxy.seq == want.seq).map(|proxy| proxy.phase) {
            None => {
                self.drop_proxy(&key);
                if self.is_bearable(&want) {
                    self.know(want, now, now);
                    self.enqueue(&key, false);
                }
            }
            Some(Phase::Waiting { .. }) => self.enqueue(&key, false),
            Some(Phase::Down { since, .. }) if now >= since + ASKED_AGAIN => self.enqueue(&key, false),
            // The server does not have it any more, it seems.
            Some(Phase::Playing) => {
                self.look_anew(&key, now);
                self.look_by(now);
            }
            Some(Phase::Down { .. } | Phase::Connecting { .. } | Phase::Connected | Phase::Retrying { .. }) => {}
        }
    }

    /// What was set aside is wanted again.
    pub fn released(&mut self, want: Wanted, now: Duration) {
        if self.limits.mode == RestoreMode::Eager {
            self.ask_for(want, now);
        }
    }

    /// A client has added it and the server has taken it: whatever is started by itself, it has run since the start.
    pub fn called_for(&mut self, want: Wanted, now: Duration) {
        let key = want.key.clone();
        if self.proxies.get(&key).is_none_or(|proxy| proxy.seq != want.seq) {
            self.drop_proxy(&key);
            let not_before = now + self.pause(&key, 0);
            self.know(want, now, not_before);
        }
    }

    /// The stream that a proxy takes from this server is there now: it can be started.
    pub fn source_came(&mut self, want: Wanted, now: Duration) {
        let key = want.key.clone();
        let known = self.proxies.get_mut(&key).filter(|proxy| proxy.seq == want.seq);
        let phase = known.map(|proxy| {
            proxy.source_moved = Some(now);
            proxy.phase
        });
        match phase {
            None if self.limits.mode == RestoreMode::Off => {}
            None => self.ask_for(want, now),
            Some(Phase::Down { .. }) => self.enqueue(&key, true),
            // Then it ran on the stream that was there before, and ends with that.
            Some(Phase::Connected | Phase::Playing | Phase::Retrying { .. }) => self.look_anew(&key, now),
            Some(Phase::Waiting { .. } | Phase::Connecting { .. }) => {}
        }
    }

    /// The stream that a proxy takes from this server is gone: it ends with that, and waits for it.
    pub fn source_gone(&mut self, key: &ProxyKey, now: Duration) {
        let Some(proxy) = self.proxies.get_mut(key) else { return };
        proxy.source_moved = Some(now);
        if !matches!(proxy.phase, Phase::Waiting { .. } | Phase::Connecting { .. }) {
            proxy.changed = now;
            self.waits_for(key, "the stream that it takes is gone".to_owned(), now);
        }
    }

    /// It is started at once, whatever the plan thought of it; with `replace`, what the server has is ended first.
    pub fn put_back(&mut self, want: Wanted, replace: bool, now: Duration) {
        if replace {
            self.stale.insert(want.key.clone());
        }
        self.drop_proxy(&want.key);
        self.ask_for(want, now);
    }
}
