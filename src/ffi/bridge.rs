//! The cxx bridge: what answers with text or a table. A failure arrives in C++ as `rust::Error`.

use super::guard::guarded;
use super::handles;
use crate::error::Result;
use crate::record::Kind;
use crate::settings::KEYS;

#[cxx::bridge(namespace = "zlm_journal")]
mod ffi {
    /// One key of the `[journal]` section, with the value that a fresh config.ini gets.
    struct Setting {
        name: String,
        value: String,
    }

    /// One kind of proxy: its name in the journal, and MediaServer's names for its API calls.
    struct KindRow {
        name: String,
        add: String,
        remove: String,
        list: String,
        find: String,
    }

    extern "Rust" {
        /// The state of an open journal, as one JSON object. With at most `most` of the proxies that do not play, or,
        /// where `key` is not empty, with those of that key alone. Any thread; takes milliseconds, no storage.
        fn status(handle: u64, key: &str, most: usize) -> Result<String>;
        /// Restores what is wanted and not there: the proxies of one key, or all where `key` is empty. Returns how
        /// many that is, wanted ones that are there included. Any thread; takes microseconds, no storage.
        fn restore_now(handle: u64, key: &str) -> Result<u64>;
        /// All keys of the ini section. Any thread, any time, also before anything is open.
        fn settings() -> Result<Vec<Setting>>;
        /// All kinds of proxy that are journaled. Any thread, any time.
        fn kinds() -> Result<Vec<KindRow>>;
    }
}

fn status(handle: u64, key: &str, most: usize) -> Result<String> {
    guarded("status", || handles::get(handle)?.status(given(key), most))
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
                    list: info.list.to_owned(),
                    find: info.find.to_owned(),
                }
            })
            .collect())
    })
}
