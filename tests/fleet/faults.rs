//! One fault after the other, chosen by chance, and after each: every camera is played by one. `ZLMJ_SEED` chooses
//! another sequence, `ZLMJ_FLEET_FAULTS` how long it is.

use std::time::{Duration, Instant};

use crate::fixture::{CAMERAS, DOUBLE, Fleet, LEASE, LOST, Way, wait_for};
use crate::link::{self, Link};
use crate::support::say;
use crate::support::server::Server;
use crate::wire::Wire;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A fleet whose every node has wires of its own to etcd.
fn wired() -> (Fleet, Vec<Vec<Wire>>) {
    let mut wires = vec![Vec::new(); 4];
    let cell = std::cell::RefCell::new(&mut wires);
    let fleet = Fleet::start_with(4, 200, |node, endpoints| {
        let own: Vec<Wire> = endpoints.iter().map(|endpoint| Wire::to(endpoint)).collect();
        let urls: Vec<String> = own.iter().map(|wire| wire.url.clone()).collect();
        cell.borrow_mut()[node] = own;
        Way::to(&urls)
    });
    (fleet.playing(), wires)
}

#[test]
#[ignore = "slow: just test-fleet"]
fn a_node_that_is_cut_off_from_etcd_stops_before_others_start() {
    let (mut fleet, wires) = wired();
    let cut = Instant::now();
    wires[1].iter().for_each(|wire| wire.cut(true));
    fleet.pass(Duration::from_secs(LEASE + 4));
    fleet.wait_until_all_play(CAMERAS, Duration::from_secs(30));
    assert_eq!(fleet.nodes[1].given(), 0, "b has stopped its cameras");
    fleet.never_two(cut);
    let (gap, camera) = fleet.street.longest_gap(cut);
    assert!(gap <= LOST, "camera {camera} was played by nobody for {gap:?}");
    say(&format!(
        "a node was cut off: no camera was played by two for longer than {:?}",
        fleet.street.longest_double(cut).0
    ));
    wires[1].iter().for_each(|wire| wire.cut(false));
    fleet.pass(Duration::from_secs(5));
    fleet.never_two(cut);
    assert_eq!(fleet.status()["nodes"]["b"]["alive"], true);

    // Restarted while etcd cannot be reached for a moment: its cameras go on.
    let restarted = Instant::now();
    wires[2].iter().for_each(|wire| wire.cut(true));
    fleet.nodes[2].end_program("USR2");
    fleet.nodes[2].start_program();
    fleet.pass(Duration::from_secs(1));
    wires[2].iter().for_each(|wire| wire.cut(false));
    wait_for("c to be there again", Duration::from_secs(30), || {
        fleet.nodes[2].log().matches("is in the fleet").count() == 2
    });
    fleet.pass(Duration::from_secs(1));
    assert_eq!(fleet.street.arrivals(restarted, 0..CAMERAS), 0, "c was restarted");

    // Slow, and not so slow that the lease would end: nothing happens.
    let slow = Instant::now();
    wires.iter().flatten().for_each(|wire| wire.slow(Duration::from_millis(150)));
    fleet.pass(Duration::from_secs(LEASE * 2));
    assert_eq!(fleet.street.arrivals(slow, 0..CAMERAS), 0, "etcd answers slowly");
}

/// The same by a real network, of which one link is down: nothing arrives, and nobody is told.
#[test]
#[ignore = "slow: just test-fleet"]
fn a_node_whose_link_to_etcd_is_down_stops_before_others_start() {
    if !link::inside("faults::a_node_whose_link_to_etcd_is_down_stops_before_others_start") {
        return;
    }
    let link = Link::new();
    let way = |node, etcd: &[String]| if node == 1 { link.way(etcd) } else { Way::to(etcd) };
    let mut fleet = Fleet::start_with(4, 200, way).playing();
    assert!(fleet.nodes[1].given() > 0);
    let down = Instant::now();
    link.set("down");
    fleet.pass(Duration::from_secs(LEASE + 4));
    fleet.wait_until_all_play(CAMERAS, Duration::from_secs(30));
    assert_eq!(fleet.nodes[1].given(), 0, "b has stopped its cameras");
    fleet.never_two(down);
    let ((gap, camera), (double, _)) = (fleet.street.longest_gap(down), fleet.street.longest_double(down));
    assert!(gap <= LOST, "camera {camera} was played by nobody for {gap:?}");
    say(&format!(
        "a link was down: none was played by nobody for longer than {gap:.1?}, nor by two for {double:.2?}"
    ));
    let up = Instant::now();
    link.set("up");
    wait_for("b to be there again", Duration::from_secs(60), || fleet.status()["nodes"]["b"]["alive"] == true);
    fleet.pass(Duration::from_secs(5));
    assert_eq!(fleet.street.arrivals(up, 0..CAMERAS), 0, "its return moves nothing");
    fleet.never_two(down);

    // Down for a moment: nothing happens.
    let calm = Instant::now();
    link.set("down");
    fleet.pass(Duration::from_secs(1));
    link.set("up");
    fleet.pass(Duration::from_secs(LEASE * 2));
    assert_eq!(fleet.street.arrivals(calm, 0..CAMERAS), 0);
}

