//! `ichd train`: from a labelled folder to a served model.

mod job;
mod matrix;
mod start;

use std::path::{Path, PathBuf};

use ichd_plugin::spec::Precision;
use indicatif::ProgressBar;
use serde_json::json;

use self::job::{Ended, Job, backbone};
use self::matrix::Matrix;
use self::start::{Start, StartWish};
use super::{Common, progress, run, say, site};
use crate::config::Config;
use crate::device::Chosen;
use crate::disk::RealDisk;
use crate::error::{Exit, Fatal};
use crate::measure::epoch::Epoch;
use crate::model::Manifest;
use crate::names;
use crate::stage::Stop;
use crate::telemetry;
use crate::trainer::cache::CacheError;
use crate::trainer::dataset::{DataError, DataFolder, Dataset, Watcher};
use crate::trainer::published;
use crate::trainer::recipe::{Recipe, TrainSetting};
use crate::trainer::settings::SplitMode;
use crate::trainer::training::{Onlooker, TrainError};

/// Arguments of `ichd train`. What is not given stands in the section `train` of the settings.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// DICOM files, in any folders below.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Labels: RSNA's long table (`ID,Label`) or a wide one (`id,any,epidural,...`).
    #[arg(long, value_name = "CSV")]
    labels: PathBuf,
    /// Which network; `ichd models list --backbones` shows all.
    #[arg(long, value_name = "NAME", required_unless_present = "matrix")]
    backbone: Option<String>,
    /// A list of backbones and recipes, all of which are trained one after the other and compared. What is done is not
    /// done again: after a stop the same command goes on.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backbone", "from", "name", "version_name", "recipe"])]
    matrix: Option<PathBuf>,
    /// A model whose weights training begins with, such as an imported one; else random weights of the seed.
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// Name of the model that comes out; that of the backbone if not given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its version; the next number if not given.
    #[arg(long, value_name = "VERSION")]
    version_name: Option<String>,
    /// Folder of this run: split, checkpoint, metrics, curves. Below `train.runs_path` if not given.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Goes on from the run's last checkpoint. A list of runs goes on in any case.
    #[arg(long)]
    resume: bool,
    /// With --resume: trains no further, and makes a model of the best weights so far. Of a list: of each run that was begun
    /// and not ended.
    #[arg(long, requires = "resume")]
    finish: bool,
    /// Side of the network's input in pixels; the backbone's own if not given.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    #[command(flatten)]
    keys: Box<Keys>,
}

/// Keys of the settings that the command line can override.
#[derive(Debug, clap::Args)]
struct Keys {
    /// keys: as the settings say. report: as the seed report trained; the split stays by patient.
    #[arg(long)]
    recipe: Option<Recipe>,
    /// Passes over the training part.
    #[arg(long)]
    epochs: Option<u32>,
    /// Slices in a batch.
    #[arg(long)]
    batch: Option<usize>,
    /// Highest learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Everything random follows from it.
    #[arg(long)]
    seed: Option<u64>,
    /// Share of the slices that is used, 0 to 1.
    #[arg(long, value_name = "0..1")]
    subset: Option<f64>,
    /// patient: no patient on both sides. slice: as the report did; it leaks.
    #[arg(long, value_parser = split_mode, value_name = "patient|slice")]
    split: Option<SplitMode>,
    /// Share of the used slices that validates, instead of folds.
    #[arg(long, value_name = "0..1", conflicts_with_all = ["folds", "fold"])]
    validation: Option<f64>,
    /// Number of folds, of which one validates.
    #[arg(long)]
    folds: Option<usize>,
    /// Which of them, counted from 0.
    #[arg(long)]
    fold: Option<usize>,
    /// Times that a slice with an epidural hemorrhage stands in an epoch.
    #[arg(long, value_name = "TIMES")]
    epidural_times: Option<usize>,
    /// Negatives drawn for each positive; 0 for all of them.
    #[arg(long, value_name = "RATIO")]
    negatives: Option<f64>,
    /// Training ends when so many epochs brought nothing better; 0: never.
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<u32>,
    /// Type of number of the convolutions' products: f32, or bf16 on a GPU.
    #[arg(long, value_parser = precision, value_name = "f32|bf16")]
    precision: Option<Precision>,
    /// GPUs that share each batch: the chosen one and those that follow it.
    #[arg(long, value_name = "COUNT")]
    devices: Option<usize>,
}

