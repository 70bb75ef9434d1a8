//! Which calls are journaled, and what of them is kept.

use std::time::Instant;

use super::*;

#[test]
#[ignore = "slow: just test-e2e"]
fn every_camera_is_back_after_kill_9_and_what_was_deleted_stays_away() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    let server = &fixture.server;
    assert_eq!(assert_persisted(&add(server, "get", &source.url, &[])), 1);
    assert_persisted(&server.post_form("addStreamProxy", &add_args("form", &source.url, &[])));
    assert_persisted(&server.post_json("addStreamProxy", &add_args("json", &source.url, &[])));
    assert_persisted(&add(server, "deleted", &source.url, &[]));
    let deleted = server.get("delStreamProxy", &[("key", &key("deleted"))]);
    assert_eq!(deleted["data"]["flag"], true, "{deleted}");
    assert_eq!(assert_persisted(&deleted), 5);
    let before = server.proxies();
    assert_eq!(before.len(), 3);

    let status = fixture.crash_and_restore();
    assert_eq!(status["restore"]["total"], 3);
    assert_eq!(status["restore"]["live"], 3);
    assert_eq!(fixture.server.proxies(), before);
    let media = fixture.server.get("getMediaList", &[("app", "live")]);
    for stream in ["get", "form", "json"] {
        assert_eq!(fixture.server.get("getProxyInfo", &[("key", &key(stream))])["code"], 0);
        let listed = media["data"].as_array().unwrap().iter().any(|item| item["stream"] == stream);
        assert!(listed, "{stream} plays: {media}");
    }
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "5\n", "restores are not journaled");

    // The same key still names it.
    assert_persisted(&fixture.server.get("delStreamProxy", &[("key", &key("form"))]));
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), [key("get"), key("json")]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn an_argument_that_is_given_twice_or_in_a_header_is_kept_as_the_server_reads_it() {
    let fixture = Fixture::start(&[]);
    let source = fixture.source();
    let server = &fixture.server;
    let add = |streams: &[&'static str], headers: &[(&str, &str)]| {
        let all = add_args("none", &source.url, &[]);
        let others = all.into_iter().filter(|(name, _)| *name != "stream");
        let args: Vec<_> = others.chain(streams.iter().map(|stream| ("stream", *stream))).collect();
        assert_persisted(&server.get_with_headers("addStreamProxy", &args, headers));
    };
    add(&[], &[("stream", "header")]);
    add(&[""], &[("stream", "empty")]);
    add(&["url"], &[("stream", "neither")]);
    add(&["neither", "last"], &[]);
    add(&[], &[("stream", "first"), ("stream", "neither")]);
    add(&[""], &[("stream", "another"), ("stream", "neither")]);
    let journaled =
        fixture.sqlite3("select key || ' ' || json_extract(args, '$.stream') from proxies order by seq");
    let all = ["header", "empty", "url", "last", "first", "another"];
    assert_eq!(journaled, all.map(|stream| format!("{} {stream}\n", key(stream))).concat());

    let deleted = server.get("delStreamProxy", &[("key", &key("none")), ("key", &key("last"))]);
    assert_eq!(deleted["data"]["flag"], true, "{deleted}");
    assert_persisted(&deleted);
    let left = ["another", "empty", "first", "header", "url"].map(key);
    assert_eq!(keys(server), left);
    assert_eq!(
        fixture.sqlite3("select key from proxies order by key"),
        left.map(|key| format!("{key}\n")).concat()
    );
}

