//! For as long as one likes: what the status says of each proxy, against what its camera knows and what the server lists.
//! A third of the cameras play all the time, a third is off, a third comes and goes. In the first two thirds of the time
//! the server is killed, some of the times while it restores; in the last third its memory must not grow.
//! `ZLMJ_FLOW_SEC` sets how long (30), `ZLMJ_FLOW_PROXIES` how many (60), `ZLMJ_FLOW_KILLS` how often it is killed (1),
//! `ZLMJ_SEED` where to begin:
//! `ZLMJ_FLOW_SEC=3600 ZLMJ_FLOW_PROXIES=5000 ZLMJ_FLOW_KILLS=200 cargo test --test e2e flow -- --nocapture`.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::cameras::Cameras;
use super::schedules::number;
use super::*;
use support::server::free_port;

/// It takes a moment until the server has noticed, and a look a second or two. What is said wrongly for longer is wrong.
const SETTLED: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The share of the time in which the server is killed.
const KILLED: f64 = 2.0 / 3.0;

/// What is said at one moment: the state of each proxy, and which the server lists as a stream.
struct Said {
    states: HashMap<usize, String>,
    streams: HashSet<usize>,
}

fn number_of(stream: &str) -> Option<usize> {
    stream.rsplit_once("/s").map_or(stream.strip_prefix('s'), |(_, number)| Some(number))?.parse().ok()
}

impl Said {
    fn now(fixture: &Fixture, proxies: usize) -> Said {
        let status = fixture.server.get("getJournalStatus", &[("limit", "10000")])["data"].clone();
        let mut states: HashMap<usize, String> = (0..proxies).map(|n| (n, "playing".to_owned())).collect();
        let troubles = status["now"]["proxies"].as_array().unwrap();
        for trouble in troubles {
            let number = number_of(trouble["key"].as_str().unwrap()).unwrap();
            states.insert(number, trouble["state"].as_str().unwrap().to_owned());
        }
        let count = |state: &str| status["now"][state].as_u64().unwrap();
        assert_eq!(
            count("playing"),
            (proxies - troubles.len()) as u64,
            "the counts and the list differ: {status}"
        );
        // A kill is no crash, and who tries by himself is left to it. 8.0 keeps none that is off.
        assert_eq!(status["proxies"]["quarantined"], 0, "{status}");
        assert!(HOST.is_old || status["now"]["revived"] == 0, "{status}");
        let listed = fixture.server.get("getMediaList", &[("schema", "rtsp"), ("app", "live")])["data"].take();
        let names =
            listed.as_array().into_iter().flatten().filter_map(|source| number_of(source["stream"].as_str()?));
        Said { states, streams: names.collect() }
    }

    /// What is wrong with it.
    fn wrong(
        &self,
        sends: &HashSet<usize>,
        is_off: &dyn Fn(usize) -> bool,
    ) -> HashMap<(usize, &'static str), String> {
        let wrong = self.states.iter().filter_map(|(n, state)| {
            let (says, is_listed) = (state == "playing", self.streams.contains(n));
            let why = match () {
                () if says && is_off(*n) => "its camera is off",
                () if says && !is_listed => "the server lists no stream of it",
                () if !says && sends.contains(n) => "its camera sends",
                () => return None,
            };
            Some(((*n, why), state.clone()))
        });
        wrong.collect()
    }
}

struct Flow {
    fixture: Fixture,
    proxies: usize,
    steady: Cameras,
    flapping: Cameras,
    is_on: bool,
    /// Since when the same has been wrong at each look.
    wrong_since: HashMap<(usize, &'static str), Instant>,
    looks: usize,
}

impl Flow {
    fn start(proxies: usize) -> Flow {
        let mut fixture = Fixture::prepare(&[]);
        for (name, value) in [("enable_hls", "0"), ("rtmp_demand", "1"), ("ts_demand", "1"), ("fmp4_demand", "1")]
        {
            fixture.server.settings.push((format!("protocol.{name}"), value.to_owned()));
        }
        fixture.server.write_config(&Fixture::journal(&fixture.server, &[]));
        let (steady, flapping) = (Cameras::new(&fixture, 1), Cameras::new(&fixture, 2));
        let off = format!("rtsp://127.0.0.1:{}/off", free_port());
        let urls: Vec<String> = (0..proxies)
            .map(|n| match n % 3 {
                0 => steady.url(n),
                1 => flapping.url(n),
                _ => off.clone(),
            })
            .collect();
        fixture.journaled(urls.iter().enumerate().map(|(n, url)| (format!("s{n}"), url.as_str(), [].as_slice())));
        fixture.server.start();
        let mut flow =
            Flow { fixture, proxies, steady, flapping, is_on: true, wrong_since: HashMap::new(), looks: 0 };
        flow.come_back();
        flow
    }

