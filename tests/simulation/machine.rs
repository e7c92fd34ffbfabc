//! The daemon without threads: its real state machines, and queues of the real sizes between them. Each step is one that
//! a thread of the daemon takes; which one comes next is for the seed to say.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, bounded};
use ichd::admit::{Admission, Returns};
use ichd::ahead::{Book, Hold};
use ichd::clock::Clock;
use ichd::config::Config;
use ichd::daily_log::DailyLog;
use ichd::decode::{Decoder, Step, Unread};
use ichd::disk::{Disk, Leftover, make_folders_on};
use ichd::dispose::Disposer;
use ichd::error::{Exit, Fatal};
use ichd::frugal::Frugal;
use ichd::infer::{EngineError, EngineOutput, Fleet, Scorer};
use ichd::ledger::{Access, Gate, Ledger};
use ichd::limits::{ADMITTED_QUEUE, BATCH_QUEUE, DEVICE_QUEUE, READ_ROUNDS, RECORD_QUEUE};
use ichd::parcel::{Admitted, Arrival, Batch, Report, Sighting, Verdict, Work};
use ichd::patience::Patience;
use ichd::record::Recorder;
use ichd::retention::Retention;
use ichd::room::RoomWatch;
use ichd::roster::{Roster, Routing};
use ichd::schedule::Scheduler;
use ichd::settle::Settler;
use ichd::slice::{Pixels, Slice};
use ichd::stage::Stop;
use ichd::tally::Tally;
use ichd::watch::is_unfinished_name;

use super::chaos::{Chaos, LedgerFault};
use super::clock::SimClock;
use super::files::SimFiles;
use super::journal::Journal;
use super::sender;

/// The network of the simulation on its device.
struct FakeScorer {
    chaos: Arc<Chaos>,
}

impl Scorer for FakeScorer {
    fn score(&mut self, slices: &[&Slice], _clock: &dyn Clock) -> Result<EngineOutput, EngineError> {
        match self.chaos.device().map(|fault| fault % 3) {
            Some(0) => return Err(EngineError::Device("the simulated device is lost".into())),
            Some(1) => return Err(EngineError::Memory("the simulated device is full".into())),
            // As a poisoned device does; quietly, since it is on purpose.
            Some(_) => std::panic::resume_unwind(Box::new("the simulated device is poisoned")),
            None => {}
        }
        let most = self.chaos.weather().device_slices;
        if most > 0 && slices.len() as u64 > most {
            return Err(EngineError::Memory("the simulated device is too small".into()));
        }
        let logits = |slice: &&Slice| match &slice.pixels {
            Pixels::I16(values) => sender::logits(values),
            Pixels::U16(_) => unreachable!("the sender sends signed ones"),
        };
        let logits = slices.iter().map(logits).collect();
        Ok(EngineOutput { logits, window_time: Default::default(), infer_time: Default::default() })
    }
}

/// Where the ledger fails and dies.
struct SimGate {
    chaos: Arc<Chaos>,
    clock: Arc<SimClock>,
    journal: Arc<Journal>,
}

impl std::fmt::Debug for SimGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimGate")
    }
}

impl Gate for SimGate {
    fn pass(&self, access: Access) -> Result<(), rusqlite::Error> {
        self.journal.note_progress();
        self.chaos.step();
        let (code, text) = match self.chaos.ledger(self.clock.millis()) {
            Some(LedgerFault::Full) => (rusqlite::ffi::SQLITE_FULL, "no room"),
            Some(LedgerFault::Io) => (rusqlite::ffi::SQLITE_IOERR, "an I/O error"),
            None => {
                if access == Access::Commit {
                    self.journal.commit_begins();
                }
                return Ok(());
            }
        };
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(text.into())))
    }
}

/// The routes of the settings, with the built-in model's facts; its weights are made only once.
pub fn routing() -> Routing {
    static ROUTING: OnceLock<Routing> = OnceLock::new();
    let text = "routes:\n- { name: er, match: { folder: er }, models: [{ name: untrained }], urgent: true }\n";
    let load = || Roster::load(&Config::from_text(text).unwrap()).unwrap_or_else(|_| panic!("no roster")).routing;
    ROUTING.get_or_init(load).clone()
}

