//! The journal on its own: what was on disk, what happened, what must hold.

mod batch;
mod full;
mod replies;
mod sealed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zlm_journal::error::{Code, Result};
use zlm_journal::journal::{
    Ack, Call, Cause, Condition, CrashCounters, Done, HistoryFilter, Journal, Mutation, Persisted, Precondition,
    SCHEMA_VERSION,
};
use zlm_journal::model::{Args, Kind, Op, State};
use zlm_journal::settings::Settings;

struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Disk {
        Disk { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("journal/proxies.db")
    }

    fn settings(&self) -> Settings {
        let file = self.file();
        let (settings, problems) =
            Settings::read([("enable", "1"), ("path", file.to_str().unwrap())], Path::new("/"));
        assert!(problems.is_empty());
        settings
    }

    fn open(&self) -> Journal {
        Journal::open(&self.settings()).unwrap()
    }

    fn sqlite3(&self, sql: &str) -> String {
        let output = Command::new("sqlite3").arg(self.file()).arg(sql).output().expect("install sqlite3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn quarantined(&self) -> Vec<PathBuf> {
        let folder = self.dir.path().join("journal/quarantine");
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            files.extend(fs::read_dir(entry.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
        files
    }
}

fn call(op: Op, key: &str, url: &str) -> Call<'static> {
    let args = (op == Op::Add).then(|| Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap());
    Call {
        op,
        kind: Kind::Pull,
        key: key.to_owned().leak(),
        args,
        already_exists: false,
        cause: Cause { caller: "127.0.0.1:1".to_owned(), reason: "test".to_owned() },
    }
}

fn record(journal: &Journal, op: Op, key: &str, url: &str) -> (u64, Result<Persisted>) {
    let (told, ack) = mpsc::channel::<Ack>();
    journal.record(call(op, key, url), Done::new(move |ack| told.send(ack).unwrap()));
    let ack = ack.recv_timeout(Duration::from_secs(30)).unwrap();
    (ack.seq, ack.result)
}

fn add(journal: &Journal, key: &str, url: &str) -> u64 {
    let (seq, result) = record(journal, Op::Add, key, url);
    assert_eq!(result, Ok(Persisted::Yes));
    seq
}

fn remove(journal: &Journal, key: &str) -> u64 {
    let (seq, result) = record(journal, Op::Remove, key, "");
    assert_eq!(result, Ok(Persisted::Yes));
    seq
}

fn state(journal: &Journal) -> BTreeMap<String, String> {
    journal
        .after(None, usize::MAX)
        .into_iter()
        .map(|((_, key), entry)| (key.to_string(), entry.args.as_str().to_owned()))
        .collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, url)| (key.to_string(), format!("{{\"url\":\"{url}\"}}"))).collect()
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_and_what_was_removed_is_not() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        assert_eq!(add(&journal, "v/live/1", "rtsp://1"), 1);
        assert_eq!(add(&journal, "v/live/2", "rtsp://2"), 2);
        assert_eq!(add(&journal, "v/live/1", "rtsp://1b"), 3);
        assert_eq!(remove(&journal, "v/live/2"), 4);
        assert_eq!(remove(&journal, "v/live/none"), 4, "nothing to remove changes nothing");
    }
    let journal = disk.open();
    assert_eq!(state(&journal), expected(&[("v/live/1", "rtsp://1b")]));
    assert_eq!(add(&journal, "v/live/3", "rtsp://3"), 5, "numbers go on where they ended");
}

#[test]
fn an_acknowledged_change_is_on_disk_before_its_acknowledgement() {
    let disk = Disk::new();
    let journal = disk.open();
    for n in 0..20 {
        add(&journal, &format!("v/live/{n}"), "rtsp://x");
        // A copy of the files as they are at this moment is what a kill -9 would leave.
        let copy = Disk::new();
        fs::create_dir_all(copy.file().parent().unwrap()).unwrap();
        for suffix in ["", "-wal"] {
            let name = |disk: &Disk| PathBuf::from(format!("{}{suffix}", disk.file().display()));
            fs::copy(name(&disk), name(&copy)).unwrap();
        }
        assert_eq!(state(&copy.open()).len(), n + 1);
    }
}

