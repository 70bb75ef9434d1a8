//! `cargo bench --bench ratios`: what the journal costs and how fast it restores, as ratios to what the machine and an
//! outside client can do. Prints a table; with all of it measured, writes docs/benchmarks.md and docs/restore.svg.
//! `cargo bench --bench ratios -- P1 P8` measures these alone and writes nothing.
//!
//! What needs a MediaServer takes the patched and the stock one that the tests take ($ZLMJ_MEDIASERVER,
//! $ZLMJ_PRISTINE), and the stand-in where there is none. Files go to $ZLMJ_BENCH_DIR, else to cargo's target
//! directory: keep it on the disk in question. It goes on in a network namespace of its own where it may.

#[path = "../../tests/support/mod.rs"]
mod support;

mod batch;
mod curve;
mod memory;
mod network;
mod rest;
mod restore;
mod storage;
mod strangers;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{env, fs};

use support::Host;
use table::Table;

type OfStorage = fn(&mut Table, &Path);
type OfServer = fn(&mut Table, &Path, &Host);

fn main() {
    if memory::is_child() {
        return memory::child();
    }
    network::enter();
    let dir =
        env::var_os("ZLMJ_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = dir.join(format!("bench-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory for the benchmark");
    let chosen: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_chosen = |number: &str| chosen.is_empty() || chosen.iter().any(|name| name == number);

    println!(
        "zlm-journal {} (build {}), {}\n",
        env!("CARGO_PKG_VERSION"),
        zlm_journal::BUILD_ID,
        table::machine()
    );
    println!("{}", table::HEAD);
    let mut table = Table::default();
    let storage: [(&[&str], OfStorage); 6] = [
        (&["P1"], storage::one_client),
        (&["P2", "P3"], storage::many_clients),
        (&["P4"], storage::while_checkpointing),
        (&["P5"], storage::calling_thread),
        (&["P6"], storage::reading_back),
        (&["P11"], storage::long_history),
    ];
    for (numbers, measure) in storage {
        if numbers.iter().any(|number| is_chosen(number)) {
            attempt(&mut table, numbers[0], |table| measure(table, &dir));
        }
    }
    if is_chosen("P9") {
        attempt(&mut table, "P9", |table| memory::per_proxy(table, &dir));
    }
    let server: [(&str, OfServer); 7] = [
        ("P7", restore::add_rate),
        ("P12", strangers::turned_away_a_second),
        ("P10", restore::growth),
        ("lazy", restore::lazy_boot),
        ("sites", restore::sites),
        ("many", batch::many),
        ("P8", restore::against_a_client),
    ];
    let with_media: [(&str, OfServer); 4] = [
        ("P15", rest::memory_at_rest),
        ("P14", rest::media_events),
        ("P13", rest::cpu_at_rest),
        ("P13-control", rest::cpu_at_rest_of_two_alike),
    ];
    let host = LazyLock::new(support::host_for_benchmarks);
    for (number, measure) in server {
        if is_chosen(number) {
            attempt(&mut table, number, |table| measure(table, &dir, &host));
        }
    }
    for (number, measure) in with_media {
        if is_chosen(number) && host.real {
            attempt(&mut table, number, |table| measure(table, &dir, &host));
        } else if is_chosen(number) {
            table.row(number, "not measured: the stand-in has no media", "", "", "", None);
        }
    }
    if chosen.is_empty() {
        let what = if host.real {
            "ZLMediaKit's MediaServer"
        } else {
            "**the stand-in of tests/standin, which proves nothing about ZLMediaKit**"
        };
        let docs = support::root().join("docs");
        fs::write(docs.join("benchmarks.md"), table.markdown(what)).expect("docs/benchmarks.md");
        println!("\nwritten: docs/benchmarks.md");
        match fs::copy(dir.join("restore.svg"), docs.join("restore.svg")) {
            Ok(_) => println!("written: docs/restore.svg"),
            Err(why) => println!("docs/restore.svg is still that of an earlier run: {why}"),
        }
    }
    let _ = fs::remove_dir_all(&dir);
    std::process::exit(i32::from(table.has_stopped()));
}

/// The others are measured all the same where one stops, as on a machine that is too slow for it.
fn attempt(table: &mut Table, number: &str, measure: impl FnOnce(&mut Table)) {
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| measure(table))) {
        let why =
            why.downcast_ref::<String>().cloned().or(why.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        table.stopped(number, &why.unwrap_or_default().lines().next().unwrap_or_default().replace('|', " "));
    }
}