/// The disk as the daemon sees it, and the one below it.
#[derive(Clone)]
pub struct Parts {
    pub chaos: Arc<Chaos>,
    pub clock: Arc<SimClock>,
    pub files: SimFiles,
    pub disk: Arc<dyn Disk>,
    pub journal: Arc<Journal>,
    /// Whether what comes of a file is recorded though it has not settled.
    pub is_hasty: bool,
}

pub struct Daemon {
    pub parts: Parts,
    pub tally: Arc<Tally>,
    pub ledger: Arc<Ledger>,
    stop: Stop,
    inbox: PathBuf,
    admission: Admission,
    decoder: Decoder,
    admitted: VecDeque<Admitted>,
    hands: [VecDeque<Step>; 2],
    works: VecDeque<Work>,
    held: Scheduler<Work>,
    held_tickets: Vec<u64>,
    batches: VecDeque<Batch>,
    fleet: Fleet,
    arrivals: VecDeque<Arrival>,
    verdicts: VecDeque<Verdict>,
    /// Which verdicts the recorder heard.
    pub heard: Vec<&'static str>,
    recorder: Recorder,
    retention: Retention,
    /// What became of files.
    pub reports: Receiver<Report>,
}

impl Daemon {
    /// What `ichd run` does before its first file.
    pub fn start(parts: Parts, config: &Config) -> Result<Daemon, Fatal> {
        let Parts { chaos, clock, files, disk, journal, .. } = &parts;
        let inbox = &config.inbox;
        for folder in [&inbox.path, &inbox.done_path, &inbox.rejected_path, &config.results.path] {
            make_folders_on(files, folder).map_err(Fatal::config)?;
        }
        let gate = SimGate { chaos: chaos.clone(), clock: clock.clone(), journal: journal.clone() };
        let ledger = Arc::new(Ledger::open_with(&journal.path(), Some(Arc::new(gate)))?);
        journal.opened();
        let (stop, tally, returns) = (Stop::new(), Arc::new(Tally::default()), Arc::new(Returns::default()));
        let time: Arc<dyn Clock> = clock.clone();
        let patience = Patience::new(Arc::clone(&time), stop.clone(), true);
        let disposer = Disposer::new(disk.clone(), ledger.clone(), Arc::clone(&time), inbox);
        let routing = routing();
        ichd::retention::show_leftovers(disk.as_ref(), inbox);
        for folder in [&config.results.path, &inbox.done_path, &inbox.rejected_path] {
            disk.clear_leftovers(folder, Leftover::Delete);
        }
        let mut admission = Admission {
            settler: Settler::new(inbox),
            clock: Arc::clone(&time),
            disk: disk.clone(),
            ledger: ledger.clone(),
            tally: tally.clone(),
            rules: Arc::clone(&routing.rules),
            inbox: inbox.path.clone(),
            room: RoomWatch::new(disk.clone(), tally.clone(), config),
            patience: patience.clone(),
            returns: Arc::clone(&returns),
            ticket: 0,
            disposer: disposer.clone(),
            recalled: Default::default(),
            profile: Default::default(),
            book: Book::default(),
            verdicts: Vec::new(),
        };
        let decoder = Decoder {
            at_hand: Default::default(),
            profile: Default::default(),
            turn: Default::default(),
            clock: Arc::clone(&time),
            disk: disk.clone(),
            ledger: ledger.clone(),
            patience: patience.clone(),
            rules: config.admission.clone(),
            file_bytes_max: inbox.file_bytes_max,
            attempts_max: inbox.attempts_max,
            unread: Unread::new(READ_ROUNDS),
            routing: routing.clone(),
            roots: [inbox.path.clone()].into(),
            results: config.results.path.clone(),
        };
        let (to_reports, reports) = bounded(1000);
        let log = DailyLog::new(disk.clone(), patience.clone(), &config.results.path);
        let mut recorder = Recorder {
            clock: Arc::clone(&time),
            disk: disk.clone(),
            ledger: ledger.clone(),
            tally: tally.clone(),
            disposer,
            patience,
            returns,
            results: config.results.clone(),
            routes: Arc::clone(&routing.routes),
            device: "simulated".into(),
            finish_studies: false,
            reports: Some(to_reports),
            open: HashMap::new(),
            studies: HashMap::new(),
            log,
            profile: Default::default(),
            hold: Hold::default(),
            shelf: Default::default(),
        };
        recorder.recover()?;
        admission.recall()?;
        let urgent: Vec<bool> = routing.routes.iter().map(|route| route.urgent).collect();
        let scorer = FakeScorer { chaos: chaos.clone() };
        let retention = Retention::new(disk.clone(), ledger.clone(), time, config);
        Ok(Daemon {
            tally,
            ledger,
            stop,
            inbox: inbox.path.clone(),
            admission,
            decoder,
            admitted: VecDeque::new(),
            hands: Default::default(),
            works: VecDeque::new(),
            held: Scheduler::new(&config.batch, &urgent),
            held_tickets: Vec::new(),
            batches: VecDeque::new(),
            fleet: Fleet { engines: vec![Box::new(Frugal::new(Box::new(scorer)))], routes: routing.routes },
            arrivals: VecDeque::new(),
            verdicts: VecDeque::new(),
            heard: Vec::new(),
            recorder,
            retention,
            reports,
            parts,
        })
    }

