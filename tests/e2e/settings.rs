//! The ini section: off is stock, bad values and bad paths are told and keep nobody from starting.

use std::fs;
use std::path::Path;

use super::*;

/// The same calls to two servers; what they answer.
fn conversation(server: &Server, source: &str) -> Vec<String> {
    let add = |stream| add_args(stream, source, &[]);
    let (a, missing) = (key("a"), key("missing"));
    [
        ("addStreamProxy", add("a")),
        ("addStreamProxy", add("a")),
        ("addStreamProxy", vec![("app", "live")]),
        ("delStreamProxy", vec![("key", missing.as_str())]),
        ("delStreamProxy", vec![("key", a.as_str())]),
        ("close_streams", vec![("app", "nothing"), ("force", "1")]),
        ("listStreamProxy", vec![]),
        ("getJournalStatus", vec![]),
    ]
    .into_iter()
    .map(|(api, args)| {
        let text = server.get_text(api, &args).unwrap();
        // A page that is not found says when the server was built.
        text.split_once("ZLMediaKit(").map_or(text.clone(), |(before, _)| before.to_owned())
    })
    .collect()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn switched_off_it_is_the_stock_server() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::live(dir.path());
    let mut stock = Server::prepare(&HOST.pristine, &dir.path().join("stock"), &[]);
    stock.start();
    let expected = conversation(&stock, &source.url);
    for section in [&[][..], &[("enable", "0")][..], &[("enable", "perhaps")][..]] {
        let name = format!("patched-{section:?}").replace(['"', '[', ']', '(', ')', ' ', ','], "");
        let mut patched = Server::prepare(&HOST.patched, &dir.path().join(name), section);
        patched.start();
        assert_eq!(conversation(&patched, &source.url), expected, "{section:?}");
        assert!(!patched.journal_file().exists());
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_fresh_config_has_the_section_with_its_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::prepare(&HOST.patched, dir.path(), &[]);
    fs::remove_file(dir.path().join("config.ini")).unwrap();
    server.spawn();
    let written = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::read_to_string(dir.path().join("config.ini")).ok().filter(|ini| ini.contains("[journal]"))
    });
    server.kill();
    let ini = written.expect("a config.ini with [journal]");
    let section = ini.split("[journal]").nth(1).unwrap().split("\n[").next().unwrap();
    for setting in zlm_journal::settings::KEYS {
        assert!(section.lines().any(|line| line == format!("{}={}", setting.name, setting.default)), "{section}");
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn bad_values_are_told_and_their_defaults_used() {
    let fixture = Fixture::start(&[("durability", "sometimes"), ("snapshot_sec", "-5"), ("restore", "lazily")]);
    let status = fixture.server.status();
    let errors = status["settings_errors"].as_array().unwrap();
    assert_eq!(errors.len(), 3, "{status}");
    assert_eq!(status["durability"], "full");
    let log = fixture.server.log();
    for name in ["durability", "snapshot_sec", "restore"] {
        assert!(log.contains(&format!("[journal] {name}=")), "{log}");
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn settings_are_taken_over_while_the_server_runs_where_that_is_possible() {
    let fixture = Fixture::start(&[]);
    let live = fixture.source();
    let server = &fixture.server;
    let set = |name: &str, value: &str| {
        let reply = server.get("setServerConfig", &[(&format!("journal.{name}"), value)]);
        assert_eq!((&reply["code"], &reply["changed"]), (&0.into(), &1.into()), "{reply}");
    };
    assert_persisted(&add(server, "a", &live.url, &[]));
    set("durability", "async");
    server.wait_for_status("the change", |status| status["durability"] == "async");
    assert_eq!(add(server, "b", &live.url, &[])["journal"]["pending"], true);

    // What is no good, and what only a start can change, is told and changes nothing.
    set("path", "/nowhere/else.db");
    set("revive_sec", "soon");
    let errors = |status: &serde_json::Value| status["settings_errors"].as_array().unwrap().len();
    let status = server.wait_for_status("the errors", |status| errors(status) == 2);
    assert!(status["settings_errors"].to_string().contains("path takes effect after a restart"), "{status}");
    assert_eq!(status["file"], server.journal_file().display().to_string());
    server.wait_for("the log", || server.log().contains("[journal] revive_sec="));

    // From the file, by a signal.
    set("durability", "full");
    server.write_config(&Fixture::journal(server, &[("on_give_up", "forget"), ("revive_sec", "1")]));
    Server::signal(server.pid(), "HUP");
    server.wait_for_status("no errors", |status| errors(status) == 0 && status["durability"] == "full");
    let gone = fixture.source();
    assert_persisted(&add(server, "c", &gone.url, &[("retry_count", "0")]));
    server.wait_for_status("all to play", |status| status["now"]["playing"] == 3);
    drop(gone);
    server.wait_for("it to be forgotten", || fixture.sqlite3("select count(*) from proxies") == "2\n");
}

/// A server whose journal cannot be used: it runs, says why, and answers calls.
fn unusable(path: &Path, why: &str) {
    let fixture = Fixture::start(&[("path", path.to_str().unwrap())]);
    let source = fixture.source();
    let status = fixture.server.status();
    assert_eq!(status["state"], "unavailable", "{status}");
    assert!(status["last_error"]["message"].as_str().unwrap().contains(why), "{status}");
    assert!(fixture.server.log().contains(why), "{}", fixture.server.log());
    let reply = add(&fixture.server, "a", &source.url, &[]);
    assert_eq!((&reply["code"], &reply["journal"]["persisted"]), (&0.into(), &false.into()), "{reply}");
    assert!(reply["journal"]["error"].as_str().unwrap().contains(why), "{reply}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn an_unwritable_path_is_told() {
    unusable(Path::new("/proc/zlm-journal/proxies.db"), "/proc/zlm-journal");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_path_that_is_a_directory_is_told() {
    let dir = tempfile::tempdir().unwrap();
    unusable(dir.path(), "is a directory");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_file_that_is_no_database_is_put_aside_and_told() {
    let fixture = {
        let mut fixture = Fixture::prepare(&[]);
        fs::create_dir_all(fixture.server.journal_file().parent().unwrap()).unwrap();
        fs::write(fixture.server.journal_file(), "precious text, no database").unwrap();
        fixture.server.start();
        fixture
    };
    let source = fixture.source();
    let status = fixture.server.status();
    assert_eq!(status["state"], "ok", "{status}");
    let message = status["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("not a database") && message.contains("quarantine"), "{status}");
    assert!(fixture.server.log().contains("not a database"), "{}", fixture.server.log());
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    let kept = support::run(
        std::process::Command::new("grep").args(["-rl", "precious text"]).arg(fixture.server.dir.join("journal")),
    );
    assert!(kept.contains("quarantine"), "{kept}");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_second_server_on_the_same_file_runs_without_it() {
    let first = Fixture::start(&[]);
    let source = first.source();
    assert_persisted(&add(&first.server, "a", &source.url, &[]));
    unusable(&first.server.journal_file(), "another server uses the journal");
    assert_persisted(&add(&first.server, "b", &source.url, &[]));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_second_server_takes_over_when_the_first_is_gone() {
    let mut first = Fixture::start(&[]);
    let source = first.source();
    assert_persisted(&add(&first.server, "a", &source.url, &[]));
    assert_persisted(&add(&first.server, "b", &source.url, &[]));
    let path = first.server.journal_file();
    let second = Fixture::start(&[("path", path.to_str().unwrap())]);
    // What is called for meanwhile is not on disk, and not forgotten.
    assert_eq!(add(&second.server, "c", &source.url, &[])["journal"]["persisted"], false);
    assert_eq!(second.server.get("delStreamProxy", &[("key", &key("b"))])["journal"]["persisted"], false);
    assert_eq!(keys(&second.server), [key("c")]);
    first.server.kill();
    let status = second.server.wait_until_restored();
    assert_eq!(status["state"], "ok", "{status}");
    assert_eq!(keys(&second.server), [key("a"), key("c")]);
    assert_persisted(&add(&second.server, "d", &source.url, &[]));
    let wanted = support::sqlite3(&path, "select group_concat(key) from (select key from proxies order by key)");
    assert_eq!(wanted.trim(), [key("a"), key("c"), key("d")].join(","));
}
