//! The open calls, and whose turn it is on each key. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::mirror::{Filter, HostFacts, Mirror, Nature, Present, Taken, is_true};
use super::waiting::Waiting;
use crate::error::{Error, Result};
use crate::journal::Cause;
use crate::memory::give_back;
use crate::model::{Args, DEFAULT_VHOST, Kind, ProxyKey};
use crate::reconcile::{Add, Event};

/// MediaServer's calls that close one source, and all sources that match a filter.
pub const CLOSES: [&str; 2] = ["close_stream", "close_streams"];

/// A client's call, before the server gets it.
pub struct Request<'a> {
    /// The API's name, in any case.
    pub name: &'a str,
    /// The arguments that its handler finds, in the URL, the body and the headers.
    pub args: &'a [(&'a [u8], &'a [u8])],
    /// `ip:port`.
    pub caller: &'a str,
}

/// What a call asks for.
pub enum Ask {
    Add {
        key: ProxyKey,
        /// An error if they cannot be journaled.
        args: Result<Args>,
        nature: Nature,
        /// The server keeps the proxy even if its first connect fails.
        is_forced: bool,
    },
    Remove(ProxyKey),
    Close(Filter),
    /// The reconciler's add, with its number `call`.
    Start {
        call: u64,
        add: Arc<Add>,
    },
    /// The reconciler's remove.
    End(ProxyKey),
}

pub struct Open {
    pub ask: Ask,
    pub cause: Cause,
    /// The client, if it is a client's call.
    pub waiting: Option<Arc<Waiting>>,
    /// The number of the proxy that it made.
    pub made: Option<u64>,
    pub is_recorded: bool,
    /// It has ended its proxy.
    pub has_ended: bool,
    pub is_answered: bool,
    pub is_settled: bool,
}

/// What to tell others after a change of the state.
#[derive(Default)]
pub struct Told {
    pub go: Vec<Arc<Waiting>>,
    pub complete: Vec<Arc<Waiting>>,
    pub adds: Vec<(u64, Arc<Add>)>,
    pub removes: Vec<(u64, ProxyKey)>,
    pub events: Vec<Event>,
    /// What the server has has changed.
    pub has_changed: bool,
    /// The journal's writer must be woken.
    pub has_queued: bool,
}

struct Turn {
    through: u64,
    waiting: VecDeque<u64>,
}

/// A push with a limited number of retries has ended. Perhaps its source has ended, and the event has not come yet.
pub struct Doubt {
    pub key: ProxyKey,
    /// The change of its entry.
    pub seq: u64,
    pub taken: Arc<Taken>,
    pub since: Instant,
}

#[derive(Default)]
pub struct State {
    pub mirror: Mirror,
    /// No more calls are taken in.
    pub is_closed: bool,
    pub doubts: Vec<Doubt>,
    pub calls: HashMap<u64, Open>,
    /// The numbers of the close calls among them.
    closes: Vec<u64>,
    /// For each key, the call that is running and those that wait.
    turns: HashMap<ProxyKey, Turn>,
    last: u64,
}

impl Ask {
    /// `None` for a call that is not journaled, or that the server will refuse as incomplete. Fails if an add asks the
    /// journal for what cannot be done.
    pub fn of(request: &Request<'_>, facts: &HostFacts) -> Result<Option<Ask>> {
        let given = |name: &str| {
            let found = request.args.iter().find(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()));
            found.map(|(_, value)| *value)
        };
        let bytes = |name: &str| given(name).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(bytes(name)).into_owned();
        let is_set = |name: &str| !bytes(name).is_empty();
        if let Some((kind, is_add)) = Kind::of_call(request.name) {
            if !is_add {
                let key = text("key");
                return Ok(is_set("key").then(|| Ask::Remove((kind, key.into()))));
            }
            let info = kind.info();
            if !info.required.iter().all(|name| is_set(name)) {
                return Ok(None);
            }
            let texts =
                request.args.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, *value)));
            kind.check_options(texts)?;
            let is_text = info.key.iter().all(|name| std::str::from_utf8(bytes(name)).is_ok());
            let args = if is_text {
                Args::from_pairs(request.args.iter().copied())
            } else {
                Err(Error::invalid("its key is not UTF-8"))
            };
            return Ok(Some(Ask::Add {
                key: (kind, kind.key_of(text).into()),
                args,
                nature: Nature::of(kind, |name| std::str::from_utf8(given(name)?).ok(), facts),
                // 8.0, which does not report failures, does not have `force` either.
                is_forced: info.has_force && facts.tells_failures && is_true(&text("force")),
            }));
        }
        let Some(at) = CLOSES.iter().position(|its| request.name.eq_ignore_ascii_case(its)) else {
            return Ok(None);
        };
        let mut filter =
            Filter { schema: text("schema"), vhost: text("vhost"), app: text("app"), stream: text("stream") };
        // close_stream finds its source as a player does; close_streams uses the names as they are (MediaSource.cpp).
        if at == 0 && (!facts.rules.vhosts || filter.vhost.is_empty()) {
            filter.vhost = DEFAULT_VHOST.to_owned();
        }
        Ok(Some(Ask::Close(filter)))
    }

    /// The key on which the call has to take turns.
    pub fn key(&self) -> Option<&ProxyKey> {
        match self {
            Ask::Add { key, .. } | Ask::End(key) => Some(key),
            Ask::Start { add, .. } => Some(&add.key),
            Ask::Remove(_) | Ask::Close(_) => None,
        }
    }
}

