//! The forms in which proxies are imported: a document of exportJournal, a reply of listStreamProxy, an array, CSV, and YAML
//! for the watched file. Knows nothing of the journal.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::add_of;
use super::diff::Desired;
use crate::error::{Error, Result};
use crate::model::{Kind, LABEL, ProxyKey, State};

/// The version of the documents that are written, and the newest that is read.
pub const VERSION: u64 = 1;
pub const FORMAT: &str = "zlm-journal";
/// The maximum number of entries in a document.
const MOST_ENTRIES: usize = 100_000;
/// How many mistakes are told.
const MOST_MISTAKES: usize = 100;

/// How desired proxies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON or CSV, as the text begins.
    Any,
    Yaml,
}

impl Format {
    /// By the extension of a file.
    pub fn of(path: &Path) -> Format {
        let is_yaml = |extension: &OsStr| ["yaml", "yml"].iter().any(|yaml| extension.eq_ignore_ascii_case(yaml));
        if path.extension().is_some_and(is_yaml) { Format::Yaml } else { Format::Any }
    }
}

/// Something that is wrong with what is imported, and where.
#[derive(Debug, Serialize)]
pub struct Mistake {
    #[serde(flatten)]
    at: Option<At>,
    #[serde(rename = "msg")]
    what: String,
}

/// A place in what is imported.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum At {
    /// From 1.
    Line(u64),
    /// From 0; with what such a document calls it.
    Item(#[serde(serialize_with = "number")] (&'static str, usize)),
}

fn number<S: serde::Serializer>(
    (_, number): &(&str, usize),
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(*number as u64)
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(At::Line(line)) => write!(out, "line {line}: {}", self.what),
            Some(At::Item((name, index))) => write!(out, "{name} {index} (the first is 0): {}", self.what),
            None => out.write_str(&self.what),
        }
    }
}

impl From<Error> for Mistake {
    fn from(error: Error) -> Mistake {
        Mistake { at: None, what: error.message }
    }
}

impl Mistake {
    fn new(what: impl Into<String>) -> Mistake {
        Mistake { at: None, what: what.into() }
    }
}

/// Reads desired proxies; fails with the first mistake.
pub fn read(body: &[u8], format: Format, label: Option<&str>) -> Result<BTreeMap<ProxyKey, Desired>> {
    read_all(body, format, label)
        .map_err(|mistakes| Error::invalid(mistakes.first().map(ToString::to_string).unwrap_or_default()))
}

/// Reads desired proxies, or tells what is wrong: at least one mistake. All get the label, if there is one; another label is
/// a mistake then.
pub fn read_all(
    body: &[u8],
    format: Format,
    label: Option<&str>,
) -> std::result::Result<BTreeMap<ProxyKey, Desired>, Vec<Mistake>> {
    let items = items(body, format).map_err(|mistake| vec![mistake])?;
    let (mut wanted, mut mistakes) = (BTreeMap::new(), Vec::new());
    for Item { at, entry } in items {
        let read = entry.and_then(|entry| {
            let (key, desired) = desired_of(entry, label)?;
            match wanted.contains_key(&key) {
                true => Err(Error::invalid(format!("{} {} appears twice", key.0.name(), key.1))),
                false => Ok((key, desired)),
            }
        });
        match read {
            Ok((key, desired)) => drop(wanted.insert(key, desired)),
            Err(error) => mistakes.push(Mistake { at: Some(at), ..error.into() }),
        }
        if mistakes.len() == MOST_MISTAKES {
            break;
        }
    }
    if mistakes.is_empty() { Ok(wanted) } else { Err(mistakes) }
}

/// One entry as it was given, or why it is none, and its place.
struct Item {
    at: At,
    entry: Result<Value>,
}

