//! Ties the parts together for one server: settings, journal, capture, reconciler. If the journal cannot be opened,
//! that is its state and not an error: the server runs without it.

mod alert_counts;
mod background;
mod file_status;
mod intent;

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::alert_counts::{AlertCounts, AlertReading};
pub use self::background::{Background, Stop};
pub use self::file_status::FileStatus;
use self::intent::JournaledIntent;
pub use self::intent::MOVED;
use crate::capture::{Capture, HostFacts, Server};
use crate::error::{Code, Error, Result};
use crate::journal::{AppliedMutation, Call, Cause, Done, Journal, Mutation, Persisted, Precondition};
use crate::model::{Existing, Hours, Kind, Op, ProxyKey, State, Stream};
use crate::reconcile::{self, Event, Handle, Host, Limits};
use crate::settings::{RestoreMode, Settings};

/// The default number of proxies started per second and poller thread of the host.
const RATE_PER_THREAD: u64 = 1000;
/// How long a batch waits for the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// The journal of one server, with the parts that work for it. Dropping it closes it.
pub struct Plugin {
    base_dir: PathBuf,
    /// Invalid settings, as messages.
    problems: Mutex<Vec<String>>,
    host_threads: u64,
    journal: Arc<Journal>,
    capture: Arc<Capture>,
    reconciler: Arc<Handle>,
    /// The restore has begun.
    has_begun: AtomicBool,
    alert_counts: AlertCounts,
    file_status: Mutex<Option<FileStatus>>,
}

