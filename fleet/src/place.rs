//! Where each camera belongs: a pure function of what is wanted, who lives, and where everything is. It knows neither
//! etcd nor a clock, so that the simulation runs the very same code.
//!
//! A camera's place goes through these states, each of which is one key in etcd:
//!
//! ```text
//! nowhere ──► On(a) ──► Stopping(a) ──► On(b)      a says that it has stopped, or its lease is gone
//!               │  └──────────────────► On(b)      a's lease is gone
//!               └────► Both(a, b) ────► On(b)      it plays on b; only for cameras that bear two connections
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Placed, Where};

pub type Key = Arc<str>;
pub type NodeId = Arc<str>;

/// What placement knows of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub rev: i64,
    pub zone: Option<Arc<str>>,
    pub node: Option<NodeId>,
    pub weight: u32,
    pub group: Arc<str>,
    pub overlap: bool,
}

/// What placement knows of a node that lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub zone: Option<Arc<str>>,
    pub capacity: u32,
    /// Up to where it has done what was placed.
    pub applied: i64,
}

/// Where a camera is, and the revision at which that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: Where,
    pub rev: i64,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub cameras: BTreeMap<Key, Spec>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub draining: BTreeSet<NodeId>,
    pub places: BTreeMap<Key, Place>,
    pub placed: HashMap<Key, BTreeMap<NodeId, Placed>>,
    /// What an operator wants elsewhere.
    pub asks: BTreeMap<Key, NodeId>,
    pub rebalance: bool,
}

/// How much may begin now.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Planned moves that may begin.
    pub moves: usize,
    pub move_timeout_ms: u64,
}

/// One change of a camera's place, to be made if its place is still the one that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub key: Key,
    /// The revision of the place that was looked at; 0 where there was none.
    pub rev: i64,
    pub before: Option<Where>,
    pub after: Option<Where>,
    /// The camera's revision, for those who get it.
    pub camera: i64,
    /// Makes sense only while this node is dead.
    pub dead: Option<NodeId>,
    /// Answers what an operator asked for.
    pub ends_ask: bool,
    pub why: Arc<str>,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// What has no place, and why.
    pub unplaced: BTreeMap<Key, String>,
    /// What should be elsewhere and cannot yet, and why.
    pub stuck: BTreeMap<Key, String>,
    /// Moves under way, those that begin now among them.
    pub moving: usize,
    /// Moves that wait for their turn.
    pub waiting: usize,
    /// Nothing is left to be balanced.
    pub balanced: bool,
}

/// How far apart, in parts of a node's capacity, two nodes may be after a rebalance.
const EVEN: f64 = 0.03;
/// How far above the average a node may be filled to keep a group together.
const TOGETHER: f64 = 0.01;

pub fn plan(world: &World, now_ms: u64, limits: Limits) -> Plan {
    let mut planner = Planner::new(world, now_ms, limits);
    planner.existing();
    planner.missing();
    planner.rebalance();
    planner.plan
}

struct Planner<'a> {
    world: &'a World,
    now_ms: u64,
    limits: Limits,
    fill: Fill<'a>,
    /// Cameras that need a place, by group: they are placed one group after the other.
    homeless: BTreeMap<(&'a str, &'a Key), Homeless<'a>>,
    /// What stays where it is, and might be moved to balance.
    settled: Vec<(&'a Key, &'a Spec, &'a NodeId, i64)>,
    plan: Plan,
}

