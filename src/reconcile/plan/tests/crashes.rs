//! What the server crashes or throws of is set aside, and released.

use super::*;

#[test]
fn three_exceptions_running_are_enough() {
    let mut plan = new(LIMITS);
    let answers = ["threw", "threw", "failed", "threw", "threw", "threw"];
    for (call, answer) in (1..).zip(answers) {
        let at = secs(call * 10_000);
        look(&mut plan, wanted(&["a"]), &HashMap::new(), at);
        assert_eq!(start(&mut plan, at), ["a"]);
        let answer = if answer == "threw" { Added::Threw("x".into()) } else { failed() };
        plan.answered(call, answer, at, 0);
        let aside = if call == 6 { vec!["set aside a"] } else { Vec::new() };
        assert_eq!(start(&mut plan, at), aside);
    }
    assert_eq!((plan.progress().quarantined, plan.census()), (1, PhaseCounts::default()));
}

#[test]
fn what_the_server_crashed_of_too_often_is_set_aside_at_once() {
    let mut plan = new(LIMITS);
    let deadly = suspect("a", 1, MOST_CRASHES);
    look(&mut plan, vec![deadly.clone(), want("b", 2)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["set aside a", "b"]);
    plan.ask_for(deadly, secs(1));
    assert_eq!(start(&mut plan, secs(1)), ["set aside a"]);
}

fn suspect(name: &str, seq: u64, crashes: u32) -> Wanted {
    Wanted { crashes, ..want(name, seq) }
}

#[test]
fn a_suspect_is_none_any_more_when_the_server_has_lived_on_for_a_moment() {
    let mut plan = new(LIMITS);
    let wanted = vec![suspect("a", 1, 2), suspect("b", 2, 2), suspect("c", 3, 1), want("d", 4)];
    look(&mut plan, wanted.clone(), &HashMap::new(), secs(0));
    assert_eq!(act(&mut plan, secs(0)), ["d", "c"]);
    plan.answered(1, Added::Accepted, secs(0), 0);
    plan.answered(2, failed(), secs(0), 0);
    // What was none says nothing, and of those with two crashes one is started at a time.
    assert_eq!(act(&mut plan, secs(1)), [] as [&str; 0]);
    assert_eq!(plan.wake_to_start(), SETTLES);
    assert_eq!(act(&mut plan, SETTLES), ["acquit c", "a"]);
    plan.answered(3, Added::Accepted, secs(3), 0);
    assert_eq!(act(&mut plan, secs(4)), [] as [&str; 0], "the server may still crash of its first data");
    assert_eq!(act(&mut plan, secs(5)), ["acquit a", "b"]);
    plan.answered(4, Added::Unwanted, secs(5), 0);
    assert!(plan.proxies.get(&key("a")).is_some_and(|proxy| proxy.crashes == 0));
}

#[test]
fn what_was_blocked_or_thrown_is_a_suspect_as_before() {
    let mut plan = new(LIMITS);
    let suspect = Wanted { crashes: 2, ..push(TO, 1) };
    look(&mut plan, vec![suspect.clone()], &HashMap::new(), secs(0));
    let crashes = |plan: &Plan| plan.proxies.get(&suspect.key).unwrap().crashes;
    for (call, answer) in [(1, blocked()), (2, Added::Threw("thrown".into()))] {
        assert_eq!(start(&mut plan, secs(10 * call)), [TO]);
        plan.answered(call, answer, secs(10 * call), 0);
        plan.source_came(suspect.clone(), secs(10 * call + 5));
        assert_eq!(crashes(&plan), 2, "call {call}");
    }
    assert_eq!(start(&mut plan, secs(30)), [TO]);
    plan.answered(3, Added::Accepted, secs(30), 0);
    assert_eq!(act(&mut plan, secs(32)), [format!("acquit {TO}")]);
    assert_eq!(crashes(&plan), 0);
}

#[test]
fn a_start_that_goes_well_releases_what_was_set_aside_once() {
    let mut plan = new(LIMITS);
    look(&mut plan, vec![suspect("a", 1, MOST_CRASHES), want("b", 2), want("c", 3)], &HashMap::new(), secs(0));
    assert_eq!(act(&mut plan, secs(0)), ["set aside a", "b", "c"]);
    plan.answered(1, Added::Accepted, secs(0), 0);
    // One of them has no answer yet: it has not gone well so far.
    assert_eq!(act(&mut plan, secs(60)), [] as [&str; 0]);
    plan.answered(2, failed(), secs(60), 0);
    assert_eq!(act(&mut plan, secs(69)), [] as [&str; 0]);
    assert_eq!(plan.wake_to_start(), secs(60) + WELL);
    assert_eq!(plan.next(secs(70)), Some(Action::Release { crashes: 2 }));
    // Known by another change now; alone, and one crash short of being set aside.
    plan.released(suspect("a", 4, 2), secs(70));
    assert_eq!(act(&mut plan, secs(70)), ["a"]);
    plan.answered(3, Added::Accepted, secs(70), 0);
    assert_eq!(act(&mut plan, secs(1000)), ["acquit a"]);
    plan.restore_all(secs(1000));
    look(&mut plan, vec![want("b", 2)], &playing(&["b"]), secs(1000));
    assert_eq!(act(&mut plan, secs(2000)), [] as [&str; 0], "once a start");
}

#[test]
fn what_is_released_waits_to_be_asked_for_where_nothing_starts_by_itself() {
    let mut plan = new(Limits { mode: RestoreMode::Lazy, ..LIMITS });
    look(&mut plan, vec![], &HashMap::new(), secs(0));
    assert_eq!(act(&mut plan, WELL), ["release"]);
    plan.released(suspect("a", 4, 2), WELL);
    assert_eq!(act(&mut plan, WELL), [] as [&str; 0]);
    plan.ask_for(suspect("a", 4, 2), WELL);
    assert_eq!(act(&mut plan, WELL), ["a"]);
}
