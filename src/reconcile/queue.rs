//! The order in which proxies are started, and which may be started now: limits the concurrent first connects per host
//! and the processes, and puts suspects last. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::memory::give_back;
use crate::model::ProxyKey;

/// A first connect without a result keeps its place at its host for this long.
const SLOT: Duration = Duration::from_secs(2);
/// How many suspects are started at once; the next ones follow when the server has survived these, or after this long.
const SUSPECTS: (usize, Duration) = (32, Duration::from_secs(2));
/// Suspects of two consecutive crashes are started one by one, so that a third crash tells. The pause is longer than
/// the time in which a crash accuses a proxy.
const ALONE: Duration = Duration::from_secs(3);

/// The order of starting, the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The number of consecutive server crashes in which the server was working on it.
    pub crashes: u32,
    /// False if a player waits for it.
    pub nobody_waits: bool,
    /// When it was last seen playing; those that played to the end come first.
    pub last_played: Reverse<i64>,
    /// The change of its entry: the oldest first. Unique.
    pub seq: u64,
}

/// A remote host: its index in the queue's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteHost(usize);

/// For URLs without a host, such as files; never limited.
const NO_HOST: RemoteHost = RemoteHost(0);
/// For processes on this machine, whatever they connect to.
pub const PROCESSES: RemoteHost = RemoteHost(1);

#[derive(Default)]
struct Source {
    host: String,
    ready: BTreeMap<Rank, ProxyKey>,
    connecting: usize,
    /// Its entry in `Queue::open`.
    offered: Option<Rank>,
}

/// Suspects that were started together, and those of their calls that the server has not survived yet.
#[derive(Default)]
struct Group {
    started: usize,
    since: Duration,
    /// When the last of them was started.
    last: Duration,
    /// It is one that has to be alone.
    is_prime: bool,
    open: BTreeSet<u64>,
}

#[derive(Default)]
pub struct Queue {
    /// Concurrent first connects to one host; 0: no limit.
    per_origin: usize,
    /// Concurrent starts of processes, each until its result; 0: no limit.
    processes: usize,
    sources: Vec<Source>,
    by_host: HashMap<String, RemoteHost>,
    /// The first proxy of every host that has a free place.
    open: BTreeSet<(Rank, RemoteHost)>,
    /// Calls in the order in which they took a place; some are already answered.
    places: VecDeque<(Duration, u64)>,
    /// Unanswered calls that keep a place.
    keeping: HashMap<u64, RemoteHost>,
    group: Group,
    len: usize,
    innocent: usize,
}

impl Queue {
    pub fn new(per_origin: usize, processes: usize) -> Self {
        let of_processes = Source { host: "FFmpeg".to_owned(), ..Source::default() };
        let sources = vec![Source::default(), of_processes];
        Self { per_origin, processes, sources, ..Self::default() }
    }

    /// Sets the limits of [`Queue::new`].
    pub fn set_places(&mut self, per_origin: usize, processes: usize) {
        (self.per_origin, self.processes) = (per_origin, processes);
        (0..self.sources.len()).for_each(|number| self.offer(RemoteHost(number)));
    }

    /// The entry of a host, which is added if it is new.
    pub fn remote_host(&mut self, host: Option<String>) -> RemoteHost {
        let Some(host) = host else { return NO_HOST };
        let Queue { sources, by_host, .. } = self;
        *by_host.entry(host).or_insert_with_key(|host| {
            sources.push(Source { host: host.clone(), ..Source::default() });
            RemoteHost(sources.len() - 1)
        })
    }

    /// The name of a host; empty if it has none.
    pub fn host(&self, remote_host: RemoteHost) -> &str {
        self.sources.get(remote_host.0).map_or("", |source| &source.host)
    }

    pub fn push(&mut self, remote_host: RemoteHost, rank: Rank, key: ProxyKey) {
        let Some(source) = self.sources.get_mut(remote_host.0) else { return };
        if source.ready.insert(rank, key).is_none() {
            self.len += 1;
            self.innocent += usize::from(rank.crashes == 0);
        }
        self.offer(remote_host);
    }

