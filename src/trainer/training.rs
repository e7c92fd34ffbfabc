//! The loop: epochs of batches, checkpoints, validation, the best weights. Knows no file but those of its run's folder.
//!
//! The tensor library's own training loop keeps checkpoints at the end of epochs only, has no moving averages and no mixed
//! precision, and its optimizer does not come back as it was; that is why this one exists.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use ichd_kernels::{KernelError, WindowPlan};
use ichd_plugin::backbone::{Backbone, Trainee};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::parallel;
use ichd_plugin::spec::{BackboneSpec, Precision, Variant};
use ichd_plugin::weights::{Weights, WeightsError};
use rayon::prelude::*;

use super::balance::Balance;
use super::batches::{Batch, Feed, FeedError, plain_batches, training_batches};
use super::checkpoint::{self, CheckpointError, Progress};
use super::dataset::{Dataset, Parts};
use super::recipe::{Keep, TrainSetting};
use super::waiting::Queue;
use crate::device::Chosen;
use crate::disk::Disk;
use crate::measure::epoch::{self, Epoch};
use crate::measure::metrics::{self, Metrics};
use crate::measure::{MeasureError, Predictions};
use crate::model::Preprocessing;

/// Batches after which the loss is read from the device: reading waits for it.
pub const READ_EVERY: u64 = 16;
/// Largest file of weights.
const BYTES_MAX: u64 = 1 << 36;

/// What is trained, on what, how and where.
pub struct Training<'t> {
    /// Architecture.
    pub spec: &'static BackboneSpec,
    /// Its variant.
    pub variant: Variant,
    /// Windows, side and normalization.
    pub preprocessing: &'t Preprocessing,
    /// Where it computes.
    pub device: &'t Chosen,
    /// The settings as they are meant.
    pub setting: &'t TrainSetting,
    /// The slices.
    pub dataset: &'t Dataset,
    /// Those that train and those that validate.
    pub parts: &'t Parts,
    /// Weights at the start.
    pub start: &'t Weights,
    /// Folder of the run.
    pub folder: &'t Path,
    /// Names everything above: a checkpoint of other settings or data is refused.
    pub digest: String,
    /// Files.
    pub disk: &'t dyn Disk,
}

/// Who looks on.
pub trait Onlooker {
    /// A batch is done. `rate` is in slices a second.
    fn batch(&mut self, epoch: u32, done: u64, all: u64, loss: f64, rate: f64);
    /// An epoch is over. `waited` is the share of its training part's time that the device waited for data.
    fn epoch(&mut self, epoch: &Epoch, waited: f64, is_best: bool);
    /// Something to be told.
    fn tell(&mut self, line: String);
    /// Whether the wish to stop was voiced.
    fn is_stopped(&self) -> bool;
}

/// How training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All epochs are done, or no better one was found for long enough.
    Done {
        /// The epoch, from 1, whose weights were kept.
        best_epoch: u32,
    },
    /// It was stopped; it can go on.
    Stopped,
}

/// Training that cannot go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TrainError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the weights do not fit: {0}")]
    Weights(#[from] WeightsError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the device failed: {0}")]
    Device(String),
    #[error("the settings make no sense: {0}")]
    Plan(#[from] KernelError),
    #[error(
        "{what} in epoch {epoch} after {steps} steps; a smaller learning rate or precision f32 may help, in a run of its own (--run). {}",
        kept(*.best_epoch, .folder)
    )]
    Diverged { what: String, epoch: u32, steps: u64, best_epoch: Option<u32>, folder: PathBuf },
    #[error("{0}")]
    Measure(#[from] MeasureError),
    #[error(
        "{folder} holds a run with other settings or data; give another folder with --run, or delete it to begin anew"
    )]
    OtherRun { folder: PathBuf },
    #[error("{folder} holds no finished epoch: there are no best weights that a model could be made of")]
    NoBest { folder: PathBuf },
    #[error("stopped")]
    Stopped,
}

