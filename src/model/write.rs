//! Writes a model's folder, whole or not at all. Knows neither training nor import.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ichd_plugin::spec::Precision;
use ichd_plugin::weights::Weights;

use super::{MANIFEST_FILE, Manifest, ModelError, WEIGHTS_FILE, check_manifest, is_builtin};
use crate::disk;
use crate::identity::sha256;
use crate::names;
use crate::yaml;

/// Writes `<models>/<name>/<version>/{model.yaml, weights.safetensors}` and returns the folder. Weights are
/// stored as this type of number; their digest is put into the manifest. Both are checked as they would be when the model is loaded.
///
/// # Errors
/// The version exists already, a name cannot be one of a folder, the manifest or the weights do not fit their backbone, or
/// the disk refuses.
pub fn write_model(
    models: &Path,
    name: &str,
    version: &str,
    manifest: &Manifest,
    weights: &Weights,
    stored: Precision,
) -> Result<PathBuf, ModelError> {
    let fail = |sentence: String| ModelError { name: format!("{name}/{version}"), sentence };
    for (what, word) in [("name", name), ("version", version)] {
        if names::component(word) != word || is_builtin(word) {
            let rule = "letters, digits, `.`, `_` and `-` would be right, up to 64, not beginning with a dot";
            return Err(fail(format!("its {what} cannot be that of a folder; {rule}")));
        }
    }
    let spec = check_manifest(manifest).map_err(fail)?;
    weights.check(spec.name, &(spec.shapes)(manifest.windows.len())).map_err(|error| fail(error.to_string()))?;
    let bytes = weights.to_safetensors_in(stored).map_err(|error| fail(error.to_string()))?;
    let manifest = Manifest { weights_sha256: sha256(&bytes), ..manifest.clone() };
    let text = yaml::to_text(&manifest).map_err(fail)?;
    let folder = models.join(name).join(version);
    match disk::write_folder(&folder, &[(WEIGHTS_FILE, &bytes), (MANIFEST_FILE, text.as_bytes())]) {
        Ok(()) => Ok(folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(fail(format!("{} exists already and is not overwritten", folder.display())))
        }
        Err(error) => Err(fail(format!("{} cannot be written: {error}", folder.display()))),
    }
}

/// The first number from 1 that is no version of the model yet.
pub fn free_version(models: &Path, name: &str) -> String {
    let taken = |version: &u32| models.join(name).join(version.to_string()).exists();
    (1..=u32::MAX).find(|version| !taken(version)).unwrap_or(u32::MAX).to_string()
}
