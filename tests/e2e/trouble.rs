//! What goes wrong around a server: disks that fill up or are read-only, files that are deleted, cameras that it dies
//! of, callers who send anything.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::kinds::{add_ffmpeg, add_push, ffmpeg_sources, pushes};
use super::*;

// ---- disks

/// A small file system where the journal's directory is, in a mount namespace of its own.
pub struct SmallDisk {
    holder: Child,
    pub dir: String,
}

impl SmallDisk {
    /// None where this machine does not let us mount.
    pub fn mount(fixture: &mut Fixture, options: &str) -> Option<SmallDisk> {
        let dir = fixture.server.dir.join("journal").to_str().unwrap().to_owned();
        fs::create_dir_all(&dir).unwrap();
        let script = format!("mount -t tmpfs -o {options} none {dir} && echo ready && exec sleep 600");
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let mut said = std::io::BufReader::new(holder.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        if line.trim() != "ready" {
            let _ = holder.wait();
            support::skip("a full disk, since this user cannot mount a small file system");
            return None;
        }
        let disk = SmallDisk { holder, dir };
        fixture.server.within = disk.enter();
        Some(disk)
    }

    fn enter(&self) -> Vec<String> {
        ["nsenter", "-m", "-t", &self.holder.id().to_string(), "--"].map(str::to_owned).to_vec()
    }

    pub fn run(&self, script: &str) -> String {
        let enter = self.enter();
        support::run(Command::new(&enter[0]).args(&enter[1..]).args(["sh", "-c", script]))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Adds until the journal says that it cannot, and returns all that were added and the last reply.
fn add_until_refused(server: &Server, url: &str) -> (Vec<String>, Value) {
    let long = "x".repeat(6000);
    let mut added = Vec::new();
    for n in 0..3000 {
        let stream = format!("s{n:04}");
        let reply = add(server, &stream, url, &[("note", &long)]);
        if reply["journal"]["persisted"] != true {
            return (added, reply);
        }
        assert_eq!(reply["code"], 0);
        added.push(key(&stream));
    }
    panic!("the disk is never full");
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_full_disk_stops_no_call_and_all_is_on_disk_once_there_is_room() {
    let mut fixture = Fixture::prepare(&[]);
    let Some(disk) = SmallDisk::mount(&mut fixture, "size=24m") else { return };
    fixture.server.start();
    let source = fixture.source();
    assert_persisted(&add(&fixture.server, "before", &source.url, &[]));
    disk.run(&format!("head -c 100m /dev/zero > {}/fill || true", disk.dir));
    let (mut wanted, reply) = add_until_refused(&fixture.server, &source.url);
    assert_eq!(reply["code"], 0, "{reply}");
    assert!(reply["journal"]["error"].as_str().unwrap().contains("full"), "{reply}");
    assert_eq!(fixture.server.status()["state"], "storage_failed");
    assert_eq!(add(&fixture.server, "unwritten", &source.url, &[])["code"], 0);
    disk.run(&format!("rm {}/fill", disk.dir));
    fixture.server.wait_for("the journal to heal", || fixture.server.status()["state"] == "ok");
    assert!(fixture.server.log().contains("which is complete again"));
    assert_persisted(&add(&fixture.server, "after", &source.url, &[]));
    let listed = keys(&fixture.server);
    wanted.extend([key("before"), key("unwritten"), key("after")]);
    assert!(wanted.iter().all(|key| listed.contains(key)));
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), listed);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn with_reject_a_full_disk_refuses_calls_and_leaves_the_server_as_it_was() {
    let mut fixture = Fixture::prepare(&[("on_error", "reject")]);
    let Some(disk) = SmallDisk::mount(&mut fixture, "size=24m") else { return };
    fixture.server.start();
    let source = fixture.source();
    assert_persisted(&add(&fixture.server, "before", &source.url, &[]));
    disk.run(&format!("head -c 100m /dev/zero > {}/fill || true", disk.dir));
    let (mut wanted, reply) = add_until_refused(&fixture.server, &source.url);
    wanted.push(key("before"));
    wanted.sort();
    // The one that found out is undone, all others are refused before the server sees them.
    assert_eq!(reply["code"], -1, "{reply}");
    assert!(reply["msg"].as_str().unwrap().contains("journal: "), "{reply}");
    fixture.server.wait_for("the add to be undone", || keys(&fixture.server) == wanted);
    let refused = [
        fixture.server.get("addStreamProxy", &add_args("late", &source.url, &[])),
        fixture.server.get("delStreamProxy", &[("key", &key("before"))]),
        fixture.server.get("close_streams", &[("app", "live"), ("stream", "before"), ("force", "1")]),
    ];
    for reply in refused {
        assert_eq!(reply["code"], -1, "{reply}");
        assert!(reply["msg"].as_str().unwrap().contains("full"), "{reply}");
    }
    assert_eq!(keys(&fixture.server), wanted);
    disk.run(&format!("rm {}/fill", disk.dir));
    fixture.server.wait_for("the journal to heal", || fixture.server.status()["state"] == "ok");
    assert_persisted(&add(&fixture.server, "late", &source.url, &[]));
    wanted.push(key("late"));
    wanted.sort();
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), wanted);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_read_only_disk_is_told_and_taken_into_use_once_it_can_be_written() {
    let mut fixture = Fixture::prepare(&[]);
    let Some(disk) = SmallDisk::mount(&mut fixture, "size=24m,ro") else { return };
    fixture.server.start();
    let source = fixture.source();
    let status = fixture.server.status();
    assert_eq!(status["state"], "unavailable", "{status}");
    assert!(status["last_error"]["message"].as_str().unwrap().contains("Read-only"), "{status}");
    assert_eq!(add(&fixture.server, "a", &source.url, &[])["journal"]["persisted"], false);
    disk.run(&format!("mount -o remount,rw {}", disk.dir));
    fixture.server.wait_for("the journal to open", || fixture.server.status()["state"] == "ok");
    assert_persisted(&add(&fixture.server, "b", &source.url, &[]));
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), [key("a"), key("b")]);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_directory_that_is_deleted_under_the_server_is_there_again_complete() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
    fs::remove_dir_all(fixture.server.dir.join("journal")).unwrap();
    let reply = add(&fixture.server, "b", &source.url, &[]);
    assert_eq!(reply["code"], 0, "{reply}");
    fixture.server.wait_for("the journal to be there again", || {
        fixture.server.status()["state"] == "ok" && fixture.server.journal_file().exists()
    });
    assert_persisted(&add(&fixture.server, "c", &source.url, &[]));
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), ["a", "b", "c"].map(key));
}

