//! Replies in MediaServer's form: `code`, and `data` or `msg`.

use serde::Serialize;

use crate::error::{Code, Error};
use crate::journal::JournalWord;
use crate::model::codes::{INVALID_ARGS, OTHER_FAILED};
use crate::model::{Kind, ProxyKey};
use crate::plugin::Changed;

/// The whole reply to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP header Content-Type.
    pub content_type: &'static str,
    /// The body, in UTF-8.
    pub body: String,
}

/// The result of one item of a call, or of a failed call.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    pub code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For a delete: whether the proxy existed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<bool>,
    /// A precondition does not hold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
}

impl Outcome {
    pub fn refused(code: i32, why: impl Into<String>) -> Outcome {
        Outcome { code, msg: Some(why.into()), ..Outcome::default() }
    }

    pub fn of(key: &str) -> Outcome {
        Outcome { key: Some(key.to_owned()), ..Outcome::default() }
    }
}

/// The kind and key of a proxy.
#[derive(Serialize)]
pub struct Name<'a> {
    kind: Kind,
    key: &'a str,
}

impl<'a> From<&'a ProxyKey> for Name<'a> {
    fn from((kind, key): &'a ProxyKey) -> Name<'a> {
        Name { kind: *kind, key }
    }
}

#[derive(Serialize)]
struct Success<T, J> {
    code: i32,
    data: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<J>,
}

/// The last change of the journal.
#[derive(Serialize)]
struct At {
    seq: u64,
}

#[derive(Serialize)]
struct Page<T, N> {
    code: i32,
    data: Vec<T>,
    /// Where the next page begins.
    next: Option<N>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<At>,
}

impl Reply {
    /// A reply with `code` 0 and this `data`.
    pub fn success(data: impl Serialize) -> Reply {
        Reply::json(&Success { code: 0, data, journal: None::<At> })
    }

    /// Adds the number of the last change that `data` includes.
    pub fn as_of(seq: u64, data: impl Serialize) -> Reply {
        Reply::json(&Success { code: 0, data, journal: Some(At { seq }) })
    }

    /// Adds what the journal did with the changes.
    pub fn changed(changed: &Changed, data: impl Serialize) -> Reply {
        Reply::json(&Success { code: 0, data, journal: Some(JournalWord::of(changed.seq, &changed.result)) })
    }

    /// A page of a list: `next` is where the next one begins (`null` after the last), `seq` as for [`Reply::as_of`].
    pub fn page(data: Vec<impl Serialize>, next: Option<impl Serialize>, seq: Option<u64>) -> Reply {
        Reply::json(&Page { code: 0, data, next, journal: seq.map(|seq| At { seq }) })
    }

    /// A reply that says why the call failed, with MediaServer's code for it.
    pub fn failure(error: &Error) -> Reply {
        let code = if error.code == Code::InvalidArgument { INVALID_ARGS } else { OTHER_FAILED };
        let conflict = error.code == Code::Conflict;
        Reply::json(&Outcome { conflict, ..Outcome::refused(code, format!("journal: {error}")) })
    }

    /// A reply with this body.
    pub fn json(reply: &impl Serialize) -> Reply {
        // Serializing these types cannot fail.
        let body = serde_json::to_string(reply).unwrap_or_default();
        Reply { content_type: "application/json; charset=utf-8", body }
    }
}
