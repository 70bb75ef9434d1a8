//! A server, its operators and its clients, as the driver tells the plan of them; what holds at any time is checked after each
//! step.

use std::collections::{BTreeMap, BTreeSet};

use super::properties::Step;
use super::*;

/// Two of one recorder, a file, a push, two processes, and two that feed each other.
pub const POOL: usize = 8;
const PUSH: usize = 3;
const CIRCLE: [usize; 2] = [6, 7];

/// Arguments in different versions lead elsewhere.
fn call(which: usize, version: u64) -> (ProxyKey, Args) {
    let url = match which {
        0 | 1 => format!("rtsp://nvr/{which}/{version}"),
        2 => format!("/var/{version}.mp4"),
        PUSH => format!("rtmp://cdn/{version}"),
        4 | 5 => format!("rtsp://cam/{which}/{version}"),
        6 => format!("rtmp://127.0.0.1/live/7?version={version}"),
        _ => format!("rtmp://127.0.0.1/live/6?version={version}"),
    };
    let kind = match which {
        PUSH => Kind::Push,
        4 | 5 => Kind::Ffmpeg,
        _ => Kind::Pull,
    };
    let stream = which.to_string();
    let pairs =
        [("vhost", "__defaultVhost__"), ("app", "live"), ("stream", &stream), (kind.info().connects_to, &url)];
    ((kind, stream.as_str().into()), args(&pairs))
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    seq: u64,
    version: u64,
    crashes: u32,
    dark_since: Option<i64>,
}

/// A call that the server has not answered.
#[derive(Debug)]
struct Open {
    which: usize,
    seq: u64,
    version: u64,
    since: Duration,
    /// Nobody has asked for another start of it since, whatever the plan knows of this one.
    is_alone: bool,
}

pub struct World {
    plan: Plan,
    mode: RestoreMode,
    now: Duration,
    intent: BTreeMap<usize, Entry>,
    /// What was set aside.
    aside: BTreeMap<usize, Entry>,
    /// What the server has, and by which version.
    server: BTreeMap<usize, (Listed, u64)>,
    /// Changes that the reconciler has not heard of, and whether what is to be done with what the server has.
    unheard: VecDeque<(usize, Existing)>,
    open: BTreeMap<u64, Open>,
    /// What the plan may start: by which change, as it was last told.
    startable: BTreeMap<usize, u64>,
    seq: u64,
}

impl World {
    pub fn new(mode: RestoreMode) -> World {
        World {
            plan: new(Limits { mode, per_origin: 1, processes: 1, ..LIMITS }),
            mode,
            now: secs(1),
            intent: BTreeMap::new(),
            aside: BTreeMap::new(),
            server: BTreeMap::new(),
            unheard: VecDeque::new(),
            open: BTreeMap::new(),
            startable: BTreeMap::new(),
            seq: 0,
        }
    }

    fn wall(&self) -> i64 {
        self.now.as_millis() as i64
    }

