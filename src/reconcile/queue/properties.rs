//! The queue under random operations, beside a model that looks at all that waits and all that was started.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::Kind;
use crate::testing;

#[derive(Debug, Clone)]
enum Step {
    Push {
        host: usize,
        crashes: u32,
        nobody_waits: bool,
        last_played: i64,
    },
    /// One of what waits.
    Remove(usize),
    Pop,
    Sleep(u64),
    /// One of what was started, perhaps once more.
    Answered(usize),
    Over(usize),
    Places(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let crashes = prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2)];
    prop_oneof![
        6 => (0..5_usize, crashes, any::<bool>(), 0..3_i64).prop_map(|(host, crashes, nobody_waits, last_played)| {
            Step::Push { host, crashes, nobody_waits, last_played }
        }),
        1 => (0..64_usize).prop_map(Step::Remove),
        8 => Just(Step::Pop),
        3 => (0..2500_u64).prop_map(Step::Sleep),
        3 => (0..64_usize).prop_map(Step::Answered),
        2 => (0..64_usize).prop_map(Step::Over),
        1 => (0..3_usize, 0..3_usize).prop_map(|(per_origin, processes)| Step::Places(per_origin, processes)),
    ]
}

struct Started {
    at: Duration,
    host: RemoteHost,
    crashes: u32,
    keeps_place: bool,
    is_over: bool,
}

struct Model {
    queue: Queue,
    now: Duration,
    hosts: Vec<RemoteHost>,
    places: (usize, usize),
    waiting: BTreeMap<Rank, RemoteHost>,
    started: Vec<Started>,
    seq: u64,
}

fn key(rank: &Rank) -> ProxyKey {
    (Kind::Pull, rank.seq.to_string().into())
}

impl Model {
    fn new() -> Model {
        let mut queue = Queue::new(2, 1);
        let named = ["nvr", "other", "third"].map(|host| queue.remote_host(Some(host.into())));
        Model {
            hosts: [NO_HOST, PROCESSES].into_iter().chain(named).collect(),
            queue,
            now: Duration::ZERO,
            places: (2, 1),
            waiting: BTreeMap::new(),
            started: Vec::new(),
            seq: 0,
        }
    }

    fn places_of(&self, host: RemoteHost) -> usize {
        match host {
            NO_HOST => 0,
            PROCESSES => self.places.1,
            _ => self.places.0,
        }
    }

    fn has_place(&self, host: RemoteHost, at: Duration) -> bool {
        let keeps = |it: &&Started| it.host == host && it.keeps_place && (host == PROCESSES || at < it.at + SLOT);
        let places = self.places_of(host);
        places == 0 || self.started.iter().filter(keeps).count() < places
    }

    /// Whether, should the server crash now, it could be told of which suspect.
    fn is_alone(&self, rank: &Rank) -> bool {
        let mut suspects = self.started.iter().filter(|it| it.crashes > 0 && !it.is_over);
        let is_young = |it: &Started| self.now < it.at + ALONE;
        match rank.crashes {
            0 => true,
            1 => !suspects.any(|it| it.crashes > 1 && is_young(it)),
            _ => {
                let is_innocent_left = self.waiting.keys().any(|rank| rank.crashes == 0);
                !is_innocent_left && !suspects.any(is_young)
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push { host, crashes, nobody_waits, last_played } => {
                self.seq += 1;
                let rank = Rank { crashes, nobody_waits, last_played: Reverse(last_played), seq: self.seq };
                self.waiting.insert(rank, self.hosts[host]);
                self.queue.push(self.hosts[host], rank, key(&rank));
            }
            Step::Remove(which) => {
                if let Some((rank, host)) = self.waiting.iter().nth(which).map(|(rank, host)| (*rank, *host)) {
                    self.waiting.remove(&rank);
                    self.queue.remove(host, rank);
                }
            }
            Step::Pop => drop(self.pop()),
            Step::Sleep(ms) => self.now += Duration::from_millis(ms),
            Step::Answered(which) => {
                if let Some(started) = self.started.get_mut(which) {
                    started.keeps_place = false;
                    self.queue.answered(which as u64);
                }
            }
            Step::Over(which) => {
                if let Some(started) = self.started.get_mut(which) {
                    started.is_over = true;
                    self.queue.over(which as u64);
                }
            }
            Step::Places(per_origin, processes) => {
                self.places = (per_origin, processes);
                self.queue.set_places(per_origin, processes);
            }
        }
        assert_eq!(self.queue.len, self.waiting.len());
        assert_eq!(self.queue.innocent, self.waiting.keys().filter(|rank| rank.crashes == 0).count());
    }

    /// True where that gave one.
    fn pop(&mut self) -> bool {
        let call = self.started.len() as u64;
        let popped = self.queue.pop(call, self.now);
        let first = self.waiting.iter().find(|(_, host)| self.has_place(**host, self.now));
        let Some((rank, host)) = first.map(|(rank, host)| (*rank, *host)) else {
            assert_eq!(popped, None, "no host has a place for it");
            self.sleeps_no_longer_than_needed();
            return false;
        };
        let Some(popped) = popped else {
            assert!(rank.crashes > 0, "{rank:?} has a place, and nothing to wait for");
            self.sleeps_no_longer_than_needed();
            return false;
        };
        assert_eq!(popped, key(&rank), "the first of those that have a place");
        assert!(self.is_alone(&rank), "{rank:?} is started with another suspect");
        self.waiting.remove(&rank);
        let keeps_place = self.places_of(host) > 0;
        self.started.push(Started { at: self.now, host, crashes: rank.crashes, keeps_place, is_over: false });
        true
    }

    /// Who sleeps until the queue says misses none that needs only time.
    fn sleeps_no_longer_than_needed(&self) {
        let innocent = |at: &Duration| {
            self.waiting.iter().any(|(rank, host)| rank.crashes == 0 && self.has_place(*host, *at))
        };
        let freed = self.started.iter().map(|it| it.at + SLOT).filter(|at| *at > self.now);
        if let Some(next) = freed.filter(innocent).min() {
            assert!(self.queue.wake().is_some_and(|wake| wake <= next), "{:?} > {next:?}", self.queue.wake());
        }
    }

    /// Nothing is left waiting, even where nobody answers.
    fn drain(&mut self, answers: bool) {
        if !answers {
            // A process keeps its place until it is answered.
            self.take(Step::Places(1, 0));
        }
        let mut sleeps = 0;
        while !self.waiting.is_empty() {
            if self.pop() {
                continue;
            }
            for which in (0..self.started.len()).filter(|_| answers) {
                self.take(Step::Answered(which));
                self.take(Step::Over(which));
            }
            if !answers {
                let wake = self.queue.wake().expect("it would sleep for ever");
                assert!(wake > self.now, "it would not sleep");
                self.now = wake;
            }
            sleeps += 1;
            assert!(sleeps < 1000, "{:?} wait for ever", self.waiting);
        }
        assert!(!self.pop() && self.queue.wake().is_none());
    }
}

proptest! {
    #![proptest_config(testing::config(512))]

    /// Each comes out once, in order, within the limits of its host, and no suspect together with the worst.
    #[test]
    fn whatever_is_pushed_comes_out_once_in_order_and_within_the_limits(
        steps in vec(step(), 1..80),
        answers: bool,
    ) {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.take(step));
        model.drain(answers);
    }
}
