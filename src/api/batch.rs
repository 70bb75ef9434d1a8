//! Many adds or deletes in one call and one transaction, with a result for each, in order.

use std::collections::HashSet;
use std::sync::Arc;

use super::reply::{INVALID_ARGS, OTHER_FAILED, Outcome};
use super::{Reply, Request, add_of, key_of};
use crate::error::Result;
use crate::journal::Mutation;
use crate::model::{Kind, Op};
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
    let (mut changes, mut answers) = (Vec::new(), Vec::new());
    for item in request.items()? {
        let Some(key) = key_of(&item) else {
            answers.push(Outcome::no_key());
            continue;
        };
        let flag = plugin.journal().get(Kind::Pull, key).is_some();
        answers.push(Outcome { flag: Some(flag), ..Outcome::of(key) });
        changes.push(Mutation { key: (Kind::Pull, key.into()), op: Op::Remove, args: None, expected: None });
    }
    let changed = plugin.change_all(changes, None, &request.cause("delStreamProxies"))?;
    Ok(Reply::changed(&changed, answers))
}
