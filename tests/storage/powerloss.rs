//! Power loss, after every step that the disk was asked for, in every way that it may lose what was not synced.
//! `ZLMJ_POWERLOSS` sets how many ways are tried after each step beside the plain ones (40), `ZLMJ_SEED` where to
//! begin.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;
use sim::{Content, Forgets, SECTOR, Step};
use zlm_journal::journal::{Mutation as Change, Persisted};

const WAYS: u64 = 40;
/// Of them, where all is not looked at.
const FEW_WAYS: u64 = 3;

/// What a run left behind: the disk that it began with, every step since, and what each change should have made.
struct Run {
    start: Image,
    log: Vec<Step>,
    model: Arc<Model>,
    /// How it is opened afterwards.
    settings: Vec<(&'static str, &'static str)>,
}

/// How to spoil a run.
#[derive(Default)]
struct Mutant {
    forgets: Option<Forgets>,
    early: bool,
}

/// A journal in use, whose every call goes to the model and whose every acknowledgement goes to the log.
struct InUse {
    sim: Sim,
    model: Arc<Model>,
    settings: Vec<(&'static str, &'static str)>,
    journal: Journal,
    waiting: Arc<AtomicU64>,
}

impl InUse {
    fn change(&self, op: Op, key: &str, url: &str) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (sim, model, waiting) = (self.sim.clone(), Arc::clone(&self.model), Arc::clone(&self.waiting));
        let call = call(op, key, url);
        let (key_then, args) = (key.to_owned(), call.args.clone());
        let done = Done::new(move |ack: Ack| {
            model.changed(ack.seq, &key_then, args.as_ref().map(Args::as_str));
            if matches!(ack.result, Ok(Persisted::Yes | Persisted::Soon)) {
                sim.mark(ack.seq);
            }
            waiting.fetch_sub(1, Ordering::SeqCst);
        });
        self.journal.record(call, done);
    }

    fn quiet(&self) {
        wait_until("all acknowledgements", || self.waiting.load(Ordering::SeqCst) == 0);
    }

    fn add(&self, key: &str, url: &str) {
        self.change(Op::Add, key, url);
        self.quiet();
    }

    fn remove(&self, key: &str) {
        self.change(Op::Remove, key, "");
        self.quiet();
    }

    /// Changes one by one and many at a time, a checkpoint, a snapshot and the pruning after it.
    fn round(&self, round: usize) {
        for n in 0..3 {
            self.add(&format!("v/live/{round}-{n}"), &format!("rtsp://{round}/{n}"));
        }
        self.remove(&format!("v/live/{round}-1"));
        // Some share a transaction. One is too long for a page.
        for n in 0..8 {
            self.change(Op::Add, &format!("v/batch/{round}-{n}"), &format!("rtsp://{}", "x".repeat(n * 700)));
        }
        self.change(Op::Add, &format!("v/live/{round}-0"), "rtsp://replaced");
        self.change(Op::Remove, &format!("v/batch/{round}-5"), "");
        self.quiet();
        self.journal.checkpoint().unwrap();
        self.add(&format!("v/live/{round}-after"), "rtsp://after a checkpoint");
        // A spoiled run may be failing just now.
        let _ = self.journal.take_snapshot();
        self.remove(&format!("v/batch/{round}-4"));
    }

    /// The next sync fails, once: all is written afresh.
    fn fail_and_heal(&self) {
        let failed = Arc::new(AtomicU64::new(0));
        let fails = Arc::clone(&failed);
        self.sim.set_fault(Some(Box::new(move |_, call| {
            (call == sim::Call::Sync && fails.fetch_add(1, Ordering::SeqCst) == 0)
                .then_some(std::io::ErrorKind::Other)
        })));
        self.add("v/live/in doubt", "rtsp://in doubt");
        wait_until("the sync to fail", || failed.load(Ordering::SeqCst) > 0);
        wait_until("the journal to heal", || self.journal.report().condition == Condition::Healthy);
        self.add("v/live/healed", "rtsp://healed");
    }

    fn restart(&mut self) {
        self.journal.close();
        self.journal = open(&self.sim, &self.settings);
        self.add("v/live/again", "rtsp://again");
    }
}

