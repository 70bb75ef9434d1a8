//! Starts what is enabled and not there.

use serde_json::json;

use super::{Reply, Request};
use crate::error::Result;
use crate::plugin::Plugin;

/// All of it, or the proxies of one `key`, dormant or not.
pub fn restore(plugin: &Plugin, request: &Request<'_>) -> Result<Reply> {
    let wanted = plugin.restore(request.text("key"))?;
    Ok(Reply::json(&json!({"code": 0, "data": {"wanted": wanted}})))
}
