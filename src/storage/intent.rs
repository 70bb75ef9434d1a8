//! Intent in memory. It is changed first, on the thread of the call; the disk follows. With a cipher, its arguments are
//! encrypted for the disk. Knows nothing of files or threads.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::cipher::ArgsCipher;
use crate::model::{
    Args, Change, DEFAULT_VHOST, Endpoint, Entry, Kind, NamingRules, Op, ProxyKey, State, Stream, url,
};

/// How many removals and replacements are remembered for `changed_since`.
const REMEMBERED: usize = 10_000;

/// The number of rows of `proxies` and the XOR of their checksums: shows whether a row is missing or foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    pub count: u64,
    pub xor: u32,
}

impl Digest {
    pub fn of(entries: &[(ProxyKey, Entry)]) -> Digest {
        let mut digest = Digest::default();
        entries.iter().for_each(|((kind, key), entry)| digest.add(*kind, key, entry));
        digest
    }

    pub fn add(&mut self, kind: Kind, key: &str, entry: &Entry) {
        self.count += 1;
        self.xor ^= entry.crc(kind, key);
    }

    fn take(&mut self, kind: Kind, key: &str, entry: &Entry) {
        self.count -= 1;
        self.xor ^= entry.crc(kind, key);
    }
}

/// Who changed intent, and with which call.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// Who: a client as `ip:port`, `zlm-journal` or `MediaServer`.
    pub caller: String,
    /// The API call, or why it was done without one.
    pub reason: String,
}

/// A change, with everything that its transaction writes.
#[derive(Debug, Clone)]
pub struct Applied {
    pub change: Change,
    /// The row of `proxies` after the change; `None` if there is none.
    pub entry: Option<Entry>,
    /// The row before the change.
    pub before: Option<Entry>,
    /// The digest of `proxies` after the change.
    pub digest: Digest,
}

#[derive(Clone, Default)]
pub struct Intent {
    cipher: Option<Arc<ArgsCipher>>,
    entries: BTreeMap<ProxyKey, Entry>,
    /// An index by `app/stream` of what proxies make or take. Contains only those whose key does not show all of that.
    by_path: BTreeSet<(String, ProxyKey)>,
    by_state: BTreeMap<State, u64>,
    /// The proxies with hours.
    timed: BTreeSet<ProxyKey>,
    digest: Digest,
    seq: u64,
    /// Recently removed or replaced arguments, with the change that did it; those up to `forgotten` are no longer
    /// known.
    removed: VecDeque<(u64, Kind, Args)>,
    forgotten: u64,
}

impl Intent {
    /// An empty intent whose next change gets `seq + 1`. With a cipher, it encrypts.
    pub fn starting_at(seq: u64, cipher: Option<&Arc<ArgsCipher>>) -> Self {
        Self { seq, forgotten: seq, cipher: cipher.cloned(), ..Self::default() }
    }

    pub fn cipher(&self) -> Option<&Arc<ArgsCipher>> {
        self.cipher.as_ref()
    }

    /// The last change after `since` in a scope, if any. If `since` is too old to tell, the last change that is no
    /// longer known.
    pub fn changed_since(&self, since: u64, scope: &dyn Fn(Kind, &Args) -> bool) -> Option<u64> {
        if since < self.forgotten {
            return Some(self.forgotten);
        }
        let removed = self.removed.iter().map(|(seq, kind, args)| (*seq, *kind, args));
        let there = self.entries.iter().map(|((kind, _), entry)| (entry.seq, *kind, &entry.args));
        let later = removed.chain(there).filter(|(seq, ..)| *seq > since);
        later.filter(|(_, kind, args)| scope(*kind, args)).map(|(seq, ..)| seq).max()
    }

