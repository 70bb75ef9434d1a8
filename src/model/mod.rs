//! The journal's data: proxies, their state, and changes. A proxy is a kind, the key that MediaServer gave it, and the
//! arguments of its call as one JSON object, verbatim but without the secret. Knows nothing of files, threads or how
//! calls arrive.

mod args;
pub mod codes;
mod hours;
mod kind;
mod options;
mod redact;
mod stream;
pub mod url;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::args::{Args, MAX_ARGS_BYTES, Read, body_of};
pub use self::hours::Hours;
pub use self::kind::{Endpoint, Existing, Kind};
pub use self::options::{BACKUP_URLS, Backups, InUse, LABEL, Options, urls_of};
pub use self::redact::{is_redacted, redact, redact_all, redact_arg, redact_reason, redact_value};
pub use self::stream::{DEFAULT_VHOST, NamingRules, Stream};
use crate::error::{Error, Result};

/// A proxy: its kind, and the key that MediaServer gave it.
pub type ProxyKey = (Kind, Arc<str>);

/// The maximum length of a key; MediaServer's keys are shorter.
pub const MAX_KEY_BYTES: usize = 4096;

/// The state of a proxy in intent. Only `Enabled` ones are restored; `Dormant` ones are enabled when a player asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It should run, within its hours.
    Enabled,
    /// It was switched off, and is not started.
    Disabled,
    /// It was closed because it had no viewers, and is enabled when a player asks for its stream.
    Dormant,
    /// It is not started, since the server has crashed or thrown exceptions over it.
    Quarantined,
}

impl State {
    /// All states.
    pub const ALL: &'static [State] = &[State::Enabled, State::Disabled, State::Dormant, State::Quarantined];

    /// The name in the API and in the file, such as `enabled`.
    pub fn name(self) -> &'static str {
        match self {
            State::Enabled => "enabled",
            State::Disabled => "disabled",
            State::Dormant => "dormant",
            State::Quarantined => "quarantined",
        }
    }

    /// The state with this name, in lower case; `None` if there is no such state.
    pub fn from_name(name: &str) -> Option<State> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }
}

/// The operation of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// It was added, perhaps in place of the one with its key; it is enabled then.
    Add,
    /// It was removed.
    Remove,
    /// It got another state.
    Set(State),
}

impl Op {
    /// The name in the history and in the file: `add`, `remove`, `enable`, `disable`, `sleep` or `quarantine`.
    pub fn name(self) -> &'static str {
        match self {
            Op::Add => "add",
            Op::Remove => "remove",
            Op::Set(State::Enabled) => "enable",
            Op::Set(State::Disabled) => "disable",
            Op::Set(State::Dormant) => "sleep",
            Op::Set(State::Quarantined) => "quarantine",
        }
    }

    /// The state of the proxy after the change; `None` if it was removed.
    pub fn state(self) -> Option<State> {
        match self {
            Op::Add => Some(State::Enabled),
            Op::Remove => None,
            Op::Set(state) => Some(state),
        }
    }

    /// The operation with this name; `None` if there is no such operation.
    pub fn from_name(name: &str) -> Option<Op> {
        let states = State::ALL.iter().copied().map(Op::Set);
        [Op::Add, Op::Remove].into_iter().chain(states).find(|op| op.name() == name)
    }
}

/// A proxy in intent. Times are milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The arguments of its last add.
    pub args: Args,
    /// Whether it should run.
    pub state: State,
    /// The last change of this entry.
    pub seq: u64,
    /// When it was added; another add in its place does not change that.
    pub created_at: i64,
    /// When its last change was made.
    pub updated_at: i64,
}

impl Entry {
    /// Whether it should run at this time, in milliseconds since 1970-01-01 UTC.
    pub fn is_due(&self, at: i64) -> bool {
        self.state == State::Enabled && !self.is_off_hours(at)
    }

    /// Whether this is outside of its hours, whatever its state.
    pub fn is_off_hours(&self, at: i64) -> bool {
        self.args.is_off_hours(at)
    }

    /// The checksum of its row in `proxies`.
    pub fn crc(&self, kind: Kind, key: &str) -> u32 {
        Checksum::default()
            .text(kind.name())
            .text(key)
            .text(self.args.stored())
            .text(self.state.name())
            .number(self.seq)
            .number(self.created_at.cast_unsigned())
            .number(self.updated_at.cast_unsigned())
            .finish()
    }
}

/// One change of intent: a row of `journal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// 0 until it is made.
    pub seq: u64,
    /// When it was made, in milliseconds since 1970-01-01 UTC, by the system clock, which may jump.
    pub at: i64,
    /// What was done.
    pub op: Op,
    /// The kind of the proxy.
    pub kind: Kind,
    /// The key of the proxy.
    pub key: Arc<str>,
    /// The arguments of the proxy after the change; `None` if it was removed.
    pub args: Option<Args>,
    /// Who asked: the client as `ip:port`, `zlm-journal` or `MediaServer`.
    pub origin: String,
    /// The API call, or the reason.
    pub reason: String,
}

impl Change {
    /// The entry after the change. `created_at` is that of the change, since earlier ones are unknown here.
    pub fn entry(&self) -> Option<Entry> {
        Some(Entry {
            args: self.args.clone()?,
            state: self.op.state()?,
            seq: self.seq,
            created_at: self.at,
            updated_at: self.at,
        })
    }

    /// Its approximate memory while it waits for the disk.
    pub fn bytes(&self) -> usize {
        self.args.as_ref().map_or(0, |args| args.as_str().len()) + self.key.len()
    }

    /// The checksum of its row.
    pub fn crc(&self) -> u32 {
        Checksum::default()
            .number(self.seq)
            .number(self.at.cast_unsigned())
            .text(self.op.name())
            .text(self.kind.name())
            .text(&self.key)
            .text(self.args.as_ref().map_or("", Args::stored))
            .text(&self.origin)
            .text(&self.reason)
            .finish()
    }
}

/// CRC-32 (IEEE) over fields with their lengths, so that different records do not have the same bytes.
#[derive(Default)]
struct Checksum(crc32fast::Hasher);

impl Checksum {
    fn text(mut self, text: &str) -> Self {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    fn number(mut self, number: u64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Checks a key of MediaServer.
pub fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(Error::invalid(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", key.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> Args {
        Args::from_pairs([(b"url".as_slice(), url.as_bytes())]).unwrap()
    }

    #[test]
    fn any_changed_field_changes_the_checksum() {
        let entry = Entry { args: args("rtsp://a"), state: State::Enabled, seq: 1, created_at: 2, updated_at: 3 };
        let base = entry.crc(Kind::Pull, "v/a/s");
        let variants = [
            Entry { args: args("rtsp://b"), ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { state: State::Disabled, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { seq: 2, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { created_at: 3, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { updated_at: 2, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            entry.crc(Kind::Pull, "v/a/t"),
        ];
        assert!(variants.iter().all(|&crc| crc != base), "{variants:?} {base}");
    }
}