    /// A scan, as the watcher makes it.
    pub fn scan(&mut self) -> bool {
        let files = self.parts.files.tree(&self.inbox);
        let n_files = files.len();
        for path in files.into_iter().filter(|path| !is_unfinished_name(path)) {
            self.parts.files.act();
            self.admission.note(&Sighting::Scanned(path));
        }
        self.admission.note(&Sighting::ScanEnd);
        n_files > 0
    }

    /// An event: it may come late or not at all.
    pub fn event(&mut self, path: &Path, is_closed: bool) {
        let path = path.to_owned();
        self.admission.note(&if is_closed { Sighting::Closed(path) } else { Sighting::Touched(path) });
    }

    /// Lets in at most `most` files. Says whether one was looked at.
    pub fn admit(&mut self, most: usize) -> Result<bool, Fatal> {
        let room = ADMITTED_QUEUE - self.admitted.len();
        self.admission.settle_ahead();
        let next = self.admission.take_turns(most.min(room), most.min(room));
        let was_any = !next.is_empty();
        for turn in next {
            let file = self.admission.admit(turn)?;
            self.admitted.extend(file);
        }
        self.verdicts.extend(self.admission.verdicts.drain(..));
        Ok(was_any)
    }

    /// A decoding thread does a file, if its hand is empty.
    pub fn decode(&mut self, hand: usize) -> Result<bool, Fatal> {
        if !self.hands[hand].is_empty() {
            return Ok(false);
        }
        let Some(file) = self.admitted.pop_front() else { return Ok(false) };
        self.parts.chaos.set_decoding(Some(file.path.clone()));
        let steps = self.decoder.handle(file)?;
        self.parts.chaos.set_decoding(None);
        self.hands[hand] = steps.into();
        Ok(true)
    }

    /// A decoding thread hands on what it has.
    pub fn hand_on(&mut self, hand: usize) -> bool {
        match self.hands[hand].front() {
            Some(Step::Batch(_)) if self.works.len() < BATCH_QUEUE => {
                let Some(Step::Batch(work)) = self.hands[hand].pop_front() else { unreachable!() };
                self.works.push_back(*work);
                true
            }
            Some(Step::Record(_)) if self.arrivals.len() < RECORD_QUEUE => {
                let Some(Step::Record(arrival)) = self.hands[hand].pop_front() else { unreachable!() };
                self.arrivals.push_back(arrival);
                true
            }
            _ => false,
        }
    }

    /// The batching thread takes a slice in.
    pub fn hold(&mut self) -> bool {
        if !self.held.has_room() {
            return false;
        }
        let Some(work) = self.works.pop_front() else { return false };
        self.held_tickets.push(work.origin.ticket);
        self.held.push(self.parts.clock.now(), work.route, work);
        true
    }

    /// It hands a batch over.
    pub fn batch(&mut self) -> bool {
        if self.batches.len() >= DEVICE_QUEUE {
            return false;
        }
        let is_dry = self.admitted.is_empty() && self.works.is_empty() && self.hands.iter().all(VecDeque::is_empty);
        self.held.set_dry(is_dry);
        let Some((route, works)) = self.held.next(self.parts.clock.now()) else { return false };
        for work in &works {
            let at = self.held_tickets.iter().position(|ticket| *ticket == work.origin.ticket).unwrap();
            self.held_tickets.swap_remove(at);
        }
        self.batches.push_back(Batch::new(route, works));
        true
    }

