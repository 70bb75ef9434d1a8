//! Our own calls among those of clients.

use std::sync::mpsc::{Sender, channel};

use super::*;

/// MediaServer as calls of ours reach it.
pub struct Called(pub Sender<(u64, String)>);

impl Server for Called {
    fn add(&self, call: u64, add: &Add) {
        let what = if add.replace { "replace" } else { "add" };
        self.0.send((call, format!("{what} {}", add.key.1))).unwrap();
    }
    fn remove(&self, call: u64, (_, key): &ProxyKey) {
        self.0.send((call, format!("remove {key}"))).unwrap();
    }
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
