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

mod fill;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use self::fill::Fill;
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
    /// What the nodes were told.
    pub placed: BTreeMap<Key, BTreeMap<NodeId, Placed>>,
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

impl Step {
    fn of(key: &Key, camera: i64, place: Option<&Place>, after: Option<Where>, why: Arc<str>) -> Step {
        let (rev, before) = (place.map_or(0, |place| place.rev), place.map(|place| place.at.clone()));
        Step { key: key.clone(), rev, before, after, camera, dead: None, ends_ask: false, why }
    }
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

pub fn plan(world: &World, now_ms: u64, limits: Limits) -> Plan {
    let mut planner = Planner::new(world, now_ms, limits);
    planner.cameras();
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
    /// What stays where it is, and might be moved to balance, by node.
    settled: HashMap<&'a NodeId, Vec<Camera<'a>>>,
    plan: Plan,
}

/// A camera that is wanted.
#[derive(Clone, Copy)]
struct Camera<'a> {
    key: &'a Key,
    spec: &'a Spec,
    place: Option<&'a Place>,
    /// What the nodes were told.
    placed: Option<&'a BTreeMap<NodeId, Placed>>,
}

impl Camera<'_> {
    fn step(&self, after: Option<Where>, why: impl Into<Arc<str>>) -> Step {
        Step::of(self.key, self.spec.rev, self.place, after, why.into())
    }
}

