//! Storage that fails: every single call in turn, once or until it is mended. Nothing is acknowledged that a power loss
//! could take, the server's calls go on, and when the storage is back so is the journal, complete.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use super::powerloss::Cut;
use super::*;
use model::State;
use zlm_journal::error::{Code, Result};
use zlm_journal::journal::Persisted;
use zlm_journal::storage::env::Env;

/// Longer than a deleted file goes unnoticed while calls come in.
const LOOK: Duration = Duration::from_millis(15);

/// Calls that are made one after another, each with its outcome.
#[derive(Default)]
struct Script {
    /// For each key what was asked of it, its arguments or none, and whether that was acknowledged.
    asked: BTreeMap<String, Vec<(Option<String>, bool)>>,
    highest: u64,
}

impl Script {
    fn run(sim: &Sim, journal: &Journal) -> Script {
        let mut script = Script::default();
        let long = format!("rtsp://{}", "x".repeat(5000));
        script.change(journal, Op::Add, "v/live/1", "rtsp://1");
        script.change(journal, Op::Add, "v/live/2", &long);
        script.change(journal, Op::Add, "v/live/3", "rtsp://3");
        script.change(journal, Op::Remove, "v/live/1", "");
        let _ = journal.checkpoint();
        script.change(journal, Op::Add, "v/live/2", "rtsp://2b");
        let _ = journal.take_snapshot();
        script.change(journal, Op::Remove, "v/live/3", "");
        script.change(journal, Op::Add, "v/live/4", "rtsp://4");
        let _ = journal.take_snapshot();
        // What the power going now would leave.
        script.holds(Cut::after(Image::default(), &sim.peek_log()));
        script
    }

    fn change(&mut self, journal: &Journal, op: Op, key: &str, url: &str) {
        let args = call(op, key, url).args.map(|args| args.as_str().to_owned());
        let ack = record(journal, op, key, url);
        let acknowledged = ack.result == Ok(Persisted::Yes);
        assert!(acknowledged || ack.result.is_err());
        self.highest = self.highest.max(if acknowledged { ack.seq } else { 0 });
        self.asked.entry(key.to_owned()).or_default().push((args, acknowledged));
    }

    /// The state when every call counts, or only those that were acknowledged.
    fn state(&self, all: bool) -> State {
        let last = |asked: &Vec<(Option<String>, bool)>| {
            asked.iter().rev().find(|(_, acknowledged)| all || *acknowledged)?.0.clone()
        };
        self.asked.iter().filter_map(|(key, asked)| Some((key.clone(), last(asked)?))).collect()
    }

    /// After a power loss in the middle of it all, every key is as the last acknowledged call has left it, or as a
    /// later one, of which nobody was told how it ended.
    fn holds(&self, image: Image) {
        let sim = Sim::with(image);
        let journal = open(&sim, &[]);
        assert_eq!(journal.report().condition, Condition::Healthy, "{:?}", journal.report());
        assert!(journal.report().seq >= self.highest, "{:?}", journal.report());
        let found = model::state(&journal);
        assert!(found.keys().all(|key| self.asked.contains_key(key)));
        for (key, asked) in &self.asked {
            let last = asked.iter().rposition(|(_, acknowledged)| *acknowledged);
            let open = asked.iter().skip(last.unwrap_or(0)).map(|(args, _)| args.as_ref());
            let possible: Vec<_> = open.chain(last.is_none().then_some(None)).collect();
            assert!(possible.contains(&found.get(key)), "{key} is {:?}: {asked:?}", found.get(key));
        }
    }
}

