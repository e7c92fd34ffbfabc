//! watchdog: ends the program when a step of work takes too long, or stopping does. What hangs in a driver or a codec
//! cannot be ended from within, so the process ends (exit code 75) and its supervisor starts it again.
//!
//! Who hung is on record before that: of a file that was being decoded the attempt is counted beforehand, files of the
//! batches on the device are blamed now, the one that is scored and the one that was brought ahead, and only those. At the next start they are scored alone; what hangs again and
//! again is refused as poison like any other file that ends the program (see `ledger`).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::admit::path_key;
use crate::clock::{Clock, Tick};
use crate::error::Exit;
use crate::flood;
use crate::ledger::Ledger;
use crate::stage::Stop;
use crate::tally::Tally;
use crate::telemetry;

/// What one thread is busy with, for the watchdog to see.
#[derive(Debug, Default)]
pub struct AtHand(Mutex<Job>);

#[derive(Debug, Default)]
struct Job {
    /// Odd while there is one.
    number: u64,
    files: Vec<PathBuf>,
}

/// A step of work; it ends when this is dropped.
#[derive(Debug)]
pub struct Busy<'a>(&'a AtHand);

impl Busy<'_> {
    /// The step ends, and what it was about stays at hand.
    pub fn keep(self) {
        self.0.lock().number += 1;
        std::mem::forget(self);
    }
}

impl AtHand {
    /// What the thread is busy with, or has kept.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().files.clone()
    }

    /// Whether something is kept that was done.
    pub fn has_kept(&self) -> bool {
        let job = self.lock();
        job.number.is_multiple_of(2) && !job.files.is_empty()
    }

    /// What was kept is somebody else's from now on.
    pub fn hand_over(&self) {
        self.lock().files.clear();
    }

    /// A step of work on these files begins.
    pub fn begin(&self, files: Vec<PathBuf>) -> Busy<'_> {
        let mut job = self.lock();
        *job = Job { number: (job.number + 1) | 1, files };
        Busy(self)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Job> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> Option<u64> {
        let number = self.lock().number;
        (number % 2 == 1).then_some(number)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut job = self.0.lock();
        *job = Job { number: job.number + 1, files: Vec::new() };
    }
}

/// How long one thing has been going on, counted in looks: one look adds two periods at most. So a process that was
/// stopped as a whole, or whose machine slept, is not taken for one that hangs.
#[derive(Debug, Default)]
struct Spent {
    what: Option<u64>,
    looked: Option<Tick>,
    time: Duration,
}

impl Spent {
    fn look(&mut self, now: Tick, what: Option<u64>, period: Duration) -> Duration {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.saturating_sub(looked)).min(period * 2);
        self.time = if what.is_some() && what == self.what { self.time + passed } else { Duration::ZERO };
        (self.what, self.looked) = (what, Some(now));
        self.time
    }
}

/// What the thread needs.
pub struct Watchdog {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For blame.
    pub ledger: Arc<Ledger>,
    /// For the last words.
    pub tally: Arc<Tally>,
    /// From its wish on the time of stopping counts.
    pub stop: Stop,
    /// What the device is busy with: a batch that is scored, and one that is brought there.
    pub device: [Arc<AtHand>; 2],
    /// What each decoding thread is busy with.
    pub decoders: Vec<Arc<AtHand>>,
    /// Longest step.
    pub step_max: Duration,
    /// Longest stop.
    pub stop_max: Duration,
    /// How the process ends; it does not return.
    pub end: fn(Exit),
}

/// Ends the process without any of its threads' or libraries' last wishes: a driver that hangs would hang there too.
/// Everything that must be safe is safe by the order of recording.
pub fn end_at_once(exit: Exit) {
    signal_hook::low_level::exit(exit as i32)
}

