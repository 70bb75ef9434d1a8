//! The changes that make the journal have what is desired: the same rule for syncJournal, importJournal and
//! rollbackJournal. Knows nothing of calls and replies.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::list::shown;
use super::reply::Name;
use crate::journal::Mutation;
use crate::model::{Args, Entry, Existing, Op, ProxyKey, State};
use crate::plugin::Plugin;

/// The desired state of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub args: Args,
    /// `None`: a disabled proxy stays disabled, a new one or one with other arguments is enabled.
    pub state: Option<State>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub added: Vec<ProxyKey>,
    pub updated: Vec<ProxyKey>,
    /// The updated ones that need not be ended for it by a server that can change proxies in place.
    pub in_place: Vec<ProxyKey>,
    pub removed: Vec<ProxyKey>,
    pub unchanged: usize,
    /// Ordered by key; the first mutation of a key fails if the proxy was changed in the meantime.
    pub mutations: Vec<Mutation>,
}

/// A diff in a reply.
#[derive(Serialize)]
pub struct Shown<'a, N> {
    added: Vec<Item<'a, N>>,
    updated: Vec<Item<'a, N>>,
    in_place: Vec<N>,
    removed: Vec<Item<'a, N>>,
    unchanged: usize,
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a, N> {
    Named(N),
    Detailed(Detail<'a>),
}

/// A proxy before and after.
#[derive(Serialize)]
struct Detail<'a> {
    #[serde(flatten)]
    name: Name<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Side>,
}

#[derive(Serialize)]
struct Side {
    state: State,
    args: Value,
}

impl Side {
    fn of(state: State, args: &Args) -> Side {
        Side { state, args: shown(args, false) }
    }
}

/// What a call shows of a diff.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Showing {
    #[serde(default)]
    pub dry_run: bool,
    /// Of how many of those added, updated and removed to say what they were and what they become.
    #[serde(default)]
    detail: u64,
}

/// Of more, only the names.
const MOST_DETAILED: usize = 1000;

impl Diff {
    pub fn shown<'a, N>(
        &'a self,
        plugin: &Plugin,
        mutations: &[Mutation],
        name: impl Fn(&'a ProxyKey) -> N,
        showing: Showing,
    ) -> Shown<'a, N> {
        let most = usize::try_from(showing.detail).map_or(MOST_DETAILED, |detail| detail.min(MOST_DETAILED));
        let mut its: HashMap<&ProxyKey, Vec<&Mutation>> = HashMap::new();
        for mutation in mutations.iter().filter(|_| most > 0) {
            its.entry(&mutation.key).or_default().push(mutation);
        }
        let detail = |key| Detail::of(key, plugin, its.get(key).map_or(&[], Vec::as_slice));
        let items = |keys: &'a [ProxyKey]| {
            let (detailed, others) = keys.split_at(most.min(keys.len()));
            let detailed = detailed.iter().map(|key| Item::Detailed(detail(key)));
            detailed.chain(others.iter().map(|key| Item::Named(name(key)))).collect()
        };
        Shown {
            added: items(&self.added),
            updated: items(&self.updated),
            in_place: if plugin.capture().can_update() {
                self.in_place.iter().map(&name).collect()
            } else {
                Vec::new()
            },
            removed: items(&self.removed),
            unchanged: self.unchanged,
            dry_run: showing.dry_run,
        }
    }

    /// `present` is what the journal has of the scope. `removes` says whether what is not desired is removed or kept.
    pub fn between(
        mut desired: BTreeMap<ProxyKey, Desired>,
        present: impl IntoIterator<Item = (ProxyKey, Entry)>,
        removes: bool,
    ) -> Diff {
        let mut diff = Diff::default();
        for (key, entry) in present {
            match desired.remove(&key) {
                Some(desired) => diff.update(key, desired, &entry),
                None if removes => {
                    diff.push(&key, Op::Remove, None, Some(entry.seq));
                    diff.removed.push(key);
                }
                None => diff.unchanged += 1,
            }
        }
        for (key, Desired { args, state }) in desired {
            diff.add(&key, args, state.unwrap_or(State::Enabled), 0);
            diff.added.push(key);
        }
        diff
    }

    fn update(&mut self, key: ProxyKey, Desired { args, state }: Desired, entry: &Entry) {
        // Which of its URLs a pull plays from is not for others to say.
        let args = key.0.with_note_of(args, &entry.args);
        let is_same_call = args == entry.args;
        let state = state.unwrap_or(match entry.state {
            state if is_same_call => state,
            State::Disabled => State::Disabled,
            _ => State::Enabled,
        });
        if is_same_call && state == entry.state {
            self.unchanged += 1;
            return;
        }
        if is_same_call {
            self.push(&key, Op::Set(state), None, Some(entry.seq));
        } else {
            let stays_enabled = [entry.state, state] == [State::Enabled; 2];
            if stays_enabled && key.0.change(&entry.args, &args) == Existing::Update {
                self.in_place.push(key.clone());
            }
            self.add(&key, args, state, entry.seq);
        }
        self.updated.push(key);
    }

    fn add(&mut self, key: &ProxyKey, args: Args, state: State, expected: u64) {
        self.push(key, Op::Add, Some(args), Some(expected));
        if state != State::Enabled {
            self.push(key, Op::Set(state), None, None);
        }
    }

    fn push(&mut self, key: &ProxyKey, op: Op, args: Option<Args>, expected: Option<u64>) {
        self.mutations.push(Mutation { key: key.clone(), op, args, expected });
    }
}

