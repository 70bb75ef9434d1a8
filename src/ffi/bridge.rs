//! The cxx bridge: what answers with text or a table. A failure arrives in C++ as `rust::Error`.

use super::guard::guarded;
use super::handles;
use crate::error::{Error, Result};
use crate::operate;
use crate::record::{End, Kind, url};
use crate::settings::KEYS;

#[cxx::bridge(namespace = "zlm_journal")]
mod ffi {
    /// One key of the `[journal]` section, with the value that a fresh config.ini gets.
    struct Setting {
        name: String,
        value: String,
    }

    /// One kind of proxy: its name in the journal, and MediaServer's names for its API calls and their arguments.
    struct KindRow {
        name: String,
        add: String,
        remove: String,
        list: String,
        /// Empty where the server has no such call.
        find: String,
        /// The arguments that its key is made of, for key_of.
        key_args: Vec<String>,
        /// The key is the stream `vhost/app/stream` that it makes.
        key_is_stream: bool,
        /// It can be added only while the stream of this server that its arguments name is there.
        takes_named_stream: bool,
        /// The argument, also in the list, with the URL of the stream of this server with whose end it ends; empty where
        /// there is none.
        stream_url: String,
        /// An add of what is there already is answered with success, and changes nothing.
        again_is_success: bool,
        /// The argument that names a key of the ini; empty where there is none.
        names_setting: String,
    }

    /// The reply to an API call.
    struct Answer {
        content_type: String,
        body: String,
    }

    /// A proxy of the journal.
    struct ProxyName {
        kind: String,
        key: String,
    }

    extern "Rust" {
        /// The state of an open journal, as one JSON object. With at most `most` of the proxies that do not play, or,
        /// where `key` is not empty, with those of that key alone. Any thread; takes milliseconds, no storage.
        fn status(handle: u64, key: &str, most: usize) -> Result<String>;
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
        /// The enabled proxies with whose end the stream `vhost/app/stream` of this server goes, and the other way round.
        /// Any thread; takes microseconds, no storage.
        fn makers(handle: u64, stream: &str) -> Result<Vec<ProxyName>>;
        /// The key that the server gives to what a kind's call makes with these values of KindRow.key_args. Any thread, any
        /// time.
        fn key_of(kind: &str, values: Vec<String>) -> Result<String>;
        /// The stream `vhost/app/stream` of this server that something which pushes to `url` makes; empty where that leads
        /// elsewhere. Any thread, any time.
        fn stream_here(url: &str) -> Result<String>;
        /// All keys of the ini section. Any thread, any time, also before anything is open.
        fn settings() -> Result<Vec<Setting>>;
        /// All kinds of proxy that are journaled. Any thread, any time.
        fn kinds() -> Result<Vec<KindRow>>;
    }
}

fn status(handle: u64, key: &str, most: usize) -> Result<String> {
    guarded("status", || handles::get(handle)?.status(given(key), most))
}

fn operations() -> Result<Vec<String>> {
    guarded("operations", || Ok(operate::names().map(str::to_owned).collect()))
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
        let request = operate::Request { args: &args, body, origin };
        let (content_type, body) = operate::answer(&*handles::get(handle)?, name, &request);
        Ok(ffi::Answer { content_type: content_type.to_owned(), body })
    })
}

fn restore_now(handle: u64, key: &str) -> Result<u64> {
    guarded("restore_now", || handles::get(handle)?.restore(given(key)))
}

fn makers(handle: u64, stream: &str) -> Result<Vec<ffi::ProxyName>> {
    guarded("makers", || {
        let makers = handles::get(handle)?.makers(stream).into_iter();
        Ok(makers
            .map(|(kind, key)| ffi::ProxyName { kind: kind.name().to_owned(), key: key.to_string() })
            .collect())
    })
}

fn key_of(kind: &str, values: Vec<String>) -> Result<String> {
    guarded("key_of", || {
        let kind = Kind::from_name(kind).ok_or_else(|| Error::invalid(format!("{kind:?} is no kind of proxy")))?;
        let names = kind.info().key.iter().map(|part| part.argument());
        let pairs: Vec<(&str, &String)> = names.zip(&values).collect();
        Ok(kind.key_of(|name| pairs.iter().find(|(given, _)| *given == name).map_or("", |(_, value)| value)))
    })
}

fn stream_here(url: &str) -> Result<String> {
    guarded("stream_here", || Ok(url::stream_here(url).unwrap_or_default()))
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
                let stream_url = match info.makes {
                    End::Url(name) if info.ends_with_its_stream => name,
                    _ => "",
                };
                ffi::KindRow {
                    name: info.name.to_owned(),
                    add: info.add.to_owned(),
                    remove: info.remove.to_owned(),
                    list: info.list.to_owned(),
                    find: info.find.to_owned(),
                    key_args: info.key.iter().map(|part| part.argument().to_owned()).collect(),
                    key_is_stream: kind.key_is_stream(),
                    takes_named_stream: info.takes == End::Named,
                    stream_url: stream_url.to_owned(),
                    again_is_success: info.again_is_success,
                    names_setting: info.names_setting.unwrap_or_default().to_owned(),
                }
            })
            .collect())
    })
}