#[test]
#[ignore = "slow: just test-e2e"]
fn every_argument_is_kept_verbatim_and_the_secret_never() {
    let mut fixture = Fixture::prepare(&[]);
    // One of the arguments is longer than the body that a server as it is shipped takes.
    fixture.server.settings.push(("http.maxReqSize".to_owned(), "8388608".to_owned()));
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    fixture.server.start();
    let source = fixture.source();
    let long = "x".repeat(60 << 10);
    let odd = [
        ("unicode", "摄像头 一 🎥"),
        ("spaces", "  a  b  "),
        ("quotes", r#"it's "quoted" \ and / back"#),
        ("percent", "100%25 %zz"),
        ("empty", ""),
        ("sql", "'); drop table proxies;--"),
        ("controls", "a\tb\nc"),
    ];
    let server = &fixture.server;
    assert_persisted(&add(server, "get", &source.url, &odd));
    assert_persisted(&server.post_form("addStreamProxy", &add_args("form", &source.url, &odd)));
    assert_persisted(&server.post_json("addStreamProxy", &add_args("json", &source.url, &odd)));
    let big = [("long", long.as_str())];
    assert_persisted(&server.post_json("addStreamProxy", &add_args("big", &source.url, &big)));

    for stream in ["get", "form", "json"] {
        let stored = fixture.sqlite3(&format!("select args from proxies where key = '{}'", key(stream)));
        let stored: Value = serde_json::from_str(&stored).unwrap();
        let mut expected = serde_json::Map::new();
        for (name, value) in add_args(stream, &source.url, &odd) {
            expected.insert(name.to_owned(), Value::from(value));
        }
        assert_eq!(stored, Value::Object(expected), "{stream}");
    }
    let lengths =
        fixture.sqlite3("select length(json_extract(args, '$.long')) from proxies where key like '%big'");
    assert_eq!(lengths, format!("{}\n", long.len()));
    let everything = fixture.sqlite3(".dump");
    assert!(!everything.contains(support::server::SECRET));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_call_in_another_case_is_journaled_where_the_server_takes_it() {
    let fixture = Fixture::start(&[]);
    let source = fixture.source();
    let reply = fixture.server.try_get("AddStreamPROXY", &add_args("a", &source.url, &[]));
    if keys(&fixture.server).is_empty() {
        assert_eq!(fixture.sqlite3("select count(*) from journal"), "0\n", "{reply:?}");
    } else {
        assert_persisted(&reply.unwrap());
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_the_server_refuses_is_not_journaled_and_answered_as_stock() {
    let fixture = Fixture::start(&[]);
    let source = fixture.source();
    let server = &fixture.server;
    assert_persisted(&add(server, "a", &source.url, &[]));
    for refused in [
        add(server, "a", "rtsp://127.0.0.1:1/other", &[]),
        add(server, "a", "rtsp://127.0.0.1:1/other", &[("force", "1")]),
        server.get("addStreamProxy", &[("app", "live")]),
        server.get_without_secret("addStreamProxy"),
        server.get_without_secret("delStreamProxy"),
        // Nobody listens there: without force the server drops it.
        add(server, "b", "rtsp://127.0.0.1:1/dead", &[("timeout_sec", "2")]),
    ] {
        assert_ne!(refused["code"], 0, "{refused}");
        assert!(refused.get("journal").is_none(), "{refused}");
    }
    assert_eq!(
        fixture.sqlite3("select seq, json_extract(args, '$.url') from journal"),
        format!("1|{}\n", source.url)
    );
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_forced_camera_that_never_answers_is_on_disk_before_its_reply() {
    if support::is_left_out_on_old("a forced add") {
        return;
    }
    let mut fixture = Fixture::start(&[]);
    let hole = support::Source::black_hole();
    thread::scope(|scope| {
        let server = &fixture.server;
        let waiting =
            scope.spawn(|| server.try_get("addStreamProxy", &add_args("hole", &hole.url, &[("force", "1")])));
        let deadline = Instant::now() + Duration::from_secs(8);
        while fixture.sqlite3("select count(*) from proxies") != "1\n" {
            assert!(Instant::now() < deadline, "not written while the server still connects");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(!waiting.is_finished());
        support::server::Server::signal(server.pid(), "KILL");
        assert!(waiting.join().unwrap().is_none(), "no reply was sent");
    });
    fixture.server.kill();
    fixture.server.start();
    fixture.server.wait_until_started();
    assert_eq!(fixture.server.proxies(), [(key("hole"), hole.url.clone())]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_forced_camera_that_is_off_is_journaled_and_not_taken_for_playing() {
    if support::is_left_out_on_old("a forced add") {
        return;
    }
    let mut fixture = Fixture::start(&[]);
    let more = [("force", "1"), ("timeout_sec", "2")];
    assert_persisted(&add(&fixture.server, "off", "rtsp://127.0.0.1:1/off", &more));
    let status = fixture.server.wait_for_status("it to be looked at", |status| status["now"]["retrying"] == 1);
    assert_eq!(status["now"]["playing"], 0, "{status}");
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), [key("off")]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn closing_a_proxied_stream_forgets_it() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    let server = &fixture.server;
    for stream in ["one", "two", "three", "kept"] {
        assert_persisted(&add(server, stream, &source.url, &[]));
    }
    let schema = if HOST.real { "rtmp" } else { "rtsp" };
    let one =
        [("schema", schema), ("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "one"), ("force", "1")];
    assert_persisted(&server.get("close_stream", &one));
    // These may throw when they have closed all: `code` -400, and journaled all the same.
    let assert_closed = |reply: &Value| assert_eq!(reply["journal"]["persisted"], true, "{reply}");
    let closed = server.post_form("close_streams", &[("app", "live"), ("stream", "two"), ("force", "1")]);
    assert_closed(&closed);
    assert_closed(&server.post_json("close_streams", &[("stream", "three"), ("force", "1")]));
    let none = server.get("close_streams", &[("stream", "nobody"), ("force", "1")]);
    assert!(none.get("journal").is_none(), "{none}");
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), [key("kept")]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn deleting_what_the_server_lost_forgets_it_too() {
    let mut fixture = Fixture::start(&[("restore", "off")]);
    let source = fixture.source();
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    fixture.server.kill();
    fixture.server.start();
    assert_eq!(keys(&fixture.server), Vec::<String>::new(), "restore=off starts nothing");
    let deleted = fixture.server.get("delStreamProxy", &[("key", &key("a"))]);
    assert_persisted(&deleted);
    assert_eq!(fixture.sqlite3("select count(*) from proxies"), "0\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_call_that_cannot_be_written_stands_and_says_so() {
    let fixture = Fixture::start(&[]);
    let source = fixture.source();
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    fixture.sqlite3("drop table journal");
    let reply = add(&fixture.server, "b", &source.url, &[]);
    assert_eq!(reply["code"], 0, "{reply}");
    assert_eq!(reply["journal"]["persisted"], false, "{reply}");
    assert!(reply["journal"]["error"].as_str().unwrap().contains("journal"), "{reply}");
    assert_eq!(keys(&fixture.server).len(), 2);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn async_durability_says_that_it_is_pending() {
    let fixture = Fixture::start(&[("durability", "async")]);
    let source = fixture.source();
    let reply = add(&fixture.server, "a", &source.url, &[]);
    assert_eq!(reply["journal"]["persisted"], false, "{reply}");
    assert_eq!(reply["journal"]["pending"], true, "{reply}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while fixture.sqlite3("select count(*) from proxies") != "1\n" {
        assert!(Instant::now() < deadline, "never written");
        thread::sleep(Duration::from_millis(10));
    }
}
