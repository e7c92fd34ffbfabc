//! Wires the stages: channels, threads and the order in which they end.
//!
//! ```text
//! watch -> admit -> decode xN -> batch -> [window -> infer] -> record
//! ```
//!
//! Every channel is bounded and points downstream, so the pipeline cannot block itself. Stopping means that the first
//! sender is dropped: each stage finishes what it holds and drops its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::admit::{Admission, Returns};
use crate::ahead::{Book, Hold};
use crate::clock::Clock;
use crate::config::Config;
use crate::daily_log::DailyLog;
use crate::decode::{Decoder, Turn, Unread};
use crate::device::Chosen;
use crate::disk::Disk;
use crate::dispose::Disposer;
use crate::error::{Exit, Fatal};
use crate::frugal::Frugal;
use crate::infer::{Engine, Fleet, Inference, Scorer, batch_sizes};
use crate::ledger::Ledger;
use crate::limits::{
    ADMITTED_QUEUE, BATCH_QUEUE, DEVICE_QUEUE, READ_ROUNDS, RECORD_QUEUE, SIGHTINGS_QUEUE, VERDICTS_QUEUE,
};
use crate::model::Model;
use crate::parcel::{Admitted, Arrival, Batch, Report, Sighting, Verdict, Work};
use crate::patience::Patience;
use crate::profile::{Crew, Profile, ProfileReport};
use crate::recalled::Recalled;
use crate::record::Recorder;
use crate::retention::{self, Retention};
use crate::room::RoomWatch;
use crate::roster::Roster;
use crate::schedule::Scheduler;
use crate::settle::Settler;
use crate::stage::{self, Stage, Stop};
use crate::supervisor::Supervisor;
use crate::tally::{Count, Tally};
use crate::upload::Upload;
use crate::upstream::Upstream;
use crate::watchdog::{self, AtHand, Watchdog};
use crate::{batch, watch};

/// Where files come from.
pub enum Source {
    /// The inbox, until it is stopped.
    Inbox,
    /// These files, then the end.
    Files {
        /// The files.
        files: Vec<PathBuf>,
        /// Folders that take the place of the inbox for routes that ask for a folder.
        roots: Vec<PathBuf>,
    },
}

/// The world that a pipeline runs in.
pub struct Site {
    /// Settings.
    pub config: Config,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// The record.
    pub ledger: Arc<Ledger>,
    /// The models and the routes to them.
    pub roster: Roster,
    /// The device.
    pub device: Chosen,
    /// Who wants signs of life.
    pub supervisor: Arc<Supervisor>,
}

/// A running pipeline.
pub struct Pipeline {
    stages: Vec<Stage>,
    stop: Stop,
    tally: Arc<Tally>,
    profile: Arc<Profile>,
    n_decoders: usize,
    /// The watchdog watches as long as the sender is there.
    watchdog: (Sender<()>, JoinHandle<()>),
}

impl Pipeline {
    /// Tries the models and starts all stages. With `reports`, the fate of every file is sent there.
    ///
    /// # Errors
    /// A model does not fit the device, the device fails at once, or a thread cannot be started.
    pub fn start(site: Site, source: Source, reports: Option<Sender<Report>>) -> Result<Pipeline, Fatal> {
        let sizes = batch_sizes(site.config.batch.slices_max, site.device.is_cpu());
        let scorers = scorers(&site.roster, &site.device, &sizes)?;
        Pipeline::start_with(site, scorers, source, reports)
    }

