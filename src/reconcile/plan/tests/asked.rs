//! What players, clients and operators ask for.

use super::*;

#[test]
fn a_player_who_waits_brings_its_stream_forward() {
    let mut plan = new(Limits { per_second: 1, ..LIMITS });
    look(&mut plan, wanted(&["a", "b", "c"]), &HashMap::new(), secs(0));
    plan.ask_for(want("c", 3), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["c"]);
    plan.answered(1, failed(), secs(0), 0);
    // Not at once again, and one that is down not only when its pause is over.
    plan.ask_for(want("c", 3), secs(1));
    assert_eq!(start(&mut plan, secs(2)), ["a"]);
    plan.ask_for(want("c", 3), secs(3));
    assert_eq!(start(&mut plan, secs(4)), ["c"]);
    assert_eq!(plan.progress().asked, 1);
}

#[test]
fn an_operator_starts_what_has_failed_a_moment_ago() {
    let never = Limits { revive: Duration::ZERO, ..LIMITS };
    let mut plan = restored(never, failed());
    plan.ask_for(want("a", 1), secs(1));
    assert!(start(&mut plan, secs(1)).is_empty(), "a player does not: it may ask again and again");
    plan.start_now(want("a", 1), secs(1));
    assert_eq!(start(&mut plan, secs(1)), ["a"]);
    assert_eq!(plan.progress().asked, 1);

    // What may play is looked at first, however often it is asked for.
    let mut plan = restored(LIMITS, Added::Accepted);
    look(&mut plan, wanted(&["a"]), &playing(&["a"]), secs(10));
    plan.start_now(want("a", 1), secs(11));
    plan.start_now(want("a", 1), secs(11));
    assert!(start(&mut plan, secs(11)).is_empty());
}

#[test]
fn an_operator_starts_what_the_server_does_not_have_any_more() {
    for (listed, expected) in [(playing(&["a"]), &[][..]), (HashMap::new(), &["a"])] {
        let mut plan = restored(Limits { revive: Duration::ZERO, ..LIMITS }, Added::Accepted);
        look(&mut plan, wanted(&["a"]), &playing(&["a"]), secs(10));
        plan.start_now(want("a", 1), secs(11));
        look(&mut plan, wanted(&["a"]), &listed, secs(12));
        assert_eq!(start(&mut plan, secs(12)), *expected);
        look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(20));
        assert!(start(&mut plan, secs(20)).is_empty(), "once");
    }
}

#[test]
fn a_player_who_waits_for_what_we_think_plays_has_the_server_looked_at() {
    for (listed, expected) in [(playing(&["a"]), None), (HashMap::new(), Some("a"))] {
        let mut plan = restored(LIMITS, Added::Accepted);
        look(&mut plan, wanted(&["a"]), &playing(&["a"]), secs(10));
        plan.ask_for(want("a", 1), secs(13));
        assert_eq!(plan.wake_to_look(), secs(13));
        look(&mut plan, wanted(&["a"]), &listed, secs(13));
        assert_eq!(start(&mut plan, secs(13)), Vec::from_iter(expected));
        // But no more often than any other look.
        plan.ask_for(want("a", 1), secs(13));
        assert!(plan.wake_to_look() >= secs(14));
    }
}

#[test]
fn asked_for_only_nothing_is_started_by_itself_but_what_runs_is_kept_running() {
    let mut plan = new(Limits { mode: RestoreMode::Lazy, ..LIMITS });
    let both = || wanted(&["a", "b"]);
    look(&mut plan, both(), &HashMap::new(), secs(0));
    assert!(plan.is_restored() && start(&mut plan, secs(0)).is_empty());
    plan.ask_for(want("b", 2), secs(1));
    assert_eq!(start(&mut plan, secs(1)), ["b"]);
    plan.answered(1, Added::Accepted, secs(1), 0);
    look(&mut plan, both(), &playing(&["b"]), secs(10));
    look(&mut plan, both(), &HashMap::new(), secs(20));
    look(&mut plan, both(), &HashMap::new(), secs(57));
    assert_eq!(start(&mut plan, secs(57)), ["b"]);
    plan.answered(2, Added::Accepted, secs(57), 0);
    // What a client adds counts as running, also when the server has lost it before the next look, and also what was there
    // before; the others are restored when the operator says so.
    let three = || wanted(&["a", "b", "c"]);
    plan.called_for(want("c", 3), secs(58));
    plan.called_for(want("b", 2), secs(58));
    look(&mut plan, three(), &playing(&["b"]), secs(60));
    look(&mut plan, three(), &playing(&["b"]), secs(97));
    assert_eq!(start(&mut plan, secs(97)), ["c"]);
    plan.answered(3, Added::Accepted, secs(97), 0);
    plan.restore_all(secs(98));
    assert!(!plan.is_restored());
    look(&mut plan, three(), &playing(&["b", "c"]), secs(98));
    assert_eq!(start(&mut plan, secs(98)), ["a"]);
    plan.answered(4, Added::Accepted, secs(99), 0);
    assert!(plan.is_restored());
    assert_eq!((plan.progress().total, plan.progress().present), (3, 2));
}
