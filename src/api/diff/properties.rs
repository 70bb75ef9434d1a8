//! The diff of random journals and wishes, carried out by intent itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::model::{Change, Kind};
use crate::storage::intent::{Cause, Intent};
use crate::testing;

const KEYS: usize = 6;

fn key(which: usize) -> ProxyKey {
    let kind = Kind::ALL[which % Kind::ALL.len()];
    (kind, format!("v/live/{which}").into())
}

fn args(url: usize) -> Args {
    let url = format!("rtsp://{url}");
    Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap()
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(State::ALL)
}

/// Of each key in the journal the URL and the state.
type Journal = BTreeMap<usize, (usize, State)>;

fn journal() -> impl Strategy<Value = Journal> {
    btree_map(0..KEYS, (0..3_usize, state()), 0..KEYS)
}

/// By a way that leaves gaps between the numbers of changes.
fn intent(journal: &Journal) -> Intent {
    let mut intent = Intent::starting_at(7, None);
    for (which, (url, state)) in journal {
        let (kind, key) = key(*which);
        intent.add(0, kind, &key, args(*url), Cause::default());
        intent.set_state(0, kind, &key, *state, Cause::default());
    }
    intent
}

fn desired() -> impl Strategy<Value = BTreeMap<ProxyKey, Desired>> {
    let one = (0..3_usize, proptest::option::of(state()));
    btree_map(0..KEYS, one, 0..KEYS).prop_map(|entries| {
        let desired = |(url, state)| Desired { args: args(url), state };
        entries.into_iter().map(|(which, one)| (key(which), desired(one))).collect()
    })
}

fn entries(intent: &Intent) -> BTreeMap<ProxyKey, Entry> {
    intent.iter().map(|(kind, key, entry)| ((kind, key.clone()), entry.clone())).collect()
}

/// What is to be there: the rule in other words.
fn expected(
    desired: &BTreeMap<ProxyKey, Desired>,
    before: &BTreeMap<ProxyKey, Entry>,
    removes: bool,
) -> BTreeMap<ProxyKey, (Args, State)> {
    let mut expected = BTreeMap::new();
    for (key, entry) in before.iter().filter(|_| !removes) {
        expected.insert(key.clone(), (entry.args.clone(), entry.state));
    }
    for (key, Desired { args, state }) in desired {
        let usual = match before.get(key) {
            Some(entry) if entry.args == *args || entry.state == State::Disabled => entry.state,
            _ => State::Enabled,
        };
        expected.insert(key.clone(), (args.clone(), state.unwrap_or(usual)));
    }
    expected
}

/// Carries the changes out as the journal does: none where an expectation does not hold before the first.
fn apply(intent: &mut Intent, mutations: Vec<Mutation>) {
    for Mutation { key: (kind, key), expected, .. } in &mutations {
        let there = intent.get(*kind, key).map_or(0, |entry| entry.seq);
        assert!(expected.is_none_or(|expected| expected == there), "{key}");
    }
    for Mutation { key: (kind, key), op, args, .. } in mutations {
        let (origin, reason) = Default::default();
        let change = Change { seq: 0, at: 9, op, kind, key: Arc::clone(&key), args, origin, reason };
        assert!(intent.change(change).is_some(), "{op:?} of {key} changes nothing");
    }
}

fn names(keys: &[ProxyKey]) -> BTreeSet<ProxyKey> {
    let names: BTreeSet<ProxyKey> = keys.iter().cloned().collect();
    assert_eq!(names.len(), keys.len(), "one is told twice");
    names
}

proptest! {
    #![proptest_config(testing::config(512))]

    #[test]
    fn applied_to_what_is_there_it_makes_what_is_desired_and_tells_what_it_did(
        journal in journal(),
        desired in desired(),
        removes: bool,
    ) {
        let mut intent = intent(&journal);
        let before = entries(&intent);
        let expected = expected(&desired, &before, removes);
        let diff = Diff::between(desired.clone(), before.clone(), removes);
        let (added, updated, removed) = (names(&diff.added), names(&diff.updated), names(&diff.removed));
        let unchanged = diff.unchanged;
        apply(&mut intent, diff.mutations);
        let after = entries(&intent);
        let is: BTreeMap<ProxyKey, (Args, State)> =
            after.iter().map(|(key, entry)| (key.clone(), (entry.args.clone(), entry.state))).collect();
        prop_assert_eq!(is, expected);

        // What it told before anything was done, as `dry_run` does, is what was done.
        let keys = |wanted: &dyn Fn(Option<&Entry>, Option<&Entry>) -> bool| -> BTreeSet<ProxyKey> {
            let all: BTreeSet<&ProxyKey> = before.keys().chain(after.keys()).collect();
            all.into_iter().filter(|key| wanted(before.get(*key), after.get(*key))).cloned().collect()
        };
        prop_assert_eq!(added, keys(&|before, after| before.is_none() && after.is_some()));
        prop_assert_eq!(removed, keys(&|before, after| before.is_some() && after.is_none()));
        prop_assert_eq!(updated, keys(&|before, after| before.is_some() && after.is_some() && before != after));
        prop_assert_eq!(unchanged, keys(&|before, after| before == after).len());

        // The same once more changes nothing.
        let again = Diff::between(desired, after.clone(), removes);
        prop_assert_eq!(again, Diff { unchanged: after.len(), ..Diff::default() });
    }

    #[test]
    fn in_whatever_order_the_journal_is_read_the_changes_are_the_same(
        journal in journal(),
        desired in desired(),
        removes: bool,
    ) {
        let sorted = |present: Vec<(ProxyKey, Entry)>| {
            let mut diff = Diff::between(desired.clone(), present, removes);
            // Stable: what happens to one key stays in its order.
            diff.mutations.sort_by(|one, other| one.key.cmp(&other.key));
            [&mut diff.added, &mut diff.updated, &mut diff.removed].into_iter().for_each(|keys| keys.sort());
            diff
        };
        let present: Vec<(ProxyKey, Entry)> = entries(&intent(&journal)).into_iter().collect();
        let reversed = present.iter().rev().cloned().collect();
        prop_assert_eq!(sorted(present), sorted(reversed));
    }
}
