//! What the reconciler needs: MediaServer, and intent.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Args, Existing, ProxyKey};

/// A proxy that should run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The proxy.
    pub key: ProxyKey,
    /// The change that its entry has.
    pub seq: u64,
    /// Its arguments.
    pub args: Args,
    /// The number of consecutive server crashes in which the server was working on it.
    pub crashes: u32,
    /// `None` if it played, or did not exist, when the server was last checked before this start; otherwise when it was
    /// last seen playing, 0 for never.
    pub dark_since: Option<i64>,
}

/// The URL that a pull with several plays from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedUrl {
    /// The URL, with its credentials.
    pub url: String,
    /// 1 for the first.
    pub number: usize,
    /// For so long it has played from there.
    pub ago: Duration,
    /// Without an address; and the error of the one before, redacted.
    pub why: String,
    /// What went wrong with the URL before.
    pub error: String,
}

/// The recorded call of a proxy to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// The proxy.
    pub key: ProxyKey,
    /// The change of its entry. The host drops the call if the entry has another one when its turn on the key comes.
    pub seq: u64,
    /// What to do with the proxy that the server already has under this key.
    pub existing: Existing,
    /// The URL that it connects to.
    pub url: String,
    /// What it needs: a source of the server (schema, virtual host, app, stream), and a setting. Empty if it needs none.
    pub takes: [String; 4],
    /// The key of the server's ini file that it needs; empty if it needs none.
    pub setting: String,
    /// The arguments, without the secret.
    pub args: Vec<(String, Vec<u8>)>,
}

/// The result of an add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It plays.
    Accepted,
    /// It has connected, but no media have arrived yet; events will tell.
    Connected,
    /// The server already had one under that key, by another call, and kept it.
    Present,
    /// The server has it, but its first connect failed; it reconnects by itself.
    Retrying(String),
    /// The server refused, or the first connect failed and the server dropped the proxy.
    Failed(String),
    /// Something that it needs, such as its input stream, is missing; nothing was tried.
    Blocked(String),
    /// The server's handler threw an exception.
    Threw(String),
    /// It was deleted or replaced in the meantime; nothing was done.
    Unwanted,
}

impl Added {
    /// Whether the server has survived the add. A blocked one was not tried, and an exception proves nothing.
    pub fn is_over(&self) -> bool {
        !matches!(self, Added::Blocked(_) | Added::Threw(_))
    }

    /// Its error message.
    pub fn why(&mut self) -> Option<&mut String> {
        match self {
            Added::Retrying(why) | Added::Failed(why) | Added::Blocked(why) | Added::Threw(why) => Some(why),
            Added::Accepted | Added::Connected | Added::Present | Added::Unwanted => None,
        }
    }
}

/// What a proxy does in the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// It is connecting for the first time, or has connected but no media have arrived yet.
    Connecting,
    /// As far as the events tell, it works.
    Playing,
    /// It could not connect or lost its media, and reconnects by itself. `failures` since it last played, and the last
    /// error.
    Retrying {
        /// How often it has failed since it last played.
        failures: u32,
        /// The last error; `None` if none is known.
        error: Option<Arc<str>>,
    },
}

/// MediaServer, for the reconciler.
pub trait Host: Send + Sync {
    /// About that many proxies will be added: reserve memory.
    fn expect(&self, count: usize);
    /// Adds or changes a proxy when its turn on the key comes. Returns at once. The answer comes through [`Event::Added`] with
    /// the same number, on any thread, possibly before this returns, and may take as long as the server's connect
    /// timeout.
    fn add(&self, call: u64, add: Add);
    /// Ends a proxy that is not enabled, if the server has it. Returns at once, without an answer.
    fn remove(&self, key: ProxyKey);
    /// What each of these does in the server, according to its events, in the same order; `None` if the server does not
    /// have it. Blocks events of media threads for about a microsecond per key.
    fn actual(&self, keys: &[&ProxyKey]) -> Vec<Option<Listed>>;
}

/// Intent, for the reconciler.
pub trait Intent: Send + Sync {
    /// All proxies that should run now, each once, read as the iterator advances.
    fn wanted(&self) -> Box<dyn Iterator<Item = Wanted> + '_>;
    /// The number of enabled proxies, also of those that should not run now.
    fn count(&self) -> usize;
    /// One proxy; `None` if it should not run now.
    fn wants(&self, key: &ProxyKey) -> Option<Wanted>;
    /// The call that starts it, from `url` if it has several; `None` if its entry no longer has change `seq`.
    fn add(&self, key: &ProxyKey, seq: u64, existing: Existing, url: Option<String>) -> Option<Add>;
    /// Notes that a proxy plays from another of its URLs. Returns the number of that change; `None` if its entry no longer
    /// has change `seq`, or it cannot be noted now.
    fn note_url(&self, key: &ProxyKey, seq: u64, used: UsedUrl) -> Option<u64>;
    /// Those whose hours have begun or ended since this was last asked. Cheap: ask at least once a minute.
    fn turned(&self) -> Vec<ProxyKey>;
    /// The server has survived the start of a suspect: resets its crash count.
    fn acquit(&self, key: &ProxyKey, seq: u64);
    /// Quarantines it. Returns true if it is not released again automatically, because it was released once before.
    fn set_aside(&self, key: &ProxyKey, seq: u64, reason: &str) -> bool;
    /// This start went well without the quarantined proxies: enables all that were not released before, with `crashes`
    /// as their crash count, and returns them.
    fn release(&self, crashes: u32) -> Vec<ProxyKey>;
    /// Stores for the next start which proxies do not play: the change of each, and when it last played (0: never).
    fn dark(&self, dark: Vec<(u64, i64)>);
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
}
