//! Intent for the reconciler, with the notes on suspects and on proxies that do not play.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use crate::journal::{Cause, CrashCounters, Done, Journal, Mutation, OfflineHints};
use crate::model::{Endpoint, Entry, Existing, InUse, Op, ProxyKey, State};
use crate::reconcile;

const MINUTE_MS: i64 = 60_000;

/// How the reason of a change begins that notes another URL of a pull in use.
pub const MOVED: &str = "it plays from its URL ";

/// How long the reconciler waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct JournaledIntent {
    journal: Arc<Journal>,
    notes: Mutex<Option<Notes>>,
    hours: Mutex<HoursWatch>,
}

/// Notices when the hours of proxies begin and end.
#[derive(Default)]
struct HoursWatch {
    /// The minute of the last look, and for each of the proxies with hours whether it was due then.
    last: Option<(i64, BTreeMap<ProxyKey, bool>)>,
}

impl HoursWatch {
    /// Those that were due at the last look and are not now, and the other way round; and those that came in between
    /// and are not due now. Hours begin and end with a minute, so there is one look in each; the clock may jump. Nothing
    /// turns at the first look.
    fn turned(&mut self, timed: impl FnOnce() -> Vec<(ProxyKey, Entry)>, now: i64) -> Vec<ProxyKey> {
        let minute = now.div_euclid(MINUTE_MS);
        if self.last.as_ref().is_some_and(|(its, _)| *its == minute) {
            return Vec::new();
        }
        let due: BTreeMap<_, _> = timed().into_iter().map(|(key, entry)| (key, entry.is_due(now))).collect();
        let turned = match &self.last {
            None => Vec::new(),
            Some((_, was_due)) => {
                let has_turned =
                    |(key, is_due): &(&ProxyKey, &bool)| was_due.get(*key).map_or(!**is_due, |was| was != *is_due);
                due.iter().filter(has_turned).map(|(key, _)| key.clone()).collect()
            }
        };
        self.last = Some((minute, due));
        turned
    }
}

struct Notes {
    suspects: CrashCounters,
    dark: OfflineHints,
}

impl JournaledIntent {
    pub fn of(journal: Arc<Journal>) -> Self {
        Self { journal, notes: Mutex::new(None), hours: Mutex::default() }
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

    /// A proxy that should run now.
    fn due(&self, (kind, key): &ProxyKey) -> Option<Entry> {
        let now = self.journal.now_ms();
        self.journal.get(*kind, key).filter(|entry| entry.is_due(now))
    }
}

impl reconcile::Intent for JournaledIntent {
    fn wanted(&self) -> Box<dyn Iterator<Item = reconcile::Wanted> + '_> {
        let now = self.now_ms();
        let due = self.journal.entries().filter(move |(_, entry)| entry.is_due(now));
        Box::new(due.map(|(key, entry)| self.want(key, entry)))
    }

    fn count(&self) -> usize {
        usize::try_from(self.journal.look(|intent| intent.count(State::Enabled))).unwrap_or(0)
    }

    fn wants(&self, key: &ProxyKey) -> Option<reconcile::Wanted> {
        self.due(key).map(|entry| self.want(key.clone(), entry))
    }

    fn add(&self, key: &ProxyKey, seq: u64, existing: Existing, url: Option<String>) -> Option<reconcile::Add> {
        let entry = self.due(key).filter(|entry| entry.seq == seq)?;
        let info = key.0.info();
        let args = entry.args.read();
        let timeout = args.get("timeout_sec").and_then(|text| text.trim().parse::<f32>().ok());
        let timeout_ms =
            timeout.filter(|seconds| *seconds > 0.1).map(|seconds| format!("{:.0}", seconds * 1000.0));
        let mut replay = Vec::new();
        if let Some(url) = &url {
            replay.push((info.connects_to, url.as_str()));
        }
        if info.has_force {
            replay.push(("force", "1"));
        }
        // MediaServer's API makes this of `timeout_sec`; what is changed in place does not go through the API.
        if let Some(timeout_ms) = timeout_ms.as_deref().filter(|_| existing == Existing::Update) {
            replay.push(("protocol_timeout_ms", timeout_ms));
        }
        let replayed = entry.args.replayed(&replay);
        let replayed = replayed
            .inspect_err(|error| log::error!("journal: {} {} cannot be replayed: {error}", key.0.name(), key.1))
            .ok()?;
        let named = |name: &str| args.get(name).unwrap_or_default().to_owned();
        let is_taker = info.input == Endpoint::Named;
        let takes = if is_taker { ["schema", "vhost", "app", "stream"].map(named) } else { Default::default() };
        let setting = info.names_setting.map(named).unwrap_or_default();
        Some(reconcile::Add {
            key: key.clone(),
            seq,
            existing,
            url: url.unwrap_or_else(|| named(info.connects_to)),
            takes,
            setting,
            args: replayed,
        })
    }

