//! One run of training: what it is, and how it goes from data to a model.

use std::path::PathBuf;

use ichd_plugin::spec::{BackboneSpec, Precision};
use serde_json::{Value, json};

use super::start::Start;
use super::{Screen, data_fatal, train_fatal};
use crate::clock::{Clock, SystemClock, rfc3339};
use crate::config::Config;
use crate::device::Chosen;
use crate::disk::{Disk, RealDisk, make_folders};
use crate::error::Fatal;
use crate::identity::sha256;
use crate::registry;
use crate::trainer::checkpoint::{self, Progress};
use crate::trainer::dataset::{Dataset, Parts};
use crate::trainer::outcome::{Naming, Outcome, OutcomeError, finish};
use crate::trainer::recipe::{Recipe, TrainSetting};
use crate::trainer::training::{End, TrainError, Training};

/// One run.
pub struct Job {
    /// Architecture.
    pub spec: &'static BackboneSpec,
    /// Where it begins.
    pub start: Start,
    /// How it goes.
    pub setting: TrainSetting,
    /// Name of the model that comes out.
    pub name: String,
    /// Its version; the next number if not given.
    pub version: Option<String>,
    /// Folder of the run.
    pub folder: PathBuf,
    /// Whether it trains no further and makes a model of the best weights so far.
    pub finish: bool,
}

/// How a run ended.
pub enum Ended {
    /// With a model.
    Done {
        /// The epoch, from 1, that was kept.
        best_epoch: u32,
        /// What came of it.
        outcome: Box<Outcome>,
    },
    /// By the wish to stop; it can go on.
    Stopped,
}

impl Job {
    /// Whether the run was begun before.
    pub fn is_begun(&self) -> bool {
        self.folder.join("checkpoint").exists()
    }

    /// How far the run has come; not at all if it has no checkpoint.
    fn progress(&self) -> Result<Progress, Fatal> {
        let progress = checkpoint::read_progress(&RealDisk, &self.folder);
        progress.map(Option::unwrap_or_default).map_err(|error| train_fatal(&TrainError::from(error)))
    }

    /// Whether nothing is left to be trained.
    ///
    /// # Errors
    /// The checkpoint is damaged.
    pub fn is_over(&self) -> Result<bool, Fatal> {
        Ok(self.progress()?.is_over(&self.setting))
    }

    /// Whether an epoch was finished, so that there are weights which a model can be made of.
    ///
    /// # Errors
    /// The checkpoint is damaged.
    pub fn has_best(&self) -> Result<bool, Fatal> {
        Ok(self.progress()?.best.is_some())
    }

    /// Trains, goes on from the last checkpoint if `resume` says so, and makes the model.
    ///
    /// # Errors
    /// Whatever ends the run.
    pub fn run(
        &self,
        config: &Config,
        device: &Chosen,
        dataset: &Dataset,
        resume: bool,
        screen: &mut Screen,
    ) -> Result<Ended, Fatal> {
        make_folders(&self.folder).map_err(|error| Fatal::io(format!("{}: {error}", self.folder.display())))?;
        let split = self.folder.join("split.csv");
        let parts = dataset.split(&self.setting, &split, &mut |line| screen.tell_line(line)).map_err(data_fatal)?;
        let weights = self.start.weights()?;
        let training = Training {
            spec: self.spec,
            variant: self.start.variant,
            preprocessing: &self.start.preprocessing,
            device,
            setting: &self.setting,
            dataset,
            parts: &parts,
            start: &weights,
            folder: &self.folder,
            digest: self.digest(dataset, &parts),
            disk: &RealDisk as &dyn Disk,
        };
        screen.expect(&self.setting);
        self.tell(device, &parts, screen);
        let best_epoch = if self.finish {
            training.best_so_far().map_err(|error| train_fatal(&error))?
        } else {
            match training.run(resume, screen).map_err(|error| train_fatal(&error))? {
                End::Done { best_epoch } => best_epoch,
                End::Stopped => return Ok(Ended::Stopped),
            }
        };
        // What takes a run up again is no part of how to repeat it.
        let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        let command: Vec<String> = words.filter(|word| !["--resume", "--finish"].contains(&word.as_str())).collect();
        let naming = Naming {
            models: &config.model.path,
            name: &self.name,
            version: self.version.as_deref(),
            start: &self.start.words,
            command: &command.join(" "),
            is_unfinished: !self.is_over()?,
            created: &rfc3339(SystemClock::new().wall()),
        };
        match finish(&training, &naming, &|| screen.stop.is_wished()) {
            Ok(outcome) => Ok(Ended::Done { best_epoch, outcome: Box::new(outcome) }),
            Err(OutcomeError::Train(TrainError::Stopped)) => Ok(Ended::Stopped),
            Err(OutcomeError::Train(error)) => Err(train_fatal(&error)),
            Err(other) => Err(Fatal::config(other)),
        }
    }

    /// Says what is about to be done.
    fn tell(&self, device: &Chosen, parts: &Parts, screen: &Screen) {
        let (n, side) = (parts.slices.each_ref().map(Vec::len), self.start.preprocessing.side);
        screen.tell_line(format!(
            "{} from {}: {} slices train, {} validate, side {side}, on {}",
            self.spec.name, self.start.words, n[0], n[1], device.name
        ));
        screen.tell_line(format!("Split {}.", parts.words));
        screen.tell_line(self.setting.words());
        if self.setting.recipe == Recipe::Report && self.start.is_random() {
            let sentence = "The report began with weights from ImageNet, this run begins with random ones: import some \
                            (`ichd models import`) and give them with --from, or with `from` in a list of runs.";
            screen.tell_line(sentence.into());
        }
    }

    /// What [`Job::digest`] would be for these data, with the split that the run's folder holds.
    ///
    /// # Errors
    /// The split cannot be read or made.
    pub fn digest_of(&self, dataset: &Dataset, screen: &Screen) -> Result<String, Fatal> {
        let split = self.folder.join("split.csv");
        let parts = dataset.split(&self.setting, &split, &mut |line| screen.tell_line(line)).map_err(data_fatal)?;
        Ok(self.digest(dataset, &parts))
    }

    /// Names settings, data, split and start: what a checkpoint belongs to. How often checkpoints are made and where, how many
    /// threads read ahead, and how the model is stored in the end, does not count.
    fn digest(&self, dataset: &Dataset, parts: &Parts) -> String {
        let mut setting = json!(TrainSetting {
            runs_path: PathBuf::new(),
            cache_path: PathBuf::new(),
            checkpoint_secs: 0,
            stored: Precision::F32,
            ..self.setting.clone()
        });
        if let Value::Object(setting) = &mut setting {
            setting.shift_remove("loader_threads");
        }
        let instances = parts.slices.each_ref().map(|part| dataset.facts(part).sha256);
        let preprocessing = self.start.preprocessing.to_json();
        let weights = &self.start.sha256;
        let all = json!([setting, self.spec.name, preprocessing, weights, dataset.labels_sha256, instances]);
        sha256(all.to_string().as_bytes())
    }
}

/// The backbone of that name.
///
/// # Errors
/// There is none.
pub fn backbone(name: &str) -> Result<&'static BackboneSpec, String> {
    registry::find(name).ok_or_else(|| {
        let known: Vec<&str> = registry::BACKBONES.iter().map(|spec| spec.name).collect();
        format!("the backbone `{name}` is not known; known are {}", known.join(", "))
    })
}
