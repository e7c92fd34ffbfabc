//! `ichd train`: from a labelled folder to a served model.

use std::path::PathBuf;

use indicatif::ProgressBar;
use serde_json::json;

use super::{Common, progress, run, say, site};
use crate::clock::{Clock, SystemClock, rfc3339};
use crate::config::Config;
use crate::disk::{Disk, RealDisk, make_folders};
use crate::error::{Exit, Fatal};
use crate::identity::sha256;
use crate::measure::epoch::Epoch;
use crate::model::{self, Preprocessing};
use crate::names;
use crate::registry;
use crate::stage::Stop;
use crate::telemetry;
use crate::trainer::cache::CacheError;
use crate::trainer::dataset::{DataError, DataFolder, Dataset, Watcher};
use crate::trainer::outcome::{Naming, OutcomeError, finish};
use crate::trainer::recipe::{Recipe, TrainSetting};
use crate::trainer::settings::SplitMode;
use crate::trainer::training::{End, Onlooker, TrainError, Training};
use ichd_plugin::spec::{BackboneSpec, Variant};
use ichd_plugin::weights::Weights;

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
    #[arg(long, value_name = "NAME")]
    backbone: String,
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
    /// Goes on from the run's last checkpoint.
    #[arg(long)]
    resume: bool,
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
    /// Side of the network's input in pixels; the backbone's own if not given.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    /// Everything random follows from it.
    #[arg(long)]
    seed: Option<u64>,
    /// Share of the slices that is used, 0 to 1.
    #[arg(long, value_name = "0..1")]
    subset: Option<f64>,
    /// patient: no patient on both sides. slice: as the report did; it leaks.
    #[arg(long, value_parser = split_mode, value_name = "patient|slice")]
    split: Option<SplitMode>,
}

fn split_mode(text: &str) -> Result<SplitMode, String> {
    SplitMode::from_word(text).ok_or_else(|| "patient or slice would be right".into())
}

pub fn train(common: &Common, args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    telemetry::start(&config.log, common.verbose);
    let spec = backbone(&args.backbone)?;
    let setting = setting(&config, args)?;
    let name = args.name.clone().unwrap_or_else(|| spec.name.to_owned());
    let folder = args.run.clone().unwrap_or_else(|| setting.runs_path.join(&name));
    let stop = Stop::new();
    run::stop_on_signals(&stop)?;
    let device = site::device(&config)?;
    make_folders(&folder).map_err(|error| Fatal::io(format!("{}: {error}", folder.display())))?;
    if !args.resume && folder.join("checkpoint").exists() {
        let sentence = "holds a run that was begun; go on with --resume, or give another folder with --run";
        return Err(Fatal::new(Exit::Usage, format!("{} {sentence}", folder.display())));
    }
    let start = Start::new(&config, args, spec, setting.seed)?;
    let data = DataFolder {
        data: args.data.clone(),
        labels: args.labels.clone(),
        rules: config.admission.clone(),
        file_bytes_max: config.inbox.file_bytes_max,
    };
    let mut screen = Screen::new(common.json, stop);
    let dataset = match open(&data, &setting, &mut screen) {
        Err(_) if screen.stop.is_wished() => {
            screen.tell_line("Stopped while the data were read; the same command goes on from there.".into());
            return Ok(());
        }
        opened => opened?,
    };
    let parts =
        dataset.split(&setting, &folder.join("split.csv"), &mut |line| screen.tell_line(line)).map_err(data_fatal)?;
    let digest = digest(&setting, spec, &start, &dataset, &parts);
    let training = Training {
        spec,
        variant: start.variant,
        preprocessing: &start.preprocessing,
        device: &device,
        setting: &setting,
        dataset: &dataset,
        parts: &parts,
        start: &start.weights,
        folder: &folder,
        digest,
        disk: &RealDisk as &dyn Disk,
    };
    let (n, side) = (parts.each_ref().map(Vec::len), start.preprocessing.side);
    screen.tell_line(format!(
        "{} from {}: {} slices train, {} validate, side {side}, on {}",
        spec.name, start.words, n[0], n[1], device.name
    ));
    let best_epoch = match training.run(args.resume, &mut screen).map_err(|error| train_fatal(&error))? {
        End::Done { best_epoch } => best_epoch,
        End::Stopped => {
            screen.tell_line(format!(
                "Stopped. Go on with the same command and --resume; the run is {}",
                folder.display()
            ));
            return Ok(());
        }
    };
    conclude(&config, args, &training, &name, &start.words, best_epoch, &mut screen)
}

fn conclude(
    config: &Config,
    args: &Args,
    training: &Training<'_>,
    name: &str,
    start: &str,
    best_epoch: u32,
    screen: &mut Screen,
) -> Result<(), Fatal> {
    let version = args.version_name.clone().unwrap_or_else(|| model::free_version(&config.model.path, name));
    let command: Vec<String> = std::env::args().collect();
    let naming = Naming {
        models: &config.model.path,
        name,
        version: &version,
        start,
        command: &command.join(" "),
        created: &rfc3339(SystemClock::new().wall()),
    };
    let outcome = finish(training, &naming).map_err(|error| match error {
        OutcomeError::Train(error) => train_fatal(&error),
        other => Fatal::config(other),
    })?;
    let auroc = outcome.metrics.means.auroc.value;
    if screen.json {
        say(json!({
            "model": outcome.model, "name": name, "version": version, "best_epoch": best_epoch,
            "run": training.folder, "metrics": outcome.metrics,
        }));
        return Ok(());
    }
    say(format!("Epoch {best_epoch} was kept; mean AUROC {} on the validation part.", shown(auroc)));
    say(format!("The model {name}/{version} lies in {}; serve it with `model.name: {name}`.", outcome.model.display()));
    say(format!("Curves, tables and the split: {}", training.folder.display()));
    Ok(())
}

