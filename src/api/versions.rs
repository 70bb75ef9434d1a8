//! Snapshots, and the way back to what was wanted once: as a difference that is journaled like any other change, so that
//! it can be undone in the same way.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Request, replied, set};
use crate::error::{Error, Result};
use crate::journal::{Mutation, PointInTime, SnapshotFile};
use crate::model::{Entry, Op, State};
use crate::plugin::Plugin;
use crate::reconcile::Key;

fn shown(snapshot: &SnapshotFile) -> Value {
    json!({"seq": snapshot.seq, "at": snapshot.at, "file": snapshot.path.display().to_string()})
}

pub fn snapshots(plugin: &Plugin, _: &Request<'_>) -> Result<Value> {
    let snapshots: Vec<Value> = plugin.snapshots().iter().map(shown).collect();
    Ok(json!({"code": 0, "data": snapshots}))
}

/// The newest where nothing has changed since; none where nothing was ever journaled.
pub fn take(plugin: &Plugin, _: &Request<'_>) -> Result<Value> {
    let snapshot = plugin.take_snapshot()?;
    Ok(json!({"code": 0, "data": snapshot.as_ref().map(shown)}))
}

/// What is to be done so that what is wanted is again what it was.
#[derive(Debug, Default)]
pub struct WayBack {
    added: Vec<Key>,
    updated: Vec<Key>,
    removed: Vec<Key>,
    precondition: usize,
    pub steps: Vec<Mutation>,
}

impl WayBack {
    pub fn between(mut then: BTreeMap<Key, Entry>, now: Vec<(Key, Entry)>) -> WayBack {
        let mut way = WayBack::default();
        for (key, entry) in now {
            let expected = Some(entry.seq);
            match then.remove(&key) {
                Some(was) if was.args == entry.args && was.state == entry.state => way.precondition += 1,
                Some(was) => {
                    way.steps_to(&key, &was, Some(&entry));
                    way.updated.push(key);
                }
                None => {
                    way.steps.push(Mutation { key: key.clone(), op: Op::Remove, args: None, expected });
                    way.removed.push(key);
                }
            }
        }
        for (key, was) in then {
            way.steps_to(&key, &was, None);
            way.added.push(key);
        }
        way
    }

    pub fn shown(&self) -> Value {
        let names = |keys: &[Key]| -> Vec<Value> {
            keys.iter().map(|(kind, key)| json!({"kind": kind.name(), "key": key.as_ref()})).collect()
        };
        json!({
            "added": names(&self.added),
            "updated": names(&self.updated),
            "removed": names(&self.removed),
            "unchanged": self.precondition,
        })
    }

    fn steps_to(&mut self, key: &Key, was: &Entry, now: Option<&Entry>) {
        let mut expected = Some(now.map_or(0, |entry| entry.seq));
        let mut push =
            |op, args| self.steps.push(Mutation { key: key.clone(), op, args, expected: expected.take() });
        let same_args = now.is_some_and(|now| now.args == was.args);
        if !same_args {
            push(Op::Add, Some(was.args.clone()));
        }
        if same_args || was.state != State::Enabled {
            push(Op::Set(was.state), None);
        }
    }
}

/// To the change `to_seq`, the time `to_time` (milliseconds UTC), or the snapshot of change `to_snapshot`.
pub fn rollback(plugin: &Plugin, request: &Request<'_>) -> Result<Value> {
    let (seq, time, snapshot) =
        (request.number("to_seq")?, request.number("to_time")?, request.number("to_snapshot")?);
    let moment = match (seq, time, snapshot) {
        (Some(seq), None, None) => PointInTime::Seq(seq),
        (None, Some(time), None) => PointInTime::Time(i64::try_from(time).unwrap_or(i64::MAX)),
        (None, None, Some(seq)) if plugin.snapshots().iter().any(|snapshot| snapshot.seq == seq) => {
            PointInTime::Seq(seq)
        }
        (None, None, Some(seq)) => {
            return Err(Error::invalid(format!("there is no snapshot of change {seq}: see listJournalSnapshots")));
        }
        _ => return Err(Error::invalid("one of to_seq, to_time and to_snapshot says where to go back to")),
    };
    let dry_run = request.flag("dry_run", false)?;
    let (to, then) = plugin.past(moment)?;
    let before = plugin.seq();
    let way = WayBack::between(then.into_iter().collect(), plugin.all());
    let mut data = way.shown();
    for (name, value) in [("to", Value::from(to)), ("before", before.into()), ("dry_run", dry_run.into())] {
        set(&mut data, name, value);
    }
    if dry_run {
        return Ok(json!({"code": 0, "data": data}));
    }
    let changed = plugin.change_all(way.steps, None, &request.cause(&format!("rollbackJournal to {to}")))?;
    Ok(replied(data, &changed))
}
