//! The `[journal]` section of the ini file: a table of keys with defaults and ranges, and the parsing. An invalid value
//! is reported and replaced by its default; it never keeps the server from starting.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// When a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When its change is on disk.
    Full,
    /// At once; its change is usually on disk within 100 ms.
    Async,
}

/// What happens to a call that the journal cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is carried out and answered as not persisted; it is written when the storage works again.
    Accept,
    /// It is refused, or undone if the server has already carried it out.
    Reject,
}

/// What happens to the journaled proxies when the server starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestoreMode {
    /// All are started.
    #[default]
    Eager,
    /// Each is started when a player asks for its stream.
    Lazy,
    /// Each is started when it is asked for by an API call; calls are journaled all the same.
    Off,
}

/// What happens to a proxy that MediaServer has given up (retry_count used up).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGiveUp {
    /// It stays enabled and is started again.
    Keep,
    /// It is removed, as in MediaServer.
    Forget,
}

/// What happens to a proxy that MediaServer closed because it had no viewers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIdleClose {
    /// It is removed.
    Forget,
    /// It is started again only when a player asks for its stream, also after a restart.
    Dormant,
}

/// One key of the section, with its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name, without the section.
    pub name: &'static str,
    /// The value that applies where the ini has none, or an invalid one.
    pub default: &'static str,
    rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Number {
        least: u64,
        most: u64,
    },
    OneOf(&'static [&'static str]),
    Path,
    NoneOrPath,
    /// Nothing, or the URL of an HTTP server.
    NoneOrHttp,
    Text,
}

const DAY_SEC: u64 = 24 * 60 * 60;

/// The longest pause between two attempts at one proxy, and so the longest first one (`revive_sec`).
pub const LONGEST_PAUSE_SEC: u64 = 30 * 60;

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key { name: "enable", default: "0", rule: Rule::Number { least: 0, most: 1 } },
    Key { name: "path", default: "./journal/proxies.db", rule: Rule::Path },
    Key { name: "durability", default: "full", rule: Rule::OneOf(&["full", "async"]) },
    Key { name: "on_error", default: "accept", rule: Rule::OneOf(&["accept", "reject"]) },
    Key { name: "snapshot_sec", default: "300", rule: Rule::Number { least: 1, most: 30 * DAY_SEC } },
    Key { name: "snapshot_keep", default: "24", rule: Rule::Number { least: 2, most: 10_000 } },
    Key { name: "history_days", default: "30", rule: Rule::Number { least: 0, most: 36_500 } },
    Key { name: "key_file", default: "", rule: Rule::NoneOrPath },
    Key { name: "restore", default: "eager", rule: Rule::OneOf(&["eager", "lazy", "off"]) },
    Key { name: "restore_rate", default: "0", rule: Rule::Number { least: 0, most: 1_000_000 } },
    Key { name: "restore_per_origin", default: "8", rule: Rule::Number { least: 0, most: 100_000 } },
    Key { name: "restore_ffmpeg_parallel", default: "2", rule: Rule::Number { least: 0, most: 1_000 } },
    Key { name: "revive_sec", default: "30", rule: Rule::Number { least: 0, most: LONGEST_PAUSE_SEC } },
    Key { name: "on_give_up", default: "keep", rule: Rule::OneOf(&["keep", "forget"]) },
    Key { name: "on_idle_close", default: "forget", rule: Rule::OneOf(&["forget", "dormant"]) },
    Key { name: "file", default: "", rule: Rule::NoneOrPath },
    Key { name: "alert_url", default: "", rule: Rule::NoneOrHttp },
    Key { name: "alert_secret", default: "", rule: Rule::Text },
    Key { name: "failover_sec", default: "10", rule: Rule::Number { least: 1, most: DAY_SEC } },
    Key { name: "alert_after_sec", default: "60", rule: Rule::Number { least: 0, most: DAY_SEC } },
];

