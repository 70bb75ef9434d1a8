//! A queue that is full, because the disk is stuck.

use zlm_journal::settings::OnError;

use super::*;

/// What the journal says at once, since it has no room to wait in.
fn refused(journal: &Journal, op: Op, key: &str, url: &str) -> Ack {
    let (told, ack) = mpsc::channel();
    journal.record(call(op, key, url), Done::new(move |ack| told.send(ack).unwrap()));
    let ack: Ack = ack.try_recv().expect("an answer at once");
    assert_eq!(ack.result.as_ref().unwrap_err().code, Code::QueueFull);
    ack
}

/// A journal that has "first", and whose queue is full until the sender is dropped.
fn full(settings: &Settings) -> (Journal, mpsc::Sender<()>) {
    let journal = Journal::open(settings).unwrap();
    add(&journal, "first", "rtsp://1");
    let (stuck, (gate, waits)) = (mpsc::channel(), mpsc::channel::<()>());
    let (at_it, is_stuck) = stuck;
    let hold = Done::new(move |_| {
        at_it.send(()).unwrap();
        let _ = waits.recv();
    });
    journal.record(call(Op::Add, "stuck", "rtsp://2"), hold);
    is_stuck.recv_timeout(Duration::from_secs(30)).unwrap();
    for number in 0..journal.report().queue_capacity {
        journal.record(call(Op::Add, &format!("{number}"), "rtsp://3"), Done::new(drop));
    }
    assert_eq!(journal.report().queue, journal.report().queue_capacity);
    (journal, gate)
}

#[test]
fn with_reject_a_full_queue_undoes_what_would_have_changed_something_and_nothing_else() {
    let disk = Disk::new();
    let (journal, gate) = full(&Settings { on_error: OnError::Reject, ..disk.settings() });
    let (told, undone) = mpsc::channel();
    journal.on_undone(move |_, key| told.send(key.to_string()).unwrap());
    assert!(refused(&journal, Op::Add, "late", "rtsp://4").undone);
    assert!(refused(&journal, Op::Remove, "first", "").undone);
    assert!(!refused(&journal, Op::Remove, "never there", "").undone);
    assert!(!refused(&journal, Op::Add, "first", "rtsp://1").undone, "it is so already");
    assert_eq!(undone.try_iter().collect::<Vec<_>>(), ["late", "first"]);
    assert!(journal.get(Kind::Pull, "late").is_none() && journal.get(Kind::Pull, "first").is_some());
    drop(gate);
    journal.close();
    assert_eq!(disk.sqlite3("select count(*) from proxies"), "65538\n");
}

#[test]
fn with_accept_what_a_full_queue_has_no_room_for_is_written_with_all_the_rest() {
    let disk = Disk::new();
    let (journal, gate) = full(&disk.settings());
    assert!(!refused(&journal, Op::Add, "late", "rtsp://4").undone);
    assert!(!refused(&journal, Op::Remove, "first", "").undone);
    refused(&journal, Op::Remove, "never there", "");
    assert!(journal.get(Kind::Pull, "late").is_some() && journal.get(Kind::Pull, "first").is_none());
    drop(gate);
    journal.close();
    let there =
        disk.sqlite3("select key from proxies where key in ('first', 'stuck', '65535', 'late') order by key");
    assert_eq!(there, "65535\nlate\nstuck\n");
}
