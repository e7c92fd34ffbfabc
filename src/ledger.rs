//! The durable record of what happened to every file and slice: one SQLite database.
//! Knows no pixels and no results folder.
//!
//! Tables:
//! - `files`: one row per path in the inbox, with the state of its latest content.
//! - `slices`: one row per finished slice; `seq` numbers them in the order they were finished.
//! - `studies`: studies whose summary is not up to date.
//! - `disposed`: files that the daemon put into its own folders, which retention may delete.
//! - `meta`: the schema's version and how far the daily log has come.
//!
//! Two connections share the file: `durable` syncs every commit (outcomes), `quick` only at checkpoints (attempts: they must
//! outlive the process, not a power cut). Write-ahead logging lets operators read at any time.

mod disposed;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, params};

use crate::disk::Fingerprint;
use crate::error::Exit;
use crate::patience::{Hope, Trouble};

pub use disposed::{Disposed, Place};

const SCHEMA_VERSION: i64 = 1;

/// Pages of the write-ahead log at which `quick` takes it into the database itself. Before that `durable` does, at its default
/// of 1000, after a commit: then results are out already, while behind `quick` a file waits for its own, for two syncs longer.
const QUICK_LOG_PAGES: i64 = 16_000;

/// Largest ledger that is looked through when it is opened.
const CHECKED_BYTES_MAX: u64 = 64 << 20;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY,
    inode INTEGER NOT NULL, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('started', 'done', 'duplicate', 'rejected')),
    attempts INTEGER NOT NULL DEFAULT 0,
    sha256 TEXT, code TEXT, sentence TEXT, updated TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_sha256 ON files (sha256);
CREATE TABLE IF NOT EXISTS slices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    study TEXT NOT NULL, series TEXT NOT NULL, instance TEXT NOT NULL, frame INTEGER NOT NULL,
    picture TEXT NOT NULL, scorer TEXT NOT NULL, logits TEXT NOT NULL,
    file_sha256 TEXT NOT NULL, result TEXT NOT NULL, updated TEXT NOT NULL,
    UNIQUE (study, instance, frame)
);
CREATE INDEX IF NOT EXISTS slices_instance ON slices (instance, frame);
CREATE INDEX IF NOT EXISTS slices_picture ON slices (picture, scorer);
CREATE INDEX IF NOT EXISTS slices_file ON slices (file_sha256);
CREATE TABLE IF NOT EXISTS studies (study TEXT PRIMARY KEY, revision INTEGER NOT NULL, dirty INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS disposed (
    path TEXT PRIMARY KEY,
    place TEXT NOT NULL CHECK (place IN ('done', 'rejected')),
    inode INTEGER NOT NULL, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS disposed_since ON disposed (place, since);
";

/// The ledger could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite's own account.
    #[error("the ledger: {0}")]
    Sqlite(rusqlite::Error),
    /// The file is no database, or was cut off or overwritten.
    #[error(
        "the ledger is damaged ({0}). Move it away, with its -wal and -shm files, and start again: results stay as they \
         are and are known again when their files come again; files that lie in the inbox are looked at anew"
    )]
    Damaged(rusqlite::Error),
    /// Written by a newer program.
    #[error("the ledger has schema version {found}, this program knows {SCHEMA_VERSION}")]
    Version {
        /// What stands in the file.
        found: i64,
    },
}

impl LedgerError {
    /// Whether a restart would meet the same: it heals no damage and teaches no schema.
    pub fn is_final(&self) -> bool {
        matches!(self, LedgerError::Damaged(_) | LedgerError::Version { .. })
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => LedgerError::Damaged(error),
            _ => LedgerError::Sqlite(error),
        }
    }
}

impl Trouble for LedgerError {
    fn hope(&self) -> Hope {
        let LedgerError::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else { return Hope::None };
        match error.code {
            ErrorCode::DiskFull => Hope::Room,
            // The index of the write-ahead log cannot grow.
            ErrorCode::SystemIoFailure if error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => Hope::Room,
            ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly => Hope::Some,
            _ => Hope::None,
        }
    }

    fn exit(&self) -> Exit {
        if self.is_final() { Exit::Config } else { Exit::Io }
    }
}

/// A step of the ledger at a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A statement that reads, or is synced only with the next commit.
    Quick,
    /// A transaction begins.
    Begin,
    /// It is committed and synced next.
    Commit,
}

