//! Intent for the reconciler, with the notes on suspects and on proxies that do not play.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use crate::journal::{Cause, CrashCounters, Done, Journal, Mutation, OfflineHints};
use crate::model::{Endpoint, Entry, Op, ProxyKey, State};
use crate::reconcile;

/// How long the reconciler waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct JournaledIntent {
    journal: Arc<Journal>,
    notes: Mutex<Option<Notes>>,
}

struct Notes {
    suspects: CrashCounters,
    dark: OfflineHints,
}

impl JournaledIntent {
    pub fn of(journal: Arc<Journal>) -> Self {
        Self { journal, notes: Mutex::new(None) }
    }

    /// Reads the notes at the first use: by then the journal is locked.
    fn notes<T>(&self, ask: impl FnOnce(&mut Notes) -> T) -> T {
        let known = || self.journal.entries().map(|(key, entry)| (key, entry.seq));
        let paths = self.journal.paths();
        let read = || Notes { suspects: CrashCounters::read(paths, known()), dark: OfflineHints::read(paths) };
        ask(self.notes.lock().get_or_insert_with(read))
    }

    fn want(&self, key: ProxyKey, entry: Entry) -> reconcile::Wanted {
        let seq = entry.seq;
        let (crashes, dark_since) = self.notes(|notes| (notes.suspects.crashes(&key, seq), notes.dark.of(seq)));
        reconcile::Wanted { key, seq, args: entry.args, crashes, dark_since }
    }

    fn enabled(&self, (kind, key): &ProxyKey) -> Option<Entry> {
        self.journal.get(*kind, key).filter(|entry| entry.state == State::Enabled)
    }
}

impl reconcile::Intent for JournaledIntent {
    fn wanted(&self) -> Box<dyn Iterator<Item = reconcile::Wanted> + '_> {
        let enabled = self.journal.entries().filter(|(_, entry)| entry.state == State::Enabled);
        Box::new(enabled.map(|(key, entry)| self.want(key, entry)))
    }

    fn count(&self) -> usize {
        usize::try_from(self.journal.look(|intent| intent.count(State::Enabled))).unwrap_or(0)
    }

    fn wants(&self, key: &ProxyKey) -> Option<reconcile::Wanted> {
        self.enabled(key).map(|entry| self.want(key.clone(), entry))
    }

    fn add(&self, key: &ProxyKey, seq: u64, replace: bool) -> Option<reconcile::Add> {
        let entry = self.enabled(key).filter(|entry| entry.seq == seq)?;
        let info = key.0.info();
        let replay: &[_] = if info.has_force { &[("force", "1")] } else { &[] };
        let body = entry.args.request_body(replay);
        let body = body
            .inspect_err(|error| log::error!("journal: {} {} cannot be replayed: {error}", key.0.name(), key.1))
            .ok()?;
        let args = entry.args.read();
        let named = |name: &str| args.get(name).unwrap_or_default().to_owned();
        let is_taker = info.input == Endpoint::Named;
        let takes = if is_taker { ["schema", "vhost", "app", "stream"].map(named) } else { Default::default() };
        let setting = info.names_setting.map(named).unwrap_or_default();
        Some(reconcile::Add { key: key.clone(), seq, replace, takes, setting, body })
    }

    fn acquit(&self, key: &ProxyKey, seq: u64) {
        self.notes(|notes| notes.suspects.acquit(key, seq));
    }

    fn set_aside(&self, key: &ProxyKey, seq: u64, reason: &str) -> bool {
        self.journal.change(key.0, &key.1, seq, Op::Set(State::Quarantined), reason);
        self.notes(|notes| notes.suspects.set_aside(key, seq))
    }

    fn release(&self, crashes: u32) -> Vec<ProxyKey> {
        let aside = self.journal.entries().filter(|(_, entry)| entry.state == State::Quarantined);
        let aside = aside.filter(|(key, _)| self.notes(|notes| notes.suspects.may_be_released(key)));
        let mutation = |(key, entry): (ProxyKey, Entry)| Mutation {
            key,
            op: Op::Set(State::Enabled),
            args: None,
            expected: Some(entry.seq),
        };
        let mutations: Vec<Mutation> = aside.map(mutation).collect();
        if mutations.is_empty() {
            return Vec::new();
        }
        let reason = "the server started well without it".to_owned();
        let cause = Cause { origin: "zlm-journal".to_owned(), reason };
        let (told, ack) = mpsc::channel();
        let done = Done::new(move |ack| drop(told.send(ack)));
        let made = self.journal.submit_batch(mutations, None, &cause, done).unwrap_or_else(|error| {
            log::warn!("journal: quarantined proxies are not released by this start: {error}");
            Vec::new()
        });
        // The server may crash again at once: the release should be on disk before.
        let _ = ack.recv_timeout(PATIENCE);
        self.notes(|notes| made.iter().for_each(|made| notes.suspects.release(&made.key, made.seq, crashes)));
        made.into_iter().map(|made| made.key).collect()
    }

    fn dark(&self, dark: Vec<(u64, i64)>) {
        self.notes(|notes| notes.dark.note(dark));
    }

    fn now_ms(&self) -> i64 {
        self.journal.now_ms()
    }
}