/// The first start, use, a failed write and its healing, a clean stop and the next start.
fn in_use(start: Image, mutant: Mutant) -> Run {
    let sim = Sim::with(start.clone());
    sim.begin_log();
    if let Some(forgets) = mutant.forgets {
        sim.set_forgets(forgets);
    }
    let durability = if mutant.early { "async" } else { "full" };
    let settings = vec![("history_days", "0"), ("snapshot_keep", "2"), ("durability", durability)];
    let journal = open(&sim, &settings);
    let model = Arc::new(Model::of(&journal));
    let mut in_use =
        InUse { sim: sim.clone(), model: Arc::clone(&model), settings, journal, waiting: Arc::default() };
    in_use.round(0);
    // Long enough for the note of what is on disk.
    std::thread::sleep(Duration::from_millis(1100));
    in_use.round(1);
    in_use.fail_and_heal();
    in_use.round(2);
    in_use.restart();
    drop(in_use);
    Run { start, log: sim.take_log(), model, settings: Vec::new() }
}

/// The disk after the first steps, as far as it is certain, and the steps that are not.
pub struct Cut {
    certain: Image,
    pending: Vec<Step>,
}

impl Cut {
    /// What a power loss leaves for certain of a disk that was asked for these steps.
    pub fn after(start: Image, log: &[Step]) -> Image {
        let mut cut = Cut { certain: start, pending: Vec::new() };
        log.iter().for_each(|step| cut.take(step));
        cut.certain.without_orphans()
    }

    fn take(&mut self, step: &Step) {
        let certain = |pending: &Step| match step {
            Step::SyncFile(file) => pending.file() == Some(*file),
            Step::SyncDir(dir) => pending.dirs().contains(&dir.as_path()),
            _ => false,
        };
        match step {
            Step::SyncFile(_) | Step::SyncDir(_) => {
                for step in self.pending.extract_if(.., |pending| certain(pending)) {
                    self.certain.apply(&step);
                }
            }
            Step::Mark(_) => {}
            change => self.pending.push(change.clone()),
        }
    }

    fn nothing_kept(&self) -> Image {
        self.certain.clone().without_orphans()
    }

    fn all_kept(&self) -> Image {
        let mut image = self.certain.clone();
        self.pending.iter().for_each(|step| image.apply(step));
        image.without_orphans()
    }

    /// One of the ways in which a disk may lose and tear.
    fn torn(&self, random: &mut fastrand::Rng) -> Image {
        let mut image = self.certain.clone();
        let first = random.usize(..=self.pending.len());
        let way = random.u32(0..4);
        for (index, step) in self.pending.iter().enumerate() {
            match (way, step) {
                // The first so many.
                (0, step) if index < first => image.apply(step),
                (0, _) => {}
                // All but one.
                (1, step) if index != first => image.apply(step),
                (1, _) => {}
                // Any.
                (2, step) if random.bool() => image.apply(step),
                (2, _) => {}
                // Any sectors of them, some with garbage in them.
                (_, Step::Write { file, offset, bytes }) => {
                    let content = image.files.entry(*file).or_default();
                    tear(content, *offset, bytes, random);
                }
                (_, step) if random.bool() => image.apply(step),
                _ => {}
            }
        }
        image.without_orphans()
    }
}

fn tear(content: &mut Content, offset: u64, bytes: &[u8], random: &mut fastrand::Rng) {
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + SECTOR - ((offset as usize + at) % SECTOR));
        match random.u32(0..8) {
            0..4 => content.write(offset + at as u64, &bytes[at..end]),
            4 => {
                let garbage: Vec<u8> = (at..end).map(|_| random.u8(..)).collect();
                content.write(offset + at as u64, &garbage);
            }
            _ => {}
        }
        at = end;
    }
}

/// Looks at `ways` states after each step. Returns how many states that were, or the first that is wrong.
fn explore(run: &Run, ways: u64, seed: u64) -> Result<u64, String> {
    explore_with(run, ways, seed, &|image, acknowledged| check(image, &run.model, acknowledged, &run.settings))
}

