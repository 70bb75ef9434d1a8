//! Pulls with backup URLs.

use std::time::Instant;

use super::cameras::Cameras;
use super::restore::playing;
use super::support::receiver::Receiver;
use super::updates::{Viewer, in_server, keeping_viewers, wait_to_play};
use super::*;

fn urls(urls: &[&str]) -> String {
    json!(urls).to_string()
}

/// What listJournal says about the URL that a pull plays from.
fn in_use(server: &Server, stream: &str) -> Value {
    server.get("listJournal", &[("prefix", &key(stream)), ("reveal", "1")])["data"][0]["in_use"].clone()
}

fn on_backup(status: &Value) -> u64 {
    status["now"]["on_backup"].as_u64().unwrap()
}

/// Waits until `is` holds, and returns for how long.
fn time_until(server: &Server, what: &str, is: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    server.wait_for(what, is);
    began.elapsed()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_camera_whose_url_dies_plays_from_its_backup_and_its_viewers_stay() {
    const FAILOVER_SEC: u64 = 3;
    let receiver = Receiver::start(200);
    let (alert_url, failover) = (receiver.url(), FAILOVER_SEC.to_string());
    let mut fixture = keeping_viewers(&[("failover_sec", &failover), ("alert_url", &alert_url)]);
    fixture.server.start();
    let (first, second) = (fixture.source(), fixture.source());
    let hole = Source::black_hole();
    // An RTMP pull that becomes an RTSP pull is replaced: the silent one is of the same protocol.
    let silent = hole.url.replace("rtsp://", &first.url[..7]);
    let backups = urls(&[&silent, &second.url]);
    assert_persisted(&add(&fixture.server, "s", &first.url, &[("journal_backup_urls", &backups)]));
    // Others go on as they are.
    assert_persisted(&add(&fixture.server, "other", &second.url, &[]));
    wait_to_play(&fixture.server, 2);
    let viewers = Viewer::all(&fixture.server, "s");
    assert_eq!(in_use(&fixture.server, "s"), Value::Null);

    drop(first);
    let server = &fixture.server;
    let time = time_until(server, "the second backup", || {
        in_server(server, "s").0 == second.url && playing(&server.status()) == 2
    });
    support::say(&format!(
        "from the death of its URL, over one that says nothing, to its second backup: {time:?}"
    ));
    assert!(time < Duration::from_secs(2 * (FAILOVER_SEC + 2)), "{time:?}");
    if !HOST.is_old {
        viewers.iter().for_each(|viewer| viewer.goes_on(server));
        assert_eq!(in_server(server, "other").1, 0);
    }
    drop(viewers);
    server.wait_for_status("the note", |status| on_backup(status) == 1 && status["now"]["moved"] == 1);
    server.wait_for("the note", || !in_use(server, "s").is_null());
    let noted = in_use(server, "s");
    let shown = server.get("getJournalStatus", &[("key", &key("s"))])["data"]["now"]["proxies"][0].clone();
    assert_eq!((&shown["url"], &shown["in_use"]["since"]), (&3.into(), &noted["since"]), "{shown}");
    assert_eq!(noted["url"], *second.url, "{noted}");
    assert!(
        noted["since"].as_u64() > Some(0) && noted["why"].as_str().unwrap().contains("has failed for 3 s"),
        "{noted}"
    );
    let metrics = server.get_text("getJournalMetrics", &[]).unwrap();
    assert!(
        metrics.contains("zlm_journal_on_backup_proxies 1\n")
            && metrics.contains("zlm_journal_url_moves_total 1\n")
    );
    let (since, why) = (noted["since"].as_f64().unwrap() / 1000.0, noted["why"].as_str().unwrap());
    let metric = format!(
        "zlm_journal_backup_url_since_timestamp_seconds{{key=\"{}\",url=\"3\",why=\"{why}\"}} {since}\n",
        key("s")
    );
    assert!(metrics.contains(&metric), "{metric} is not in\n{metrics}");
    let last = || server.get("getJournalHistory", &[("limit", "1")])["data"][0].clone();
    // The history is read from the file.
    server.wait_for("the note on disk", || last()["origin"] == "zlm-journal");
    let row = last();
    assert_eq!(
        (&row["reason"], &row["in_use"]),
        (&"it plays from its URL 3: URL 2 has failed for 3 s".into(), &noted)
    );
    server.wait_for("the alert", || receiver.alerts().iter().any(|alert| alert["event"] == "proxy_moved"));
    let args = &server.get("listJournal", &[("prefix", &key("s"))])["data"][0]["args"];
    assert_eq!(
        (args["journal_backup_urls"][1].as_str(), args.get("journal_url_in_use")),
        (Some(second.url.as_str()), None)
    );

    // Whoever says again what is wanted, changes nothing.
    let exported = server.get("exportJournal", &[("reveal", "1")]);
    assert!(!exported.to_string().contains("journal_url_"), "{exported}");
    let imported = server.post_body("importJournal", &[], &exported);
    assert_eq!(imported["data"]["unchanged"], 2, "{imported}");

    // The one that played last is tried first, so it plays at once.
    fixture.crash_and_restore();
    let time = time_until(&fixture.server, "it to play again", || playing(&fixture.server.status()) == 2);
    assert_eq!(in_server(&fixture.server, "s").0, second.url);
    assert_eq!(on_backup(&fixture.server.status()), 1);
    support::say(&format!("from the end of the restore to playing from the backup: {time:?}"));
    let update = fixture.server.get("updateStreamProxy", &[("key", &key("s")), ("journal_label", "x")]);
    assert_eq!(update["data"]["change"], "in_place", "{update}");
    assert_eq!(in_use(&fixture.server, "s")["url"], *second.url);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn when_all_are_dead_the_one_that_comes_back_is_found() {
    let mut fixture = Fixture::start(&[("failover_sec", "2"), ("revive_sec", "1")]);
    let (first, second) = (fixture.source(), fixture.source());
    let (one, two) = (first.address(), second.address());
    let (first_url, second_url) = (first.url.clone(), second.url.clone());
    drop((first, second));
    let backups = urls(&[&second_url]);
    let item = json!([{"vhost": "__defaultVhost__", "app": "live", "stream": "s", "url": first_url,
        "journal_backup_urls": [second_url], "journal_failback": "never", "timeout_sec": 1}]);
    assert_persisted(&fixture.server.post_body("addStreamProxies", &[], &item));
    let tried = |number: u64| {
        let status = fixture.server.get("getJournalStatus", &[("key", &key("s"))]);
        status["data"]["now"]["proxies"][0]["url"] == number
    };
    for _ in 0..2 {
        fixture.server.wait_for("the second to be tried", || tried(2));
        fixture.server.wait_for("the first to be tried", || tried(1));
    }
    assert_eq!(fixture.sqlite3("SELECT count(*) FROM journal").trim(), "1", "nothing has played");
    fixture.server.kill();
    fixture.server.start();
    let back = Source::live_at(fixture.dir.path(), two);
    wait_to_play(&fixture.server, 1);
    fixture.server.wait_for("the note", || in_use(&fixture.server, "s")["url"] == *second_url);
    drop(back);
    fixture.server.wait_for_status("its loss to be noticed", |status| playing(status) == 0);
    let _back = Source::live_at(fixture.dir.path(), one);
    wait_to_play(&fixture.server, 1);
    fixture.server.wait_for("the first one to be in use", || in_use(&fixture.server, "s").is_null());
    assert_eq!(in_server(&fixture.server, "s").0, first_url);
    assert_eq!(
        fixture.server.get("listJournal", &[])["data"][0]["args"]["journal_backup_urls"].to_string(),
        backups
    );
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_sealed_journal_has_its_backups_again_and_names_none_of_them() {
    let mut fixture = Fixture::prepare(&[]);
    let key_file = fixture.dir.path().join("journal.key");
    std::fs::write(&key_file, "0f".repeat(32)).unwrap();
    let sealed = [("key_file", key_file.to_str().unwrap()), ("failover_sec", "2")];
    fixture.server.write_config(&Fixture::journal(&fixture.server, &sealed));
    fixture.server.start();
    let (first, second) = (fixture.source(), fixture.source());
    let port = format!(":{}", second.address().port());
    assert_persisted(&add(&fixture.server, "s", &first.url, &[("journal_backup_urls", &urls(&[&second.url]))]));
    wait_to_play(&fixture.server, 1);
    drop(first);
    let server = &fixture.server;
    server.wait_for("the note", || in_use(server, "s")["url"] == *second.url);
    // The history is read from the file.
    server.wait_for("the note on disk", || {
        server.get("getJournalHistory", &[("limit", "1")])["data"][0]["origin"] == "zlm-journal"
    });
    fixture.server.kill();
    for column in ["args", "reason", "origin"] {
        let text = fixture.sqlite3(&format!("select {column} from journal"));
        assert!(!text.contains(&port) && !text.contains("rtmp://"), "{column}: {text}");
    }
    assert!(!fixture.sqlite3("select args from proxies").contains(&port));
    // The one that played last is tried first.
    fixture.server.start();
    wait_to_play(&fixture.server, 1);
    assert_eq!(in_server(&fixture.server, "s").0, second.url);
    assert_eq!(in_use(&fixture.server, "s")["url"], *second.url);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn while_all_urls_are_dead_one_alert_says_so_and_one_when_a_backup_plays() {
    let receiver = Receiver::start(200);
    let alert_url = receiver.url();
    let fixture = Fixture::start(&[("failover_sec", "1"), ("alert_after_sec", "4"), ("alert_url", &alert_url)]);
    let (first, second) = (fixture.source(), fixture.source());
    let address = second.address();
    let server = &fixture.server;
    assert_persisted(&add(server, "s", &first.url, &[("journal_backup_urls", &urls(&[&second.url]))]));
    wait_to_play(server, 1);
    drop((first, second));
    let events = || receiver.alerts().iter().map(|alert| alert["event"].clone()).collect::<Vec<_>>();
    let count = |event: &str| events().iter().filter(|its| *its == event).count();
    server.wait_for("the alert", || count("proxy_down") == 1);
    // Several rounds over both.
    let tried =
        || server.get("getJournalStatus", &[("key", &key("s"))])["data"]["now"]["proxies"][0]["url"].clone();
    for number in [1, 2, 1] {
        server.wait_for("the next one to be tried", || tried() == number);
    }
    assert_eq!((count("proxy_down"), count("proxy_up"), count("proxy_moved")), (1, 0, 0), "{:?}", events());
    let _second = Source::live_at(fixture.dir.path(), address);
    server.wait_for("both alerts", || count("proxy_up") == 1 && count("proxy_moved") == 1);
    assert_eq!(count("proxy_down"), 1, "{:?}", events());
}

/// `ZLMJ_BACKUPS` says how many (1000).
#[test]
#[ignore = "slow: just test-e2e"]
fn many_whose_first_urls_die_at_once_are_soon_on_their_backups_also_over_a_crash() {
    const FAILOVER_SEC: u64 = 3;
    let count: usize = std::env::var("ZLMJ_BACKUPS").map_or(1000, |count| count.parse().unwrap());
    let failover = FAILOVER_SEC.to_string();
    let mut fixture = Fixture::prepare(&[("failover_sec", &failover)]);
    let (mut first, second) = (Cameras::new(&fixture, 4), Cameras::new(&fixture, 5));
    let pairs: Vec<_> = (0..count).map(|n| (first.url(n), urls(&[&second.url(n)]))).collect();
    let args: Vec<_> = pairs.iter().map(|(_, backups)| [("journal_backup_urls", backups.as_str())]).collect();
    let proxies = pairs.iter().zip(&args).enumerate();
    fixture.journaled(proxies.map(|(n, ((url, _), args))| (format!("s{n}"), url.as_str(), args.as_slice())));
    fixture.server.start();
    let count = count as u64;
    let moved = |server: &Server, least: u64| {
        let status = server.status();
        on_backup(&status) >= least && playing(&status) >= least
    };
    wait_to_play(&fixture.server, count);
    first.switch(&fixture, false);
    fixture.server.wait_for("some to play from their backups", || moved(&fixture.server, 1));
    // In the midst of it.
    fixture.server.kill();
    first.switch(&fixture, true);
    fixture.server.start();
    wait_to_play(&fixture.server, count);

    first.switch(&fixture, false);
    let all = || moved(&fixture.server, count);
    let time = time_until(&fixture.server, "all to play from their backups", all);
    support::say(&format!(
        "{count} whose URLs died at once, failover_sec={FAILOVER_SEC}: all on their backups after {time:?}"
    ));
    assert!(time < Duration::from_secs(FAILOVER_SEC + 10), "{time:?}");
    let noted = |status: &Value| status["now"]["moved"].as_u64() == Some(count);
    fixture.server.wait_for_status("all to be noted", noted);
    fixture.server.kill();
    fixture.server.start();
    wait_to_play(&fixture.server, count);
    let status = fixture.server.status();
    assert_eq!(
        (on_backup(&status), &status["now"]["moved"]),
        (count, &0.into()),
        "each began where it played last"
    );
}

/// With general.resetWhenRePlay=0, a connect counts as media until MediaServer notices that none come.
#[test]
#[ignore = "slow: just test-e2e"]
fn a_camera_that_answers_and_sends_nothing_has_failed() {
    if support::is_left_out_on_old("does not report a lost connection whose sources it keeps") {
        return;
    }
    let mut fixture = Fixture::prepare(&[("failover_sec", "9")]);
    for name in ["general.resetWhenRePlay", "rtsp.directProxy"] {
        fixture.server.settings.push((name.to_owned(), "0".to_owned()));
    }
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[("failover_sec", "9")]));
    fixture.server.start();
    let (mut first, second) = (Cameras::new(&fixture, 6), Cameras::new(&fixture, 7));
    let backups = urls(&[&second.url(0)]);
    assert_persisted(&add(&fixture.server, "s", &first.url(0), &[("journal_backup_urls", &backups)]));
    wait_to_play(&fixture.server, 1);
    first.fall_silent();
    let server = &fixture.server;
    server.wait_for("the backup", || in_server(server, "s").0 == second.url(0));
    server.wait_for("the note", || in_use(server, "s")["url"] == second.url(0).as_str());
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_first_url_is_used_again_after_it_has_answered_for_a_minute() {
    if !HOST.real {
        support::say("a stand-in's cameras do not speak RTMP, so they do not answer a probe: left out");
        return;
    }
    let mut fixture = keeping_viewers(&[("failover_sec", "2")]);
    fixture.server.start();
    let (first, second) = (fixture.source(), fixture.source());
    let (address, first_url) = (first.address(), first.url.clone());
    assert_persisted(&add(&fixture.server, "s", &first.url, &[("journal_backup_urls", &urls(&[&second.url]))]));
    let server = &fixture.server;
    wait_to_play(server, 1);
    drop(first);
    server.wait_for_status("the backup", |status| on_backup(status) == 1 && playing(status) == 1);
    let viewers = Viewer::all(server, "s");
    let _first = Source::live_at(fixture.dir.path(), address);
    let time = time_until(server, "the first one again", || in_server(server, "s").0 == first_url);
    assert!(time > Duration::from_secs(58), "{time:?}");
    server.wait_for_status("the first one to play", |status| on_backup(status) == 0 && playing(status) == 1);
    if !HOST.is_old {
        viewers.iter().for_each(|viewer| viewer.goes_on(server));
    }
    server.wait_for("the note", || {
        let reason = server.get("getJournalHistory", &[("limit", "1")])["data"][0]["reason"].clone();
        reason.as_str().unwrap().starts_with("it plays from its URL 1: URL 1 has answered for ")
    });
}

#[test]
fn backups_that_are_none_are_refused_with_the_place_and_the_remedy() {
    let fixture = Fixture::start(&[]);
    let server = &fixture.server;
    let url = "rtsp://127.0.0.1:1/off";
    let refused = [
        ("journal_backup_urls", "rtsp://10.0.0.2/1", "JSON array"),
        ("journal_backup_urls", "[]", "from 1 to 16"),
        ("journal_backup_urls", r#"["rtsp://10.0.0.2/1","somewhere"]"#, "item 1"),
        ("journal_backup_urls", r#"["rtsp://10.0.0.2/1","rtsp://10.0.0.2/1"]"#, "twice"),
        ("journal_backup_urls", r#"["rtsp://127.0.0.1:1/off"]"#, "item 0"),
        ("journal_failover_sec", "0", "from 1 to 86400"),
        ("journal_failover_sec", "soon", "from 1 to 86400"),
        ("journal_failback", "sometimes", "auto or never"),
        ("journal_url_in_use", "rtsp://10.0.0.2/1", "journal's own"),
    ];
    for (name, value, part) in refused {
        let reply = add(server, "s", url, &[(name, value)]);
        assert!(reply["code"] != 0 && reply["msg"].as_str().unwrap().contains(part), "{reply}");
        let mut item = json!([{"vhost": "__defaultVhost__", "app": "live", "stream": "s", "url": url}]);
        item[0][name] = value.into();
        let reply = server.post_body("syncJournal", &[], &item);
        assert!(reply["code"] == -300 && reply["msg"].as_str().unwrap().contains(part), "{reply}");
        assert!(reply["msg"].as_str().unwrap().contains("item 0 of the body"), "{reply}");
    }
    let push = [
        ("schema", "rtmp"),
        ("vhost", "__defaultVhost__"),
        ("app", "live"),
        ("stream", "s"),
        ("dst_url", "rtmp://127.0.0.1:1/live/x"),
        ("journal_backup_urls", r#"["rtmp://10.0.0.2/live/1"]"#),
    ];
    let reply = server.get("addStreamPusherProxy", &push);
    assert!(reply["code"] != 0 && reply["msg"].as_str().unwrap().contains("for pulls"), "{reply}");
    assert_eq!(fixture.sqlite3("SELECT count(*) FROM journal").trim(), "0");
}
