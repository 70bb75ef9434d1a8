//! The SQLite file: how it is opened, read back, written and made anew. One connection a [`Store`]; every SQL
//! text is a file under `sql/`. Knows nothing of queues, acknowledgements or what to do about an error.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::intent::{Applied, Digest, Intent};
use super::place;
use crate::error::{Code, Error, Result};
use crate::record::{Args, Change, Entry, Kind, Op, State};

/// `application_id` of every file of ours: "ZLMJ".
pub const APPLICATION_ID: i32 = 0x5A4C_4D4A;
/// `user_version` of the files that this version writes.
pub const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = include_str!("sql/schema.sql");
const INSERT_CHANGE: &str = include_str!("sql/insert_change.sql");
const UPSERT_PROXY: &str = include_str!("sql/upsert_proxy.sql");
const DELETE_PROXY: &str = include_str!("sql/delete_proxy.sql");
const SET_META: &str = include_str!("sql/set_meta.sql");
const PRUNE: &str = include_str!("sql/prune.sql");
const SELECT_PROXIES: &str =
    "SELECT kind, key, args, state, seq, created_at, updated_at, crc FROM proxies ORDER BY rowid";
const SELECT_JOURNAL: &str = "SELECT seq, at, op, kind, key, args, origin, reason, crc FROM journal ORDER BY seq";

/// How long a statement waits for an operator who holds the file locked with a tool of his own.
const BUSY: Duration = Duration::from_secs(5);

/// Room for this much is made in the log beforehand, so that a commit overwrites instead of making a file grow, which
/// costs a file system about as much again as the data. It holds what is written between two checkpoints.
const LOG_BYTES: u64 = 8 << 20;
/// The same in pages, of SQLite's ordinary size.
pub const LOG_PAGES: u32 = (LOG_BYTES / 4096) as u32;

#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// Of the log, after the last commit; SQLite tells it then.
    log_pages: Arc<AtomicU32>,
}

impl Store {
    /// Opens a journal that exists, for writing, and checks that it is one of ours. Until [`Store::trust`] is
    /// called, closing it again leaves every byte as it was.
    pub fn open(path: &Path) -> Result<Store> {
        let mut store = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store.check_identity(path)?;
        let connection = &store.connection;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        connection.execute_batch(
            "PRAGMA synchronous = FULL;
             PRAGMA fullfsync = 1;
             PRAGMA checkpoint_fullfsync = 1;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = -1;",
        )?;
        let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        if mode != "wal" || synchronous != 2 {
            return Err(Error::new(
                Code::Storage,
                format!(
                    "{} cannot be written durably (journal_mode {mode}, synchronous {synchronous}): \
                     keep it on a local file system",
                    path.display()
                ),
            ));
        }
        let log_pages = Arc::clone(&store.log_pages);
        store.connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            log_pages.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(store)
    }

