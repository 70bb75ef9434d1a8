//! Intent in memory: what operators asked for and have not taken back. It is changed first and at once, on the
//! thread of the call; the disk follows. With a vault, what it has is sealed for the disk. Knows nothing of files or
//! threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::vault::Vault;
use crate::record::{Args, Change, Entry, Kind, Op, State};

type Key = (Kind, Arc<str>);

/// So many removals and replacements are remembered, for those who ask whether a scope has changed.
const REMEMBERED: usize = 10_000;

/// Proves that no row of `proxies` is missing or foreign: how many there are, and the XOR of their checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    pub count: u64,
    pub xor: u32,
}

/// Who changed intent, and by which call.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    pub origin: String,
    pub reason: String,
}

/// One change, with all that its transaction writes.
#[derive(Debug, Clone)]
pub struct Applied {
    pub change: Change,
    /// The row of `proxies` afterwards; none when it is gone.
    pub entry: Option<Entry>,
    /// The same before.
    pub before: Option<Entry>,
    /// The whole of `proxies` afterwards.
    pub digest: Digest,
}

impl Applied {
    /// About the memory that it takes while it waits.
    pub fn bytes(&self) -> usize {
        self.change.args.as_ref().map_or(0, |args| args.as_str().len()) + self.change.key.len()
    }
}

#[derive(Clone, Default)]
pub struct Intent {
    vault: Option<Arc<Vault>>,
    entries: BTreeMap<Key, Entry>,
    /// Of the kinds whose key does not name the stream that they make: which proxies make a stream of this server.
    makers: BTreeSet<(String, Key)>,
    by_state: BTreeMap<State, u64>,
    digest: Digest,
    seq: u64,
    /// What was removed of late, by the change that did so; what was removed up to `forgotten` is not known any more.
    removed: VecDeque<(u64, Kind, Args)>,
    forgotten: u64,
}

impl Intent {
    /// An intent whose next change gets `seq + 1`.
    pub fn starting_at(seq: u64) -> Self {
        Self { seq, forgotten: seq, ..Self::default() }
    }

    /// Seals with this what comes in from now on. To be said while it is empty.
    pub fn sealing(self, vault: Option<&Arc<Vault>>) -> Self {
        Self { vault: vault.cloned(), ..self }
    }

    /// What it seals with.
    pub fn vault(&self) -> Option<&Arc<Vault>> {
        self.vault.as_ref()
    }

    /// A change after `since` in a scope; none where it is as it was. Where that is not known any more, the last change up
    /// to which it is not.
    pub fn changed_since(&self, since: u64, scope: &dyn Fn(Kind, &Args) -> bool) -> Option<u64> {
        if since < self.forgotten {
            return Some(self.forgotten);
        }
        let removed = self.removed.iter().map(|(seq, kind, args)| (*seq, *kind, args));
        let there = self.entries.iter().map(|((kind, _), entry)| (entry.seq, *kind, &entry.args));
        let later = removed.chain(there).filter(|(seq, ..)| *seq > since);
        later.filter(|(_, kind, args)| scope(*kind, args)).map(|(seq, ..)| seq).max()
    }

