//! window and infer: batches become logits on the one device. One thread owns it. Knows no file's content.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::clock::Clock;
use crate::ensemble::Logits;
use crate::error::{Exit, Fatal};
use crate::ledger::Ledger;
use crate::parcel::{Arrival, Batch, Scored, Work};
use crate::roster::Route;
use crate::slice::{Pixels, Slice};
use crate::supervisor::Supervisor;
use crate::tally::Tally;
use crate::watchdog::{AtHand, blame};

pub use crate::engine::{Engine, EngineError, EngineOutput, Scorer, blank, view};

/// Side of the slices of air that a device is tried with, as of most scanners.
const WARM_UP_SIDE: usize = 512;

/// All models on the device, each once, and which of them serve which route.
pub struct Fleet {
    /// In the order of [`Roster::models`](crate::roster::Roster::models).
    pub engines: Vec<Box<dyn Scorer>>,
    /// The routes.
    pub routes: Arc<[Route]>,
}

impl Fleet {
    /// Tries every model once on slices of air: `n_slices` at a time and one alone. Kernels are compiled and chosen here,
    /// a device that is broken or too small shows before anything is taken.
    ///
    /// # Errors
    /// The device failed.
    pub fn warm_up(&mut self, n_slices: usize, clock: &dyn Clock) -> Result<(), Fatal> {
        let air = blank(WARM_UP_SIDE);
        for n_slices in [n_slices.max(1), 1] {
            let slices = vec![&air; n_slices];
            for engine in &mut self.engines {
                let scored = catch_unwind(AssertUnwindSafe(|| engine.score(&slices, clock)));
                let scored = scored.unwrap_or_else(|_| Err(EngineError::Device("it panicked".into())));
                scored.map_err(|error| Fatal::new(Exit::Device, format!("at the first try {error}")))?;
            }
        }
        Ok(())
    }

    /// Scores a batch by the models of its route.
    ///
    /// # Errors
    /// The device failed: the process must be started again.
    pub fn handle(&mut self, batch: Batch, clock: &dyn Clock) -> Result<Scored, Fatal> {
        self.score(batch, clock).map_err(|error| fatal(&error))
    }

    fn score(&mut self, batch: Batch, clock: &dyn Clock) -> Result<Scored, EngineError> {
        let Batch { route, mut works } = batch;
        let begun_at = clock.now();
        let Route { ensemble, models, .. } = &self.routes[route];
        let engines = &mut self.engines;
        let slices: Vec<&Slice> = works.iter().map(|work| &work.slice).collect();
        let score = || -> Result<Vec<EngineOutput>, EngineError> {
            models.iter().map(|model| engines[*model].score(&slices, clock)).collect()
        };
        // A faulted device makes the tensor library panic; the process cannot go on with it, but it can say so.
        let outputs = catch_unwind(AssertUnwindSafe(score))
            .unwrap_or_else(|_| Err(EngineError::Device("it panicked in the middle of a batch".into())))?;
        for work in &mut works {
            work.slice.pixels = Pixels::I16(Vec::new());
        }
        let of_slice = |slice: usize| -> Vec<Logits> { outputs.iter().map(|output| output.logits[slice]).collect() };
        let answers = (0..works.len()).map(|slice| ensemble.combine(of_slice(slice))).collect();
        let window_time = outputs.iter().map(|output| output.window_time).sum();
        let infer_time = outputs.iter().map(|output| output.infer_time).sum();
        Ok(Scored { route, works, answers, begun_at, window_time, infer_time })
    }
}

/// What the thread needs.
pub struct Inference {
    /// The models.
    pub fleet: Fleet,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub tally: Arc<Tally>,
    /// For blame.
    pub ledger: Arc<Ledger>,
    /// What the watchdog sees.
    pub at_hand: Arc<AtHand>,
    /// Who wants signs of life.
    pub supervisor: Arc<Supervisor>,
}

/// The recorder ended.
struct Ended;

impl Inference {
    /// The thread. Its signs of life say that the device does its work: they come between batches, never during one.
    /// Waiting counts as life, for slices and for the recorder, which waits itself while a disk is full.
    ///
    /// # Errors
    /// The device failed: the process must be started again.
    pub fn run(mut self, batches: &Receiver<Batch>, record: &Sender<Arrival>) -> Result<(), Fatal> {
        loop {
            self.supervisor.alive();
            let batch = match batches.recv_timeout(self.supervisor.interval()) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for piece in pieces(batch) {
                let scored = self.score(piece)?;
                self.supervisor.alive();
                if self.hand_over(Arrival::Scored(scored), record).is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn score(&mut self, batch: Batch) -> Result<Scored, Fatal> {
        let mut files: Vec<PathBuf> = batch.works.iter().map(|work| work.origin.path.clone()).collect();
        files.dedup();
        let busy = self.at_hand.begin(files.clone());
        let scored = self.fleet.score(batch, self.clock.as_ref());
        drop(busy);
        match scored {
            Ok(scored) => {
                self.tally.scored(scored.works.len());
                Ok(scored)
            }
            Err(error) => {
                // A lack of memory is nobody's fault: every slice needs the same.
                if !matches!(error, EngineError::Memory(_)) {
                    blame(&self.ledger, &files);
                }
                Err(fatal(&error))
            }
        }
    }

    fn hand_over(&self, arrival: Arrival, record: &Sender<Arrival>) -> Result<(), Ended> {
        let mut arrival = arrival;
        loop {
            match record.send_timeout(arrival, self.supervisor.interval()) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(kept)) => arrival = kept,
                Err(SendTimeoutError::Disconnected(_)) => return Err(Ended),
            }
            self.supervisor.alive();
        }
    }
}

/// A device that is lost or has no memory left may be back after a restart; anything else is a bug.
fn fatal(error: &EngineError) -> Fatal {
    match error {
        EngineError::Device(_) | EngineError::Memory(_) => Fatal::new(Exit::Device, error.to_string()),
        EngineError::Model(_) | EngineError::Window(_) => Fatal::new(Exit::Bug, error.to_string()),
    }
}

/// Slices of files that were there when the program was ended before go alone: should it happen again, the others are not
/// to blame.
fn pieces(batch: Batch) -> Vec<Batch> {
    let Batch { route, works } = batch;
    let (suspects, others): (Vec<Work>, Vec<Work>) = works.into_iter().partition(|work| work.origin.strikes > 0);
    let mut pieces: Vec<Batch> = suspects.into_iter().map(|work| Batch { route, works: vec![work] }).collect();
    if !others.is_empty() {
        pieces.insert(0, Batch { route, works: others });
    }
    pieces
}
