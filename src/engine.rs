//! A model on a device: slices go in, logits come out. Knows no thread and no file.

use burn::tensor::{DType, Device, FloatDType, Tensor};
use ichd_kernels::{SliceView, StoredPixels, Transport, WindowPlan, window_tensor};
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
}

/// A model on a device, with its preprocessing.
pub struct Engine {
    backbone: Box<dyn Backbone>,
    device: Device,
    plan: WindowPlan,
    transport: Transport,
    /// In which the images are made.
    dtype: FloatDType,
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
        Ok(Engine { backbone, transport: Transport::of(&device), device, plan, dtype })
    }

    /// `[n, channels, side, side]` in channels-last memory.
    fn window(&self, slices: &[&Slice]) -> Result<Tensor<4>, EngineError> {
        let views: Vec<SliceView<'_>> = slices.iter().map(|slice| view(slice)).collect();
        let images = window_tensor(&self.plan, &views, &self.device, self.dtype, self.transport);
        let images = images.map_err(|error| EngineError::Window(error.to_string()))?;
        Ok(images.permute([0, 3, 1, 2]))
    }
}

impl Scorer for Engine {
    fn score(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<EngineOutput, EngineError> {
        let begun = clock.now();
        let images = self.window(slices)?;
        let windowed = clock.now();
        let logits = self.backbone.forward(images);
        let values = logits
            .try_into_data()
            .map_err(|error| EngineError::of_device(&format!("{error:?}")))?
            .try_to_vec::<f32>()
            .map_err(|error| EngineError::of_device(&format!("{error:?}")))?;
        let (rows, rest) = values.as_chunks::<N_LABELS>();
        if rows.len() != slices.len() || !rest.is_empty() {
            return Err(EngineError::Device(format!("{} logits for {} slices", values.len(), slices.len())));
        }
        let ended = clock.now();
        Ok(EngineOutput { logits: rows.to_vec(), window_time: windowed - begun, infer_time: ended - windowed })
    }
}

/// The type of number for a precision, if the device has it.
fn number_type(precision: Precision, chosen: &Chosen) -> Result<FloatDType, EngineError> {
    let (wanted, dtype) = match precision {
        Precision::F32 => return Ok(FloatDType::F32),
        Precision::F16 => (FloatDType::F16, DType::F16),
        Precision::Bf16 => (FloatDType::BF16, DType::BF16),
    };
    if !chosen.is_cpu() && chosen.device.supports_dtype(dtype) {
        return Ok(wanted);
    }
    let (name, device) = (precision.name(), &chosen.name);
    Err(EngineError::Model(format!("precision {name} is not served by {device}; precision: f32 would be right")))
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