#[test]
fn the_operator_reads_the_file_while_the_server_writes() {
    let disk = Disk::new();
    let journal = disk.open();
    add(&journal, "v/live/摄像头", "rtsp://user:pass@10.0.0.1/一");
    let seen = disk.sqlite3("select kind, key, args, state, seq from proxies");
    assert_eq!(seen, "pull|v/live/摄像头|{\"url\":\"rtsp://user:pass@10.0.0.1/一\"}|enabled|1\n");
    assert_eq!(disk.sqlite3("select key, url from proxies_view"), "v/live/摄像头|rtsp://user:pass@10.0.0.1/一\n");
    remove(&journal, "v/live/摄像头");
    assert_eq!(
        disk.sqlite3("select seq, op, origin, reason from journal_view"),
        "1|add|127.0.0.1:1|test\n2|remove|127.0.0.1:1|test\n"
    );
    assert_eq!(disk.sqlite3("select count(*) from proxies"), "0\n");
    add(&journal, "v/live/2", "rtsp://after");
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let disk = Disk::new();
    let journal = disk.open();
    add(&journal, "v/live/1", "rtsp://1");
    journal.take_snapshot().unwrap().unwrap();
    let mut checked = 0;
    let mut folders = vec![disk.file().parent().unwrap().to_owned()];
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 5, "db, wal, shm, lock and snapshot, got {checked}");
}

#[test]
fn a_second_server_is_told_that_the_journal_is_taken() {
    let disk = Disk::new();
    let first = disk.open();
    let second = disk.open();
    assert_eq!(second.report().condition, Condition::Unavailable);
    let error = second.report().last_error.unwrap().1;
    assert_eq!(error.code, Code::Locked);
    assert!(error.message.contains("a different [journal] path"), "{error}");
    add(&first, "v/live/1", "rtsp://1");
    add(&first, "v/live/2", "rtsp://2");
    // What it is called for meanwhile is not on disk, and it says so.
    assert_eq!(record(&second, Op::Add, "v/live/3", "rtsp://3").1.unwrap_err().code, Code::Locked);
    assert_eq!(record(&second, Op::Remove, "v/live/2", "").1.unwrap_err().code, Code::Locked);
    let (told, known) = mpsc::channel();
    second.on_loaded(move || told.send(()).unwrap());
    assert!(known.try_recv().is_err());
    drop(first);
    // It takes over, with what it was called for on top.
    known.recv_timeout(Duration::from_secs(30)).unwrap();
    add(&second, "v/live/4", "rtsp://4");
    assert_eq!(second.report().condition, Condition::Healthy);
    drop(second);
    let expected = [("v/live/1", "rtsp://1"), ("v/live/3", "rtsp://3"), ("v/live/4", "rtsp://4")];
    assert_eq!(state(&disk.open()), self::expected(&expected));
}

#[test]
fn changes_from_many_threads_are_all_kept() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let journal = &journal;
                scope.spawn(move || {
                    for n in 0..50 {
                        add(journal, &format!("v/{thread}/{n}"), "rtsp://x");
                        if n % 2 == 1 {
                            remove(journal, &format!("v/{thread}/{n}"));
                        }
                    }
                });
            }
        });
    }
    assert_eq!(state(&disk.open()).len(), 16 * 25);
    assert_eq!(disk.sqlite3("select count(*), max(seq) from journal"), "1200|1200\n");
}

#[test]
fn closing_writes_what_is_queued_and_refuses_what_comes_later() {
    let disk = Disk::new();
    let journal = disk.open();
    let (told, acks) = mpsc::channel::<Ack>();
    for n in 0..500 {
        let told = told.clone();
        journal.record(call(Op::Add, &format!("v/live/{n}"), "x"), Done::new(move |ack| told.send(ack).unwrap()));
    }
    journal.close();
    assert_eq!(acks.try_iter().filter(|ack| ack.result == Ok(Persisted::Yes)).count(), 500);
    let (_, late) = record(&journal, Op::Add, "v/live/late", "x");
    assert_eq!(late.unwrap_err().code, Code::Closed);
    drop(journal);
    assert_eq!(state(&disk.open()).len(), 500);
}