impl Watchdog {
    /// The thread; it ends when the sender of `ended` is gone.
    pub fn run(self, ended: &Receiver<()>) {
        let period = (self.step_max.min(self.stop_max) / 16).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut device: [Spent; 2] = Default::default();
        let mut decoders: Vec<Spent> = self.decoders.iter().map(|_| Spent::default()).collect();
        let mut stopping = Spent::default();
        while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            flood::tell(false);
            let now = self.clock.now();
            for (spent, at_hand) in device.iter_mut().zip(&self.device) {
                if spent.look(now, at_hand.number(), period) > self.step_max {
                    return self.device_hangs();
                }
            }
            for (spent, decoder) in decoders.iter_mut().zip(&self.decoders) {
                if spent.look(now, decoder.number(), period) > self.step_max {
                    return self.decoder_hangs(decoder);
                }
            }
            if stopping.look(now, self.stop.is_wished().then_some(1), period) > self.stop_max {
                return self.stop_hangs();
            }
        }
    }

    fn device_hangs(&self) {
        // Who of the two holds the device up cannot be told from here.
        let files = self.device.iter().flat_map(|at_hand| at_hand.files()).collect::<Vec<_>>();
        blame(&self.ledger, &files);
        let (files, secs) = (files.len(), self.step_max.as_secs_f64());
        tracing::error!(
            files,
            secs,
            "The device has not finished a batch in limits.step_secs_max. The program ends (75); started again, it scores these files one by one."
        );
        (self.end)(Exit::Stalled);
    }

    fn decoder_hangs(&self, decoder: &AtHand) {
        let file = decoder.lock().files.first().map(|file| telemetry::file(file).to_string()).unwrap_or_default();
        let secs = self.step_max.as_secs_f64();
        tracing::error!(%file, secs, "A file was not decoded in limits.step_secs_max. The program ends (75); the attempt counts.");
        (self.end)(Exit::Stalled);
    }

    fn stop_hangs(&self) {
        let (secs, in_flight) = (self.stop_max.as_secs_f64(), self.tally.count().in_flight().unwrap_or(0));
        tracing::error!(
            in_flight,
            secs,
            "What was taken is not finished in limits.stop_secs_max. The program ends (75); the rest is taken again at the next start."
        );
        (self.end)(Exit::Stalled);
    }
}

