//! Pushes and FFmpeg sources: that they survive as pulls do, and what is their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use support::Publisher;

fn push_args<'a>(stream: &'a str, dst: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let args = [("schema", "rtmp"), ("vhost", "__defaultVhost__"), ("app", "live"), ("stream", stream)];
    [&args, [("dst_url", dst)].as_slice(), more].concat()
}

pub fn add_push(server: &Server, stream: &str, dst: &str, more: &[(&str, &str)]) -> Value {
    server.get("addStreamPusherProxy", &push_args(stream, dst, more))
}

/// Keys and targets of all pushes.
pub fn pushes(server: &Server) -> Vec<(String, String)> {
    server.listed("listStreamPusherProxy", "url")
}

pub fn ffmpeg_sources(server: &Server) -> Vec<(String, String)> {
    server.listed("listFFmpegSource", "dst_url")
}

fn here(server: &Server, stream: &str) -> String {
    format!("rtmp://127.0.0.1:{}/live/{stream}", server.rtmp_port)
}

pub fn add_ffmpeg(server: &Server, src: &str, stream: &str, more: &[(&str, &str)]) -> Value {
    let dst = here(server, stream);
    let args = [("src_url", src), ("dst_url", &dst), ("timeout_ms", "20000")];
    server.get("addFFmpegSource", &[&args, more].concat())
}

fn reply_key(reply: &Value) -> String {
    reply["data"]["key"].as_str().expect("a key").to_owned()
}

fn count(status: &Value, of: &str) -> u64 {
    status["now"][of].as_u64().expect("a count")
}

fn wait_for_playing(server: &Server, count_wanted: u64) -> Value {
    server.wait_for_status(&format!("{count_wanted} to play"), |status| count(status, "playing") == count_wanted)
}

