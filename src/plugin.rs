//! Ties the parts together for one server: settings, journal, reconciler.
//! A journal that cannot be opened is a state of the journal, not an error: the server runs on, and is told why.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::journal::{Ack, Call, Dark, Deaths, Done, Journal};
use crate::reconcile::{self, Handle, Host, Key, Limits, Start};
use crate::record::{Entry, Kind, Op, State};
use crate::settings::{OnError, OnGiveUp, OnIdleClose, Restore, Settings};
use crate::status;

/// Proxies started a second for each poller thread of the host, where the ini leaves it open.
const RATE_PER_THREAD: u64 = 1000;
/// How many entries are copied while the lock that recording needs is held.
const WALK: usize = 1000;

pub struct Plugin {
    settings: Settings,
    problems: Vec<String>,
    host_threads: u64,
    journal: Arc<Journal>,
    reconciler: OnceLock<Arc<Handle>>,
}

impl Plugin {
    /// Reads the settings (ini pairs without the section) and opens the journal. `host_threads` is how many
    /// pollers the server has. Blocks on the disk. Fails with [`Code::Disabled`], and where no journal can ever be
    /// had with these settings.
    pub fn open<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        base_dir: &Path,
        host_threads: u64,
    ) -> Result<Plugin> {
        let (settings, problems) = Settings::read(pairs, base_dir);
        for problem in &problems {
            log::error!("journal: {problem}");
        }
        if !settings.enable {
            return Err(Error::new(Code::Disabled, "[journal] enable is 0"));
        }
        let journal = Arc::new(Journal::open(&settings)?);
        Ok(Plugin { settings, problems, host_threads: host_threads.max(1), journal, reconciler: OnceLock::new() })
    }

    /// Begins the restore, once intent is known. Once; later calls do nothing.
    pub fn start(&self, host: Arc<dyn Host>) -> Result<()> {
        if self.reconciler.get().is_some() {
            return Ok(());
        }
        let limits = Limits {
            start: if self.settings.restore == Restore::Eager { Start::All } else { Start::Asked },
            per_second: match self.settings.restore_rate {
                0 => RATE_PER_THREAD * self.host_threads,
                rate => rate,
            },
            per_origin: self.settings.restore_per_origin,
            revive: self.settings.revive,
            forget_given_up: self.settings.on_give_up == OnGiveUp::Forget,
            // Random for each process.
            seed: RandomState::new().hash_one(()),
        };
        let handle = reconcile::start(host, Arc::new(JournaledIntent::of(Arc::clone(&self.journal))), limits)?;
        let handle = Arc::clone(self.reconciler.get_or_init(|| handle));
        let undone = Arc::clone(&handle);
        self.journal.when_undone(move |kind, key| undone.converge((kind, Arc::clone(key))));
        self.journal.when_known(move || handle.begin());
        Ok(())
    }

    /// See [`Journal::admit`].
    pub fn admit(&self) -> Result<()> {
        self.journal.admit()
    }

    /// Answers an add that no journal can hold; with `on_error=reject` it is undone.
    pub fn refuse(&self, kind: Kind, key: &str, error: Error, done: Done) {
        let undone = self.settings.on_error == OnError::Reject && !self.wants(kind, key, 0);
        if let Some(reconciler) = self.reconciler().filter(|_| undone) {
            reconciler.converge((kind, key.into()));
        }
        done.call(Ack { undone, ..Ack::failed(error) });
    }

    /// See [`Journal::record`].
    pub fn record(&self, call: Call<'_>, done: Done) {
        self.journal.record(call, done);
    }

    /// See [`Journal::wants`].
    pub fn wants(&self, kind: Kind, key: &str, seq: u64) -> bool {
        self.journal.wants(kind, key, seq)
    }

    /// What the end of a proxy that nobody watched does to it.
    pub fn idle_close(&self) -> Op {
        match self.settings.on_idle_close {
            OnIdleClose::Forget => Op::Remove,
            OnIdleClose::Dormant => Op::Set(State::Dormant),
        }
    }

    /// A player waits for a stream that the server does not have. Any thread, takes microseconds.
    pub fn player_waits(&self, kind: Kind, key: &str) {
        if self.settings.restore != Restore::Off {
            self.wake(kind, key, "a player asked for it");
        }
    }

    /// Has a proxy started that is enabled or dormant. False where there is none.
    fn wake(&self, kind: Kind, key: &str, reason: &str) -> bool {
        let wanted = self.journal.get(kind, key).is_some_and(|entry| match entry.state {
            State::Enabled => true,
            // Or someone else has just done so.
            State::Dormant => {
                self.journal.change(kind, key, entry.seq, Op::Set(State::Enabled), reason)
                    || self.wants(kind, key, 0)
            }
            State::Disabled | State::Quarantined => false,
        });
        if let Some(reconciler) = self.reconciler().filter(|_| wanted) {
            reconciler.ask_for((kind, key.into()));
        }
        wanted
    }

    /// Restores all that is enabled and not there, or the proxies of one key, dormant or not, whatever the settings say
    /// of the start. Returns how many that are wanted this is about.
    pub fn restore(&self, only: Option<&str>) -> Result<u64> {
        let reconciler = self.reconciler().ok_or_else(|| {
            Error::new(Code::Closed, "the server has not come so far as to restore anything: ask again later")
        })?;
        let Some(key) = only else {
            reconciler.restore_all();
            return Ok(self.journal.count(State::Enabled));
        };
        match Kind::ALL.iter().filter(|kind| self.wake(**kind, key, "restoreJournal")).count() as u64 {
            0 => Err(Error::invalid(format!(
                "the journal has no proxy {key:?} that is enabled or dormant: see proxies_view with sqlite3"
            ))),
            asked => Ok(asked),
        }
    }

    /// Where the host's answers go; none while nothing is being restored.
    pub fn reconciler(&self) -> Option<&Handle> {
        self.reconciler.get().map(Arc::as_ref)
    }

    /// Ends the reconciler, then the journal, with all that is queued on disk and acknowledged.
    pub fn close(&self) {
        if let Some(reconciler) = self.reconciler() {
            reconciler.stop();
        }
        self.journal.close();
    }

    /// The state of everything, as one JSON object, with at most `most` of the proxies that do not play, or with
    /// those of one key.
    pub fn status(&self, only: Option<&str>, most: usize) -> Result<String> {
        let shown = self.reconciler().map(|reconciler| reconciler.shown(only, most));
        status::text(&self.settings, &self.problems, self.journal.report(), shown, self.journal.now_ms())
    }
}

