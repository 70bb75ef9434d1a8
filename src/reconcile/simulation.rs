//! The plan against a simulated server with 100,000 proxies, dead and slow cameras among them, whose clock runs as
//! fast as it can. What happens is random; `ZLMJ_SEED` repeats a run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::host::{Added, Listed, Wanted};
use super::plan::{Action, Limits, Plan};
use crate::model::NamingRules;
use crate::model::{Args, Existing, Kind, ProxyKey};
use crate::settings::RestoreMode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Camera {
    /// Connects after so long, and plays then or a little later.
    On(Duration),
    /// Refuses at once.
    Refuses,
    /// Accepts and never answers: MediaServer gives up after 10 s.
    Hole,
}

struct Running {
    does: Listed,
}

const RETRYING: Listed = Listed::Retrying { failures: 1, error: None };
/// The media of every third come so long after the connect.
const LATER: Duration = Duration::from_millis(700);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A first connect has its result.
    Connected(u64, ProxyKey, bool),
}

struct Simulation {
    now: Duration,
    plan: Plan,
    intent: BTreeMap<ProxyKey, (u64, Args, Option<i64>)>,
    cameras: HashMap<ProxyKey, Camera>,
    server: HashMap<ProxyKey, Running>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    per_origin: usize,
    /// First connects of each host that are unanswered and less than 2 s old.
    fresh: HashMap<String, VecDeque<(Duration, u64)>>,
    starts: Vec<(Duration, ProxyKey)>,
    dice: fastrand::Rng,
    seq: u64,
}

fn host(key: &ProxyKey) -> String {
    key.1.split('/').next().unwrap().to_owned()
}

impl Simulation {
    fn new(limits: Limits, seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            plan: Plan::new(limits, NamingRules::default()),
            intent: BTreeMap::new(),
            cameras: HashMap::new(),
            server: HashMap::new(),
            events: BinaryHeap::new(),
            per_origin: limits.per_origin,
            fresh: HashMap::new(),
            starts: Vec::new(),
            dice: fastrand::Rng::with_seed(seed),
            seq: 0,
        }
    }

    fn want(&mut self, host: &str, name: usize, camera: Camera, dark_since: Option<i64>) -> ProxyKey {
        let key: ProxyKey = (Kind::Pull, format!("{host}/{name}").into());
        let url = format!("rtsp://{}", key.1);
        let args = Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap();
        self.seq += 1;
        self.intent.insert(key.clone(), (self.seq, args, dark_since));
        self.cameras.insert(key.clone(), camera);
        key
    }

    fn wanted(&self) -> Vec<Wanted> {
        let want = |(key, (seq, args, dark_since)): (&ProxyKey, &(u64, Args, Option<i64>))| Wanted {
            key: key.clone(),
            seq: *seq,
            args: args.clone(),
            crashes: 0,
            dark_since: *dark_since,
        };
        self.intent.iter().map(want).collect()
    }

    /// Runs until then, as the driver does.
    fn run_until(&mut self, end: Duration) {
        while self.now < end {
            if self.plan.wake_to_look() <= self.now {
                let took = Duration::from_micros(64);
                let (asked, wall) = (self.now.saturating_sub(took), self.now.as_millis() as i64);
                self.plan.begin_look(asked, wall);
                for page in self.wanted().chunks(64) {
                    let there = |want: &Wanted| self.server.get(&want.key).map(|running| running.does.clone());
                    let page: Vec<_> = page.iter().map(|want| (want.clone(), there(want))).collect();
                    self.plan.compare(page, asked, self.now, wall);
                }
                self.plan.end_look(self.now);
            }
            while let Some(action) = self.plan.next(self.now) {
                self.act(action);
            }
            let event = self.events.peek().map_or(Duration::MAX, |Reverse((at, _))| *at);
            // The driver sleeps a millisecond at least.
            let wake = self.plan.wake_to_look().min(self.plan.wake_to_start());
            let wake = wake.max(self.now + Duration::from_millis(1));
            self.now = event.min(wake).min(end);
            while let Some(Reverse((at, _))) = self.events.peek()
                && *at <= self.now
                && let Some(Reverse((_, event))) = self.events.pop()
            {
                self.happens(event);
            }
        }
    }

    fn act(&mut self, action: Action) {
        let (call, key, seq, existing) = match action {
            Action::Start { call, key, seq, existing, .. } => (call, key, seq, existing),
            // Nothing was set aside.
            Action::Release { .. } => return,
            other => panic!("{other:?}"),
        };
        self.starts.push((self.now, key.clone()));
        if self.intent.get(&key).is_none_or(|(wanted, ..)| *wanted != seq) {
            self.plan.answered(call, Added::Unwanted, self.now, 0);
            return;
        }
        if existing != Existing::Keep {
            self.server.remove(&key);
        } else if self.server.contains_key(&key) {
            self.plan.answered(call, Added::Present, self.now, 0);
            return;
        }
        let fresh = self.fresh.entry(host(&key)).or_default();
        while fresh.front().is_some_and(|(since, _)| self.now >= *since + Duration::from_secs(2)) {
            fresh.pop_front();
        }
        fresh.push_back((self.now, call));
        assert!(self.per_origin == 0 || fresh.len() <= self.per_origin, "{} at once to {}", fresh.len(), key.1);
        self.server.insert(key.clone(), Running { does: Listed::Connecting });
        let (after, good) = match self.cameras[&key] {
            Camera::On(after) => (after, true),
            Camera::Refuses => (Duration::from_millis(1), false),
            Camera::Hole => (Duration::from_secs(10), false),
        };
        self.events.push(Reverse((self.now + after, Event::Connected(call, key, good))));
    }

    fn happens(&mut self, Event::Connected(call, key, good): Event) {
        if let Some(fresh) = self.fresh.get_mut(&host(&key)) {
            fresh.retain(|(_, of)| *of != call);
        }
        let is_later = good && call % 3 == 1;
        let (does, answer) = match good {
            true if is_later => (Listed::Connecting, Added::Connected),
            true => (Listed::Playing, Added::Accepted),
            false => (RETRYING, Added::Retrying("off".into())),
        };
        if let Some(running) = self.server.get_mut(&key) {
            running.does = does;
            if !good {
                self.retry(key, Duration::from_secs(60));
            } else if is_later {
                self.retry(key, LATER);
                self.plan.look_by(self.now + LATER);
            }
        }
        self.plan.answered(call, answer, self.now, self.now.as_millis() as i64);
    }

    /// As the server does by itself.
    fn retry(&mut self, key: ProxyKey, after: Duration) {
        let good = matches!(self.cameras[&key], Camera::On(_));
        self.events.push(Reverse((self.now + after, Event::Connected(0, key, good))));
    }

    fn started_by(&self, wanted: impl Fn(&str) -> bool) -> Duration {
        let mut last = Duration::ZERO;
        for (at, _) in self.starts.iter().filter(|(_, key)| wanted(&key.1)) {
            last = last.max(*at);
        }
        last
    }
}

