//! One proxy as the reconciler knows it: what it does now and what was tried. Pure.

use crate::model::ProxyKey;
use std::time::Duration;

use serde::Serialize;

use super::queue::{Rank, RemoteHost};

/// A proxy that should play and does not, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhealthyProxy {
    pub key: ProxyKey,
    /// waiting: its turn has not come; connecting: no media have come yet; retrying: the server has it and connects again;
    /// down: the server has lost it; blocked: it cannot be started as things are.
    pub state: &'static str,
    /// Tries that have failed running.
    pub attempts: u32,
    pub last_error: String,
    /// From now until it is tried again, where that is known.
    pub next_try: Option<Duration>,
}

/// How many there are now of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
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
    /// Handed to the server, which has not answered.
    Connecting {
        call: u64,
    },
    /// The server has it and connects, or has connected, and no media have come yet.
    Connected,
    Playing,
    /// The server has it, and connects again by itself; so often it has told of a failure since it last played.
    Retrying {
        failures: u32,
    },
    /// The server does not have it, and, where it is blocked, could not start it.
    Down {
        since: Duration,
        not_before: Duration,
        blocked: bool,
    },
}

/// As what the restore counts a proxy that it has not started, or whose media have not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Waiting,
    /// It has connected just now.
    Connecting,
    /// It has connected and sent nothing for a while.
    Connected,
}

pub struct Proxy {
    pub seq: u64,
    pub remote_host: RemoteHost,
    /// In how many crashes of the server running it was being worked on.
    pub crashes: u32,
    pub phase: Phase,
    /// Tries that have failed running; of the last of these, so many were exceptions.
    pub failures: u32,
    pub throws: u32,
    pub last_error: Option<Box<str>>,
    pub last_played: i64,
    /// Where it is a part of the restore, of which the end is open.
    pub part: Option<Part>,
    /// When its phase was last set by something else than a look at the server.
    pub changed: Duration,
    /// When the stream that it takes from this server last went or came.
    pub source_moved: Option<Duration>,
    /// The look at the server that met it last.
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

    /// Tries that have failed running, the server's or ours.
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
