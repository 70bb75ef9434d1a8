//! A journal whose arguments are sealed with a key: what its files give away, and what becomes of it without the key.

#[path = "../support/files.rs"]
mod files;

use super::*;
use zlm_journal::journal::PointInTime;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const NOWHERE: [PathBuf; 0] = [];
const SECRET: &str = "rtsp://user:hunter2@camera.example/1";

impl Disk {
    fn with_key(key: &str) -> Disk {
        let disk = Disk::new();
        disk.set_key(key);
        disk
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    fn set_key(&self, key: &str) {
        fs::write(self.key_file(), format!("{key}\n")).unwrap();
    }

    fn open_sealed(&self) -> Journal {
        Journal::open(&Settings { key_file: Some(self.key_file()), ..self.settings() }).unwrap()
    }

    /// The files of the journal that have a text in them somewhere.
    fn that_have(&self, text: &str) -> Vec<PathBuf> {
        files::that_have(&self.dir.path().join("journal"), text)
    }

    fn wait_until_nothing_has(&self, text: &str) {
        for _ in 0..500 {
            if self.that_have(text).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{text} is still in {:?}", self.that_have(text));
    }
}

fn history(journal: &Journal) -> Vec<(u64, Option<String>)> {
    let all = HistoryFilter { limit: 100, ..HistoryFilter::default() };
    let changes = journal.history(&all).unwrap().into_iter();
    changes.map(|change| (change.seq, change.args.map(|args| args.as_str().to_owned()))).collect()
}

#[test]
fn a_stolen_file_gives_no_camera_away_and_all_is_there_for_who_has_the_key() {
    let disk = Disk::with_key(KEY);
    let url = |url: &str| Some(format!("{{\"url\":\"{url}\"}}"));
    {
        let journal = disk.open_sealed();
        add(&journal, "v/live/1", SECRET);
        add(&journal, "v/live/2", "rtsp://two.example");
        assert!(journal.take_snapshot().unwrap().is_some());
        add(&journal, "v/live/1", "rtsp://moved.example");
        remove(&journal, "v/live/2");
        assert!(journal.report().encrypted);
        assert_eq!(state(&journal), expected(&[("v/live/1", "rtsp://moved.example")]));
        // Still in use, and after a clean end.
        assert_eq!(disk.that_have("example"), NOWHERE);
    }
    assert_eq!(disk.that_have("example"), NOWHERE);
    let rows = "select count(*) from journal where json_extract(args, '$.sealed.xchacha20poly1305') is not null";
    assert_eq!(disk.sqlite3(rows), "3\n", "it is still one JSON object");
    assert_eq!(disk.sqlite3("select key, state, url is null from proxies_view"), "v/live/1|enabled|1\n");

    let journal = disk.open_sealed();
    assert_eq!(state(&journal), expected(&[("v/live/1", "rtsp://moved.example")]));
    assert_eq!(
        history(&journal),
        [(4, None), (3, url("rtsp://moved.example")), (2, url("rtsp://two.example")), (1, url(SECRET))]
    );
    let (_, past) = journal.past(PointInTime::Seq(2)).unwrap();
    assert_eq!(past.len(), 2);
    assert_eq!(past[0].1.args.as_str(), url(SECRET).unwrap());
}

#[test]
fn without_its_key_it_is_told_and_left_as_it_is_until_the_key_is_there() {
    let disk = Disk::with_key(KEY);
    {
        let journal = disk.open_sealed();
        add(&journal, "v/live/1", SECRET);
    }
    let file = fs::read(disk.file()).unwrap();
    let unavailable = |journal: &Journal, says: &str| {
        let report = journal.report();
        assert_eq!(report.condition, Condition::Unavailable);
        let (_, error) = report.last_error.unwrap();
        assert!(error.code == Code::KeyMissing && error.message.contains(says), "{error}");
        assert!(record(journal, Op::Add, "v/live/2", "rtsp://2.example").1.is_err());
        assert!(state(journal).is_empty());
    };
    unavailable(&disk.open(), "key_file does not provide");
    for (key, says) in [
        (OTHER, "key_file does not provide"),
        ("", "64 hexadecimal digits: create one with openssl rand -hex 32"),
        (&KEY[1..], "64 hexadecimal digits"),
        ("not a key at all", "64 hexadecimal digits"),
    ] {
        disk.set_key(key);
        unavailable(&disk.open_sealed(), says);
    }
    fs::remove_file(disk.key_file()).unwrap();
    let journal = disk.open_sealed();
    unavailable(&journal, "cannot read [journal] key_file=");
    assert_eq!(fs::read(disk.file()).unwrap(), file, "not a byte is another");
    assert!(!disk.dir.path().join("journal/quarantine").read_dir().unwrap().any(|_| true));

    // It comes while the server runs, and what was called for meanwhile is taken along.
    disk.set_key(KEY);
    for _ in 0..500 {
        if journal.report().condition == Condition::Healthy {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(state(&journal), expected(&[("v/live/1", SECRET), ("v/live/2", "rtsp://2.example")]));
    drop(journal);
    assert_eq!(disk.that_have("example"), NOWHERE);
}

#[test]
fn damage_does_not_pass_for_a_missing_key_nor_a_missing_key_for_damage() {
    let disk = Disk::with_key(KEY);
    {
        let journal = disk.open_sealed();
        add(&journal, "v/live/1", SECRET);
        add(&journal, "v/live/2", "rtsp://two.example");
        // Of a removal there is nothing to be sealed.
        add(&journal, "v/live/3", "rtsp://three.example");
        remove(&journal, "v/live/3");
    }
    // What says which key it is has no checksum: the seals themselves tell.
    disk.sqlite3("update meta set value = value + 1 where name = 'key'");
    let both = expected(&[("v/live/1", SECRET), ("v/live/2", "rtsp://two.example")]);
    {
        let journal = disk.open_sealed();
        assert_eq!((state(&journal), journal.report().last_error), (both.clone(), None));
    }
    // A damaged file is not recovered from, and not put away, by one who cannot read what is in it.
    disk.sqlite3("update proxies set state = 'disabled' where key = 'v/live/1'");
    fs::remove_dir_all(disk.dir.path().join("journal/snapshots")).unwrap();
    let file = fs::read(disk.file()).unwrap();
    disk.set_key(OTHER);
    for journal in [disk.open_sealed(), disk.open()] {
        let report = journal.report();
        assert_eq!(report.condition, Condition::Unavailable, "{report:?}");
        assert_eq!(report.last_error.unwrap().1.code, Code::KeyMissing);
    }
    assert_eq!(fs::read(disk.file()).unwrap(), file);
    disk.set_key(KEY);
    let journal = disk.open_sealed();
    assert_eq!(journal.report().last_error.unwrap().1.code, Code::Corrupt);
    assert_eq!(state(&journal), both);
}

#[test]
fn a_seal_that_was_put_on_another_row_is_not_believed() {
    let disk = Disk::with_key(KEY);
    {
        let journal = disk.open_sealed();
        add(&journal, "v/live/1", SECRET);
    }
    // With a checksum that holds, as somebody would who knows how the file is made.
    let args = disk.sqlite3("select args from proxies").trim().to_owned();
    let forged = zlm_journal::model::Entry {
        args: Args::from_stored(&args).unwrap(),
        state: State::Enabled,
        seq: 2,
        created_at: 0,
        updated_at: 0,
    };
    let crc = forged.crc(Kind::Pull, "v/live/forged");
    disk.sqlite3(&format!(
        "insert into proxies values ('pull', 'v/live/forged', '{args}', 'enabled', 2, 0, 0, {crc});
         update meta set value = 2 where name = 'count';
         update meta set value = (value | {crc}) - (value & {crc}) where name = 'digest'"
    ));
    let journal = disk.open_sealed();
    let (_, error) = journal.report().last_error.unwrap();
    assert!(error.message.contains("the arguments of v/live/forged cannot be decrypted"), "{error}");
    assert_eq!(state(&journal), expected(&[("v/live/1", SECRET)]));
}

#[test]
fn a_journal_from_before_there_was_a_key_is_sealed_with_all_that_is_beside_it() {
    let disk = Disk::new();
    {
        let journal = disk.open();
        add(&journal, "v/live/1", SECRET);
        add(&journal, "v/live/gone", "rtsp://gone.example");
        assert!(journal.take_snapshot().unwrap().is_some());
        remove(&journal, "v/live/gone");
        assert!(journal.take_snapshot().unwrap().is_some());
        add(&journal, "v/live/2", "rtsp://two.example");
        assert!(!journal.report().encrypted);
    }
    assert!(disk.that_have("example").len() >= 3, "{:?}", disk.that_have("example"));
    disk.set_key(KEY);
    let there = expected(&[("v/live/1", SECRET), ("v/live/2", "rtsp://two.example")]);
    {
        let journal = disk.open_sealed();
        assert_eq!((state(&journal), journal.report().seq), (there.clone(), 4), "nothing is another");
        assert_eq!(journal.report().last_error, None);
        assert_eq!(history(&journal).len(), 4);
        disk.wait_until_nothing_has("example");
        // Snapshots are still what they were.
        let (_, past) = journal.past(PointInTime::Seq(2)).unwrap();
        assert_eq!(past.len(), 2);
        let snapshots: Vec<u64> = journal.paths().list_snapshots().iter().map(|snapshot| snapshot.seq).collect();
        assert!(snapshots.ends_with(&[3, 2]), "{snapshots:?}");
        remove(&journal, "v/live/2");
    }
    assert!(disk.sqlite3("select report from incidents_view").contains("are now encrypted with the key"));
    let journal = disk.open_sealed();
    assert_eq!(state(&journal), expected(&[("v/live/1", SECRET)]));
    assert_eq!(disk.that_have("example"), NOWHERE);
}

/// Elsewhere files in use cannot be deleted.
#[cfg(unix)]
#[test]
fn what_is_written_afresh_from_memory_is_sealed_too() {
    let disk = Disk::with_key(KEY);
    let journal = disk.open_sealed();
    add(&journal, "v/live/1", SECRET);
    // The file is gone under the running server.
    fs::remove_dir_all(disk.dir.path().join("journal")).unwrap();
    for _ in 0..500 {
        if disk.file().exists() && journal.report().condition == Condition::Healthy {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    add(&journal, "v/live/2", "rtsp://two.example");
    drop(journal);
    assert_eq!(disk.that_have("example"), NOWHERE);
    assert_eq!(state(&disk.open_sealed()), expected(&[("v/live/1", SECRET), ("v/live/2", "rtsp://two.example")]));
}
