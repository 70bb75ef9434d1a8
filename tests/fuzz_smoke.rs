//! The fuzz targets of `tests/fuzz`, each for a short while (`ZLMJ_FUZZ_SEC` seconds, 10). Needs cargo-fuzz.

mod support;

use std::process::{Command, Stdio};

use support::{build_dir, link_our_sqlite, root, say, skip};

#[test]
#[ignore = "slow: just fuzz"]
fn no_fuzz_target_finds_anything_in_a_short_while() {
    let there = Command::new(env!("CARGO")).args(["fuzz", "--version"]).output().unwrap();
    if !there.status.success() {
        skip("the fuzz targets, since cargo-fuzz is not there (cargo install cargo-fuzz)");
        return;
    }
    let seconds = std::env::var("ZLMJ_FUZZ_SEC").map_or(10, |text| text.parse::<u64>().unwrap());
    for target in ["args", "files", "c_api", "api"] {
        let output = link_our_sqlite(&mut Command::new(env!("CARGO")))
            .args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--target-dir"])
            .arg(build_dir("fuzz"))
            .arg(target)
            .args(["--", "-max_len=4096", "-rss_limit_mb=4096"])
            .arg(format!("-max_total_time={seconds}"))
            // The instrumentation is one that the compiler calls unstable.
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(root())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{target}:\n{said}");
        let runs = said.lines().rev().find(|line| line.starts_with("Done ")).expect("a line of totals");
        say(&format!("fuzz target {target}: {runs}"));
    }
}
