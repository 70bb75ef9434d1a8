//! What MediaServer has, according to its events: the only answer to "does it exist?". Pure. Knows nothing of intent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::model::url::direct_schema;
use crate::model::{Endpoint, Kind, NamingRules, ProxyKey, Stream};
use crate::reconcile::{Event, Listed};

/// Facts about the server that decide how its events are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// How the server names its sources, and by which addresses and ports it is reached.
    pub rules: NamingRules,
    /// What the server calls itself (`general.mediaServerId`).
    pub server_id: String,
    /// `record.appName`: without viewers, streams of this app are closed without an event.
    pub record_app: String,
    /// How long after the event the hook on_stream_none_reader may answer.
    pub idle_answer: Duration,
    /// The server reports each failed connect and each lost connection (kBroadcastPlayerProxyFailed; not in 8.0).
    pub tells_failures: bool,
    /// Whether a pull makes a source of each protocol by default, in the order of [`PROTOCOLS`].
    pub protocols: [bool; PROTOCOLS.len()],
}

/// MediaServer's switches for the sources that a pull makes: arguments of the call, and settings of the section
/// `protocol`.
pub const PROTOCOLS: [&str; 6] =
    ["enable_rtsp", "enable_rtmp", "enable_ts", "enable_fmp4", "enable_hls", "enable_hls_fmp4"];

/// Reads a boolean as MediaServer does (toolkit::variant).
pub fn is_true(text: &str) -> bool {
    match text.starts_with(|sign: char| sign.is_ascii_digit()) {
        true => !text.trim_matches('0').is_empty(),
        false => text.eq_ignore_ascii_case("true"),
    }
}

/// What the arguments of its add say about a proxy.
#[derive(Debug, Clone, Default)]
pub struct Nature {
    /// The names that the source it makes may have: its own, and the one of `stream_replace`.
    own: Option<Stream>,
    renamed: Option<Box<Stream>>,
    /// The source that it takes by name; it ends for good when that ends.
    taken: Option<Arc<Taken>>,
    can_give_up: bool,
    /// It makes sources, which show whether media arrive.
    tells_media: bool,
    /// The source of the protocol that it pulls, as a bit, if MediaServer may pass that on directly; otherwise 0.
    direct: u16,
}

/// A source of the server, with its schema.
pub type Taken = (String, Stream);

impl Nature {
    pub fn of<'a>(kind: Kind, get: impl Fn(&str) -> Option<&'a str>, facts: &HostFacts) -> Nature {
        // FFmpeg sources, and pulls and pushes without a limit, are retried for ever. A limit that is not a number
        // counts as 0.
        let limit = get("retry_count").filter(|text| !text.is_empty());
        let is_on = |(name, default): (&&str, &bool)| match get(name) {
            Some(given) if !given.is_empty() => is_true(given),
            _ => *default,
        };
        let rules = &facts.rules;
        let is_limited = limit.is_some_and(|text| text.trim().parse::<i64>().unwrap_or(0) >= 0);
        let mut streams = kind.own_streams(&get, rules).into_iter();
        let is_pull = kind.info().output == Endpoint::Named;
        Nature {
            own: streams.next(),
            renamed: streams.next().map(Box::new),
            taken: kind.taken_stream(&get, rules).map(Arc::new),
            can_give_up: is_limited && !kind.info().is_process,
            tells_media: is_pull && PROTOCOLS.iter().zip(&facts.protocols).any(is_on),
            direct: get(kind.info().connects_to).filter(|_| is_pull).and_then(direct_schema).map_or(0, bit_of),
        }
    }

    fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.own.iter().chain(self.renamed.as_deref())
    }

    /// For a proxy that was made by an unknown call.
    pub fn unknown() -> Nature {
        Nature { can_give_up: true, ..Nature::default() }
    }
}

/// A proxy in the server.
#[derive(Debug, Default)]
pub struct Present {
    /// Its number among all proxies that were made, from 1.
    pub number: u64,
    /// The add that made it, if that is not answered yet.
    pub call: Option<u64>,
    nature: Nature,
    /// It plays or is pushed, according to events and answers.
    playing: bool,
    /// Its sources, a bit per schema: the present ones, and all that it ever had. Events may be late, when another
    /// proxy has taken its place.
    sources: u16,
    had_sources: u16,
    /// It has a source that existed before, without an event for it.
    pub has_source: bool,
    /// Its last event was a failure.
    failed: bool,
    /// The number of failures since it last played, and the last error.
    failures: u32,
    pub error: Option<Arc<str>>,
    /// When it lost its last viewer; none if it has started again since.
    idle_since: Option<Instant>,
    /// It was given other arguments in place, and has neither failed nor played since.
    is_updated: bool,
    /// The source that it takes has ended. It no longer works, even if that source returns: MediaServer ends it, or
    /// forgets to.
    has_lost_input: bool,
}