    /// The number of the last change.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn count(&self, state: State) -> u64 {
        self.by_state.get(&state).copied().unwrap_or(0)
    }

    pub fn get(&self, kind: Kind, key: &str) -> Option<&Entry> {
        self.entries.get(&(kind, key.into()))
    }

    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Arc<str>, &Entry)> {
        self.entries.iter().map(|((kind, key), entry)| (*kind, key, entry))
    }

    /// At most `most` entries that follow `cursor` in the order of kind and key, so that a long walk holds no
    /// lock for long.
    pub fn after(&self, cursor: Option<&Key>, most: usize) -> Vec<(Key, Entry)> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range((from, Bound::Unbounded))
            .take(most)
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// The proxies with whose end the stream `vhost/app/stream` of this server goes, and the other way round.
    pub fn makers(&self, stream: &str) -> Vec<Key> {
        let named = Kind::ALL.iter().filter(|kind| kind.key_is_stream()).map(|kind| (*kind, stream.into()));
        let mut found: Vec<Key> = named.filter(|key| self.entries.contains_key(key)).collect();
        let from = (stream.to_owned(), (Kind::Pull, Arc::from("")));
        let others = self.makers.range(from..).take_while(|(made, _)| made == stream);
        found.extend(others.map(|(_, key)| key.clone()));
        found
    }

    /// The proxies whose key begins so.
    pub fn with_prefix(&self, kind: Kind, prefix: &str) -> Vec<(Key, Entry)> {
        self.entries
            .range((kind, prefix.into())..)
            .take_while(|((its, key), _)| *its == kind && key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// Puts in what was read back from disk, or replaces it. Its arguments are readable, and sealed where
    /// there is a vault.
    pub fn put(&mut self, kind: Kind, key: Arc<str>, entry: Entry) {
        let crc = entry.crc(kind, &key);
        self.take(kind, &key);
        self.seq = self.seq.max(entry.seq);
        self.digest.count += 1;
        self.digest.xor ^= crc;
        *self.by_state.entry(entry.state).or_default() += 1;
        self.makers.extend(made_by(kind, &key, &entry));
        self.entries.insert((kind, key), entry);
    }

    /// An accepted add: the proxy is wanted from now on, with these arguments.
    pub fn add(&mut self, at: i64, kind: Kind, key: &str, args: Args, cause: Cause) -> Applied {
        let args = match &self.vault {
            Some(vault) => vault.sealed(kind, key, args),
            None => args,
        };
        let before = self.get(kind, key).cloned();
        let created_at = before.as_ref().map_or(at, |entry| entry.created_at);
        let entry = Entry { args, state: State::Enabled, seq: self.seq + 1, created_at, updated_at: at };
        self.apply(at, Op::Add, kind, key.into(), Some(entry), before, cause)
    }

    /// An accepted delete. None when the proxy was not wanted anyway: then nothing changes.
    pub fn remove(&mut self, at: i64, kind: Kind, key: &str, cause: Cause) -> Option<Applied> {
        let before = self.get(kind, key)?.clone();
        Some(self.apply(at, Op::Remove, kind, key.into(), None, Some(before), cause))
    }

    /// The proxy is wanted as before, in another state. None when it is not wanted, or stands there already.
    pub fn set_state(&mut self, at: i64, kind: Kind, key: &str, state: State, cause: Cause) -> Option<Applied> {
        let before = self.get(kind, key).filter(|entry| entry.state != state)?.clone();
        let entry = Entry { state, seq: self.seq + 1, updated_at: at, ..before.clone() };
        Some(self.apply(at, Op::Set(state), kind, key.into(), Some(entry), Some(before), cause))
    }

    /// Makes a change undone that was the last on its key. Its number is not given again.
    pub fn take_back(&mut self, applied: &Applied) {
        let (kind, key) = (applied.change.kind, &applied.change.key);
        match &applied.before {
            Some(entry) => self.put(kind, Arc::clone(key), entry.clone()),
            None => {
                self.take(kind, key);
            }
        }
    }

    /// Drops what was read back wrongly. False where it is not there.
    pub fn forget(&mut self, kind: Kind, key: &str) -> bool {
        self.take(kind, key).is_some()
    }

    /// What a recorded call or event asks for. None when that changes nothing, or an add comes without arguments.
    pub fn change(
        &mut self,
        at: i64,
        op: Op,
        kind: Kind,
        key: &str,
        args: Option<Args>,
        cause: Cause,
    ) -> Option<Applied> {
        match op {
            Op::Add => Some(self.add(at, kind, key, args?, cause)),
            Op::Remove => self.remove(at, kind, key, cause),
            Op::Set(state) => self.set_state(at, kind, key, state, cause),
        }
    }

    #[allow(clippy::too_many_arguments)] // private, and each is a column
    fn apply(
        &mut self,
        at: i64,
        op: Op,
        kind: Kind,
        key: Arc<str>,
        entry: Option<Entry>,
        before: Option<Entry>,
        cause: Cause,
    ) -> Applied {
        self.seq += 1;
        // An entry that leaves a scope is as good as removed from it.
        if let Some(before) = &before {
            self.removed.push_back((self.seq, kind, before.args.clone()));
            if self.removed.len() > REMEMBERED {
                self.forgotten = self.removed.pop_front().map_or(self.seq, |(seq, ..)| seq);
            }
        }
        match &entry {
            Some(entry) => self.put(kind, Arc::clone(&key), entry.clone()),
            None => {
                self.take(kind, &key);
            }
        }
        let args = entry.as_ref().map(|entry| entry.args.clone());
        Applied {
            change: Change { seq: self.seq, at, op, kind, key, args, origin: cause.origin, reason: cause.reason },
            entry,
            before,
            digest: self.digest,
        }
    }

    fn take(&mut self, kind: Kind, key: &str) -> Option<Arc<str>> {
        let ((_, key), entry) = self.entries.remove_entry(&(kind, key.into()))?;
        self.digest.count -= 1;
        self.digest.xor ^= entry.crc(kind, &key);
        if let Some(count) = self.by_state.get_mut(&entry.state) {
            *count -= 1;
        }
        if let Some(made) = made_by(kind, &key, &entry) {
            self.makers.remove(&made);
        }
        Some(key)
    }
}

/// Its line in `makers`.
fn made_by(kind: Kind, key: &Arc<str>, entry: &Entry) -> Option<(String, Key)> {
    if kind.key_is_stream() {
        return None;
    }
    kind.own_stream(key, &entry.args).map(|stream| (stream, (kind, Arc::clone(key))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> Args {
        Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap()
    }

    #[test]
    fn a_readd_keeps_its_age_and_a_second_remove_changes_nothing() {
        let mut intent = Intent::default();
        intent.add(10, Kind::Pull, "v/a/s", args("rtsp://1"), Cause::default());
        let again = intent.add(20, Kind::Pull, "v/a/s", args("rtsp://2"), Cause::default());
        let entry = again.entry.unwrap();
        assert_eq!((entry.created_at, entry.updated_at, entry.seq), (10, 20, 2));
        assert_eq!(intent.digest().count, 1);
        assert_eq!(intent.count(State::Enabled), 1);

        let removed = intent.remove(30, Kind::Pull, "v/a/s", Cause::default()).unwrap();
        assert_eq!((removed.change.seq, removed.digest), (3, Digest::default()));
        assert!(intent.remove(40, Kind::Pull, "v/a/s", Cause::default()).is_none());
        assert_eq!((intent.seq(), intent.count(State::Enabled)), (3, 0));
    }

    #[test]
    fn the_digest_tells_the_set_not_the_way_to_it() {
        let mut long = Intent::default();
        long.add(1, Kind::Pull, "v/a/1", args("x"), Cause::default());
        long.add(2, Kind::Pull, "v/a/2", args("y"), Cause::default());
        long.remove(3, Kind::Pull, "v/a/1", Cause::default());

        let mut read_back = Intent::starting_at(long.seq());
        for (kind, key, entry) in long.iter() {
            read_back.put(kind, Arc::clone(key), entry.clone());
        }
        assert_eq!(read_back.digest(), long.digest());
        assert_ne!(read_back.digest(), Digest::default());
        assert_eq!(read_back.seq(), 3);
    }

    #[test]
    fn a_walk_in_pieces_meets_every_entry_once() {
        let mut intent = Intent::default();
        for n in 0..10 {
            intent.add(n, Kind::Pull, &format!("v/a/{n}"), args("x"), Cause::default());
        }
        let mut met = Vec::new();
        let mut cursor = None;
        loop {
            let piece = intent.after(cursor.as_ref(), 3);
            let Some((last, _)) = piece.last() else { break };
            cursor = Some(last.clone());
            met.extend(piece.into_iter().map(|((_, key), _)| key));
        }
        assert_eq!(met.len(), 10);
        assert!(met.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn the_makers_of_a_stream_are_found_as_long_as_they_are_wanted() {
        let mut intent = Intent::default();
        let to = |dst: &str| Args::from_pairs([(b"dst_url".as_slice(), dst.as_bytes())]).unwrap();
        let stream = "__defaultVhost__/live/x";
        intent.add(1, Kind::Pull, stream, args("rtsp://1"), Cause::default());
        intent.add(2, Kind::Ffmpeg, "k1", to("rtmp://127.0.0.1/live/x"), Cause::default());
        intent.add(3, Kind::Ffmpeg, "k2", to("rtmp://127.0.0.1/live/xx"), Cause::default());
        intent.add(4, Kind::Push, "rtmp/v/live/x/0", to("rtmp://127.0.0.1/live/x"), Cause::default());
        assert_eq!(intent.makers(stream), [(Kind::Pull, stream.into()), (Kind::Ffmpeg, "k1".into())]);
        intent.add(5, Kind::Ffmpeg, "k1", to("rtmp://cdn/live/x"), Cause::default());
        intent.add(6, Kind::Ffmpeg, "k2", to("rtmp://127.0.0.1/live/x"), Cause::default());
        assert_eq!(intent.makers(stream), [(Kind::Pull, stream.into()), (Kind::Ffmpeg, "k2".into())]);
        intent.remove(7, Kind::Pull, stream, Cause::default());
        intent.remove(8, Kind::Ffmpeg, "k2", Cause::default());
        assert_eq!(intent.makers(stream), []);
        assert!(intent.makers.is_empty());
    }

    #[test]
    fn what_takes_a_source_is_found_by_its_prefix() {
        let mut intent = Intent::default();
        for key in ["rtmp/v/live/a/1", "rtmp/v/live/a/2", "rtmp/v/live/ab/1", "rtsp/v/live/a/1"] {
            intent.add(1, Kind::Push, key, args("x"), Cause::default());
        }
        intent.add(1, Kind::Ffmpeg, "rtmp/v/live/a/3", args("x"), Cause::default());
        let found = intent.with_prefix(Kind::Push, "rtmp/v/live/a/");
        let found: Vec<_> = found.iter().map(|((_, key), _)| key.as_ref()).collect();
        assert_eq!(found, ["rtmp/v/live/a/1", "rtmp/v/live/a/2"]);
    }
}
