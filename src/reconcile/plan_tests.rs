//! The plan by itself, one rule at a time.

use super::*;
use crate::model::Args;

const LIMITS: Limits = Limits {
    mode: RestoreMode::Eager,
    per_second: u32::MAX as u64,
    per_origin: 8,
    processes: 2,
    revive: Duration::from_secs(30),
    seed: 7,
};

fn new(limits: Limits) -> Plan {
    Plan::new(limits, OwnAddress { hosts: vec![], ports: vec![1935] })
}

fn key(name: &str) -> ProxyKey {
    (Kind::Pull, name.into())
}

fn want(name: &str, seq: u64) -> Wanted {
    let url = format!("rtsp://{name}/live");
    let args = Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap();
    Wanted { key: key(name), seq, args, crashes: 0, dark_since: None }
}

fn wanted(names: &[&str]) -> Vec<Wanted> {
    names.iter().zip(1..).map(|(name, seq)| want(name, seq)).collect()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const RETRYING: Listed = Listed::Retrying { failures: 0, error: None };

fn playing(names: &[&str]) -> HashMap<ProxyKey, Listed> {
    listed(names, Listed::Playing)
}

fn retrying(names: &[&str]) -> HashMap<ProxyKey, Listed> {
    listed(names, RETRYING)
}

fn listed(names: &[&str], does: Listed) -> HashMap<ProxyKey, Listed> {
    names.iter().map(|name| (key(name), does.clone())).collect()
}

fn look(plan: &mut Plan, wanted: Vec<Wanted>, listed: &HashMap<ProxyKey, Listed>, at: Duration) {
    observe(plan, wanted, listed, at, at);
}

/// A whole look, of one page.
fn observe(
    plan: &mut Plan,
    wanted: Vec<Wanted>,
    listed: &HashMap<ProxyKey, Listed>,
    asked: Duration,
    now: Duration,
) {
    plan.begin_look(asked, 1_000_000);
    let there = |want: Wanted| {
        let there = listed.get(&want.key).cloned();
        (want, there)
    };
    plan.compare(wanted.into_iter().map(there), asked, now, 1_000_000);
    plan.end_look(now);
}

/// Everything that may be started at a moment, by name; the calls are numbered on.
fn start(plan: &mut Plan, at: Duration) -> Vec<String> {
    let mut all = act(plan, at);
    all.retain(|action| action != "release" && !action.starts_with("acquit"));
    all
}

/// Everything that is to be done at a moment.
fn act(plan: &mut Plan, at: Duration) -> Vec<String> {
    std::iter::from_fn(|| plan.next(at))
        .map(|action| match action {
            Action::Start { key, replace, .. } => format!("{}{}", key.1, if replace { " anew" } else { "" }),
            Action::SetAside { key, .. } => format!("set aside {}", key.1),
            Action::Acquit { key, .. } => format!("acquit {}", key.1),
            Action::Release { .. } => "release".to_owned(),
        })
        .collect()
}

fn failed() -> Added {
    Added::Failed("off".into())
}

/// A plan whose only proxy, "a", was restored and answered so at second 0.
fn restored(limits: Limits, answer: Added) -> Plan {
    let mut plan = new(limits);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["a"]);
    plan.answered(1, answer, secs(0), 0);
    plan
}

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
    assert_eq!((plan.elapsed(secs(99)), plan.eta(secs(10))), (secs(10), Some(secs(0))));
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
    assert!((90.0..110.0).contains(&plan.rate(secs(3))), "{}", plan.rate(secs(3)));
    assert!((6..=8).contains(&plan.eta(secs(3)).unwrap().as_secs()));
}

#[test]
fn what_did_not_play_comes_last_and_is_remembered_as_such() {
    let mut plan = new(Limits { per_origin: 1, ..LIMITS });
    let of_one_nvr = |name: &str, seq, dark_since| {
        let args = Args::from_pairs([(b"url".as_slice(), b"rtsp://nvr/1".as_slice())]).unwrap();
        Wanted { args, dark_since, ..want(name, seq) }
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
    let trouble = plan.troubles(None, 10, last).pop().unwrap();
    assert_eq!((trouble.state, trouble.attempts, trouble.last_error.as_str()), ("down", 11, "off"));
    assert!(trouble.next_try > Some(secs(1400)));

    // Someone else brings it to play: the next pause is the first again.
    look(&mut plan, wanted(&["a"]), &playing(&["a"]), last + secs(1));
    assert_eq!(plan.troubles(None, 10, last), []);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), last + secs(2));
    assert_eq!(start(&mut plan, last + secs(2)), [""; 0]);
    look(&mut plan, wanted(&["a"]), &HashMap::new(), last + secs(39));
    assert_eq!(start(&mut plan, last + secs(39)), ["a"]);
}

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
    let due = plan.troubles(None, 1, secs(222))[0].next_try.unwrap();
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
    let trouble = &plan.troubles(None, 1, secs(2))[0];
    assert_eq!((trouble.state, trouble.last_error.as_str()), ("retrying", "refused"));
    look(&mut plan, wanted(&["a"]), &retrying(&["a"]), secs(3000));
    assert_eq!(start(&mut plan, secs(3000)), [""; 0]);
}

