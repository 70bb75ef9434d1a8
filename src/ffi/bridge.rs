//! The cxx bridge: what the host reads once, at its start, as tables and texts. A failure arrives in C++ as `rust::Error`.

use super::guard::guarded;
use super::handles;
use crate::api;
use crate::capture::CLOSES;
use crate::error::Result;
use crate::model::Kind;
use crate::settings::KEYS;

#[cxx::bridge(namespace = "zlm_journal")]
mod ffi {
    /// One key of the `[journal]` section, with the value that a fresh config.ini gets.
    struct Setting {
        name: String,
        value: String,
    }

    extern "Rust" {
        /// The file in which a handler of crash signals is to note what the server was working on: the `seq` of each
        /// zlm_journal_add, in digits, on a line of its own. The next start reads it and takes it away. Any thread.
        fn crash_file(handle: u64) -> Result<String>;
        /// The names of the API calls that zlm_journal_api_call() takes. Any thread, any time.
        fn api_calls() -> Result<Vec<String>>;
        /// All keys of the ini section. Any thread, any time, also before anything is open.
        fn settings() -> Result<Vec<Setting>>;
        /// The names of the server's own API calls that the journal watches: each goes to zlm_journal_call_open(). Any
        /// thread, any time.
        fn watched_calls() -> Result<Vec<String>>;
    }
}

fn crash_file(handle: u64) -> Result<String> {
    guarded("crash_file", || handles::get(handle)?.crash_file())
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
