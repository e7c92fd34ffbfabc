//! What travels on the arrows between the stages: one type for each.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Tick;
use crate::disk::Fingerprint;
use crate::engine::Images;
use crate::ensemble::Answer;
use crate::ledger::{SliceRecord, WorkKey};
use crate::reject::Rejection;
use crate::slice::Slice;

/// watch -> admit: a hint that may repeat or lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// An event says that this path was written to and may still be open.
    Touched(PathBuf),
    /// An event says that this path is complete: closed, or renamed into place.
    Closed(PathBuf),
    /// A scan found this path.
    Scanned(PathBuf),
    /// A scan came to its end; what it did not find is gone.
    ScanEnd,
    /// A scan came to its end and could not look into these folders; what it did not find there may still be there.
    ScanPart(Vec<PathBuf>),
    /// Events were lost: what was called open may be closed by now.
    Missed,
    /// Whether events come at all. Without them a file is complete when two scans agree.
    Hearing(bool),
}

/// admit -> decode: a file that was quiet for long enough, or may have been, and is not on record.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Number of this admission, unique in this process.
    pub ticket: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// Its state when it was admitted.
    pub fingerprint: Fingerprint,
    /// When it was admitted.
    pub at: Tick,
    /// Whether it is worked on ahead: it has not settled yet, and nothing of it is told before it has.
    pub is_ahead: bool,
}

/// admit -> record: the last word on a file that is worked on ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has settled in the state that work began with.
    Settled {
        /// The admission.
        ticket: u64,
        /// When.
        at: Tick,
    },
    /// It changed or vanished: work on it was in vain.
    Changed {
        /// The admission.
        ticket: u64,
    },
}

/// A file that was read: what all slices from it share.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Number of the admission.
    pub ticket: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// Its state when it was read.
    pub fingerprint: Fingerprint,
    /// Times that the program ended while it was at this content.
    pub strikes: u32,
    /// SHA-256 of its bytes, where it could be read.
    pub sha256: Option<String>,
    /// The same for a second look at it, [`checksum`](crate::identity::checksum).
    pub checksum: Option<u128>,
    /// How many slices it holds.
    pub n_slices: usize,
    /// When it was admitted; of a file that was worked on ahead, when it had settled.
    pub admitted_at: Tick,
    /// Whether it is worked on ahead.
    pub is_ahead: bool,
    /// Time to read it.
    pub read_time: Tick,
    /// Time to check and decode it.
    pub decode_time: Tick,
}

/// decode -> batch: one slice to be scored.
#[derive(Clone, Debug)]
pub struct Work {
    /// The file it came from.
    pub origin: Arc<Origin>,
    /// The slice; its pixels are dropped once they are on the device.
    pub slice: Slice,
    /// What is to be scored by whom.
    pub key: WorkKey,
    /// Index of the route it takes.
    pub route: usize,
    /// When it was decoded.
    pub decoded_at: Tick,
}

/// batch -> (upload ->) infer.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Index of the route that all of them take.
    pub route: usize,
    /// One to `batch.slices_max` slices.
    pub works: Vec<Work>,
    /// Their images on the device for each model of the route, where they were made ahead; otherwise nothing.
    pub images: Vec<Option<Images>>,
}

impl Batch {
    /// Slices that are not on the device yet.
    pub fn new(route: usize, works: Vec<Work>) -> Self {
        Batch { route, works, images: Vec::new() }
    }
}

/// infer -> record.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Index of the route that all of them took.
    pub route: usize,
    /// The slices, without pixels, in the order of the batch.
    pub works: Vec<Work>,
    /// What the network or networks said about each.
    pub answers: Vec<Answer>,
    /// When the device began with the batch.
    pub begun_at: Tick,
    /// Time for windowing and resizing the whole batch.
    pub window_time: Tick,
    /// Time of the network or networks for the whole batch.
    pub infer_time: Tick,
}

/// Anything -> record.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A batch from the network.
    Scored(Scored),
    /// A slice whose picture was scored before.
    Known {
        /// The slice.
        work: Box<Work>,
        /// The record of the first one.
        record: Box<SliceRecord>,
    },
    /// A file that was finished before, byte for byte.
    KnownFile {
        /// The file.
        origin: Arc<Origin>,
        /// The records of its slices.
        records: Vec<SliceRecord>,
    },
    /// A refused file.
    Rejected {
        /// The file.
        origin: Arc<Origin>,
        /// Why.
        rejection: Rejection,
    },
    /// A file that changed or vanished while it was read; the watcher will see it again.
    Returned {
        /// The file.
        origin: Arc<Origin>,
    },
}

/// record -> whoever shows progress: what became of one file.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// Its fate.
    pub fate: Fate,
}

/// What became of a file.
#[derive(Clone, Debug)]
pub enum Fate {
    /// New results.
    Done(Vec<SliceRecord>),
    /// Results that existed.
    Duplicate(Vec<SliceRecord>),
    /// Refused.
    Rejected(Rejection),
    /// Changed or vanished while it was read.
    Returned,
}

/// What tests of several stages begin with.
#[cfg(test)]
pub mod samples {
    use super::*;
    use crate::engine::blank;

    /// A file with one slice.
    pub fn origin(ticket: u64) -> Origin {
        Origin {
            ticket,
            path: PathBuf::new(),
            fingerprint: Fingerprint::default(),
            strikes: 0,
            sha256: None,
            checksum: None,
            n_slices: 1,
            admitted_at: Tick::ZERO,
            is_ahead: false,
            read_time: Tick::ZERO,
            decode_time: Tick::ZERO,
        }
    }

    /// A slice of air of that file.
    pub fn work(origin: Origin, side: usize) -> Work {
        let key = WorkKey { picture: origin.ticket.to_string(), scorer: String::new() };
        Work { origin: Arc::new(origin), slice: blank(side), key, route: 0, decoded_at: Tick::ZERO }
    }
}