/// Asked before each step: where tests let the ledger fail.
pub trait Gate: std::fmt::Debug + Send + Sync {
    /// An error that the step then has.
    fn pass(&self, access: Access) -> Result<(), rusqlite::Error>;
}

/// What is on record about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// The content that the record speaks of.
    pub fingerprint: Fingerprint,
    /// How far it came.
    pub state: FileState,
    /// Times that work on it was begun and ended the program, or goes on.
    pub attempts: u32,
    /// SHA-256 of the content, where it was read and has an outcome.
    pub sha256: Option<String>,
}

/// How far a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Work was begun; no outcome yet.
    Started,
    /// Results written.
    Done,
    /// Every picture in it was known.
    Duplicate,
    /// Refused.
    Rejected,
}

impl FileState {
    const fn word(self) -> &'static str {
        match self {
            FileState::Started => "started",
            FileState::Done => "done",
            FileState::Duplicate => "duplicate",
            FileState::Rejected => "rejected",
        }
    }

    fn from_word(word: &str) -> FileState {
        match word {
            "done" => FileState::Done,
            "duplicate" => FileState::Duplicate,
            "rejected" => FileState::Rejected,
            _ => FileState::Started,
        }
    }
}

/// Which picture a slice shows and who scored it: together they name a piece of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkKey {
    /// Digest of stored values, size and rescale.
    pub picture: String,
    /// Digest of the model or models of the route, with weights and preprocessing.
    pub scorer: String,
}

/// A finished slice.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceRecord {
    /// StudyInstanceUID as in the file.
    pub study: String,
    /// SeriesInstanceUID as in the file.
    pub series: String,
    /// SOPInstanceUID as in the file.
    pub instance: String,
    /// Frame from 1, 0 for a single-frame instance.
    pub frame: u32,
    /// What was scored by whom.
    pub key: WorkKey,
    /// Logits in label order: those that count, then, where several models score, those of each.
    pub logits: Vec<f32>,
    /// SHA-256 of the file it came from.
    pub file_sha256: String,
    /// Result file, relative to the results folder.
    pub result: String,
}

/// The final state of one file, to be committed together with its slices.
#[derive(Clone, Debug)]
pub struct FileOutcome {
    /// Path as the watcher saw it.
    pub path: String,
    /// The content it speaks of.
    pub fingerprint: Fingerprint,
    /// `Done`, `Duplicate` or `Rejected`.
    pub state: FileState,
    /// SHA-256 of the file, where it was read.
    pub sha256: Option<String>,
    /// Code of a rejection.
    pub code: Option<String>,
    /// Sentence of a rejection.
    pub sentence: Option<String>,
}

/// The open database.
#[derive(Debug)]
pub struct Ledger {
    durable: Mutex<Connection>,
    quick: Mutex<Connection>,
    gate: Option<Arc<dyn Gate>>,
}

impl Ledger {
    /// Opens or makes the ledger at `path`.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, or was written by a newer program.
    pub fn open(path: &Path) -> Result<Ledger, LedgerError> {
        Ledger::open_with(path, None)
    }

