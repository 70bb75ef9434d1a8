//! Calls that name proxies: they add, delete, enable or disable many in one call and one transaction, with a result for
//! each, in order; or they change one, or start what is missing.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::diff::{Desired, Diff};
use super::reply::Outcome;
use super::{Reply, Request, add_of, check_not_redacted};
use crate::error::{Error, Result};
use crate::journal::{Cause, Mutation, Precondition, Scope};
use crate::model::codes::{INVALID_ARGS, NOT_FOUND, OTHER_FAILED};
use crate::model::{Args, Existing, Kind, Op, ProxyKey, State};
use crate::plugin::Plugin;

/// The body has the arguments of addStreamProxy for each item. The reconciler starts the proxies: no reply waits for a
/// camera.
pub fn add(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let options: Cautious = request.args()?;
    let (mut changes, mut answers, mut named) = (Vec::new(), Vec::new(), HashSet::new());
    for item in request.items()? {
        answers.push(match add_of(Kind::Pull, &item) {
            Err(error) => Outcome::refused(INVALID_ARGS, error.message),
            Ok((key, args)) => {
                let name: ProxyKey = (Kind::Pull, key.as_str().into());
                let is_first = named.insert(name.clone());
                if plugin.journal().wants(Kind::Pull, &key, 0) || !is_first {
                    Outcome { key: Some(key), ..Outcome::refused(OTHER_FAILED, "This stream already exists") }
                } else {
                    changes.push(Mutation { key: name, op: Op::Add, args: Some(args), expected: None });
                    Outcome::of(&key)
                }
            }
        });
    }
    options.change(plugin, changes, &named, &request.cause("addStreamProxies"), |_| json!(answers))
}

/// The options of a call that names proxies.
#[derive(Deserialize)]
struct Cautious {
    #[serde(default)]
    dry_run: bool,
    if_seq: Option<u64>,
}

impl Cautious {
    /// Makes the changes, or only says that they can be made. With `if_seq`, none of `named` may have changed since, whether
    /// they are there or not.
    fn change(
        &self,
        plugin: &Plugin,
        changes: Vec<Mutation>,
        named: &HashSet<ProxyKey>,
        cause: &Cause,
        data: impl FnOnce(usize) -> Value,
    ) -> Result<Reply> {
        let precondition = self.if_seq.map(|since| Precondition { since, scope: Scope::Named(named) });
        if self.dry_run {
            plugin.journal().check_loaded()?;
            let count = changes.len();
            return Ok(Reply::as_of(plugin.journal().check_unchanged(precondition)?, data(count)));
        }
        let changed = plugin.change_all(changes, precondition, cause)?;
        Ok(Reply::changed(&changed, data(changed.count)))
    }
}

/// The body has keys of pulls, as strings or as objects with a member `key` and perhaps another `kind`.
pub fn remove(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let options: Cautious = request.args()?;
    let (mut changes, mut named) = (Vec::new(), HashSet::new());
    let answers = for_each_key(&request.items()?, |key, kind| {
        let Some(kind) = kind.map_or(Some(Kind::Pull), Kind::from_name) else {
            return Outcome::refused(INVALID_ARGS, "its kind is unknown");
        };
        let name: ProxyKey = (kind, key.into());
        let flag = plugin.journal().get(kind, key).is_some();
        named.insert(name.clone());
        changes.push(Mutation { key: name, op: Op::Remove, args: None, expected: None });
        Outcome { flag: Some(flag), ..Outcome::of(key) }
    });
    options.change(plugin, changes, &named, &request.cause("delStreamProxies"), |_| json!(answers))
}

/// The arguments of updateStreamProxy that are not those of the pull.
const OF_UPDATE: [&str; 5] = ["secret", "key", "if_seq", "dry_run", "_"];

#[derive(Deserialize)]
struct Update<'a> {
    key: Option<&'a str>,
    vhost: Option<&'a str>,
    app: Option<&'a str>,
    stream: Option<&'a str>,
    #[serde(default)]
    dry_run: bool,
    if_seq: Option<u64>,
}

#[derive(Serialize)]
struct Updated<'a> {
    key: &'a str,
    /// unchanged: these are its arguments already; in_place: it goes on with the new ones; replaced: it is ended and added
    /// anew; not_running: the server does not have it, and the new ones count from its next start.
    change: &'static str,
    dry_run: bool,
}

