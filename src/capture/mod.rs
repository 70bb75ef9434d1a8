//! Finds out which call did what, from clients' calls and MediaServer's events, and journals it. The effect of a call
//! counts, not its reply. Knows nothing of C, HTTP or files.
//!
//! Adds of one key, ours included, run one at a time: the next one when the one before has made its proxy or was
//! answered. So a new proxy belongs to the add that is running. An end belongs to the call in whose handler it happens,
//! or to an open close call; otherwise the server did it by itself.
//!
//! Lock order: MediaServer's locks, this state, the journal's locks. Others are told after this state is released.
//! Every function may be called from any thread, takes microseconds and touches no storage.

mod mirror;
mod ours;
mod own_end;
mod reply;
mod state;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

pub use self::mirror::{Filter, HostFacts, PROTOCOLS, is_true};
use self::mirror::{Nature, Present};
pub use self::ours::Lacking;
pub use self::reply::{Answer, Outcome, refusal, reply};
use self::state::{Ask, Open, State, Told};
pub use self::state::{CLOSES, Request};
pub use self::waiting::Client;
use self::waiting::Waiting;
use crate::error::{Error, Result};
use crate::journal::{Ack, Call, Cause, Done, Journal};
use crate::model::{Args, Existing, Kind, Op, ProxyKey, Stream};
use crate::reconcile::{Add, Event, Handle};
use crate::settings::{OnError, RestoreMode};

/// The reason in the history when a proxy is forgotten because MediaServer has given it up.
pub const GAVE_UP: &str = "the server gave it up (on_give_up=forget)";

/// MediaServer, for our own calls. Each function returns at once.
pub trait Server: Send + Sync {
    /// Passes an add to the server, on one of its pollers. Answered by [`Capture::started`].
    fn add(&self, call: u64, add: &Add);
    /// Whether it can give running proxies other arguments in place.
    fn can_update(&self) -> bool;
    /// Gives a running proxy the arguments of this add. Answered by [`Capture::updated`] when that is done, then as an
    /// add; or only as an add, if the proxy had to be added anew.
    fn update(&self, call: u64, add: &Add);
    /// Passes a delete to the server. Answered by [`Capture::removed`].
    fn remove(&self, call: u64, key: &ProxyKey);
}

/// What to do with a call.
#[derive(Debug)]
pub enum Verdict {
    /// Pass it to the server now. If it settles, call [`Capture::settled`] later.
    Go {
        /// The number of the call, from 1.
        call: u64,
        /// Its handler leaves work on other threads.
        settles: bool,
    },
    /// Pass it to the server when `go` of its client is called.
    Wait {
        /// The number of the call; 0 if it ends without the server, as an add outside of its hours does.
        call: u64,
    },
    /// Pass it to the server unchanged: it is not journaled, or is incomplete, so that the server will refuse it, or
    /// the journal is closed.
    Pass,
}

/// What is known of the server and of the calls that are open in it. Any thread.
pub struct Capture {
    journal: Arc<Journal>,
    facts: RwLock<Arc<HostFacts>>,
    state: Mutex<State>,
    server: OnceLock<Box<dyn Server>>,
    reconciler: OnceLock<Arc<Handle>>,
}

impl Capture {
    /// For a server with these facts. Until [`Capture::set_server`], it asks nothing of the server.
    pub fn new(journal: Arc<Journal>, facts: HostFacts) -> Capture {
        Capture {
            journal,
            facts: RwLock::new(Arc::new(facts)),
            state: Mutex::default(),
            server: OnceLock::new(),
            reconciler: OnceLock::new(),
        }
    }

    /// The facts that apply now.
    pub fn facts(&self) -> Arc<HostFacts> {
        Arc::clone(&self.facts.read())
    }

    /// Replaces the facts, for calls and events from now on.
    pub fn set_facts(&self, facts: HostFacts) {
        *self.facts.write() = Arc::new(facts);
    }

    /// The target of our own calls. Only the first call has an effect.
    pub fn set_server(&self, server: Box<dyn Server>) {
        let _ = self.server.set(server);
    }

