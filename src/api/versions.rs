//! Snapshots and rollback. A rollback is journaled like any other change, so it can be undone in the same way.

use serde::{Deserialize, Serialize};

use super::diff::{Desired, Diff, Showing, Shown};
use super::reply::Name;
use super::{Reply, Request};
use crate::error::{Error, Result};
use crate::journal::{PointInTime, Precondition, Scope};
use crate::model::Entry;
use crate::plugin::Plugin;

pub fn snapshots(plugin: &Plugin, _: &Request<'_>) -> Result<Reply> {
    Ok(Reply::success(plugin.journal().paths().list_snapshots()))
}

/// Returns the newest snapshot if nothing has changed since, and nothing if nothing was ever journaled.
pub fn take(plugin: &Plugin, _: &Request<'_>) -> Result<Reply> {
    Ok(Reply::success(plugin.journal().take_snapshot()?))
}

#[derive(Deserialize)]
struct Rollback {
    to_seq: Option<u64>,
    /// Milliseconds since 1970-01-01 UTC.
    to_time: Option<i64>,
    /// The number of the last change in the snapshot.
    to_snapshot: Option<u64>,
    if_seq: Option<u64>,
}

#[derive(Serialize)]
struct RolledBack<'a> {
    #[serde(flatten)]
    diff: Shown<'a, Name<'a>>,
    /// The change to return to, and the one before the rollback.
    to: u64,
    before: u64,
}

pub fn rollback(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Rollback { to_seq, to_time, to_snapshot, if_seq } = request.args()?;
    let showing: Showing = request.args()?;
    let moment = match (to_seq, to_time, to_snapshot) {
        (Some(seq), None, None) => PointInTime::Seq(seq),
        (None, Some(time), None) => PointInTime::Time(time),
        (None, None, Some(seq))
            if plugin.journal().paths().list_snapshots().iter().any(|snapshot| snapshot.seq == seq) =>
        {
            PointInTime::Seq(seq)
        }
        (None, None, Some(seq)) => {
            return Err(Error::invalid(format!("there is no snapshot of change {seq}: see listJournalSnapshots")));
        }
        _ => return Err(Error::invalid("give exactly one of to_seq, to_time and to_snapshot")),
    };
    let (to, then) = plugin.journal().past(moment)?;
    let before = plugin.journal().seq();
    let desired = |entry: Entry| Desired { args: entry.args, state: Some(entry.state) };
    let then = then.into_iter().map(|(key, entry)| (key, desired(entry))).collect();
    let mut diff = Diff::between(then, plugin.journal().entries(), true);
    let mutations = std::mem::take(&mut diff.mutations);
    let shown = RolledBack { diff: diff.shown(plugin, &mutations, Name::from, showing), to, before };
    let precondition = if_seq.map(|since| Precondition { since, scope: Scope::With(&|_, _| true) });
    if showing.dry_run {
        plugin.journal().check_unchanged(precondition)?;
        return Ok(Reply::success(shown));
    }
    let changed =
        plugin.change_all(mutations, precondition, &request.cause(&format!("rollbackJournal to {to}")))?;
    Ok(Reply::changed(&changed, shown))
}