    pub fn remove(&mut self, remote_host: RemoteHost, rank: Rank) {
        self.take(remote_host, rank);
        self.offer(remote_host);
    }

    fn take(&mut self, remote_host: RemoteHost, rank: Rank) -> Option<ProxyKey> {
        let key = self.sources.get_mut(remote_host.0)?.ready.remove(&rank)?;
        self.len -= 1;
        self.innocent -= usize::from(rank.crashes == 0);
        Some(key)
    }

    /// The next proxy that may be started now; it is started as `call`.
    pub fn pop(&mut self, call: u64, now: Duration) -> Option<ProxyKey> {
        self.free_places(now);
        let (rank, remote_host) = self.open.first().copied()?;
        if now < self.suspect_at(rank.crashes) {
            return None;
        }
        if rank.crashes > 0 {
            let (group, is_prime) = (&mut self.group, rank.crashes > 1);
            if group.open.is_empty() || is_prime || group.is_prime || now >= group.since + SUSPECTS.1 {
                (group.started, group.since, group.is_prime) = (0, now, is_prime);
            }
            (group.started, group.last) = (group.started + 1, now);
            group.open.insert(call);
        }
        let key = self.take(remote_host, rank)?;
        if self.places_of(remote_host) > 0 {
            self.sources.get_mut(remote_host.0)?.connecting += 1;
            self.keeping.insert(call, remote_host);
            if remote_host != PROCESSES {
                self.places.push_back((now, call));
            }
        }
        self.offer(remote_host);
        Some(key)
    }

    /// The call has its result, or has kept its place for long enough.
    pub fn answered(&mut self, call: u64) {
        let Some(remote_host) = self.keeping.remove(&call) else { return };
        give_back(&mut self.keeping);
        if let Some(source) = self.sources.get_mut(remote_host.0) {
            source.connecting -= 1;
        }
        self.offer(remote_host);
    }

    /// The server has survived the call, or nothing was tried.
    pub fn over(&mut self, call: u64) {
        self.group.open.remove(&call);
    }

    /// When there may be something to start without any answer; `None` if never.
    pub fn wake(&self) -> Option<Duration> {
        if self.len == 0 {
            return None;
        }
        let place = self.places.front().map(|(since, _)| *since + SLOT);
        let first = self.open.first().map(|(rank, _)| self.suspect_at(rank.crashes));
        place.into_iter().chain(first).min()
    }

    /// When one may be started that was being worked on in so many crashes, if nothing happens before.
    fn suspect_at(&self, crashes: u32) -> Duration {
        let group = &self.group;
        match crashes {
            0 => Duration::ZERO,
            2.. if self.innocent > 0 => Duration::MAX,
            _ if group.open.is_empty() => Duration::ZERO,
            _ if crashes > 1 || group.is_prime => group.last + ALONE,
            _ if group.started < SUSPECTS.0 => Duration::ZERO,
            _ => group.since + SUSPECTS.1,
        }
    }

    /// The limit of a host; 0: no limit.
    fn places_of(&self, remote_host: RemoteHost) -> usize {
        match remote_host {
            NO_HOST => 0,
            PROCESSES => self.processes,
            _ => self.per_origin,
        }
    }

    fn free_places(&mut self, now: Duration) {
        while let Some((since, call)) = self.places.front().copied() {
            if self.keeping.contains_key(&call) && now < since + SLOT {
                return;
            }
            self.places.pop_front();
            self.answered(call);
        }
        give_back(&mut self.places);
    }

