//! What leaves together: replies to calls that were written in one commit.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use zlm_journal::journal::{Done, Persisted, Reply};
use zlm_journal::model::Op;

use super::{Disk, call};

/// Each reply costs a wake-up of its poller, unless it says that another one follows at once.
#[test]
fn replies_of_one_commit_leave_after_all_were_told_and_all_but_the_last_say_that_more_follow() {
    const TOGETHER: usize = 3;
    let disk = Disk::new();
    let journal = disk.open();
    let other = rusqlite::Connection::open(disk.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let (told, events) = mpsc::channel();
    let ask = |n: usize, has_reply: bool| {
        let told = told.clone();
        let done = Done::with_reply(move |ack| {
            assert_eq!(ack.result, Ok(Persisted::Yes));
            told.send(("told", n, false)).unwrap();
            has_reply.then(|| Reply::new(move |more| told.send(("reply", n, more)).unwrap()))
        });
        journal.record(call(Op::Add, &format!("v/live/{n}"), "rtsp://c"), done);
    };
    // The writer has this one, and waits for the other's lock; meanwhile the rest comes together.
    ask(0, true);
    let began = Instant::now();
    while journal.report().queue > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "nobody takes it");
        std::thread::yield_now();
    }
    (1..=TOGETHER).for_each(|n| ask(n, true));
    // The last one of the commit has to wait for something else: its reply is not the one to rely on.
    ask(TOGETHER + 1, false);
    other.execute_batch("ROLLBACK").unwrap();

    let all = [
        ("told", 0, false),
        ("reply", 0, false),
        ("told", 1, false),
        ("told", 2, false),
        ("told", 3, false),
        ("told", 4, false),
        ("reply", 1, true),
        ("reply", 2, true),
        ("reply", 3, false),
    ];
    for event in all {
        assert_eq!(events.recv_timeout(Duration::from_secs(10)), Ok(event));
    }
}
