//! What a URL says of where a stream comes from or goes to, as MediaServer reads it.

use super::stream::{DEFAULT_VHOST, NamingRules, Stream};

/// What players of a stream over HTTP put behind its name.
const HTTP_ENDINGS: [&str; 6] = [".live.flv", ".flv", ".live.ts", ".live.mp4", "/hls.m3u8", "/hls.fmp4.m3u8"];

struct Parts<'a> {
    scheme: &'a str,
    host: String,
    port: Option<u16>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    /// None where there is no host. The authority ends at the first slash, and the credentials at its last `@`.
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let address = authority.rsplit('@').next()?;
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => v6.split_once(']')?,
            None => address.split_at(address.find(':').unwrap_or(address.len())),
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let port = port.strip_prefix(':').and_then(|port| port.parse().ok()).or(match scheme {
            "rtsp" => Some(554),
            "rtsps" => Some(322),
            "rtmp" => Some(1935),
            "http" | "ws" => Some(80),
            "rtmps" | "https" | "wss" => Some(443),
            "srt" => Some(9000),
            _ => None,
        });
        (!host.is_empty()).then(|| Parts { scheme, host: host.to_lowercase(), port, path, query })
    }

    /// Virtual host, app and stream; none where the path is too short for that.
    fn named(&self) -> Option<(&str, &str, &str)> {
        let (app, stream) = self.path.strip_prefix('/')?.split_once('/')?;
        let stream = match self.scheme {
            "http" | "https" | "ws" | "wss" => {
                HTTP_ENDINGS.iter().find_map(|ending| stream.strip_suffix(ending)).unwrap_or(stream)
            }
            _ => stream,
        };
        let vhost = self.query.split('&').find_map(|pair| pair.strip_prefix("vhost=")).unwrap_or(DEFAULT_VHOST);
        (!app.is_empty() && !stream.is_empty()).then_some((vhost, app, stream))
    }

    /// `vhost/app/stream`.
    fn stream(&self) -> Option<String> {
        self.named().map(|(vhost, app, stream)| format!("{vhost}/{app}/{stream}"))
    }
}

/// The host in a URL, in lower case, without credentials and port; none where there is none.
pub fn host_of(url: &str) -> Option<String> {
    Parts::of(url).map(|parts| parts.host)
}

/// The stream that an FFmpeg source pushes to, where MediaServer takes that for a source of its own: by the address,
/// whatever the port.
pub fn stream_here(url: &str, rules: &NamingRules) -> Option<Stream> {
    let parts = Parts::of(url)?;
    let is_here = matches!(parts.host.as_str(), "127.0.0.1" | "localhost") || rules.hosts.contains(&parts.host);
    let (vhost, app, stream) = parts.named().filter(|_| is_here)?;
    Some(Stream::new(vhost, app, stream, rules))
}

/// `app/stream` of a URL, wherever that leads.
pub fn path_of(url: &str) -> Option<String> {
    Parts::of(url)?.named().map(|(_, app, stream)| format!("{app}/{stream}"))
}

/// Where this server can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddress {
    /// Besides the loopback ones.
    pub hosts: Vec<String>,
    /// On which streams are played or pushed. None: then no URL leads to this server, as far as we know.
    pub ports: Vec<u16>,
}

impl OwnAddress {
    /// The stream `vhost/app/stream` of this server that a URL leads to; none where it leads elsewhere.
    pub fn stream_of(&self, url: &str) -> Option<String> {
        let parts = Parts::of(url)?;
        let is_loopback = || {
            parts.host == "localhost"
                || parts.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        };
        let is_own = parts.port.is_some_and(|port| self.ports.contains(&port))
            && (is_loopback() || self.hosts.contains(&parts.host));
        if is_own { parts.stream() } else { None }
    }
}

/// The text with the credentials in its URLs (`rtsp://user:password@host`) as `***`. A password may hold any sign that
/// a careless operator has left in it, so all up to the last `@` of the word is taken for one.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        // What quotes a URL ends it.
        let end =
            after.find(|sign: char| sign.is_whitespace() || matches!(sign, '"' | '\'')).unwrap_or(after.len());
        let (word, behind) = after.split_at(end);
        match word.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str("***@");
                shown.push_str(host);
            }
            None => shown.push_str(word),
        }
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_known_by_its_host() {
        for (url, host) in [
            ("rtsp://10.0.0.1/a@b", Some("10.0.0.1")),
            ("rtsp://admin:p@ss@NVR.local:554/ch1?x=1", Some("nvr.local")),
            ("rtmp://[fe80::1]:1935/live/a", Some("fe80::1")),
            ("http://h?a=b://c", Some("h")),
            ("srt://:9000", None),
            ("rtsp://u@/x", None),
            ("rtsp://[::1", None),
            ("/var/film.mp4", None),
            ("", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }

    #[test]
    fn a_url_that_leads_to_this_server_names_a_stream_of_it() {
        let own = OwnAddress { hosts: vec!["10.0.0.5".into()], ports: vec![554, 1935, 8080] };
        for (url, stream) in [
            ("rtsp://127.0.0.1/live/a", Some("__defaultVhost__/live/a")),
            ("rtsp://u:p@localhost:554/live/a/b?x=/y/z", Some("__defaultVhost__/live/a/b")),
            ("rtmp://10.0.0.5/live/a?token=1&vhost=site", Some("site/live/a")),
            ("http://[::1]:8080/live/a.live.flv", Some("__defaultVhost__/live/a")),
            ("http://127.1.2.3:8080/live/a/hls.m3u8", Some("__defaultVhost__/live/a")),
            ("rtsp://127.0.0.1:8554/live/a", None),
            ("rtsp://10.0.0.6/live/a", None),
            ("rtsp://127.0.0.1/live", None),
            ("rtsp://127.0.0.1/live/", None),
            ("udp://127.0.0.1/live/a", None),
        ] {
            assert_eq!(own.stream_of(url).as_deref(), stream, "{url}");
        }
        assert_eq!(OwnAddress::default().stream_of("rtsp://127.0.0.1/live/a"), None);
    }

    #[test]
    fn credentials_are_not_shown() {
        for (text, shown) in [
            ("no url", "no url"),
            ("rtsp://10.0.0.1/a@b is off", "rtsp://***@b is off"),
            (
                "cannot pull rtsp://admin:p@ss/w?rd@10.0.0.1:554/ch1: 401",
                "cannot pull rtsp://***@10.0.0.1:554/ch1: 401",
            ),
            ("\"rtmp://u:p@h/a\" and 'rtsp://v:q@i/b'", "\"rtmp://***@h/a\" and 'rtsp://***@i/b'"),
            ("rtsp://x://u:p@h", "rtsp://***@h"),
            ("://", "://"),
            ("摄像头 rtsp://管理:密码@摄像头/一 坏", "摄像头 rtsp://***@摄像头/一 坏"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
