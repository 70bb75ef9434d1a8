//! The kinds of proxy, and how MediaServer handles them. [`Kind::info`] is the table of all differences between kinds.

use serde::{Deserialize, Serialize};

use super::args::Args;
use super::options::{BACKUP_URLS, Options};
use super::{NamingRules, Stream, url};
use crate::error::{Error, Result};

/// A kind of proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Takes a stream from a URL into this server.
    Pull,
    /// Sends a stream of this server to a URL.
    Push,
    /// A process that takes a stream from one URL and sends it to another, mostly of this server.
    Ffmpeg,
}

#[derive(Debug)]
pub struct KindInfo {
    pub name: &'static str,
    pub add: &'static str,
    pub remove: &'static str,
    /// The arguments that an add must have.
    pub required: &'static [&'static str],
    /// The arguments that make the server's key, joined with slashes. The URL of the output is in it as its MD5, in
    /// lower-case hexadecimal.
    pub key: &'static [&'static str],
    /// The argument with the URL that it connects to.
    pub connects_to: &'static str,
    /// Where its stream comes from and where it goes. A proxy that takes a stream of this server by name can be added
    /// only while that exists, and MediaServer ends it for good when that ends. Others end when the stream that they
    /// make on this server is closed.
    pub input: Endpoint,
    pub output: Endpoint,
    /// The argument that renames the stream that it makes (MultiMediaSourceMuxer.cpp). A source that bypasses the
    /// muxer, as with `rtsp.directProxy`, keeps its name.
    pub renames_stream: Option<&'static str>,
    /// Newer versions of MediaServer have `force` for it: with 1, as in a replay, they keep and retry it even if its
    /// first connect fails, such as that of a camera that is off.
    pub has_force: bool,
    /// The arguments that a running proxy can be given anew: its player reads them at each connect (PlayerProxy::update,
    /// the names of namespace Client in Common/config.cpp).
    pub in_place: &'static [&'static str],
    /// It may have further URLs to connect to (`journal_backup_urls`).
    pub has_backups: bool,
    /// It is a process on this machine.
    pub is_process: bool,
    /// The argument that names a key of the ini. If that key is missing, the server silently uses another value.
    pub names_setting: Option<&'static str>,
}

/// What to do with the proxy that MediaServer already has under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Existing {
    /// It is what is wanted.
    Keep,
    /// Give it other arguments in place: its sources, and with `general.resetWhenRePlay=0` their viewers, stay.
    Update,
    /// End it, and add it anew.
    Replace,
}

/// One end of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The stream of this server with the arguments `vhost`, `app` and `stream`.
    Named,
    /// The URL in this argument, which may lead to this server.
    Url(&'static str),
}

impl Kind {
    /// All kinds, in the order of the numbers that the C API has for them.
    pub const ALL: &'static [Kind] = &[Kind::Pull, Kind::Push, Kind::Ffmpeg];

