//! The driver: one thread that carries out the plan and reports progress. Knows the host and intent only as traits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::host::{Added, Host, Intent, Listed, UsedUrl, Wanted};
use super::plan::{Action, Limits, Plan};
use super::probe::Prober;
use super::progress::{Progress, SourceReport};
use super::proxy::{PhaseCounts, Unhealthy, UnhealthyProxy};
use crate::error::{Code, Error, Result};
use crate::model::{Existing, Kind, NamingRules, ProxyKey, redact_reason, redact_value};

/// Hours begin and end as the clock on the wall says, which may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// The number of proxies compared at once: a larger page would make others wait and use more memory.
const PAGE: usize = 256;
/// The number of hosts with the most failures that are logged at the end.
const WORST: usize = 5;

/// What the reconciler is told.
pub enum Event {
    /// Start the first pass. The host may be called from then on, so it must know the handle.
    Begin,
    /// The host's answer to an add.
    Added(u64, Added),
    /// What the server has has changed: compare soon.
    Look,
    /// The server gave up a proxy, which was removed; for the counts.
    GivenUp,
    /// Bring the server to intent for this proxy, and do this with what it has.
    Converge(ProxyKey, Existing),
    /// A player waits for this proxy.
    Ask(ProxyKey),
    /// An operator starts this proxy.
    StartNow(ProxyKey),
    /// A client has added this proxy. Needed if `mode` is not `Eager`.
    Called(ProxyKey),
    /// The media of this proxy have arrived, or stopped.
    MediaChanged(ProxyKey),
    /// The stream that this proxy takes from the server was registered (true) or unregistered.
    SourceMoved(ProxyKey, bool),
    /// Whether a URL answers, by the ticket of its probe.
    Probed(u64, bool),
    /// Start every enabled proxy that is missing, whatever the mode.
    RestoreAll,
    /// Apply other limits, except the mode.
    Limits(Limits),
    /// See [`Handle::stop`].
    Stop,
}

/// A running reconciler. Stop it before the host is destroyed.
pub struct Handle {
    events: Sender<Event>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Shared between the thread and its handle.
struct Shared {
    /// Held while one page of proxies is compared, never while a file is written: events and the status wait for it.
    plan: Mutex<Plan>,
    began: Mutex<Instant>,
    last_error: Mutex<Option<String>>,
    look_is_due: AtomicBool,
}

/// The state of the reconciler, for operators.
#[derive(Debug, Clone, Default)]
pub struct ReconcileStatus {
    /// The counts of the restore.
    pub progress: Progress,
    /// Whether every proxy of the restore has a result. False before the restore has begun.
    pub finished: bool,
    /// What the proxies that should run do now.
    pub now: PhaseCounts,
    /// Pulls that play from a backup URL, or did so last.
    pub on_backup: usize,
    /// The duration of the restore so far, or in total.
    pub elapsed: Duration,
    /// Proxies done per second, recently.
    pub rate: f64,
    /// The time until the restore is done at the recent pace; `None` if that is not known.
    pub eta: Option<Duration>,
    /// The hosts with the most failures in the restore, the worst first; at most 5.
    pub worst: Vec<SourceReport>,
    /// Proxies that do not play, those with the most attempts first; or only the one that was asked for.
    pub troubles: Vec<UnhealthyProxy>,
    /// The error of the last start that failed, or that a bug has ended the reconciler; `None` if there was none.
    pub last_error: Option<String>,
}

impl Handle {
    /// Any thread. If the reconciler has ended, nobody needs the event.
    pub fn tell(&self, event: Event) {
        // One `Look` is enough until it is handled.
        if !matches!(event, Event::Look) || !self.shared.look_is_due.swap(true, Ordering::AcqRel) {
            let _ = self.events.send(event);
        }
    }

