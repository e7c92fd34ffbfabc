//! Models on disk: a trained set of weights of one backbone, with everything needed to use it as it was trained.
//! Knows no device.
//!
//! `<models>/<name>/<version>/{model.yaml, weights.safetensors}`. What does not fit is refused with the reason.

mod builtin;
mod write;

use std::path::{Path, PathBuf};

use ichd_kernels::{KernelError, Ramp, Window, WindowPlan};
use ichd_plugin::label::{Label, N_LABELS};
use ichd_plugin::spec::{BackboneSpec, Convention, Precision, Variant};
use ichd_plugin::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Config, RampSetting, WindowSetting};
use crate::identity::sha256;
use crate::limits::WINDOWS_MAX;
use crate::registry;
use crate::results::{by_label, sigmoid};
use crate::yaml;

use builtin::phantom_manifest;
pub use builtin::{PHANTOM_ONLY, UNTRAINED, is_builtin};
pub use write::{free_version, write_model};

/// Changes whenever the same file and settings would give other network inputs.
pub const PREPROCESSING_VERSION: u32 = 1;

/// `model.yaml`, key for key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Manifest {
    pub schema: String,
    pub backbone: String,
    /// Whose arithmetic the weights were trained with.
    #[serde(default)]
    pub convention: Convention,
    pub trained: bool,
    pub input_side: usize,
    pub windows: Vec<WindowSetting>,
    pub ramp: RampSetting,
    pub resampling: String,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    pub labels: Vec<String>,
    pub preprocessing_version: u32,
    pub weights_sha256: String,
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Probability at or above which a label counts as found, in label order.
    #[serde(default)]
    pub operating_points: Option<[f32; N_LABELS]>,
    #[serde(default)]
    pub metrics: yaml::Value,
    #[serde(default)]
    pub data_sha256: Option<String>,
    #[serde(default)]
    pub training: yaml::Value,
    #[serde(default)]
    pub program: Option<String>,
}

/// The schema of `model.yaml`.
pub const MANIFEST_SCHEMA: &str = "ichd.model.v1";
/// The one way of resampling that there is.
pub const RESAMPLING: &str = "bilinear_antialias";
const MANIFEST_FILE: &str = "model.yaml";
const WEIGHTS_FILE: &str = "weights.safetensors";

/// Platt scaling per label: probability = sigmoid(scale * logit + shift).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Calibration {
    pub scale: [f32; N_LABELS],
    pub shift: [f32; N_LABELS],
}

/// From stored pixels to the network's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    /// Intensity windows, one channel each.
    pub windows: Vec<Window>,
    /// Their ramp.
    pub ramp: Ramp,
    /// Side of the network's input in pixels.
    pub side: usize,
    /// Mean per channel.
    pub mean: Vec<f32>,
    /// Deviation per channel.
    pub std: Vec<f32>,
}

/// All facts about a loaded model that results repeat.
#[derive(Clone, Debug)]
pub struct ModelCard {
    /// Folder name, or `untrained`.
    pub name: String,
    /// Version folder.
    pub version: String,
    /// SHA-256 of the weights.
    pub sha256: String,
    /// Name of the backbone.
    pub backbone: &'static str,
    /// Whose arithmetic it is scored with.
    pub convention: Convention,
    /// In which type of number.
    pub precision: Precision,
    /// Whether the weights were trained at all.
    pub trained: bool,
    /// How its input is made.
    pub preprocessing: Preprocessing,
    /// How its logits become probabilities.
    pub calibration: Option<Calibration>,
    /// When a label counts as found.
    pub operating_points: Option<[f32; N_LABELS]>,
}

/// A model ready to be put on a device.
pub struct Model {
    /// Its facts.
    pub card: ModelCard,
    /// Its architecture.
    pub spec: &'static BackboneSpec,
    /// Its weights.
    pub weights: Weights,
}

/// A model that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the model {name}: {sentence}")]
pub struct ModelError {
    /// Which.
    pub name: String,
    /// Why, and what would be right.
    pub sentence: String,
}

impl Preprocessing {
    /// Itself as the kernels take it.
    ///
    /// # Errors
    /// Numbers that make no sense.
    pub fn plan(&self) -> Result<WindowPlan, KernelError> {
        WindowPlan::new(&self.windows, self.ramp, self.side, &self.mean, &self.std)
    }

    /// The part of a result that says how the input was made.
    pub fn to_json(&self) -> Value {
        let windows: Vec<Value> = self.windows.iter().map(|w| json!({"level": w.level, "width": w.width})).collect();
        json!({
            "version": PREPROCESSING_VERSION,
            "windows": windows,
            "ramp": match self.ramp { Ramp::LinearExact => "linear_exact", Ramp::Linear => "linear" },
            "side": self.side,
            "resampling": RESAMPLING,
            "mean": self.mean,
            "std": self.std,
        })
    }
}

