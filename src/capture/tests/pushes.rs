//! Pushes, which end with the stream that they take.

use super::ours::Called;
use super::*;
use crate::capture::own_end::DOUBT;

const PUSH: [(&str, &str); 6] = [
    ("schema", "rtmp"),
    ("vhost", "__defaultVhost__"),
    ("app", "live"),
    ("stream", "a"),
    ("dst_url", "rtmp://cdn/live/a"),
    ("retry_count", "1"),
];

fn push_key() -> String {
    Kind::Push.key_of(|name| PUSH.iter().find(|(its, _)| *its == name).unwrap().1)
}

impl Bench {
    /// Added and journaled.
    fn pushed(&self, more: &[(&str, &str)]) {
        let add = self.call("addStreamPusherProxy", &[&PUSH[..], more].concat());
        self.capture.made(Kind::Push, &push_key());
        self.capture.answered(add.id, answer(true));
        assert!(add.is_persisted());
    }
}

#[test]
fn push_is_kept_when_its_source_goes_and_answered_success_twice() {
    let bench = Bench::new();
    let (args, key) = (PUSH, push_key());
    let absent = bench.call("addStreamPusherProxy", &[&args[..], &[("force", "1")]].concat());
    bench.capture.answered(absent.id, answer(false));
    assert!(!absent.outcome().is_journaled);

    let add = bench.call("addStreamPusherProxy", &args);
    bench.capture.made(Kind::Push, &key);
    // Said yes to while the first is still connecting: nothing is certain yet.
    let early = bench.call("addStreamPusherProxy", &args);
    bench.capture.answered(early.id, answer(true));
    assert!(early.outcome().result.is_err());
    bench.capture.answered(add.id, answer(true));
    assert!(add.is_persisted());
    let seq = bench.journal.seq();
    let again = bench.call("addStreamPusherProxy", &args);
    bench.capture.answered(again.id, answer(true));
    assert!(again.is_persisted() && bench.journal.seq() == seq);

    bench.capture.stream_changed("rtmp", &stream("live", "a"), false);
    bench.capture.ended(Kind::Push, &key, 0);
    assert!(bench.journal.wants(Kind::Push, &key, 0));
}

#[test]
fn push_is_forgotten_for_its_tries_alone_and_not_for_a_source_whose_end_is_told_late() {
    let bench = Bench::with(&[("on_give_up", "forget")]);
    let key = push_key();
    let ended = || {
        bench.pushed(&[]);
        bench.capture.ended(Kind::Push, &key, 0);
    };
    let much_later = || {
        bench.capture.state.lock().doubts.iter_mut().for_each(|doubt| doubt.since -= DOUBT);
        let _ = reconcile::Host::actual(&bench.capture, &[]);
        bench.journal.wants(Kind::Push, &key, 0)
    };
    for comes_anew in [false, true] {
        ended();
        bench.capture.stream_changed("rtmp", &stream("live", "a"), comes_anew);
        assert!(much_later());
    }
    // Added again since.
    ended();
    bench.pushed(&[("rtp_type", "1")]);
    assert!(much_later());
    bench.capture.ended(Kind::Push, &key, 0);
    bench.capture.stream_changed("rtsp", &stream("live", "a"), false);
    let _ = reconcile::Host::actual(&bench.capture, &[]);
    assert!(bench.journal.wants(Kind::Push, &key, 0), "its source may still have gone");
    assert!(!much_later());
}

#[test]
fn push_of_what_is_closed_is_kept_though_it_ends_in_the_handler_of_the_close() {
    let bench = Bench::new();
    let key = push_key();
    bench.pushed(&[]);
    let close = bench.call("close_streams", &[("app", "live"), ("stream", "a")]);
    bench.capture.ended(Kind::Push, &key, close.id);
    bench.is_over(&close, true);
    assert!(!close.outcome().is_journaled && bench.journal.wants(Kind::Push, &key, 0));
}

#[test]
fn push_that_has_lost_its_source_is_there_no_more_and_replaced_when_it_is_started() {
    let bench = Bench::with(&[("on_give_up", "forget")]);
    let (told, calls) = channel();
    bench.capture.set_server(Box::new(Called(told)));
    let key: ProxyKey = (Kind::Push, push_key().into());
    let actual = || reconcile::Host::actual(&bench.capture, &[&key]).pop().flatten();
    bench.pushed(&[]);
    let start = |call: u64| {
        let seq = bench.journal.get(key.0, &key.1).unwrap().seq;
        bench.start(call, key.clone(), seq);
    };
    start(1);
    assert!(calls.try_recv().is_err() && actual() == Some(Listed::Playing), "it is there");
    let comes_anew =
        || [false, true].map(|is_there| bench.capture.stream_changed("rtmp", &stream("live", "a"), is_there));
    comes_anew();
    assert_eq!(actual(), None, "what has come is another one");
    start(2);
    let (ours, what) = calls.try_recv().unwrap();
    assert_eq!(what, format!("replace {}", key.1));
    bench.capture.ended(key.0, &key.1, ours);
    bench.capture.made(key.0, &key.1);
    bench.capture.started(ours, Added::Accepted);
    assert_eq!(actual(), Some(Listed::Playing));

    // It ends when its source is back already, which is no giving up.
    comes_anew();
    bench.capture.ended(key.0, &key.1, 0);
    assert!(bench.capture.state.lock().doubts.is_empty());
    // One that a client has added meanwhile is left alone.
    bench.pushed(&[]);
    start(3);
    assert!(calls.try_recv().is_err());
}

#[test]
fn push_is_there_again_when_it_connects_though_the_end_of_an_older_source_is_told_late() {
    let bench = Bench::new();
    let key: ProxyKey = (Kind::Push, push_key().into());
    let actual = || reconcile::Host::actual(&bench.capture, &[&key]).pop().flatten();
    bench.capture.stream_changed("rtmp", &stream("live", "a"), true);
    bench.pushed(&[]);
    bench.capture.stream_changed("rtmp", &stream("live", "a"), false);
    assert_eq!(actual(), None);
    bench.capture.connected(key.0, &key.1);
    assert_eq!(actual(), Some(Listed::Playing));
}
