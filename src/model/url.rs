//! Where a stream comes from or goes to, by its URL as MediaServer reads it.

use std::fmt;
use std::net::Ipv6Addr;

use super::stream::{DEFAULT_VHOST, NamingRules, Stream};

/// Endings that HTTP players append to the name of a stream.
const HTTP_ENDINGS: [&str; 6] = [".live.flv", ".flv", ".live.ts", ".live.mp4", "/hls.m3u8", "/hls.fmp4.m3u8"];

struct Parts<'a> {
    /// In lower case.
    scheme: String,
    host: String,
    port: Option<u16>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    /// `None` if there is no host that MediaServer could connect to.
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = host_and_port(address(&scheme, authority))?;
        let port = match port {
            Some(port) => Some(leading_number(port)?),
            None => match scheme.as_str() {
                "rtsp" => Some(554),
                "rtsps" => Some(322),
                "rtmp" => Some(1935),
                "http" | "ws" => Some(80),
                "rtmps" | "https" | "wss" => Some(443),
                "srt" => Some(9000),
                _ => None,
            },
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let host = host.parse().map_or_else(|_| host.to_lowercase(), |v6: Ipv6Addr| v6.to_string());
        (!host.is_empty()).then_some(Parts { scheme, host, port, path, query })
    }

    /// Virtual host, app and stream; `None` if the path is too short.
    fn named(&self) -> Option<(&str, &str, &str)> {
        let (app, stream) = self.path.strip_prefix('/')?.split_once('/')?;
        let stream = match self.scheme.as_str() {
            "http" | "https" | "ws" | "wss" => {
                HTTP_ENDINGS.iter().find_map(|ending| stream.strip_suffix(ending)).unwrap_or(stream)
            }
            _ => stream,
        };
        let vhost = self.query.split('&').find_map(|pair| pair.strip_prefix("vhost=")).unwrap_or(DEFAULT_VHOST);
        (!app.is_empty() && !stream.is_empty()).then_some((vhost, app, stream))
    }
}

/// Host and port from the part before the first slash, as MediaServer reads them. Depending on the scheme, it removes
/// everything up to the last `@` (`RtspUrl::parse`, Common/Parser.cpp:275-287), up to the first
/// (`HttpClient::sendRequest`, Http/HttpClient.cpp:47-65), or nothing (`RtmpPlayer::play`, Rtmp/RtmpPlayer.cpp:56-74;
/// `SrtUrl::parse`, srt/SrtCaller.cpp:35).
fn address<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let without = match scheme {
        "rtmp" | "rtmps" | "srt" => None,
        "http" | "https" => authority.split_once('@'),
        _ => authority.rsplit_once('@'),
    };
    let address = without.map_or(authority, |(_, address)| address);
    // A question mark ends the address. MediaServer connects only if it is after a port, or there is no slash.
    address.split_once('?').map_or(address, |(address, _)| address)
}

/// Reads a port like `sscanf` (`splitUrl`, Common/Parser.cpp:332).
fn leading_number(text: &str) -> Option<u16> {
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    text.get(..digits)?.parse().ok()
}

/// A host with or without a port. `admin:pa` is not an address, since `pa` is not a port.
pub(super) fn is_address(text: &str) -> bool {
    host_and_port(text).is_some_and(|(_, port)| port.is_none_or(|port| port.parse::<u16>().is_ok()))
}

/// A host that cannot be a plain word.
pub(super) fn is_full_host(address: &str) -> bool {
    host_and_port(address).is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost")
}

/// `None` if the brackets of an IPv6 address are not closed.
fn host_and_port(address: &str) -> Option<(&str, Option<&str>)> {
    match address.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']')?;
            Some((host, port.strip_prefix(':')))
        }
        None => Some(address.rsplit_once(':').map_or((address, None), |(host, port)| (host, Some(port)))),
    }
}

/// The schema of the source that MediaServer may pass on directly when it pulls from this URL (`rtsp.directProxy`,
/// `rtmp.directProxy`); `None` if it makes all sources itself.
pub fn direct_schema(url: &str) -> Option<&'static str> {
    let scheme = url.split(':').next().unwrap_or_default();
    let is_any_of = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
    match () {
        () if is_any_of(["rtsp", "rtsps"]) => Some("rtsp"),
        () if is_any_of(["rtmp", "rtmps"]) => Some("rtmp"),
        () => None,
    }
}

/// The host of a URL, in lower case, without credentials and port, if there is one.
pub fn host_of(url: &str) -> Option<String> {
    Parts::of(url).map(|parts| parts.host)
}

/// What MediaServer connects to for a URL.
pub struct Server {
    /// In lower case.
    pub scheme: String,
    /// In lower case, without the brackets of an IPv6 address.
    pub host: String,
    /// As in the URL, or the usual one of the scheme.
    pub port: u16,
    /// Path and query.
    pub target: String,
}

