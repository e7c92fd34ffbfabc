//! One run: a site, its senders, a daemon that dies and starts again, and a seed that says what happens when.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ichd::config::{After, BatchSetting, Config, DiskSetting, RetentionSetting, Watch};
use ichd::disk::Disk;
use ichd::error::{Exit, Fatal};
use ichd::parcel::Fate;

use super::broken::{Broken, Mutation};
use super::chaos::{Chaos, End, Rng};
use super::check;
use super::clock::SimClock;
use super::files::SimFiles;
use super::journal::Journal;
use super::machine::{Daemon, Parts};
use super::sender::{Act, Author, Content, Deed};

/// What must not happen.
#[derive(Debug)]
pub struct Violation(pub String);

/// How often what happened.
pub type Coverage = BTreeMap<&'static str, u64>;

pub struct World {
    pub config: Config,
    pub parts: Parts,
    pub daemon: Option<Daemon>,
    pub trace: Vec<String>,
    pub coverage: Coverage,
    /// Times that the process ended while it was decoding a file.
    pub ends_while_decoding: HashMap<PathBuf, u32>,
    pub rng: Rng,
    pub author: Author,
    faults_at_start: u64,
}

/// What came of a seed.
pub struct Outcome {
    pub violation: Option<Violation>,
    pub trace: Vec<String>,
    pub coverage: Coverage,
}

/// Runs a seed; `is_told` traces every name and fate.
pub fn run(seed: u64, mutation: Option<Mutation>, is_told: bool) -> Outcome {
    let mut world = World::new(seed, mutation);
    world.parts.files.platters().story = is_told.then(Vec::new);
    let violation = world.live().err();
    Outcome { violation, trace: world.trace, coverage: world.coverage }
}

const INBOX: &str = "/site/inbox";

impl World {
    fn new(seed: u64, mutation: Option<Mutation>) -> World {
        let mut rng = Rng::new(seed);
        let is_split = rng.permille(300);
        let mut config = World::settings();
        config.inbox.after = *rng.pick(&[After::Move, After::Move, After::Delete, After::Keep]);
        config.inbox.watch = if rng.permille(250) { Watch::Poll } else { Watch::Events };
        config.batch = BatchSetting { slices_max: 1 + rng.index(4), wait_ms_max: 20 };
        config.results.study_quiet_secs = 1 + rng.below(20);
        if rng.permille(150) {
            config.retention = RetentionSetting { rejected_bytes_max: 1 << 40, done_days: 1, ..Default::default() };
        }
        World::of(seed, config, is_split, mutation)
    }

    /// Settings of a site below `/site`.
    pub fn settings() -> Config {
        let mut config = Config::default().resolved(Path::new("/"));
        config.results.study_quiet_secs = 10;
        config.disk = DiskSetting { free_bytes_min: 40_000, free_bytes_resume: 80_000 };
        config
    }

