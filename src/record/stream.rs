//! A media source as MediaServer knows it, and how it comes to that from what a caller wrote.

use std::fmt;

/// The virtual host of a stream that names none.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";

/// The name of a media source, whatever its schema. Its parts are kept apart: `a/b` + `c` is not `a` + `b/c`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stream {
    pub vhost: Box<str>,
    pub app: Box<str>,
    pub stream: Box<str>,
}

/// What of MediaServer's settings and addresses decides which source a proxy makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamingRules {
    /// `general.enableVhost`. Off, every source has the default virtual host, whatever its caller named.
    pub vhosts: bool,
    /// The machine's own addresses besides the loopback ones: what FFmpeg pushes there is a source of this server
    /// (FFmpegSource.cpp, is_local_ip).
    pub hosts: Vec<String>,
}

impl Stream {
    /// As the server names a source with these parts.
    pub fn new(vhost: &str, app: &str, stream: &str, rules: &NamingRules) -> Stream {
        let vhost = if rules.vhosts && !vhost.is_empty() { vhost } else { DEFAULT_VHOST };
        Stream { vhost: vhost.into(), app: app.into(), stream: stream.into() }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}", self.vhost, self.app, self.stream)
    }
}
