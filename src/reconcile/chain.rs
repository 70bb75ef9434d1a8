//! Which proxies feed each other through this server, and which of them form a loop. Pure.

use std::collections::{HashMap, HashSet};

use crate::model::url::own_stream_of;
use crate::model::{Endpoint, NamingRules, ProxyKey, Read};

/// A proxy whose input and output are both streams of this server.
struct Link {
    input: String,
    output: String,
}

#[derive(Default)]
pub struct Chains {
    rules: NamingRules,
    links: HashMap<ProxyKey, Link>,
    /// The proxies in a loop, each with a description of its loop.
    circles: HashMap<ProxyKey, String>,
    /// Those that `news` has reported.
    told: HashSet<ProxyKey>,
    /// The loops must be computed again.
    changed: bool,
}

impl Chains {
    pub fn new(rules: NamingRules) -> Self {
        Self { rules, ..Self::default() }
    }

    pub fn add(&mut self, key: &ProxyKey, args: &Read) {
        let info = key.0.info();
        let stream = |end: Endpoint| match end {
            Endpoint::Url(name) => own_stream_of(args.get(name)?, &self.rules),
            Endpoint::Named => {
                Some(format!("{}/{}/{}", args.get("vhost")?, args.get("app")?, args.get("stream")?))
            }
        };
        // Most proxies have an input or output elsewhere.
        if let (Some(input), Some(output)) = (stream(info.input), stream(info.output)) {
            self.links.insert(key.clone(), Link { input, output });
            self.changed = true;
        }
    }

    /// A pull takes its stream from another URL.
    pub fn redirect(&mut self, key: &ProxyKey, url: &str) {
        self.remove(key);
        if let Some(input) = own_stream_of(url, &self.rules) {
            // Its key names its output.
            self.links.insert(key.clone(), Link { input, output: key.1.to_string() });
            self.changed = true;
        }
    }

    pub fn remove(&mut self, key: &ProxyKey) {
        self.changed |= self.links.remove(key).is_some();
    }

    /// Proxies that are new in a loop since the last call, with a description, and those that no longer are in one.
    pub fn news(&mut self) -> (Vec<(ProxyKey, String)>, Vec<ProxyKey>) {
        self.find_circles();
        let Self { circles, told, .. } = self;
        let closed = circles.iter().filter(|(key, _)| !told.contains(*key));
        let closed = closed.map(|(key, circle)| (key.clone(), circle.clone())).collect();
        let opened = told.iter().filter(|key| !circles.contains_key(*key)).cloned().collect();
        *told = circles.keys().cloned().collect();
        (closed, opened)
    }

    /// A description of the loop that a proxy is in, if any.
    pub fn circle(&mut self, key: &ProxyKey) -> Option<&str> {
        self.find_circles();
        self.circles.get(key).map(String::as_str)
    }

    /// Proxies that no proxy feeds, or that feed none, are in no loop; they are removed until none is left.
    fn find_circles(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut left: HashMap<&ProxyKey, &Link> = self.links.iter().collect();
        loop {
            let made: HashSet<&str> = left.values().map(|link| link.output.as_str()).collect();
            let taken: HashSet<&str> = left.values().map(|link| link.input.as_str()).collect();
            let before = left.len();
            left.retain(|_, link| made.contains(link.input.as_str()) && taken.contains(link.output.as_str()));
            if left.len() == before {
                break;
            }
        }
        // Those that remain are in a loop, or between two.
        let mut feeds: HashMap<&str, Vec<&str>> = HashMap::new();
        for link in left.values() {
            feeds.entry(&link.input).or_default().push(&link.output);
        }
        feeds.values_mut().for_each(|streams| streams.sort_unstable());
        let circles = left.iter().filter_map(|(key, link)| {
            way(&feeds, &link.output, &link.input).map(|way| {
                let way: Vec<&str> = std::iter::once(link.input.as_str()).chain(way).collect();
                ((*key).clone(), format!("proxy loop: {}", way.join(" → ")))
            })
        });
        self.circles = circles.collect();
    }
}

/// A shortest path of streams from one to another, both included.
fn way<'a>(feeds: &HashMap<&'a str, Vec<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut met = HashSet::from([from]);
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = *way.last()?;
            if last == to {
                return Some(way);
            }
            for next in feeds.get(last).into_iter().flatten() {
                if met.insert(next) {
                    longer.push(way.iter().copied().chain([*next]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Args, Kind};

    fn chains() -> Chains {
        Chains::new(NamingRules { ports: vec![1935], ..NamingRules::default() })
    }

    fn pull(chains: &mut Chains, stream: &str, url: &str) -> ProxyKey {
        add(chains, Kind::Pull, stream, &[("app", "live"), ("stream", stream), ("url", url)])
    }

    fn push(chains: &mut Chains, stream: &str, url: &str) -> ProxyKey {
        add(
            chains,
            Kind::Push,
            &format!("{stream} to {url}"),
            &[("app", "live"), ("stream", stream), ("dst_url", url)],
        )
    }

    fn add(chains: &mut Chains, kind: Kind, name: &str, args: &[(&str, &str)]) -> ProxyKey {
        let key: ProxyKey = (kind, name.into());
        let pairs = args.iter().chain(&[("vhost", "__defaultVhost__")]);
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        chains.add(&key, &Args::from_pairs(pairs).unwrap().read());
        key
    }

    #[test]
    fn a_chain_is_no_circle_until_it_closes() {
        let mut chains = chains();
        let keys = [
            pull(&mut chains, "a", "rtsp://camera/1"),
            push(&mut chains, "a", "rtmp://127.0.0.1/live/b"),
            push(&mut chains, "b", "rtmp://cdn/live/b"),
            pull(&mut chains, "c", "rtmp://127.0.0.1/live/b"),
            push(&mut chains, "c", "rtmp://127.0.0.1/live/d"),
        ];
        assert!(keys.iter().all(|key| chains.circle(key).is_none()));
        let back = push(&mut chains, "d", "rtmp://127.0.0.1/live/a");
        let circle = chains.circle(&back).unwrap();
        let v = "__defaultVhost__/live";
        assert_eq!(circle, format!("proxy loop: {v}/d → {v}/a → {v}/b → {v}/c → {v}/d"));
        let told: Vec<bool> = keys.iter().map(|key| chains.circle(key).is_some()).collect();
        assert_eq!(told, [false, true, false, true, true]);
        chains.remove(&keys[3]);
        assert!(chains.circle(&back).is_none() && chains.circle(&keys[1]).is_none());
    }

    #[test]
    fn what_hangs_between_two_circles_is_in_neither() {
        let mut chains = chains();
        let own = |name: &str| format!("rtmp://127.0.0.1/live/{name}");
        let itself = pull(&mut chains, "a", &own("a"));
        let between = push(&mut chains, "a", &own("b"));
        let (there, back) = (push(&mut chains, "b", &own("c")), pull(&mut chains, "b", &own("c")));
        assert!(chains.circle(&itself).is_some_and(|circle| circle.ends_with("/a → __defaultVhost__/live/a")));
        assert_eq!(chains.circle(&between), None);
        assert!(chains.circle(&there).is_some() && chains.circle(&back).is_some());
    }

    #[test]
    fn another_server_on_this_machine_is_none_of_ours() {
        let mut chains = chains();
        let (a, b) = (
            pull(&mut chains, "a", "rtsp://127.0.0.1:8554/live/b"),
            pull(&mut chains, "b", "rtsp://127.0.0.1:8554/live/a"),
        );
        assert!(chains.circle(&a).is_none() && chains.circle(&b).is_none());
    }
}
