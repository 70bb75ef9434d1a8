//! What MediaServer has, as its hooks have told it: the only answer to "is it there". Pure. Knows nothing of intent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Endpoint, Kind, NamingRules, ProxyKey, Stream};
use crate::reconcile::Listed;

/// What the server was known to be like when a proxy ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    pub rules: NamingRules,
    /// `record.appName`: without viewers, streams of this app are closed without an event.
    pub record_app: String,
    /// The hook on_stream_none_reader may answer so long after the event.
    pub idle_answer: Duration,
    /// It tells of each failed connect and each lost connection (kBroadcastPlayerProxyFailed; not in 8.0).
    pub tells_failures: bool,
    /// Whether a source of each protocol is made where a call does not say, in the order of [`PROTOCOLS`].
    pub protocols: [bool; PROTOCOLS.len()],
}

/// MediaServer's switches for the sources that a pull makes: arguments of its call, and settings of the section `protocol`.
pub const PROTOCOLS: [&str; 6] =
    ["enable_rtsp", "enable_rtmp", "enable_ts", "enable_fmp4", "enable_hls", "enable_hls_fmp4"];

/// As MediaServer reads a truth value (toolkit::variant).
pub fn is_true(text: &str) -> bool {
    match text.starts_with(|sign: char| sign.is_ascii_digit()) {
        true => !text.trim_matches('0').is_empty(),
        false => text.eq_ignore_ascii_case("true"),
    }
}

/// What the arguments of its add say of a proxy.
#[derive(Debug, Clone)]
pub struct Nature {
    /// What it makes: of one source all the names that the server may have for it, its own and a new one.
    streams: [Option<Arc<Stream>>; 2],
    /// With what it ends for good, where it takes its stream by name.
    taken: Option<Arc<Taken>>,
    can_give_up: bool,
    /// Its sources tell whether media come: it makes some.
    tells_media: bool,
    /// The source of the protocol that it is pulled by, as a bit; 0 where MediaServer passes on none directly.
    direct: u16,
}

/// A source of the server, with its schema.
pub type Taken = (String, Stream);

impl Nature {
    pub fn of<'a>(kind: Kind, get: impl Fn(&str) -> Option<&'a str>, facts: &HostFacts) -> Nature {
        // An FFmpeg source is run again for ever; so is a pull or push without a limit. What is no number counts as 0.
        let limit = get("retry_count").filter(|text| !text.is_empty());
        let is_on = |(name, default): (&&str, &bool)| match get(name) {
            Some(given) if !given.is_empty() => is_true(given),
            _ => *default,
        };
        let rules = &facts.rules;
        let is_limited = limit.is_some_and(|text| text.trim().parse::<i64>().unwrap_or(0) >= 0);
        let mut streams = kind.own_streams_of(&get, rules).into_iter().map(Arc::new);
        let is_pull = kind.info().output == Endpoint::Named;
        Nature {
            streams: [streams.next(), streams.next()],
            taken: kind.taken_stream_of(&get, rules).map(Arc::new),
            can_give_up: is_limited && !kind.info().is_process,
            tells_media: is_pull && PROTOCOLS.iter().zip(&facts.protocols).any(is_on),
            direct: get(kind.info().connects_to).filter(|_| is_pull).map_or(0, direct_of),
        }
    }

    /// Of one that somebody else has made.
    pub fn unknown() -> Nature {
        Nature { streams: [None, None], taken: None, can_give_up: true, tells_media: false, direct: 0 }
    }
}

/// One proxy of the server.
#[derive(Debug)]
pub struct Present {
    /// How many had been made before it, and it.
    pub number: u64,
    /// The add that made it, and is not answered yet.
    pub call: Option<u64>,
    nature: Nature,
    /// It plays or is pushed, as far as events and answers tell.
    playing: bool,
    /// Its sources, a bit for each schema: those that are there, and all that ever were. What is told of them may come
    /// late, when another proxy has taken the place of theirs.
    sources: u16,
    had_sources: u16,
    /// It has one for certain, though nobody has told of its coming: that was there before.
    pub has_source: bool,
    /// The last that was heard of it is a failure.
    failed: bool,
    /// So many since it last played, and what the last one was of.
    failures: u32,
    pub error: Option<Arc<str>>,
    /// Nobody watched it then, and it has not started anew since.
    idle_since: Option<Instant>,
    /// The stream that it takes has gone. It does nothing any more, whatever comes under that name later: MediaServer ends
    /// it, or has forgotten to.
    has_lost_input: bool,
}

/// Why the server ended a proxy by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnEnd {
    /// Nobody watched it.
    Idle,
    /// Its tries were used up.
    GaveUp,
    /// What it took its stream from has gone, or nobody knows.
    Other,
}