/// `None` if there is no host, or no port is known for the scheme.
pub fn server_of(url: &str) -> Option<Server> {
    let Parts { scheme, host, port, path, query } = Parts::of(url)?;
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    Some(Server { scheme, host, port: port?, target })
}

/// Host and port.
impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let Server { host, port, .. } = self;
        if host.contains(':') { write!(out, "[{host}]:{port}") } else { write!(out, "{host}:{port}") }
    }
}

/// The stream that an FFmpeg source pushes to, if MediaServer takes that for a source of its own: by the address,
/// whatever the port.
pub fn stream_here(url: &str, rules: &NamingRules) -> Option<Stream> {
    let parts = Parts::of(url)?;
    let is_here = matches!(parts.host.as_str(), "127.0.0.1" | "localhost") || rules.hosts.contains(&parts.host);
    let (vhost, app, stream) = parts.named().filter(|_| is_here)?;
    Some(Stream::new(vhost, app, stream, rules))
}

/// `app/stream` of any URL.
pub fn path_of(url: &str) -> Option<String> {
    Parts::of(url)?.named().map(|(_, app, stream)| format!("{app}/{stream}"))
}

/// The stream `vhost/app/stream` of this server that a URL leads to, if it does.
pub fn own_stream_of(url: &str, rules: &NamingRules) -> Option<String> {
    let parts = Parts::of(url)?;
    let is_loopback = || {
        parts.host == "localhost"
            || parts.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    };
    let is_own = parts.port.is_some_and(|port| rules.ports.contains(&port))
        && (is_loopback() || rules.hosts.contains(&parts.host));
    let (vhost, app, stream) = parts.named().filter(|_| is_own)?;
    Some(format!("{vhost}/{app}/{stream}"))
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
            ("rtsp://h?a=b://c", Some("h")),
            ("rtsp://10.0.0.1?x=1", Some("10.0.0.1")),
            ("rtsp://u:p@10.0.0.1/a@b", Some("10.0.0.1")),
            ("rtsp://admin:a#b?c d@10.0.0.1/ch1", Some("10.0.0.1")),
            // What it connects to ends with the first slash, whatever comes behind that.
            ("rtsp://u:p@nvr/x@a.b", Some("nvr")),
            ("RTSP://u:p@nvr/x@a.b:554/c", Some("nvr")),
            ("rtsp://nvr/x@a.b", Some("nvr")),
            ("rtsp://nvr:554/x@a.b", Some("nvr")),
            ("rtsp://admin:1/b@10.0.0.1:554/ch1", Some("admin")),
            ("rtsp://admin:a/b@10.0.0.1:554/ch1", None),
            ("rtsp://10.0.0.1:554?x=/a@b", Some("10.0.0.1")),
            (" rtsp://10.0.0.1/a ", Some("10.0.0.1")),
            ("http://u:p@h/live/a.flv", Some("h")),
            ("http://u@h:80@x/live/a.flv", Some("h")),
            ("rtmp://u:1@h/live/a", Some("u")),
            ("rtmp://u:p@h/live/a", None),
            ("srt://h:9000?streamid=#!::r=live/a@b", Some("h")),
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
    fn a_url_names_a_server_with_its_port() {
        for (url, server) in [
            ("RTSP://admin:p@ss@NVR.local/ch1?x=1", Some(("rtsp", "nvr.local:554", "/ch1?x=1"))),
            ("rtsps://10.0.0.1:8322", Some(("rtsps", "10.0.0.1:8322", ""))),
            (" https://u:p@[FE80::1]/a.flv ", Some(("https", "[fe80::1]:443", "/a.flv"))),
            ("rtp://10.0.0.1/a", None),
            ("rtsp://admin:a/b@10.0.0.1/ch1", None),
            ("/var/film.mp4", None),
        ] {
            let found = server_of(url).map(|it| (it.scheme.clone(), it.to_string(), it.target));
            let found = found.as_ref().map(|(scheme, address, target)| (&**scheme, &**address, &**target));
            assert_eq!(found, server, "{url}");
        }
    }

    #[test]
    fn a_url_that_leads_to_this_server_names_a_stream_of_it() {
        let own = NamingRules { vhosts: true, hosts: vec!["10.0.0.5".into()], ports: vec![554, 1935, 8080] };
        for (url, stream) in [
            ("rtsp://127.0.0.1/live/a", Some("__defaultVhost__/live/a")),
            ("RTSP://127.0.0.1/live/a", Some("__defaultVhost__/live/a")),
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
            assert_eq!(own_stream_of(url, &own).as_deref(), stream, "{url}");
        }
        assert_eq!(own_stream_of("rtsp://127.0.0.1/live/a", &NamingRules::default()), None);
    }
}