#[test]
fn async_durability_answers_at_once_and_writes_soon() {
    let disk = Disk::new();
    {
        let file = disk.file();
        let (settings, _) =
            Settings::read([("path", file.to_str().unwrap()), ("durability", "async")], Path::new("/"));
        let journal = Journal::open(&settings).unwrap();
        let (seq, result) = record(&journal, Op::Add, "v/live/1", "rtsp://1");
        assert_eq!((seq, result), (1, Ok(Persisted::Soon)));
    }
    assert_eq!(state(&disk.open()).len(), 1);
}

// ---- snapshots and recovery

#[test]
fn a_snapshot_is_a_whole_journal_and_only_made_when_something_changed() {
    let disk = Disk::new();
    let journal = disk.open();
    add(&journal, "v/live/1", "rtsp://1");
    let first = journal.take_snapshot().unwrap().unwrap();
    assert_eq!(journal.take_snapshot().unwrap().unwrap(), first);
    add(&journal, "v/live/2", "rtsp://2");
    let second = journal.take_snapshot().unwrap().unwrap();
    assert_eq!((first.seq, second.seq), (1, 2));
    let output = Command::new("sqlite3").arg(&second.path).arg("select key from proxies").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "v/live/1\nv/live/2\n");
    // The plugin opens it as it opens a journal.
    let copy = Disk::new();
    fs::create_dir_all(copy.file().parent().unwrap()).unwrap();
    fs::copy(&second.path, copy.file()).unwrap();
    let opened = copy.open();
    assert_eq!(state(&opened), expected(&[("v/live/1", "rtsp://1"), ("v/live/2", "rtsp://2")]));
    assert_eq!((opened.report().seq, opened.report().last_error), (2, None));
}

#[test]
fn only_the_newest_snapshots_are_kept_and_history_is_pruned_behind_them() {
    let disk = Disk::new();
    let file = disk.file();
    let pairs = [("path", file.to_str().unwrap()), ("snapshot_keep", "2"), ("history_days", "0")];
    let journal = Journal::open(&Settings::read(pairs, Path::new("/")).0).unwrap();
    for n in 0..5 {
        add(&journal, &format!("v/live/{n}"), "rtsp://x");
        std::thread::sleep(Duration::from_millis(2)); // history older than "now"
        journal.take_snapshot().unwrap();
    }
    add(&journal, "v/live/last", "rtsp://x");
    drop(journal);
    assert_eq!(fs::read_dir(disk.dir.path().join("journal/snapshots")).unwrap().count(), 2);
    // Snapshots of changes 4 and 5 are there: the journal leads on from 4.
    assert_eq!(disk.sqlite3("select group_concat(seq) from journal"), "5,6\n");
    assert_eq!(state(&disk.open()).len(), 6);
}

/// What a damaged journal must come back as, and that the damaged file is kept.
fn damaged(damage: impl Fn(&Disk)) -> (BTreeMap<String, String>, Disk) {
    let disk = Disk::new();
    {
        let journal = disk.open();
        add(&journal, "v/live/kept", "rtsp://kept");
        add(&journal, "v/live/gone", "rtsp://gone");
        journal.take_snapshot().unwrap();
        add(&journal, "v/live/later", "rtsp://later");
        remove(&journal, "v/live/gone");
    }
    damage(&disk);
    let journal = disk.open();
    let found = state(&journal);
    let report = journal.report().last_error.expect("a recovery is reported").1;
    assert_eq!(report.code, Code::Corrupt);
    assert!(report.message.contains("kept in"), "{report}");
    // It works again at once, and the next start finds nothing wrong.
    add(&journal, "v/live/new", "rtsp://new");
    drop(journal);
    let journal = disk.open();
    assert!(journal.report().last_error.is_none());
    assert_eq!(state(&journal).len(), found.len() + 1);
    drop(journal);
    (found, disk)
}

