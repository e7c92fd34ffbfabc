//! window and infer: batches become logits on the one device. One thread owns it. Knows no file's content.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::clock::{Clock, Tick};
use crate::ensemble::Logits;
use crate::error::{Exit, Fatal};
use crate::ledger::Ledger;
use crate::parcel::{Arrival, Batch, Scored, Work};
use crate::profile::{Crew, Profile, Step};
use crate::roster::Route;
use crate::slice::{Pixels, Slice};
use crate::supervisor::Supervisor;
use crate::tally::Tally;
use crate::watchdog::{AtHand, blame};

pub use crate::engine::{Engine, EngineError, EngineOutput, Images, Scorer, Uploader, blank, view};

/// Side of the slices of air that a device is tried with, as of most scanners.
const WARM_UP_SIDE: usize = 512;

/// All models on the device, each once, and which of them serve which route.
pub struct Fleet {
    /// In the order of [`Roster::models`](crate::roster::Roster::models).
    pub engines: Vec<Box<dyn Scorer>>,
    /// The routes.
    pub routes: Arc<[Route]>,
}

/// Sizes of batches for which a device gets ready before the first slice, largest first, so that a lack of memory shows at
/// once. A GPU chooses its kernels anew for every power of two that a size is rounded up to, and may compile others for
/// sizes between; in the middle of the work that would keep slices waiting, so batches are filled up to these sizes there
/// ([`Engine::for_sizes`]). A CPU has nothing to choose; one slice shows that it works, and batches go as they are.
pub fn batch_sizes(slices_max: usize, is_cpu: bool) -> Vec<usize> {
    if is_cpu {
        return vec![1];
    }
    let most = slices_max.max(1);
    let mut sizes: Vec<usize> = (0..).map(|power| 1 << power).take_while(|size| *size < most).collect();
    sizes.push(most);
    sizes.reverse();
    sizes
}

/// Scores slices of air, and says how long it took.
///
/// # Errors
/// The device failed.
pub fn try_out(scorer: &mut dyn Scorer, n_slices: usize, clock: &dyn Clock) -> Result<Tick, Fatal> {
    let air = blank(WARM_UP_SIDE);
    let begun = clock.now();
    let scored = catch_unwind(AssertUnwindSafe(|| scorer.score(&vec![&air; n_slices], clock)));
    let scored = scored.unwrap_or_else(|_| Err(EngineError::Device("it panicked".into())));
    scored.map_err(|error| Fatal::new(Exit::Device, format!("at the first try {error}")))?;
    Ok(clock.now().saturating_sub(begun))
}

impl Fleet {
    /// Tries every model on slices of air in batches of these sizes. Kernels are compiled and chosen here, a device that is
    /// broken or too small shows before anything is taken.
    ///
    /// # Errors
    /// The device failed.
    pub fn warm_up(&mut self, sizes: &[usize], clock: &dyn Clock) -> Result<(), Fatal> {
        for size in sizes {
            for engine in &mut self.engines {
                try_out(engine.as_mut(), *size, clock)?;
            }
        }
        Ok(())
    }

    /// For each model who brings slices to the device ahead of their turn; nothing if nobody does for any.
    pub fn uploaders(&self) -> Vec<Option<Box<dyn Uploader>>> {
        let uploaders: Vec<_> = self.engines.iter().map(|engine| engine.uploader()).collect();
        if uploaders.iter().all(Option::is_none) { Vec::new() } else { uploaders }
    }

    /// Scores a batch by the models of its route.
    ///
    /// # Errors
    /// The device failed: the process must be started again.
    pub fn handle(&mut self, batch: Batch, clock: &dyn Clock) -> Result<Scored, Fatal> {
        self.score(batch, clock).map_err(|failed| fatal(&failed.error))
    }