    /// The same with others in the place of the models, in their order.
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub fn start_with(
        site: Site,
        scorers: Vec<Box<dyn Scorer>>,
        source: Source,
        reports: Option<Sender<Report>>,
    ) -> Result<Pipeline, Fatal> {
        let Site { config, clock, disk, ledger, roster, device, supervisor } = site;
        let (stop, tally) = (Stop::new(), Arc::new(Tally::default()));
        let profile: Arc<Profile> = Arc::default();
        let engines = scorers.into_iter().map(|scorer| Box::new(Frugal::new(scorer)) as Box<dyn Scorer>).collect();
        let mut fleet = Fleet { engines, routes: Arc::clone(&roster.routing.routes) };
        let begun = clock.now();
        fleet.warm_up(&batch_sizes(config.batch.slices_max, device.is_cpu()), clock.as_ref())?;
        tracing::info!("The models were tried ({:.1} s).", clock.now().saturating_sub(begun).as_secs_f64());
        let routing = roster.routing;
        for route in routing.routes.iter() {
            let models = route.ensemble.label();
            tracing::info!(route = route.name, models, urgent = route.urgent, "A route is open.");
        }
        let disposer = Disposer::new(Arc::clone(&disk), Arc::clone(&ledger), Arc::clone(&clock), &config.inbox);
        let returns = Arc::new(Returns::default());
        let one_shot = matches!(source, Source::Files { .. });
        // Somebody waits for one-shot work: a full disk is then a failure like any other.
        let patience = Patience::new(Arc::clone(&clock), stop.clone(), !one_shot);
        let roots: Arc<[PathBuf]> = match &source {
            Source::Inbox => [config.inbox.path.clone()].into(),
            Source::Files { roots, .. } => roots.as_slice().into(),
        };

        let upstream: Arc<Upstream> = Arc::default();
        let (to_decode, for_decode) = bounded::<Admitted>(ADMITTED_QUEUE);
        let (to_batch, for_batch) = bounded::<Work>(BATCH_QUEUE);
        let uploaders = fleet.uploaders();
        // One batch is ahead of the device: in this queue, or in the hands of who brings it there.
        let (queue, next) = if uploaders.is_empty() { (DEVICE_QUEUE, Crew::Device) } else { (0, Crew::Upload) };
        let is_crowded: Arc<AtomicBool> = Arc::default();
        let (to_device, for_device) = bounded::<Batch>(queue);
        let (to_record, for_record) = bounded::<Arrival>(RECORD_QUEUE);
        let (to_judge, for_judge) = bounded::<Verdict>(VERDICTS_QUEUE);

        let admission = Admission {
            settler: Settler::new(&config.inbox),
            clock: Arc::clone(&clock),
            disk: Arc::clone(&disk),
            ledger: Arc::clone(&ledger),
            tally: Arc::clone(&tally),
            rules: Arc::clone(&routing.rules),
            inbox: config.inbox.path.clone(),
            room: RoomWatch::new(Arc::clone(&disk), Arc::clone(&tally), &config),
            patience: patience.clone(),
            returns: Arc::clone(&returns),
            ticket: 0,
            disposer: disposer.clone(),
            recalled: Recalled::default(),
            profile: Arc::clone(&profile),
            book: Book::default(),
            verdicts: Vec::new(),
        };
        let mut stages = Vec::new();
        if !one_shot {
            stages.push(spawn_retention(&disk, &ledger, &clock, &config, &stop)?);
        }
        stages.extend(spawn_source(source, admission, &config, (to_decode, to_judge), &upstream, &stop)?);
        let decoder = Decoder {
            clock: Arc::clone(&clock),
            disk: Arc::clone(&disk),
            ledger: Arc::clone(&ledger),
            patience: patience.clone(),
            rules: config.admission.clone(),
            file_bytes_max: config.inbox.file_bytes_max,
            attempts_max: config.inbox.attempts_max,
            // Nobody offers a file of one-shot work again.
            unread: Unread::new(if one_shot { 1 } else { READ_ROUNDS }),
            routing: routing.clone(),
            roots,
            turn: Turn::default(),
            at_hand: Arc::default(),
            profile: Arc::clone(&profile),
            results: config.results.path.clone(),
        };
        let (device_at_hand, upload_at_hand): (Arc<AtHand>, Arc<AtHand>) = Default::default();
        let decoders: Vec<Arc<AtHand>> = (0..decode_threads(&config)).map(|_| Arc::default()).collect();
        for (idx, at_hand) in decoders.iter().enumerate() {
            let decoder = Decoder { at_hand: Arc::clone(at_hand), ..decoder.clone() };
            let (input, works, record) = (for_decode.clone(), to_batch.clone(), to_record.clone());
            let upstream = Arc::clone(&upstream);
            let run = move || decoder.run(&input, &works, &record, &upstream);
            stages.push(stage::spawn(&format!("decode-{idx}"), &stop, run)?);
        }
        drop((for_decode, to_batch));
        let urgent: Vec<bool> = routing.routes.iter().map(|route| route.urgent).collect();
        let (held, batch_clock) = (Scheduler::new(&config.batch, &urgent), Arc::clone(&clock));
        let gathering = Arc::clone(&profile);
        stages.push(stage::spawn("batch", &stop, move || {
            batch::run(held, batch_clock.as_ref(), &for_batch, &upstream, (&to_device, next), &gathering)
        })?);
        let for_device = if uploaders.is_empty() {
            for_device
        } else {
            let (routes, at_hand) = (Arc::clone(&routing.routes), Arc::clone(&upload_at_hand));
            let (clock, profile) = (Arc::clone(&clock), Arc::clone(&profile));
            let (is_crowded, is_behind_a_suspect) = (Arc::clone(&is_crowded), false);
            let upload = Upload { uploaders, routes, clock, at_hand, profile, is_behind_a_suspect, is_crowded };
            let (uploaded, for_scoring) = bounded::<Batch>(queue);
            stages.push(stage::spawn("upload", &stop, move || upload.run(&for_device, &uploaded))?);
            for_scoring
        };
        let inference = Inference {
            fleet,
            clock: Arc::clone(&clock),
            tally: Arc::clone(&tally),
            ledger: Arc::clone(&ledger),
            at_hand: Arc::clone(&device_at_hand),
            ahead: Arc::clone(&upload_at_hand),
            is_crowded,
            supervisor,
            profile: Arc::clone(&profile),
        };
        let n_decoders = decoders.len();
        stages.push(stage::spawn("device", &stop, move || inference.run(&for_device, &to_record))?);
        let watchdog = Watchdog {
            clock: Arc::clone(&clock),
            ledger: Arc::clone(&ledger),
            tally: Arc::clone(&tally),
            stop: stop.clone(),
            device: [device_at_hand, upload_at_hand],
            decoders,
            step_max: Duration::from_secs(config.limits.step_secs_max),
            stop_max: Duration::from_secs(config.limits.stop_secs_max),
            end: watchdog::end_at_once,
        };
        let watchdog = spawn_watchdog(watchdog)?;
        let recorder = Recorder {
            clock,
            disk: Arc::clone(&disk),
            ledger,
            tally: Arc::clone(&tally),
            disposer,
            log: DailyLog::new(disk, patience.clone(), &config.results.path),
            patience,
            returns,
            results: config.results,
            routes: routing.routes,
            device: device.name,
            finish_studies: one_shot,
            reports,
            open: HashMap::new(),
            studies: HashMap::new(),
            profile: Arc::clone(&profile),
            hold: Hold::default(),
            shelf: Default::default(),
        };
        stages.push(stage::spawn("record", &stop, move || recorder.run(&for_record, &for_judge))?);
        Ok(Pipeline { stages, stop, tally, profile, n_decoders, watchdog })
    }

