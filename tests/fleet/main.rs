//! The fleet, end to end: real etcd, MediaServers (the stand-in where there is none), cameras that count who is connected.

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod faults;
mod fixture;
mod link;
mod refusals;
mod street;
mod tls;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fixture::{CAMERAS, FENCE, Fleet, LEASE, LOST, wait_for};
use serde_json::json;
use support::say;
use support::server::Server;

const SOON: Duration = Duration::from_secs(30);

fn placed() -> Fleet {
    Fleet::start(4, 200).playing()
}

#[test]
#[ignore = "slow: just test-fleet"]
fn a_dead_node_loses_its_cameras_to_others_and_gets_none_back_by_itself() {
    let mut fleet = placed();
    // The one whose program leads the fleet.
    let leader = fleet.status()["node"].as_str().unwrap().to_owned();
    let at = fleet.nodes.iter().position(|node| node.id == leader).unwrap();
    let (its, others): (Vec<usize>, Vec<usize>) = (0..CAMERAS).partition(|camera| fleet.place(*camera) == leader);
    assert!((80..=120).contains(&its.len()), "{} cameras on {leader}", its.len());

    let died = Instant::now();
    fleet.nodes[at].kill();
    let one = fleet.nodes.remove(at);
    fleet.wait_until_all_play(CAMERAS, LOST + SOON);
    let (gap, camera) = fleet.street.longest_gap(died);
    assert!(gap <= LOST, "camera {camera} was played by nobody for {gap:?}");
    say(&format!(
        "the leading node, with {} cameras, died: none was played by nobody for longer than {gap:?}",
        its.len()
    ));
    fleet.never_two(died);
    assert_eq!(fleet.street.arrivals(died, others), 0, "cameras of living nodes were moved");
    wait_for("another leader", SOON, || fleet.status()["node"].as_str().is_some_and(|node| node != leader));

    let returned = Instant::now();
    fleet.nodes.insert(at, one);
    fleet.nodes[at].start();
    wait_for("the node to be there again", SOON, || fleet.status()["nodes"][&leader]["alive"] == true);
    fleet.pass(Duration::from_secs(2));
    assert_eq!(fleet.cameras_on(&leader), 0);
    assert_eq!(fleet.nodes[at].given(), 0, "what its journal had is not the fleet's any more");
    assert_eq!(fleet.street.arrivals(returned, 0..CAMERAS), 0);

    fleet.command(&["rebalance", "--per-sec", "40"]);
    wait_for("the nodes to be even, and the rebalance to end", SOON * 2, || {
        let counts = ["a", "b", "c", "d"].map(|node| fleet.cameras_on(node));
        counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 8 && fleet.status()["rebalancing"] == false
    });
    fleet.wait_until_all_play(CAMERAS, SOON);
    let history = fleet.command(&["history", "--limit", "1000"]);
    assert!(history.contains(&format!("{leader} is dead")) && history.contains("rebalanced"), "{history}");
}

