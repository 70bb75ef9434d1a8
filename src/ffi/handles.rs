//! Handles are numbers, not pointers: an unknown or closed one is an error, not undefined behavior. Both boundaries
//! share them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::api::Router;
use crate::error::{Code, Error, Result};
use crate::plugin::Plugin;

struct Open {
    routers: BTreeMap<u64, Arc<Router>>,
    last: u64,
}

static OPEN: RwLock<Open> = RwLock::new(Open { routers: BTreeMap::new(), last: 0 });

/// Never returns 0 or a number twice.
pub fn insert(plugin: Plugin) -> u64 {
    let router = Arc::new(Router::new(Arc::new(plugin)));
    let mut open = OPEN.write();
    open.last += 1;
    let handle = open.last;
    open.routers.insert(handle, router);
    handle
}

pub fn get(handle: u64) -> Result<Arc<Plugin>> {
    OPEN.read().routers.get(&handle).map(|router| Arc::clone(&router.plugin)).ok_or_else(|| unknown(handle))
}

pub fn router(handle: u64) -> Result<Arc<Router>> {
    OPEN.read().routers.get(&handle).cloned().ok_or_else(|| unknown(handle))
}

pub fn remove(handle: u64) -> Result<Arc<Router>> {
    OPEN.write().routers.remove(&handle).ok_or_else(|| unknown(handle))
}

fn unknown(handle: u64) -> Error {
    Error::new(Code::InvalidHandle, format!("no journal has the handle {handle}: it was closed or never opened"))
}
