//! The clock of the machines jumps, of the programs' and the servers' (`date -s`, a bad time server): by libfaketime.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::fixture::{CAMERAS, Fleet, LEASE, LOST, Way, wait_for};
use crate::support::skip;

const DAY_MS: i64 = 86_400_000;

/// Where Debian has it, for whatever processor.
fn library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.flatten();
    places.map(|place| place.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
#[ignore = "slow: just test-fleet"]
fn clocks_that_jump_move_nothing() {
    let Some(library) = library() else {
        skip("a clock that jumps: libfaketime is not there");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    // One for each node: they jump one by one, and all at once.
    let clock = |node: usize| dir.path().join(node.to_string());
    let set = |node: usize, offset: &str| {
        // Never empty for a moment.
        let new = clock(node).with_extension("new");
        fs::write(&new, offset).unwrap();
        fs::rename(&new, clock(node)).unwrap();
    };
    (0..4).for_each(|node| set(node, "+0"));
    let mut fleet = Fleet::start_with(4, 200, |node, etcd| {
        let clock = clock(node);
        let variables = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        Way { env: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), ..Way::to(etcd) }
    })
    .playing();
    let began = Instant::now();
    for offset in ["+400d", "-400d", "+0"] {
        for node in 0..4 {
            set(node, offset);
            fleet.pass(Duration::from_secs(1));
        }
        fleet.pass(Duration::from_secs(LEASE));
    }
    assert_eq!(fleet.street.arrivals(began, 0..CAMERAS), 0, "a clock has jumped");
    assert_eq!(fleet.street.played_by_one(CAMERAS), CAMERAS);

    // That it has: a move bears the time that it was then.
    let last = |fleet: &Fleet| -> Value {
        let told = fleet.command(&["history", "--limit", "1"]);
        serde_json::from_str(&told).unwrap_or_else(|why| panic!("{why}: {told}"))
    };
    for (offset, days) in [("+400d", 400), ("-400d", -400)] {
        (0..4).for_each(|node| set(node, offset));
        let camera = (0..CAMERAS).find(|camera| fleet.place(*camera) == "a").unwrap();
        let key = format!("__defaultVhost__/live/c{camera}");
        fleet.command(&["move", &key, "b"]);
        wait_for("the move", Duration::from_secs(30), || {
            fleet.place(camera) == "b" && fleet.street.now(camera) == 1
        });
        let moved = last(&fleet);
        let off_by = moved["at"].as_i64().unwrap() - now_ms() - days * DAY_MS;
        assert!(moved["key"] == *key && off_by.abs() < DAY_MS, "{moved}, which is off by {off_by} ms");
    }
    // A death while the clocks of all others jump.
    let died = Instant::now();
    fleet.nodes[1].kill();
    for offset in ["+3d", "-3d", "+7d", "-1d"] {
        [0, 2, 3].into_iter().for_each(|node| set(node, offset));
        fleet.pass(Duration::from_secs(1));
    }
    fleet.nodes.remove(1);
    fleet.wait_until_all_play(CAMERAS, LOST + Duration::from_secs(30));
    let (gap, camera) = fleet.street.longest_gap(died);
    assert!(gap <= LOST, "camera {camera} was played by nobody for {gap:?}");
    fleet.never_two(began);
}
