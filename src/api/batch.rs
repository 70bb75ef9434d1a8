//! Many adds or deletes in one call and one transaction, with an answer for each, in order.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{INVALID_ARGS, OTHER_FAILED, Reply, Request, add_of, key_of, no_key, refusal, replied};
use crate::error::Result;
use crate::journal::Mutation;
use crate::model::{Kind, Op};
use crate::plugin::Plugin;

/// The arguments of addStreamProxy, once for each item. What is journaled is started by the reconciler: no answer waits
/// for a camera.
pub fn add(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let (mut changes, mut answers, mut added) = (Vec::new(), Vec::new(), HashSet::new());
    for item in request.items()? {
        answers.push(match add_of(Kind::Pull, &item) {
            Err(error) => refusal(INVALID_ARGS, error.message),
            Ok((key, _)) if plugin.journal().wants(Kind::Pull, &key, 0) || !added.insert(key.clone()) => {
                json!({"code": OTHER_FAILED, "msg": "This stream already exists", "key": key})
            }
            Ok((key, args)) => {
                changes.push(Mutation {
                    key: (Kind::Pull, Arc::from(key.as_str())),
                    op: Op::Add,
                    args: Some(args),
                    expected: None,
                });
                json!({"code": 0, "key": key})
            }
        });
    }
    let changed = plugin.change_all(changes, None, &request.cause("addStreamProxies"))?;
    Ok(replied(Value::Array(answers), &changed))
}

/// Keys, as texts or as objects with a member `key`.
pub fn remove(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let (mut changes, mut answers) = (Vec::new(), Vec::new());
    for item in request.items()? {
        let Some(key) = key_of(&item) else {
            answers.push(no_key());
            continue;
        };
        let flag = plugin.journal().get(Kind::Pull, key).is_some();
        answers.push(json!({"code": 0, "key": key, "flag": flag}));
        changes.push(Mutation { key: (Kind::Pull, key.into()), op: Op::Remove, args: None, expected: None });
    }
    let changed = plugin.change_all(changes, None, &request.cause("delStreamProxies"))?;
    Ok(replied(Value::Array(answers), &changed))
}
