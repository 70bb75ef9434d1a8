//! How full the nodes are, as a plan goes on, and which of them a camera should go to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Camera, Node, NodeId, Spec, World};

/// How far apart, in parts of a node's capacity, two nodes may be after a rebalance.
const EVEN: f64 = 0.03;
/// How far above the average a node may be filled to keep a group together.
const TOGETHER: f64 = 0.01;

/// What is where is counted first ([`Self::take`]); once that is done ([`Self::order`]), nodes can be chosen.
pub struct Fill<'a> {
    nodes: HashMap<&'a NodeId, Filled<'a>>,
    /// Those that may get more, the emptiest first: of all zones, and of each. Empty until [`Self::order`].
    emptiest: HashMap<Option<&'a str>, BTreeSet<(u64, &'a NodeId)>>,
    /// How full the nodes of a zone will be on average.
    average: HashMap<Option<&'a str>, f64>,
    /// The nodes that have cameras of a group, and how many.
    groups: HashMap<&'a str, BTreeMap<&'a NodeId, u32>>,
}

struct Filled<'a> {
    zone: Option<&'a str>,
    capacity: u64,
    used: u64,
    /// It may get more.
    is_open: bool,
}

impl<'a> Filled<'a> {
    /// Any, and its own.
    fn zones(&self) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
        [None].into_iter().chain(self.zone.map(Some))
    }

    /// In millionths of the capacity.
    fn ratio(&self, more: u64) -> u64 {
        (self.used + more) * 1_000_000 / self.capacity.max(1)
    }
}

impl<'a> Fill<'a> {
    pub fn new(world: &'a World) -> Self {
        let filled = |(id, node): (&'a NodeId, &'a Node)| {
            let is_open = !world.draining.contains(id);
            (id, Filled { zone: node.zone.as_deref(), capacity: node.capacity.into(), used: 0, is_open })
        };
        let nodes = world.nodes.iter().map(filled).collect();
        Self { nodes, emptiest: HashMap::new(), average: HashMap::new(), groups: HashMap::new() }
    }