/// The values of the section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is a journal at all.
    pub enable: bool,
    /// The journal file; a relative path refers to the directory of the server's executable.
    pub path: PathBuf,
    /// When a call is answered.
    pub durability: Durability,
    /// What happens to a call that cannot be journaled.
    pub on_error: OnError,
    /// How often a snapshot is made, if anything has changed since the last one.
    pub snapshot_every: Duration,
    /// How many snapshots are kept: the newest.
    pub snapshot_keep: usize,
    /// How long changes at least stay in the history; those since the last snapshot but one always do.
    pub history: Duration,
    /// The file with the key that encrypts arguments; `None`: they are not encrypted.
    pub key_file: Option<PathBuf>,
    /// What happens to the journaled proxies when the server starts.
    pub restore: RestoreMode,
    /// Proxies started per second; 0: depends on the number of pollers.
    pub restore_rate: u64,
    /// Concurrent first connects to one remote host; 0: no limit.
    pub restore_per_origin: usize,
    /// Concurrent starts of FFmpeg processes; 0: no limit.
    pub restore_ffmpeg_parallel: usize,
    /// The pause before a lost proxy is first added again; zero: it is not.
    pub revive: Duration,
    /// What happens to a proxy that MediaServer has given up.
    pub on_give_up: OnGiveUp,
    /// What happens to a proxy that MediaServer closed because it had no viewers.
    pub on_idle_close: OnIdleClose,
    /// The file whose proxies are wanted; `None`: none.
    pub file: Option<PathBuf>,
    /// Where alerts are sent; `None`: nowhere.
    pub alert_url: Option<String>,
    /// What they are signed with.
    pub alert_secret: Option<String>,
    /// How long a proxy must not play until that is an alert.
    pub alert_after: Duration,
    /// For how long a URL of a pull must have failed before its next one is used.
    pub failover: Duration,
}

impl Settings {
    /// Reads ini pairs (names without the section). Returns the settings, and one message for each invalid value or
    /// unknown name; unknown names are ignored.
    pub fn read<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        base_dir: &Path,
    ) -> (Settings, Vec<String>) {
        let mut values: HashMap<&str, &str> = KEYS.iter().map(|key| (key.name, key.default)).collect();
        let mut problems = Vec::new();
        for (name, value) in pairs {
            let value = value.trim();
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                problems.push(format!("[journal] {name} is not a setting of this version: ignored"));
                continue;
            };
            match key.rule.check(value) {
                Ok(()) => drop(values.insert(key.name, value)),
                Err(expected) => {
                    // It may have a password.
                    let is_url = key.rule == Rule::NoneOrHttp;
                    let value = if is_url { "its value".to_owned() } else { format!("{value:?}") };
                    let default = key.default;
                    problems
                        .push(format!("[journal] {name}={value} is not {expected}: using the default {default}"));
                }
            }
        }
        let text = |name: &str| values.get(name).copied().unwrap_or_default();
        let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
        let given = |name: &str| Some(text(name)).filter(|value| !value.is_empty());
        let settings = Settings {
            enable: number("enable") == 1,
            path: base_dir.join(text("path")),
            durability: if text("durability") == "async" { Durability::Async } else { Durability::Full },
            on_error: if text("on_error") == "reject" { OnError::Reject } else { OnError::Accept },
            snapshot_every: Duration::from_secs(number("snapshot_sec")),
            snapshot_keep: usize::try_from(number("snapshot_keep")).unwrap_or(usize::MAX),
            history: Duration::from_secs(number("history_days") * DAY_SEC),
            key_file: given("key_file").map(|file| base_dir.join(file)),
            restore: match text("restore") {
                "off" => RestoreMode::Off,
                "lazy" => RestoreMode::Lazy,
                _ => RestoreMode::Eager,
            },
            restore_rate: number("restore_rate"),
            restore_per_origin: usize::try_from(number("restore_per_origin")).unwrap_or(usize::MAX),
            restore_ffmpeg_parallel: usize::try_from(number("restore_ffmpeg_parallel")).unwrap_or(usize::MAX),
            revive: Duration::from_secs(number("revive_sec")),
            on_idle_close: match text("on_idle_close") {
                "dormant" => OnIdleClose::Dormant,
                _ => OnIdleClose::Forget,
            },
            on_give_up: if text("on_give_up") == "forget" { OnGiveUp::Forget } else { OnGiveUp::Keep },
            file: given("file").map(|file| base_dir.join(file)),
            alert_url: given("alert_url").map(str::to_owned),
            alert_secret: given("alert_secret").map(str::to_owned),
            failover: Duration::from_secs(number("failover_sec")),
            alert_after: Duration::from_secs(number("alert_after_sec")),
        };
        (settings, problems)
    }

    /// These settings with `new` applied, and the names of the changed keys that need a restart.
    pub fn reloaded(&self, new: Settings) -> (Settings, Vec<&'static str>) {
        let later = [
            ("enable", self.enable != new.enable),
            ("path", self.path != new.path),
            ("key_file", self.key_file != new.key_file),
            ("restore", self.restore != new.restore),
        ];
        let later = later.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
        let (path, key_file) = (self.path.clone(), self.key_file.clone());
        (Settings { enable: self.enable, path, key_file, restore: self.restore, ..new }, later)
    }
}

