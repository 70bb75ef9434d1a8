//! The reconciler's own calls, and the turns that adds take on a key.

use std::sync::Arc;

use super::Capture;
use super::mirror::{Nature, Present};
use super::state::{Ask, Open, State, Told};
use crate::journal::Cause;
use crate::model::{Existing, ProxyKey};
use crate::reconcile::{self, Add, Added, Event, Listed};

/// What is missing for an add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// An API of the server for its kind.
    Api,
    /// The source that it takes.
    Stream,
    /// The setting that one of its arguments names.
    Setting,
}

impl Lacking {
    fn words(self, add: &Add) -> String {
        let info = add.key.0.info();
        match self {
            Lacking::Api => format!("this MediaServer lacks {} or {}", info.add, info.remove),
            Lacking::Stream => {
                let [schema, vhost, app, stream] = &add.takes;
                format!("the stream that it takes, {schema}/{vhost}/{app}/{stream}, is not there")
            }
            Lacking::Setting => format!(
                "config.ini has no {}, which its argument {} names: put it back, restart the server or call \
                 restoreJournal",
                add.setting,
                info.names_setting.unwrap_or_default()
            ),
        }
    }
}

impl Capture {
    /// Something that an add of ours needs is missing.
    pub fn blocked(&self, id: u64, lacking: Lacking) {
        let why = match self.state.lock().calls.get(&id).map(|open| &open.ask) {
            Some(Ask::Start { add, .. }) => lacking.words(add),
            _ => return,
        };
        self.started(id, Added::Blocked(why));
    }

    /// Whether the server can give running proxies other arguments in place; false before the restore has begun.
    pub fn can_update(&self) -> bool {
        self.server.get().is_some_and(|server| server.can_update())
    }

    /// Whether the server has a proxy that works.
    pub fn has(&self, key: &ProxyKey) -> bool {
        self.state.lock().mirror.working(key).is_some()
    }

    /// A running proxy has been given the arguments of an add of ours, and connects anew.
    pub fn updated(&self, id: u64) {
        self.with_state(|state, told| {
            let Some(mut open) = state.take(id, |ask| matches!(ask, Ask::Start { .. })) else { return };
            let Ask::Start { add, .. } = &open.ask else { return };
            let (add, number) = (Arc::clone(add), state.mirror.next_number());
            open.made = Some(number);
            // One that has other arguments by now gets them next: whoever gave them has told the reconciler.
            let nature = self.ours_is_there(state, told, &add, 0);
            state.mirror.update(&add.key, number, id, nature);
            state.put_back(id, open);
            told.has_changed = true;
            self.release(state, told, id, &add.key);
        });
    }

    /// Our add has made or changed its proxy: that is ended if it is no longer wanted as change `seq` (0: any) left it.
    /// Returns what its arguments say.
    pub(super) fn ours_is_there(&self, state: &mut State, told: &mut Told, add: &Add, seq: u64) -> Nature {
        let (kind, key) = &add.key;
        if !self.journal.is_due(*kind, key, seq) {
            state.end_next(&add.key);
            // If it is wanted with other arguments, it is replaced.
            told.events.push(Event::Converge(add.key.clone(), Existing::Replace));
        }
        let Some(entry) = self.journal.get(*kind, key) else { return Nature::unknown() };
        let (read, connects_to) = (entry.args.read(), kind.info().connects_to);
        let get = |name: &str| if name == connects_to { Some(add.url.as_str()) } else { read.get(name) };
        Nature::of(*kind, get, &self.facts())
    }

