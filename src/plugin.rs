//! Ties the parts together for one server: settings, journal, reconciler.
//! A journal that cannot be opened is a state of the journal, not an error: the server runs on, and is told why.

mod intent;

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use self::intent::JournaledIntent;
use crate::capture::{Capture, HostFacts, Server};
use crate::error::{Code, Error, Result};
use crate::journal::{Ack, AppliedMutation, Call, Cause, Done, Journal, Mutation, Persisted, Precondition};
use crate::model::url::OwnAddress;
use crate::model::{Kind, Op, ProxyKey, State, Stream};
use crate::reconcile::{self, Handle, Host, Limits};
use crate::settings::{RestoreMode, Settings};

/// Proxies started a second for each poller thread of the host, where the ini leaves it open.
const RATE_PER_THREAD: u64 = 1000;
/// Whoever makes many changes waits so long for the disk.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Plugin {
    base_dir: PathBuf,
    /// What is wrong with the settings.
    problems: Mutex<Vec<String>>,
    host_threads: u64,
    own: OwnAddress,
    journal: Arc<Journal>,
    capture: Arc<Capture>,
    /// Until the restore begins.
    idle: Mutex<Option<reconcile::Idle>>,
    reconciler: OnceLock<Arc<Handle>>,
}

impl Plugin {
    /// Reads the settings (ini pairs without the section) and opens the journal. `host_threads` is how many pollers the
    /// server has, `own` where it can be reached, `facts` how its events are to be read. Blocks on the disk. Fails with [`Code::Disabled`], and where no journal
    /// can ever be had with these settings.
    pub fn open<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        base_dir: &Path,
        host_threads: u64,
        own: OwnAddress,
        facts: HostFacts,
    ) -> Result<Plugin> {
        let (settings, problems) = Settings::read(pairs, base_dir);
        for problem in &problems {
            log::error!("journal: {problem}");
        }
        if !settings.enable {
            return Err(Error::new(Code::Disabled, "[journal] enable is 0"));
        }
        let journal = Arc::new(Journal::open(&settings)?);
        let host_threads = host_threads.max(1);
        Ok(Plugin {
            base_dir: base_dir.to_owned(),
            problems: Mutex::new(problems),
            host_threads,
            own,
            capture: Arc::new(Capture::new(Arc::clone(&journal), facts)),
            journal,
            idle: Mutex::new(Some(reconcile::Idle::spawn()?)),
            reconciler: OnceLock::new(),
        })
    }

    /// What of the host's own settings decides how its events are read; at the start, and as often as these change.
    pub fn set_facts(&self, facts: HostFacts) {
        self.capture.set_facts(facts);
    }

    /// Takes the section as it was read again. What cannot change while the server runs is told and stays as it is.
    pub fn reload<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
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
            let limits = self.limits(&settings);
            self.journal.set_settings(settings);
            if let Some(reconciler) = self.reconciler() {
                reconciler.set_limits(limits);
            }
        }
    }

    fn limits(&self, settings: &Settings) -> Limits {
        Limits {
            mode: settings.restore,
            per_second: match settings.restore_rate {
                0 => RATE_PER_THREAD * self.host_threads,
                rate => rate,
            },
            per_origin: settings.restore_per_origin,
            processes: settings.restore_ffmpeg_parallel,
            revive: settings.revive,
            // Random for each process.
            seed: RandomState::new().hash_one(()),
        }
    }

    /// Where a crash signal's handler is to note what the server was working on.
    pub fn crash_file(&self) -> Result<String> {
        let file = self.journal.crash_file().into_os_string().into_string();
        file.map_err(|file| Error::invalid(format!("the path {} is not UTF-8", file.display())))
    }

    /// Begins the restore, once intent is known. Once; later calls do nothing.
    pub fn start(&self, server: Box<dyn Server>) -> Result<()> {
        let Some(idle) = self.idle.lock().take() else { return Ok(()) };
        let limits = self.limits(&self.journal.settings());
        let intent = Arc::new(JournaledIntent::of(Arc::clone(&self.journal)));
        let host: Arc<dyn Host> = Arc::clone(&self.capture) as Arc<dyn Host>;
        let handle = reconcile::start(idle, host, intent, limits, self.own.clone())?;
        let handle = Arc::clone(self.reconciler.get_or_init(|| handle));
        self.capture.set_server(server);
        self.capture.set_reconciler(Arc::clone(&handle));
        let undone = Arc::clone(&handle);
        self.journal.on_undone(move |kind, key| undone.converge((kind, Arc::clone(key))));
        self.journal.on_loaded(move || handle.begin());
        Ok(())
    }

    /// What is wanted, and what has become of it.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().clone()
    }

    /// Where calls on their way through and MediaServer's events go.
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Answers an add that no journal can hold; with `on_error=reject` it is undone.
    pub fn refuse(&self, kind: Kind, key: &str, error: Error, done: Done) {
        let key: ProxyKey = (kind, key.into());
        let ack = self.capture.refusal(&key, error);
        if let Some(reconciler) = self.reconciler().filter(|_| ack.undone) {
            reconciler.converge(key);
        }
        done.call(ack);
    }

    /// See [`Journal::record`].
    pub fn record(&self, call: Call<'_>, done: Done) {
        let is_told = call.op == Op::Add && self.journal.settings().restore != RestoreMode::Eager;
        let called =
            self.reconciler().filter(|_| is_told).map(|reconciler| (reconciler, (call.kind, call.key.into())));
        self.journal.record(call, done);
        if let Some((reconciler, key)) = called {
            reconciler.called_for(key);
        }
    }

    /// A player waits for a stream that the server does not have. Any thread, takes microseconds.
    pub fn stream_not_found(&self, vhost: &str, app: &str, stream: &str) {
        if self.journal.settings().restore != RestoreMode::Off {
            let facts = self.capture.facts();
            let stream = Stream::new(vhost, app, stream, &facts.rules);
            for (kind, key) in self.journal.producers(&stream, &facts.rules) {
                self.wake(kind, &key, "a player asked for it");
            }
        }
    }

    /// A source of the server has come or gone. What takes it starts and ends with it. Any thread, takes microseconds.
    pub fn stream_changed(&self, schema: &str, [vhost, app, stream]: [&str; 3], is_there: bool) {
        let facts = self.capture.facts();
        let stream = Stream::new(vhost, app, stream, &facts.rules);
        self.capture.stream_changed(schema, &stream, is_there);
        let Some(reconciler) = self.reconciler() else { return };
        for (kind, key) in self.journal.takers(schema, &stream, &facts.rules) {
            if self.journal.wants(kind, &key, 0) {
                reconciler.source_moved((kind, key), is_there);
            }
        }
    }

    /// Nobody watches a source of the server. Any thread, takes microseconds.
    pub fn stream_unwatched(&self, vhost: &str, app: &str, stream: &str) {
        let facts = self.capture.facts();
        self.capture.nobody_watches(&Stream::new(vhost, app, stream, &facts.rules));
    }

    /// Has a proxy started that is enabled or dormant. False where there is none.
    fn wake(&self, kind: Kind, key: &str, reason: &str) -> bool {
        let wanted = self.journal.get(kind, key).is_some_and(|entry| match entry.state {
            State::Enabled => true,
            // Or someone else has just done so.
            State::Dormant => {
                self.journal.change(kind, key, entry.seq, Op::Set(State::Enabled), reason)
                    || self.journal.wants(kind, key, 0)
            }
            State::Disabled | State::Quarantined => false,
        });
        if let Some(reconciler) = self.reconciler().filter(|_| wanted) {
            reconciler.ask_for((kind, key.into()));
        }
        wanted
    }

    /// Makes many changes, all or none, has the server follow, and waits until they are on disk. See
    /// [`Journal::submit_batch`]. Blocks: not for media threads.
    pub fn change_all(
        &self,
        mutations: Vec<Mutation>,
        precondition: Option<Precondition<'_>>,
        cause: &Cause,
    ) -> Result<Changed> {
        let (told, ack) = mpsc::channel();
        let done = Done::new(move |ack| drop(told.send(ack)));
        let made = self.journal.submit_batch(mutations, precondition, cause, done)?;
        if let Some(reconciler) = self.reconciler() {
            for AppliedMutation { key, replaced, .. } in &made {
                // What is replaced is ended first: the server would leave what it has as it is.
                reconciler.follow(key.clone(), *replaced);
            }
        }
        let ack = ack.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            Ack::failed(Error::new(
                Code::Storage,
                "the disk has not answered yet: the changes are valid, and are written later",
            ))
        });
        let result = match ack.result {
            Err(error) if ack.undone => return Err(error),
            result => result,
        };
        let seq = made.last().map_or_else(|| self.journal.seq(), |last| last.seq);
        Ok(Changed { count: made.len(), seq, result })
    }

    /// Restores all that is enabled and not there, or the proxies of one key, dormant or not, whatever the settings say
    /// of the start. Returns how many that are wanted this is about.
    pub fn restore(&self, only: Option<&str>) -> Result<u64> {
        let reconciler = self
            .reconciler()
            .ok_or_else(|| Error::new(Code::Closed, "the server is still starting; try again later"))?;
        let Some(key) = only else {
            reconciler.restore_all();
            return Ok(self.journal.count(State::Enabled));
        };
        Ok(Kind::ALL.iter().filter(|kind| self.wake(**kind, key, "restoreJournal")).count() as u64)
    }

    /// Where the host's answers go; none while nothing is being restored.
    pub fn reconciler(&self) -> Option<&Handle> {
        self.reconciler.get().map(Arc::as_ref)
    }

    /// Ends the reconciler, then the journal, with all that is queued on disk and acknowledged, then every call that is
    /// still under way.
    pub fn close(&self) {
        if let Some(reconciler) = self.reconciler() {
            reconciler.stop();
        }
        self.journal.close();
        self.capture.close();
    }
}

/// What became of many changes.
#[derive(Debug)]
pub struct Changed {
    pub count: usize,
    /// The last of them, or the last change of all where they changed nothing.
    pub seq: u64,
    /// Whether they are on disk.
    pub result: Result<Persisted>,
}
