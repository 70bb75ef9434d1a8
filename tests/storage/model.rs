//! What the journal should hold after each change.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use zlm_journal::journal::Journal;

/// Keys, and the arguments of each.
pub type State = BTreeMap<String, String>;

/// A change: the key, and its arguments afterwards or none.
type Change = (String, Option<String>);

#[derive(Default)]
pub struct Model {
    before: (u64, State),
    changes: Mutex<BTreeMap<u64, Change>>,
}

impl Model {
    /// Of a journal that is in this state now.
    pub fn of(journal: &Journal) -> Model {
        Model { before: (journal.report().seq, state(journal)), changes: Mutex::default() }
    }

    pub fn before(&self) -> &State {
        &self.before.1
    }

    pub fn changed(&self, seq: u64, key: &str, args: Option<&str>) {
        self.changes.lock().insert(seq, (key.to_owned(), args.map(str::to_owned)));
    }

    /// The state after change `seq`; none where there was no such change.
    pub fn after(&self, seq: u64) -> Option<State> {
        let changes = self.changes.lock();
        if seq != self.before.0 && !changes.contains_key(&seq) {
            return None;
        }
        let mut state = self.before.1.clone();
        for (key, args) in changes.range(..=seq).map(|(_, change)| change) {
            match args {
                Some(args) => state.insert(key.clone(), args.clone()),
                None => state.remove(key),
            };
        }
        Some(state)
    }

    pub fn len(&self) -> u64 {
        self.changes.lock().len() as u64
    }
}

pub fn state(journal: &Journal) -> State {
    let all = journal.after(None, usize::MAX);
    all.into_iter().map(|((_, key), entry)| (key.to_string(), entry.args.as_str().to_owned())).collect()
}