impl Present {
    pub fn new(number: u64, call: Option<u64>, nature: Nature) -> Present {
        Present {
            number,
            call,
            nature,
            playing: false,
            sources: 0,
            had_sources: 0,
            has_source: false,
            failed: false,
            failures: 0,
            error: None,
            idle_since: None,
            has_lost_input: false,
        }
    }

    /// The last heard of it is a failure.
    pub fn is_failing(&self) -> bool {
        self.failed
    }

    fn recovers(&mut self) {
        (self.failed, self.failures, self.error) = (false, 0, None);
    }

    /// Media come, as far as its sources tell. One of the protocol that it is pulled by counts alone: MediaServer may pass
    /// it on directly (`rtsp.directProxy`), and then only that one goes with the connection and comes with the first media,
    /// where the others are kept (`general.resetWhenRePlay=0`).
    fn has_media(&self) -> bool {
        let direct = self.had_sources & self.nature.direct;
        self.sources & (if direct == 0 { u16::MAX } else { direct }) != 0
    }

    pub fn does(&self) -> Listed {
        match () {
            () if self.playing => Listed::Playing,
            () if self.failed || self.had_sources != 0 => {
                Listed::Retrying { failures: self.failures, error: self.error.clone() }
            }
            () => Listed::Connecting,
        }
    }

    /// The server has answered its add with success. That media come is told by the sources, where it makes some.
    pub fn has_succeeded(&mut self, kind: Kind) {
        self.has_source |= kind.info().is_process;
        self.playing |= !self.failed && !self.nature.tells_media;
    }

    /// What it takes by name.
    pub fn taken(&self) -> Option<&Arc<Taken>> {
        self.nature.taken.as_ref()
    }

    pub fn own_end(&self, facts: &HostFacts) -> OwnEnd {
        if self.nature.taken.is_some() {
            return if self.nature.can_give_up && !self.has_lost_input { OwnEnd::GaveUp } else { OwnEnd::Other };
        }
        let was_idle =
            self.idle_since.is_some_and(|since| facts.tells_failures || since.elapsed() <= facts.idle_answer);
        let is_of_record_app = |stream: &Arc<Stream>| stream.app() == facts.record_app;
        let is_recorded_app =
            !facts.record_app.is_empty() && self.nature.streams.iter().flatten().any(is_of_record_app);
        // A limit that is used up is told as a failure just before. 8.0 tells of lost connections alone; but what nobody
        // watches in the app of the recordings is closed while it plays.
        let is_told = facts.tells_failures || is_recorded_app;
        let gave_up = self.nature.can_give_up && if is_told { self.failed } else { !was_idle };
        match (gave_up, was_idle || is_recorded_app) {
            (true, _) => OwnEnd::GaveUp,
            (false, true) => OwnEnd::Idle,
            (false, false) => OwnEnd::Other,
        }
    }
}

/// What a close call names; an empty part is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub schema: String,
    pub vhost: String,
    pub app: String,
    pub stream: String,
}

#[derive(Default)]
pub struct Mirror {
    proxies: HashMap<ProxyKey, Present>,
    /// Those that make a source, and those that take one by name.
    producers: HashMap<Arc<Stream>, Vec<ProxyKey>>,
    takers: HashMap<Arc<Taken>, Vec<ProxyKey>>,
    made: u64,
}

impl Mirror {
    pub fn next_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Makes room for so many.
    pub fn expect(&mut self, count: usize) {
        self.proxies.reserve(count);
        self.producers.reserve(count);
    }

    pub fn insert(&mut self, key: ProxyKey, present: Present) {
        self.remove(&key);
        for stream in present.nature.streams.iter().flatten() {
            add_to(&mut self.producers, stream, key.clone());
        }
        if let Some(taken) = &present.nature.taken {
            add_to(&mut self.takers, taken, key.clone());
        }
        self.proxies.insert(key, present);
    }

    pub fn remove(&mut self, key: &ProxyKey) -> Option<Present> {
        let present = self.proxies.remove(key)?;
        for stream in present.nature.streams.iter().flatten() {
            drop_from(&mut self.producers, stream, key);
        }
        if let Some(taken) = &present.nature.taken {
            drop_from(&mut self.takers, taken, key);
        }
        Some(present)
    }

    pub fn get(&self, key: &ProxyKey) -> Option<&Present> {
        self.proxies.get(key)
    }

    /// One of which something may come yet: for the reconciler, nothing else is there.
    pub fn working(&self, key: &ProxyKey) -> Option<&Present> {
        self.get(key).filter(|present| !present.has_lost_input)
    }

    pub fn get_mut(&mut self, key: &ProxyKey) -> Option<&mut Present> {
        self.proxies.get_mut(key)
    }

