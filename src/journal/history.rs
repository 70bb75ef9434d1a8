//! The history of the journal, read from its file.

use std::sync::atomic::Ordering;

use super::Journal;
use crate::error::{Error, Result};
use crate::model::{Change, Entry, ProxyKey};
use crate::storage::db::{self, HistoryFilter, Store};
use crate::storage::intent::Intent;

/// A moment in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointInTime {
    /// After this change, and before the next.
    Seq(u64),
    /// Milliseconds since 1970-01-01 UTC.
    Time(i64),
}

impl Journal {
    /// The changes on disk, the last first, without those that were pruned. Blocks on the disk: not for media threads.
    pub fn history(&self, filter: &HistoryFilter) -> Result<Vec<Change>> {
        let cipher = self.core.inbox.cipher();
        // The files must not be moved while they are read.
        let _files = self.core.files.lock();
        let store = Store::open_for_reading(&self.core.paths, &self.core.paths.file)?;
        let (changes, _) = store.changes(filter, cipher.as_deref())?;
        Ok(changes)
    }

    /// Intent at a moment in the past, and its last change. Fails if the history does not go back that far. Blocks on
    /// the disk: not for media threads.
    pub fn past(&self, moment: PointInTime) -> Result<(u64, Vec<(ProxyKey, Entry)>)> {
        let cipher = self.core.inbox.cipher();
        let _files = self.core.files.lock();
        let paths = &self.core.paths;
        let store = Store::open_for_reading(paths, &paths.file)?;
        let read = |filter: HistoryFilter| match store.changes(&filter, cipher.as_deref())? {
            (changes, 0) => Ok(changes),
            _ => Err(Error::corrupt(
                "the history cannot be read back that far: changes in between are damaged, see the log and \
                 incidents_view",
            )),
        };
        let to = match moment {
            PointInTime::Seq(seq) => seq,
            PointInTime::Time(at) => {
                read(HistoryFilter { until: Some(at), limit: 1, ..HistoryFilter::default() })?
                    .first()
                    .map_or(0, |last| last.seq)
            }
        };
        let last = self.core.durable_seq.load(Ordering::Acquire);
        if to > last {
            return Err(Error::invalid(format!("there is no change {to}: the last is {last}")));
        }
        // Start with the newest valid snapshot before that moment, or with nothing.
        let snapshots = paths.list_snapshots().into_iter().filter(|snapshot| snapshot.seq <= to);
        let mut good = snapshots.filter_map(|snapshot| {
            db::load(paths, &snapshot.path, cipher.as_ref())
                .inspect_err(|error| log::error!("journal: the snapshot {}: {error}", snapshot.path.display()))
                .ok()
        });
        let mut intent = good.next().unwrap_or_else(|| Intent::starting_at(0, cipher.as_ref()));
        let from = intent.seq();
        let between =
            HistoryFilter { after: from, before: Some(to + 1), limit: usize::MAX, ..HistoryFilter::default() };
        let changes = read(between)?;
        // Numbers are unique but may have gaps. The row before `from` shows that nothing in between was pruned.
        let leads_on = from == to
            || from > 0 && store.oldest_change()?.is_some_and(|oldest| oldest <= from + 1)
            || store.oldest_change()? == Some(1);
        if !leads_on {
            return Err(Error::invalid(format!(
                "the history no longer goes back to change {to}: see listJournalSnapshots for the oldest state that \
                 is kept, and history_days and snapshot_keep in config.ini"
            )));
        }
        for change in changes.into_iter().rev() {
            intent.set(change.kind, &change.key, change.entry());
        }
        Ok((to, intent.after(None, usize::MAX)))
    }
}