    /// Who is told of changes. Only the first call has an effect.
    pub fn set_reconciler(&self, reconciler: Arc<Handle>) {
        let _ = self.reconciler.set(reconciler);
    }

    // ---- clients' calls

    /// Registers a client's call that has passed MediaServer's own check. With `Go` and `Wait`, `client` is told once
    /// when the reply may leave. Fails if the call must be refused: it asks the journal for what cannot be done, or the
    /// journal cannot be written (`on_error=reject`).
    pub fn open(&self, request: &Request<'_>, client: impl FnOnce() -> Box<dyn Client>) -> Result<Verdict> {
        let facts = self.facts();
        let Some(ask) = Ask::of(request, &facts)? else { return Ok(Verdict::Pass) };
        self.journal.admit()?;
        let cause = Cause { caller: request.caller.to_owned(), reason: request.name.to_owned() };
        let settles = matches!(ask, Ask::Close(_));
        self.with_state(|state, told| {
            // The server is stopping: the call takes its normal way.
            if state.is_closed {
                return Ok(Verdict::Pass);
            }
            let open = Open::new(ask, cause, Some(Waiting::new(client())));
            if let Ask::Add { key, args: Ok(args), .. } = &open.ask
                && args.is_off_hours(self.journal.now_ms())
                // Otherwise the server refuses it: whoever came first wins.
                && state.mirror.get(key).is_none()
            {
                return Ok(self.record_off_hours(told, &open, key, args));
            }
            Ok(match state.open(open) {
                (call, true) => Verdict::Go { call, settles },
                (call, false) => Verdict::Wait { call },
            })
        })
    }

    /// Takes in an add outside of its hours: the server does not get it.
    fn record_off_hours(&self, told: &mut Told, open: &Open, key: &ProxyKey, args: &Args) -> Verdict {
        self.record(told, open, Op::Add, key, Some(args.clone()), false);
        // Another add of that key may be under way.
        told.events.push(Event::Converge(key.clone(), Existing::Keep));
        if let Some(waiting) = &open.waiting {
            waiting.answered(Answer::added(&key.1));
            told.complete.push(Arc::clone(waiting));
        }
        Verdict::Wait { call: 0 }
    }

    /// Completes all open calls. The journal is already closed, so everything has been acknowledged.
    pub fn close(&self) {
        self.with_state(|state, told| {
            state.is_closed = true;
            let calls = std::mem::take(&mut state.calls);
            calls.into_values().for_each(|open| open.complete(told));
        });
    }

    /// The server has answered a client's call, or dropped it.
    pub fn answered(&self, id: u64, answer: Answer) {
        let ok = answer.is_success();
        self.with_state(|state, told| {
            let is_clients = |ask: &Ask| !matches!(ask, Ask::Start { .. } | Ask::End(_));
            let Some(mut open) = state.take(id, is_clients) else { return };
            if let Some(waiting) = &open.waiting {
                waiting.answered(answer);
            }
            match &open.ask {
                Ask::Add { key, .. } => {
                    let key = key.clone();
                    self.add_answered(state, told, &key, &mut open, ok);
                    if open.made.is_none() {
                        self.release(state, told, id, &key);
                    }
                }
                Ask::Remove(key) => {
                    if ok && !open.has_ended {
                        match state.mirror.get(key) {
                            None => self.record(told, &open, Op::Remove, key, None, false),
                            Some(_) => {
                                open.not_journaled("another call has added it since this one looked for it")
                            }
                        }
                    }
                }
                Ask::Close(_) => {
                    open.is_answered = true;
                    if !open.is_settled {
                        state.put_back(id, open);
                        return;
                    }
                }
                Ask::Start { .. } | Ask::End(_) => {}
            }
            open.complete(told);
        });
    }

    /// Everything that a close call has queued on the server's threads has run.
    pub fn settled(&self, id: u64) {
        self.with_state(|state, told| {
            let is_close = |ask: &Ask| matches!(ask, Ask::Close(_));
            let Some(mut open) = state.take(id, is_close) else { return };
            open.is_settled = true;
            if open.is_answered {
                open.complete(told);
            } else {
                state.put_back(id, open);
            }
        });
    }