/// Intent as the reconciler needs it, and the notes of what is being started and what does not play.
struct JournaledIntent {
    journal: Arc<Journal>,
    notes: Mutex<Option<Notes>>,
}

struct Notes {
    deaths: Deaths,
    dark: Dark,
}

impl JournaledIntent {
    fn of(journal: Arc<Journal>) -> Self {
        Self { journal, notes: Mutex::new(None) }
    }

    /// The notes are read when they are first asked for: by then the journal is ours.
    fn notes<T>(&self, ask: impl FnOnce(&mut Notes) -> T) -> T {
        let read = || Notes { deaths: self.journal.deaths(), dark: self.journal.dark() };
        ask(self.notes.lock().get_or_insert_with(read))
    }

    fn want(&self, key: Key, entry: Entry) -> reconcile::Wanted {
        let seq = entry.seq;
        self.notes(|notes| reconcile::Wanted {
            key,
            seq,
            args: entry.args,
            deaths: notes.deaths.of(seq),
            dark_since: notes.dark.of(seq),
        })
    }

    fn enabled(&self, (kind, key): &Key) -> Option<Entry> {
        self.journal.get(*kind, key).filter(|entry| entry.state == State::Enabled)
    }
}

impl reconcile::Intent for JournaledIntent {
    fn wanted(&self) -> Vec<reconcile::Wanted> {
        let mut wanted = Vec::new();
        let mut cursor = None;
        loop {
            let piece = self.journal.after(cursor.as_ref(), WALK);
            let Some((last, _)) = piece.last() else { break };
            cursor = Some(last.clone());
            let enabled = piece.into_iter().filter(|(_, entry)| entry.state == State::Enabled);
            wanted.extend(enabled.map(|(key, entry)| self.want(key, entry)));
        }
        wanted
    }

    fn wants(&self, key: &Key) -> Option<reconcile::Wanted> {
        self.enabled(key).map(|entry| self.want(key.clone(), entry))
    }

    fn body(&self, key: &Key, seq: u64) -> Option<Vec<u8>> {
        let entry = self.enabled(key).filter(|entry| entry.seq == seq)?;
        entry
            .args
            .request_body(key.0.info().replay)
            .inspect_err(|error| log::error!("journal: {} {} cannot be replayed: {error}", key.0.name(), key.1))
            .ok()
    }

    fn begins(&self, seq: u64) {
        self.notes(|notes| notes.deaths.begins(seq));
    }

    fn survived(&self, seq: u64) {
        self.notes(|notes| notes.deaths.survived(seq));
    }

    fn quarantine(&self, (kind, key): &Key, seq: u64, reason: &str) {
        self.journal.change(*kind, key, seq, Op::Set(State::Quarantined), reason);
        self.survived(seq);
    }

    fn forget(&self, (kind, key): &Key, seq: u64) {
        self.journal.change(*kind, key, seq, Op::Remove, "the server gave it up (on_give_up=forget)");
    }

    fn dark(&self, dark: Vec<(u64, i64)>) {
        self.notes(|notes| notes.dark.note(dark));
    }

    fn clean_end(&self) {
        self.notes(|notes| notes.deaths.clean_end());
    }

    fn now_ms(&self) -> i64 {
        self.journal.now_ms()
    }
}
