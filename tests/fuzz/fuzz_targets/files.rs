//! A journal's files with anything in them: opening them ends in a journal that works. The input is patches to a good
//! database and log (an offset and up to 16 bytes each), or, when it begins with 0xff, the database itself.
#![no_main]

#[path = "../../support/sim/mod.rs"]
#[allow(dead_code)]
mod sim;

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use sim::{Content, Image, Sim};
use zlm_journal::journal::{Condition, Journal};
use zlm_journal::settings::Settings;

const DATABASE: &[u8] = include_bytes!("../../fixtures/schema-1-killed.db");
const LOG: &[u8] = include_bytes!("../../fixtures/schema-1-killed.db-wal");

fn content(bytes: &[u8]) -> Content {
    let mut content = Content::default();
    content.write(0, bytes);
    content
}

fuzz_target!(|data: &[u8]| {
    let path = sim::dir().join("journal/proxies.db");
    let (mut database, mut log) = (DATABASE.to_vec(), LOG.to_vec());
    if data.first() == Some(&0xff) {
        database = data[1..].to_vec();
        log.clear();
    } else {
        for patch in data.chunks(20) {
            let [one, two, three, which, bytes @ ..] = patch else { break };
            let file = if which % 2 == 0 { &mut database } else { &mut log };
            let at = u32::from_be_bytes([0, *one, *two, *three]) as usize % file.len();
            for (byte, new) in file[at..].iter_mut().zip(bytes) {
                *byte ^= new;
            }
        }
    }
    let mut image = Image::default();
    image.dirs.insert(path.parent().unwrap().to_owned());
    image.names.insert(path.clone(), 1);
    image.files.insert(1, content(&database));
    if !log.is_empty() {
        image.names.insert(PathBuf::from(format!("{}-wal", path.display())), 2);
        image.files.insert(2, content(&log));
    }
    let sim = Sim::with(image);
    let (settings, _) = Settings::read([("path", path.to_str().unwrap())], Path::new("/"));
    let journal = Journal::open_in(&settings, sim.env()).unwrap();
    let condition = journal.report().condition;
    assert!(matches!(condition, Condition::Healthy | Condition::ReadOnly), "{:?}", journal.report());
    assert!(journal.after(None, usize::MAX).len() <= 4);
});