    fn wanted(&self, which: usize) -> Option<Wanted> {
        let Entry { seq, version, crashes, dark_since } = *self.intent.get(&which)?;
        let (key, args) = call(which, version);
        Some(Wanted { key, seq, args, crashes, dark_since })
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Want { which, marks, crashes, dark } => {
                let before = self.intent.get(&which).copied();
                let version = before.filter(|_| marks).map(|entry| entry.version);
                // The server has crashed of what was there before its start, and not of what it has made since.
                let is_there =
                    self.server.contains_key(&which) || self.open.values().any(|open| open.which == which);
                let crashes = if is_there { 0 } else { crashes };
                self.change(which, version, crashes, dark.then_some(0));
                let version = self.intent[&which].version;
                let existing = match before {
                    Some(before) if before.version == version => Existing::Keep,
                    None => Existing::Keep,
                    Some(_) if version.is_multiple_of(2) => Existing::Update,
                    Some(_) => Existing::Replace,
                };
                self.unheard.push_back((which, existing));
            }
            Step::Unwant(which) => {
                self.aside.remove(&which);
                if self.intent.remove(&which).is_some() {
                    // By the time that this is heard of, another may be wanted under the same key.
                    self.unheard.push_back((which, Existing::Replace));
                }
            }
            Step::Client(which) => {
                // Adds of one key go through one at a time.
                if !self.server.contains_key(&which) && self.open.values().all(|open| open.which != which) {
                    self.change(which, None, 0, None);
                    self.server.insert(which, (Listed::Playing, self.intent[&which].version));
                    if self.mode != RestoreMode::Eager {
                        self.startable.insert(which, self.seq);
                        self.plan.called_for(self.wanted(which).unwrap(), self.now);
                    }
                }
            }
            Step::Hear => self.hear(),
            Step::Look => self.look(),
            Step::Act => self.act(),
            Step::Sleep(ms) => self.sleep_until(self.now + Duration::from_millis(ms)),
            Step::Answer(which, answer) => {
                if let Some(call) = self.open.keys().nth(which).copied() {
                    self.answer(call, answer);
                }
            }
            Step::Ask(which) => self.request(which, Plan::ask_for),
            Step::StartNow(which) => self.request(which, Plan::start_now),
            Step::MediaChanged(which) => {
                if let Some((does, _)) = self.server.get_mut(&which) {
                    *does = Listed::Playing;
                    self.plan.media_came(&call(which, 0).0, self.now, self.now.as_millis() as i64);
                }
            }
            Step::SourceCame => self.source_came(),
            Step::SourceGone => {
                self.server.remove(&PUSH);
                self.plan.source_gone(&call(PUSH, 0).0, self.now);
            }
            Step::Does(which, does) => {
                if let Some(there) = self.server.get_mut(&which) {
                    there.0 = does;
                }
            }
            Step::Loses(which) => drop(self.server.remove(&which)),
            Step::RestoreAll => self.restore_all(),
            Step::Limits(per_second, places, revive) => {
                let limits = Limits {
                    per_second,
                    per_origin: places,
                    processes: places,
                    revive: secs(revive),
                    ..self.plan.limits
                };
                self.plan.set_limits(limits, self.now);
            }
        }
        self.check();
    }

    /// Another version, unless told which.
    fn change(&mut self, which: usize, version: Option<u64>, crashes: u32, dark_since: Option<i64>) {
        self.seq += 1;
        self.aside.remove(&which);
        let entry = Entry { seq: self.seq, version: version.unwrap_or(self.seq), crashes, dark_since };
        self.intent.insert(which, entry);
    }

    fn hear(&mut self) {
        let Some((which, existing)) = self.unheard.pop_front() else { return };
        match self.wanted(which) {
            Some(want) => {
                self.startable.insert(which, want.seq);
                self.open.values_mut().filter(|open| open.which == which).for_each(|open| open.is_alone = false);
                self.plan.put_back(want, existing, self.now);
            }
            None => drop(self.server.remove(&which)),
        }
    }

    fn request(&mut self, which: usize, how: fn(&mut Plan, Wanted, Duration)) {
        if let Some(want) = self.wanted(which) {
            self.startable.insert(which, want.seq);
            how(&mut self.plan, want, self.now);
        }
    }

    fn source_came(&mut self) {
        let Some(want) = self.wanted(PUSH) else { return };
        if self.mode != RestoreMode::Off {
            self.startable.insert(PUSH, want.seq);
        }
        self.plan.source_came(want, self.now);
    }

    fn restore_all(&mut self) {
        self.mode = RestoreMode::Eager;
        self.plan.restore_all(self.now);
    }

    fn look(&mut self) {
        self.open.values_mut().filter(|open| self.now >= open.since + LOST).for_each(|open| open.is_alone = false);
        let (now, wall) = (self.now, self.wall());
        self.plan.begin_look(now, wall);
        let wanted: Vec<usize> = self.intent.keys().copied().collect();
        self.startable.retain(|which, seq| self.intent.get(which).is_some_and(|entry| entry.seq == *seq));
        for which in wanted {
            let want = self.wanted(which).unwrap();
            let there = self.server.get(&which).map(|(does, _)| does.clone());
            if self.mode == RestoreMode::Eager || there.is_some() {
                self.startable.insert(which, want.seq);
            }
            self.plan.compare([(want, there)], now, now, wall);
        }
        self.plan.end_look(now);
    }

    fn act(&mut self) {
        for turn in 0.. {
            assert!(turn < 200, "it has no end");
            let Some(action) = self.plan.next(self.now) else { break };
            self.carry_out(action);
            self.check();
        }
        assert!(self.plan.wake_to_start() > self.now, "it would not sleep");
    }

    fn carry_out(&mut self, action: Action) {
        let of = |key: &ProxyKey| key.1.parse::<usize>().unwrap();
        match action {
            Action::Start { call, key, seq, existing, .. } => {
                let which = of(&key);
                assert_eq!(self.startable.get(&which), Some(&seq), "{key:?} was not to be started");
                let twice = |open: &Open| open.which == which && open.seq == seq && open.is_alone;
                assert!(!self.open.values().any(twice), "{key:?} is being started already");
                let entry = self.intent.get(&which).copied().filter(|entry| entry.seq == seq);
                let Some(Entry { version, .. }) = entry else {
                    self.plan.answered(call, Added::Unwanted, self.now, self.wall());
                    return;
                };
                if self.server.contains_key(&which) && existing == Existing::Keep {
                    self.plan.answered(call, Added::Present, self.now, self.wall());
                    return;
                }
                self.open.insert(call, Open { which, seq, version, since: self.now, is_alone: true });
            }
            Action::Note { .. } | Action::Probe { .. } => panic!("none has several URLs"),
            Action::SetAside { key, seq, .. } => {
                let which = of(&key);
                if self.intent.get(&which).is_some_and(|entry| entry.seq == seq) {
                    let entry = self.intent.remove(&which).unwrap();
                    self.aside.insert(which, entry);
                }
            }
            Action::Acquit { key, seq } => {
                if let Some(entry) = self.intent.get_mut(&of(&key)).filter(|entry| entry.seq == seq) {
                    entry.crashes = 0;
                }
            }
            Action::Release { crashes } => {
                for (which, Entry { version, dark_since, .. }) in std::mem::take(&mut self.aside) {
                    self.change(which, Some(version), crashes, dark_since);
                    if self.mode == RestoreMode::Eager {
                        self.startable.insert(which, self.seq);
                    }
                    self.plan.released(self.wanted(which).unwrap(), self.now);
                }
            }
        }
    }

    fn answer(&mut self, call: u64, answer: Added) {
        let Open { which, seq, version, .. } = self.open.remove(&call).unwrap();
        let does = match &answer {
            Added::Accepted => Some(Listed::Playing),
            Added::Connected => Some(Listed::Connecting),
            Added::Retrying(_) => Some(RETRYING),
            _ => None,
        };
        match does {
            Some(does) => {
                self.server.insert(which, (does, version));
                // What was made is not what is wanted by now.
                if self.intent.get(&which).is_none_or(|entry| entry.seq != seq) {
                    self.unheard.push_back((which, Existing::Replace));
                }
            }
            None if matches!(answer, Added::Blocked(_)) => {}
            None => drop(self.server.remove(&which)),
        }
        self.plan.answered(call, answer, self.now, self.wall());
    }

    /// Whoever does what there is, and then sleeps for as long as the plan says, misses nothing.
    fn sleep_until(&mut self, until: Duration) {
        self.act();
        let before = self.plan.wake_to_start().saturating_sub(Duration::from_nanos(1)).min(until);
        if before > self.now {
            let missed = self.plan.next(before);
            assert_eq!(missed, None, "at {before:?}");
        }
        self.now = until;
    }

    // ---- what holds at any time

    fn check(&self) {
        let mut census = PhaseCounts::default();
        let mut parts = [0; 3];
        for (key, proxy) in &self.plan.proxies {
            *census.of(&proxy.phase) += 1;
            match proxy.part {
                Some(Part::Waiting) => parts[0] += 1,
                Some(Part::Started | Part::Connecting) => parts[1] += 1,
                Some(Part::Connected) => parts[2] += 1,
                None => {}
            }
            if let Phase::Connecting { call } = proxy.phase {
                assert_eq!(self.plan.called(call).as_ref(), Some(key), "nobody will answer");
            } else {
                assert_ne!(proxy.part, Some(Part::Started), "no call will tell");
            }
        }
        assert_eq!(self.plan.census(), census);
        let by_kind = Kind::ALL.iter().map(|kind| self.plan.census_of(*kind));
        let playing: usize = by_kind.map(|census| census.playing).sum();
        assert_eq!(playing, census.playing);
        let progress = self.plan.progress();
        assert_eq!([progress.waiting, progress.connecting, progress.connected], parts, "{progress:?}");
        assert_eq!(progress.total, progress.done() + progress.waiting + progress.connecting, "{progress:?}");
    }

    // ---- how it ends

    /// Everything works from now on.
    pub fn ends_well(&mut self) {
        let limits = Limits { per_second: 1000, ..self.plan.limits };
        self.plan.set_limits(limits, self.now);
        while !self.unheard.is_empty() {
            self.hear();
        }
        // Lest what the server has lost just now seems newer than the look at it.
        self.sleep_until(self.now + Duration::from_millis(1));
        self.restore_all();
        self.source_came();
        for turn in 0.. {
            assert!(turn < 2000, "{:?} does not become {:?}", self.server, self.intent);
            if self.plan.wake_to_look() <= self.now {
                self.server.values_mut().for_each(|(does, _)| *does = Listed::Playing);
                self.look();
            }
            self.act();
            for call in self.open.keys().copied().collect::<Vec<_>>() {
                self.answer(call, Added::Accepted);
            }
            while !self.unheard.is_empty() {
                self.hear();
            }
            self.check();
            if self.has_all() && turn > 100 {
                break;
            }
            let wake = self.plan.wake_to_look().min(self.plan.wake_to_start());
            self.sleep_until(wake.max(self.now + Duration::from_millis(1)));
        }
    }

    /// The server has what is wanted, as it is wanted, and the plan knows.
    fn has_all(&self) -> bool {
        let is_circle = CIRCLE.iter().all(|which| self.intent.contains_key(which));
        let startable: BTreeSet<usize> =
            self.intent.keys().copied().filter(|which| !is_circle || !CIRCLE.contains(which)).collect();
        let plays = |which: &usize| {
            let version = self.intent[which].version;
            let known = self.plan.proxies.get(&call(*which, 0).0).map(|proxy| proxy.phase);
            self.server.get(which) == Some(&(Listed::Playing, version)) && known == Some(Phase::Playing)
        };
        startable.iter().all(plays) && self.plan.is_restored()
    }
}