fn limits(per_second: u64) -> Limits {
    Limits {
        mode: RestoreMode::Eager,
        per_second,
        per_origin: 8,
        processes: 2,
        revive: Duration::from_secs(30),
        failover: Duration::from_secs(10),
        seed: 1,
    }
}

fn seed() -> u64 {
    let seed = std::env::var("ZLMJ_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ZLMJ_SEED={seed}");
    seed
}

#[test]
fn a_hundred_thousand_come_back_at_the_rate_and_the_dead_hold_nobody_up() {
    let mut sim = Simulation::new(limits(10_000), seed());
    for n in 0..100_000 {
        let camera = match n % 10 {
            0 => Camera::Hole,
            1 => Camera::Refuses,
            _ => Camera::On(Duration::from_millis(sim.dice.u64(5..500))),
        };
        // Sites of 20 cameras.
        sim.want(&format!("site{}", n / 20), n, camera, None);
    }
    // A recorder whose cameras are all dead, and one of which half were dead before.
    for n in 0..200 {
        sim.want("dead-nvr", n, Camera::Hole, None);
        sim.want(
            "half-nvr",
            n,
            if n % 2 == 0 { Camera::Hole } else { Camera::On(Duration::from_millis(50)) },
            (n % 2 == 0).then_some(0),
        );
    }
    sim.run_until(Duration::from_secs(12));
    let unlucky = sim.started_by(|key| key.starts_with("site"));
    assert_eq!(sim.server.keys().filter(|key| key.1.starts_with("site")).count(), 100_000);
    // As fast as the rate and the eight places of each site, and never faster.
    assert!((9800..11_500).contains(&unlucky.as_millis()), "{unlucky:?}");
    let mut of_second = [0; 12];
    sim.starts.iter().for_each(|(at, _)| of_second[at.as_secs() as usize] += 1);
    assert!(of_second.iter().all(|starts| *starts <= 10_300), "{of_second:?}");
    let half = |sim: &Simulation| {
        sim.server.iter().filter(|(key, run)| key.1.starts_with("half") && run.does == Listed::Playing).count()
    };
    assert_eq!(half(&sim), 100, "the live of a recorder go before its dead");

    sim.run_until(Duration::from_secs(120));
    assert!(sim.plan.is_restored(), "{:?}", sim.plan.progress());
    assert_eq!(sim.server.len(), 100_400);
    assert_eq!(sim.plan.progress().total, 100_400);
    assert_eq!(sim.plan.census().playing, 80_100);
    let progress = sim.plan.progress();
    assert_eq!((progress.live, progress.connected, progress.failing), (80_100, 0, 20_300));
    let worst = sim.plan.worst(2);
    assert_eq!((worst[0].host.as_str(), worst[0].failing, worst[1].failing), ("dead-nvr", 200, 100));
    assert_eq!(sim.starts.len(), 100_400, "each was started once");
}

