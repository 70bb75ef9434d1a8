//! Handles are numbers, not pointers: one that was closed, twice or never opened is an error, never a crash, and
//! both boundaries can share it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{Code, Error, Result};
use crate::plugin::Plugin;

struct Open {
    plugins: BTreeMap<u64, Arc<Plugin>>,
    last: u64,
}

static OPEN: RwLock<Open> = RwLock::new(Open { plugins: BTreeMap::new(), last: 0 });

/// Numbers are never used twice, and 0 never.
pub fn insert(plugin: Plugin) -> u64 {
    let mut open = OPEN.write();
    open.last += 1;
    let handle = open.last;
    open.plugins.insert(handle, Arc::new(plugin));
    handle
}

pub fn get(handle: u64) -> Result<Arc<Plugin>> {
    OPEN.read().plugins.get(&handle).cloned().ok_or_else(|| unknown(handle))
}

pub fn remove(handle: u64) -> Result<Arc<Plugin>> {
    OPEN.write().plugins.remove(&handle).ok_or_else(|| unknown(handle))
}

fn unknown(handle: u64) -> Error {
    Error::new(Code::InvalidHandle, format!("no journal has the handle {handle}: it was closed or never opened"))
}
