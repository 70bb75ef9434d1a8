//! Export and import of intent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::diff::{Diff, Showing};
use super::formats::{FORMAT, Format, Mistake, VERSION, read_all};
use super::reply::{Name, Outcome};
use super::{Reply, Request};
use crate::error::Result;
use crate::journal::{Precondition, Scope};
use crate::model::codes::INVALID_ARGS;
use crate::model::{Entry, Kind, ProxyKey, State};
use crate::plugin::Plugin;

#[derive(Deserialize)]
struct Export {
    kind: Option<Kind>,
    #[serde(default)]
    reveal: bool,
}

#[derive(Serialize)]
struct Document {
    format: &'static str,
    version: u64,
    seq: u64,
    entries: Vec<Exported>,
}

#[derive(Serialize)]
struct Exported {
    kind: Kind,
    key: Arc<str>,
    state: State,
    args: Value,
}

/// Exports all entries or those of a kind. Without `reveal=1` credentials are hidden, and the document cannot be
/// imported.
pub fn export(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Export { kind: only, reveal } = request.args()?;
    plugin.journal().check_loaded()?;
    let seq = plugin.journal().seq();
    let entries = plugin.journal().entries().filter(|((kind, _), _)| only.is_none_or(|only| only == *kind));
    let exported = |((kind, key), entry): (ProxyKey, Entry)| Exported {
        kind,
        key,
        state: entry.state,
        args: super::list::shown(&entry.args, reveal),
    };
    let entries = entries.map(exported).collect();
    Ok(Reply::success(Document { format: FORMAT, version: VERSION, seq, entries }))
}

#[derive(Deserialize)]
struct Import {
    #[serde(default)]
    mode: Mode,
    if_seq: Option<u64>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Adds and replaces entries.
    #[default]
    Merge,
    /// Also removes entries that the document does not have.
    Replace,
}

/// A refused import, with all that is wrong with it.
#[derive(Serialize)]
struct Refused {
    #[serde(flatten)]
    outcome: Outcome,
    errors: Vec<Mistake>,
}

/// A mistake anywhere in the document rejects all of it.
pub fn import(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Import { mode, if_seq } = request.args()?;
    let showing: Showing = request.args()?;
    let mut desired = match read_all(request.body, Format::Any, None) {
        Ok(desired) => desired,
        Err(mistakes) => {
            let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
            let outcome = Outcome::refused(INVALID_ARGS, format!("journal: {first}"));
            return Ok(Reply::json(&Refused { outcome, errors: mistakes }));
        }
    };
    desired.values_mut().for_each(|desired| {
        desired.state.get_or_insert(State::Enabled);
    });
    plugin.journal().check_loaded()?;
    // What changes while it is compared counts as later.
    let seq = plugin.journal().seq();
    let mut diff = Diff::between(desired, plugin.journal().entries(), mode == Mode::Replace);
    let mutations = std::mem::take(&mut diff.mutations);
    let shown = diff.shown(plugin, &mutations, Name::from, showing);
    let precondition = if_seq.map(|since| Precondition { since, scope: Scope::With(&|_, _| true) });
    if showing.dry_run {
        plugin.journal().check_unchanged(precondition)?;
        return Ok(Reply::as_of(seq, shown));
    }
    let changed = plugin.change_all(mutations, precondition, &request.cause("importJournal"))?;
    Ok(Reply::changed(&changed, shown))
}