#[test]
#[ignore = "slow: just test-e2e"]
fn pushes_and_ffmpeg_sources_are_back_after_kill_9_with_every_argument() {
    let mut fixture = Fixture::start(&[]);
    let (source, sink) = (fixture.source(), fixture.source());
    let server = &fixture.server;
    assert_persisted(&add(server, "a", &source.url, &[]));
    let pushed = add_push(server, "a", &sink.takes("one"), &[("retry_count", "5"), ("rtp_type", "0")]);
    assert_persisted(&pushed);
    let gone = add_push(server, "a", &sink.takes("gone"), &[]);
    assert_persisted(&gone);
    assert_persisted(&add_ffmpeg(server, &source.url, "f", &[("enable_hls", "0"), ("enable_mp4", "0")]));
    let also_gone = add_ffmpeg(server, &source.url, "g", &[]);
    assert_persisted(&also_gone);
    for (delete, reply) in [("delStreamPusherProxy", &gone), ("delFFmpegSource", &also_gone)] {
        assert_persisted(&server.get(delete, &[("key", &reply_key(reply))]));
    }
    let key_of = |kind: Kind, args: &[(&str, &str)]| {
        kind.key_of(|name| args.iter().find(|(given, _)| *given == name).map_or("", |(_, value)| *value))
    };
    assert_eq!(reply_key(&pushed), key_of(Kind::Push, &push_args("a", &sink.takes("one"), &[])));
    let before = (pushes(server), ffmpeg_sources(server));
    assert_eq!(before.0, [(reply_key(&pushed), sink.takes("one"))]);
    assert_eq!(before.1.len(), 1);

    let status = fixture.crash_and_restore();
    assert_eq!(status["restore"]["total"], 3, "{status}");
    wait_for_playing(&fixture.server, 3);
    assert_eq!((pushes(&fixture.server), ffmpeg_sources(&fixture.server)), before);
    fixture.server.wait_for_stream("f");
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "7\n", "restores are not journaled");
    let expected = format!(
        "ffmpeg|{}|{}\npull|{}|\npush||{}\n",
        source.url,
        here(&fixture.server, "f"),
        source.url,
        sink.takes("one")
    );
    assert_eq!(fixture.sqlite3("select kind, url, dst_url from proxies_view"), expected);
    let args = fixture.sqlite3("select args from proxies where kind = 'push'");
    let args: Value = serde_json::from_str(&args).unwrap();
    assert_eq!(
        (&args["retry_count"], &args["rtp_type"], &args["schema"]),
        (&"5".into(), &"0".into(), &"rtmp".into())
    );
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_push_follows_its_source_whenever_that_comes_for_as_long_as_it_is_wanted() {
    // on_give_up=forget is not about this: the server has not given up, its source has gone.
    let mut fixture = Fixture::start(&[("on_give_up", "forget")]);
    let sink = fixture.source();
    let publisher = Publisher::to(&fixture.server, "ext");
    let reply = add_push(&fixture.server, "ext", &sink.takes("ext"), &[]);
    assert_persisted(&reply);
    let there = vec![(reply_key(&reply), sink.takes("ext"))];
    wait_for_playing(&fixture.server, 1);
    let blocked = |status: &Value| count(status, "blocked") == 1;
    drop(publisher);
    fixture.server.wait_for_status("the push to wait", blocked);
    fixture.server.wait_for("the server to close it", || pushes(&fixture.server).is_empty());

    // A restart without its source, and then that.
    let status = fixture.crash_and_restore();
    assert_eq!((&status["restore"]["blocked"], &status["restore"]["failing"]), (&1.into(), &0.into()), "{status}");
    let trouble = &status["now"]["proxies"][0];
    assert_eq!((&trouble["kind"], &trouble["state"]), (&"push".into(), &"blocked".into()));
    assert!(trouble["last_error"].as_str().unwrap().contains("rtmp/__defaultVhost__/live/ext, is not there"));
    for _ in 0..2 {
        let publisher = Publisher::to(&fixture.server, "ext");
        wait_for_playing(&fixture.server, 1);
        assert_eq!(pushes(&fixture.server), there);
        drop(publisher);
        fixture.server.wait_for_status("the push to wait", blocked);
        fixture.server.wait_for("the server to close it", || pushes(&fixture.server).is_empty());
    }
    assert_eq!(fixture.sqlite3("select op from journal"), "add\n");

    // Deleted while its source is away, it does not come back with it, as a younger one does that comes after it.
    let publisher = Publisher::to(&fixture.server, "ext");
    wait_for_playing(&fixture.server, 1);
    let kept = add_push(&fixture.server, "ext", &sink.takes("kept"), &[]);
    assert_persisted(&kept);
    drop(publisher);
    fixture.server.wait_for_status("both to wait", |status| count(status, "blocked") == 2);
    fixture.server.wait_for("the server to close them", || pushes(&fixture.server).is_empty());
    assert_persisted(&fixture.server.get("delStreamPusherProxy", &[("key", &there[0].0)]));
    let _publisher = Publisher::to(&fixture.server, "ext");
    wait_for_playing(&fixture.server, 1);
    assert_eq!(pushes(&fixture.server), [(reply_key(&kept), sink.takes("kept"))]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_business_system_that_pushes_streams_on_when_they_come_meets_no_harm() {
    let fixture = Fixture::start(&[]);
    let sink = fixture.source();
    let publisher = Publisher::to(&fixture.server, "ext");
    assert_persisted(&add_push(&fixture.server, "ext", &sink.takes("ext"), &[]));
    drop(publisher);
    let mut connects = sink.connects();
    for _ in 0..5 {
        fixture.server.wait_for("the server to close it", || pushes(&fixture.server).is_empty());
        let publisher = Publisher::to(&fixture.server, "ext");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_persisted(&add_push(&fixture.server, "ext", &sink.takes("ext"), &[])));
            }
        });
        wait_for_playing(&fixture.server, 1);
        assert_eq!(pushes(&fixture.server).len(), 1);
        if !HOST.real {
            assert_eq!(sink.connects(), connects + 1, "pushed once each time");
        }
        connects = sink.connects();
        drop(publisher);
    }
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "1\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_push_does_not_play_while_its_target_is_off() {
    let fixture = Fixture::start(&[]);
    let (source, sink) = (fixture.source(), fixture.source());
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    wait_for_playing(&fixture.server, 1);
    assert_persisted(&add_push(&fixture.server, "a", &sink.takes("x"), &[]));
    wait_for_playing(&fixture.server, 2);
    let address = sink.address();
    drop(sink);
    let status = fixture.server.wait_for_status("the push to be retried", |status| count(status, "retrying") == 1);
    let push = &status["now"]["proxies"][0];
    assert_eq!((&push["kind"], push["attempts"].as_u64() >= Some(1)), (&"push".into(), true), "{status}");
    assert_eq!(count(&status, "playing"), 1, "{status}");
    let _back = Source::live_at(fixture.dir.path(), address);
    let status = wait_for_playing(&fixture.server, 2);
    // The server itself has done it.
    assert_eq!(count(&status, "revived"), 0, "{status}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_push_that_loses_its_target_and_then_its_source_is_back_with_both() {
    // 8.0 tries it for ever then, in vain; newer ones end it at the next try.
    for lacks in if HOST.real { &[""][..] } else { &["", "push_end"] } {
        let mut fixture = Fixture::prepare(&[]);
        fixture.server.env = vec![("STANDIN_LACKS".into(), (*lacks).into())];
        fixture.server.start();
        let server = &fixture.server;
        let mut sink = fixture.source();
        let (address, dst) = (sink.address(), sink.takes("ext"));
        let mut publisher = Publisher::to(server, "ext");
        assert_persisted(&add_push(server, "ext", &dst, &[]));
        wait_for_playing(server, 1);
        // Its source comes back before the server has tried it again, and after that.
        for (round, waits) in [false, true].into_iter().enumerate() {
            drop(sink);
            server.wait_for_status("the push to be retried", |status| count(status, "retrying") == 1);
            drop(publisher);
            server.wait_for_status("the push to wait", |status| count(status, "blocked") == 1);
            if waits {
                server.wait_for("the server to have tried", || {
                    pushes(server).is_empty() || server.log().contains("push url not match")
                });
            }
            sink = Source::live_at(&fixture.dir.path().join(round.to_string()), address);
            publisher = Publisher::to(server, "ext");
            wait_for_playing(server, 1);
            server.wait_for("the target to get it", || sink.gets("ext"));
            assert_eq!(pushes(server).len(), 1);
        }
        assert_eq!(fixture.sqlite3("select op from journal"), "add\n");
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_push_whose_target_is_off_is_tried_again_and_one_that_gave_up_is_kept_or_forgotten_as_set() {
    for (give_up, kept) in [("keep", true), ("forget", false)] {
        let mut fixture = Fixture::start(&[("revive_sec", "1"), ("on_give_up", give_up)]);
        let _publisher = Publisher::to(&fixture.server, "ext");
        let sink = fixture.source();
        let (address, dst) = (sink.address(), sink.takes("ext"));
        assert_persisted(&add_push(&fixture.server, "ext", &dst, &[("retry_count", "0")]));
        wait_for_playing(&fixture.server, 1);
        drop(sink);
        let enabled = if kept { "1\n" } else { "0\n" };
        fixture.server.wait_for("it to be given up", || pushes(&fixture.server).is_empty());
        if kept {
            fixture.server.wait_for_status("it to be down", |status| count(status, "down") == 1);
        } else {
            fixture.server.wait_for_status("it to be forgotten", |status| status["proxies"]["enabled"] == 0);
        }
        fixture
            .server
            .wait_for("the journal to have it so", || fixture.sqlite3("select count(*) from proxies") == enabled);
        let _sink = Source::live_at(&fixture.dir.path().join("again"), address);
        if kept {
            wait_for_playing(&fixture.server, 1);
        }
        fixture.server.kill();
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_chain_through_the_server_is_back_link_by_link() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    let server = &fixture.server;
    assert_persisted(&add(server, "a", &source.url, &[]));
    assert_persisted(&add_push(server, "a", &here(server, "b"), &[]));
    server.wait_for_stream("b");
    assert_persisted(&add(server, "c", &here(server, "b"), &[]));
    wait_for_playing(server, 3);
    fixture.server.kill();
    fixture.server.start();
    wait_for_playing(&fixture.server, 3);
    for stream in ["a", "b", "c"] {
        fixture.server.wait_for_stream(stream);
    }
    assert!(!fixture.server.log().contains("proxy loop"));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_goes_in_a_circle_is_told_and_not_tried() {
    let mut fixture = Fixture::prepare(&[("revive_sec", "1")]);
    let live = fixture.source();
    let (a, b) = (here(&fixture.server, "a"), here(&fixture.server, "b"));
    let none: &[(&str, &str)] = &[];
    fixture.journaled([
        ("a".to_owned(), b.as_str(), none),
        ("b".to_owned(), a.as_str(), none),
        ("live".to_owned(), live.url.as_str(), none),
    ]);
    fixture.server.start();
    let status = fixture.server.wait_until_restored();
    assert_eq!((&status["restore"]["blocked"], &status["restore"]["live"]), (&2.into(), &1.into()), "{status}");
    for stream in ["a", "b"] {
        let trouble =
            &fixture.server.get("getJournalStatus", &[("key", &key(stream))])["data"]["now"]["proxies"][0];
        let error = trouble["last_error"].as_str().unwrap();
        assert!(
            error.contains(&format!("proxy loop: {} → ", key(if stream == "a" { "b" } else { "a" }))),
            "{error}"
        );
    }
    assert!(fixture.server.log().contains("None of them is started"));
    wait_for_a_look(&fixture.server);
    assert_eq!(keys(&fixture.server), [key("live")]);
    // One link less, and the other is an ordinary proxy again, whose stream is not there yet.
    assert_persisted(&fixture.server.get("delStreamProxy", &[("key", &key("b"))]));
    fixture.server.wait_for("the other to be started", || keys(&fixture.server).contains(&key("a")));
    let _publisher = Publisher::to(&fixture.server, "b");
    wait_for_playing(&fixture.server, 2);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_is_there_already_is_answered_as_stock_and_recorded_once() {
    let fixture = Fixture::start(&[]);
    let (source, sink) = (fixture.source(), fixture.source());
    let server = &fixture.server;
    assert_persisted(&add(server, "a", &source.url, &[]));
    assert_persisted(&add_push(server, "a", &sink.takes("a"), &[("retry_count", "3")]));
    let seq = assert_persisted(&add_ffmpeg(server, &source.url, "f", &[]));
    // The server leaves what it has as it is, and so does the journal.
    assert_eq!(assert_persisted(&add_push(server, "a", &sink.takes("a"), &[("retry_count", "7")])), seq);
    assert_eq!(assert_persisted(&add_ffmpeg(server, "rtsp://127.0.0.1:1/other", "f", &[])), seq);
    let kept = fixture.sqlite3(
        "select coalesce(json_extract(args, '$.retry_count'), json_extract(args, '$.src_url')) from proxies
         where kind <> 'pull' order by kind",
    );
    assert_eq!(kept, format!("{}\n3\n", source.url));
    for refused in [
        add_push(server, "not-there", &sink.takes("x"), &[]),
        server.get("addStreamPusherProxy", &[("schema", "rtmp")]),
        server.get("addFFmpegSource", &[("src_url", "x")]),
        add_ffmpeg(server, "rtsp://127.0.0.1:1/off", "off", &[("timeout_ms", "2000")]),
        server.get_without_secret("addFFmpegSource"),
    ] {
        assert_ne!(refused["code"], 0, "{refused}");
        assert!(refused.get("journal").is_none(), "{refused}");
    }
    assert_eq!(fixture.sqlite3("select count(*) from journal"), format!("{seq}\n"));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn closing_a_stream_forgets_the_ffmpeg_source_that_makes_it_and_keeps_the_push_that_takes_it() {
    let mut fixture = Fixture::start(&[]);
    let (source, sink) = (fixture.source(), fixture.source());
    let server = &fixture.server;
    assert_persisted(&add_ffmpeg(server, &source.url, "f", &[]));
    let pushed = add_push(server, "f", &sink.takes("f"), &[]);
    assert_persisted(&pushed);
    let closed = server.get("close_streams", &[("app", "live"), ("stream", "f"), ("force", "1")]);
    assert_eq!(closed["journal"]["persisted"], true, "{closed}");
    assert_eq!(fixture.sqlite3("select kind from proxies"), "push\n");
    fixture.server.wait_for("both to be gone", || {
        pushes(&fixture.server).is_empty() && ffmpeg_sources(&fixture.server).is_empty()
    });
    let status = fixture.crash_and_restore();
    assert_eq!((&status["restore"]["total"], &status["restore"]["blocked"]), (&1.into(), &1.into()), "{status}");
    // And all at once, with the push there.
    assert_persisted(&add_ffmpeg(&fixture.server, &source.url, "f", &[]));
    wait_for_playing(&fixture.server, 2);
    fixture.server.get("close_streams", &[("force", "1")]);
    assert_eq!(fixture.sqlite3("select kind from proxies"), "push\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn an_ffmpeg_source_that_nobody_watches_sleeps_until_a_player_asks_or_is_forgotten() {
    for (idle, left) in [("dormant", "dormant\n"), ("forget", "")] {
        let mut fixture = Fixture::prepare(&[("on_idle_close", idle), ("revive_sec", "1")]);
        fixture.server.none_reader_ms = 1000;
        fixture.server.settings = vec![("protocol.auto_close".into(), "1".into())];
        fixture
            .server
            .write_config(&Fixture::journal(&fixture.server, &[("on_idle_close", idle), ("revive_sec", "1")]));
        fixture.server.start();
        let source = fixture.source();
        assert_persisted(&add_ffmpeg(&fixture.server, &source.url, "f", &[]));
        fixture.server.wait_for("it to end", || fixture.sqlite3("select state from proxies") == left);
        if idle == "dormant" {
            wait_for_a_look(&fixture.server);
            assert_eq!(ffmpeg_sources(&fixture.server), []);
            let player = fixture.server.play("f").expect("the stream");
            assert_eq!(fixture.sqlite3("select state from proxies"), "enabled\n");
            drop(player);
        }
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_shutdown_takes_nothing_of_any_kind() {
    let mut fixture = Fixture::start(&[]);
    let (source, sink) = (fixture.source(), fixture.source());
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    assert_persisted(&add_push(&fixture.server, "a", &sink.takes("a"), &[]));
    assert_persisted(&add_ffmpeg(&fixture.server, &source.url, "f", &[]));
    Server::signal(fixture.server.pid(), "TERM");
    fixture.server.wait_for_end();
    assert_eq!(fixture.sqlite3("select count(*), (select count(*) from journal) from proxies"), "3|3\n");
    fixture.server.start();
    wait_for_playing(&fixture.server, 3);
    assert_eq!(fixture.server.get("restartServer", &[])["code"], 0);
    fixture.server.wait_for_end();
    fixture.server.start();
    wait_for_playing(&fixture.server, 3);
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "3\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_delete_of_what_the_server_lost_counts_for_any_kind() {
    let mut fixture = Fixture::start(&[("restore", "off")]);
    let (source, sink) = (fixture.source(), fixture.source());
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    let pushed = add_push(&fixture.server, "a", &sink.takes("a"), &[]);
    let made = add_ffmpeg(&fixture.server, &source.url, "f", &[]);
    fixture.server.kill();
    fixture.server.start();
    assert_eq!((pushes(&fixture.server), ffmpeg_sources(&fixture.server)), (vec![], vec![]));
    for (delete, reply) in [("delStreamPusherProxy", &pushed), ("delFFmpegSource", &made)] {
        assert_persisted(&fixture.server.get(delete, &[("key", &reply_key(reply))]));
    }
    assert_eq!(fixture.sqlite3("select kind from proxies"), "pull\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_is_disabled_of_any_kind_is_off_after_a_restart_too_until_it_is_enabled() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let (source, sink) = (fixture.source(), fixture.source());
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    let pushed = add_push(&fixture.server, "a", &sink.takes("a"), &[]);
    let made = add_ffmpeg(&fixture.server, &source.url, "f", &[]);
    let all = serde_json::json!([key("a"), reply_key(&pushed), reply_key(&made)]);
    let listed = |server: &Server| (keys(server).len(), pushes(server).len(), ffmpeg_sources(server).len());
    let set = |server: &Server, state: &str| {
        let reply = server.post_body("setJournalState", &[("state", state)], &all);
        assert_persisted(&reply);
        assert_eq!(reply["data"]["changed"], 3, "{reply}");
    };
    set(&fixture.server, "disabled");
    fixture.server.wait_for("all to be off", || listed(&fixture.server) == (0, 0, 0));
    fixture.crash_and_restore();
    // The stream that the push takes may come: it stays off.
    let publisher = Publisher::to(&fixture.server, "a");
    wait_for_a_look(&fixture.server);
    assert_eq!(listed(&fixture.server), (0, 0, 0));
    drop(publisher);
    set(&fixture.server, "enabled");
    // A push that was started while the publisher's stream ended is started once more.
    fixture.server.wait_for("all to be on", || listed(&fixture.server) == (1, 1, 1));
    wait_for_playing(&fixture.server, 3);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn clients_who_fight_over_pushes_leave_a_journal_that_agrees_with_the_server() {
    let seed = schedules::number("ZLMJ_SEED", fastrand::u64(..));
    support::say(&format!("fights over pushes: ZLMJ_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fixture = Fixture::start(&[]);
    let sink = fixture.source();
    for round in 0..10 {
        let publisher = Publisher::to(&fixture.server, "ext");
        let wanted = fixture.sqlite3("select count(*) from proxies").trim().parse().unwrap();
        wait_for_playing(&fixture.server, wanted);
        let seeds: Vec<u64> = (0..8).map(|_| random.u64(..)).collect();
        thread::scope(|scope| {
            for seed in seeds {
                let (server, sink) = (&fixture.server, &sink);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..15 {
                        let reply = add_push(server, "ext", &sink.takes(&random.u8(0..3).to_string()), &[]);
                        if random.bool() && reply["code"] == 0 {
                            server.get("delStreamPusherProxy", &[("key", &reply_key(&reply))]);
                        }
                    }
                });
            }
        });
        let journaled = || fixture.sqlite3("select key from proxies order by key");
        let listed: String = pushes(&fixture.server).into_iter().map(|(key, _)| key + "\n").collect();
        assert_eq!(journaled(), listed, "round {round}, ZLMJ_SEED={seed}");
        drop(publisher);
        fixture.crash_and_restore();
    }
}

/// A program in the place of FFmpeg that says when it begins and ends, and never has a stream.
fn counting_ffmpeg(fixture: &Fixture) -> Vec<(String, String)> {
    let (program, log) = (fixture.dir.path().join("ffmpeg.sh"), fixture.dir.path().join("ffmpeg.log"));
    fs::write(&program, format!("#!/bin/sh\necho + >> {0}\nsleep 0.5\necho - >> {0}\nexit 1\n", log.display()))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    vec![("ffmpeg.bin".into(), program.display().to_string()), ("ffmpeg.cmd".into(), "%s %s %s".into())]
}

fn runs(fixture: &Fixture) -> Vec<String> {
    let log = fs::read_to_string(fixture.dir.path().join("ffmpeg.log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// Writes FFmpeg sources to a journal, by running an operator's calls into a library that no server uses.
fn journal_ffmpeg(fixture: &Fixture, count: usize, more: &[(&str, &str)]) {
    let dst = |n: usize| here(&fixture.server, &format!("f{n}"));
    let sources: Vec<(String, String)> = (0..count).map(|n| (format!("{n:032x}"), dst(n))).collect();
    support::write_records(
        &fixture.server.journal_file(),
        sources.iter().map(|(key, dst)| {
            let args = [("src_url", "rtsp://127.0.0.1:1/x"), ("dst_url", dst), ("timeout_ms", "1500")];
            (Kind::Ffmpeg, key.clone(), [&args, more].concat())
        }),
    );
}

#[test]
#[ignore = "slow: just test-e2e"]
fn few_ffmpeg_processes_are_started_at_once() {
    let mut fixture = Fixture::prepare(&[("restore_ffmpeg_parallel", "2"), ("revive_sec", "0")]);
    fixture.server.settings = counting_ffmpeg(&fixture);
    fixture.server.write_config(&Fixture::journal(
        &fixture.server,
        &[("restore_ffmpeg_parallel", "2"), ("revive_sec", "0")],
    ));
    journal_ffmpeg(&fixture, 6, &[]);
    fixture.server.start();
    let status = fixture.server.wait_until_restored();
    assert_eq!(status["restore"]["failing"], 6, "{status}");
    let log = runs(&fixture);
    assert_eq!(log.iter().filter(|line| *line == "+").count(), 6, "{log:?}");
    let mut at_once = 0;
    let most = log.iter().map(|line| {
        at_once += if line == "+" { 1 } else { -1 };
        at_once
    });
    assert_eq!(most.max(), Some(2), "{log:?}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn an_ffmpeg_source_whose_template_the_config_no_longer_has_is_told_and_waits() {
    let mut fixture = Fixture::prepare(&[]);
    fixture.server.settings = counting_ffmpeg(&fixture);
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[("revive_sec", "1")]));
    journal_ffmpeg(&fixture, 1, &[("ffmpeg_cmd_key", "ffmpeg.mine")]);
    fixture.server.start();
    let status = fixture.server.wait_until_restored();
    assert_eq!((&status["restore"]["blocked"], &status["now"]["blocked"]), (&1.into(), &1.into()), "{status}");
    let error = status["now"]["proxies"][0]["last_error"].as_str().unwrap();
    assert!(error.contains("config.ini has no ffmpeg.mine") && error.contains("restoreJournal"), "{error}");
    wait_for_a_look(&fixture.server);
    assert_eq!(runs(&fixture), [""; 0], "the server would have taken another template");
    assert_eq!(fixture.sqlite3("select state from proxies"), "enabled\n");
    fixture.server.kill();
    fixture.server.settings.push(("ffmpeg.mine".into(), "%s %s %s".into()));
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[("revive_sec", "1")]));
    fixture.server.start();
    fixture.server.wait_for("it to be tried", || !runs(&fixture).is_empty());
}

/// Only the stand-in can play an older server.
#[test]
#[ignore = "slow: just test-e2e"]
fn a_server_without_force_and_some_calls_keeps_what_it_can() {
    if HOST.real {
        return;
    }
    let mut fixture = Fixture::prepare(&[("revive_sec", "1")]);
    let lacks = "force,getProxyInfo,getProxyPusherInfo,listFFmpegSource";
    fixture.server.env = vec![("STANDIN_LACKS".into(), lacks.into())];
    fixture.server.start();
    let (source, sink) = (fixture.source(), fixture.source());
    let server = &fixture.server;
    assert_persisted(&add(server, "a", &source.url, &[]));
    assert_persisted(&add_push(server, "a", &sink.takes("a"), &[]));
    let (address, url) = (source.address(), source.url.clone());
    drop(source);
    // The camera is off at the restart: without force the server drops it, and we try again.
    let status = fixture.crash_and_restore();
    assert_eq!((&status["restore"]["failing"], &status["restore"]["blocked"]), (&1.into(), &1.into()), "{status}");
    let _again = Source::live_at(&fixture.dir.path().join("again"), address);
    wait_for_playing(&fixture.server, 2);
    assert_eq!(fixture.server.proxies(), [(key("a"), url)]);
    // What is there is known without asking: nothing is started twice.
    fixture.server.get("restoreJournal", &[]);
    fixture.server.wait_until_restored();
    assert_eq!((fixture.server.proxies().len(), pushes(&fixture.server).len()), (1, 1));
}