/// One run in which call number `at` fails, and all after it while `lasts`.
fn with_fault(at: u64, kind: ErrorKind, lasts: bool, on_error: &'static str) {
    let sim = Sim::new();
    sim.begin_log();
    let broken = Arc::new(AtomicBool::new(true));
    let fault_on = Arc::clone(&broken);
    sim.set_fault(Some(Box::new(move |number, call| {
        let hit = if lasts { number >= at } else { number == at };
        // A file system that becomes read-only is still read.
        let spared = kind == ErrorKind::ReadOnlyFilesystem && call == sim::Call::Read;
        (hit && !spared && fault_on.load(Ordering::SeqCst)).then_some(kind)
    })));
    let what = format!("call {at}, {kind:?}, lasts {lasts}, {on_error}");
    let settings = [("on_error", on_error), ("history_days", "0"), ("snapshot_keep", "2")];
    let journal = open(&sim, &settings);
    let script = Script::run(&sim, &journal);
    broken.store(false, Ordering::SeqCst);
    wait_until(&format!("the journal to heal: {what}"), || journal.report().condition == Condition::Healthy);
    let ack = record(&journal, Op::Add, "v/live/last", "rtsp://last");
    assert_eq!(ack.result, Ok(Persisted::Yes), "{what}");
    // Nothing more is synced: the power goes.
    let left = Cut::after(Image::default(), &sim.take_log());
    drop(journal);
    let mut expected = script.state(on_error == "accept");
    expected.insert("v/live/last".to_owned(), "{\"url\":\"rtsp://last\"}".to_owned());
    let journal = open(&Sim::with(left), &settings);
    assert_eq!(model::state(&journal), expected, "{what}: {:?}", journal.report());
    assert_eq!(journal.report().condition, Condition::Healthy, "{what}");
}

#[test]
fn every_storage_call_may_fail() {
    storage_calls_fail(11);
}

#[test]
#[ignore = "slow: just test-storage"]
fn every_storage_call_may_fail_in_full() {
    storage_calls_fail(1);
}

/// One in `every` of all the faults, since neighbours are much alike.
fn storage_calls_fail(every: usize) {
    let calls = {
        let sim = Sim::new();
        sim.begin_log();
        let journal = open(&sim, &[]);
        Script::run(&sim, &journal);
        drop(journal);
        sim.calls()
    };
    let mut faults = Vec::new();
    for at in 0..calls {
        for lasts in [false, true] {
            for kind in [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem] {
                for on_error in ["accept", "reject"] {
                    faults.push((at, kind, lasts, on_error));
                }
            }
        }
    }
    let faults: Vec<_> = faults.into_iter().step_by(every).collect();
    // Mostly waiting for the journal's next attempt.
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                while let Some(&(at, kind, lasts, on_error)) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    with_fault(at, kind, lasts, on_error);
                }
            });
        }
    });
    say(&format!("faults: {} runs, in which storage calls of {calls} failed in turn", faults.len()));
}

#[test]
fn a_journal_that_was_deleted_is_there_again_complete_and_acknowledges_nothing_meanwhile() {
    let sim = Sim::new();
    let journal = open(&sim, &[]);
    let mut acknowledged = BTreeMap::new();
    for round in 0..5 {
        for n in 0..5 {
            let key = format!("v/live/{round}-{n}");
            let ack = record(&journal, Op::Add, &key, "rtsp://x");
            acknowledged.insert(key, ack.result == Ok(Persisted::Yes));
            if n == 2 {
                sim.delete_journal();
                std::thread::sleep(LOOK);
                // From the second time on it changes nothing, as removing what is not there: it is not on disk all the same.
                let (op, key) = if round == 4 { (Op::Remove, "none") } else { (Op::Add, "just then") };
                let ack = record(&journal, op, &format!("v/live/{key}"), "rtsp://x");
                assert_eq!(ack.result.unwrap_err().code, Code::Storage);
            }
        }
        wait_until("the journal to heal", || journal.report().condition == Condition::Healthy);
        let reopened = Sim::with(sim.image());
        assert_eq!(model::state(&open(&reopened, &[])), model::state(&journal));
    }
    assert!(acknowledged.values().filter(|acknowledged| **acknowledged).count() >= 5);
    // Also when nobody calls.
    sim.delete_journal();
    wait_until("the file to be there again", || sim.image().names.contains_key(&path()));
    wait_until("the journal to heal", || journal.report().condition == Condition::Healthy);
    assert_eq!(model::state(&open(&Sim::with(sim.image()), &[])).len(), 26);
}

#[test]
fn a_lost_log_alone_is_noticed_as_well() {
    let sim = Sim::new();
    let journal = open(&sim, &[]);
    assert!(record(&journal, Op::Add, "v/live/1", "x").result.is_ok());
    sim.remove(&PathBuf::from(format!("{}-wal", path().display()))).unwrap();
    std::thread::sleep(LOOK);
    assert!(record(&journal, Op::Add, "v/live/2", "x").result.is_err());
    wait_until("the journal to heal", || journal.report().condition == Condition::Healthy);
    assert_eq!(model::state(&open(&Sim::with(sim.image()), &[])).len(), 2);
}

