//! What a proxy does, by what is told of it.

use super::*;

/// A pull that is there and journaled, and has sent nothing yet.
fn connected(bench: &Bench, vhost: &str, app: &str, stream: &str) -> String {
    let add =
        bench.call("addStreamProxy", &[("vhost", vhost), ("app", app), ("stream", stream), ("url", "rtsp://1")]);
    let key = format!("{vhost}/{app}/{stream}");
    bench.capture.made(Kind::Pull, &key);
    bench.capture.answered(add.id, answer(true));
    assert!(add.is_persisted());
    key
}

#[test]
fn a_source_whose_name_only_reads_like_the_key_of_a_pull_is_not_its() {
    let bench = Bench::new();
    let key = connected(&bench, "__defaultVhost__", "a/b", "c");
    bench.capture.stream_changed("rtsp", &stream("a", "b/c"), true);
    assert_eq!(bench.does(Kind::Pull, &key), Listed::Connecting);
    bench.capture.stream_changed("rtsp", &stream("a/b", "c"), true);
    assert_eq!(bench.does(Kind::Pull, &key), Listed::Playing);
    // Nobody watches the other.
    bench.capture.nobody_watches(&stream("a", "b/c"));
    bench.capture.stream_changed("rtsp", &stream("a", "b/c"), false);
    assert_eq!(bench.does(Kind::Pull, &key), Listed::Playing);
    bench.capture.failed(Kind::Pull, &key, "off");
    bench.capture.ended(Kind::Pull, &key, 0);
    assert!(bench.journal.wants(Kind::Pull, &key, 0), "it failed, and was not idle");
}

/// Without virtual hosts (`general.enableVhost=0`), a key has the one that was given, and its source the default one.
#[test]
fn every_pull_that_makes_a_source_hears_of_it_whatever_its_key() {
    let bench = Bench::new();
    let keys = ["foo", "__defaultVhost__", "bar"].map(|vhost| connected(&bench, vhost, "live", "a"));
    let play = |key: &String| bench.does(Kind::Pull, key) == Listed::Playing;
    bench.source(true);
    assert!(keys.iter().all(play));
    bench.capture.ended(Kind::Pull, &keys[1], 0);
    bench.source(false);
    assert!(!play(&keys[0]) && !play(&keys[2]));
    bench.source(true);
    assert!(play(&keys[0]) && play(&keys[2]));
    bench.capture.ended(Kind::Pull, &keys[0], 0);
    bench.source(false);
    assert!(!play(&keys[2]));
}

#[test]
fn a_pull_plays_when_media_come_and_one_that_makes_no_source_when_it_has_connected() {
    let bench = Bench::new();
    let does = || bench.does(Kind::Pull, KEY);
    let add = bench.add("rtsp://1", &[]);
    bench.capture.made(Kind::Pull, KEY);
    assert_eq!(does(), Listed::Connecting);
    bench.capture.answered(add.id, answer(true));
    assert!(add.is_persisted());
    assert_eq!(does(), Listed::Connecting, "it has connected and sent nothing");
    bench.source(true);
    assert_eq!(does(), Listed::Playing);
    bench.source(false);
    let retrying =
        |failures, error: Option<&str>| Listed::Retrying { failures, error: error.map(std::sync::Arc::from) };
    assert_eq!(does(), retrying(0, None), "a server that does not say why");
    bench.capture.failed(Kind::Pull, KEY, "it hung up");
    bench.capture.failed(Kind::Pull, KEY, "off");
    assert_eq!(does(), retrying(2, Some("off")));
    bench.capture.connected(Kind::Pull, KEY);
    assert_eq!(does(), retrying(2, Some("off")), "its source is still to come");
    bench.source(true);
    assert_eq!(does(), Listed::Playing);
    // Its sources stay, as with general.resetWhenRePlay=0.
    bench.capture.failed(Kind::Pull, KEY, "");
    assert_eq!(does(), retrying(1, None));
    bench.capture.connected(Kind::Pull, KEY);
    assert_eq!(does(), Listed::Playing);
    bench.source(false);
    assert_eq!(does(), retrying(0, None));
    bench.capture.ended(Kind::Pull, KEY, 0);

    let add = bench.add("rtsp://2", &[]);
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.answered(add.id, answer(true));
    assert!(add.is_persisted());
    bench.capture.failed(Kind::Pull, KEY, "no media");
    assert_eq!(does(), retrying(1, Some("no media")), "it has sent nothing for too long");
    bench.capture.ended(Kind::Pull, KEY, 0);

    // Only recorded: enable_hls_fmp4 is off by itself.
    let off = ["enable_rtsp", "enable_rtmp", "enable_ts", "enable_fmp4", "enable_hls"].map(|name| (name, "false"));
    let add = bench.add("rtsp://3", &off);
    bench.capture.made(Kind::Pull, KEY);
    assert_eq!(does(), Listed::Connecting);
    bench.capture.answered(add.id, answer(true));
    assert!(add.is_persisted());
    assert_eq!(does(), Listed::Playing);
    bench.capture.failed(Kind::Pull, KEY, "it hung up");
    assert_eq!(does(), retrying(1, Some("it hung up")));
    bench.capture.connected(Kind::Pull, KEY);
    assert_eq!(does(), Listed::Playing, "it has connected again");
    bench.capture.ended(Kind::Pull, KEY, 0);

    let add = bench.add("rtsp://4", &[&off[..], &[("enable_hls_fmp4", "1")]].concat());
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.answered(add.id, answer(true));
    assert!(add.is_persisted());
    assert_eq!(does(), Listed::Connecting);
}

#[test]
fn a_pull_that_failed_does_not_play_again_because_one_of_its_sources_goes() {
    let bench = Bench::new();
    let does = || bench.does(Kind::Pull, KEY);
    let moves = |schema, is_there| bench.capture.stream_changed(schema, &stream("live", "a"), is_there);
    let is_playing = || does() == Listed::Playing;
    let add = bench.add("rtsp://1", &[]);
    bench.capture.made(Kind::Pull, KEY);
    bench.capture.answered(add.id, answer(true));
    for is_first in [true, false] {
        moves("rtsp", true);
        if is_first {
            moves("rtmp", true);
            moves("ts", true);
        }
        assert!(is_playing());
        bench.capture.failed(Kind::Pull, KEY, "it hung up");
        assert!(!is_playing());
        // The direct one goes when it connects again, the others at once or, with general.resetWhenRePlay=0, never.
        moves("rtsp", false);
        assert!(!is_playing(), "its others are kept");
        bench.capture.connected(Kind::Pull, KEY);
        assert!(!is_playing(), "no media have come");
        bench.capture.failed(Kind::Pull, KEY, "no media");
        assert!(matches!(does(), Listed::Retrying { failures: 2, .. }), "{:?}", does());
    }
    // A server that does not tell of a loss.
    moves("rtsp", true);
    assert!(is_playing());
    moves("rtsp", false);
    assert!(!is_playing());
    bench.capture.connected(Kind::Pull, KEY);
    assert!(!is_playing());
    moves("rtsp", true);
    assert!(is_playing());
    moves("ts", false);
    assert!(is_playing(), "somebody has ended that one alone");
}

#[test]
fn a_push_is_retried_from_its_failure_on_until_it_connects() {
    let bench = Bench::new();
    let does = || bench.does(Kind::Push, "p");
    bench.capture.made(Kind::Push, "p");
    bench.capture.failed(Kind::Push, "p", "");
    assert_eq!(does(), Listed::Retrying { failures: 1, error: None });
    bench.capture.connected(Kind::Push, "p");
    assert_eq!(does(), Listed::Playing);
}
