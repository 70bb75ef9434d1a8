//! Which proxies are down for long enough to be told, and which of them are up again. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::{Alert, Event};
use crate::model::ProxyKey;

/// A proxy that should play and does not.
pub struct Trouble {
    pub key: ProxyKey,
    pub why: String,
    /// Consecutive failed attempts.
    pub attempts: u32,
}

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
    /// All that is down now. Returns what has been down for `after` and was not told, and what was told and is not down
    /// any more.
    pub fn look(
        &mut self,
        troubles: impl IntoIterator<Item = Trouble>,
        after: Duration,
        now: Duration,
        wall: i64,
    ) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for Trouble { key, why, attempts } in troubles {
            let down = self.down.entry(key.clone()).or_insert(Down {
                since: now,
                since_wall: wall,
                is_told: false,
                seen: now,
                attempts,
            });
            (down.seen, down.attempts) = (now, attempts);
            if !down.is_told && now.saturating_sub(down.since) >= after {
                down.is_told = true;
                let count = u64::from(attempts);
                alerts.push(Alert { why, count, ..Alert::of(Event::ProxyDown, Some(key), wall, down.since_wall) });
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
        let troubles = keys.iter().map(|key| Trouble {
            key: (Kind::Pull, (*key).into()),
            why: "Connection refused".into(),
            attempts: 3,
        });
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
    }
}
