//! What the journal has now, and what has become of it: in pages that stay in step while it changes.

use serde_json::{Value, json};

use super::{Reply, Request, refusal};
use crate::error::{Error, Result};
use crate::journal::HistoryFilter;
use crate::model::{Args, Kind, LABEL, State, redact_all, redact_value};
use crate::plugin::Plugin;

/// The longest walk for a page: a filter that lets little through is asked again from where it came.
const MOST_LOOKED_AT: usize = 100_000;

/// Entries in the order of kind and key. `next` of the reply is `after` of the next call; none at the end.
pub fn entries(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let (kind, prefix, label) =
        (request.kind()?, request.text("prefix").unwrap_or_default(), request.text("label"));
    let since = request.time("since")?;
    let state = match request.text("state") {
        None => None,
        Some(name) => Some(State::from_name(name).ok_or_else(|| {
            let known: Vec<&str> = State::ALL.iter().map(|state| state.name()).collect();
            Error::invalid(format!("state={name:?} is none of {}", known.join(", ")))
        })?),
    };
    let (limit, reveal) = (request.limit()?, request.flag("reveal", false)?);
    let mut cursor = request.text("after").map(cursor).transpose()?;
    plugin.journal().check_loaded()?;
    let (mut found, mut looked_at, mut ended) = (Vec::new(), 0, false);
    while found.len() < limit && looked_at < MOST_LOOKED_AT && !ended {
        let piece = plugin.journal().after(cursor.as_ref(), 1000);
        ended = piece.is_empty();
        for ((its_kind, key), entry) in piece {
            if found.len() == limit {
                break;
            }
            looked_at += 1;
            cursor = Some((its_kind, key.clone()));
            let fits = kind.is_none_or(|kind| kind == its_kind)
                && key.starts_with(prefix)
                && state.is_none_or(|state| state == entry.state)
                && since.is_none_or(|since| entry.updated_at >= since)
                && label.is_none_or(|label| entry.args.read().get(LABEL) == Some(label));
            if fits {
                found.push(json!({
                    "kind": its_kind.name(),
                    "key": key.as_ref(),
                    "state": entry.state.name(),
                    "seq": entry.seq,
                    "created_at": entry.created_at,
                    "updated_at": entry.updated_at,
                    "args": shown(&entry.args, reveal),
                }));
            }
        }
    }
    let next = cursor.filter(|_| !ended).map(|(kind, key)| format!("{}/{key}", kind.name()));
    Ok(Reply::json(&json!({"code": 0, "data": found, "next": next, "journal": {"seq": plugin.journal().seq()}})))
}

/// Changes, the last first. `next` of the reply is `before` of the next call.
pub fn history(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let (limit, reveal) = (request.limit()?, request.flag("reveal", false)?);
    let filter = HistoryFilter {
        kind: request.kind()?,
        prefix: request.text("prefix").map(str::to_owned),
        before: request.number("before")?,
        after: 0,
        since: request.time("since")?,
        until: request.time("until")?,
        limit,
    };
    let changes = plugin.journal().history(&filter)?;
    let next = (changes.len() == limit).then(|| changes.last().map(|change| change.seq)).flatten();
    let shown: Vec<Value> = changes
        .into_iter()
        .map(|change| {
            json!({
                "seq": change.seq,
                "at": change.at,
                "op": change.op.name(),
                "kind": change.kind.name(),
                "key": change.key.as_ref(),
                "args": change.args.as_ref().map(|args| shown(args, reveal)),
                "origin": change.origin,
                "reason": change.reason,
            })
        })
        .collect();
    Ok(Reply::json(&json!({"code": 0, "data": shown, "next": next})))
}

fn cursor(text: &str) -> Result<(Kind, std::sync::Arc<str>)> {
    let parts = text.split_once('/').and_then(|(kind, key)| Some((Kind::from_name(kind)?, key.into())));
    parts.ok_or_else(|| Error::invalid(format!("after={text:?} is not what a page of this list gave as next")))
}

/// Arguments, less the credentials in their URLs unless they are asked for.
pub fn shown(args: &Args, reveal: bool) -> Value {
    match serde_json::from_str(args.as_str()) {
        Ok(object @ Value::Object(_)) if reveal => object,
        Ok(object @ Value::Object(_)) => redact_all(object, redact_value),
        _ => refusal(super::OTHER_FAILED, "these arguments cannot be read"),
    }
}
