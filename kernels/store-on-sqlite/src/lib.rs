//! Stand-in for the crate `turso`, an SQLite written anew in Rust that `cubecl-environment` keeps compiled kernels and tuned
//! choices in. It brings a hundred crates, one of which needs libclang to build and others of which speak to a network. ichd
//! has SQLite itself, so the few calls that CubeCL makes are made on that. The files are the same to both.
//!
//! Every future here is ready when it is first polled: the work is done before it is returned.
#![warn(missing_docs)]

mod error;
pub mod transaction;
mod value;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{OpenFlags, params_from_iter};

pub use error::Error;
pub use value::{FromValue, Params, Value};

use transaction::{Transaction, TransactionBehavior};

/// How a database is opened.
#[derive(Debug)]
pub struct Builder {
    path: PathBuf,
    read_only: bool,
}

impl Builder {
    /// The database in a file, which is made if it is missing.
    pub fn new_local(path: impl AsRef<str>) -> Builder {
        Builder { path: path.as_ref().into(), read_only: false }
    }

    /// Several processes may always share a file.
    pub fn experimental_multiprocess_wal(self, _enabled: bool) -> Builder {
        self
    }

    /// Files can always be compacted.
    pub fn experimental_vacuum(self, _enabled: bool) -> Builder {
        self
    }

    /// Nothing is written, and a file that is missing is an error.
    pub fn read_only(mut self, read_only: bool) -> Builder {
        self.read_only = read_only;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// The file cannot be opened, or is no database.
    pub async fn build(self) -> Result<Database, Error> {
        let database = Database { path: self.path, read_only: self.read_only };
        // Whoever cannot write learns it here, where the caller still has a choice.
        let connection = database.connect()?;
        if !database.read_only {
            connection.inner.busy_timeout(Duration::from_secs(5))?;
            connection.inner.pragma_update(None, "journal_mode", "WAL")?;
            connection.inner.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
        }
        Ok(database)
    }
}

/// A database file; each connection opens it anew.
#[derive(Clone, Debug)]
pub struct Database {
    path: PathBuf,
    read_only: bool,
}

impl Database {
    /// Another connection.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn connect(&self) -> Result<Connection, Error> {
        let how = if self.read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        };
        let inner = rusqlite::Connection::open_with_flags(&self.path, how | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        Ok(Connection { inner })
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    inner: rusqlite::Connection,
}

impl Connection {
    /// Runs a statement, to its end if it gives rows. Returns how many rows it changed.
    ///
    /// # Errors
    /// SQLite's.
    pub async fn execute(&self, sql: impl AsRef<str>, params: impl Params) -> Result<u64, Error> {
        let mut statement = self.inner.prepare_cached(sql.as_ref())?;
        if statement.column_count() > 0 {
            let mut rows = statement.query(params_from_iter(params.into_values()))?;
            while rows.next()?.is_some() {}
            return Ok(0);
        }
        Ok(statement.execute(params_from_iter(params.into_values()))? as u64)
    }

    /// Runs a query. All rows are read at once: CubeCL reads all of what it asks for.
    ///
    /// # Errors
    /// SQLite's.
    pub async fn query(&self, sql: impl AsRef<str>, params: impl Params) -> Result<Rows, Error> {
        let mut statement = self.inner.prepare_cached(sql.as_ref())?;
        let n_columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(params.into_values()))?;
        let mut found = VecDeque::new();
        while let Some(row) = rows.next()? {
            found.push_back(Row::read(row, n_columns)?);
        }
        Ok(Rows { found })
    }

    /// Runs a pragma and shows its rows, if it gives any.
    ///
    /// # Errors
    /// SQLite's, or the caller's.
    pub async fn pragma_query(
        &self,
        pragma: &str,
        mut show: impl FnMut(&Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rows = self.query(format!("PRAGMA {pragma}"), ()).await?;
        while let Some(row) = rows.next().await? {
            show(&row)?;
        }
        Ok(())
    }

    /// How long a statement waits for a lock of somebody else.
    ///
    /// # Errors
    /// SQLite's.
    pub fn busy_timeout(&self, longest: Duration) -> Result<(), Error> {
        Ok(self.inner.busy_timeout(longest)?)
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// SQLite's; [`Error::Busy`] if somebody else writes for too long.
    pub async fn transaction_with_behavior(&mut self, behavior: TransactionBehavior) -> Result<Transaction<'_>, Error> {
        Transaction::begin(self, behavior)
    }
}

/// What a query found.
#[derive(Debug)]
pub struct Rows {
    found: VecDeque<Row>,
}

impl Rows {
    /// The next row.
    ///
    /// # Errors
    /// None: they were read by the query.
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        Ok(self.found.pop_front())
    }
}

/// One row.
#[derive(Debug)]
pub struct Row {
    values: Vec<Value>,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>, n_columns: usize) -> Result<Row, Error> {
        let values = (0..n_columns).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Value>>>()?;
        Ok(Row { values })
    }

    /// The value of a column, from 0.
    ///
    /// # Errors
    /// There is no such column, or it is of another type.
    pub fn get<T: FromValue>(&self, column: usize) -> Result<T, Error> {
        let value = self.values.get(column).and_then(T::from_value);
        value.ok_or_else(|| Error::Error(format!("column {column} is not there, or of another type")))
    }
}
