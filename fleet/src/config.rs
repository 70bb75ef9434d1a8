//! The program's configuration: one TOML file, checked as a whole before anything starts.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What a call of syncJournal takes at most, and so what one server can be given.
const MOST_CAMERAS: u32 = 10_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The fleet's name: everything of it lies under `/zlm-fleet/NAME/` in etcd.
    pub fleet: String,
    pub etcd: Etcd,
    /// 64 hexadecimal digits: with it, the arguments of cameras are encrypted in etcd.
    pub key_file: Option<PathBuf>,
    /// Allows arguments, passwords in URLs among them, in etcd in clear.
    #[serde(default)]
    pub clear_text: bool,
    /// Missing where the program only runs commands.
    pub node: Option<Node>,
    #[serde(default)]
    pub pace: Pace,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// The client URLs of all members.
    pub endpoints: Vec<String>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub private_key_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub id: String,
    pub zone: Option<String>,
    /// The sum of the weights of the cameras that this node may have.
    pub capacity: u32,
    /// The base URL of the MediaServer beside this program, on loopback.
    pub server: String,
    pub secret_file: PathBuf,
    /// The base URL by which players reach that MediaServer.
    pub public: String,
    /// Where this program listens.
    pub listen: SocketAddr,
    /// The base URL by which the other nodes reach this program.
    pub api: String,
    /// Who sends this as a bearer token may change things; without it, only callers on this machine may.
    pub token_file: Option<PathBuf>,
    /// Seconds after which a node that does not renew its lease is dead.
    #[serde(default = "lease_sec")]
    pub lease_sec: u32,
    /// Seconds before the lease's end at which a node that could not renew it stops its cameras.
    #[serde(default = "fence_sec")]
    pub fence_sec: u32,
    /// Seconds for which the MediaServer may not answer before its cameras are given to others.
    #[serde(default = "lease_sec")]
    pub server_timeout_sec: u32,
    /// Ends the MediaServer where it does not stop its cameras when told so. Its supervisor may start it again.
    pub fence_command: Option<Vec<String>>,
    /// A directory of this program's own, on this machine.
    pub state_dir: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pace {
    /// Planned moves that may be under way at the same time.
    pub moves_at_once: usize,
    /// Planned moves begun in a second at most.
    pub moves_per_sec: usize,
    /// Seconds after which a move whose new pull does not play is taken back.
    pub move_timeout_sec: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { moves_at_once: 10, moves_per_sec: 5, move_timeout_sec: 30 }
    }
}

fn lease_sec() -> u32 {
    10
}

fn fence_sec() -> u32 {
    3
}

impl Config {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
    }

    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        name("fleet", &config.fleet)?;
        ensure!(!config.etcd.endpoints.is_empty(), "etcd.endpoints: name the client URL of every member of etcd");
        for endpoint in &config.etcd.endpoints {
            base_url("etcd.endpoints", endpoint)?;
        }
        ensure!(
            config.etcd.user.is_some() == config.etcd.password_file.is_some(),
            "etcd.user and etcd.password_file belong together"
        );
        ensure!(
            config.etcd.cert_file.is_some() == config.etcd.private_key_file.is_some(),
            "etcd.cert_file and etcd.private_key_file belong together"
        );
        ensure!(
            config.key_file.is_some() != config.clear_text,
            "set either key_file, which encrypts the arguments of cameras in etcd, or clear_text = true, which leaves \
             the passwords in their URLs readable there"
        );
        let pace = &config.pace;
        ensure!(
            pace.moves_at_once > 0 && pace.moves_per_sec > 0 && pace.move_timeout_sec > 0,
            "pace: each number must be positive"
        );
        if let Some(node) = &config.node {
            node.check()?;
        }
        Ok(config)
    }

    pub fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("this needs the section [node] of the configuration")
    }
}

