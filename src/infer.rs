//! window and infer: batches become logits on the one device. One thread owns it. Knows no file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor};
use crossbeam_channel::{Receiver, Sender};
use ichd_kernels::{SliceView, StoredPixels, Transport, WindowPlan, window_tensor};
use ichd_plugin::backbone::Backbone;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::Precision;

use crate::clock::{Clock, Tick};
use crate::device::Chosen;
use crate::ensemble::Logits;
use crate::error::{Exit, Fatal};
use crate::model::Model;
use crate::parcel::{Arrival, Batch, Scored};
use crate::roster::Route;
use crate::slice::{Pixels, Slice};
use crate::tally::Tally;

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
    /// The device did not answer.
    #[error("the device failed: {0}")]
    Device(String),
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

    /// Scores slices, at least one.
    ///
    /// # Errors
    /// The device failed.
    pub fn score(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<EngineOutput, EngineError> {
        let begun = clock.now();
        let images = self.window(slices)?;
        let windowed = clock.now();
        let logits = self.backbone.forward(images);
        let values = logits
            .try_into_data()
            .map_err(|error| EngineError::Device(format!("{error:?}")))?
            .try_to_vec::<f32>()
            .map_err(|error| EngineError::Device(format!("{error:?}")))?;
        let (rows, rest) = values.as_chunks::<N_LABELS>();
        if rows.len() != slices.len() || !rest.is_empty() {
            return Err(EngineError::Device(format!("{} logits for {} slices", values.len(), slices.len())));
        }
        let ended = clock.now();
        Ok(EngineOutput { logits: rows.to_vec(), window_time: windowed - begun, infer_time: ended - windowed })
    }

    /// `[n, channels, side, side]` in channels-last memory.
    fn window(&self, slices: &[&Slice]) -> Result<Tensor<4>, EngineError> {
        let views: Vec<SliceView<'_>> = slices.iter().map(|slice| view(slice)).collect();
        let images = window_tensor(&self.plan, &views, &self.device, self.dtype, self.transport);
        let images = images.map_err(|error| EngineError::Window(error.to_string()))?;
        Ok(images.permute([0, 3, 1, 2]))
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

/// All models on the device, each once, and which of them serve which route.
pub struct Fleet {
    /// In the order of [`Roster::models`](crate::roster::Roster::models).
    pub engines: Vec<Engine>,
    /// The routes.
    pub routes: Arc<[Route]>,
}

/// The thread.
///
/// # Errors
/// The device failed: the process must be started again.
pub fn run(
    fleet: Fleet,
    clock: &Arc<dyn Clock>,
    tally: &Tally,
    batches: &Receiver<Batch>,
    record: &Sender<Arrival>,
) -> Result<(), Fatal> {
    let Fleet { mut engines, routes } = fleet;
    for Batch { route, mut works } in batches {
        let begun_at = clock.now();
        let Route { ensemble, models, .. } = &routes[route];
        let slices: Vec<&Slice> = works.iter().map(|work| &work.slice).collect();
        let score = || -> Result<Vec<EngineOutput>, EngineError> {
            models.iter().map(|model| engines[*model].score(&slices, clock.as_ref())).collect()
        };
        // A faulted device makes the tensor library panic; the process cannot go on with it, but it can say so.
        let outputs = match catch_unwind(AssertUnwindSafe(score)) {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(error @ EngineError::Device(_))) => return Err(Fatal::new(Exit::Device, error.to_string())),
            Ok(Err(error)) => return Err(Fatal::new(Exit::Bug, error.to_string())),
            Err(_) => return Err(Fatal::new(Exit::Device, "the device failed in the middle of a batch")),
        };
        tally.scored(works.len());
        for work in &mut works {
            work.slice.pixels = Pixels::I16(Vec::new());
        }
        let of_slice = |slice: usize| -> Vec<Logits> { outputs.iter().map(|output| output.logits[slice]).collect() };
        let answers = (0..works.len()).map(|slice| ensemble.combine(of_slice(slice))).collect();
        let window_time = outputs.iter().map(|output| output.window_time).sum();
        let infer_time = outputs.iter().map(|output| output.infer_time).sum();
        let scored = Scored { route, works, answers, begun_at, window_time, infer_time };
        if record.send(Arrival::Scored(scored)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
