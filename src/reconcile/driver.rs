//! The driver: one thread that carries the plan out, at the pace it is given, and says how far it is. Knows the
//! host only through its trait, and intent only through another.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::plan::{Key, MOST_DEATHS, Plan, Wanted};
use super::{Add, Added, Host, Progress};
use crate::error::{Code, Error, Result};
use crate::record::Kind;

/// Intent, as the driver needs it.
pub trait Intent: Send + Sync {
    /// All that is to run, in the order to start it.
    fn wanted(&self) -> Vec<Wanted>;
    /// The change by which it is to run; none where it is not.
    fn wants(&self, key: &Key) -> Option<u64>;
    /// The call that starts it; none when it is no longer wanted as change `seq` left it.
    fn add(&self, key: &Key, seq: u64) -> Option<Add>;
    /// It is about to be started: should the server die of it, the next one is to know.
    fn begins(&self, seq: u64);
    /// The server has lived through that.
    fn survived(&self, seq: u64);
    /// It is not to be started any more, for that reason.
    fn quarantine(&self, key: &Key, seq: u64, reason: &str);
    /// The server ends as it should.
    fn clean_end(&self);
}

/// How fast and how often.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Whether what is missing is started at all. If not, only calls that were undone are seen to.
    pub restore: bool,
    /// Proxies started a second, at least 1.
    pub per_second: u64,
    /// How often the server is asked what it has while something has failed, and the first pause after a failed
    /// attempt. Zero: one pass only.
    pub revive: Duration,
}

/// A listing that was not answered in this time is asked for again.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Starts go out in bursts this far apart, for that a thread can sleep between them.
const BURST: Duration = Duration::from_millis(5);
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

enum Event {
    Begin,
    Added(u64, Added),
    Listed(u64, Result<Vec<String>>),
    Converge(Key),
    Stop,
}

/// A running reconciler. Stop it before the host goes away.
pub struct Handle {
    events: Sender<Event>,
    shown: Arc<Mutex<Shown>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What others may look at.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub progress: Progress,
    /// Since the start, until the first pass was over.
    pub elapsed: Duration,
    pub last_error: Option<String>,
}

impl Handle {
    /// Lets the first pass begin. The host may be called from here on, so it must know this handle by now.
    pub fn begin(&self) {
        let _ = self.events.send(Event::Begin);
    }

    /// Takes the host's answer to an add. Any thread.
    pub fn added(&self, call: u64, answer: Added) {
        // Once the thread has ended nobody wants to know.
        let _ = self.events.send(Event::Added(call, answer));
    }

    /// Takes the host's answer to a listing. Any thread.
    pub fn listed(&self, call: u64, keys: Result<Vec<String>>) {
        let _ = self.events.send(Event::Listed(call, keys));
    }

    /// Brings the server back to intent for one proxy, whose call was undone. Any thread.
    pub fn converge(&self, key: Key) {
        let _ = self.events.send(Event::Converge(key));
    }

    pub fn shown(&self) -> Shown {
        self.shown.lock().clone()
    }

    /// Ends the thread. Nothing is dispatched any more when this returns.
    pub fn stop(&self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("journal: the reconciler ended in a panic");
        }
    }
}

/// Starts the reconciler's thread, which waits for [`Handle::begin`].
pub fn start(host: Arc<dyn Host>, intent: Arc<dyn Intent>, pace: Pace) -> Result<Arc<Handle>> {
    let (sender, receiver) = channel();
    let shown = Arc::new(Mutex::new(Shown::default()));
    let driver = Driver {
        host,
        intent,
        pace,
        events: receiver,
        shown: Arc::clone(&shown),
        plan: Plan::new(pace.revive),
        began: Instant::now(),
        calls: 0,
        listing: None,
        listed: HashSet::new(),
        next_pass: Duration::ZERO,
        next_burst: Duration::ZERO,
        next_line: SECOND,
        reported: false,
    };
    let thread = thread::Builder::new()
        .name("zlmj-reconcile".to_owned())
        .spawn(move || driver.run())
        .map_err(|error| Error::new(Code::Storage, format!("cannot start the reconciler: {error}")))?;
    Ok(Arc::new(Handle { events: sender, shown, thread: Mutex::new(Some(thread)) }))
}

struct Driver {
    host: Arc<dyn Host>,
    intent: Arc<dyn Intent>,
    pace: Pace,
    events: Receiver<Event>,
    shown: Arc<Mutex<Shown>>,
    plan: Plan,
    began: Instant,
    calls: u64,
    /// The listing under way: which call, which kind (by its place in the table), since when.
    listing: Option<(u64, usize, Duration)>,
    listed: HashSet<Key>,
    next_pass: Duration,
    next_burst: Duration,
    next_line: Duration,
    reported: bool,
}

impl Driver {
    fn run(mut self) {
        let mut undone = Vec::new();
        loop {
            match self.events.recv() {
                Ok(Event::Begin) => break,
                Ok(Event::Stop) | Err(_) => return,
                Ok(event) => undone.push(event),
            }
        }
        self.began = Instant::now();
        for event in undone {
            self.take(event);
        }
        self.carry_on();
        self.intent.clean_end();
    }