#[test]
fn a_clock_that_steps_back_changes_no_order() {
    let sim = Sim::new();
    let more = [("history_days", "1"), ("snapshot_keep", "3")];
    let journal = open(&sim, &more);
    const DAY: i64 = 24 * 60 * 60 * 1000;
    for (n, step) in [0, -3 * DAY, 2 * DAY, -50 * 365 * DAY, 60 * 365 * DAY, -1].into_iter().enumerate() {
        sim.step_clock(step);
        let ack = record(&journal, Op::Add, &format!("v/live/{n}"), "x");
        assert_eq!((ack.seq, ack.result), (n as u64 + 1, Ok(Persisted::Yes)));
        let snapshot = journal.take_snapshot().unwrap().unwrap();
        assert_eq!(snapshot.seq, n as u64 + 1);
        assert_eq!(journal.report().snapshot.unwrap().seq, n as u64 + 1);
    }
    drop(journal);
    let journal = open(&sim, &more);
    assert_eq!(journal.report().last_error, None);
    assert_eq!(model::state(&journal).len(), 6);
    let names: Vec<_> =
        sim.image().names.into_keys().filter(|path| path.to_string_lossy().contains("snapshot")).collect();
    let kept = names.iter().filter(|path| path.extension().is_some_and(|end| end == "snapshot")).count();
    assert_eq!(kept, 3, "{names:?}");
}

#[test]
fn what_is_rejected_is_undone_in_order_and_told_to_the_server() {
    let sim = Sim::new();
    let journal = Arc::new(open(&sim, &[("on_error", "reject")]));
    let undone = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let told = Arc::clone(&undone);
    journal.on_undone(move |kind, key| told.lock().push((kind, key.to_string())));
    for key in ["v/live/kept", "v/live/replaced", "v/live/removed"] {
        assert!(record(&journal, Op::Add, key, "rtsp://before").result.is_ok());
    }
    let before = model::state(&journal);
    assert!(journal.admit().is_ok());
    sim.set_fault(Some(Box::new(|_, call| (call == sim::Call::Sync).then_some(ErrorKind::Other))));
    // All in one transaction, or in some: each is taken back, also where one key is meant twice.
    let calls: [(Op, &str); 5] = [
        (Op::Add, "v/live/new"),
        (Op::Add, "v/live/replaced"),
        (Op::Remove, "v/live/removed"),
        (Op::Remove, "v/live/new"),
        (Op::Add, "v/live/new"),
    ];
    let (told, acks) = mpsc::channel();
    for (op, key) in calls {
        let told = told.clone();
        journal.record(call(op, key, "rtsp://after"), Done::new(move |ack: Ack| told.send(ack).unwrap()));
    }
    for ack in acks.iter().take(calls.len()) {
        assert!(ack.result.is_err(), "{ack:?}");
    }
    assert_eq!(model::state(&journal), before);
    assert!(!undone.lock().is_empty());
    assert!(undone.lock().iter().any(|(_, key)| key == "v/live/removed"));
    // While it is known to fail, a call need not even be tried.
    let refusal: Result<()> = journal.admit();
    assert_eq!(refusal.unwrap_err().code, Code::Storage);
    sim.set_fault(None);
    wait_until("the journal to heal", || journal.admit().is_ok());
    drop(journal);
    assert_eq!(model::state(&open(&Sim::with(sim.image()), &[])), before);
}

