//! Which call did what: from clients' calls on their way through, and from what MediaServer tells of its proxies, follows
//! what is journaled. A call counts by its effect, not by its reply. Knows nothing of C, HTTP or files.
//!
//! Adds of one key go through one at a time, ours among them: the next when the one before has made something or was
//! answered. So what is made belongs to the one add that is through. What ends belongs to the call in whose handler it
//! happens, or to a close call that is still open, or else it is the server's own doing.
//!
//! Lock order: MediaServer's own locks, then this state, then the journal's; what has to be told to others is told when
//! the lock is released. Every function may be called from any thread, takes microseconds and touches no storage.

mod mirror;
mod ours;
mod reply;
mod state;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

pub use self::mirror::{Filter, HostFacts, PROTOCOLS, is_true};
use self::mirror::{Nature, OwnEnd, Present};
pub use self::ours::Lacking;
pub use self::reply::{Answer, Outcome, refusal, reply};
pub use self::state::CLOSES;
use self::state::{Ask, Doubt, Open, State, Told};
pub use self::waiting::Client;
use self::waiting::Waiting;
use crate::error::{Error, Result};
use crate::journal::{Ack, Call, Cause, Done, Journal};
use crate::model::State::Dormant;
use crate::model::{Args, Kind, Op, ProxyKey, Stream};
use crate::reconcile::{Add, Handle};
use crate::settings::{OnError, OnGiveUp, OnIdleClose, RestoreMode};

/// The end of a source is told so long after that of a push that takes it, at most.
const DOUBT: Duration = Duration::from_secs(2);

/// MediaServer, as calls of our own reach it. Each returns at once.
pub trait Server: Send + Sync {
    /// Hands an add to the server, on a poller of its own. Answered by [`Capture::started`].
    fn add(&self, call: u64, add: &Add);
    /// Hands a delete to the server. Answered by [`Capture::removed`].
    fn remove(&self, call: u64, kind: Kind, key: &str);
}

/// A client's call, before the server has it.
pub struct Request<'a> {
    /// The API's name, in any case.
    pub name: &'a str,
    /// What its handler finds, in the URL, the body and the headers.
    pub args: &'a [(&'a [u8], &'a [u8])],
    /// `ip:port`.
    pub caller: &'a str,
}

/// What to do with it.
#[derive(Debug)]
pub enum Verdict {
    /// Hand it to the server now. Where it settles, [`Capture::settled`] is to follow.
    Go { call: u64, settles: bool },
    /// Hand it to the server when its client is told to go.
    Wait { call: u64 },
    /// Nothing that is journaled, or the server will refuse it for what it lacks, or the journal is closed: let it pass as
    /// it is.
    Pass,
}

pub struct Capture {
    journal: Arc<Journal>,
    facts: RwLock<Arc<HostFacts>>,
    state: Mutex<State>,
    server: OnceLock<Box<dyn Server>>,
    reconciler: OnceLock<Arc<Handle>>,
}

impl Capture {
    pub fn new(journal: Arc<Journal>, facts: HostFacts) -> Capture {
        Capture {
            journal,
            facts: RwLock::new(Arc::new(facts)),
            state: Mutex::default(),
            server: OnceLock::new(),
            reconciler: OnceLock::new(),
        }
    }

    pub fn facts(&self) -> Arc<HostFacts> {
        Arc::clone(&self.facts.read())
    }

    pub fn set_facts(&self, facts: HostFacts) {
        *self.facts.write() = Arc::new(facts);
    }

    /// Where our own calls go. The first counts.
    pub fn set_server(&self, server: Box<dyn Server>) {
        let _ = self.server.set(server);
    }

    /// Who is told of what changes. The first counts.
    pub fn set_reconciler(&self, reconciler: Arc<Handle>) {
        let _ = self.reconciler.set(reconciler);
    }

    // ---- clients' calls

    /// A client's call that MediaServer's own check has let through is about to be handed to the server. With `Go` and
    /// `Wait`, `client` is told once that the reply may leave. Fails where the call is to be refused (`on_error=reject`).
    pub fn open(&self, request: &Request<'_>, client: impl FnOnce() -> Box<dyn Client>) -> Result<Verdict> {
        let facts = self.facts();
        let Some(ask) = Ask::of(request, &facts) else { return Ok(Verdict::Pass) };
        self.journal.admit()?;
        let cause = Cause { origin: request.caller.to_owned(), reason: request.name.to_owned() };
        let settles = matches!(ask, Ask::Close { .. });
        self.with_state(|state, _| {
            // The server is stopping: it has its stock way.
            if state.is_closed {
                return Ok(Verdict::Pass);
            }
            let open = Open::new(ask, cause, Some(Waiting::new(client())));
            Ok(match state.open(open) {
                (call, true) => Verdict::Go { call, settles },
                (call, false) => Verdict::Wait { call },
            })
        })
    }

