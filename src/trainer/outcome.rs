//! From the best weights to a served model, and what a run leaves for people to look at. Knows no step of training.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ichd_plugin::label::{Label, N_LABELS};
use ichd_plugin::spec::{BackboneSpec, Precision};
use serde_json::{Value, json};

use super::published::{self, Published};
use super::training::{TrainError, Training, score, warm_up};
use super::worst;
use crate::config::WindowSetting;
use crate::identity::sha256;
use crate::measure::Predictions;
use crate::measure::calibrate::{self, Fit, Method};
use crate::measure::epoch::{self, Epoch};
use crate::measure::metrics::{self, Bootstrap, Interval, Metrics};
use crate::measure::operating::{self, Rule};
use crate::measure::plot;
use crate::measure::report::{Card, Evaluation, ModelRow};
use crate::model::{self, Manifest, ModelError};
use crate::results::by_label;
use crate::yaml;

/// What a run came to.
pub struct Outcome {
    /// Folder of the model.
    pub model: PathBuf,
    /// Its version.
    pub version: String,
    /// Whether it was published now; else the run published the same weights under the same name before.
    pub is_new: bool,
    /// Metrics on the validation part, calibrated, at the operating points.
    pub metrics: Metrics,
    /// Names settings, data and start.
    pub digest: String,
    /// Names the validation part.
    pub evaluated_on: String,
    /// Mean time of an epoch in seconds.
    pub epoch_seconds: Option<f64>,
    /// Slices of the validation part scored a second.
    pub slices_per_second: f64,
    /// Of the network, head included.
    pub parameters: u64,
}

/// Trainable parameters of a network for so many windows, head included: all that a file of weights holds but the running
/// statistics of BatchNorms.
pub fn parameters(spec: &BackboneSpec, windows: usize) -> u64 {
    let is_learned = |name: &str| !name.ends_with(".running_mean") && !name.ends_with(".running_var");
    let all = (spec.shapes)(windows).into_iter();
    all.filter(|(name, _)| is_learned(name)).map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
}

impl Outcome {
    /// Its line of a comparison.
    pub fn row(&self, spec: &BackboneSpec) -> ModelRow {
        let mut row = ModelRow::new(spec.name, self.evaluated_on.clone(), &self.metrics);
        row.parameters = Some(self.parameters);
        row.epoch_seconds = self.epoch_seconds;
        row.slices_per_second = Some(self.slices_per_second);
        row
    }
}

/// How the model is to be called.
pub struct Naming<'n> {
    /// The model folder.
    pub models: &'n Path,
    /// Name.
    pub name: &'n str,
    /// Version; the next number, or that of the same weights, if not given.
    pub version: Option<&'n str>,
    /// Where training began, in words.
    pub start: &'n str,
    /// The command line that repeats it.
    pub command: &'n str,
    /// Whether training was ended before its last epoch, by hand or by numbers that were none any more.
    pub is_unfinished: bool,
    /// Calendar time.
    pub created: &'n str,
}

/// A model that could not be made of a run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OutcomeError {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{0}")]
    Text(String),
}

/// How logits are calibrated.
const METHOD: Method = Method::Temperature;
/// Replicates of the confidence intervals.
const REPLICATES: usize = 500;

