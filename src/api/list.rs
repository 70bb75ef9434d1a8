//! The entries of the journal, in pages that stay consistent while it changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::args::Limit;
use super::reply::Outcome;
use super::search::Search;
use super::{Reply, Request};
use crate::error::{Error, Result};
use crate::model::codes::OTHER_FAILED;
use crate::model::{
    Args, BACKUP_URLS, Entry, Hours, InUse, Kind, LABEL, Options, ProxyKey, State, redact, redact_arg,
    redact_value, urls_of,
};
use crate::plugin::Plugin;
use crate::reconcile::UnhealthyProxy;

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
    #[serde(default)]
    text: &'a str,
    /// With what the server does of each.
    #[serde(default)]
    live: bool,
    doing: Option<&'a str>,
    after: Option<&'a str>,
    #[serde(default)]
    limit: Limit,
    #[serde(default)]
    reveal: bool,
}

/// What an enabled proxy can be doing.
const DOINGS: [&str; 7] = ["playing", "connecting", "retrying", "waiting", "down", "blocked", "off_hours"];

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
    /// Only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Live>,
    args: Value,
}

/// What an enabled proxy does; see the states of getJournalStatus.
#[derive(Serialize)]
struct Live {
    state: &'static str,
    attempts: u32,
    /// Which of its URLs is tried, 1 for the first; only if it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<usize>,
    last_error: String,
    next_try_at: Option<i64>,
}

impl Live {
    fn of(known: Option<UnhealthyProxy>, entry: &Entry, now: i64) -> Option<Live> {
        if entry.state != State::Enabled {
            return None;
        }
        if entry.is_off_hours(now) {
            let next_try_at = entry.args.hours().and_then(|hours| hours.next_change(now));
            return Some(Live {
                state: "off_hours",
                attempts: 0,
                url: None,
                last_error: String::new(),
                next_try_at,
            });
        }
        let UnhealthyProxy { state, attempts, url, last_error, next_try, .. } = known?;
        let next_try_at = next_try.and_then(|left| i64::try_from(left.as_millis()).ok()).map(|left| now + left);
        Some(Live { state, attempts, url, last_error: redact(&last_error), next_try_at })
    }

    /// Of each of these, where it is known.
    fn of_all(plugin: &Plugin, entries: &[(ProxyKey, Entry)], now: i64) -> Vec<Option<Live>> {
        let keys = entries.iter().map(|(key, _)| key);
        let known = match plugin.reconciler() {
            Some(reconciler) => reconciler.shown_of(keys),
            None => keys.map(|_| None).collect(),
        };
        known.into_iter().zip(entries).map(|(known, (_, entry))| Live::of(known, entry, now)).collect()
    }
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
    // A change while they are read counts as later: whoever says `if_seq` has perhaps not seen it.
    let (now, seq) = (plugin.journal().now_ms(), plugin.journal().seq());
    if let Some(doing) = args.doing.filter(|doing| !DOINGS.contains(doing)) {
        return Err(Error::invalid(format!("doing={doing:?} must be one of {}", DOINGS.join(", "))));
    }
    let search = Search::new(args.text, args.reveal);
    let (mut found, mut looked_at, mut ended) = (Vec::new(), 0, false);
    while found.len() < args.limit.0 && looked_at < MOST_LOOKED_AT && !ended {
        let piece = plugin.journal().after(cursor.as_ref(), 1000);
        ended = piece.is_empty();
        let fits = |(name, entry): &(ProxyKey, Entry)| {
            args.has(name, entry) && search.finds(name.0, &name.1, &entry.args)
        };
        let fitting: Vec<bool> = piece.iter().map(fits).collect();
        let asks = args.live || args.doing.is_some();
        let asked = piece.iter().zip(&fitting).filter(|(_, fits)| asks && **fits).map(|(its, _)| its.clone());
        let mut live = Live::of_all(plugin, &asked.collect::<Vec<_>>(), now).into_iter();
        for ((name, entry), fits) in piece.into_iter().zip(fitting) {
            if found.len() == args.limit.0 {
                break;
            }
            looked_at += 1;
            let live = if fits { live.next().flatten() } else { None };
            let does = |doing| live.as_ref().is_some_and(|live| live.state == doing);
            if fits && args.doing.is_none_or(does) {
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
                    now: live,
                    args: shown(&its, args.reveal),
                });
            }
            cursor = Some(name);
        }
    }
    let next = cursor.filter(|_| !ended).map(|(kind, key)| format!("{}/{key}", kind.name()));
    Ok(Reply::page(found, next, Some(seq)))
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

/// Arguments, without credentials unless `reveal` is set.
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
            if !reveal {
                object =
                    object.into_iter().map(|(name, value)| (name.clone(), redact_arg(&name, value))).collect();
            }
            Value::Object(object)
        }
        _ => json!(Outcome::refused(OTHER_FAILED, "these arguments cannot be read")),
    }
}