fn explore_with(
    run: &Run,
    ways: u64,
    seed: u64,
    check: &(dyn Fn(Image, u64) -> Result<(), String> + Sync),
) -> Result<u64, String> {
    let steps = run.log.len() + 1;
    let next = AtomicUsize::new(0);
    let states = AtomicU64::new(0);
    let wrong = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut cut = Cut { certain: run.start.clone(), pending: Vec::new() };
                let (mut done, mut acknowledged) = (0, 0);
                loop {
                    let length = next.fetch_add(1, Ordering::SeqCst);
                    if length >= steps || wrong.lock().is_some() {
                        return;
                    }
                    for step in &run.log[done..length] {
                        cut.take(step);
                        if let Step::Mark(seq) = step {
                            acknowledged = acknowledged.max(*seq);
                        }
                    }
                    done = length;
                    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(length as u64));
                    let torn = if cut.pending.is_empty() { 0 } else { ways };
                    let images = [cut.nothing_kept(), cut.all_kept()]
                        .into_iter()
                        .chain((0..torn).map(|_| cut.torn(&mut random)));
                    for (way, image) in images.enumerate() {
                        states.fetch_add(1, Ordering::Relaxed);
                        // They change seldom, and looking at them is slow.
                        let snapshots = if way == length % 32 { snapshots_are_whole(&image, run) } else { Ok(()) };
                        if let Err(what) = snapshots.and_then(|()| check(image, acknowledged)) {
                            let before = &run.log[length.saturating_sub(6)..length];
                            *wrong.lock() = Some(format!(
                                "after step {length} of {steps}, way {way}, seed {seed}: {what}\n{before:#?}"
                            ));
                            return;
                        }
                    }
                }
            });
        }
    });
    wrong.into_inner().map_or(Ok(states.into_inner()), Err)
}

/// What bears the name of a snapshot is one.
fn snapshots_are_whole(image: &Image, run: &Run) -> Result<(), String> {
    for (name, _) in image.names.iter().filter(|(name, _)| name.extension().is_some_and(|end| end == "snapshot")) {
        let mut as_journal = if run.settings.is_empty() { Image::default() } else { with_key(Image::default()).1 };
        as_journal.dirs.insert(path().parent().unwrap().to_owned());
        as_journal.names.insert(path(), 1);
        as_journal.files.insert(1, image.content(name).cloned().unwrap_or_default());
        check(as_journal, &run.model, 0, &run.settings)
            .map_err(|what| format!("the snapshot {}: {what}", name.display()))?;
    }
    Ok(())
}

fn seed() -> u64 {
    number("ZLMJ_SEED", fastrand::u64(..))
}

#[test]
fn no_power_loss_takes_what_was_acknowledged() {
    power_losses_take_nothing(FEW_WAYS);
}

#[test]
#[ignore = "slow: just test-storage"]
fn no_power_loss_takes_what_was_acknowledged_in_full() {
    power_losses_take_nothing(number("ZLMJ_POWERLOSS", WAYS));
}

fn power_losses_take_nothing(ways: u64) {
    let run = in_use(Image::default(), Mutant::default());
    let states = explore(&run, ways, seed()).unwrap_or_else(|wrong| panic!("{wrong}"));
    say(&format!(
        "power loss: {states} states after {} steps and {} changes, nothing acknowledged lost",
        run.log.len(),
        run.model.len()
    ));
    assert!(states >= 20_000 || ways < WAYS, "only {states} states");
}

/// The same proxies, whether the recovery had come to its end or begins anew.
fn is_recovered(image: Image, run: &Run, damage: bool) -> Result<(), String> {
    let model = &run.model;
    if !damage {
        return check(image, model, 0, &run.settings);
    }
    let sim = Sim::with(image);
    let journal = open(&sim, &run.settings);
    if journal.report().condition != Condition::Healthy || model::state(&journal) != *model.before() {
        return Err(format!("{:?}: {:?}", journal.report(), model::state(&journal)));
    }
    Ok(())
}

/// Each sector of a transaction of many frames: wherever one lies, also between the two halves of a frame's head, it is
/// the end of the log that is torn and not its middle.
#[test]
fn no_torn_sector_of_an_unsynced_transaction_is_taken_for_damage() {
    torn_sectors_are_no_damage(8);
}

#[test]
#[ignore = "slow: just test-storage"]
fn no_torn_sector_of_an_unsynced_transaction_is_taken_for_damage_in_full() {
    torn_sectors_are_no_damage(1);
}