impl ModelCard {
    /// Names model and preprocessing together: the same scorer gives the same picture the same logits.
    pub fn scorer(&self) -> String {
        let mut parts = vec![
            json!(self.sha256),
            json!(self.backbone),
            self.preprocessing.to_json(),
            json!(Label::ALL.map(Label::name)),
        ];
        // Scorers from before there were two conventions stay what they were.
        if self.convention != Convention::Torch {
            parts.push(json!(self.convention.name()));
        }
        if self.precision != Precision::F32 {
            parts.push(json!(self.precision.name()));
        }
        sha256(Value::from(parts).to_string().as_bytes())
    }

    /// The part of a result that names the model.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "backbone": self.backbone,
            "precision": self.precision.name(),
            "trained": self.trained,
            "operating_points": self.operating_points.as_ref().map(|points| by_label(points)),
        })
    }

    /// Whether it knows nothing but phantoms.
    pub fn is_phantom_only(&self) -> bool {
        self.name == PHANTOM_ONLY
    }

    /// The form of the backbone that it needs.
    pub fn variant(&self) -> Variant {
        Variant { convention: self.convention, windows: self.preprocessing.windows.len() }
    }

    /// Whether probabilities are calibrated.
    pub fn is_calibrated(&self) -> bool {
        self.calibration.is_some()
    }

    /// Probabilities of logits, calibrated where the model brings a calibration.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        match &self.calibration {
            None => logits.iter().map(|logit| sigmoid(*logit)).collect(),
            Some(fit) => {
                let scaled = logits.iter().zip(fit.scale.iter().zip(&fit.shift));
                scaled.map(|(logit, (scale, shift))| sigmoid(scale * logit + shift)).collect()
            }
        }
    }

    /// Labels at or above their operating points; none for a model without such points.
    pub fn labels_above(&self, probabilities: &[f32]) -> Vec<&'static str> {
        let Some(points) = &self.operating_points else { return Vec::new() };
        let all = Label::ALL.iter().zip(probabilities.iter().zip(points));
        all.filter(|(_, (probability, point))| probability >= point).map(|(label, _)| label.name()).collect()
    }
}

/// Loads the model that the configuration names.
///
/// # Errors
/// It does not exist, does not fit its backbone, or was changed.
pub fn load(config: &Config) -> Result<Model, ModelError> {
    load_by_name(config, &config.model.name)
}

/// Loads the model of that name, which may be [`UNTRAINED`] or [`PHANTOM_ONLY`].
///
/// # Errors
/// As [`load`].
pub fn load_by_name(config: &Config, name: &str) -> Result<Model, ModelError> {
    if name == UNTRAINED {
        return builtin::untrained(config);
    }
    let mut model = load_named(&config.model.path, name)?;
    model.card.precision = config.precision;
    Ok(model)
}

/// Where a model lies, its version, and what its `model.yaml` says.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its `model.yaml`.
    pub manifest: Manifest,
    /// Its architecture.
    pub spec: &'static BackboneSpec,
}

/// Reads and checks the `model.yaml` of `name` or `name/version`, without its weights.
///
/// # Errors
/// There is none, or it does not fit its backbone.
pub fn find(models: &Path, name: &str) -> Result<Found, ModelError> {
    let fail = |sentence: String| ModelError { name: name.to_owned(), sentence };
    let (folder, model, version) = find_version(models, name).map_err(fail)?;
    let manifest_path = folder.join(MANIFEST_FILE);
    let text = std::fs::read_to_string(&manifest_path)
        .map_err(|error| fail(format!("{} cannot be read: {error}", manifest_path.display())))?;
    let manifest: Manifest =
        yaml::from_text(&text).map_err(|error| fail(format!("{}: {error}", manifest_path.display())))?;
    let spec = check_manifest(&manifest).map_err(fail)?;
    Ok(Found { folder, name: model, version, manifest, spec })
}

fn load_folder(models: &Path, name: &str) -> Result<Model, ModelError> {
    let fail = |sentence: String| ModelError { name: name.to_owned(), sentence };
    let Found { folder, name: model, version, manifest, spec } = find(models, name)?;
    let weights_path = folder.join(WEIGHTS_FILE);
    let bytes = std::fs::read(&weights_path)
        .map_err(|error| fail(format!("{} cannot be read: {error}", weights_path.display())))?;
    let digest = sha256(&bytes);
    if digest != manifest.weights_sha256.to_ascii_lowercase() {
        let sentence = format!(
            "{} has SHA-256 {digest}, model.yaml says {}: the weights were changed or cut short",
            weights_path.display(),
            manifest.weights_sha256
        );
        return Err(fail(sentence));
    }
    let weights = Weights::from_safetensors(&bytes, &weights_path.display().to_string())
        .map_err(|error| fail(error.to_string()))?;
    let card = card_of(manifest, spec, model, version, digest);
    Ok(Model { card, spec, weights })
}

fn card_of(
    manifest: Manifest,
    spec: &'static BackboneSpec,
    name: String,
    version: String,
    digest: String,
) -> ModelCard {
    let windows = manifest.windows.iter().map(|w| Window { level: w.level, width: w.width }).collect();
    ModelCard {
        name,
        version,
        sha256: digest,
        backbone: spec.name,
        convention: manifest.convention,
        precision: Precision::F32,
        trained: manifest.trained,
        preprocessing: Preprocessing {
            windows,
            ramp: manifest.ramp.into(),
            side: manifest.input_side,
            mean: manifest.mean,
            std: manifest.std,
        },
        calibration: manifest.calibration,
        operating_points: manifest.operating_points,
    }
}

