//! Snapshots, and the way back to what was wanted once: as a difference that is journaled like any other change, so that
//! it can be undone in the same way.

use crate::model::ProxyKey;
use serde_json::{Value, json};

use super::diff::{Desired, Diff};
use super::{Reply, Request, replied, set};
use crate::error::{Error, Result};
use crate::journal::{PointInTime, SnapshotFile};
use crate::plugin::Plugin;

fn shown(snapshot: &SnapshotFile) -> Value {
    json!({"seq": snapshot.seq, "at": snapshot.at, "file": snapshot.path.display().to_string()})
}

pub fn snapshots(plugin: &Plugin, _: &Request<'_>) -> Result<Reply> {
    let snapshots: Vec<Value> = plugin.journal().snapshots().iter().map(shown).collect();
    Ok(Reply::json(&json!({"code": 0, "data": snapshots})))
}

/// The newest where nothing has changed since; none where nothing was ever journaled.
pub fn take(plugin: &Plugin, _: &Request<'_>) -> Result<Reply> {
    let snapshot = plugin.journal().take_snapshot()?;
    Ok(Reply::json(&json!({"code": 0, "data": snapshot.as_ref().map(shown)})))
}

/// A diff as rollbackJournal and importJournal show it: whatever kind the proxies are of.
pub fn summary(diff: &Diff) -> Value {
    let names = |keys: &[ProxyKey]| -> Vec<Value> {
        keys.iter().map(|(kind, key)| json!({"kind": kind.name(), "key": key.as_ref()})).collect()
    };
    json!({
        "added": names(&diff.added),
        "updated": names(&diff.updated),
        "removed": names(&diff.removed),
        "unchanged": diff.unchanged,
    })
}

/// To the change `to_seq`, the time `to_time` (milliseconds UTC), or the snapshot of change `to_snapshot`.
pub fn rollback(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let (seq, time, snapshot) =
        (request.number("to_seq")?, request.number("to_time")?, request.number("to_snapshot")?);
    let moment = match (seq, time, snapshot) {
        (Some(seq), None, None) => PointInTime::Seq(seq),
        (None, Some(time), None) => PointInTime::Time(i64::try_from(time).unwrap_or(i64::MAX)),
        (None, None, Some(seq)) if plugin.journal().snapshots().iter().any(|snapshot| snapshot.seq == seq) => {
            PointInTime::Seq(seq)
        }
        (None, None, Some(seq)) => {
            return Err(Error::invalid(format!("there is no snapshot of change {seq}: see listJournalSnapshots")));
        }
        _ => return Err(Error::invalid("one of to_seq, to_time and to_snapshot says where to go back to")),
    };
    let dry_run = request.flag("dry_run", false)?;
    let (to, then) = plugin.journal().past(moment)?;
    let before = plugin.journal().seq();
    let then = then.into_iter().map(|(key, entry)| (key, Desired::from(entry))).collect();
    let diff = Diff::between(then, plugin.journal().entries(), true);
    let mut data = summary(&diff);
    for (name, value) in [("to", Value::from(to)), ("before", before.into()), ("dry_run", dry_run.into())] {
        set(&mut data, name, value);
    }
    if dry_run {
        return Ok(Reply::json(&json!({"code": 0, "data": data})));
    }
    let changed = plugin.change_all(diff.mutations, None, &request.cause(&format!("rollbackJournal to {to}")))?;
    Ok(replied(data, &changed))
}
