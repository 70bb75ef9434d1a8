//! P9: the memory of the plugin, in processes of its own that hold nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{env, thread};

use zlm_journal::api::{self, Request};
use zlm_journal::capture::{HostFacts, Server};
use zlm_journal::model::{Kind, ProxyKey};
use zlm_journal::plugin::Plugin;
use zlm_journal::reconcile::{Add, Added};

use super::support::server::status_field;
use super::support::write_journal;
use super::table::{Table, median, progress};

const CHILD: &str = "ZLMJ_BENCH_CHILD";
const PROXIES: usize = 100_000;
const URL: &str = "rtsp://admin:password@192.168.100.100:554/Streaming/Channels/101";

pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Opens the journal that it is told of, restores all of it, and prints its memory before and after.
pub fn child() {
    let file = PathBuf::from(env::var_os(CHILD).unwrap_or_default());
    let before = resident();
    // At the rate that it is shipped with: what a restore needs on the way depends on it.
    let pairs = [("enable", "1"), ("path", file.to_str().expect("a plain path"))];
    let plugin = Plugin::open(pairs, Path::new("/"), 4, HostFacts::default());
    let plugin = Arc::new(plugin.expect("a plugin"));
    let (adds, poller) = mpsc::channel();
    plugin.start(Box::new(Taker { adds }));
    let told = Arc::clone(&plugin);
    // It has each at once, and answers as a server does: on another thread.
    thread::spawn(move || {
        for (call, kind, key) in poller {
            let key: Arc<str> = key;
            told.capture().made(kind, &key);
            told.capture().started(call, Added::Accepted);
        }
    });
    let args = [("limit".to_owned(), "0".to_owned())];
    let status = || api::answer(&plugin, "getJournalStatus", &Request { args: &args, body: b"", caller: "" }).body;
    while !status().contains("\"phase\":\"done\"") {
        thread::sleep(Duration::from_millis(20));
    }
    // What it does right after a restore, it does once.
    thread::sleep(Duration::from_secs(3));
    println!("{} {}", before, resident());
}

/// A server that takes every proxy.
struct Taker {
    adds: mpsc::Sender<(u64, Kind, Arc<str>)>,
}

impl Server for Taker {
    fn add(&self, call: u64, add: &Add) {
        let _ = self.adds.send((call, add.key.0, Arc::from(&*add.key.1)));
    }
    fn can_update(&self) -> bool {
        true
    }
    fn update(&self, call: u64, add: &Add) {
        self.add(call, add);
    }
    fn remove(&self, _: u64, _: &ProxyKey) {}
}

fn resident() -> u64 {
    status_field(std::process::id(), "VmRSS:")
}

pub fn per_proxy(table: &mut Table, dir: &Path) {
    let file = |name: &str| dir.join(name).join("proxies.db");
    let streams = (0..PROXIES).map(|n| (format!("s{n}"), URL, [].as_slice()));
    write_journal(&file("p9-full"), streams);
    write_journal(&file("p9-empty"), std::iter::empty());
    let run = |name: &str| {
        let child = Command::new(env::current_exe().expect("this program")).env(CHILD, file(name)).output();
        let printed = String::from_utf8_lossy(&child.expect("a child").stdout).into_owned();
        let mut numbers = printed.split_whitespace().map(|word| word.parse::<f64>().expect("a number of bytes"));
        let (before, after) = (numbers.next().expect("before"), numbers.next().expect("after"));
        after - before
    };
    let (mut idle, mut each) = (Vec::new(), Vec::new());
    for round in 0..super::table::ROUNDS {
        progress(&format!("P9 round {}", round + 1));
        let (empty, full) = (run("p9-empty"), run("p9-full"));
        idle.push(empty / 1024.0 / 1024.0);
        each.push((full - empty) / PROXIES as f64);
    }
    // Key and arguments, which are what an operator gave.
    let given = format!("__defaultVhost__/live/s{}", PROXIES / 2).len()
        + format!(r#"{{"app":"live","stream":"s{}","url":"{URL}","vhost":"__defaultVhost__"}}"#, PROXIES / 2)
            .len();
    let (idle, beyond) = (median(idle), median(each) - given as f64);
    table.row(
        "P9",
        "memory per journaled proxy that runs, beyond its key and arguments; of an idle plugin",
        &format!("{beyond:.0} B (and {given} B); {idle:.1} MiB"),
        "≤ 1 KiB; ≤ 8 MiB",
        "≤ 512 B; ≤ 4 MiB",
        beyond <= 1024.0 && idle <= 8.0,
    );
}
