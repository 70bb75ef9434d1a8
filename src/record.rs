//! What the journal remembers: an accepted call of MediaServer's API. A record is a kind, the key that
//! MediaServer gave the proxy, and the call's arguments as one JSON object, verbatim, less the secret.
//! Knows nothing of files, threads or how calls arrive.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Names, values and braces of one call's arguments may take this much; MediaServer's own limit on a
/// request is far smaller.
pub const MAX_ARGS_BYTES: usize = 1 << 20;
/// A key is `vhost/app/stream`; longer than this is no key of MediaServer's.
pub const MAX_KEY_BYTES: usize = 4096;

/// The kinds of proxy that are journaled. [`Kind::info`] is the one table that says all about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Pull,
}

/// One row of the table of kinds: MediaServer's names for the calls that make, end and list it.
#[derive(Debug)]
pub struct KindInfo {
    pub name: &'static str,
    pub add: &'static str,
    pub remove: &'static str,
    pub list: &'static str,
    /// Tells whether a key is there (code 0) without listing them all.
    pub find: &'static str,
    /// Arguments that a replay sets on top of the recorded ones. `force=1` makes MediaServer keep a pull whose
    /// first connect fails, so that a camera that is off at boot is retried instead of dropped.
    pub replay: &'static [(&'static str, &'static str)],
}

impl Kind {
    pub const ALL: &'static [Kind] = &[Kind::Pull];

    pub fn info(self) -> &'static KindInfo {
        match self {
            Kind::Pull => &KindInfo {
                name: "pull",
                add: "addStreamProxy",
                remove: "delStreamProxy",
                list: "listStreamProxy",
                find: "getProxyInfo",
                replay: &[("force", "1")],
            },
        }
    }

    pub fn name(self) -> &'static str {
        self.info().name
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// Where a proxy stands in intent. Only `Enabled` ones are restored; `Dormant` ones are enabled when a player asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Enabled,
    Disabled,
    Dormant,
    Quarantined,
}

impl State {
    pub const ALL: &'static [State] = &[State::Enabled, State::Disabled, State::Dormant, State::Quarantined];

    pub fn name(self) -> &'static str {
        match self {
            State::Enabled => "enabled",
            State::Disabled => "disabled",
            State::Dormant => "dormant",
            State::Quarantined => "quarantined",
        }
    }

    pub fn from_name(name: &str) -> Option<State> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }
}

/// What a journal row did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Add,
    Remove,
    /// It is wanted as before, and stands in another state.
    Set(State),
}

impl Op {
    const ALL: [Op; 6] = [
        Op::Add,
        Op::Remove,
        Op::Set(State::Enabled),
        Op::Set(State::Disabled),
        Op::Set(State::Dormant),
        Op::Set(State::Quarantined),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Op::Add => "add",
            Op::Remove => "remove",
            Op::Set(State::Enabled) => "enable",
            Op::Set(State::Disabled) => "disable",
            Op::Set(State::Dormant) => "sleep",
            Op::Set(State::Quarantined) => "quarantine",
        }
    }

    /// The state of the proxy afterwards; none where it is gone.
    pub fn state(self) -> Option<State> {
        match self {
            Op::Add => Some(State::Enabled),
            Op::Remove => None,
            Op::Set(state) => Some(state),
        }
    }

    pub fn from_name(name: &str) -> Option<Op> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// A call's arguments as the text of one JSON object, names sorted, `secret` left out. Every value is the
/// string that was given; one that is not UTF-8 is kept as `{"hex":"…"}`, so that no byte is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args(Arc<str>);