    /// What is there already has been counted.
    pub fn order(&mut self) {
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.is_open) {
            for zone in node.zones() {
                self.emptiest.entry(zone).or_default().insert((node.ratio(0), id));
            }
        }
    }

    fn change(&mut self, node: &NodeId, spec: &'a Spec, more: bool) {
        let Some((&id, _)) = self.nodes.get_key_value(node) else { return };
        let Some(filled) = self.nodes.get_mut(id) else { return };
        let (was, weight) = (filled.ratio(0), u64::from(spec.weight));
        filled.used = if more { filled.used + weight } else { filled.used.saturating_sub(weight) };
        if filled.is_open && !self.emptiest.is_empty() {
            for zone in filled.zones() {
                if let Some(set) = self.emptiest.get_mut(&zone) {
                    set.remove(&(was, id));
                    set.insert((filled.ratio(0), id));
                }
            }
        }
        let homes = self.groups.entry(&spec.group).or_default();
        let count = homes.entry(id).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            homes.remove(id);
        }
    }

    pub fn take(&mut self, node: &NodeId, spec: &'a Spec) {
        self.change(node, spec, true);
    }

    pub fn give_back(&mut self, node: &NodeId, spec: &'a Spec) {
        self.change(node, spec, false);
    }

    /// Learns how much is still to be placed.
    pub fn expect<'b>(&mut self, coming: impl Iterator<Item = &'b Spec>) {
        let mut weights: HashMap<Option<&str>, u64> = HashMap::new();
        for spec in coming {
            *weights.entry(None).or_default() += u64::from(spec.weight);
            if let Some(zone) = &spec.zone {
                *weights.entry(Some(zone)).or_default() += u64::from(spec.weight);
            }
        }
        for (zone, set) in &self.emptiest {
            let nodes = || set.iter().filter_map(|(_, id)| self.nodes.get(id));
            let used: u64 = nodes().map(|node| node.used).sum();
            let capacity: u64 = nodes().map(|node| node.capacity).sum();
            let coming = weights.get(zone).copied().unwrap_or_default();
            self.average.insert(*zone, (used + coming) as f64 / capacity.max(1) as f64);
        }
    }

    /// Whether a node may have a camera, or why not.
    pub fn accepts(&self, spec: &Spec, id: &NodeId) -> Result<(), String> {
        let Some(node) = self.nodes.get(id) else { return Err(format!("{id} is dead")) };
        if !node.is_open {
            return Err(format!("{id} is draining"));
        }
        if spec.node.as_ref().is_some_and(|pin| pin != id) {
            return Err("its fleet_node is another one".to_owned());
        }
        if spec.zone.is_some() && spec.zone.as_deref() != node.zone {
            return Err(format!("{id} is in another zone"));
        }
        if node.used + u64::from(spec.weight) > node.capacity {
            return Err(format!("{id} is full ({} of {})", node.used, node.capacity));
        }
        Ok(())
    }

    /// The node that a camera should go to: the one with most of its group while that is not fuller than others will be, or
    /// the emptiest.
    pub fn choose(&self, spec: &Spec) -> Result<NodeId, String> {
        if let Some(pin) = &spec.node {
            return self.accepts(spec, pin).map(|()| pin.clone());
        }
        let zone = spec.zone.as_deref();
        let Some(candidates) = self.emptiest.get(&zone).filter(|candidates| !candidates.is_empty()) else {
            return Err(match zone {
                Some(zone) => format!("no node of the zone {zone} is there"),
                None => "no node is there".to_owned(),
            });
        };
        let emptiest = candidates.first().map_or(0, |(ratio, _)| *ratio) as f64 / 1e6;
        let average = self.average.get(&zone).copied().unwrap_or_default();
        let limit = (average + TOGETHER).max(emptiest + 2.0 * TOGETHER);
        let keeps_together = |id: &NodeId| {
            let ratio = self.nodes.get(id).map_or(u64::MAX, |node| node.ratio(spec.weight.into()));
            ratio as f64 / 1e6 <= limit && self.accepts(spec, id).is_ok()
        };
        let homes = self.groups.get(&*spec.group).into_iter().flatten().filter(|(id, _)| keeps_together(id));
        if let Some((home, _)) = homes.max_by_key(|(id, count)| (**count, **id)) {
            return Ok((*home).clone());
        }
        let fits = candidates.iter().find(|(_, id)| self.accepts(spec, id).is_ok());
        fits.map(|(_, id)| (*id).clone()).ok_or_else(|| {
            let zone = zone.map(|zone| format!(" of the zone {zone}")).unwrap_or_default();
            format!("no node{zone} has room for a weight of {}", spec.weight)
        })
    }

    /// The camera whose move would even out most, if any is worth it: of the fullest node, one whose group is torn least.
    pub fn uneven(&self, of: &mut HashMap<&'a NodeId, Vec<Camera<'a>>>) -> Option<(Camera<'a>, NodeId, NodeId)> {
        let mut full: Vec<(u64, &NodeId)> = self.emptiest.get(&None)?.iter().copied().collect();
        while let Some((ratio, from)) = full.pop() {
            let Some(cameras) = of.get_mut(from) else { continue };
            let mut best: Option<(usize, &NodeId, (bool, u32))> = None;
            for (index, Camera { spec, .. }) in cameras.iter().enumerate() {
                if spec.node.is_some() {
                    continue;
                }
                let zone = spec.zone.as_deref();
                let to = self.emptiest.get(&zone)?.iter().find(|(_, to)| self.accepts(spec, to).is_ok());
                let Some((least, to)) = to else { continue };
                if ratio.saturating_sub(*least) as f64 / 1e6 <= EVEN {
                    continue;
                }
                let homes = self.groups.get(&*spec.group);
                let count = |node| homes.and_then(|homes| homes.get(node)).copied().unwrap_or_default();
                let tears = (count(*to) == 0, count(from));
                if best.is_none_or(|(_, _, tears_now)| tears < tears_now) {
                    best = Some((index, to, tears));
                }
            }
            if let Some((index, to, _)) = best {
                return Some((cameras.swap_remove(index), from.clone(), to.clone()));
            }
        }
        None
    }
}
