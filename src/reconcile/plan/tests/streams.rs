//! What takes its stream from this server, processes, and circles.

use super::*;

fn lists(wanted: &Wanted, playing: bool) -> HashMap<ProxyKey, Listed> {
    HashMap::from([(wanted.key.clone(), if playing { Listed::Playing } else { RETRYING })])
}

#[test]
fn a_push_waits_for_its_source_and_starts_each_time_that_it_comes() {
    let mut plan = new(LIMITS);
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), [TO]);
    plan.answered(1, blocked(), secs(0), 0);
    assert!(plan.is_restored());
    assert_eq!((plan.progress().blocked, plan.progress().failing, plan.census().blocked), (1, 0, 1));
    let trouble = &plan.unhealthy(None, 1, secs(0))[0];
    assert_eq!((trouble.state, trouble.last_error.as_str(), trouble.attempts), ("blocked", "no source", 0));
    // Days later.
    for day in [1, 2, 3] {
        let at = secs(day * 86_400);
        plan.source_came(push(TO, 1), at);
        assert_eq!(start(&mut plan, at), [TO]);
        plan.answered(2 * day, Added::Accepted, at, 0);
        look(&mut plan, vec![push(TO, 1)], &lists(&push(TO, 1), true), at + secs(10));
        assert_eq!(plan.census().playing, 1);
        plan.source_gone(&push(TO, 1).key, at + secs(20));
        assert_eq!((plan.census().playing, plan.census().blocked), (0, 1));
        // The server still lists it for a moment; its end is no giving up.
        look(&mut plan, vec![push(TO, 1)], &lists(&push(TO, 1), true), at + secs(21));
        look(&mut plan, vec![push(TO, 1)], &HashMap::new(), at + secs(31));
        assert_eq!(start(&mut plan, at + secs(40)), [""; 0]);
        look(&mut plan, vec![push(TO, 1)], &HashMap::new(), at + secs(75));
        assert_eq!(start(&mut plan, at + secs(75)), [TO], "tried again in case its coming was missed");
        plan.answered(2 * day + 1, blocked(), at + secs(75), 0);
    }
}

#[test]
fn a_source_that_comes_while_the_server_says_it_is_not_there_is_not_missed() {
    let mut plan = new(LIMITS);
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), [TO]);
    plan.source_came(push(TO, 1), secs(1));
    plan.answered(1, blocked(), secs(2), 0);
    assert_eq!(start(&mut plan, secs(2)), [TO]);
    plan.answered(2, blocked(), secs(3), 0);
    assert_eq!(start(&mut plan, secs(4)), [""; 0]);
}

#[test]
fn with_off_a_source_starts_only_what_has_run_since_the_start() {
    for (start_with, started) in [(RestoreMode::Lazy, vec![TO]), (RestoreMode::Off, vec![])] {
        let mut plan = new(Limits { mode: start_with, ..LIMITS });
        look(&mut plan, vec![push(TO, 1)], &HashMap::new(), secs(0));
        plan.source_came(push(TO, 1), secs(1));
        assert_eq!(start(&mut plan, secs(1)), started);
        // One that a client adds has its turn, at once.
        let later = push("rtmp://cdn/live/b", 2);
        plan.called_for(later.clone(), secs(11));
        plan.source_gone(&later.key, secs(12));
        plan.source_came(later, secs(13));
        assert_eq!(start(&mut plan, secs(13)), ["rtmp://cdn/live/b"]);
    }
}

