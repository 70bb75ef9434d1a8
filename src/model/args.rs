//! The arguments of a call: storing, reading and replaying them.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::hours::Hours;
use super::options::{BACKUP_URLS, Backups, InUse, Options, urls_of};

use crate::error::{Error, Result};

/// The maximum size of the arguments of a call; MediaServer's own limit on a request is far smaller.
pub const MAX_ARGS_BYTES: usize = 1 << 20;

/// The form of encrypted arguments in the file: a JSON object that no call can have.
const ENCRYPTED: (&str, &str) = (r#"{"sealed":{"xchacha20poly1305":""#, r#""}}"#);

/// A call's arguments as the text of a JSON object, sorted by name, without `secret`. Values are the given strings; a
/// value that is not UTF-8 is stored as `{"hex":"…"}`.
#[derive(Debug, Clone)]
pub struct Args {
    /// Empty while they are not decrypted.
    text: Arc<str>,
    /// Their form in the file, if they are encrypted there.
    encrypted: Option<Arc<str>>,
    /// What they ask of the journal; `None` if nothing.
    options: Option<Arc<Options>>,
}

impl PartialEq for Args {
    /// Compares the arguments themselves, or the encrypted forms if they are not decrypted.
    fn eq(&self, other: &Args) -> bool {
        self.text == other.text && (!self.is_encrypted() || self.encrypted == other.encrypted)
    }
}

impl Eq for Args {}

impl Args {
    /// From the names and values of a call. If a name is given twice, the last value counts. Fails if what they ask of
    /// the journal cannot be done.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Args> {
        let mut given: Vec<(&str, &[u8])> = Vec::with_capacity(16);
        let mut bytes = 2_usize;
        for (name, value) in pairs {
            let name =
                std::str::from_utf8(name).map_err(|_| Error::invalid("the name of an argument is not UTF-8"))?;
            if name.eq_ignore_ascii_case("secret") {
                continue;
            }
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
            if bytes > MAX_ARGS_BYTES {
                return Err(Error::invalid(format!(
                    "the arguments are longer than {MAX_ARGS_BYTES} bytes, the maximum that is journaled"
                )));
            }
            given.push((name, value));
        }
        // Stable, so the last of equal names stays last.
        given.sort_by_key(|(name, _)| *name);
        // Without a tree of values, for speed: this runs on media threads.
        let mut text = Vec::with_capacity(bytes + 8 * given.len());
        text.push(b'{');
        for (at, (name, value)) in given.iter().enumerate() {
            if given.get(at + 1).is_some_and(|(next, _)| next == name) {
                continue;
            }
            if text.len() > 1 {
                text.push(b',');
            }
            push_json_string(&mut text, name.as_bytes());
            text.push(b':');
            match std::str::from_utf8(value) {
                Ok(_) => push_json_string(&mut text, value),
                Err(_) => text.extend(format!(r#"{{"hex":"{}"}}"#, hex::encode(value)).into_bytes()),
            }
        }
        text.push(b'}');
        let text = String::from_utf8(text).map_err(|_| Error::invalid("the arguments are not UTF-8"))?;
        let options = Options::read(given)?.map(Arc::new);
        Ok(Args { text: text.into(), encrypted: None, options })
    }

    /// From a JSON object of a client. Numbers and booleans become strings.
    pub fn from_object(object: &Map<String, Value>) -> Result<Args> {
        let mut pairs = Vec::with_capacity(object.len());
        for (name, value) in object {
            let bytes = match value {
                Value::Number(number) => Some(number.to_string().into_bytes()),
                Value::Bool(truth) => Some(truth.to_string().into_bytes()),
                Value::Null => Some(Vec::new()),
                Value::Array(_) if name.eq_ignore_ascii_case(BACKUP_URLS) => Some(value.to_string().into_bytes()),
                Value::String(_) | Value::Object(_) | Value::Array(_) => bytes_of(value),
            };
            let bytes = bytes.ok_or_else(|| {
                Error::invalid(format!("its argument {name} must be a string, a number or a boolean"))
            })?;
            pairs.push((name, bytes));
        }
        Self::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
    }

    /// These, with the given ones in place of those of the same name, ignoring case. Empty ones are removed.
    pub fn with<'a>(&self, given: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Args> {
        let mut pairs = self.pairs()?;
        for (name, value) in given {
            pairs.retain(|(its, _)| !its.eq_ignore_ascii_case(name));
            if !value.is_empty() {
                pairs.push((name.to_owned(), value.as_bytes().to_vec()));
            }
        }
        Self::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
    }

    /// From a column of a row whose CRC is valid; a CRC does not prove that the content is. Encrypted arguments stay so
    /// until `decrypted`.
    pub fn from_stored(text: &str) -> Result<Args> {
        if text.starts_with(ENCRYPTED.0) {
            return Ok(Args { text: "".into(), encrypted: Some(text.into()), options: None });
        }
        let mut args = Args { text: text.into(), encrypted: None, options: None };
        let pairs = args.pairs()?;
        let given = pairs.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        args.options = Options::stored(given).map(Arc::new);
        Ok(args)
    }

    /// The arguments as the text of a JSON object; empty while they are not decrypted. With the credentials of cameras.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What they ask of the journal.
    pub fn options(&self) -> Option<&Options> {
        self.options.as_deref()
    }

    /// When the proxy should run; `None` for always.
    pub fn hours(&self) -> Option<&Hours> {
        self.options()?.hours.as_ref()
    }

    /// The backup URLs of a pull; `None` if it has none.
    pub fn backups(&self) -> Option<&Backups> {
        self.options()?.backups.as_ref()
    }

    /// The backup URL from which it played last; `None` for the first URL.
    pub fn in_use(&self) -> Option<&InUse> {
        self.backups()?.in_use.as_ref()
    }

    /// Whether MediaServer lets a pull with these arguments connect again after it has lost its connection.
    pub fn may_retry(&self) -> bool {
        let read = self.read();
        let limit = read.get("retry_count").filter(|limit| !limit.is_empty());
        limit.is_none_or(|limit| limit.trim().parse().unwrap_or(0_i64) != 0)
    }

    /// The same, with the note that it plays from this URL; `None`: from its first one.
    pub fn noting(&self, in_use: Option<&InUse>) -> Result<Args> {
        let is_one = |its: &&InUse| self.backups().is_some_and(|backups| backups.urls.contains(&its.url));
        let in_use = in_use.filter(is_one);
        if in_use == self.in_use() {
            return Ok(self.clone());
        }
        let noted = in_use.map(InUse::noted);
        let mut pairs = self.pairs()?;
        pairs.retain(|(name, _)| !Options::is_noted(name));
        pairs.extend(noted.into_iter().flatten().map(|(name, value)| (name.to_owned(), value.into_bytes())));
        Self::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
    }

    /// Whether this time, in milliseconds since 1970-01-01 UTC, is outside of their hours.
    pub fn is_off_hours(&self, at: i64) -> bool {
        self.hours().is_some_and(|hours| !hours.include(at))
    }

    /// The same arguments, marked as not encryptable: they must not be written.
    pub fn unstorable(self) -> Args {
        Args { encrypted: Some("".into()), ..self }
    }

    /// Whether they may be written: false after [`Args::unstorable`].
    pub fn is_storable(&self) -> bool {
        !self.stored().is_empty()
    }

    /// Their form in the file.
    pub fn stored(&self) -> &str {
        self.encrypted.as_deref().unwrap_or(&self.text)
    }

    /// Whether they were read from a file and are not decrypted yet.
    pub fn is_encrypted(&self) -> bool {
        self.text.is_empty()
    }

    /// The encrypted bytes; `None` if they are not encrypted, or damaged.
    pub fn ciphertext(&self) -> Option<Vec<u8>> {
        let text = self.encrypted.as_deref()?.strip_prefix(ENCRYPTED.0)?.strip_suffix(ENCRYPTED.1)?;
        hex::decode(text).ok()
    }

    /// The same arguments, with their encrypted form for the file.
    pub fn encrypted_as(self, ciphertext: &[u8]) -> Args {
        let text = [ENCRYPTED.0, &hex::encode(ciphertext), ENCRYPTED.1].concat();
        Args { encrypted: Some(text.into()), ..self }
    }

    /// The same arguments, decrypted to `text`.
    pub fn decrypted(self, text: &str) -> Result<Args> {
        Ok(Args { encrypted: self.encrypted, ..Self::from_stored(text)? })
    }

    /// The arguments of the call that replays these, with `replay` on top. Values may not be UTF-8.
    pub fn replayed(&self, replay: &[(&str, &str)]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut pairs = self.pairs()?;
        for (name, value) in replay {
            pairs.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
            pairs.push(((*name).to_owned(), value.as_bytes().to_vec()));
        }
        Ok(pairs)
    }

    /// Whether they may have an argument of this name, ignoring case. Fast, but sometimes true if there is none.
    pub fn may_have(&self, name: &str) -> bool {
        self.text.as_bytes().windows(name.len().max(1)).any(|part| part.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The parsed arguments.
    pub fn read(&self) -> Read {
        Read(serde_json::from_str(&self.text).unwrap_or_default())
    }

    fn pairs(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let map: Map<String, Value> = serde_json::from_str(&self.text)
            .map_err(|error| Error::corrupt(format!("stored arguments are not a JSON object: {error}")))?;
        map.into_iter()
            .map(|(name, value)| {
                let bytes = bytes_of(&value)
                    .ok_or_else(|| Error::corrupt(format!("the stored argument {name} is not a string")))?;
                Ok((name, bytes))
            })
            .collect()
    }
}

/// Arguments as the body of a call: a JSON object with the given bytes as values, which may not be UTF-8.
pub fn body_of(args: &[(String, Vec<u8>)]) -> Vec<u8> {
    let size = |(name, value): &(String, Vec<u8>)| name.len() + value.len() + 6;
    let mut body = Vec::with_capacity(args.iter().map(size).sum::<usize>() + 2);
    body.push(b'{');
    for (index, (name, value)) in args.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        push_json_string(&mut body, name.as_bytes());
        body.push(b':');
        push_json_string(&mut body, value);
    }
    body.push(b'}');
    body
}

/// Parsed arguments; none while they are not decrypted.
pub struct Read(Map<String, Value>);

impl Read {
    /// An argument by its name, ignoring case; `None` if it is missing or not a string.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
    }

    /// Those that are strings.
    pub fn pairs(&self) -> Vec<(&str, &[u8])> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.as_bytes()))).collect()
    }

    /// The names of the arguments of which these and `other` have different values, or only one has any; not those of the
    /// journal.
    pub fn differences<'a>(&'a self, other: &'a Read) -> impl Iterator<Item = &'a str> {
        let only_there = other.0.iter().filter(|(name, _)| !self.0.contains_key(*name));
        let here = self.0.iter().filter(|(name, value)| other.0.get(*name) != Some(*value));
        here.chain(only_there).map(|(name, _)| name.as_str()).filter(|name| !Options::has(name))
    }

    /// The names and values of those that are strings, and of each of the backup URLs.
    pub fn texts(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let plain = self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.into())));
        let backups = self.get(BACKUP_URLS).and_then(urls_of).into_iter().flatten();
        plain.chain(backups.map(|url| (BACKUP_URLS, url.into())))
    }
}