    /// Tells all whose call is open that nothing more will come of it. The journal is closed by now: what was to be
    /// acknowledged is.
    pub fn close(&self) {
        self.with_state(|state, told| {
            state.is_closed = true;
            let calls = std::mem::take(&mut state.calls);
            calls.into_values().for_each(|open| open.complete(told));
        });
    }

    /// The server has answered a client's call, or never will.
    pub fn answered(&self, id: u64, answer: Answer) {
        let ok = answer.is_success();
        self.with_state(|state, told| {
            let Some(mut open) = state.take(id) else { return };
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
                Ask::Remove { key } => {
                    if ok && !open.has_ended {
                        match state.mirror.get(key) {
                            None => self.record(told, &open, Op::Remove, key, None, false),
                            Some(_) => {
                                open.not_journaled("another call has added it since this one looked for it")
                            }
                        }
                    }
                }
                Ask::Close { .. } => {
                    open.is_answered = true;
                    if !open.is_settled {
                        state.put_back(id, open);
                        return;
                    }
                }
                Ask::Start { .. } | Ask::End { .. } => {
                    state.put_back(id, open);
                    return;
                }
            }
            open.complete(told);
        });
    }

    /// All that a close call has queued on the server's threads has run.
    pub fn settled(&self, id: u64) {
        self.with_state(|state, told| {
            let Some(mut open) = state.take(id) else { return };
            open.is_settled = true;
            match (&open.ask, open.is_answered) {
                (Ask::Close { .. }, true) => open.complete(told),
                _ => state.put_back(id, open),
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
            // It was there already, and the server has left it as it is.
            (true, None) if self.journal.wants(key.0, &key.1, 0) => {
                self.record(told, open, Op::Add, key, args.as_ref().ok().cloned(), true);
            }
            (true, None) => open.not_journaled(
                "the server had it already, not by a journaled call: delete it and add it again to have it journaled",
            ),
            // What was made by force counts, whatever the server says of it afterwards.
            (false, _) => {}
        }
    }

    fn record_add(&self, told: &mut Told, open: &Open, key: &ProxyKey, args: Result<Args>) {
        match args {
            Ok(args) => {
                self.record(told, open, Op::Add, key, Some(args), false);
                if self.journal.settings().restore != RestoreMode::Eager {
                    told.called.push(key.clone());
                }
            }
            Err(error) => {
                let ack = self.refusal(key, error);
                if ack.undone {
                    told.converge.push(key.clone());
                }
                if let Some(waiting) = &open.waiting {
                    waiting.expect().call(ack);
                }
            }
        }
    }

    /// The answer to an add that no journal can hold; with `on_error=reject` it is to be undone.
    pub fn refusal(&self, (kind, key): &ProxyKey, error: Error) -> Ack {
        let undone = self.journal.settings().on_error == OnError::Reject && !self.journal.wants(*kind, key, 0);
        Ack { undone, ..Ack::failed(error) }
    }

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

    // ---- what the server tells

    /// A proxy has entered the server's map; told under that map's lock. Returns our own call that has made it, 0 where that
    /// was somebody else's.
    pub fn made(&self, kind: Kind, key: &str) -> u64 {
        self.with_state(|state, told| {
            let mut ours = 0;
            let mut key: ProxyKey = (kind, key.into());
            let number = state.mirror.next_number();
            let mut present = Present::new(number, None, Nature::unknown());
            let through = state.through(&key);
            if let Some((id, mut open)) = through.and_then(|id| Some((id, state.take(id)?))) {
                match &open.ask {
                    Ask::Add { args, nature, is_forced, .. } => {
                        open.made = Some(number);
                        present = Present::new(number, Some(id), nature.clone());
                        // It stays whatever becomes of its first connect.
                        if *is_forced {
                            open.is_recorded = true;
                            let args = args.clone();
                            self.record_add(told, &open, &key, args);
                        }
                    }
                    Ask::Start { add, key: wanted, .. } => {
                        // The same, and one with the journal's: it is kept once.
                        key.clone_from(wanted);
                        (open.made, ours) = (Some(number), id);
                        let read = self.journal.get(kind, &key.1).map(|entry| entry.args.read());
                        let nature = read.map_or_else(Nature::unknown, |read| {
                            Nature::of(kind, |name| read.get(name), &self.facts())
                        });
                        present = Present::new(number, Some(id), nature);
                        if !self.journal.wants(kind, &key.1, add.seq) {
                            state.end_next(&key);
                            // Where it is wanted in another way, what there is now is replaced.
                            told.replace.push(key.clone());
                        }
                    }
                    Ask::Remove { .. } | Ask::Close { .. } | Ask::End { .. } => {}
                }
                let releases = open.made.is_some();
                state.put_back(id, open);
                state.mirror.insert(key.clone(), present);
                if releases {
                    self.release(state, told, id, &key);
                }
            } else {
                state.mirror.insert(key, present);
            }
            ours
        })
    }

    /// A proxy has left the server's map; told under that map's lock, with the call in whose handler this thread is
    /// (0: in none).
    pub fn ended(&self, kind: Kind, key: &str, within: u64) {
        self.with_state(|state, told| {
            let key: ProxyKey = (kind, key.into());
            let Some(present) = state.mirror.remove(&key) else { return };
            told.has_changed = true;
            // Each close call that is open waits for the disk, whichever of them it was: the second changes nothing.
            let closes = state.closes_that_ended(&present, within);
            for open in closes.iter().filter_map(|id| state.calls.get(id)) {
                self.record(told, open, Op::Remove, &key, None, false);
            }
            let is_unsettled = state.is_unsettled(&present);
            match state.calls.get_mut(&within) {
                Some(open) if matches!(&open.ask, Ask::Remove { key: its } if *its == key) => {
                    open.has_ended = true;
                    self.record(told, open, Op::Remove, &key, None, false);
                }
                Some(Open { ask: Ask::Start { .. } | Ask::End { .. }, .. }) => {}
                _ if closes.is_empty() && !is_unsettled => self.ended_by_itself(state, told, &key, &present),
                _ => {}
            }
        });
    }

    /// Nobody asked for it.
    fn ended_by_itself(&self, state: &mut State, told: &mut Told, key: &ProxyKey, present: &Present) {
        let settings = self.journal.settings();
        match present.own_end(&self.facts()) {
            OwnEnd::Idle => {
                let op = match settings.on_idle_close {
                    OnIdleClose::Forget => Op::Remove,
                    OnIdleClose::Dormant => Op::Set(Dormant),
                };
                self.record_own_end(told, key, op, "closed for lack of viewers");
            }
            OwnEnd::GaveUp if settings.on_give_up == OnGiveUp::Forget => match present.taken() {
                None => self.forget_given_up(told, key),
                // MediaServer may end it before it tells that its source has gone, and says of both the same.
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
        if self.record_own_end(told, key, Op::Remove, "the server gave it up (on_give_up=forget)") {
            told.given_up += 1;
        }
    }

    /// False where it is not wanted anyway.
    fn record_own_end(&self, told: &mut Told, key: &ProxyKey, op: Op, reason: &str) -> bool {
        let is_wanted = self.journal.wants(key.0, &key.1, 0);
        if is_wanted {
            log::info!("journal: {} {}: {reason}", key.0.name(), key.1);
            let cause = Cause { origin: "MediaServer".to_owned(), reason: reason.to_owned() };
            let call = Call { op, kind: key.0, key: &key.1, args: None, already_exists: false, cause };
            told.has_queued = true;
            self.journal.queue(call, Done::new(drop));
        }
        is_wanted
    }

    /// A source of the server has come or gone.
    pub fn stream_changed(&self, schema: &str, stream: &Stream, is_there: bool) {
        self.with_state(|state, told| {
            told.has_changed |= state.mirror.source_moved(schema, stream, is_there, &mut told.came);
            // One that comes anew had gone.
            state.doubts.retain(|doubt| doubt.taken.0 != schema || doubt.taken.1 != *stream);
        });
    }

    /// Nobody watches this source now.
    pub fn nobody_watches(&self, stream: &Stream) {
        self.with_state(|state, _| state.mirror.nobody_watches(stream));
    }

    /// A proxy has connected, for the first time or again.
    pub fn connected(&self, kind: Kind, key: &str) {
        self.with_state(|state, told| {
            let key = (kind, key.into());
            if state.mirror.connected(&key) {
                told.has_changed = true;
                told.came.push(key);
            }
        });
    }

    /// A proxy could not connect, or lost its connection.
    pub fn failed(&self, kind: Kind, key: &str, error: &str) {
        self.with_state(|state, told| told.has_changed |= state.mirror.failed(&(kind, key.into()), error));
    }

    /// Changes the state, and tells of it when the lock is released.
    fn with_state<T>(&self, change: impl FnOnce(&mut State, &mut Told) -> T) -> T {
        let mut told = Told::default();
        let result = change(&mut self.state.lock(), &mut told);
        if told.has_queued {
            self.journal.wake();
        }
        let Told {
            go,
            complete,
            adds,
            removes,
            added,
            came,
            called,
            converge,
            replace,
            given_up,
            has_changed,
            ..
        } = told;
        for waiting in go {
            waiting.go();
        }
        for waiting in complete {
            waiting.complete();
        }
        if let Some(server) = self.server.get() {
            adds.iter().for_each(|(id, add)| server.add(*id, add));
            removes.iter().for_each(|(id, (kind, key))| server.remove(*id, *kind, key));
        }
        if let Some(reconciler) = self.reconciler.get() {
            added.into_iter().for_each(|(call, outcome)| reconciler.added(call, outcome));
            came.into_iter().for_each(|key| reconciler.media_came(key));
            called.into_iter().for_each(|key| reconciler.called_for(key));
            converge.into_iter().for_each(|key| reconciler.converge(key));
            replace.into_iter().for_each(|key| reconciler.follow(key, true));
            (0..given_up).for_each(|_| reconciler.given_up());
            if has_changed {
                reconciler.look();
            }
        }
        result
    }
}