impl<'a> Detail<'a> {
    fn of(key: &'a ProxyKey, plugin: &Plugin, mutations: &[&Mutation]) -> Detail<'a> {
        let before = plugin.journal().get(key.0, &key.1);
        let from = before.as_ref().map(|entry| (entry.state, &entry.args));
        let to = mutations.iter().fold(from, |before, Mutation { op, args, .. }| {
            Some((op.state()?, args.as_ref().or(before.map(|(_, args)| args))?))
        });
        let side = |side: Option<(State, &Args)>| side.map(|(state, args)| Side::of(state, args));
        Detail { name: Name::from(key), from: side(from), to: side(to) }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InUse, Kind};

    fn args(url: &str) -> Args {
        Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap()
    }

    fn key(name: &str) -> ProxyKey {
        (Kind::Pull, name.into())
    }

    fn present(entries: &[(&str, &str, State)]) -> Vec<(ProxyKey, Entry)> {
        let entry = |url, state, seq| Entry { args: args(url), state, seq, created_at: 0, updated_at: 0 };
        entries.iter().zip(1..).map(|((name, url, state), seq)| (key(name), entry(url, *state, seq))).collect()
    }

    fn desired(entries: &[(&str, &str, Option<State>)]) -> BTreeMap<ProxyKey, Desired> {
        entries.iter().map(|(name, url, state)| (key(name), Desired { args: args(url), state: *state })).collect()
    }

    fn ops(diff: &Diff) -> Vec<(&str, &str, Option<u64>)> {
        diff.mutations.iter().map(|it| (it.key.1.as_ref(), it.op.name(), it.expected)).collect()
    }

    #[test]
    fn diff_changes_only_what_differs() {
        let present = || {
            present(&[
                ("gone", "rtsp://0", State::Enabled),
                ("moved", "rtsp://1", State::Quarantined),
                ("off", "rtsp://2", State::Disabled),
                ("same", "rtsp://3", State::Quarantined),
            ])
        };
        let desired = || {
            let urls = [("moved", "rtsp://9"), ("new", "rtsp://5"), ("off", "rtsp://8"), ("same", "rtsp://3")];
            desired(&urls.map(|(name, url)| (name, url, None)))
        };
        let diff = Diff::between(desired(), present(), true);
        assert_eq!(
            ops(&diff),
            [
                ("gone", "remove", Some(1)),
                ("moved", "add", Some(2)),
                ("off", "add", Some(3)),
                ("off", "disable", None),
                ("new", "add", Some(0)),
            ]
        );
        assert_eq!((diff.unchanged, &diff.added, &diff.removed), (1, &vec![key("new")], &vec![key("gone")]));
        assert_eq!(diff.updated, [key("moved"), key("off")]);

        let careful = Diff::between(desired(), present(), false);
        assert_eq!((careful.removed.len(), careful.unchanged, careful.mutations.len()), (0, 2, 4));
    }

    #[test]
    fn which_url_is_in_use_is_not_changed_by_saying_again_what_is_wanted() {
        let with = |url: &str, in_use: &str| {
            let pairs = [("url", url), ("journal_backup_urls", r#"["rtsp://b/1"]"#)];
            let args = Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            let in_use = InUse { url: in_use.to_owned(), since: 1, why: "off".to_owned() };
            args.unwrap().noting(Some(&in_use).filter(|in_use| !in_use.url.is_empty())).unwrap()
        };
        let between = |args: Args| {
            let entry = Entry {
                args: with("rtsp://a/1", "rtsp://b/1"),
                state: State::Enabled,
                seq: 7,
                created_at: 0,
                updated_at: 0,
            };
            let desired = [(key("a"), Desired { args, state: None })].into();
            Diff::between(desired, [(key("a"), entry)], true)
        };
        assert_eq!(between(with("rtsp://a/1", "")).unchanged, 1);
        let other_first = between(with("rtsp://c/1", ""));
        assert_eq!(other_first.mutations[0].args, Some(with("rtsp://c/1", "")));
        let other_backups = between(args("rtsp://a/1"));
        assert_eq!(other_backups.mutations[0].args, Some(args("rtsp://a/1")));
        assert_eq!([other_first.in_place, other_backups.in_place], [[key("a")], [key("a")]]);
    }

    #[test]
    fn diff_restores_states() {
        let present = present(&[
            ("off", "rtsp://1", State::Enabled),
            ("on", "rtsp://2", State::Disabled),
            ("other", "rtsp://3", State::Disabled),
            ("same", "rtsp://4", State::Dormant),
        ]);
        let desired = desired(&[
            ("new", "rtsp://5", Some(State::Disabled)),
            ("off", "rtsp://1", Some(State::Disabled)),
            ("on", "rtsp://2", Some(State::Enabled)),
            ("other", "rtsp://9", Some(State::Enabled)),
            ("same", "rtsp://4", Some(State::Dormant)),
        ]);
        let diff = Diff::between(desired, present, true);
        assert_eq!(
            ops(&diff),
            [
                ("off", "disable", Some(1)),
                ("on", "enable", Some(2)),
                ("other", "add", Some(3)),
                ("new", "add", Some(0)),
                ("new", "disable", None),
            ]
        );
        assert_eq!(diff.unchanged, 1);
    }
}
