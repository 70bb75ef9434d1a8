//! What is being started, noted outside the process, so that the next one knows of what this one died. The note is
//! for the death of a process, not of the machine: it is written, never synced. Written on the reconciler's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::env::Env;
use super::place::Place;

/// Notes of this many lines are written anew, so that they stay short.
const LONGEST: u64 = 100_000;

/// By the number of the change that made each proxy: in how many deaths running it was being started.
pub struct Deaths {
    env: Arc<dyn Env>,
    path: PathBuf,
    deaths: BTreeMap<u64, u32>,
    starting: BTreeSet<u64>,
    written: u64,
    lines: u64,
    failed: bool,
}

impl Deaths {
    /// Reads what the process before has left, and counts its death. A clean end leaves nothing.
    pub(super) fn read(place: &Place) -> Self {
        let path = place.starting();
        let text = place.env.read(&path).unwrap_or_default();
        let (mut deaths, mut starting) = (BTreeMap::new(), BTreeSet::new());
        for line in String::from_utf8_lossy(&text).lines() {
            // "d 17 2": change 17 was being started in two deaths; "+ 17": it begins; "- 17": it is over; "~ 17": it came
            // to nothing, and says nothing of what it would have done.
            let mut words = line.split(' ');
            match (words.next(), words.next().and_then(|seq| seq.parse().ok()), words.next()) {
                (Some("d"), Some(seq), Some(count)) => {
                    deaths.insert(seq, count.parse().unwrap_or(0));
                }
                (Some("+"), Some(seq), None) => {
                    starting.insert(seq);
                }
                (Some("~"), Some(seq), None) => {
                    starting.remove(&seq);
                }
                (Some("-"), Some(seq), None) => {
                    starting.remove(&seq);
                    deaths.remove(&seq);
                }
                _ => {}
            }
        }
        for seq in starting {
            *deaths.entry(seq).or_insert(0_u32) += 1;
        }
        let mut noted = Self {
            env: Arc::clone(&place.env),
            path,
            deaths,
            starting: Default::default(),
            written: 0,
            lines: 0,
            failed: false,
        };
        noted.write_anew();
        noted
    }

    /// In how many deaths running it was being started.
    pub fn of(&self, seq: u64) -> u32 {
        self.deaths.get(&seq).copied().unwrap_or(0)
    }

    /// Say before each start.
    pub fn begins(&mut self, seq: u64) {
        self.starting.insert(seq);
        self.note(&format!("+ {seq}\n"));
    }

    /// Say when the server has answered: it has lived through it.
    pub fn survived(&mut self, seq: u64) {
        if self.starting.remove(&seq) || self.deaths.contains_key(&seq) {
            self.deaths.remove(&seq);
            self.note(&format!("- {seq}\n"));
        }
        self.keep_short();
    }

    /// Say when the server was not asked after all: what it would have lived through is as unknown as before.
    pub fn untried(&mut self, seq: u64) {
        if self.starting.remove(&seq) {
            self.note(&format!("~ {seq}\n"));
        }
        self.keep_short();
    }

    fn keep_short(&mut self) {
        if self.lines >= LONGEST {
            self.write_anew();
        }
    }

    /// The process ends as it should: whatever was under way has killed nobody.
    pub fn clean_end(&mut self) {
        let _ = self.env.remove(&self.path);
    }

    fn write_anew(&mut self) {
        let deaths = self.deaths.iter().map(|(seq, count)| format!("d {seq} {count}\n"));
        let starting = self.starting.iter().map(|seq| format!("+ {seq}\n"));
        let text: String = deaths.chain(starting).collect();
        (self.written, self.lines) = (0, 0);
        if text.is_empty() {
            let _ = self.env.remove(&self.path);
        } else if let Err(error) = self.env.create(&self.path) {
            self.complain(&error);
        } else {
            self.note(&text);
        }
    }

    fn note(&mut self, text: &str) {
        match self.env.write_at(&self.path, self.written, text.as_bytes()) {
            Ok(()) => {
                self.written += text.len() as u64;
                self.lines += 1;
            }
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            log::warn!(
                "journal: cannot write {}: {error}. Should the server die of a proxy, the next one will not know of \
                 which",
                self.path.display()
            );
        }
    }
}