#[test]
fn a_proxies_row_that_was_tampered_with_is_not_believed() {
    let (found, disk) = damaged(|disk| {
        disk.sqlite3("update proxies set args = '{\"url\":\"rtsp://evil\"}' where key = 'v/live/kept'");
    });
    assert_eq!(found, expected(&[("v/live/kept", "rtsp://kept"), ("v/live/later", "rtsp://later")]));
    assert!(!disk.quarantined().is_empty());
}

#[test]
fn a_missing_row_is_noticed_and_comes_back() {
    let (found, _) = damaged(|disk| {
        disk.sqlite3("delete from proxies where key = 'v/live/later'");
    });
    assert_eq!(found, expected(&[("v/live/kept", "rtsp://kept"), ("v/live/later", "rtsp://later")]));
}

#[test]
fn a_lost_proxies_table_is_rebuilt_from_snapshot_and_journal() {
    let (found, _) = damaged(|disk| {
        disk.sqlite3("drop table proxies");
    });
    assert_eq!(found, expected(&[("v/live/kept", "rtsp://kept"), ("v/live/later", "rtsp://later")]));
}

#[test]
fn a_file_that_is_no_database_leaves_the_snapshot() {
    let (found, disk) = damaged(|disk| fs::write(disk.file(), "[general]\nmode=1\n".repeat(100)).unwrap());
    assert_eq!(found, expected(&[("v/live/kept", "rtsp://kept"), ("v/live/gone", "rtsp://gone")]));
    let kept = disk.quarantined();
    assert!(kept.iter().any(|path| fs::read(path).unwrap().starts_with(b"[general]")), "{kept:?}");
}

#[test]
fn a_deleted_file_leaves_the_snapshot() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        add(&journal, "v/live/1", "rtsp://1");
        journal.take_snapshot().unwrap();
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", disk.file().display()));
    }
    assert_eq!(state(&disk.open()), expected(&[("v/live/1", "rtsp://1")]));
}

#[test]
fn a_bad_newest_snapshot_gives_way_to_the_one_before() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        add(&journal, "v/live/1", "rtsp://1");
        journal.take_snapshot().unwrap();
        add(&journal, "v/live/2", "rtsp://2");
        let newest = journal.take_snapshot().unwrap().unwrap();
        let mut bytes = fs::read(&newest.path).unwrap();
        let at = bytes.windows(8).rposition(|window| window == b"rtsp://2").unwrap();
        bytes[at] ^= 1;
        fs::write(&newest.path, bytes).unwrap();
    }
    disk.sqlite3("pragma secure_delete = on; drop table proxies; drop table journal");
    assert_eq!(state(&disk.open()), expected(&[("v/live/1", "rtsp://1")]));
}

#[test]
fn a_crash_in_the_middle_of_a_recovery_is_carried_to_its_end() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        add(&journal, "v/live/1", "rtsp://1");
    }
    // The whole fresh file is written, the old one put away, and then the power went.
    fs::rename(disk.file(), disk.dir.path().join("journal/proxies.db.recovered")).unwrap();
    assert_eq!(state(&disk.open()), expected(&[("v/live/1", "rtsp://1")]));
    // Half a fresh file counts for nothing.
    fs::write(disk.dir.path().join("journal/proxies.db.recovered"), b"SQLite format 3\0 and no more").unwrap();
    assert_eq!(state(&disk.open()), expected(&[("v/live/1", "rtsp://1")]));
}

#[test]
fn an_add_of_what_is_wanted_alike_changes_nothing() {
    let disk = Disk::new();
    let journal = disk.open();
    assert_eq!(add(&journal, "v/live/1", "rtsp://1"), 1);
    let size = || journal.sizes()[1];
    let written = size();
    assert_eq!(add(&journal, "v/live/1", "rtsp://1"), 1);
    assert_eq!(size(), written, "nothing was written");
    assert_eq!(add(&journal, "v/live/1", "rtsp://2"), 2);
    record(&journal, Op::Set(State::Disabled), "v/live/1", "").1.unwrap();
    assert_eq!(add(&journal, "v/live/1", "rtsp://2"), 4, "what is disabled is wanted from now on");
    // What the server had and left as it was stays as the journal has it.
    let again = Call { already_exists: true, ..call(Op::Add, "v/live/1", "rtsp://3") };
    let (told, ack) = mpsc::channel::<Ack>();
    journal.record(again, Done::new(move |ack| told.send(ack).unwrap()));
    assert_eq!(ack.recv_timeout(Duration::from_secs(30)).unwrap().seq, 4);
    remove(&journal, "v/live/1");
    assert_eq!(add(&journal, "v/live/1", "rtsp://2"), 6);
    assert_eq!(disk.sqlite3("select group_concat(op) from journal"), "add,add,disable,add,remove,add\n");
    drop(journal);
    let journal = disk.open();
    assert_eq!(add(&journal, "v/live/1", "rtsp://2"), 6, "also when it was read back");
}

