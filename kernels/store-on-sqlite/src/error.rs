//! What can go wrong, as far as CubeCL tells one from another.

use std::fmt;
use std::io::ErrorKind;

use rusqlite::ErrorCode;

/// An error of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Somebody else has the lock.
    Busy(String),
    /// Somebody else wrote since this transaction read.
    BusySnapshot(String),
    /// The system's, and what was being done.
    IoError(ErrorKind, &'static str),
    /// Any other.
    Error(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Busy(text) | Error::BusySnapshot(text) | Error::Error(text) => f.write_str(text),
            Error::IoError(kind, doing) => write!(f, "{doing}: {kind}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let text = error.to_string();
        match error.sqlite_error() {
            Some(found) if found.extended_code == rusqlite::ffi::SQLITE_BUSY_SNAPSHOT => Error::BusySnapshot(text),
            Some(found) if matches!(found.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Error::Busy(text)
            }
            _ => Error::Error(text),
        }
    }
}
