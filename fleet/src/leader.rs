//! The elected one: sees everything of the fleet, has `place` plan, and writes where each camera belongs, in transactions
//! that only count while it is still elected and everything is still as it was seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::EventType;
use tokio::time::{Instant, sleep, timeout_at};

use crate::etcd::{self, If, Kv, Store};
use crate::model::{Camera, Entry, Head, NodeInfo, Placed, Rebalance, Report, Where};
use crate::place::{self, Limits, Place, Plan, Spec, Step, World};
use crate::seen::{Leading, NodeSeen};
use crate::shared::Shared;
use crate::wanted::{self, now_ms};
use crate::writes::{self, STEPS, Write};

/// How long what happens together may take to arrive.
const SETTLE: Duration = Duration::from_millis(50);
/// How long one plan is carried out before the next one is made.
const TURN: Duration = Duration::from_secs(1);
/// Moves are paced, and what does not play in time is taken back: by looks in these intervals.
const LOOK: Duration = Duration::from_millis(250);
/// Entries of the history that are kept.
const HISTORY: usize = 10_000;

/// How many of the unplaced are named.
const NAMED: usize = 100;

/// Waits to be elected, then leads until that fails.
pub async fn campaign(shared: Arc<Shared>, lease: i64) -> Result<()> {
    shared.is_leader.store(false, Ordering::SeqCst);
    let (key, rev) = shared.store.campaign(&shared.node.api, lease).await?;
    log::info!("node {} leads the fleet", shared.node.id);
    let led = lead(&shared, If::Created(key, rev)).await;
    shared.is_leader.store(false, Ordering::SeqCst);
    led
}

/// The fleet as etcd has it, up to a revision.
struct Mirror {
    prefix: String,
    world: World,
    infos: BTreeMap<String, NodeInfo>,
    reports: HashMap<String, i64>,
    head: Option<Head>,
    pace: Option<Rebalance>,
    revision: i64,
}

impl Mirror {
    fn take(&mut self, kv: &Kv, is_there: bool) -> Result<()> {
        self.revision = self.revision.max(kv.rev);
        let Some(key) = kv.key.strip_prefix(&self.prefix) else { return Ok(()) };
        let bad = || format!("{} in etcd cannot be read: repair or delete it", kv.key);
        let world = &mut self.world;
        match Entry::of(key) {
            Entry::Camera(key) if is_there => {
                let camera: Camera = serde_json::from_slice(&kv.value).with_context(bad)?;
                let Camera { zone, node, weight, group, overlap, .. } = camera;
                let spec = Spec { rev: kv.rev, zone, node, weight: weight.max(1), group, overlap };
                world.cameras.insert(key.into(), spec);
            }
            Entry::Camera(key) => drop(world.cameras.remove(key)),
            Entry::Head => {
                self.head = is_there.then(|| serde_json::from_slice(&kv.value)).transpose().with_context(bad)?;
            }
            Entry::Node(id) if is_there => {
                let info: NodeInfo = serde_json::from_slice(&kv.value).with_context(bad)?;
                let applied = self.reports.get(id).copied().unwrap_or_default();
                let node = place::Node { zone: info.zone.clone(), capacity: info.capacity, applied };
                world.nodes.insert(id.into(), node);
                self.infos.insert(id.to_owned(), info);
            }
            Entry::Node(id) => drop((world.nodes.remove(id), self.infos.remove(id))),
            Entry::Report(id) => {
                let report: Report = if is_there {
                    serde_json::from_slice(&kv.value).with_context(bad)?
                } else {
                    Report::default()
                };
                // A write that arrives late takes nothing back: revisions only grow.
                let applied = self.reports.entry(id.to_owned()).or_default();
                *applied = report.applied.max(*applied);
                if let Some(node) = world.nodes.get_mut(id) {
                    node.applied = *applied;
                }
            }
            Entry::Placed(node, key) => {
                let placed = world.placed.entry(key.into()).or_default();
                if is_there {
                    let new: Placed = serde_json::from_slice(&kv.value).with_context(bad)?;
                    placed.insert(node.into(), new);
                } else {
                    placed.remove(node);
                    if placed.is_empty() {
                        world.placed.remove(key);
                    }
                }
            }
            Entry::Where(key) if is_there => {
                let at: Where = serde_json::from_slice(&kv.value).with_context(bad)?;
                world.places.insert(key.into(), Place { at, rev: kv.rev });
            }
            Entry::Where(key) => drop(world.places.remove(key)),
            Entry::Drain(node) if is_there => drop(world.draining.insert(node.into())),
            Entry::Drain(node) => drop(world.draining.remove(node)),
            Entry::Ask(key) if is_there => {
                let to = String::from_utf8_lossy(&kv.value);
                world.asks.insert(key.into(), to.as_ref().into());
            }
            Entry::Ask(key) => drop(world.asks.remove(key)),
            Entry::Rebalance => {
                self.pace = is_there.then(|| serde_json::from_slice(&kv.value)).transpose().with_context(bad)?;
                world.rebalance = is_there;
            }
            Entry::Other => {}
        }
        Ok(())
    }
}

