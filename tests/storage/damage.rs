//! Damaged files of every sort. Opening always ends in a journal that works, with nothing in it that never was; what
//! could be proven is there; a loss is never silent, and a healthy file never raises an alarm. `ZLMJ_DAMAGE` sets how
//! many files are tried (12,000), `ZLMJ_SEED` where to begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;
use model::State;
use sim::Content;
use zlm_journal::error::Code;

/// A journal as it lies on a disk, and what is true of it.
struct Journaled {
    name: &'static str,
    settings: Vec<(&'static str, &'static str)>,
    image: Image,
    truth: State,
    /// All that ever was, by key.
    ever: BTreeMap<String, BTreeSet<String>>,
}

impl Journaled {
    fn make(
        name: &'static str,
        make: impl Fn(&Sim, &Journal, &mut dyn FnMut(Op, &str, &str)),
        closed: bool,
    ) -> Self {
        Self::make_with(name, (Vec::new(), Image::default()), make, closed)
    }

    fn make_with(
        name: &'static str,
        (settings, start): (Vec<(&'static str, &'static str)>, Image),
        make: impl Fn(&Sim, &Journal, &mut dyn FnMut(Op, &str, &str)),
        closed: bool,
    ) -> Self {
        let sim = Sim::with(start);
        let mut ever = BTreeMap::<String, BTreeSet<String>>::new();
        let journal = open(&sim, &[&settings, [("history_days", "0")].as_slice()].concat());
        make(&sim, &journal, &mut |op, key, url| {
            if let Some(args) = call(op, key, url).args {
                ever.entry(key.to_owned()).or_default().insert(args.as_str().to_owned());
            }
            assert!(record(&journal, op, key, url).result.is_ok());
        });
        // The note of what is on disk.
        std::thread::sleep(Duration::from_millis(1100));
        let truth = model::state(&journal);
        let killed = sim.image();
        drop(journal);
        let image = if closed { sim.image() } else { killed };
        Self { name, settings, image, truth, ever }
    }

    fn all() -> Vec<Journaled> {
        let some = |sim: &Sim, journal: &Journal, change: &mut dyn FnMut(Op, &str, &str)| {
            let _ = sim;
            for n in 0..12 {
                change(Op::Add, &format!("v/live/{n}"), &format!("rtsp://10.0.0.{n}/stream"));
            }
            change(Op::Remove, "v/live/3", "");
            journal.take_snapshot().unwrap();
            change(Op::Remove, "v/live/4", "");
            change(Op::Add, "v/live/5", &format!("rtsp://{}", "replaced".repeat(1000)));
            journal.checkpoint().unwrap();
            change(Op::Add, "v/live/new", "rtsp://new");
            journal.take_snapshot().unwrap();
            change(Op::Remove, "v/live/6", "");
            change(Op::Add, "v/live/7", "rtsp://again");
            change(Op::Remove, "v/live/8", "");
        };
        let many = |_: &Sim, journal: &Journal, change: &mut dyn FnMut(Op, &str, &str)| {
            for n in 0..400 {
                change(Op::Add, &format!("v/live/{n}"), &format!("rtsp://10.0.0.1/{}", "x".repeat(n % 90)));
                if n % 7 == 3 {
                    change(Op::Remove, &format!("v/live/{}", n - 2), "");
                }
                if n == 200 {
                    journal.checkpoint().unwrap();
                }
            }
        };
        vec![
            Self::make("stopped", some, true),
            Self::make("killed", some, false),
            Self::make("large, killed, no snapshot", many, false),
            Self::make_with("sealed, killed", with_key(Image::default()), some, false),
        ]
    }
}

/// What was done to a file, and how much of the truth must come back.
struct Damage {
    what: String,
    /// All of it: only so little was hit that the rest proves it.
    complete: bool,
}

fn file(suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path().display()))
}