/// Why the server ended a proxy by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnEnd {
    /// It had no viewers.
    Idle,
    /// Its retries were used up.
    GaveUp,
    /// Its source ended, or the reason is unknown.
    Other,
}

impl Present {
    pub fn new(number: u64, call: Option<u64>, nature: Nature) -> Present {
        Present { number, call, nature, ..Present::default() }
    }

    pub fn is_failing(&self) -> bool {
        self.failed
    }

    fn recovers(&mut self) {
        (self.failed, self.failures, self.error, self.is_updated) = (false, 0, None, false);
    }

    /// Whether its sources show that media arrive. If there is a source of the protocol that it pulls, only that
    /// counts: MediaServer may pass that one on directly (`rtsp.directProxy`), so it ends with the connection, while
    /// the others may be kept (`general.resetWhenRePlay=0`).
    fn has_media(&self) -> bool {
        let direct = self.had_sources & self.nature.direct;
        self.sources & (if direct == 0 { u16::MAX } else { direct }) != 0
    }

    fn makes(&self, stream: &Stream) -> bool {
        self.nature.streams().any(|its| its == stream)
    }

    pub fn does(&self) -> Listed {
        match () {
            () if self.playing => Listed::Playing,
            () if self.failed || (self.had_sources != 0 && !self.is_updated) => {
                Listed::Retrying { failures: self.failures, error: self.error.clone() }
            }
            () => Listed::Connecting,
        }
    }

    /// The server has answered its add with success. If it makes sources, those show whether media arrive.
    pub fn has_succeeded(&mut self, kind: Kind) {
        self.has_source |= kind.info().is_process;
        self.playing |= !self.failed && !self.nature.tells_media;
    }

    /// The source that it takes by name.
    pub fn taken(&self) -> Option<&Arc<Taken>> {
        self.nature.taken.as_ref()
    }

    pub fn own_end(&self, facts: &HostFacts) -> OwnEnd {
        if self.nature.taken.is_some() {
            return if self.nature.can_give_up && !self.has_lost_input { OwnEnd::GaveUp } else { OwnEnd::Other };
        }
        let was_idle =
            self.idle_since.is_some_and(|since| facts.tells_failures || since.elapsed() <= facts.idle_answer);
        let is_of_record_app = |stream: &Stream| stream.app() == facts.record_app;
        let is_recorded_app = !facts.record_app.is_empty() && self.nature.streams().any(is_of_record_app);
        // A server that reports failures does so just before a proxy gives up. 8.0 reports only lost connections; but
        // in the recording app, a proxy without viewers is closed while it plays.
        let is_told = facts.tells_failures || is_recorded_app;
        let gave_up = self.nature.can_give_up && if is_told { self.failed } else { !was_idle };
        match (gave_up, was_idle || is_recorded_app) {
            (true, _) => OwnEnd::GaveUp,
            (false, true) => OwnEnd::Idle,
            (false, false) => OwnEnd::Other,
        }
    }
}

/// The filter of a close call; an empty part matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The schema of the source, such as `rtmp`.
    pub schema: String,
    /// Its virtual host.
    pub vhost: String,
    /// Its app.
    pub app: String,
    /// Its name within the app.
    pub stream: String,
}

#[derive(Default)]
pub struct Mirror {
    proxies: IndexMap<ProxyKey, Present>,
    /// Which proxies make a source, unless the name of it is their key; and which take one by name.
    producers: HashMap<Stream, Vec<ProxyKey>>,
    takers: HashMap<Arc<Taken>, Vec<ProxyKey>>,
    made: u64,
}

impl Mirror {
    pub fn next_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Reserves memory for that many proxies.
    pub fn expect(&mut self, count: usize) {
        self.proxies.reserve_exact(count);
    }

    pub fn insert(&mut self, key: ProxyKey, mut present: Present) {
        self.remove(&key);
        for stream in present.nature.streams().filter(|stream| !is_named_by(stream, &key)) {
            add_to(&mut self.producers, stream, key.clone());
        }
        if let Some(own) = &mut present.nature.own {
            own.share(&key.1);
        }
        if let Some(taken) = &present.nature.taken {
            add_to(&mut self.takers, taken, key.clone());
        }
        self.proxies.insert(key, present);
    }

    pub fn remove(&mut self, key: &ProxyKey) -> Option<Present> {
        let present = self.proxies.swap_remove(key)?;
        for stream in present.nature.streams().filter(|stream| !is_named_by(stream, key)) {
            drop_from(&mut self.producers, stream, key);
        }
        if let Some(taken) = &present.nature.taken {
            drop_from(&mut self.takers, taken, key);
        }
        Some(present)
    }

