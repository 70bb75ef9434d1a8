//! A fleet in memory, to which things happen: nodes die and return, cameras come, change and go, operators drain and
//! rebalance. Runs the placement of the real thing, looks at every rule after each event, and counts what etcd would
//! be asked to write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::model::{Keys, Placed, Where};
use crate::place::{Key, Limits, Node, NodeId, Place, Plan, Spec, Step, World, plan};
use crate::writes::{self, STEPS, Write};

pub struct Size {
    pub nodes: usize,
    pub cameras: usize,
    pub events: usize,
    pub seed: u64,
}

/// What happened, and what it cost.
#[derive(Debug, Default)]
pub struct Report {
    /// The time of the plan that gives every camera its first place.
    pub first_plan: Duration,
    /// The longest of all later plans.
    pub longest_plan: Duration,
    /// Between the fullest and the emptiest node, in parts of a node's capacity, once all is placed.
    pub spread: f64,
    /// The same after a rebalance at the end.
    pub spread_after: f64,
    /// For each kind of event: how many there were, and what etcd had to write.
    pub costs: BTreeMap<&'static str, Cost>,
    pub deaths: usize,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub events: usize,
    pub transactions: usize,
    pub writes: usize,
    pub bytes: usize,
}

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

const ZONES: [&str; 4] = ["north", "east", "south", "west"];
const PER_NVR: usize = 16;

struct Fleet {
    world: World,
    all_nodes: BTreeMap<NodeId, Node>,
    revision: i64,
    now_ms: u64,
    keys: Keys,
    report: Report,
    chance: Chance,
    next_camera: usize,
}

/// Runs it all; fails at the first rule that is broken. `tell` is called now and then.
pub fn run(size: &Size, mut tell: impl FnMut(usize)) -> Result<Report> {
    let capacity = (size.cameras * 3 / 2).div_ceil(size.nodes.max(1)).max(PER_NVR) as u32;
    let node = |n: usize| {
        let zone = Some(Arc::from(ZONES[n % ZONES.len()]));
        (Arc::from(format!("node-{n:04}")), Node { zone, capacity, applied: 0 })
    };
    let all_nodes: BTreeMap<NodeId, Node> = (0..size.nodes).map(node).collect();
    let mut fleet = Fleet {
        world: World { nodes: all_nodes.clone(), ..World::default() },
        all_nodes,
        revision: 1,
        now_ms: 1_700_000_000_000,
        keys: Keys::new("simulation"),
        report: Report::default(),
        chance: Chance(size.seed),
        next_camera: 0,
    };
    for _ in 0..size.cameras {
        fleet.add_camera();
    }
    let began = Instant::now();
    let plan = fleet.plan();
    fleet.report.first_plan = began.elapsed();
    fleet.carry_out("first", &plan.steps)?;
    fleet.settle("first")?;
    fleet.report.spread = fleet.spread();
    for event in 0..size.events {
        fleet.event()?;
        if event % 100 == 99 {
            tell(event + 1);
        }
    }
    fleet.world.draining.clear();
    fleet.world.nodes = fleet.all_nodes.clone();
    fleet.note_applied();
    fleet.world.rebalance = true;
    for n in 0..fleet.world.cameras.len().min(50) {
        let key = fleet.any_camera();
        fleet.revision += 1;
        if let Some(spec) = fleet.world.cameras.get_mut(&key) {
            spec.rev = fleet.revision;
        }
        let plan = fleet.plan();
        fleet.carry_out("rebalance", &plan.steps)?;
        fleet.play();
        fleet.now_ms += n as u64;
    }
    fleet.settle("rebalance")?;
    fleet.report.spread_after = fleet.spread();
    Ok(fleet.report)
}

impl Fleet {
    fn limits() -> Limits {
        Limits { moves: 1000, move_timeout_ms: 30_000 }
    }