async fn lead(shared: &Arc<Shared>, elected: If) -> Result<()> {
    let store = &shared.store;
    let (all, revision) = store.list(&store.keys.prefix).await?;
    let mut mirror = Mirror {
        prefix: store.keys.prefix.clone(),
        world: World::default(),
        infos: BTreeMap::new(),
        reports: HashMap::new(),
        head: None,
        pace: None,
        revision,
    };
    for kv in &all {
        // One value that nobody can read must not stop the rest.
        if let Err(error) = mirror.take(kv, true) {
            shared.is_wrong(&error);
        }
    }
    drop(all);
    let (_connection, mut stream) = store.watch(&store.keys.prefix, revision + 1).await?;
    let mut written = revision;
    let mut moves = Bucket::new();
    let (mut next_cleaning, mut staged) = (Instant::now(), HashMap::new());
    loop {
        // Nothing is planned before everything that was written has come back.
        if mirror.revision >= written {
            let next = turn(shared, &elected, &mut mirror, &mut moves).await?;
            written = written.max(next);
            if Instant::now() >= next_cleaning {
                next_cleaning = Instant::now() + Duration::from_secs(600);
                wanted::clean(store, &mut staged).await?;
                clean_history(store).await?;
            }
        }
        let mut until = Instant::now() + LOOK;
        // The first news, and all that comes with it.
        while let Ok(answer) = timeout_at(until, stream.message()).await {
            let Some(answer) = answer.map_err(etcd::broken)? else { bail!("etcd has ended the watch") };
            if answer.canceled() {
                bail!("etcd has ended the watch: {}", answer.cancel_reason());
            }
            for event in answer.events() {
                let Some(kv) = event.kv() else { continue };
                let is_there = event.event_type() == EventType::Put;
                let kv = Kv {
                    key: String::from_utf8_lossy(kv.key()).into_owned(),
                    value: kv.value().to_vec(),
                    rev: kv.mod_revision(),
                };
                if let Err(error) = mirror.take(&kv, is_there) {
                    shared.is_wrong(&error);
                }
            }
            let soon = Instant::now() + SETTLE;
            // Without end, news may not hold up the plan.
            until = until.min(soon);
        }
    }
}

/// Plans once, and writes it. The revision of the last write.
async fn turn(shared: &Arc<Shared>, elected: &If, mirror: &mut Mirror, moves: &mut Bucket) -> Result<i64> {
    if mirror.head.as_ref().is_some_and(|head| head.pending) {
        wanted::fold(&shared.store).await?;
        return Ok(mirror.revision + 1);
    }
    let pace = &shared.config.pace;
    let per_sec = mirror.pace.as_ref().map_or(pace.moves_per_sec, |order| order.per_sec.max(1));
    let under_way = mirror.world.places.values().filter(|place| !matches!(place.at, Where::On { .. })).count();
    let at_once = pace.moves_at_once.saturating_sub(under_way);
    let limits = Limits {
        moves: moves.look(per_sec).min(at_once),
        move_timeout_ms: u64::from(pace.move_timeout_sec) * 1000,
    };
    let began = std::time::Instant::now();
    let plan = place::plan(&mirror.world, now_ms(), limits);
    let took = began.elapsed();
    moves.take(plan.moving.saturating_sub(under_way));
    tell(shared, mirror, &plan, took, per_sec);
    let mut last = carry_out(shared, elected, &plan.steps).await?;
    if plan.balanced && mirror.world.rebalance {
        let done = [Write::Delete(shared.store.keys.rebalance())];
        last =
            last.max(shared.store.write_if(std::slice::from_ref(elected), &done, None).await?.unwrap_or_default());
    }
    let idle: Vec<Write> = mirror
        .world
        .asks
        .keys()
        .filter(|key| !mirror.world.cameras.contains_key(*key))
        .map(|key| Write::Delete(shared.store.keys.ask(key)))
        .take(100)
        .collect();
    if !idle.is_empty() {
        last =
            last.max(shared.store.write_if(std::slice::from_ref(elected), &idle, None).await?.unwrap_or_default());
    }
    Ok(last)
}

async fn carry_out(shared: &Shared, elected: &If, steps: &[Step]) -> Result<i64> {
    let (mut last, began) = (0, Instant::now());
    for (number, chunk) in steps.chunks(STEPS).enumerate() {
        // What happens meanwhile may be more urgent: the rest is planned anew.
        if began.elapsed() > TURN {
            break;
        }
        match carry_out_some(shared, elected, chunk, number).await? {
            Some(revision) => last = revision,
            // Something has changed meanwhile. The others of these steps need not wait for it.
            None => {
                for (at, step) in chunk.iter().enumerate() {
                    let number = number * STEPS + at;
                    let one = carry_out_some(shared, elected, std::slice::from_ref(step), number).await?;
                    last = one.unwrap_or(last);
                }
                if shared.store.write_if(std::slice::from_ref(elected), &[], None).await?.is_none() {
                    bail!("another node leads now");
                }
            }
        }
    }
    Ok(last)
}

