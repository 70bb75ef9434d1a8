//! Cameras' passwords: where they are seen, and a journal that is sealed with a key.

#[path = "../support/files.rs"]
mod files;

use std::fs;

use files::that_have;

use super::*;

#[test]
#[ignore = "slow: just test-e2e"]
fn no_line_of_ours_shows_a_password() {
    let mut fixture = Fixture::prepare(&[("revive_sec", "1")]);
    let at = format!("127.0.0.1:{}", server::free_port());
    let urls = [
        ("a", "rtsp://admin:p%40ss/w0rd@{at}/ch1"),
        ("blank", "rtsp://admin:a w0rd\"b@{at}/ch1"),
        ("query", "rtsp://{at}/ch1?pwd=w0rd&token=b/w0rd2"),
        ("path", "rtsp://{at}/user=admin_password=w0rd_channel=1_stream=0.sdp"),
    ]
    .map(|(stream, url)| (stream, url.replace("{at}", &at)));
    fixture.journaled(
        urls.iter().map(|(stream, url)| ((*stream).to_owned(), url.as_str(), [("timeout_sec", "1")].as_slice())),
    );
    fixture.server.start();
    let is_tried_again = |proxy: &Value| proxy["attempts"].as_u64() >= Some(2);
    let status = fixture.server.wait_for_status("each to be tried again", |status| {
        status["now"]["proxies"].as_array().is_some_and(|all| all.len() == 4 && all.iter().all(is_tried_again))
    });
    let status = status.to_string();
    assert!(!status.contains("w0rd"), "{status}");
    let log = fixture.server.log();
    let ours: Vec<&str> = log.lines().filter(|line| line.contains("journal")).collect();
    assert!(ours.len() >= 3 && ours.iter().all(|line| !line.contains("w0rd")), "{ours:#?}");
    for call in ["listJournal", "getJournalHistory", "exportJournal"] {
        let shown = |reveal: &str| fixture.server.get(call, &[("reveal", reveal)]).to_string();
        let (hidden, all) = (shown("0"), shown("1"));
        assert!(urls.iter().all(|(stream, _)| hidden.contains(&format!("live/{stream}"))), "{hidden}");
        assert!(!hidden.contains("w0rd"), "{call}: {hidden}");
        assert_eq!(all.matches("w0rd").count(), 5, "{call}: {all}");
    }
    // In the journal itself it is: it could not be replayed otherwise.
    assert!(fixture.sqlite3("select args from proxies").contains("w0rd"));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_sealed_journal_restores_as_any_other_and_gives_no_camera_away() {
    let mut fixture = Fixture::prepare(&[]);
    let key_file = fixture.dir.path().join("journal.key");
    let digits: String = (0..32).map(|_| format!("{:02x}", fastrand::u8(..))).collect();
    fs::write(&key_file, &digits).unwrap();
    let sealed = [("key_file", key_file.to_str().unwrap())];
    let dir = fixture.server.journal_file().parent().unwrap().to_owned();

    // From before there was a key.
    fixture.server.start();
    let live = fixture.source();
    // No host takes a password before the address of an RTMP URL.
    let url = format!("{}?pwd=hunter2", live.url);
    assert_persisted(&add(&fixture.server, "old", &url, &[]));
    assert!(!that_have(&dir, "hunter2").is_empty());
    fixture.server.kill();

    fixture.server.write_config(&Fixture::journal(&fixture.server, &sealed));
    fixture.server.start();
    fixture.server.wait_until_restored();
    assert_eq!(fixture.server.status()["encrypted"], true);
    assert_persisted(&add(&fixture.server, "new", &url, &[("retry_count", "7")]));
    assert_persisted(&fixture.server.post_body(
        "syncJournal",
        &[("prune", "0"), ("label", "hunter2's")],
        &json!([{"vhost": "__defaultVhost__", "app": "live", "stream": "synced", "url": url}]),
    ));
    fixture.server.get("takeJournalSnapshot", &[]);
    let three = [("new", &url), ("old", &url), ("synced", &url)].map(|(stream, url)| (key(stream), url.clone()));
    fixture.server.wait_for("all to be listed", || fixture.server.proxies() == three);
    fixture.server.wait_for("the old files to be sealed", || that_have(&dir, "hunter2").is_empty());
    fixture.crash_and_restore();
    assert_eq!(fixture.server.proxies(), three);
    // Who may call the API may see it all the same; and the same set again changes nothing.
    let shown = |reveal: &str| {
        let list = fixture.server.get("listJournal", &[("reveal", reveal), ("label", "hunter2's")]);
        list["data"][0]["args"]["url"].as_str().unwrap().to_owned()
    };
    assert_eq!((shown("1"), shown("0")), (url.clone(), format!("{}?pwd=***", live.url)));
    let again = fixture.server.post_body(
        "syncJournal",
        &[("label", "hunter2's")],
        &json!([{"vhost": "__defaultVhost__", "app": "live", "stream": "synced", "url": url}]),
    );
    assert_eq!(again["data"]["unchanged"], 1, "{again}");
    assert!(that_have(&dir, "hunter2").is_empty());

    // Without the key, media runs, and nothing is overwritten.
    fixture.server.kill();
    fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
    let before = fs::read(fixture.server.journal_file()).unwrap();
    fixture.server.start();
    let status = fixture.server.status();
    assert_eq!((&status["state"], &status["encrypted"]), (&"unavailable".into(), &false.into()), "{status}");
    assert!(status["last_error"]["message"].as_str().unwrap().contains("key_file"), "{status}");
    let lost = add(&fixture.server, "meanwhile", &live.url, &[]);
    assert_eq!((&lost["code"], &lost["journal"]["persisted"]), (&0.into(), &false.into()), "{lost}");
    fixture.server.wait_for_stream("meanwhile");
    fixture.server.kill();
    assert_eq!(fs::read(fixture.server.journal_file()).unwrap(), before);

    fixture.server.write_config(&Fixture::journal(&fixture.server, &sealed));
    fixture.server.start();
    fixture.server.wait_until_restored();
    assert_eq!(fixture.server.proxies(), three);
}