    /// A source came or went. False where that is news of nobody here; `came` gets those that play from now on.
    pub fn source_moved(
        &mut self,
        schema: &str,
        stream: &Stream,
        is_there: bool,
        came: &mut Vec<ProxyKey>,
    ) -> bool {
        let bit = bit_of(schema);
        let producers = self.producers.get(stream).map_or(&[][..], Vec::as_slice);
        let mut changed = false;
        for key in producers {
            let Some(present) = self.proxies.get_mut(key) else { continue };
            let (had_sources, played) = (present.sources != 0, present.playing);
            if is_there {
                if !had_sources {
                    present.idle_since = None;
                }
                present.sources |= bit;
                present.had_sources |= bit;
                present.recovers();
                present.playing = true;
            } else {
                present.sources &= !bit;
                present.playing &= present.has_media();
            }
            changed |= had_sources != (present.sources != 0) || played != present.playing;
            if present.playing && !played {
                came.push(key.clone());
            }
        }
        if self.takers.is_empty() {
            return changed;
        }
        let takers = self.takers.get(&(schema.to_owned(), stream.clone())).map_or(&[][..], Vec::as_slice);
        for key in takers {
            if let Some(present) = self.proxies.get_mut(key) {
                present.has_lost_input |= !is_there;
            }
        }
        changed
    }

    /// Nobody watches this stream now.
    pub fn nobody_watches(&mut self, stream: &Stream) {
        for key in self.producers.get(stream).map_or(&[][..], Vec::as_slice) {
            if let Some(present) = self.proxies.get_mut(key) {
                present.idle_since = Some(Instant::now());
                present.failed = false;
            }
        }
    }

    /// It has connected. What makes a source anew plays when that comes; what has kept its sources (`general.resetWhenRePlay`
    /// is 0), or makes none, plays now. False where it has played already, or does not yet.
    pub fn connected(&mut self, key: &ProxyKey) -> bool {
        let Some(present) = self.proxies.get_mut(key) else { return false };
        // Then it was an older source of that name of which was told late that it has gone.
        present.has_lost_input = false;
        let plays = present.has_media() || !present.nature.tells_media;
        if plays {
            present.recovers();
        }
        plays && !std::mem::replace(&mut present.playing, true)
    }

    /// A connect failed or a connection was lost. False where that is news of nobody here.
    pub fn failed(&mut self, key: &ProxyKey, error: &str) -> bool {
        let Some(present) = self.proxies.get_mut(key) else { return false };
        (present.failed, present.error) = (true, Some(error.into()).filter(|error: &Arc<str>| !error.is_empty()));
        present.failures += 1;
        std::mem::take(&mut present.playing)
    }
}

impl Filter {
    /// Whether a close call can have ended this proxy: it had a source of these names.
    pub fn hits(&self, present: &Present) -> bool {
        let wanted = if self.schema.is_empty() { u16::MAX } else { bit_of(&self.schema) };
        let is_any = |named: &str, its: &str| named.is_empty() || named == its;
        let is_named = |stream: &Arc<Stream>| {
            is_any(&self.vhost, stream.vhost())
                && is_any(&self.app, stream.app())
                && is_any(&self.stream, stream.stream())
        };
        (present.has_source || present.had_sources & wanted != 0)
            && present.nature.streams.iter().flatten().any(is_named)
    }
}

/// MediaServer's schemas, each a bit, and one for all that are not known here.
fn bit_of(schema: &str) -> u16 {
    const SCHEMAS: [&str; 8] = ["rtsp", "rtmp", "fmp4", "ts", "hls", "hls.fmp4", "srt", "rtc"];
    1 << SCHEMAS.iter().position(|its| *its == schema).unwrap_or(15)
}

/// The source that MediaServer may pass on as it comes, of what is pulled from this URL.
fn direct_of(url: &str) -> u16 {
    let scheme = url.split(':').next().unwrap_or_default();
    let is_any_of = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
    match () {
        () if is_any_of(["rtsp", "rtsps"]) => bit_of("rtsp"),
        () if is_any_of(["rtmp", "rtmps"]) => bit_of("rtmp"),
        () => 0,
    }
}

fn add_to<T: std::hash::Hash + Eq>(index: &mut HashMap<Arc<T>, Vec<ProxyKey>>, at: &Arc<T>, key: ProxyKey) {
    // Nearly always the only one.
    index.entry(Arc::clone(at)).or_insert_with(|| Vec::with_capacity(1)).push(key);
}

fn drop_from<T: std::hash::Hash + Eq>(index: &mut HashMap<Arc<T>, Vec<ProxyKey>>, at: &Arc<T>, key: &ProxyKey) {
    if let Some(keys) = index.get_mut(at) {
        keys.retain(|its| its != key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}
