//! Many changes at once, and what history tells of them.

use super::*;
use zlm_journal::journal::{PointInTime, Scope};
use zlm_journal::model::{Existing, ProxyKey};

fn step(op: Op, key: &str, url: &str, expected: Option<u64>) -> Mutation {
    let Call { kind, args, .. } = call(op, key, url);
    Mutation { key: (kind, key.into()), op, args, expected }
}

fn submit_batch(journal: &Journal, steps: Vec<Mutation>, unchanged: Option<Precondition<'_>>) -> Result<Vec<u64>> {
    let (told, ack) = mpsc::channel::<Ack>();
    let done = Done::new(move |ack| told.send(ack).unwrap());
    let changed = journal.submit_batch(steps, unchanged, &Cause::default(), done);
    let ack = ack.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(changed.is_ok(), ack.result == Ok(Persisted::Yes), "told in any case");
    Ok(changed?.into_iter().map(|made| made.seq).collect())
}

#[test]
fn many_changes_are_made_together_or_not_at_all() {
    let disk = Disk::new();
    let there = expected(&[("v/live/1", "rtsp://1b"), ("v/live/3", "rtsp://3")]);
    {
        let journal = disk.open();
        add(&journal, "v/live/1", "rtsp://1");
        add(&journal, "v/live/2", "rtsp://2");
        let steps = || {
            vec![
                step(Op::Add, "v/live/1", "rtsp://1b", Some(1)),
                step(Op::Remove, "v/live/2", "", None),
                step(Op::Remove, "v/live/none", "", None),
                step(Op::Add, "v/live/3", "rtsp://3", Some(0)),
            ]
        };
        assert_eq!(submit_batch(&journal, steps(), None), Ok(vec![3, 4, 5]));
        assert_eq!(state(&journal), there);
        // What a step expects is not so any more: the first is there and was changed since, the last is there.
        let refused = submit_batch(&journal, steps(), None).unwrap_err();
        assert!(refused.code == Code::Conflict && refused.message.contains("v/live/1 was changed"), "{refused}");
        let refused =
            submit_batch(&journal, vec![step(Op::Remove, "v/live/1", "", Some(3)), steps().remove(3)], None);
        assert_eq!(refused.unwrap_err().code, Code::Conflict);
        assert_eq!((state(&journal), journal.report().seq), (there.clone(), 5));
        assert_eq!(submit_batch(&journal, vec![step(Op::Remove, "v/live/none", "", None)], None), Ok(vec![]));
    }
    let journal = disk.open();
    assert_eq!((state(&journal), journal.report().seq), (there, 5));
    assert_eq!(disk.sqlite3("select count(distinct at) from journal where seq > 2"), "1\n");
}

#[test]
fn what_is_replaced_or_removed_is_told_from_what_is_only_marked() {
    let disk = Disk::new();
    let journal = disk.open();
    add(&journal, "v/live/1", "rtsp://1");
    add(&journal, "v/live/2", "rtsp://2");
    let marked = |key: &str, url: &str| {
        let args = Args::from_pairs([(b"url".as_slice(), url.as_bytes()), (b"journal_label", b"site 1")]).unwrap();
        Mutation { args: Some(args), ..step(Op::Add, key, url, None) }
    };
    let steps = vec![
        marked("v/live/1", "rtsp://1"),
        marked("v/live/2", "rtsp://2b"),
        marked("v/live/3", "rtsp://3"),
        step(Op::Set(State::Disabled), "v/live/1", "", None),
        step(Op::Remove, "v/live/2", "", None),
    ];
    let made = journal.submit_batch(steps, None, &Cause::default(), Done::new(|_| ())).unwrap();
    let existing: Vec<Existing> = made.iter().map(|made| made.existing()).collect();
    let (keep, update, replace) = (Existing::Keep, Existing::Update, Existing::Replace);
    assert_eq!(existing, [keep, update, keep, keep, replace]);
}

#[test]
fn more_than_the_queue_holds_are_taken_in_one_call() {
    let disk = Disk::new();
    let all = 70_000;
    {
        let journal = disk.open();
        let steps = (0..all).map(|n| step(Op::Add, &format!("v/live/{n}"), "rtsp://1", Some(0))).collect();
        assert_eq!(submit_batch(&journal, steps, None).unwrap().len(), all);
    }
    assert_eq!(state(&disk.open()).len(), all);
}