#[test]
fn whatever_happens_the_server_ends_up_with_what_is_wanted() {
    let seed = seed();
    let mut sim = Simulation::new(limits(4000), seed);
    for n in 0..2000 {
        let camera = if n % 10 == 0 { Camera::Hole } else { Camera::On(Duration::from_millis(30)) };
        sim.want(&format!("site{}", n % 150), n, camera, None);
    }
    sim.run_until(Duration::from_millis(300));
    for round in 0..400 {
        let keys: Vec<ProxyKey> = sim.intent.keys().cloned().collect();
        let key = keys[sim.dice.usize(..keys.len())].clone();
        if sim.dice.u32(..20) == 0 {
            sim.plan.restore_all(sim.now);
        }
        if sim.dice.u32(..4) == 0 {
            let want = sim.wanted().into_iter().find(|want| want.key == key).unwrap();
            match sim.dice.bool() {
                true => sim.plan.ask_for(want, sim.now),
                false => sim.plan.start_now(want, sim.now),
            }
        }
        match sim.dice.u32(..6) {
            // It is lost: given up by the server, or its camera was restarted.
            0 | 1 => drop(sim.server.remove(&key)),
            // An outside business system adds it, whether it is there or not.
            2 => {
                let does = match sim.cameras[&key] {
                    Camera::On(_) => Listed::Playing,
                    _ => RETRYING,
                };
                sim.server.entry(key.clone()).or_insert(Running { does });
                sim.retry(key, Duration::from_secs(60));
            }
            // An operator deletes it, and perhaps adds it anew.
            3 => {
                sim.server.remove(&key);
                sim.intent.remove(&key);
                if sim.dice.bool() {
                    let (host, name) = key.1.split_once('/').unwrap();
                    let camera = sim.cameras[&key];
                    sim.want(host, name.parse().unwrap(), camera, None);
                    sim.server.insert(key.clone(), Running { does: Listed::Connecting });
                    sim.retry(key, Duration::from_secs(60));
                }
            }
            // It loses its connection, and the server connects again by itself.
            4 => {
                if let Some(running) = sim.server.get_mut(&key) {
                    running.does = RETRYING;
                    sim.retry(key, Duration::from_secs(2));
                }
            }
            // A camera goes off or on.
            _ => {
                let camera = sim.cameras.get_mut(&key).unwrap();
                *camera = match camera {
                    Camera::On(_) => Camera::Hole,
                    _ => Camera::On(Duration::from_millis(30)),
                };
            }
        }
        if round % 4 == 0 {
            let pause = Duration::from_millis(sim.dice.u64(..4000));
            sim.run_until(sim.now + pause);
        }
    }
    // All cameras are repaired; what the longest pauses and the dead take has passed.
    for camera in sim.cameras.values_mut() {
        *camera = Camera::On(Duration::from_millis(30));
    }
    sim.run_until(sim.now + Duration::from_secs(3 * 3600));
    let wanted: Vec<&ProxyKey> = sim.intent.keys().collect();
    let mut there: Vec<&ProxyKey> = sim.server.keys().collect();
    there.sort();
    assert_eq!(there, wanted, "ZLMJ_SEED={seed}");
    assert!(sim.server.values().all(|running| running.does == Listed::Playing), "ZLMJ_SEED={seed}");
    let progress = sim.plan.progress();
    let is_done = sim.plan.is_restored() && progress.done() == progress.total && progress.connected == 0;
    assert!(is_done, "ZLMJ_SEED={seed}: {progress:?}");
}
