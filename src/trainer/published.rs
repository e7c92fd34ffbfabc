//! Which models came of a run, kept in its folder: a run that is finished once more publishes nothing twice. Knows no weights.
//!
//! A model is noted before it is published, so that there is none that the run does not know of. A note of a model that is
//! not there, or is another one, speaks of a publication that was cut off and means nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::training::TrainError;
use crate::disk::Disk;
use crate::model;

/// The file.
const FILE: &str = "published.json";
/// Larger ones are not ours.
const BYTES_MAX: u64 = 1 << 20;

/// A model that came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its weights' file.
    pub weights_sha256: String,
}

impl Published {
    /// Whether it lies in the model folder with these weights.
    fn is_there(&self, models: &Path) -> bool {
        let found = model::find(models, &format!("{}/{}", self.name, self.version));
        found.is_ok_and(|found| found.manifest.weights_sha256 == self.weights_sha256)
    }
}

fn path(run: &Path) -> PathBuf {
    run.join(FILE)
}

fn read(disk: &dyn Disk, run: &Path) -> Result<Vec<Published>, TrainError> {
    let path = path(run);
    let bytes = match disk.read(&path, BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(TrainError::Io { path, source }),
        Ok((_, bytes)) => bytes,
    };
    serde_json::from_slice(&bytes).map_err(|error| TrainError::Io { path, source: error.into() })
}

/// The models of that name that came of a run and are there, the oldest first.
///
/// # Errors
/// The run's note cannot be read.
pub fn models_of(disk: &dyn Disk, run: &Path, models: &Path, name: &str) -> Result<Vec<Published>, TrainError> {
    let mut all = read(disk, run)?;
    all.retain(|one| one.name == name && one.is_there(models));
    Ok(all)
}

/// Notes a model that is about to be published.
///
/// # Errors
/// The disk refuses.
pub fn note(disk: &dyn Disk, run: &Path, one: Published) -> Result<(), TrainError> {
    let mut all = read(disk, run)?;
    all.retain(|other| (&other.name, &other.version) != (&one.name, &one.version));
    all.push(one);
    let path = path(run);
    let io = |source| TrainError::Io { path: path.clone(), source };
    let text = serde_json::to_vec_pretty(&all).map_err(|error| io(error.into()))?;
    disk.write_whole(&path, &text).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_note_without_its_model_means_nothing() {
        let site = tempfile::tempdir().unwrap();
        let (run, models) = (site.path().join("run"), site.path().join("models"));
        assert_eq!(models_of(&RealDisk, &run, &models, "m").unwrap(), []);
        let one = Published { name: "m".into(), version: "1".into(), weights_sha256: "a".into() };
        note(&RealDisk, &run, one.clone()).unwrap();
        note(&RealDisk, &run, Published { weights_sha256: "b".into(), ..one }).unwrap();
        assert_eq!(models_of(&RealDisk, &run, &models, "m").unwrap(), []);
        assert_eq!(read(&RealDisk, &run).unwrap().len(), 1);
        std::fs::write(run.join(FILE), "{").unwrap();
        let complaint = models_of(&RealDisk, &run, &models, "m").unwrap_err().to_string();
        assert!(complaint.contains(FILE), "{complaint}");
    }
}