/// The backbone of that name.
pub fn backbone(name: &str) -> Result<&'static BackboneSpec, Fatal> {
    registry::find(name).ok_or_else(|| {
        let known: Vec<&str> = registry::BACKBONES.iter().map(|spec| spec.name).collect();
        Fatal::new(Exit::Usage, format!("--backbone: `{name}` is not known; known are {}", known.join(", ")))
    })
}

/// The settings with the command line's on top.
fn setting(config: &Config, args: &Args) -> Result<TrainSetting, Fatal> {
    let mut setting = config.train.clone();
    setting.recipe = args.recipe.unwrap_or(setting.recipe);
    let mut setting = setting.effective();
    setting.epochs = args.epochs.unwrap_or(setting.epochs);
    setting.batch = args.batch.unwrap_or(setting.batch);
    setting.learning_rate = args.learning_rate.unwrap_or(setting.learning_rate);
    setting.seed = args.seed.unwrap_or(setting.seed);
    setting.split.subset = args.subset.unwrap_or(setting.split.subset);
    setting.split.mode = args.split.unwrap_or(setting.split.mode);
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

/// Where training begins.
struct Start {
    weights: Weights,
    variant: Variant,
    preprocessing: Preprocessing,
    words: String,
}

impl Start {
    fn new(config: &Config, args: &Args, spec: &'static BackboneSpec, seed: u64) -> Result<Start, Fatal> {
        let mut start = match &args.from {
            Some(name) => {
                let model = model::load_named(&config.model.path, name).map_err(Fatal::config)?;
                if model.spec.name != spec.name {
                    let sentence = format!("--from: {name} is a {}, not a {}", model.spec.name, spec.name);
                    return Err(Fatal::new(Exit::Usage, sentence));
                }
                let words = format!("{}/{}", model.card.name, model.card.version);
                let variant = model.card.variant();
                Start { weights: model.weights, variant, preprocessing: model.card.preprocessing, words }
            }
            None => {
                let variant = Variant { windows: config.windows.len(), ..Variant::default() };
                if variant.windows != 3 {
                    let sentence = "random weights take 3 windows; import weights for another number of them";
                    return Err(Fatal::config(sentence));
                }
                let preprocessing = Preprocessing {
                    windows: config.kernel_windows(),
                    ramp: config.ramp.into(),
                    side: spec.input_side,
                    mean: spec.mean.to_vec(),
                    std: spec.std.to_vec(),
                };
                let words = format!("random weights of seed {seed}");
                Start { weights: spec.untrained(seed), variant, preprocessing, words }
            }
        };
        start.preprocessing.side = args.side.unwrap_or(start.preprocessing.side);
        if !(spec.side_min..=2048).contains(&start.preprocessing.side) {
            let sentence = format!("--side: {} to 2048 would be right for {}", spec.side_min, spec.name);
            return Err(Fatal::new(Exit::Usage, sentence));
        }
        Ok(start)
    }
}

/// Names settings, data, split and start: what a checkpoint belongs to. How often checkpoints are made, and where, does not
/// count.
fn digest(
    setting: &TrainSetting,
    spec: &BackboneSpec,
    start: &Start,
    dataset: &Dataset,
    parts: &[Vec<usize>; 2],
) -> String {
    let setting =
        TrainSetting { runs_path: PathBuf::new(), cache_path: PathBuf::new(), checkpoint_secs: 0, ..setting.clone() };
    let instances = parts.each_ref().map(|part| dataset.facts(part).sha256);
    let weights = start.weights.to_safetensors().map(|bytes| sha256(&bytes)).unwrap_or_default();
    let all = json!([setting, spec.name, start.preprocessing.to_json(), weights, dataset.labels_sha256, instances]);
    sha256(all.to_string().as_bytes())
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
}

impl Screen {
    /// A bar on a terminal, lines elsewhere; lines go to standard error.
    pub fn new(json: bool, stop: Stop) -> Screen {
        Screen { bar: progress::bar(0, "done {msg}"), stop, json }
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
        self.bar.set_message(format!("epoch {epoch}, loss {loss:.4}, {rate:.1} slices/s"));
    }

    fn epoch(&mut self, epoch: &Epoch, waited: f64, is_best: bool) {
        self.tell_line(format!(
            "epoch {:>3}  loss {:.4}  validation: weighted log loss {}  AUROC {}  accuracy {}  {:.0} s  {:.1} slices/s, waited for data {:.1} %{}",
            epoch.epoch,
            epoch.train_loss,
            shown(epoch.weighted_log_loss),
            shown(epoch.mean_auroc),
            shown(epoch.accuracy),
            epoch.seconds,
            epoch.slices_per_second,
            waited * 100.0,
            if is_best { "  best" } else { "" }
        ));
    }

    fn tell(&mut self, line: String) {
        self.tell_line(line);
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_wished()
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
        TrainError::Plan(_) | TrainError::Weights(_) | TrainError::OtherRun { .. } | TrainError::Loss { .. } => {
            Exit::Config
        }
        TrainError::Feed(_) => Exit::Io,
        TrainError::Measure(_) => Exit::Bug,
    };
    Fatal::new(exit, error.to_string())
}
