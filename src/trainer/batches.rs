//! Batches in the order of an epoch, read ahead. Knows no network.
//!
//! Threads walk ahead of the device: they hold every slice against its digest when the program first uses it, bring its
//! pages into memory, and gather a GPU's batches, so that the device's thread has nothing to do but to move them there.
//! Windowing, cropping, mirroring and resizing happen in the windowing kernel on the device. What comes out does not depend
//! on the number of threads: batches are handed on in their order.

use std::time::{Duration, Instant};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use crossbeam_channel::{Receiver, bounded};
use ichd_kernels::{Flip, Gathered, KernelError, Rect, SliceView, Transport, WindowPlan, on_cpu, window_tensor};
use ichd_plugin::label::N_LABELS;

use super::augment::{Augmentation, augmentation};
use super::cache::CacheError;
use super::dataset::Dataset;
use super::settings::AugmentSetting;
use super::waiting::{Queue, Waiting};

/// Batches that are ready at the least, once the threads are ahead.
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
    /// Threads that read ahead, at least one.
    pub threads: usize,
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
    /// The system refuses a thread.
    #[error("no thread could be started to read ahead: {0}; fewer (train.loader_threads) may be possible")]
    Thread(std::io::Error),
}

impl From<KernelError> for FeedError {
    fn from(error: KernelError) -> FeedError {
        FeedError::Window(error.to_string())
    }
}

/// A batch that was read ahead: gathered for a GPU, or in memory for the CPU, which reads pixels where they lie.
type Read = Result<Option<Gathered>, FeedError>;

impl Feed<'_> {
    /// Calls `work` for every batch in order, with its images `[n, windows, side, side]` on the device. `work` says
    /// whether it read results of the batch, which empties the device's queue.
    ///
    /// Returns how long the device waited for data. The loop's waiting is the time from asking for a batch until the device
    /// is handed it: for a GPU that includes the call that moves it there, which may return before all is copied; for the CPU
    /// windowing is work and no waiting. How much of that the device waited is told by [`Waiting`]: all of it on the CPU, and
    /// at most that, rather too much than too little, on a device that works on behind the calls.
    ///
    /// Each thread has one batch in work, and up to [`AHEAD`] batches, or one for each thread, are ready: memory is bounded by
    /// that.
    ///
    /// # Errors
    /// Of the first batch that cannot be made, once those before it are done, or of `work`, which ends the walk.
    pub fn walk<E: From<FeedError>>(
        &self,
        batches: &[Batch],
        mut work: impl FnMut(&Batch, Tensor<4>) -> Result<Queue<Instant>, E>,
    ) -> Result<Duration, E> {
        let transport = (!on_cpu(&self.device)).then(|| Transport::of(&self.device));
        let (begun, mut waiting) = (Instant::now(), Waiting::default());
        std::thread::scope(|scope| -> Result<(), E> {
            let threads = self.threads.clamp(1, batches.len().max(1));
            let mut loaders: Vec<Receiver<Read>> = Vec::with_capacity(threads);
            for first in 0..threads {
                let (sender, receiver) = bounded(AHEAD.div_ceil(threads));
                let of_thread = batches.iter().skip(first).step_by(threads);
                let load = move || {
                    for batch in of_thread {
                        let read = self.read(batch, transport);
                        let failed = read.is_err();
                        if sender.send(read).is_err() || failed {
                            return;
                        }
                    }
                };
                let thread = std::thread::Builder::new().name(format!("loader-{first}"));
                thread.spawn_scoped(scope, load).map_err(FeedError::Thread)?;
                loaders.push(receiver);
            }
            for (batch, loader) in batches.iter().zip(loaders.iter().cycle()) {
                waiting.asked(begun.elapsed());
                // A thread that ends early has panicked, which the scope tells.
                let Ok(read) = loader.recv() else { return Ok(()) };
                let images = match read? {
                    Some(gathered) => {
                        let uploaded = gathered.upload(&self.device);
                        waiting.handed(begun.elapsed());
                        uploaded.window(FloatDType::F32)
                    }
                    None => {
                        waiting.handed(begun.elapsed());
                        let (views, transport) = (self.views(batch)?, Transport::of(&self.device));
                        window_tensor(self.plan, &views, &self.device, FloatDType::F32, transport)
                            .map_err(FeedError::from)?
                    }
                };
                if let Queue::Empty(at) = work(batch, images.permute([0, 3, 1, 2]))? {
                    waiting.emptied(at.saturating_duration_since(begun));
                }
            }
            Ok(())
        })?;
        Ok(waiting.sum())
    }

    /// Brings a batch's slices into memory, each held against its digest at first use, and gathers them for a transport.
    fn read(&self, batch: &Batch, transport: Option<Transport>) -> Read {
        let cache = &self.dataset.cache;
        let mut sum = 0u64;
        for at in &batch.slices {
            if !cache.verify_once(*at)? && transport.is_none() {
                sum = sum.wrapping_add(cache.touch(*at));
            }
        }
        std::hint::black_box(sum);
        let Some(transport) = transport else { return Ok(None) };
        Ok(Some(Gathered::new(self.plan, &self.views(batch)?, transport)?))
    }

    fn views(&self, batch: &Batch) -> Result<Vec<SliceView<'_>>, FeedError> {
        let views = batch.slices.iter().zip(&batch.seen).map(|(at, seen)| {
            let mut view = self.dataset.cache.view(*at)?;
            (view.rect, view.flip) = (seen.rect, seen.flip);
            Some(view)
        });
        let views: Option<Vec<_>> = views.collect();
        views.ok_or_else(|| FeedError::Window("a slice of the batch is not in the cache".into()))
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

#[cfg(test)]
#[path = "batches_tests.rs"]
mod tests;