impl Rule {
    /// Fails with a description of what was expected.
    fn check(self, value: &str) -> Result<(), String> {
        match self {
            Rule::Number { least, most } => match value.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                _ => Err(format!("a number from {least} to {most}")),
            },
            Rule::OneOf(names) if names.contains(&value) => Ok(()),
            Rule::OneOf(names) => Err(format!("one of {}", names.join(", "))),
            Rule::Path if value.is_empty() || value.contains('\0') => Err("the name of a file".to_owned()),
            // If the key file cannot be read, the journal is not written, rather than written unencrypted.
            Rule::Path | Rule::NoneOrPath | Rule::Text => Ok(()),
            Rule::NoneOrHttp if value.is_empty() || is_http(value) => Ok(()),
            Rule::NoneOrHttp => Err("a URL that begins with http:// or https://".to_owned()),
        }
    }
}

fn is_http(url: &str) -> bool {
    let host = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_start_can_change_is_kept_and_told_when_the_section_is_read_again() {
        let read =
            |pairs: &[(&'static str, &'static str)]| Settings::read(pairs.iter().copied(), Path::new("/")).0;
        let now = read(&[("enable", "1"), ("path", "a.db")]);
        let (after, later) = now.reloaded(read(&[
            ("enable", "0"),
            ("path", "b.db"),
            ("key_file", "key"),
            ("restore", "off"),
            ("revive_sec", "7"),
            ("on_error", "reject"),
        ]));
        assert_eq!(later, ["enable", "path", "key_file", "restore"]);
        assert_eq!(after, Settings { revive: Duration::from_secs(7), on_error: OnError::Reject, ..now.clone() });
        assert_eq!(now.reloaded(now.clone()), (now, vec![]));
    }

    #[test]
    fn the_defaults_are_good_values_themselves() {
        let (settings, problems) =
            Settings::read(KEYS.iter().map(|key| (key.name, key.default)), Path::new("/opt/zlm"));
        assert_eq!(problems, Vec::<String>::new());
        assert!(!settings.enable);
        assert_eq!(settings.path, Path::new("/opt/zlm/./journal/proxies.db"));
        assert_eq!(settings, Settings::read([], Path::new("/opt/zlm")).0);
    }

    #[test]
    fn a_bad_value_is_named_and_its_default_used() {
        for (name, value) in [
            ("enable", "yes"),
            ("enable", "2"),
            ("path", ""),
            ("durability", "fast"),
            ("snapshot_sec", "0"),
            ("snapshot_sec", "-1"),
            ("snapshot_keep", "1"),
            ("history_days", "99999999999999999999"),
            ("restore", "sometimes"),
            ("restore_rate", "1.5"),
            ("restore_per_origin", "-8"),
            ("restore_ffmpeg_parallel", "1001"),
            ("on_give_up", "sometimes"),
            ("on_idle_close", "keep"),
            ("revive_sec", "1801"),
            ("alert_url", "10.0.0.2/alerts"),
            ("alert_url", "https:///alerts"),
            ("alert_after_sec", "-1"),
        ] {
            let (settings, problems) = Settings::read([(name, value)], Path::new("/"));
            assert_eq!(settings, Settings::read([], Path::new("/")).0, "{name}={value}");
            assert_eq!(problems.len(), 1, "{name}={value}");
            assert!(problems[0].contains(name) && problems[0].contains("default"), "{problems:?}");
        }
    }

    #[test]
    fn good_values_count_and_unknown_names_are_told() {
        let (settings, problems) = Settings::read(
            [
                ("enable", " 1 "),
                ("path", "/var/lib/zlm/j.db"),
                ("durability", "async"),
                ("restore", "lazy"),
                ("restore_per_origin", "0"),
                ("on_give_up", "forget"),
                ("on_idle_close", "dormant"),
                ("snapshot_sec", "7"),
                ("colour", "blue"),
            ],
            Path::new("/opt"),
        );
        assert!(settings.enable);
        assert_eq!(settings.path, Path::new("/var/lib/zlm/j.db"));
        assert_eq!(settings.durability, Durability::Async);
        assert_eq!(settings.restore, RestoreMode::Lazy);
        assert_eq!(settings.restore_per_origin, 0);
        assert_eq!(settings.on_give_up, OnGiveUp::Forget);
        assert_eq!(settings.on_idle_close, OnIdleClose::Dormant);
        assert_eq!(settings.snapshot_every, Duration::from_secs(7));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("colour"));
    }
}