#[test]
fn whether_a_scope_has_changed_is_known_as_long_as_it_can_be() {
    let disk = Disk::new();
    let on = |host: &'static str| move |_: Kind, args: &Args| args.as_str().contains(host);
    let (ours, theirs) = (on("ours"), on("theirs"));
    let check = |journal: &Journal, since, scope: &dyn Fn(Kind, &Args) -> bool| {
        let precondition = Precondition { since, scope: Scope::With(scope) };
        journal.check_unchanged(Some(precondition)).map_err(|error| error.code)
    };
    {
        let journal = disk.open();
        add(&journal, "v/live/1", "rtsp://ours");
        add(&journal, "v/live/2", "rtsp://theirs");
        assert_eq!((check(&journal, 1, &ours), check(&journal, 1, &theirs)), (Ok(2), Err(Code::Conflict)));
        remove(&journal, "v/live/2");
        assert_eq!((check(&journal, 2, &ours), check(&journal, 2, &theirs)), (Ok(3), Err(Code::Conflict)));
        // One that leaves a scope, and comes into another.
        add(&journal, "v/live/1", "rtsp://theirs");
        assert_eq!(
            (check(&journal, 3, &ours), check(&journal, 3, &theirs)),
            (Err(Code::Conflict), Err(Code::Conflict))
        );
        assert_eq!((check(&journal, 4, &ours), check(&journal, 5, &ours)), (Ok(4), Err(Code::Conflict)));
    }
    let journal = disk.open();
    assert_eq!((check(&journal, 3, &ours), check(&journal, 4, &ours)), (Err(Code::Conflict), Ok(4)));
}

#[test]
fn whether_named_ones_have_changed_is_known_of_those_that_are_there_however_long_ago() {
    let disk = Disk::new();
    let key = |name: &str| -> ProxyKey { (Kind::Pull, format!("v/live/{name}").into()) };
    let put = |journal: &Journal, name: &str| {
        let pairs = [("vhost", "v"), ("app", "live"), ("stream", name), ("url", "rtsp://1")];
        let args = Args::from_pairs(pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap();
        let step = Mutation { key: key(name), op: Op::Add, args: Some(args), expected: None };
        submit_batch(journal, vec![step], None).unwrap();
    };
    let check = |journal: &Journal, since, name: &str| {
        let named = [key(name)].into();
        let precondition = Precondition { since, scope: Scope::Named(&named) };
        journal.check_unchanged(Some(precondition)).is_ok()
    };
    {
        let journal = disk.open();
        put(&journal, "a");
        put(&journal, "b");
        assert_eq!(
            (check(&journal, 1, "a"), check(&journal, 1, "b"), check(&journal, 1, "c")),
            (true, false, true)
        );
        submit_batch(&journal, vec![step(Op::Remove, "v/live/a", "", None)], None).unwrap();
        assert_eq!(
            (check(&journal, 2, "a"), check(&journal, 3, "a"), check(&journal, 2, "b")),
            (false, true, true)
        );
        put(&journal, "a");
        assert_eq!((check(&journal, 3, "a"), check(&journal, 4, "a")), (false, true));
    }
    // Removals before the start are forgotten.
    let journal = disk.open();
    assert_eq!((check(&journal, 2, "b"), check(&journal, 3, "a"), check(&journal, 3, "c")), (true, false, false));
    assert!(check(&journal, 4, "c"));
}

#[test]
fn the_history_is_read_back_by_what_is_asked_for() {
    let disk = Disk::new();
    let journal = disk.open();
    for n in 1..=5 {
        add(&journal, &format!("v/live/{n}"), &format!("rtsp://{n}"));
    }
    remove(&journal, "v/live/3");
    let ask = |filter: HistoryFilter| -> Vec<u64> {
        journal.history(&filter).unwrap().into_iter().map(|change| change.seq).collect()
    };
    let all = HistoryFilter { limit: 100, ..HistoryFilter::default() };
    assert_eq!(ask(all.clone()), [6, 5, 4, 3, 2, 1]);
    assert_eq!(ask(HistoryFilter { before: Some(4), limit: 2, ..all.clone() }), [3, 2]);
    assert_eq!(ask(HistoryFilter { prefix: Some("v/live/3".into()), ..all.clone() }), [6, 3]);
    assert_eq!(ask(HistoryFilter { kind: Some(Kind::Push), ..all.clone() }), [0; 0]);
    assert_eq!(ask(HistoryFilter { since: Some(i64::MAX), ..all.clone() }), [0; 0]);
    assert_eq!(ask(HistoryFilter { until: Some(0), ..all.clone() }), [0; 0]);
    let first = journal.history(&all).unwrap().pop().unwrap();
    assert_eq!((first.op, first.args.unwrap().as_str()), (Op::Add, "{\"url\":\"rtsp://1\"}"));
    // A damaged row is left out, and no reason to give none.
    disk.sqlite3("update journal set origin = 'somebody else' where seq = 2");
    assert_eq!(ask(all), [6, 5, 4, 3, 1]);
    // But what was wanted after it is not known by what is left.
    assert_eq!(journal.past(PointInTime::Seq(1)).unwrap().1.len(), 1);
    assert_eq!(journal.past(PointInTime::Seq(3)).unwrap_err().code, Code::Corrupt);
}