fn torn_sectors_are_no_damage(every: usize) {
    let log = PathBuf::from(format!("{}-wal", path().display()));
    let sim = Sim::new();
    let journal = open(&sim, &[]);
    // The log that is overwritten is the longer one, and has the end of a transaction in many places.
    for n in 0..80 {
        record(&journal, Op::Add, "v/live/before", &format!("rtsp://before/{n}"));
    }
    journal.checkpoint().unwrap();
    let last_before = record(&journal, Op::Add, "v/live/before", "rtsp://before").seq;
    let model = Model::of(&journal);
    let before = sim.image();
    let steps = (0..400).map(|n| {
        let key = format!("v/live/{n}");
        let Call { kind, args, .. } = call(Op::Add, &key, &format!("rtsp://{}", "x".repeat(900)));
        Change { key: (kind, key.into()), op: Op::Add, args, expected: None }
    });
    journal.submit_batch(steps.collect(), None, &Cause::default(), Done::new(|_| ())).unwrap();
    wait_until("all to be on disk", || journal.report().durable_seq == last_before + 400);
    let [old, new] = [&before, &sim.image()].map(|image| image.content(&log).unwrap().bytes());
    let differ = || (0..new.len()).filter(|at| old.get(*at) != Some(&new[*at]));
    let (first, last) = (differ().next().unwrap(), differ().next_back().unwrap());
    // The halves of a head lie apart in one frame of 64.
    assert!(last - first > 128 * (24 + 4096), "only {} bytes", last - first);
    let mut torn_by = 0;
    let splits_a_head = |sector: usize| (1..24).contains(&((sector * SECTOR - 32) % (24 + 4096)));
    let sectors = (first / SECTOR..=last / SECTOR).filter(|sector| sector % every == 0 || splits_a_head(*sector));
    for torn in sectors.map(|sector| sector * SECTOR) {
        let (from, to) = (torn.max(first), (last + 1).min(torn + SECTOR));
        let was: Vec<u8> = (from..to).map(|at| old.get(at).copied().unwrap_or(0)).collect();
        for (what, bytes) in [
            ("noise", &[0x5a; SECTOR][..to - from]),
            ("zeros", &[0; SECTOR][..to - from]),
            ("what was there", &was),
        ] {
            // Where that is what has been written, nothing is torn.
            if *bytes == new[from..to] {
                continue;
            }
            torn_by += 1;
            let mut image = before.clone();
            let content = image.content_mut(&log).unwrap();
            content.write(first as u64, &new[first..=last]);
            content.write(from as u64, bytes);
            check(image, &model, last_before, &[])
                .unwrap_or_else(|wrong| panic!("{what} in the sector at {torn}: {wrong}"));
        }
        // Nothing of the frame before it, nothing after it. What was there follows, from before the log's restart.
        torn_by += 1;
        let gap = torn.saturating_sub(24 + 4096).max(first);
        let mut image = before.clone();
        let content = image.content_mut(&log).unwrap();
        content.write(first as u64, &new[first..gap]);
        content.write(from as u64, &new[from..to]);
        check(image, &model, last_before, &[])
            .unwrap_or_else(|wrong| panic!("only the sector at {torn}, after a gap: {wrong}"));
    }
    assert!(torn_by > 2 * (last - first) / SECTOR / every, "only {torn_by} torn logs");
}

#[test]
fn a_power_loss_while_an_old_file_is_migrated_or_recovered_takes_nothing() {
    power_losses_in_a_migration(FEW_WAYS);
}

#[test]
#[ignore = "slow: just test-storage"]
fn a_power_loss_while_an_old_file_is_migrated_or_recovered_takes_nothing_in_full() {
    power_losses_in_a_migration(number("ZLMJ_POWERLOSS", WAYS));
}