#[test]
#[ignore = "slow: just test-fleet"]
fn whoever_stops_is_fenced_and_comes_back() {
    let mut fleet = placed();
    let began = Instant::now();
    // The program of a: its guard stops the cameras, others start them.
    let program = fleet.nodes[0].pid();
    Server::signal(program, "STOP");
    fleet.pass(Duration::from_secs(LEASE + 6));
    fleet.wait_until_all_play(CAMERAS, SOON);
    assert_eq!(fleet.nodes[0].given(), 0, "the guard has stopped what was there");
    fleet.never_two(began);
    assert!(fleet.street.longest_gap(began).0 <= LOST, "{:?}", fleet.street.longest_gap(began));
    Server::signal(program, "CONT");
    wait_for("a to be there again", SOON, || fleet.status()["nodes"]["a"]["alive"] == true);
    fleet.pass(Duration::from_secs(2));
    fleet.never_two(began);

    // The guard of b alone: a new one is started, and nothing else happens.
    let (guard, calm) = (fleet.nodes[1].guard().unwrap(), Instant::now());
    Server::signal(guard, "STOP");
    wait_for("another guard", SOON, || fleet.nodes[1].guard().is_some_and(|now| now != guard));
    assert_eq!(fleet.street.arrivals(calm, 0..CAMERAS), 0);

    // The server of c: it is ended and started again, and others have its cameras.
    let stopped = Instant::now();
    Server::signal(fleet.nodes[2].server.pid(), "STOP");
    fleet.pass(Duration::from_secs(LEASE * 2 + 4));
    fleet.wait_until_all_play(CAMERAS, SOON);
    fleet.never_two(stopped);
    wait_for("c to be there again", SOON, || fleet.status()["nodes"]["c"]["alive"] == true);

    // The program of b is restarted: nothing happens. Ended for good: others have its cameras at once.
    let calm = Instant::now();
    fleet.nodes[1].end_program("USR2");
    fleet.nodes[1].start_program();
    wait_for("b to be there again", SOON, || fleet.nodes[1].log().matches("is in the fleet").count() == 2);
    fleet.pass(Duration::from_secs(1));
    assert_eq!(fleet.street.arrivals(calm, 0..CAMERAS), 0);
    let ended = Instant::now();
    fleet.nodes[1].end_program("TERM");
    fleet.wait_until_all_play(CAMERAS, SOON);
    let (gap, camera) = fleet.street.longest_gap(ended);
    assert!(gap < Duration::from_secs(LEASE - FENCE), "camera {camera} was played by nobody for {gap:?}");
    fleet.nodes[1].start_program();
    wait_for("b to be there again", SOON, || fleet.status()["nodes"]["b"]["alive"] == true);

    // The program of d is killed with its guard, and started again before its lease ends: nothing happens.
    let killed = Instant::now();
    fleet.nodes[3].kill_program();
    fleet.nodes[3].start_program();
    wait_for("d to be there again", SOON, || fleet.nodes[3].log().matches("is in the fleet").count() == 2);
    fleet.pass(Duration::from_secs(1));
    assert_eq!(fleet.street.arrivals(killed, 0..CAMERAS), 0);
    fleet.never_two(began);
}

/// A machine that hangs, but for the guard, and goes on after a minute as if nothing had been.
#[test]
#[ignore = "slow: just test-fleet"]
fn a_program_and_its_server_that_stand_still_for_a_minute_come_back() {
    let mut fleet = placed();
    let (program, server, began) = (fleet.nodes[3].pid(), fleet.nodes[3].server.pid(), Instant::now());
    Server::signal(program, "STOP");
    Server::signal(server, "STOP");
    fleet.pass(Duration::from_secs(LEASE + 6));
    fleet.wait_until_all_play(CAMERAS, SOON);
    let (gap, camera) = fleet.street.longest_gap(began);
    assert!(gap <= LOST, "camera {camera} was played by nobody for {gap:?}");
    let elsewhere = Instant::now();
    fleet.pass(Duration::from_secs(60).saturating_sub(began.elapsed()));
    assert_ne!(fleet.nodes[3].server.pid(), server, "the guard has ended it: it could not stop its cameras");
    Server::signal(program, "CONT");
    wait_for("d to be there again", SOON, || fleet.status()["nodes"]["d"]["alive"] == true);
    fleet.pass(Duration::from_secs(5));
    assert_eq!(fleet.street.arrivals(elsewhere, 0..CAMERAS), 0, "its return moves nothing");
    assert_eq!(fleet.nodes[3].given(), 0);
    fleet.never_two(began);
}

