//! Random schedules of add, delete, close and kill -9 from eight clients, with a model beside the server.
//! `ZLMJ_SCHEDULES` sets how many (200 in CI), `ZLMJ_SEED` where to begin.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

const CLIENTS: usize = 8;
const KEYS: usize = 10;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// What a client knows of a key: wanted or not, or, where a call was cut off by the kill, nothing.
type Model = BTreeMap<String, Option<bool>>;

/// One random call. Returns the stream, and what it is from now on if the call was acknowledged.
fn random_call(server: &Server, random: &mut fastrand::Rng, stream: &str, url: &str) -> Option<bool> {
    match random.u32(0..10) {
        0..=5 => {
            let reply = server.try_get("addStreamProxy", &add_args(stream, url, &[]))?;
            // Refused means that it is there, or that another call ended it before it was answered.
            (reply["code"] == 0 && reply["journal"]["persisted"] == true).then_some(true)
        }
        6..=8 => {
            let reply = server.try_get("delStreamProxy", &[("key", &key(stream))])?;
            (reply["journal"]["persisted"] == true).then_some(false)
        }
        _ => {
            let args = [("app", "live"), ("stream", stream), ("force", "1")];
            let reply = server.try_get("close_streams", &args)?;
            (reply["journal"]["persisted"] == true).then_some(false)
        }
    }
}

#[test]
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
        let running = AtomicBool::new(true);
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| random.u64(..)).collect();
        let pause = Duration::from_millis(random.u64(1..60));
        thread::scope(|scope| {
            let clients: Vec<_> = models
                .iter_mut()
                .zip(seeds)
                .enumerate()
                .map(|(client, (model, seed))| {
                    let (server, running, url) = (&fixture.server, &running, &source.url);
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        let mut acknowledged = 0;
                        while running.load(Ordering::SeqCst) {
                            let stream = format!("c{client}k{}", random.usize(0..KEYS));
                            let before = model.insert(stream.clone(), None).unwrap_or(Some(false));
                            let known = random_call(server, &mut random, &stream, url);
                            acknowledged += u64::from(known.is_some());
                            // A refusal, of one who is alone on the key and heard to the end, changed nothing.
                            let heard = known.is_some() || running.load(Ordering::SeqCst);
                            model.insert(stream, if heard { known.or(before) } else { None });
                        }
                        acknowledged
                    })
                })
                .collect();
            thread::sleep(pause);
            // Only then the kill: a client that hears nothing must not take it for a refusal.
            running.store(false, Ordering::SeqCst);
            Server::signal(fixture.server.pid(), "KILL");
            acknowledged += clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>();
        });
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
    assert!(acknowledged > schedules, "only {acknowledged} calls were acknowledged");
    support::say(&format!("random schedules: {schedules} kills, {acknowledged} acknowledged changes, none lost"));
}

#[test]
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