/// Counts against files that the program ends because of a batch that they were in.
pub fn blame(ledger: &Ledger, files: &[PathBuf]) {
    let mut keys: Vec<String> = files.iter().map(|file| path_key(file)).collect();
    // A file of many slices may be in the batch that was scored and in the one that was brought ahead.
    keys.sort_unstable();
    keys.dedup();
    if let Err(error) = ledger.blame(&keys) {
        tracing::error!(%error, "The ledger did not take the blame; nothing is lost, but the same may happen again.");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::Fingerprint;

    thread_local! {
        /// How the process would have ended. The watchdog runs in the test's own thread.
        static ENDED: RefCell<Vec<Exit>> = const { RefCell::new(Vec::new()) };
    }

    fn note(exit: Exit) {
        ENDED.with_borrow_mut(|ended| ended.push(exit));
    }

    /// Runs a watchdog over one device and two decoders, with 200 ms for a step and for stopping, until it ends the process
    /// or a second is over. How it ended it, and the attempts that count against the file `a`.
    fn watch(prepare: impl FnOnce(&[Arc<AtHand>; 2], &[Arc<AtHand>], &Stop)) -> (Vec<Exit>, u32) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(&folder.path().join("ledger.sqlite")).unwrap());
        let key = path_key(Path::new("a"));
        ledger.begin(&key, Fingerprint::default(), "t").unwrap();
        let (device, decoders, stop) = (Default::default(), vec![Arc::default(), Arc::default()], Stop::new());
        prepare(&device, &decoders, &stop);
        let max = Duration::from_millis(200);
        let watchdog = Watchdog {
            clock: Arc::new(SystemClock::new()),
            ledger: Arc::clone(&ledger),
            tally: Arc::default(),
            stop,
            device,
            decoders,
            step_max: max,
            stop_max: max,
            end: note,
        };
        let (alive, ended) = crossbeam_channel::bounded(0);
        let timer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            drop(alive);
        });
        ENDED.take();
        watchdog.run(&ended);
        timer.join().unwrap();
        (ENDED.take(), ledger.file(&key).unwrap().unwrap().attempts)
    }

    #[test]
    fn what_hangs_ends_the_process_and_only_a_batch_is_blamed() {
        let a = || vec![PathBuf::from("a")];
        assert_eq!(watch(|_, _, _| {}), (vec![], 1), "nobody does anything");
        for at in [0, 1] {
            let hangs = watch(|device, _, _| std::mem::forget(device[at].begin(a())));
            assert_eq!(hangs, (vec![Exit::Stalled], 2), "the attempt, and the blame");
        }
        // Of a file that is decoded the attempt was counted when it began.
        let hangs = watch(|_, decoders, _| std::mem::forget(decoders[1].begin(a())));
        assert_eq!(hangs, (vec![Exit::Stalled], 1));
        assert_eq!(watch(|_, _, stop| stop.wish()), (vec![Exit::Stalled], 1), "stopping takes too long");
        for scored in ["b", "a"] {
            let both = watch(|device, _, _| {
                std::mem::forget(device[0].begin(vec![scored.into()]));
                device[1].begin(a()).keep();
            });
            assert_eq!(both, (vec![Exit::Stalled], 2), "what was brought ahead is on the device, too, and counts once");
        }
        assert_eq!(watch(|device, _, _| device[1].begin(a()).keep()), (vec![], 1), "it only waits there");
        let is_done = watch(|device, decoders, _| {
            drop(device[0].begin(a()));
            drop(decoders[0].begin(a()));
        });
        assert_eq!(is_done, (vec![], 1), "what is done does not hang");
    }

    const PERIOD: Duration = Duration::from_secs(1);

    fn secs(secs: u64) -> Tick {
        Duration::from_secs(secs)
    }

    #[test]
    fn only_one_and_the_same_step_adds_up() {
        let mut spent = Spent::default();
        assert_eq!(spent.look(secs(0), Some(1), PERIOD), secs(0));
        assert_eq!(spent.look(secs(1), Some(1), PERIOD), secs(1));
        assert_eq!(spent.look(secs(2), Some(3), PERIOD), secs(0), "the next one");
        assert_eq!(spent.look(secs(3), Some(3), PERIOD), secs(1));
        assert_eq!(spent.look(secs(4), None, PERIOD), secs(0));
        assert_eq!(spent.look(secs(99), Some(5), PERIOD), secs(0));
    }

    #[test]
    fn a_process_that_was_stopped_as_a_whole_does_not_hang() {
        let mut spent = Spent::default();
        spent.look(secs(0), Some(1), PERIOD);
        assert_eq!(spent.look(secs(10_000), Some(1), PERIOD), secs(2));
        assert_eq!(spent.look(secs(10_001), Some(1), PERIOD), secs(3));
    }

    #[test]
    fn steps_have_numbers_and_end_with_their_guard() {
        let at_hand = AtHand::default();
        assert_eq!(at_hand.number(), None);
        let busy = at_hand.begin(vec!["a".into()]);
        let first = at_hand.number();
        assert!(first.is_some());
        drop(busy);
        assert_eq!(at_hand.number(), None);
        let busy = at_hand.begin(vec!["b".into()]);
        assert!(at_hand.number() > first);
        busy.keep();
        assert_eq!((at_hand.number(), at_hand.files(), at_hand.has_kept()), (None, vec!["b".into()], true));
        at_hand.hand_over();
        assert!(at_hand.number().is_none() && at_hand.files().is_empty() && !at_hand.has_kept());
        let _busy = at_hand.begin(vec!["c".into()]);
        assert!(at_hand.number() > first && !at_hand.has_kept());
    }
}
