//! What the daemon put into its own folders, so that retention knows what it may delete.

use rusqlite::params;

use super::{Ledger, LedgerError};
use crate::disk::Fingerprint;

/// A folder of the daemon into which it puts inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `inbox.done_path`.
    Done,
    /// `inbox.rejected_path`.
    Rejected,
}

impl Place {
    /// The word in the ledger.
    pub const fn word(self) -> &'static str {
        match self {
            Place::Done => "done",
            Place::Rejected => "rejected",
        }
    }
}

/// A file that the daemon put somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disposed {
    /// Where it lies, as the key of a path.
    pub path: String,
    /// Its state when it was put there. In another state it is somebody else's.
    pub fingerprint: Fingerprint,
    /// When, in seconds since 1970.
    pub since: i64,
}

impl Ledger {
    /// The daemon put a file somewhere.
    pub fn put_away(&self, place: Place, path: &str, print: Fingerprint, since: i64) -> Result<(), LedgerError> {
        let sql =
            "INSERT OR REPLACE INTO disposed (path, place, inode, bytes, mtime_ns, since) VALUES (?, ?, ?, ?, ?, ?)";
        let row = params![path, place.word(), print.inode as i64, print.bytes as i64, print.mtime_ns, since];
        self.quick()?.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// The files that were put somewhere first, at most `most`.
    pub fn oldest_disposed(&self, place: Place, most: usize) -> Result<Vec<Disposed>, LedgerError> {
        let quick = self.quick()?;
        let sql =
            "SELECT path, inode, bytes, mtime_ns, since FROM disposed WHERE place = ? ORDER BY since, path LIMIT ?";
        let mut query = quick.prepare_cached(sql)?;
        let rows = query.query_map(params![place.word(), most as i64], |row| {
            let fingerprint = Fingerprint {
                inode: row.get::<_, i64>(1)? as u64,
                bytes: row.get::<_, i64>(2)? as u64,
                mtime_ns: row.get(3)?,
            };
            Ok(Disposed { path: row.get(0)?, fingerprint, since: row.get(4)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Bytes of all files that were put somewhere and not forgotten.
    pub fn disposed_bytes(&self, place: Place) -> Result<u64, LedgerError> {
        let quick = self.quick()?;
        let sql = "SELECT coalesce(sum(bytes), 0) FROM disposed WHERE place = ?";
        Ok(quick.query_row(sql, [place.word()], |row| row.get::<_, i64>(0))? as u64)
    }

    /// A file that was put somewhere is gone, or somebody else's.
    pub fn forget_disposed(&self, path: &str) -> Result<(), LedgerError> {
        self.quick()?.prepare_cached("DELETE FROM disposed WHERE path = ?")?.execute([path])?;
        Ok(())
    }
}
