//! Until when this node may have cameras, by a clock that nobody sets: kept in a file, so that the program, its guard and
//! its next start go by the same moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Milliseconds since the machine was started, time asleep included. Setting the clock does not move it.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}

/// A name that no other start of the program has.
pub fn instance() -> String {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => hex::encode(bytes),
        _ => format!("{}-{}", std::process::id(), now()),
    }
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub lease: i64,
    pub instance: String,
    /// The start of the machine by whose clock the deadline counts.
    pub boot: String,
    pub deadline: u64,
    /// The program has stopped everything itself.
    #[serde(default)]
    ended: bool,
}

impl Held {
    pub fn is_over(&self) -> bool {
        self.ended
    }
}

pub struct Deadline {
    path: PathBuf,
    boot: String,
    value: AtomicU64,
}

impl Deadline {
    pub fn new(state_dir: &Path) -> Result<Self> {
        fs::create_dir_all(state_dir)
            .with_context(|| format!("cannot create state_dir {}", state_dir.display()))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("this needs Linux's boot_id")?;
        Ok(Self { path: state_dir.join("lease.json"), boot: boot.trim().to_owned(), value: AtomicU64::new(0) })
    }

    /// What an earlier start, or the program whose guard this is, has left; None if it counts for nothing any more.
    pub fn read(&self) -> Option<Held> {
        let held: Held = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        (held.boot == self.boot).then_some(held)
    }

    /// The new moment counts once it is in the file: the guard must not act by an older one.
    pub fn extend(&self, lease: i64, instance: &str, deadline: u64) -> Result<()> {
        self.write(&Held {
            lease,
            instance: instance.to_owned(),
            boot: self.boot.clone(),
            deadline,
            ended: false,
        })?;
        self.value.store(deadline, Ordering::SeqCst);
        Ok(())
    }

    /// Everything is stopped: the guard need not do it.
    pub fn end(&self, instance: &str) {
        self.value.store(0, Ordering::SeqCst);
        let held = Held { instance: instance.to_owned(), boot: self.boot.clone(), ended: true, ..Held::default() };
        if let Err(error) = self.write(&held) {
            log::error!("{error:#}");
        }
    }

    fn write(&self, held: &Held) -> Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(held)?)
            .and_then(|()| fs::rename(&new, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Milliseconds until the node has to stop its cameras.
    pub fn left(&self) -> u64 {
        self.value.load(Ordering::SeqCst).saturating_sub(now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_outlives_the_program_and_not_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let one = Deadline::new(dir.path()).unwrap();
        assert_eq!((one.read(), one.left()), (None, 0));
        one.extend(7, "a", now() + 60_000).unwrap();
        assert!(one.left() > 50_000);
        let mut other = Deadline::new(dir.path()).unwrap();
        assert_eq!(other.read().unwrap().lease, 7);
        other.boot = "another".to_owned();
        assert_eq!(other.read(), None);
        one.end("a");
        assert!(one.read().is_some_and(|held| held.is_over()) && one.left() == 0);
    }
}
