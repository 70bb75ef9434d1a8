//! Who may not call: refused as the stock server refuses, and no work for the plugin.

use super::effects::schema;
use super::restore::journaled;
use super::*;

/// Every call that is journaled, with arguments that would do something to the proxy `a`.
fn journaled_calls(url: &str) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let tuple = |stream: &str| {
        vec![("vhost", "__defaultVhost__".to_owned()), ("app", "live".to_owned()), ("stream", stream.to_owned())]
    };
    let with = |mut args: Vec<(&'static str, String)>, more: &[(&'static str, &str)]| {
        args.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        args
    };
    let of_key = vec![("key", key("a"))];
    let push = [("schema", schema()), ("dst_url", "rtmp://127.0.0.1:1/live/x")];
    let ffmpeg = [("src_url", url), ("dst_url", "rtmp://127.0.0.1:1/live/x"), ("timeout_ms", "1000")];
    vec![
        ("addStreamProxy", with(tuple("new"), &[("url", url), ("force", "1")])),
        ("addStreamPusherProxy", with(tuple("a"), &push)),
        ("addFFmpegSource", with(Vec::new(), &ffmpeg)),
        ("delStreamProxy", of_key.clone()),
        ("delStreamPusherProxy", of_key.clone()),
        ("delFFmpegSource", of_key),
        ("close_stream", with(tuple("a"), &[("schema", schema()), ("force", "1")])),
        ("close_streams", vec![("force", "1".to_owned())]),
    ]
}

/// Every call that is ours, with arguments that would do something.
fn our_calls() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    [
        ("getJournalStatus", ("limit", "10")),
        ("getJournalMetrics", ("limit", "10")),
        ("listJournal", ("reveal", "1")),
        ("getJournalHistory", ("reveal", "1")),
        ("addStreamProxies", ("limit", "10")),
        ("delStreamProxies", ("key", "__defaultVhost__/live/a")),
        ("syncJournal", ("prune", "1")),
        ("setJournalState", ("state", "disabled")),
        ("takeJournalSnapshot", ("limit", "10")),
        ("listJournalSnapshots", ("limit", "10")),
        ("rollbackJournal", ("seq", "0")),
        ("exportJournal", ("reveal", "1")),
        ("importJournal", ("mode", "replace")),
        ("restoreJournal", ("key", "__defaultVhost__/live/a")),
    ]
    .map(|(api, (name, value))| (api, vec![(name, value.to_owned())]))
    .into()
}

/// Four callers at once make every one of these calls with this much of a secret, and are all sent away.
fn all_are_sent_away(server: &Server, url: &str, secret: Option<&str>) {
    let calls = [journaled_calls(url), our_calls()].concat();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (api, args) in &calls {
                    let mut args: Vec<(&str, &str)> = args.iter().map(|(name, value)| (*name, &**value)).collect();
                    args.extend(secret.map(|secret| ("secret", secret)));
                    let reply = server.get_as_stranger(api, &args);
                    assert_refused(&reply);
                    assert!(reply.get("journal").is_none() && reply.get("data").is_none(), "{api}: {reply}");
                }
            });
        }
    });
}

#[test]
#[ignore = "slow: just test-e2e"]
fn strangers_are_refused_every_call_and_change_nothing() {
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    assert_persisted(&add(&fixture.server, "a", &live.url, &[]));
    let kept = [(key("a"), live.url.clone())];
    for secret in [None, Some(""), Some("wrong")] {
        all_are_sent_away(&fixture.server, &live.url, secret);
        fixture.server.wait_for_pollers();
        assert_eq!((fixture.server.proxies(), journaled(&fixture)), (kept.to_vec(), kept.to_vec()));
    }
    assert!(fixture.server.has_stream("a"));
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "1\n");
}

