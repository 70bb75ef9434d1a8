//! How property tests run: with the same cases each time. `ZLMJ_SEED` has others tried, `ZLMJ_CASES` more of them.

use std::env;

use proptest::test_runner::{Config, RngSeed};

pub fn config(cases: u32) -> Config {
    fn told<T: std::str::FromStr>(name: &str) -> Option<T> {
        env::var(name).ok().and_then(|text| text.parse().ok())
    }
    Config {
        cases: told("ZLMJ_CASES").unwrap_or(cases),
        rng_seed: RngSeed::Fixed(told("ZLMJ_SEED").unwrap_or(1)),
        failure_persistence: None,
        ..Config::default()
    }
}