    /// A proxy was given other arguments in place by a call of ours: it connects anew, and its sources stay.
    pub fn update(&mut self, key: &ProxyKey, number: u64, call: u64, nature: Nature) {
        if let Some(mut present) = self.remove(key) {
            (present.number, present.call, present.nature) = (number, Some(call), nature);
            present.recovers();
            (present.playing, present.is_updated) = (false, true);
            self.insert(key.clone(), present);
        }
    }

    pub fn get(&self, key: &ProxyKey) -> Option<&Present> {
        self.proxies.get(key)
    }

    /// A proxy that still works; to the reconciler, others do not exist.
    pub fn working(&self, key: &ProxyKey) -> Option<&Present> {
        self.get(key).filter(|present| !present.has_lost_input)
    }

    pub fn get_mut(&mut self, key: &ProxyKey) -> Option<&mut Present> {
        self.proxies.get_mut(key)
    }

    /// A source was registered or unregistered. Returns false if that changes no proxy; adds an event for each that
    /// plays from now on, or no longer.
    pub fn stream_changed(
        &mut self,
        schema: &str,
        stream: &Stream,
        is_there: bool,
        events: &mut Vec<Event>,
    ) -> bool {
        let bit = bit_of(schema);
        let mut changed = false;
        for key in producers_of(&self.producers, stream) {
            let Some(present) = self.proxies.get_mut(&key).filter(|present| present.makes(stream)) else {
                continue;
            };
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
            if present.playing != played {
                events.push(Event::MediaChanged(key));
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

    /// This stream has no viewers now.
    pub fn nobody_watches(&mut self, stream: &Stream) {
        for key in producers_of(&self.producers, stream) {
            if let Some(present) = self.proxies.get_mut(&key).filter(|present| present.makes(stream)) {
                present.idle_since = Some(Instant::now());
                present.failed = false;
            }
        }
    }

    /// A proxy has connected. If it makes a new source, it plays when that is registered; if it kept its sources
    /// (`general.resetWhenRePlay=0`) or makes none, it plays now. Returns whether it plays from now on.
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

    /// A connect failed or a connection was lost. Returns whether the proxy played until now.
    pub fn failed(&mut self, key: &ProxyKey, error: &str) -> bool {
        let Some(present) = self.proxies.get_mut(key) else { return false };
        (present.failed, present.error) = (true, Some(error.into()).filter(|error: &Arc<str>| !error.is_empty()));
        present.failures += 1;
        present.is_updated = false;
        std::mem::take(&mut present.playing)
    }
}

impl Filter {
    /// Whether a close call can have ended this proxy: it had a source that matches.
    pub fn hits(&self, present: &Present) -> bool {
        let wanted = if self.schema.is_empty() { u16::MAX } else { bit_of(&self.schema) };
        let is_any = |named: &str, its: &str| named.is_empty() || named == its;
        let is_named = |stream: &Stream| {
            is_any(&self.vhost, stream.vhost())
                && is_any(&self.app, stream.app())
                && is_any(&self.stream, stream.stream())
        };
        (present.has_source || present.had_sources & wanted != 0) && present.nature.streams().any(is_named)
    }
}

/// A bit for each of MediaServer's schemas, and one for all unknown ones.
fn bit_of(schema: &str) -> u16 {
    const SCHEMAS: [&str; 8] = ["rtsp", "rtmp", "fmp4", "ts", "hls", "hls.fmp4", "srt", "rtc"];
    1 << SCHEMAS.iter().position(|its| *its == schema).unwrap_or(15)
}

/// The proxies that may make this source; those whose key is its name are in no index.
fn producers_of(index: &HashMap<Stream, Vec<ProxyKey>>, stream: &Stream) -> impl Iterator<Item = ProxyKey> {
    let named = namers().map(|kind| (kind, Arc::clone(stream.name())));
    named.chain(index.get(stream).into_iter().flatten().cloned())
}

/// Whether the key of a proxy is the name of this source, as it usually is.
fn is_named_by(stream: &Stream, (kind, key): &ProxyKey) -> bool {
    namers().any(|namer| namer == *kind) && key == stream.name()
}

/// The kinds whose keys name what they make.
fn namers() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.info().output == Endpoint::Named)
}

fn add_to<T: std::hash::Hash + Eq + Clone>(index: &mut HashMap<T, Vec<ProxyKey>>, at: &T, key: ProxyKey) {
    // Usually there is only one.
    index.entry(at.clone()).or_insert_with(|| Vec::with_capacity(1)).push(key);
}

fn drop_from<T: std::hash::Hash + Eq>(index: &mut HashMap<T, Vec<ProxyKey>>, at: &T, key: &ProxyKey) {
    if let Some(keys) = index.get_mut(at) {
        keys.retain(|its| its != key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}
