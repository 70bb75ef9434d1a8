//! Random schedules of add, delete, close and kill -9 from eight clients, with a model beside the server.
//! `ZLMJ_SCHEDULES` sets how many (200 in CI), `ZLMJ_SEED` where to begin.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::time::Instant;

use super::*;

const CLIENTS: usize = 8;
const KEYS: usize = 10;

pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// What a client knows of a key: wanted or not, or, where a call was cut off by the kill, nothing.
pub type Model = BTreeMap<String, Option<bool>>;

/// How a call ended, as its client saw it.
pub enum Outcome {
    /// From now on the stream is wanted, or not: said to be on disk.
    Journaled(bool),
    /// The server did it, but it is not on disk.
    NotPersisted,
    /// The server said no.
    Refused,
    /// No answer came.
    Unheard,
}

pub fn random_call(server: &Server, random: &mut fastrand::Rng, stream: &str, url: &str) -> Outcome {
    let (reply, wanted) = match random.u32(0..10) {
        0..=5 => (server.try_get("addStreamProxy", &add_args(stream, url, &[])), true),
        6..=8 => (server.try_get("delStreamProxy", &[("key", &key(stream))]), false),
        _ => {
            let args = [("app", "live"), ("stream", stream), ("force", "1")];
            (server.try_get("close_streams", &args), false)
        }
    };
    match reply {
        None => Outcome::Unheard,
        // Whatever the code: close_streams can fail once it has closed.
        Some(reply) if reply["journal"]["persisted"] == true => Outcome::Journaled(wanted),
        Some(reply) if reply["journal"].is_object() => Outcome::NotPersisted,
        Some(_) => Outcome::Refused,
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn no_acknowledged_change_is_lost_and_nothing_deleted_comes_back() {
    let schedules = number("ZLMJ_SCHEDULES", 200);
    let seed = number("ZLMJ_SEED", fastrand::u64(..));
    support::say(&format!("random schedules: {schedules}, ZLMJ_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    // Each client has keys of its own, so that it knows in which order its calls took effect.
    let mut models: Vec<Model> = vec![Model::new(); CLIENTS];
    let mut acknowledged = 0_u64;
    for schedule in 0..schedules {
        let (running, heard) = (AtomicBool::new(true), AtomicU64::new(0));
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| random.u64(..)).collect();
        let pause = Duration::from_millis(random.u64(1..60));
        thread::scope(|scope| {
            let clients: Vec<_> = models
                .iter_mut()
                .zip(seeds)
                .enumerate()
                .map(|(client, (model, seed))| {
                    let (server, running, heard, url) = (&fixture.server, &running, &heard, &source.url);
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        while running.load(Ordering::SeqCst) {
                            let stream = format!("c{client}k{}", random.usize(0..KEYS));
                            match random_call(server, &mut random, &stream, url) {
                                Outcome::Journaled(wanted) => {
                                    heard.fetch_add(1, Ordering::SeqCst);
                                    model.insert(stream, Some(wanted));
                                }
                                Outcome::Refused => {}
                                Outcome::Unheard | Outcome::NotPersisted => {
                                    model.insert(stream, None);
                                }
                            }
                        }
                    })
                })
                .collect();
            thread::sleep(pause);
            let deadline = Instant::now() + Duration::from_secs(10);
            while heard.load(Ordering::SeqCst) == 0 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            // In the middle of their calls.
            Server::signal(fixture.server.pid(), "KILL");
            running.store(false, Ordering::SeqCst);
            for client in clients {
                client.join().unwrap();
            }
        });
        acknowledged += heard.into_inner();
        // The second half with a key, which the first has not had.
        if schedule == schedules / 2 {
            let key_file = fixture.dir.path().join("key");
            std::fs::write(&key_file, "0f".repeat(32)).unwrap();
            let with_key = [("key_file", key_file.to_str().unwrap())];
            fixture.server.write_config(&Fixture::journal(&fixture.server, &with_key));
        }
        fixture.crash_and_restore();
        let listed = keys(&fixture.server);
        for model in &mut models {
            for (stream, wanted) in model.iter_mut() {
                let there = listed.contains(&key(stream));
                if let Some(wanted) = *wanted {
                    assert_eq!(there, wanted, "{stream} after schedule {schedule}, ZLMJ_SEED={seed}");
                }
                *wanted = Some(there);
            }
        }
    }
    assert!(acknowledged >= schedules, "only {acknowledged} calls were acknowledged");
    support::say(&format!("random schedules: {schedules} kills, {acknowledged} acknowledged changes, none lost"));
}

#[test]
#[ignore = "slow: just test-e2e"]
fn clients_who_fight_over_the_same_keys_leave_a_journal_that_agrees_with_the_server() {
    let rounds = number("ZLMJ_SCHEDULES", 200) / 4;
    let seed = number("ZLMJ_SEED", fastrand::u64(..));
    support::say(&format!("fights over {KEYS} keys: {rounds}, ZLMJ_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fixture = Fixture::start(&[]);
    let source = fixture.source();
    for round in 0..rounds {
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| random.u64(..)).collect();
        thread::scope(|scope| {
            for (client, seed) in seeds.into_iter().enumerate() {
                let (server, url) = (&fixture.server, &source.url);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    // Whose add it was that the server has shows in the url.
                    let url = format!("{url}?client={client}");
                    for _ in 0..15 {
                        let stream = format!("k{}", random.usize(0..KEYS));
                        random_call(server, &mut random, &stream, &url);
                    }
                });
            }
        });
        let quiet = fixture.server.proxies();
        fixture.crash_and_restore();
        assert_eq!(fixture.server.proxies(), quiet, "round {round}, ZLMJ_SEED={seed}");
    }
}
