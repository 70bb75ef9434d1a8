//! Everything at once, for as long as one likes: random calls, kills, full disks and damage against one server, with a
//! model beside it. `ZLMJ_SOAK_SEC` sets how long (20), `ZLMJ_SEED` where to begin:
//! `ZLMJ_SOAK_SEC=3600 cargo test --test e2e soak -- --nocapture`.

use std::process::Command;

use super::schedules::{Model, Outcome, number, random_call};
use super::trouble::SmallDisk;
use std::time::Instant;

use super::*;

const KEYS: usize = 40;

#[derive(Debug, Default)]
struct Totals {
    calls: u64,
    acknowledged: u64,
    not_persisted: u64,
    kills: u64,
    full_disks: u64,
    damaged_files: u64,
    deletions: u64,
    checks: u64,
}

struct Soak {
    fixture: Fixture,
    disk: Option<SmallDisk>,
    source: Source,
    random: fastrand::Rng,
    model: Model,
    totals: Totals,
}

impl Soak {
    fn calls(&mut self, most: usize) {
        for _ in 0..self.random.usize(1..=most) {
            let stream = format!("k{:02}", self.random.usize(0..KEYS));
            self.totals.calls += 1;
            match random_call(&self.fixture.server, &mut self.random, &stream, &self.source.url) {
                Outcome::Journaled(wanted) => {
                    self.totals.acknowledged += 1;
                    self.model.insert(stream, Some(wanted));
                }
                Outcome::NotPersisted => {
                    self.totals.not_persisted += 1;
                    self.model.insert(stream, None);
                }
                Outcome::Refused => {}
                Outcome::Unheard => panic!("no answer:\n{}", self.fixture.server.log()),
            }
        }
    }

    fn run_at_the_journal(&self, script: &str) {
        match &self.disk {
            Some(disk) => drop(disk.run(script)),
            None => drop(support::run(Command::new("sh").args(["-c", script]))),
        }
    }

    /// The server is down. Its files may be damaged before it comes back.
    fn come_back(&mut self, what: &str) {
        self.fixture.server.start();
        let status = self.fixture.server.wait_until_restored();
        let listed = keys(&self.fixture.server);
        self.totals.checks += 1;
        for (stream, wanted) in &mut self.model {
            let there = listed.contains(&key(stream));
            if let Some(wanted) = *wanted {
                assert_eq!(there, wanted, "{stream} after {what}: {status}\n{}", self.fixture.server.log());
            }
            *wanted = Some(there);
        }
    }

    fn kill(&mut self) {
        self.totals.kills += 1;
        self.fixture.server.kill();
        self.come_back("a kill");
    }

    fn damage(&mut self) {
        // What was on disk for a second is known to have been.
        thread::sleep(Duration::from_millis(1500));
        self.totals.kills += 1;
        self.totals.damaged_files += 1;
        self.fixture.server.kill();
        let file = self.fixture.server.journal_file();
        let name = if self.random.bool() { format!("{}-wal", file.display()) } else { file.display().to_string() };
        // In the part that is in use: a log has zeros behind it.
        let (at, bit) = (self.random.u32(0..60_000), 1 << self.random.u32(0..8));
        self.run_at_the_journal(&format!(
            "size=$(stat -c %s {name}); at=$(({at} % size)); byte=$(od -An -tu1 -j $at -N 1 {name}); \
             printf \"$(printf '\\\\%03o' $((byte ^ {bit})))\" | dd of={name} bs=1 seek=$at conv=notrunc 2>/dev/null"
        ));
        self.come_back(&format!("a bit flipped at {at} of {name}"));
    }

    fn wait_until_well(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.fixture.server.status()["state"] != "ok" {
            assert!(Instant::now() < deadline, "it does not heal:\n{}", self.fixture.server.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn fill_the_disk(&mut self) {
        let Some(disk) = &self.disk else { return };
        self.totals.full_disks += 1;
        // With the log gone the next change finds no room at once.
        disk.run(&format!("head -c 300m /dev/zero > {0}/fill || true; rm -f {0}/proxies.db-wal", disk.dir));
        disk.run(&format!("head -c 300m /dev/zero > {}/fill2 || true", disk.dir));
        self.calls(10);
        if let Some(disk) = &self.disk {
            disk.run(&format!("rm -f {0}/fill {0}/fill2", disk.dir));
        }
        // Where no call has noticed it, the journal does.
        thread::sleep(Duration::from_millis(1500));
        self.wait_until_well();
    }

    fn delete_the_files(&mut self) {
        self.totals.deletions += 1;
        let file = self.fixture.server.journal_file();
        self.run_at_the_journal(&format!(
            "rm -rf {0} {0}-wal {0}-shm {1}/snapshots",
            file.display(),
            file.parent().unwrap().display()
        ));
        self.calls(5);
        thread::sleep(Duration::from_millis(1500));
        self.wait_until_well();
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn nothing_acknowledged_is_lost_in_a_soak() {
    let seconds = number("ZLMJ_SOAK_SEC", 20);
    let seed = number("ZLMJ_SEED", fastrand::u64(..));
    support::say(&format!("soak: {seconds} s, ZLMJ_SEED={seed}"));
    let mut fixture = Fixture::prepare(&[("snapshot_sec", "3"), ("snapshot_keep", "3"), ("history_days", "0")]);
    let disk = SmallDisk::mount(&mut fixture, "size=256m");
    fixture.server.start();
    let source = fixture.source();
    let random = fastrand::Rng::with_seed(seed);
    let mut soak = Soak { fixture, disk, source, random, model: Model::new(), totals: Totals::default() };
    let began = Instant::now();
    let mut said = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        soak.calls(60);
        match soak.random.u32(0..10) {
            0..4 => soak.kill(),
            4..6 => soak.damage(),
            6 => soak.fill_the_disk(),
            7 => soak.delete_the_files(),
            _ => {}
        }
        if said.elapsed() >= Duration::from_secs(60) {
            said = Instant::now();
            support::say(&format!("soak: {} s, {:?}", began.elapsed().as_secs(), soak.totals));
        }
    }
    soak.kill();
    support::say(&format!("soak: {} s, {:?}, nothing acknowledged lost", began.elapsed().as_secs(), soak.totals));
}