/// Calibrates the best weights on the validation part, chooses operating points there, writes the run's tables, curves and card,
/// and then the model. What the run published before is measured again and left as it is.
///
/// # Errors
/// The disk, the device, a model of that version that exists, the wish to stop.
pub fn finish(
    training: &Training<'_>,
    naming: &Naming<'_>,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Outcome, OutcomeError> {
    let (stored, batch) = (training.setting.stored, training.setting.batch);
    let weights = training.best()?.rounded(stored);
    let bytes = weights.to_safetensors_in(stored).map_err(TrainError::from)?;
    let weights_sha256 = sha256(&bytes);
    let validation = &training.parts.slices[1];
    let plan = training.plan()?;
    let feed = training.feed(&plan);
    let mut backbone = (training.spec.infer)(&training.device.device, training.variant, Precision::F32);
    backbone.load(&weights).map_err(TrainError::from)?;
    warm_up(&feed, backbone.as_ref(), validation, batch, is_stopped)?;
    let begun = Instant::now();
    let logits = score(&feed, backbone.as_ref(), validation, batch, is_stopped)?;
    let slices_per_second = validation.len() as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    let epochs = training.epochs()?;
    let epoch_seconds = epoch::mean_seconds(&epochs);
    let (targets, groups) = training.dataset.truth(validation);
    let fit = calibrate::fit(METHOD, &logits, &targets).map_err(TrainError::from)?;
    let predictions = Predictions::from_logits(&logits, &targets, &groups, Some(&fit.calibration));
    let predictions = predictions.map_err(TrainError::from)?;
    let chosen = operating::choose(&predictions, Rule::default()).map_err(TrainError::from)?;
    let points = operating::or_half(&chosen);
    let metrics = metrics::evaluate(&predictions, &points);
    let before = published::models_of(training.disk, training.folder, naming.models, naming.name)?;
    let is_same = |one: &&Published| {
        one.weights_sha256 == weights_sha256 && naming.version.is_none_or(|version| version == one.version)
    };
    let before = before.iter().find(is_same);
    let version = match (before, naming.version) {
        (Some(one), _) => one.version.clone(),
        (None, Some(version)) => version.to_owned(),
        (None, None) => model::free_version(naming.models, naming.name),
    };
    if before.is_none() {
        let intervals =
            metrics::auroc_intervals(&predictions, &Bootstrap { replicates: REPLICATES, ..Bootstrap::default() });
        if is_stopped() {
            return Err(TrainError::Stopped.into());
        }
        let manifest = manifest(training, naming, &metrics, &fit, points, epoch_seconds)?;
        let view = View {
            training,
            naming,
            version: &version,
            weights_sha256: &weights_sha256,
            predictions: &predictions,
            metrics: &metrics,
            intervals: &intervals,
            fit: &fit,
            epochs: &epochs,
        };
        let card = view.card();
        view.write(&card)?;
        let one = Published { name: naming.name.to_owned(), version: version.clone(), weights_sha256 };
        published::note(training.disk, training.folder, one)?;
        manifest.publish(naming.models, naming.name, &version, &weights, &bytes, Some(&card))?;
    }
    Ok(Outcome {
        model: naming.models.join(naming.name).join(&version),
        version,
        is_new: before.is_none(),
        metrics,
        digest: training.digest.clone(),
        evaluated_on: training.dataset.facts(validation).sha256,
        epoch_seconds,
        slices_per_second,
        parameters: parameters(training.spec, training.variant.windows),
    })
}

fn manifest(
    training: &Training<'_>,
    naming: &Naming<'_>,
    metrics: &Metrics,
    fit: &Fit,
    points: [f32; N_LABELS],
    epoch_seconds: Option<f64>,
) -> Result<Manifest, OutcomeError> {
    let preprocessing = training.preprocessing;
    let text = |error: String| OutcomeError::Text(error);
    let auroc: Vec<Option<f64>> = metrics.labels.iter().map(|label| label.auroc).collect();
    let summary = json!({
        "on": "validation part",
        "slices": training.parts.slices[1].len(),
        "auroc": Label::ALL.iter().zip(auroc).map(|(label, value)| (label.name().to_owned(), json!(value))).collect::<serde_json::Map<_, _>>(),
        "weighted_log_loss": metrics.weighted_log_loss,
        "accuracy": metrics.pooled.accuracy,
    });
    Ok(Manifest {
        schema: model::MANIFEST_SCHEMA.into(),
        backbone: training.spec.name.into(),
        convention: training.variant.convention,
        trained: true,
        input_side: preprocessing.side,
        windows: preprocessing
            .windows
            .iter()
            .map(|window| WindowSetting { level: window.level, width: window.width })
            .collect(),
        ramp: preprocessing.ramp.into(),
        resampling: model::RESAMPLING.into(),
        mean: preprocessing.mean.clone(),
        std: preprocessing.std.clone(),
        labels: Label::ALL.map(|label| label.name().to_owned()).to_vec(),
        preprocessing_version: model::PREPROCESSING_VERSION,
        // Put in when the weights are written.
        weights_sha256: String::new(),
        calibration: Some(fit.calibration.clone()),
        operating_points: Some(points),
        metrics: yaml::to_value(&summary).map_err(text)?,
        data_sha256: Some(training.dataset.labels_sha256.clone()),
        training: yaml::to_value(&json!({
            "start": naming.start,
            "settings": settings_json(training),
            "split": training.parts.words,
            "shared_patients": training.parts.shared_patients,
            "training_slices": training.parts.slices[0].len(),
            "epoch_seconds": epoch_seconds,
            "run": training.digest,
            "created": naming.created,
        }))
        .map_err(text)?,
        program: Some(format!("ichd {}", env!("CARGO_PKG_VERSION"))),
    })
}

/// What people look at.
struct View<'v> {
    training: &'v Training<'v>,
    naming: &'v Naming<'v>,
    version: &'v str,
    weights_sha256: &'v str,
    predictions: &'v Predictions,
    metrics: &'v Metrics,
    intervals: &'v [Option<Interval>; N_LABELS],
    fit: &'v Fit,
    epochs: &'v [Epoch],
}