#[test]
#[ignore = "slow: just test-fleet"]
fn faults_in_a_row_leave_every_camera_with_one() {
    let seed = number("ZLMJ_SEED", 1);
    let count = number("ZLMJ_FLEET_FAULTS", 8);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut fleet, wires) = wired();
    let began = Instant::now();
    // While a server is stopped, nobody can end its connections but by ending it.
    let mut double = Duration::ZERO;
    for fault in 0..count {
        let at = random.usize(..fleet.nodes.len());
        let long = Duration::from_millis(random.u64(500..LEASE * 2500));
        let since = Instant::now();
        let what = match random.u32(0..9) {
            0 => {
                fleet.nodes[at].kill();
                fleet.pass(long);
                fleet.nodes[at].start();
                "a node dies and returns"
            }
            1 => {
                fleet.nodes[at].kill_program_alone();
                fleet.pass(long);
                fleet.nodes[at].start_program();
                "a program dies"
            }
            2 => {
                let pid = fleet.nodes[at].pid();
                Server::signal(pid, "STOP");
                fleet.pass(long);
                Server::signal(pid, "CONT");
                "a program is stopped"
            }
            3 => {
                let pid = fleet.nodes[at].server.pid();
                Server::signal(pid, "STOP");
                fleet.pass(long);
                // It may have been ended meanwhile.
                let _ = std::process::Command::new("kill").args(["-CONT", &pid.to_string()]).status();
                "a server is stopped"
            }
            4 => {
                let (program, server) = (fleet.nodes[at].pid(), fleet.nodes[at].server.pid());
                Server::signal(program, "STOP");
                Server::signal(server, "STOP");
                fleet.pass(long);
                let _ = std::process::Command::new("kill").args(["-CONT", &server.to_string()]).status();
                Server::signal(program, "CONT");
                "a program and its server are stopped"
            }
            5 => {
                wires[at].iter().for_each(|wire| wire.cut(true));
                fleet.pass(long);
                wires[at].iter().for_each(|wire| wire.cut(false));
                "a node is cut off"
            }
            6 => {
                let member = fleet.etcd.leader().unwrap_or_default();
                fleet.etcd.members[member].kill();
                fleet.pass(long);
                fleet.etcd.members[member].start();
                "the leader of etcd dies"
            }
            7 => {
                fleet.nodes[at].server.kill();
                fleet.pass(long / 4);
                fleet.nodes[at].restart_server();
                "a server dies"
            }
            _ => {
                for wire in &wires[at] {
                    wire.slow(Duration::from_millis(random.u64(50..1500)));
                }
                fleet.pass(long);
                wires[at].iter().for_each(|wire| wire.slow(Duration::ZERO));
                "etcd answers slowly"
            }
        };
        let node = fleet.nodes[at].id.clone();
        fleet.wait_until_all_play(CAMERAS, LOST + Duration::from_secs(60));
        let twice = fleet.street.longest_double(since).0;
        double = double.max(twice);
        say(&format!(
            "fault {} of {count} (seed {seed}): {what} ({node}, {long:.1?}); all play after {:.1?}, twice for {twice:.2?}",
            fault + 1,
            since.elapsed()
        ));
        assert!(
            twice <= DOUBLE,
            "seed {seed}, fault {}, {what} on {node}: a camera was played by two for {twice:?}",
            fault + 1
        );
        fleet.pass(Duration::from_millis(random.u64(0..3000)));
    }
    say(&format!(
        "{count} faults in {:.0?}: every camera is back, and none was played by two for longer than {double:.2?}",
        began.elapsed()
    ));
}
