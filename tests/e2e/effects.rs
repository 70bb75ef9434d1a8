//! The journal follows what the server really did: not what a call asked for, nor what its reply says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::kinds::{add_ffmpeg, add_push, ffmpeg_sources, pushes};
use super::restore::{journaled, playing};
use super::*;

/// What the server calls the streams that it pulls from a source of ours.
pub fn schema() -> &'static str {
    if HOST.real { "rtmp" } else { "rtsp" }
}

fn close_stream(server: &Server, stream: &str, force: &str) -> Value {
    let args = [("schema", schema()), ("vhost", "__defaultVhost__"), ("app", "live"), ("stream", stream)];
    server.get("close_stream", &[args.as_slice(), &[("force", force)]].concat())
}

fn add_in<'a>(
    server: &Server,
    vhost: &'a str,
    app: &'a str,
    stream: &'a str,
    more: &[(&'a str, &'a str)],
) -> Value {
    server.get("addStreamProxy", &[&[("vhost", vhost), ("app", app), ("stream", stream)], more].concat())
}

fn assert_refused(reply: &Value) {
    assert_ne!(reply["code"], 0, "{reply}");
    assert_ne!(reply["journal"]["persisted"], true, "{reply}");
}

/// The end of what it closed is on disk, also where the call failed once it had closed it (code -400).
fn assert_end_persisted(reply: &Value) {
    assert_eq!(reply["journal"]["persisted"], true, "{reply}");
}

fn count(fixture: &Fixture) -> String {
    fixture.sqlite3("select count(*) from proxies").trim().to_owned()
}