#[test]
#[ignore = "slow: just test-fleet"]
fn etcd_may_lose_members_and_all_of_its_quorum() {
    let mut fleet = placed();
    let began = Instant::now();
    let leader = fleet.etcd.leader().unwrap();
    fleet.etcd.members[leader].kill();
    fleet.pass(Duration::from_secs(LEASE * 2));
    assert_eq!(fleet.street.played_by_one(CAMERAS), CAMERAS, "one member of etcd is dead");

    let other = (leader + 1) % 3;
    fleet.etcd.members[other].kill();
    fleet.pass(Duration::from_secs(LEASE * 3));
    assert_eq!(fleet.street.played_by_one(CAMERAS), CAMERAS, "two members of etcd are dead");
    assert_eq!(fleet.street.arrivals(began, 0..CAMERAS), 0, "all that plays goes on");
    let error = fleet.try_command(&["remove", "__defaultVhost__/live/c0"]).unwrap_err();
    assert!(
        error.contains("quorum") || error.contains("cannot be reached") || error.contains("no answer"),
        "{error}"
    );

    fleet.etcd.members[other].start();
    fleet.etcd.members[leader].start();
    wait_for("etcd", SOON, || fleet.etcd.leader().is_some());
    fleet.pass(Duration::from_secs(LEASE * 2));
    assert_eq!(fleet.street.arrivals(began, 0..CAMERAS), 0, "and does so when etcd is back");
    fleet.command(&["remove", "__defaultVhost__/live/c0"]);
    wait_for("a camera to be removed", SOON, || fleet.street.now(0) == 0);
}

#[test]
#[ignore = "slow: just test-fleet"]
fn planned_work_leaves_no_gap_where_a_camera_bears_two_connections() {
    let mut fleet = placed();
    let began = Instant::now();
    fleet.command(&["drain", "b"]);
    assert_eq!(fleet.cameras_on("b"), 0);
    fleet.wait_until_all_play(CAMERAS, SOON);
    let gaps: Vec<usize> = (0..CAMERAS).step_by(3).filter(|camera| fleet.street.gap(*camera, began)).collect();
    assert!(gaps.is_empty(), "{gaps:?} bear two connections, and had none for a moment");
    fleet.command(&["drain", "b", "--undo"]);

    let camera = (0..CAMERAS).find(|camera| fleet.place(*camera) == "a").unwrap();
    fleet.command(&["move", &format!("__defaultVhost__/live/c{camera}"), "b"]);
    wait_for("the move", SOON, || fleet.place(camera) == "b" && fleet.street.now(camera) == 1);

    // One that bears two connections by its argument and not in truth: it is taken back, and plays all the while.
    let camera = (0..CAMERAS).step_by(3).find(|camera| fleet.place(*camera) == "a").unwrap();
    fleet.street.bears_one(camera);
    let (key, asked) = (format!("__defaultVhost__/live/c{camera}"), Instant::now());
    fleet.command(&["move", &key, "b"]);
    wait_for("the move to be taken back", SOON, || {
        fleet.command(&["history", "--key", &key]).contains("did not play on b in time")
    });
    assert_eq!((&*fleet.place(camera), fleet.street.now(camera)), ("a", 1));
    assert!(!fleet.street.gap(camera, asked), "it was played by nobody for a moment");

    // One node after the other, each with a program that is restarted.
    let (dir, upgrading) = (fleet.dir.path().to_owned(), Arc::new(AtomicBool::new(true)));
    let wish = dir.join("restart");
    let run = format!("echo $NODE > {0} && while [ -e {0} ]; do sleep 0.1; done", wish.display());
    let still = Arc::clone(&upgrading);
    let upgrade = fleet.prepared(&["upgrade", "--run", &run, "c", "d"]);
    let upgrade = std::thread::spawn(move || {
        let mut upgrade = upgrade;
        let output = upgrade.output().unwrap();
        still.store(false, Ordering::SeqCst);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    });
    let mut done = Vec::new();
    while upgrading.load(Ordering::SeqCst) {
        if let Ok(id) = std::fs::read_to_string(&wish).map(|id| id.trim().to_owned())
            && let Some(node) = fleet.nodes.iter_mut().find(|node| node.id == id)
        {
            node.end_program("USR2");
            node.start_program();
            done.push(id);
            std::fs::remove_file(&wish).unwrap();
        }
        fleet.pass(Duration::from_millis(100));
    }
    let (went_well, said) = upgrade.join().unwrap();
    assert!(went_well && said.contains("all are done"), "{said}");
    assert_eq!(done, ["c", "d"]);
    fleet.wait_until_all_play(CAMERAS, SOON);
    let gaps: Vec<usize> = (0..CAMERAS).step_by(3).filter(|camera| fleet.street.gap(*camera, began)).collect();
    assert!(gaps.is_empty(), "{gaps:?} bear two connections, and had none for a moment");

    let marker = fleet.dir.path().join("upgrades");
    let done =
        fleet.try_command(&["upgrade", "--run", &format!("echo $NODE >> {}; exit 3", marker.display()), "a"]);
    assert!(done.unwrap_err().contains("stays empty"));
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "a\n");
    fleet.command(&["cancel"]);
    let history = fleet.command(&["history", "--limit", "2000"]);
    for why in ["b is draining", "an operator has moved it", "it plays on", "it has stopped on b"] {
        assert!(history.contains(why), "{why}: {}", &history[..history.len().min(2000)]);
    }
}

