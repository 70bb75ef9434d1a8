//! What the fleet keeps in etcd: the values, as JSON, and the keys under which they lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zlm_journal::model::url::host_of;
use zlm_journal::model::{Kind, is_redacted, redact_value};

/// What this program reads and writes. A newer one is left alone.
pub const SCHEMA: u32 = 1;

/// The label under which a server's journal has what the fleet gives it.
pub const LABEL: &str = "fleet";

/// Says whose prefix this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub schema: u32,
    pub fleet: String,
    /// A text encrypted with the fleet's key; missing where arguments are in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
}

/// One wanted camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Camera {
    /// The set that it belongs to; see sync.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// The one node that may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    #[serde(default = "one")]
    pub weight: u32,
    /// Cameras of one group stay together where that costs nothing: by default, those of one host.
    pub group: Arc<str>,
    /// Whether it bears two connections at the same time, so that it can be moved without a gap.
    #[serde(default)]
    pub overlap: bool,
    /// The arguments of addStreamProxy: an object, or encrypted, a text.
    pub args: Value,
}

fn one() -> u32 {
    1
}

/// Bytes of a camera's arguments at most.
const LONGEST: usize = 64 << 10;

/// Arguments of addStreamProxy.
pub type Args = BTreeMap<String, String>;

/// A node that lives: its key goes with its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Another one at each start of the program.
    pub instance: String,
    pub zone: Option<Arc<str>>,
    pub capacity: u32,
    pub public: String,
    pub api: String,
    pub version: String,
    pub lease_sec: u32,
    pub fence_sec: u32,
}

/// What a node says of its own work. Its key goes with its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its server has done what was placed up to this revision: what was taken from it has stopped.
    pub applied: i64,
}

/// A camera given to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The revision of the camera that is meant.
    pub rev: i64,
    /// It is also with another node until it plays here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlaps: bool,
    /// It plays here: the other node is not needed any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plays: bool,
}

/// Where a camera is. One that is nowhere has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    On {
        node: Arc<str>,
    },
    /// Taken from a node that has not said yet that it has stopped.
    Stopping {
        node: Arc<str>,
        /// Where it is meant to go, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Arc<str>>,
    },
    /// On the first node, and begun on the second one.
    Both {
        node: Arc<str>,
        to: Arc<str>,
        /// When that began, in milliseconds since 1970.
        since_ms: u64,
    },
}

impl Where {
    /// The nodes to whom it is given.
    pub fn holders(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, two) = match self {
            Self::On { node } => (Some(node), None),
            Self::Both { node, to, .. } => (Some(node), Some(to)),
            Self::Stopping { .. } => (None, None),
        };
        one.into_iter().chain(two)
    }

    pub fn node(&self) -> &Arc<str> {
        match self {
            Self::On { node } | Self::Stopping { node, .. } | Self::Both { node, .. } => node,
        }
    }

    /// Where it is to go.
    pub fn target(&self) -> Option<&Arc<str>> {
        match self {
            Self::On { .. } => None,
            Self::Stopping { to, .. } => to.as_ref(),
            Self::Both { to, .. } => Some(to),
        }
    }
}

/// The last change of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub change: String,
    /// Its items are still staged: what is wanted is what the cameras' keys say with these over them.
    pub pending: bool,
    /// The revision at which it began to count, if that is not this key's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub key: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Arc<str>>,
    pub why: Arc<str>,
}

/// What operators have asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// Moves a second at most.
    pub per_sec: usize,
}

/// The keys of a fleet.
#[derive(Clone, Debug)]
pub struct Keys {
    pub prefix: String,
}

impl Keys {
    pub fn new(fleet: &str) -> Self {
        Self { prefix: format!("/zlm-fleet/{fleet}/") }
    }