/// Where in a log there is something.
fn used(content: &Content) -> u64 {
    let bytes = content.bytes();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn flip(image: &mut Image, path: &Path, random: &mut fastrand::Rng) -> String {
    let content = image.content_mut(path).unwrap();
    let (at, bit) = (random.u64(0..used(content)), random.u8(0..8));
    let mut byte = [0];
    content.read(at, &mut byte);
    content.write(at, &[byte[0] ^ (1 << bit)]);
    format!("bit {bit} of byte {at} of {}", path.display())
}

fn damage(image: &mut Image, random: &mut fastrand::Rng) -> Damage {
    let there: Vec<PathBuf> =
        ["", "-wal"].iter().map(|suffix| file(suffix)).filter(|path| image.content(path).is_some()).collect();
    let target = &there[random.usize(..there.len())];
    let length = used(image.content(target).unwrap());
    let name = target.display();
    match random.u32(0..20) {
        0..10 => Damage { what: flip(image, target, random), complete: true },
        10..12 => {
            let beside = |path: &&PathBuf| {
                path.to_string_lossy().ends_with("mark") || path.to_string_lossy().ends_with("snapshot")
            };
            let beside: Vec<PathBuf> = image.names.keys().filter(beside).cloned().collect();
            Damage { what: flip(image, &beside[random.usize(..beside.len())], random), complete: true }
        }
        12..14 => {
            let to = random.u64(0..length);
            image.content_mut(target).unwrap().truncate(to);
            Damage { what: format!("{name} truncated to {to}"), complete: false }
        }
        14..16 => {
            let at = random.u64(0..length.div_ceil(4096)) * 4096
                + if there.len() > 1 && target == &there[1] { 32 } else { 0 };
            image.content_mut(target).unwrap().write(at, &[0; 4096]);
            Damage { what: format!("zeros in {name} at {at}"), complete: false }
        }
        16 => {
            let at = random.u64(0..length);
            let garbage: Vec<u8> = (0..random.usize(1..20_000)).map(|_| random.u8(..)).collect();
            image.content_mut(target).unwrap().write(at, &garbage);
            Damage { what: format!("{} bytes of garbage in {name} at {at}", garbage.len()), complete: false }
        }
        17 => {
            let number = image.names.remove(target).unwrap();
            image.files.remove(&number);
            Damage { what: format!("{name} deleted"), complete: false }
        }
        18 => {
            let content = image.content_mut(&file("")).unwrap();
            *content = Content::default();
            if random.bool() {
                content.write(0, "someone's notes\n".repeat(random.usize(1..1000)).as_bytes());
            }
            Damage { what: "a foreign or empty file".to_owned(), complete: false }
        }
        _ => {
            // The application's number, as another program would have it.
            image.content_mut(&file("")).unwrap().write(68, &random.u32(..).to_be_bytes());
            Damage { what: "another application's number".to_owned(), complete: true }
        }
    }
}

/// Opens it and says whether it was taken for damaged.
fn examine(journaled: &Journaled, image: Image, damage: &Damage) -> bool {
    let what = format!("{}, {}", journaled.name, damage.what);
    let before = image.content(&file("")).map(Content::bytes);
    let sim = Sim::with(image);
    let journal = open(&sim, &journaled.settings);
    let report = journal.report();
    assert_eq!(report.condition, Condition::Healthy, "{what}: {report:?}");
    let found = model::state(&journal);
    for (key, args) in &found {
        let was = journaled.ever.get(key).is_some_and(|ever| ever.contains(args));
        assert!(was, "{what}: {key} never was {args}");
    }
    let noticed = match &report.last_error {
        None => {
            assert_eq!(found, journaled.truth, "{what}: it is silent");
            false
        }
        Some((_, error)) => {
            assert_eq!(error.code, Code::Corrupt, "{what}: {error}");
            let complete = found == journaled.truth;
            assert!(complete || !damage.complete, "{what}: {error}\n{}", differences(&found, &journaled.truth));
            assert!(
                complete || error.message.contains("LOST"),
                "{what}: {error}\n{}",
                differences(&found, &journaled.truth)
            );
            if let Some(before) = before {
                let kept =
                    sim.image().names.into_keys().filter(|path| path.to_string_lossy().contains("quarantine"));
                let image = sim.image();
                let is_kept =
                    kept.into_iter().any(|path| image.content(&path).is_some_and(|kept| kept.bytes() == before));
                assert!(is_kept, "{what}: the damaged file is gone");
            }
            true
        }
    };
    // It works: at once, or after it has healed from what was not looked at before.
    if record(&journal, Op::Add, "v/live/after", "rtsp://after").result.is_err() {
        wait_until("the journal to heal", || journal.report().condition == Condition::Healthy);
        assert!(record(&journal, Op::Add, "v/live/after", "rtsp://after").result.is_ok(), "{what}");
    }
    drop(journal);
    let journal = open(&sim, &journaled.settings);
    // What a start does not read may come to light later; it costs nothing either.
    assert!(journal.report().last_error.is_none() || !noticed, "{what}: a second time");
    assert_eq!(model::state(&journal).len(), found.len() + 1, "{what}");
    noticed
}

fn differences(found: &State, truth: &State) -> String {
    let keys: BTreeSet<_> = found.keys().chain(truth.keys()).collect();
    keys.into_iter()
        .filter(|key| found.get(*key) != truth.get(*key))
        .take(10)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn whatever_is_damaged_the_journal_opens_with_all_that_can_be_proven() {
    damaged_files_open(1_200);
}

#[test]
#[ignore = "slow: just test-storage"]
fn whatever_is_damaged_the_journal_opens_with_all_that_can_be_proven_in_full() {
    damaged_files_open(number("ZLMJ_DAMAGE", 12_000));
}

fn damaged_files_open(files: u64) {
    let seed = number("ZLMJ_SEED", fastrand::u64(..));
    let journaled = Journaled::all();
    for journaled in &journaled {
        let healthy = Damage { what: "nothing".to_owned(), complete: true };
        assert!(!examine(journaled, journaled.image.clone(), &healthy), "a false alarm");
    }
    let (next, noticed) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number as u64 >= files {
                        return;
                    }
                    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
                    let journaled = &journaled[number % journaled.len()];
                    let mut image = journaled.image.clone();
                    let mut damage = damage(&mut image, &mut random);
                    damage.what += &format!(", file {number} of seed {seed}");
                    noticed.fetch_add(u64::from(examine(journaled, image, &damage)), Ordering::Relaxed);
                }
            });
        }
    });
    say(&format!(
        "damage: {files} files, {} of them with damage where it matters; none without a journal that works, no false \
         alarm, no silent loss",
        noticed.into_inner()
    ));
}