    fn plan(&mut self) -> Plan {
        let began = Instant::now();
        let plan = plan(&self.world, self.now_ms, Self::limits());
        if self.revision > 1 {
            self.report.longest_plan = self.report.longest_plan.max(began.elapsed());
        }
        plan
    }

    fn add_camera(&mut self) {
        let n = self.next_camera;
        self.next_camera += 1;
        self.revision += 1;
        let nvr = n / PER_NVR;
        // A quarter must be in a zone, all of an NVR in the same one.
        let zone = nvr.is_multiple_of(4).then(|| Arc::from(ZONES[nvr / 4 % ZONES.len()]));
        let spec = Spec {
            rev: self.revision,
            zone,
            node: None,
            weight: 1,
            group: format!("10.0.{}.{}", nvr / 256, nvr % 256).into(),
            overlap: n.is_multiple_of(2),
        };
        self.world.cameras.insert(format!("__defaultVhost__/live/camera-{n:06}").into(), spec);
    }

    /// Something happens, and the fleet comes to rest.
    fn event(&mut self) -> Result<()> {
        // Now and then the clock jumps by a day, either way.
        match self.chance.below(50) {
            0 => self.now_ms += 86_400_000,
            1 => self.now_ms -= 86_400_000,
            _ => self.now_ms += 1_000,
        }
        match self.chance.below(10) {
            0..3 => self.death(),
            3..6 => self.comeback(),
            6 => {
                self.add_camera();
                self.settle("a camera is added")
            }
            7 => {
                let key = self.any_camera();
                self.world.cameras.remove(&key);
                self.settle("a camera is removed")
            }
            8 => {
                let key = self.any_camera();
                self.revision += 1;
                if let Some(spec) = self.world.cameras.get_mut(&key) {
                    spec.rev = self.revision;
                }
                self.settle("a camera is changed")
            }
            _ if self.chance.one_in(2) => self.drain(),
            _ => {
                let (key, node) = (self.any_camera(), self.any_node());
                if self.world.places.contains_key(&key) {
                    self.world.asks.insert(key, node);
                }
                self.settle("a camera is moved")
            }
        }
    }

    fn any_camera(&mut self) -> Key {
        let at = self.chance.below(self.world.cameras.len());
        self.world.cameras.keys().nth(at).cloned().unwrap_or_else(|| "none".into())
    }

    fn any_node(&mut self) -> NodeId {
        let at = self.chance.below(self.world.nodes.len());
        self.world.nodes.keys().nth(at).cloned().unwrap_or_else(|| "none".into())
    }

    /// Its own cameras move, and no others.
    fn death(&mut self) -> Result<()> {
        if self.world.nodes.len() * 10 < self.all_nodes.len() * 9 {
            return self.comeback();
        }
        let node = self.any_node();
        let before = self.homes();
        self.world.nodes.remove(&node);
        self.report.deaths += 1;
        self.settle("a node dies")?;
        for (key, was) in &before {
            let is = self.world.places.get(key).map(|place| place.at.node());
            ensure!(
                *was == node || is == Some(was),
                "the death of {node} moved {key}, which was on {was}, to {is:?}"
            );
            ensure!(is != Some(&node), "{key} is still on {node}, which is dead");
        }
        Ok(())
    }

