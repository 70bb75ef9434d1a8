//! The error type of the crate: a stable code for programs, a sentence for people. The codes are the result codes of
//! the C API and are never reused.

use std::fmt;

/// What went wrong, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// An argument is missing, malformed or too large. The call changed nothing.
    InvalidArgument = 1,
    /// The handle was never opened, or is closed.
    InvalidHandle = 2,
    /// The caller was compiled with another version of the header.
    VersionMismatch = 3,
    /// `[journal] enable` is 0.
    Disabled = 4,
    /// The disk or the file system reported an error: what was asked for is not durable.
    Storage = 5,
    /// The file is damaged, or is not a journal.
    Corrupt = 6,
    /// Another process uses the journal.
    Locked = 7,
    /// Too many changes wait for the disk.
    QueueFull = 8,
    /// The journal is closing or closed.
    Closed = 9,
    /// A bug in zlm-journal: a panic was caught at the boundary.
    /// Any function may return it.
    Panic = 10,
    /// The file was written by a newer zlm-journal.
    NewerSchema = 11,
    /// The state that a change was based on has changed in the meantime. The call changed nothing.
    Conflict = 12,
    /// The journal is encrypted, and the key is missing, unreadable or wrong.
    KeyMissing = 13,
    /// Too many API calls are running, or some were when the journal was closed.
    Busy = 14,
}

/// An error with its code and a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong, for programs.
    pub code: Code,
    /// A sentence for people, in English.
    pub message: String,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this code and this message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An error with [`Code::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// An error with [`Code::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Code::Corrupt, message)
    }

    /// An error with [`Code::Storage`].
    pub fn storage(message: impl Into<String>) -> Self {
        Self::new(Code::Storage, message)
    }

    /// An I/O error with the path and the step at which it happened.
    pub fn io(step: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::storage(format!("{step} {}: {error}", path.display()))
    }

    /// The same error, with `step` in front of its message.
    pub fn context(self, step: impl fmt::Display) -> Self {
        Self::new(self.code, format!("{step}: {}", self.message))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase, TypeMismatch};
        let code = match &error {
            rusqlite::Error::SqliteFailure(inner, _) => match inner.code {
                // Constraints are broken only by rows that no journal could have written.
                DatabaseCorrupt | NotADatabase | TypeMismatch | ConstraintViolation => Code::Corrupt,
                // SQLITE_ERROR: a table or column that the schema promises is not there.
                rusqlite::ErrorCode::Unknown => Code::Corrupt,
                _ => Code::Storage,
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::SqlInputError { .. } => Code::Corrupt,
            _ => Code::Storage,
        };
        Self::new(code, format!("SQLite: {error}"))
    }
}