    fn at(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    pub fn meta(&self) -> String {
        self.at("meta")
    }

    pub fn head(&self) -> String {
        self.at("head")
    }

    pub fn election(&self) -> String {
        self.at("election")
    }

    pub fn cameras(&self) -> String {
        self.at("cameras/")
    }

    pub fn camera(&self, key: &str) -> String {
        self.at(&format!("cameras/{key}"))
    }

    pub fn staged(&self, change: &str) -> String {
        self.at(&format!("staged/{change}/"))
    }

    /// Says that a change is being staged; without it, it can no longer count.
    pub fn staging(&self, change: &str) -> String {
        self.at(&format!("staging/{change}"))
    }

    pub fn all_staged(&self) -> String {
        self.at("staged/")
    }

    pub fn nodes(&self) -> String {
        self.at("nodes/")
    }

    pub fn node(&self, node: &str) -> String {
        self.at(&format!("nodes/{node}"))
    }

    pub fn report(&self, node: &str) -> String {
        self.at(&format!("reports/{node}"))
    }

    pub fn placed_on(&self, node: &str) -> String {
        self.at(&format!("placed/{node}/"))
    }

    pub fn placed(&self, node: &str, key: &str) -> String {
        self.at(&format!("placed/{node}/{key}"))
    }

    pub fn place(&self, key: &str) -> String {
        self.at(&format!("where/{key}"))
    }

    pub fn drain(&self, node: &str) -> String {
        self.at(&format!("orders/drain/{node}"))
    }

    pub fn ask(&self, key: &str) -> String {
        self.at(&format!("orders/move/{key}"))
    }

    pub fn rebalance(&self) -> String {
        self.at("orders/rebalance")
    }

    pub fn history(&self) -> String {
        self.at("history/")
    }
}

/// One value of the fleet, as the leader sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    Camera(&'a str),
    Head,
    Node(&'a str),
    Report(&'a str),
    Placed(&'a str, &'a str),
    Where(&'a str),
    Drain(&'a str),
    Ask(&'a str),
    Rebalance,
    /// Of no concern to placement.
    Other,
}

impl<'a> Entry<'a> {
    /// What a key, without the fleet's prefix, is.
    pub fn of(key: &'a str) -> Self {
        let (what, rest) = key.split_once('/').unwrap_or((key, ""));
        match (what, rest.split_once('/')) {
            ("cameras", _) => Self::Camera(rest),
            ("head", _) => Self::Head,
            ("nodes", _) => Self::Node(rest),
            ("reports", _) => Self::Report(rest),
            ("placed", Some((node, key))) => Self::Placed(node, key),
            ("where", _) => Self::Where(rest),
            ("orders", Some(("drain", node))) => Self::Drain(node),
            ("orders", Some(("move", key))) => Self::Ask(key),
            ("orders", None) if rest == "rebalance" => Self::Rebalance,
            _ => Self::Other,
        }
    }
}

/// A camera and its key, from an item as syncJournal takes them. Besides the arguments of addStreamProxy, it may have
/// `fleet_zone`, `fleet_node`, `fleet_weight`, `fleet_group`, `fleet_overlap` and `fleet_label`, which must be `label` if one is
/// given.
pub fn camera_of(item: &Map<String, Value>, label: Option<&str>) -> Result<(String, Camera, Args)> {
    let mut args = Args::new();
    for (name, value) in item {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => u8::from(*flag).to_string(),
            Value::Null => continue,
            Value::Array(_) | Value::Object(_) => serde_json::to_string(value)?,
        };
        if !value.is_empty() {
            args.insert(name.clone(), value);
        }
    }
    let part = |name: &str| -> Result<String> {
        let value = args.get(name).with_context(|| format!("{name} is missing"))?;
        ensure!(!value.contains(['/', '?', '\0']), "{name} is {value:?}: it may not have /, ? or a NUL in it");
        Ok(value.clone())
    };
    let key = format!("{}/{}/{}", part("vhost")?, part("app")?, part("stream")?);
    ensure!(key.len() <= 1024, "the key is longer than 1024 bytes");
    let url = args.get("url").context("url is missing")?;
    ensure!(url.contains("://"), "url is no URL: {}", redact_value(url));
    let own_group = own_group(url, &key);
    let plain = |name: &str, value: Option<String>| -> Result<Option<Arc<str>>> {
        let Some(value) = value else { return Ok(None) };
        crate::config::name(name, &value)?;
        Ok(Some(value.into()))
    };
    let (zone, node) = (args.remove("fleet_zone"), args.remove("fleet_node"));
    let weight = match args.remove("fleet_weight") {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|weight| (1..=10_000).contains(weight))
            .with_context(|| format!("fleet_weight is {text:?}: expected a whole number from 1 to 10000"))?,
    };
    let overlap = match args.remove("fleet_overlap").as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(other) => bail!("fleet_overlap is {other:?}: expected 0 or 1"),
    };
    let group = args.remove("fleet_group").unwrap_or(own_group).into();
    let label = match args.remove("fleet_label") {
        Some(own) if label.is_none_or(|label| label == own) => own,
        Some(own) => bail!("fleet_label is {own:?}: sync it with --label {own}, or everything with --all-labels"),
        None => label.unwrap_or_default().to_owned(),
    };
    if !label.is_empty() {
        crate::config::name("label", &label)?;
    }
    if let Some(name) = args.keys().find(|name| name.starts_with("fleet_")) {
        bail!(
            "{name} is not known: expected fleet_zone, fleet_node, fleet_weight, fleet_group, fleet_overlap or fleet_label"
        );
    }
    if let Some((name, _)) = args.iter().find(|(name, value)| is_redacted(name, value)) {
        bail!("its {name} is redacted (***): export it with --reveal, or put the credentials in");
    }
    let given = args.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    Kind::Pull.check_options(given).map_err(|error| anyhow!(error.message))?;
    let length: usize = args.iter().map(|(name, value)| name.len() + value.len()).sum();
    ensure!(length <= LONGEST, "its arguments have {length} bytes: expected at most {LONGEST}");
    ensure!(
        !args.contains_key("journal_label"),
        "journal_label is the fleet's own on the servers: the label of a set is an option of sync"
    );
    let camera = Camera {
        label,
        zone: plain("fleet_zone", zone)?,
        node: plain("fleet_node", node)?,
        weight,
        group,
        overlap,
        args: Value::Null,
    };
    Ok((key, camera, args))
}

/// The group of a camera for which none is given: the host that MediaServer reads in its URL, or itself.
fn own_group(url: &str, key: &str) -> String {
    host_of(url).unwrap_or_else(|| key.to_owned())
}

/// The item that makes this camera.
pub fn item_of(key: &str, camera: &Camera, args: &Args) -> Map<String, Value> {
    let mut item: Map<String, Value> =
        args.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            item.insert(name.to_owned(), Value::String(value));
        }
    };
    add("fleet_label", (!camera.label.is_empty()).then(|| camera.label.clone()));
    add("fleet_zone", camera.zone.as_deref().map(str::to_owned));
    add("fleet_node", camera.node.as_deref().map(str::to_owned));
    add("fleet_weight", (camera.weight != 1).then(|| camera.weight.to_string()));
    let url = args.get("url").map_or("", String::as_str);
    let is_own = own_group(url, key) == *camera.group;
    add("fleet_group", (!is_own).then(|| camera.group.to_string()));
    add("fleet_overlap", camera.overlap.then(|| "1".to_owned()));
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_item_becomes_a_camera_and_back() {
        let given = item(json!({
            "vhost": "v", "app": "live", "stream": "gate", "url": "rtsp://u:p@NVR-1:554/1", "rtp_type": 1,
            "fleet_zone": "north", "fleet_weight": 2, "fleet_overlap": true,
        }));
        let (key, camera, args) = camera_of(&given, Some("site")).unwrap();
        assert_eq!((&*key, &*camera.group, camera.weight), ("v/live/gate", "nvr-1", 2));
        assert_eq!(args.get("rtp_type").map(String::as_str), Some("1"));
        let again = camera_of(&item_of(&key, &camera, &args), None).unwrap();
        assert_eq!(again, (key, camera, args));
    }