impl View<'_> {
    fn write(&self, card: &str) -> Result<(), OutcomeError> {
        let run = self.training.folder;
        let title = format!("{}/{} on the validation part", self.naming.name, self.version);
        let text = |error: std::io::Error| OutcomeError::Text(error.to_string());
        let evaluation = Evaluation {
            title: &title,
            predictions: self.predictions,
            metrics: self.metrics,
            intervals: self.intervals,
        };
        for (name, bytes) in evaluation.files("validation").map_err(text)? {
            self.put(&run.join(name), &bytes)?;
        }
        let learning = plot::learning_curves(&title, self.epochs);
        self.put(&run.join("learning.png"), &learning.png().map_err(text)?)?;
        self.put(&run.join("learning.svg"), learning.svg().as_bytes())?;
        let misses = worst::misses(&self.training.parts.slices[1], self.predictions);
        let sheet = worst::sheet(self.training.dataset, &title, &misses)?;
        self.put(&run.join("worst.png"), &sheet.png().map_err(text)?)?;
        self.put(&run.join("worst.csv"), worst::table(self.training.dataset, &misses).as_bytes())?;
        self.put(&run.join("card.md"), card.as_bytes())?;
        let values = json!({ "labels": self.metrics.labels, "pooled": self.metrics.pooled, "points": by_label(&self.metrics.points) });
        self.put(&run.join("validation.json"), format!("{values:#}\n").as_bytes())
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), OutcomeError> {
        let write = self.training.disk.write_whole(path, bytes);
        Ok(write.map_err(|source| TrainError::Io { path: path.to_owned(), source })?)
    }

    /// The model card in Markdown.
    fn card(&self) -> String {
        let (training, naming) = (self.training, self.naming);
        let [trained, validated] = training.parts.slices.each_ref().map(|part| training.dataset.facts(part));
        let on = "the validation part";
        let mut limits = vec!["The epoch, too, was chosen by the slices that it is measured on.".to_owned()];
        limits.extend(training.dataset.warning_of_side(training.setting));
        if naming.is_unfinished {
            let (done, all) = (self.epochs.len(), training.setting.epochs);
            limits.push(format!("Training was ended (--finish) after {done} of {all} epochs."));
        }
        let card = Card {
            name: naming.name.to_owned(),
            version: self.version.to_owned(),
            backbone: training.spec.name.to_owned(),
            parameters: parameters(training.spec, training.variant.windows),
            weights_sha256: self.weights_sha256.to_owned(),
            start: naming.start.to_owned(),
            made_by: format!("ichd {}, {}", env!("CARGO_PKG_VERSION"), naming.created),
            data: "as named on the command line below".to_owned(),
            data_license: "not known to the program".to_owned(),
            data_sha256: training.dataset.labels_sha256.clone(),
            split: training.parts.words.clone(),
            shared_patients: training.parts.shared_patients,
            training: trained,
            validation: validated,
            settings: settings_of(training),
            evaluated_on: on.to_owned(),
            metrics: self.metrics,
            intervals: Some(self.intervals),
            calibration: Some((METHOD, self.fit, on.to_owned())),
            rule: Some((Rule::default(), on.to_owned())),
            limits,
            repeat: vec![naming.command.to_owned()],
        };
        card.markdown()
    }
}

/// Settings that say how the model was trained; where the run and the cache lie, and who reads ahead, does not.
fn settings_json(training: &Training<'_>) -> Value {
    let mut settings = json!(training.setting);
    if let Value::Object(settings) = &mut settings {
        settings.shift_remove("runs_path");
        settings.shift_remove("cache_path");
        settings.shift_remove("loader_threads");
    }
    settings
}

/// Settings and preprocessing as names and values.
fn settings_of(training: &Training<'_>) -> Vec<(String, String)> {
    let mut rows = vec![("preprocessing".to_owned(), training.preprocessing.to_json().to_string())];
    if let Value::Object(settings) = settings_json(training) {
        rows.extend(settings.into_iter().map(|(name, value)| (name, value.to_string())));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::BACKBONES;

    #[test]
    fn parameters_count_the_head_and_the_windows() {
        for spec in BACKBONES.iter() {
            let head = ((spec.feature_width + 1) * N_LABELS) as u64;
            assert_eq!(parameters(spec, 3), spec.parameters + head, "{}", spec.name);
            assert!(parameters(spec, 5) > parameters(spec, 3), "{}", spec.name);
        }
    }
}