fn power_losses_in_a_migration(ways: u64) {
    let mut states = 0;
    for files in [&["schema-1.db"][..], &["schema-1-killed.db", "schema-1-killed.db-wal"]] {
        let mut start = fixture(files);
        for damage in [false, true] {
            if damage {
                // The first page: nothing can be read by SQLite, everything by its checksums.
                start.content_mut(&path()).unwrap().write(20, &[0xff; 80]);
            }
            let sim = Sim::with(start.clone());
            sim.begin_log();
            let journal = open(&sim, &[]);
            let model = Arc::new(Model::of(&journal));
            assert_eq!(model.after(journal.report().seq).unwrap().len(), 3);
            drop(journal);
            let run = Run { start: start.clone(), log: sim.take_log(), model, settings: Vec::new() };
            states += explore_with(&run, ways, seed(), &|image, _| is_recovered(image, &run, damage))
                .unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
    say(&format!("power loss while an old or damaged file is opened: {states} states, nothing lost"));
}

#[test]
fn a_power_loss_while_a_journal_is_sealed_takes_nothing_and_leaves_nothing_open_in_the_end() {
    power_losses_while_sealing(1);
}

#[test]
#[ignore = "slow: just test-storage"]
fn a_power_loss_while_a_journal_is_sealed_takes_nothing_and_leaves_nothing_open_in_the_end_in_full() {
    power_losses_while_sealing(number("ZLMJ_POWERLOSS", WAYS) / 4);
}

fn power_losses_while_sealing(ways: u64) {
    // With snapshots that are not sealed either.
    let before = Sim::new();
    let journal = open(&before, &[]);
    let model = Arc::new(Model::of(&journal));
    for n in 0..4 {
        let (key, url) = (format!("v/live/{n}"), format!("rtsp://host{n}.example"));
        let ack = record(&journal, Op::Add, &key, &url);
        model.changed(ack.seq, &key, call(Op::Add, &key, &url).args.as_ref().map(Args::as_str));
        assert!(journal.take_snapshot().unwrap().is_some());
    }
    drop(journal);
    let (settings, start) = with_key(before.image());
    let open_texts = |sim: &Sim| {
        let image = sim.image();
        let has = |path: &PathBuf| {
            let bytes = image.content(path).unwrap().bytes();
            bytes.windows(8).any(|window| window == b".example")
        };
        image.names.keys().filter(|path| has(path)).cloned().collect::<Vec<_>>()
    };
    let sim = Sim::with(start.clone());
    assert!(open_texts(&sim).len() >= 4);
    sim.begin_log();
    let journal = open(&sim, &settings);
    let there = model.after(4).unwrap();
    assert_eq!((model::state(&journal), there.len()), (there.clone(), 4));
    wait_until("all to be sealed", || open_texts(&sim).is_empty());
    drop(journal);
    let run = Run { start, log: sim.take_log(), model, settings };
    let states = explore(&run, ways, seed()).unwrap_or_else(|wrong| panic!("{wrong}"));
    // Cut off anywhere, it comes to its end the next time.
    for length in (0..run.log.len()).step_by(run.log.len() / 12 + 1) {
        let sim = Sim::with(Cut::after(run.start.clone(), &run.log[..length]));
        let journal = open(&sim, &run.settings);
        wait_until("all to be sealed", || open_texts(&sim).is_empty());
        assert_eq!(model::state(&journal), there);
    }
    say(&format!("power loss while a journal is sealed: {states} states, nothing lost"));
}

fn is_killed(name: &str, mutant: Mutant) {
    let run = in_use(Image::default(), mutant);
    match explore(&run, WAYS, seed()) {
        Ok(states) => panic!("the mutant «{name}» lives after {states} states"),
        Err(wrong) => {
            let wrong: String = wrong.lines().next().unwrap().chars().take(160).collect();
            say(&format!("power loss: the mutant «{name}» is killed {wrong}"));
        }
    }
}

fn forgetting(forgets: impl Fn(&Step) -> bool + Send + Sync + 'static) -> Mutant {
    Mutant { forgets: Some(Box::new(forgets)), early: false }
}

#[test]
fn without_any_sync_it_would_be_noticed() {
    // What SQLite syncs, not what we do: a file that has its name.
    let sqlites = Mutex::new(BTreeSet::new());
    let mutant = forgetting(move |step| match step {
        Step::Create { path, file } if path.to_string_lossy().ends_with(".db-wal") => {
            sqlites.lock().insert(*file);
            false
        }
        Step::Rename { to, file, .. } if *to == path() => {
            sqlites.lock().insert(*file);
            false
        }
        Step::SyncFile(file) => sqlites.lock().contains(file),
        _ => false,
    });
    is_killed("synchronous=OFF", mutant);
}

#[test]
#[ignore = "slow: just test-storage"]
fn without_a_sync_at_each_commit_it_would_be_noticed() {
    // As SQLite does with NORMAL: the log is synced when it starts over and before a checkpoint copies it, so only
    // when nothing but its header was written since the last time.
    let log = Mutex::new((0, false));
    let mutant = forgetting(move |step| {
        let (number, frames) = &mut *log.lock();
        match step {
            Step::Create { path, file } if path.to_string_lossy().ends_with(".db-wal") => *number = *file,
            Step::Write { file, offset, .. } if file == number && *offset > 0 => *frames = true,
            Step::SyncFile(file) if file == number => return std::mem::take(frames),
            _ => {}
        }
        false
    });
    is_killed("synchronous=NORMAL", mutant);
}

#[test]
#[ignore = "slow: just test-storage"]
fn an_acknowledgement_before_the_commit_would_be_noticed() {
    is_killed("ack before COMMIT", Mutant { early: true, ..Mutant::default() });
}

#[test]
#[ignore = "slow: just test-storage"]
fn a_rename_without_a_directory_sync_would_be_noticed() {
    let renamed = Mutex::new(false);
    let mutant = forgetting(move |step| match step {
        Step::Rename { .. } => {
            *renamed.lock() = true;
            false
        }
        Step::SyncDir(_) => std::mem::take(&mut *renamed.lock()),
        _ => false,
    });
    is_killed("rename without a directory sync", mutant);
}
