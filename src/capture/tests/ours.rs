//! Our own calls among those of clients.

use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::journal::Mutation;

/// MediaServer as calls of ours reach it.
pub struct Called(pub Sender<(u64, String)>);

impl Server for Called {
    fn add(&self, call: u64, add: &Add) {
        let what = if add.existing == Existing::Replace { "replace" } else { "add" };
        self.0.send((call, format!("{what} {}", add.key.1))).unwrap();
    }
    fn can_update(&self) -> bool {
        true
    }
    fn update(&self, call: u64, add: &Add) {
        self.0.send((call, format!("update {}", add.key.1))).unwrap();
    }
    fn remove(&self, call: u64, (_, key): &ProxyKey) {
        self.0.send((call, format!("remove {key}"))).unwrap();
    }
}

/// A pull that plays, and what the server is asked for.
fn playing_pull() -> (Bench, std::sync::mpsc::Receiver<(u64, String)>, u64) {
    let bench = Bench::new();
    let (told, calls) = channel();
    bench.capture.set_server(Box::new(Called(told)));
    bench.playing(&[]);
    bench.source(true);
    let seq = bench.journal.get(Kind::Pull, KEY).unwrap().seq;
    (bench, calls, seq)
}

#[test]
fn a_pull_that_is_changed_in_place_connects_anew_and_keeps_its_sources() {
    let (bench, calls, seq) = playing_pull();
    let key: ProxyKey = (Kind::Pull, KEY.into());
    let does = || reconcile::Host::actual(&bench.capture, &[&key]).pop().unwrap().unwrap();
    assert_eq!(does(), Listed::Playing);
    bench.change(7, key.clone(), seq, Existing::Update);
    let (ours, what) = calls.try_recv().unwrap();
    assert_eq!(what, format!("update {KEY}"));
    // Meanwhile it is given others, which is no reason to end it.
    let args =
        bench.journal.get(Kind::Pull, KEY).unwrap().args.with([("journal_label", "x")].into_iter()).unwrap();
    let marked = Mutation { key: key.clone(), op: Op::Add, args: Some(args), expected: None };
    bench.journal.submit_batch(vec![marked], None, &Cause::default(), Done::new(drop)).unwrap();
    let seq = bench.journal.get(Kind::Pull, KEY).unwrap().seq;
    // Nobody else's turn comes before it has the arguments.
    bench.change(8, key.clone(), seq, Existing::Update);
    assert!(calls.try_recv().is_err());
    bench.capture.updated(ours);
    assert_eq!(does(), Listed::Connecting, "its sources are still there, and say nothing");
    let (next, what) = calls.try_recv().unwrap();
    assert_eq!(what, format!("update {KEY}"));
    bench.capture.updated(next);
    // The answer of the first comes late, and is not about what is there now.
    bench.capture.started(ours, Added::Failed("late".to_owned()));
    assert_eq!(does(), Listed::Connecting);
    bench.capture.failed(Kind::Pull, KEY, "refused");
    bench.capture.started(next, Added::Failed("refused".to_owned()));
    assert!(matches!(does(), Listed::Retrying { failures: 1, .. }), "the server keeps it");
    bench.capture.connected(Kind::Pull, KEY);
    assert_eq!(does(), Listed::Playing);
    assert!(bench.capture.state.lock().is_idle());
}

#[test]
fn a_pull_that_ends_before_it_is_changed_is_added_and_one_that_is_not_wanted_any_more_is_ended() {
    let (bench, calls, seq) = playing_pull();
    let key: ProxyKey = (Kind::Pull, KEY.into());
    bench.capture.ended(Kind::Pull, KEY, 0);
    bench.change(7, key.clone(), seq, Existing::Update);
    let (ours, what) = calls.try_recv().unwrap();
    assert_eq!(what, format!("add {KEY}"));
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.started(ours, Added::Accepted);
    bench.change(8, key.clone(), seq, Existing::Update);
    let (ours, what) = calls.try_recv().unwrap();
    assert_eq!(what, format!("update {KEY}"));
    let delete = bench.call("delStreamProxy", &[("key", KEY)]);
    bench.capture.answered(delete.id, answer(false));
    let seq = bench.journal.get(Kind::Pull, KEY).unwrap().seq;
    bench.journal.change(Kind::Pull, KEY, seq, Op::Set(Wanted::Disabled), "by others");
    bench.capture.updated(ours);
    let (_, what) = calls.try_recv().unwrap();
    assert_eq!(what, format!("remove {KEY}"));
}

#[test]
fn start_of_ours_takes_its_turn_and_is_ended_when_it_is_not_wanted_any_more() {
    let bench = Bench::new();
    let (told, calls) = channel();
    bench.capture.set_server(Box::new(Called(told)));
    bench.playing(&[]);
    bench.capture.ended(Kind::Pull, KEY, 0);
    let seq = bench.journal.get(Kind::Pull, KEY).unwrap().seq;
    let start = |call: u64| bench.start(call, (Kind::Pull, KEY.into()), seq);
    let client = bench.add("rtsp://2", &[]);
    start(7);
    assert!(calls.try_recv().is_err(), "the client comes first");
    bench.capture.answered(client.id, answer(false));
    let (ours, what) = calls.try_recv().unwrap();
    assert_eq!(what, format!("add {KEY}"));
    // Meanwhile a client deletes it, and another adds it anew.
    let delete = bench.call("delStreamProxy", &[("key", KEY)]);
    bench.capture.answered(delete.id, answer(true));
    let anew = bench.add("rtsp://3", &[]);
    bench.capture.made(Kind::Pull, KEY);
    let (end, what) = calls.try_recv().unwrap();
    assert_eq!((what, anew.waits()), (format!("remove {KEY}"), true), "before the other's turn comes");
    bench.capture.ended(Kind::Pull, KEY, end);
    bench.capture.removed(end);
    assert!(!anew.waits());
    bench.capture.started(ours, Added::Accepted);
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.answered(anew.id, answer(true));
    assert!(anew.is_persisted());
    assert_eq!(bench.url().unwrap(), "rtsp://3");
    // What is there already is not started.
    start(8);
    assert!(calls.try_recv().is_err());
    assert!(bench.capture.state.lock().is_idle());
}
