//! API calls of the journal's own, with any options and any body: each gets a reply of our form, whatever it is.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use zlm_journal::api::{self, Request};
use zlm_journal::capture::HostFacts;
use zlm_journal::plugin::Plugin;

fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("zlmj-fuzz-{}/proxies.db", std::process::id()));
        let pairs = [("enable", "1"), ("path", path.to_str().unwrap())];
        Plugin::open(pairs, Path::new("/"), 1, HostFacts::default()).unwrap()
    })
}

fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    let names: Vec<&str> = api::names().collect();
    let name = names[usize::from(*which) % names.len()];
    let mut parts = rest.splitn(2, |byte| *byte == 0xff);
    let options = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let args: Vec<(String, String)> = options
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let body = parts.next().unwrap_or_default();
    let reply = api::answer(plugin(), name, &Request { args: &args, body, caller: "127.0.0.1:1" }).body;
    if name == "getJournalMetrics" {
        assert!(reply.starts_with("# HELP") && reply.ends_with('\n'));
        return;
    }
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    assert!(reply["code"].is_i64(), "{name}: {reply}");
    assert!(
        reply["code"] == 0 || reply["msg"].as_str().is_some_and(|msg| msg.starts_with("journal: ")),
        "{name}: {reply}"
    );
});
