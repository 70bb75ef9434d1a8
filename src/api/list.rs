//! The entries and the history of the journal, in pages that stay consistent while it changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::args::Limit;
use super::reply::{OTHER_FAILED, Outcome};
use super::{Reply, Request};
use crate::error::{Error, Result};
use crate::journal::HistoryFilter;
use crate::model::{
    Args, BACKUP_URLS, Change, Entry, Hours, InUse, Kind, LABEL, Options, ProxyKey, State, redact_all,
    redact_value, urls_of,
};
use crate::plugin::Plugin;

/// The maximum number of entries that one call looks at; with a selective filter the client has to continue.
const MOST_LOOKED_AT: usize = 100_000;

#[derive(Deserialize)]
struct Listing<'a> {
    kind: Option<Kind>,
    #[serde(default)]
    prefix: &'a str,
    label: Option<&'a str>,
    state: Option<State>,
    since: Option<i64>,
    after: Option<&'a str>,
    #[serde(default)]
    limit: Limit,
    #[serde(default)]
    reveal: bool,
}

#[derive(Serialize)]
struct Listed {
    kind: Kind,
    key: Arc<str>,
    state: State,
    seq: u64,
    created_at: i64,
    updated_at: i64,
    /// Only if it has hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    hours: Option<HoursStatus>,
    /// Only if it plays from a backup URL, or did so last.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use: Option<InUse>,
    args: Value,
}

/// Whether it is within its hours, and when they next begin or end.
#[derive(Serialize)]
struct HoursStatus {
    open: bool,
    next_change_at: Option<i64>,
}

impl HoursStatus {
    fn of(hours: &Hours, now: i64) -> HoursStatus {
        HoursStatus { open: hours.include(now), next_change_at: hours.next_change(now) }
    }
}

impl Listing<'_> {
    fn has(&self, (kind, key): &ProxyKey, entry: &Entry) -> bool {
        self.kind.is_none_or(|its| its == *kind)
            && key.starts_with(self.prefix)
            && self.state.is_none_or(|state| state == entry.state)
            && self.since.is_none_or(|since| entry.updated_at >= since)
            && self.label.is_none_or(|label| entry.args.read().get(LABEL) == Some(label))
    }
}

/// Entries ordered by kind and key. Pass `next` of the reply as `after` of the next call; it is missing at the end.
pub fn entries(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let args: Listing<'_> = request.args()?;
    let mut cursor = args.after.map(cursor).transpose()?;
    plugin.journal().check_loaded()?;
    let now = plugin.journal().now_ms();
    let (mut found, mut looked_at, mut ended) = (Vec::new(), 0, false);
    while found.len() < args.limit.0 && looked_at < MOST_LOOKED_AT && !ended {
        let piece = plugin.journal().after(cursor.as_ref(), 1000);
        ended = piece.is_empty();
        for (name, entry) in piece {
            if found.len() == args.limit.0 {
                break;
            }
            looked_at += 1;
            if args.has(&name, &entry) {
                let (kind, key) = name.clone();
                let Entry { args: its, state, seq, created_at, updated_at } = entry;
                found.push(Listed {
                    kind,
                    key,
                    state,
                    seq,
                    created_at,
                    updated_at,
                    hours: its.hours().map(|hours| HoursStatus::of(hours, now)),
                    in_use: in_use(&its, args.reveal),
                    args: shown(&its, args.reveal),
                });
            }
            cursor = Some(name);
        }
    }
    let next = cursor.filter(|_| !ended).map(|(kind, key)| format!("{}/{key}", kind.name()));
    Ok(Reply::page(found, next, Some(plugin.journal().seq())))
}

#[derive(Deserialize)]
struct Past {
    kind: Option<Kind>,
    prefix: Option<String>,
    before: Option<u64>,
    since: Option<i64>,
    until: Option<i64>,
    #[serde(default)]
    limit: Limit,
    #[serde(default)]
    reveal: bool,
}

#[derive(Serialize)]
struct Happened {
    seq: u64,
    at: i64,
    op: &'static str,
    kind: Kind,
    key: Arc<str>,
    args: Option<Value>,
    /// Only if it played from a backup URL then.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use: Option<InUse>,
    origin: String,
    reason: String,
}

/// Changes, the last first. Pass `next` of the reply as `before` of the next call.
pub fn history(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Past { kind, prefix, before, since, until, limit, reveal } = request.args()?;
    let filter = HistoryFilter { kind, prefix, before, since, until, limit: limit.0, ..HistoryFilter::default() };
    let changes = plugin.journal().history(&filter)?;
    let next = (changes.len() == limit.0).then(|| changes.last().map(|change| change.seq)).flatten();
    let shown = |change: Change| Happened {
        seq: change.seq,
        at: change.at,
        op: change.op.name(),
        kind: change.kind,
        key: change.key,
        in_use: change.args.as_ref().and_then(|args| in_use(args, reveal)),
        args: change.args.map(|args| shown(&args, reveal)),
        origin: change.origin,
        reason: change.reason,
    };
    Ok(Reply::page(changes.into_iter().map(shown).collect(), next, None))
}

fn cursor(text: &str) -> Result<ProxyKey> {
    let parts = text.split_once('/').and_then(|(kind, key)| Some((Kind::from_name(kind)?, key.into())));
    parts.ok_or_else(|| Error::invalid(format!("after={text:?} is not a next of this list")))
}

/// The backup URL that it plays from.
pub fn in_use(args: &Args, reveal: bool) -> Option<InUse> {
    let in_use = args.in_use()?;
    let url = if reveal { in_use.url.clone() } else { redact_value(&in_use.url) };
    Some(InUse { url, ..in_use.clone() })
}

/// Arguments, without the credentials in URLs unless `reveal` is set.
pub fn shown(args: &Args, reveal: bool) -> Value {
    match serde_json::from_str(args.as_str()) {
        Ok(Value::Object(mut object)) => {
            // Not what anybody has asked for.
            object.retain(|name, _| !Options::is_noted(name));
            let backups = object.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case(BACKUP_URLS));
            for (_, value) in backups {
                if let Some(urls) = value.as_str().and_then(urls_of) {
                    *value = urls.into();
                }
            }
            let object = Value::Object(object);
            if reveal { object } else { redact_all(object, redact_value) }
        }
        _ => json!(Outcome::refused(OTHER_FAILED, "these arguments cannot be read")),
    }
}