fn items(body: &[u8], format: Format) -> std::result::Result<Vec<Item>, Mistake> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Mistake::new(format!("it is not UTF-8 text: {error}: save it as UTF-8")))?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    let items = if format == Format::Yaml {
        // A piece of the text would show passwords.
        let options = serde_saphyr::options! { with_snippet: false };
        let document = serde_saphyr::from_str_with_options::<Value>(text, options)
            .map_err(|error| Mistake::new(format!("it is not valid YAML: {error}")))?;
        from_document(document)?
    } else if text.trim_start().starts_with(['{', '[']) {
        let document: Value = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line() as u64, error.column());
            let why = error.to_string().replace(&format!(" at line {line} column {column}"), "");
            Mistake { at: Some(At::Line(line)), what: format!("it is not valid JSON: {why}, column {column}") }
        })?;
        from_document(document)?
    } else {
        from_csv(text)?
    };
    if items.is_empty() {
        return Err(Mistake::new("it has no entries: to remove everything, use syncJournal with an empty array"));
    }
    if items.len() > MOST_ENTRIES {
        return Err(Mistake::new(format!("it has {} entries; the limit is {MOST_ENTRIES}", items.len())));
    }
    Ok(items)
}

fn numbered(what: &'static str, entries: impl IntoIterator<Item = Value>) -> Vec<Item> {
    let item = |(index, entry)| Item { at: At::Item((what, index)), entry: Ok(entry) };
    entries.into_iter().enumerate().map(item).collect()
}

/// Reads a document of exportJournal, a reply of exportJournal or listStreamProxy, or an array of the arguments of
/// pulls, as syncJournal takes it.
fn from_document(mut document: Value) -> Result<Vec<Item>> {
    if let Value::Array(items) = document {
        let pull = |args| json!({"kind": Kind::Pull.name(), "args": args});
        return Ok(numbered("item", items.into_iter().map(pull)));
    }
    if document.get("format").is_none()
        && let Some(data) = document.get_mut("data").filter(|data| data.is_object())
    {
        document = data.take();
    }
    if document.get("format").and_then(Value::as_str) == Some(FORMAT) {
        let version = document.get("version").and_then(Value::as_u64).unwrap_or(0);
        if version == 0 || version > VERSION {
            return Err(Error::invalid(format!(
                "it has version {version}, and this zlm-journal reads up to {VERSION}: import it with the zlm-journal \
                 that wrote it"
            )));
        }
        return match document.get_mut("entries").map(Value::take) {
            Some(Value::Array(entries)) => Ok(numbered("entry", entries)),
            _ => Err(Error::invalid("it has no array \"entries\": is it complete?")),
        };
    }
    let Some(Value::Array(listed)) = document.get_mut("data").map(Value::take) else {
        return Err(Error::invalid(
            "it is neither a document of exportJournal nor a reply of listStreamProxy nor an array",
        ));
    };
    let pull = |proxy: Value| {
        let of = |name: &str| proxy.get("src").and_then(|src| src.get(name)).cloned().unwrap_or_default();
        let args = json!({
            "vhost": of("vhost"), "app": of("app"), "stream": of("stream"),
            "url": proxy.get("url").cloned().unwrap_or_default(),
        });
        json!({"kind": Kind::Pull.name(), "args": args})
    };
    Ok(numbered("proxy", listed.into_iter().map(pull)))
}

/// Reads lines of `vhost/app/stream,url`, or of the columns that the first line names, also `kind` and `key`.
fn from_csv(text: &str) -> Result<Vec<Item>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut columns = vec!["key".to_owned(), "url".to_owned()];
    let mut items = Vec::new();
    let mut lines = Lines { text: text.as_bytes(), at: 0, line: 1 };
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|error| Error::invalid(format!("it is not CSV: {error}")))?;
        let is_url = |name: &str| ["url", "src_url", "dst_url"].iter().any(|url| name.eq_ignore_ascii_case(url));
        if index == 0 && record.iter().any(is_url) {
            columns = record.iter().map(str::to_lowercase).collect();
            continue;
        }
        let at = At::Line(lines.of(record.position().map_or(0, csv::Position::byte)));
        items.push(Item { at, entry: of_record(&record, &columns) });
    }
    Ok(items)
}

/// Counts lines. The reader's own count is one too low after CRLF, and that of the first of blank lines.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first byte from there on that is not a line break; asked for in order.
    fn of(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(sign) =
            self.text.get(self.at).filter(|sign| self.at < byte || matches!(**sign, b'\r' | b'\n'))
        {
            self.line += u64::from(*sign == b'\n');
            self.at += 1;
        }
        self.line
    }
}

