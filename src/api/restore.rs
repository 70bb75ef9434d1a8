//! Starts enabled proxies that are missing.

use serde::{Deserialize, Serialize};

use super::reply::{NOT_FOUND, Outcome};
use super::{Reply, Request};
use crate::error::Result;
use crate::plugin::Plugin;

#[derive(Deserialize)]
struct Args<'a> {
    key: Option<&'a str>,
}

#[derive(Serialize)]
struct Begun {
    wanted: u64,
}

/// All of them, or the proxies with one `key`, which may also be dormant.
pub fn restore(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let Args { key } = request.args()?;
    plugin.journal().check_loaded()?;
    let wanted = plugin.restore(key)?;
    if let Some(key) = key.filter(|_| wanted == 0) {
        let why = format!("journal: no proxy {key:?} is enabled or dormant: see listJournal");
        return Ok(Reply::json(&Outcome::refused(NOT_FOUND, why)));
    }
    Ok(Reply::success(Begun { wanted }))
}