    /// Opens a file only to read it: a snapshot, or what is left of a damaged journal. The identity is not
    /// checked.
    pub fn open_for_reading(path: &Path) -> Result<Store> {
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(path: &Path, mode: OpenFlags) -> Result<Store> {
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| Error::from(error).context(format!("cannot open {}", path.display())))?;
        connection.busy_timeout(BUSY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;")?;
        Ok(Store { connection, log_pages: Arc::default() })
    }

    fn check_identity(&self, path: &Path) -> Result<()> {
        let pragma = |name: &str| -> Result<i32> {
            Ok(self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
        };
        let (id, version) = (pragma("application_id")?, pragma("user_version")?);
        if id != APPLICATION_ID || version < 1 {
            return Err(Error::corrupt(format!(
                "{} is no journal of zlm-journal (application_id {id}, user_version {version})",
                path.display()
            )));
        }
        if version > SCHEMA_VERSION {
            return Err(Error::new(
                Code::NewerSchema,
                format!(
                    "{} was written by a newer zlm-journal (schema {version}, this one knows \
                     {SCHEMA_VERSION}): install that version again, or name another [journal] path",
                    path.display()
                ),
            ));
        }
        Ok(())
    }

    /// What is in the file was found good: its log may be prepared for writing, and tidied up when it is closed.
    pub fn trust(&self, path: &Path) -> Result<()> {
        if let Err(error) = place::preallocate(&place::log_of(path), LOG_BYTES) {
            log::warn!("journal: {error}. Commits will be slower; is the disk nearly full?");
        }
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(())
    }

    /// Reads all of intent back. Fails on the first row whose checksum does not hold, and when rows are missing.
    pub fn load(&self) -> Result<Intent> {
        // One read transaction: the rows and the sums over them are of one moment.
        let transaction = self.connection.unchecked_transaction()?;
        let meta = |name: &str| -> Result<u64> {
            let value: i64 =
                transaction.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))?;
            Ok(value.cast_unsigned())
        };
        let mut intent = Intent::starting_at(meta("seq")?);
        let seq = intent.seq();
        let mut statement = transaction.prepare(SELECT_PROXIES)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, key, entry) = proxy_from_row(row)?;
            intent.put(kind, key.into(), entry);
        }
        let stored = Digest {
            count: meta("count")?,
            xor: u32::try_from(meta("digest")?).map_err(|_| Error::corrupt("the digest is no number"))?,
        };
        if stored != intent.digest() || intent.seq() != seq {
            return Err(Error::corrupt(format!(
                "the rows of proxies are not those that were written: {} of {} there, last change {} of {seq}",
                intent.digest().count,
                stored.count,
                intent.seq(),
            )));
        }
        Ok(intent)
    }

    /// Writes changes in one transaction. When this returns `Ok` they are on disk; after an error it is not
    /// known whether they are, and the store must not be used again.
    pub fn commit(&mut self, batch: &[Applied]) -> Result<()> {
        let Some(last) = batch.last() else {
            return Ok(());
        };
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(INSERT_CHANGE)?;
            let mut upsert = transaction.prepare_cached(UPSERT_PROXY)?;
            let mut delete = transaction.prepare_cached(DELETE_PROXY)?;
            for applied in batch {
                let change = &applied.change;
                insert.execute(params![
                    change.seq.cast_signed(),
                    change.at,
                    change.op.name(),
                    change.kind.name(),
                    &*change.key,
                    change.args.as_ref().map(Args::as_str),
                    change.origin,
                    change.reason,
                    change.crc(),
                ])?;
                match &applied.entry {
                    Some(entry) => write_proxy(&mut upsert, change.kind, &change.key, entry)?,
                    None => delete.execute(params![change.kind.name(), &*change.key])?,
                };
            }
            write_meta(&transaction, last.change.seq, last.digest)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// How long the log is that the next checkpoint will copy.
    pub fn log_pages(&self) -> u32 {
        self.log_pages.load(Ordering::Relaxed)
    }

    /// Copies the log into the database as far as readers allow, waiting for nobody.
    pub fn checkpoint(&self) -> Result<()> {
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }

    /// Drops at most `most` journal rows up to change `seq` that are older than `before` (milliseconds UTC).
    pub fn prune(&self, seq: u64, before: i64, most: u32) -> Result<usize> {
        Ok(self.connection.prepare_cached(PRUNE)?.execute(params![seq.cast_signed(), before, most])?)
    }

    /// Every row of `proxies` that can still be read and whose checksum holds. Never fails: see `salvage`.
    pub fn salvage_proxies(&self, found: impl FnMut(Kind, String, Entry)) -> u64 {
        let mut found = found;
        self.salvage(SELECT_PROXIES, |row| {
            let (kind, key, entry) = proxy_from_row(row)?;
            found(kind, key, entry);
            Ok(())
        })
    }

    /// Every row of `journal` that can still be read and whose checksum holds.
    pub fn salvage_journal(&self, found: impl FnMut(Change)) -> u64 {
        let mut found = found;
        self.salvage(SELECT_JOURNAL, |row| {
            found(change_from_row(row)?);
            Ok(())
        })
    }

    /// Walks a damaged table from both ends, since a walk ends at the first page that cannot be read. Returns
    /// how many rows or pages were no good.
    fn salvage(&self, select: &str, mut each: impl FnMut(&Row) -> Result<()>) -> u64 {
        let mut bad = 0;
        for order in ["ASC", "DESC"] {
            let mut walk = || -> Result<u64> {
                let mut statement = self.connection.prepare(&format!("{select} {order}"))?;
                let mut rows = statement.query([])?;
                let mut bad_rows = 0;
                while let Some(row) = rows.next()? {
                    bad_rows += u64::from(each(row).is_err());
                }
                Ok(bad_rows)
            };
            match walk() {
                Ok(bad_rows) => return bad + bad_rows,
                Err(_) => bad += 1,
            }
        }
        bad
    }
}

