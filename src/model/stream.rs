//! The names of media sources, and how MediaServer derives them from arguments.

use std::fmt;
use std::sync::Arc;

/// The virtual host of a stream without one.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";

/// The name of a media source, without its schema. `a/b` + `c` is not equal to `a` + `b/c`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stream {
    /// `vhost/app/stream`: one allocation, since there is one for each proxy.
    name: Arc<str>,
    /// The offsets of app and stream.
    app: u32,
    stream: u32,
}

/// MediaServer's settings and addresses that decide which source a proxy makes or takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamingRules {
    /// `general.enableVhost`. If false, every source has the default virtual host.
    pub vhosts: bool,
    /// The machine's own addresses other than loopback: FFmpeg pushes to them make sources of this server
    /// (FFmpegSource.cpp, is_local_ip).
    pub hosts: Vec<String>,
    /// The ports on which streams are played or pushed. If there are none, no URL is known to lead to this server.
    pub ports: Vec<u16>,
}

impl Stream {
    /// The name that the server gives to a source with these parts.
    pub fn new(vhost: &str, app: &str, stream: &str, rules: &NamingRules) -> Stream {
        let vhost = if rules.vhosts && !vhost.is_empty() { vhost } else { DEFAULT_VHOST };
        Self::of(vhost, app, stream)
    }

    /// The same source with another stream name.
    pub fn renamed(&self, stream: &str) -> Stream {
        Self::of(self.vhost(), self.app(), stream)
    }

    fn of(vhost: &str, app: &str, stream: &str) -> Stream {
        // Requests are far shorter than 4 GiB.
        let place = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Stream {
            name: format!("{vhost}/{app}/{stream}").into(),
            app: place(vhost.len() + 1),
            stream: place(vhost.len() + app.len() + 2),
        }
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        self.part(0, self.app)
    }

    /// The app.
    pub fn app(&self) -> &str {
        self.part(self.app, self.stream)
    }

    /// The name within the app.
    pub fn stream(&self) -> &str {
        self.name.get(self.stream as usize..).unwrap_or_default()
    }

    /// `app/stream`.
    pub fn path(&self) -> &str {
        self.name.get(self.app as usize..).unwrap_or_default()
    }

    /// `vhost/app/stream`, which may be that of another stream too if a part has a slash.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Lets it share this copy of its name.
    pub fn share(&mut self, name: &Arc<str>) {
        if self.name == *name {
            self.name = Arc::clone(name);
        }
    }

    fn part(&self, from: u32, next: u32) -> &str {
        self.name.get(from as usize..(next as usize).saturating_sub(1)).unwrap_or_default()
    }
}

impl fmt::Display for Stream {
    /// `vhost/app/stream`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_the_parts_that_it_was_made_of() {
        let rules = NamingRules { vhosts: true, ..NamingRules::default() };
        for (vhost, app, stream) in [("v", "a/b", "c"), ("v", "a", "b/c"), ("v/a", "b", "c"), ("\u{4e2d}", "", "")]
        {
            let named = Stream::new(vhost, app, stream, &rules);
            assert_eq!((named.vhost(), named.app(), named.stream()), (vhost, app, stream));
            assert_eq!(named.to_string(), format!("{vhost}/{app}/{stream}"));
            assert_eq!(named.path(), format!("{app}/{stream}"));
            assert_eq!(named.renamed("d"), Stream::new(vhost, app, "d", &rules));
        }
        assert_ne!(Stream::new("v", "a/b", "c", &rules), Stream::new("v", "a", "b/c", &rules));
    }
}