#[test]
#[ignore = "slow: just test-fleet"]
fn what_is_wanted_changes_as_a_whole() {
    let mut fleet = Fleet::start(2, 200);
    let mut items = fleet.items(300);
    items[7]["rtsp_pwd"] = json!("geheim");
    let dry = fleet.sync(&items, &["--dry-run"]);
    assert_eq!((dry["added"].as_array().unwrap().len(), dry["dry_run"] == true), (300, true));
    assert_eq!(fleet.status()["cameras"], 0);
    let first = fleet.sync(&items, &[]);
    fleet.wait_until_all_play(300, SOON);
    // Passwords are not in etcd in clear, nor anywhere in its files.
    let exported = fleet.command(&["export", "--reveal"]);
    assert!(exported.contains(&fleet.street.url(7)) && exported.contains("geheim"));
    // What is shown without it cannot be taken for what is wanted.
    let hidden = fleet.dir.path().join("hidden.json");
    let shown = fleet.command(&["export"]);
    assert!(shown.contains(&fleet.street.url(7)) && !shown.contains("geheim"));
    std::fs::write(&hidden, shown).unwrap();
    let error = fleet.try_command(&["sync", hidden.to_str().unwrap(), "--all-labels"]).unwrap_err();
    assert!(error.contains("its rtsp_pwd is redacted (***): export it with --reveal"), "{error}");
    let dump = support::run(std::process::Command::new("etcdctl").env("ETCDCTL_API", "3").args([
        "--endpoints",
        &fleet.etcd.members[0].client,
        "get",
        "--prefix",
        "/zlm-fleet/",
    ]));
    assert!(
        dump.contains("cameras/__defaultVhost__/live/c7") && !dump.contains("camera7") && !dump.contains("geheim"),
        "a URL is there in clear"
    );

    // The same again changes nothing; an old revision is a conflict; a bad item rejects all.
    let again = fleet.sync(&items, &[]);
    assert_eq!((again["unchanged"].as_u64(), again["added"] == json!([])), (Some(300), true), "{again}");
    let changed = fleet.sync(&items[..299], &[]);
    assert_eq!(changed["removed"], json!(["__defaultVhost__/live/c299"]));
    let file = fleet.dir.path().join("cameras.json");
    let old = first["revision"].to_string();
    let error = fleet.try_command(&["sync", file.to_str().unwrap(), "--if-revision", &old]).unwrap_err();
    assert!(error.contains("changed after that revision"), "{error}");
    std::fs::write(&file, r#"[{"app":"live","stream":"x","url":"rtsp://h/1"},{"app":"live","stream":"y"}]"#)
        .unwrap();
    let error = fleet.try_command(&["sync", file.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("item 2: url is missing"), "{error}");
    wait_for("the removed one to stop", SOON, || fleet.street.now(299) == 0);

    // More than fits: the rest is unplaced, and said so.
    fleet.sync(&fleet.items(450), &[]);
    wait_for("50 to be unplaced", SOON, || fleet.status()["unplaced_count"] == 50);
    let told = fleet.command(&["status"]);
    assert!(told.contains("unplaced 50") && told.contains("no node has room"), "{told}");

    // Only in its zone, only on its node.
    let mut bound = fleet.items(4);
    bound[0]["fleet_zone"] = json!("south");
    bound[1]["fleet_node"] = json!("b");
    bound[2]["fleet_zone"] = json!("nowhere");
    fleet.sync(&bound, &[]);
    wait_for("bound cameras to be where they belong", SOON, || fleet.place(0) == "b" && fleet.place(1) == "b");
    // What may be nowhere else stays, and that is said.
    assert!(fleet.command(&["status"]).contains("stuck: __defaultVhost__/live/c2: its zone is another one"));
    fleet.sync(&items[..100], &[]);
    fleet.wait_until_all_play(100, SOON);

    // Where it is: for programs, and for players.
    let place = fleet.nodes[1].get("/where?key=__defaultVhost__/live/c1");
    let public = place["public"].as_str().unwrap();
    for node in &fleet.nodes {
        let agent = ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build().new_agent();
        let reply = agent.get(format!("{}/live/c1.live.flv?token=x", node.api)).call().unwrap();
        assert_eq!(reply.status(), 302);
        assert_eq!(reply.headers()["location"].to_str().unwrap(), format!("{public}/live/c1.live.flv?token=x"));
        let reply = agent.get(format!("{}/live/c1/hls.m3u8", node.api)).call().unwrap();
        assert_eq!(reply.headers()["location"].to_str().unwrap(), format!("{public}/live/c1/hls.m3u8"));
        // The player's offer goes along.
        let webrtc = "/index/api/webrtc?app=live&stream=c1&type=play";
        let reply = agent.post(format!("{}{webrtc}", node.api)).send("v=0").unwrap();
        assert_eq!(
            (reply.status().as_u16(), reply.headers()["location"].to_str().unwrap()),
            (307, &*format!("{public}{webrtc}"))
        );
        let reply = agent.get(format!("{}/live/nobody.live.flv", node.api)).call().unwrap();
        assert_eq!(reply.status(), 404);
    }
    // Any server serves any camera: that which does not have it pulls it from the one that has.
    if support::HOST.real {
        let source = support::Source::live(fleet.dir.path());
        let mut picture = items[1].clone();
        picture["stream"] = json!("picture");
        picture["url"] = json!(source.url);
        fleet.sync(&[picture], &["--keep"]);
        for node in &fleet.nodes {
            node.server.wait_for("the picture", || node.server.play("picture").is_some());
            assert!(node.server.play("nobody").is_none(), "a stream that nobody has");
        }
    }
    let metrics = |node: &fixture::Node| {
        ureq::get(format!("{}/metrics", node.api)).call().unwrap().body_mut().read_to_string().unwrap()
    };
    assert!(fleet.nodes.iter().all(|node| metrics(node).contains("zlm_journal_fleet_node_member 1")));
    if std::process::Command::new("promtool").arg("--version").output().is_err() {
        support::skip("metrics and alert rules of the fleet by promtool, which is not there");
        return;
    }
    let file = fleet.dir.path().join("metrics");
    std::fs::write(&file, fleet.nodes.iter().map(metrics).find(|text| text.contains("unplaced_cameras")).unwrap())
        .unwrap();
    let check = format!("promtool check metrics < {}", file.display());
    support::run(std::process::Command::new("sh").args(["-c", &check]));
    let rules = support::root().join("docs/prometheus/fleet-alerts.yml");
    support::run(std::process::Command::new("promtool").args(["check", "rules"]).arg(&rules));
    // What alerts and dashboard ask for is there.
    let told: Vec<String> = fleet.nodes.iter().map(metrics).collect();
    for file in ["fleet-alerts.yml", "fleet-grafana.json"] {
        let text = std::fs::read_to_string(support::root().join("docs/prometheus").join(file)).unwrap();
        for name in
            text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|n| n.starts_with("zlm_journal_fleet_"))
        {
            assert!(told.iter().any(|text| text.contains(&format!("# TYPE {name} "))), "{file}: {name}");
        }
    }
}
