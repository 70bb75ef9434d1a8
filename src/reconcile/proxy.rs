//! One proxy in the reconciler: its phase and its attempts. Pure.

use crate::model::{Kind, ProxyKey};
use std::time::Duration;

use serde::Serialize;

use super::queue::{Rank, RemoteHost};
use super::urls::Urls;

/// A proxy that should play but does not, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnhealthyProxy {
    /// The kind of the proxy.
    pub kind: Kind,
    /// The key of the proxy.
    pub key: String,
    /// waiting: not its turn yet; connecting: no media yet; retrying: the server reconnects; down: the server has lost
    /// it; blocked: something that it needs is missing.
    pub state: &'static str,
    /// Consecutive failed attempts.
    pub attempts: u32,
    /// Which of its URLs is tried, 1 for the first; only if it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<usize>,
    /// Why it does not play, if known; otherwise empty.
    pub last_error: String,
    /// The time until the next attempt, if known.
    #[serde(skip)]
    pub next_try: Option<Duration>,
}

/// The same where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Unhealthy<'a> {
    /// The proxy.
    pub key: &'a ProxyKey,
    /// As [`UnhealthyProxy::state`].
    pub state: &'static str,
    /// Consecutive failed attempts.
    pub attempts: u32,
    /// Why it does not play, if known; otherwise empty.
    pub last_error: &'a str,
}

/// The number of proxies by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PhaseCounts {
    /// They play.
    pub playing: usize,
    /// The server has them, and reconnects by itself.
    pub retrying: usize,
    /// They were passed to the server, but have no media yet.
    pub connecting: usize,
    /// It is not their turn yet.
    pub waiting: usize,
    /// Not in the server, which has refused or lost them.
    pub down: usize,
    /// Something that they need is missing.
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
    /// Passed to the server, no answer yet.
    Started,
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
    pub stream_changed: Option<Duration>,
    /// An operator starts it, if the next comparison does not find it.
    pub is_asked_for: bool,
    /// The last comparison that included it.
    pub look: u64,
    /// Only if it has several URLs.
    pub urls: Option<Box<Urls>>,
}

impl Proxy {
    pub fn unhealthy<'a>(&'a self, key: &'a ProxyKey) -> Unhealthy<'a> {
        let state = match self.phase {
            Phase::Waiting { .. } => "waiting",
            Phase::Connecting { .. } | Phase::Connected => "connecting",
            Phase::Playing => "playing",
            Phase::Retrying { .. } => "retrying",
            Phase::Down { blocked: true, .. } => "blocked",
            Phase::Down { .. } => "down",
        };
        let last_error = self.last_error.as_deref().unwrap_or_default();
        Unhealthy { key, state, attempts: self.attempts(), last_error }
    }

    pub fn shown(&self, key: &ProxyKey, now: Duration) -> UnhealthyProxy {
        let Unhealthy { key: (kind, key), state, attempts, last_error } = self.unhealthy(key);
        let next_try = match self.phase {
            Phase::Down { not_before, .. } => Some(not_before.saturating_sub(now)),
            _ => None,
        };
        let (kind, key, last_error) = (*kind, key.to_string(), last_error.to_owned());
        let url = self.urls.as_ref().map(|urls| urls.number());
        UnhealthyProxy { kind, key, state, attempts, url, last_error, next_try }
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
    /// The count of this phase, to be changed.
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