/// What another process reads, with these two in the journal; the one before has crashed while it worked on `crashed`, or
/// just ended.
fn suspects(disk: &Disk, journal: &Journal, crashed: Option<&str>) -> CrashCounters {
    if let Some(text) = crashed {
        fs::write(disk.dir.path().join("journal/proxies.db.crash"), text).unwrap();
    }
    let suspects = CrashCounters::read(journal.paths(), [(proxy("a"), 7), (proxy("b"), 8)].into_iter());
    assert!(!disk.dir.path().join("journal/proxies.db.crash").exists(), "it counts once");
    suspects
}

fn proxy(name: &str) -> (Kind, Arc<str>) {
    (Kind::Pull, name.into())
}

#[test]
fn only_a_crash_accuses_until_the_server_has_lived_through_it() {
    let disk = Disk::new();
    let journal = disk.open();
    let (a, b) = (proxy("a"), proxy("b"));
    assert_eq!(suspects(&disk, &journal, None).crashes(&a, 7), 0);
    // Of 9 nobody knows any more.
    for (crashed, times) in [("7\n", 1), ("9\n7\n7\n", 2), ("8\n7\n", 3)] {
        assert_eq!(suspects(&disk, &journal, Some(crashed)).crashes(&a, 7), times);
        // Killed any number of times.
        assert_eq!(suspects(&disk, &journal, None).crashes(&a, 7), times);
    }
    let mut next = suspects(&disk, &journal, None);
    assert_eq!((next.crashes(&a, 7), next.crashes(&b, 8)), (3, 1));
    assert_eq!((next.crashes(&a, 17), next.crashes(&(Kind::Push, "a".into()), 7)), (0, 0), "another by that name");
    next.acquit(&a, 17);
    assert_eq!(next.crashes(&a, 7), 3);
    next.acquit(&a, 7);
    next.acquit(&b, 8);
    assert_eq!(suspects(&disk, &journal, None).crashes(&a, 7), 0);
    assert!(!disk.dir.path().join("journal/proxies.db.suspects").exists());
}

#[test]
fn a_torn_or_damaged_note_accuses_nobody() {
    let disk = Disk::new();
    let journal = disk.open();
    for torn in ["", "7", "8\n7", "\0\0\0\0", "7\n\0\0", "7\nx\n", "-7\n", "7 \n", "\n"] {
        let suspects = suspects(&disk, &journal, Some(torn));
        assert_eq!((suspects.crashes(&proxy("a"), 7), suspects.crashes(&proxy("b"), 8)), (0, 0), "{torn:?}");
    }
    suspects(&disk, &journal, Some("7\n"));
    let file = disk.dir.path().join("journal/proxies.db.suspects");
    let whole = fs::read_to_string(&file).unwrap();
    for len in 0..whole.len() {
        fs::write(&file, &whole[..len]).unwrap();
        assert_eq!(suspects(&disk, &journal, None).crashes(&proxy("a"), 7), 0, "{len}");
    }
    fs::write(&file, whole.replace("pull", "pulp")).unwrap();
    assert_eq!(suspects(&disk, &journal, None).crashes(&proxy("a"), 7), 0);
}

