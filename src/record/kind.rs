//! The kinds of proxy that are journaled, and what MediaServer calls what they do. [`Kind::info`] is the one table that
//! says all about each; a further kind is one more row.

use super::args::Args;
use super::{NamingRules, Stream, url};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Pull,
    Push,
    Ffmpeg,
}

/// One row of the table.
#[derive(Debug)]
pub struct KindInfo {
    pub name: &'static str,
    pub add: &'static str,
    pub remove: &'static str,
    pub list: &'static str,
    /// The arguments that an add must have.
    pub required: &'static [&'static str],
    /// What the server makes the key of, with slashes between.
    pub key: &'static [Part],
    /// Arguments that a replay sets on top of the recorded ones. `force=1` makes MediaServer keep a pull whose
    /// first connect fails, so that a camera that is off at boot is retried instead of dropped.
    pub replay: &'static [(&'static str, &'static str)],
    /// The argument with the URL that it connects to.
    pub connects_to: &'static str,
    /// Where its stream comes from and where it goes. What takes a stream of this server by name can be added only
    /// while that is there, and MediaServer ends it for good when that goes.
    pub takes: End,
    pub makes: End,
    /// MediaServer ends the proxy when the stream that it makes on this server is closed.
    pub ends_with_its_stream: bool,
    /// MediaServer may know `force` of it: then it stays whatever becomes of its first connect.
    pub has_force: bool,
    /// Each is a process on this machine.
    pub is_process: bool,
    /// The argument that names a key of the ini, without which the server would take another value silently.
    pub names_setting: Option<&'static str>,
}

/// A part of a key.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// The value of this argument.
    Value(&'static str),
    /// The MD5 of it, in lower-case hexadecimal.
    Md5(&'static str),
}

impl Part {
    pub fn argument(self) -> &'static str {
        let (Part::Value(name) | Part::Md5(name)) = self;
        name
    }
}

/// One end of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The stream of this server that the arguments `vhost`, `app` and `stream` name.
    Named,
    /// What the URL in this argument leads to: often, but not always, somewhere else.
    Url(&'static str),
}

impl Kind {
    pub const ALL: &'static [Kind] = &[Kind::Pull, Kind::Push, Kind::Ffmpeg];

