//! What a server has crashed of, and what it has not: only a crash accuses, and only what was being worked on.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use super::*;
use support::Holes;
use zlm_journal::journal::Journal;
use zlm_journal::model::{Op, State};
use zlm_journal::settings::Settings;

const SEGV: i32 = 11;
const ABRT: i32 = 6;

/// A server with live cameras, others that accept and never answer, and one whose first bytes crash the server.
struct Scene {
    fixture: Fixture,
    holes: Vec<String>,
    deadly: Source,
    live: Source,
    _holes: Holes,
}

impl Scene {
    fn new(holes: usize) -> Scene {
        let mut fixture = Fixture::prepare(&[]);
        let listening = Holes::new(holes);
        let (deadly, live) = (Source::talking(), fixture.source());
        fixture.server.env = vec![
            support::preload("deadly"),
            ("DEADLY_PORT".to_owned(), deadly.address().port().to_string()),
            // Where the server's own handler finds no addr2line, with which it takes half a minute.
            ("PATH".to_owned(), "/nonexistent".to_owned()),
        ];
        Scene { fixture, holes: listening.urls(), deadly, live, _holes: listening }
    }

    /// Journals so many live cameras, all holes, and then the deadly one, where it is wanted.
    fn journal(&self, live: usize, with_deadly: bool) {
        let patient = [("timeout_sec", "60")].as_slice();
        let holes = self.holes.iter().enumerate().map(|(n, url)| (format!("hole{n}"), url.as_str(), patient));
        let live = (0..live).map(|n| (format!("live{n}"), self.live.url.as_str(), [].as_slice()));
        let deadly = with_deadly.then_some(("deadly".to_owned(), self.deadly.url.as_str(), [].as_slice()));
        self.fixture.journaled(live.chain(holes).chain(deadly));
    }

    /// The server crashes by itself; by which signal.
    fn crash(&mut self, how: &str) -> i32 {
        self.fixture.server.env.retain(|(name, _)| name != "DEADLY_SIGNAL");
        self.fixture.server.env.push(("DEADLY_SIGNAL".to_owned(), how.to_owned()));
        self.fixture.server.spawn();
        self.fixture.server.wait_for_end().signal().expect("killed by a signal")
    }

    /// Beside the journal; none where there is no such file.
    fn beside(&self, suffix: &str) -> Option<String> {
        fs::read_to_string(self.fixture.server.dir.join(format!("journal/proxies.db{suffix}"))).ok()
    }

    fn set_aside(&self) -> String {
        self.fixture.sqlite3("select key from proxies where state = 'quarantined' order by key")
    }

    /// All holes connect at once, which suspects never do, and everything else plays.
    fn wait_for_full_speed(&self, live: usize) {
        let status = self.fixture.server.wait_for_status("all to be started", |status| {
            restore::playing(status) == live as u64 && status["restore"]["waiting"] == 0
        });
        assert_eq!(status["restore"]["connecting"], self.holes.len(), "{status}");
        assert_eq!(status["proxies"]["quarantined"], 0, "{status}");
        assert_eq!((self.beside(".crash"), self.beside(".suspects")), (None, None));
    }
}

