//! A model on a device: slices go in, logits come out. Knows no thread and no file.

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor};
use ichd_kernels::{SliceView, StoredPixels, Transport, WindowPlan, has_half_products, window_tensor};
use ichd_plugin::backbone::Backbone;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::Precision;

use crate::clock::{Clock, Tick};
use crate::device::Chosen;
use crate::model::Model;
use crate::slice::{Facts, Geometry, Pixels, Rescale, Slice, SliceIds};

/// What turns slices into logits: an [`Engine`], or in tests one with faults.
pub trait Scorer: Send {
    /// Scores slices, at least one. The logits stand in the order of the slices.
    ///
    /// # Errors
    /// The device or the model failed. The tensor library may also panic; the caller expects that.
    fn score(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<EngineOutput, EngineError>;

    /// Who makes the images of a batch while another is scored. `None` where that gains nothing: a CPU has no hand free.
    fn uploader(&self) -> Option<Box<dyn Uploader>> {
        None
    }

    /// Scores slices whose images are on the device already.
    ///
    /// # Errors
    /// As [`Scorer::score`]; that the images could not be made may show only here.
    fn score_images(
        &mut self,
        slices: &[&Slice],
        images: Images,
        clock: &dyn Clock,
    ) -> Result<EngineOutput, EngineError> {
        drop(images);
        self.score(slices, clock)
    }
}

/// What brings slices to a device and windows them there, on a thread of its own.
pub trait Uploader: Send {
    /// Makes the images of slices, at least one. Returns once all of it is on its way.
    ///
    /// # Errors
    /// As [`Scorer::score`]. The tensor library may also panic.
    fn upload(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<Images, EngineError>;
}

/// Images of a batch on a device.
#[derive(Clone, Debug)]
pub struct Images {
    /// `[n, channels, side, side]` in channels-last memory; `n` may be larger than the batch, with nothing in the last ones.
    pub tensor: Tensor<4>,
    /// Of so many slices.
    pub n_slices: usize,
    /// What it took to make them, as far as the host had to wait.
    pub window_time: Tick,
}

/// A model on a device, with its preprocessing.
pub struct Engine {
    backbone: Box<dyn Backbone>,
    windower: Windower,
}

/// A model's preprocessing on a device.
#[derive(Clone)]
struct Windower {
    device: Device,
    plan: Arc<WindowPlan>,
    transport: Transport,
    /// In which the images are made.
    dtype: FloatDType,
    is_cpu: bool,
    /// Sizes of batches that the device is ready for, smallest first.
    sizes: Vec<usize>,
}

/// The device or the model failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model does not fit its backbone.
    #[error("the model cannot be used: {0}")]
    Model(String),
    /// A slice that the kernels refuse although it was admitted: a bug.
    #[error("windowing failed: {0}; this is a bug")]
    Window(String),
    /// The device has no memory left for so many slices; fewer may fit.
    #[error("the device has no memory left: {0}")]
    Memory(String),
    /// The device did not answer, or not any more.
    #[error("the device failed: {0}")]
    Device(String),
}

impl EngineError {
    /// An error of the tensor library by what it says: its types lose the kind on their way up. A lack of memory passes,
    /// everything else is taken for a device that is lost.
    pub fn of_device(text: &str) -> EngineError {
        const MEMORY: [&str; 4] = ["out of device memory", "out-of-memory", "out of memory", "OutOfMemory"];
        // Behind the cause comes a backtrace.
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(4).collect();
        let cause: String = lines.join(" ").chars().take(400).collect();
        if MEMORY.iter().any(|word| text.contains(word)) {
            EngineError::Memory(cause)
        } else {
            EngineError::Device(cause)
        }
    }
}

/// Logits of a batch and what they took.
#[derive(Clone, Debug)]
pub struct EngineOutput {
    /// Logits of each slice in label order; possibly not finite.
    pub logits: Vec<[f32; N_LABELS]>,
    /// Time for windowing and resizing.
    pub window_time: Tick,
    /// Time for the network.
    pub infer_time: Tick,
}

impl Engine {
    /// Puts the model on the device.
    ///
    /// # Errors
    /// The weights do not fit the backbone, or the preprocessing makes no sense.
    pub fn new(model: &Model, chosen: &Chosen) -> Result<Engine, EngineError> {
        let precision = model.card.precision;
        let dtype = number_type(precision, chosen)?;
        let mut backbone = (model.spec.infer)(&chosen.device, model.card.variant(), precision);
        backbone.load(&model.weights).map_err(|error| EngineError::Model(error.to_string()))?;
        let plan = model.card.preprocessing.plan().map_err(|error| EngineError::Model(error.to_string()))?;
        let device = chosen.device.clone();
        let windower = Windower {
            transport: Transport::of(&device),
            device,
            plan: Arc::new(plan),
            dtype,
            is_cpu: chosen.is_cpu(),
            sizes: Vec::new(),
        };
        Ok(Engine { backbone, windower })
    }