#[test]
fn what_was_set_aside_is_released_once() {
    let disk = Disk::new();
    let journal = disk.open();
    let a = proxy("a");
    (0..3).for_each(|_| drop(suspects(&disk, &journal, Some("7\n"))));
    let mut next = suspects(&disk, &journal, None);
    assert!(!next.set_aside(&a, 7), "not for good");
    // The same by change 8: also after a kill the next one knows.
    assert!(suspects(&disk, &journal, None).may_be_released(&a));
    next.release(&a, 8, 2);
    fs::write(disk.dir.path().join("journal/proxies.db.crash"), "8\n").unwrap();
    let mut next = CrashCounters::read(journal.paths(), [(a.clone(), 8)].into_iter());
    assert_eq!(next.crashes(&a, 8), 3);
    assert!(next.set_aside(&a, 8), "for good");
    // It is known by change 9 now, and by change 10 when an operator has released it.
    let mut next = CrashCounters::read(journal.paths(), [(a.clone(), 9)].into_iter());
    assert!(!next.may_be_released(&a));
    assert_eq!(next.crashes(&a, 10), 0);
    assert!(!next.set_aside(&a, 10), "that is another proxy");
    assert!(next.may_be_released(&a));
}

#[test]
fn a_state_is_kept_and_found_again_in_history_alone() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        for key in ["v/live/1", "v/live/2", "v/live/3"] {
            add(&journal, key, "rtsp://1");
        }
        let set = |key: &str, state: State| record(&journal, Op::Set(state), key, "").1.unwrap();
        set("v/live/1", State::Dormant);
        set("v/live/2", State::Disabled);
        set("v/live/3", State::Dormant);
        set("v/live/3", State::Enabled);
        // What changes nothing is no change.
        let (seq, _) = record(&journal, Op::Set(State::Enabled), "v/live/3", "");
        assert_eq!((seq, journal.report().seq), (7, 7));
        assert!(!journal.change(Kind::Pull, "v/live/3", 3, Op::Remove, "not as change 3 left it"));
        assert!(!journal.change(Kind::Pull, "v/live/none", 0, Op::Set(State::Dormant), "unknown"));
    }
    let states = |journal: &Journal| {
        ["v/live/1", "v/live/2", "v/live/3"].map(|key| journal.get(Kind::Pull, key).unwrap().state)
    };
    let expected = [State::Dormant, State::Disabled, State::Enabled];
    assert_eq!(states(&disk.open()), expected);
    assert_eq!(disk.sqlite3("select group_concat(op) from journal"), "add,add,add,sleep,disable,sleep,enable\n");
    // The rows themselves are damaged: their history is good for all of it.
    disk.sqlite3("update proxies set state = 'enabled'");
    let journal = disk.open();
    assert_eq!(journal.report().last_error.as_ref().map(|(_, error)| error.code), Some(Code::Corrupt));
    assert_eq!(states(&journal), expected);
}

#[test]
fn a_newer_schema_is_read_and_left_alone() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        add(&journal, "v/live/1", "rtsp://1");
    }
    let newer = SCHEMA_VERSION + 1;
    disk.sqlite3(&format!("pragma user_version = {newer}; update meta set value = {newer} where name = 'schema'"));
    let before = fs::read(disk.file()).unwrap();
    {
        let journal = disk.open();
        let report = journal.report();
        assert_eq!(report.condition, Condition::ReadOnly);
        let error = report.last_error.unwrap().1;
        assert_eq!(error.code, Code::NewerSchema);
        assert!(error.message.contains("newer") && error.message.contains("only read"), "{error}");
        // It is restored from, and what is called for is known for as long as this server runs.
        assert_eq!(state(&journal), expected(&[("v/live/1", "rtsp://1")]));
        assert_eq!(record(&journal, Op::Add, "v/live/2", "x").1.unwrap_err().code, Code::NewerSchema);
        assert_eq!(record(&journal, Op::Remove, "v/live/1", "").1.unwrap_err().code, Code::NewerSchema);
        assert_eq!(state(&journal), expected(&[("v/live/2", "x")]));
    }
    assert_eq!(fs::read(disk.file()).unwrap(), before);
    // A header alone that says so is a damaged one.
    disk.sqlite3(&format!("update meta set value = {SCHEMA_VERSION} where name = 'schema'"));
    let journal = disk.open();
    assert_eq!(journal.report().condition, Condition::Healthy);
    assert_eq!(journal.report().last_error.unwrap().1.code, Code::Corrupt);
    assert_eq!(state(&journal), expected(&[("v/live/1", "rtsp://1")]));
}

