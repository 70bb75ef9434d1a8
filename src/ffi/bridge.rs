//! The cxx bridge: what the host reads once, at its start, as tables and texts. A failure arrives in C++ as `rust::Error`.

use super::guard::guarded;
use super::handles;
use crate::api;
use crate::error::Result;
use crate::model::{Endpoint, Kind};
use crate::settings::KEYS;

#[cxx::bridge(namespace = "zlm_journal")]
mod ffi {
    /// One key of the `[journal]` section, with the value that a fresh config.ini gets.
    struct Setting {
        name: String,
        value: String,
    }

    /// What of one kind of proxy the glue needs: MediaServer's names for its calls and their arguments.
    struct KindRow {
        name: String,
        add: String,
        remove: String,
        /// It can be added only while the source of this server that its arguments name is there.
        takes_named_stream: bool,
        /// The argument that names a key of the ini; empty where there is none.
        names_setting: String,
    }

    extern "Rust" {
        /// The file in which a handler of crash signals is to note what the server was working on: the `seq` of each
        /// zlm_journal_add, in digits, on a line of its own. The next start reads it and takes it away. Any thread.
        fn crash_file(handle: u64) -> Result<String>;
        /// The names of the API calls that zlm_journal_api_call() takes. Any thread, any time.
        fn api_calls() -> Result<Vec<String>>;
        /// All keys of the ini section. Any thread, any time, also before anything is open.
        fn settings() -> Result<Vec<Setting>>;
        /// All kinds of proxy that are journaled, in the order of ZLM_JOURNAL_PULL and so on. Any thread, any time.
        fn kinds() -> Result<Vec<KindRow>>;
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

fn kinds() -> Result<Vec<ffi::KindRow>> {
    guarded("kinds", || {
        Ok(Kind::ALL
            .iter()
            .map(|kind| {
                let info = kind.info();
                ffi::KindRow {
                    name: info.name.to_owned(),
                    add: info.add.to_owned(),
                    remove: info.remove.to_owned(),
                    takes_named_stream: info.input == Endpoint::Named,
                    names_setting: info.names_setting.unwrap_or_default().to_owned(),
                }
            })
            .collect())
    })
}
