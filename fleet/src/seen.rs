//! What the leader sees of the fleet, for whoever asks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// What the leader tells of the fleet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Leading {
    pub node: String,
    pub cameras: usize,
    pub nodes: BTreeMap<String, NodeSeen>,
    pub moving: usize,
    pub waiting: usize,
    /// Seconds until all moves that wait are begun; null where none does.
    pub eta_sec: Option<u64>,
    /// What has no place, and why: the first of them.
    pub unplaced: BTreeMap<String, String>,
    pub unplaced_count: usize,
    /// What should leave its node and cannot, and why: the first of them.
    pub stuck: BTreeMap<String, String>,
    pub stuck_count: usize,
    pub rebalancing: bool,
    pub revision: i64,
    /// Of the last plan.
    pub plan_ms: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeSeen {
    pub alive: bool,
    pub draining: bool,
    pub zone: Option<String>,
    pub capacity: u32,
    pub used: u64,
    pub cameras: usize,
    pub api: String,
    pub public: String,
    pub version: String,
    pub instance: String,
    pub lease_sec: u32,
    pub fence_sec: u32,
}

/// What the status says, for a terminal.
pub fn told(seen: &Leading) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} cameras on {} nodes; {} leads. Moving {}, waiting {}{}, unplaced {}, stuck {}{}",
        seen.cameras,
        seen.nodes.values().filter(|node| node.alive).count(),
        seen.node,
        seen.moving,
        seen.waiting,
        seen.eta_sec.map(|sec| format!(" (begun in {sec} s)")).unwrap_or_default(),
        seen.unplaced_count,
        seen.stuck_count,
        if seen.rebalancing { ", rebalancing" } else { "" },
    );
    let _ = writeln!(
        text,
        "{:<20} {:<10} {:<9} {:>8} {:>8} {:>8}  address",
        "node", "zone", "state", "cameras", "used", "of"
    );
    for (id, node) in &seen.nodes {
        let state = match (node.alive, node.draining) {
            (true, false) => "up",
            (true, true) => "draining",
            (false, true) => "drained",
            (false, false) => "dead",
        };
        let zone = node.zone.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "{id:<20} {zone:<10} {state:<9} {:>8} {:>8} {:>8}  {}",
            node.cameras, node.used, node.capacity, node.public
        );
    }
    let bounds: BTreeMap<u32, u32> =
        seen.nodes.values().filter(|n| n.alive).map(|n| (n.lease_sec, n.fence_sec)).collect();
    if let Some((lease, fence)) = bounds.last_key_value() {
        let _ = writeln!(
            text,
            "A node that is cut off stops its cameras within {} s, and another starts them after {lease} s, at most {} s.",
            lease - fence.min(lease),
            lease + 5
        );
    }
    for (what, all) in [("unplaced", &seen.unplaced), ("stuck", &seen.stuck)] {
        for (key, why) in all.iter().take(10) {
            let _ = writeln!(text, "{what}: {key}: {why}");
        }
    }
    text
}
