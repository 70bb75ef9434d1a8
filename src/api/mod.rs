//! What a business system or an operator asks of the journal besides the server's own calls: many changes in one call,
//! the whole wanted set at once, states, lists, history. Each takes a call's arguments and body and makes the whole reply.
//! Blocks on the disk: never on a media thread.

mod batch;
mod diff;
mod exchange;
#[cfg(test)]
mod golden;
mod list;
mod metrics;
mod restore;
mod router;
mod state;
mod status;
mod sync;
mod versions;

use serde_json::{Map, Value, json};

pub use self::router::{Call, ReplyTo, Router, answer, names};

use crate::error::{Code, Error, Result};
use crate::journal::Cause;
use crate::model::{Args, Kind};
use crate::plugin::Changed;

/// Items in the body of one call.
const MOST_ITEMS: usize = 10_000;

/// MediaServer's own numbers for refusals (its server/WebApi.h).
const NOT_FOUND: i64 = -500;
const INVALID_ARGS: i64 = -300;
const OTHER_FAILED: i64 = -1;

/// One call.
pub struct Request<'a> {
    /// By their names, in any case.
    pub args: &'a [(String, String)],
    pub body: &'a [u8],
    /// Who calls: `ip:port`.
    pub caller: &'a str,
}

/// The whole reply to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub content_type: &'static str,
    pub body: String,
}

impl Reply {
    pub fn json(body: &Value) -> Reply {
        Reply { content_type: "application/json; charset=utf-8", body: body.to_string() }
    }
}

/// The reply to a call that failed.
fn failure(error: &Error) -> Reply {
    let code = if error.code == Code::InvalidArgument { INVALID_ARGS } else { OTHER_FAILED };
    let mut refusal = refusal(code, format!("journal: {error}"));
    if error.code == Code::Conflict {
        set(&mut refusal, "conflict", Value::from(true));
    }
    Reply::json(&refusal)
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
            text.parse().map_err(|_| Error::invalid(format!("{name}={text:?} is not a non-negative integer")))
        };
        self.text(name).map(parse).transpose()
    }

    /// Milliseconds since 1970-01-01 UTC.
    fn time(&self, name: &str) -> Result<Option<i64>> {
        let time = |number: u64| {
            i64::try_from(number)
                .map_err(|_| Error::invalid(format!("{name}={number} is not a time in milliseconds")))
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
                "the body is not a JSON array: {error}. Secret and options go into the URL, the array is the whole body"
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
        Cause { origin: self.caller.to_owned(), reason: reason.to_owned() }
    }
}

/// The arguments of an add, and the key that it will have.
fn add_of(kind: Kind, item: &Value) -> Result<(String, Args)> {
    let Value::Object(object) = item else {
        return Err(Error::invalid("expected a JSON object of arguments"));
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

/// The key that an item of a body names: a text, or an object with a member `key`.
fn key_of(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| item.get("key")?.as_str())
}

/// The answer to an item that names none.
fn no_key() -> Value {
    refusal(INVALID_ARGS, "expected a key or an object with `key`")
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
fn replied(data: Value, changed: &Changed) -> Reply {
    let mut journal = Map::from_iter([
        ("seq".to_owned(), Value::from(changed.seq)),
        ("persisted".to_owned(), Value::from(changed.persisted)),
    ]);
    if let Some(error) = &changed.error {
        journal.insert("error".to_owned(), Value::from(error.message.as_str()));
    } else if !changed.persisted {
        journal.insert("pending".to_owned(), Value::from(true));
    }
    Reply::json(&json!({"code": 0, "data": data, "journal": journal}))
}