    pub fn info(self) -> &'static KindInfo {
        match self {
            Kind::Pull => &KindInfo {
                name: "pull",
                add: "addStreamProxy",
                remove: "delStreamProxy",
                list: "listStreamProxy",
                required: &["vhost", "app", "stream", "url"],
                key: &[Part::Value("vhost"), Part::Value("app"), Part::Value("stream")],
                replay: &[("force", "1")],
                connects_to: "url",
                takes: End::Url("url"),
                makes: End::Named,
                ends_with_its_stream: true,
                has_force: true,
                is_process: false,
                names_setting: None,
            },
            Kind::Push => &KindInfo {
                name: "push",
                add: "addStreamPusherProxy",
                remove: "delStreamPusherProxy",
                list: "listStreamPusherProxy",
                required: &["schema", "vhost", "app", "stream", "dst_url"],
                key: &[
                    Part::Value("schema"),
                    Part::Value("vhost"),
                    Part::Value("app"),
                    Part::Value("stream"),
                    Part::Md5("dst_url"),
                ],
                replay: &[],
                connects_to: "dst_url",
                takes: End::Named,
                makes: End::Url("dst_url"),
                ends_with_its_stream: false,
                has_force: false,
                is_process: false,
                names_setting: None,
            },
            Kind::Ffmpeg => &KindInfo {
                name: "ffmpeg",
                add: "addFFmpegSource",
                remove: "delFFmpegSource",
                list: "listFFmpegSource",
                required: &["src_url", "dst_url", "timeout_ms"],
                key: &[Part::Md5("dst_url")],
                replay: &[],
                connects_to: "src_url",
                takes: End::Url("src_url"),
                makes: End::Url("dst_url"),
                ends_with_its_stream: true,
                has_force: false,
                is_process: true,
                names_setting: Some("ffmpeg_cmd_key"),
            },
        }
    }

    pub fn name(self) -> &'static str {
        self.info().name
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The key that the server gives to what these arguments make.
    pub fn key_of<'a>(self, value: impl Fn(&str) -> &'a str) -> String {
        let parts = self.info().key.iter().map(|part| match part {
            Part::Value(name) => value(name).to_owned(),
            Part::Md5(name) => format!("{:x}", md5::compute(value(name))),
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// True where the key of a proxy is the stream `vhost/app/stream` that it makes.
    pub fn key_is_stream(self) -> bool {
        self.info().makes == End::Named
    }

    /// The kind that an API call adds (true) or deletes (false), by its name in any case; none for any other call.
    pub fn of_call(name: &str) -> Option<(Kind, bool)> {
        Self::ALL.iter().copied().find_map(|kind| {
            let info = kind.info();
            let is = |call: &str| call.eq_ignore_ascii_case(name);
            if is(info.add) { Some((kind, true)) } else { is(info.remove).then_some((kind, false)) }
        })
    }

    /// The source of this server with whose close a proxy ends; none where it makes its stream elsewhere.
    pub fn own_stream(self, args: &Args, rules: &NamingRules) -> Option<Stream> {
        let read = args.read();
        self.own_stream_of(|name| read.get(name), rules)
    }

    /// The same of arguments that are looked up otherwise.
    pub fn own_stream_of<'a>(self, get: impl Fn(&str) -> Option<&'a str>, rules: &NamingRules) -> Option<Stream> {
        let info = self.info();
        match info.makes {
            _ if !info.ends_with_its_stream => None,
            End::Named => named_stream(get, rules),
            End::Url(name) => url::stream_here(get(name)?, rules),
        }
    }

    /// The source of this server that a proxy takes by name, with its schema: with its end the proxy ends for good.
    pub fn taken_stream(self, args: &Args, rules: &NamingRules) -> Option<(String, Stream)> {
        let read = args.read();
        self.taken_stream_of(|name| read.get(name), rules)
    }

    /// The same of arguments that are looked up otherwise.
    pub fn taken_stream_of<'a>(
        self,
        get: impl Fn(&str) -> Option<&'a str>,
        rules: &NamingRules,
    ) -> Option<(String, Stream)> {
        if self.info().takes != End::Named {
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
    fn the_stream_that_a_proxy_ends_with() {
        let rules = NamingRules { vhosts: false, hosts: vec!["10.0.0.5".into()] };
        let pairs = |url: &str| {
            let pairs =
                [("vhost", "cam.example"), ("app", "a/b"), ("stream", "s"), ("schema", "rtmp"), ("dst_url", url)];
            Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap()
        };
        let here = pairs("rtmp://127.0.0.1/live/x");
        let stream = |app: &str, stream: &str| Some(Stream::new("", app, stream, &rules));
        assert_eq!(Kind::Pull.own_stream(&here, &rules), stream("a/b", "s"));
        assert_ne!(Kind::Pull.own_stream(&here, &rules), stream("a", "b/s"));
        let with_vhosts = NamingRules { vhosts: true, ..rules.clone() };
        assert_eq!(Kind::Pull.own_stream(&here, &with_vhosts).unwrap().to_string(), "cam.example/a/b/s");
        assert_eq!(Kind::Push.own_stream(&here, &rules), None);
        assert_eq!(
            Kind::Push.taken_stream(&here, &rules),
            stream("a/b", "s").map(|stream| ("rtmp".into(), stream))
        );
        assert_eq!(Kind::Ffmpeg.own_stream(&here, &rules), stream("live", "x"));
        for local in
            ["rtmp://localhost:1936/live/x?token=1", "rtmp://10.0.0.5/live/x", "rtmp://127.0.0.1/live/x?vhost=v"]
        {
            assert_eq!(Kind::Ffmpeg.own_stream(&pairs(local), &rules), stream("live", "x"), "{local}");
        }
        assert_eq!(Kind::Ffmpeg.own_stream(&pairs("rtmp://cdn/live/x"), &rules), None);
    }

    #[test]
    fn a_call_is_found_by_its_name_in_any_case() {
        assert_eq!(Kind::of_call("AddstreamPROXY"), Some((Kind::Pull, true)));
        assert_eq!(Kind::of_call("delFFmpegSource"), Some((Kind::Ffmpeg, false)));
        assert_eq!(Kind::of_call("close_stream"), None);
    }
}
