//! Counts of what went in and what came out, and the law that binds them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Running counts of files and slices. Shared by all stages.
#[derive(Debug, Default)]
pub struct Tally {
    admitted: AtomicU64,
    done: AtomicU64,
    duplicates: AtomicU64,
    rejected: AtomicU64,
    returned: AtomicU64,
    slices: AtomicU64,
    pauses: AtomicU64,
    is_paused: AtomicBool,
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
    /// Files that changed while they were read or settled, or could not be read, and went back to the watcher.
    pub returned: u64,
    /// Slices scored by the network.
    pub slices: u64,
    /// Times that admission paused for lack of room.
    pub pauses: u64,
    /// Whether it pauses now.
    pub is_paused: bool,
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

    /// Admission pauses for lack of room, or goes on.
    pub fn set_paused(&self, is_paused: bool) {
        let before = self.is_paused.swap(is_paused, Ordering::SeqCst);
        self.pauses.fetch_add(u64::from(is_paused && !before), Ordering::SeqCst);
    }

    /// Reads all counts. Outcomes are read before admissions, so that a file in between is in flight, never negative.
    pub fn count(&self) -> Count {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let (done, duplicates, rejected) = (read(&self.done), read(&self.duplicates), read(&self.rejected));
        let (returned, slices) = (read(&self.returned), read(&self.slices));
        let (pauses, is_paused) = (read(&self.pauses), self.is_paused.load(Ordering::SeqCst));
        Count { admitted: read(&self.admitted), done, duplicates, rejected, returned, slices, pauses, is_paused }
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
            write!(f, ", {} returned to the inbox", self.returned)?;
        }
        if self.pauses > 0 {
            let (times, now) = (self.pauses, if self.is_paused { ", still" } else { "" });
            write!(f, "; admission paused {times} times for lack of room{now}")?;
        }
        Ok(())
    }
}
