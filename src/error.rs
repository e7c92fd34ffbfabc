//! Why the program ends, as exit codes that a supervisor can act on.

use std::fmt;

/// Exit codes; part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Wrong use of the command line.
    Usage = 64,
    /// The device was lost; a restart may help.
    Device = 69,
    /// A fault of the program itself.
    Bug = 70,
    /// Reading or writing failed again and again.
    Io = 74,
    /// A step of work or stopping took too long; a restart helps.
    Stalled = 75,
    /// The configuration or the model cannot be used; a restart will not help.
    Config = 78,
}

/// An error that ends the program.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct Fatal {
    /// The code to end with.
    pub exit: Exit,
    /// For people.
    pub sentence: String,
}

impl Fatal {
    /// Ends with `exit` and the sentence.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Fatal { exit, sentence: sentence.into() }
    }

    /// Ends with 78.
    pub fn config(error: impl fmt::Display) -> Self {
        Fatal::new(Exit::Config, error.to_string())
    }

    /// Ends with 74.
    pub fn io(error: impl fmt::Display) -> Self {
        Fatal::new(Exit::Io, error.to_string())
    }
}

impl From<crate::ledger::LedgerError> for Fatal {
    fn from(error: crate::ledger::LedgerError) -> Self {
        if error.is_final() { Fatal::config(error) } else { Fatal::io(error) }
    }
}