    /// The same of these proxies. What is there knows its last change; of what is missing, it is known whether it was removed
    /// since, unless that is too long ago.
    pub fn named_changed_since(&self, since: u64, named: &HashSet<ProxyKey>) -> Option<u64> {
        let (mut last, mut missing) = (None, HashSet::new());
        for name in named {
            match self.entries.get(name) {
                Some(entry) => last = last.max(Some(entry.seq).filter(|seq| *seq > since)),
                None => drop(missing.insert(name)),
            }
        }
        if missing.is_empty() {
            return last;
        }
        let removed = self
            .removed
            .iter()
            .filter(|(seq, kind, args)| *seq > since && missing.contains(&(*kind, kind.key_of_args(args).into())));
        let unknown = Some(self.forgotten).filter(|forgotten| since < *forgotten);
        last.max(unknown).max(removed.map(|(seq, ..)| *seq).max())
    }

    /// The number of the last change.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether it was filled without duplicate keys.
    pub fn is_whole(&self) -> bool {
        self.digest.count == self.entries.len() as u64
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

    /// At most `most` entries after `cursor`, ordered by kind and key, so that a long walk does not hold a lock for
    /// long.
    pub fn after(&self, cursor: Option<&ProxyKey>, most: usize) -> Vec<(ProxyKey, Entry)> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range((from, Bound::Unbounded))
            .take(most)
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// The same of the proxies that have hours.
    pub fn timed_after(&self, cursor: Option<&ProxyKey>, most: usize) -> Vec<(ProxyKey, Entry)> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let timed = self.timed.range((from, Bound::Unbounded)).take(most);
        timed.filter_map(|key| Some((key.clone(), self.entries.get(key)?.clone()))).collect()
    }

    /// The proxies that end with this source of the server, and the source with them.
    pub fn producers(&self, stream: &Stream, rules: &NamingRules) -> Vec<ProxyKey> {
        let name: Arc<str> = stream.to_string().into();
        let producers = Kind::ALL.iter().filter(|kind| kind.info().output == Endpoint::Named);
        let named = producers.map(|kind| (*kind, Arc::clone(&name)));
        let found = named.chain(self.on_path(stream).filter(|(_, key)| *key != name));
        let makes = |(kind, key): &ProxyKey| {
            let args = self.get(*kind, key).map(|entry| entry.args.read());
            args.is_some_and(|args| kind.own_streams(|name| args.get(name), rules).contains(stream))
        };
        found.filter(makes).collect()
    }

    /// The proxies that take this source of the server by name.
    pub fn takers(&self, schema: &str, stream: &Stream, rules: &NamingRules) -> Vec<ProxyKey> {
        let takers = Kind::ALL.iter().filter(|kind| kind.info().input == Endpoint::Named);
        let prefix: Arc<str> = format!("{schema}/{stream}/").into();
        let named = takers.flat_map(|kind| {
            let from = self.entries.range((*kind, Arc::clone(&prefix))..).map(|(key, _)| key);
            from.take_while(|(its, key)| *its == *kind && key.starts_with(&*prefix)).cloned().collect::<Vec<_>>()
        });
        let takes = |(kind, key): &ProxyKey| {
            let args = self.get(*kind, key).map(|entry| entry.args.read());
            let taken = args.and_then(|args| kind.taken_stream(|name| args.get(name), rules));
            taken.is_some_and(|(its, taken)| its == schema && taken == *stream)
        };
        let others = self.on_path(stream).filter(|(_, key)| !key.starts_with(&*prefix));
        named.chain(others).filter(takes).collect()
    }

    fn on_path(&self, stream: &Stream) -> impl Iterator<Item = ProxyKey> {
        let path = stream.path().to_owned();
        let from = (path.clone(), (Kind::Pull, Arc::from("")));
        self.by_path.range(from..).take_while(move |(its, _)| *its == path).map(|(_, key)| key.clone())
    }

    /// Inserts or replaces an entry. Its arguments must be readable, and encrypted if there is a cipher.
    pub fn put(&mut self, kind: Kind, key: Arc<str>, entry: Entry) {
        if let Some(before) = self.entries.insert((kind, Arc::clone(&key)), entry.clone()) {
            self.uncount(kind, &key, &before);
        }
        self.seq = self.seq.max(entry.seq);
        self.digest.add(kind, &key, &entry);
        self.index(kind, &key, &entry);
    }