async fn carry_out_some(shared: &Shared, elected: &If, steps: &[Step], number: usize) -> Result<Option<i64>> {
    let keys = &shared.store.keys;
    let mut conditions = vec![elected.clone()];
    for step in steps {
        conditions.push(If::Rev(keys.place(&step.key), step.rev));
        if let Some(dead) = &step.dead {
            let gone = keys.node(dead);
            let is_there = |condition: &If| matches!(condition, If::Absent(key) if *key == gone);
            if !conditions.iter().any(is_there) {
                conditions.push(If::Absent(gone));
            }
        }
    }
    let mut all: Vec<Write> = steps.iter().flat_map(|step| writes::of_step(keys, step)).collect();
    all.extend(writes::history(keys, steps, now_ms(), number));
    let written = shared.store.write_if(&conditions, &all, None).await?;
    if written.is_some() {
        shared
            .moves
            .fetch_add(steps.iter().filter(|step| step.before != step.after).count() as u64, Ordering::Relaxed);
    }
    Ok(written)
}

/// What the plan knows, for whoever asks.
fn tell(shared: &Shared, mirror: &Mirror, plan: &Plan, took: Duration, per_sec: usize) {
    let mut nodes: BTreeMap<String, NodeSeen> = BTreeMap::new();
    for (id, info) in &mirror.infos {
        let seen = NodeSeen {
            alive: true,
            zone: info.zone.as_deref().map(str::to_owned),
            capacity: info.capacity,
            api: info.api.clone(),
            public: info.public.clone(),
            version: info.version.clone(),
            instance: info.instance.clone(),
            lease_sec: info.lease_sec,
            fence_sec: info.fence_sec,
            ..NodeSeen::default()
        };
        nodes.insert(id.clone(), seen);
    }
    for (key, place) in &mirror.world.places {
        let weight = mirror.world.cameras.get(key).map_or(1, |spec| spec.weight);
        let seen = nodes.entry(place.at.node().to_string()).or_default();
        seen.cameras += 1;
        seen.used += u64::from(weight);
    }
    for node in &mirror.world.draining {
        nodes.entry(node.to_string()).or_default().draining = true;
    }
    let some = |all: &BTreeMap<place::Key, String>| {
        all.iter().take(NAMED).map(|(key, why)| (key.to_string(), why.clone())).collect()
    };
    // Who asks before the first plan is told nothing.
    shared.is_leader.store(true, Ordering::SeqCst);
    *shared.leading.lock() = Leading {
        node: shared.node.id.clone(),
        cameras: mirror.world.cameras.len(),
        nodes,
        moving: plan.moving,
        waiting: plan.waiting,
        eta_sec: (plan.waiting > 0).then(|| (plan.waiting as u64).div_ceil(per_sec.max(1) as u64)),
        unplaced: some(&plan.unplaced),
        unplaced_count: plan.unplaced.len(),
        stuck: some(&plan.stuck),
        stuck_count: plan.stuck.len(),
        rebalancing: mirror.world.rebalance,
        revision: mirror.revision,
        plan_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
}

/// Lets so many moves begin each second.
struct Bucket {
    left: f64,
    looked: Instant,
}

impl Bucket {
    fn new() -> Self {
        Self { left: 1.0, looked: Instant::now() }
    }

    fn look(&mut self, per_sec: usize) -> usize {
        let now = Instant::now();
        let more = now.duration_since(self.looked).as_secs_f64() * per_sec as f64;
        self.looked = now;
        self.left = (self.left + more).min(per_sec as f64);
        self.left as usize
    }

    fn take(&mut self, moves: usize) {
        self.left = (self.left - moves as f64).max(0.0);
    }
}

async fn clean_history(store: &Store) -> Result<()> {
    let (all, _) = store.list(&store.keys.history()).await?;
    for some in oldest(all, HISTORY).chunks(100) {
        store.write(some).await?;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Deletes all but so many. Not by the times in them: a clock that is a year ahead would delete all.
fn oldest(mut history: Vec<Kv>, keep: usize) -> Vec<Write> {
    history.sort_by_key(|kv| kv.rev);
    history.truncate(history.len().saturating_sub(keep));
    history.into_iter().map(|kv| Write::Delete(kv.key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_forgets_what_was_written_first_whatever_the_clocks_said() {
        let entry = |(key, rev): (&str, i64)| Kv { key: key.to_owned(), value: Vec::new(), rev };
        let all = || [("2026", 3), ("1970", 4), ("2099", 1), ("2025", 2)].map(entry).to_vec();
        let forgotten = |keep| -> Vec<String> {
            let key = |write| match write {
                Write::Delete(key) => key,
                Write::Put(key, _) => panic!("{key} is written"),
            };
            oldest(all(), keep).into_iter().map(key).collect()
        };
        assert_eq!(forgotten(2), ["2099", "2025"]);
        assert_eq!(forgotten(4), [""; 0]);
    }
}
