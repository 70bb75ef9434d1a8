//! What is recorded when MediaServer ends a proxy by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mirror::{OwnEnd, Present};
use super::state::{Doubt, State, Told};
use super::{Capture, GAVE_UP};
use crate::journal::{Call, Cause, Done};
use crate::model::State::Dormant;
use crate::model::{Op, ProxyKey};
use crate::reconcile::Event;
use crate::settings::{OnGiveUp, OnIdleClose};

/// The end of a source is reported at most this long after the end of a push that takes it.
pub(super) const DOUBT: Duration = Duration::from_secs(2);

impl Capture {
    /// Handles an end that nobody asked for.
    pub(super) fn ended_by_itself(&self, state: &mut State, told: &mut Told, key: &ProxyKey, present: &Present) {
        let settings = self.journal.settings();
        match present.own_end(&self.facts()) {
            OwnEnd::Idle => {
                let op = match settings.on_idle_close {
                    OnIdleClose::Forget => Op::Remove,
                    OnIdleClose::Dormant => Op::Set(Dormant),
                };
                self.record_own_end(told, key, op, "closed for lack of viewers");
            }
            // It goes on with the next one.
            OwnEnd::GaveUp
                if self.journal.get(key.0, &key.1).is_some_and(|entry| entry.args.backups().is_some()) => {}
            OwnEnd::GaveUp if settings.on_give_up == OnGiveUp::Forget => match present.taken() {
                None => self.forget_given_up(told, key),
                // MediaServer may end it before it reports the end of its source: wait until it is clear which of the
                // two it was.
                Some(taken) => state.doubts.extend(self.journal.get(key.0, &key.1).map(|entry| Doubt {
                    key: key.clone(),
                    seq: entry.seq,
                    taken: Arc::clone(taken),
                    since: Instant::now(),
                })),
            },
            OwnEnd::GaveUp | OwnEnd::Other => {}
        }
    }

    fn forget_given_up(&self, told: &mut Told, key: &ProxyKey) {
        if self.record_own_end(told, key, Op::Remove, GAVE_UP) {
            told.events.push(Event::GivenUp);
        }
    }

    /// Returns false if the proxy is not enabled.
    fn record_own_end(&self, told: &mut Told, key: &ProxyKey, op: Op, reason: &str) -> bool {
        let is_wanted = self.journal.wants(key.0, &key.1, 0);
        if is_wanted {
            log::info!("journal: {} {}: {reason}", key.0.name(), key.1);
            let cause = Cause { caller: "MediaServer".to_owned(), reason: reason.to_owned() };
            let call = Call { op, kind: key.0, key: &key.1, args: None, already_exists: false, cause };
            told.has_queued = true;
            self.journal.queue(call, Done::new(drop));
        }
        is_wanted
    }

    /// A push whose source still exists after a while has used up its retries.
    pub(super) fn settle_doubts(&self, state: &mut State, told: &mut Told) {
        let is_over = |doubt: &mut Doubt| doubt.since.elapsed() >= DOUBT;
        let over: Vec<Doubt> = state.doubts.extract_if(.., is_over).collect();
        for Doubt { key, seq, .. } in over {
            if self.journal.wants(key.0, &key.1, seq) && state.mirror.get(&key).is_none() {
                self.forget_given_up(told, &key);
            }
        }
    }
}