    fn index(&mut self, kind: Kind, key: &Arc<str>, entry: &Entry) {
        *self.by_state.entry(entry.state).or_default() += 1;
        let paths = paths_of(kind, key, entry);
        self.by_path.extend(paths.into_iter().map(|path| (path, (kind, Arc::clone(key)))));
        if let Some(why) = entry.args.options().and_then(|options| options.unread.as_ref()) {
            log::warn!("journal: {} {key} runs without what this version cannot read: {why}", kind.name());
        }
        if entry.args.hours().is_some() {
            self.timed.insert((kind, Arc::clone(key)));
        }
    }

    /// Fills an empty intent with entries that match `digest`. Built at once: a tree that grows in the order of its
    /// keys stays half empty.
    pub fn filled(mut self, entries: Vec<(ProxyKey, Entry)>, digest: Digest) -> Self {
        for ((kind, key), entry) in &entries {
            self.seq = self.seq.max(entry.seq);
            self.index(*kind, key, entry);
        }
        self.digest = digest;
        self.entries = entries.into_iter().collect();
        self
    }

    /// Undoes the last change on its key. The number is not used again.
    pub fn take_back(&mut self, Applied { change, before, .. }: &Applied) {
        self.set(change.kind, &change.key, before.clone());
    }

    /// Inserts or replaces an entry, or drops it.
    pub fn set(&mut self, kind: Kind, key: &Arc<str>, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.put(kind, Arc::clone(key), entry),
            None => {
                self.forget(kind, key);
            }
        }
    }

    /// Drops an entry without a change. Returns false if there is none.
    pub fn forget(&mut self, kind: Kind, key: &str) -> bool {
        let Some(((_, key), entry)) = self.entries.remove_entry(&(kind, key.into())) else { return false };
        self.uncount(kind, &key, &entry);
        true
    }

    /// Makes a change and numbers it. An add enables the proxy with its arguments. `None` if nothing changes, or an add
    /// has no arguments.
    pub fn change(&mut self, change: Change) -> Option<Applied> {
        let Change { at, op, kind, ref key, .. } = change;
        let before = self.get(kind, key).cloned();
        let seq = self.seq + 1;
        let entry = match (op, &before) {
            (Op::Add, _) => {
                let args = match &self.cipher {
                    Some(cipher) => cipher.encrypted(kind, key, change.args?),
                    None => change.args?,
                };
                let created_at = before.as_ref().map_or(at, |entry| entry.created_at);
                Some(Entry { args, state: State::Enabled, seq, created_at, updated_at: at })
            }
            (Op::Remove, Some(_)) => None,
            (Op::Set(state), Some(before)) if state != before.state => {
                Some(Entry { state, seq, updated_at: at, ..before.clone() })
            }
            (Op::Remove | Op::Set(_), _) => return None,
        };
        self.seq = seq;
        // An entry that leaves a scope counts as removed from it.
        if let Some(before) = &before {
            self.removed.push_back((seq, kind, before.args.clone()));
            if self.removed.len() > REMEMBERED {
                self.forgotten = self.removed.pop_front().map_or(seq, |(seq, ..)| seq);
            }
        }
        self.set(kind, key, entry.clone());
        let args = entry.as_ref().map(|entry| entry.args.clone());
        Some(Applied { change: Change { seq, args, ..change }, entry, before, digest: self.digest })
    }

    fn uncount(&mut self, kind: Kind, key: &Arc<str>, entry: &Entry) {
        self.digest.take(kind, key, entry);
        if let Some(count) = self.by_state.get_mut(&entry.state) {
            *count -= 1;
        }
        for path in paths_of(kind, key, entry) {
            self.by_path.remove(&(path, (kind, Arc::clone(key))));
        }
        if entry.args.hours().is_some() {
            self.timed.remove(&(kind, Arc::clone(key)));
        }
    }
}