    /// The same with a gate before every access.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(path: &Path, gate: Option<Arc<dyn Gate>>) -> Result<Ledger, LedgerError> {
        check_size(path)?;
        let durable = connect(path, "FULL")?;
        durable.execute_batch(SCHEMA)?;
        let found = meta(&durable, "schema")?;
        match found {
            None => set_meta(&durable, "schema", SCHEMA_VERSION)?,
            Some(SCHEMA_VERSION) => {}
            Some(found) => return Err(LedgerError::Version { found }),
        }
        check(&durable, path)?;
        let quick = connect(path, "NORMAL")?;
        quick.pragma_update(None, "wal_autocheckpoint", QUICK_LOG_PAGES)?;
        Ok(Ledger { durable: Mutex::new(durable), quick: Mutex::new(quick), gate })
    }

    fn pass(&self, access: Access) -> Result<(), LedgerError> {
        Ok(self.gate.as_ref().map_or(Ok(()), |gate| gate.pass(access))?)
    }

    fn quick(&self) -> Result<MutexGuard<'_, Connection>, LedgerError> {
        self.pass(Access::Quick)?;
        Ok(lock(&self.quick))
    }

    fn durable(&self) -> Result<MutexGuard<'_, Connection>, LedgerError> {
        self.pass(Access::Begin)?;
        Ok(lock(&self.durable))
    }

    /// What is on record about `path`.
    pub fn file(&self, path: &str) -> Result<Option<FileRecord>, LedgerError> {
        let quick = self.quick()?;
        let mut query =
            quick.prepare_cached("SELECT inode, bytes, mtime_ns, state, attempts, sha256 FROM files WHERE path = ?")?;
        Ok(query.query_row([path], file_record).optional()?)
    }

    /// Counts the begin of an attempt at a file, before it is made, and returns how many have been begun with this content.
    pub fn begin(&self, path: &str, print: Fingerprint, now: &str) -> Result<u32, LedgerError> {
        let quick = self.quick()?;
        let mut insert = quick.prepare_cached(
            "INSERT INTO files (path, inode, bytes, mtime_ns, state, attempts, updated) VALUES (?1, ?2, ?3, ?4, 'started', 1, ?5)
             ON CONFLICT (path) DO UPDATE SET
               attempts = CASE WHEN state = 'started' AND inode = ?2 AND bytes = ?3 AND mtime_ns = ?4 THEN attempts + 1 ELSE 1 END,
               inode = ?2, bytes = ?3, mtime_ns = ?4, state = 'started', sha256 = NULL, code = NULL, sentence = NULL, updated = ?5
             RETURNING attempts",
        )?;
        let row = params![path, print.inode as i64, print.bytes as i64, print.mtime_ns, now];
        Ok(insert.query_row(row, |row| row.get(0))?)
    }

    /// The dangerous part of an attempt is over: it does not count. What counted before stays until there is an outcome.
    pub fn survived(&self, path: &str) -> Result<(), LedgerError> {
        let sql = "UPDATE files SET attempts = max(attempts - 1, 0) WHERE path = ? AND state = 'started'";
        self.quick()?.prepare_cached(sql)?.execute([path])?;
        Ok(())
    }

    /// Counts against files that the program ends because of work on them after their decoding.
    pub fn blame(&self, paths: &[String]) -> Result<(), LedgerError> {
        let quick = self.quick()?;
        let sql = "UPDATE files SET attempts = attempts + 1 WHERE path = ? AND state = 'started'";
        for path in paths {
            quick.prepare_cached(sql)?.execute([path])?;
        }
        Ok(())
    }

    /// Forgets an attempt that ended without an outcome: the file was not complete yet.
    pub fn forget(&self, path: &str) -> Result<(), LedgerError> {
        self.quick()?.execute("DELETE FROM files WHERE path = ? AND state = 'started'", [path])?;
        Ok(())
    }

    /// Whether a file with this digest was finished: all its slices are on record.
    pub fn is_file_finished(&self, sha256: &str) -> Result<bool, LedgerError> {
        let quick = self.quick()?;
        let mut query = quick.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM files WHERE sha256 = ? AND state IN ('done', 'duplicate'))",
        )?;
        Ok(query.query_row([sha256], |row| row.get(0))?)
    }

    /// All slices that came from a file with this digest, whoever scored them.
    pub fn slices_of_file(&self, sha256: &str) -> Result<Vec<SliceRecord>, LedgerError> {
        self.slices("file_sha256 = ?1", &[&sha256])
    }

    /// All slices of a study.
    pub fn slices_of_study(&self, study: &str) -> Result<Vec<SliceRecord>, LedgerError> {
        self.slices("study = ?1", &[&study])
    }

    /// All slices with this SOPInstanceUID and frame, whatever study they claim.
    pub fn slices_of_instance(&self, instance: &str, frame: u32) -> Result<Vec<SliceRecord>, LedgerError> {
        self.slices("instance = ?1 AND frame = ?2", &[&instance, &frame])
    }

    /// A slice that shows this picture and was scored by this scorer.
    pub fn slice_of_picture(&self, key: &WorkKey) -> Result<Option<SliceRecord>, LedgerError> {
        let mut found =
            self.slices("picture = ?1 AND scorer = ?2 ORDER BY seq LIMIT 1", &[&key.picture, &key.scorer])?;
        Ok(found.pop())
    }

    fn slices(&self, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<SliceRecord>, LedgerError> {
        let quick = self.quick()?;
        let sql = format!(
            "SELECT study, series, instance, frame, picture, scorer, logits, file_sha256, result FROM slices WHERE {condition}"
        );
        let mut query = quick.prepare_cached(&sql)?;
        let rows = query.query_map(values, slice_record)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Commits outcomes and their slices in one synced transaction. Returns the sequence number of each slice.
    pub fn commit(&self, files: &[FileOutcome], slices: &[SliceRecord], now: &str) -> Result<Vec<i64>, LedgerError> {
        let mut durable = self.durable()?;
        let transaction = durable.transaction()?;
        let mut seqs = Vec::with_capacity(slices.len());
        for slice in slices {
            seqs.push(put_slice(&transaction, slice, now)?);
            transaction
                .prepare_cached(
                    "INSERT INTO studies (study, revision, dirty) VALUES (?, 0, 1) ON CONFLICT (study) DO UPDATE SET dirty = 1",
                )?
                .execute([&slice.study])?;
        }
        for file in files {
            put_file(&transaction, file, now)?;
        }
        self.pass(Access::Commit)?;
        transaction.commit()?;
        Ok(seqs)
    }

    /// Studies whose summary must be written.
    pub fn dirty_studies(&self) -> Result<Vec<String>, LedgerError> {
        let quick = self.quick()?;
        let mut query = quick.prepare("SELECT study FROM studies WHERE dirty = 1")?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How often the summary of a study was written before.
    pub fn revision(&self, study: &str) -> Result<u32, LedgerError> {
        let quick = self.quick()?;
        let revision =
            quick.query_row("SELECT revision FROM studies WHERE study = ?", [study], |row| row.get(0)).optional()?;
        Ok(revision.unwrap_or(0))
    }

    /// The summary of a study was written, as this revision.
    pub fn study_written(&self, study: &str, revision: u32) -> Result<(), LedgerError> {
        let sql = "UPDATE studies SET dirty = 0, revision = ? WHERE study = ?";
        let durable = self.durable()?;
        self.pass(Access::Commit)?;
        durable.execute(sql, params![revision, study])?;
        Ok(())
    }

    /// The last sequence number known to be in the daily log.
    pub fn logged(&self) -> Result<i64, LedgerError> {
        Ok(meta(&*self.quick()?, "logged")?.unwrap_or(0))
    }

    /// The daily log has come to `seq`.
    pub fn set_logged(&self, seq: i64) -> Result<(), LedgerError> {
        set_meta(&*self.quick()?, "logged", seq)
    }

    /// Slices after `seq` with their numbers, in order.
    pub fn slices_after(&self, seq: i64) -> Result<Vec<(i64, SliceRecord)>, LedgerError> {
        let quick = self.quick()?;
        let mut query = quick.prepare(
            "SELECT study, series, instance, frame, picture, scorer, logits, file_sha256, result, seq FROM slices
             WHERE seq > ? ORDER BY seq",
        )?;
        let rows = query.query_map([seq], |row| Ok((row.get(9)?, slice_record(row)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Tells every file that has an outcome, some thousand rows at a time, so that nobody waits long for the ledger.
    pub fn each_finished_file(&self, mut tell: impl FnMut(&str, Fingerprint)) -> Result<(), LedgerError> {
        const ROWS: usize = 5000;
        let mut after = String::new();
        loop {
            let quick = self.quick()?;
            let mut query = quick.prepare_cached(
                "SELECT path, inode, bytes, mtime_ns FROM files WHERE path > ?1 AND state <> 'started' ORDER BY path LIMIT ?2",
            )?;
            let mut rows = query.query(params![after, ROWS as i64])?;
            let mut n_rows = 0;
            let mut last = None;
            while let Some(row) = rows.next()? {
                let path: String = row.get(0)?;
                let (inode, bytes) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
                tell(&path, Fingerprint { inode, bytes, mtime_ns: row.get(3)? });
                (n_rows, last) = (n_rows + 1, Some(path));
            }
            match last {
                Some(last) if n_rows == ROWS => after = last,
                _ => return Ok(()),
            }
        }
    }

    /// Number of files in each state, for reports.
    pub fn file_counts(&self) -> Result<Vec<(String, u64)>, LedgerError> {
        let quick = self.quick()?;
        let mut query = quick.prepare("SELECT state, count(*) FROM files GROUP BY state ORDER BY state")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// SQLite takes what is shorter than one page for a database that is still empty, and would begin a new one in it.
fn check_size(path: &Path) -> Result<(), LedgerError> {
    const PAGE: u64 = 512;
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        Path::new(&name).exists()
    };
    let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
    let is_whole = bytes == 0 || (bytes >= 8 * PAGE && bytes.is_multiple_of(PAGE));
    if is_whole || beside("-wal") || beside("-journal") {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
    Err(LedgerError::Damaged(rusqlite::Error::SqliteFailure(code, Some(format!("cut off after {bytes} bytes")))))
}

/// Looks through the whole of a ledger that is small enough to be looked through in a moment. Damage in a larger one
/// shows when its place is read.
fn check(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > CHECKED_BYTES_MAX) {
        return Ok(());
    }
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(LedgerError::Damaged(rusqlite::Error::SqliteFailure(code, Some(found))))
}

fn connect(path: &Path, synchronous: &str) -> Result<Connection, LedgerError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    Ok(connection)
}

/// A panic while the lock was held cannot leave a transaction half done: it rolls back when dropped.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn meta(connection: &Connection, key: &str) -> Result<Option<i64>, LedgerError> {
    Ok(connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0)).optional()?)
}

fn set_meta(connection: &Connection, key: &str, value: i64) -> Result<(), LedgerError> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    connection.execute(sql, params![key, value])?;
    Ok(())
}

fn file_record(row: &Row<'_>) -> rusqlite::Result<FileRecord> {
    let state: String = row.get(3)?;
    Ok(FileRecord {
        fingerprint: Fingerprint {
            inode: row.get::<_, i64>(0)? as u64,
            bytes: row.get::<_, i64>(1)? as u64,
            mtime_ns: row.get(2)?,
        },
        state: FileState::from_word(&state),
        attempts: row.get(4)?,
        sha256: row.get(5)?,
    })
}

fn slice_record(row: &Row<'_>) -> rusqlite::Result<SliceRecord> {
    let logits: String = row.get(6)?;
    let logits = serde_json::from_str(&logits)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(e)))?;
    Ok(SliceRecord {
        study: row.get(0)?,
        series: row.get(1)?,
        instance: row.get(2)?,
        frame: row.get(3)?,
        key: WorkKey { picture: row.get(4)?, scorer: row.get(5)? },
        logits,
        file_sha256: row.get(7)?,
        result: row.get(8)?,
    })
}

