//! The watched file: what it has is wanted, however it is changed.

use std::fs;
use std::path::Path;

use super::restore::playing;
use super::support::receiver::Receiver;
use super::*;

fn file(server: &Server) -> Value {
    server.status()["watched_file"].clone()
}

/// As an editor does that is careful.
fn rename_over(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

fn wait_for_keys(server: &Server, streams: &[&str]) {
    let expected: Vec<String> = streams.iter().map(|stream| key(stream)).collect();
    server.wait_for(&format!("{expected:?} to be there"), || keys(server) == expected);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_the_file_has_is_there_however_it_is_changed_and_a_bad_file_changes_nothing() {
    let receiver = Receiver::start(200);
    let alert_url = receiver.url();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cameras.csv");
    let mut fixture = Fixture::prepare(&[("file", path.to_str().unwrap()), ("alert_url", &alert_url)]);
    let source = fixture.source();
    let url = source.url.as_str();
    fs::write(&path, format!("key,url\n{},{url}\n", key("a"))).unwrap();
    fixture.server.start();
    wait_for_keys(&fixture.server, &["a"]);
    fixture.server.wait_for_status("it to play", |status| playing(status) == 1);
    let listed = fixture.server.get("listJournal", &[("label", "file")]);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");

    let label = [("label", "file")];
    let refused = fixture.server.post_body("syncJournal", &label, &json!([]));
    assert!(refused["msg"].as_str().unwrap().contains("watched file"), "{refused}");
    // What calls have added is never touched by it.
    assert_persisted(&add(&fixture.server, "mine", url, &[("retry_count", "7")]));
    rename_over(
        &path,
        &format!("key,url\n{},{url}\n{},{url}\n{},rtsp://127.0.0.1:1/\n", key("a"), key("b"), key("mine")),
    );
    wait_for_keys(&fixture.server, &["a", "b", "mine"]);
    let mine = fixture.server.get("listJournal", &[("prefix", &key("mine"))]);
    assert_eq!(mine["data"][0]["args"]["retry_count"], "7", "{mine}");
    fixture
        .server
        .wait_for("the key to be told", || file(&fixture.server)["foreign_keys"] == json!([key("mine")]));

    let seq = fixture.server.status()["seq"].clone();
    let long_name = "x".repeat(5000);
    let bad = [
        ("key,url\nlive,x\n".to_owned(), "line 2"),
        (format!("key,url,journal_hours\n{},{url},always\n", key("c")), "journal_hours"),
        (format!("key,url\n{k},{url}\n{k},{url}\n", k = key("c")), "twice"),
        (format!("key,url\n__defaultVhost__/live/{long_name},{url}\n"), "line 2"),
        (String::new(), "no entries"),
        ("{\"format\":\"zlm-journal\",".to_owned(), "not valid JSON"),
    ];
    for (text, says) in &bad {
        fs::write(&path, text).unwrap();
        fixture.server.wait_for(&format!("{says:?} to be told"), || {
            file(&fixture.server)["error"].as_str().is_some_and(|error| error.contains(says))
        });
    }
    fs::write(&path, b"key,url\nv/live/\xff,x\n").unwrap();
    fixture.server.wait_for("UTF-8 to be asked for", || {
        file(&fixture.server)["error"].as_str().is_some_and(|error| error.contains("UTF-8"))
    });
    fs::remove_file(&path).unwrap();
    fixture.server.wait_for("a file that is gone to be told", || {
        file(&fixture.server)["error"].as_str().is_some_and(|error| error.contains("cannot be read"))
    });
    fs::create_dir(&path).unwrap();
    fixture.server.wait_for("a directory to be told", || {
        file(&fixture.server)["error"].as_str().is_some_and(|error| error.contains("not a file"))
    });
    fs::remove_dir(&path).unwrap();
    assert_eq!(fixture.server.status()["seq"], seq, "nothing was changed");
    let metrics = fixture.server.get_text("getJournalMetrics", &[]).unwrap();
    assert!(metrics.contains("\nzlm_journal_file_ok 0\n"), "{metrics}");
    let told = |event: &str| receiver.alerts().iter().any(|alert| alert["event"] == event);
    fixture.server.wait_for("the refusal among the alerts", || told("file_refused"));

    fs::write(
        &path,
        format!("[{{\"vhost\":\"__defaultVhost__\",\"app\":\"live\",\"stream\":\"b\",\"url\":\"{url}\"}}]"),
    )
    .unwrap();
    wait_for_keys(&fixture.server, &["b", "mine"]);
    fixture.server.wait_for("it to be well", || file(&fixture.server)["error"].is_null() && told("file_ok"));
    fixture.crash_and_restore();
    wait_for_keys(&fixture.server, &["b", "mine"]);
}

#[cfg(unix)]
#[test]
#[ignore = "slow: just test-e2e"]
fn a_yaml_file_behind_a_link_to_a_directory_is_applied_when_the_link_is_changed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // As Kubernetes mounts a ConfigMap.
    let write = |version: &str, streams: &[&str]| {
        fs::create_dir(at(version)).unwrap();
        let item = |stream: &&str| {
            format!(
                "- vhost: __defaultVhost__\n  app: live\n  stream: {stream}\n  url: rtsp://127.0.0.1:1/\n  retry_count: -1\n"
            )
        };
        fs::write(at(version).join("cameras.yaml"), streams.iter().map(item).collect::<String>()).unwrap();
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    write("..1", &["a", "b"]);
    symlink("..data/cameras.yaml", at("cameras.yaml")).unwrap();
    let fixture = Fixture::start(&[("file", at("cameras.yaml").to_str().unwrap()), ("revive_sec", "1")]);
    let wanted = || fixture.server.get("listJournal", &[])["data"].as_array().map_or(0, Vec::len);
    fixture.server.wait_for("both to be wanted", || wanted() == 2);
    write("..2", &["b"]);
    fixture.server.wait_for("one to be wanted", || wanted() == 1);
    assert_eq!(fixture.server.get("listJournal", &[])["data"][0]["key"], key("b"));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn one_line_of_ten_thousand_touches_one_proxy() {
    const COUNT: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cameras.csv");
    let text = |port_of_the_first: u16| {
        let line = |n: usize| {
            let port = if n == 0 { port_of_the_first } else { 2 };
            // At no time of this test.
            format!("__defaultVhost__/live/{n},rtsp://127.0.0.1:{port}/,mon-sun 00:00-00:01 @ Pacific/Auckland\n")
        };
        format!("key,url,journal_hours\n{}", (0..COUNT).map(line).collect::<String>())
    };
    fs::write(&path, text(1)).unwrap();
    let fixture = Fixture::start(&[("file", path.to_str().unwrap()), ("restore", "off")]);
    fixture.server.wait_for("all to be wanted", || file(&fixture.server)["entries"] == COUNT);
    assert_eq!(fixture.server.status()["seq"], COUNT);
    fs::write(&path, text(3)).unwrap();
    fixture.server.wait_for("the change", || fixture.server.status()["seq"] != COUNT);
    assert_eq!(fixture.server.status()["seq"], COUNT + 1);
    let history = fixture.server.get("getJournalHistory", &[("limit", "1")]);
    assert_eq!(
        (&history["data"][0]["key"], &history["data"][0]["origin"]),
        (&key("0").into(), &"zlm-journal".into())
    );
}