// ---- cameras that a server cannot bear

#[test]
#[ignore = "slow: just test-e2e"]
fn a_camera_that_crashes_the_server_three_times_is_set_aside_and_the_rest_is_back() {
    if HOST.real {
        support::say(
            "!!! the camera that a server dies of is one of the stand-in's: left out on a real MediaServer",
        );
        return;
    }
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    let hole = Source::black_hole();
    let mut wanted = Vec::new();
    for n in 0..60 {
        let (stream, deadly) = (format!("s{n:02}"), format!("{}?deadly", source.url));
        let url = if n == 30 { &deadly } else { &source.url };
        assert_persisted(&add(&fixture.server, &stream, url, &[]));
        wanted.push(key(&stream));
    }
    // Dead ones are under way for long: they are innocent all the same.
    for n in 0..20 {
        let stream = format!("z{n:02}");
        add(&fixture.server, &stream, &hole.url, &[("force", "1"), ("timeout_sec", "1")]);
        wanted.push(key(&stream));
    }
    fixture.server.kill();
    fixture.server.env.push(("STANDIN_DIES_OF".to_owned(), "deadly".to_owned()));
    for death in 1..=3 {
        fixture.server.spawn();
        fixture.server.wait_for_end();
        assert_eq!(fixture.sqlite3("select count(*) from proxies where state = 'quarantined'"), "0\n", "{death}");
    }
    fixture.server.start();
    fixture.server.wait_for("the rest", || keys(&fixture.server).len() == wanted.len() - 1);
    let status = fixture.server.wait_until_restored();
    assert_eq!(status["proxies"]["quarantined"], 1, "{status}");
    let listed = keys(&fixture.server);
    wanted.retain(|wanted| *wanted != key("s30"));
    assert_eq!(listed, wanted);
    assert_eq!(fixture.sqlite3("select key from proxies where state = 'quarantined'").trim(), key("s30"));
    let row = fixture.sqlite3("select op, reason from journal order by seq desc limit 1");
    assert_eq!(row.trim(), "quarantine|the server crashed 3 times while starting it");
    assert!(fixture.server.log().contains("is quarantined"));

    // It stays set aside, until somebody adds it anew.
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), listed);
    assert_persisted(&add(&fixture.server, "s30", &source.url, &[]));
    assert_eq!(fixture.server.status()["proxies"]["quarantined"], 0);
    fixture.crash_and_restore();
    assert!(keys(&fixture.server).contains(&key("s30")));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn what_makes_the_server_crash_or_throw_three_times_is_set_aside_whatever_its_kind() {
    if HOST.real {
        support::say("!!! what a server dies or throws of is the stand-in's: left out on a real MediaServer");
        return;
    }
    for kind in Kind::ALL {
        for dies in [true, false] {
            let mut fixture = Fixture::start(&[("revive_sec", "1")]);
            let source = fixture.source();
            assert_persisted(&add(&fixture.server, "a", &source.url, &[]));
            let (url, target) = (format!("{}?bad", source.url), source.takes("bad"));
            assert_persisted(&match kind {
                Kind::Pull => add(&fixture.server, "b", &url, &[]),
                Kind::Push => add_push(&fixture.server, "a", &target, &[]),
                Kind::Ffmpeg => add_ffmpeg(&fixture.server, &url, "b", &[]),
            });
            fixture.server.kill();
            let variable = if dies { "STANDIN_DIES_OF" } else { "STANDIN_THROWS_OF" };
            fixture.server.env.push((variable.to_owned(), "bad".to_owned()));
            for _ in 0..if dies { 3 } else { 0 } {
                fixture.server.spawn();
                fixture.server.wait_for_end();
            }
            fixture.server.start();
            let server = &fixture.server;
            server.wait_for("the quarantine", || server.status()["proxies"]["quarantined"] == 1);
            // The status may know it before the file does.
            let set_aside = || fixture.sqlite3("select kind from proxies where state = 'quarantined'");
            server.wait_for("it to be written", || set_aside().trim() == kind.name());
            server.wait_for_status("the rest to play", |status| status["now"]["playing"] == 1);
            let others = (keys(server), pushes(server), ffmpeg_sources(server));
            assert_eq!(others, (vec![key("a")], vec![], vec![]), "{} {variable}", kind.name());
            if !dies {
                assert!(server.log().contains("thrown as asked for"));
            }
            // The camera is mended: the operator releases it.
            fixture.server.env.pop();
            fixture.crash_and_restore();
            assert_eq!(fixture.server.status()["proxies"]["quarantined"], 1);
            let aside = fixture.sqlite3("select key from proxies where state = 'quarantined'");
            let release = [("state", "enabled"), ("kind", kind.name()), ("key", aside.trim())];
            assert_persisted(&fixture.server.get("setJournalState", &release));
            fixture.server.wait_for_status("all to play", |status| status["now"]["playing"] == 2);
        }
    }
}