#[test]
fn a_path_that_cannot_be_a_journal_is_explained() {
    let disk = Disk::new();
    fs::create_dir_all(disk.file()).unwrap();
    let journal = disk.open();
    let error = journal.report().last_error.unwrap().1;
    assert!(error.message.contains("is a directory"), "{error}");
    // Once it can be one, it is.
    fs::remove_dir(disk.file()).unwrap();
    let (told, known) = mpsc::channel();
    journal.on_loaded(move || told.send(()).unwrap());
    known.recv_timeout(Duration::from_secs(30)).unwrap();
    add(&journal, "v/live/1", "rtsp://1");

    fs::write(disk.dir.path().join("plain"), "").unwrap();
    let path = disk.dir.path().join("plain/proxies.db");
    let (settings, _) = Settings::read([("path", path.to_str().unwrap())], Path::new("/"));
    let error = Journal::open(&settings).unwrap().report().last_error.unwrap().1;
    assert_eq!(error.code, Code::Storage);
    assert!(error.message.contains("plain"), "{error}");
}

#[test]
fn a_file_in_which_numbers_stand_twice_is_opened_all_the_same() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-4.db");
    let twin = zlm_journal::model::Entry {
        args: Args::from_pairs([(b"url".as_slice(), b"rtsp://twin".as_slice())]).unwrap(),
        state: State::Enabled,
        seq: 1,
        created_at: 7,
        updated_at: 7,
    };
    let crc = twin.crc(Kind::Pull, "v/live/twin");
    // Two servers' files, copied into each other: schema 4 did not mind.
    let disk = Disk::new();
    fs::create_dir_all(disk.file().parent().unwrap()).unwrap();
    fs::copy(fixture, disk.file()).unwrap();
    disk.sqlite3(&format!(
        "insert into proxies values ('pull', 'v/live/twin', '{}', 'enabled', 1, 7, 7, {crc});
         update meta set value = value + 1 where name = 'count';
         update meta set value = (value | {crc}) - (value & {crc}) where name = 'digest'",
        twin.args.as_str()
    ));
    let journal = disk.open();
    assert_eq!(journal.report().last_error.unwrap().1.code, Code::Corrupt);
    let names: Vec<String> = state(&journal).into_keys().collect();
    assert_eq!(names, ["v/live/gbk", "v/live/long", "v/live/plain", "v/live/twin"]);
    remove(&journal, "v/live/twin");
    drop(journal);
    let journal = disk.open();
    assert_eq!((journal.report().last_error, state(&journal).len()), (None, 3));
}

#[test]
fn a_row_that_is_gone_while_the_server_runs_is_noticed_by_the_next_change_of_it() {
    let disk = Disk::new();
    let journal = disk.open();
    add(&journal, "v/live/1", "rtsp://1");
    add(&journal, "v/live/2", "rtsp://2");
    disk.sqlite3("delete from proxies where key = 'v/live/1'");
    let (_, result) = record(&journal, Op::Add, "v/live/1", "rtsp://1b");
    let error = result.unwrap_err();
    assert!(error.message.contains("the row of pull v/live/1, of change 1, is not in the file"), "{error}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while journal.report().condition != Condition::Healthy {
        assert!(Instant::now() < deadline, "{:?}", journal.report());
        std::thread::sleep(Duration::from_millis(10));
    }
    // Written afresh from memory: the row of the other one as well.
    remove(&journal, "v/live/2");
    drop(journal);
    let journal = disk.open();
    assert_eq!(journal.report().last_error, None);
    assert_eq!(state(&journal), expected(&[("v/live/1", "rtsp://1b")]));
}

