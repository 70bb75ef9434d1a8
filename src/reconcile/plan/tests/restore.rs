//! The restore after a start: its order, its pace, its counts.

use super::*;

#[test]
fn a_restore_starts_what_is_missing_and_counts_it() {
    let mut plan = new(LIMITS);
    assert!(!plan.is_restored());
    look(&mut plan, wanted(&["c", "a", "b", "d"]), &playing(&["a"]), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["c", "b", "d"]);
    assert!(!plan.is_restored());
    plan.answered(1, Added::Accepted, secs(1), 0);
    plan.answered(2, failed(), secs(2), 0);
    plan.answered(3, Added::Present, secs(10), 0);
    assert!(plan.is_restored());
    let progress = plan.progress();
    assert_eq!((progress.total, progress.present, progress.live, progress.failing), (4, 2, 1, 1));
    assert_eq!(progress.half_after, Some(secs(1)));
    assert_eq!((progress.most_after, progress.all_after), (Some(secs(10)), Some(secs(10))));
    assert_eq!((plan.meter().elapsed(secs(99)), plan.eta(secs(10))), (secs(10), Some(secs(0))));
    let worst = plan.worst(5);
    assert_eq!((worst.len(), worst[0].host.as_str(), worst[0].failing), (1, "b", 1));
}

#[test]
fn starts_are_paced_with_jitter_and_what_is_left_is_foreseen() {
    let names: Vec<String> = (0..1000).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut plan = new(Limits { per_second: 100, ..LIMITS });
    look(&mut plan, wanted(&names), &HashMap::new(), secs(0));
    let (mut starts, mut call) = (Vec::new(), 0);
    for ms in 0..3000 {
        let now = Duration::from_millis(ms);
        for _ in start(&mut plan, now) {
            starts.push(ms);
            call += 1;
            plan.answered(call, Added::Accepted, now, 0);
        }
    }
    assert!((280..=320).contains(&starts.len()), "{}", starts.len());
    let gaps: std::collections::BTreeSet<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 2 && gaps.iter().all(|gap| (8..=12).contains(gap)), "{gaps:?}");
    assert!((90.0..110.0).contains(&plan.meter().rate(secs(3))), "{}", plan.meter().rate(secs(3)));
    assert!((6..=8).contains(&plan.eta(secs(3)).unwrap().as_secs()));
}

#[test]
fn what_did_not_play_comes_last_and_is_remembered_as_such() {
    let mut plan = new(Limits { per_origin: 1, ..LIMITS });
    let of_one_nvr = |name: &str, seq, dark_since| Wanted {
        args: args(&[("url", "rtsp://nvr/1")]),
        dark_since,
        ..want(name, seq)
    };
    let all = vec![of_one_nvr("dead", 1, Some(0)), of_one_nvr("live", 2, None), of_one_nvr("new", 3, None)];
    look(&mut plan, all, &HashMap::new(), secs(0));
    assert_eq!(plan.dark().collect::<Vec<_>>(), [(1, 0)]);
    assert_eq!(start(&mut plan, secs(0)), ["live"]);
    plan.answered(1, Added::Accepted, secs(1), 5);
    assert_eq!(start(&mut plan, secs(1)), ["new"]);
    plan.answered(2, failed(), secs(1), 6);
    assert_eq!(start(&mut plan, secs(1)), ["dead"]);
    let mut dark: Vec<_> = plan.dark().collect();
    dark.sort_unstable();
    assert_eq!(dark, [(1, 0), (3, 6)]);
}