impl Node {
    fn check(&self) -> Result<()> {
        name("node.id", &self.id)?;
        if let Some(zone) = &self.zone {
            name("node.zone", zone)?;
        }
        ensure!(
            (1..=MOST_CAMERAS).contains(&self.capacity),
            "node.capacity is {}: expected 1 to {MOST_CAMERAS}",
            self.capacity
        );
        for (field, url) in [("node.server", &self.server), ("node.public", &self.public), ("node.api", &self.api)]
        {
            base_url(field, url)?;
        }
        ensure!(
            (5..=120).contains(&self.lease_sec),
            "node.lease_sec is {}: expected 5 to 120 seconds (etcd does not keep shorter ones to the second)",
            self.lease_sec
        );
        ensure!(
            self.fence_sec > 0 && self.fence_sec * 2 <= self.lease_sec,
            "node.fence_sec is {}: expected 1 to half of lease_sec, so that there is time left to renew",
            self.fence_sec
        );
        ensure!(self.server_timeout_sec > 0, "node.server_timeout_sec must be positive");
        ensure!(
            self.fence_command.as_ref().is_none_or(|command| !command.is_empty()),
            "node.fence_command is empty: leave it out, or name a program and its arguments"
        );
        Ok(())
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_sec.into())
    }

    pub fn fence(&self) -> Duration {
        Duration::from_secs(self.fence_sec.into())
    }

    pub fn server_timeout(&self) -> Duration {
        Duration::from_secs(self.server_timeout_sec.into())
    }
}

/// Reads a secret: the first line of a file.
pub fn secret(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let secret = text.lines().next().unwrap_or_default().trim().to_owned();
    ensure!(!secret.is_empty(), "{} is empty: expected a secret in its first line", path.display());
    Ok(secret)
}

/// A name becomes a part of keys in etcd.
pub fn name(field: &str, name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    ensure!(
        !name.is_empty() && name.len() <= 64 && name.chars().all(is_plain),
        "{field} is {name:?}: expected 1 to 64 letters, digits, dots, dashes and underscores"
    );
    Ok(())
}

fn base_url(field: &str, url: &str) -> Result<()> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        bail!("{field} is {url:?}: expected http:// or https://");
    };
    ensure!(!rest.is_empty() && !rest.contains('/'), "{field} is {url:?}: expected scheme, host and port alone");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        fleet = "city"
        clear_text = true
        [etcd]
        endpoints = ["http://127.0.0.1:2379"]
        [node]
        id = "a"
        capacity = 100
        server = "http://127.0.0.1:80"
        secret_file = "/etc/secret"
        public = "http://media-a"
        listen = "0.0.0.0:9180"
        api = "http://media-a:9180"
        state_dir = "/run/zlm-journal-fleet"
    "#;

    #[test]
    fn a_good_configuration_has_its_defaults() {
        let config = Config::parse(GOOD).unwrap();
        let node = config.node().unwrap();
        assert_eq!((node.lease_sec, node.fence_sec, config.pace.moves_at_once), (10, 3, 10));
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_expected() {
        for (from, to, says) in [
            ("fleet = \"city\"", "fleet = \"a/b\"", "fleet"),
            ("clear_text = true", "", "key_file"),
            ("capacity = 100", "capacity = 0", "node.capacity"),
            ("capacity = 100", "capacity = 100000", "10000"),
            ("capacity = 100", "capacity = 100\nlease_sec = 2", "node.lease_sec"),
            ("capacity = 100", "capacity = 100\nfence_sec = 9", "node.fence_sec"),
            ("capacity = 100", "capacity = 100\nfence_command = []", "node.fence_command"),
            ("http://127.0.0.1:2379", "127.0.0.1:2379", "etcd.endpoints"),
            ("http://media-a\"", "http://media-a/live\"", "node.public"),
            ("capacity = 100", "capacity = 100\nspeed = 3", "speed"),
            ("[node]", "user = \"root\"\n[node]", "etcd.password_file"),
            ("[node]", "[pace]\nmoves_at_once = 0\n[node]", "pace"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let error = format!("{:#}", Config::parse(&text).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