    /// The wish to stop, to be voiced by a signal handler.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The running counts.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Says where the time went, whenever it is asked.
    pub fn profile(&self) -> impl Fn() -> Option<ProfileReport> + use<> {
        let (profile, n_decoders) = (Arc::clone(&self.profile), self.n_decoders);
        move || profile.report(n_decoders)
    }

    /// Waits for all stages in the order of the flow, and checks that nothing was lost on the way.
    ///
    /// # Errors
    /// The first error of a stage, where a real cause counts before a panic that it led to.
    pub fn join(self) -> Result<Count, Fatal> {
        let mut failures: Vec<Fatal> = self.stages.into_iter().filter_map(|stage| stage.join().err()).collect();
        let (watched, watchdog) = self.watchdog;
        drop(watched);
        if watchdog.join().is_err() {
            failures.push(Fatal::new(Exit::Bug, "the watchdog panicked; this is a bug"));
        }
        failures.sort_by_key(|failure| failure.exit == Exit::Bug);
        if let Some(first) = failures.into_iter().next() {
            return Err(first);
        }
        let count = self.tally.count();
        match count.in_flight() {
            Some(0) => Ok(count),
            _ => Err(Fatal::new(Exit::Bug, format!("files went missing on the way ({count}); this is a bug"))),
        }
    }
}