    fn add_answered(&self, state: &mut State, told: &mut Told, key: &ProxyKey, open: &mut Open, ok: bool) {
        let Ask::Add { args, .. } = &open.ask else { return };
        let its = state.mirror.get_mut(key).filter(|present| Some(present.number) == open.made);
        let is_there = its.is_some();
        if let Some(present) = its {
            present.call = None;
            if ok {
                present.has_succeeded(key.0);
            }
        }
        match (ok, open.made) {
            (true, Some(_)) if open.is_recorded => {}
            (true, Some(_)) if is_there => self.record_add(told, open, key, args.clone()),
            (true, Some(_)) => open.not_journaled("another call ended or replaced it before this answer"),
            // It already existed, and the server did not change it.
            (true, None) if self.journal.wants(key.0, &key.1, 0) => {
                self.record(told, open, Op::Add, key, args.as_ref().ok().cloned(), true);
            }
            (true, None) => open.not_journaled(
                "the server had it already, not by a journaled call: delete it and add it again to have it journaled",
            ),
            // A forced add was journaled when it made the proxy, whatever its answer.
            (false, _) => {}
        }
    }

    fn record_add(&self, told: &mut Told, open: &Open, key: &ProxyKey, args: Result<Args>) {
        match args {
            Ok(args) => {
                let is_off_hours = args.is_off_hours(self.journal.now_ms());
                let has_backups = args.backups().is_some();
                self.record(told, open, Op::Add, key, Some(args), false);
                // They ended while it was added.
                if is_off_hours {
                    told.events.push(Event::Converge(key.clone(), Existing::Keep));
                }
                if has_backups || self.journal.settings().restore != RestoreMode::Eager {
                    told.events.push(Event::Called(key.clone()));
                }
            }
            Err(error) => {
                let ack = self.refusal(key, error);
                if ack.undone {
                    told.events.push(Event::Converge(key.clone(), Existing::Keep));
                }
                if let Some(waiting) = &open.waiting {
                    waiting.expect().call(ack);
                }
            }
        }
    }

    /// The answer to an add that cannot be journaled; undone with `on_error=reject`.
    pub fn refusal(&self, (kind, key): &ProxyKey, error: Error) -> Ack {
        let undone = self.journal.settings().on_error == OnError::Reject && !self.journal.wants(*kind, key, 0);
        Ack { undone, ..error.into() }
    }

    /// `already_exists`: the server has left what it had, so an enabled proxy stays as it is.
    fn record(
        &self,
        told: &mut Told,
        open: &Open,
        op: Op,
        (kind, key): &ProxyKey,
        args: Option<Args>,
        already_exists: bool,
    ) {
        let done = open.waiting.as_ref().map_or_else(|| Done::new(drop), Waiting::expect);
        told.has_queued = true;
        self.journal.queue(Call { op, kind: *kind, key, args, already_exists, cause: open.cause.clone() }, done);
    }

    // ---- the server's events

    /// A proxy has entered the server's map; called under that map's lock. Returns our own call that made it, or 0.
    pub fn made(&self, kind: Kind, key: &str) -> u64 {
        self.with_state(|state, told| {
            let mut key: ProxyKey = (kind, key.into());
            let number = state.mirror.next_number();
            let is_add = |ask: &Ask| matches!(ask, Ask::Add { .. } | Ask::Start { .. });
            let by = state.through(&key).and_then(|id| Some((id, state.take(id, is_add)?)));
            let Some((id, mut open)) = by else {
                state.mirror.insert(key, Present::new(number, None, Nature::unknown()));
                return 0;
            };
            open.made = Some(number);
            let mut nature = Nature::unknown();
            let mut ours = 0;
            match &open.ask {
                Ask::Add { args, nature: its, is_forced, .. } => {
                    nature = its.clone();
                    // It stays even if its first connect fails.
                    if *is_forced {
                        open.is_recorded = true;
                        self.record_add(told, &open, &key, args.clone());
                    }
                }
                Ask::Start { add, .. } => {
                    ours = id;
                    // The same key; shares the journal's copy.
                    key.clone_from(&add.key);
                    nature = self.ours_is_there(state, told, add, add.seq);
                }
                Ask::Remove(_) | Ask::Close(_) | Ask::End(_) => {}
            }
            state.put_back(id, open);
            state.mirror.insert(key.clone(), Present::new(number, Some(id), nature));
            self.release(state, told, id, &key);
            ours
        })
    }

