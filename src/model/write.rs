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

/// The card for people, beside the manifest.
const CARD_FILE: &str = "README.md";

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
    let bytes = weights.to_safetensors_in(stored);
    let bytes = bytes.map_err(|error| ModelError { name: format!("{name}/{version}"), sentence: error.to_string() })?;
    manifest.publish(models, name, version, weights, &bytes, None)
}

impl Manifest {
    /// Whether a model may be called so: names that folders can have and that no model of the program has, and a version, if
    /// one is given, that is not there yet.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn check_place(models: &Path, name: &str, version: Option<&str>) -> Result<(), ModelError> {
        let fail = |sentence: String| {
            let name = [Some(name), version].into_iter().flatten().collect::<Vec<_>>().join("/");
            ModelError { name, sentence }
        };
        for (what, word) in [("name", Some(name)), ("version", version)] {
            let Some(word) = word else { continue };
            if names::component(word) != word || is_builtin(word) {
                let rule = "letters, digits, `.`, `_` and `-` would be right, up to 64, not beginning with a dot, and none \
                            of the models that come with the program";
                return Err(fail(format!("its {what} cannot be that of a folder; {rule}")));
            }
        }
        match version.map(|version| models.join(name).join(version)) {
            Some(folder) if folder.exists() => {
                Err(fail(format!("{} exists already and is not overwritten", folder.display())))
            }
            _ => Ok(()),
        }
    }

    /// Makes `<models>/<name>/<version>` appear with the weights' file, which is `bytes`, the manifest with its digest, and the
    /// card, if there is one: all of them or nothing.
    ///
    /// # Errors
    /// As [`write_model`].
    pub fn publish(
        &self,
        models: &Path,
        name: &str,
        version: &str,
        weights: &Weights,
        bytes: &[u8],
        card: Option<&str>,
    ) -> Result<PathBuf, ModelError> {
        let fail = |sentence: String| ModelError { name: format!("{name}/{version}"), sentence };
        Manifest::check_place(models, name, Some(version))?;
        let spec = check_manifest(self).map_err(fail)?;
        weights.check(spec.name, &(spec.shapes)(self.windows.len())).map_err(|error| fail(error.to_string()))?;
        let manifest = Manifest { weights_sha256: sha256(bytes), ..self.clone() };
        let text = yaml::to_text(&manifest).map_err(fail)?;
        let folder = models.join(name).join(version);
        let mut files = vec![(WEIGHTS_FILE, bytes), (MANIFEST_FILE, text.as_bytes())];
        files.extend(card.map(|card| (CARD_FILE, card.as_bytes())));
        match disk::write_folder(&folder, &files) {
            Ok(()) => Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(fail(format!("{} exists already and is not overwritten", folder.display())))
            }
            Err(error) => Err(fail(format!("{} cannot be written: {error}", folder.display()))),
        }
    }
}

/// The first number from 1 that is no version of the model yet.
pub fn free_version(models: &Path, name: &str) -> String {
    let taken = |version: &u32| models.join(name).join(version.to_string()).exists();
    (1..=u32::MAX).find(|version| !taken(version)).unwrap_or(u32::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{PHANTOM_ONLY, load_named, phantom_manifest};
    use super::*;

    #[test]
    fn a_model_appears_with_its_card_and_is_never_overwritten() {
        let site = tempfile::tempdir().unwrap();
        let models = site.path().join("models");
        let (manifest, weights) = (phantom_manifest().unwrap(), load_named(&models, PHANTOM_ONLY).unwrap().weights);
        let bytes = weights.to_safetensors_in(Precision::F16).unwrap();
        let publish = |name: &str| manifest.publish(&models, name, "1", &weights, &bytes, Some("# m 1\n"));
        let folder = publish("m").unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [CARD_FILE, MANIFEST_FILE, WEIGHTS_FILE]);
        assert_eq!(load_named(&models, "m").unwrap().weights, weights);
        assert!(publish("m").unwrap_err().to_string().contains("m/1 exists already"));
        assert!(publish(PHANTOM_ONLY).unwrap_err().to_string().contains("that come with the program"));
        assert!(
            Manifest::check_place(&models, "m", None).is_ok() && Manifest::check_place(&models, "m", Some("2")).is_ok()
        );
        assert!(Manifest::check_place(&models, "m", Some("1")).is_err());
        assert!(Manifest::check_place(&models, "untrained", None).is_err());
    }
}
