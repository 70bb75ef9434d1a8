//! What the server loses, retries or is to have replaced.

use super::*;

#[test]
fn what_the_server_has_lost_is_started_again_with_longer_and_longer_pauses() {
    let mut plan = restored(LIMITS, failed());
    let mut pauses = Vec::new();
    let mut last = secs(0);
    for call in 2..12 {
        let now = (0..4000).map(|n| last + secs(n)).find(|&now| {
            look(&mut plan, wanted(&["a"]), &HashMap::new(), now);
            start(&mut plan, now) == ["a"]
        });
        pauses.push((now.unwrap() - last).as_secs());
        last = now.unwrap();
        plan.answered(call, failed(), last, 0);
    }
    for (pause, expected) in pauses.iter().zip([30, 60, 120, 240, 480, 960, 1800, 1800, 1800, 1800]) {
        assert!((expected * 8 / 10..=1801.min(expected * 12 / 10 + 1)).contains(pause), "{pauses:?}");
    }
    assert!(pauses.iter().any(|pause| pause % 30 != 0), "no jitter: {pauses:?}");
    let trouble = plan.unhealthy(None, 10, last).pop().unwrap();
    assert_eq!((trouble.state, trouble.attempts, trouble.last_error.as_str()), ("down", 11, "off"));
    assert!(trouble.next_try > Some(secs(1400)));

    // Someone else brings it to play: the next pause is the first again.
    look(&mut plan, wanted(&["a"]), &playing(&["a"]), last + secs(1));
    assert_eq!(plan.unhealthy(None, 10, last), []);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), last + secs(2));
    assert_eq!(start(&mut plan, last + secs(2)), [""; 0]);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), last + secs(39));
    assert_eq!(start(&mut plan, last + secs(39)), ["a"]);
}

#[test]
fn without_reviving_nothing_is_started_again() {
    let mut plan = restored(Limits { revive: Duration::ZERO, ..LIMITS }, Added::Accepted);
    for at in [100, 10_000] {
        look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(at));
        assert_eq!(start(&mut plan, secs(at)), [""; 0]);
    }
    assert!(plan.wake_to_look() > secs(10_007), "no hurry");
}

#[test]
fn what_is_there_and_does_not_play_is_failing_and_left_to_the_server() {
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(1));
    assert_eq!(start(&mut plan, secs(1)), ["a"]);
    plan.answered(1, Added::Retrying("refused".into()), secs(2), 7);
    assert_eq!((plan.progress().live, plan.progress().failing, plan.census().retrying), (0, 1, 1));
    let trouble = &plan.unhealthy(None, 1, secs(2))[0];
    assert_eq!((trouble.state, trouble.last_error.as_str()), ("retrying", "refused"));
    look(&mut plan, wanted(&["a"]), &retrying(&["a"]), secs(3000));
    assert_eq!(start(&mut plan, secs(3000)), [""; 0]);
}

#[test]
fn what_is_to_be_replaced_is_replaced_though_it_plays_and_is_looked_at_before() {
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &playing(&["a"]), secs(1));
    plan.put_back(want("a", 2), Existing::Replace, secs(2));
    look(&mut plan, vec![want("a", 2)], &playing(&["a"]), secs(3));
    // And though somebody asks for it again in the meantime.
    plan.put_back(want("a", 2), Existing::Keep, secs(3));
    assert_eq!(start(&mut plan, secs(4)), ["a anew"]);
}

#[test]
fn what_is_to_be_replaced_is_replaced_though_it_is_changed_once_more_or_was_not_tried() {
    let there = playing(&["a"]);
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &there, secs(1));
    plan.put_back(want("a", 2), Existing::Replace, secs(2));
    // Only marked, which is seen before it is told.
    look(&mut plan, vec![want("a", 3)], &there, secs(3));
    plan.put_back(want("a", 3), Existing::Keep, secs(4));
    assert_eq!(start(&mut plan, secs(4)), ["a anew"]);
    // And again, before its turn came.
    plan.answered(1, Added::Unwanted, secs(5), 0);
    look(&mut plan, vec![want("a", 4)], &there, secs(6));
    assert_eq!(start(&mut plan, secs(6)), ["a anew"]);
    plan.answered(2, Added::Accepted, secs(7), 0);
    look(&mut plan, vec![want("a", 4)], &there, secs(8));
    assert_eq!((start(&mut plan, secs(9)), plan.census().playing), (vec![], 1), "once is enough");
}

#[test]
fn what_is_to_be_changed_in_place_is_so_unless_it_has_to_be_replaced() {
    let there = playing(&["a"]);
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &there, secs(1));
    plan.put_back(want("a", 2), Existing::Update, secs(2));
    plan.put_back(want("a", 3), Existing::Keep, secs(2));
    assert_eq!(start(&mut plan, secs(2)), ["a in place"]);
    plan.answered(1, Added::Accepted, secs(3), 0);
    for existing in [Existing::Replace, Existing::Update] {
        plan.put_back(want("a", 4), existing, secs(4));
    }
    assert_eq!(start(&mut plan, secs(4)), ["a anew"]);
}

#[test]
fn what_stops_to_play_is_shown_at_once_with_the_servers_words() {
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &playing(&["a"]), secs(1));
    let lost = Listed::Retrying { failures: 1, error: Some("end of file".into()) };
    plan.media_went(&want("a", 2), &lost, secs(2), 0);
    assert_eq!(plan.census().playing, 1, "that was another one");
    plan.media_went(&want("a", 1), &lost, secs(2), 0);
    let shown = plan.unhealthy(None, 1, secs(2)).remove(0);
    assert_eq!((shown.state, shown.attempts, shown.last_error.as_str()), ("retrying", 1, "end of file"));
    // A look that was asked before knows nothing of it.
    observe(&mut plan, wanted(&["a"]), &playing(&["a"]), secs(1), secs(3));
    assert_eq!(plan.census().playing, 0);
}

#[test]
fn what_retries_by_itself_is_left_to_the_server() {
    let mut plan = restored(LIMITS, failed());
    for at in 1..400 {
        look(&mut plan, wanted(&["a"]), &retrying(&["a"]), secs(at * 60));
        assert_eq!(start(&mut plan, secs(at * 60)), [""; 0]);
    }
    assert_eq!(plan.unhealthy(None, 1, secs(0))[0].state, "retrying");
    // It plays when that is told, not only when the server is looked at.
    plan.media_came(&key("a"), secs(400 * 60), 0);
    assert_eq!(plan.census().playing, 1);
}

#[test]
fn what_the_server_retries_is_shown_with_its_words_and_count_and_revived_without_its_count() {
    let mut plan = restored(LIMITS, Added::Accepted);
    let told = |failures, error: &str| listed(&["a"], Listed::Retrying { failures, error: Some(error.into()) });
    let one = || wanted(&["a"]);
    let shown = |plan: &Plan| {
        let trouble = plan.unhealthy(None, 1, secs(30)).remove(0);
        (trouble.state, trouble.attempts, trouble.last_error)
    };
    look(&mut plan, one(), &told(1, "cannot open rtsp://admin:geheim@host/a"), secs(10));
    assert_eq!(shown(&plan), ("retrying", 1, "cannot open rtsp://***@host/a".to_owned()));
    look(&mut plan, one(), &told(40, "off"), secs(20));
    assert_eq!(shown(&plan), ("retrying", 40, "off".to_owned()));
    // It is lost: the first pause is the shortest.
    look(&mut plan, one(), &HashMap::new(), secs(30));
    look(&mut plan, one(), &HashMap::new(), secs(67));
    assert_eq!(start(&mut plan, secs(67)), ["a"]);
}
