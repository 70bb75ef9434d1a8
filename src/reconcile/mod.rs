//! The reconciler: the only code that acts on MediaServer. It compares intent with what the server lists and adds
//! what is missing, at a pace. The restore after a start is its first pass; further passes see to what has failed in
//! it, until that has played once. [`plan`] decides, [`driver`] does.

mod driver;
mod plan;

use std::sync::Arc;

pub use self::driver::{Handle, Intent, Pace, start};
pub use self::plan::{Progress, Wanted};
use crate::record::Kind;

/// One proxy to be started: the recorded call, ready to be dispatched again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    pub kind: Kind,
    pub key: Arc<str>,
    /// The change that this add carries out. The host drops the call when the proxy is no longer wanted as that
    /// change left it, a check that it makes while no other call on the key can run.
    pub seq: u64,
    /// The arguments, one JSON object, without the secret.
    pub body: Vec<u8>,
}

/// How an add ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It plays.
    Accepted,
    /// The server said no, or its first connect failed. It may be listed all the same.
    Failed(String),
    /// The server threw an exception out of the call.
    Threw(String),
    /// Meanwhile someone deleted or replaced it: nothing was done.
    Unwanted,
}

/// MediaServer, as the reconciler sees it. Each call returns at once; its answer comes through [`Handle`] with the
/// same number, from any thread, also before the call has returned.
pub trait Host: Send + Sync {
    /// Dispatches an add. The answer may take as long as the server's connect timeout.
    fn add(&self, call: u64, add: Add);
    /// Ends a proxy that is not wanted, if the server has it: a call that was undone. Without an answer.
    fn remove(&self, kind: Kind, key: Arc<str>);
    /// Asks for the keys of all proxies of a kind that the server has now.
    fn list(&self, call: u64, kind: Kind);
}
