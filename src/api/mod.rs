//! The journal's own API calls: many changes in one call, synchronization, states, lists, history. Each takes the
//! arguments and the body of a call and returns the whole reply. Blocks on the disk: never on a media thread.

mod args;
mod diff;
mod exchange;
mod file;
mod formats;
#[cfg(test)]
mod golden;
mod history;
mod list;
mod metrics;
mod proxies;
mod reply;
mod router;
mod search;
mod status;
mod sync;
mod versions;

use serde_json::Value;

pub use self::router::{Call, ReplyTo, Router, answer, names};

pub use self::reply::Reply;
use crate::error::{Error, Result};
use crate::journal::Cause;
use crate::model::{Args, Kind, Read, is_redacted};

/// The maximum number of items in a body.
const MOST_ITEMS: usize = 10_000;

/// An API call's arguments and body, borrowed while it is carried out.
pub struct Request<'a> {
    /// Names are compared ignoring case.
    pub args: &'a [(String, String)],
    /// The body as it came; empty if the call has none.
    pub body: &'a [u8],
    /// The client, `ip:port`.
    pub caller: &'a str,
}

impl Request<'_> {
    /// The body as a JSON array.
    fn items(&self) -> Result<Vec<Value>> {
        let items: Vec<Value> = serde_json::from_slice(self.body).map_err(|error| {
            Error::invalid(format!(
                "the body is not a JSON array: {error}. Put the secret and the options into the URL, and only the \
                 array into the body"
            ))
        })?;
        if items.len() > MOST_ITEMS {
            return Err(Error::invalid(format!(
                "the body has {} items; one call takes at most {MOST_ITEMS}",
                items.len()
            )));
        }
        Ok(items)
    }

    fn cause(&self, reason: &str) -> Cause {
        Cause { caller: self.caller.to_owned(), reason: reason.to_owned() }
    }
}

/// The arguments of an add, and its key. Fails if they were shown without their credentials.
fn add_of(kind: Kind, item: &Value) -> Result<(String, Args)> {
    let Value::Object(object) = item else {
        return Err(Error::invalid("expected a JSON object of arguments"));
    };
    let args = Args::from_object(object)?;
    let key = kind.key_of_add(&args)?;
    check_not_redacted(&args.read())?;
    Ok((key, args))
}

/// Fails if an argument has what lists and exports show in place of credentials: the camera would be without them.
fn check_not_redacted(args: &Read) -> Result<()> {
    match args.texts().find(|(name, value)| is_redacted(name, value)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::invalid(format!(
            "its {name} is redacted (***): ask for it with reveal=1, or put the credentials in"
        ))),
    }
}
