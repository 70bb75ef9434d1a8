//! The SQLite file: opening, reading, writing and creating it. A [`Store`] has one connection; the SQL texts are files
//! in `sql/`. Knows nothing of queues, acknowledgements or how to handle errors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::cipher::{self, ArgsCipher};
use super::intent::{Applied, Digest, Intent};
use super::paths::{JournalPaths, log_of};
use super::rows::{self, Incident, Row};
use crate::error::{Code, Error, Result};
use crate::model::{Change, Kind};

/// `application_id` of our files: "ZLMJ".
pub const APPLICATION_ID: i32 = 0x5A4C_4D4A;
/// `user_version` of the files that this version writes.
pub const SCHEMA_VERSION: i32 = 5;

const INSERT_CHANGE: &str = include_str!("sql/insert_change.sql");
const INSERT_PROXY: &str = include_str!("sql/insert_proxy.sql");
const SET_META: &str = include_str!("sql/set_meta.sql");
/// The migrations from each version to the next, starting with version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("sql/migrate_1_to_2.sql"),
    include_str!("sql/migrate_2_to_3.sql"),
    include_str!("sql/migrate_3_to_4.sql"),
    include_str!("sql/migrate_4_to_5.sql"),
];
const SELECT_PROXIES: &str =
    "SELECT kind, key, args, state, seq, created_at, updated_at, crc FROM proxies ORDER BY rowid";

/// How long a statement waits for an operator's tool that has the file locked.
const BUSY: Duration = Duration::from_secs(5);

/// The log is preallocated with this size, so that commits overwrite it: making a file grow costs a file system about
/// as much again as writing the data. It is enough for what is written between two checkpoints.
const LOG_BYTES: u64 = 8 << 20;
/// The same in pages of SQLite's default size.
pub const LOG_PAGES: u32 = (LOG_BYTES / 4096) as u32;

#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// The length of the log after the last commit, reported by SQLite.
    log_pages: Arc<AtomicU32>,
    /// The schema version of the file.
    version: i32,
}

impl Store {
    /// Opens an existing journal for writing, and checks that it is one of ours. Closing it before [`Store::trust`] is
    /// called leaves every byte unchanged.
    pub fn open(paths: &JournalPaths, path: &Path) -> Result<Store> {
        let mut store = Self::connect(paths, path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store.version = store.check_identity(path)?;
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
            return Err(Error::storage(format!(
                "{} cannot be written durably (journal_mode {mode}, synchronous {synchronous}): keep it on a local \
                 file system",
                path.display()
            )));
        }
        let log_pages = Arc::clone(&store.log_pages);
        store.connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            log_pages.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(store)
    }