    /// The status, with at most `most` of the proxies that do not play, or only with the one of this key.
    pub fn shown(&self, only: Option<&str>, most: usize) -> ReconcileStatus {
        let plan = self.shared.plan.lock();
        let now = self.shared.began.lock().elapsed();
        ReconcileStatus {
            progress: plan.progress().clone(),
            finished: plan.is_restored(),
            now: plan.census(),
            on_backup: plan.on_backup(),
            elapsed: plan.meter().elapsed(now),
            rate: plan.meter().rate(now),
            eta: plan.eta(now),
            worst: plan.worst(WORST),
            troubles: plan.unhealthy(only, most, now),
            last_error: self.shared.last_error.lock().clone(),
        }
    }

    /// What each of these does, whether it plays or not; `None` for those that should not run.
    pub fn shown_of<'a>(&self, keys: impl Iterator<Item = &'a ProxyKey>) -> Vec<Option<UnhealthyProxy>> {
        let plan = self.shared.plan.lock();
        plan.shown(keys, self.shared.began.lock().elapsed())
    }

    /// Looks at all proxies that do not play, while no event is handled: for a millisecond or so.
    pub fn troubles<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = Unhealthy<'_>>) -> T) -> T {
        look(&mut self.shared.plan.lock().troubles())
    }

    /// The counts by kind, in the order of the table of kinds.
    pub fn census(&self) -> Vec<(Kind, PhaseCounts)> {
        let plan = self.shared.plan.lock();
        Kind::ALL.iter().map(|kind| (*kind, plan.census_of(*kind))).collect()
    }

    /// Ends the thread. Nothing is started any more when this returns.
    pub fn stop(&self) {
        self.tell(Event::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("journal: the reconciler panicked");
        }
    }
}

/// Starts the reconciler, which then waits for [`Event::Begin`]. Not on a poller of MediaServer: the thread would inherit
/// its real-time priority and processor. It ends when the handle is dropped.
pub fn start(host: Arc<dyn Host>, intent: Arc<dyn Intent>, limits: Limits, rules: NamingRules) -> Result<Handle> {
    let (sender, events) = channel();
    let began = Instant::now();
    let shared = Arc::new(Shared {
        plan: Mutex::new(Plan::new(limits, rules)),
        began: Mutex::new(began),
        last_error: Mutex::new(None),
        look_is_due: AtomicBool::new(false),
    });
    let of_thread = Arc::clone(&shared);
    let probed = sender.clone();
    let prober = Prober::new(move |ticket, answer| drop(probed.send(Event::Probed(ticket, answer.is_ok()))));
    let thread = thread::Builder::new()
        .name("zlmj-reconcile".to_owned())
        .spawn(move || {
            let shared = Arc::clone(&of_thread);
            let driver = Driver {
                host,
                intent,
                events,
                prober,
                shared: of_thread,
                began,
                next_line: SECOND,
                reported: false,
            };
            if catch_unwind(AssertUnwindSafe(|| driver.run())).is_err() {
                let error =
                    "the reconciler panicked: nothing is restored or started until the server is restarted";
                log::error!("journal: {error}");
                *shared.last_error.lock() = Some(error.to_owned());
            }
        })
        .map_err(|error| Error::new(Code::Storage, format!("cannot start the reconciler: {error}")))?;
    Ok(Handle { events: sender, shared, thread: Mutex::new(Some(thread)) })
}

struct Driver {
    host: Arc<dyn Host>,
    intent: Arc<dyn Intent>,
    events: Receiver<Event>,
    prober: Prober,
    shared: Arc<Shared>,
    began: Instant,
    next_line: Duration,
    reported: bool,
}

impl Driver {
    fn run(mut self) {
        let mut early = Vec::new();
        loop {
            match self.events.recv() {
                Ok(Event::Begin) => break,
                Ok(Event::Stop) | Err(_) => return,
                Ok(event) => early.push(event),
            }
        }
        self.began = Instant::now();
        *self.shared.began.lock() = self.began;
        let count = self.shared.plan.lock().expect(self.intent.count());
        self.host.expect(count);
        for event in early {
            self.take(event);
        }
        self.carry_on();
        let dark = self.shared.plan.lock().dark().collect();
        self.intent.dark(dark);
    }

