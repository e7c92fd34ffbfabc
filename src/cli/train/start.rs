//! Where a run begins: with random weights, or with those of a model. They are read and looked at before anything is trained, and
//! read again when their run begins, so that a list of runs holds one set of weights at a time.

use std::path::{Path, PathBuf};

use ichd_kernels::Window;
use ichd_plugin::import::{adapt_stem, for_windows};
use ichd_plugin::spec::{BackboneSpec, Variant};
use ichd_plugin::weights::Weights;

use crate::config::{Config, WindowSetting};
use crate::error::{Exit, Fatal};
use crate::identity::sha256;
use crate::model::{self, Preprocessing};

/// Where training begins.
pub struct Start {
    spec: &'static BackboneSpec,
    origin: Origin,
    /// Form of the backbone.
    pub variant: Variant,
    /// How its input is made.
    pub preprocessing: Preprocessing,
    /// The same in words.
    pub words: String,
    /// SHA-256 of the weights as a safetensors file.
    pub sha256: String,
}

/// Where the weights come from.
enum Origin {
    /// From a seed.
    Random { seed: u64 },
    /// From a version of a model.
    Model { models: PathBuf, name: String },
}

/// What is wished of a start.
pub struct StartWish<'w> {
    /// A model whose weights are taken; random ones if none.
    pub from: Option<&'w str>,
    /// Side of the input; the backbone's or the model's own if none.
    pub side: Option<usize>,
    /// Windows; those of the settings or of the model if none.
    pub windows: Option<&'w [WindowSetting]>,
    /// Seed of random weights.
    pub seed: u64,
}

impl Start {
    /// Reads the weights and looks whether training could begin with them.
    ///
    /// # Errors
    /// The model cannot be used, or a wish does not fit the backbone.
    pub fn new(
        config: &Config,
        models: &Path,
        spec: &'static BackboneSpec,
        wish: &StartWish<'_>,
    ) -> Result<Start, Fatal> {
        let (mut start, weights) = match wish.from {
            Some(name) => Start::from_model(models, spec, name, wish)?,
            None => Start::random(config, spec, wish),
        };
        start.preprocessing.side = wish.side.unwrap_or(start.preprocessing.side);
        if !(spec.side_min..=2048).contains(&start.preprocessing.side) {
            let sentence = format!("--side: {} to 2048 would be right for {}", spec.side_min, spec.name);
            return Err(Fatal::new(Exit::Usage, sentence));
        }
        start.preprocessing.plan().map_err(|error| Fatal::config(format!("{}: {error}", start.words)))?;
        weights
            .check(spec.name, &(spec.shapes)(start.variant.windows))
            .map_err(|error| Fatal::config(format!("{}: {error}", start.words)))?;
        start.sha256 = digest(&weights)?;
        Ok(start)
    }

    /// The weights.
    ///
    /// # Errors
    /// The model cannot be read any more, or is another one than [`Start::new`] saw.
    pub fn weights(&self) -> Result<Weights, Fatal> {
        let weights = match &self.origin {
            Origin::Random { seed } => self.spec.untrained_for(self.variant.windows, *seed),
            Origin::Model { models, name } => {
                let model = model::load_named(models, name).map_err(Fatal::config)?;
                fitted(self.spec, model.weights, self.variant.windows)
            }
        };
        if digest(&weights)? != self.sha256 {
            return Err(Fatal::config(format!("{}: its weights were changed since this program began", self.words)));
        }
        Ok(weights)
    }

    /// Whether the weights are random.
    pub fn is_random(&self) -> bool {
        matches!(self.origin, Origin::Random { .. })
    }

    fn from_model(
        models: &Path,
        spec: &'static BackboneSpec,
        name: &str,
        wish: &StartWish<'_>,
    ) -> Result<(Start, Weights), Fatal> {
        let model = model::load_named(models, name).map_err(Fatal::config)?;
        if model.spec.name != spec.name {
            let sentence = format!("--from: {name} is a {}, not a {}", model.spec.name, spec.name);
            return Err(Fatal::new(Exit::Usage, sentence));
        }
        let mut words = format!("{}/{}", model.card.name, model.card.version);
        // A version that appears later is another model.
        let name = if model::is_builtin(name) { name.to_owned() } else { words.clone() };
        let (mut variant, mut preprocessing) = (model.card.variant(), model.card.preprocessing);
        if let Some(windows) = wish.windows {
            let count = windows.len();
            if count != variant.windows {
                words = format!("{words}, its first convolution made for {count} windows");
                preprocessing.mean = for_windows(&preprocessing.mean, count);
                preprocessing.std = for_windows(&preprocessing.std, count);
                variant.windows = count;
            }
            preprocessing.windows = kernel_windows(windows);
        }
        let weights = fitted(spec, model.weights, variant.windows);
        let origin = Origin::Model { models: models.to_owned(), name };
        Ok((Start { spec, origin, variant, preprocessing, words, sha256: String::new() }, weights))
    }

    fn random(config: &Config, spec: &'static BackboneSpec, wish: &StartWish<'_>) -> (Start, Weights) {
        let windows = wish.windows.map_or_else(|| config.kernel_windows(), kernel_windows);
        let variant = Variant { windows: windows.len(), ..Variant::default() };
        let (mean, std) = spec.normalization_for(variant.windows);
        let preprocessing = Preprocessing { windows, ramp: config.ramp.into(), side: spec.input_side, mean, std };
        let (words, origin) = (format!("random weights of seed {}", wish.seed), Origin::Random { seed: wish.seed });
        let weights = spec.untrained_for(variant.windows, wish.seed);
        (Start { spec, origin, variant, preprocessing, words, sha256: String::new() }, weights)
    }
}

fn kernel_windows(windows: &[WindowSetting]) -> Vec<Window> {
    windows.iter().map(|window| Window { level: window.level, width: window.width }).collect()
}

fn digest(weights: &Weights) -> Result<String, Fatal> {
    let bytes = weights.to_safetensors().map_err(|error| Fatal::new(Exit::Bug, error.to_string()))?;
    Ok(sha256(&bytes))
}

/// The weights with a first convolution for so many windows.
fn fitted(spec: &BackboneSpec, mut weights: Weights, windows: usize) -> Weights {
    let stem = weights.get(spec.first_conv).filter(|stem| stem.shape.get(1) != Some(&windows));
    if let Some(stem) = stem.map(|stem| adapt_stem(stem, windows)) {
        weights.insert(spec.first_conv, stem.shape, stem.values);
    }
    weights
}
