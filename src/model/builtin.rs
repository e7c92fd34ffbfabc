//! Models that come with the program: one with arbitrary weights, and one that knows nothing but phantoms. Neither is for
//! patients.

use ichd_plugin::spec::Convention;
use ichd_plugin::weights::Weights;

use super::{Manifest, Model, ModelCard, ModelError, Preprocessing, card_of, check_manifest};
use crate::config::Config;
use crate::identity::sha256;
use crate::registry;
use crate::yaml;

/// The word that selects the model with arbitrary weights.
pub const UNTRAINED: &str = "untrained";
/// The word that selects the model that was trained on phantoms. `tools/make_phantom_model.sh` made it.
pub const PHANTOM_ONLY: &str = "phantom_only";

const UNTRAINED_BACKBONE: &str = "mobilenet_v2";
const UNTRAINED_SEED: u64 = 2019;
const PHANTOM_VERSION: &str = "1";
const PHANTOM_MANIFEST: &str = include_str!("../../plugins/mobilenet/models/phantom_only/1/model.yaml");
const PHANTOM_WEIGHTS: &[u8] = include_bytes!("../../plugins/mobilenet/models/phantom_only/1/weights.safetensors");

/// Whether a name belongs to a model that comes with the program.
pub fn is_builtin(name: &str) -> bool {
    [UNTRAINED, PHANTOM_ONLY].contains(&name)
}

/// The model with arbitrary weights, in the windows of the settings.
pub(super) fn untrained(config: &Config) -> Result<Model, ModelError> {
    let fail = |sentence: String| ModelError { name: UNTRAINED.into(), sentence };
    let spec = registry::find(UNTRAINED_BACKBONE).ok_or_else(|| fail("its backbone is not compiled in".into()))?;
    let weights = spec.untrained_for(config.windows.len(), UNTRAINED_SEED);
    let (mean, std) = spec.normalization_for(config.windows.len());
    let bytes = weights.to_safetensors().map_err(|error| fail(error.to_string()))?;
    let card = ModelCard {
        name: UNTRAINED.into(),
        version: "1".into(),
        sha256: sha256(&bytes),
        backbone: spec.name,
        convention: Convention::Torch,
        precision: config.precision,
        trained: false,
        preprocessing: Preprocessing {
            windows: config.kernel_windows(),
            ramp: config.ramp.into(),
            side: spec.input_side,
            mean,
            std,
        },
        calibration: None,
        operating_points: None,
    };
    Ok(Model { card, spec, weights })
}

/// What stands in the `model.yaml` of the model that was trained on phantoms.
///
/// # Errors
/// The program was built from a damaged tree.
pub fn phantom_manifest() -> Result<Manifest, ModelError> {
    yaml::from_text(PHANTOM_MANIFEST).map_err(fail)
}

/// The model that was trained on phantoms.
pub(super) fn phantom_only() -> Result<Model, ModelError> {
    let manifest = phantom_manifest()?;
    let spec = check_manifest(&manifest).map_err(fail)?;
    let digest = sha256(PHANTOM_WEIGHTS);
    if digest != manifest.weights_sha256 {
        return Err(fail(format!("its weights have SHA-256 {digest}, its manifest says {}", manifest.weights_sha256)));
    }
    let weights = Weights::from_safetensors(PHANTOM_WEIGHTS, PHANTOM_ONLY).map_err(|error| fail(error.to_string()))?;
    let card = card_of(manifest, spec, PHANTOM_ONLY.into(), PHANTOM_VERSION.into(), digest);
    Ok(Model { card, spec, weights })
}

fn fail(sentence: String) -> ModelError {
    ModelError { name: PHANTOM_ONLY.into(), sentence }
}
