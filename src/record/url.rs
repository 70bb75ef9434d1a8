//! What a URL says of where a stream comes from or goes to, as MediaServer reads it.

use std::net::Ipv6Addr;

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
    /// None where there is no host.
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let Authority { address, rest, .. } = authority(rest);
        let (host, port) = host_and_port(address)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let port = port.and_then(|port| port.parse().ok()).or(match scheme {
            "rtsp" => Some(554),
            "rtsps" => Some(322),
            "rtmp" => Some(1935),
            "http" | "ws" => Some(80),
            "rtmps" | "https" | "wss" => Some(443),
            "srt" => Some(9000),
            _ => None,
        });
        let host = host.parse().map_or_else(|_| host.to_lowercase(), |v6: Ipv6Addr| v6.to_string());
        (!host.is_empty()).then_some(Parts { scheme, host, port, path, query })
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

/// What stands behind the `://` of a URL.
pub(super) struct Authority<'a> {
    /// With its `@`; empty where there are none.
    pub credentials: &'a str,
    pub address: &'a str,
    /// Path and query.
    pub rest: &'a str,
}

/// As MediaServer reads it (`RtspUrl::parse` in Parser.cpp): all up to the first slash, and of that up to the last `@`, are
/// credentials. Where that leaves no address, a password has a slash in it, and they end with the last `@` before one.
pub(super) fn authority(text: &str) -> Authority<'_> {
    let (authority, _) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (mut credentials, _) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let address = |credentials: &str| {
        let (_, rest) = text.split_at(credentials.len());
        rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
    };
    let (read, _) = address(credentials);
    let is_certain = if credentials.is_empty() { is_address(read) } else { is_full_address(read) };
    if !is_certain {
        let last = last_credentials(text);
        if last.len() > credentials.len() {
            credentials = last;
        }
    }
    let (address, rest) = address(credentials);
    Authority { credentials, address, rest }
}

/// What may be credentials, up to the last `@` with a full address behind it; empty where there is none.
pub(super) fn last_credentials(text: &str) -> &str {
    let is_before_address = |at: &usize| {
        let (_, behind) = text.split_at(at + 1);
        is_full_address(
            behind
                .split(|sign: char| sign.is_whitespace() || matches!(sign, '@' | '/' | '?' | '#'))
                .next()
                .unwrap_or_default(),
        )
    };
    let last = text.match_indices('@').map(|(at, _)| at).rfind(is_before_address);
    text.split_at(last.map_or(0, |at| at + 1)).0
}

/// What stands behind a `://` cannot be the first half of credentials.
pub(super) fn is_whole(text: &str) -> bool {
    let Authority { address, rest, .. } = authority(text);
    is_address(address) && (rest.starts_with('/') || is_full_host(address))
}

/// A host, and a port or none. `admin:pa` is none, since that is no port.
fn is_address(text: &str) -> bool {
    host_and_port(text).is_some_and(|(_, port)| port.is_none_or(|port| port.parse::<u16>().is_ok()))
}

/// One that no word is.
fn is_full_address(text: &str) -> bool {
    is_address(text) && (text.contains(':') || is_full_host(text))
}

fn is_full_host(address: &str) -> bool {
    host_and_port(address).is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost")
}

/// None where the brackets of an IPv6 address are not closed.
fn host_and_port(address: &str) -> Option<(&str, Option<&str>)> {
    match address.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']')?;
            Some((host, port.strip_prefix(':')))
        }
        None => Some(address.rsplit_once(':').map_or((address, None), |(host, port)| (host, Some(port)))),
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
            ("rtsp://10.0.0.1?x=1", Some("10.0.0.1")),
            ("rtsp://u:p@10.0.0.1/a@b", Some("10.0.0.1")),
            ("rtsp://admin:a#b?c d@10.0.0.1/ch1", Some("10.0.0.1")),
            ("rtsp://admin:a/b@10.0.0.1:554/ch1", Some("10.0.0.1")),
            ("rtsp://u:p@[FE80:0::1]/a", Some("fe80::1")),
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
}