    /// A proxy has left the server's map; called under that map's lock. `within` is the call in whose handler this
    /// thread is, or 0.
    pub fn ended(&self, kind: Kind, key: &str, within: u64) {
        self.with_state(|state, told| {
            let key: ProxyKey = (kind, key.into());
            let Some(present) = state.mirror.remove(&key) else { return };
            told.has_changed = true;
            // Every open close call that may have done it waits for the disk: recording the remove twice changes
            // nothing.
            let closes = state.closes_that_ended(&present, within);
            for open in closes.iter().filter_map(|id| state.calls.get(id)) {
                self.record(told, open, Op::Remove, &key, None, false);
            }
            let is_unsettled = state.is_unsettled(&present);
            match state.calls.get_mut(&within) {
                Some(open) if matches!(&open.ask, Ask::Remove(its) if *its == key) => {
                    open.has_ended = true;
                    self.record(told, open, Op::Remove, &key, None, false);
                }
                Some(Open { ask: Ask::Start { .. } | Ask::End(_), .. }) => {}
                _ if closes.is_empty() && !is_unsettled => self.ended_by_itself(state, told, &key, &present),
                _ => {}
            }
        });
    }

    /// A source of the server was registered or unregistered.
    pub fn stream_changed(&self, schema: &str, stream: &Stream, is_there: bool) {
        self.with_state(|state, told| {
            told.has_changed |= state.mirror.stream_changed(schema, stream, is_there, &mut told.events);
            // A source that is registered now had gone: the push did not give up.
            state.doubts.retain(|doubt| doubt.taken.0 != schema || doubt.taken.1 != *stream);
        });
    }

    /// This source has no viewers now.
    pub fn nobody_watches(&self, stream: &Stream) {
        self.with_state(|state, _| state.mirror.nobody_watches(stream));
    }

    /// A proxy has connected, for the first time or again.
    pub fn connected(&self, kind: Kind, key: &str) {
        self.with_state(|state, told| {
            let key = (kind, key.into());
            if state.mirror.connected(&key) {
                told.has_changed = true;
                told.events.push(Event::MediaChanged(key));
            }
        });
    }

    /// A proxy could not connect, or lost its connection.
    pub fn failed(&self, kind: Kind, key: &str, error: &str) {
        self.with_state(|state, told| {
            let key = (kind, key.into());
            if state.mirror.failed(&key, error) {
                told.has_changed = true;
                told.events.push(Event::MediaChanged(key));
            }
        });
    }

    /// Changes the state, and tells others after releasing the lock.
    fn with_state<T>(&self, change: impl FnOnce(&mut State, &mut Told) -> T) -> T {
        let mut told = Told::default();
        let result = change(&mut self.state.lock(), &mut told);
        if told.has_queued {
            self.journal.wake();
        }
        told.go.iter().for_each(|waiting| waiting.go());
        told.complete.iter().for_each(|waiting| waiting.complete());
        if let Some(server) = self.server.get() {
            told.adds.iter().for_each(|(id, add)| match add.existing {
                Existing::Update => server.update(*id, add),
                Existing::Keep | Existing::Replace => server.add(*id, add),
            });
            told.removes.iter().for_each(|(id, key)| server.remove(*id, key));
        }
        if let Some(reconciler) = self.reconciler.get() {
            told.events.into_iter().for_each(|event| reconciler.tell(event));
            if told.has_changed {
                reconciler.tell(Event::Look);
            }
        }
        result
    }
}