impl Args {
    /// From the names and values of a call. Of a name given twice the last value counts.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Args> {
        let mut map = Map::new();
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
                    "the arguments take more than {MAX_ARGS_BYTES} bytes, the most that is journaled"
                )));
            }
            let value = match std::str::from_utf8(value) {
                Ok(text) => Value::String(text.to_owned()),
                Err(_) => Value::Object(Map::from_iter([(
                    "hex".to_owned(),
                    Value::String(value.iter().map(|byte| format!("{byte:02x}")).collect()),
                )])),
            };
            map.insert(name.to_owned(), value);
        }
        Ok(Args(Value::Object(map).to_string().into()))
    }

    /// From the column of a row whose CRC holds; still checked, since a CRC is no proof of sense.
    pub fn from_stored(text: &str) -> Result<Args> {
        let args = Args(text.into());
        args.pairs()?;
        Ok(args)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The body of the call that replays these arguments: a JSON object in which every value is again the bytes
    /// that were given (hence bytes, not text), with `replay` set on top.
    pub fn request_body(&self, replay: &[(&str, &str)]) -> Result<Vec<u8>> {
        let mut pairs = self.pairs()?;
        for (name, value) in replay {
            pairs.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
            pairs.push(((*name).to_owned(), value.as_bytes().to_vec()));
        }
        let mut body = Vec::with_capacity(self.0.len() + 32);
        body.push(b'{');
        for (index, (name, value)) in pairs.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            push_json_string(&mut body, name.as_bytes());
            body.push(b':');
            push_json_string(&mut body, value);
        }
        body.push(b'}');
        Ok(body)
    }

    /// One argument, by its name in any case; none where it is missing or no text.
    pub fn value(&self, name: &str) -> Option<String> {
        let map: Map<String, Value> = serde_json::from_str(&self.0).ok()?;
        map.into_iter().find_map(|(given, value)| match value {
            Value::String(text) if given.eq_ignore_ascii_case(name) => Some(text),
            _ => None,
        })
    }

    fn pairs(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let map: Map<String, Value> = serde_json::from_str(&self.0)
            .map_err(|error| Error::corrupt(format!("stored arguments are no JSON object: {error}")))?;
        map.into_iter()
            .map(|(name, value)| {
                let bytes = match &value {
                    Value::String(text) => Some(text.as_bytes().to_vec()),
                    Value::Object(object) => object.get("hex").and_then(Value::as_str).and_then(from_hex),
                    _ => None,
                };
                bytes
                    .map(|bytes| (name.clone(), bytes))
                    .ok_or_else(|| Error::corrupt(format!("the stored argument {name} is no string")))
            })
            .collect()
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// JSON's string escapes, byte-wise: serde_json refuses what is not UTF-8, a camera's vendor does not.
fn push_json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..=0x1f => out.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// One proxy as intent has it. Times are milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub args: Args,
    pub state: State,
    /// The change that made it what it is.
    pub seq: u64,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Entry {
    /// The checksum that its row in `proxies` carries.
    pub fn crc(&self, kind: Kind, key: &str) -> u32 {
        Checksum::default()
            .text(kind.name())
            .text(key)
            .text(self.args.as_str())
            .text(self.state.name())
            .number(self.seq)
            .number(self.created_at.cast_unsigned())
            .number(self.updated_at.cast_unsigned())
            .finish()
    }
}

/// One change of intent: a row of `journal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub seq: u64,
    pub at: i64,
    pub op: Op,
    pub kind: Kind,
    pub key: Arc<str>,
    /// Those of the proxy afterwards; none where it is gone.
    pub args: Option<Args>,
    /// Who asked: the peer's address, as `ip:port`.
    pub origin: String,
    /// Which call it was.
    pub reason: String,
}

impl Change {
    /// The proxy afterwards, as far as the change alone tells: its age is that of the change.
    pub fn entry(&self) -> Option<Entry> {
        Some(Entry {
            args: self.args.clone()?,
            state: self.op.state()?,
            seq: self.seq,
            created_at: self.at,
            updated_at: self.at,
        })
    }

    /// The checksum that its row carries.
    pub fn crc(&self) -> u32 {
        Checksum::default()
            .number(self.seq)
            .number(self.at.cast_unsigned())
            .text(self.op.name())
            .text(self.kind.name())
            .text(&self.key)
            .text(self.args.as_ref().map_or("", Args::as_str))
            .text(&self.origin)
            .text(&self.reason)
            .finish()
    }
}

/// CRC-32 (IEEE) over fields that each carry their length, so that no two records read alike.
#[derive(Default)]
struct Checksum(crc32fast::Hasher);

