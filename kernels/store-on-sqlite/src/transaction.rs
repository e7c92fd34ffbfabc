//! Transactions.

use std::ops::Deref;

use crate::{Connection, Error};

/// When a transaction takes the lock to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionBehavior {
    /// With its first write.
    Deferred,
    /// At once.
    Immediate,
    /// At once, and nobody reads meanwhile.
    Exclusive,
}

/// A transaction; without [`Transaction::commit`] nothing of it stays.
#[derive(Debug)]
pub struct Transaction<'a> {
    connection: &'a Connection,
    is_open: bool,
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(connection: &'a Connection, behavior: TransactionBehavior) -> Result<Self, Error> {
        let begin = match behavior {
            TransactionBehavior::Deferred => "BEGIN DEFERRED",
            TransactionBehavior::Immediate => "BEGIN IMMEDIATE",
            TransactionBehavior::Exclusive => "BEGIN EXCLUSIVE",
        };
        connection.inner.execute_batch(begin)?;
        Ok(Transaction { connection, is_open: true })
    }

    /// Makes it stay.
    ///
    /// # Errors
    /// SQLite's; then nothing stays.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.connection.inner.execute_batch("COMMIT")?;
        self.is_open = false;
        Ok(())
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // One that SQLite has ended already cannot be rolled back, and need not be.
            let _ = self.connection.inner.execute_batch("ROLLBACK");
        }
    }
}