/// A stored value: a string, or `{"hex":"…"}`.
fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        value => hex::decode(value.get("hex")?.as_str()?).ok(),
    }
}

/// Escapes a JSON string by bytes: serde_json rejects what is not UTF-8, but some cameras use it.
fn push_json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(*b"\\n"),
            b'\r' => out.extend(*b"\\r"),
            b'\t' => out.extend(*b"\\t"),
            0x08 => out.extend(*b"\\b"),
            0x0c => out.extend(*b"\\f"),
            0..=0x1f => out.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn args(pairs: &[(&str, &[u8])]) -> Args {
        Args::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), *value))).unwrap()
    }

    #[test]
    fn the_secret_is_never_kept_however_it_is_spelled() {
        let args = args(&[("Secret", b"x"), ("secret", b"y"), ("SECRET", b"z"), ("app", b"live")]);
        assert_eq!(args.as_str(), r#"{"app":"live"}"#);
    }

    #[test]
    fn every_byte_of_a_value_comes_back_in_the_replayed_call() {
        let gbk: &[u8] = b"rtsp://\xc4\xe3\xba\xc3";
        let args = args(&[
            ("empty", b""),
            ("gbk", gbk),
            ("quoted", br#"a"b\c%20 d"#),
            ("nul", b"a\0b\n"),
            ("unicode", "摄像头 1".as_bytes()),
        ]);
        let stored = Args::from_stored(args.as_str()).unwrap();
        let body = body_of(&stored.replayed(&[]).unwrap());
        let expected: Vec<u8> = [
            br#"{"empty":"","gbk":"rtsp://"#.as_slice(),
            b"\xc4\xe3\xba\xc3",
            br#"","nul":"a\u0000b\n","quoted":"a\"b\\c%20 d","unicode":""#,
            "摄像头 1\"}".as_bytes(),
        ]
        .concat();
        assert_eq!(body, expected);
    }

    #[test]
    fn what_is_not_pairs_of_hexadecimal_digits_is_damage() {
        for (digits, bytes) in [("c4E3", Some(b"\xc4\xe3")), ("+4", None), ("c4e", None), ("c4 e", None)] {
            let stored = Args::from_stored(&format!(r#"{{"gbk":{{"hex":"{digits}"}}}}"#));
            let body = stored.and_then(|args| args.replayed(&[])).ok().map(|args| body_of(&args));
            let expected = bytes.map(|bytes| [br#"{"gbk":""#.as_slice(), bytes, br#""}"#].concat());
            assert_eq!(body, expected, "{digits}");
        }
    }

    #[test]
    fn a_replay_overrides_what_was_given() {
        let args = args(&[("Force", b"0"), ("app", b"live")]);
        let body = body_of(&args.replayed(&[("force", "1")]).unwrap());
        assert_eq!(body, br#"{"app":"live","force":"1"}"#);
    }

    #[test]
    fn arguments_beyond_the_limit_are_refused() {
        let value = vec![b'x'; MAX_ARGS_BYTES];
        let error = Args::from_pairs([(b"url".as_slice(), value.as_slice())]).unwrap_err();
        assert_eq!(error.code, crate::error::Code::InvalidArgument);
        assert!(Args::from_pairs([(b"url".as_slice(), &value[..60 << 10])]).is_ok());
    }

    #[test]
    fn what_is_asked_of_the_journal_does_not_change_the_call() {
        let plain = args(&[("url", b"rtsp://1"), ("app", b"live")]);
        let hours = ("journal_hours", b"08:00-18:00 @ UTC".as_slice());
        let marked = args(&[("url", b"rtsp://1"), ("app", b"live"), ("Journal_Label", b"site 1"), hours]);
        let differ = |one: &Args, other: &Args| one.read().differences(&other.read()).next().is_some();
        assert!(!differ(&plain, &marked) && !differ(&marked, &plain) && plain != marked);
        assert!(differ(&marked, &args(&[("url", b"rtsp://2"), ("app", b"live")])));
    }

    #[test]
    fn what_is_asked_of_the_journal_is_known_however_it_was_kept() {
        let hours = |args: &Args| args.hours().is_some();
        let given = args(&[("url", b"rtsp://1"), ("journal_hours", b"08:00-18:00 @ UTC")]);
        let encrypted = given.clone().encrypted_as(b"ciphertext");
        let stored = Args::from_stored(encrypted.stored()).unwrap();
        assert_eq!([hours(&given), hours(&encrypted), hours(&stored)], [true, true, false]);
        assert!(
            hours(&stored.decrypted(given.as_str()).unwrap())
                && hours(&Args::from_stored(given.as_str()).unwrap())
        );
    }

    #[test]
    fn an_argument_is_found_in_any_case() {
        let args = args(&[("Timeout_Sec", b"2.5"), ("gbk", b"\xc4\xe3")]);
        let args = args.read();
        assert_eq!(args.get("timeout_sec"), Some("2.5"));
        assert_eq!(args.get("gbk"), None);
        assert_eq!(args.get("url"), None);
    }
}
