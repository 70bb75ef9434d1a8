//! Proxies are disabled without being deleted, enabled, and released from quarantine.

use serde_json::{Value, json};

use super::{NOT_FOUND, Reply, Request, key_of, no_key, replied};
use crate::error::{Error, Result};
use crate::journal::Mutation;
use crate::model::{Kind, Op, State};
use crate::plugin::Plugin;

/// `state` is enabled or disabled; the proxies are `key` (of `kind`, or of every kind that has it), or the body: an array
/// of keys or of objects with `key` and `kind`.
pub fn set(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let state = match request.text("state") {
        Some("enabled") => State::Enabled,
        Some("disabled") => State::Disabled,
        other => {
            let given = other.unwrap_or_default();
            return Err(Error::invalid(format!("state={given:?} is neither enabled nor disabled")));
        }
    };
    let items = match request.text("key") {
        Some(key) => vec![json!({"key": key, "kind": request.kind()?.map(Kind::name)})],
        None => request.items()?,
    };
    let (mut changes, mut answers) = (Vec::new(), Vec::new());
    for item in items {
        let Some(key) = key_of(&item) else {
            answers.push(no_key());
            continue;
        };
        let only = item.get("kind").and_then(Value::as_str);
        let kinds = Kind::ALL.iter().copied().filter(|kind| only.is_none_or(|only| only == kind.name()));
        let found: Vec<Kind> = kinds.filter(|kind| plugin.journal().get(*kind, key).is_some()).collect();
        answers.push(match found.is_empty() {
            true => json!({"code": NOT_FOUND, "msg": "the journal has no such proxy", "key": key}),
            false => json!({"code": 0, "key": key}),
        });
        let change = |kind| Mutation { key: (kind, key.into()), op: Op::Set(state), args: None, expected: None };
        changes.extend(found.into_iter().map(change));
    }
    let changed = plugin.change_all(changes, None, &request.cause("setJournalState"))?;
    let mut data = json!({"changed": changed.count});
    super::set(&mut data, "items", Value::Array(answers));
    Ok(replied(data, &changed))
}