struct Homeless<'a> {
    spec: &'a Spec,
    place: Option<&'a Place>,
    dead: Option<NodeId>,
    /// Where it was meant to go.
    hint: Option<&'a NodeId>,
    why: Arc<str>,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World, now_ms: u64, limits: Limits) -> Self {
        let moving = world.places.values().filter(|place| !matches!(place.at, Where::On { .. })).count();
        let plan = Plan { moving, ..Plan::default() };
        let fill = Fill::new(world);
        Self { world, now_ms, limits, fill, homeless: BTreeMap::new(), settled: Vec::new(), plan }
    }

    fn lives(&self, node: &NodeId) -> bool {
        self.world.nodes.contains_key(node)
    }

    /// Looks at every camera that has a place.
    fn existing(&mut self) {
        let world = self.world;
        let mut moves = Vec::new();
        for (key, place) in &world.places {
            let Some(spec) = world.cameras.get(key) else {
                self.unwanted(key, place);
                continue;
            };
            match &place.at {
                Where::On { node } if !self.lives(node) => {
                    let why = format!("{node} is dead").into();
                    self.has_no_home(key, spec, Some(place), Some(node.clone()), None, why);
                }
                Where::On { node } => {
                    self.fill.take(node, spec);
                    match self.why_move(key, spec, node) {
                        Some(why) => moves.push((key, spec, place, node, why)),
                        // One change of a camera at a time.
                        None if self.refresh(key, spec, place) => {}
                        None => self.settled.push((key, spec, node, place.rev)),
                    }
                }
                Where::Stopping { node, to } if !self.lives(node) => {
                    let why = format!("{node} is dead").into();
                    self.has_no_home(key, spec, Some(place), Some(node.clone()), to.as_ref(), why);
                }
                Where::Stopping { node, to } => {
                    let applied = world.nodes.get(node).map_or(0, |node| node.applied);
                    if applied >= place.rev {
                        let why = format!("it has stopped on {node}").into();
                        self.has_no_home(key, spec, Some(place), None, to.as_ref(), why);
                    } else if let Some(to) = to {
                        self.fill.take(to, spec);
                    }
                }
                Where::Both { node, to, since_ms } => self.both(key, spec, place, node, to, *since_ms),
            }
        }
        for (key, spec, place, node, why) in moves {
            self.move_away(key, spec, place, node, why);
        }
    }

    /// Why a camera may not stay on a node that lives.
    fn why_move(&self, key: &Key, spec: &Spec, node: &NodeId) -> Option<Reason> {
        let world = self.world;
        let is_pinned_elsewhere = spec.node.as_ref().is_some_and(|pin| pin != node);
        let zone = world.nodes.get(node).and_then(|node| node.zone.as_ref());
        if is_pinned_elsewhere {
            return Some(Reason { text: "its fleet_node is another one".into(), is_asked: false, to: None });
        }
        if spec.zone.is_some() && spec.zone.as_ref() != zone {
            return Some(Reason { text: "its zone is another one".into(), is_asked: false, to: None });
        }
        if world.draining.contains(node) {
            return Some(Reason { text: format!("{node} is draining").into(), is_asked: false, to: None });
        }
        let to = world.asks.get(key)?;
        Some(Reason { text: "an operator has moved it".into(), is_asked: true, to: Some(to.clone()) })
    }

    fn move_away(&mut self, key: &'a Key, spec: &'a Spec, place: &'a Place, node: &'a NodeId, reason: Reason) {
        if reason.to.as_ref() == Some(node) {
            self.end_ask(key, spec, place, "it is there already");
            return;
        }
        let target = match &reason.to {
            Some(to) => self.fill.accepts(spec, to).map(|()| to.clone()),
            None => self.fill.choose(spec),
        };
        let target = match target {
            Ok(target) => target,
            Err(why) if reason.is_asked => {
                self.end_ask(key, spec, place, &format!("it cannot be moved: {why}"));
                return;
            }
            Err(why) => {
                self.plan.stuck.insert(key.clone(), format!("{}, and {why}", reason.text));
                self.refresh(key, spec, place);
                return;
            }
        };
        if self.limits.moves == 0 {
            self.plan.waiting += 1;
            self.refresh(key, spec, place);
            return;
        }
        self.limits.moves -= 1;
        self.plan.moving += 1;
        self.fill.take(&target, spec);
        let after = if spec.overlap {
            Where::Both { node: node.clone(), to: target, since_ms: self.now_ms }
        } else {
            self.fill.give_back(node, spec);
            Where::Stopping { node: node.clone(), to: Some(target) }
        };
        self.step(key, spec.rev, Some(place), Some(after), None, reason.is_asked, reason.text);
    }

    fn end_ask(&mut self, key: &Key, spec: &Spec, place: &Place, why: &str) {
        self.step(key, spec.rev, Some(place), Some(place.at.clone()), None, true, why.into());
    }

    fn both(
        &mut self,
        key: &'a Key,
        spec: &'a Spec,
        place: &'a Place,
        node: &'a NodeId,
        to: &'a NodeId,
        since_ms: u64,
    ) {
        let on = |node: &NodeId| Some(Where::On { node: node.clone() });
        let plays =
            self.world.placed.get(key).and_then(|placed| placed.get(to)).is_some_and(|placed| placed.plays);
        match (self.lives(node), self.lives(to)) {
            (false, false) => {
                let why = format!("{node} and {to} are dead").into();
                self.has_no_home(key, spec, Some(place), Some(to.clone()), None, why);
            }
            (false, true) => {
                self.fill.take(to, spec);
                let why = format!("{node} is dead").into();
                self.step(key, spec.rev, Some(place), on(to), Some(node.clone()), false, why);
            }
            (true, false) => {
                self.fill.take(node, spec);
                let why = format!("{to} is dead").into();
                self.step(key, spec.rev, Some(place), on(node), Some(to.clone()), false, why);
            }
            (true, true) if plays => {
                self.fill.take(to, spec);
                self.step(key, spec.rev, Some(place), on(to), None, false, format!("it plays on {to}").into());
            }
            (true, true) => {
                self.fill.take(node, spec);
                self.fill.take(to, spec);
                // A clock that jumps, either way, ends the wait.
                if self.now_ms.abs_diff(since_ms) > self.limits.move_timeout_ms {
                    let must_leave = self.why_move(key, spec, node).is_some_and(|reason| !reason.is_asked);
                    let why = format!("it did not play on {to} in time").into();
                    let after = if must_leave {
                        Some(Where::Stopping { node: node.clone(), to: Some(to.clone()) })
                    } else {
                        on(node)
                    };
                    self.step(key, spec.rev, Some(place), after, None, false, why);
                } else {
                    self.refresh(key, spec, place);
                }
            }
        }
    }

    /// A camera that nobody wants any more: its place goes once it has stopped.
    fn unwanted(&mut self, key: &'a Key, place: &'a Place) {
        let why: Arc<str> = "it is not wanted any more".into();
        match &place.at {
            Where::On { node } | Where::Both { node, .. } if self.lives(node) => {
                let after = Where::Stopping { node: node.clone(), to: None };
                self.step(key, 0, Some(place), Some(after), None, false, why);
            }
            Where::Stopping { node, .. } if self.world.nodes.get(node).is_some_and(|n| n.applied < place.rev) => {}
            Where::On { node } | Where::Both { node, .. } | Where::Stopping { node, .. } => {
                let dead = (!self.lives(node)).then(|| node.clone());
                self.step(key, 0, Some(place), None, dead, false, why);
            }
        }
    }

    fn has_no_home(
        &mut self,
        key: &'a Key,
        spec: &'a Spec,
        place: Option<&'a Place>,
        dead: Option<NodeId>,
        hint: Option<&'a NodeId>,
        why: Arc<str>,
    ) {
        self.homeless.insert((&spec.group, key), Homeless { spec, place, dead, hint, why });
    }

    /// Gives a place to all that has none.
    fn missing(&mut self) {
        let world = self.world;
        for (key, spec) in &world.cameras {
            if !world.places.contains_key(key) {
                self.has_no_home(key, spec, None, None, None, "it is wanted".into());
            }
        }
        self.fill.expect(self.homeless.values().map(|homeless| homeless.spec));
        for ((_, key), homeless) in std::mem::take(&mut self.homeless) {
            let Homeless { spec, place, dead, hint, why } = homeless;
            let hint = hint.filter(|hint| self.fill.accepts(spec, hint).is_ok()).cloned();
            match hint.map_or_else(|| self.fill.choose(spec), Ok) {
                Ok(node) => {
                    self.fill.take(&node, spec);
                    self.step(key, spec.rev, place, Some(Where::On { node }), dead, false, why);
                }
                Err(reason) => {
                    self.plan.unplaced.insert(key.clone(), reason);
                    // A dead node keeps nothing: should it come back, it is one like others.
                    if place.is_some() {
                        self.step(key, spec.rev, place, None, dead, false, why);
                    }
                }
            }
        }
    }

    /// Moves from the fullest nodes to the emptiest ones.
    fn rebalance(&mut self) {
        if !self.world.rebalance {
            return;
        }
        let mut of: HashMap<&NodeId, Vec<(&'a Key, &'a Spec, i64)>> = HashMap::new();
        for (key, spec, node, rev) in std::mem::take(&mut self.settled) {
            of.entry(node).or_default().push((key, spec, rev));
        }
        loop {
            let Some((key, spec, from, to, rev)) = self.fill.uneven(&mut of) else {
                self.plan.balanced = self.plan.moving == 0;
                return;
            };
            if self.limits.moves == 0 {
                self.plan.waiting += 1;
                return;
            }
            self.limits.moves -= 1;
            self.plan.moving += 1;
            self.fill.take(&to, spec);
            self.fill.give_back(&from, spec);
            let place = self.world.places.get(key);
            debug_assert_eq!(place.map(|place| place.rev), Some(rev));
            let after = if spec.overlap {
                Where::Both { node: from, to, since_ms: self.now_ms }
            } else {
                Where::Stopping { node: from, to: Some(to) }
            };
            self.step(key, spec.rev, place, Some(after), None, false, "the fleet is rebalanced".into());
        }
    }

    /// Those who have a camera learn of a change of it. Whether there is one.
    fn refresh(&mut self, key: &Key, spec: &Spec, place: &Place) -> bool {
        let placed = self.world.placed.get(key);
        let is_stale =
            |node: &NodeId| placed.and_then(|placed| placed.get(node)).is_none_or(|p| p.rev != spec.rev);
        let has_changed = place.at.holders().any(is_stale);
        if has_changed {
            self.step(key, spec.rev, Some(place), Some(place.at.clone()), None, false, "it has changed".into());
        }
        has_changed
    }

    #[allow(clippy::too_many_arguments)] // A step's parts, in its order.
    fn step(
        &mut self,
        key: &Key,
        camera: i64,
        place: Option<&Place>,
        after: Option<Where>,
        dead: Option<NodeId>,
        ends_ask: bool,
        why: Arc<str>,
    ) {
        self.plan.steps.push(Step {
            key: key.clone(),
            rev: place.map_or(0, |place| place.rev),
            before: place.map(|place| place.at.clone()),
            after,
            camera,
            dead,
            ends_ask,
            why,
        });
    }
}