fn precision(text: &str) -> Result<Precision, String> {
    let found = Precision::ALL.into_iter().find(|precision| precision.name() == text);
    found.ok_or_else(|| "f32 or bf16 would be right".into())
}

fn split_mode(text: &str) -> Result<SplitMode, String> {
    SplitMode::from_word(text).ok_or_else(|| "patient or slice would be right".into())
}

pub fn train(common: &Common, args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    telemetry::start(&config.log, common.verbose);
    let wanted = match &args.matrix {
        Some(file) => Wanted::Matrix(Matrix::new(&config, args, file)?),
        None => Wanted::One(Box::new(job(&config, args)?)),
    };
    let stop = Stop::new();
    run::stop_on_signals(&stop, || {})?;
    let device = site::device(&config)?;
    match &wanted {
        Wanted::Matrix(matrix) => matrix.jobs().try_for_each(|job| may_compute(job, &device))?,
        Wanted::One(job) => may_compute(job, &device)?,
    }
    let data = DataFolder {
        data: args.data.clone(),
        labels: args.labels.clone(),
        rules: config.admission.clone(),
        file_bytes_max: config.inbox.file_bytes_max,
    };
    let mut screen = Screen::new(common.json, stop);
    let dataset = match open(&data, &config.train, &mut screen) {
        Err(_) if screen.stop.is_wished() => {
            screen.tell_line("Stopped while the data were read; the same command goes on from there.".into());
            return Ok(());
        }
        opened => opened?,
    };
    match wanted {
        Wanted::Matrix(matrix) => matrix.run(&config, &device, &dataset, &mut screen),
        Wanted::One(job) => {
            let ended = job.run(&config, &device, &dataset, args.resume, &mut screen)?;
            conclude(&job, &ended, &screen);
            Ok(())
        }
    }
}

/// One run, or a list of them.
enum Wanted {
    One(Box<Job>),
    Matrix(Matrix),
}

/// The one run that the command line asks for.
fn job(config: &Config, args: &Args) -> Result<Job, Fatal> {
    let name = args.backbone.as_deref().unwrap_or_default();
    let spec = backbone(name).map_err(|sentence| Fatal::new(Exit::Usage, format!("--backbone: {sentence}")))?;
    let mut setting = config.train.clone();
    setting.recipe = args.keys.recipe.unwrap_or(setting.recipe);
    let setting = overridden(setting, args)?;
    let name = args.name.clone().unwrap_or_else(|| spec.name.to_owned());
    let folder = args.run.clone().unwrap_or_else(|| setting.runs_path.join(&name));
    let wish = StartWish { from: args.from.as_deref(), side: args.side, windows: None, seed: setting.seed };
    let start = Start::new(config, &config.model.path, spec, &wish)?;
    let job = Job { spec, start, setting, name, version: args.version_name.clone(), folder, finish: args.finish };
    if !args.resume && job.is_begun() {
        let sentence = "holds a run that was begun; go on with --resume, or give another folder with --run";
        return Err(Fatal::new(Exit::Usage, format!("{} {sentence}", job.folder.display())));
    }
    if args.finish && !job.has_best()? {
        return Err(train_fatal(&TrainError::NoBest { folder: job.folder }));
    }
    may_publish(&config.model.path, &job)?;
    Ok(job)
}