    /// Opens a snapshot or a damaged journal for reading only. The identity is not checked.
    pub fn open_for_reading(paths: &JournalPaths, path: &Path) -> Result<Store> {
        Self::connect(paths, path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(paths: &JournalPaths, path: &Path, mode: OpenFlags) -> Result<Store> {
        let mode = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match paths.env.vfs() {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, mode, vfs),
            None => Connection::open_with_flags(path, mode),
        }
        .map_err(|error| Error::from(error).context(format!("cannot open {}", path.display())))?;
        connection.busy_timeout(BUSY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // Rows are appended and read once, in order: a larger cache would be useless.
        connection.execute_batch(
            "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -512;",
        )?;
        Ok(Store { connection, log_pages: Arc::default(), version: SCHEMA_VERSION })
    }

    /// Returns the schema version.
    fn check_identity(&self, path: &Path) -> Result<i32> {
        let pragma = |name: &str| -> Result<i32> {
            Ok(self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
        };
        let (id, version) = (pragma("application_id")?, pragma("user_version")?);
        let file = path.display();
        if id != APPLICATION_ID || version < 1 {
            return Err(Error::corrupt(format!(
                "{file} is not a journal of zlm-journal (application_id {id}, user_version {version})"
            )));
        }
        if version > SCHEMA_VERSION {
            // The version is in the file twice, so that a damaged header is not taken for a newer version.
            let says: i64 =
                self.connection.query_row("SELECT value FROM meta WHERE name = 'schema'", [], |row| row.get(0))?;
            if says != i64::from(version) {
                return Err(Error::corrupt(format!(
                    "the header of {file} says schema {version}, but its content says {says}"
                )));
            }
            let why = format!(
                "{file} was written by a newer zlm-journal (schema {version}; this one supports up to \
                 {SCHEMA_VERSION}) and is only read: install that version again, or set another [journal] path"
            );
            return Err(Error::new(Code::NewerSchema, why));
        }
        Ok(version)
    }

    /// The content was found good: preallocates the log, migrates the schema, and lets SQLite tidy up when it is
    /// closed.
    pub fn trust(&mut self, paths: &JournalPaths, path: &Path) -> Result<()> {
        if let Err(error) = paths.preallocate(&log_of(path), LOG_BYTES) {
            log::warn!("journal: {error}. Commits will be slower; is the disk nearly full?");
        }
        self.migrate()?;
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(())
    }

    /// Runs all migrations in one transaction.
    fn migrate(&mut self) -> Result<()> {
        let done = usize::try_from(self.version).unwrap_or(1).saturating_sub(1);
        let Some(steps) = MIGRATIONS.get(done..).filter(|steps| !steps.is_empty()) else {
            return Ok(());
        };
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for step in steps {
            transaction.execute_batch(step)?;
        }
        transaction.execute(SET_META, params!["schema", SCHEMA_VERSION])?;
        transaction.execute_batch(&format!("PRAGMA user_version = {SCHEMA_VERSION};"))?;
        transaction.commit()?;
        log::info!("journal: the schema was migrated from version {} to {SCHEMA_VERSION}", self.version);
        self.version = SCHEMA_VERSION;
        Ok(())
    }

    /// The number of the oldest change in the history.
    pub fn oldest_change(&self) -> Result<Option<u64>> {
        let oldest: Option<i64> =
            self.connection.query_row("SELECT min(seq) FROM journal", [], |row| row.get(0))?;
        Ok(oldest.map(i64::cast_unsigned))
    }

    /// The id of the key that the arguments are encrypted with, if any.
    pub fn key_id(&self) -> Result<Option<i64>> {
        let found = self.connection.query_row("SELECT value FROM meta WHERE name = 'key'", [], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// The matching changes, the last first, and the number of damaged rows that were left out.
    pub fn changes(&self, filter: &HistoryFilter, cipher: Option<&ArgsCipher>) -> Result<(Vec<Change>, usize)> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare(include_str!("sql/select_changes.sql"))?;
        let mut rows = statement.query(params![
            filter.before.map_or(i64::MAX, number),
            filter.since.unwrap_or(i64::MIN),
            filter.until.unwrap_or(i64::MAX),
            filter.kind.map(Kind::name),
            filter.prefix.as_deref().unwrap_or_default(),
            number(filter.limit as u64),
            number(filter.after),
            filter.is_own,
        ])?;
        let (mut changes, mut damaged) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(9)?;
            let found = rows::values_of(row, 9).ok().and_then(|values| rows::row_of(&values, seq));
            match found.and_then(|row| row.in_memory(cipher).ok()) {
                Some(Row::Change(change)) => changes.push(change),
                _ => {
                    log::warn!("journal: the row of change {seq} is damaged and was left out of a history");
                    damaged += 1;
                }
            }
        }
        Ok((changes, damaged))
    }

    /// Reads intent. Fails with [`Code::Corrupt`] if a row is damaged or missing, and with [`Code::KeyMissing`] if the
    /// arguments are encrypted with another key than the cipher's. With a cipher, plain arguments are encrypted in
    /// memory, but not in the file.
    pub fn load(&self, cipher: Option<&Arc<ArgsCipher>>) -> Result<Intent> {
        // One read transaction, so that rows and digest match.
        let transaction = self.connection.unchecked_transaction()?;
        let meta = |name: &str| -> Result<u64> {
            let value: i64 =
                transaction.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))?;
            Ok(value.cast_unsigned())
        };
        let seq = meta("seq")?;
        let key_id = self.key_id()?;
        let is_ours = key_id.is_none() || cipher.map(|cipher| cipher.id) == key_id;
        let another_key = || {
            let why = "its arguments are encrypted with a key that [journal] key_file does not provide: restore that \
                       key file, or set another [journal] path to start with an empty journal";
            Error::new(Code::KeyMissing, why)
        };
        let mut statement = transaction.prepare(SELECT_PROXIES)?;
        let mut rows = statement.query([])?;
        let (mut entries, mut found) = (Vec::new(), Digest::default());
        while let Some(row) = rows.next()? {
            let (kind, key, mut entry) = rows::proxy_of(&rows::values_of(row, 8)?)?;
            found.add(kind, &key, &entry);
            // The key id has no checksum. If it seems to be another key's, decrypting shows whether that is true.
            entry.args = cipher::from_file(cipher.map(Arc::as_ref), kind, &key, entry.args)
                .map_err(|error| if is_ours { error } else { another_key() })?;
            entries.push(((kind, key.into()), entry));
        }
        if !is_ours && (cipher.is_none() || found.count == 0) {
            return Err(another_key());
        }
        let stored = Digest {
            count: meta("count")?,
            xor: u32::try_from(meta("digest")?).map_err(|_| Error::corrupt("the digest is not a number"))?,
        };
        // Encrypting has changed the rows.
        let digest = if cipher.is_some() { Digest::of(&entries) } else { found };
        let intent = Intent::starting_at(seq, cipher).filled(entries, digest);
        if stored != found || !intent.is_whole() || intent.seq() != seq {
            return Err(Error::corrupt(format!(
                "the rows of proxies do not match the digest: {} of {} are there, last change {} of {seq}",
                found.count,
                stored.count,
                intent.seq(),
            )));
        }
        Ok(intent)
    }

    /// Checks the whole file for what checksums do not cover: trees, indexes, free pages. Takes seconds with a long
    /// history. Returns `Ok` early when `give_up` returns true.
    pub fn verify(&mut self, give_up: impl FnMut() -> bool + Send + 'static) -> Result<()> {
        self.connection.progress_handler(10_000, Some(give_up))?;
        let said = self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
        self.connection.progress_handler(0, None::<fn() -> bool>)?;
        match said {
            Ok(said) if said == "ok" => Ok(()),
            Ok(said) => Err(Error::corrupt(format!("SQLite: {said}"))),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes changes in one transaction. After `Ok` they are on disk. After an error that is unknown, and the store
    /// must not be used again.
    pub fn commit(&mut self, batch: &[Applied]) -> Result<()> {
        let Some(last) = batch.last() else {
            return Ok(());
        };
        let connection = &self.connection;
        // Cached, because rusqlite would parse them each time. Without a rollback: after an error the store is dropped.
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut insert = connection.prepare_cached(INSERT_CHANGE)?;
        let mut insert_proxy = connection.prepare_cached(INSERT_PROXY)?;
        let mut delete_proxy = connection.prepare_cached(include_str!("sql/delete_proxy.sql"))?;
        for Applied { change, entry, before, .. } in batch {
            rows::write_change(&mut insert, change)?;
            if let Some(before) = before
                && delete_proxy.execute([before.seq.cast_signed()])? != 1
            {
                let (kind, key, seq) = (change.kind.name(), &change.key, before.seq);
                return Err(Error::corrupt(format!(
                    "the row of {kind} {key}, of change {seq}, is not in the file"
                )));
            }
            if let Some(entry) = entry {
                rows::write_proxy(&mut insert_proxy, change.kind, &change.key, entry)?;
            }
        }
        write_meta(connection, last.change.seq, last.digest)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Closes the connection without SQLite's tidying up, which would write.
    pub fn abandon(self) {
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }

    /// The length of the log that the next checkpoint will copy.
    pub fn log_pages(&self) -> u32 {
        self.log_pages.load(Ordering::Relaxed)
    }

    /// Copies the log into the database as far as readers allow, without waiting. Returns whether everything was
    /// copied.
    pub fn checkpoint(&self) -> Result<bool> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (logged, copied) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], read)?;
        Ok(logged == copied)
    }

    /// Deletes at most `most` rows of the history up to change `seq` that are older than `before` (milliseconds since
    /// 1970-01-01 UTC).
    pub fn prune(&self, seq: u64, before: i64, most: u32) -> Result<usize> {
        let mut prune = self.connection.prepare_cached(include_str!("sql/prune.sql"))?;
        Ok(prune.execute(params![seq.cast_signed(), before, most])?)
    }
}

/// A filter for changes.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// Only changes of this kind of proxy; `None` for all.
    pub kind: Option<Kind>,
    /// A prefix of the key.
    pub prefix: Option<String>,
    /// Only changes before this one.
    pub before: Option<u64>,
    /// Only changes after this one.
    pub after: u64,
    /// Milliseconds since 1970-01-01 UTC, both inclusive.
    pub since: Option<i64>,
    /// The latest time; `None` for no limit.
    pub until: Option<i64>,
    /// Only changes that no client asked for.
    pub is_own: bool,
    /// The most changes, the newest of those that fit. With 0, none.
    pub limit: usize,
}