struct Reason {
    text: Arc<str>,
    is_asked: bool,
    to: Option<NodeId>,
}

/// How full the nodes are, as the plan goes on.
struct Fill<'a> {
    nodes: HashMap<&'a NodeId, Filled<'a>>,
    /// Those that may get more, the emptiest first: of all zones, and of each.
    emptiest: HashMap<Option<&'a str>, BTreeSet<(u64, &'a NodeId)>>,
    /// How full the nodes of a zone will be on average.
    average: HashMap<Option<&'a str>, f64>,
    groups: HashMap<(&'a str, &'a NodeId), u32>,
    /// The nodes that have a group.
    homes: HashMap<&'a str, BTreeSet<&'a NodeId>>,
}

struct Filled<'a> {
    zone: Option<&'a str>,
    capacity: u64,
    used: u64,
    /// It may get more.
    is_open: bool,
}

impl Filled<'_> {
    /// In millionths of the capacity.
    fn ratio(&self, more: u64) -> u64 {
        (self.used + more) * 1_000_000 / self.capacity.max(1)
    }
}

impl<'a> Fill<'a> {
    fn new(world: &'a World) -> Self {
        let mut emptiest: HashMap<_, BTreeSet<_>> = HashMap::new();
        let mut nodes = HashMap::new();
        for (id, node) in &world.nodes {
            let zone = node.zone.as_deref();
            let is_open = !world.draining.contains(id);
            if is_open {
                emptiest.entry(None).or_default().insert((0, id));
                if zone.is_some() {
                    emptiest.entry(zone).or_default().insert((0, id));
                }
            }
            nodes.insert(id, Filled { zone, capacity: node.capacity.into(), used: 0, is_open });
        }
        Self { nodes, emptiest, average: HashMap::new(), groups: HashMap::new(), homes: HashMap::new() }
    }