/// As the server takes it for its own calls, whatever stands in the URL.
#[test]
#[ignore = "slow: just test-e2e"]
fn calls_of_the_journal_find_the_secret_in_a_body_as_well() {
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    assert_persisted(&add(&fixture.server, "a", &live.url, &[]));
    let key = key("a");
    let url = |api: &str| format!("http://127.0.0.1:{}/index/api/{api}", fixture.server.port);
    let call = |api: &str, as_form: bool, args: &[(&str, &str)]| -> Value {
        let post = ureq::post(url(api)).header("connection", "close");
        let reply = match as_form {
            true => post.send_form(args.iter().copied()),
            false => post.send_json(args.iter().copied().collect::<std::collections::BTreeMap<_, _>>()),
        };
        reply.expect("a reply").body_mut().read_json().expect("JSON")
    };
    for as_form in [true, false] {
        let listed = call("listJournal", as_form, &[("secret", server::SECRET), ("limit", "1")]);
        assert_eq!(
            (&listed["code"], &listed["data"][0]["key"]),
            (&0.into(), &Value::from(key.as_str())),
            "{listed}"
        );
        for state in ["disabled", "enabled"] {
            let args = [("secret", server::SECRET), ("key", &key), ("state", state)];
            assert_persisted(&call("setJournalState", as_form, &args));
            assert_eq!(fixture.sqlite3("select state from proxies"), format!("{state}\n"));
        }
        for wrong in [&[("secret", "wrong"), ("limit", "1")][..], &[("limit", "1")]] {
            assert_refused(&call("listJournal", as_form, wrong));
        }
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn callers_from_an_address_that_is_not_allowed_are_refused_and_change_nothing() {
    let mut fixture = Fixture::prepare(&[]);
    let live = fixture.source();
    fixture.journaled([("a".to_owned(), live.url.as_str(), [].as_slice())]);
    fixture.server.settings = vec![("http.allow_ip_range".into(), "10.0.0.1".into())];
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    fixture.server.start();
    for secret in [server::SECRET, "wrong"] {
        all_are_sent_away(&fixture.server, &live.url, Some(secret));
    }
    // A player is no caller: what the journal started is there for it, and was closed by none of these.
    let player = fixture.server.play("a").expect("the stream");
    let kept = [(key("a"), live.url.clone())];
    assert_eq!(journaled(&fixture), kept);
    assert_eq!(fixture.sqlite3("select count(*) from journal"), "1\n");
    drop(player);
    fixture.server.kill();
    fixture.server.settings.clear();
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    fixture.server.start();
    fixture.server.wait_until_restored();
    assert_eq!(fixture.server.proxies(), kept);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_restore_is_a_caller_that_every_list_of_addresses_lets_pass() {
    let mut fixture = Fixture::prepare(&[]);
    let live = fixture.source();
    fixture.journaled([("a".to_owned(), live.url.as_str(), [].as_slice())]);
    // As the server reads them: trimmed, and without those that it cannot read.
    for ranges in [
        "127.0.0.1 - 127.0.0.255",
        "no address, 10.0.0.9-10.0.0.1, 10.1.2.3 - 10.1.2.9",
        " ::2 , 10.0.0.1-10.0.0.2",
    ] {
        fixture.server.settings = vec![("http.allow_ip_range".into(), ranges.into())];
        fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
        fixture.server.start();
        // He waits for what is not there yet, and is asked for no address.
        assert!(fixture.server.play("a").is_some(), "{ranges}:\n{}", fixture.server.log());
        assert!(!fixture.server.log().contains("no restore"), "{}", fixture.server.log());
        fixture.server.kill();
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn strangers_have_the_server_do_nothing_but_refuse_them() {
    const CALLS: u64 = 25;
    if HOST.real {
        // No MediaServer counts its own work: how many it turns away is the benchmark's P12.
        return;
    }
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    assert_persisted(&add(&fixture.server, "a", &live.url, &[]));
    let server = &fixture.server;
    let handled = || server.get("countHandled", &[])["data"].as_u64().expect("a count");
    for (api, args) in journaled_calls(&live.url) {
        let args: Vec<(&str, &str)> = args.iter().map(|(name, value)| (*name, &**value)).collect();
        let before = handled();
        for _ in 0..CALLS {
            assert_eq!(server.get_as_stranger(api, &args)["code"], -100);
        }
        server.wait_for_pollers();
        // Besides the first count there were two calls that waited.
        let run = handled() - before - 3;
        assert!(run <= CALLS, "{api}: {run} handlers run for {CALLS} strangers");
    }
}