    /// The server has answered an add of ours, or dropped it.
    pub fn started(&self, id: u64, outcome: Added) {
        self.with_state(|state, told| {
            let Some(open) = state.take(id, |ask| matches!(ask, Ask::Start { .. })) else { return };
            let Ask::Start { call, add } = &open.ask else { return };
            let key = &add.key;
            let mut its = state.mirror.get_mut(key).filter(|present| Some(present.number) == open.made);
            if let Some(present) = &mut its {
                present.call = None;
            }
            let outcome = match (outcome, its) {
                // A forced pull is answered with success even if its connect failed.
                (Added::Accepted, Some(present)) if present.is_failing() => {
                    Added::Retrying(present.error.as_deref().unwrap_or("it is not playing").to_owned())
                }
                (Added::Accepted, Some(present)) => {
                    present.has_succeeded(key.0);
                    if present.does() == Listed::Playing { Added::Accepted } else { Added::Connected }
                }
                (Added::Accepted, None) if open.made.is_some() => {
                    Added::Failed("it ended before the server answered".to_owned())
                }
                (Added::Accepted, None) => Added::Present,
                // The server keeps it.
                (Added::Failed(why), Some(_)) if add.existing == Existing::Update => Added::Retrying(why),
                (outcome, _) => outcome,
            };
            told.events.push(Event::Added(*call, outcome));
            if open.made.is_none() {
                self.release(state, told, id, key);
            }
        });
    }

    /// The server has carried out a remove of ours.
    pub fn removed(&self, id: u64) {
        self.with_state(|state, told| {
            if let Some(Open { ask: Ask::End(key), .. }) = state.take(id, |ask| matches!(ask, Ask::End(_))) {
                self.release(state, told, id, &key);
            }
        });
    }

    /// Ends the turn of a call, and lets the next call on the key run.
    pub(super) fn release(&self, state: &mut State, told: &mut Told, id: u64, key: &ProxyKey) {
        let mut through = id;
        while let Some(next) = state.next_after(through, key) {
            if self.goes_through(state, told, next) {
                return;
            }
            through = next;
        }
    }

    /// Starts the call whose turn has come. Returns false if there is nothing to do.
    fn goes_through(&self, state: &mut State, told: &mut Told, id: u64) -> bool {
        let Some(open) = state.calls.get(&id) else { return false };
        match &open.ask {
            Ask::Start { call, add } => {
                let instead = if !self.journal.is_due(add.key.0, &add.key.1, add.seq) {
                    Added::Unwanted
                } else {
                    let existing = match (state.mirror.get(&add.key), state.mirror.working(&add.key)) {
                        (None, _) => Some(Existing::Keep),
                        (Some(_), None) => Some(Existing::Replace),
                        (Some(_), Some(present)) => match add.existing {
                            Existing::Keep => None,
                            // A client still waits for its first connect, and its arguments will count.
                            Existing::Update if state.is_clients(present) => None,
                            Existing::Update if !self.can_update() => Some(Existing::Replace),
                            existing => Some(existing),
                        },
                    };
                    if let Some(existing) = existing {
                        let mut add = Arc::clone(add);
                        if add.existing != existing {
                            Arc::make_mut(&mut add).existing = existing;
                        }
                        told.adds.push((id, add));
                        return true;
                    }
                    Added::Present
                };
                told.events.push(Event::Added(*call, instead));
            }
            Ask::End(key) => {
                if !self.journal.is_due(key.0, &key.1, 0) && state.mirror.get(key).is_some() {
                    told.removes.push((id, key.clone()));
                    return true;
                }
            }
            Ask::Add { .. } => {
                told.go.extend(open.waiting.clone());
                return true;
            }
            Ask::Remove(_) | Ask::Close(_) => return true,
        }
        state.calls.remove(&id);
        false
    }

    fn open_ours(&self, ask: Ask) {
        self.with_state(|state, told| {
            let key = ask.key().cloned();
            if let (id, true) = state.open(Open::new(ask, Cause::default(), None))
                && !self.goes_through(state, told, id)
                && let Some(key) = key
            {
                self.release(state, told, id, &key);
            }
        });
    }
}

impl reconcile::Host for Capture {
    fn add(&self, call: u64, add: Add) {
        self.open_ours(Ask::Start { call, add: Arc::new(add) });
    }

    fn remove(&self, key: ProxyKey) {
        self.open_ours(Ask::End(key));
    }

    fn expect(&self, count: usize) {
        self.with_state(|state, _| state.mirror.expect(count));
    }

    fn actual(&self, keys: &[&ProxyKey]) -> Vec<Option<Listed>> {
        self.with_state(|state, told| {
            self.settle_doubts(state, told);
            keys.iter().map(|key| state.mirror.working(key).map(Present::does)).collect()
        })
    }
}