    /// The arguments with URLs.
    pub fn url_args(self) -> impl Iterator<Item = &'static str> {
        let url = |end| match end {
            Endpoint::Url(name) => Some(name),
            Endpoint::Named => None,
        };
        [self.info().input, self.info().output].into_iter().filter_map(url)
    }

    /// How MediaServer handles proxies of this kind.
    pub fn info(self) -> &'static KindInfo {
        match self {
            Kind::Pull => &KindInfo {
                name: "pull",
                add: "addStreamProxy",
                remove: "delStreamProxy",
                required: &["vhost", "app", "stream", "url"],
                key: &["vhost", "app", "stream"],
                connects_to: "url",
                input: Endpoint::Url("url"),
                output: Endpoint::Named,
                renames_stream: Some("stream_replace"),
                has_force: true,
                in_place: &[
                    "url",
                    "timeout_sec",
                    "protocol_timeout_ms",
                    "media_timeout_ms",
                    "beat_interval_ms",
                    "net_adapter",
                    "proxy_url",
                    "custom_header",
                    "play_track",
                    "rtp_type",
                    "rtsp_beat_type",
                    "rtsp_user",
                    "rtsp_pwd",
                    "rtsp_pwd_md5",
                    "rtsp_speed",
                    "latency",
                    "passPhrase",
                ],
                has_backups: true,
                is_process: false,
                names_setting: None,
            },
            Kind::Push => &KindInfo {
                name: "push",
                add: "addStreamPusherProxy",
                remove: "delStreamPusherProxy",
                required: &["schema", "vhost", "app", "stream", "dst_url"],
                key: &["schema", "vhost", "app", "stream", "dst_url"],
                connects_to: "dst_url",
                input: Endpoint::Named,
                output: Endpoint::Url("dst_url"),
                renames_stream: None,
                has_force: false,
                in_place: &[],
                has_backups: false,
                is_process: false,
                names_setting: None,
            },
            Kind::Ffmpeg => &KindInfo {
                name: "ffmpeg",
                add: "addFFmpegSource",
                remove: "delFFmpegSource",
                required: &["src_url", "dst_url", "timeout_ms"],
                key: &["dst_url"],
                connects_to: "src_url",
                input: Endpoint::Url("src_url"),
                output: Endpoint::Url("dst_url"),
                renames_stream: None,
                has_force: false,
                in_place: &[],
                has_backups: false,
                is_process: true,
                names_setting: Some("ffmpeg_cmd_key"),
            },
        }
    }

    /// The name in the API and in the file, such as `pull`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The kind with this name, in lower case; `None` if there is no such kind.
    pub fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The key that the server makes from these arguments.
    pub fn key_of<T: Into<String> + AsRef<[u8]>>(self, value: impl Fn(&str) -> T) -> String {
        let info = self.info();
        let parts = info.key.iter().map(|name| match info.output == Endpoint::Url(name) {
            true => format!("{:x}", md5::compute(value(name))),
            false => value(name).into(),
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// The key that the server makes from these arguments.
    pub fn key_of_args(self, args: &Args) -> String {
        let read = args.read();
        self.key_of(|name| read.get(name).unwrap_or_default())
    }

    /// The key of an add with these arguments; fails if it is no add of this kind that can be journaled.
    pub fn key_of_add(self, args: &Args) -> Result<String> {
        let read = args.read();
        self.check_options(read.pairs())?;
        let value = |name: &str| read.get(name).unwrap_or_default();
        if let Some(missing) = self.info().required.iter().find(|name| value(name).is_empty()) {
            return Err(Error::invalid(format!("Required parameter missed: {missing}")));
        }
        let key = self.key_of(value);
        super::check_key(&key)?;
        Ok(key)
    }

    /// The kind that an API call adds (true) or deletes (false), by its name, ignoring case; `None` for other calls.
    pub fn of_call(name: &str) -> Option<(Kind, bool)> {
        Self::ALL.iter().copied().find_map(|kind| {
            let info = kind.info();
            let is = |call: &str| call.eq_ignore_ascii_case(name);
            if is(info.add) { Some((kind, true)) } else { is(info.remove).then_some((kind, false)) }
        })
    }

    /// Fails if a caller gives arguments of the journal that a proxy of this kind cannot have.
    pub fn check_options<'a>(self, args: impl IntoIterator<Item = (&'a str, &'a [u8])> + Clone) -> Result<()> {
        let mut given =
            args.clone().into_iter().filter(|(name, value)| Options::has(name) && !value.is_empty()).peekable();
        if given.peek().is_none() {
            return Ok(());
        }
        for (name, _) in given {
            if Options::is_noted(name) {
                return Err(Error::invalid(format!("{name} is a note of the journal's own: leave it out")));
            }
            if Options::is_of_backups(name) && !self.info().has_backups {
                return Err(Error::invalid(format!("{name} is for pulls (addStreamProxy) only")));
            }
        }
        let Some(backups) = Options::read(args.clone())?.and_then(|options| options.backups) else {
            return Ok(());
        };
        let first = args.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(self.info().connects_to));
        let is_first = |url: &String| first.is_some_and(|(_, first)| first == url.as_bytes());
        match backups.urls.iter().position(is_first) {
            Some(at) => {
                let why = format!("{BACKUP_URLS}: item {at} (the first is 0) is also the URL that is used first");
                Err(Error::invalid(why))
            }
            None => Ok(()),
        }
    }

    /// The URL from which it last played, or the one that it is added with.
    pub fn url_in_use(self, args: &Args) -> Option<String> {
        let noted = args.in_use().map(|noted| noted.url.clone());
        noted.or_else(|| args.read().get(self.info().connects_to).map(str::to_owned))
    }

    /// `args`, with the note of `before` about the URL that is in use, if they begin with the same URL.
    pub fn with_note_of(self, args: Args, before: &Args) -> Args {
        let first = self.info().connects_to;
        let is_same = || args.read().get(first) == before.read().get(first);
        let in_use = before.in_use().filter(|_| is_same());
        args.noting(in_use).unwrap_or(args)
    }

    /// What to do with a proxy that was made from `before` and is to have `after`, on a server that can change proxies in
    /// place.
    pub fn change(self, before: &Args, after: &Args) -> Existing {
        let (info, from, to) = (self.info(), self.url_in_use(before), self.url_in_use(after));
        let (read, new) = (before.read(), after.read());
        let mut others =
            read.differences(&new).filter(|name| !name.eq_ignore_ascii_case(info.connects_to)).peekable();
        if from == to && others.peek().is_none() {
            return Existing::Keep;
        }
        let can = |name: &str| info.in_place.iter().any(|its| its.eq_ignore_ascii_case(name));
        // What a server passes on directly is not made by the muxer, which stays.
        let direct = |url: Option<&str>| url.and_then(url::direct_schema);
        let is_one_protocol = direct(from.as_deref()) == direct(to.as_deref());
        match can(info.connects_to) && after.may_retry() && is_one_protocol && others.all(can) {
            true => Existing::Update,
            false => Existing::Replace,
        }
    }

    /// The sources of this server that end a proxy when they are closed; none if it makes its stream elsewhere.
    pub fn own_streams<'a>(self, get: impl Fn(&str) -> Option<&'a str>, rules: &NamingRules) -> Vec<Stream> {
        let info = self.info();
        let own = match info.output {
            _ if info.input == Endpoint::Named => None,
            Endpoint::Named => named_stream(&get, rules),
            Endpoint::Url(name) => get(name).and_then(|url| url::stream_here(url, rules)),
        };
        let other = info.renames_stream.and_then(get).filter(|name| !name.is_empty());
        let renamed = own.as_ref().zip(other).map(|(own, name)| own.renamed(name));
        own.into_iter().chain(renamed).collect()
    }

    /// The source of this server that a proxy takes by name, with its schema. When it ends, the proxy ends for good.
    pub fn taken_stream<'a>(
        self,
        get: impl Fn(&str) -> Option<&'a str>,
        rules: &NamingRules,
    ) -> Option<(String, Stream)> {
        if self.info().input != Endpoint::Named {
            return None;
        }
        let schema = get("schema").unwrap_or_default().to_owned();
        named_stream(get, rules).map(|stream| (schema, stream))
    }
}