impl Checksum {
    fn text(mut self, text: &str) -> Self {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    fn number(mut self, number: u64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// A key as MediaServer returned it, checked for what no key can be.
pub fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(Error::invalid(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", key.len())));
    }
    Ok(())
}

/// The host in a URL, in lower case, without credentials and port; none where there is none. As MediaServer reads it:
/// the authority ends at the first slash, and the credentials at its last `@`.
pub fn host_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let address = authority.rsplit('@').next()?;
    let host = match address.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => address.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_lowercase())
}

/// The text with the credentials in its URLs (`rtsp://user:password@host`) as `***`. A password may hold any sign that
/// a careless operator has left in it, so all up to the last `@` of the word is taken for one.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        // What quotes a URL ends it.
        let end =
            after.find(|sign: char| sign.is_whitespace() || matches!(sign, '"' | '\'')).unwrap_or(after.len());
        let (word, behind) = after.split_at(end);
        match word.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str("***@");
                shown.push_str(host);
            }
            None => shown.push_str(word),
        }
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

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
        let body = stored.request_body(&[]).unwrap();
        let expected: Vec<u8> = [
            br#"{"empty":"","gbk":"rtsp://"#.as_slice(),
            b"\xc4\xe3\xba\xc3",
            br#"","nul":"a\u0000b\u000a","quoted":"a\"b\\c%20 d","unicode":""#,
            "摄像头 1\"}".as_bytes(),
        ]
        .concat();
        assert_eq!(body, expected);
    }

    #[test]
    fn a_replay_overrides_what_was_given() {
        let args = args(&[("Force", b"0"), ("app", b"live")]);
        let body = args.request_body(Kind::Pull.info().replay).unwrap();
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
    fn any_changed_field_changes_the_checksum() {
        let entry = Entry {
            args: args(&[("url", b"rtsp://a")]),
            state: State::Enabled,
            seq: 1,
            created_at: 2,
            updated_at: 3,
        };
        let base = entry.crc(Kind::Pull, "v/a/s");
        let variants = [
            Entry { args: args(&[("url", b"rtsp://b")]), ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { state: State::Disabled, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { seq: 2, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { created_at: 3, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            Entry { updated_at: 2, ..entry.clone() }.crc(Kind::Pull, "v/a/s"),
            entry.crc(Kind::Pull, "v/a/t"),
        ];
        assert!(variants.iter().all(|&crc| crc != base), "{variants:?} {base}");
    }

    #[test]
    fn a_source_is_known_by_its_host() {
        for (url, host) in [
            ("rtsp://10.0.0.1/a@b", Some("10.0.0.1")),
            ("rtsp://admin:p@ss@NVR.local:554/ch1?x=1", Some("nvr.local")),
            ("rtmp://[fe80::1]:1935/live/a", Some("fe80::1")),
            ("http://h?a=b://c", Some("h")),
            ("srt://:9000", None),
            ("rtsp://u@/x", None),
            ("/var/film.mp4", None),
            ("", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }

    #[test]
    fn an_argument_is_found_in_any_case() {
        let args = args(&[("Timeout_Sec", b"2.5"), ("gbk", b"\xc4\xe3")]);
        assert_eq!(args.value("timeout_sec").as_deref(), Some("2.5"));
        assert_eq!(args.value("gbk"), None);
        assert_eq!(args.value("url"), None);
    }

    #[test]
    fn credentials_are_not_shown() {
        for (text, shown) in [
            ("no url", "no url"),
            ("rtsp://10.0.0.1/a@b is off", "rtsp://***@b is off"),
            (
                "cannot pull rtsp://admin:p@ss/w?rd@10.0.0.1:554/ch1: 401",
                "cannot pull rtsp://***@10.0.0.1:554/ch1: 401",
            ),
            ("\"rtmp://u:p@h/a\" and 'rtsp://v:q@i/b'", "\"rtmp://***@h/a\" and 'rtsp://***@i/b'"),
            ("rtsp://x://u:p@h", "rtsp://***@h"),
            ("://", "://"),
            ("摄像头 rtsp://管理:密码@摄像头/一 坏", "摄像头 rtsp://***@摄像头/一 坏"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
