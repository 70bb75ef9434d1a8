//! A fleet on this machine: three members of etcd, three MediaServers with a `zlm-journal-fleet` beside each, and 60
//! cameras. One node is killed, its cameras go on elsewhere, it returns, and the fleet is rebalanced.
//!
//!     cargo run --example fleet              and ends
//!     cargo run --example fleet -- --stay    and stays, for you to play with, until Ctrl-C
//!
//! Needs etcd (Debian: etcd-server) and protoc (protobuf-compiler, libprotobuf-dev). Takes the MediaServers that the tests take, and the
//! stand-in where there is none (README.md).

#[path = "../tests/fleet/fixture.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "../tests/fleet/street.rs"]
#[allow(dead_code)]
mod street;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/fleet/wire.rs"]
#[allow(dead_code)]
mod wire;

use std::time::{Duration, Instant};

use fixture::{Fleet, LEASE, wait_for};

const CAMERAS: usize = 60;
const SOON: Duration = Duration::from_secs(60);

fn main() {
    println!("Three members of etcd, three MediaServers, a zlm-journal-fleet beside each …");
    let mut fleet = Fleet::start(3, 40);
    println!("{CAMERAS} cameras are wanted:\n");
    fleet.sync(&fleet.items(CAMERAS), &[]);
    fleet.wait_until_all_play(CAMERAS, SOON);
    println!("{}", fleet.command(&["status"]));

    let its = fleet.cameras_on("b");
    println!("Node b dies, with {its} cameras (its lease is of {LEASE} s) …");
    let died = Instant::now();
    fleet.nodes[1].kill();
    fleet.wait_until_all_play(CAMERAS, SOON);
    let ((gap, _), (twice, _)) = (fleet.street.longest_gap(died), fleet.street.longest_double(died));
    println!(
        "… all play again. Seen at the cameras: nobody was connected for at most {:.1} s, two at once for {:.1} s.\n",
        gap.as_secs_f64(),
        twice.as_secs_f64()
    );
    println!("{}", fleet.command(&["status"]));

    println!("Node b returns, empty, and the fleet is rebalanced, ten moves a second …\n");
    fleet.nodes[1].start();
    wait_for("b", SOON, || fleet.status()["nodes"]["b"]["alive"] == true);
    fleet.command(&["rebalance", "--per-sec", "10"]);
    wait_for("the rebalance", SOON, || fleet.cameras_on("b") >= 15 && fleet.status()["rebalancing"] == false);
    fleet.wait_until_all_play(CAMERAS, SOON);
    println!("{}", fleet.command(&["status"]));
    println!("The last moves, and why:\n\n{}", fleet.command(&["history", "--limit", "3"]));

    let stay = std::env::args().any(|arg| arg == "--stay");
    println!("Try it yourself{}:\n", if stay { "" } else { " (with `-- --stay`)" });
    let program = fleet.prepared(&["status", "--follow"]);
    let words: Vec<String> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    println!("  {}", words.join(" "));
    println!("  curl '{}/where?key=__defaultVhost__/live/c7'", fleet.nodes[0].api);
    println!("  curl -sD- {}/live/c7.live.flv -o /dev/null    # goes to the node that has it", fleet.nodes[0].api);
    println!("  kill -9 {}    # the program of node c: its guard stops the cameras", fleet.nodes[2].pid());
    if stay {
        loop {
            fleet.pass(Duration::from_secs(1));
        }
    }
}
