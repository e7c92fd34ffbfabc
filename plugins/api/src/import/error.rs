//! What keeps a file from becoming the weights of a network. Knows no file format.

use std::fmt;

use super::Report;

/// A file that does not become weights.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Something is missing, left over, misshapen or broken.
    #[error("{file}: {unfit}")]
    Unfit {
        /// The file.
        file: String,
        /// All of it.
        unfit: Box<Unfit>,
    },
    /// The names that were asked for are not known for the backbone.
    #[error("{file}: {names} names of {backbone} are not known")]
    UnknownNames {
        /// The file.
        file: String,
        /// The network.
        backbone: &'static str,
        /// Whose.
        names: &'static str,
    },
}

/// A tensor of another shape than the network's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Our name.
    pub name: String,
    /// The file's name.
    pub from: String,
    /// The file's shape.
    pub found: Vec<usize>,
    /// The shape that would be right, in the file's layout.
    pub expected: Vec<usize>,
}

/// A tensor whose values cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file's name.
    pub from: String,
    /// What is wrong.
    pub reason: String,
}

/// Everything that does not fit.
#[derive(Clone, Debug, Default)]
pub struct Unfit {
    /// The network.
    pub backbone: &'static str,
    /// Whose names were looked for.
    pub names: &'static str,
    /// How many of the network's tensors the file has, and how many there are.
    pub fitting: (usize, usize),
    /// Our names that the file lacks.
    pub missing: Vec<String>,
    /// The file's names that nothing explains.
    pub unexplained: Vec<String>,
    /// Other shapes.
    pub misshapen: Vec<Misshapen>,
    /// Values that are no numbers.
    pub broken: Vec<Broken>,
    /// What was well.
    pub report: Report,
}

impl Unfit {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexplained.is_empty() && self.misshapen.is_empty() && self.broken.is_empty()
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, all) = self.fitting;
        write!(f, "does not fit {}, of which it has {found} of {all} tensors by {} names", self.backbone, self.names)?;
        if !self.missing.is_empty() {
            write!(f, "; missing {}", self.missing.join(", "))?;
        }
        if !self.unexplained.is_empty() {
            write!(f, "; unexplained {}", self.unexplained.join(", "))?;
        }
        for Misshapen { name, from, found, expected } in &self.misshapen {
            write!(f, "; {from} has shape {found:?}, {expected:?} would be right for {name}")?;
        }
        for Broken { from, reason } in &self.broken {
            write!(f, "; {from}: {reason}")?;
        }
        Ok(())
    }
}
