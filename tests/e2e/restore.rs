//! The restore at scale, and what is healed while the server runs.

use std::net::IpAddr;
use std::time::Instant;

use super::cameras::Cameras;
use super::*;
use support::Holes;
use support::quiet::Quiet;

pub fn playing(status: &Value) -> u64 {
    status["now"]["playing"].as_u64().unwrap_or_default()
}

/// How many lines the note of what does not play has.
fn noted_dark(fixture: &Fixture) -> usize {
    let path = fixture.server.dir.join("journal/proxies.db.dark");
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// Keys and urls of all proxies, as the journal has them.
pub fn journaled(fixture: &Fixture) -> Vec<(String, String)> {
    let rows = fixture.sqlite3("select key, url from proxies_view order by key");
    rows.lines().filter_map(|row| row.split_once('|')).map(|(key, url)| (key.into(), url.into())).collect()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn six_hundred_half_of_them_black_holes_are_listed_and_the_live_play_while_the_holes_still_connect() {
    let mut fixture = Fixture::prepare(&[]);
    let (live, holes) = (fixture.source(), Holes::new(300));
    let holes = holes.urls().into_iter().zip((0..).map(|n| format!("hole{n}")));
    let holes: Vec<(String, String)> = holes.collect();
    let holes = holes.iter().map(|(url, stream)| (stream.clone(), url.as_str(), [].as_slice()));
    fixture.journaled(holes.chain((0..300).map(|n| (format!("live{n}"), live.url.as_str(), [].as_slice()))));
    fixture.server.start();
    let began = Instant::now();
    fixture.server.wait_until_started();
    assert_eq!(keys(&fixture.server).len(), 600);
    let listed = began.elapsed();
    let status = fixture.server.wait_for_status("all live ones to play", |status| playing(status) == 300);
    println!("600 proxies: all listed after {listed:?}, the live play after {:?}", began.elapsed());
    // Ten seconds before the first hole is answered for.
    assert_eq!((&status["restore"]["phase"], &status["restore"]["failing"]), (&"running".into(), &0.into()));
    assert_eq!(status["restore"]["connecting"], 300, "{status}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_live_cameras_of_a_recorder_come_before_its_dead_and_few_are_connected_to_at_once() {
    let mut fixture = Fixture::prepare(&[("revive_sec", "1")]);
    let (live, hole) = (fixture.source(), Source::black_hole());
    // The dead are the older ones: age alone would have them go first.
    let dead = (0..150).map(|n| (format!("dead{n}"), hole.url.as_str(), [("timeout_sec", "30")].as_slice()));
    fixture.journaled(dead.chain((0..150).map(|n| (format!("live{n}"), live.url.as_str(), [].as_slice()))));
    fixture.server.start();
    fixture.server.wait_for_status("all to be started", |status| status["restore"]["started"] == 300);
    let deadline = Instant::now() + Duration::from_secs(60);
    while noted_dark(&fixture) != 150 {
        assert!(Instant::now() < deadline, "{} are noted as dark", noted_dark(&fixture));
        thread::sleep(Duration::from_millis(100));
    }
    fixture.server.kill();
    let before = hole.connects();

    let began = Instant::now();
    fixture.server.start();
    fixture.server.wait_for_status("the live ones to play", |status| playing(status) == 150);
    let (took, connects) = (began.elapsed(), hole.connects() - before);
    println!("300 of one host: the live play after {took:?}, {connects} dead ones were connected to by then");
    // Eight places, each kept for 2 s by one that does not answer.
    let most = 8 * (1 + took.as_secs() as usize / 2);
    assert!(connects <= most, "{connects} dead ones were connected to within {took:?}");
    let status = fixture.server.status();
    assert_eq!(status["restore"]["phase"], "running", "{status}");
    assert!(status["restore"]["waiting"].as_u64() > Some(100), "{status}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_camera_that_was_restarted_while_the_server_runs_plays_again() {
    let mut fixture = Fixture::prepare(&[("revive_sec", "1")]);
    fixture.server.start();
    let source = fixture.source();
    let address = source.address();
    for (stream, retries) in [("never", "0"), ("twice", "2"), ("always", "-1")] {
        let more = [("retry_count", retries), ("timeout_sec", "1")];
        assert_persisted(&add(&fixture.server, stream, &source.url, &more));
    }
    drop(source);
    // The server itself gives two of them up.
    fixture.server.wait_for_status("two to be revived", |status| status["now"]["revived"].as_u64() >= Some(2));
    let status = fixture.server.status();
    assert_eq!((playing(&status), &status["proxies"]["enabled"]), (0, &3.into()), "{status}");
    let _on_again = Source::live_at(fixture.dir.path(), address);
    for stream in ["never", "twice", "always"] {
        fixture.server.wait_for_stream(stream);
    }
    let status = fixture.server.wait_for_status("all to play", |status| playing(status) == 3);
    assert_eq!(status["now"]["proxies"], Value::Array(Vec::new()), "{status}");
    // Nobody but the reconciler did it, and the journal is what it was.
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "3\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_camera_that_is_off_at_boot_is_shown_with_its_error_and_its_next_try() {
    let mut fixture = Fixture::prepare(&[("revive_sec", "2")]);
    let off = format!("rtsp://admin:geheim@127.0.0.1:{}/1", server::free_port());
    let live = fixture.source();
    let forgiving = [("retry_count", "0")];
    fixture.journaled([("off".to_owned(), off.as_str(), forgiving.as_slice()), ("on".to_owned(), &live.url, &[])]);
    fixture.server.start();
    let status = fixture.server.wait_for_status("a second try", |status| {
        status["now"]["proxies"][0]["attempts"].as_u64() >= Some(2)
            && status["now"]["proxies"][0]["state"] == "down"
    });
    let trouble = &status["now"]["proxies"][0];
    assert_eq!((&trouble["kind"], &trouble["key"]), (&"pull".into(), &key("off").into()), "{status}");
    assert!(!trouble["last_error"].as_str().unwrap().is_empty(), "{status}");
    let next = trouble["next_try_at"].as_i64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now - 2000..now + 2_000_000).contains(&next), "{next} is not a time near {now}");
    let worst = &status["restore"]["worst_origins"][0];
    assert_eq!((&worst["host"], &worst["failing"]), (&"127.0.0.1".into(), &1.into()), "{status}");
    for time in ["to_50_sec", "to_95_sec", "to_100_sec", "eta_sec"] {
        assert!(status["restore"][time].is_f64(), "{time} of {status}");
    }
    assert_eq!((&status["restore"]["done"], &status["restore"]["total"]), (&2.into(), &2.into()));
    assert!(!status.to_string().contains("geheim"));
    let log = fixture.server.log();
    assert!(log.contains("1 of 2 proxies at 127.0.0.1 fail"), "the worst sources are named:\n{log}");

    let only =
        |key: &str| fixture.server.get("getJournalStatus", &[("key", key)])["data"]["now"]["proxies"].clone();
    assert_eq!(only(&key("on"))[0]["state"], "playing");
    assert_eq!(only(&key("off"))[0]["key"], key("off"));
    assert_eq!(only("v/a/none"), Value::Array(Vec::new()));
    let none = fixture.server.get("getJournalStatus", &[("limit", "0")]);
    assert_eq!(none["data"]["now"]["proxies"], Value::Array(Vec::new()));
}

/// As where a camera is only recorded.
const NO_SOURCES: [(&str, &str); 6] = [
    ("enable_rtsp", "0"),
    ("enable_rtmp", "0"),
    ("enable_ts", "0"),
    ("enable_fmp4", "0"),
    ("enable_hls", "0"),
    ("enable_hls_fmp4", "0"),
];

#[test]
#[ignore = "slow: just test-e2e"]
fn pull_plays_when_media_come_and_not_when_it_has_connected() {
    let mut fixture = Fixture::prepare(&[]);
    let mut camera = Cameras::mute();
    let url = camera.url(0);
    fixture.journaled([("a".to_owned(), url.as_str(), [].as_slice()), ("bare".to_owned(), &url, &NO_SOURCES)]);
    fixture.server.start();
    // That which makes no source is taken at MediaServer's word.
    let connected =
        |status: &Value| status["now"]["connecting"] == 1 && playing(status) == 1 && status["now"]["waiting"] == 0;
    fixture.server.wait_for_status("one to have connected", connected);
    let status = fixture.server.status();
    assert_eq!(
        (&status["restore"]["live"], &status["restore"]["phase"]),
        (&1.into(), &"running".into()),
        "{status}"
    );
    // MediaServer gives it five seconds; release 8.0 does not say so.
    let status =
        fixture.server.wait_for_status("the restore to end", |status| status["restore"]["phase"] == "done");
    let is_told = !HOST.is_old;
    let a = |status: &Value| {
        status["now"]["proxies"].as_array().unwrap().iter().find(|proxy| proxy["key"] == key("a")).cloned()
    };
    let count = |status: &Value, name: &str| status["restore"][name].as_u64().unwrap();
    // MediaServer is late where the machine is starved.
    assert_eq!(count(&status, "connected") + count(&status, "failing"), 1, "{status}");
    assert!(is_told || count(&status, "failing") == 0, "{status}");
    let state = if is_told { "retrying" } else { "connecting" };
    let status = fixture
        .server
        .wait_for_status("it to be told", |status| a(status).is_some_and(|shown| shown["state"] == state));
    let shown = a(&status).unwrap();
    assert_eq!(shown["last_error"].as_str().unwrap().is_empty(), !is_told, "{status}");
    assert_eq!(shown["attempts"].as_u64() >= Some(1), is_told, "{status}");
    camera.switch(&fixture, true);
    let status = fixture.server.wait_for_status("its media", |status| a(status).is_none());
    // What has connected counts as failed once that is told, also after the restore has ended, and then stays so.
    let failed = count(&status, "failing");
    assert_eq!((count(&status, "live"), count(&status, "connected")), (2 - failed, 0), "{status}");
    assert!(failed <= u64::from(is_told), "{status}");
}

/// With general.resetWhenRePlay=0, as whoever wants to keep viewers over a reconnect has it, MediaServer keeps the sources.
#[test]
#[ignore = "slow: just test-e2e"]
fn pull_that_keeps_its_sources_is_retried_while_its_camera_is_off_and_plays_when_it_is_back() {
    let mut fixture = Fixture::prepare(&[]);
    fixture.server.settings.push(("general.resetWhenRePlay".to_owned(), "0".to_owned()));
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    let source = fixture.source();
    let address = source.address();
    fixture.journaled([
        ("kept".to_owned(), source.url.as_str(), [].as_slice()),
        ("bare".to_owned(), &source.url, &NO_SOURCES),
    ]);
    fixture.server.start();
    fixture.server.wait_for_status("both to play", |status| playing(status) == 2);
    drop(source);
    let status = fixture.server.wait_for_status("both to be retried", |status| {
        let attempts = |n: usize| status["now"]["proxies"][n]["attempts"].as_u64();
        status["now"]["retrying"] == 2 && attempts(0) >= Some(1) && attempts(1) >= Some(1)
    });
    assert_eq!(playing(&status), 0, "{status}");
    let _back = Source::live_at(fixture.dir.path(), address);
    let status = fixture.server.wait_for_status("both to play again", |status| playing(status) == 2);
    // The server itself has done it.
    assert_eq!(status["now"]["revived"], 0, "{status}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn pull_that_keeps_its_sources_does_not_play_while_its_camera_sends_nothing() {
    let mut fixture = Fixture::prepare(&[]);
    fixture.server.settings.push(("general.resetWhenRePlay".to_owned(), "0".to_owned()));
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    let mut camera = Cameras::new(&fixture, 3);
    fixture.journaled([("a".to_owned(), camera.url(0).as_str(), [].as_slice())]);
    fixture.server.start();
    fixture.server.wait_for_status("it to play", |status| playing(status) == 1);
    camera.fall_silent();
    fixture.server.wait_for_status("its loss to be noticed", |status| playing(status) == 0);
    // For two more rounds of connecting and waiting for media. The server counts those; release 8.0 does not report them.
    let tries = || fixture.server.get("listStreamProxy", &[])["data"][0]["rePullCount"].as_u64();
    let before = tries().expect("a count");
    fixture.server.wait_for_status("it to be tried twice", |status| {
        assert_eq!(playing(status), 0, "{status}");
        tries() >= Some(before + 2)
    });
    camera.switch(&fixture, true);
    fixture.server.wait_for_status("it to play again", |status| playing(status) == 1);
}

/// Their connections stay open, their media stop: one answers whoever connects, and sends nothing, the other is a process
/// that was stopped. `ZLMJ_FROZEN_SEC` says for how long (12).
#[test]
#[ignore = "slow: just test-e2e"]
fn pulls_whose_cameras_freeze_are_left_to_the_server() {
    if !HOST.real {
        support::say("whose media stop is the real MediaServer's to notice: left out");
        return;
    }
    let mut fixture = Fixture::prepare(&[]);
    let quiet = Quiet::at([IpAddr::from([127, 0, 0, 1])]);
    let process = fixture.source();
    let address = process.address();
    fixture.journaled([
        ("a".to_owned(), quiet.url(0).as_str(), [].as_slice()),
        ("b".to_owned(), process.url.as_str(), [].as_slice()),
    ]);
    fixture.server.start();
    fixture.server.wait_for_status("both to play", |status| playing(status) == 2);
    quiet.mute(true);
    process.freeze();
    let since = Instant::now();
    fixture.server.wait_for_status("their silence to be noticed", |status| playing(status) == 0);
    while since.elapsed() < Duration::from_secs(schedules::number("ZLMJ_FROZEN_SEC", 12)) {
        let status = fixture.server.status();
        let [retrying, connecting] = ["retrying", "connecting"].map(|state| status["now"][state].as_u64());
        assert_eq!(retrying.zip(connecting).map(|(a, b)| a + b), Some(2), "after {:?}: {status}", since.elapsed());
        thread::sleep(Duration::from_millis(500));
    }
    quiet.mute(false);
    drop(process);
    let _again = Source::live_at(fixture.dir.path(), address);
    let status = fixture.server.wait_for_status("both to play again", |status| playing(status) == 2);
    assert_eq!(status["now"]["revived"], 0, "{status}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn an_outside_system_that_adds_everything_again_during_the_restore_meets_no_harm() {
    let mut fixture = Fixture::prepare(&[("restore_rate", "50"), ("restore_per_origin", "0")]);
    let (old, new) = (fixture.source(), fixture.source());
    let streams: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    fixture.journaled(streams.iter().map(|stream| (stream.clone(), old.url.as_str(), [].as_slice())));
    fixture.server.start();
    let server = &fixture.server;
    let outcomes: Vec<bool> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (streams, url) = (&streams, &new.url);
                scope.spawn(move || {
                    // From the end, where the restore comes last.
                    let mine = streams.iter().rev().skip(client).step_by(4);
                    mine.map(|stream| {
                        let reply = add(server, stream, url, &[]);
                        let won = reply["code"] == 0;
                        let stock = reply["msg"].as_str().unwrap_or_default().contains("already exists");
                        assert!(won || stock, "neither success nor the stock error: {reply}");
                        assert_eq!(reply["journal"]["persisted"] == true, won, "{reply}");
                        won
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let won = outcomes.iter().filter(|won| **won).count();
    println!("the outside system was first for {won} of 100");
    assert!(won > 0 && won < 100, "the two never met: {won}");
    let status = fixture.server.wait_for_status("all to play", |status| playing(status) == 100);
    assert_eq!(status["proxies"]["enabled"], 100, "{status}");
    // The server has what the journal says, each once.
    assert_eq!(fixture.server.proxies(), journaled(&fixture));
    let theirs = fixture.server.proxies().iter().filter(|(_, url)| *url == new.url).count();
    assert_eq!(theirs, won);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn lazily_a_stream_starts_when_a_player_asks_for_it() {
    let mut fixture = Fixture::prepare(&[("restore", "lazy")]);
    let live = fixture.source();
    let streams = ["a", "b", "c"];
    fixture.journaled(streams.map(|stream| (stream.to_owned(), live.url.as_str(), [].as_slice())));
    fixture.server.start();
    // The server was looked at by then, and nothing waits for its start.
    fixture.server.wait_until_restored();
    assert_eq!(keys(&fixture.server), [""; 0], "nothing is started at boot");
    assert!(fixture.server.play("b").is_some(), "the player gets the stream:\n{}", fixture.server.log());
    assert_eq!(keys(&fixture.server), [key("b")]);
    assert_eq!(fixture.server.status()["now"]["asked"], 1);
    // All are started when the operator says so.
    assert_eq!(fixture.server.get("restoreJournal", &[])["data"]["wanted"], 3);
    fixture.server.wait_for_status("all to play", |status| playing(status) == 3);
    assert_eq!(keys(&fixture.server).len(), 3);
    // A restart leaves all to the players again.
    fixture.server.kill();
    fixture.server.start();
    assert_eq!(keys(&fixture.server), [""; 0]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_stream_that_was_given_another_name_starts_and_ends_by_that() {
    let mut fixture = Fixture::prepare(&[("restore", "lazy")]);
    let live = fixture.source();
    let renamed = [("stream_replace", "front")];
    // What goes past the muxer keeps its name.
    fixture.server.settings = ["rtmp", "rtsp"].map(|part| (format!("{part}.directProxy"), "0".to_owned())).into();
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[("restore", "lazy")]));
    fixture.journaled([("a".to_owned(), live.url.as_str(), renamed.as_slice())]);
    fixture.server.start();
    assert!(fixture.server.play("front").is_some(), "the player gets the stream:\n{}", fixture.server.log());
    assert_eq!(keys(&fixture.server), [key("a")]);
    fixture.server.wait_for_status("it to play", |status| playing(status) == 1);
    // It can throw once it has closed it.
    let closed = fixture.server.get("close_streams", &[("stream", "front"), ("force", "1")]);
    assert_eq!(closed["journal"]["persisted"], true, "{closed}");
    fixture.server.wait_for("the server to end it", || keys(&fixture.server).is_empty());
    assert_eq!(journaled(&fixture), []);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_hundred_thousand_left_to_players_are_all_there_for_them() {
    let mut fixture = Fixture::prepare(&[("restore", "lazy")]);
    let live = fixture.source();
    fixture.journaled((0..100_000).map(|n| (format!("s{n}"), live.url.as_str(), [].as_slice())));
    fixture.server.start();
    assert_eq!(fixture.server.status()["proxies"]["enabled"], 100_000);
    for stream in ["s0", "s77777", "s99999"] {
        assert!(fixture.server.play(stream).is_some(), "{stream}:\n{}", fixture.server.log());
    }
    assert_eq!(keys(&fixture.server).len(), 3);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn with_restore_off_only_the_api_starts_anything() {
    let mut fixture = Fixture::prepare(&[("restore", "off")]);
    let live = fixture.source();
    fixture.journaled(["a", "b"].map(|stream| (stream.to_owned(), live.url.as_str(), [].as_slice())));
    fixture.server.max_stream_wait_ms = 300;
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[("restore", "off")]));
    fixture.server.start();
    assert_eq!(fixture.server.status()["restore"]["phase"], "off");
    assert!(fixture.server.play("a").is_none(), "a player alone starts nothing");
    assert_eq!(keys(&fixture.server), [""; 0]);

    assert_ne!(fixture.server.get_without_secret("restoreJournal")["code"], 0);
    let unknown = fixture.server.get("restoreJournal", &[("key", "v/a/none")]);
    assert_ne!(unknown["code"], 0);
    assert!(unknown["msg"].as_str().unwrap().contains("v/a/none"), "{unknown}");
    assert_eq!(fixture.server.get("restoreJournal", &[("key", &key("b"))])["data"]["wanted"], 1);
    fixture.server.wait_for_stream("b");
    assert_eq!(keys(&fixture.server), [key("b")]);
    fixture.server.get("restoreJournal", &[]);
    fixture.server.wait_for_stream("a");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_nobody_watches_is_not_fought_for() {
    let mut fixture = Fixture::prepare(&[]);
    fixture.server.none_reader_ms = 1500;
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[("revive_sec", "1")]));
    fixture.server.start();
    let (source, camera) = (fixture.source(), fixture.source());
    let camera_address = camera.address();
    assert_persisted(&add(&fixture.server, "watched", &source.url, &[("auto_close", "1")]));
    let _viewer = fixture.server.play("watched").unwrap();
    assert_persisted(&add(&fixture.server, "kept", &source.url, &[]));
    assert_persisted(&add(&fixture.server, "idle", &source.url, &[("auto_close", "1")]));
    // Its camera goes off before anyone could have watched it: that is no idle close.
    assert_persisted(&add(&fixture.server, "off", &camera.url, &[("auto_close", "1"), ("retry_count", "0")]));
    drop(camera);

    let deadline = Instant::now() + Duration::from_secs(60);
    while fixture.sqlite3("select count(*) from proxies where key like '%/idle'") != "0\n" {
        assert!(
            Instant::now() < deadline,
            "it is still wanted: {:?}\n{}",
            journaled(&fixture),
            fixture.server.log()
        );
        thread::sleep(Duration::from_millis(50));
    }
    let removal = fixture.sqlite3("select key, reason from journal where op = 'remove'");
    assert_eq!(removal, format!("{}|closed for lack of viewers\n", key("idle")));
    // The reconciler leaves it gone, and the others as they were.
    wait_for_a_look(&fixture.server);
    let mut wanted = [key("kept"), key("off"), key("watched")];
    wanted.sort();
    assert_eq!(journaled(&fixture).into_iter().map(|(key, _)| key).collect::<Vec<_>>(), wanted);
    assert!(!keys(&fixture.server).contains(&key("idle")));
    let _on_again = Source::live_at(fixture.dir.path(), camera_address);
    fixture.server.wait_for_stream("off");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_nobody_watches_sleeps_until_a_player_asks_where_the_operator_wants_that() {
    let mut fixture = Fixture::prepare(&[]);
    fixture.server.none_reader_ms = 1000;
    let journal = [("revive_sec", "1"), ("on_idle_close", "dormant")];
    fixture.server.write_config(&Fixture::journal(&fixture.server, &journal));
    fixture.server.start();
    let source = fixture.source();
    for stream in ["a", "b"] {
        assert_persisted(&add(&fixture.server, stream, &source.url, &[("auto_close", "1")]));
    }
    let dormant = |server: &Server, count: u64| {
        server.wait_for_status("them to sleep, on disk", |status| {
            status["proxies"]["dormant"] == count && status["durable_seq"] == status["seq"]
        })
    };
    dormant(&fixture.server, 2);
    assert_eq!(keys(&fixture.server), [""; 0]);
    // A player wakes one; while he watches, it stays, and is healed as any other.
    let viewer = fixture.server.play("a").expect("the player gets the stream");
    let status = dormant(&fixture.server, 1);
    assert_eq!((&status["proxies"]["enabled"], &status["now"]["asked"]), (&1.into(), &1.into()), "{status}");
    // When he has left it sleeps again, and a restart wakes nobody.
    drop(viewer);
    dormant(&fixture.server, 2);
    fixture.server.kill();
    fixture.server.start();
    let status = fixture.server.wait_until_restored();
    assert_eq!((&status["restore"]["total"], &status["proxies"]["dormant"]), (&0.into(), &2.into()), "{status}");
    assert!(fixture.server.play("b").is_some(), "after the restart too:\n{}", fixture.server.log());
    // As an operator does it.
    assert_eq!(fixture.server.get("restoreJournal", &[("key", &key("a"))])["data"]["wanted"], 1);
    fixture.server.wait_for_stream("a");
    let history =
        fixture.sqlite3("select op, origin, reason from journal where key like '%/a' order by seq limit 4");
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[0].starts_with("add|127.0.0.1:") && lines[0].ends_with("|addStreamProxy"), "{history}");
    assert_eq!(
        lines[1..],
        [
            "sleep|MediaServer|closed for lack of viewers",
            "enable|zlm-journal|a player asked for it",
            "sleep|MediaServer|closed for lack of viewers",
        ]
    );
    // A client's delete ends it for good.
    let deleted = fixture.server.get("delStreamProxy", &[("key", &key("b"))]);
    assert_eq!(deleted["journal"]["persisted"], true, "{deleted}");
    assert_eq!(fixture.sqlite3("select key from proxies"), format!("{}\n", key("a")));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_the_server_gives_up_is_forgotten_where_the_operator_wants_that() {
    let mut fixture = Fixture::start(&[("revive_sec", "1"), ("on_give_up", "forget")]);
    let source = fixture.source();
    let more = [("retry_count", "1"), ("timeout_sec", "1")];
    assert_persisted(&add(&fixture.server, "a", &source.url, &more));
    assert_persisted(&add(&fixture.server, "b", &source.url, &[]));
    fixture.server.wait_for_status("both to be seen playing", |status| playing(status) == 2);
    drop(source);
    fixture.server.wait_for_status("one to be forgotten", |status| status["now"]["given_up"] == 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while fixture.server.status()["durable_seq"] != 3 {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
    let removal = fixture.sqlite3("select key, origin, reason from journal where op = 'remove'");
    assert_eq!(removal, format!("{}|MediaServer|the server gave it up (on_give_up=forget)\n", key("a")));
    fixture.server.kill();
    fixture.server.start();
    fixture.server.wait_for_status("the other to be restored", |status| status["restore"]["started"] == 1);
    assert_eq!(keys(&fixture.server), if HOST.is_old { vec![] } else { vec![key("b")] });
}