fn of_record(record: &csv::StringRecord, columns: &[String]) -> Result<Value> {
    if record.len() != columns.len() {
        return Err(Error::invalid(format!(
            "it has {} values instead of {} ({}): put a value that contains a comma in quotation marks",
            record.len(),
            columns.len(),
            columns.join(",")
        )));
    }
    let mut args: Map<String, Value> = columns
        .iter()
        .zip(record.iter())
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.clone(), Value::from(value)))
        .collect();
    let kind = args.remove("kind").unwrap_or_else(|| Value::from(Kind::Pull.name()));
    let key = args.remove("key");
    if let Some(key) = key.as_ref().and_then(Value::as_str).filter(|_| kind == Kind::Pull.name()) {
        let mut parts = key.splitn(3, '/');
        for name in ["vhost", "app", "stream"] {
            let part = parts.next().ok_or_else(|| Error::invalid("its key is not vhost/app/stream"))?;
            args.entry(name).or_insert_with(|| Value::from(part));
        }
    }
    Ok(json!({"kind": kind, "key": key, "args": args}))
}

fn desired_of(mut item: Value, label: Option<&str>) -> Result<(ProxyKey, Desired)> {
    if let Some(label) = label
        && let Some(Value::Object(args)) = item.get_mut("args")
    {
        let given = args.iter().find(|(name, _)| name.eq_ignore_ascii_case(LABEL)).map(|(_, given)| given);
        match given {
            Some(given) if given != label => {
                return Err(Error::invalid(format!(
                    "its {LABEL} is {given}: leave it out, what is here gets {label:?}"
                )));
            }
            Some(_) => {}
            None => drop(args.insert(LABEL.to_owned(), Value::from(label))),
        }
    }
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    let kind =
        text("kind").and_then(Kind::from_name).ok_or_else(|| Error::invalid("its kind is missing or unknown"))?;
    let state_of = |name| State::from_name(name).ok_or_else(|| Error::invalid(format!("{name:?} is not a state")));
    let state = text("state").map(state_of).transpose()?;
    let (key, args) = add_of(kind, item.get("args").unwrap_or(&Value::Null))?;
    if text("key").is_some_and(|given| given != key) {
        return Err(Error::invalid(format!("its key does not match its arguments, which give {key}")));
    }
    Ok(((kind, Arc::from(key)), Desired { args, state }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(body: &str) -> std::result::Result<Vec<String>, String> {
        let names = |(kind, key): &ProxyKey| format!("{} {key}", kind.name());
        read(body.as_bytes(), Format::Any, None)
            .map(|wanted| wanted.keys().map(names).collect())
            .map_err(|error| error.message)
    }

    #[test]
    fn what_people_have_today_is_read() {
        let listed = r#"{"code":0,"data":[{"key":"v/live/a","url":"rtsp://1","status":0,"src":{"vhost":"v","app":"live","stream":"a"}}]}"#;
        assert_eq!(keys(listed).unwrap(), ["pull v/live/a"]);
        for csv in [
            "key,url\nv/live/a,\"rtsp://u:p,w@1\"\n\n\"v/live/b\", \"rtsp://2\"\r\n",
            "v/live/a,x\nv/live/b,y",
            "\u{feff}Stream,URL,app,vhost\na,x,live,v\nb,y,live,v\n",
        ] {
            assert_eq!(keys(csv).unwrap(), ["pull v/live/a", "pull v/live/b"], "{csv}");
        }
    }

    #[test]
    fn what_is_wrong_with_yaml_is_told_without_its_passwords() {
        let yaml = |text: &str| read(text.as_bytes(), Format::Yaml, Some("file")).map(|wanted| wanted.len());
        let good = "- {vhost: v, app: live, stream: a, url: 'rtsp://u:geheim@1', retry_count: -1}\n";
        assert_eq!(yaml(good).unwrap(), 1);
        for bad in
            [good.replace("app:", "vhost:"), good.replace('}', ""), good.replace("a,", "a, journal_label: b,")]
        {
            let error = yaml(&bad).unwrap_err().message;
            assert!(!error.contains("geheim") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_table_may_have_any_argument_and_any_kind() {
        let table = "kind,vhost,app,stream,url,dst_url,schema,retry_count\n\
                     ,v,live,a,\"rtsp://\"\"1\"\",x\",,,3\n\
                     push,v,live,a,,rtmp://cdn/a,rtmp,\n";
        let wanted = read(table.as_bytes(), Format::Any, None).unwrap();
        let args: Vec<&str> = wanted.values().map(|entry| entry.args.as_str()).collect();
        assert_eq!(
            args,
            [
                r#"{"app":"live","retry_count":"3","stream":"a","url":"rtsp://\"1\",x","vhost":"v"}"#,
                r#"{"app":"live","dst_url":"rtmp://cdn/a","schema":"rtmp","stream":"a","vhost":"v"}"#,
            ]
        );
    }

    #[test]
    fn an_import_with_a_bad_part_is_refused_and_told_where() {
        let entry = |more: &str| {
            format!(
                r#"{{"format":"zlm-journal","version":1,"entries":[{{"kind":"pull","args":{{"vhost":"v","app":"a","stream":"s","url":"x"}}}}{more}]}}"#
            )
        };
        assert_eq!(keys(&entry("")).unwrap(), ["pull v/a/s"]);
        let whole = entry("");
        for cut in 1..whole.len() {
            assert!(keys(&whole[..cut]).is_err(), "{}", &whole[..cut]);
        }
        for (body, says) in [
            (entry(r#",{"kind":"tape","args":{}}"#), "entry 1 (the first is 0): its kind is missing or unknown"),
            (entry(r#",{"kind":"pull","args":{"app":"a"}}"#), "Required parameter missed: vhost"),
            (entry(r#",{"kind":"pull","args":{"vhost":"v","app":"a","stream":"s","url":"y"}}"#), "appears twice"),
            (entry(r#",{"kind":"pull","args":[]}"#), "a JSON object of arguments"),
            (entry(r#",{"kind":"pull","state":"on","args":{}}"#), "\"on\" is not a state"),
            (
                entry(r#",{"kind":"pull","key":"v/a/u","args":{"vhost":"v","app":"a","stream":"t","url":"y"}}"#),
                "its key does not match its arguments, which give v/a/t",
            ),
            (
                entry(r#",{"kind":"pull","args":{"vhost":"v","app":"a","stream":"t","url":"rtsp://***@h"}}"#),
                "reveal=1",
            ),
            (
                entry(
                    r#",{"kind":"pull","args":{"vhost":"v","app":"a","stream":"t","url":"rtmp://h/a?token=***"}}"#,
                ),
                "reveal=1",
            ),
            (
                entry(
                    r#",{"kind":"pull","args":{"vhost":"v","app":"a","stream":"t","url":"rtsp://h","rtsp_pwd":"***"}}"#,
                ),
                "its rtsp_pwd is redacted",
            ),
            (entry("").replace(":1,", ":2,"), "it has version 2"),
            ("{}".into(), "neither a document"),
            ("v/live/a;rtsp://u:p@1".into(), "line 1: it has 1 values instead of 2 (key,url)"),
            ("key,url\nv/live/a,x\nv/live,y".into(), "line 3: its key is not vhost/app/stream"),
            ("v/live/a,rtsp://u:p,w@1".into(), "quotation marks"),
            ("v/live/a,x\nv/live/a,y".into(), "line 2: pull v/live/a appears twice"),
            ("v/live/a,x\r\nv/live/a,y\r\n".into(), "line 2: pull v/live/a appears twice"),
            ("\n\nkey,url\n\nv/live/a,x\n\n\nv/live/a,y".into(), "line 8: pull v/live/a appears twice"),
            ("v/live/a,\"x\ny\"\nv/live/a,y".into(), "line 3: pull v/live/a appears twice"),
            ("key,url,retry_count\nv/live/a,,3".into(), "line 2: Required parameter missed: url"),
            ("".into(), "no entries"),
        ] {
            let error = keys(&body).unwrap_err();
            assert!(error.contains(says), "{body}: {error}");
        }
    }
}
