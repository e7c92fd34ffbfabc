//! Counts of what went in and what came out, and the law that binds them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Running counts of files and slices. Shared by all stages.
#[derive(Debug, Default)]
pub struct Tally {
    admitted: AtomicU64,
    done: AtomicU64,
    duplicates: AtomicU64,
    rejected: AtomicU64,
    returned: AtomicU64,
    slices: AtomicU64,
}

/// One reading of a [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Files taken from the inbox.
    pub admitted: u64,
    /// Files with new results.
    pub done: u64,
    /// Files whose pictures were all known already.
    pub duplicates: u64,
    /// Files refused with a reason.
    pub rejected: u64,
    /// Files that changed while they were read and went back to the watcher.
    pub returned: u64,
    /// Slices scored by the network.
    pub slices: u64,
}

impl Tally {
    /// A file enters.
    pub fn admit(&self) {
        self.admitted.fetch_add(1, Ordering::SeqCst);
    }

    /// A file leaves with new results.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    /// A file leaves with results that existed.
    pub fn duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::SeqCst);
    }

    /// A file leaves with a reason.
    pub fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::SeqCst);
    }

    /// A file leaves because it was not finished after all.
    pub fn give_back(&self) {
        self.returned.fetch_add(1, Ordering::SeqCst);
    }

    /// Slices got their logits.
    pub fn scored(&self, n_slices: usize) {
        self.slices.fetch_add(n_slices as u64, Ordering::SeqCst);
    }

    /// Reads all counts. Outcomes are read before admissions, so that a file in between is in flight, never negative.
    pub fn count(&self) -> Count {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let (done, duplicates, rejected) = (read(&self.done), read(&self.duplicates), read(&self.rejected));
        let (returned, slices) = (read(&self.returned), read(&self.slices));
        Count { admitted: read(&self.admitted), done, duplicates, rejected, returned, slices }
    }
}

impl Count {
    /// Files that left in one way or another.
    pub fn settled(&self) -> u64 {
        self.done + self.duplicates + self.rejected + self.returned
    }

    /// Files between admission and outcome. `None` breaks the law: more came out than went in.
    pub fn in_flight(&self) -> Option<u64> {
        self.admitted.checked_sub(self.settled())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files: {} done, {} duplicates, {} rejected",
            self.admitted, self.done, self.duplicates, self.rejected
        )?;
        if self.returned > 0 {
            write!(f, ", {} still being written", self.returned)?;
        }
        Ok(())
    }
}