/// What is left of a run whose numbers are none any more.
fn kept(best_epoch: Option<u32>, folder: &Path) -> String {
    let folder = folder.display();
    match best_epoch {
        Some(best) => format!(
            "The weights of epoch {best}, the best so far, are kept in {folder}; the same command with --resume --finish makes a model of them"
        ),
        None => format!("No epoch was finished, so {folder} holds no weights that a model could be made of"),
    }
}

/// Logits of slices, in their order, from the form of the network that serves.
///
/// # Errors
/// The cache, the device, [`TrainError::Stopped`].
pub fn score(
    feed: &Feed<'_>,
    backbone: &dyn Backbone,
    slices: &[usize],
    size: usize,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Vec<[f32; N_LABELS]>, TrainError> {
    let mut logits = Vec::with_capacity(slices.len());
    feed.walk(&plain_batches(slices, size), |_, images| {
        if is_stopped() {
            return Err(TrainError::Stopped);
        }
        let values = read(backbone.forward(images))?;
        logits.extend_from_slice(values.as_chunks::<N_LABELS>().0);
        Ok::<_, TrainError>(Queue::Empty(Instant::now()))
    })?;
    Ok(logits)
}

/// Brings slices into memory, each held against its digest, and scores a batch of them: what is timed next is scoring
/// alone, and kernels are compiled.
///
/// # Errors
/// As [`score`].
pub fn warm_up(
    feed: &Feed<'_>,
    backbone: &dyn Backbone,
    slices: &[usize],
    size: usize,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<(), TrainError> {
    slices.par_iter().try_for_each(|at| {
        if is_stopped() {
            return Err(TrainError::Stopped);
        }
        feed.dataset.cache.verify_once(*at).map(drop).map_err(|error| FeedError::from(error).into())
    })?;
    score(feed, backbone, &slices[..size.min(slices.len())], size, is_stopped).map(drop)
}

pub(super) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    let device = |error: String| TrainError::Device(error);
    let data = tensor.try_into_data().map_err(|error| device(format!("{error:?}")))?;
    // Bytes are borrowed: the library cannot copy those that are aligned for vectors.
    match data.as_slice::<f32>() {
        Ok(values) => Ok(values.to_vec()),
        Err(_) => data.try_to_vec_as::<f32>().map_err(|error| device(format!("{error:?}"))),
    }
}

impl Training<'_> {
    /// Trains from the start, or from the run's checkpoint if there is one and `resume` says so.
    ///
    /// # Errors
    /// The disk, the device, numbers that are none any more. The best weights so far lie in the run's folder.
    pub fn run(&self, resume: bool, onlooker: &mut dyn Onlooker) -> Result<End, TrainError> {
        let plan = self.plan()?;
        let feed = self.feed(&plan);
        let devices = self.device.and_next(self.setting.devices).map_err(TrainError::Device)?;
        let mut trainee = parallel::trainee(self.spec, &devices, self.variant);
        let mut progress = self.begin(trainee.as_mut(), resume, onlooker)?;
        trainee.mix(self.setting.precision);
        let labels: Vec<_> = self.parts.slices[0].iter().map(|at| self.dataset.labels[*at]).collect();
        let balance = Balance::new(&labels, &self.setting.balance, self.setting.seed);
        onlooker.tell(balance.report());
        let positive_weights = balance.positive_weights();
        let mut epochs = self.epochs_before(&progress)?;
        while !progress.is_over(self.setting) {
            let (begun, before) = (Instant::now(), progress.epoch_seconds);
            let order: Vec<usize> =
                balance.epoch(progress.epoch).into_iter().map(|item| self.parts.slices[0][item]).collect();
            let batches = training_batches(
                self.dataset,
                &order,
                self.setting.batch,
                &self.setting.augment,
                self.setting.seed,
                progress.epoch,
            );
            let pass = Pass { training: self, feed: &feed, batches: &batches, positive_weights, begun };
            let is_resumed_behind = progress.batches_done == batches.len() as u64;
            let waited = match pass.walk(trainee.as_mut(), &mut progress, onlooker) {
                Err(TrainError::Stopped) => {
                    self.checkpoint(trainee.as_mut(), &mut progress)?;
                    return Ok(End::Stopped);
                }
                waited => waited?,
            };
            let learned = begun.elapsed();
            // Validation may take long; whatever ends it, the pass is not lost.
            if !is_resumed_behind {
                self.checkpoint(trainee.as_mut(), &mut progress)?;
            }
            let weights = trainee.averaged().unwrap_or_else(|| trainee.weights());
            let metrics = match self.validate(&feed, &weights, &progress, &|| onlooker.is_stopped()) {
                Err(TrainError::Stopped) => return Ok(End::Stopped),
                metrics => metrics?,
            };
            let rule = self.setting.rule(progress.steps.saturating_sub(1), pass.steps());
            let row = Epoch {
                epoch: progress.epoch + 1,
                learning_rate: rule.learning_rate,
                train_loss: progress.loss_sum / (batches.len() as f64).max(1.0),
                seconds: before + begun.elapsed().as_secs_f64(),
                slices_per_second: (batches.len() * self.setting.batch) as f64 / (before + learned.as_secs_f64()),
                ..Epoch::default()
            }
            .with_validation(&metrics);
            let is_best = self.keep_if_best(&metrics, &weights, &mut progress)?;
            epochs.push(row);
            self.write_epochs(&epochs)?;
            progress =
                Progress { epoch: progress.epoch + 1, batches_done: 0, loss_sum: 0.0, epoch_seconds: 0.0, ..progress };
            // No step was made since the checkpoint before validation.
            checkpoint::write_progress(self.disk, self.folder, &progress)?;
            let waited = if is_resumed_behind { 0.0 } else { waited.as_secs_f64() / learned.as_secs_f64().max(1e-9) };
            onlooker.epoch(&row, waited, is_best);
        }
        Ok(End::Done { best_epoch: progress.best_epoch + 1 })
    }

    /// Windows as the kernels take them.
    ///
    /// # Errors
    /// Numbers that make no sense.
    pub fn plan(&self) -> Result<WindowPlan, TrainError> {
        Ok(self.preprocessing.plan()?)
    }

    /// What brings slices to the device.
    pub fn feed<'f>(&'f self, plan: &'f WindowPlan) -> Feed<'f> {
        let (device, threads) = (self.device.device.clone(), self.setting.loaders());
        Feed { dataset: self.dataset, plan, device, threads }
    }

    fn begin(
        &self,
        trainee: &mut dyn Trainee,
        resume: bool,
        onlooker: &mut dyn Onlooker,
    ) -> Result<Progress, TrainError> {
        if resume && let Some((progress, state)) = checkpoint::read(self.disk, self.folder)? {
            if progress.run != self.digest {
                return Err(TrainError::OtherRun { folder: self.folder.to_owned() });
            }
            trainee.restore(&state)?;
            let (epoch, batches) = (progress.epoch + 1, progress.batches_done);
            onlooker.tell(format!("Going on in epoch {epoch} after {batches} batches."));
            return Ok(progress);
        }
        trainee.load(self.start)?;
        Ok(Progress { run: self.digest.clone(), ..Progress::default() })
    }

    /// Keeps the state, unless it holds what is no number: then the checkpoint before stays.
    fn checkpoint(&self, trainee: &mut dyn Trainee, progress: &mut Progress) -> Result<(), TrainError> {
        let state = trainee.state();
        if let Some(name) = not_finite(&state) {
            return Err(self.diverged(format!("the weights are no numbers any more ({name})"), progress));
        }
        Ok(checkpoint::write(self.disk, self.folder, progress, &state)?)
    }

    fn diverged(&self, what: String, progress: &Progress) -> TrainError {
        TrainError::Diverged {
            what,
            epoch: progress.epoch + 1,
            steps: progress.steps,
            best_epoch: progress.best.map(|_| progress.best_epoch + 1),
            folder: self.folder.to_owned(),
        }
    }

    fn validate(
        &self,
        feed: &Feed<'_>,
        weights: &Weights,
        progress: &Progress,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Metrics, TrainError> {
        let mut backbone = (self.spec.infer)(&self.device.device, self.variant, Precision::F32);
        backbone.load(weights)?;
        let validation = &self.parts.slices[1];
        let logits = score(feed, backbone.as_ref(), validation, self.setting.batch, is_stopped)?;
        let (targets, groups) = self.dataset.truth(validation);
        let predictions = match Predictions::from_logits(&logits, &targets, &groups, None) {
            Err(MeasureError::NotFinite { label, value, .. }) => {
                return Err(self.diverged(format!("a logit of {label} is {value} in the validation"), progress));
            }
            predictions => predictions?,
        };
        Ok(metrics::evaluate(&predictions, &[metrics::HALF; N_LABELS]))
    }

    fn keep_if_best(&self, metrics: &Metrics, weights: &Weights, progress: &mut Progress) -> Result<bool, TrainError> {
        let value = match self.setting.keep {
            Keep::LogLoss => metrics.weighted_log_loss,
            Keep::Accuracy => metrics.pooled.accuracy.map(|accuracy| -accuracy),
        };
        let is_best = match (value, progress.best) {
            (Some(value), Some(best)) => value < best,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_best {
            let path = self.best_path();
            let bytes = weights.to_safetensors()?;
            self.disk.write_whole(&path, &bytes).map_err(|source| TrainError::Io { path, source })?;
            (progress.best, progress.best_epoch) = (value, progress.epoch);
        }
        Ok(is_best)
    }

    fn best_path(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }

    /// The weights that were kept.
    ///
    /// # Errors
    /// There are none, or they are damaged.
    pub fn best(&self) -> Result<Weights, TrainError> {
        let path = self.best_path();
        let (_, bytes) =
            self.disk.read(&path, BYTES_MAX).map_err(|source| TrainError::Io { path: path.clone(), source })?;
        Ok(Weights::from_safetensors(&bytes, &path.display().to_string())?)
    }

    /// The epoch, from 1, of the weights that were kept, of a run that may not be finished.
    ///
    /// # Errors
    /// There is no run, or another one, or none of its epochs was finished.
    pub fn best_so_far(&self) -> Result<u32, TrainError> {
        let progress = checkpoint::read_progress(self.disk, self.folder)?.unwrap_or_default();
        if progress.best.is_none() {
            return Err(TrainError::NoBest { folder: self.folder.to_owned() });
        }
        if progress.run != self.digest {
            return Err(TrainError::OtherRun { folder: self.folder.to_owned() });
        }
        Ok(progress.best_epoch + 1)
    }

    fn epochs_path(&self) -> PathBuf {
        self.folder.join("metrics.csv")
    }

    /// Lines of epochs that were finished before; what was written after the last checkpoint comes again.
    fn epochs_before(&self, progress: &Progress) -> Result<Vec<Epoch>, TrainError> {
        if progress.epoch == 0 {
            return Ok(Vec::new());
        }
        let path = self.epochs_path();
        let text = std::fs::read_to_string(&path).map_err(|source| TrainError::Io { path: path.clone(), source })?;
        let mut epochs = epoch::parse(&text)
            .map_err(|error| TrainError::Io { path, source: std::io::Error::other(error.to_string()) })?;
        epochs.retain(|row| row.epoch <= progress.epoch);
        Ok(epochs)
    }

    fn write_epochs(&self, epochs: &[Epoch]) -> Result<(), TrainError> {
        let path = self.epochs_path();
        let text: String = std::iter::once(epoch::header()).chain(epochs.iter().map(Epoch::row)).collect();
        self.disk.write_whole(&path, text.as_bytes()).map_err(|source| TrainError::Io { path, source })
    }

    /// All epochs of the run so far.
    ///
    /// # Errors
    /// `metrics.csv` cannot be read.
    pub fn epochs(&self) -> Result<Vec<Epoch>, TrainError> {
        self.epochs_before(&Progress { epoch: u32::MAX, ..Progress::default() })
    }
}

/// The first tensor with a value that is infinite or no number.
fn not_finite(weights: &Weights) -> Option<&str> {
    let mut all = weights.iter();
    all.find(|(_, entry)| !entry.values.iter().all(|value| value.is_finite())).map(|(name, _)| name)
}

/// One walk over an epoch's batches.
struct Pass<'p> {
    training: &'p Training<'p>,
    feed: &'p Feed<'p>,
    batches: &'p [Batch],
    positive_weights: [f32; N_LABELS],
    begun: Instant,
}

impl Pass<'_> {
    /// Steps of the optimizer in an epoch.
    fn steps(&self) -> u64 {
        self.batches.len().div_ceil(self.training.setting.accumulate) as u64
    }

    /// What each target of a batch weighs, so that the mean weight of a label is its share of the label weights.
    fn weights(&self, batch: &Batch) -> Tensor<2> {
        let label_weights = &self.training.setting.label_weights;
        let sum: f32 = label_weights.iter().sum();
        let mut values = Vec::with_capacity(batch.slices.len() * N_LABELS);
        for at in &batch.slices {
            for (label, positive) in self.feed.dataset.labels[*at].into_iter().enumerate() {
                let positive = if positive { self.positive_weights[label] } else { 1.0 };
                values.push(label_weights[label] * N_LABELS as f32 / sum * positive);
            }
        }
        Tensor::from_data(TensorData::new(values, [batch.slices.len(), N_LABELS]), &self.feed.device)
    }

    /// From where the progress stands to the end. Returns how long the device waited for data; see [`Feed::walk`].
    fn walk(
        &self,
        trainee: &mut dyn Trainee,
        progress: &mut Progress,
        onlooker: &mut dyn Onlooker,
    ) -> Result<Duration, TrainError> {
        let setting = self.training.setting;
        let accumulate = setting.accumulate as u64;
        let before = progress.epoch_seconds;
        let (all, first) = (self.batches.len() as u64, progress.batches_done);
        let mut written = Instant::now();
        let mut unread: Option<(Tensor<1>, u64)> = None;
        let rest = self.batches.get(usize::try_from(first).unwrap_or(usize::MAX)..).unwrap_or_default();
        self.feed.walk(rest, |batch, images| {
            let targets = self.feed.targets(batch);
            let loss = trainee.accumulate(images, targets, self.weights(batch), 1.0 / accumulate as f64);
            progress.batches_done += 1;
            let (sum, count) = match unread.take() {
                Some((sum, count)) => (sum + loss, count + 1),
                None => (loss, 1),
            };
            let is_last = progress.batches_done == all;
            let is_step = progress.batches_done.is_multiple_of(accumulate) || is_last;
            if is_step {
                trainee.apply(&setting.rule(progress.steps, self.steps()));
                progress.steps += 1;
            }
            let stop = is_step && onlooker.is_stopped();
            let is_due = is_step && written.elapsed().as_secs() >= setting.checkpoint_secs;
            if count < READ_EVERY && !is_last && !stop && !is_due && !self.feed_is_cpu() {
                unread = Some((sum, count));
                return Ok(Queue::Unknown);
            }
            let sum = f64::from(read(sum)?.first().copied().unwrap_or(f32::NAN));
            let emptied = Instant::now();
            if !sum.is_finite() {
                let what = format!("the loss is {}", sum / count as f64);
                return Err(self.training.diverged(what, progress));
            }
            progress.loss_sum += sum;
            let slices = (progress.batches_done - first) * setting.batch as u64;
            let rate = slices as f64 / self.begun.elapsed().as_secs_f64();
            let mean = progress.loss_sum / progress.batches_done as f64;
            onlooker.batch(progress.epoch + 1, progress.batches_done, all, mean, rate);
            progress.epoch_seconds = before + self.begun.elapsed().as_secs_f64();
            if stop {
                return Err(TrainError::Stopped);
            }
            if is_due && !is_last {
                self.training.checkpoint(trainee, progress)?;
                written = Instant::now();
            }
            Ok(Queue::Empty(emptied))
        })
    }

    /// On the CPU nothing is gained by reading losses late.
    fn feed_is_cpu(&self) -> bool {
        self.training.device.is_cpu()
    }
}

#[cfg(test)]
#[path = "training_tests.rs"]
mod tests;