    fn carry_on(&mut self) {
        loop {
            let now = self.began.elapsed();
            self.list_if_due(now);
            self.dispatch(now);
            self.show(now);
            let wait = self.next_wake().saturating_sub(self.began.elapsed());
            match self.events.recv_timeout(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)) {
                Ok(event) => {
                    if !self.take(event) {
                        return;
                    }
                    // All that has come in meanwhile, before the next turn.
                    while let Ok(event) = self.events.try_recv() {
                        if !self.take(event) {
                            return;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn next_wake(&self) -> Duration {
        let mut wake = if self.reported { Duration::MAX } else { self.next_line };
        if self.plan.has_due() {
            wake = wake.min(self.next_burst);
        }
        match self.listing {
            Some((_, _, since)) => wake.min(since + LIST_TIMEOUT),
            None if self.pace.restore && self.plan.is_unsettled() => wake.min(self.next_pass),
            None => wake,
        }
    }

    fn list_if_due(&mut self, now: Duration) {
        match self.listing {
            Some((_, kind, since)) if now >= since + LIST_TIMEOUT => {
                self.fault("the server did not say in time which proxies it has".to_owned());
                self.list(kind, now);
            }
            None if self.is_pass_due(now) => {
                self.listed.clear();
                self.list(0, now);
            }
            _ => {}
        }
    }

    fn is_pass_due(&self, now: Duration) -> bool {
        self.pace.restore && now >= self.next_pass && !self.plan.has_due() && self.plan.is_unsettled()
    }

    fn list(&mut self, kind: usize, now: Duration) {
        if let Some(&which) = Kind::ALL.get(kind) {
            self.calls += 1;
            self.listing = Some((self.calls, kind, now));
            self.host.list(self.calls, which);
            return;
        }
        // Every kind is listed: compare.
        self.listing = None;
        self.next_pass = if self.pace.revive.is_zero() { Duration::MAX } else { now + self.pace.revive };
        let mut wanted = self.intent.wanted();
        wanted.retain(|want| {
            let bearable = want.deaths < MOST_DEATHS;
            if !bearable {
                self.quarantine(
                    &want.key,
                    want.seq,
                    &format!("the server died {} times as it started", want.deaths),
                );
            }
            bearable
        });
        self.plan.observe(wanted, &self.listed, now);
        self.next_burst = now;
    }

    fn dispatch(&mut self, now: Duration) {
        if now < self.next_burst || !self.plan.has_due() {
            return;
        }
        let burst = (self.pace.per_second * BURST.as_millis() as u64).div_ceil(1000).max(1);
        for _ in 0..burst {
            let Some((key, seq)) = self.plan.next(now) else { break };
            let Some(add) = self.intent.add(&key, seq) else {
                self.plan.skipped();
                continue;
            };
            self.calls += 1;
            self.plan.started(self.calls, key, seq, now);
            self.intent.begins(seq);
            self.host.add(self.calls, add);
        }
        self.next_burst = now
            + SECOND * u32::try_from(burst).unwrap_or(u32::MAX)
                / u32::try_from(self.pace.per_second).unwrap_or(u32::MAX).max(1);
    }

    /// False when it was the word to stop.
    fn take(&mut self, event: Event) -> bool {
        let now = self.began.elapsed();
        match event {
            Event::Stop => return false,
            Event::Begin => {}
            Event::Added(call, answer) => {
                let why = match &answer {
                    Added::Failed(why) | Added::Threw(why) => Some(why.clone()),
                    Added::Accepted | Added::Unwanted => None,
                };
                if let Some((key, seq, unbearable)) = self.plan.answered(call, &answer, now) {
                    self.intent.survived(seq);
                    if unbearable {
                        let why = why.as_deref().unwrap_or_default();
                        self.quarantine(
                            &key,
                            seq,
                            &format!("the server threw {MOST_DEATHS} times running: {why}"),
                        );
                    }
                }
                if why.is_some() {
                    self.shown.lock().last_error = why;
                }
            }
            Event::Converge(key) => match self.intent.wants(&key) {
                Some(seq) => self.plan.want(key, seq),
                None => self.host.remove(key.0, key.1),
            },
            Event::Listed(call, keys) => {
                let Some((current, kind, _)) = self.listing else { return true };
                if current != call {
                    return true;
                }
                match (keys, Kind::ALL.get(kind)) {
                    (Ok(keys), Some(&which)) => {
                        self.listed.extend(keys.into_iter().map(|key| (which, key.into())));
                        self.list(kind + 1, now);
                    }
                    // Without a listing nothing may be concluded; ask again when its time is up.
                    (Err(error), _) => self.fault(format!("the server cannot list its proxies: {error}")),
                    (Ok(_), None) => {}
                }
            }
        }
        true
    }

    fn quarantine(&mut self, key: &Key, seq: u64, reason: &str) {
        log::error!(
            "journal: {} {} is set aside (state quarantined): {reason}. It is started no more until it is added again",
            key.0.name(),
            key.1
        );
        self.plan.quarantined();
        self.intent.quarantine(key, seq, reason);
    }

    fn fault(&mut self, message: String) {
        log::warn!("journal: {message}");
        self.shown.lock().last_error = Some(message);
    }

    /// Publishes the progress; a line a second in the log while the first pass lasts, and one at its end.
    fn show(&mut self, now: Duration) {
        let progress = self.plan.progress();
        if !self.reported {
            let seconds = now.as_secs_f64();
            if progress.finished {
                self.reported = true;
                log::info!(
                    "journal: restored {} proxies in {seconds:.2} s: {} play, {} do not answer and are retried, {} \
                     were there already, {} no longer wanted, {} set aside",
                    progress.total,
                    progress.live,
                    progress.failing,
                    progress.present,
                    progress.unwanted,
                    progress.quarantined,
                );
            } else if now >= self.next_line {
                self.next_line = now + SECOND;
                log::info!(
                    "journal: restoring {} proxies: {} started, {} play, {} failing, {} connecting, {} waiting",
                    progress.total,
                    progress.started,
                    progress.live,
                    progress.failing,
                    progress.connecting,
                    progress.waiting,
                );
            }
        }
        let mut shown = self.shown.lock();
        if !shown.progress.finished {
            shown.elapsed = now;
        }
        shown.progress = progress;
    }
}