/// Whether the model that comes out may be called as wished: found before the work, not after it.
fn may_publish(models: &Path, job: &Job) -> Result<(), Fatal> {
    let before = published::models_of(&RealDisk, &job.folder, models, &job.name);
    let before = before.map_err(|error| train_fatal(&error))?;
    let is_ours = before.iter().any(|one| job.version.as_ref() == Some(&one.version));
    // A finished run says so, once its weights are found to be those of its model.
    let version = if is_ours && job.is_over()? { None } else { job.version.as_deref() };
    Manifest::check_place(models, &job.name, version).map_err(|error| Fatal::new(Exit::Usage, error.to_string()))
}

/// Whether a job can be done on this device as its settings say.
fn may_compute(job: &Job, device: &Chosen) -> Result<(), Fatal> {
    if job.setting.precision == Precision::F32 || !device.is_cpu() {
        return Ok(());
    }
    let name = job.setting.precision.name();
    let sentence = "would only be imitated by the CPU, which gains nothing and takes longer; f32 would be right there";
    Err(Fatal::config(format!("train.precision: {name} {sentence} (--precision f32)")))
}

fn conclude(job: &Job, ended: &Ended, screen: &Screen) {
    let folder = job.folder.display();
    let Ended::Done { best_epoch, outcome } = ended else {
        screen.tell_line(format!("Stopped. Go on with the same command and --resume; the run is {folder}"));
        return;
    };
    let (name, version) = (&job.name, &outcome.version);
    if screen.json {
        say(json!({
            "model": outcome.model, "name": name, "version": version, "best_epoch": best_epoch, "run": job.folder,
            "metrics": outcome.metrics, "new": outcome.is_new,
        }));
        return;
    }
    let auroc = shown(outcome.metrics.means.auroc.value);
    say(format!("Epoch {best_epoch} was kept; mean AUROC {auroc} on the validation part."));
    if !outcome.is_new {
        say(format!("The run published its weights before, as {name}/{version}; nothing is published again."));
    }
    say(format!("The model {name}/{version} lies in {}; serve it with `model.name: {name}`.", outcome.model.display()));
    say(format!("Curves, tables, the worst errors and the split: {folder}"));
}

/// The settings that are meant, with the command line's on top.
fn overridden(setting: TrainSetting, args: &Args) -> Result<TrainSetting, Fatal> {
    let mut setting = setting.effective();
    let keys = &args.keys;
    setting.epochs = keys.epochs.unwrap_or(setting.epochs);
    setting.batch = keys.batch.unwrap_or(setting.batch);
    setting.learning_rate = keys.learning_rate.unwrap_or(setting.learning_rate);
    setting.seed = keys.seed.unwrap_or(setting.seed);
    setting.split.subset = keys.subset.unwrap_or(setting.split.subset);
    setting.split.mode = keys.split.unwrap_or(setting.split.mode);
    if let Some(validation) = keys.validation {
        (setting.split.validation, setting.split.folds, setting.split.fold) = (validation, 0, 0);
    }
    setting.split.folds = keys.folds.unwrap_or(setting.split.folds);
    setting.split.fold = keys.fold.unwrap_or(setting.split.fold);
    setting.balance.epidural_times = keys.epidural_times.unwrap_or(setting.balance.epidural_times);
    setting.balance.negatives_per_positive = keys.negatives.unwrap_or(setting.balance.negatives_per_positive);
    setting.patience = keys.patience.unwrap_or(setting.patience);
    setting.precision = keys.precision.unwrap_or(setting.precision);
    setting.devices = keys.devices.unwrap_or(setting.devices);
    setting.warmup_epochs = setting.warmup_epochs.min(f64::from(setting.epochs));
    let mut problems = Vec::new();
    setting.check(&mut |key, sentence| problems.push(format!("{key}: {sentence}")));
    if let Some(name) = &args.name
        && names::component(name) != *name
    {
        problems.push(format!("--name: `{name}` cannot be the name of a folder"));
    }
    if problems.is_empty() { Ok(setting) } else { Err(Fatal::new(Exit::Usage, problems.join("\n"))) }
}

