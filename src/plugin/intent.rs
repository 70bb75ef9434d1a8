//! Intent as the reconciler needs it, and the notes of what is being started and what does not play.

use std::sync::Arc;

use parking_lot::Mutex;

use super::all_of;
use crate::journal::{Dark, Deaths, Journal};
use crate::reconcile::{self, Key};
use crate::record::{Entry, Op, State};

pub struct JournaledIntent {
    journal: Arc<Journal>,
    notes: Mutex<Option<Notes>>,
}

struct Notes {
    deaths: Deaths,
    dark: Dark,
}

impl JournaledIntent {
    pub fn of(journal: Arc<Journal>) -> Self {
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
        // How many is known: no growing, and no room for more, at each look at the server.
        let mut wanted = Vec::with_capacity(usize::try_from(self.journal.count(State::Enabled)).unwrap_or(0));
        let enabled = all_of(&self.journal).filter(|(_, entry)| entry.state == State::Enabled);
        wanted.extend(enabled.map(|(key, entry)| self.want(key, entry)));
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

    fn untried(&self, seq: u64) {
        self.notes(|notes| notes.deaths.untried(seq));
    }

    fn quarantine(&self, (kind, key): &Key, seq: u64, reason: &str) {
        self.journal.change(*kind, key, seq, Op::Set(State::Quarantined), reason);
        self.survived(seq);
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
