//! Pulls with several URLs.

use super::*;

const MINUTE: u64 = 60;
const NOTHING: [&str; 0] = [];

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

/// One whose first URL has failed, so that it is started from the second at second 10, by call 2.
fn failed_over(more: &[(&str, &str)]) -> Plan {
    let mut plan = started(more);
    plan.answered(1, refused(), secs(1), 0);
    assert_eq!(start(&mut plan, secs(9)), NOTHING);
    assert_eq!(start(&mut plan, secs(10)), ["a in place from rtsp://b/1"]);
    plan
}

/// The answer to its call: it plays.
fn plays(plan: &mut Plan, call: u64, now: Duration) {
    plan.answered(call, Added::Accepted, now, 0);
    assert_eq!(start(plan, now), NOTHING);
    assert_eq!(plan.census().playing, 1);
}

fn refused() -> Added {
    Added::Retrying("refused".into())
}

#[test]
fn a_url_that_has_failed_for_long_enough_gives_way_to_the_next_and_after_the_last_to_the_first() {
    let mut plan = failed_over(&[]);
    assert_eq!(plan.unhealthy(None, 1, secs(10))[0].url, Some(2));
    // Nothing has come: a black hole.
    assert_eq!(start(&mut plan, secs(20)), ["a in place from rtsp://c/1"]);
    plan.answered(3, refused(), secs(21), 0);
    assert_eq!(start(&mut plan, secs(30)), ["a in place from rtsp://a/1"]);
    // What is late is not about this one.
    plan.answered(2, Added::Accepted, secs(31), 0);
    assert_eq!((start(&mut plan, secs(31)), plan.census().playing), (vec![], 0));
    plan.answered(4, refused(), secs(32), 0);
    // All have failed: each is given twice as long, up to a minute.
    assert_eq!(start(&mut plan, secs(49)), NOTHING);
    assert_eq!(start(&mut plan, secs(50)), ["a in place from rtsp://b/1"]);
    let mut moves = vec![50];
    for now in 51..400 {
        if !start(&mut plan, secs(now)).is_empty() {
            moves.push(now);
        }
    }
    let pauses: Vec<u64> = moves.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses, [20, 20, 40, 40, 40, 60, 60, 60]);
    assert_eq!(plan.unhealthy(None, 1, secs(400))[0].attempts, 3, "they are not forgotten");
}

#[test]
fn what_plays_for_a_while_is_noted_and_goes_on_as_the_same_pull() {
    let never = [("journal_failback", "never")];
    let mut plan = failed_over(&never);
    plays(&mut plan, 2, secs(11));
    assert_eq!(plan.on_backup(), 1);
    assert_eq!(start(&mut plan, secs(18)), NOTHING);
    let noted = "a plays from 2, rtsp://b/1, for 8 s: URL 1 has failed for 10 s: refused";
    assert_eq!(start(&mut plan, secs(19)), [noted]);
    assert_eq!(start(&mut plan, secs(20)), NOTHING);
    // The journal cannot be written now.
    plan.noted(&key("a"), 1, None, secs(20));
    assert_eq!(start(&mut plan, secs(27)), NOTHING);
    assert_eq!(start(&mut plan, secs(28)), [noted]);
    plan.noted(&key("a"), 1, Some(2), secs(28));
    look(&mut plan, vec![with(&never, 2)], &playing(&["a"]), secs(31));
    assert_eq!(start(&mut plan, secs(31)), NOTHING);
    let in_use = [never[0], ("journal_label", "x"), ("journal_url_in_use", "rtsp://b/1")];
    plan.put_back(with(&in_use, 3), Existing::Keep, secs(32));
    assert_eq!(start(&mut plan, secs(32)), ["a from rtsp://b/1"]);
    plan.answered(3, Added::Present, secs(32), 0);
    look(&mut plan, vec![with(&in_use, 3)], &playing(&["a"]), secs(33));
    assert_eq!((start(&mut plan, secs(100)), plan.on_backup()), (vec![], 1));
}

#[test]
fn what_connects_and_sends_nothing_has_failed_all_the_while() {
    let mut plan = started(&[]);
    let mut moved = Vec::new();
    for round in 0..3 {
        // It counts as playing until MediaServer notices.
        plan.media_came(&key("a"), secs(7 * round), 0);
        moved.extend(start(&mut plan, secs(7 * round)));
        look(&mut plan, vec![with(&[], 1)], &playing(&["a"]), secs(7 * round + 1));
        moved.extend(start(&mut plan, secs(7 * round + 1)));
        look(&mut plan, vec![with(&[], 1)], &retrying(&["a"]), secs(7 * round + 5));
        moved.extend(start(&mut plan, secs(7 * round + 5)));
    }
    assert_eq!(moved, ["a in place from rtsp://b/1"]);
}