    fn kill_and_start(&mut self) {
        self.fixture.server.kill();
        self.fixture.server.start();
    }

    fn come_back(&mut self) {
        self.wrong_since.clear();
        self.fixture.server.wait_until_restored();
        let listed = keys(&self.fixture.server);
        // Without `force`, those that are off are not kept.
        if !HOST.is_old {
            assert_eq!(listed.len(), self.proxies, "{}", self.fixture.server.log());
        }
    }

    fn look(&mut self) {
        self.looks += 1;
        let sends = self.steady.playing().union(&self.flapping.playing()).copied().collect();
        let is_off = |n: usize| n % 3 == 2 || (n % 3 == 1 && !self.is_on);
        let wrong = Said::now(&self.fixture, self.proxies).wrong(&sends, &is_off);
        self.wrong_since.retain(|what, _| wrong.contains_key(what));
        for (what, state) in wrong {
            let since = *self.wrong_since.entry(what).or_insert_with(Instant::now);
            let (n, why) = what;
            assert!(
                since.elapsed() < SETTLED,
                "look {}: s{n} is said to be {state}, but {why}\n{}",
                self.looks,
                self.fixture.server.log()
            );
        }
    }

    fn switch(&mut self) {
        self.is_on = !self.is_on;
        self.flapping.switch(&self.fixture, self.is_on);
    }

    fn count(&self, state: &str) -> u64 {
        self.fixture.server.status()["now"][state].as_u64().unwrap()
    }
}

#[test]
#[ignore = "slow: just test-e2e"]
fn the_status_agrees_with_what_flows() {
    let (seconds, proxies) = (number("ZLMJ_FLOW_SEC", 30), number("ZLMJ_FLOW_PROXIES", 60) as usize);
    let (kills, seed) = (number("ZLMJ_FLOW_KILLS", 1), number("ZLMJ_SEED", fastrand::u64(..)));
    support::say(&format!("flow: {proxies} proxies, {seconds} s, {kills} kills, ZLMJ_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut flow = Flow::start(proxies);
    let (begin, whole) = (Instant::now(), Duration::from_secs(seconds));
    let mut kill_at: Vec<Duration> = (0..kills).map(|_| whole.mul_f64(random.f64() * KILLED)).collect();
    kill_at.sort_unstable_by(|a, b| b.cmp(a));
    let mut switch_at = Duration::from_secs(random.u64(3..6));
    let (mut most, mut said) = (0, Instant::now());
    // When it was killed last, and the most of memory in each half of the time from then on.
    let (mut last_kill, mut memory) = (whole.mul_f64(KILLED), [0, 0]);
    while begin.elapsed() < whole {
        if kill_at.pop_if(|at| *at <= begin.elapsed()).is_some() {
            flow.kill_and_start();
            while random.u32(..3) == 0 && kill_at.pop().is_some() {
                thread::sleep(Duration::from_secs(3).mul_f64(random.f64()));
                flow.kill_and_start();
            }
            flow.come_back();
            last_kill = begin.elapsed().max(last_kill);
        }
        if begin.elapsed() >= switch_at {
            flow.switch();
            switch_at = begin.elapsed() + Duration::from_secs(random.u64(18..60));
        }
        flow.look();
        most = most.max(flow.count("playing"));
        if kill_at.is_empty() && begin.elapsed() > last_kill {
            let half = &mut memory[usize::from(begin.elapsed() > (last_kill + whole) / 2)];
            *half = flow.fixture.server.memory().max(*half);
        }
        if said.elapsed() >= Duration::from_secs(60) {
            said = Instant::now();
            let (playing, retrying) = (flow.count("playing"), flow.count("retrying"));
            support::say(&format!(
                "flow: {} s, {} looks, {} kills to come, {playing} play, {retrying} are retried, {} MB",
                begin.elapsed().as_secs(),
                flow.looks,
                kill_at.len(),
                flow.fixture.server.memory() / 1_000_000
            ));
        }
        thread::sleep(LOOK_EVERY);
    }
    assert!(kill_at.is_empty(), "no time for {} kills", kill_at.len());
    assert!(most > proxies as u64 / 4, "at the most {most} played at once");
    let is_level = memory[0] == 0 || memory[1] <= memory[0] + memory[0] / 10 + 16_000_000;
    assert!(is_level, "memory grew: {memory:?}");
    support::say(&format!(
        "flow: {} looks, no difference, up to {most} of {proxies} played, {} MB and then {} MB at the most",
        flow.looks,
        memory[0] / 1_000_000,
        memory[1] / 1_000_000
    ));
}
