//! The cxx bridge: tables and texts that the host reads once, at its start. In C++ an error is a `rust::Error`.

use super::guard::guarded;
use crate::api;
use crate::capture::CLOSES;
use crate::error::Result;
use crate::model::Kind;
use crate::settings::KEYS;

#[cxx::bridge(namespace = "zlm_journal")]
mod ffi {
    /// A key of the `[journal]` section, and its value in a fresh config.ini.
    struct Setting {
        name: String,
        value: String,
    }

    extern "Rust" {
        /// The names of the API calls that zlm_journal_api_call() handles. Any thread, any time.
        fn api_calls() -> Result<Vec<String>>;
        /// All keys of the ini section. Any thread, any time, also before a journal is open.
        fn settings() -> Result<Vec<Setting>>;
        /// The names of the server's own API calls that must be passed to zlm_journal_call_open(). Any thread, any
        /// time.
        fn watched_calls() -> Result<Vec<String>>;
    }
}

fn api_calls() -> Result<Vec<String>> {
    guarded("api_calls", || Ok(api::names().map(str::to_owned).collect()))
}

fn settings() -> Result<Vec<ffi::Setting>> {
    guarded("settings", || {
        Ok(KEYS
            .iter()
            .map(|key| ffi::Setting { name: key.name.to_owned(), value: key.default.to_owned() })
            .collect())
    })
}

fn watched_calls() -> Result<Vec<String>> {
    guarded("watched_calls", || {
        let of_kinds = Kind::ALL.iter().flat_map(|kind| [kind.info().add, kind.info().remove]);
        Ok(of_kinds.chain(CLOSES).map(str::to_owned).collect())
    })
}