    /// A site. If `is_split`, inputs that are done with lie on another file system.
    pub fn of(seed: u64, config: Config, is_split: bool, mutation: Option<Mutation>) -> World {
        let chaos = Arc::new(Chaos::new(seed));
        let clock = Arc::new(SimClock::new(Arc::clone(&chaos)));
        let mut files = SimFiles::new(Arc::clone(&chaos), Arc::clone(&clock), 2 << 20, is_split);
        for folder in ["/site", INBOX, "/site/inbox/er"] {
            ichd::disk::make_folders_on(&files, Path::new(folder)).unwrap();
        }
        files.skip_file_sync = mutation == Some(Mutation::NoFileSync);
        files.skip_folder_sync = mutation == Some(Mutation::NoFolderSync);
        let disk: Arc<dyn Disk> = match mutation {
            Some(mutation) => Arc::new(Broken::new(files.clone(), mutation)),
            None => Arc::new(files.clone()),
        };
        let is_hasty = mutation == Some(Mutation::NoVerdict);
        let parts = Parts { chaos, clock, files, disk, journal: Arc::new(Journal::new()), is_hasty };
        let (inbox, batch) = (&config.inbox, &config.batch);
        let setting = format!("{:?}, {:?}, batches of {}", inbox.after, inbox.watch, batch.slices_max);
        World {
            config,
            parts,
            daemon: None,
            trace: vec![setting],
            coverage: Coverage::new(),
            ends_while_decoding: HashMap::new(),
            rng: Rng::new(seed ^ 0xA11),
            author: Author::default(),
            faults_at_start: 0,
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    fn tell(&mut self, line: impl Into<String>) {
        let at = self.parts.clock.millis();
        self.trace.push(format!("{at:>8} ms  {}", line.into()));
    }

    fn live(&mut self) -> Result<(), Violation> {
        let n_steps = 150 + self.rng.below(150);
        for _ in 0..n_steps {
            self.step()?;
            check::always(self)?;
        }
        self.heal()
    }

    fn step(&mut self) -> Result<(), Violation> {
        if self.daemon.is_none() && self.rng.permille(600) {
            return self.start();
        }
        match self.rng.below(100) {
            0..=9 => self.arrive(),
            10..=18 => {
                let n_events = self.rng.below(3);
                self.with_daemon("scan", move |daemon| {
                    daemon.scan();
                    Ok(())
                })?;
                for _ in 0..n_events {
                    self.event()?;
                }
            }
            19..=30 => {
                let most = 1 + self.rng.index(6);
                self.with_daemon("admit", move |daemon| daemon.admit(most))?;
            }
            31..=43 => {
                let hand = self.rng.index(2);
                self.with_daemon("decode", move |daemon| daemon.decode(hand))?;
            }
            44..=57 => {
                let hand = self.rng.index(2);
                self.with_daemon("hand on", move |daemon| Ok(daemon.hand_on(hand) | daemon.hold()))?;
            }
            58..=65 => {
                self.with_daemon("batch", |daemon| Ok(daemon.batch()))?;
            }
            66..=71 => {
                self.with_daemon("score", Daemon::score)?;
            }
            72..=82 => {
                let step = if self.rng.permille(300) { Daemon::hear } else { Daemon::record };
                self.with_daemon("record", step)?;
            }
            83..=84 => {
                self.with_daemon("sum up", |daemon| daemon.sum_up().and_then(|()| daemon.retain()))?;
            }
            85..=92 => self.time(),
            93..=95 => self.weather(),
            96..=97 => {
                let (steps, end) = (self.rng.below(60) as u32, self.end());
                self.tell(format!("{end:?} after {steps} more steps of the daemon"));
                self.parts.chaos.crash_in(steps, end);
            }
            98 if self.daemon.is_some() => {
                let end = self.end();
                self.parts.chaos.kill(end);
                self.crash(end);
            }
            _ => self.terminate()?,
        }
        Ok(())
    }

    fn end(&mut self) -> End {
        if self.rng.permille(500) { End::Kill } else { End::PowerCut }
    }

    pub fn start(&mut self) -> Result<(), Violation> {
        let (parts, config) = (self.parts.clone(), self.config.clone());
        self.faults_at_start = parts.chaos.faults();
        parts.files.new_process();
        let started = catch_unwind(AssertUnwindSafe(|| Daemon::start(parts, &config)));
        self.tell("the daemon starts");
        if let Some(daemon) = self.judge("start", started)? {
            self.daemon = Some(daemon);
            self.count("starts");
            check::after_start(self)?;
        }
        Ok(())
    }

    /// Lets the daemon do something, unless it is down. `None` if it died of it.
    pub fn with_daemon<T: std::fmt::Debug>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&mut Daemon) -> Result<T, Fatal>,
    ) -> Result<Option<T>, Violation> {
        let Some(daemon) = &mut self.daemon else { return Ok(None) };
        let ended = catch_unwind(AssertUnwindSafe(|| work(daemon)));
        let reports: Vec<_> = daemon.reports.try_iter().collect();
        for verdict in std::mem::take(&mut daemon.heard) {
            *self.coverage.entry(verdict).or_default() += 1;
        }
        self.tell(what);
        let story = self.parts.files.platters().story.as_mut().map(std::mem::take);
        for line in story.iter().flatten() {
            self.tell(format!("    {line}"));
        }
        for report in reports.iter().filter(|_| story.is_some()) {
            let fate = match &report.fate {
                Fate::Done(_) => "done".into(),
                Fate::Duplicate(_) => "a duplicate".into(),
                Fate::Rejected(rejection) => rejection.to_string(),
                Fate::Returned => "returned".into(),
            };
            self.tell(format!("    {}: {fate}", report.path.display()));
        }
        self.judge(what, ended)
    }