impl Plugin {
    /// Reads the settings (ini pairs, names without the section) and opens the journal. `host_threads` is the number of
    /// the server's pollers, `facts` decide how its events are read. Blocks on the disk. Fails
    /// with [`Code::Disabled`], or if the journal can never be opened with these settings.
    pub fn open<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        base_dir: &Path,
        host_threads: u64,
        facts: HostFacts,
    ) -> Result<Plugin> {
        let (settings, problems) = Settings::read(pairs, base_dir);
        for problem in &problems {
            log::error!("journal: {problem}");
        }
        if !settings.enable {
            return Err(Error::new(Code::Disabled, "[journal] enable is 0"));
        }
        Hours::prepare();
        let journal = Arc::new(Journal::open(&settings)?);
        let host_threads = host_threads.max(1);
        let (limits, rules) = (limits(&settings, host_threads), facts.rules.clone());
        let capture = Arc::new(Capture::new(Arc::clone(&journal), facts));
        let host = Arc::clone(&capture) as Arc<dyn Host>;
        let intent = Arc::new(JournaledIntent::of(Arc::clone(&journal)));
        Ok(Plugin {
            base_dir: base_dir.to_owned(),
            problems: Mutex::new(problems),
            host_threads,
            capture,
            journal,
            reconciler: Arc::new(reconcile::start(host, intent, limits, rules)?),
            has_begun: AtomicBool::new(false),
            alert_counts: AlertCounts::default(),
            file_status: Mutex::new(None),
        })
    }

    /// Applies the section and the facts after they were read again. Settings that need a restart are reported and not
    /// changed.
    pub fn reload<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>, facts: HostFacts) {
        self.capture.set_facts(facts);
        let (read, mut problems) = Settings::read(pairs, &self.base_dir);
        let now = self.journal.settings();
        let (settings, later) = now.reloaded(read);
        problems.extend(later.iter().map(|name| format!("[journal] {name} takes effect after a restart")));
        let changed = settings != *now;
        if std::mem::replace(&mut *self.problems.lock(), problems.clone()) != problems {
            problems.iter().for_each(|problem| log::error!("journal: {problem}"));
        }
        if changed {
            log::info!("journal: the settings in [journal] were reloaded");
            let limits = limits(&settings, self.host_threads);
            self.journal.set_settings(settings);
            self.reconciler.tell(Event::Limits(limits));
        }
    }

    /// The file to which a handler of crash signals writes what the server was working on.
    pub fn crash_file(&self) -> Result<String> {
        let file = self.journal.paths().crash().into_os_string().into_string();
        file.map_err(|file| Error::invalid(format!("the path {} is not UTF-8", file.display())))
    }

    /// Begins the restore once intent is known. Further calls have no effect.
    pub fn start(&self, server: Box<dyn Server>) {
        if self.has_begun.swap(true, Ordering::AcqRel) {
            return;
        }
        self.capture.set_server(server);
        self.capture.set_reconciler(Arc::clone(&self.reconciler));
        let (undone, loaded) = (Arc::clone(&self.reconciler), Arc::clone(&self.reconciler));
        self.journal
            .on_undone(move |kind, key| undone.tell(Event::Converge((kind, Arc::clone(key)), Existing::Keep)));
        self.journal.on_loaded(move || loaded.tell(Event::Begin));
    }

    /// What proxies are wanted, and their history.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Invalid settings, as messages.
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().clone()
    }

    /// What has become of the watched file; `None` if there is none, or it was not looked at yet.
    pub fn file_status(&self) -> Option<FileStatus> {
        self.file_status.lock().clone()
    }

    /// Notes what has become of the watched file; `None`: no file is watched.
    pub fn set_file_status(&self, status: Option<FileStatus>) {
        *self.file_status.lock() = status;
    }

    /// What has become of the alerts.
    pub fn alert_counts(&self) -> &AlertCounts {
        &self.alert_counts
    }

    /// Handles clients' calls and MediaServer's events.
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Answers an add that cannot be journaled; with `on_error=reject` it is undone.
    pub fn refuse(&self, kind: Kind, key: &str, error: Error, done: Done) {
        let key: ProxyKey = (kind, key.into());
        let ack = self.capture.refusal(&key, error);
        if let Some(reconciler) = self.reconciler().filter(|_| ack.undone) {
            reconciler.tell(Event::Converge(key, Existing::Keep));
        }
        done.call(ack);
    }

    /// Records a call as [`Journal::record`] does. Unless `restore=eager`, an add is also told to the reconciler, which
    /// keeps that proxy running from then on. Any thread, takes microseconds.
    pub fn record(&self, call: Call<'_>, done: Done) {
        let is_told = call.op == Op::Add && self.journal.settings().restore != RestoreMode::Eager;
        let called =
            self.reconciler().filter(|_| is_told).map(|reconciler| (reconciler, (call.kind, call.key.into())));
        self.journal.record(call, done);
        if let Some((reconciler, key)) = called {
            reconciler.tell(Event::Called(key));
        }
    }

    /// A player waits for a stream that the server does not have. Any thread, takes microseconds.
    pub fn stream_not_found(&self, vhost: &str, app: &str, stream: &str) {
        if self.journal.settings().restore != RestoreMode::Off {
            let facts = self.capture.facts();
            let stream = Stream::new(vhost, app, stream, &facts.rules);
            for (kind, key) in self.journal.look(|intent| intent.producers(&stream, &facts.rules)) {
                self.wake(kind, &key, "a player asked for it", Event::Ask);
            }
        }
    }

    /// A source of the server was registered or unregistered: what takes it starts or ends with it. Any thread, takes
    /// microseconds.
    pub fn stream_changed(&self, schema: &str, [vhost, app, stream]: [&str; 3], is_there: bool) {
        let facts = self.capture.facts();
        let stream = Stream::new(vhost, app, stream, &facts.rules);
        self.capture.stream_changed(schema, &stream, is_there);
        let Some(reconciler) = self.reconciler() else { return };
        for (kind, key) in self.journal.look(|intent| intent.takers(schema, &stream, &facts.rules)) {
            if self.journal.wants(kind, &key, 0) {
                reconciler.tell(Event::SourceMoved((kind, key), is_there));
            }
        }
    }

    /// A source of the server has no viewers. Any thread, takes microseconds.
    pub fn stream_unwatched(&self, vhost: &str, app: &str, stream: &str) {
        let facts = self.capture.facts();
        self.capture.nobody_watches(&Stream::new(vhost, app, stream, &facts.rules));
    }

    /// Starts a proxy that is enabled or dormant. Returns false if there is none.
    fn wake(&self, kind: Kind, key: &str, reason: &str, event: fn(ProxyKey) -> Event) -> bool {
        let wanted = self.journal.get(kind, key).is_some_and(|entry| match entry.state {
            State::Enabled => !entry.is_off_hours(self.journal.now_ms()),
            // It may have been enabled by others in the meantime.
            State::Dormant => {
                self.journal.change(kind, key, entry.seq, Op::Set(State::Enabled), reason)
                    || self.journal.wants(kind, key, 0)
            }
            State::Disabled | State::Quarantined => false,
        });
        if let Some(reconciler) = self.reconciler().filter(|_| wanted) {
            reconciler.tell(event((kind, key.into())));
        }
        wanted
    }

    /// Makes many changes, all or none, and makes the server follow. See [`Journal::submit_batch`]. Takes microseconds for
    /// each.
    pub fn want(
        &self,
        mutations: Vec<Mutation>,
        precondition: Option<Precondition<'_>>,
        cause: &Cause,
        done: Done,
    ) -> Result<Vec<AppliedMutation>> {
        let made = self.journal.submit_batch(mutations, precondition, cause, done)?;
        if let Some(reconciler) = self.reconciler() {
            for mutation in &made {
                reconciler.tell(Event::Converge(mutation.key.clone(), self.change(mutation.existing())));
            }
        }
        Ok(made)
    }

    /// The same, and waits until they are on disk. Blocks: not for media threads.
    pub fn change_all(
        &self,
        mutations: Vec<Mutation>,
        precondition: Option<Precondition<'_>>,
        cause: &Cause,
    ) -> Result<Changed> {
        let (told, ack) = mpsc::channel();
        let done = Done::new(move |ack| drop(told.send(ack)));
        let made = self.want(mutations, precondition, cause, done)?;
        let ack = ack.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            Error::storage("the disk has not answered yet: the changes are valid, and are written later").into()
        });
        let result = match ack.result {
            Err(error) if ack.undone => return Err(error),
            result => result,
        };
        let seq = made.last().map_or_else(|| self.journal.seq(), |last| last.seq);
        Ok(Changed { count: made.len(), seq, result })
    }

    /// How this server makes a change of a proxy that it has.
    pub fn change(&self, existing: Existing) -> Existing {
        match existing {
            Existing::Update if !self.capture.can_update() => Existing::Replace,
            existing => existing,
        }
    }

    /// Starts the enabled proxies that are missing, or those with one key, which may also be dormant, whatever the mode
    /// of the restore. Returns the number of proxies concerned.
    pub fn restore(&self, only: Option<&str>) -> Result<u64> {
        let reconciler = self
            .reconciler()
            .ok_or_else(|| Error::new(Code::Closed, "the server is still starting; try again later"))?;
        let Some(key) = only else {
            reconciler.tell(Event::RestoreAll);
            let off_hours = self.journal.off_hours(self.journal.now_ms()).count();
            return Ok(self.journal.look(|intent| intent.count(State::Enabled)).saturating_sub(off_hours as u64));
        };
        let started = Kind::ALL.iter().filter(|kind| self.wake(**kind, key, "restoreJournal", Event::StartNow));
        Ok(started.count() as u64)
    }

    /// `None` before the restore has begun.
    pub fn reconciler(&self) -> Option<&Handle> {
        self.has_begun.load(Ordering::Acquire).then_some(&*self.reconciler)
    }

    /// Ends the reconciler, then the journal, after writing and acknowledging the queue, then all open calls.
    pub fn close(&self) {
        self.reconciler.stop();
        self.journal.close();
        self.capture.close();
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.close();
    }
}

fn limits(settings: &Settings, host_threads: u64) -> Limits {
    Limits {
        mode: settings.restore,
        per_second: match settings.restore_rate {
            0 => RATE_PER_THREAD * host_threads,
            rate => rate,
        },
        per_origin: settings.restore_per_origin,
        processes: settings.restore_ffmpeg_parallel,
        revive: settings.revive,
        failover: settings.failover,
        seed: RandomState::new().hash_one(()),
    }
}

/// The result of a batch.
#[derive(Debug)]
pub struct Changed {
    /// How many changes were made; what already was as asked is not counted.
    pub count: usize,
    /// The last change of the batch, or of the journal if the batch changed nothing.
    pub seq: u64,
    /// Whether the changes are on disk.
    pub result: Result<Persisted>,
}