#[test]
fn what_stops_to_play_or_is_lost_has_failed_since_then() {
    for lost in [retrying(&["a"]), HashMap::new()] {
        let mut plan = started(&[("journal_failover_sec", "3"), ("journal_failback", "never")]);
        plays(&mut plan, 1, secs(1));
        assert_eq!(start(&mut plan, secs(1000)), NOTHING);
        let want = || vec![with(&[("journal_failover_sec", "3"), ("journal_failback", "never")], 1)];
        look(&mut plan, want(), &lost, secs(1000));
        assert_eq!(start(&mut plan, secs(1000)), NOTHING);
        assert_eq!(start(&mut plan, secs(1002)), NOTHING);
        assert_eq!(start(&mut plan, secs(1003)), ["a in place from rtsp://b/1"]);
    }
}

#[test]
fn time_in_the_queue_does_not_count() {
    let mut plan = new(Limits { per_origin: 1, ..LIMITS });
    let other = Wanted { key: key("b"), args: args(&[("url", "rtsp://a/2")]), ..want("b", 1) };
    look(&mut plan, vec![other, with(&[], 2)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["b"]);
    assert_eq!(start(&mut plan, secs(1)), NOTHING);
    // The queue waits so long for one that does not answer.
    assert_eq!(start(&mut plan, secs(2)), ["a from rtsp://a/1"]);
    assert_eq!(start(&mut plan, secs(11)), NOTHING);
    assert_eq!(start(&mut plan, secs(12)), ["a in place from rtsp://b/1"]);
}

#[test]
fn what_comes_back_by_itself_before_the_next_one_has_its_turn_stays() {
    let mut plan = new(Limits { per_origin: 1, ..LIMITS });
    let other = Wanted { key: key("b"), args: args(&[("url", "rtsp://b/2")]), ..want("b", 2) };
    look(&mut plan, vec![with(&[], 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a from rtsp://a/1"]);
    plan.answered(1, refused(), secs(1), 0);
    plan.ask_for(other, secs(9));
    assert_eq!(start(&mut plan, secs(9)), ["b"]);
    assert_eq!(start(&mut plan, secs(10)), NOTHING, "its turn does not come");
    plan.media_came(&key("a"), secs(10), 0);
    assert_eq!((start(&mut plan, secs(30)), plan.census().playing), (vec![], 1));
    // Nor is it taken away later.
    assert_eq!((start(&mut plan, secs(100)), plan.on_backup()), (vec![], 0));
}

#[test]
fn a_pull_of_which_somebody_asks_more_than_it_has_has_not_failed() {
    let mut plan = failed_over(&[]);
    plays(&mut plan, 2, secs(10));
    let mut probes = 0;
    for now in 11..50 {
        // A player wants a protocol that is off.
        plan.ask_for(with(&[], 1), secs(now));
        let done = start(&mut plan, secs(now));
        assert!(done.iter().all(|it| it.starts_with("probe") || it.starts_with("a plays")), "{done:?}");
        probes += done.iter().filter(|it| it.starts_with("probe")).count();
        look(&mut plan, vec![with(&[], 1)], &playing(&["a"]), secs(now));
    }
    assert_eq!(probes, 1, "it waits for its answer");
}

#[test]
fn after_a_restart_the_one_that_played_last_is_tried_first() {
    let noted = [("journal_url_in_use", "rtsp://c/1"), ("journal_url_since", "1"), ("journal_url_why", "x")];
    let mut plan = new(LIMITS);
    look(&mut plan, vec![with(&noted, 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a from rtsp://c/1"]);
    assert_eq!(plan.on_backup(), 1);
    assert_eq!(start(&mut plan, secs(10)), ["a in place from rtsp://a/1"]);
    plays(&mut plan, 2, secs(11));
    assert_eq!(plan.on_backup(), 0);
    let noted = "a plays from 1, rtsp://a/1, for 8 s: URL 3 has failed for 10 s: no media";
    assert_eq!(start(&mut plan, secs(19)), [noted]);
}

#[test]
fn what_cannot_change_in_place_is_replaced() {
    let rtmp = ("journal_backup_urls", r#"["rtmp://b/1"]"#);
    for (more, anew) in [(rtmp, "a anew from rtmp://b/1"), (("retry_count", "0"), "a anew from rtsp://b/1")] {
        assert_eq!(start(&mut started(&[more]), secs(10)), [anew]);
    }
}

#[test]
fn the_server_is_told_whenever_another_url_than_its_own_is_wanted() {
    let mut plan = failed_over(&[]);
    // Something else has changed: the one that is tried goes on, with all its time.
    plan.put_back(with(&[("journal_label", "x")], 2), Existing::Keep, secs(19));
    assert_eq!(start(&mut plan, secs(19)), ["a from rtsp://b/1"]);
    plan.answered(3, refused(), secs(19), 0);
    assert_eq!(start(&mut plan, secs(28)), NOTHING);
    // The backups are others, which intent takes for no change of what it knows to be in use.
    plan.put_back(with(&[("journal_backup_urls", r#"["rtsp://d/1"]"#)], 3), Existing::Keep, secs(28));
    assert_eq!(start(&mut plan, secs(28)), ["a in place from rtsp://a/1"]);
    plan.answered(4, refused(), secs(28), 0);
    assert_eq!(start(&mut plan, secs(38)), ["a in place from rtsp://d/1"]);
    // There are none any more.
    plan.put_back(with(&[("journal_backup_urls", "")], 4), Existing::Keep, secs(39));
    assert_eq!(start(&mut plan, secs(39)), ["a in place"]);
    assert_eq!(start(&mut plan, secs(110)), NOTHING);
    // A client has added it anew, from the first.
    let mut plan = failed_over(&[]);
    plays(&mut plan, 2, secs(10));
    plan.called_for(with(&[], 7), secs(11));
    look(&mut plan, vec![with(&[], 7)], &playing(&["a"]), secs(12));
    assert_eq!((start(&mut plan, secs(60)), plan.on_backup()), (vec![], 0));
}

#[test]
fn a_change_that_the_server_could_not_make_is_made_again() {
    let mut plan = failed_over(&[]);
    plan.answered(2, failed(), secs(11), 0);
    look(&mut plan, vec![with(&[], 1)], &playing(&["a"]), secs(12));
    assert_eq!(plan.census().playing, 0, "that is the old one");
    assert_eq!(start(&mut plan, secs(20)), ["a in place from rtsp://c/1"]);
}

#[test]
fn what_is_never_to_be_started_again_is_not_started_from_another_url() {
    let mut plan = new(Limits { revive: Duration::ZERO, ..LIMITS });
    look(&mut plan, vec![with(&[], 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a from rtsp://a/1"]);
    plan.answered(1, failed(), secs(1), 0);
    assert_eq!(start(&mut plan, secs(100)), NOTHING);
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
        for action in start(plan, now) {
            match action.strip_prefix("probe ") {
                Some(probe) => {
                    let (ticket, url) = probe.split_once(' ').unwrap();
                    assert_eq!(url, "rtsp://a/1");
                    plan.probed(ticket.parse().unwrap(), answers(now), now);
                }
                None if action.starts_with("a plays from 2") => {
                    let seq = plan.proxies[&key("a")].seq;
                    plan.noted(&key("a"), seq, Some(seq + 1), now);
                }
                None => return Some((now, action)),
            }
        }
        now += Duration::from_millis(500);
    }
    None
}

#[test]
fn the_first_one_is_used_again_once_it_has_answered_for_a_minute() {
    let mut plan = failed_over(&[]);
    plays(&mut plan, 2, secs(10));
    let back_at = 1000;
    let (at, action) = probed(&mut plan, secs(10), secs(5000), |now| now >= secs(back_at)).unwrap();
    assert_eq!(action, "a in place from rtsp://a/1");
    // Its probes were up to five minutes apart by then, a fifth more or less.
    assert!(at >= secs(back_at + MINUTE) && at < secs(back_at + 360 + MINUTE + 15), "{at:?}");
    plays(&mut plan, 3, at);
    let noted = start(&mut plan, at + secs(8)).join(" ");
    assert!(noted.starts_with("a plays from 1, rtsp://a/1, for 8 s: URL 1 has answered for 6"), "{noted}");
}

#[test]
fn one_answer_that_is_missing_begins_the_minute_anew_and_never_means_never() {
    let mut plan = failed_over(&[]);
    plays(&mut plan, 2, secs(10));
    let flaps = |now: Duration| now.as_secs() % 60 < 45;
    assert_eq!(probed(&mut plan, secs(10), secs(3000), flaps), None);

    let mut plan = failed_over(&[("journal_failback", "never")]);
    plays(&mut plan, 2, secs(10));
    let asked_nothing = |_| -> bool { panic!("it is not asked") };
    assert_eq!(probed(&mut plan, secs(10), secs(1000), asked_nothing), None);
}

#[test]
fn a_first_one_that_answers_and_does_not_play_is_gone_back_to_less_and_less_often() {
    let mut plan = failed_over(&[]);
    let mut call = 2;
    let (mut now, mut pauses) = (secs(10), Vec::new());
    for _ in 0..8 {
        plays(&mut plan, call, now);
        let (at, action) = probed(&mut plan, now, now + secs(3 * 3600), |_| true).unwrap();
        assert_eq!(action, "a in place from rtsp://a/1");
        pauses.push((at - now).as_secs() / MINUTE);
        plan.answered(call + 1, refused(), at, 0);
        call += 2;
        now = at + secs(10);
        assert_eq!(start(&mut plan, now), ["a in place from rtsp://b/1"]);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}