// ---- callers who send anything

fn memory_mib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "slow: just test-e2e"]
fn hostile_arguments_are_answered_and_cost_little() {
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    assert_persisted(&add(&fixture.server, "kept", &source.url, &[]));
    let before = memory_mib(&fixture.server);
    let server = &fixture.server;
    let json = |stream: &str, more: &str| {
        format!(r#"{{"vhost":"__defaultVhost__","app":"live","stream":"{stream}","url":"{}"{more}}}"#, source.url)
    };
    let huge = json("huge", &format!(r#","note":"{}""#, "x".repeat(10 << 20)));
    let many = json("many", &(0..10_000).map(|n| format!(r#","arg{n}":"{n}""#)).collect::<String>());
    let nul = json("nul", r#","note":"a\u0000b""#);
    let deep = json("deep", &format!(r#","note":{}1{}"#, "[".repeat(500), "]".repeat(500)));
    let deeper = json("deeper", &format!(r#","note":{}1{}"#, "[".repeat(100_000), "]".repeat(100_000)));
    let mut bad_utf8 = json("gbk", r#","note":"?""#).into_bytes();
    let at = bad_utf8.iter().rposition(|byte| *byte == b'?').unwrap();
    bad_utf8[at] = 0xff;
    for _ in 0..5 {
        for (what, body) in [
            ("huge", huge.as_bytes()),
            ("many", many.as_bytes()),
            ("nul", nul.as_bytes()),
            ("deep", deep.as_bytes()),
            ("deeper", deeper.as_bytes()),
            ("gbk", &bad_utf8),
            ("half", &huge.as_bytes()[..5000]),
            ("text", b"hello"),
            ("array", b"[1,2,3]"),
            ("empty", b""),
        ] {
            // A server may refuse it, or hang up; it may not call persisted what is not.
            let reply = server.post_raw("addStreamProxy", "application/json", body);
            if let Some(reply) = reply
                && reply["code"] == 0
            {
                let persisted = reply["journal"]["persisted"] == true;
                let in_file = support::sqlite3(
                    &server.journal_file(),
                    &format!(
                        "select count(*) from proxies where key = '{}'",
                        reply["data"]["key"].as_str().unwrap()
                    ),
                );
                assert_eq!(persisted, in_file == "1\n", "{what}: {reply}");
                if !persisted {
                    assert!(reply["journal"]["error"].as_str().unwrap().contains("journaled"), "{what}: {reply}");
                }
            }
            server.try_get("delStreamProxy", &[("key", &key(what))]);
        }
    }
    assert_eq!(keys(server), [key("kept")]);
    let after = memory_mib(server);
    assert!(after < before + 300, "{before} MiB before, {after} MiB after");
    fixture.crash_and_restore();
    assert_eq!(keys(&fixture.server), [key("kept")]);
}
