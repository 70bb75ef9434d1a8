//! The cxx bridge: what answers with text or a table. A failure arrives in C++ as `rust::Error`.

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

    /// The reply to an API call.
    struct Answer {
        content_type: String,
        body: String,
    }

    extern "Rust" {
        /// The state of an open journal, as one JSON object. With at most `most` of the proxies that do not play, or,
        /// where `key` is not empty, with those of that key alone. Any thread; takes milliseconds, no storage.
        fn status(handle: u64, key: &str, most: usize) -> Result<String>;
        /// The file in which a handler of crash signals is to note what the server was working on: the `seq` of each
        /// zlm_journal_add, in digits, on a line of its own. The next start reads it and takes it away. Any thread.
        fn crash_file(handle: u64) -> Result<String>;
        /// The names of the API calls that operate() takes.
        fn operations() -> Result<Vec<String>>;
        /// Carries out one of them and returns the whole reply. `names` and `values` are the call's
        /// arguments, less those in the body; `origin` is who calls. Any thread but a media thread: it waits for the disk.
        fn operate(
            handle: u64,
            name: &str,
            names: Vec<String>,
            values: Vec<String>,
            body: &[u8],
            origin: &str,
        ) -> Result<Answer>;
        /// Restores what is wanted and not there: the proxies of one key, or all where `key` is empty. Returns how
        /// many that is, wanted ones that are there included. Any thread; takes microseconds, no storage.
        fn restore_now(handle: u64, key: &str) -> Result<u64>;
        /// All keys of the ini section. Any thread, any time, also before anything is open.
        fn settings() -> Result<Vec<Setting>>;
        /// All kinds of proxy that are journaled, in the order of ZLM_JOURNAL_PULL and so on. Any thread, any time.
        fn kinds() -> Result<Vec<KindRow>>;
    }
}

fn status(handle: u64, key: &str, most: usize) -> Result<String> {
    guarded("status", || handles::get(handle)?.status(given(key), most))
}

fn crash_file(handle: u64) -> Result<String> {
    guarded("crash_file", || handles::get(handle)?.crash_file())
}

fn operations() -> Result<Vec<String>> {
    guarded("operations", || Ok(api::names().map(str::to_owned).collect()))
}

fn operate(
    handle: u64,
    name: &str,
    names: Vec<String>,
    values: Vec<String>,
    body: &[u8],
    origin: &str,
) -> Result<ffi::Answer> {
    guarded("operate", || {
        let args: Vec<(String, String)> = names.into_iter().zip(values).collect();
        let request = api::Request { args: &args, body, origin };
        let (content_type, body) = api::answer(&*handles::get(handle)?, name, &request);
        Ok(ffi::Answer { content_type: content_type.to_owned(), body })
    })
}

fn restore_now(handle: u64, key: &str) -> Result<u64> {
    guarded("restore_now", || handles::get(handle)?.restore(given(key)))
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
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
