//! The whole wanted set of a scope in, the difference to what the journal has out, and into the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Request, add_of, replied};
use crate::error::{Error, Result};
use crate::journal::{Mutation, Precondition};
use crate::model::{Args, Entry, Kind, LABEL, Op, State};
use crate::plugin::Plugin;
use crate::reconcile::Key;

/// What a caller speaks for.
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

/// What is to be done so that the journal has what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<String>,
    pub updated: Vec<String>,
    pub removed: Vec<String>,
    pub precondition: usize,
    pub changes: Vec<Mutation>,
}

impl Difference {
    /// `there` are the entries that have a wanted key or are in the scope; those in the scope that are not wanted are
    /// removed where that is asked for. What was disabled or set aside stays so.
    pub fn between(
        scope: &Scope,
        mut wanted: BTreeMap<String, Args>,
        there: impl IntoIterator<Item = (Key, Entry)>,
        prune: bool,
    ) -> Difference {
        let mut difference = Difference::default();
        for (key, entry) in there {
            let expected = Some(entry.seq);
            match wanted.remove(key.1.as_ref()) {
                Some(args) if args == entry.args => difference.precondition += 1,
                Some(args) => {
                    difference.updated.push(key.1.to_string());
                    let change = |op, args| Mutation { key: key.clone(), op, args, expected: None };
                    difference.changes.push(Mutation { expected, ..change(Op::Add, Some(args)) });
                    if entry.state == State::Disabled {
                        difference.changes.push(change(Op::Set(State::Disabled), None));
                    }
                }
                None if prune && scope.has(key.0, &entry.args) => {
                    difference.removed.push(key.1.to_string());
                    difference.changes.push(Mutation { key, op: Op::Remove, args: None, expected });
                }
                None => {}
            }
        }
        for (key, args) in wanted {
            let change = Mutation {
                key: (scope.kind, Arc::from(key.as_str())),
                op: Op::Add,
                args: Some(args),
                expected: Some(0),
            };
            difference.changes.push(change);
            difference.added.push(key);
        }
        difference
    }
}

/// The body is an array of the arguments of adds, all that is wanted of the scope.
pub fn sync(plugin: &Plugin, request: &Request<'_>) -> Result<Value> {
    let scope = Scope {
        kind: request.kind()?.unwrap_or(Kind::Pull),
        vhost: request.text("vhost").map(str::to_owned),
        app: request.text("app").map(str::to_owned),
        label: request.text("label").map(str::to_owned),
    };
    let (dry_run, prune) = (request.flag("dry_run", false)?, request.flag("prune", true)?);
    let if_seq = request.number("if_seq")?;
    let wanted = wanted(&scope, request.items()?)?;
    let entries = plugin.entries(scope.kind);
    let there = entries.into_iter().filter(|((_, key), entry)| {
        wanted.contains_key(key.as_ref()) || (prune && scope.has(scope.kind, &entry.args))
    });
    let there: Vec<_> = there.collect();
    let difference = Difference::between(&scope, wanted, there, prune);
    let data = json!({
        "added": difference.added,
        "updated": difference.updated,
        "removed": difference.removed,
        "unchanged": difference.precondition,
        "dry_run": dry_run,
    });
    let in_scope = |kind, args: &Args| scope.has(kind, args);
    let precondition = if_seq.map(|seq| Precondition { since: seq, scope: &in_scope });
    if dry_run {
        let seq = plugin.check_unchanged(precondition)?;
        return Ok(json!({"code": 0, "data": data, "journal": {"seq": seq}}));
    }
    let changed = plugin.change_all(difference.changes, precondition, &request.cause("syncJournal"))?;
    Ok(replied(data, &changed))
}

/// What is wanted, by its key. An item that is no good refuses the whole call: half a set is none.
fn wanted(scope: &Scope, items: Vec<Value>) -> Result<BTreeMap<String, Args>> {
    let mut wanted = BTreeMap::new();
    for (index, mut item) in items.into_iter().enumerate() {
        if let (Some(label), Value::Object(object)) = (&scope.label, &mut item) {
            object.entry(LABEL).or_insert_with(|| Value::from(label.as_str()));
        }
        let at = |error: Error| error.context(format!("item {index} of the body (the first is 0)"));
        let (key, args) = add_of(scope.kind, &item).map_err(at)?;
        if !scope.has(scope.kind, &args) {
            return Err(at(Error::invalid(format!("{key} is outside of the scope that the call names"))));
        }
        if wanted.insert(key.clone(), args).is_some() {
            return Err(at(Error::invalid(format!("{key} is there twice"))));
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope = Scope { kind: Kind::Pull, vhost: None, app: None, label: None };

    fn args(url: &str) -> Args {
        Args::from_pairs([(b"url".as_slice(), url.as_bytes()), (b"app", b"live")]).unwrap()
    }

    fn entry(url: &str, seq: u64, state: State) -> Entry {
        Entry { args: args(url), state, seq, created_at: 0, updated_at: 0 }
    }

    fn there(entries: &[(&str, &str, State)]) -> Vec<(Key, Entry)> {
        let entries = entries.iter().zip(1..);
        entries.map(|((key, url, state), seq)| ((Kind::Pull, (*key).into()), entry(url, seq, *state))).collect()
    }

    fn wanted(wanted: &[(&str, &str)]) -> BTreeMap<String, Args> {
        wanted.iter().map(|(key, url)| ((*key).to_owned(), args(url))).collect()
    }

    fn ops(difference: &Difference) -> Vec<(&str, &str, Option<u64>)> {
        let changes = difference.changes.iter();
        changes.map(|change| (change.key.1.as_ref(), change.op.name(), change.expected)).collect()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let there = || {
            there(&[
                ("gone", "rtsp://0", State::Enabled),
                ("moved", "rtsp://1", State::Enabled),
                ("off", "rtsp://2", State::Disabled),
                ("same", "rtsp://3", State::Quarantined),
            ])
        };
        let wanted =
            || wanted(&[("moved", "rtsp://9"), ("new", "rtsp://5"), ("off", "rtsp://8"), ("same", "rtsp://3")]);
        let difference = Difference::between(&SCOPE, wanted(), there(), true);
        assert_eq!(
            ops(&difference),
            [
                ("gone", "remove", Some(1)),
                ("moved", "add", Some(2)),
                ("off", "add", Some(3)),
                ("off", "disable", None),
                ("new", "add", Some(0)),
            ]
        );
        assert_eq!(difference.precondition, 1);
        assert_eq!(
            (difference.added, difference.updated),
            (vec!["new".into()], vec!["moved".into(), "off".into()])
        );
        let careful = Difference::between(&SCOPE, wanted(), there(), false);
        assert!(careful.removed.is_empty() && ops(&careful).len() == 4);
    }

    #[test]
    fn a_scope_has_what_all_that_it_names_says() {
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