/// Makes a complete file at `path` that holds `intent` and no history, synced to disk and read back. Its
/// directory is not synced: that comes with the rename that gives it its name.
pub fn create(path: &Path, intent: &Intent) -> Result<()> {
    drop(place::create_private(path)?);
    {
        let mut store = Store::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // The file counts for nothing until it is renamed, so it needs no rollback journal of its own.
        store.connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        let transaction = store.connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
        ))?;
        {
            let mut upsert = transaction.prepare(UPSERT_PROXY)?;
            for (kind, key, entry) in intent.iter() {
                write_proxy(&mut upsert, kind, key, entry)?;
            }
        }
        write_meta(&transaction, intent.seq(), intent.digest())?;
        transaction.commit()?;
    }
    place::sync_file(path)?;
    let written = Store::open_for_reading(path)?.load()?;
    if written.digest() != intent.digest() || written.seq() != intent.seq() {
        return Err(Error::corrupt(format!(
            "{} does not hold what was just written to it: check the disk",
            path.display()
        )));
    }
    Ok(())
}

fn write_proxy(upsert: &mut rusqlite::Statement<'_>, kind: Kind, key: &str, entry: &Entry) -> Result<usize> {
    Ok(upsert.execute(params![
        kind.name(),
        key,
        entry.args.as_str(),
        entry.state.name(),
        entry.seq.cast_signed(),
        entry.created_at,
        entry.updated_at,
        entry.crc(kind, key),
    ])?)
}

fn write_meta(connection: &Connection, seq: u64, digest: Digest) -> Result<()> {
    let mut set = connection.prepare_cached(SET_META)?;
    set.execute(params!["seq", seq.cast_signed()])?;
    set.execute(params!["count", digest.count.cast_signed()])?;
    set.execute(params!["digest", digest.xor])?;
    Ok(())
}

fn proxy_from_row(row: &Row) -> Result<(Kind, String, Entry)> {
    let kind = named(row, 0, Kind::from_name)?;
    let key: String = row.get(1)?;
    let entry = Entry {
        args: Args::from_stored(row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?)?,
        state: named(row, 3, State::from_name)?,
        seq: row.get::<_, i64>(4)?.cast_unsigned(),
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
    };
    check_crc(row, 7, entry.crc(kind, &key), &key)?;
    Ok((kind, key, entry))
}

fn change_from_row(row: &Row) -> Result<Change> {
    let args: Option<String> = row.get(5)?;
    let change = Change {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at: row.get(1)?,
        op: named(row, 2, Op::from_name)?,
        kind: named(row, 3, Kind::from_name)?,
        key: row.get::<_, String>(4)?.into(),
        args: args.as_deref().map(Args::from_stored).transpose()?,
        origin: row.get(6)?,
        reason: row.get(7)?,
    };
    check_crc(row, 8, change.crc(), &change.key)?;
    Ok(change)
}

fn named<T>(row: &Row, column: usize, parse: fn(&str) -> Option<T>) -> Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| Error::corrupt(format!("{text:?} is no value of its column")))
}

fn check_crc(row: &Row, column: usize, computed: u32, key: &str) -> Result<()> {
    if row.get::<_, u32>(column)? != computed {
        return Err(Error::corrupt(format!("the row of {key} is damaged: its checksum does not hold")));
    }
    Ok(())
}
