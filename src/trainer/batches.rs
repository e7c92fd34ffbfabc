//! Batches in the order of an epoch, read ahead. Knows no network.
//!
//! A thread walks ahead of the device: it reads the next batches' pages, so that the device's thread finds them in memory,
//! and at first use holds every slice against its digest. Windowing, cropping, mirroring and resizing happen in the
//! windowing kernel on the device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use crossbeam_channel::{Receiver, bounded};
use ichd_kernels::{Flip, Rect, Transport, WindowPlan, window_tensor};
use ichd_plugin::label::N_LABELS;

use super::augment::{Augmentation, augmentation};
use super::cache::CacheError;
use super::dataset::Dataset;
use super::settings::AugmentSetting;

/// Batches that are read ahead.
const AHEAD: usize = 4;

/// Slices of one batch, and how they are seen.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Numbers in the data set.
    pub slices: Vec<usize>,
    /// How each is seen.
    pub seen: Vec<Augmentation>,
}

/// What batches are made of.
pub struct Feed<'f> {
    /// The slices.
    pub dataset: &'f Dataset,
    /// Windows, side and normalization.
    pub plan: &'f WindowPlan,
    /// Where images are wanted.
    pub device: Device,
    /// Slices of which the digest was checked in this run.
    pub checked: &'f [AtomicBool],
}

/// A batch that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The cache was changed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The kernels refuse a slice: a bug.
    #[error("windowing failed: {0}; this is a bug")]
    Window(String),
}

impl Feed<'_> {
    /// Calls `work` for every batch in order, with its images `[n, windows, side, side]` on the device. Returns how long
    /// the device's thread waited for data.
    ///
    /// # Errors
    /// Of a batch, or of `work`, which ends the walk.
    pub fn walk<E: From<FeedError>>(
        &self,
        batches: &[Batch],
        mut work: impl FnMut(&Batch, Tensor<4>) -> Result<(), E>,
    ) -> Result<Duration, E> {
        let mut waited = Duration::ZERO;
        std::thread::scope(|scope| -> Result<(), E> {
            let (sender, receiver) = bounded::<Result<usize, CacheError>>(AHEAD);
            scope.spawn(move || {
                for (at, batch) in batches.iter().enumerate() {
                    let read = self.read(batch).map(|()| at);
                    let failed = read.is_err();
                    if sender.send(read).is_err() || failed {
                        return;
                    }
                }
            });
            let received: Receiver<_> = receiver;
            loop {
                let begun = Instant::now();
                let Ok(read) = received.recv() else { return Ok(()) };
                let batch = &batches[read.map_err(FeedError::from)?];
                waited += begun.elapsed();
                let images = self.images(batch)?;
                work(batch, images)?;
            }
        })?;
        Ok(waited)
    }

    fn read(&self, batch: &Batch) -> Result<(), CacheError> {
        let mut sum = 0u64;
        for at in &batch.slices {
            match self.checked.get(*at) {
                Some(checked) if !checked.swap(true, Ordering::Relaxed) => self.dataset.cache.verify(*at)?,
                _ => sum = sum.wrapping_add(self.dataset.cache.touch(*at)),
            }
        }
        std::hint::black_box(sum);
        Ok(())
    }

    fn images(&self, batch: &Batch) -> Result<Tensor<4>, FeedError> {
        let views = batch.slices.iter().zip(&batch.seen).filter_map(|(at, seen)| {
            let mut view = self.dataset.cache.view(*at)?;
            (view.rect, view.flip) = (seen.rect, seen.flip);
            Some(view)
        });
        let views: Vec<_> = views.collect();
        if views.len() != batch.slices.len() {
            return Err(FeedError::Window("a slice of the batch is not in the cache".into()));
        }
        let images = window_tensor(self.plan, &views, &self.device, FloatDType::F32, Transport::of(&self.device))
            .map_err(|error| FeedError::Window(error.to_string()))?;
        Ok(images.permute([0, 3, 1, 2]))
    }

    /// Targets `[n, 6]` of a batch.
    pub fn targets(&self, batch: &Batch) -> Tensor<2> {
        let values = self.dataset.targets(&batch.slices);
        Tensor::from_data(TensorData::new(values, [batch.slices.len(), N_LABELS]), &self.device)
    }
}

/// Batches of an epoch's slices as augmentation shows them. A last batch that is not full is left out unless it is the
/// only one: BatchNorm and step size are made for full ones.
pub fn training_batches(
    dataset: &Dataset,
    order: &[usize],
    size: usize,
    setting: &AugmentSetting,
    seed: u64,
    epoch: u32,
) -> Vec<Batch> {
    let full = order.len() / size * size;
    let used = if full == 0 { order } else { &order[..full] };
    // A slice that comes several times in an epoch is seen in several ways, so the place counts, not the slice.
    let place_of_chunk = |chunk: usize| chunk * size;
    let batch = |(chunk, slices): (usize, &[usize])| {
        let seen = (place_of_chunk(chunk)..).zip(slices).map(|(place, at)| {
            let item = &dataset.items[*at];
            let (rows, columns) = dataset.cache.view(*at).map_or((item.rows, item.columns), |v| (v.rows, v.columns));
            augmentation(setting, seed, epoch, place as u64, rows, columns)
        });
        Batch { slices: slices.to_vec(), seen: seen.collect() }
    };
    used.chunks(size).enumerate().map(batch).collect()
}

/// Batches of slices as they are.
pub fn plain_batches(slices: &[usize], size: usize) -> Vec<Batch> {
    let plain = Augmentation { rect: None::<Rect>, flip: Flip::default() };
    slices.chunks(size).map(|slices| Batch { slices: slices.to_vec(), seen: vec![plain; slices.len()] }).collect()
}