#[test]
fn a_failed_write_is_never_acknowledged_and_all_is_written_when_storage_is_back() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        add(&journal, "v/live/1", "rtsp://1");
        // Someone's tool breaks the table under the running server: the next commit fails.
        disk.sqlite3("drop table journal");
        let (seq, result) = record(&journal, Op::Add, "v/live/2", "rtsp://2");
        assert_eq!(seq, 2);
        assert!(result.is_err(), "{result:?}");
        assert_eq!(journal.report().condition, Condition::StorageFailed);
        let healed = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            journal.report().condition == Condition::Healthy
        });
        assert!(healed, "{:?}", journal.report());
        add(&journal, "v/live/3", "rtsp://3");
    }
    let names: Vec<String> = state(&disk.open()).into_keys().collect();
    assert_eq!(names, ["v/live/1", "v/live/2", "v/live/3"]);
    assert!(!disk.quarantined().is_empty(), "the old file is kept");
}

#[test]
fn a_log_without_its_database_is_read_for_what_it_has_and_put_away() {
    let disk = Disk::new();
    let saved = disk.dir.path().join("wal");
    {
        let journal = disk.open();
        add(&journal, "v/live/old", "rtsp://old");
        fs::copy(format!("{}-wal", disk.file().display()), &saved).unwrap();
    }
    fs::remove_file(disk.file()).unwrap();
    fs::copy(&saved, format!("{}-wal", disk.file().display())).unwrap();
    let journal = disk.open();
    assert_eq!(state(&journal), expected(&[("v/live/old", "rtsp://old")]));
    assert!(add(&journal, "v/live/new", "rtsp://new") > 1);
    assert!(disk.quarantined().iter().any(|path| path.to_string_lossy().ends_with("-wal")));
}

#[test]
fn the_log_starts_over_instead_of_growing_for_ever() {
    let disk = Disk::new();
    let journal = disk.open();
    let length = || fs::metadata(format!("{}-wal", disk.file().display())).unwrap().len();
    let preallocated = length();
    assert!(preallocated >= 8 << 20, "room is made beforehand: {preallocated}");
    for n in 0..6000 {
        add(&journal, &format!("v/live/{n}"), &"x".repeat(300));
    }
    // Each commit alone writes at least three pages: about 72 MiB if nothing was ever copied away.
    assert!(length() < 36 << 20, "{}", length());
}

#[test]
fn damage_that_a_snapshot_meets_is_mended_from_memory() {
    let disk = Disk::new();
    let journal = disk.open();
    add(&journal, "v/live/1", "rtsp://1");
    disk.sqlite3("update proxies set args = '{}'");
    let error = journal.take_snapshot().unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    let snapshot = (0..200).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        journal.take_snapshot().ok().flatten()
    });
    assert_eq!(snapshot.expect("a snapshot of the mended file").seq, 1);
    assert!(!disk.quarantined().is_empty());
    drop(journal);
    assert_eq!(state(&disk.open()), expected(&[("v/live/1", "rtsp://1")]));
}

/// Read and write system calls that this thread has made, and the bytes that it has sent towards a disk.
#[cfg(target_os = "linux")]
fn storage_calls() -> Vec<u64> {
    let counters = fs::read_to_string("/proc/thread-self/io").unwrap();
    ["syscr", "syscw", "write_bytes"]
        .map(|name| {
            let line = counters.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
            line.parse().unwrap()
        })
        .to_vec()
}

#[cfg(target_os = "linux")]
#[test]
fn recording_touches_no_storage_on_the_callers_thread() {
    let disk = Disk::new();
    let journal = disk.open();
    let (told, acks) = mpsc::channel::<Ack>();
    // Reading the counters is a read itself: what one look costs is measured first.
    let looks = [storage_calls(), storage_calls()];
    for n in 0..500 {
        let told = told.clone();
        journal.record(call(Op::Add, &format!("v/live/{n}"), "x"), Done::new(move |ack| told.send(ack).unwrap()));
    }
    let after = storage_calls();
    let cost = |from: &[u64], to: &[u64]| from.iter().zip(to).map(|(from, to)| to - from).collect::<Vec<_>>();
    assert_eq!(cost(&looks[1], &after), cost(&looks[0], &looks[1]));
    assert!((0..500).all(|_| acks.recv().unwrap().result == Ok(Persisted::Yes)));
}
