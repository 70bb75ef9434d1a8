//! Pulls with several URLs.

use super::*;

const MINUTE: u64 = 60;

fn with(more: &[(&str, &str)], seq: u64) -> Wanted {
    let base = [("url", "rtsp://a/1"), ("journal_backup_urls", r#"["rtsp://b/1","rtsp://c/1"]"#)];
    let mut pairs = base.to_vec();
    pairs.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    pairs.extend(more);
    Wanted { key: key("a"), seq, args: args(&pairs), crashes: 0, dark_since: None }
}

/// A plan whose only pull has just been started from its first URL, by call 1.
fn started(more: &[(&str, &str)]) -> Plan {
    let mut plan = new(LIMITS);
    look(&mut plan, vec![with(more, 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a from rtsp://a/1"]);
    plan
}

fn refused() -> Added {
    Added::Retrying("refused".into())
}

#[test]
fn a_url_that_has_failed_for_long_enough_gives_way_to_the_next_and_after_the_last_to_the_first() {
    let mut plan = started(&[]);
    plan.answered(1, refused(), secs(1), 0);
    assert_eq!(start(&mut plan, secs(9)), [""; 0]);
    assert_eq!(plan.wake_to_start(), secs(10));
    assert_eq!(start(&mut plan, secs(10)), ["a in place from rtsp://b/1"]);
    assert_eq!(plan.unhealthy(None, 1, secs(10))[0].url, Some(2));
    // Its turn has come, and nothing else has: a black hole.
    assert_eq!(start(&mut plan, secs(19)), [""; 0]);
    assert_eq!(start(&mut plan, secs(20)), ["a in place from rtsp://c/1"]);
    plan.answered(3, refused(), secs(21), 0);
    assert_eq!(start(&mut plan, secs(30)), ["a in place from rtsp://a/1"]);
    // What is late is not about this one.
    plan.answered(2, Added::Accepted, secs(31), 0);
    assert_eq!((start(&mut plan, secs(31)), plan.census().playing), (vec![], 0));
    plan.answered(4, refused(), secs(32), 0);
    assert_eq!(start(&mut plan, secs(40)), ["a in place from rtsp://b/1"]);
    plan.answered(5, Added::Accepted, secs(41), 0);
    assert_eq!(start(&mut plan, secs(41)), ["a plays from rtsp://b/1: rtsp://a/1 has failed for 10 s: refused"]);
    plan.noted(&key("a"), 1, 2);
    assert_eq!((plan.on_backup(), plan.progress().moved), (1, 1));
    look(&mut plan, vec![with(&[], 2)], &playing(&["a"]), secs(42));
    assert_eq!(start(&mut plan, secs(49)), [""; 0], "it is the same pull");
}

#[test]
fn what_stops_to_play_or_is_lost_has_failed_since_then() {
    for lost in [retrying(&["a"]), HashMap::new()] {
        let mut plan = started(&[("journal_failover_sec", "3"), ("journal_failback", "never")]);
        plan.answered(1, Added::Accepted, secs(1), 0);
        assert_eq!(start(&mut plan, secs(1000)), [""; 0]);
        look(&mut plan, vec![with(&[], 1)], &lost, secs(1000));
        assert_eq!(start(&mut plan, secs(1000)), [""; 0]);
        assert_eq!(start(&mut plan, secs(1002)), [""; 0]);
        assert_eq!(start(&mut plan, secs(1003)), ["a in place from rtsp://b/1"]);
    }
}

#[test]
fn time_in_the_queue_does_not_count() {
    let mut plan = new(Limits { per_origin: 1, ..LIMITS });
    let other = Wanted { key: key("b"), args: args(&[("url", "rtsp://a/2")]), ..want("b", 1) };
    look(&mut plan, vec![other, with(&[], 2)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["b"]);
    assert_eq!(start(&mut plan, secs(1)), [""; 0]);
    // The queue waits so long for one that does not answer.
    assert_eq!(start(&mut plan, secs(2)), ["a from rtsp://a/1"]);
    assert_eq!(start(&mut plan, secs(11)), [""; 0]);
    assert_eq!(start(&mut plan, secs(12)), ["a in place from rtsp://b/1"]);
}

#[test]
fn after_a_restart_the_one_that_played_last_is_tried_first() {
    let noted = [("journal_url_in_use", "rtsp://c/1"), ("journal_url_since", "1"), ("journal_url_why", "x")];
    let mut plan = new(LIMITS);
    look(&mut plan, vec![with(&noted, 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a from rtsp://c/1"]);
    assert_eq!(start(&mut plan, secs(10)), ["a in place from rtsp://a/1"]);
    plan.answered(2, Added::Accepted, secs(11), 0);
    let moved = "a plays from its first, rtsp://a/1: rtsp://c/1 has failed for 10 s: no media";
    assert_eq!(start(&mut plan, secs(11)), [moved]);
    assert_eq!(plan.on_backup(), 0);
}

#[test]
fn what_cannot_change_in_place_is_replaced() {
    for more in [("journal_backup_urls", r#"["rtmp://b/live/1"]"#), ("retry_count", "0")] {
        let mut plan = started(&[more]);
        let started = start(&mut plan, secs(10));
        assert!(
            started.len() == 1 && started[0].starts_with("a anew from rtmp://b/live/1".split_at(9).0),
            "{started:?}"
        );
    }
}

#[test]
fn a_change_of_something_else_goes_on_with_the_url_that_is_tried() {
    let mut plan = started(&[]);
    assert_eq!(start(&mut plan, secs(10)), ["a in place from rtsp://b/1"]);
    plan.put_back(with(&[("journal_label", "x")], 2), Existing::Keep, secs(11));
    assert_eq!(start(&mut plan, secs(11)), ["a from rtsp://b/1"]);
    let other = [("journal_backup_urls", r#"["rtsp://d/1"]"#)];
    plan.put_back(with(&other, 3), Existing::Keep, secs(12));
    assert_eq!(start(&mut plan, secs(12)), ["a from rtsp://a/1"]);
    // Without backups, nothing is due any more.
    plan.put_back(with(&[("journal_backup_urls", "")], 4), Existing::Keep, secs(13));
    assert_eq!(start(&mut plan, secs(13)), ["a"]);
    assert_eq!(start(&mut plan, secs(100)), [""; 0]);
}

/// Goes on until something but a probe is to be done; each probe is answered so. Returns when that was.
fn probed(
    plan: &mut Plan,
    from: Duration,
    until: Duration,
    answers: impl Fn(Duration) -> bool,
) -> Option<(Duration, String)> {
    let mut now = from;
    while now < until {
        for action in act(plan, now) {
            match action.strip_prefix("probe ") {
                Some(probe) => {
                    let (ticket, url) = probe.split_once(' ').unwrap();
                    assert_eq!(url, "rtsp://a/1");
                    plan.probed(ticket.parse().unwrap(), answers(now), now);
                }
                None if action == "release" => {}
                None => return Some((now, action)),
            }
        }
        now += Duration::from_millis(500);
    }
    None
}

/// It has failed over to its second URL, and plays from it.
fn on_backup(plan: &mut Plan, call: u64, now: Duration) {
    plan.answered(call, Added::Accepted, now, 0);
    let moved = start(plan, now);
    // That is told once.
    let told: &[&str] =
        if call == 2 { &["a plays from rtsp://b/1: rtsp://a/1 has failed for 10 s: no media"] } else { &[] };
    assert_eq!(moved, told);
}

#[test]
fn the_first_one_is_used_again_once_it_has_answered_for_a_minute() {
    let mut plan = started(&[]);
    assert_eq!(start(&mut plan, secs(10)), ["a in place from rtsp://b/1"]);
    on_backup(&mut plan, 2, secs(10));
    let back_at = 1000;
    let (at, action) = probed(&mut plan, secs(10), secs(5000), |now| now >= secs(back_at)).unwrap();
    assert_eq!(action, "a in place from rtsp://a/1");
    // Its probes were up to five minutes apart by then, a fifth more or less.
    assert!(at >= secs(back_at + MINUTE) && at < secs(back_at + 360 + MINUTE + 15), "{at:?}");
    plan.answered(3, Added::Accepted, at, 0);
    let moved = act(&mut plan, at).join(" ");
    assert!(moved.starts_with("a plays from its first, rtsp://a/1: rtsp://a/1 has answered for 6"), "{moved}");
}

#[test]
fn one_answer_that_is_missing_begins_the_minute_anew_and_never_means_never() {
    let mut plan = started(&[]);
    start(&mut plan, secs(10));
    on_backup(&mut plan, 2, secs(10));
    let flaps = |now: Duration| now.as_secs() % 60 < 45;
    assert_eq!(probed(&mut plan, secs(10), secs(3000), flaps), None);

    let mut plan = started(&[("journal_failback", "never")]);
    start(&mut plan, secs(10));
    on_backup(&mut plan, 2, secs(10));
    assert_eq!(start(&mut plan, secs(5000)), [""; 0]);
}

#[test]
fn a_first_one_that_answers_and_does_not_play_is_gone_back_to_less_and_less_often() {
    let mut plan = started(&[]);
    let mut call = 1;
    let (mut now, mut pauses) = (secs(10), Vec::new());
    for _ in 0..8 {
        assert_eq!(start(&mut plan, now), ["a in place from rtsp://b/1"]);
        call += 1;
        on_backup(&mut plan, call, now);
        let (at, action) = probed(&mut plan, now, now + secs(3 * 3600), |_| true).unwrap();
        assert_eq!(action, "a in place from rtsp://a/1");
        call += 1;
        pauses.push((at - now).as_secs() / MINUTE);
        plan.answered(call, refused(), at, 0);
        now = at + secs(10);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}
