//! What etcd and the configuration can get wrong: a clear error, nothing lost, and what plays goes on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::fixture::{Fleet, LEASE, program, wait_for};
use crate::support::run;

const SOON: Duration = Duration::from_secs(30);

fn etcdctl(fleet: &Fleet, args: &[&str]) -> String {
    let endpoint = &fleet.etcd.members[0].client;
    run(Command::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(args))
}

#[test]
#[ignore = "slow: just test-fleet"]
fn what_is_wrong_is_said_and_what_plays_goes_on() {
    let mut fleet = Fleet::start(2, 100);
    fleet.sync(&fleet.items(40), &[]);
    fleet.wait_until_all_play(40, SOON);
    let meta = etcdctl(&fleet, &["get", "/zlm-fleet/test/meta", "--print-value-only"]);
    let meta = meta.trim();
    let plays = |fleet: &Fleet| assert_eq!(fleet.street.played_by_one(40), 40);

    for (value, says) in [
        (meta.replace("\"schema\":1", "\"schema\":2"), "a newer zlm-journal-fleet has"),
        (meta.replace("\"test\"", "\"other\""), "belongs to the fleet"),
        ("{}".to_owned(), "is the prefix another's"),
    ] {
        etcdctl(&fleet, &["put", "/zlm-fleet/test/meta", &value]);
        let error = fleet.try_command(&["export"]).unwrap_err();
        assert!(error.contains(says), "{error}");
        plays(&fleet);
    }
    etcdctl(&fleet, &["put", "/zlm-fleet/test/meta", meta]);
    fleet.command(&["export"]);

    let config = fs::read_to_string(fleet.dir.path().join("client.toml")).unwrap();
    let key = fleet.dir.path().join("other-key");
    fs::write(&key, "7b".repeat(32)).unwrap();
    let right = fleet.dir.path().join("key");
    for (from, to, says) in [
        (format!("{right:?}"), format!("{key:?}"), "not the key of this fleet"),
        (format!("key_file = {right:?}"), "clear_text = true".to_owned(), "set key_file"),
        ("endpoints = [".to_owned(), "endpoints = [\"http://127.0.0.1:1\", ".to_owned(), ""),
    ] {
        assert!(config.contains(&from));
        fs::write(fleet.dir.path().join("client.toml"), config.replacen(&from, &to, 1)).unwrap();
        match fleet.try_command(&["export"]) {
            Err(error) => assert!(!says.is_empty() && error.contains(says), "{error}"),
            // A member that is not there is no reason to fail.
            Ok(_) => assert!(says.is_empty()),
        }
    }
    fs::write(fleet.dir.path().join("client.toml"), &config).unwrap();

    // A value that nobody can read harms no other.
    etcdctl(&fleet, &["put", "/zlm-fleet/test/where/__defaultVhost__/live/odd", "nonsense"]);
    fleet.sync(&fleet.items(41), &[]);
    fleet.wait_until_all_play(41, SOON);
    etcdctl(&fleet, &["del", "/zlm-fleet/test/where/__defaultVhost__/live/odd"]);

    // Full.
    etcdctl(&fleet, &["alarm", "list"]);
    let member = etcdctl(&fleet, &["endpoint", "status", "--write-out=json"]);
    let id = serde_json::from_str::<serde_json::Value>(&member).unwrap()[0]["Status"]["header"]["member_id"]
        .to_string();
    let raise = format!("{{\"action\":\"ACTIVATE\",\"memberID\":\"{id}\",\"alarm\":\"NOSPACE\"}}");
    ureq::post(format!("{}/v3/maintenance/alarm", fleet.etcd.members[0].client)).send(raise).unwrap();
    let file = fleet.dir.path().join("cameras.json");
    fs::write(&file, "[]").unwrap();
    let error = fleet.try_command(&["sync", file.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("NOSPACE") && error.contains("alarm disarm"), "{error}");
    fleet.pass(Duration::from_secs(LEASE * 2));
    assert_eq!(fleet.street.played_by_one(41), 41, "etcd is full");
    etcdctl(&fleet, &["alarm", "disarm"]);
    fleet.sync(&fleet.items(42), &[]);
    fleet.wait_until_all_play(42, SOON);

    // With users: a wrong password, and one that may not.
    for args in [
        &["user", "add", "root:right"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "nobody:right"],
        &["auth", "enable"],
    ] {
        etcdctl(&fleet, args);
    }
    let password = fleet.dir.path().join("password");
    for (user, pass, says) in [("root", "wrong", "wrong user or password"), ("nobody", "right", "may not read")] {
        fs::write(&password, pass).unwrap();
        let with = format!("[etcd]\nuser = {user:?}\npassword_file = {password:?}");
        fs::write(fleet.dir.path().join("client.toml"), config.replace("[etcd]", &with)).unwrap();
        let error = fleet.try_command(&["export"]).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    fs::write(fleet.dir.path().join("client.toml"), &config).unwrap();
    let error = fleet.try_command(&["export"]).unwrap_err();
    assert!(error.contains("wants a user"), "{error}");
    etcdctl(&fleet, &["--user", "root:right", "auth", "disable"]);
    wait_for("the fleet to work again", SOON, || fleet.try_command(&["export"]).is_ok());
    fleet.wait_until_all_play(42, SOON);

    // A second program of the same name is refused.
    let twin = fs::read_to_string(fleet.dir.path().join("a/fleet.toml")).unwrap();
    let twin = twin.replace("id = \"a\"", "id = \"b\"").replace("a/state", "a/other-state");
    let path = fleet.dir.path().join("twin.toml");
    let free = crate::support::server::free_port();
    let at = twin.find("listen = \"127.0.0.1:").unwrap() + "listen = \"127.0.0.1:".len();
    let old: String = twin[at..].chars().take_while(char::is_ascii_digit).collect();
    fs::write(&path, twin.replace(&old, &free.to_string())).unwrap();
    let output = Command::new("timeout")
        .args(["3", program().to_str().unwrap(), "--config", path.to_str().unwrap(), "serve"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the node b is there already"), "{said}");
}
