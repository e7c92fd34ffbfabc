//! Checkpoints: everything that the next steps depend on, whole or not at all. Knows no network.
//!
//! `<run>/checkpoint/{<step>.safetensors, progress.json}`: the weights' file first, then the file that names it, both by
//! rename; the one before is deleted last. What `progress.json` names is always whole.

use std::path::{Path, PathBuf};

use ichd_plugin::weights::{Weights, WeightsError};
use serde::{Deserialize, Serialize};

use super::recipe::TrainSetting;
use crate::disk::{Disk, make_folders};

/// How far training has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Digest of settings, data and split: another run's checkpoint is refused.
    pub run: String,
    /// The epoch in which the next step lies, from 0.
    pub epoch: u32,
    /// Batches of it that were done.
    pub batches_done: u64,
    /// Steps of the optimizer in all.
    pub steps: u64,
    /// Sum of the losses of this epoch's batches.
    pub loss_sum: f64,
    /// Seconds spent on this epoch so far.
    pub epoch_seconds: f64,
    /// Best value of what is kept by, so far: lower is better.
    pub best: Option<f64>,
    /// Its epoch.
    pub best_epoch: u32,
    /// Name of the state's file.
    pub state: String,
}

impl Progress {
    /// Whether nothing is left to be trained: all epochs are done, or no better one was found for long enough.
    pub fn is_over(&self, setting: &TrainSetting) -> bool {
        let patience = setting.patience;
        let is_exhausted = patience > 0 && self.best.is_some() && self.epoch > self.best_epoch + patience;
        self.epoch >= setting.epochs || is_exhausted
    }
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}; delete the folder to begin anew")]
    Damaged { path: PathBuf, reason: String },
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

const PROGRESS: &str = "progress.json";
/// A checkpoint's largest file.
const BYTES_MAX: u64 = 1 << 36;

/// Writes a checkpoint into the run's folder.
///
/// # Errors
/// The disk refuses; the checkpoint before is still there then.
pub fn write(disk: &dyn Disk, run: &Path, progress: &mut Progress, state: &Weights) -> Result<(), CheckpointError> {
    let folder = run.join("checkpoint");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { path, source }
    };
    make_folders(&folder).map_err(io(&folder))?;
    let before = std::mem::replace(&mut progress.state, format!("{}-{}.safetensors", progress.epoch, progress.steps));
    let path = folder.join(&progress.state);
    disk.write_whole(&path, &state.to_safetensors()?).map_err(io(&path))?;
    write_progress(disk, run, progress)?;
    if !before.is_empty() && before != progress.state {
        // A file too many does no harm.
        let _ = disk.remove(&folder.join(before));
    }
    Ok(())
}

/// Writes how far training has come where the state is still that of the checkpoint before.
///
/// # Errors
/// The disk refuses; the checkpoint before is still there then.
pub fn write_progress(disk: &dyn Disk, run: &Path, progress: &Progress) -> Result<(), CheckpointError> {
    let path = run.join("checkpoint").join(PROGRESS);
    let io = |source| CheckpointError::Io { path: path.clone(), source };
    let text = serde_json::to_string_pretty(progress).map_err(|error| io(std::io::Error::other(error)))?;
    disk.write_whole(&path, text.as_bytes()).map_err(io)
}

/// How far the run has come, if it has a checkpoint.
///
/// # Errors
/// It is damaged.
pub fn read_progress(disk: &dyn Disk, run: &Path) -> Result<Option<Progress>, CheckpointError> {
    let path = run.join("checkpoint").join(PROGRESS);
    let bytes = match disk.read(&path, BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| CheckpointError::Io { path: path.clone(), source })?.1,
    };
    let damaged = |reason: String| CheckpointError::Damaged { path: path.clone(), reason };
    let progress: Progress = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if progress.state.contains('/') {
        return Err(damaged("it names a file elsewhere".into()));
    }
    Ok(Some(progress))
}

/// Reads the run's checkpoint, if there is one.
///
/// # Errors
/// It is damaged.
pub fn read(disk: &dyn Disk, run: &Path) -> Result<Option<(Progress, Weights)>, CheckpointError> {
    let Some(progress) = read_progress(disk, run)? else { return Ok(None) };
    let path = run.join("checkpoint").join(&progress.state);
    let (_, bytes) =
        disk.read(&path, BYTES_MAX).map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
    let state = Weights::from_safetensors(&bytes, &path.display().to_string())?;
    Ok(Some((progress, state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn the_last_one_is_found_and_a_torn_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        assert!(read(&RealDisk, run).unwrap().is_none());
        let mut state = Weights::new();
        state.insert("a", vec![1], vec![1.5]);
        let mut progress = Progress { run: "r".into(), steps: 3, ..Progress::default() };
        write(&RealDisk, run, &mut progress, &state).unwrap();
        state.insert("a", vec![1], vec![2.5]);
        progress.steps = 4;
        write(&RealDisk, run, &mut progress, &state).unwrap();
        assert_eq!(read(&RealDisk, run).unwrap(), Some((progress.clone(), state)));
        assert_eq!(std::fs::read_dir(run.join("checkpoint")).unwrap().count(), 2, "the one before is gone");
        progress = Progress { epoch: 1, ..progress };
        write_progress(&RealDisk, run, &progress).unwrap();
        assert_eq!(
            read(&RealDisk, run).unwrap().map(|(found, _)| found),
            Some(progress.clone()),
            "the state is the same"
        );
        std::fs::write(run.join("checkpoint").join(&progress.state), b"torn").unwrap();
        assert!(read(&RealDisk, run).unwrap_err().to_string().contains("0-4.safetensors"));
    }
}