    fn judge<T>(
        &mut self,
        what: &str,
        ended: Result<Result<T, Fatal>, Box<dyn std::any::Any + Send>>,
    ) -> Result<Option<T>, Violation> {
        if let Some(end) = self.parts.chaos.dead() {
            self.crash(end);
            return Ok(None);
        }
        match ended {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(fatal)) => {
                self.tell(format!("the daemon ends with {:?}: {fatal}", fatal.exit));
                self.count(match fatal.exit {
                    Exit::Device => "exits for the device",
                    Exit::Bug => "bugs",
                    _ => "exits for the disk",
                });
                if fatal.exit == Exit::Bug || self.parts.chaos.faults() == self.faults_at_start {
                    return Err(Violation(format!("{what}: it ended without a fault: {fatal}")));
                }
                self.end_while_decoding();
                self.daemon = None;
                self.parts.chaos.revive();
                Ok(None)
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(Violation(format!("{what}: it panicked: {}", text.unwrap_or_default())))
            }
        }
    }

    fn end_while_decoding(&mut self) {
        let decoding = self.daemon.as_ref().and_then(|daemon| daemon.decoding());
        if let Some(path) = decoding {
            *self.ends_while_decoding.entry(path).or_default() += 1;
        }
    }

    fn crash(&mut self, end: End) {
        self.tell(format!("{end:?}"));
        self.count(if end == End::Kill { "kills" } else { "power cuts" });
        self.end_while_decoding();
        self.parts.journal.crash(end, &mut self.rng);
        self.daemon = None;
        self.parts.journal.tidy();
        if end == End::PowerCut {
            self.parts.files.power_cut(&mut self.rng);
            let n_torn = std::mem::take(&mut self.parts.files.platters().n_torn);
            if n_torn > 0 {
                self.count_of("torn renames", n_torn);
            }
        }
        self.parts.chaos.revive();
    }

    /// SIGTERM, in good weather or bad.
    pub fn terminate(&mut self) -> Result<(), Violation> {
        if self.with_daemon("SIGTERM", Daemon::end)?.is_some() {
            self.count("ends");
            check::always(self)?;
            self.daemon = None;
        }
        Ok(())
    }

    fn path(&mut self) -> PathBuf {
        let folder = if self.rng.permille(200) { "/site/inbox/er" } else { INBOX };
        Path::new(folder).join(format!("{}.dcm", self.rng.below(14)))
    }

    pub fn schedule(&self, wait_ms: u64, path: &Path, act: Act) {
        let at = self.parts.clock.millis() + wait_ms;
        self.parts.files.platters().deeds.push_back(Deed { at, at_step: 0, path: path.to_owned(), act });
    }

    fn arrive(&mut self) {
        let path = self.path();
        // Of one path there is one deed at a time: a sender does not race with itself.
        if self.parts.files.platters().deeds.iter().any(|deed| deed.path == path) {
            return;
        }
        let is_soon = self.rng.permille(500);
        let wait = if is_soon { 0 } else { self.rng.below(3000) };
        let is_there = self.parts.files.print(&path).is_some();
        match self.rng.below(20) {
            0 if is_there => {
                self.tell(format!("{} will be withdrawn", path.display()));
                self.schedule(wait, &path, Act::Withdraw);
            }
            1 | 2 if is_there => {
                self.tell(format!("{} will be gone for a while", path.display()));
                self.schedule(wait, &path, Act::Hide);
                let back = wait + self.rng.below(5000);
                self.schedule(back, &path, Act::Unhide);
            }
            kind => {
                let (content, what) = self.author.write(&mut self.rng);
                self.count(what);
                self.tell(format!("{} will be {what} ({} bytes)", path.display(), content.bytes.len()));
                match kind {
                    3..=6 => self.grow(wait, &path, content),
                    7 | 8 => self.schedule(wait, &path, Act::Rewrite(content)),
                    _ => self.schedule(wait, &path, Act::Place(content)),
                }
            }
        }
        self.parts.files.act();
    }

    /// In pieces, with pauses shorter than the settle time.
    fn grow(&mut self, mut wait: u64, path: &Path, content: Content) {
        let n_pieces = 2 + self.rng.index(12);
        let mut left = content.bytes.to_vec();
        for piece in 0..n_pieces {
            let is_last = piece + 1 == n_pieces;
            let rest =
                if is_last { Vec::new() } else { left.split_off(left.len().min(self.rng.index(left.len() + 1))) };
            let act = Act::Grow {
                piece: std::mem::replace(&mut left, rest),
                is_first: piece == 0,
                complete: is_last.then(|| content.clone()),
            };
            self.schedule(wait, path, act);
            wait += 1 + self.rng.below(400);
        }
    }

    /// Events repeat and lie.
    fn event(&mut self) -> Result<(), Violation> {
        let (path, is_closed) = (self.path(), self.rng.permille(500));
        self.with_daemon("event", move |daemon| {
            daemon.event(&path, is_closed);
            Ok(())
        })?;
        Ok(())
    }

    fn time(&mut self) {
        let millis = match self.rng.below(10) {
            0..=3 => self.rng.below(50),
            4..=8 => 500 + self.rng.below(3000),
            _ => 60_000 + self.rng.below(5_000_000),
        };
        self.parts.clock.advance(millis);
        if self.rng.permille(100) {
            let secs = self.rng.below(400_000) as i64 - 200_000;
            self.tell(format!("the clock is set by {secs} s"));
            self.count("clock jumps");
            self.parts.clock.jump(secs);
        }
        self.parts.files.act();
    }

    fn weather(&mut self) {
        let chaos = Arc::clone(&self.parts.chaos);
        let (kind, strength) = (self.rng.below(10), self.rng.below(80));
        let until = self.parts.clock.millis() + self.rng.below(200_000);
        match kind {
            0 => chaos.set_weather(|weather| weather.eio = strength),
            1 => chaos.set_weather(|weather| weather.lost_replies = strength * 3),
            2 => chaos.set_weather(|weather| weather.short_writes = strength * 10),
            3 => chaos.set_weather(|weather| weather.slow_ms = strength * 10),
            4 => chaos.set_weather(|weather| weather.ledger_eio = strength),
            5 => chaos.set_weather(|weather| weather.ledger_full_until = until),
            6 => chaos.set_weather(|weather| {
                (weather.device, weather.device_slices) = (strength * 4, strength % 4);
            }),
            8 => chaos.set_weather(|weather| weather.inbox_down_until = until),
            7 => {
                // Somebody else fills the disk, and clears it later.
                let free = self.rng.below(100_000);
                self.parts.files.set_hog(Some(free));
                let back = self.rng.below(100_000);
                self.parts.files.platters().hog_until = self.parts.clock.millis() + back;
                self.count("full disks");
            }
            _ => self.calm(),
        }
        let weather = chaos.weather();
        self.tell(format!("weather {kind}: {weather:?}"));
    }

    pub fn calm(&self) {
        self.parts.chaos.set_weather(|weather| *weather = Default::default());
        self.parts.files.set_hog(None);
    }

    /// No more trouble: everything comes to rest, and everything is accounted for.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.tell("the sky clears");
        self.calm();
        self.parts.chaos.disarm();
        self.rest()?;
        check::nothing_waits(self)?;
        // What was cut off on its way out comes into sight at a start.
        self.terminate()?;
        self.rest()?;
        check::at_rest(self)?;
        self.terminate()?;
        if self.daemon.is_some() {
            return Err(Violation("SIGTERM did not end it".into()));
        }
        Ok(())
    }

    /// Until nothing is on its way.
    pub fn rest(&mut self) -> Result<(), Violation> {
        let mut n_quiet = 0;
        for _ in 0..400 {
            if self.daemon.is_none() {
                self.start()?;
                continue;
            }
            self.parts.clock.advance(7_000);
            self.parts.files.act();
            let moved = self.with_daemon("everything", |daemon| {
                let mut moved = false;
                daemon.scan();
                moved |= daemon.admit(usize::MAX)?;
                while daemon.flow()? {
                    moved = true;
                }
                daemon.sum_up()?;
                Ok(moved | daemon.is_waiting())
            })?;
            check::always(self)?;
            let is_quiet = moved == Some(false) && self.parts.files.platters().deeds.is_empty();
            n_quiet = if is_quiet { n_quiet + 1 } else { 0 };
            // Longer than a study is waited for.
            if n_quiet == 5 {
                return Ok(());
            }
        }
        Err(Violation("it does not come to rest".into()))
    }
}

impl World {
    pub fn count_of(&mut self, what: &'static str, n: u64) {
        *self.coverage.entry(what).or_default() += n;
    }
}
