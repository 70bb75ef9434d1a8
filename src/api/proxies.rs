//! Calls that name proxies: they add, delete, enable or disable many in one call and one transaction, with a result for
//! each, in order; or they start what is missing.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::reply::{INVALID_ARGS, NOT_FOUND, OTHER_FAILED, Outcome};
use super::{Reply, Request, add_of};
use crate::error::{Error, Result};
use crate::journal::Mutation;
use crate::model::{Kind, Op, State};
use crate::plugin::Plugin;

/// The body has the arguments of addStreamProxy for each item. The reconciler starts the proxies: no reply waits for a
/// camera.
pub fn add(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let (mut changes, mut answers, mut added) = (Vec::new(), Vec::new(), HashSet::new());
    for item in request.items()? {
        answers.push(match add_of(Kind::Pull, &item) {
            Err(error) => Outcome::refused(INVALID_ARGS, error.message),
            Ok((key, _)) if plugin.journal().wants(Kind::Pull, &key, 0) || !added.insert(key.clone()) => {
                Outcome { key: Some(key), ..Outcome::refused(OTHER_FAILED, "This stream already exists") }
            }
            Ok((key, args)) => {
                changes.push(Mutation {
                    key: (Kind::Pull, Arc::from(key.as_str())),
                    op: Op::Add,
                    args: Some(args),
                    expected: None,
                });
                Outcome::of(&key)
            }
        });
    }
    let changed = plugin.change_all(changes, None, &request.cause("addStreamProxies"))?;
    Ok(Reply::changed(&changed, answers))
}

/// The body has keys, as strings or as objects with a member `key`.
pub fn remove(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let mut changes = Vec::new();
    let answers = for_each_key(&request.items()?, |key, _| {
        let flag = plugin.journal().get(Kind::Pull, key).is_some();
        changes.push(Mutation { key: (Kind::Pull, key.into()), op: Op::Remove, args: None, expected: None });
        Outcome { flag: Some(flag), ..Outcome::of(key) }
    });
    let changed = plugin.change_all(changes, None, &request.cause("delStreamProxies"))?;
    Ok(Reply::changed(&changed, answers))
}

#[derive(Deserialize)]
struct NewState<'a> {
    state: Option<Wanted>,
    key: Option<&'a str>,
    kind: Option<Kind>,
}

#[derive(Deserialize)]
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
pub fn set_state(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let args: NewState<'_> = request.args()?;
    let state = match args.state {
        Some(Wanted::Enabled) => State::Enabled,
        Some(Wanted::Disabled) => State::Disabled,
        None => return Err(Error::invalid("state says whether they are to be enabled or disabled")),
    };
    let items = match args.key {
        Some(key) => vec![json!({"key": key, "kind": args.kind})],
        None => request.items()?,
    };
    let mut changes = Vec::new();
    let items = for_each_key(&items, |key, only| {
        let before = changes.len();
        for kind in Kind::ALL.iter().copied().filter(|kind| only.is_none_or(|only| only == kind.name())) {
            if plugin.journal().get(kind, key).is_some() {
                changes.push(Mutation { key: (kind, key.into()), op: Op::Set(state), args: None, expected: None });
            }
        }
        let none = Outcome::refused(NOT_FOUND, "the journal has no such proxy");
        Outcome { key: Some(key.to_owned()), ..if changes.len() == before { none } else { Outcome::default() } }
    });
    let changed = plugin.change_all(changes, None, &request.cause("setJournalState"))?;
    Ok(Reply::changed(&changed, Done { changed: changed.count, items }))
}

/// Calls `act` with the key in each item (a string, or an object with a member `key`), and with its `kind` if it has
/// one.
fn for_each_key(items: &[Value], mut act: impl FnMut(&str, Option<&str>) -> Outcome) -> Vec<Outcome> {
    let answer = |item: &Value| match item.as_str().or_else(|| item.get("key")?.as_str()) {
        Some(key) => act(key, item.get("kind").and_then(Value::as_str)),
        None => Outcome::refused(INVALID_ARGS, "expected a key or an object with `key`"),
    };
    items.iter().map(answer).collect()
}

#[derive(Deserialize)]
struct Restore<'a> {
    key: Option<&'a str>,
}

#[derive(Serialize)]
struct Begun {
    wanted: u64,
}

/// Starts all enabled proxies that are missing, or the proxies with one `key`, which may also be dormant.
pub fn restore(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Restore { key } = request.args()?;
    plugin.journal().check_loaded()?;
    let wanted = plugin.restore(key)?;
    if let Some(key) = key.filter(|_| wanted == 0) {
        let why =
            format!("journal: no proxy {key:?} is enabled or dormant, and within its hours: see listJournal");
        return Ok(Reply::json(&Outcome::refused(NOT_FOUND, why)));
    }
    Ok(Reply::success(Begun { wanted }))
}
