//! What the program's parts know of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use anyhow::Result;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use crate::config::{Config, Node};
use crate::etcd::Store;
use crate::lease::{self, Deadline};
use crate::model::NodeInfo;
use crate::seal::Seal;
use crate::seen::Leading;
use crate::server::Server;

/// All that the program's parts share.
pub struct Shared {
    pub config: Config,
    pub node: Node,
    pub store: Arc<Store>,
    pub seal: Seal,
    pub server: Server,
    pub deadline: Deadline,
    pub instance: String,
    /// The lease, while there is one.
    pub lease: AtomicI64,
    /// The nodes that live, this one among them.
    pub nodes: Mutex<BTreeMap<String, NodeInfo>>,
    /// How many cameras are placed here.
    pub placed: AtomicU64,
    pub applied: AtomicI64,
    /// The keys that the server was told to have, and has not been seen without since.
    pub given: Mutex<BTreeSet<String>>,
    /// The number of the journal's last change when we last changed it; 0 while nothing is given to it.
    pub seq: AtomicU64,
    /// What the server last said of itself, and when.
    pub status: Mutex<(Value, u64)>,
    pub leading: Mutex<Leading>,
    pub is_leader: AtomicBool,
    /// Something is known to be wrong: in one line.
    pub trouble: Mutex<Option<String>>,
    pub fences: AtomicU64,
    pub moves: AtomicU64,
    /// The server has something else than it was given.
    pub look_again: Notify,
    pub goes_on_without_quorum: AtomicBool,
}

impl Shared {
    pub fn new(config: Config) -> Result<Arc<Self>> {
        let node = config.node()?.clone();
        Ok(Arc::new(Self {
            store: Store::new(&config.fleet, &config.etcd)?,
            seal: Seal::of(&config)?,
            server: Server::new(&node)?,
            deadline: Deadline::new(&node.state_dir)?,
            instance: lease::instance(),
            lease: AtomicI64::new(0),
            nodes: Mutex::default(),
            placed: AtomicU64::new(0),
            applied: AtomicI64::new(0),
            given: Mutex::default(),
            seq: AtomicU64::new(0),
            status: Mutex::new((Value::Null, 0)),
            leading: Mutex::default(),
            is_leader: AtomicBool::new(false),
            trouble: Mutex::new(None),
            fences: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            look_again: Notify::new(),
            goes_on_without_quorum: AtomicBool::new(false),
            config,
            node,
        }))
    }

    /// Says what is wrong, once for as long as it is the same.
    pub fn is_wrong(&self, what: &anyhow::Error) {
        let what = format!("{what:#}");
        let mut trouble = self.trouble.lock();
        if trouble.as_deref() != Some(&*what) {
            log::error!("{what}");
        }
        *trouble = Some(what);
    }

    pub fn is_well(&self) {
        if let Some(was) = self.trouble.lock().take() {
            log::info!("well again, after: {was}");
        }
    }
}
