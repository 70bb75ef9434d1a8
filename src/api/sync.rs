//! syncJournal: makes a scope of the journal have exactly the given proxies, and replies with the diff.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::diff::{Desired, Diff, Showing};
use super::file::FILE_LABEL;
use super::{Reply, Request, add_of};
use crate::error::{Error, Result};
use crate::journal::{self, Precondition};
use crate::model::{Args, Kind, LABEL, ProxyKey};
use crate::plugin::Plugin;

/// The part of the journal that the call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub kind: Kind,
    pub vhost: Option<String>,
    pub app: Option<String>,
    pub label: Option<String>,
}

impl Scope {
    pub fn has(&self, kind: Kind, args: &Args) -> bool {
        if kind != self.kind {
            return false;
        }
        if self.vhost.is_none() && self.app.is_none() && self.label.is_none() {
            return true;
        }
        let read = args.read();
        let is =
            |wanted: &Option<String>, name| wanted.as_deref().is_none_or(|wanted| read.get(name) == Some(wanted));
        is(&self.vhost, "vhost") && is(&self.app, "app") && is(&self.label, LABEL)
    }
}

#[derive(Deserialize)]
struct Call {
    kind: Option<Kind>,
    vhost: Option<String>,
    app: Option<String>,
    label: Option<String>,
    prune: Option<bool>,
    if_seq: Option<u64>,
}

/// The body is an array of the arguments of adds: all proxies that the scope should have.
pub fn sync(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Call { kind, vhost, app, label, prune, if_seq } = request.args()?;
    let showing: Showing = request.args()?;
    if label.as_deref() == Some(FILE_LABEL) && plugin.journal().settings().file.is_some() {
        let why =
            format!("the label {FILE_LABEL:?} is that of the watched file: change that, or use another label");
        return Err(Error::invalid(why));
    }
    let (scope, prune) = (Scope { kind: kind.unwrap_or(Kind::Pull), vhost, app, label }, prune.unwrap_or(true));
    let desired = desired(&scope, request.items()?)?;
    plugin.journal().check_loaded()?;
    // What changes while it is compared counts as later.
    let seq = plugin.journal().seq();
    let present = plugin
        .journal()
        .entries()
        .filter(|(key, entry)| desired.contains_key(key) || (prune && scope.has(key.0, &entry.args)));
    let present: Vec<_> = present.collect();
    let mut diff = Diff::between(desired, present, prune);
    let mutations = std::mem::take(&mut diff.mutations);
    let shown = diff.shown(plugin, &mutations, |(_, key)| key.as_ref(), showing);
    let in_scope = |kind, args: &Args| scope.has(kind, args);
    let precondition = if_seq.map(|since| Precondition { since, scope: journal::Scope::With(&in_scope) });
    if showing.dry_run {
        plugin.journal().check_unchanged(precondition)?;
        return Ok(Reply::as_of(seq, shown));
    }
    let changed = plugin.change_all(mutations, precondition, &request.cause("syncJournal"))?;
    Ok(Reply::changed(&changed, shown))
}

/// The desired proxies by key. One invalid item rejects the whole call.
fn desired(scope: &Scope, items: Vec<Value>) -> Result<BTreeMap<ProxyKey, Desired>> {
    let mut desired = BTreeMap::new();
    for (index, mut item) in items.into_iter().enumerate() {
        if let (Some(label), Value::Object(object)) = (&scope.label, &mut item) {
            object.entry(LABEL).or_insert_with(|| Value::from(label.as_str()));
        }
        let at = |error: Error| error.context(format!("item {index} of the body (the first is 0)"));
        let (key, args) = add_of(scope.kind, &item).map_err(at)?;
        if !scope.has(scope.kind, &args) {
            return Err(at(Error::invalid(format!("{key} is outside of the scope of this call"))));
        }
        if desired.insert((scope.kind, key.as_str().into()), Desired { args, state: None }).is_some() {
            return Err(at(Error::invalid(format!("{key} appears twice"))));
        }
    }
    Ok(desired)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope = Scope { kind: Kind::Pull, vhost: None, app: None, label: None };

    #[test]
    fn a_scope_has_the_proxies_that_match_all_that_it_names() {
        let args = Args::from_pairs([
            (b"vhost".as_slice(), b"v".as_slice()),
            (b"app", b"live"),
            (b"journal_label", b"site 1"),
        ])
        .unwrap();
        let scope = |vhost: Option<&str>, app: Option<&str>, label: Option<&str>| Scope {
            kind: Kind::Pull,
            vhost: vhost.map(str::to_owned),
            app: app.map(str::to_owned),
            label: label.map(str::to_owned),
        };
        for (scope, has) in [
            (SCOPE, true),
            (scope(Some("v"), None, None), true),
            (scope(Some("v"), Some("live"), Some("site 1")), true),
            (scope(Some("w"), None, None), false),
            (scope(None, Some("lives"), None), false),
            (scope(None, None, Some("site 2")), false),
            (Scope { kind: Kind::Push, ..SCOPE }, false),
        ] {
            assert_eq!(scope.has(Kind::Pull, &args), has, "{scope:?}");
        }
    }
}
