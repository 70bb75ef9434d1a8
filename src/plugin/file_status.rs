//! What has become of the watched file, for the status, the metrics and the alerts.

use std::path::Path;

use serde::Serialize;

/// The most keys of others that are named.
const MOST_NAMED: usize = 20;

/// What has become of the watched file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FileStatus {
    /// The file's path, for people: where it is not UTF-8, it is not exact.
    pub path: String,
    /// When it was last applied, in milliseconds since 1970-01-01 UTC; `None`: not since the start.
    pub applied_at: Option<i64>,
    /// How many proxies it had then.
    pub entries: usize,
    /// Keys in it that others had added before and that it does not touch: their number, and the first of them.
    pub foreign: usize,
    /// The first of those keys, at most 20.
    pub foreign_keys: Vec<String>,
    /// Why what it has now was not applied, and since when; `None` if it was. What it had before still holds.
    pub error: Option<String>,
    /// When it was refused, in milliseconds since 1970-01-01 UTC; `None` if what it has now was applied.
    pub refused_at: Option<i64>,
}

impl FileStatus {
    /// The status after it was applied at this time, in milliseconds since 1970-01-01 UTC, with that many proxies.
    pub fn applied(path: &Path, at: i64, entries: usize, mut foreign_keys: Vec<String>) -> FileStatus {
        let foreign = foreign_keys.len();
        foreign_keys.truncate(MOST_NAMED);
        FileStatus {
            path: path.display().to_string(),
            applied_at: Some(at),
            entries,
            foreign,
            foreign_keys,
            ..FileStatus::default()
        }
    }

    /// The status after it was refused; `before` is the one until then.
    pub fn refused(before: Option<FileStatus>, path: &Path, at: i64, why: &str) -> FileStatus {
        let path = path.display().to_string();
        let before = before.filter(|before| before.path == path);
        let before = before.unwrap_or(FileStatus { path, ..FileStatus::default() });
        FileStatus { error: Some(why.to_owned()), refused_at: Some(at), ..before }
    }
}
