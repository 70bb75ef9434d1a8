//! Looks at the server: when, how far they are believed, and what they show.

use super::*;

#[test]
fn the_server_is_looked_at_often_but_not_at_the_price_of_its_time() {
    let mut plan = restored(LIMITS, Added::Accepted);
    let next = |plan: &mut Plan, took: Duration| {
        observe(plan, wanted(&["a"]), &playing(&["a"]), secs(100) - took, secs(100));
        (plan.wake_to_look() - secs(100)).as_millis()
    };
    assert!((8000..=12_000).contains(&next(&mut plan, Duration::from_millis(1))));
    assert_eq!(next(&mut plan, Duration::from_millis(300)), 30_000);
    // A proxy that is due has the server looked at in time, but a slow server not sooner.
    observe(&mut plan, wanted(&["a"]), &HashMap::new(), secs(200), secs(200));
    observe(&mut plan, wanted(&["a"]), &HashMap::new(), secs(222) - Duration::from_millis(20), secs(222));
    let due = plan.unhealthy(None, 1, secs(222))[0].next_try.unwrap();
    assert!(due < secs(14) && due > secs(2), "{due:?}");
    assert!(plan.wake_to_look() <= secs(222) + due, "{:?}", plan.wake_to_look());
    observe(&mut plan, wanted(&["a"]), &HashMap::new(), secs(221), secs(222));
    assert_eq!(plan.wake_to_look(), secs(322));
}

#[test]
fn what_was_looked_at_is_not_believed_of_what_has_changed_since() {
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(1));
    assert_eq!(start(&mut plan, secs(1)), ["a"]);
    // Looked at 5, it plays at 6, and at 7 that is compared.
    plan.answered(1, Added::Accepted, secs(6), 0);
    observe(&mut plan, wanted(&["a"]), &HashMap::new(), secs(5), secs(7));
    assert_eq!(start(&mut plan, secs(7)), [""; 0]);
    assert_eq!(plan.census().playing, 1);
    // The next look is believed.
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(8));
    assert_eq!(plan.census().playing, 0);
}

#[test]
fn what_nobody_wants_any_more_is_left_alone() {
    let mut plan = new(Limits { per_second: 1, ..LIMITS });
    look(&mut plan, wanted(&["a", "b", "c"]), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a"]);
    plan.answered(1, Added::Unwanted, secs(0), 0);
    look(&mut plan, vec![want("b", 9)], &playing(&["b"]), secs(10));
    assert_eq!(start(&mut plan, secs(10)), [""; 0]);
    assert!(plan.is_restored());
    assert_eq!((plan.progress().unwanted, plan.census().playing), (3, 1));
    // Nor does it stand in anybody's way.
    look(&mut plan, vec![want("b", 9), want("d", 10)], &playing(&["b"]), secs(20));
    look(&mut plan, vec![want("b", 9), want("d", 10)], &playing(&["b"]), secs(60));
    assert_eq!(start(&mut plan, secs(60)), ["d"]);
}

#[test]
fn a_replaced_proxy_has_no_failures_and_a_late_answer_is_not_its_own() {
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a"]);
    look(&mut plan, vec![want("a", 9)], &playing(&["a"]), secs(1));
    plan.answered(1, failed(), secs(2), 0);
    assert_eq!(plan.unhealthy(Some("a"), 1, secs(2))[0].attempts, 0);
    assert_eq!(plan.census(), PhaseCounts { playing: 1, ..PhaseCounts::default() });
}

#[test]
fn an_add_that_is_never_answered_counts_as_failed() {
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a"]);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(119));
    assert!(!plan.is_restored());
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(120));
    assert!(plan.is_restored());
    plan.answered(1, Added::Accepted, secs(121), 0);
}

#[test]
fn of_what_does_not_play_the_worst_are_shown_first_and_the_older_before_the_newer() {
    let mut plan = new(Limits { per_origin: 0, ..LIMITS });
    let names = ["a", "b", "c", "d", "e", "f"];
    look(&mut plan, wanted(&names), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), names);
    plan.answered(1, Added::Accepted, secs(0), 0);
    for call in 2..=6 {
        plan.answered(call, failed(), secs(0), 0);
    }
    // "e" once more.
    plan.ask_for(want("e", 5), secs(10));
    assert_eq!(start(&mut plan, secs(10)), ["e"]);
    plan.answered(7, failed(), secs(10), 0);
    let shown = |only, most| -> Vec<String> {
        let troubles = plan.unhealthy(only, most, secs(11)).into_iter();
        troubles.map(|trouble| trouble.key).collect()
    };
    assert_eq!(shown(None, 3), ["e", "b", "c"]);
    assert_eq!(shown(None, 5), ["e", "b", "c", "d", "f"]);
    assert_eq!(shown(None, 10), shown(None, 5));
    assert_eq!((shown(None, 0), shown(Some("a"), 1)), (vec![], vec!["a".to_owned()]));
}

#[test]
fn only_the_time_of_the_server_makes_the_next_look_wait() {
    let mut plan = restored(LIMITS, Added::Accepted);
    plan.begin_look(secs(100), 0);
    for page in 0..3 {
        let asked = secs(110 + 10 * page);
        plan.compare([(want("a", 1), Some(Listed::Playing))], asked, asked + Duration::from_millis(50), 0);
    }
    plan.end_look(secs(140));
    plan.look_by(secs(140));
    assert_eq!(plan.wake_to_look(), secs(155));
}
