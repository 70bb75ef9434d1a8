//! Disables, enables, and releases proxies.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::reply::{NOT_FOUND, Outcome};
use super::{Reply, Request, key_of};
use crate::error::{Error, Result};
use crate::journal::Mutation;
use crate::model::{Kind, Op, State};
use crate::plugin::Plugin;

#[derive(Deserialize)]
struct Args<'a> {
    state: Option<Wanted>,
    key: Option<&'a str>,
    kind: Option<Kind>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Enabled,
    Disabled,
}

#[derive(Serialize)]
struct Done {
    changed: usize,
    items: Vec<Outcome>,
}

/// The proxies are given by `key` (with `kind`, or of every kind), or by the body: an array of keys or of objects with
/// `key` and `kind`.
pub fn set(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let args: Args<'_> = request.args()?;
    let state = match args.state {
        Some(Wanted::Enabled) => State::Enabled,
        Some(Wanted::Disabled) => State::Disabled,
        None => return Err(Error::invalid("state says whether they are to be enabled or disabled")),
    };
    let items = match args.key {
        Some(key) => vec![json!({"key": key, "kind": args.kind})],
        None => request.items()?,
    };
    let (mut changes, mut answers) = (Vec::new(), Vec::new());
    for item in items {
        let Some(key) = key_of(&item) else {
            answers.push(Outcome::no_key());
            continue;
        };
        let only = item.get("kind").and_then(Value::as_str);
        let kinds = Kind::ALL.iter().copied().filter(|kind| only.is_none_or(|only| only == kind.name()));
        let found: Vec<Kind> = kinds.filter(|kind| plugin.journal().get(*kind, key).is_some()).collect();
        let none = Outcome::refused(NOT_FOUND, "the journal has no such proxy");
        answers.push(Outcome {
            key: Some(key.to_owned()),
            ..if found.is_empty() { none } else { Outcome::default() }
        });
        let change = |kind| Mutation { key: (kind, key.into()), op: Op::Set(state), args: None, expected: None };
        changes.extend(found.into_iter().map(change));
    }
    let changed = plugin.change_all(changes, None, &request.cause("setJournalState"))?;
    Ok(Reply::changed(&changed, Done { changed: changed.count, items: answers }))
}