/// The row that tells of a removal is the only one that does. Where it is lost and was the last, the sums tell all the same.
#[test]
fn no_bit_of_the_last_removal_brings_back_what_was_removed() {
    bits_of_the_last_removal(10);
}

#[test]
#[ignore = "slow: just test-storage"]
fn no_bit_of_the_last_removal_brings_back_what_was_removed_in_full() {
    bits_of_the_last_removal(1);
}

fn bits_of_the_last_removal(every: usize) {
    let mut random = fastrand::Rng::with_seed(number("ZLMJ_SEED", fastrand::u64(..)));
    let mut files = 0;
    for journaled in Journaled::all().into_iter().filter(|journaled| journaled.name.contains("killed")) {
        let last = journaled.ever.keys().filter(|key| !journaled.truth.contains_key(*key));
        let log = journaled.image.content(&file("-wal")).unwrap().bytes();
        for key in last {
            let row = format!("removepull{key}127.0.0.1:1test");
            let at = log.windows(row.len()).position(|bytes| bytes == row.as_bytes());
            let first = random.usize(0..every);
            for at in at.into_iter().flat_map(|at| (at - 6 + first..at + row.len() + 4).step_by(every)) {
                let (mut image, bit) = (journaled.image.clone(), random.u8(0..8));
                image.content_mut(&file("-wal")).unwrap().write(at as u64, &[log[at] ^ (1 << bit)]);
                let what = format!("bit {bit} of byte {at} of the log, in the removal of {key}");
                examine(&journaled, image, &Damage { what, complete: true });
                files += 1;
            }
        }
    }
    assert!(files > 200 / every, "only {files}");
}

/// The header of a frame has no copy: which page it is, whether it ends a transaction, of which log it is.
#[test]
fn no_bit_of_the_headers_of_the_last_transaction_loses_it() {
    bits_of_the_last_headers(7);
}

#[test]
#[ignore = "slow: just test-storage"]
fn no_bit_of_the_headers_of_the_last_transaction_loses_it_in_full() {
    bits_of_the_last_headers(1);
}

fn bits_of_the_last_headers(every: usize) {
    const FRAME: usize = 24 + 4096;
    for journaled in Journaled::all().into_iter().filter(|journaled| journaled.name.contains("killed")) {
        let log = journaled.image.content(&file("-wal")).unwrap().bytes();
        let salts = &log[16..24];
        let frames: Vec<usize> = (32..log.len().saturating_sub(FRAME))
            .step_by(FRAME)
            .take_while(|at| log[at + 8..at + 16] == *salts)
            .collect();
        let ends = |at: &usize| log[at + 4..at + 8] != [0; 4];
        let (last, before) = frames.split_last().unwrap();
        assert!(ends(last), "{}", journaled.name);
        let first = before.iter().rposition(ends).map_or(0, |end| end + 1);
        let headers = frames[first..].iter().flat_map(|at| *at..at + 24);
        let bits: Vec<(usize, u8)> =
            (0..32).chain(headers).flat_map(|at| (0..8).map(move |bit| (at, bit))).step_by(every).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Some(&(at, bit)) = bits.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let mut image = journaled.image.clone();
                        image.content_mut(&file("-wal")).unwrap().write(at as u64, &[log[at] ^ (1 << bit)]);
                        let what = format!("bit {bit} of byte {at} of the log");
                        examine(&journaled, image, &Damage { what, complete: true });
                    }
                });
            }
        });
    }
}