    /// Moves nothing by itself.
    fn comeback(&mut self) -> Result<()> {
        let gone = self.all_nodes.iter().find(|(id, _)| !self.world.nodes.contains_key(*id));
        let Some((id, node)) = gone.map(|(id, node)| (id.clone(), node.clone())) else { return Ok(()) };
        let before = self.homes();
        self.world.nodes.insert(id, node);
        self.note_applied();
        self.settle("a node returns")?;
        let after = self.homes();
        for (key, was) in &before {
            ensure!(after.get(key) == Some(was), "a return moved {key} from {was} to {:?}", after.get(key));
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let node = self.any_node();
        self.world.draining.insert(node.clone());
        self.settle("a node is drained")?;
        let stuck = self.plan().stuck;
        let left =
            self.world.places.iter().find(|(key, place)| *place.at.node() == node && !stuck.contains_key(*key));
        ensure!(left.is_none(), "{left:?} is still on {node}, which was drained, and not said to be stuck");
        self.world.draining.remove(&node);
        self.settle("a node is drained")
    }

    fn homes(&self) -> BTreeMap<Key, NodeId> {
        self.world.places.iter().map(|(key, place)| (key.clone(), place.at.node().clone())).collect()
    }

    /// Plans and carries out, until nothing is left to do.
    fn settle(&mut self, what: &'static str) -> Result<()> {
        self.report.costs.entry(what).or_default().events += 1;
        for _ in 0..10_000 {
            let plan = self.plan();
            if plan.steps.is_empty() && plan.moving > 0 {
                self.now_ms += 10_000;
                continue;
            }
            if plan.steps.is_empty() {
                self.check(&plan)?;
                return Ok(());
            }
            self.carry_out(what, &plan.steps)?;
            self.play();
            self.now_ms += 1_000;
        }
        bail!("{what}: the fleet does not come to rest")
    }

    /// What has been begun elsewhere plays there, or not in time.
    fn play(&mut self) {
        for (key, place) in &self.world.places {
            if let Where::Both { to, .. } = &place.at
                && let Some(placed) = self.world.placed.get_mut(key).and_then(|placed| placed.get_mut(to))
            {
                placed.plays = !key.ends_with('7');
            }
        }
    }

    fn note_applied(&mut self) {
        for node in self.world.nodes.values_mut() {
            node.applied = self.revision;
        }
    }

    /// Writes as the leader does: some steps a transaction.
    fn carry_out(&mut self, what: &'static str, steps: &[Step]) -> Result<()> {
        let keys: BTreeSet<&Key> = steps.iter().map(|step| &step.key).collect();
        ensure!(keys.len() == steps.len(), "{what}: two steps of one plan are about one camera");
        for (number, steps) in steps.chunks(STEPS).enumerate() {
            self.revision += 1;
            let mut all: Vec<Write> = steps.iter().flat_map(|step| writes::of_step(&self.keys, step)).collect();
            all.extend(writes::history(&self.keys, steps, self.now_ms, number));
            ensure!(all.len() <= 128, "a transaction of {} writes", all.len());
            let cost = self.report.costs.entry(what).or_default();
            cost.transactions += 1;
            cost.writes += all.len();
            cost.bytes += all.iter().map(Write::bytes).sum::<usize>();
            for step in steps {
                self.apply(step)?;
            }
        }
        self.note_applied();
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> Result<()> {
        let world = &mut self.world;
        let now = world.places.get(&step.key);
        ensure!(now.map_or(0, |place| place.rev) == step.rev, "two steps of one plan are about {}", step.key);
        if let (Some(before), Some(after)) = (&step.before, &step.after) {
            let took: Vec<_> = after.holders().filter(|node| before.holders().all(|held| held != *node)).collect();
            let still: Vec<_> = before.holders().filter(|node| world.nodes.contains_key(*node)).collect();
            let overlap = world.cameras.get(&step.key).is_some_and(|spec| spec.overlap);
            ensure!(
                took.is_empty() || still.is_empty() || overlap,
                "{} would be on {took:?} before {still:?} has stopped",
                step.key
            );
        }
        if let Some(Where::Stopping { node, .. }) = &step.before
            && let Some(Where::On { .. }) = &step.after
            && let Some(node) = world.nodes.get(node)
        {
            ensure!(node.applied >= step.rev, "{} starts elsewhere before it has stopped", step.key);
        }
        let placed = world.placed.entry(step.key.clone()).or_default();
        placed.clear();
        for node in step.after.iter().flat_map(Where::holders) {
            placed.insert(node.clone(), Placed { rev: step.camera, ..Placed::default() });
        }
        if step.ends_ask {
            world.asks.remove(&step.key);
        }
        match &step.after {
            None => {
                world.places.remove(&step.key);
                world.placed.remove(&step.key);
            }
            Some(at) if step.before.as_ref() == Some(at) => {}
            Some(at) => {
                let place = Place { at: at.clone(), rev: self.revision };
                world.places.insert(step.key.clone(), place);
            }
        }
        Ok(())
    }

    /// All that must hold of a fleet at rest.
    fn check(&self, plan: &Plan) -> Result<()> {
        let world = &self.world;
        let mut used: HashMap<&NodeId, u64> = HashMap::new();
        let (mut cameras, mut told) = (world.cameras.iter().peekable(), world.placed.iter().peekable());
        let mut homeless = BTreeSet::new();
        for (key, place) in &world.places {
            let Where::On { node } = &place.at else { bail!("{key} is not at rest: {:?}", place.at) };
            while let Some((key, _)) = cameras.next_if(|(other, _)| *other < key) {
                homeless.insert(key);
            }
            let Some((_, spec)) = cameras.next_if(|(other, _)| *other == key) else {
                bail!("{key} has a place and is not wanted")
            };
            let Some(home) = world.nodes.get(node) else { bail!("{key} is on {node}, which is dead") };
            ensure!(spec.zone.is_none() || spec.zone == home.zone, "{key} is in a wrong zone, on {node}");
            *used.entry(node).or_default() += u64::from(spec.weight);
            let placed = told.next_if(|(other, _)| *other == key).map(|(_, placed)| placed);
            ensure!(
                placed.is_some_and(|placed| placed.len() == 1 && placed.contains_key(node)),
                "{key} is on {node}, and placed on {placed:?}"
            );
        }
        for (node, used) in &used {
            let capacity = world.nodes.get(*node).map_or(0, |node| node.capacity);
            ensure!(*used <= capacity.into(), "{node} has {used} of {capacity}");
        }
        homeless.extend(cameras.map(|(key, _)| key));
        ensure!(told.next().is_none(), "nodes were told of what has no place");
        ensure!(
            homeless == plan.unplaced.keys().collect(),
            "what has no place is not what the plan says has none"
        );
        for key in homeless {
            let Some(spec) = world.cameras.get(key) else { continue };
            let room = world.nodes.iter().find(|(id, node)| {
                let free = u64::from(node.capacity) - used.get(id).copied().unwrap_or_default();
                !world.draining.contains(*id)
                    && (spec.zone.is_none() || spec.zone == node.zone)
                    && free >= spec.weight.into()
            });
            ensure!(room.is_none(), "{key} has no place, and there is room on {room:?}");
        }
        Ok(())
    }

    /// Between the fullest node and the emptiest one that lives.
    fn spread(&self) -> f64 {
        let mut used: HashMap<&NodeId, u64> = self.world.nodes.keys().map(|node| (node, 0)).collect();
        for place in self.world.places.values() {
            *used.entry(place.at.node()).or_default() += 1;
        }
        let ratio = |(node, used): (&&NodeId, &u64)| {
            *used as f64 / f64::from(self.world.nodes.get(*node).map_or(1, |node| node.capacity))
        };
        let ratios: Vec<f64> = used.iter().map(ratio).collect();
        ratios.iter().copied().fold(0.0, f64::max) - ratios.iter().copied().fold(f64::MAX, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_fleet_keeps_every_rule_through_hundreds_of_events() {
        for seed in 0..2 {
            let size = Size { nodes: 20, cameras: 1_000, events: 200, seed };
            let report = run(&size, |_| ()).unwrap_or_else(|broken| panic!("seed {seed}: {broken:#}"));
            assert!(report.deaths > 10, "{report:?}");
            assert!(report.spread_after <= 0.05, "seed {seed}: {report:?}");
        }
    }

    #[test]
    fn a_big_fleet_is_even_from_the_start() {
        let report = run(&Size { nodes: 1_000, cameras: 100_000, events: 3, seed: 1 }, |_| ()).unwrap();
        assert!(report.spread <= 0.05, "{report:?}");
    }
}