fn named_stream<'a>(get: impl Fn(&str) -> Option<&'a str>, rules: &NamingRules) -> Option<Stream> {
    Some(Stream::new(get("vhost").unwrap_or_default(), get("app")?, get("stream")?, rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Args;

    fn own_streams(kind: Kind, args: &Args, rules: &NamingRules) -> Vec<Stream> {
        let read = args.read();
        kind.own_streams(|name| read.get(name), rules)
    }

    #[test]
    fn keys_are_made_as_the_server_makes_them() {
        let value = |name: &str| -> &'static str {
            match name {
                "dst_url" => "rtmp://cdn/live/a",
                "schema" => "rtmp",
                "vhost" => "v",
                "app" => "a",
                "stream" => "s",
                _ => "",
            }
        };
        assert_eq!(Kind::Pull.key_of(value), "v/a/s");
        assert_eq!(Kind::Push.key_of(value), format!("rtmp/v/a/s/{}", Kind::Ffmpeg.key_of(value)));
        assert_eq!(Kind::Ffmpeg.key_of(|_| "abc"), "900150983cd24fb0d6963f7d28e17f72", "RFC 1321");
    }

    #[test]
    fn a_proxy_makes_or_takes_the_streams_that_its_arguments_name() {
        let rules = NamingRules { hosts: vec!["10.0.0.5".into()], ..NamingRules::default() };
        let pairs = |url: &str| {
            let pairs =
                [("vhost", "cam.example"), ("app", "a/b"), ("stream", "s"), ("schema", "rtmp"), ("dst_url", url)];
            Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap()
        };
        let here = pairs("rtmp://127.0.0.1/live/x");
        let stream = |app: &str, stream: &str| [Stream::new("", app, stream, &rules)];
        assert_eq!(own_streams(Kind::Pull, &here, &rules), stream("a/b", "s"));
        assert_ne!(own_streams(Kind::Pull, &here, &rules), stream("a", "b/s"));
        let with_vhosts = NamingRules { vhosts: true, ..rules.clone() };
        assert_eq!(own_streams(Kind::Pull, &here, &with_vhosts)[0].to_string(), "cam.example/a/b/s");
        assert_eq!(own_streams(Kind::Push, &here, &rules), []);
        let [taken] = stream("a/b", "s");
        let read = here.read();
        assert_eq!(Kind::Push.taken_stream(|name| read.get(name), &rules), Some(("rtmp".into(), taken)));
        assert_eq!(own_streams(Kind::Ffmpeg, &here, &rules), stream("live", "x"));
        for local in
            ["rtmp://localhost:1936/live/x?token=1", "rtmp://10.0.0.5/live/x", "rtmp://127.0.0.1/live/x?vhost=v"]
        {
            assert_eq!(own_streams(Kind::Ffmpeg, &pairs(local), &rules), stream("live", "x"), "{local}");
        }
        assert_eq!(own_streams(Kind::Ffmpeg, &pairs("rtmp://cdn/live/x"), &rules), []);
    }

    #[test]
    fn a_pull_that_is_given_another_name_has_both() {
        let rules = NamingRules::default();
        let named = |replaced: &str| {
            let pairs = [("app", "live"), ("stream", "s"), ("stream_replace", replaced)];
            let args = Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            let streams = own_streams(Kind::Pull, &args.unwrap(), &rules);
            streams.into_iter().map(|stream| stream.stream().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(named("t"), ["s", "t"]);
        assert_eq!(named(""), ["s"]);
    }

    #[test]
    fn only_what_a_player_reads_at_each_connect_changes_in_place() {
        let args = |more: &[(&str, &str)]| {
            let base = [("vhost", "v"), ("app", "live"), ("stream", "s"), ("url", "rtsp://1/a")];
            let mut pairs = base.to_vec();
            pairs.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
            pairs.extend(more);
            Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap()
        };
        let change =
            |before: &[(&str, &str)], after: &[(&str, &str)]| Kind::Pull.change(&args(before), &args(after));
        let (keep, update, replace) = (Existing::Keep, Existing::Update, Existing::Replace);
        for (before, after, what) in [
            (&[][..], &[][..], keep),
            (&[], &[("journal_label", "a")], keep),
            (&[], &[("url", "rtsp://2/b")], update),
            (&[("rtp_type", "1")], &[("Timeout_Sec", "3"), ("url", "RTSPS://2/b")], update),
            (&[], &[("retry_count", "-1"), ("url", "rtsp://2/b")], replace),
            (&[("retry_count", "3")], &[("retry_count", "3"), ("url", "rtsp://2/b")], update),
            (&[("retry_count", "0")], &[("retry_count", "0"), ("url", "rtsp://2/b")], replace),
            (&[("retry_count", "many")], &[("retry_count", "many"), ("url", "rtsp://2/b")], replace),
            (&[], &[("url", "rtmp://2/b")], replace),
            (&[("url", "http://1/a.flv")], &[("url", "http://1/a.m3u8")], update),
            (&[], &[("enable_mp4", "1")], replace),
            (&[], &[("url", "rtsp://2/b"), ("enable_mp4", "1")], replace),
        ] {
            assert_eq!(change(before, after), what, "{before:?} to {after:?}");
        }
        let push = |url| args(&[("dst_url", url)]);
        assert_eq!(Kind::Push.change(&push("rtmp://1/a"), &push("rtmp://1/b")), replace);
    }

    #[test]
    fn the_url_that_is_in_use_is_what_changes() {
        let args = |more: &[(&str, &str)]| {
            let base = [("url", "rtsp://a/1"), ("journal_backup_urls", r#"["rtsp://b/1","rtmp://c/live/1"]"#)];
            let pairs = [&base[..], more].concat();
            Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap()
        };
        let from = |url: &str| args(&[("journal_url_in_use", url)]);
        let change = |before: &Args, after: &Args| Kind::Pull.change(before, after);
        assert_eq!(Kind::Pull.url_in_use(&args(&[])).as_deref(), Some("rtsp://a/1"));
        assert_eq!(Kind::Pull.url_in_use(&from("rtsp://b/1")).as_deref(), Some("rtsp://b/1"));
        assert_eq!(change(&from("rtsp://b/1"), &from("rtsp://b/1")), Existing::Keep);
        assert_eq!(change(&args(&[]), &from("rtsp://b/1")), Existing::Update);
        assert_eq!(change(&args(&[]), &from("rtmp://c/live/1")), Existing::Replace);
    }

    #[test]
    fn only_pulls_have_backups_and_nobody_notes_which_is_in_use() {
        let check = |kind: Kind, pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (*name, value.as_bytes()));
            kind.check_options(pairs).map_err(|error| error.message)
        };
        let backups = ("journal_backup_urls", r#"["rtsp://b/1"]"#);
        assert_eq!(check(Kind::Pull, &[("url", "rtsp://a/1"), backups, ("journal_url_why", "")]), Ok(()));
        for (kind, pairs, part) in [
            (Kind::Push, [("dst_url", "rtsp://a/1"), backups], "for pulls"),
            (Kind::Ffmpeg, [("src_url", "rtsp://a/1"), ("Journal_Failback", "never")], "for pulls"),
            (Kind::Pull, [("url", "rtsp://b/1"), backups], "item 0"),
            (Kind::Pull, [("url", "rtsp://a/1"), ("journal_url_since", "1")], "journal's own"),
        ] {
            let why = check(kind, &pairs).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_call_is_found_by_its_name_in_any_case() {
        assert_eq!(Kind::of_call("AddstreamPROXY"), Some((Kind::Pull, true)));
        assert_eq!(Kind::of_call("delFFmpegSource"), Some((Kind::Ffmpeg, false)));
        assert_eq!(Kind::of_call("close_stream"), None);
    }
}