    #[test]
    fn a_camera_belongs_to_the_host_that_its_server_reads_in_its_url_or_to_itself() {
        for (url, group) in [
            ("rtsp://u:p@NVR-1:554/1", "nvr-1"),
            ("rtsp://[fe80::1]:554/1", "fe80::1"),
            // What no server can connect to rejects no sync.
            ("rtsp://admin:a/b@10.0.0.1/1", "v/live/gate"),
            ("rtsp://10.0.0.1:x/1", "v/live/gate"),
        ] {
            let given = item(json!({ "vhost": "v", "app": "live", "stream": "gate", "url": url }));
            let (key, camera, args) = camera_of(&given, None).unwrap();
            assert_eq!(&*camera.group, group, "{url}");
            let again = item_of(&key, &camera, &args);
            assert!(!again.contains_key("fleet_group"), "{url}");
            assert_eq!(camera_of(&again, None).unwrap(), (key, camera, args), "{url}");
        }
    }

    #[test]
    fn a_bad_item_is_refused_with_what_is_wrong() {
        let good = json!({"vhost": "v", "app": "live", "stream": "gate", "url": "rtsp://10.0.0.1/1"});
        for (name, value, says) in [
            ("stream", json!("a/b"), "stream"),
            ("url", json!("gate"), "url is no URL"),
            ("fleet_weight", json!(0), "fleet_weight"),
            ("fleet_overlap", json!("perhaps"), "fleet_overlap"),
            ("fleet_zone", json!("a b"), "fleet_zone"),
            ("fleet_colour", json!("red"), "fleet_colour"),
            ("journal_label", json!("x"), "journal_label"),
            ("journal_hours", json!("25:00-26:00"), "journal_hours"),
            ("journal_hour", json!("08:00-18:00"), "journal_hour"),
            ("fleet_label", json!("y"), "--label y"),
            ("url", json!("rtsp://***@10.0.0.1/1"), "--reveal"),
            ("url", json!("rtmp://10.0.0.1/live/gate?token=***"), "--reveal"),
            ("rtsp_pwd", json!("***"), "its rtsp_pwd is redacted"),
            ("custom_header", json!("x".repeat(70_000)), "at most 65536"),
        ] {
            let mut item = item(good.clone());
            item.insert(name.to_owned(), value);
            let error = camera_of(&item, Some("")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let error = camera_of(&item(json!({"vhost": "v", "app": "live"})), None).unwrap_err().to_string();
        assert_eq!(error, "stream is missing");
    }

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(Entry::of("placed/a/v/live/gate"), Entry::Placed("a", "v/live/gate"));
        assert_eq!(Entry::of("where/v/live/gate"), Entry::Where("v/live/gate"));
        assert_eq!(Entry::of("orders/move/v/live/gate"), Entry::Ask("v/live/gate"));
        assert_eq!(Entry::of("orders/rebalance"), Entry::Rebalance);
        assert_eq!(Entry::of("history/1"), Entry::Other);
    }
}