#[test]
fn what_changes_nothing_is_undone_with_what_it_relies_on_and_with_nothing_else() {
    let sim = Sim::new();
    let journal = open(&sim, &[("on_error", "reject")]);
    assert!(record(&journal, Op::Add, "v/live/kept", "rtsp://x").result.is_ok());
    // The first sync goes on until the calls below are queued, so that they share a transaction.
    let (begun, queued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (syncs, may_end) = (Arc::clone(&begun), Arc::clone(&queued));
    sim.set_fault(Some(Box::new(move |_, call| {
        (call == sim::Call::Sync).then(|| {
            syncs.store(true, Ordering::SeqCst);
            wait_until("the calls to be queued", || may_end.load(Ordering::SeqCst));
            ErrorKind::Other
        })
    })));
    let (told, acks) = mpsc::channel();
    let again = |already_exists, call| Call { already_exists, ..call };
    let calls = [
        ("fails meanwhile", again(false, call(Op::Add, "v/live/first", "rtsp://x")), true),
        ("a change", again(false, call(Op::Add, "v/live/new", "rtsp://x")), true),
        ("nothing to remove", again(false, call(Op::Remove, "v/live/none", "")), false),
        ("on disk, alike", again(false, call(Op::Add, "v/live/kept", "rtsp://x")), false),
        ("on disk", again(true, call(Op::Add, "v/live/kept", "rtsp://y")), false),
        ("not on disk", again(true, call(Op::Add, "v/live/new", "rtsp://x")), true),
    ];
    let mut expected = Vec::new();
    for (what, call, undone) in calls {
        let told = told.clone();
        journal.record(call, Done::new(move |ack: Ack| told.send((what, ack)).unwrap()));
        expected.push((what, undone));
        if expected.len() == 1 {
            wait_until("its sync", || begun.load(Ordering::SeqCst));
        }
    }
    queued.store(true, Ordering::SeqCst);
    let answers: Vec<_> = acks.iter().take(expected.len()).collect();
    assert!(answers.iter().all(|(_, ack)| ack.result.is_err()), "{answers:?}");
    assert_eq!(answers.iter().map(|(what, ack)| (*what, ack.undone)).collect::<Vec<_>>(), expected);
    sim.set_fault(None);
    wait_until("the journal to heal", || journal.admit().is_ok());
    drop(journal);
    assert_eq!(model::state(&open(&Sim::with(sim.image()), &[])).len(), 1);
}

#[test]
fn a_shutdown_amid_calls_keeps_all_that_was_acknowledged() {
    for round in 0..20 {
        let sim = Sim::new();
        let journal = Arc::new(open(&sim, &[]));
        let start = Arc::new(Barrier::new(65));
        let callers: Vec<_> = (0..64)
            .map(|caller| {
                let (journal, start) = (Arc::clone(&journal), Arc::clone(&start));
                std::thread::spawn(move || {
                    start.wait();
                    (0..20)
                        .filter(|n| {
                            let key = format!("v/{caller}/{n}");
                            match record(&journal, Op::Add, &key, "x").result {
                                Ok(persisted) => persisted == Persisted::Yes,
                                Err(error) => {
                                    assert_eq!(error.code, Code::Closed, "{error}");
                                    false
                                }
                            }
                        })
                        .count()
                })
            })
            .collect();
        start.wait();
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
        journal.close();
        journal.close();
        let acknowledged: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        drop(journal);
        assert_eq!(model::state(&open(&sim, &[])).len(), acknowledged, "round {round}");
    }
}

#[test]
fn damage_that_a_start_does_not_read_is_found_and_mended_while_the_server_runs() {
    let sim = Sim::new();
    let journal = open(&sim, &[]);
    for n in 0..200 {
        assert!(record(&journal, Op::Add, &format!("v/live/{n}"), "rtsp://x").result.is_ok());
    }
    drop(journal);
    let mut image = sim.image();
    // A leaf of the history: a start reads what there is now.
    let bytes = image.content(&path()).unwrap().bytes();
    let is_history = |page: &[u8]| page[0] == 13 && page.windows(11).any(|origin| origin == b"127.0.0.1:1");
    let (leaf, _) = bytes.chunks(4096).enumerate().filter(|(_, page)| is_history(page)).nth(1).unwrap();
    image.content_mut(&path()).unwrap().write(leaf as u64 * 4096 + 3, &[0xff, 0xff]);
    let sim = Sim::with(image);
    let journal = open(&sim, &[]);
    assert_eq!(journal.report().last_error, None);
    let quarantined = || sim.image().names.keys().any(|path| path.to_string_lossy().contains("quarantine"));
    wait_until("the file to be mended", quarantined);
    wait_until("the journal to heal", || journal.report().condition == Condition::Healthy);
    assert!(record(&journal, Op::Add, "v/live/0", "rtsp://y").result.is_ok());
    assert_eq!(model::state(&journal).len(), 200);
}