    fn note_url(&self, key: &ProxyKey, seq: u64, used: reconcile::UsedUrl) -> Option<u64> {
        let entry = self.due(key).filter(|entry| entry.seq == seq)?;
        let reconcile::UsedUrl { url, number, ago, why, error } = used;
        // The reason is not encrypted, so it names no address.
        let reason = format!("{MOVED}{number}: {why}");
        let since = self.now_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(0));
        let why = [why, error].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let in_use = (number > 1).then_some(InUse { url, since, why });
        let noted = entry.args.noting(in_use.as_ref()).and_then(|args| {
            let mutation = Mutation { key: key.clone(), op: Op::Add, args: Some(args), expected: Some(seq) };
            let cause = Cause { caller: "zlm-journal".to_owned(), reason };
            self.journal.submit_batch(vec![mutation], None, &cause, Done::new(drop))
        });
        let noted = noted.inspect_err(|error| {
            let (kind, name) = (key.0.name(), &key.1);
            log::warn!("journal: after a restart, {kind} {name} will be tried from another URL first: {error}");
        });
        noted.ok()?.pop().map(|noted| noted.seq)
    }

    fn turned(&self) -> Vec<ProxyKey> {
        self.hours.lock().turned(|| self.journal.timed().collect(), self.now_ms())
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
        let cause = Cause { caller: "zlm-journal".to_owned(), reason };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Args, Kind};

    fn timed(hours: &str) -> Vec<(ProxyKey, Entry)> {
        let args = Args::from_pairs([(b"journal_hours".as_slice(), hours.as_bytes())]).unwrap();
        let entry = Entry { args, state: State::Enabled, seq: 1, created_at: 0, updated_at: 0 };
        vec![((Kind::Pull, "v/a/s".into()), entry)]
    }

    #[test]
    fn hours_that_begin_or_end_are_noticed_once_also_when_the_clock_jumps() {
        const HOUR: i64 = 60 * MINUTE_MS;
        let mut watch = HoursWatch::default();
        let mut turned = |at: i64| watch.turned(|| timed("08:00-18:00 @ UTC"), at).len();
        assert_eq!(turned(7 * HOUR + 59 * MINUTE_MS), 0);
        assert_eq!((turned(8 * HOUR), turned(8 * HOUR + 1), turned(8 * HOUR + MINUTE_MS)), (1, 0, 0));
        // The clock is set: a day and a half ahead, back into them, and back before them.
        assert_eq!((turned(44 * HOUR), turned(9 * HOUR), turned(7 * HOUR), turned(6 * HOUR)), (1, 1, 1, 0));
    }

    #[test]
    fn what_came_since_the_last_look_has_turned_only_if_its_hours_are_over() {
        let mut watch = HoursWatch::default();
        assert_eq!(watch.turned(Vec::new, 0).len(), 0);
        assert_eq!(watch.turned(|| timed("00:00-24:00 @ UTC"), MINUTE_MS).len(), 0);
        assert_eq!(watch.turned(Vec::new, 2 * MINUTE_MS).len(), 0, "it is gone");
        assert_eq!(watch.turned(|| timed("00:00-00:03 @ UTC"), 3 * MINUTE_MS).len(), 1);
    }
}
