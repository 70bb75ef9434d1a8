//! Handles are numbers, not pointers: an unknown or closed one is an error, not undefined behavior. Both boundaries
//! share them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::api::Router;
use crate::error::{Code, Error, Result};
use crate::plugin::Plugin;

#[derive(Clone)]
pub struct Instance {
    pub plugin: Arc<Plugin>,
    pub router: Arc<Router>,
}

struct Open {
    instances: BTreeMap<u64, Instance>,
    last: u64,
}

static OPEN: RwLock<Open> = RwLock::new(Open { instances: BTreeMap::new(), last: 0 });

/// Never returns 0 or a number twice.
pub fn insert(plugin: Plugin) -> u64 {
    let mut open = OPEN.write();
    open.last += 1;
    let handle = open.last;
    let plugin = Arc::new(plugin);
    let router = Arc::new(Router::new(Arc::clone(&plugin)));
    open.instances.insert(handle, Instance { plugin, router });
    handle
}

pub fn get(handle: u64) -> Result<Arc<Plugin>> {
    instance(handle).map(|instance| instance.plugin)
}

pub fn instance(handle: u64) -> Result<Instance> {
    OPEN.read().instances.get(&handle).cloned().ok_or_else(|| unknown(handle))
}

pub fn remove(handle: u64) -> Result<Instance> {
    OPEN.write().instances.remove(&handle).ok_or_else(|| unknown(handle))
}

fn unknown(handle: u64) -> Error {
    Error::new(Code::InvalidHandle, format!("no journal has the handle {handle}: it was closed or never opened"))
}
