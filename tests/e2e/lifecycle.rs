//! Starting and stopping, in every way that a MediaServer is started and stopped.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::kinds::{add_ffmpeg, add_push, ffmpeg_sources, pushes};
use super::*;

fn two_cameras(fixture: &Fixture) -> (Source, Vec<(String, String)>) {
    let source = fixture.source();
    for stream in ["a", "b"] {
        assert_persisted(&add(&fixture.server, stream, &source.url, &[]));
    }
    let before = fixture.server.proxies();
    (source, before)
}

/// A running server onto whose disk nothing gets while there is that file.
fn on_a_disk_that_can_be_stuck() -> (Fixture, PathBuf) {
    let mut fixture = Fixture::prepare(&[]);
    let stuck = fixture.dir.path().join("stuck");
    fixture.server.env =
        vec![support::preload("stuck"), ("STUCK_WHILE".to_owned(), stuck.to_str().unwrap().to_owned())];
    fixture.server.start();
    (fixture, stuck)
}

#[test]
fn a_shutdown_by_signal_removes_nothing() {
    for signal in ["TERM", "INT"] {
        let mut fixture = Fixture::start(&[]);
        let (_source, before) = two_cameras(&fixture);
        Server::signal(fixture.server.pid(), signal);
        fixture.server.wait_for_end();
        assert_eq!(fixture.sqlite3("select count(*) from proxies"), "2\n", "after SIG{signal}");
        fixture.server.start();
        fixture.server.wait_until_restored();
        assert_eq!(fixture.server.proxies(), before, "after SIG{signal}");
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_restart_api_removes_nothing() {
    let mut fixture = Fixture::start(&[]);
    let (_source, before) = two_cameras(&fixture);
    assert_eq!(fixture.server.get("restartServer", &[])["code"], 0);
    fixture.server.wait_for_end();
    fixture.server.start();
    fixture.server.wait_until_restored();
    assert_eq!(fixture.server.proxies(), before);
}

/// The server lets nobody hold up its restart for longer than three seconds.
#[test]
#[ignore = "slow: just test-e2e"]
fn the_restart_api_does_not_wait_for_a_disk_that_is_stuck() {
    let (mut fixture, stuck) = on_a_disk_that_can_be_stuck();
    let (source, before) = two_cameras(&fixture);
    fs::write(&stuck, "").unwrap();
    thread::scope(|scope| {
        let server = &fixture.server;
        let late = scope.spawn(|| server.try_get("addStreamProxy", &add_args("late", &source.url, &[])));
        server.wait_for_status("the call", |status| status["seq"] != status["durable_seq"]);
        assert_eq!(server.get("restartServer", &[])["code"], 0);
        assert_eq!(late.join().unwrap(), None, "it ends without an answer to what is not on the disk");
    });
    let ended = fixture.server.wait_for_end();
    assert_eq!(ended.code(), Some(0), "{ended}:\n{}", fixture.server.log());
    fs::remove_file(&stuck).unwrap();
    fixture.server.start();
    fixture.server.wait_until_restored();
    let after = fixture.server.proxies();
    assert!(before.iter().all(|proxy| after.contains(proxy)), "{after:?}");
}

/// On a poller and on a thread of its own. The server ends when the disk is back.
#[test]
#[ignore = "slow: just test-e2e"]
fn a_stop_while_calls_wait_for_the_disk_writes_them_first() {
    let (mut fixture, stuck) = on_a_disk_that_can_be_stuck();
    let (source, _) = two_cameras(&fixture);
    fs::write(&stuck, "").unwrap();
    let item =
        |stream: &str| json!({"vhost": "__defaultVhost__", "app": "live", "stream": stream, "url": source.url});
    thread::scope(|scope| {
        let server = &fixture.server;
        scope.spawn(|| server.try_get("addStreamProxy", &add_args("c", &source.url, &[])));
        server.wait_for_status("the call", |status| status["seq"].as_u64() >= Some(3));
        let many = json!([item("d"), item("e")]);
        scope.spawn(move || server.try_post_body("addStreamProxies", &[], &many));
        let status = server.wait_for_status("both calls", |status| status["seq"].as_u64() >= Some(5));
        assert_eq!(status["durable_seq"], 2, "{status}");
        Server::signal(server.pid(), "TERM");
        // It is on its way to its end by then, and waits: it says nothing of that, so only time is left.
        thread::sleep(Duration::from_secs(1));
        fs::remove_file(&stuck).unwrap();
    });
    let ended = fixture.server.wait_for_end();
    assert_eq!(ended.code(), Some(0), "{ended}:\n{}", fixture.server.log());
    assert_eq!(fixture.sqlite3("select count(*) from proxies"), "5\n");
    fixture.server.start();
    fixture.server.wait_until_restored();
    assert_eq!(keys(&fixture.server), ["a", "b", "c", "d", "e"].map(key));
}

/// The server returns from main() at once then, while the journal is open.
#[test]
#[ignore = "slow: just test-e2e"]
fn a_server_that_cannot_listen_ends_as_a_stock_one_does() {
    let mut fixture = Fixture::start(&[]);
    let (_source, before) = two_cameras(&fixture);
    fixture.server.kill();
    let taken = TcpListener::bind((fixture.server.ip, fixture.server.port)).unwrap();
    fixture.server.spawn();
    let ended = fixture.server.wait_for_end();
    assert_eq!(ended.code(), Some(255), "{ended}:\n{}", fixture.server.log());
    drop(taken);
    fixture.server.start();
    fixture.server.wait_until_restored();
    assert_eq!(fixture.server.proxies(), before);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_guardian_of_a_daemon_brings_a_child_that_has_all_proxies() {
    let Fixture { dir, server } = Fixture::prepare(&[]);
    let mut fixture = Fixture { dir, server: server.daemonized() };
    fixture.server.start();
    let (source, _) = two_cameras(&fixture);
    assert_persisted(&add_push(&fixture.server, "a", &source.takes("pushed"), &[]));
    assert_persisted(&add_ffmpeg(&fixture.server, &source.url, "f", &[]));
    let all = |server: &Server| (server.proxies(), pushes(server), ffmpeg_sources(server));
    let before = all(&fixture.server);
    assert_eq!((before.0.len(), before.1.len(), before.2.len()), (2, 1, 1));
    let guardian = fixture.server.pid();
    let children = || {
        let output = Command::new("pgrep").args(["-P", &guardian.to_string()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let child = children();
    assert_eq!(child.len(), 1, "{child:?}");
    Server::signal(child[0].parse().unwrap(), "KILL");
    let deadline = Instant::now() + Duration::from_secs(20);
    while children() == child || children().is_empty() {
        assert!(Instant::now() < deadline, "no new child:\n{}", fixture.server.log());
        thread::sleep(Duration::from_millis(50));
    }
    fixture.server.wait_until_up();
    fixture.server.wait_until_restored();
    // A push begins once its source is there.
    fixture.server.wait_for("the push", || !pushes(&fixture.server).is_empty());
    assert_eq!(all(&fixture.server), before);
}

#[test]
fn a_camera_that_is_off_at_the_restart_is_kept_and_plays_when_it_is_on_again() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    let address = source.address();
    assert_persisted(&add(&fixture.server, "a", &source.url, &[("timeout_sec", "2")]));
    drop(source);
    let status = fixture.crash_and_restore();
    assert_eq!(status["restore"]["failing"], 1, "{status}");
    if !HOST.is_old {
        assert_eq!(keys(&fixture.server), [key("a")]);
    }
    assert_eq!(status["proxies"]["enabled"], 1);

    let _on_again = Source::live_at(fixture.dir.path(), address);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fixture.server.get("getMediaList", &[("stream", "a")])["data"].is_array() {
        assert!(Instant::now() < deadline, "it does not play again:\n{}", fixture.server.log());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_proxy_that_gave_up_is_started_again() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let source = fixture.source();
    let address = source.address();
    assert_persisted(&add(&fixture.server, "a", &source.url, &[("retry_count", "0"), ("timeout_sec", "1")]));
    drop(source);
    fixture.server.kill();
    fixture.server.start();
    let deadline = Instant::now() + Duration::from_secs(60);
    while fixture.server.status()["now"]["revived"].as_u64() < Some(2) {
        assert!(Instant::now() < deadline, "not tried again: {}", fixture.server.status());
        thread::sleep(Duration::from_millis(100));
    }
    let _on_again = Source::live_at(fixture.dir.path(), address);
    while !fixture.server.get("getMediaList", &[("stream", "a")])["data"].is_array() {
        assert!(Instant::now() < deadline, "it does not play again: {}", fixture.server.status());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn black_holes_hold_nobody_up() {
    if support::is_left_out_on_old("a forced add") {
        return;
    }
    let mut fixture = Fixture::start(&[]);
    let (live, hole) = (fixture.source(), Source::black_hole());
    for n in 0..20 {
        let stream = format!("live{n}");
        assert_persisted(&add(&fixture.server, &stream, &live.url, &[]));
    }
    thread::scope(|scope| {
        for n in 0..20 {
            let (server, url) = (&fixture.server, &hole.url);
            scope.spawn(move || {
                let reply = add(server, &format!("hole{n}"), url, &[("force", "1"), ("timeout_sec", "2")]);
                assert_eq!(reply["journal"]["persisted"], true, "{reply}");
            });
        }
    });
    fixture.server.kill();
    fixture.server.start();
    fixture.server.wait_until_started();
    assert_eq!(keys(&fixture.server).len(), 40, "all are listed while the holes still connect");
    let status = fixture.server.status();
    assert_eq!(status["restore"]["phase"], "running", "{status}");
    let status = fixture.server.wait_until_restored();
    assert_eq!((&status["restore"]["live"], &status["restore"]["failing"]), (&20.into(), &20.into()));
    let log = fixture.server.log();
    assert!(log.contains("journal: restoring 40 proxies"), "a progress line:\n{log}");
    assert!(log.contains("journal: restored 40 proxies"), "a line of totals:\n{log}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_journal_is_read_with_sqlite3_while_the_server_runs() {
    let fixture = Fixture::start(&[("snapshot_sec", "1")]);
    let source = fixture.source();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..100 {
                assert_persisted(&add(&fixture.server, &format!("s{n}"), &source.url, &[]));
            }
        });
        let mut reads = 0;
        while !writer.is_finished() || reads == 0 {
            let rows = fixture.sqlite3("select * from proxies");
            assert!(rows.lines().all(|row| row.starts_with("pull|__defaultVhost__/live/s")));
            reads += 1;
        }
    });
    let status = fixture.server.status();
    assert_eq!((&status["state"], &status["seq"]), (&"ok".into(), &100.into()));
    let deadline = Instant::now() + Duration::from_secs(10);
    while fixture.server.status()["snapshot"]["seq"] != 100 {
        assert!(Instant::now() < deadline, "no snapshot: {}", fixture.server.status());
        thread::sleep(Duration::from_millis(100));
    }
    let snapshot = fixture.server.status()["snapshot"]["file"].as_str().unwrap().to_owned();
    assert!(fs::metadata(&snapshot).unwrap().len() > 0);
    assert_eq!(support::sqlite3(snapshot.as_ref(), "select count(*) from proxies"), "100\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_status_needs_the_secret_and_tells_everything() {
    let fixture = Fixture::start(&[]);
    let source = fixture.source();
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    assert_ne!(fixture.server.get_without_secret("getJournalStatus")["code"], 0);
    let status = fixture.server.status();
    for (pointer, expected) in [
        ("/state", Value::from("ok")),
        ("/schema", zlm_journal::journal::SCHEMA_VERSION.into()),
        ("/durability", "full".into()),
        ("/file", fixture.server.journal_file().to_str().unwrap().into()),
        ("/proxies/enabled", 1.into()),
        ("/seq", 1.into()),
        ("/durable_seq", 1.into()),
        ("/queue/depth", 0.into()),
        ("/snapshot", Value::Null),
        ("/last_error", Value::Null),
        ("/restore/phase", "done".into()),
        ("/settings_errors", Value::Array(Vec::new())),
    ] {
        assert_eq!(status.pointer(pointer), Some(&expected), "{pointer} of {status}");
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_plain_copy_of_the_database_is_a_backup_soon_after_the_last_change() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    for stream in ["a", "b", "c"] {
        assert_persisted(&add(&fixture.server, stream, &source.url, &[]));
    }
    fixture.server.wait_for_status("the log to be copied", |status| status["file_seq"] == status["seq"]);
    let file = fixture.server.journal_file();
    let backup = fixture.server.dir.join("backup.db");
    std::fs::copy(&file, &backup).unwrap();
    assert_eq!(fixture.server.get("delStreamProxy", &[("key", &key("a"))])["journal"]["persisted"], true);
    fixture.server.kill();
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::copy(&backup, &file).unwrap();
    fixture.server.start();
    let status = fixture.server.wait_until_restored();
    assert_eq!((&status["state"], &status["proxies"]["enabled"]), (&"ok".into(), &3.into()), "{status}");
    fixture.server.wait_for_status("the log to be copied", |status| status["file_seq"] == status["seq"]);
}
