//! The kinds of proxy that are journaled, and what MediaServer calls what they do. [`Kind::info`] is the one table that
//! says all about each; a further kind is one more row.

use super::args::Args;
use super::url;

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
    /// Tells whether a key is there (code 0) without listing them all. Empty where the server has no such call.
    pub find: &'static str,
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
    /// An add of what is there already is answered with success, and changes nothing.
    pub again_is_success: bool,
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
                find: "getProxyInfo",
                required: &["vhost", "app", "stream", "url"],
                key: &[Part::Value("vhost"), Part::Value("app"), Part::Value("stream")],
                replay: &[("force", "1")],
                connects_to: "url",
                takes: End::Url("url"),
                makes: End::Named,
                ends_with_its_stream: true,
                again_is_success: false,
                is_process: false,
                names_setting: None,
            },
            Kind::Push => &KindInfo {
                name: "push",
                add: "addStreamPusherProxy",
                remove: "delStreamPusherProxy",
                list: "listStreamPusherProxy",
                find: "getProxyPusherInfo",
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
                again_is_success: true,
                is_process: false,
                names_setting: None,
            },
            Kind::Ffmpeg => &KindInfo {
                name: "ffmpeg",
                add: "addFFmpegSource",
                remove: "delFFmpegSource",
                list: "listFFmpegSource",
                find: "",
                required: &["src_url", "dst_url", "timeout_ms"],
                key: &[Part::Md5("dst_url")],
                replay: &[],
                connects_to: "src_url",
                takes: End::Url("src_url"),
                makes: End::Url("dst_url"),
                ends_with_its_stream: true,
                again_is_success: true,
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

    /// The stream `vhost/app/stream` of this server with which a proxy ends; none where it makes its stream elsewhere.
    pub fn own_stream(self, key: &str, args: &Args) -> Option<String> {
        let info = self.info();
        match info.makes {
            _ if !info.ends_with_its_stream => None,
            End::Named => Some(key.to_owned()),
            End::Url(name) => args.read().get(name).and_then(url::stream_here),
        }
    }
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
        let args = |url: &str| Args::from_pairs([(b"dst_url".as_slice(), url.as_bytes())]).unwrap();
        let here = args("rtmp://127.0.0.1/live/x");
        assert_eq!(Kind::Pull.own_stream("v/a/s", &here).as_deref(), Some("v/a/s"));
        assert_eq!(Kind::Push.own_stream("rtmp/v/a/s/0", &here), None);
        assert_eq!(Kind::Ffmpeg.own_stream("0", &here).as_deref(), Some("__defaultVhost__/live/x"));
        assert_eq!(Kind::Ffmpeg.own_stream("0", &args("rtmp://cdn/live/x")), None);
    }
}
