//! Which proxies are down for long enough to be told, and which of them are up again. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::alert::{Alert, Event};
use crate::model::ProxyKey;
use crate::reconcile::Unhealthy;

#[derive(Default)]
pub struct Watch {
    down: HashMap<ProxyKey, Down>,
}

struct Down {
    since: Duration,
    /// The same by the clock on the wall, in milliseconds since 1970-01-01 UTC.
    since_wall: i64,
    is_told: bool,
    /// The last time that it was found down.
    seen: Duration,
    attempts: u32,
}

impl Watch {
    /// It need not play any more.
    pub fn forget(&mut self, key: &ProxyKey) {
        self.down.remove(key);
    }

    /// All that is down now. Returns what has been down for `after` and was not told, and what was told and is not down
    /// any more.
    pub fn look<'a>(
        &mut self,
        troubles: impl IntoIterator<Item = Unhealthy<'a>>,
        after: Duration,
        now: Duration,
        wall: i64,
    ) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for Unhealthy { key, state, attempts, last_error } in troubles {
            let new = Down { since: now, since_wall: wall, is_told: false, seen: now, attempts };
            let down = match self.down.get_mut(key) {
                Some(down) => down,
                None => self.down.entry(key.clone()).or_insert(new),
            };
            (down.seen, down.attempts) = (now, attempts);
            if !down.is_told && now.saturating_sub(down.since) >= after {
                down.is_told = true;
                let why = if last_error.is_empty() { state } else { last_error }.to_owned();
                let (key, count) = (Some(key.clone()), u64::from(attempts));
                alerts.push(Alert { why, count, ..Alert::of(Event::ProxyDown, key, wall, down.since_wall) });
            }
        }
        for (key, down) in self.down.extract_if(|_, down| down.seen != now) {
            if down.is_told {
                let count = u64::from(down.attempts);
                alerts.push(Alert { count, ..Alert::of(Event::ProxyUp, Some(key), wall, down.since_wall) });
            }
        }
        alerts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    const AFTER: Duration = Duration::from_secs(60);

    fn look(watch: &mut Watch, keys: &[&str], sec: u64) -> Vec<(Event, String, i64)> {
        let keys: Vec<ProxyKey> = keys.iter().map(|key| (Kind::Pull, (*key).into())).collect();
        let last_error = "Connection refused";
        let troubles = keys.iter().map(|key| Unhealthy { key, state: "down", attempts: 3, last_error });
        let alerts = watch.look(troubles, AFTER, Duration::from_secs(sec), sec as i64 * 1000);
        let mut told: Vec<_> = alerts
            .into_iter()
            .map(|alert| (alert.event, alert.proxy.unwrap().1.to_string(), alert.since))
            .collect();
        told.sort_by(|a, b| a.1.cmp(&b.1));
        told
    }

    #[test]
    fn what_is_down_is_told_once_and_when_it_is_up_again() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, &["a", "b"], 10), []);
        assert_eq!(look(&mut watch, &["a", "b"], 69), []);
        assert_eq!(look(&mut watch, &["a"], 70), [(Event::ProxyDown, "a".into(), 10_000)], "b was but a blip");
        assert_eq!(look(&mut watch, &["a", "b"], 140), [], "told once");
        assert_eq!(look(&mut watch, &[], 141), [(Event::ProxyUp, "a".into(), 10_000)]);
        assert_eq!(look(&mut watch, &["a"], 142), [], "from the start");
        assert_eq!(look(&mut watch, &["a"], 202), [(Event::ProxyDown, "a".into(), 142_000)]);
        watch.forget(&(Kind::Pull, "a".into()));
        assert_eq!(look(&mut watch, &[], 203), []);
    }
}