#[test]
fn a_restore_that_is_asked_for_in_the_midst_of_another_takes_it_over() {
    let mut plan = new(Limits { per_second: 1, ..LIMITS });
    let all = || wanted(&["a", "b", "c", "d"]);
    look(&mut plan, all(), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a"]);
    assert_eq!(start(&mut plan, secs(2)), ["b"]);
    plan.answered(1, failed(), secs(3), 0);
    for at in [3, 4] {
        plan.restore_all(secs(at));
        look(&mut plan, all(), &retrying(&["a", "b"]), secs(at));
        let progress = plan.progress();
        assert_eq!((progress.total, progress.connecting, progress.waiting + progress.present), (4, 1, 3));
    }
    // What the server retries, as it did at the look before, is there.
    plan.restore_all(secs(5));
    look(&mut plan, all(), &retrying(&["a", "b"]), secs(5));
    assert_eq!((plan.progress().present, plan.progress().waiting), (1, 2));
    plan.answered(2, Added::Accepted, secs(5), 0);
    assert_eq!(start(&mut plan, secs(20)).len(), 1);
    plan.answered(3, Added::Accepted, secs(21), 0);
    while !plan.is_restored() {
        let at = plan.wake_to_start().max(secs(30));
        assert_eq!(start(&mut plan, at).len(), 1);
        let calls = plan.progress().started;
        (3..=calls as u64 + 3).for_each(|call| {
            plan.answered(call, Added::Accepted, at, 0);
        });
    }
    assert_eq!(plan.progress().done(), 4);
    assert_eq!((plan.progress().waiting, plan.progress().connecting), (0, 0));
}

#[test]
fn what_has_connected_connects_until_it_plays_or_fails() {
    let names = ["comes", "plays", "fails", "goes", "silent"];
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&names), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(1)).len(), 5);
    (1..=5).for_each(|call| plan.answered(call, Added::Connected, secs(2), 0));
    let counts = |plan: &Plan| {
        let progress = plan.progress();
        (progress.live, progress.connecting, progress.connected, progress.failing)
    };
    let now = |plan: &Plan| (plan.census().playing, plan.census().connecting, plan.census().retrying);
    assert_eq!((counts(&plan), now(&plan)), ((0, 5, 0, 0), (0, 5, 0)));
    assert_eq!(plan.unhealthy(None, 1, secs(2))[0].state, "connecting");
    plan.media_came(&key("comes"), secs(2), 0);
    assert_eq!((counts(&plan), now(&plan)), ((1, 4, 0, 0), (1, 4, 0)));
    let mut there = playing(&["comes", "plays"]);
    there.extend(retrying(&["fails"]));
    there.extend(listed(&["silent"], Listed::Connecting));
    look(&mut plan, wanted(&names), &there, secs(3));
    assert_eq!((counts(&plan), now(&plan)), ((2, 1, 0, 2), (2, 1, 1)));
    assert_eq!((plan.census().down, plan.worst(9).len()), (1, 2));
    // Nobody waits for that one for ever.
    assert!(!plan.is_restored());
    assert_eq!(plan.wake_to_start(), secs(12));
    start(&mut plan, secs(12));
    assert!(plan.is_restored());
    assert_eq!((counts(&plan), plan.progress().done()), ((2, 0, 1, 2), 5));
    // Later news is none of the restore's.
    look(&mut plan, wanted(&names), &listed(&names, Listed::Connecting), secs(13));
    assert_eq!((counts(&plan), now(&plan)), ((2, 0, 1, 2), (0, 5, 0)));
    // But that it plays in the end, or is not wanted any more.
    plan.media_came(&key("silent"), secs(14), 0);
    assert_eq!(counts(&plan), (3, 0, 0, 2));
}

#[test]
fn a_restore_is_not_over_while_its_first_look_goes_on() {
    for limits in [LIMITS, Limits { mode: RestoreMode::Lazy, ..LIMITS }] {
        let mut plan = new(limits);
        plan.begin_look(secs(0), 0);
        plan.compare([(want("a", 1), Some(Listed::Playing))], secs(0), secs(0), 0);
        assert!(!plan.is_restored(), "{limits:?}");
        if limits.mode == RestoreMode::Eager {
            assert_eq!(plan.eta(secs(0)), None);
        }
        plan.compare([(want("b", 2), Some(Listed::Playing))], secs(0), secs(0), 0);
        plan.end_look(secs(0));
        assert!(plan.is_restored());
        plan.begin_look(secs(20), 0);
        assert!(plan.is_restored(), "nor is it again under way at each look");
    }
}
