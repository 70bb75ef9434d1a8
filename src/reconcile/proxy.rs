//! One proxy in the reconciler: its phase and its attempts. Pure.

use crate::model::ProxyKey;
use std::time::Duration;

use super::queue::{Rank, RemoteHost};

/// A proxy that should play but does not, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhealthyProxy {
    pub key: ProxyKey,
    /// waiting: not its turn yet; connecting: no media yet; retrying: the server reconnects; down: the server has lost
    /// it; blocked: something that it needs is missing.
    pub state: &'static str,
    /// Consecutive failed attempts.
    pub attempts: u32,
    pub last_error: String,
    /// The time until the next attempt, if known.
    pub next_try: Option<Duration>,
}

/// The number of proxies by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseCounts {
    pub playing: usize,
    pub retrying: usize,
    pub connecting: usize,
    pub waiting: usize,
    pub down: usize,
    pub blocked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Waiting {
        rank: Rank,
    },
    /// Passed to the server, no answer yet.
    Connecting {
        call: u64,
    },
    /// In the server, connecting or connected, without media yet.
    Connected,
    Playing,
    /// In the server, which reconnects by itself; `failures` since it last played.
    Retrying {
        failures: u32,
    },
    /// Not in the server; if blocked, it cannot be started.
    Down {
        since: Duration,
        not_before: Duration,
        blocked: bool,
    },
}

/// How the restore counts a proxy without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Waiting,
    /// It has just connected.
    Connecting,
    /// It has connected, but sent no media for a while.
    Connected,
}

pub struct Proxy {
    pub seq: u64,
    pub remote_host: RemoteHost,
    /// The number of consecutive server crashes in which the server was working on it.
    pub crashes: u32,
    pub phase: Phase,
    /// Consecutive failed attempts, and how many of the last of them were exceptions.
    pub failures: u32,
    pub throws: u32,
    pub last_error: Option<Box<str>>,
    pub last_played: i64,
    /// Its part in the restore, until it has a result.
    pub part: Option<Part>,
    /// When its phase was last set by an event or an action.
    pub changed: Duration,
    /// When its input stream was last registered or unregistered.
    pub source_moved: Option<Duration>,
    /// The last comparison that included it.
    pub look: u64,
}

impl Proxy {
    pub fn trouble(&self, key: &ProxyKey, now: Duration) -> UnhealthyProxy {
        let (state, next_try) = match self.phase {
            Phase::Waiting { .. } => ("waiting", None),
            Phase::Connecting { .. } | Phase::Connected => ("connecting", None),
            Phase::Playing => ("playing", None),
            Phase::Retrying { .. } => ("retrying", None),
            Phase::Down { not_before, blocked, .. } => {
                (if blocked { "blocked" } else { "down" }, Some(not_before.saturating_sub(now)))
            }
        };
        let last_error = self.last_error.as_deref().unwrap_or_default().to_owned();
        UnhealthyProxy { key: key.clone(), state, attempts: self.attempts(), last_error, next_try }
    }

    /// Consecutive failed attempts, of the server or ours.
    pub fn attempts(&self) -> u32 {
        match self.phase {
            Phase::Retrying { failures } => failures,
            _ => self.failures,
        }
    }
}

impl PhaseCounts {
    pub fn of(&mut self, phase: &Phase) -> &mut usize {
        match phase {
            Phase::Waiting { .. } => &mut self.waiting,
            Phase::Connecting { .. } | Phase::Connected => &mut self.connecting,
            Phase::Playing => &mut self.playing,
            Phase::Retrying { .. } => &mut self.retrying,
            Phase::Down { blocked: true, .. } => &mut self.blocked,
            Phase::Down { .. } => &mut self.down,
        }
    }
}
