//! Many changes at once: all of them in one transaction, or none.

use std::sync::Arc;

use super::Journal;
use super::ack::{Ack, Done, Persisted};
use super::intent::{Cause, Intent};
use super::shared::{Access, Job, QUEUE_BYTES, QUEUE_CHANGES};
use super::vault::Vault;
use crate::error::{Code, Error, Result};
use crate::record::{Args, Kind, Op};
use crate::settings::Durability;

/// One of many changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub key: (Kind, Arc<str>),
    pub op: Op,
    /// Of an add, and of nothing else.
    pub args: Option<Args>,
    /// The change that must have made its entry what it is, 0 where there must be none. None: whatever it is.
    pub expected: Option<u64>,
}

/// One of them that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub key: (Kind, Arc<str>),
    pub seq: u64,
    /// There was a proxy before, and MediaServer would make something else of it now.
    pub replaced: bool,
}

/// That nothing in a scope has changed since change `since`.
#[derive(Clone, Copy)]
pub struct Unchanged<'a> {
    pub since: u64,
    pub scope: &'a dyn Fn(Kind, &Args) -> bool,
}

impl Journal {
    /// Makes all the changes, and returns those that changed something; `done` is told when they are on disk. Fails, with nothing changed and `done` told of a failure, where an expectation does not hold
    /// ([`Code::Conflict`]) and where the journal cannot take them. Keeps media threads that record from going on for a few
    /// microseconds a change, and touches no storage.
    pub fn record_all(
        &self,
        steps: Vec<Step>,
        unchanged: Option<Unchanged<'_>>,
        cause: &Cause,
        done: Done,
    ) -> Result<Vec<Made>> {
        let at = self.now_ms();
        // Not while others wait for the lock.
        let steps: Vec<Step> = match self.core.vault() {
            Some(vault) => steps.into_iter().map(|step| step.sealed(&vault)).collect(),
            None => steps,
        };
        let mut front = self.core.front.lock();
        if front.closing {
            return Err(Error::new(Code::Closed, "the journal is closed: the server is stopping"));
        }
        if !matches!(front.access, Access::Open) {
            return Err(self.core.last_failure());
        }
        hold(&front.intent, &steps, unchanged)?;
        // However many they are: those before them must not be too many.
        if front.queue.len() >= QUEUE_CHANGES || front.queued_bytes > QUEUE_BYTES {
            return Err(Error::new(
                Code::QueueFull,
                format!("{} changes wait for the disk already: it is too slow or stuck", front.queue.len()),
            ));
        }
        let mut changed = Vec::with_capacity(steps.len());
        for Step { key: (kind, key), op, args, .. } in steps {
            let Some(applied) = front.intent.change(at, op, kind, &key, args, cause.clone()) else { continue };
            let before = applied.before.as_ref().map(|entry| entry.args.clone());
            let (seq, args) = (applied.change.seq, applied.change.args.clone());
            changed.push((kind, key, seq, before.zip(args)));
            self.core.queue(&mut front, Job::of(applied));
        }
        let seq = front.intent.seq();
        let (now, later) = match self.core.options().durability {
            Durability::Full => (None, Some(done)),
            Durability::Async => (Some(done), None),
        };
        match front.queue.last_mut().filter(|job| changed.last().is_some_and(|last| last.2 == job.seq)) {
            Some(job) => job.done = later,
            None => self.core.queue(&mut front, Job { seq, applied: None, relies_on: None, done: later }),
        }
        drop(front);
        self.core.wake_writer.notify_one();
        if let Some(done) = now {
            done.call(Ack { seq, result: Ok(Persisted::Soon), undone: false });
        }
        let made = |(kind, key, seq, args): (_, _, _, Option<(Args, Args)>)| Made {
            key: (kind, key),
            seq,
            replaced: args.is_some_and(|(before, after)| !before.call_the_same(&after)),
        };
        Ok(changed.into_iter().map(made).collect())
    }

    /// Says whether a scope is as it was, and which change is the last of all now.
    pub fn check_unchanged(&self, unchanged: Option<Unchanged<'_>>) -> Result<u64> {
        let front = self.core.front.lock();
        hold(&front.intent, &[], unchanged)?;
        Ok(front.intent.seq())
    }

    /// The last change.
    pub fn seq(&self) -> u64 {
        self.core.front.lock().intent.seq()
    }
}

impl Step {
    fn sealed(self, vault: &Vault) -> Step {
        let (kind, key) = (self.key.0, Arc::clone(&self.key.1));
        Step { args: self.args.map(|args| vault.sealed(kind, &key, args)), ..self }
    }
}

/// Whether all that is expected holds.
fn hold(intent: &Intent, steps: &[Step], unchanged: Option<Unchanged<'_>>) -> Result<()> {
    for Step { key: (kind, key), expected, .. } in steps {
        let there = intent.get(*kind, key).map_or(0, |entry| entry.seq);
        if expected.is_some_and(|expected| expected != there) {
            return Err(conflict(format!("{} {key} was changed meanwhile, by change {there}", kind.name())));
        }
    }
    let Some(Unchanged { since, scope }) = unchanged else { return Ok(()) };
    if since > intent.seq() {
        return Err(conflict(format!("there is no change {since}: the last is {}", intent.seq())));
    }
    match intent.changed_since(since, scope) {
        Some(seq) => Err(conflict(format!("the scope was changed since {since}, by change {seq}"))),
        None => Ok(()),
    }
}

fn conflict(what: String) -> Error {
    Error::new(Code::Conflict, format!("{what}. Nothing was done: look again, and repeat the call"))
}
