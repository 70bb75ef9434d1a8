//! The rows of the tables: binding them to statements, and recognizing them in values that were found, which count only
//! with a valid checksum. Knows nothing of files.

use rusqlite::params;
use rusqlite::types::ValueRef;

use super::cipher::{self, ArgsCipher};
use super::intent::Digest;
use crate::error::{Error, Result};
use crate::model::{Args, Change, Entry, Kind, Op, State};

/// A row that was found.
#[derive(Debug)]
pub enum Row {
    Proxy(Kind, String, Entry),
    Change(Change),
    Incident(Incident),
    /// A value of `meta`, by name.
    Meta(String, u64),
    /// The digest and last change of one transaction. Without a checksum: they must be proven.
    Sums {
        seq: u64,
        digest: Digest,
    },
}

impl Row {
    pub fn has_args(&self) -> bool {
        matches!(self, Row::Proxy(..) | Row::Change(Change { args: Some(_), .. }))
    }

    /// The row with its arguments as in memory; see [`cipher::from_file`].
    pub fn in_memory(self, cipher: Option<&ArgsCipher>) -> Result<Row> {
        Ok(match self {
            Row::Proxy(kind, key, entry) => {
                let args = cipher::from_file(cipher, kind, &key, entry.args)?;
                Row::Proxy(kind, key, Entry { args, ..entry })
            }
            Row::Change(mut change) => {
                let in_memory = |args| cipher::from_file(cipher, change.kind, &change.key, args);
                change.args = change.args.map(in_memory).transpose()?;
                Row::Change(change)
            }
            other => other,
        })
    }
}

/// A value of a row, of the types that our tables have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
}

/// A row of `incidents`: something that happened to the journal itself. Time in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incident {
    pub at: i64,
    pub report: String,
}

impl Incident {
    fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(crc32fast::hash(&self.at.to_le_bytes()));
        hasher.update(self.report.as_bytes());
        hasher.finalize()
    }
}

fn stored(args: &Args) -> Result<&str> {
    let refused = || Error::storage("the arguments could not be encrypted, so the change is not written");
    args.is_storable().then(|| args.stored()).ok_or_else(refused)
}

pub fn write_proxy(insert: &mut rusqlite::Statement<'_>, kind: Kind, key: &str, entry: &Entry) -> Result<usize> {
    Ok(insert.execute(params![
        kind.name(),
        key,
        stored(&entry.args)?,
        entry.state.name(),
        entry.seq.cast_signed(),
        entry.created_at,
        entry.updated_at,
        entry.crc(kind, key),
    ])?)
}

pub fn write_change(insert: &mut rusqlite::Statement<'_>, change: &Change) -> Result<usize> {
    Ok(insert.execute(params![
        change.seq.cast_signed(),
        change.at,
        change.op.name(),
        change.kind.name(),
        &*change.key,
        change.args.as_ref().map(stored).transpose()?,
        change.origin,
        change.reason,
        change.crc(),
    ])?)
}

pub fn write_incident(insert: &mut rusqlite::Statement<'_>, incident: &Incident) -> Result<usize> {
    Ok(insert.execute(params![incident.at, incident.report, incident.crc()])?)
}

/// The columns of a row that SQLite has read.
pub fn values_of<'a>(row: &'a rusqlite::Row, count: usize) -> Result<Vec<Value<'a>>> {
    (0..count)
        .map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                other => Value::Text(other.as_str().map_err(rusqlite::Error::from)?),
            })
        })
        .collect()
}

/// The row of any of our tables with these columns, if its checksum is valid. (`meta` has none.)
pub fn row_of(values: &[Value], rowid: i64) -> Option<Row> {
    match *values {
        // `seq` is the row id; since schema 5 the column itself is empty.
        [kind, key, args, state, seq, created_at, updated_at, crc] => {
            let seq = if seq == Value::Null { Value::Integer(rowid) } else { seq };
            let (kind, key, entry) = proxy_of(&[kind, key, args, state, seq, created_at, updated_at, crc]).ok()?;
            Some(Row::Proxy(kind, key, entry))
        }
        [Value::Null, at, op, kind, key, args, origin, reason, crc] => {
            let change = Change {
                seq: rowid.cast_unsigned(),
                at: at.integer().ok()?,
                op: op.named(Op::from_name).ok()?,
                kind: kind.named(Kind::from_name).ok()?,
                key: key.text().ok()?.into(),
                args: match args {
                    Value::Null => None,
                    args => Some(Args::from_stored(args.text().ok()?).ok()?),
                },
                origin: origin.text().ok()?.to_owned(),
                reason: reason.text().ok()?.to_owned(),
            };
            (crc == Value::Integer(change.crc().into())).then_some(Row::Change(change))
        }
        [at, report, crc] => {
            let incident = Incident { at: at.integer().ok()?, report: report.text().ok()?.to_owned() };
            (crc == Value::Integer(incident.crc().into())).then_some(Row::Incident(incident))
        }
        [Value::Text(name), Value::Integer(value)] => Some(Row::Meta(name.to_owned(), value.cast_unsigned())),
        _ => None,
    }
}

pub fn proxy_of(values: &[Value]) -> Result<(Kind, String, Entry)> {
    let [kind, key, args, state, seq, created_at, updated_at, crc] = *values else {
        return Err(Error::corrupt("a row of proxies does not have eight columns"));
    };
    let (kind, key) = (kind.named(Kind::from_name)?, key.text()?.to_owned());
    let entry = Entry {
        args: Args::from_stored(args.text()?)?,
        state: state.named(State::from_name)?,
        seq: seq.integer()?.cast_unsigned(),
        created_at: created_at.integer()?,
        updated_at: updated_at.integer()?,
    };
    if crc != Value::Integer(entry.crc(kind, &key).into()) {
        return Err(Error::corrupt(format!("the row of {key} is damaged: its checksum does not match")));
    }
    Ok((kind, key, entry))
}

impl<'a> Value<'a> {
    fn integer(self) -> Result<i64> {
        match self {
            Value::Integer(number) => Ok(number),
            other => Err(Error::corrupt(format!("{other:?} is not a number"))),
        }
    }

    fn text(self) -> Result<&'a str> {
        match self {
            Value::Text(text) => Ok(text),
            other => Err(Error::corrupt(format!("{other:?} is not text"))),
        }
    }

    fn named<T>(self, parse: fn(&str) -> Option<T>) -> Result<T> {
        let text = self.text()?;
        parse(text).ok_or_else(|| Error::corrupt(format!("{text:?} is not a value of its column")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn unencryptable_args_are_not_written() {
        let file = rusqlite::Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("sql/schema.sql")).unwrap();
        let args = Args::from_pairs([(b"url".as_slice(), b"rtsp://user:pass@1".as_slice())]).unwrap();
        let entry = |args| Entry { args, state: State::Enabled, seq: 1, created_at: 0, updated_at: 0 };
        let mut insert = file.prepare(include_str!("sql/insert_proxy.sql")).unwrap();
        let written = write_proxy(&mut insert, Kind::Pull, "v/a/s", &entry(args.clone().unstorable()));
        assert_eq!(written.unwrap_err().code, Code::Storage);
        let rows = || file.query_row("SELECT count(*) FROM proxies", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(rows(), 0);
        write_proxy(&mut insert, Kind::Pull, "v/a/s", &entry(args)).unwrap();
        assert_eq!(rows(), 1);
    }
}