    /// The same for batches of these sizes: others are filled up with empty images to the next of them, so that the device
    /// meets no size for which it would have to choose or compile kernels. Those that are larger than all go as they are.
    pub fn for_sizes(mut self, sizes: &[usize]) -> Engine {
        self.windower.sizes = sizes.to_vec();
        self.windower.sizes.sort_unstable();
        self
    }

    /// Who makes images ahead on this device, whether it gains anything there or not.
    pub fn any_uploader(&self) -> Box<dyn Uploader> {
        Box::new(self.windower.clone())
    }
}

impl Windower {
    fn window(&self, slices: &[&Slice], clock: &dyn Clock) -> Result<Images, EngineError> {
        let begun = clock.now();
        let views: Vec<SliceView<'_>> = slices.iter().map(|slice| view(slice)).collect();
        let images = window_tensor(&self.plan, &views, &self.device, self.dtype, self.transport);
        let images = self.filled_up(images.map_err(|error| EngineError::Window(error.to_string()))?);
        let tensor = images.permute([0, 3, 1, 2]);
        Ok(Images { tensor, n_slices: slices.len(), window_time: clock.now().saturating_sub(begun) })
    }
}

impl Windower {
    /// See [`Engine::for_sizes`].
    fn filled_up(&self, images: Tensor<4>) -> Tensor<4> {
        let [n, rows, columns, channels] = images.dims();
        match self.sizes.iter().find(|size| **size >= n) {
            Some(size) if *size > n => {
                let options = (&self.device, DType::from(self.dtype));
                Tensor::cat(vec![images, Tensor::zeros([size - n, rows, columns, channels], options)], 0)
            }
            _ => images,
        }
    }
}

impl Uploader for Windower {
    fn upload(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<Images, EngineError> {
        let images = self.window(slices, clock)?;
        // Not left to the thread that reads them first: they are to be made meanwhile. What fails shows when they are read.
        self.device.flush().map_err(|error| EngineError::of_device(&format!("{error:?}")))?;
        Ok(images)
    }
}

impl Scorer for Engine {
    fn score(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<EngineOutput, EngineError> {
        let images = self.windower.window(slices, clock)?;
        self.score_images(slices, images, clock)
    }

    fn uploader(&self) -> Option<Box<dyn Uploader>> {
        (!self.windower.is_cpu).then(|| self.any_uploader())
    }

    fn score_images(
        &mut self,
        slices: &[&Slice],
        images: Images,
        clock: &dyn Clock,
    ) -> Result<EngineOutput, EngineError> {
        let Images { tensor, n_slices, window_time } = images;
        let [n_images, ..] = tensor.dims();
        let begun = clock.now();
        let logits = self.backbone.forward(tensor);
        let values = logits
            .try_into_data()
            .map_err(|error| EngineError::of_device(&format!("{error:?}")))?
            .try_to_vec::<f32>()
            .map_err(|error| EngineError::of_device(&format!("{error:?}")))?;
        let (rows, rest) = values.as_chunks::<N_LABELS>();
        if n_slices != slices.len() || rows.len() != n_images || n_images < n_slices || !rest.is_empty() {
            return Err(EngineError::Device(format!("{} logits for {} slices", values.len(), slices.len())));
        }
        Ok(EngineOutput {
            logits: rows[..n_slices].to_vec(),
            window_time,
            infer_time: clock.now().saturating_sub(begun),
        })
    }
}

/// The type of number that images have for a precision, if the device has it.
fn number_type(precision: Precision, chosen: &Chosen) -> Result<FloatDType, EngineError> {
    let (wanted, dtype) = match precision {
        Precision::F32 => return Ok(FloatDType::F32),
        // A CPU rounds what it multiplies, and nothing else.
        Precision::Bf16 if chosen.is_cpu() && has_half_products() => return Ok(FloatDType::F32),
        Precision::F16 => (FloatDType::F16, DType::F16),
        Precision::Bf16 => (FloatDType::BF16, DType::BF16),
    };
    if !chosen.is_cpu() && chosen.device.supports_dtype(dtype) {
        return Ok(wanted);
    }
    let (name, device) = (precision.name(), &chosen.name);
    let lacks = if chosen.is_cpu() && precision == Precision::Bf16 { " without AVX512-BF16" } else { "" };
    Err(EngineError::Model(format!("precision {name} is not served by {device}{lacks}; precision: f32 would be right")))
}

/// A slice as the kernels take it: the whole of it.
pub fn view(slice: &Slice) -> SliceView<'_> {
    let pixels = match &slice.pixels {
        Pixels::I16(values) => StoredPixels::I16(values),
        Pixels::U16(values) => StoredPixels::U16(values),
    };
    SliceView {
        pixels,
        rows: slice.rows,
        columns: slice.columns,
        slope: slice.rescale.slope,
        intercept: slice.rescale.intercept,
        bits_stored: slice.bits_stored,
        inverted: slice.inverted,
        padding: slice.padding.clone(),
        ..SliceView::default()
    }
}

/// A slice of air, to try a scorer with.
pub fn blank(side: usize) -> Slice {
    Slice {
        ids: SliceIds::default(),
        pixels: Pixels::I16(vec![0; side * side]),
        rows: side,
        columns: side,
        bits_stored: 16,
        rescale: Rescale { slope: 1.0, intercept: -1024.0 },
        inverted: false,
        padding: None,
        geometry: Geometry::default(),
        facts: Facts::default(),
        transfer_syntax: String::new(),
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Config;
    use crate::device::{self, Want};
    use crate::roster::Roster;

    #[test]
    fn images_that_another_thread_makes_are_scored_as_if_made_here() {
        let roster = Roster::load(&Config::default()).unwrap_or_else(|_| panic!("no roster"));
        let chosen = device::choose(Want::Cpu).unwrap();
        let mut engine = Engine::new(&roster.models[0], &chosen).unwrap();
        assert!(engine.uploader().is_none(), "a CPU has no hand free");
        let slices: Vec<Slice> = (0..3)
            .map(|n| Slice { pixels: Pixels::I16((0..4096).map(|at| 1024 + at % (70 + n)).collect()), ..blank(64) })
            .collect();
        let slices: Vec<&Slice> = slices.iter().collect();
        let clock = SystemClock::new();
        let mut uploader = engine.any_uploader();
        let images =
            std::thread::scope(|scope| scope.spawn(|| uploader.upload(&slices, &clock).unwrap()).join().unwrap());
        let ahead = engine.score_images(&slices, images, &clock).unwrap();
        let here = engine.score(&slices, &clock).unwrap();
        assert_eq!(ahead.logits, here.logits);
        assert!(ahead.logits[0] != ahead.logits[1] && ahead.window_time > Tick::ZERO);
        // The same slices in a batch that is filled up, and one that is larger than all sizes.
        let mut padded = Engine::new(&roster.models[0], &chosen).unwrap().for_sizes(&[2, 4, 1]);
        let dims = |n: usize| padded.windower.window(&vec![slices[0]; n], &clock).unwrap().tensor.dims()[0];
        assert_eq!([dims(1), dims(2), dims(3), dims(4), dims(5)], [1, 2, 4, 4, 5]);
        assert_eq!(padded.score(&slices, &clock).unwrap().logits, here.logits);
        for others in [&slices[1..], &[slices[0]; 4]] {
            let images = engine.windower.window(others, &clock).unwrap();
            assert!(matches!(engine.score_images(&slices, images, &clock), Err(EngineError::Device(_))));
        }
        let filled_up = padded.windower.window(&slices[1..], &clock).unwrap();
        assert!(matches!(padded.score_images(&slices[..1], filled_up, &clock), Err(EngineError::Device(_))));
    }

    #[test]
    fn a_lack_of_memory_is_told_from_a_lost_device() {
        let texts = [
            "An error happened during execution\nCaused by:\n  out of device memory allocating 1024 bytes\n0: frame",
            "An out-of-memory error happened during launch",
            "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        ];
        for text in texts {
            assert!(matches!(EngineError::of_device(text), EngineError::Memory(_)), "{text}");
        }
        let EngineError::Device(cause) = EngineError::of_device("The device was poisoned\n\n  illegal address") else {
            panic!("a poisoned device is lost")
        };
        assert_eq!(cause, "The device was poisoned illegal address");
    }
}
