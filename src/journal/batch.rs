//! Many changes in one transaction: all of them or none.

use std::collections::HashSet;
use std::sync::Arc;

use super::Journal;
use super::ack::Done;
use super::inbox::{Made, Standing};
use crate::error::{Code, Error, Result};
use crate::model::{Args, Change, Existing, Kind, Op, ProxyKey};
use crate::storage::intent::{Cause, Intent};

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The proxy.
    pub key: ProxyKey,
    /// What is to be done with it.
    pub op: Op,
    /// Only for an add.
    pub args: Option<Args>,
    /// The number of the change that the entry must have, 0 if there must be no entry. `None`: not checked.
    pub expected: Option<u64>,
}

/// A mutation that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMutation {
    /// The proxy.
    pub key: ProxyKey,
    /// The number of the change.
    pub seq: u64,
    op: Op,
    /// The arguments before it, and those that it gave.
    before: Option<Args>,
    after: Option<Args>,
}

impl AppliedMutation {
    /// What to do with the proxy that a server has which can change proxies in place.
    pub fn existing(&self) -> Existing {
        match (self.op, &self.before, &self.after) {
            (Op::Remove, ..) => Existing::Replace,
            (_, Some(before), Some(after)) => self.key.0.change(before, after),
            _ => Existing::Keep,
        }
    }
}

/// Requires that nothing in a scope has changed since change `since`.
#[derive(Clone, Copy)]
pub struct Precondition<'a> {
    /// The change that the caller has seen; it must not be later than the last one.
    pub since: u64,
    /// What must not have changed.
    pub scope: Scope<'a>,
}

/// The proxies that a precondition is about.
#[derive(Clone, Copy)]
pub enum Scope<'a> {
    /// These, whether they are there or not.
    Named(&'a HashSet<ProxyKey>),
    /// All with such arguments.
    With(&'a dyn Fn(Kind, &Args) -> bool),
}

impl Journal {
    /// Makes all the changes and returns those that changed something; `done` is called when they are on disk. If an
    /// expectation does not hold ([`Code::Conflict`]), or the journal cannot take them, nothing is changed and `done`
    /// reports a failure. Touches no storage, but holds the lock for a few microseconds per change.
    pub fn submit_batch(
        &self,
        mut mutations: Vec<Mutation>,
        precondition: Option<Precondition<'_>>,
        cause: &Cause,
        done: Done,
    ) -> Result<Vec<AppliedMutation>> {
        let at = self.now_ms();
        // Encrypted before the lock is taken.
        if let Some(cipher) = self.core.inbox.cipher() {
            for Mutation { key: (kind, key), args, .. } in &mut mutations {
                *args = args.take().map(|args| cipher.encrypted(*kind, key, args));
            }
        }
        let submitted = self.core.submit(done, |inbox| {
            if inbox.standing() != Standing::Written {
                return Err(self.core.last_failure().into());
            }
            check(inbox.intent(), &mutations, precondition)?;
            // A batch of any size is taken, if the queue is not already full.
            inbox.has_room(0)?;
            let make = |Mutation { key: (kind, key), op, args, .. }| {
                let (after, Cause { caller: origin, reason }) = (args.clone(), cause.clone());
                let change = Change { seq: 0, at, op, kind, key: Arc::clone(&key), args, origin, reason };
                let Made { seq, before } = inbox.change(change)?;
                Some(AppliedMutation { key: (kind, key), seq, op, before, after })
            };
            Ok(mutations.into_iter().filter_map(make).collect::<Vec<_>>())
        });
        self.wake();
        submitted.or_else(|(done, refusal)| {
            // A refusal is always an error.
            let refused = refusal.result.clone();
            done.call(refusal);
            refused.map(|_| Vec::new())
        })
    }

    /// Checks the precondition and returns the number of the last change.
    pub fn check_unchanged(&self, precondition: Option<Precondition<'_>>) -> Result<u64> {
        self.core.inbox.look(|intent| {
            check(intent, &[], precondition)?;
            Ok(intent.seq())
        })
    }

    /// The number of the last change.
    pub fn seq(&self) -> u64 {
        self.core.inbox.look(Intent::seq)
    }
}

/// Checks all expectations.
fn check(intent: &Intent, mutations: &[Mutation], precondition: Option<Precondition<'_>>) -> Result<()> {
    for Mutation { key: (kind, key), expected, .. } in mutations {
        let there = intent.get(*kind, key).map_or(0, |entry| entry.seq);
        if expected.is_some_and(|expected| expected != there) {
            return Err(conflict(format!("{} {key} was changed in the meantime, by change {there}", kind.name())));
        }
    }
    let Some(Precondition { since, scope }) = precondition else { return Ok(()) };
    if since > intent.seq() {
        return Err(conflict(format!("there is no change {since}: the last is {}", intent.seq())));
    }
    let changed = match scope {
        Scope::Named(named) => intent.named_changed_since(since, named),
        Scope::With(has) => intent.changed_since(since, has),
    };
    match changed {
        Some(seq) => Err(conflict(format!("the scope has changed since change {since}, by change {seq}"))),
        None => Ok(()),
    }
}

fn conflict(what: String) -> Error {
    Error::new(Code::Conflict, format!("{what}. Nothing was done: read the current state and repeat the call"))
}
