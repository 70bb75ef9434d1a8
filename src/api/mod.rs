//! What a business system or an operator asks of the journal besides the server's own calls: many changes in one call,
//! the whole wanted set at once, states, lists, history. Each takes a call's arguments and body and makes the whole reply.
//! Blocks on the disk: never on a media thread.

mod batch;
mod diff;
mod exchange;
mod list;
mod metrics;
mod state;
mod sync;
mod versions;

use serde_json::{Map, Value, json};

use crate::error::{Code, Error, Result};
use crate::journal::Cause;
use crate::model::{Args, Kind};
use crate::plugin::{Changed, Plugin};

/// Items in the body of one call.
const MOST_ITEMS: usize = 10_000;

/// MediaServer's own numbers for refusals (its server/WebApi.h).
const NOT_FOUND: i64 = -500;
const INVALID_ARGS: i64 = -300;
const OTHER_FAILED: i64 = -1;

type Operation = fn(&Plugin, &Request<'_>) -> Result<Value>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("addStreamProxies", batch::add),
    ("delStreamProxies", batch::remove),
    ("exportJournal", exchange::export),
    ("getJournalHistory", list::history),
    ("importJournal", exchange::import),
    ("listJournal", list::entries),
    ("listJournalSnapshots", versions::snapshots),
    ("rollbackJournal", versions::rollback),
    ("setJournalState", state::set),
    ("syncJournal", sync::sync),
    ("takeJournalSnapshot", versions::take),
];

/// One call.
pub struct Request<'a> {
    /// By their names, in any case.
    pub args: &'a [(String, String)],
    pub body: &'a [u8],
    /// Who calls: `ip:port`.
    pub origin: &'a str,
}

/// Of which the reply is no JSON.
const METRICS: &str = "getJournalMetrics";

/// The names of all operations.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name).chain([METRICS])
}

/// The content type and the whole body of the reply to a call.
pub fn answer(plugin: &Plugin, name: &str, request: &Request<'_>) -> (&'static str, String) {
    match name {
        METRICS => (metrics::CONTENT_TYPE, metrics::page(plugin)),
        _ => ("application/json; charset=utf-8", call(plugin, name, request).to_string()),
    }
}

fn call(plugin: &Plugin, name: &str, request: &Request<'_>) -> Value {
    let reply = match OPERATIONS.iter().find(|(known, _)| *known == name) {
        Some((_, operation)) => operation(plugin, request),
        None => Err(Error::invalid(format!("{name} is no operation of this version"))),
    };
    reply.unwrap_or_else(|error| {
        let code = if error.code == Code::InvalidArgument { INVALID_ARGS } else { OTHER_FAILED };
        let mut refusal = refusal(code, format!("journal: {error}"));
        if error.code == Code::Conflict {
            set(&mut refusal, "conflict", Value::from(true));
        }
        refusal
    })
}

impl Request<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let found = self.args.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.text(name) {
            None => Ok(default),
            Some("1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(other) => Err(Error::invalid(format!("{name}={other:?} is neither 0 nor 1"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Error::invalid(format!("{name}={text:?} is no number from 0 upwards")))
        };
        self.text(name).map(parse).transpose()
    }

    /// Milliseconds since 1970-01-01 UTC.
    fn time(&self, name: &str) -> Result<Option<i64>> {
        let time = |number: u64| {
            i64::try_from(number)
                .map_err(|_| Error::invalid(format!("{name}={number} is no time in milliseconds")))
        };
        self.number(name)?.map(time).transpose()
    }

    /// How many are asked for at once.
    fn limit(&self) -> Result<usize> {
        match self.number("limit")? {
            None => Ok(100),
            Some(limit) if (1..=MOST_ITEMS as u64).contains(&limit) => Ok(limit as usize),
            Some(limit) => Err(Error::invalid(format!("limit={limit} is not from 1 to {MOST_ITEMS}"))),
        }
    }

    fn kind(&self) -> Result<Option<Kind>> {
        let parse = |name: &str| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            Kind::from_name(name)
                .ok_or_else(|| Error::invalid(format!("kind={name:?} is none of {}", known.join(", "))))
        };
        self.text("kind").map(parse).transpose()
    }

    /// The body: one JSON array.
    fn items(&self) -> Result<Vec<Value>> {
        let items: Vec<Value> = serde_json::from_slice(self.body).map_err(|error| {
            Error::invalid(format!(
                "the body is no JSON array: {error}. Secret and options go into the URL, the array is the whole body"
            ))
        })?;
        if items.len() > MOST_ITEMS {
            return Err(Error::invalid(format!(
                "the body has {} items, more than the {MOST_ITEMS} that one call takes",
                items.len()
            )));
        }
        Ok(items)
    }

    fn cause(&self, reason: &str) -> Cause {
        Cause { origin: self.origin.to_owned(), reason: reason.to_owned() }
    }
}

/// The arguments of an add, and the key that it will have.
fn add_of(kind: Kind, item: &Value) -> Result<(String, Args)> {
    let Value::Object(object) = item else {
        return Err(Error::invalid("it is no JSON object of arguments"));
    };
    let args = Args::from_object(object)?;
    let read = args.read();
    let value = |name: &str| read.get(name).unwrap_or_default();
    if let Some(missing) = kind.info().required.iter().find(|name| value(name).is_empty()) {
        return Err(Error::invalid(format!("Required parameter missed: {missing}")));
    }
    let key = kind.key_of(value);
    crate::model::check_key(&key)?;
    Ok((key, args))
}

fn refusal(code: i64, message: impl Into<String>) -> Value {
    json!({"code": code, "msg": message.into()})
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(name.to_owned(), value);
    }
}

/// A reply of success, with what the journal says of the changes.
fn replied(data: Value, changed: &Changed) -> Value {
    let mut journal = Map::from_iter([
        ("seq".to_owned(), Value::from(changed.seq)),
        ("persisted".to_owned(), Value::from(changed.persisted)),
    ]);
    if let Some(error) = &changed.error {
        journal.insert("error".to_owned(), Value::from(error.message.as_str()));
    } else if !changed.persisted {
        journal.insert("pending".to_owned(), Value::from(true));
    }
    json!({"code": 0, "data": data, "journal": journal})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_documented_with_a_request_and_a_reply() {
        let page = include_str!("../../docs/api.md");
        let postman: Value =
            serde_json::from_str(include_str!("../../docs/zlm-journal.postman_collection.json")).unwrap();
        for (name, _) in OPERATIONS {
            let section = page.split("\n## ").find(|section| section.starts_with(name)).expect(name);
            assert!(section.contains(&format!("/index/api/{name}?secret=…")), "{name} has no request");
            let reply = section.split("```json\n").nth(1).expect(name).split("```").next().unwrap();
            let reply: Value = serde_json::from_str(reply).expect(name);
            assert_eq!(reply["code"], 0, "{name}");
            assert!(
                postman["item"].as_array().unwrap().iter().any(|item| item["name"] == *name),
                "{name} in Postman's"
            );
        }
    }
}
