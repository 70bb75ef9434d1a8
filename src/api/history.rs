//! The history of the journal, change by change or in groups of those that were made together.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::args::Limit;
use super::list::{in_use, shown};
use super::search::Search;
use super::{Reply, Request};
use crate::error::Result;
use crate::journal::HistoryFilter;
use crate::model::{Change, InUse, Kind};
use crate::plugin::Plugin;

/// The maximum number of changes that one call looks at, and how many are read at once.
const MOST_LOOKED_AT: usize = 100_000;
const PAGE: usize = 1000;
/// How many changes of a group are shown.
const SHOWN: usize = 20;

#[derive(Deserialize)]
struct Past<'a> {
    kind: Option<Kind>,
    prefix: Option<String>,
    before: Option<u64>,
    since: Option<i64>,
    until: Option<i64>,
    #[serde(default)]
    text: &'a str,
    #[serde(default)]
    group: bool,
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

impl Happened {
    fn of(change: Change, reveal: bool) -> Happened {
        Happened {
            seq: change.seq,
            at: change.at,
            op: change.op.name(),
            kind: change.kind,
            key: change.key,
            in_use: change.args.as_ref().and_then(|args| in_use(args, reveal)),
            args: change.args.map(|args| shown(&args, reveal)),
            origin: change.origin,
            reason: change.reason,
        }
    }
}

/// Changes that one call made at once.
#[derive(Serialize)]
struct Group {
    seq: u64,
    first_seq: u64,
    at: i64,
    origin: String,
    reason: String,
    ops: BTreeMap<&'static str, usize>,
    count: usize,
    /// It goes on at `next`, if that call has more of it.
    #[serde(skip_serializing_if = "is_false")]
    more: bool,
    items: Vec<Happened>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Group {
    fn of(change: Change, reveal: bool) -> Group {
        let mut group = Group {
            seq: change.seq,
            first_seq: change.seq,
            at: change.at,
            origin: change.origin.clone(),
            reason: change.reason.clone(),
            ops: BTreeMap::new(),
            count: 0,
            more: false,
            items: Vec::new(),
        };
        group.take(change, reveal);
        group
    }

    fn has(&self, change: &Change) -> bool {
        (self.at, &self.origin, &self.reason) == (change.at, &change.origin, &change.reason)
    }

    fn take(&mut self, change: Change, reveal: bool) {
        self.first_seq = change.seq;
        *self.ops.entry(change.op.name()).or_default() += 1;
        self.count += 1;
        if self.items.len() < SHOWN {
            self.items.push(Happened::of(change, reveal));
        }
    }
}

/// Changes, the last first. Pass `next` of the reply as `before` of the next call.
pub fn history(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    read(plugin, request, MOST_LOOKED_AT)
}

/// Looks at about `most_looked_at` changes at most.
pub fn read(plugin: &Plugin, request: &Request<'_>, most_looked_at: usize) -> Result<Reply> {
    let Past { kind, prefix, mut before, since, until, text, group, limit: Limit(limit), reveal } =
        request.args()?;
    let search = Search::new(text, reveal);
    let (mut changes, mut groups): (Vec<Happened>, Vec<Group>) = (Vec::new(), Vec::new());
    let mut looked_at = 0;
    let next = 'pages: loop {
        // One too many shows that there are more.
        let most = if group || !text.is_empty() { PAGE } else { limit + 1 };
        let prefix = prefix.clone();
        let filter = HistoryFilter { kind, prefix, before, since, until, limit: most, ..HistoryFilter::default() };
        let page = plugin.journal().history(&filter)?;
        if page.is_empty() {
            break None;
        }
        looked_at += page.len();
        for change in page {
            let seq = change.seq;
            if finds(&search, &change) {
                let is_full = groups.len().max(changes.len()) == limit;
                match groups.last_mut() {
                    Some(last) if last.has(&change) => last.take(change, reveal),
                    _ if is_full => break 'pages before,
                    _ if group => groups.push(Group::of(change, reveal)),
                    _ => changes.push(Happened::of(change, reveal)),
                }
            }
            before = Some(seq);
        }
        if looked_at >= most_looked_at {
            if let Some(last) = groups.last_mut() {
                last.more = true;
            }
            break before;
        }
    };
    Ok(if group { Reply::page(groups, next, None) } else { Reply::page(changes, next, None) })
}

fn finds(search: &Search, change: &Change) -> bool {
    let Change { kind, key, args, origin, reason, .. } = change;
    let in_args = || args.as_ref().is_some_and(|args| search.finds(*kind, key, args));
    [key, origin.as_str(), reason].iter().any(|text| search.is_in(text)) || in_args()
}