    /// The device scores a batch.
    pub fn score(&mut self) -> Result<bool, Fatal> {
        if self.arrivals.len() >= RECORD_QUEUE {
            return Ok(false);
        }
        let Some(batch) = self.batches.pop_front() else { return Ok(false) };
        let scored = self.fleet.handle(batch, self.parts.clock.as_ref())?;
        self.arrivals.push_back(Arrival::Scored(scored));
        Ok(true)
    }

    /// The recorder takes a message.
    pub fn record(&mut self) -> Result<bool, Fatal> {
        let Some(arrival) = self.arrivals.pop_front() else { return Ok(false) };
        if self.parts.is_hasty {
            self.recorder.handle(arrival)?;
        } else {
            self.recorder.arrive(arrival)?;
        }
        Ok(true)
    }

    /// It hears the verdicts that are there.
    pub fn hear(&mut self) -> Result<bool, Fatal> {
        let was_any = !self.verdicts.is_empty();
        let word = |verdict: &Verdict| match verdict {
            Verdict::Settled { .. } => "settled after work ahead",
            Verdict::Changed { .. } => "changed under work ahead",
        };
        self.heard.extend(self.verdicts.iter().map(word));
        self.recorder.hear(self.verdicts.drain(..))?;
        Ok(was_any)
    }

    /// It sums up studies that are quiet.
    pub fn sum_up(&mut self) -> Result<(), Fatal> {
        self.recorder.write_quiet_studies(false)
    }

    /// Old files go.
    pub fn retain(&mut self) -> Result<(), Fatal> {
        self.retention.step(&self.stop).map(drop).map_err(Fatal::from)
    }

    /// Everything moves on that can, but nothing new is let in. Says whether anything moved.
    pub fn flow(&mut self) -> Result<bool, Fatal> {
        let mut moved = false;
        for hand in 0..self.hands.len() {
            moved |= self.decode(hand)? | self.hand_on(hand);
        }
        moved |= self.hold() | self.batch();
        moved |= self.score()?;
        moved |= self.hear()?;
        Ok(moved | self.record()?)
    }

    /// SIGTERM: what was taken is finished. Gives an error if something went missing.
    pub fn end(&mut self) -> Result<(), Fatal> {
        self.stop.wish();
        while self.flow()? {}
        self.held.end();
        while self.flow()? {}
        self.recorder.no_more_verdicts()?;
        self.recorder.write_quiet_studies(false)?;
        let count = self.tally.count();
        match count.in_flight() {
            Some(0) => Ok(()),
            _ => Err(Fatal::new(Exit::Bug, format!("files went missing on the way ({count})"))),
        }
    }

    /// The file that is being decoded: of interest when it ends the process.
    pub fn decoding(&self) -> Option<PathBuf> {
        self.parts.chaos.decoding()
    }

    /// Whether a file waits to be quiet.
    pub fn is_waiting(&self) -> bool {
        self.admission.settler.n_waiting() > 0
    }

    /// Admissions that are somewhere in the stages.
    pub fn tickets(&self) -> HashSet<u64> {
        let mut tickets: HashSet<u64> = self.admitted.iter().map(|file| file.ticket).collect();
        tickets.extend(self.works.iter().map(|work| work.origin.ticket));
        tickets.extend(&self.held_tickets);
        tickets.extend(self.batches.iter().flat_map(|batch| &batch.works).map(|work| work.origin.ticket));
        tickets.extend(self.recorder.open.keys());
        for step in self.hands.iter().flatten() {
            match step {
                Step::Batch(work) => tickets.extend([work.origin.ticket]),
                Step::Record(arrival) => tickets.extend(of_arrival(arrival)),
            }
        }
        tickets.extend(self.arrivals.iter().chain(self.recorder.hold.held()).flat_map(of_arrival));
        tickets
    }
}

fn of_arrival(arrival: &Arrival) -> Vec<u64> {
    match arrival {
        Arrival::Scored(scored) => scored.works.iter().map(|work| work.origin.ticket).collect(),
        Arrival::Known { work, .. } => vec![work.origin.ticket],
        Arrival::KnownFile { origin, .. } | Arrival::Rejected { origin, .. } | Arrival::Returned { origin } => {
            vec![origin.ticket]
        }
    }
}