struct Homeless<'a> {
    camera: Camera<'a>,
    dead: Option<&'a NodeId>,
    /// Where it was meant to go.
    hint: Option<&'a NodeId>,
    why: Arc<str>,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World, now_ms: u64, limits: Limits) -> Self {
        let (fill, plan) = (Fill::new(world), Plan::default());
        Self { world, now_ms, limits, fill, homeless: BTreeMap::new(), settled: HashMap::new(), plan }
    }

    fn lives(&self, node: &NodeId) -> bool {
        self.world.nodes.contains_key(node)
    }

    /// Looks at every camera and at every place. All are in the same order, so nothing is searched for: there are many.
    fn cameras(&mut self) {
        let world = self.world;
        let mut moves = Vec::new();
        let (mut cameras, mut placed) = (world.cameras.iter().peekable(), world.placed.iter().peekable());
        for (key, place) in &world.places {
            self.plan.moving += usize::from(!matches!(place.at, Where::On { .. }));
            while let Some((key, spec)) = cameras.next_if(|(other, _)| *other < key) {
                self.is_new(key, spec);
            }
            let Some((_, spec)) = cameras.next_if(|(other, _)| *other == key) else {
                self.unwanted(key, place);
                continue;
            };
            while placed.next_if(|(other, _)| *other < key).is_some() {}
            let placed = placed.next_if(|(other, _)| *other == key).map(|(_, placed)| placed);
            let camera = Camera { key, spec, place: Some(place), placed };
            match &place.at {
                Where::On { node } | Where::Stopping { node, .. } if !self.lives(node) => {
                    let (to, why) = (place.at.target(), format!("{node} is dead").into());
                    self.has_no_home(Homeless { camera, dead: Some(node), hint: to, why });
                }
                Where::On { node } => {
                    self.fill.take(node, spec);
                    match self.why_move(camera, node) {
                        Some(why) => moves.push((camera, node, why)),
                        // One change of a camera at a time.
                        None if self.refresh(camera, place) => {}
                        None if world.rebalance => self.settled.entry(node).or_default().push(camera),
                        None => {}
                    }
                }
                Where::Stopping { node, to } => {
                    let applied = world.nodes.get(node).map_or(0, |node| node.applied);
                    if applied >= place.rev {
                        let why = format!("it has stopped on {node}").into();
                        self.has_no_home(Homeless { camera, dead: None, hint: to.as_ref(), why });
                    } else if let Some(to) = to {
                        self.fill.take(to, spec);
                    }
                }
                Where::Both { node, to, since_ms } => self.both(camera, place, node, to, *since_ms),
            }
        }
        for (key, spec) in cameras {
            self.is_new(key, spec);
        }
        self.fill.order();
        for (camera, node, why) in moves {
            self.move_away(camera, node, why);
        }
    }

    fn is_new(&mut self, key: &'a Key, spec: &'a Spec) {
        let camera = Camera { key, spec, place: None, placed: None };
        self.has_no_home(Homeless { camera, dead: None, hint: None, why: "it is wanted".into() });
    }

    /// Why a camera may not stay on a node that lives.
    fn why_move(&self, Camera { key, spec, .. }: Camera, node: &NodeId) -> Option<Reason> {
        let world = self.world;
        let must = |text: &str| Some(Reason { text: text.into(), is_asked: false, to: None });
        if spec.node.as_ref().is_some_and(|pin| pin != node) {
            return must("its fleet_node is another one");
        }
        if spec.zone.is_some() && spec.zone != world.nodes.get(node).and_then(|node| node.zone.clone()) {
            return must("its zone is another one");
        }
        if world.draining.contains(node) {
            return must(&format!("{node} is draining"));
        }
        let to = world.asks.get(key)?;
        Some(Reason { text: "an operator has moved it".into(), is_asked: true, to: Some(to.clone()) })
    }

    fn move_away(&mut self, camera: Camera<'a>, node: &'a NodeId, reason: Reason) {
        if reason.to.as_ref() == Some(node) {
            self.end_ask(camera, "it is there already");
            return;
        }
        let target = match &reason.to {
            Some(to) => self.fill.accepts(camera.spec, to).map(|()| to.clone()),
            None => self.fill.choose(camera.spec),
        };
        match target {
            Ok(target) => self.begin_move(camera, node, target, reason),
            Err(why) if reason.is_asked => self.end_ask(camera, &format!("it cannot be moved: {why}")),
            Err(why) => {
                self.plan.stuck.insert(camera.key.clone(), format!("{}, and {why}", reason.text));
                if let Some(place) = camera.place {
                    self.refresh(camera, place);
                }
            }
        }
    }

    fn begin_move(&mut self, camera: Camera<'a>, node: &NodeId, to: NodeId, reason: Reason) {
        let Camera { spec, place, .. } = camera;
        if self.limits.moves == 0 {
            self.plan.waiting += 1;
            if let Some(place) = place {
                self.refresh(camera, place);
            }
            return;
        }
        self.limits.moves -= 1;
        self.plan.moving += 1;
        self.fill.take(&to, spec);
        let after = if spec.overlap {
            Where::Both { node: node.clone(), to, since_ms: self.now_ms }
        } else {
            self.fill.give_back(node, spec);
            Where::Stopping { node: node.clone(), to: Some(to) }
        };
        let step = camera.step(Some(after), reason.text);
        self.plan.steps.push(Step { ends_ask: reason.is_asked, ..step });
    }

    fn end_ask(&mut self, camera: Camera, why: &str) {
        let step = camera.step(camera.place.map(|place| place.at.clone()), why);
        self.plan.steps.push(Step { ends_ask: true, ..step });
    }

    fn both(&mut self, camera: Camera<'a>, place: &Place, node: &'a NodeId, to: &'a NodeId, since_ms: u64) {
        let spec = camera.spec;
        let on = |node: &NodeId| Some(Where::On { node: node.clone() });
        let plays = camera.placed.and_then(|placed| placed.get(to)).is_some_and(|placed| placed.plays);
        match (self.lives(node), self.lives(to)) {
            (false, false) => {
                let why = format!("{node} and {to} are dead").into();
                self.has_no_home(Homeless { camera, dead: Some(to), hint: None, why });
            }
            (false, true) => {
                self.fill.take(to, spec);
                let step = camera.step(on(to), format!("{node} is dead"));
                self.plan.steps.push(Step { dead: Some(node.clone()), ..step });
            }
            (true, false) => {
                self.fill.take(node, spec);
                let step = camera.step(on(node), format!("{to} is dead"));
                self.plan.steps.push(Step { dead: Some(to.clone()), ..step });
            }
            (true, true) if plays => {
                self.fill.take(to, spec);
                self.plan.steps.push(camera.step(on(to), format!("it plays on {to}")));
            }
            (true, true) => {
                self.fill.take(node, spec);
                self.fill.take(to, spec);
                // A clock that jumps, either way, ends the wait.
                if self.now_ms.abs_diff(since_ms) > self.limits.move_timeout_ms {
                    let must_leave = self.why_move(camera, node).is_some_and(|reason| !reason.is_asked);
                    let after = if must_leave {
                        Some(Where::Stopping { node: node.clone(), to: Some(to.clone()) })
                    } else {
                        on(node)
                    };
                    self.plan.steps.push(camera.step(after, format!("it did not play on {to} in time")));
                } else {
                    self.refresh(camera, place);
                }
            }
        }
    }

    /// A camera that nobody wants any more: its place goes once it has stopped.
    fn unwanted(&mut self, key: &Key, place: &Place) {
        let (after, dead) = match &place.at {
            Where::On { node } | Where::Both { node, .. } if self.lives(node) => {
                (Some(Where::Stopping { node: node.clone(), to: None }), None)
            }
            Where::Stopping { node, .. } if self.world.nodes.get(node).is_some_and(|n| n.applied < place.rev) => {
                return;
            }
            Where::On { node } | Where::Both { node, .. } | Where::Stopping { node, .. } => {
                (None, (!self.lives(node)).then(|| node.clone()))
            }
        };
        let step = Step::of(key, 0, Some(place), after, "it is not wanted any more".into());
        self.plan.steps.push(Step { dead, ..step });
    }

    fn has_no_home(&mut self, homeless: Homeless<'a>) {
        let Camera { key, spec, .. } = homeless.camera;
        self.homeless.insert((&spec.group, key), homeless);
    }

    /// Gives a place to all that has none.
    fn missing(&mut self) {
        self.fill.expect(self.homeless.values().map(|homeless| homeless.camera.spec));
        for Homeless { camera, dead, hint, why } in std::mem::take(&mut self.homeless).into_values() {
            let spec = camera.spec;
            let hint = hint.filter(|hint| self.fill.accepts(spec, hint).is_ok()).cloned();
            match hint.map_or_else(|| self.fill.choose(spec), Ok) {
                Ok(node) => {
                    self.fill.take(&node, spec);
                    let step = camera.step(Some(Where::On { node }), why);
                    self.plan.steps.push(Step { dead: dead.cloned(), ..step });
                }
                Err(reason) => {
                    self.plan.unplaced.insert(camera.key.clone(), reason);
                    // A dead node keeps nothing: should it come back, it is one like others.
                    if camera.place.is_some() {
                        self.plan.steps.push(Step { dead: dead.cloned(), ..camera.step(None, why) });
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
        let mut of = std::mem::take(&mut self.settled);
        loop {
            let Some((camera, from, to)) = self.fill.uneven(&mut of) else {
                self.plan.balanced = self.plan.moving == 0;
                return;
            };
            if self.limits.moves == 0 {
                self.plan.waiting += 1;
                return;
            }
            self.limits.moves -= 1;
            self.plan.moving += 1;
            self.fill.take(&to, camera.spec);
            self.fill.give_back(&from, camera.spec);
            let after = if camera.spec.overlap {
                Where::Both { node: from, to, since_ms: self.now_ms }
            } else {
                Where::Stopping { node: from, to: Some(to) }
            };
            self.plan.steps.push(camera.step(Some(after), "the fleet is rebalanced"));
        }
    }

    /// Those who have a camera learn of a change of it. Whether there is one.
    fn refresh(&mut self, camera: Camera, place: &Place) -> bool {
        let told = |node: &NodeId| camera.placed.and_then(|placed| placed.get(node)).map(|placed| placed.rev);
        let has_changed = place.at.holders().any(|node| told(node) != Some(camera.spec.rev));
        if has_changed {
            self.plan.steps.push(camera.step(Some(place.at.clone()), "it has changed"));
        }
        has_changed
    }
}

struct Reason {
    text: Arc<str>,
    is_asked: bool,
    to: Option<NodeId>,
}

#[cfg(test)]
mod tests;