/// Waits until the journal has forgotten everything, and shows that the server has and does too, after a restart as well.
fn assert_forgotten(fixture: &mut Fixture) {
    fixture.server.wait_for("the journal to forget it", || count(fixture) == "0");
    fixture.server.wait_for("the server to end it", || keys(&fixture.server).is_empty());
    let status = fixture.crash_and_restore();
    assert_eq!(status["proxies"]["enabled"], 0, "{status}");
    assert_eq!(keys(&fixture.server), [""; 0]);
    assert_eq!(ffmpeg_sources(&fixture.server), []);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn refused_forced_add_of_another_url_changes_nothing() {
    let mut fixture = Fixture::start(&[]);
    let (first, other) = (fixture.source(), fixture.source());
    assert_persisted(&add(&fixture.server, "a", &first.url, &[]));
    for _ in 0..8 {
        assert_refused(&add(&fixture.server, "a", &other.url, &[("force", "1")]));
    }
    let kept = [(key("a"), first.url.clone())];
    assert_eq!(journaled(&fixture), kept);
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "1\n");
    fixture.crash_and_restore();
    assert_eq!(fixture.server.proxies(), kept);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn slow_cameras_added_twice_are_all_journaled() {
    let mut fixture = Fixture::start(&[]);
    let live = fixture.source();
    let slow = live.slow(Duration::from_secs(2));
    let streams: Vec<String> = (0..6).map(|n| format!("s{n}")).collect();
    thread::scope(|scope| {
        let server = &fixture.server;
        let firsts: Vec<_> =
            streams.iter().map(|stream| scope.spawn(|| add(server, stream, &slow.url, &[]))).collect();
        server.wait_for("all to connect", || keys(server).len() == streams.len());
        for stream in &streams {
            for _ in 0..2 {
                assert_refused(&add(server, stream, &slow.url, &[]));
            }
        }
        for first in firsts {
            assert_persisted(&first.join().unwrap());
        }
    });
    let all: Vec<_> = streams.iter().map(|stream| (key(stream), slow.url.clone())).collect();
    assert_eq!(journaled(&fixture), all);
    fixture.crash_and_restore();
    assert_eq!(fixture.server.proxies(), all);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn success_of_an_add_whose_proxy_was_deleted_meanwhile_is_not_persisted() {
    let mut fixture = Fixture::start(&[]);
    let hole = Source::black_hole();
    let server = &fixture.server;
    thread::scope(|scope| {
        let adding = scope.spawn(|| add(server, "a", &hole.url, &[("timeout_sec", "5")]));
        server.wait_for("it to connect", || !keys(server).is_empty());
        assert_persisted(&server.get("delStreamProxy", &[("key", &key("a"))]));
        let reply = adding.join().unwrap();
        assert_ne!(reply["journal"]["persisted"], true, "{reply}");
    });
    assert_forgotten(&mut fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn refused_forced_push_is_not_journaled() {
    let fixture = Fixture::start(&[]);
    for _ in 0..8 {
        assert_refused(&add_push(&fixture.server, "absent", "rtmp://127.0.0.1:1/live/x", &[("force", "1")]));
    }
    assert_eq!(pushes(&fixture.server), []);
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "0\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn close_stream_of_playing_pulls_is_journaled() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let live = fixture.source();
    let streams: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    for stream in &streams {
        assert_persisted(&add(&fixture.server, stream, &live.url, &[]));
        fixture.server.wait_for_stream(stream);
    }
    for (stream, force) in streams.iter().zip(["0", "1"].into_iter().cycle()) {
        let reply = close_stream(&fixture.server, stream, force);
        assert_persisted(&reply);
        assert_eq!(reply["result"], 0, "{reply}");
    }
    assert_eq!(count(&fixture), "0");
    assert_forgotten(&mut fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn unforced_close_streams_with_viewers_keeps_all() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let live = fixture.source();
    let server = &fixture.server;
    let streams = ["a", "b", "c"];
    let all = streams.map(key);
    let viewers = streams.map(|stream| {
        assert_persisted(&add(server, stream, &live.url, &[]));
        server.play(stream).expect("the stream")
    });
    for _ in 0..3 {
        let reply = server.get("close_streams", &[("app", "live")]);
        assert_ne!(reply["journal"]["persisted"], true, "{reply}");
    }
    // Their own pollers say so, after all that was queued there before.
    for stream in streams {
        assert_ne!(close_stream(server, stream, "0")["code"], 0);
    }
    assert_eq!(keys(server), all);
    assert_eq!(count(&fixture), "3");
    // One is left by its viewer: the same call now closes that one, and no other.
    let [first, others @ ..] = viewers;
    drop(first);
    server.wait_for("the one without a viewer to be closed", || {
        server.get("close_streams", &[("app", "live")]);
        keys(server) == all[1..]
    });
    assert_eq!(fixture.sqlite3("select key from proxies order by key"), all[1..].join("\n") + "\n");
    // 8.0 with one poller throws of sources that went with another one, half way (-400); the next call has what is left.
    loop {
        let reply = server.get("close_streams", &[("app", "live"), ("force", "1")]);
        if reply["count_hit"] == 0 {
            break;
        }
        assert_end_persisted(&reply);
        if reply["code"] == 0 {
            break;
        }
    }
    assert_eq!(count(&fixture), "0", "{:?}\n{}", keys(server), server.log());
    drop(others);
    assert_forgotten(&mut fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn racing_adds_deletes_and_closes_leave_journal_and_server_alike() {
    let seed = schedules::number("ZLMJ_SEED", fastrand::u64(..));
    support::say(&format!("races of adds, deletes and closes: ZLMJ_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fixture = Fixture::start(&[("revive_sec", "600")]);
    let live = fixture.source();
    for round in 0..8 {
        let seeds: Vec<u64> = (0..8).map(|_| random.u64(..)).collect();
        thread::scope(|scope| {
            for (client, seed) in seeds.into_iter().enumerate() {
                let (server, url) = (&fixture.server, format!("{}?client={client}", live.url));
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..40 {
                        let stream = format!("k{}", random.usize(0..10));
                        schedules::random_call(server, &mut random, &stream, &url);
                    }
                });
            }
        });
        fixture.server.wait_for_pollers();
        let listed = fixture.server.proxies();
        assert_eq!(journaled(&fixture), listed, "journaled and listed, round {round}, ZLMJ_SEED={seed}");
        fixture.crash_and_restore();
        assert_eq!(fixture.server.proxies(), listed, "after a crash, round {round}, ZLMJ_SEED={seed}");
    }
}

// ---- what a caller names and the server calls otherwise

#[test]
#[ignore = "slow: just test-e2e"]
fn pull_of_a_named_vhost_is_forgotten_when_a_client_closes_it() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let live = fixture.source();
    for close in ["close_streams", "close_stream"] {
        assert_persisted(&add_in(&fixture.server, "foo", "live", "x", &[("url", &live.url)]));
        assert_eq!(keys(&fixture.server), ["foo/live/x"]);
        fixture.server.wait_for_stream("x");
        let args = [("schema", schema()), ("app", "live"), ("stream", "x"), ("force", "1")];
        let vhost = [("vhost", if close == "close_stream" { "foo" } else { "" })];
        assert_end_persisted(&fixture.server.get(close, &[args.as_slice(), &vhost].concat()));
        assert_eq!(count(&fixture), "0", "{close}");
        fixture.server.wait_for("the server to end it", || keys(&fixture.server).is_empty());
    }
    assert_forgotten(&mut fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn pull_of_a_named_vhost_that_nobody_watches_is_forgotten() {
    let settings = [("revive_sec", "1")];
    let mut fixture = Fixture::prepare(&settings);
    fixture.server.none_reader_ms = 1000;
    fixture.server.write_config(&Fixture::journal(&fixture.server, &settings));
    fixture.server.start();
    let live = fixture.source();
    assert_persisted(&add_in(&fixture.server, "foo", "live", "x", &[("url", &live.url), ("auto_close", "1")]));
    assert_forgotten(&mut fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn pull_of_a_named_vhost_is_started_when_a_player_asks() {
    let mut fixture = Fixture::start(&[("restore", "lazy")]);
    let live = fixture.source();
    assert_persisted(&add_in(&fixture.server, "foo", "live", "x", &[("url", &live.url)]));
    fixture.server.kill();
    fixture.server.start();
    assert_eq!(keys(&fixture.server), [""; 0]);
    let _player = fixture.server.play("x").expect("the stream");
    assert_eq!(fixture.server.proxies(), [("foo/live/x".to_owned(), live.url.clone())]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn keys_that_read_alike_keep_the_first() {
    let mut fixture = Fixture::start(&[]);
    let (first, other) = (fixture.source(), fixture.source());
    let server = &fixture.server;
    assert_persisted(&add_in(server, "v", "a/b", "c", &[("url", &first.url), ("retry_count", "7")]));
    for force in ["0", "1"] {
        for url in [&other.url, &first.url] {
            assert_refused(&add_in(server, "v", "a", "b/c", &[("url", url), ("force", force)]));
        }
    }
    let kept = "select key, json_extract(args, '$.app'), json_extract(args, '$.retry_count') from proxies";
    assert_eq!(fixture.sqlite3(kept), "v/a/b/c|a/b|7\n");
    fixture.crash_and_restore();
    assert_eq!(fixture.server.proxies(), [("v/a/b/c".to_owned(), first.url.clone())]);
    fixture.server.wait_for("it to play under its first name", || {
        fixture.server.get("getMediaList", &[("app", "a/b"), ("stream", "c")])["data"].is_array()
    });
}

#[test]
#[ignore = "slow: just test-e2e"]
fn ffmpeg_source_to_localhost_is_forgotten_when_a_client_closes_it() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let live = fixture.source();
    let server = &fixture.server;
    let dst = format!("rtmp://localhost:{}/live/x", server.rtmp_port);
    let args = [("src_url", live.url.as_str()), ("dst_url", &dst), ("timeout_ms", "20000")];
    assert_persisted(&server.get("addFFmpegSource", &args));
    server.wait_for_status("it to play", |status| playing(status) == 1);
    assert_end_persisted(&server.get("close_streams", &[("app", "live"), ("stream", "x"), ("force", "1")]));
    assert_eq!(count(&fixture), "0");
    server.wait_for("the server to end it", || ffmpeg_sources(server).is_empty());
    server.wait_for_status("it to be shown as gone", |status| playing(status) == 0);
    // And one that goes by the address, as before.
    assert_persisted(&add_ffmpeg(server, &live.url, "y", &[]));
    assert_end_persisted(&server.get("close_streams", &[("app", "live"), ("stream", "y"), ("force", "1")]));
    assert_forgotten(&mut fixture);
}

// ---- closed for lack of viewers

#[test]
#[ignore = "slow: just test-e2e"]
fn pull_of_the_record_app_that_nobody_watches_is_forgotten() {
    let settings = [("revive_sec", "1")];
    let mut fixture = Fixture::prepare(&settings);
    fixture.server.none_reader_ms = 1000;
    fixture.server.settings = vec![("record.appName".into(), "archive".into())];
    fixture.server.write_config(&Fixture::journal(&fixture.server, &settings));
    fixture.server.start();
    let live = fixture.source();
    // One that never gives up, and one that might have.
    for (stream, retry_count) in [("x", "-1"), ("y", "3")] {
        let args = [("url", live.url.as_str()), ("retry_count", retry_count)];
        assert_persisted(&add_in(&fixture.server, "__defaultVhost__", "archive", stream, &args));
    }
    assert_forgotten(&mut fixture);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn pull_is_forgotten_when_the_none_reader_hook_says_close_late() {
    let settings = [("revive_sec", "1")];
    // 0.1.0 took an end for an idle close for no more than 15 s.
    let hook = Hook::that_closes_after(Duration::from_secs(17));
    let mut fixture = Fixture::prepare(&settings);
    fixture.server.none_reader_ms = 500;
    fixture.server.settings = [("enable", "1"), ("timeoutSec", "30"), ("on_stream_none_reader", &hook.url)]
        .map(|(name, value)| (format!("hook.{name}"), value.to_owned()))
        .to_vec();
    fixture.server.write_config(&Fixture::journal(&fixture.server, &settings));
    fixture.server.start();
    let live = fixture.source();
    // Its playlist would begin later, and be asked about once more.
    assert_persisted(&add(&fixture.server, "x", &live.url, &[("enable_hls", "0")]));
    assert_forgotten(&mut fixture);
}

/// A business system that is asked about a stream that nobody watches, thinks, and has it closed.
struct Hook {
    url: String,
}

impl Hook {
    fn that_closes_after(delay: Duration) -> Hook {
        let listener = TcpListener::bind(("127.0.0.1", server::free_port())).unwrap();
        let url = format!("http://{}/none_reader", listener.local_addr().unwrap());
        // Ends with the test's process.
        thread::spawn(move || {
            for asked in listener.incoming() {
                thread::spawn(move || asked.and_then(|asked| answer(asked, delay)));
            }
        });
        Hook { url }
    }
}

fn answer(mut asked: TcpStream, delay: Duration) -> std::io::Result<()> {
    let mut said = [0; 4096];
    // What is asked does not matter.
    let _ = asked.read(&mut said)?;
    thread::sleep(delay);
    let body = r#"{"code":0,"close":true}"#;
    write!(
        asked,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