#[test]
fn what_is_to_be_replaced_is_replaced_though_it_plays_and_is_looked_at_before() {
    let mut plan = new(LIMITS);
    look(&mut plan, wanted(&["a"]), &playing(&["a"]), secs(1));
    plan.put_back(want("a", 2), true, secs(2));
    look(&mut plan, vec![want("a", 2)], &playing(&["a"]), secs(3));
    // And though somebody asks for it again in the meantime.
    plan.put_back(want("a", 2), false, secs(3));
    assert_eq!(start(&mut plan, secs(4)), ["a anew"]);
}

#[test]
fn what_retries_by_itself_is_left_to_the_server() {
    let mut plan = restored(LIMITS, failed());
    for at in 1..400 {
        look(&mut plan, wanted(&["a"]), &retrying(&["a"]), secs(at * 60));
        assert_eq!(start(&mut plan, secs(at * 60)), [""; 0]);
    }
    assert_eq!(plan.troubles(None, 1, secs(0))[0].state, "retrying");
    // It plays when that is told, not only when the server is looked at.
    plan.media_came(&key("a"), secs(400 * 60), 0);
    assert_eq!(plan.census().playing, 1);
}

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
fn a_lazy_restore_starts_nothing_by_itself_and_keeps_running_what_runs() {
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

#[test]
fn a_restore_that_is_asked_for_during_another_takes_it_over() {
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
    assert_eq!(plan.troubles(Some("a"), 1, secs(2))[0].attempts, 0);
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
fn what_crashed_the_server_too_often_is_set_aside_at_once() {
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

// ---- what takes its stream from this server, processes, and circles

/// A push of live/a to somewhere.
fn push(to: &str, seq: u64) -> Wanted {
    let pairs = [("vhost", "__defaultVhost__"), ("app", "live"), ("stream", "a"), ("dst_url", to)];
    let args = Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap();
    Wanted { args, key: (Kind::Push, to.into()), ..want("push", seq) }
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
    assert_eq!(plan.troubles(None, 1, secs(2))[0].state, "connecting");
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
fn what_the_server_retries_is_shown_with_its_words_and_count_and_revived_without_its_count() {
    let mut plan = restored(LIMITS, Added::Accepted);
    let told = |failures, error: &str| listed(&["a"], Listed::Retrying { failures, error: Some(error.into()) });
    let one = || wanted(&["a"]);
    let shown = |plan: &Plan| {
        let trouble = plan.troubles(None, 1, secs(30)).remove(0);
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

fn blocked() -> Added {
    Added::Blocked("no source".into())
}

const TO: &str = "rtmp://cdn/live/a";

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
    let trouble = &plan.troubles(None, 1, secs(0))[0];
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
fn with_restore_off_a_source_starts_only_what_has_run_since_the_start() {
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
        let args = Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        Wanted { args: args.unwrap(), ..want(name, seq) }
    };
    let wanted = vec![pull("a", "b", 1), pull("b", "a", 2), pull("c", "b", 3), want("d", 4)];
    look(&mut plan, wanted.clone(), &HashMap::new(), secs(0));
    assert_eq!(start(&mut plan, secs(0)), ["c", "d"]);
    assert_eq!((plan.progress().blocked, plan.progress().waiting, plan.census().blocked), (2, 0, 2));
    let trouble = &plan.troubles(Some("a"), 1, secs(0))[0];
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
fn the_worst_of_what_does_not_play_are_shown_first_and_the_older_before_the_newer() {
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
        let troubles = plan.troubles(only, most, secs(11)).into_iter();
        troubles.map(|trouble| trouble.key.1.to_string()).collect()
    };
    assert_eq!(shown(None, 3), ["e", "b", "c"]);
    assert_eq!(shown(None, 5), ["e", "b", "c", "d", "f"]);
    assert_eq!(shown(None, 10), shown(None, 5));
    assert_eq!((shown(None, 0), shown(Some("a"), 1)), (vec![], vec!["a".to_owned()]));
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
