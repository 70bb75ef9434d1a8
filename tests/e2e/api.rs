//! What a business system and an operator do with the journal besides the server's own calls.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::*;

/// The arguments of a pull, as an item of a body.
fn item(stream: &str, url: &str) -> Value {
    json!({"vhost": "__defaultVhost__", "app": "live", "stream": stream, "url": url})
}

fn items(streams: impl IntoIterator<Item = String>, url: &str) -> Value {
    Value::Array(streams.into_iter().map(|stream| item(&stream, url)).collect())
}

fn named(name: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{name}{n:04}"))
}

fn keys_of(name: &str, count: usize) -> Vec<String> {
    named(name, count).map(|stream| key(&stream)).collect()
}

fn lengths(reply: &Value) -> [usize; 3] {
    ["added", "updated", "removed"]
        .map(|what| reply["data"][what].as_array().unwrap_or_else(|| panic!("{reply}")).len())
}

fn wait_until_listed(server: &Server, wanted: &[String]) {
    server.wait_for("the server to have what is wanted", || keys(server) == wanted);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn ten_thousand_cameras_fit_in_one_call_to_a_server_as_it_is_shipped() {
    if support::is_left_out_on_old("a body longer than http.maxReqSize") {
        return;
    }
    // http.maxReqSize is 40,960 bytes where config.ini does not say otherwise.
    let fixture = Fixture::start(&[]);
    let body = items(named("camera", 10_000), "rtsp://127.0.0.1:9/ch1");
    let bytes = serde_json::to_vec(&body).unwrap();
    assert!(bytes.len() > 20 * 40_960);
    let dry = [("dry_run", "1")];
    let reply = fixture.server.post_body("syncJournal", &dry, &body);
    assert_eq!(lengths(&reply), [10_000, 0, 0]);
    // It is no news to the file.
    fixture.server.get("setServerConfig", &[("general.flowThreshold", "1023")]);
    let ini = std::fs::read_to_string(fixture.dir.path().join("config.ini")).unwrap();
    // The server leaves what it was given as it is, and writes what it was not given behind that.
    let http = ini.split("\n[").filter(|section| section.trim_start_matches('[').starts_with("http]"));
    let limits: Vec<&str> =
        http.flat_map(str::lines).filter_map(|line| line.strip_prefix("maxReqSize=")).collect();
    let is_told = |limit: &&str| *limit == "40960";
    // The stand-in writes no defaults.
    assert!(limits.iter().all(is_told) && (!HOST.real || !limits.is_empty()), "{limits:?}: {ini}");
    // Nobody else's is taken: not a stranger's, and not to a call of the server's own.
    for (path, secret) in [("syncJournal", "wrong"), ("getServerConfig", server::SECRET)] {
        let fresh = ureq::post(format!("http://127.0.0.1:{}/index/api/{path}", fixture.server.port));
        let reply = fresh.query("secret", secret).header("content-type", "application/json").send(&bytes);
        assert!(reply.is_err(), "{path}: {:?}", reply.map(|reply| reply.status()));
    }
    assert_eq!(keys(&fixture.server), [""; 0]);
}

/// A proxy before the server has the calls of many clients on one connection.
#[test]
#[ignore = "slow: just test-e2e"]
fn a_long_call_leaves_no_room_for_the_next_one_on_its_connection() {
    if support::is_left_out_on_old("a body longer than http.maxReqSize") {
        return;
    }
    let fixture = Fixture::start(&[]);
    let body = serde_json::to_vec(&items(named("camera", 1000), "rtsp://127.0.0.1:9/ch1")).unwrap();
    assert!(body.len() > 2 * 40_960);
    let (right, wrong) = (server::SECRET, "wrong");
    for (method, api, secret) in [
        ("POST", "syncJournal", wrong),
        ("POST", "getServerConfig", right),
        ("PUT", "getServerConfig", wrong),
        ("DELETE", "getServerConfig", right),
        ("GET", "syncJournal", right),
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", fixture.server.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // Twice: its own kind it leaves room for.
        for _ in 0..2 {
            let reply = ask(&mut socket, "POST", "syncJournal", right, &body).expect("a reply");
            assert!(reply.contains("\"code\":0"), "{reply}");
        }
        let reply = ask(&mut socket, method, api, secret, &body);
        assert_eq!(reply, None, "{method} {api}");
    }
}

/// The reply to a call, on a connection that stays; none where the server ends it instead.
fn ask(socket: &mut TcpStream, method: &str, api: &str, secret: &str, body: &[u8]) -> Option<String> {
    let head = format!(
        "{method} /index/api/{api}?secret={secret}&dry_run=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // Who is cut off may find out while he writes.
    socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body)).ok()?;
    let mut reader = BufReader::new(socket);
    let mut length = 0;
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("{method} {api}: {error}"),
        }
        if let Some((_, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut reply = vec![0; length];
    reader.read_exact(&mut reply).unwrap();
    Some(String::from_utf8(reply).unwrap())
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_batch_is_one_transaction_answered_item_by_item_and_waits_for_no_camera() {
    let mut fixture = Fixture::start(&[("restore_per_origin", "0")]);
    let (live, hole) = (fixture.source(), Source::black_hole());
    assert_persisted(&add(&fixture.server, "there", &live.url, &[]));
    let mut body = items(named("hole", 500), &hole.url);
    let more = body.as_array_mut().unwrap();
    more.extend([
        item("there", &live.url),
        json!({"vhost": "__defaultVhost__", "app": "live", "stream": "x"}),
        json!("no object"),
        json!({"vhost": "__defaultVhost__", "app": "live", "stream": "y", "url": ["no", "text"]}),
        item("hole0001", &hole.url),
        json!({"vhost": "__defaultVhost__", "app": "live", "stream": "n", "url": live.url, "retry_count": 3, "auto_close": false}),
    ]);
    let reply = fixture.server.post_body("addStreamProxies", &[], &body);
    assert_eq!(assert_persisted(&reply), 502, "{}", reply["journal"]);
    let answers = reply["data"].as_array().unwrap();
    assert!(
        answers[..500]
            .iter()
            .zip(keys_of("hole", 500))
            .all(|(answer, key)| *answer == json!({"code": 0, "key": key}))
    );
    let codes: Vec<i64> = answers[500..].iter().map(|answer| answer["code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [-1, -300, -300, -300, -1, 0], "{:?}", &answers[500..]);
    assert_eq!(answers[500]["msg"], "This stream already exists");
    assert_eq!(answers[501]["msg"], "Required parameter missed: url");
    // No camera of them has answered, and all are there; one change each, of one moment.
    fixture.server.wait_for("all to be listed", || keys(&fixture.server).len() == 502);
    assert_eq!(fixture.sqlite3("select count(*), count(distinct at) from journal where seq > 1"), "501|1\n");
    let args = fixture.sqlite3("select args from proxies where key like '%/n'");
    assert_eq!(
        serde_json::from_str::<Value>(&args).unwrap(),
        json!({"vhost": "__defaultVhost__", "app": "live", "stream": "n", "url": live.url, "retry_count": "3", "auto_close": "false"})
    );

    let mut gone: Vec<Value> = keys_of("hole", 500).into_iter().map(Value::from).collect();
    gone.extend([json!({"key": key("n")}), json!(7), json!(key("unknown"))]);
    let reply = fixture.server.post_body("delStreamProxies", &[], &Value::Array(gone));
    assert_eq!(assert_persisted(&reply), 1003);
    let answers = &reply["data"].as_array().unwrap()[500..];
    assert_eq!(
        (&answers[0]["flag"], &answers[1]["code"], &answers[2]["flag"]),
        (&true.into(), &(-300).into(), &false.into())
    );
    wait_until_listed(&fixture.server, &[key("there")]);
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), [key("there")]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_server_that_is_killed_during_many_changes_has_all_of_them_or_none() {
    if support::is_left_out_on_old("cameras that are off and listed") {
        return;
    }
    let mut random = fastrand::Rng::new();
    // The last change before all was emptied again.
    let mut full = 0;
    let mut fixture = Fixture::start(&[("restore_per_origin", "0")]);
    // Answered for at once: what is connecting in a crash is started with more care after it.
    let refuses = "rtsp://127.0.0.1:1/off";
    let mut kept = [0, 0];
    for round in 0..12 {
        let apis = ["addStreamProxies", "syncJournal", "importJournal", "rollbackJournal"];
        let api = apis[if full == 0 { round % 3 } else { round % 4 }];
        let name = if api == "rollbackJournal" { String::new() } else { format!("r{round}-") };
        let body = items(named(&name, 1500), refuses);
        let body = match api {
            "importJournal" => {
                let entries: Vec<Value> =
                    body.as_array().unwrap().iter().map(|args| json!({"kind": "pull", "args": args})).collect();
                json!({"format": "zlm-journal", "version": 1, "entries": entries})
            }
            "rollbackJournal" => json!([]),
            _ => body,
        };
        let to = full.to_string();
        let pid = fixture.server.pid();
        let pause = Duration::from_micros(random.u64(0..60_000));
        let reply = thread::scope(|scope| {
            let calls = scope.spawn(|| fixture.server.try_post_body(api, &[("to_seq", &to)], &body));
            thread::sleep(pause);
            Server::signal(pid, "KILL");
            calls.join().unwrap()
        });
        fixture.crash_and_restore();
        let all: usize = fixture.sqlite3("select count(*) from proxies").trim().parse().unwrap();
        let of_it: usize = fixture
            .sqlite3(&format!("select count(*) from proxies where key like '%/{name}%'"))
            .trim()
            .parse()
            .unwrap();
        assert!(of_it == 0 || of_it == 1500, "{api} left {of_it} of 1500 after {pause:?}");
        if reply.is_some_and(|reply| reply["journal"]["persisted"] == true) {
            assert_eq!(of_it, 1500, "{api} was acknowledged");
        }
        if api == "syncJournal" && of_it > 0 {
            assert_eq!(all, 1500, "what a sync removes goes with what it adds");
        }
        kept[usize::from(of_it > 0)] += 1;
        fixture.server.wait_for("the server to have what is wanted", || keys(&fixture.server).len() == all);
        if of_it == 1500 {
            full = fixture.sqlite3("select max(seq) from journal").trim().parse().unwrap();
        }
        // Not more and more.
        fixture.server.post_body("syncJournal", &[], &json!([]));
        fixture.server.wait_for("the server to be empty", || keys(&fixture.server).is_empty());
    }
    support::say(&format!("killed amid many changes: {} left nothing, {} all", kept[0], kept[1]));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_sync_changes_what_differs_and_touches_nothing_else() {
    let mut fixture = Fixture::start(&[]);
    let (old, new) =
        (fixture.source(), Source::live_at(&fixture.dir.path().join("new"), "127.0.0.1:0".parse().unwrap()));
    let server = &fixture.server;
    assert_persisted(&server.get(
        "addStreamProxy",
        &[("vhost", "__defaultVhost__"), ("app", "other"), ("stream", "o"), ("url", &old.url)],
    ));
    let scope = [("app", "live")];
    let sync =
        |more: &[(&str, &str)], body: &Value| server.post_body("syncJournal", &[&scope, more].concat(), body);
    let mut wanted = items(named("c", 20), &old.url);
    assert_eq!(lengths(&sync(&[("dry_run", "1")], &wanted)), [20, 0, 0]);
    assert_eq!(fixture.sqlite3("select count(*) from proxies"), "1\n");
    let reply = sync(&[], &wanted);
    assert_eq!((lengths(&reply), assert_persisted(&reply)), ([20, 0, 0], 21));
    server.wait_for_status("all to play", |status| status["now"]["playing"] == 21);
    let connects = old.connects();

    // The same again does nothing.
    let reply = sync(&[], &wanted);
    assert_eq!(
        (lengths(&reply), &reply["data"]["unchanged"], assert_persisted(&reply)),
        ([0, 0, 0], &20.into(), 21)
    );
    // One camera has moved, one is gone, one is new.
    let set = wanted.as_array_mut().unwrap();
    set[3] = item("c0003", &new.url);
    set[4] = item("fresh", &new.url);
    assert_eq!(lengths(&sync(&[("prune", "0")], &wanted)), [1, 1, 0]);
    let reply = sync(&[], &wanted);
    assert_eq!((lengths(&reply), &reply["data"]["removed"]), ([0, 0, 1], &json!([key("c0004")])));
    server.wait_for("the server to follow", || {
        let listed = server.proxies();
        listed.len() == 21
            && listed.contains(&(key("c0003"), new.url.clone()))
            && listed.contains(&(key("fresh"), new.url.clone()))
            && !keys(server).contains(&key("c0004"))
    });
    server.wait_for_status("all to play", |status| status["now"]["playing"] == 21);
    if !HOST.real {
        assert_eq!((old.connects(), new.connects()), (connects, 2), "nobody else was disturbed");
    }
    assert_eq!(fixture.sqlite3("select count(*) from proxies where json_extract(args, '$.app') = 'other'"), "1\n");
    fixture.crash_and_restore();
    assert_eq!(fixture.server.proxies().len(), 21, "of app live and of the other");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_sync_that_builds_on_what_has_changed_meanwhile_is_refused() {
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    let server = &fixture.server;
    let sync = |label: &str, if_seq: u64, streams: &[&str]| {
        let body = items(streams.iter().map(|stream| (*stream).to_owned()), &live.url);
        server.post_body("syncJournal", &[("label", label), ("if_seq", &if_seq.to_string())], &body)
    };
    assert_eq!(assert_persisted(&sync("a", 0, &["a1", "a2"])), 2);
    assert_eq!(assert_persisted(&sync("b", 0, &["b1"])), 3);
    // Another scope's change is none of ours, an addition, a replacement and a removal in ours are.
    assert_eq!(assert_persisted(&sync("a", 2, &["a1", "a2", "a3"])), 4);
    for (change, streams) in [(3, ["a1", "a2"].as_slice()), (3, &["a1"])] {
        let refused = sync("a", change, streams);
        assert_eq!((&refused["code"], &refused["conflict"]), (&(-1).into(), &true.into()), "{refused}");
    }
    assert_persisted(&server.get("delStreamProxy", &[("key", &key("a3"))]));
    assert_eq!(sync("a", 4, &["a1"])["conflict"], true, "a removal is a change");
    assert_eq!(assert_persisted(&sync("a", 5, &["a1"])), 6);
    assert_eq!(sync("a", 99, &["a1"])["conflict"], true);
    assert_eq!(fixture.sqlite3("select key from proxies order by key"), format!("{}\n{}\n", key("a1"), key("b1")));
    // Items of a scope have its label.
    assert_eq!(
        fixture
            .sqlite3("select distinct json_extract(args, '$.journal_label') from proxies where key like '%/a1'"),
        "a\n"
    );
}

#[test]
#[ignore = "slow: just test-e2e"]
fn two_who_sync_the_same_scope_leave_what_one_of_them_wants() {
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    let server = &fixture.server;
    let bodies = [items(named("a", 40), &live.url), items(named("b", 40).chain(named("a", 5)), &live.url)];
    thread::scope(|scope| {
        for body in &bodies {
            scope.spawn(move || {
                for _ in 0..25 {
                    let reply = server.post_body("syncJournal", &[], body);
                    assert!(reply["code"] == 0 || reply["conflict"] == true, "{reply}");
                }
            });
        }
    });
    let journaled = fixture.sqlite3("select key from proxies order by key");
    let journaled: Vec<String> = journaled.lines().map(str::to_owned).collect();
    let mut second: Vec<String> = keys_of("a", 5);
    second.extend(keys_of("b", 40));
    assert!(journaled == keys_of("a", 40) || journaled == second, "{journaled:?}");
    wait_until_listed(server, &journaled);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn syncs_of_scopes_that_overlap_never_leave_half_of_one() {
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    let server = &fixture.server;
    // One speaks for all of an app, others for what bears their label in it.
    let ours = |label: &str| items(named(label, 20), &live.url);
    let whole = items(named("whole", 10), &live.url);
    thread::scope(|scope| {
        for label in ["x", "y"] {
            let body = ours(label);
            scope.spawn(move || {
                for _ in 0..15 {
                    let reply = server.post_body("syncJournal", &[("app", "live"), ("label", label)], &body);
                    assert!(reply["code"] == 0 || reply["conflict"] == true, "{reply}");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..15 {
                let reply = server.post_body("syncJournal", &[("app", "live")], &whole);
                assert!(reply["code"] == 0 || reply["conflict"] == true, "{reply}");
            }
        });
    });
    let journaled = fixture.sqlite3("select key from proxies order by key");
    let journaled: Vec<String> = journaled.lines().map(str::to_owned).collect();
    for (name, count) in [("x", 20), ("y", 20), ("whole", 10)] {
        let there = journaled.iter().filter(|there| there.starts_with(&key(name))).count();
        assert!(there == 0 || there == count, "{there} of {count} of {name}");
    }
    wait_until_listed(server, &journaled);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_others_have_added_is_taken_over_without_its_viewers_noticing() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let live = fixture.source();
    for stream in named("c", 5) {
        assert_persisted(&add(&fixture.server, &stream, &live.url, &[]));
    }
    fixture.server.wait_for_status("all to play", |status| status["now"]["playing"] == 5);
    let connects = live.connects();
    let body = items(named("c", 5), &live.url);
    let reply = fixture.server.post_body("syncJournal", &[("label", "site 1")], &body);
    assert_eq!((lengths(&reply), assert_persisted(&reply)), ([0, 5, 0], 10));
    // The same set is theirs from now on, and the next call finds nothing to do.
    let reply = fixture.server.post_body("syncJournal", &[("label", "site 1")], &body);
    assert_eq!((lengths(&reply), &reply["data"]["unchanged"]), ([0, 0, 0], &5.into()));
    wait_for_a_look(&fixture.server);
    if !HOST.real {
        assert_eq!(live.connects(), connects, "nobody was connected to anew");
    }
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), keys_of("c", 5));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_is_disabled_is_off_and_stays_off_until_it_is_enabled() {
    let mut fixture = Fixture::start(&[("revive_sec", "1")]);
    let live = fixture.source();
    for stream in ["a", "b", "c"] {
        assert_persisted(&add(&fixture.server, stream, &live.url, &[]));
    }
    let off = fixture.server.get("setJournalState", &[("state", "disabled"), ("key", &key("a"))]);
    assert_eq!((assert_persisted(&off), &off["data"]["changed"]), (4, &1.into()));
    wait_until_listed(&fixture.server, &[key("b"), key("c")]);
    let many = json!([key("b"), {"key": key("c"), "kind": "push"}, key("unknown"), 5]);
    let off = fixture.server.post_body("setJournalState", &[("state", "disabled")], &many);
    let codes: Vec<&Value> = off["data"]["items"].as_array().unwrap().iter().map(|item| &item["code"]).collect();
    assert_eq!(
        (codes, &off["data"]["changed"]),
        (vec![&json!(0), &json!(-500), &json!(-500), &json!(-300)], &1.into())
    );
    wait_until_listed(&fixture.server, &[key("c")]);
    let status = fixture.crash_and_restore();
    assert_eq!((&status["restore"]["total"], &status["proxies"]["disabled"]), (&1.into(), &2.into()), "{status}");
    // No player wakes it, and a sync leaves it as it is.
    fixture.server.post_body("syncJournal", &[], &items(["a", "b", "c"].map(str::to_owned), &live.url));
    assert!(fixture.server.get("getMediaList", &[("stream", "a")])["data"].is_null());
    assert_eq!(keys(&fixture.server), [key("c")]);
    let on = fixture.server.post_body("setJournalState", &[("state", "enabled")], &json!([key("a"), key("b")]));
    assert_persisted(&on);
    wait_until_listed(&fixture.server, &[key("a"), key("b"), key("c")]);
    let ops = fixture.server.get("getJournalHistory", &[("prefix", &key("a"))]);
    let ops: Vec<&Value> = ops["data"].as_array().unwrap().iter().map(|change| &change["op"]).collect();
    assert_eq!(ops, ["enable", "disable", "add"]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_lists_come_in_pages_that_stay_in_step_and_show_no_password() {
    let fixture = Fixture::start(&[]);
    let server = &fixture.server;
    let body = items(named("c", 25), "rtsp://user:pass@127.0.0.1:1/x");
    assert_persisted(&server.post_body("syncJournal", &[("label", "site 1")], &body));
    let mut met = Vec::new();
    let mut after = String::new();
    loop {
        let page = server.get("listJournal", &[("limit", "10"), ("after", &after)]);
        met.extend(page["data"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap().to_owned()));
        // Written to between two pages: before and behind where we are.
        for stream in ["a", "z"] {
            server.post_body("addStreamProxies", &[], &items([stream.to_owned()], "rtsp://127.0.0.1:1/x"));
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<String> = keys_of("c", 25).into_iter().chain([key("z")]).collect();
    assert_eq!(met, expected);
    for (filter, count) in [
        (("label", "site 1"), 25),
        (("label", "site 2"), 0),
        (("prefix", "__defaultVhost__/live/c000"), 10),
        (("state", "disabled"), 0),
        (("state", "enabled"), 27),
        (("kind", "push"), 0),
        (("since", "9000000000000"), 0),
    ] {
        let page = server.get("listJournal", &[filter]);
        assert_eq!(page["data"].as_array().unwrap().len(), count, "{filter:?}");
    }
    let url = |args: &[(&str, &str)]| server.get("listJournal", args)["data"][0]["args"]["url"].clone();
    assert_eq!(url(&[("label", "site 1")]), "rtsp://***@127.0.0.1:1/x");
    assert_eq!(url(&[("label", "site 1"), ("reveal", "1")]), "rtsp://user:pass@127.0.0.1:1/x");

    let history = server.get("getJournalHistory", &[("limit", "20")]);
    let seqs = |page: &Value| -> Vec<u64> {
        page["data"].as_array().unwrap().iter().map(|change| change["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs(&history), (8..=27).rev().collect::<Vec<_>>());
    let rest = server.get("getJournalHistory", &[("limit", "20"), ("before", &history["next"].to_string())]);
    assert_eq!((seqs(&rest), &rest["next"]), ((1..=7).rev().collect::<Vec<_>>(), &Value::Null));
    let first = &rest["data"][6];
    assert_eq!(
        (&first["reason"], &first["args"]["url"]),
        (&"syncJournal".into(), &"rtsp://***@127.0.0.1:1/x".into())
    );
    assert!(first["origin"].as_str().unwrap().starts_with("127.0.0.1:"), "{first}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn hostile_calls_are_refused_and_change_nothing() {
    let fixture = Fixture::start(&[]);
    let server = &fixture.server;
    let huge = vec![b'['; 10 << 20];
    for api in ["addStreamProxies", "delStreamProxies", "syncJournal", "setJournalState", "importJournal"] {
        for body in [b"".as_slice(), b"{}", b"[", b"7", b"\"text\"", b"\xff\xfe", b"[[[[", &huge] {
            let reply = server.post_raw(&format!("{api}?state=enabled"), "application/json", body);
            if let Some(reply) = reply {
                let said = reply["msg"].as_str().unwrap_or_default();
                assert!(reply["code"] != 0 && (10..500).contains(&said.len()), "{api}: {reply}");
            }
        }
        if api == "importJournal" {
            continue;
        }
        let many = Value::Array(vec![json!({}); 10_001]);
        let reply = server.post_body(api, &[("state", "enabled")], &many);
        assert!(reply["code"] == -300 && reply["msg"].as_str().unwrap().contains("10001 items"), "{reply}");
    }
    let names: Vec<_> = zlm_journal::api::names().collect();
    assert!(names.len() >= 14);
    for api in names {
        let denied = server.get_without_secret(api);
        assert_refused(&denied);
        assert!(denied.get("data").is_none(), "{api}: {denied}");
        let denied = server.get_without_secret(&format!("{api}?secret=guessed&reveal=1&key=x"));
        assert!(denied["code"] == -100 && denied.get("data").is_none(), "{api}: {denied}");
        // Arguments that are there twice, empty, of the wrong sort, or nobody's: one of our answers, and nothing is done.
        let call = format!("{api}?dry_run=1&dry_run=x&limit=&limit=%00&kind=%ff&KIND=tape&mode=&a=b&=&&reveal");
        for body in [b"[]".as_slice(), b"{\"secret\":7,\"dry_run\":[1],\"limit\":{\"a\":null}}"] {
            let reply = server.post_raw(&call, "application/json", body);
            // A page of metrics is no JSON; all else is.
            assert_eq!(reply.is_none(), api == "getJournalMetrics", "{api}: {reply:?}");
            assert!(reply.is_none_or(|reply| reply["code"].is_i64()), "{api}");
        }
    }
    for (api, args) in [
        ("listJournal", [("since", "9223372036854775808")].as_slice()),
        ("syncJournal", &[("dry_run", "perhaps")]),
        ("syncJournal", &[("kind", "tape")]),
        ("syncJournal", &[("if_seq", "-1")]),
        ("setJournalState", &[("state", "quarantined")]),
        ("setJournalState", &[]),
        ("listJournal", &[("limit", "0")]),
        ("listJournal", &[("limit", "10001")]),
        ("listJournal", &[("after", "nowhere")]),
        ("listJournal", &[("state", "asleep")]),
        ("getJournalHistory", &[("before", "x")]),
        ("importJournal", &[("mode", "both")]),
        ("importJournal", &[("dry_run", "maybe")]),
        ("rollbackJournal", &[("to_seq", "1"), ("to_time", "1")]),
        ("exportJournal", &[("reveal", "2")]),
    ] {
        let reply = server.post_body(api, args, &json!([]));
        assert!(reply["code"] == -300 && reply["msg"].as_str().unwrap().len() > 20, "{api} {args:?}: {reply}");
    }
    let bad = json!([item("a", "rtsp://127.0.0.1:1/x"), {"app": "live"}]);
    assert!(server.post_body("syncJournal", &[], &bad)["msg"].as_str().unwrap().contains("item 1"));
    let outside =
        server.post_body("syncJournal", &[("app", "other")], &json!([item("a", "rtsp://127.0.0.1:1/x")]));
    assert!(outside["msg"].as_str().unwrap().contains("outside of the scope"), "{outside}");
    let twice = items(["a", "a"].map(str::to_owned), "rtsp://127.0.0.1:1/x");
    assert!(server.post_body("syncJournal", &[], &twice)["msg"].as_str().unwrap().contains("appears twice"));
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "0\n");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_business_system_of_fifty_lines_keeps_the_server_in_step_with_its_table() {
    let mut fixture = Fixture::start(&[]);
    let live = fixture.source();
    assert_persisted(&add(&fixture.server, "not-ours", &live.url, &[]));
    let table = fixture.dir.path().join("cameras.db");
    let run = |server: &Server| -> Value {
        let url = format!("http://127.0.0.1:{}", server.port);
        let client = support::root().join("docs/examples/sync_cameras.py");
        let mut command = std::process::Command::new("python3");
        let said = support::run(command.arg(client).arg(&table).args([&url, support::server::SECRET]));
        serde_json::from_str(&said).unwrap()
    };
    assert_eq!(lengths(&run(&fixture.server)), [0, 0, 0]);
    let set = |sql: &str| support::sqlite3(&table, sql);
    for name in ["gate", "yard", "roof"] {
        set(&format!("insert into cameras (name, url) values ('{name}', '{}')", live.url));
    }
    assert_eq!(lengths(&run(&fixture.server)), [3, 0, 0]);
    set(&format!("update cameras set url = '{}?moved' where name = 'gate'", live.url));
    set("update cameras set enabled = 0 where name = 'roof'");
    assert_eq!(lengths(&run(&fixture.server)), [0, 1, 1]);
    fixture.server.wait_for("the server to follow", || {
        fixture.server.proxies()
            == [
                (key("gate"), format!("{}?moved", live.url)),
                (key("not-ours"), live.url.clone()),
                (key("yard"), live.url.clone()),
            ]
    });
    // After a crash everything is back before it comes, and it finds nothing to do.
    fixture.crash_and_restore();
    assert_eq!(lengths(&run(&fixture.server)), [0, 0, 0]);
    assert_eq!(keys(&fixture.server), [key("gate"), key("not-ours"), key("yard")]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_was_wanted_once_is_wanted_again_and_that_can_be_undone() {
    let mut fixture = Fixture::start(&[]);
    let live = fixture.source();
    let server = &fixture.server;
    let moved = format!("{}?moved", live.url);
    // 1 to 3: a, b, c. 4: a has moved. 5: b is off. 6: c is gone. 7: d is new.
    assert_persisted(&server.post_body(
        "addStreamProxies",
        &[],
        &items(["a", "b", "c"].map(str::to_owned), &live.url),
    ));
    server.wait_for("all to be there", || server.proxies().len() == 3);
    let then = server.proxies();
    let snapshot = server.get("takeJournalSnapshot", &[]);
    assert_eq!(snapshot["data"]["seq"], 3, "{snapshot}");
    assert_persisted(&server.post_body("syncJournal", &[("prune", "0")], &json!([item("a", &moved)])));
    assert_persisted(&server.get("setJournalState", &[("state", "disabled"), ("key", &key("b"))]));
    let between = server.get("getJournalHistory", &[("limit", "1")])["data"][0]["at"].to_string();
    // The next change is of another millisecond.
    thread::sleep(Duration::from_millis(5));
    assert_persisted(&server.get("delStreamProxy", &[("key", &key("c"))]));
    assert_persisted(&add(server, "d", &live.url, &[]));
    let now = || vec![(key("a"), moved.clone()), (key("d"), live.url.clone())];
    server.wait_for("the server to follow", || server.proxies() == now());

    let back = |server: &Server, to: (&str, &str), more: &[(&str, &str)]| {
        server.get("rollbackJournal", &[&[to], more].concat())
    };
    let names = |reply: &Value, what: &str| -> Vec<String> {
        let keys = reply["data"][what].as_array().unwrap_or_else(|| panic!("{reply}")).iter();
        keys.map(|key| key["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
    };
    let dry = back(server, ("to_snapshot", "3"), &[("dry_run", "1")]);
    assert_eq!(
        (names(&dry, "added"), names(&dry, "updated"), names(&dry, "removed")),
        (vec!["c".into()], vec!["a".into(), "b".into()], vec!["d".to_owned()])
    );
    assert_eq!(fixture.sqlite3("select max(seq) from journal"), "7\n");
    let by_time = back(server, ("to_time", &between), &[("dry_run", "1")]);
    assert_eq!((&by_time["data"]["to"], names(&by_time, "updated")), (&5.into(), vec![]), "{by_time}");

    let reply = back(server, ("to_snapshot", "3"), &[]);
    assert_persisted(&reply);
    assert_eq!(reply["data"]["before"], 7);
    server.wait_for("the server to follow", || server.proxies() == then);
    fixture.crash_and_restore();
    assert_eq!(fixture.server.proxies(), then);
    // And back again, through what history tells.
    let undone = back(&fixture.server, ("to_seq", "7"), &[]);
    assert_persisted(&undone);
    fixture.server.wait_for("the server to follow", || fixture.server.proxies() == now());
    assert_eq!(fixture.sqlite3("select state from proxies where key like '%/b'"), "disabled\n");
    assert_persisted(&back(&fixture.server, ("to_seq", "0"), &[]));
    fixture.server.wait_for("the server to be empty", || fixture.server.proxies().is_empty());
    for bad in [&[("to_seq", "99")], &[("to_snapshot", "4")], &[("to_time", "then")]] {
        let reply = fixture.server.get("rollbackJournal", bad);
        assert_eq!(reply["code"], -300, "{reply}");
    }
    assert_eq!(fixture.server.get("rollbackJournal", &[])["code"], -300);
    assert_eq!(
        fixture.server.get("listJournalSnapshots", &[])["data"].as_array().unwrap().last().unwrap()["seq"],
        3
    );
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_journal_moves_to_another_server_by_export_and_import() {
    let (from, to) = (Fixture::start(&[]), Fixture::start(&[]));
    let (live, sink) = (from.source(), from.source());
    let with_password = live.url.replace("://", "://user:pass@");
    assert_persisted(&from.server.post_body("addStreamProxies", &[], &items(named("c", 20), &live.url)));
    let off = json!([item("off", "rtsp://127.0.0.1:1/x")]);
    assert_persisted(&from.server.post_body("addStreamProxies", &[], &off));
    assert_persisted(&from.server.post_body(
        "syncJournal",
        &[("prune", "0")],
        &json!([item("password", &with_password)]),
    ));
    assert_persisted(&from.server.get("setJournalState", &[("state", "disabled"), ("key", &key("c0000"))]));
    from.server.wait_for_stream("c0001");
    let push = [("schema", "rtmp"), ("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "c0001")];
    let dst = sink.takes("p");
    assert_persisted(
        &from.server.get("addStreamPusherProxy", &[&push, [("dst_url", dst.as_str())].as_slice()].concat()),
    );

    let veiled = from.server.get("exportJournal", &[]);
    assert!(!veiled.to_string().contains("user:pass") && veiled.to_string().contains("***@"));
    let refused = to.server.post_body("importJournal", &[], &veiled);
    assert!(refused["msg"].as_str().unwrap().contains("reveal=1"), "{refused}");
    assert_eq!(to.sqlite3("select count(*) from journal"), "0\n");

    let export = from.server.get("exportJournal", &[("reveal", "1")]);
    assert_persisted(&add(&to.server, "own", &live.url, &[]));
    let dry = to.server.post_body("importJournal", &[("dry_run", "1"), ("mode", "replace")], &export);
    assert_eq!(lengths(&dry), [23, 0, 1], "{dry}");
    assert_persisted(&to.server.post_body("importJournal", &[], &export));
    let rows = "select kind, key, args, state from proxies where key not like '%/own' order by kind, key";
    assert_eq!(to.sqlite3(rows), from.sqlite3(rows));
    // An old server does not keep what is off.
    let listed = if HOST.is_old { 20 } else { 22 };
    to.server.wait_for("what is on to be listed", || keys(&to.server).len() == listed);
    // The whole reply or its data alone, once or again: nothing more to do.
    let again = to.server.post_body("importJournal", &[], &export["data"]);
    assert_eq!((lengths(&again), &again["data"]["unchanged"]), ([0, 0, 0], &24.into()), "{again}");
    assert_eq!(lengths(&to.server.post_body("importJournal", &[("mode", "replace")], &export)), [0, 0, 1]);

    // What people have today.
    let list = from.server.get("listStreamProxy", &[]);
    let third = Fixture::start(&[]);
    assert_eq!(lengths(&third.server.post_body("importJournal", &[], &list))[0], keys(&from.server).len());
    let csv = format!("key,url\n{},{}\n", key("csv"), live.url);
    let reply = third.server.post_raw("importJournal", "text/plain", csv.as_bytes()).unwrap();
    assert_eq!(lengths(&reply), [1, 0, 0], "{reply}");
    third.server.wait_for_stream("csv");
    // A database of one's own, with options.
    let table = third.dir.path().join("cameras.db");
    support::sqlite3(&table, "create table cameras (name, url)");
    support::sqlite3(&table, &format!("insert into cameras values ('own', '{}')", live.url));
    let query = "select '__defaultVhost__' vhost, 'live' app, name stream, url, -1 retry_count from cameras";
    let csv = support::run(std::process::Command::new("sqlite3").args(["-csv", "-header"]).arg(&table).arg(query));
    let reply = third.server.post_raw("importJournal", "text/plain", csv.as_bytes()).unwrap();
    assert_eq!(lengths(&reply), [1, 0, 0], "{reply}");
    third.server.wait_for_stream("own");
    let retries = "select json_extract(args, '$.retry_count') from proxies where key like '%/own'";
    assert_eq!(third.sqlite3(retries), "-1\n");
}

/// The names of all metrics on a page or in an expression.
fn metric_names(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    words.filter(|word| word.starts_with("zlm_journal_")).map(str::to_owned).collect()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_metrics_say_what_is_wanted_what_is_and_what_it_costs() {
    // A watched file that is not there has its metrics.
    let mut fixture = Fixture::start(&[("revive_sec", "0"), ("file", "no-such-file.csv")]);
    let live = fixture.source();
    assert_persisted(&fixture.server.post_body("addStreamProxies", &[], &items(named("c", 20), &live.url)));
    assert_persisted(&fixture.server.post_body(
        "addStreamProxies",
        &[],
        &json!([item("off", "rtsp://127.0.0.1:1/x")]),
    ));
    assert_persisted(&fixture.server.get("setJournalState", &[("state", "disabled"), ("key", &key("c0000"))]));
    fixture.server.get("takeJournalSnapshot", &[]);
    fixture.crash_and_restore();
    assert_persisted(&fixture.server.get("delStreamProxy", &[("key", &key("c0001"))]));
    fixture.server.wait_for_status("the rest to play", |status| status["now"]["playing"] == 18);
    let page = fixture.server.get_text("getJournalMetrics", &[]).unwrap();
    for line in [
        "zlm_journal_healthy 1",
        "zlm_journal_intent_proxies{kind=\"pull\",state=\"enabled\"} 19",
        "zlm_journal_intent_proxies{kind=\"pull\",state=\"disabled\"} 1",
        "zlm_journal_actual_proxies{kind=\"pull\",doing=\"playing\"} 18",
        "zlm_journal_drift_proxies{kind=\"pull\"} 1",
        "zlm_journal_drift_proxies{kind=\"push\"} 0",
        "zlm_journal_restore_proxies 20",
        "zlm_journal_restore_answered_proxies 20",
        "zlm_journal_restore_finished 1",
        "zlm_journal_commit_seconds_count 1",
        "zlm_journal_commit_seconds_bucket{le=\"+Inf\"} 1",
        "zlm_journal_changes_total 1",
        "zlm_journal_errors_total 0",
        "zlm_journal_file_ok 0",
        "zlm_journal_alerts_sent_total 0",
        "zlm_journal_queue_changes 0",
        "zlm_journal_ack_lag_seconds 0",
        "zlm_journal_last_durable_change 23",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in:\n{page}");
    }
    let denied = fixture.server.get_without_secret("getJournalMetrics");
    assert_refused(&denied);

    // What the rules and the dashboard ask for is there.
    let there = metric_names(&page);
    for file in ["alerts.yml", "grafana.json"] {
        let text = std::fs::read_to_string(support::root().join("docs/prometheus").join(file)).unwrap();
        let missing: Vec<_> = metric_names(&text).into_iter().filter(|name| !there.contains(name)).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }
    if std::process::Command::new("promtool").arg("--version").output().is_err() {
        support::skip("metrics and alert rules by promtool, which is not there");
        return;
    }
    let file = fixture.dir.path().join("metrics");
    std::fs::write(&file, page).unwrap();
    let check = format!("promtool check metrics < {}", file.display());
    support::run(std::process::Command::new("sh").args(["-c", &check]));
    let rules = support::root().join("docs/prometheus/alerts.yml");
    let said = support::run(std::process::Command::new("promtool").args(["check", "rules"]).arg(rules));
    assert!(said.contains("8 rules found"), "{said}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn names_of_api_calls_are_found_in_any_case() {
    let fixture = Fixture::start(&[]);
    let item = json!({"vhost": "__defaultVhost__", "app": "live", "stream": "a", "url": "rtsp://127.0.0.1:1/a"});
    for (api, body) in
        [("ADDSTREAMPROXIES", json!([item])), ("syncjournal", json!([])), ("SetJournalstate", json!([]))]
    {
        let reply = fixture.server.post_body(api, &[("state", "disabled")], &body);
        assert_eq!(reply["code"], 0, "{api}: {reply}");
    }
    assert_eq!(fixture.server.get("GETJOURNALSTATUS", &[])["data"]["seq"], 2);
}

/// A thread that a poller starts has its real-time priority and its one processor, where MediaServer runs as root.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "slow: just test-e2e"]
fn threads_of_the_journal_are_ordinary_ones() {
    let fixture = Fixture::start(&[]);
    fixture.server.wait_until_started();
    assert_eq!(fixture.server.post_body("syncJournal", &[], &json!([]))["code"], 0);
    let process = format!("/proc/{}", fixture.server.pid());
    let allowed = |path: &str| -> String {
        let status = std::fs::read_to_string(format!("{path}/status")).unwrap();
        status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
    };
    let mut names = Vec::new();
    for task in std::fs::read_dir(format!("{process}/task")).unwrap() {
        let path = task.unwrap().path().display().to_string();
        let name = std::fs::read_to_string(format!("{path}/comm")).unwrap().trim().to_owned();
        if !name.starts_with("zlmj-") {
            continue;
        }
        let stat = std::fs::read_to_string(format!("{path}/stat")).unwrap();
        // proc(5): the 41st field, of which the third comes after the name.
        let policy = stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned();
        assert_eq!((policy.as_str(), allowed(&path)), ("0", allowed(&process)), "{name}");
        names.push(name);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["zlmj-alerts", "zlmj-api", "zlmj-file", "zlmj-reconcile", "zlmj-upkeep", "zlmj-writer"]);
}

/// The members of `documented`, and of what is in it, that `real` has otherwise.
fn differences(path: &str, documented: &Value, real: &Value, found: &mut Vec<String>) {
    match (documented, real) {
        (Value::Object(documented), Value::Object(real)) => {
            for name in documented.keys().filter(|name| !real.contains_key(*name)) {
                found.push(format!("{path}.{name} is documented only"));
            }
            for (name, value) in real {
                match documented.get(name) {
                    Some(known) => differences(&format!("{path}.{name}"), known, value, found),
                    None => found.push(format!("{path}.{name} is not documented")),
                }
            }
        }
        (Value::Array(documented), Value::Array(real)) => {
            if let (Some(known), Some(value)) = (documented.first(), real.first()) {
                differences(&format!("{path}[0]"), known, value, found);
            }
        }
        // What may be absent is null, and a number may be whole.
        (Value::Null, _) | (_, Value::Null) => {}
        _ if std::mem::discriminant(documented) == std::mem::discriminant(real) => {}
        _ => found.push(format!("{path}: {documented} is documented, {real} is real")),
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn documented_status_is_a_real_one() {
    let mut fixture = Fixture::prepare(&[]);
    let url = format!("rtsp://127.0.0.1:{}/off", server::free_port());
    fixture.journaled([("gate".to_owned(), url.as_str(), [].as_slice())]);
    fixture.server.start();
    let status = fixture.server.wait_for_status("the worst host", |status| {
        status["restore"]["worst_origins"].as_array().is_some_and(|worst| !worst.is_empty())
            && status["now"]["proxies"].as_array().is_some_and(|proxies| !proxies.is_empty())
    });
    let page = std::fs::read_to_string(support::root().join("docs/api.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("getJournalStatus")).unwrap();
    let documented = section.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let documented: Value = serde_json::from_str(documented).unwrap();
    let mut found = Vec::new();
    differences("data", &documented["data"], &status, &mut found);
    assert_eq!(found, [""; 0]);
}