fn check_manifest(manifest: &Manifest) -> Result<&'static BackboneSpec, String> {
    if manifest.schema != MANIFEST_SCHEMA {
        return Err(format!("model.yaml has schema `{}`, `{MANIFEST_SCHEMA}` would be right", manifest.schema));
    }
    let spec = registry::find(&manifest.backbone).ok_or_else(|| {
        let names: Vec<&str> = registry::BACKBONES.iter().map(|spec| spec.name).collect();
        format!("the backbone `{}` is not known; known are {}", manifest.backbone, names.join(", "))
    })?;
    if manifest.labels != Label::ALL.map(Label::name) {
        return Err(format!("its labels must be {} in this order", Label::ALL.map(Label::name).join(", ")));
    }
    if manifest.preprocessing_version != PREPROCESSING_VERSION || manifest.resampling != RESAMPLING {
        return Err(format!(
            "was trained with preprocessing {} and resampling `{}`; this program does {PREPROCESSING_VERSION} and `{RESAMPLING}`",
            manifest.preprocessing_version, manifest.resampling
        ));
    }
    let windows = manifest.windows.len();
    if !(1..=WINDOWS_MAX).contains(&windows) {
        return Err(format!("{windows} windows are not possible; 1 to {WINDOWS_MAX} would be right"));
    }
    if [manifest.mean.len(), manifest.std.len()] != [windows; 2] {
        let (mean, std) = (manifest.mean.len(), manifest.std.len());
        return Err(format!("mean and std must have {windows} items like its windows, they have {mean} and {std}"));
    }
    let numbers = manifest.windows.iter().flat_map(|w| [w.level, w.width]).chain(manifest.mean.iter().copied());
    if !numbers.chain(manifest.std.iter().copied()).all(f32::is_finite)
        || manifest.windows.iter().any(|w| w.width <= 0.0)
        || manifest.std.iter().any(|std| *std <= 0.0)
    {
        return Err("windows, mean and std must be finite, widths and std above 0".into());
    }
    if !(32..=2048).contains(&manifest.input_side) {
        return Err(format!("input_side {} is not possible; 32 to 2048 would be right", manifest.input_side));
    }
    Ok(spec)
}

/// Folder, name and version of `name` or `name/version`.
fn find_version(models: &Path, name: &str) -> Result<(PathBuf, String, String), String> {
    let (model, version) = match name.split_once('/') {
        Some((model, version)) => (model, Some(version)),
        None => (name, None),
    };
    let folder = models.join(model);
    let found = versions(&folder);
    let version = match version {
        Some(version) => version.to_owned(),
        None => found.last().cloned().ok_or_else(|| {
            format!("no version of it lies in {}; `ichd models list` shows what there is", folder.display())
        })?,
    };
    if !found.contains(&version) {
        return Err(format!("has no version {version} in {}; it has: {}", folder.display(), found.join(", ")));
    }
    Ok((folder.join(&version), model.to_owned(), version))
}

/// Versions in a model's folder, oldest first; numbers in them count as numbers.
fn versions(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let with_manifest = entries.flatten().filter(|entry| entry.path().join(MANIFEST_FILE).is_file());
    let mut found: Vec<String> = with_manifest.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    // What is being written, or was when the machine went down, has a hidden name.
    found.retain(|version| !version.starts_with('.'));
    found.sort_by_cached_key(|version| natural(version));
    found
}

/// All models and their versions in the folder.
pub fn list(models: &Path) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(models) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let pairs = |name: &String| versions(&models.join(name)).into_iter().map(|v| (name.clone(), v)).collect::<Vec<_>>();
    names.iter().flat_map(pairs).collect()
}

/// A model of the folder by name or name/version, or the one trained on phantoms.
///
/// # Errors
/// As [`load`].
pub fn load_named(models: &Path, name: &str) -> Result<Model, ModelError> {
    if name == PHANTOM_ONLY { builtin::phantom_only() } else { load_folder(models, name) }
}

/// What stands in the `model.yaml` of a model of [`load_named`].
///
/// # Errors
/// As [`load`].
pub fn manifest(models: &Path, name: &str) -> Result<Manifest, ModelError> {
    if name == PHANTOM_ONLY { phantom_manifest() } else { find(models, name).map(|found| found.manifest) }
}

/// Splits text into runs of digits, as numbers, and the rest.
fn natural(text: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(word_end);
        let number_end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(number_end);
        parts.push((word.to_owned(), number.parse().unwrap_or(0)));
        rest = tail;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_people_count() {
        let mut versions = ["v10", "v9", "2026-11-02", "v9.2"];
        versions.sort_by_cached_key(|version| natural(version));
        assert_eq!(versions, ["2026-11-02", "v9", "v9.2", "v10"]);
    }
}
