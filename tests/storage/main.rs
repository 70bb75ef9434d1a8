//! What the journal makes of disks that lose power, fail, fill up, or lie: on a simulated machine, where every state
//! that such a disk can be left in may be looked at.

#[path = "../support/sim/mod.rs"]
mod sim;

mod damage;
mod faults;
mod model;
mod powerloss;
mod schemas;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use model::Model;
use sim::{Image, Sim};
use zlm_journal::journal::{Ack, Call, Cause, Condition, Done, Journal};
use zlm_journal::model::{Args, Kind, Op};
use zlm_journal::settings::Settings;

/// Where the journal is on each machine.
fn path() -> PathBuf {
    sim::dir().join("journal/proxies.db")
}

fn settings(more: &[(&str, &str)]) -> Settings {
    let (settings, problems) =
        Settings::read([&[("enable", "1"), ("path", path().to_str().unwrap())], more].concat(), Path::new("/"));
    assert!(problems.is_empty(), "{problems:?}");
    settings
}

fn open(sim: &Sim, more: &[(&str, &str)]) -> Journal {
    Journal::open_in(&settings(more), sim.env()).unwrap()
}

fn call<'a>(op: Op, key: &'a str, url: &str) -> Call<'a> {
    let args = (op == Op::Add).then(|| Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap());
    let cause = Cause { caller: "127.0.0.1:1".to_owned(), reason: "test".to_owned() };
    Call { op, kind: Kind::Pull, key, args, already_exists: false, cause }
}

/// One call, and how it ended.
fn record(journal: &Journal, op: Op, key: &str, url: &str) -> Ack {
    let (told, ack) = mpsc::channel();
    journal.record(call(op, key, url), Done::new(move |ack| told.send(ack).unwrap()));
    ack.recv_timeout(Duration::from_secs(60)).expect("an acknowledgement")
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A disk with the journal's files as they are in `tests/fixtures`: the database, and its log if one is named.
fn fixture(names: &[&str]) -> Image {
    let mut image = Image::default();
    image.dirs.insert(path().parent().unwrap().to_owned());
    for (file, (name, suffix)) in (1..).zip(names.iter().zip(["", "-wal"])) {
        let bytes =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap();
        let mut content = sim::Content::default();
        content.write(0, &bytes);
        content.len = bytes.len() as u64;
        image.names.insert(PathBuf::from(format!("{}{suffix}", path().display())), file);
        image.files.insert(file, content);
    }
    image
}

/// The settings of a journal whose arguments are sealed, and the same machine with the key on it.
fn with_key(mut image: Image) -> (Vec<(&'static str, &'static str)>, Image) {
    let file = sim::dir().join("key");
    let mut key = sim::Content::default();
    key.write(0, "5a".repeat(32).as_bytes());
    image.names.insert(file.clone(), 1_000_000);
    image.files.insert(1_000_000, key);
    (vec![("key_file", file.to_str().unwrap().to_owned().leak())], image)
}

/// One line that the test runner does not swallow.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "\n{line}");
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// What may be said of a journal after a power loss: that it is open, that nothing was damaged, that all that was
/// acknowledged is there and nothing but a state that once was, and that it can be written.
fn check(image: Image, model: &Model, acknowledged: u64, settings: &[(&str, &str)]) -> Result<(), String> {
    let sim = Sim::with(image);
    let journal = open(&sim, settings);
    let report = journal.report();
    if report.condition != Condition::Healthy || report.last_error.is_some() {
        return Err(format!("it is not well: {report:?}"));
    }
    if report.seq < acknowledged {
        return Err(format!("change {acknowledged} was acknowledged, change {} is the last there", report.seq));
    }
    let found = model::state(&journal);
    if Some(&found) != model.after(report.seq).as_ref() {
        return Err(format!(
            "not the state after change {}: {found:?}, not {:?}",
            report.seq,
            model.after(report.seq)
        ));
    }
    history_is_whole(&sim, &journal)?;
    let ack = record(&journal, Op::Add, "v/live/after", "rtsp://after");
    if ack.result.is_err() || ack.seq != report.seq + 1 {
        return Err(format!("it cannot be written: {ack:?} after change {}", report.seq));
    }
    Ok(())
}

/// Every change from some number on is there, and what is before that number two snapshots know.
fn history_is_whole(sim: &Sim, journal: &Journal) -> Result<(), String> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = rusqlite::Connection::open_with_flags_and_vfs(path(), flags, sim.env().vfs().unwrap())
        .map_err(|error| error.to_string())?;
    let (first, last, count): (Option<i64>, Option<i64>, i64) = file
        .query_row("SELECT min(seq), max(seq), count(*) FROM journal", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .map_err(|error| error.to_string())?;
    let seq = journal.report().seq as i64;
    let (first, last) = (first.unwrap_or(seq + 1), last.unwrap_or(seq));
    let snapshots =
        sim.image().names.into_keys().filter(|path| path.extension().is_some_and(|end| end == "snapshot"));
    if last != seq || count != seq + 1 - first || (first > 1 && count > 0 && snapshots.count() < 2) {
        return Err(format!("history has {count} changes from {first} to {last}, the last change is {seq}"));
    }
    Ok(())
}