/// Puts every model on the device, once, for batches of these sizes.
///
/// # Errors
/// A model does not fit its backbone or the device.
pub fn scorers(roster: &Roster, device: &Chosen, sizes: &[usize]) -> Result<Vec<Box<dyn Scorer>>, Fatal> {
    let engine = |model: &Model| {
        let name = format!("{}/{}", model.card.name, model.card.version);
        let engine = Engine::new(model, device).map_err(|error| Fatal::config(format!("{name}: {error}")))?;
        Ok(Box::new(engine.for_sizes(sizes)) as Box<dyn Scorer>)
    };
    roster.models.iter().map(engine).collect()
}

/// It is no stage: it watches until the last of them has ended.
fn spawn_watchdog(watchdog: Watchdog) -> Result<(Sender<()>, JoinHandle<()>), Fatal> {
    let (watched, ended) = bounded(0);
    let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || watchdog.run(&ended));
    let thread = thread.map_err(|error| Fatal::io(format!("cannot start the thread watchdog: {error}")))?;
    Ok((watched, thread))
}

/// Inputs that were cut off on their way out come into sight before the first scan; all else takes its time.
fn spawn_retention(
    disk: &Arc<dyn Disk>,
    ledger: &Arc<Ledger>,
    clock: &Arc<dyn Clock>,
    config: &Config,
    stop: &Stop,
) -> Result<Stage, Fatal> {
    retention::show_leftovers(disk.as_ref(), &config.inbox);
    let keeper = Retention::new(Arc::clone(disk), Arc::clone(ledger), Arc::clone(clock), config);
    let inbox = &config.inbox;
    let leftovers = [&config.results.path, &inbox.done_path, &inbox.rejected_path].map(PathBuf::clone);
    let halt = stop.clone();
    stage::spawn("retention", stop, move || keeper.run(&leftovers, &halt))
}

fn decode_threads(config: &Config) -> usize {
    match config.decode.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// watch and admit for an inbox, or a thread that offers a list of files.
fn spawn_source(
    source: Source,
    admission: Admission,
    config: &Config,
    (to_decode, to_judge): (Sender<Admitted>, Sender<Verdict>),
    upstream: &Arc<Upstream>,
    stop: &Stop,
) -> Result<Vec<Stage>, Fatal> {
    let (halt, upstream) = (stop.clone(), Arc::clone(upstream));
    match source {
        Source::Inbox => {
            let (to_admit, for_admit): (Sender<Sighting>, Receiver<Sighting>) = bounded(SIGHTINGS_QUEUE);
            let (inbox, watch_halt) = (config.inbox.clone(), stop.clone());
            let watch = stage::spawn("watch", stop, move || watch::run(&inbox, &to_admit, &watch_halt))?;
            let run = move || admission.run(&for_admit, &to_decode, &to_judge, &upstream, &halt);
            let admit = stage::spawn("admit", stop, run)?;
            Ok(vec![watch, admit])
        }
        Source::Files { files, .. } => {
            let list = stage::spawn("list", stop, move || {
                offer(&files, &admission, &to_decode, &upstream, &halt);
                Ok(())
            })?;
            Ok(vec![list])
        }
    }
}

fn offer(files: &[PathBuf], admission: &Admission, to_decode: &Sender<Admitted>, upstream: &Upstream, stop: &Stop) {
    // As long as files are being offered more is on its way.
    upstream.enter();
    for (ticket, path) in (1..).zip(files) {
        if stop.is_wished() {
            break;
        }
        // What cannot be looked at is offered all the same: the decoder finds the reason.
        let fingerprint = admission.disk.fingerprint(path).ok().flatten().unwrap_or_default();
        admission.tally.admit();
        let file = Admitted { ticket, path: path.clone(), fingerprint, at: admission.clock.now(), is_ahead: false };
        upstream.enter();
        if to_decode.send(file).is_err() {
            admission.tally.give_back();
            break;
        }
    }
    upstream.leave();
}