/// Reads intent from a journal or snapshot that is not written by this; see [`Store::load`].
pub fn load(paths: &JournalPaths, path: &Path, cipher: Option<&Arc<ArgsCipher>>) -> Result<Intent> {
    Store::open_for_reading(paths, path)?.load(cipher)
}

/// The content of a journal.
#[derive(Default)]
pub struct Content {
    pub intent: Intent,
    /// By number.
    pub history: BTreeMap<u64, Change>,
    pub incidents: BTreeSet<Incident>,
}

/// Creates a complete file with this content: it gets its name, durably, when it is synced and was read back.
pub fn create(paths: &JournalPaths, path: &Path, content: &Content) -> Result<()> {
    let (intent, unfinished) = (&content.intent, &paths.unfinished(path));
    paths.remove_database(unfinished)?;
    paths.env.create(unfinished).map_err(|error| Error::io("cannot create", unfinished, &error))?;
    {
        let mut store = Store::connect(paths, unfinished, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // The file is invalid until it is renamed, so it needs no rollback journal on disk.
        store.connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")?;
        let transaction = store.connection.transaction()?;
        transaction.execute_batch(include_str!("sql/schema.sql"))?;
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
        ))?;
        {
            let mut insert = transaction.prepare(INSERT_PROXY)?;
            for (kind, key, entry) in intent.iter() {
                rows::write_proxy(&mut insert, kind, key, entry)?;
            }
            let mut insert = transaction.prepare(INSERT_CHANGE)?;
            for change in content.history.values() {
                rows::write_change(&mut insert, change)?;
            }
            let mut insert = transaction.prepare(include_str!("sql/insert_incident.sql"))?;
            for incident in &content.incidents {
                rows::write_incident(&mut insert, incident)?;
            }
        }
        write_meta(&transaction, intent.seq(), intent.digest())?;
        transaction.execute(SET_META, params!["schema", SCHEMA_VERSION])?;
        if let Some(cipher) = intent.cipher() {
            transaction.execute(SET_META, params!["key", cipher.id])?;
        }
        transaction.commit()?;
    }
    paths.sync(unfinished)?;
    let written = load(paths, unfinished, intent.cipher())?;
    if written.digest() != intent.digest() || written.seq() != intent.seq() {
        return Err(Error::corrupt(format!(
            "{} does not contain what was just written to it: check the disk",
            unfinished.display()
        )));
    }
    paths.publish(unfinished, path)
}

fn write_meta(connection: &Connection, seq: u64, digest: Digest) -> Result<()> {
    let mut set = connection.prepare_cached(include_str!("sql/set_sums.sql"))?;
    set.execute(params![seq.cast_signed(), digest.count.cast_signed(), digest.xor])?;
    Ok(())
}
