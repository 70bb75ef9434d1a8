//! What the reconciler needs of others: MediaServer, and what is wanted of it.

use std::sync::Arc;

use crate::model::{Args, Kind, ProxyKey};

/// A proxy that should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub key: ProxyKey,
    /// The change that made it what it is.
    pub seq: u64,
    pub args: Args,
    /// In how many crashes of the server running it was being worked on.
    pub crashes: u32,
    /// None where it played, or was not known yet, when the server was last looked at before this start; else when
    /// it was last seen playing, 0 for never.
    pub dark_since: Option<i64>,
}

/// One proxy to be started: the recorded call, ready to be dispatched again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    pub kind: Kind,
    pub key: Arc<str>,
    /// The change that this add carries out. The host drops the call when its turn on the key comes and the proxy is no
    /// longer wanted as that change left it.
    pub seq: u64,
    /// The server has it, but it does nothing any more: it is to be ended first.
    pub replace: bool,
    /// What must be there for it to be started: a source of the server (schema, virtual host, app, stream), and a setting.
    pub takes: Option<[String; 4]>,
    pub setting: Option<String>,
    /// The arguments, one JSON object, without the secret.
    pub body: Vec<u8>,
}

impl Add {
    /// Schema, virtual host, app and stream of the source that it takes; empty where it takes none.
    pub fn taken(&self) -> [&str; 4] {
        self.takes.as_ref().map_or([""; 4], |its| its.each_ref().map(String::as_str))
    }
}

/// How an add ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It plays.
    Accepted,
    /// It has connected, and no media have come yet: what the server is then told of it says whether they do.
    Connected,
    /// The server has one under that key already: someone else was faster. It was left alone.
    Present,
    /// The server has it, but its first connect failed: it connects again by itself.
    Retrying(String),
    /// The server said no, or the first connect failed and with it the add.
    Failed(String),
    /// It cannot be started as things are, and nothing was tried: the stream that it takes is not there, and the like.
    Blocked(String),
    /// The server threw an exception out of the call.
    Threw(String),
    /// Meanwhile someone deleted or replaced it: nothing was done.
    Unwanted,
}

impl Added {
    /// The server has done what there was to do. Of what is blocked nobody knows yet, and to throw is no sign of health.
    pub fn is_over(&self) -> bool {
        !matches!(self, Added::Blocked(_) | Added::Threw(_))
    }

    /// The same, told in other words.
    #[must_use]
    pub fn reworded(self, words: impl FnOnce(&str) -> String) -> Added {
        match self {
            Added::Retrying(why) => Added::Retrying(words(&why)),
            Added::Failed(why) => Added::Failed(words(&why)),
            Added::Blocked(why) => Added::Blocked(words(&why)),
            Added::Threw(why) => Added::Threw(words(&why)),
            Added::Accepted | Added::Connected | Added::Present | Added::Unwanted => self,
        }
    }
}

/// What one of the server's proxies does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// It connects for the first time, or has connected and no media have come yet.
    Connecting,
    /// Media flow.
    Playing,
    /// It could not connect or has lost its media, and connects again by itself. The server has told so often of that since it
    /// last played, with these words at last.
    Retrying { failures: u32, error: Option<Arc<str>> },
}

/// MediaServer, as the reconciler sees it.
pub trait Host: Send + Sync {
    /// About so many are going to be added: it makes room for all of them at once.
    fn expect(&self, count: usize);
    /// Has a proxy added when its turn on the key comes. Returns at once; the answer comes through [`Handle::added`] with
    /// the same number, from any thread, also before this has returned. It may take as long as the server's connect
    /// timeout.
    fn add(&self, call: u64, add: Add);
    /// Ends a proxy that is not wanted, if the server has it. Returns at once, without an answer.
    fn remove(&self, kind: Kind, key: Arc<str>);
    /// What each of these does in the server now, in their order, as it has told: nobody is asked. None for what it does not
    /// have. Media threads that tell of their proxies wait for it: a microsecond or so for each.
    fn actual(&self, keys: &[&ProxyKey]) -> Vec<Option<Listed>>;
}

/// Intent, as the reconciler needs it.
pub trait Intent: Send + Sync {
    /// All that is to run, each once, as it stands when its turn comes.
    fn wanted(&self) -> Box<dyn Iterator<Item = Wanted> + '_>;
    /// How many those are.
    fn count(&self) -> usize;
    /// One of them; none where it is not to run.
    fn wants(&self, key: &ProxyKey) -> Option<Wanted>;
    /// What starts it; none when it is no longer wanted as change `seq` left it.
    fn add(&self, key: &ProxyKey, seq: u64, replace: bool) -> Option<Add>;
    /// The server has lived through the start of a suspect, which is none any more.
    fn acquit(&self, key: &ProxyKey, seq: u64);
    /// It is not to be started any more, for that reason. True where that is for good, since it was released once before.
    fn set_aside(&self, key: &ProxyKey, seq: u64, reason: &str) -> bool;
    /// The server does well without what was set aside. All of it that was not released before is wanted again, as what the
    /// server has crashed of so often running; returns it.
    fn release(&self, crashes: u32) -> Vec<ProxyKey>;
    /// These do not play, by their changes, with the last time that they did (0: never): the next start is to know.
    fn dark(&self, dark: Vec<(u64, i64)>);
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
}