/// The paths of an entry in `by_path`. Most keys have the default virtual host and need none.
fn paths_of(kind: Kind, key: &str, entry: &Entry) -> Vec<String> {
    let info = kind.info();
    // A key begins with the virtual host, or with the schema and then the virtual host.
    let part = usize::from(info.input == Endpoint::Named);
    let is_named = info.output == Endpoint::Named || info.input == Endpoint::Named;
    let says_all = is_named && key.split('/').nth(part) == Some(DEFAULT_VHOST);
    if says_all && !info.renames_stream.is_some_and(|name| entry.args.may_have(name)) {
        return Vec::new();
    }
    let read = entry.args.read();
    let path = |stream: Option<&str>| Some(format!("{}/{}", read.get("app")?, stream?));
    match info.output {
        Endpoint::Url(name) if !is_named => read.get(name).and_then(url::path_of).into_iter().collect(),
        _ => {
            let own = path(read.get("stream")).filter(|_| !says_all);
            let renamed = path(info.renames_stream.and_then(|name| read.get(name)));
            own.into_iter().chain(renamed).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Intent {
        pub fn add(&mut self, at: i64, kind: Kind, key: &str, args: Args, cause: Cause) -> Applied {
            self.change(change(at, Op::Add, kind, key, Some(args), cause)).unwrap()
        }

        pub fn remove(&mut self, at: i64, kind: Kind, key: &str, cause: Cause) -> Option<Applied> {
            self.change(change(at, Op::Remove, kind, key, None, cause))
        }

        pub fn set_state(&mut self, at: i64, kind: Kind, key: &str, to: State, cause: Cause) -> Option<Applied> {
            self.change(change(at, Op::Set(to), kind, key, None, cause))
        }
    }

    fn change(at: i64, op: Op, kind: Kind, key: &str, args: Option<Args>, cause: Cause) -> Change {
        Change { seq: 0, at, op, kind, key: key.into(), args, origin: cause.caller, reason: cause.reason }
    }

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

        let mut read_back = Intent::starting_at(long.seq(), None);
        for (kind, key, entry) in long.iter() {
            read_back.put(kind, Arc::clone(key), entry.clone());
        }
        assert_eq!(read_back.digest(), long.digest());
        let entries: Vec<_> = long.after(None, 10);
        let filled = Intent::starting_at(0, None).filled(entries.clone(), Digest::of(&entries));
        assert_eq!((filled.digest(), filled.seq(), filled.is_whole()), (long.digest(), 2, true));
        assert_eq!(filled.count(State::Enabled), long.count(State::Enabled));
        let twice = [entries.clone(), entries].concat();
        assert!(!Intent::default().filled(twice.clone(), Digest::of(&twice)).is_whole());

        // Found by what it makes, which its key does not say.
        let pairs = [(b"dst_url".as_slice(), b"rtmp://127.0.0.1/live/x".as_slice())];
        long.add(4, Kind::Ffmpeg, "f", Args::from_pairs(pairs).unwrap(), Cause::default());
        let entries = long.after(None, 10);
        let filled = Intent::default().filled(entries.clone(), Digest::of(&entries));
        let rules = NamingRules::default();
        let made = filled.producers(&Stream::new("", "live", "x", &rules), &rules);
        assert_eq!(made, [(Kind::Ffmpeg, "f".into())]);
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

    fn of(pairs: &[(&str, &str)]) -> Args {
        Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap()
    }

    #[test]
    fn the_makers_of_a_stream_are_found_as_long_as_they_are_wanted() {
        let rules = NamingRules::default();
        let mut intent = Intent::default();
        let add = |intent: &mut Intent, kind: Kind, key: &str, pairs: &[(&str, &str)]| {
            intent.add(1, kind, key, of(pairs), Cause::default());
        };
        let stream = Stream::new("", "live", "x", &rules);
        let live_x = [("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "x")];
        let foo = [("vhost", "foo"), ("app", "live"), ("stream", "x"), ("stream_replace", "xx")];
        add(&mut intent, Kind::Pull, "__defaultVhost__/live/x", &live_x);
        add(&mut intent, Kind::Ffmpeg, "k1", &[("dst_url", "rtmp://localhost/live/x")]);
        add(&mut intent, Kind::Ffmpeg, "k2", &[("dst_url", "rtmp://127.0.0.1/live/xx")]);
        add(&mut intent, Kind::Ffmpeg, "k3", &[("dst_url", "rtmp://cdn/live/x")]);
        let (x, k1) = ((Kind::Pull, "__defaultVhost__/live/x".into()), (Kind::Ffmpeg, "k1".into()));
        assert_eq!(intent.producers(&stream, &rules), [x.clone(), k1.clone()]);
        add(&mut intent, Kind::Pull, "foo/live/x", &foo);
        let foos = (Kind::Pull, "foo/live/x".into());
        assert_eq!(intent.producers(&stream, &rules), [x.clone(), foos.clone(), k1.clone()], "vhosts are off");
        let with_vhosts = NamingRules { vhosts: true, ..rules.clone() };
        assert_eq!(intent.producers(&stream, &with_vhosts), [x.clone(), k1]);
        assert_eq!(intent.producers(&Stream::new("foo", "live", "x", &with_vhosts), &with_vhosts), [foos]);
        for (kind, key) in [(Kind::Ffmpeg, "k1"), (Kind::Ffmpeg, "k3"), (Kind::Pull, "foo/live/x")] {
            intent.remove(7, kind, key, Cause::default());
        }
        assert_eq!(intent.producers(&stream, &rules), [x]);
        intent.remove(8, Kind::Pull, "__defaultVhost__/live/x", Cause::default());
        intent.remove(9, Kind::Ffmpeg, "k2", Cause::default());
        assert!(intent.by_path.is_empty());
    }

    #[test]
    fn the_maker_of_a_renamed_stream_is_found_by_both_names() {
        let rules = NamingRules::default();
        let mut intent = Intent::default();
        let named = |name: &str| Stream::new("", "live", name, &rules);
        let key = "__defaultVhost__/live/x";
        let args = [("vhost", DEFAULT_VHOST), ("app", "live"), ("stream", "x"), ("Stream_Replace", "y")];
        intent.add(1, Kind::Pull, key, of(&args), Cause::default());
        for name in ["x", "y"] {
            assert_eq!(intent.producers(&named(name), &rules), [(Kind::Pull, key.into())], "{name}");
        }
        intent.add(2, Kind::Pull, key, of(&args[..3]), Cause::default());
        assert_eq!(intent.producers(&named("y"), &rules), []);
        assert!(intent.by_path.is_empty());
    }

    #[test]
    fn a_stream_with_a_slash_is_told_from_one_with_it_elsewhere() {
        let rules = NamingRules::default();
        let mut intent = Intent::default();
        let args = of(&[("vhost", "__defaultVhost__"), ("app", "a/b"), ("stream", "c")]);
        intent.add(1, Kind::Pull, "__defaultVhost__/a/b/c", args, Cause::default());
        assert_eq!(intent.producers(&Stream::new("", "a/b", "c", &rules), &rules).len(), 1);
        assert_eq!(intent.producers(&Stream::new("", "a", "b/c", &rules), &rules), []);
    }

    #[test]
    fn what_takes_a_source_is_found_whatever_virtual_host_its_caller_named() {
        let rules = NamingRules::default();
        let mut intent = Intent::default();
        for (key, schema, vhost, stream) in [
            ("rtmp/__defaultVhost__/live/a/1", "rtmp", "__defaultVhost__", "a"),
            ("rtmp/__defaultVhost__/live/ab/1", "rtmp", "__defaultVhost__", "ab"),
            ("rtsp/__defaultVhost__/live/a/1", "rtsp", "__defaultVhost__", "a"),
            ("rtmp/foo/live/a/2", "rtmp", "foo", "a"),
        ] {
            let args =
                of(&[("schema", schema), ("vhost", vhost), ("app", "live"), ("stream", stream), ("dst_url", "x")]);
            intent.add(1, Kind::Push, key, args, Cause::default());
        }
        let found = intent.takers("rtmp", &Stream::new("", "live", "a", &rules), &rules);
        let found: Vec<_> = found.iter().map(|(_, key)| key.as_ref()).collect();
        assert_eq!(found, ["rtmp/__defaultVhost__/live/a/1", "rtmp/foo/live/a/2"]);
    }
}