impl Open {
    pub fn new(ask: Ask, cause: Cause, waiting: Option<Arc<Waiting>>) -> Open {
        Open {
            ask,
            cause,
            waiting,
            made: None,
            is_recorded: false,
            has_ended: false,
            is_answered: false,
            is_settled: false,
        }
    }

    pub fn not_journaled(&self, why: &str) {
        if let Some(waiting) = &self.waiting {
            waiting.not_journaled(why);
        }
    }

    pub fn complete(self, told: &mut Told) {
        told.complete.extend(self.waiting);
    }
}

impl State {
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.closes.is_empty() && self.turns.is_empty()
    }

    /// Takes in a call and returns its number, and whether it may run now.
    pub fn open(&mut self, open: Open) -> (u64, bool) {
        self.last += 1;
        let id = self.last;
        if matches!(open.ask, Ask::Close(_)) {
            self.closes.push(id);
        }
        let key = open.ask.key().cloned();
        self.calls.insert(id, open);
        let Some(key) = key else { return (id, true) };
        match self.turns.get_mut(&key) {
            Some(turn) => {
                turn.waiting.push_back(id);
                (id, false)
            }
            None => {
                self.turns.insert(key, Turn { through: id, waiting: VecDeque::new() });
                (id, true)
            }
        }
    }

    /// Takes out a call if it is one of these.
    pub fn take(&mut self, id: u64, is: impl FnOnce(&Ask) -> bool) -> Option<Open> {
        self.calls.get(&id).filter(|open| is(&open.ask))?;
        let open = self.calls.remove(&id)?;
        give_back(&mut self.calls);
        if matches!(open.ask, Ask::Close(_)) {
            self.closes.retain(|close| *close != id);
        }
        Some(open)
    }

    pub fn put_back(&mut self, id: u64, open: Open) {
        if matches!(open.ask, Ask::Close(_)) {
            self.closes.push(id);
        }
        self.calls.insert(id, open);
    }

    pub fn through(&self, key: &ProxyKey) -> Option<u64> {
        self.turns.get(key).map(|turn| turn.through)
    }

    /// We have just made a proxy that is no longer enabled: end it before the next call on its key.
    pub fn end_next(&mut self, key: &ProxyKey) {
        let Some(turn) = self.turns.get_mut(key) else { return };
        self.last += 1;
        turn.waiting.push_front(self.last);
        self.calls.insert(self.last, Open::new(Ask::End(key.clone()), Cause::default(), None));
    }

    /// Ends the turn of a call and returns the next one. `None` if it was not its turn or no call waits.
    pub fn next_after(&mut self, id: u64, key: &ProxyKey) -> Option<u64> {
        let turn = self.turns.get_mut(key).filter(|turn| turn.through == id)?;
        if let Some(next) = turn.waiting.pop_front() {
            turn.through = next;
            return Some(next);
        }
        self.turns.remove(key);
        give_back(&mut self.turns);
        None
    }

    /// The open close calls that may have ended this proxy: those that match it, and the one in whose handler it ended,
    /// unless the proxy only took the closed source.
    pub fn closes_that_ended(&self, present: &Present, within: u64) -> Vec<u64> {
        let hits = |id: &u64| {
            self.calls.get(id).is_some_and(|open| match &open.ask {
                Ask::Close(filter) => (*id == within && present.taken().is_none()) || filter.hits(present),
                _ => false,
            })
        };
        self.closes.iter().copied().filter(hits).collect()
    }

    /// It was made by a client's add that is not answered.
    pub fn is_clients(&self, present: &Present) -> bool {
        let open = present.call.and_then(|id| self.calls.get(&id));
        open.is_some_and(|open| matches!(open.ask, Ask::Add { .. }))
    }

    /// Its add is neither answered nor journaled: the answer will report its end.
    pub fn is_unsettled(&self, present: &Present) -> bool {
        let open = present.call.and_then(|id| self.calls.get(&id));
        open.is_some_and(|open| matches!(open.ask, Ask::Add { .. } | Ask::Start { .. }) && !open.is_recorded)
    }
}