#[test]
fn processes_have_a_budget_of_their_own() {
    let mut plan = new(Limits { per_origin: 1, ..LIMITS });
    let ffmpeg = |name: &str, seq| Wanted { key: (Kind::Ffmpeg, name.into()), ..want("nvr", seq) };
    let wanted = vec![ffmpeg("a", 1), ffmpeg("b", 2), ffmpeg("c", 3), want("nvr", 4)];
    look(&mut plan, wanted, &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a", "b", "nvr"]);
    assert_eq!(start(&mut plan, secs(60)), [""; 0]);
    plan.answered(1, failed(), secs(60), 0);
    assert_eq!(start(&mut plan, secs(60)), ["c"]);
    assert_eq!(plan.worst(1)[0].host, "FFmpeg");
}

#[test]
fn a_circle_is_told_and_not_started_until_it_is_opened() {
    let mut plan = new(LIMITS);
    let pull = |name: &str, from: &str, seq| {
        let url = format!("rtmp://127.0.0.1/live/{from}");
        let pairs = [("vhost", "__defaultVhost__"), ("app", "live"), ("stream", name), ("url", &url)];
        Wanted { args: args(&pairs), ..want(name, seq) }
    };
    let wanted = vec![pull("a", "b", 1), pull("b", "a", 2), pull("c", "b", 3), want("d", 4)];
    look(&mut plan, wanted.clone(), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["c", "d"]);
    assert_eq!((plan.progress().blocked, plan.progress().waiting, plan.census().blocked), (2, 0, 2));
    let trouble = &plan.unhealthy(Some("a"), 1, secs(0))[0];
    assert!(trouble.state == "blocked" && trouble.last_error.contains("proxy loop"), "{trouble:?}");
    // Not even when somebody asks.
    plan.ask_for(pull("a", "b", 1), secs(5));
    assert_eq!(start(&mut plan, secs(5)), [""; 0]);
    look(&mut plan, wanted[..1].to_vec(), &HashMap::new(), secs(10));
    assert_eq!(start(&mut plan, secs(10)), ["a"]);
}

#[test]
fn a_push_that_still_seems_to_run_when_its_source_comes_anew_is_looked_at_soon() {
    let mut plan = new(LIMITS);
    let wanted = || vec![push(TO, 1)];
    look(&mut plan, wanted(), &lists(&push(TO, 1), true), secs(0));
    plan.source_gone(&push(TO, 1).key, secs(20));
    // The server has not closed it yet.
    look(&mut plan, wanted(), &lists(&push(TO, 1), true), secs(21));
    plan.source_came(push(TO, 1), secs(25));
    assert_eq!(plan.wake_to_look(), secs(26));
    look(&mut plan, wanted(), &HashMap::new(), secs(26));
    assert_eq!(start(&mut plan, secs(26)), [TO]);
}

#[test]
fn a_push_whose_target_fails_waits_for_its_source_when_that_goes_too() {
    let mut plan = new(LIMITS);
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), [TO]);
    plan.answered(1, failed(), secs(1), 0);
    assert_eq!((plan.census().down, plan.census().blocked), (1, 0));
    plan.source_gone(&push(TO, 1).key, secs(2));
    assert_eq!((plan.census().down, plan.census().blocked), (0, 1));
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), secs(60));
    assert_eq!(start(&mut plan, secs(60)), [""; 0]);
    plan.source_came(push(TO, 1), secs(61));
    assert_eq!(start(&mut plan, secs(61)), [TO]);
}

#[test]
fn what_waits_for_its_source_has_nobody_look_more_often() {
    let mut plan = new(LIMITS);
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), secs(0));
    start(&mut plan, secs(0));
    plan.answered(1, blocked(), secs(0), 0);
    let at = secs(400);
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), at);
    start(&mut plan, at);
    plan.answered(2, blocked(), at, 0);
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), at + secs(299));
    assert!(plan.wake_to_look() >= at + secs(299) + LOOK_AT_LEAST.mul_f64(0.8));
}

#[test]
fn a_push_whose_source_comes_anew_as_it_connects_is_counted_once() {
    let mut plan = new(LIMITS);
    look(&mut plan, vec![push(TO, 1)], &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), [TO]);
    plan.answered(1, Added::Connected, secs(1), 0);
    // It ran on the one before, and is to be started again.
    plan.source_came(push(TO, 1), secs(2));
    plan.source_came(push(TO, 1), secs(3));
    assert_eq!(start(&mut plan, secs(3)), [TO]);
    plan.answered(2, Added::Accepted, secs(4), 0);
    assert!(plan.is_restored(), "{:?}", plan.progress());
    assert_eq!((plan.progress().total, plan.progress().live), (1, 1));
}