/// How often the server's own handler of crash signals has run.
fn own_handler(server: &Server, signal: i32) -> usize {
    let lines = server.log();
    let told = lines.lines().filter_map(|line| line.strip_prefix("## signal:")).map(str::trim);
    told.filter(|number| number.parse() == Ok(signal)).count()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_server_killed_three_times_during_a_restore_suspects_no_proxy() {
    let mut scene = Scene::new(60);
    scene.journal(240, false);
    for _ in 0..4 {
        scene.fixture.server.start();
        scene.wait_for_full_speed(240);
        scene.fixture.server.kill();
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_crash_signal_that_somebody_sends_accuses_no_camera_that_waits() {
    for (name, number) in [("SEGV", SEGV), ("ABRT", ABRT)] {
        let mut scene = Scene::new(40);
        scene.journal(20, false);
        scene.fixture.server.start();
        scene.wait_for_full_speed(20);
        // As without the journal: the server's own handler is asked first, and the second one kills.
        Server::signal(scene.fixture.server.pid(), name);
        let server = &scene.fixture.server;
        server.wait_for("the server's own handler", || own_handler(server, number) == 1);
        // The line is written within the handler, which nothing else shows to have returned.
        thread::sleep(Duration::from_millis(200));
        Server::signal(scene.fixture.server.pid(), name);
        assert_eq!(scene.fixture.server.wait_for_end().signal(), Some(number));
        assert_eq!(scene.beside(".crash"), None);
        scene.fixture.server.start();
        scene.wait_for_full_speed(20);
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_crash_accuses_whom_the_server_was_working_on_and_not_who_waits() {
    let mut scene = Scene::new(30);
    scene.journal(10, true);
    let deadly = key("deadly");
    scene.fixture.server.env.retain(|(name, _)| name != "DEADLY_PORT");
    scene.fixture.server.start();
    let disabled = scene.fixture.server.get("setJournalState", &[("state", "disabled"), ("key", &deadly)]);
    let disabled = assert_persisted(&disabled);
    scene.fixture.server.kill();
    scene.fixture.server.env.push(("DEADLY_PORT".to_owned(), scene.deadly.address().port().to_string()));
    scene.fixture.server.start();
    scene.wait_for_full_speed(10);
    // Those that wait do so for longer than a crash is held against what was handed over (kFreshMs of cpp/crash.cpp, 2 s).
    thread::sleep(Duration::from_millis(2500));
    scene.fixture.server.try_get("setJournalState", &[("state", "enabled"), ("key", &deadly)]);
    assert_eq!(scene.fixture.server.wait_for_end().signal(), Some(SEGV));
    // The next change, which may not have come to disk.
    assert_eq!(scene.beside(".crash"), Some(format!("{}\n", disabled + 1)));
    assert_eq!(own_handler(&scene.fixture.server, SEGV), 1);
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_crash_in_the_handler_of_an_add_accuses_that_one_alone() {
    if HOST.real {
        support::say("!!! a handler that crashes is the stand-in's: left out on a real MediaServer");
        return;
    }
    let mut scene = Scene::new(30);
    scene.journal(10, false);
    // It comes in the midst of those that have just been handed over.
    let args = vec![
        ("src_url", "rtsp://127.0.0.1/fatal"),
        ("dst_url", "rtmp://127.0.0.1/live/f"),
        ("timeout_ms", "1000"),
    ];
    let file = scene.fixture.server.journal_file();
    support::write_records(&file, [(Kind::Ffmpeg, "f".to_owned(), args)]);
    scene.fixture.server.env.push(("STANDIN_DIES_OF".to_owned(), "fatal".to_owned()));
    scene.fixture.server.spawn();
    assert_eq!(scene.fixture.server.wait_for_end().signal(), Some(ABRT));
    let seq = scene.fixture.sqlite3("select seq from proxies where kind = 'ffmpeg'");
    assert_eq!(scene.beside(".crash"), Some(seq));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_camera_whose_first_bytes_crash_the_server_is_set_aside_released_once_and_then_set_aside_for_good() {
    let mut scene = Scene::new(30);
    scene.journal(40, true);
    let deadly = key("deadly");
    for (number, how) in [(SEGV, "SEGV"), (ABRT, "ABRT"), (SEGV, "SEGV")] {
        assert_eq!(scene.crash(how), number);
        assert_eq!(scene.set_aside(), "");
    }
    let server = &scene.fixture.server;
    assert_eq!((own_handler(server, SEGV), own_handler(server, ABRT)), (2, 1));

    // The server does well without it, and so tries it once more: with the holes' answers still to come, later.
    let set_patience = |scene: &Scene, seconds: &str| {
        let file = scene.fixture.server.journal_file();
        let holes = scene.holes.iter().enumerate();
        let holes = holes.map(|(n, url)| (format!("hole{n}"), url.as_str(), [("timeout_sec", seconds)]));
        let holes: Vec<_> = holes.collect();
        support::write_journal(
            &file,
            holes.iter().map(|(stream, url, more)| (stream.clone(), *url, more.as_slice())),
        );
    };
    set_patience(&scene, "1");
    scene.fixture.server.start();
    let aside = scene.fixture.server.wait_for_status("it to be set aside", |status| {
        status["proxies"]["quarantined"] == 1 && restore::playing(status) == 40
    });
    assert_eq!(aside["restore"]["quarantined"], 1, "{aside}");
    let seen = scene.fixture.server.log();
    assert_eq!(scene.fixture.server.wait_for_end().signal(), Some(SEGV), "{seen}");
    let reasons = format!("select op, reason from journal where key = '{deadly}' order by seq desc limit 2");
    assert_eq!(
        scene.fixture.sqlite3(&reasons),
        "enable|the server started well without it\nquarantine|the server crashed 3 times while starting it\n"
    );

    // Another one that was set aside is released by the next good start; this one is not, for all the crashes that it
    // has cost.
    let file = scene.fixture.server.journal_file();
    let journal = [("enable", "1"), ("path", file.to_str().unwrap())];
    let journal = Journal::open(&Settings::read(journal, "/".as_ref()).0).unwrap();
    let innocent = journal.get(Kind::Pull, &key("live7")).unwrap();
    let aside = Op::Set(State::Quarantined);
    assert!(journal.change(Kind::Pull, &key("live7"), innocent.seq, aside, "a test"));
    journal.close();
    scene.fixture.server.start();
    scene.fixture.server.wait_for_status("both to be set aside", |status| status["proxies"]["quarantined"] == 2);
    let status =
        scene.fixture.server.wait_for_status("the other to play", |status| restore::playing(status) == 40);
    assert_eq!(status["proxies"]["quarantined"], 1, "{status}");
    assert_eq!(scene.set_aside().trim(), deadly);
    assert!(scene.fixture.server.log().contains("not started until you release it"));
    // Until an operator does.
    scene.fixture.server.kill();
    scene.fixture.server.env.retain(|(name, _)| name != "DEADLY_PORT");
    scene.fixture.server.start();
    assert_persisted(&scene.fixture.server.get("setJournalState", &[("state", "enabled"), ("key", &deadly)]));
    assert_eq!(scene.set_aside(), "");
    scene.fixture.server.wait_for("it to be there", || keys(&scene.fixture.server).contains(&deadly));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_crash_of_what_comes_just_after_the_answer_accuses_as_well() {
    let mut scene = Scene::new(10);
    let later = if HOST.real { scene.fixture.source() } else { Source::talking() };
    let env = &mut scene.fixture.server.env;
    env.retain(|(name, _)| name != "DEADLY_PORT");
    env.push(("DEADLY_PORT".to_owned(), later.address().port().to_string()));
    env.push(("DEADLY_AFTER_MS".to_owned(), "700".to_owned()));
    scene.journal(10, false);
    scene.fixture.journaled([("later".to_owned(), later.url.as_str(), [].as_slice())]);
    for _ in 0..3 {
        assert_eq!(scene.set_aside(), "");
        assert_eq!(scene.crash("SEGV"), SEGV);
    }
    scene.fixture.server.start();
    let server = &scene.fixture.server;
    server.wait_for_status("it to be set aside", |status| status["proxies"]["quarantined"] == 1);
    server.wait_for("it to be written", || scene.set_aside().trim() == key("later"));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn a_guardian_gets_past_a_camera_that_crashes_its_children() {
    let mut scene = Scene::new(5);
    scene.journal(20, true);
    let Fixture { dir, server } = scene.fixture;
    scene.fixture = Fixture { dir, server: server.daemonized() };
    scene.fixture.server.spawn();
    let server = &scene.fixture.server;
    let is_over = || {
        let status = server.try_get("getJournalStatus", &[]);
        status.is_some_and(|status| {
            status["data"]["proxies"]["quarantined"] == 1 && restore::playing(&status["data"]) == 20
        })
    };
    let deadline = std::time::Instant::now() + server::PATIENCE;
    while !is_over() {
        assert!(std::time::Instant::now() < deadline, "no way out:\n{}", server.log());
        thread::sleep(Duration::from_millis(100));
    }
    server.wait_for("it to be written", || scene.set_aside().trim() == key("deadly"));
}

/// Which signals a process has handlers for, as the kernel has it.
fn caught(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
#[ignore = "slow: just test-e2e"]
fn where_the_journal_is_off_no_signal_is_touched() {
    let mut fixture = Fixture::start(&[]);
    let with_journal = caught(&fixture.server);
    fixture.server.kill();
    fixture.server.write_config(&[]);
    fixture.server.start();
    let without = caught(&fixture.server);
    // SIGILL, SIGBUS and SIGFPE, for which the server has none.
    let ours = (1 << 3) | (1 << 6) | (1 << 7);
    assert_eq!((with_journal & ours, without & ours), (ours, 0));
    assert_eq!(with_journal & !ours, without & !ours);
}
