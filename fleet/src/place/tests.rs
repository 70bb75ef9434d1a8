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