fn put_slice(transaction: &Transaction<'_>, slice: &SliceRecord, now: &str) -> Result<i64, LedgerError> {
    // A later model replaces the row and takes a new number, so that the daily log tells of it.
    transaction
        .prepare_cached("DELETE FROM slices WHERE study = ? AND instance = ? AND frame = ?")?
        .execute(params![slice.study, slice.instance, slice.frame])?;
    let logits = serde_json::to_string(&slice.logits).unwrap_or_default();
    transaction
        .prepare_cached(
            "INSERT INTO slices (study, series, instance, frame, picture, scorer, logits, file_sha256, result, updated)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            slice.study,
            slice.series,
            slice.instance,
            slice.frame,
            slice.key.picture,
            slice.key.scorer,
            logits,
            slice.file_sha256,
            slice.result,
            now
        ])?;
    Ok(transaction.last_insert_rowid())
}

fn put_file(transaction: &Transaction<'_>, file: &FileOutcome, now: &str) -> Result<(), LedgerError> {
    let print = file.fingerprint;
    // Work on newer content may have begun, and ended, while slices of the older waited for the device: then this speaks of
    // a file that is not there any more, and must not hide what is known of the one that is.
    transaction
        .prepare_cached(
            "INSERT INTO files (path, inode, bytes, mtime_ns, state, attempts, sha256, code, sentence, updated)
             VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?)
             ON CONFLICT (path) DO UPDATE SET
               state = excluded.state, attempts = 0, sha256 = excluded.sha256, code = excluded.code,
               sentence = excluded.sentence, updated = excluded.updated
             WHERE inode = excluded.inode AND bytes = excluded.bytes AND mtime_ns = excluded.mtime_ns",
        )?
        .execute(params![
            file.path,
            print.inode as i64,
            print.bytes as i64,
            print.mtime_ns,
            file.state.word(),
            file.sha256,
            file.code,
            file.sentence,
            now
        ])?;
    Ok(())
}

#[cfg(test)]
mod tests;