/// Opens a data set with progress on the screen.
pub fn open(data: &DataFolder, setting: &TrainSetting, screen: &mut Screen) -> Result<Dataset, Fatal> {
    let (bar, stop) = (screen.bar.clone(), screen.stop.clone());
    let progress = |what: &str, done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(what.to_owned());
    };
    let is_stopped = || stop.is_wished();
    let watcher = Watcher { progress: &progress, is_stopped: &is_stopped };
    Dataset::open(data, setting, &watcher, &mut |line| screen.tell_line(line)).map_err(data_fatal)
}

/// What the user sees.
pub struct Screen {
    bar: ProgressBar,
    stop: Stop,
    json: bool,
    /// Epochs of the run, and slices in a batch: from these follows how long it takes.
    plan: (u32, usize),
}

impl Screen {
    /// A bar on a terminal, lines elsewhere; lines go to standard error.
    pub fn new(json: bool, stop: Stop) -> Screen {
        Screen { bar: progress::bar(0, "done {msg}"), stop, json, plan: (0, 0) }
    }

    /// What run is to be seen.
    pub fn expect(&mut self, setting: &TrainSetting) {
        self.plan = (setting.epochs, setting.batch);
    }

    /// A line beside the bar.
    pub fn tell_line(&self, line: String) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Onlooker for Screen {
    fn batch(&mut self, epoch: u32, done: u64, all: u64, loss: f64, rate: f64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        let (epochs, batch) = self.plan;
        let batches = u64::from(epochs.saturating_sub(epoch)) * all + all.saturating_sub(done);
        let left = duration((batches * batch as u64) as f64 / rate.max(1e-9));
        self.bar
            .set_message(format!("epoch {epoch} of {epochs}, loss {loss:.4}, {rate:.1} slices/s, {left} left in all"));
    }

    fn epoch(&mut self, epoch: &Epoch, waited: f64, is_best: bool) {
        self.tell_line(format!(
            "epoch {:>3}  loss {:.4}  validation: weighted log loss {}  AUROC {}  accuracy {}  {:.0} s  {:.1} slices/s, waited for data {:.1} %{}{}",
            epoch.epoch,
            epoch.train_loss,
            shown(epoch.weighted_log_loss),
            shown(epoch.mean_auroc),
            shown(epoch.accuracy),
            epoch.seconds,
            epoch.slices_per_second,
            waited * 100.0,
            if is_best { "  best" } else { "" },
            match self.plan.0.saturating_sub(epoch.epoch) {
                0 => String::new(),
                left => format!("  {} left", duration(f64::from(left) * epoch.seconds)),
            }
        ));
    }

    fn tell(&mut self, line: String) {
        self.tell_line(line);
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_wished()
    }
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

/// A number that may be undefined.
pub fn shown(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.4}"))
}

pub fn data_fatal(error: DataError) -> Fatal {
    match error {
        DataError::Cache(CacheError::Io { .. }) | DataError::Folder { .. } => Fatal::io(error),
        DataError::Cache(CacheError::Stopped) => Fatal::new(Exit::Usage, error.to_string()),
        other => Fatal::config(other),
    }
}

pub fn train_fatal(error: &TrainError) -> Fatal {
    let exit = match error {
        TrainError::Device(_) => Exit::Device,
        TrainError::Io { .. } | TrainError::Checkpoint(_) => Exit::Io,
        TrainError::Plan(_)
        | TrainError::Weights(_)
        | TrainError::OtherRun { .. }
        | TrainError::NoBest { .. }
        | TrainError::Diverged { .. } => Exit::Config,
        TrainError::Feed(_) => Exit::Io,
        TrainError::Stopped => Exit::Usage,
        TrainError::Measure(_) => Exit::Bug,
    };
    Fatal::new(exit, error.to_string())
}