    /// Updates the entry of a host in `open`.
    fn offer(&mut self, remote_host: RemoteHost) {
        let places = self.places_of(remote_host);
        let Some(source) = self.sources.get_mut(remote_host.0) else { return };
        let full = places > 0 && source.connecting >= places;
        let first = source.ready.first_key_value().map(|(rank, _)| *rank).filter(|_| !full);
        let offered = std::mem::replace(&mut source.offered, first);
        if offered != first {
            if let Some(rank) = offered {
                self.open.remove(&(rank, remote_host));
            }
            if let Some(rank) = first {
                self.open.insert((rank, remote_host));
            }
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, ProxyKey};

    fn key(seq: u64) -> ProxyKey {
        (Kind::Pull, format!("{seq}").into())
    }

    fn rank(crashes: u32, last_played: i64, seq: u64) -> Rank {
        Rank { crashes, nobody_waits: true, last_played: Reverse(last_played), seq }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn pop_all(queue: &mut Queue, calls: &mut u64, now: Duration) -> Vec<u64> {
        let mut popped = Vec::new();
        while let Some((_, name)) = queue.pop(*calls + 1, now) {
            *calls += 1;
            popped.push(name.parse().unwrap());
        }
        popped
    }

    #[test]
    fn what_played_last_goes_first_then_age_and_before_all_what_a_player_waits_for() {
        let mut queue = Queue::new(0, 0);
        let remote_host = queue.remote_host(Some("nvr".into()));
        for (last_played, seq) in [(0, 1), (i64::MAX, 2), (5, 3), (i64::MAX, 4), (5, 5)] {
            queue.push(remote_host, rank(0, last_played, seq), key(seq));
        }
        queue.push(remote_host, Rank { nobody_waits: false, ..rank(0, 0, 6) }, key(6));
        assert_eq!(pop_all(&mut queue, &mut 0, ms(0)), [6, 2, 4, 3, 5, 1]);
        assert_eq!(queue.len, 0);
    }

    #[test]
    fn a_source_has_so_many_places_freed_by_a_result_or_by_time() {
        let mut queue = Queue::new(2, 0);
        let (nvr, other) = (queue.remote_host(Some("nvr".into())), queue.remote_host(Some("other".into())));
        let none = queue.remote_host(None);
        for seq in 1..=6 {
            queue.push(nvr, rank(0, 0, seq), key(seq));
        }
        queue.push(other, rank(0, 0, 7), key(7));
        (8..=11).for_each(|seq| queue.push(none, rank(0, 0, seq), key(seq)));
        let mut calls = 0;
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [1, 2, 7, 8, 9, 10, 11]);
        queue.answered(1);
        queue.answered(1);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(500)), [3]);
        assert_eq!(queue.wake(), Some(SLOT));
        assert_eq!(pop_all(&mut queue, &mut calls, ms(1999)), [0; 0]);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(2000)), [4]);
        // The answer to what has lost its place frees no other.
        queue.answered(2);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(2499)), [0; 0]);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(2500)), [5]);
        assert_eq!(queue.len, 1);
        queue.remove(nvr, rank(0, 0, 6));
        assert_eq!((queue.len, queue.wake()), (0, None));
    }

    #[test]
    fn places_may_become_more_or_fewer_while_some_are_taken() {
        let mut queue = Queue::new(2, 1);
        let nvr = queue.remote_host(Some("nvr".into()));
        (1..=9).for_each(|seq| queue.push(nvr, rank(0, 0, seq), key(seq)));
        (10..=12).for_each(|seq| queue.push(PROCESSES, rank(0, 0, seq), key(seq)));
        let mut calls = 0;
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [1, 2, 10]);
        queue.set_places(3, 2);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [3, 11]);
        queue.set_places(1, 1);
        queue.answered(1);
        queue.answered(2);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [0; 0], "one is still connecting");
        queue.answered(4);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [4]);
        queue.set_places(0, 0);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [5, 6, 7, 8, 9, 12]);
    }

    #[test]
    fn a_process_keeps_its_place_until_its_result_whatever_it_connects_to() {
        let mut queue = Queue::new(1, 2);
        let nvr = queue.remote_host(Some("nvr".into()));
        (1..=4).for_each(|seq| queue.push(PROCESSES, rank(0, 0, seq), key(seq)));
        queue.push(nvr, rank(0, 0, 5), key(5));
        let mut calls = 0;
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [1, 2, 5]);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(60_000)), [0; 0]);
        assert_eq!(queue.wake(), None);
        queue.answered(2);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(60_000)), [3]);
    }

    #[test]
    fn suspects_come_last_the_worst_alone() {
        let mut queue = Queue::new(0, 0);
        let remote_host = queue.remote_host(None);
        for seq in 1..=50 {
            let crashes = if seq == 50 { 2 } else { u32::from(seq <= 40) };
            queue.push(remote_host, rank(crashes, 0, seq), key(seq));
        }
        let mut calls = 0;
        // The innocent, and at most 32 of those with one crash; none of them answers.
        let first = pop_all(&mut queue, &mut calls, ms(0));
        assert_eq!(first, (41..=49).chain(1..=32).collect::<Vec<_>>());
        assert_eq!(queue.wake(), Some(ms(2000)));
        assert!(pop_all(&mut queue, &mut calls, ms(1000)).is_empty());
        assert_eq!(pop_all(&mut queue, &mut calls, ms(2000)), (33..=40).collect::<Vec<_>>());
        assert!(pop_all(&mut queue, &mut calls, ms(3000)).is_empty());
        (1..=calls).for_each(|call| queue.answered(call));
        assert!(pop_all(&mut queue, &mut calls, ms(3000)).is_empty(), "the server may still crash of them");
        (1..=calls).for_each(|call| queue.over(call));
        assert_eq!(pop_all(&mut queue, &mut calls, ms(3000)), [50]);
    }

    #[test]
    fn what_crashed_it_twice_is_alone_whatever_comes_after_it() {
        let mut queue = Queue::new(1, 0);
        let (bad, nvr) = (queue.remote_host(Some("bad".into())), queue.remote_host(Some("nvr".into())));
        queue.push(nvr, rank(0, 0, 1), key(1));
        queue.push(nvr, rank(1, 0, 2), key(2));
        queue.push(bad, rank(2, 0, 3), key(3));
        let mut calls = 0;
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [1, 3]);
        queue.answered(1);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(100)), [0; 0], "a crash would be told of both");
        assert_eq!(queue.wake(), Some(SLOT), "something may come then");
        assert_eq!(pop_all(&mut queue, &mut calls, ms(2000)), [0; 0]);
        assert_eq!(queue.wake(), Some(ALONE));
        assert_eq!(pop_all(&mut queue, &mut calls, ms(3000)), [2]);
    }

    #[test]
    fn when_to_wake_is_what_is_so_by_then() {
        let mut queue = Queue::new(1, 0);
        let (bad, nvr) = (queue.remote_host(Some("bad".into())), queue.remote_host(Some("nvr".into())));
        (1..=2).for_each(|seq| queue.push(nvr, rank(0, 0, seq), key(seq)));
        queue.push(bad, rank(2, 0, 3), key(3));
        let mut calls = 0;
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [1]);
        queue.answered(1);
        // The last of the innocent: nothing more keeps the suspect.
        assert_eq!(queue.pop(2, ms(1)), Some(key(2)));
        assert_eq!(queue.wake(), Some(Duration::ZERO));
    }

    #[test]
    fn suspects_of_one_source_share_its_places() {
        let mut queue = Queue::new(8, 0);
        let nvr = queue.remote_host(Some("nvr".into()));
        (1..=20).for_each(|seq| queue.push(nvr, rank(1, 0, seq), key(seq)));
        assert_eq!(pop_all(&mut queue, &mut 0, ms(0)).len(), 8);
    }

    #[test]
    fn of_two_that_crashed_it_twice_the_second_waits_for_the_first_and_both_for_the_innocent() {
        let mut queue = Queue::new(1, 0);
        let (nvr, bad) = (queue.remote_host(Some("nvr".into())), queue.remote_host(Some("bad".into())));
        (1..=2).for_each(|seq| queue.push(nvr, rank(0, 0, seq), key(seq)));
        (3..=4).for_each(|seq| queue.push(bad, rank(2, 0, seq), key(seq)));
        let mut calls = 0;
        assert_eq!(pop_all(&mut queue, &mut calls, ms(0)), [1]);
        queue.answered(1);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(10)), [2, 3]);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(2_500)), [0; 0]);
        queue.answered(3);
        queue.over(3);
        assert_eq!(pop_all(&mut queue, &mut calls, ms(2_500)), [4]);
    }
}