/// Changes the given arguments of one pull, and leaves the others; an empty one is removed. The pull is given by `key`, or
/// by vhost, app and stream.
pub fn update(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Update { key, vhost, app, stream, dry_run, if_seq } = request.args()?;
    let key: ProxyKey = match (key, vhost, app, stream) {
        (Some(key), ..) => (Kind::Pull, key.into()),
        (None, Some(vhost), Some(app), Some(stream)) => (Kind::Pull, format!("{vhost}/{app}/{stream}").into()),
        _ => return Err(Error::invalid("say which pull: by key, or by vhost, app and stream")),
    };
    plugin.journal().check_loaded()?;
    let Some(entry) = plugin.journal().get(Kind::Pull, &key.1) else {
        let why = format!("journal: there is no pull {:?}: see listJournal", key.1);
        return Ok(Reply::json(&Outcome::refused(NOT_FOUND, why)));
    };
    let named = [("vhost", vhost), ("app", app), ("stream", stream)];
    let given = request.args.iter().filter(|(name, _)| {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        !OF_UPDATE.iter().copied().any(is) && !named.iter().any(|(part, _)| is(part))
    });
    if let Some((name, _)) = given.clone().find(|(_, value)| value.contains(char::REPLACEMENT_CHARACTER)) {
        return Err(Error::invalid(format!(
            "{name} is not UTF-8: delete the pull and add it with addStreamProxy"
        )));
    }
    let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
    check_not_redacted(
        &Args::from_pairs(given.clone().map(|(name, value)| (name.as_bytes(), value.as_bytes())))?.read(),
    )?;
    let asked = entry.args.noting(None)?.with(given)?;
    Kind::Pull.check_options(asked.read().pairs())?;
    let args = Kind::Pull.with_note_of(asked, &entry.args);
    if Kind::Pull.key_of_args(&args) != *key.1
        || named.iter().any(|(name, value)| value.is_some_and(|value| args.read().get(name) != Some(value)))
    {
        return Err(Error::invalid("vhost, app and stream make the key of a pull: delete it and add another"));
    }
    if let Some(missing) = Kind::Pull.info().required.iter().find(|name| args.read().get(name).is_none()) {
        return Err(Error::invalid(format!("{missing} cannot be removed")));
    }
    if !args.read().get(Kind::Pull.info().connects_to).is_some_and(|url| url.contains("://")) {
        return Err(Error::invalid("url is not a URL, such as rtsp://10.0.0.1/1"));
    }
    let is_running = plugin.capture().has(&key);
    let change = match plugin.change(Kind::Pull.change(&entry.args, &args)) {
        _ if args == entry.args => "unchanged",
        _ if !is_running => "not_running",
        Existing::Keep | Existing::Update => "in_place",
        Existing::Replace => "replaced",
    };
    let updated = Updated { key: &key.1, change, dry_run };
    let named = HashSet::from([key.clone()]);
    let precondition = if_seq.map(|since| Precondition { since, scope: Scope::Named(&named) });
    if dry_run {
        return Ok(Reply::as_of(plugin.journal().check_unchanged(precondition)?, updated));
    }
    let desired = BTreeMap::from([(key.clone(), Desired { args, state: None })]);
    let diff = Diff::between(desired, [(key.clone(), entry)], false);
    let changed = plugin.change_all(diff.mutations, precondition, &request.cause("updateStreamProxy"))?;
    Ok(Reply::changed(&changed, updated))
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
    let (args, options): (NewState<'_>, Cautious) = (request.args()?, request.args()?);
    let state = match args.state {
        Some(Wanted::Enabled) => State::Enabled,
        Some(Wanted::Disabled) => State::Disabled,
        None => return Err(Error::invalid("state says whether they are to be enabled or disabled")),
    };
    let items = match args.key {
        Some(key) => vec![json!({"key": key, "kind": args.kind})],
        None => request.items()?,
    };
    let (mut changes, mut named) = (Vec::new(), HashSet::new());
    let items = for_each_key(&items, |key, only| {
        let mut is_there = false;
        for kind in Kind::ALL.iter().copied().filter(|kind| only.is_none_or(|only| only == kind.name())) {
            let name: ProxyKey = (kind, key.into());
            if let Some(entry) = plugin.journal().get(kind, key) {
                is_there = true;
                if entry.state != state && !named.contains(&name) {
                    changes.push(Mutation { key: name.clone(), op: Op::Set(state), args: None, expected: None });
                }
            }
            named.insert(name);
        }
        let none = Outcome::refused(NOT_FOUND, "the journal has no such proxy");
        Outcome { key: Some(key.to_owned()), ..if is_there { Outcome::default() } else { none } }
    });
    let cause = request.cause("setJournalState");
    options.change(plugin, changes, &named, &cause, |changed| json!(Done { changed, items }))
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