    fn change(&mut self, node: &NodeId, spec: &'a Spec, more: bool) {
        let Some((&id, filled)) = self.nodes.get_key_value(node) else { return };
        let (zone, is_open, was) = (filled.zone, filled.is_open, filled.ratio(0));
        let weight = u64::from(spec.weight);
        let Some(filled) = self.nodes.get_mut(id) else { return };
        filled.used = if more { filled.used + weight } else { filled.used.saturating_sub(weight) };
        let is = filled.ratio(0);
        if is_open {
            for zone in [None, zone].into_iter().take(1 + usize::from(zone.is_some())) {
                if let Some(set) = self.emptiest.get_mut(&zone) {
                    set.remove(&(was, id));
                    set.insert((is, id));
                }
            }
        }
        let count = self.groups.entry((&spec.group, id)).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        let homes = self.homes.entry(&spec.group).or_default();
        if *count == 0 {
            homes.remove(id);
        } else {
            homes.insert(id);
        }
    }

    fn take(&mut self, node: &NodeId, spec: &'a Spec) {
        self.change(node, spec, true);
    }

    fn give_back(&mut self, node: &NodeId, spec: &'a Spec) {
        self.change(node, spec, false);
    }

    /// Learns how much is still to be placed.
    fn expect<'b>(&mut self, coming: impl Iterator<Item = &'b Spec>) {
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
    fn accepts(&self, spec: &Spec, id: &NodeId) -> Result<(), String> {
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
    fn choose(&self, spec: &Spec) -> Result<NodeId, String> {
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
        let homes = self.homes.get(&*spec.group).into_iter().flatten().filter(|id| keeps_together(id));
        let home = homes.max_by_key(|id| self.groups.get(&(&*spec.group, **id)).copied().unwrap_or_default());
        if let Some(home) = home {
            return Ok((*home).clone());
        }
        let fits = candidates.iter().find(|(_, id)| self.accepts(spec, id).is_ok());
        fits.map(|(_, id)| (*id).clone()).ok_or_else(|| {
            let zone = zone.map(|zone| format!(" of the zone {zone}")).unwrap_or_default();
            format!("no node{zone} has room for a weight of {}", spec.weight)
        })
    }

    /// The camera whose move would even out most, if any is worth it: of the fullest node, one whose group is torn least.
    fn uneven(
        &self,
        of: &mut HashMap<&'a NodeId, Vec<(&'a Key, &'a Spec, i64)>>,
    ) -> Option<(&'a Key, &'a Spec, NodeId, NodeId, i64)> {
        let mut full: Vec<(u64, &NodeId)> = self.emptiest.get(&None)?.iter().copied().collect();
        while let Some((ratio, from)) = full.pop() {
            let Some(cameras) = of.get_mut(from) else { continue };
            let mut best: Option<(usize, &NodeId, (bool, u32))> = None;
            for (index, (_, spec, _)) in cameras.iter().enumerate() {
                if spec.node.is_some() {
                    continue;
                }
                let zone = spec.zone.as_deref();
                let to = self.emptiest.get(&zone)?.iter().find(|(_, to)| self.accepts(spec, to).is_ok());
                let Some((least, to)) = to else { continue };
                if ratio.saturating_sub(*least) as f64 / 1e6 <= EVEN {
                    continue;
                }
                let count = |node| self.groups.get(&(&*spec.group, node)).copied().unwrap_or_default();
                let tears = (count(*to) == 0, count(from));
                if best.is_none_or(|(_, _, tears_now)| tears < tears_now) {
                    best = Some((index, to, tears));
                }
            }
            if let Some((index, to, _)) = best {
                let (key, spec, rev) = cameras.swap_remove(index);
                return Some((key, spec, from.clone(), to.clone(), rev));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { moves: 10, move_timeout_ms: 30_000 };

    fn world(nodes: &[(&str, u32)], cameras: &[&str]) -> World {
        let spec = Spec { rev: 1, zone: None, node: None, weight: 1, group: "nvr".into(), overlap: false };
        World {
            nodes: nodes
                .iter()
                .map(|(id, capacity)| ((*id).into(), Node { capacity: *capacity, ..Node::default() }))
                .collect(),
            cameras: cameras.iter().map(|key| ((*key).into(), spec.clone())).collect(),
            ..World::default()
        }
    }

    fn camera<'a>(world: &'a mut World, key: &str) -> &'a mut Spec {
        world.cameras.get_mut(key).unwrap()
    }

    fn on(world: &mut World, key: &str, node: &str, rev: i64) {
        world.places.insert(key.into(), Place { at: Where::On { node: node.into() }, rev });
        let placed = Placed { rev: 1, ..Placed::default() };
        world.placed.entry(key.into()).or_default().insert(node.into(), placed);
    }

    fn after(plan: &Plan, key: &str) -> Option<Where> {
        plan.steps.iter().find(|step| &*step.key == key).and_then(|step| step.after.clone())
    }

    fn stopping(node: &str, to: &str) -> Option<Where> {
        Some(Where::Stopping { node: node.into(), to: Some(to.into()) })
    }

    #[test]
    fn a_camera_leaves_a_node_before_it_starts_on_another() {
        let mut world = world(&[("a", 10), ("b", 10)], &["k"]);
        on(&mut world, "k", "a", 5);
        world.draining.insert("a".into());
        let first = plan(&world, 0, LIMITS);
        assert_eq!(after(&first, "k"), stopping("a", "b"));

        world.places.insert("k".into(), Place { at: stopping("a", "b").unwrap(), rev: 9 });
        world.placed.clear();
        assert!(plan(&world, 0, LIMITS).steps.is_empty(), "a has not said that it has stopped");
        world.nodes.get_mut("a").unwrap().applied = 8;
        assert!(plan(&world, 0, LIMITS).steps.is_empty(), "a has said so of something earlier");
        world.nodes.get_mut("a").unwrap().applied = 9;
        assert_eq!(after(&plan(&world, 0, LIMITS), "k"), Some(Where::On { node: "b".into() }));
        world.nodes.remove("a");
        let dead = plan(&world, 0, LIMITS);
        assert_eq!(after(&dead, "k"), Some(Where::On { node: "b".into() }));
        assert_eq!(dead.steps[0].dead.as_deref(), Some("a"));
    }

    #[test]
    fn a_camera_that_bears_it_is_on_both_until_it_plays() {
        let mut world = world(&[("a", 10), ("b", 10)], &["k"]);
        on(&mut world, "k", "a", 5);
        camera(&mut world, "k").overlap = true;
        world.asks.insert("k".into(), "b".into());
        let both = Where::Both { node: "a".into(), to: "b".into(), since_ms: 1_000 };
        let first = plan(&world, 1_000, LIMITS);
        assert_eq!((after(&first, "k"), first.steps[0].ends_ask), (Some(both.clone()), true));

        world.asks.clear();
        world.places.insert("k".into(), Place { at: both, rev: 9 });
        let begun = Placed { rev: 1, overlaps: true, plays: false };
        world.placed.get_mut("k").unwrap().insert("b".into(), begun);
        assert!(plan(&world, 31_000, LIMITS).steps.is_empty(), "it does not play yet");
        assert_eq!(
            after(&plan(&world, 31_001, LIMITS), "k"),
            Some(Where::On { node: "a".into() }),
            "it is taken back"
        );
        world.draining.insert("a".into());
        assert_eq!(after(&plan(&world, 31_001, LIMITS), "k"), stopping("a", "b"), "it must leave all the same");
        world.placed.get_mut("k").unwrap().insert("b".into(), Placed { plays: true, ..begun });
        assert_eq!(after(&plan(&world, 2_000, LIMITS), "k"), Some(Where::On { node: "b".into() }));
    }

    #[test]
    fn what_fits_nowhere_is_said_and_what_cannot_leave_stays() {
        let mut world = world(&[("a", 1), ("b", 1)], &["k", "l", "m", "n"]);
        camera(&mut world, "m").node = Some("c".into());
        camera(&mut world, "n").zone = Some("north".into());
        on(&mut world, "k", "a", 5);
        on(&mut world, "l", "b", 5);
        world.draining.insert("a".into());
        let plan = plan(&world, 0, LIMITS);
        assert!(plan.steps.is_empty(), "{:?}", plan.steps);
        let told: Vec<_> = plan.unplaced.iter().map(|(key, why)| (&**key, &**why)).collect();
        assert_eq!(told, [("m", "c is dead"), ("n", "no node of the zone north is there")]);
        assert_eq!(plan.stuck[&Key::from("k")], "a is draining, and no node has room for a weight of 1");
    }

    #[test]
    fn moves_are_limited_and_deaths_are_not() {
        let keys: Vec<String> = (0..40).map(|n| format!("k{n:02}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut world = world(&[("a", 100), ("b", 100)], &keys);
        keys.iter().for_each(|key| on(&mut world, key, "a", 5));
        world.draining.insert("a".into());
        let drained = plan(&world, 0, LIMITS);
        assert_eq!((drained.steps.len(), drained.moving, drained.waiting), (10, 10, 30));
        world.nodes.remove("a");
        assert_eq!(plan(&world, 0, LIMITS).steps.len(), 40);
    }

    #[test]
    fn a_change_reaches_who_has_the_camera() {
        let mut world = world(&[("a", 10)], &["k"]);
        on(&mut world, "k", "a", 5);
        assert!(plan(&world, 0, LIMITS).steps.is_empty());
        camera(&mut world, "k").rev = 7;
        let plan = plan(&world, 0, LIMITS);
        assert_eq!((plan.steps[0].camera, &plan.steps[0].before), (7, &plan.steps[0].after));
    }
}
