//! Handles are numbers, not pointers: an unknown or closed one is an error, not undefined behavior. Both boundaries
//! share them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::api::Router;
use crate::error::{Code, Error, Result};
use crate::plugin::Plugin;

static OPEN: RwLock<BTreeMap<u64, Arc<Router>>> = RwLock::new(BTreeMap::new());
static LAST: AtomicU64 = AtomicU64::new(0);

/// Never returns 0 or a number twice.
pub fn insert(plugin: Plugin) -> u64 {
    let router = Arc::new(Router::new(Arc::new(plugin)));
    let handle = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    OPEN.write().insert(handle, router);
    handle
}

pub fn get(handle: u64) -> Result<Arc<Plugin>> {
    OPEN.read().get(&handle).map(|router| Arc::clone(&router.plugin)).ok_or_else(|| unknown(handle))
}

pub fn router(handle: u64) -> Result<Arc<Router>> {
    OPEN.read().get(&handle).cloned().ok_or_else(|| unknown(handle))
}

pub fn remove(handle: u64) -> Result<Arc<Router>> {
    OPEN.write().remove(&handle).ok_or_else(|| unknown(handle))
}

fn unknown(handle: u64) -> Error {
    Error::new(Code::InvalidHandle, format!("no journal has the handle {handle}: it was closed or never opened"))
}