    fn score(&mut self, batch: Batch, clock: &dyn Clock) -> Result<Scored, Failed> {
        let Batch { route, mut works, images } = batch;
        let begun_at = clock.now();
        let Route { ensemble, models, .. } = &self.routes[route];
        let engines = &mut self.engines;
        let slices: Vec<&Slice> = works.iter().map(|work| &work.slice).collect();
        let score = || -> Result<Vec<EngineOutput>, EngineError> {
            let images = images.into_iter().chain(std::iter::repeat(None));
            let score = |(model, images): (&usize, Option<Images>)| match images {
                Some(images) => engines[*model].score_images(&slices, images, clock),
                None => engines[*model].score(&slices, clock),
            };
            models.iter().zip(images).map(score).collect()
        };
        // A faulted device makes the tensor library panic; the process cannot go on with it, but it can say so.
        let outputs = catch_unwind(AssertUnwindSafe(score))
            .unwrap_or_else(|_| Err(EngineError::Device("it panicked in the middle of a batch".into())));
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return Err(Failed { batch: Batch::new(route, works), error }),
        };
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

/// A batch that was not scored, and why.
#[derive(Debug)]
struct Failed {
    batch: Batch,
    error: EngineError,
}

/// What came of a batch on the device.
enum Tried {
    Scored(Scored),
    /// The device had no memory for it, not even in pieces.
    TooLarge(Batch),
    /// It had none for a lone slice, but another batch has some there.
    Crowded(Batch, EngineError),
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
    /// What was brought to the device ahead of its turn.
    pub ahead: Arc<AtHand>,
    /// Tells who brings it that there is no room for it.
    pub is_crowded: Arc<AtomicBool>,
    /// Who wants signs of life.
    pub supervisor: Arc<Supervisor>,
    /// Where the time goes.
    pub profile: Arc<Profile>,
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
            let is_ready = self.ahead.has_kept();
            let batch = match batches.recv_timeout(self.supervisor.interval()) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.profile.waiting(Crew::Device, batches.len().max(usize::from(is_ready)));
            let mut pieces = VecDeque::from(pieces(batch));
            while let Some(piece) = pieces.pop_front() {
                let scored = match self.score(piece)? {
                    Tried::Scored(scored) => scored,
                    Tried::TooLarge(batch) => {
                        // Whose slice finds no memory alone is to blame, and nobody else.
                        singles(batch).into_iter().rev().for_each(|single| pieces.push_front(single));
                        continue;
                    }
                    Tried::Crowded(single, error) => {
                        // From now on nothing is brought ahead, and what was gives its memory back.
                        self.is_crowded.store(true, Ordering::Relaxed);
                        let Ok(Batch { route, works, .. }) = batches.recv_timeout(self.supervisor.interval()) else {
                            blame(&self.ledger, &files_of(&single));
                            return Err(fatal(&error));
                        };
                        pieces.extend(self::pieces(Batch::new(route, works)));
                        pieces.push_front(single);
                        continue;
                    }
                };
                let begun = self.clock.now();
                self.supervisor.alive();
                if self.hand_over(Arrival::Scored(scored), record).is_err() {
                    return Ok(());
                }
                self.profile.held_up(Crew::Device, begun, self.clock.now());
                self.profile.queue(Crew::Record, record.len());
            }
        }
    }

    fn score(&mut self, batch: Batch) -> Result<Tried, Fatal> {
        let files = files_of(&batch);
        let busy = self.at_hand.begin(files.clone());
        let scored = self.fleet.score(batch, self.clock.as_ref());
        drop(busy);
        match scored {
            Ok(scored) => {
                self.tally.scored(scored.works.len());
                // Of what was brought ahead the windows were made, and counted, elsewhere.
                let took = self.clock.now().saturating_sub(scored.begun_at);
                let begun = scored.begun_at;
                let windowed = begun + scored.window_time.min(took.saturating_sub(scored.infer_time));
                self.profile.add(Step::Window, begun, windowed, scored.works.len());
                self.profile.add(Step::Network, windowed, windowed + scored.infer_time, scored.works.len());
                Ok(Tried::Scored(scored))
            }
            // A lack of memory is no fault of a batch: somebody in it may be too large, the others are not.
            Err(Failed { batch, error: EngineError::Memory(cause) }) if batch.works.len() > 1 => {
                let slices = batch.works.len();
                tracing::warn!(slices, cause, "The device has no memory for a slice of a batch; they go one by one.");
                Ok(Tried::TooLarge(batch))
            }
            Err(Failed { batch, error }) if matches!(error, EngineError::Memory(_)) && self.ahead.has_kept() => {
                tracing::warn!(%error, "There is no room for a slice beside the next batch; from now on none is brought ahead.");
                Ok(Tried::Crowded(batch, error))
            }
            Err(Failed { error, .. }) => {
                let mut files = files;
                if matches!(error, EngineError::Device(_)) {
                    files.extend(self.ahead.files());
                }
                blame(&self.ledger, &files);
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
    if !batch.works.iter().any(is_suspect) {
        return vec![batch];
    }
    let Batch { route, works, .. } = batch;
    let (suspects, others): (Vec<Work>, Vec<Work>) = works.into_iter().partition(is_suspect);
    let mut pieces = singles(Batch::new(route, suspects));
    if !others.is_empty() {
        pieces.insert(0, Batch::new(route, others));
    }
    pieces
}

/// The files of a batch.
pub fn files_of(batch: &Batch) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = batch.works.iter().map(|work| work.origin.path.clone()).collect();
    // Slices of several files take turns in a batch, and each file counts once.
    files.sort_unstable();
    files.dedup();
    files
}

/// Whether a slice's file was there when the program was ended before.
pub fn is_suspect(work: &Work) -> bool {
    work.origin.strikes > 0
}

fn singles(batch: Batch) -> Vec<Batch> {
    let Batch { route, works, .. } = batch;
    works.into_iter().map(|work| Batch::new(route, vec![work])).collect()
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::admit::path_key;
    use crate::clock::{ManualClock, Tick};
    use crate::config::Config;
    use crate::disk::Fingerprint;
    use crate::frugal::Frugal;
    use crate::parcel::{Origin, samples};
    use crate::roster::Roster;

    /// A device with memory for slices up to this side, and for so many of them at a time.
    struct Small {
        side: usize,
        slices: usize,
    }

    impl Scorer for Small {
        fn score(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<EngineOutput, EngineError> {
            if slices.len() > self.slices || slices.iter().any(|slice| slice.rows > self.side) {
                return Err(EngineError::of_device("out of device memory"));
            }
            let logits = slices.iter().map(|slice| [slice.rows as f32; 6]).collect();
            Ok(EngineOutput { logits, window_time: Tick::ZERO, infer_time: Tick::ZERO })
        }
    }

    fn path(number: usize) -> PathBuf {
        format!("/in/{number}.dcm").into()
    }

    fn work(number: usize, side: usize) -> Work {
        samples::work(Origin { path: path(number), ..samples::origin(number as u64) }, side)
    }

    /// A device that is lost.
    struct Lost;

    impl Scorer for Lost {
        fn score(&mut self, _: &[&Slice], _: &dyn Clock) -> Result<EngineOutput, EngineError> {
            Err(EngineError::of_device("The device was poisoned"))
        }
    }

    fn run(device: impl Scorer + 'static, sides: &[usize]) -> (Result<(), Fatal>, Vec<usize>, Vec<u32>) {
        run_with(device, Arc::default(), &[sides])
    }

    /// Batches of slices with these sides through the thread: how it ended, which sides were scored in which order, and
    /// the attempts that count against each file, the last of them one that was brought ahead.
    fn run_with(
        device: impl Scorer + 'static,
        is_crowded: Arc<AtomicBool>,
        batches_of: &[&[usize]],
    ) -> (Result<(), Fatal>, Vec<usize>, Vec<u32>) {
        let sides = batches_of.concat();
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(&folder.path().join("ledger.sqlite")).unwrap());
        for number in 0..=sides.len() {
            let key = path_key(&path(number));
            ledger.begin(&key, Fingerprint::default(), "t").unwrap();
            ledger.survived(&key).unwrap();
        }
        let routes = Roster::load(&Config::default()).unwrap().routing.routes;
        let ahead = Arc::new(AtHand::default());
        ahead.begin(vec![path(sides.len())]).keep();
        let inference = Inference {
            fleet: Fleet { engines: vec![Box::new(Frugal::new(Box::new(device)))], routes },
            clock: Arc::new(ManualClock::default()),
            tally: Arc::default(),
            ledger: Arc::clone(&ledger),
            at_hand: Arc::default(),
            ahead,
            is_crowded,
            supervisor: Arc::new(Supervisor::none()),
            profile: Arc::default(),
        };
        let mut works = sides.iter().enumerate().map(|(number, side)| work(number, *side));
        let ((batches, for_device), (to_record, arrivals)) = (bounded(batches_of.len()), bounded(sides.len()));
        for batch in batches_of {
            batches.send(Batch::new(0, works.by_ref().take(batch.len()).collect())).unwrap();
        }
        drop(batches);
        let ended = inference.run(&for_device, &to_record);
        drop(to_record);
        let scored = arrivals.iter().flat_map(|arrival| match arrival {
            Arrival::Scored(scored) => scored.works,
            _ => Vec::new(),
        });
        let scored = scored.map(|work| work.slice.rows).collect();
        let attempts = |number| ledger.file(&path_key(&path(number))).unwrap().unwrap().attempts;
        (ended, scored, (0..=sides.len()).map(attempts).collect())
    }

    #[test]
    fn a_gpu_gets_ready_for_every_size_that_it_chooses_kernels_for() {
        assert_eq!(batch_sizes(16, false), [16, 8, 4, 2, 1]);
        assert_eq!(batch_sizes(12, false), [12, 8, 4, 2, 1]);
        assert_eq!((batch_sizes(1, false), batch_sizes(0, false), batch_sizes(16, true)), (vec![1], vec![1], vec![1]));
    }

    #[test]
    fn a_slice_that_finds_no_memory_alone_is_blamed_and_its_neighbors_are_not() {
        let (ended, scored, attempts) = run(Small { side: 64, slices: 99 }, &[8, 16, 4096, 32]);
        assert_eq!(ended.unwrap_err().exit, Exit::Device);
        assert_eq!(scored, [8, 16], "those before it have their answers");
        assert_eq!(attempts, [0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_batch_that_finds_memory_in_pieces_blames_nobody() {
        let (ended, scored, attempts) = run(Small { side: 64, slices: 1 }, &[8, 16, 24, 32, 40]);
        ended.unwrap();
        assert_eq!((scored, attempts), (vec![8, 16, 24, 32, 40], vec![0; 6]));
    }

    /// A device that has memory for a slice if nothing else is there.
    struct Narrow(Arc<AtomicBool>);

    impl Scorer for Narrow {
        fn score(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<EngineOutput, EngineError> {
            if !self.0.load(Ordering::Relaxed) {
                return Err(EngineError::of_device("out of device memory"));
            }
            let logits = slices.iter().map(|slice| [slice.rows as f32; 6]).collect();
            Ok(EngineOutput { logits, window_time: Tick::ZERO, infer_time: Tick::ZERO })
        }
    }

    #[test]
    fn a_slice_that_has_no_room_beside_another_batch_takes_that_one_s_and_blames_nobody() {
        let is_crowded: Arc<AtomicBool> = Arc::default();
        let (ended, scored, attempts) =
            run_with(Narrow(Arc::clone(&is_crowded)), is_crowded, &[&[8], &[16, 24], &[32]]);
        ended.unwrap();
        assert_eq!((scored, attempts), (vec![8, 16, 24, 32], vec![0; 5]));
    }

    #[test]
    fn a_lost_device_may_be_the_fault_of_all_that_was_on_it() {
        let (ended, scored, attempts) = run(Lost, &[8, 16]);
        assert_eq!((ended.unwrap_err().exit, scored.len(), attempts), (Exit::Device, 0, vec![1; 3]));
    }
}
