//! What was measured, as a table: printed line by line, and written to docs/ when all of it is there.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;
use std::{fs, io, thread};

/// Every ratio is the median of so many interleaved rounds, where its row does not say otherwise.
pub const ROUNDS: usize = 7;

#[derive(Default)]
pub struct Table {
    rows: String,
}

impl Table {
    /// One line; `ok` says whether the gate was reached, none that it does not count: not on the stand-in.
    pub fn row(
        &mut self,
        number: &str,
        ratio: &str,
        measured: &str,
        gate: &str,
        aim: &str,
        ok: impl Into<Option<bool>>,
    ) {
        let verdict = match ok.into() {
            Some(true) => "ok",
            Some(false) => "**missed**",
            None => "stand-in: does not count",
        };
        self.line(&format!("| {number} | {ratio} | {measured} | {gate} | {aim} | {verdict} |"));
    }

    /// It could not be measured.
    pub fn stopped(&mut self, number: &str, why: &str) {
        self.line(&format!("| {number} | {why} | | | | {STOPPED} |"));
    }

    pub fn has_stopped(&self) -> bool {
        self.rows.contains(STOPPED)
    }

    /// A line without a gate.
    pub fn note(&mut self, what: &str, measured: &str) {
        self.line(&format!("| | {what} | {measured} | | | |"));
    }

    fn line(&mut self, line: &str) {
        println!("{line}");
        let _ = writeln!(self.rows, "{line}");
    }

    pub fn markdown(&self, host: &str) -> String {
        format!(
            "# What it costs, and how fast it restores\n\n\
             Written by `cargo bench --bench ratios`, which prints the same for your machine and disk. Each figure is\n\
             the median of {ROUNDS} rounds, interleaved with those of its yardstick, unless it says otherwise.\n\n\
             * Machine: {}\n* Date: {} UTC\n* Commit: {} (build {})\n* Host: {host}\n\n{HEAD}\n{}\n\
             ![Proxies back over time](restore.svg)\n\n{}",
            machine(),
            output("date", &["-u", "+%Y-%m-%d %H:%M"]),
            output("git", &["describe", "--always", "--dirty"]),
            zlm_journal::BUILD_ID,
            self.rows,
            include_str!("aims.md"),
        )
    }
}

const STOPPED: &str = "**stopped**";

pub const HEAD: &str = "| # | what | measured | gate | aim | |\n|---|---|---|---|---|---|";

pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
    format!("{} x {model}", thread::available_parallelism().map_or(0, |cores| cores.get()))
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// What was measured in interleaved rounds: ours, and its yardstick beside it.
#[derive(Default)]
pub struct Pairs(Vec<[f64; 2]>);

impl Pairs {
    pub fn push(&mut self, ours: f64, yardstick: f64) {
        self.0.push([ours, yardstick]);
    }

    /// That of the rounds, which is not that of the medians.
    pub fn ratio(&self) -> f64 {
        self.median_of(|[ours, yardstick]| ours / yardstick)
    }

    pub fn ours(&self) -> f64 {
        self.median_of(|[ours, _]| ours)
    }

    pub fn yardstick(&self) -> f64 {
        self.median_of(|[_, yardstick]| yardstick)
    }

    fn median_of(&self, of: impl Fn([f64; 2]) -> f64) -> f64 {
        median(self.0.iter().copied().map(of).collect())
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn quantile(mut times: Vec<Duration>, of_thousand: usize) -> Duration {
    times.sort();
    times.get((times.len().saturating_sub(1)) * of_thousand / 1000).copied().unwrap_or_default()
}

pub fn progress(line: &str) {
    eprint!("\r{line:70}\r");
    let _ = io::stderr().flush();
}
