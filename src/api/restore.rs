//! Starts what is enabled and not there.

use serde_json::json;

use super::{NOT_FOUND, Reply, Request, refusal};
use crate::error::Result;
use crate::plugin::Plugin;

/// All of it, or the proxies of one `key`, dormant or not.
pub fn restore(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let key = request.text("key");
    plugin.journal().check_loaded()?;
    let wanted = plugin.restore(key)?;
    if let Some(key) = key.filter(|_| wanted == 0) {
        let why = format!("journal: no proxy {key:?} is enabled or dormant: listJournal has all");
        return Ok(Reply::json(&refusal(NOT_FOUND, why)));
    }
    Ok(Reply::json(&json!({"code": 0, "data": {"wanted": wanted}})))
}