    fn carry_on(&mut self) {
        loop {
            let now = self.began.elapsed();
            self.turn(now);
            self.look_if_due(now);
            self.act(now);
            self.report(now);
            let wait = self.wake().saturating_sub(self.began.elapsed());
            match self.events.recv_timeout(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)) {
                Ok(event) => {
                    if !self.take(event) {
                        return;
                    }
                    // Handle everything that has come in before the next turn.
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

    fn wake(&self) -> Duration {
        let line = if self.reported { Duration::MAX } else { self.next_line };
        let plan = self.shared.plan.lock();
        line.min(plan.wake_to_start()).min(plan.wake_to_look())
    }

    /// Ends what is outside of its hours, and starts what is within them again.
    fn turn(&mut self, now: Duration) {
        for key in self.intent.turned() {
            match self.intent.wants(&key) {
                Some(want) => self.shared.plan.lock().hours_began(want, now),
                None => self.host.remove(key),
            }
        }
    }

    // ---- comparing

    fn look_if_due(&mut self, now: Duration) {
        if self.shared.plan.lock().wake_to_look() > now {
            return;
        }
        // Changes from now on need another comparison.
        self.shared.look_is_due.store(false, Ordering::Release);
        self.shared.plan.lock().begin_look(self.began.elapsed(), self.intent.now_ms());
        let mut wanted = self.intent.wanted();
        loop {
            let page: Vec<Wanted> = wanted.by_ref().take(PAGE).collect();
            if page.is_empty() {
                break;
            }
            let asked = self.began.elapsed();
            let keys: Vec<&ProxyKey> = page.iter().map(|want| &want.key).collect();
            let actual = self.host.actual(&keys);
            let (said, wall) = (self.began.elapsed(), self.intent.now_ms());
            self.shared.plan.lock().compare(page.into_iter().zip(actual), asked, said, wall);
        }
        let dark = {
            let mut plan = self.shared.plan.lock();
            plan.end_look(self.began.elapsed());
            plan.dark().collect()
        };
        self.intent.dark(dark);
    }

    // ---- acting

    fn act(&mut self, now: Duration) {
        loop {
            let Some(action) = self.shared.plan.lock().next(now) else { return };
            match action {
                Action::Start { call, key, seq, existing, url } => match self.intent.add(&key, seq, existing, url)
                {
                    Some(add) => self.host.add(call, add),
                    None => self.answered(call, Added::Unwanted),
                },
                Action::SetAside { key, seq, why } => {
                    let until = match self.intent.set_aside(&key, seq, &why) {
                        true => "until you release it: it was released once before, and the server crashed again",
                        false => "until a start without it has gone well, or until you release it",
                    };
                    log::error!(
                        "journal: {} {} is quarantined: {why}. It is not started {until}",
                        key.0.name(),
                        key.1
                    );
                }
                Action::Note { key, seq, used } => {
                    let UsedUrl { url, number, why, error, .. } = &used;
                    let (kind, name, url) = (key.0.name(), &key.1, redact_value(url));
                    log::warn!("journal: {kind} {name} plays from its URL {number}, {url}: {why} {error}");
                    let noted = self.intent.note_url(&key, seq, used);
                    self.shared.plan.lock().noted(&key, seq, noted, now);
                }
                Action::Probe { ticket, url } => self.prober.probe(ticket, url),
                Action::Acquit { key, seq } => self.intent.acquit(&key, seq),
                Action::Release { crashes } => self.release(crashes, now),
            }
        }
    }

    fn release(&mut self, crashes: u32, now: Duration) {
        for key in self.intent.release(crashes) {
            log::warn!(
                "journal: {} {} was quarantined, and the server started well without it: it is tried once more, alone",
                key.0.name(),
                key.1
            );
            self.if_wanted(&key, |plan, want| plan.released(want, now));
        }
    }

    fn answered(&mut self, call: u64, mut answer: Added) {
        let (now, wall) = (self.began.elapsed(), self.intent.now_ms());
        if let Some(why) = answer.why() {
            *why = self.without_secrets(call, why);
        }
        if let Added::Retrying(why) | Added::Failed(why) | Added::Threw(why) = &answer {
            *self.shared.last_error.lock() = Some(why.clone());
        }
        self.shared.plan.lock().answered(call, answer, now, wall);
    }

    /// Error messages of the server may contain URLs or parts of them.
    fn without_secrets(&self, call: u64, why: &str) -> String {
        let key = self.shared.plan.lock().called(call);
        match key.and_then(|key| self.intent.wants(&key)) {
            Some(want) => redact_reason(why, &want.args.read()),
            // The secrets to remove are no longer known.
            None => "it failed after it was removed or disabled".to_owned(),
        }
    }

    /// Handles an event; returns false for `Stop`.
    fn take(&mut self, event: Event) -> bool {
        let now = self.began.elapsed();
        match event {
            Event::Stop => return false,
            Event::Begin => {}
            Event::Added(call, answer) => self.answered(call, answer),
            Event::Converge(key, existing) => match self.intent.wants(&key) {
                Some(want) => self.shared.plan.lock().put_back(want, existing, now),
                None => self.host.remove(key),
            },
            Event::Ask(key) => self.if_wanted(&key, |plan, want| plan.ask_for(want, now)),
            Event::StartNow(key) => self.if_wanted(&key, |plan, want| plan.start_now(want, now)),
            Event::Called(key) => self.if_wanted(&key, |plan, want| plan.called_for(want, now)),
            // By now, it may be otherwise again.
            Event::MediaChanged(key) => match self.host.actual(&[&key]).pop().flatten() {
                Some(Listed::Playing) => self.shared.plan.lock().media_came(&key, now, self.intent.now_ms()),
                Some(there @ Listed::Retrying { .. }) => {
                    let wall = self.intent.now_ms();
                    self.if_wanted(&key, |plan, want| plan.media_went(&want, &there, now, wall));
                }
                Some(Listed::Connecting) | None => {}
            },
            Event::SourceMoved(key, true) => self.if_wanted(&key, |plan, want| plan.source_came(want, now)),
            Event::SourceMoved(key, false) => self.shared.plan.lock().source_gone(&key, now),
            Event::Probed(ticket, answers) => self.shared.plan.lock().probed(ticket, answers, now),
            Event::Limits(limits) => self.shared.plan.lock().set_limits(limits, now),
            Event::RestoreAll => {
                self.reported = false;
                self.next_line = now + SECOND;
                self.shared.plan.lock().restore_all(now);
            }
            Event::Look => self.shared.plan.lock().look_by(now),
            Event::GivenUp => self.shared.plan.lock().given_up(),
        }
        true
    }

    fn if_wanted(&self, key: &ProxyKey, act: impl FnOnce(&mut Plan, Wanted)) {
        if let Some(want) = self.intent.wants(key) {
            act(&mut self.shared.plan.lock(), want);
        }
    }

    // ---- reporting

    /// Logs a line per second during a restore, and the totals and worst hosts at its end.
    fn report(&mut self, now: Duration) {
        if self.reported {
            return;
        }
        let plan = self.shared.plan.lock();
        let Progress { total, started, live, failing, connecting, waiting, .. } = *plan.progress();
        if plan.is_restored() {
            self.reported = true;
            let Progress { present, connected, blocked, unwanted, quarantined, .. } = *plan.progress();
            log::info!(
                "journal: restored {total} proxies in {:.2} s: {live} play, {connected} have connected but sent \
                 nothing yet, {failing} fail and are retried, {blocked} are blocked, {present} were already there, \
                 {unwanted} are no longer wanted, {quarantined} are quarantined",
                plan.meter().elapsed(now).as_secs_f64(),
            );
            for source in plan.worst(WORST) {
                let SourceReport { host, total, failing, last_error } = source;
                let host = if host.is_empty() { "(no host)" } else { &host };
                log::warn!("journal: {failing} of {total} proxies at {host} fail; last error: {last_error}");
            }
        } else if now >= self.next_line {
            self.next_line = now + SECOND;
            let left = plan.eta(now).map_or("?".to_owned(), |eta| format!("{:.0}", eta.as_secs_f64().ceil()));
            log::info!(
                "journal: restoring {total} proxies: {started} started, {live} playing, {failing} failing, \
                 {connecting} connecting, {waiting} waiting; {:.0} per second, {left} s left",
                plan.meter().rate(now),
            );
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
