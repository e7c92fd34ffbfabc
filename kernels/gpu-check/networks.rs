//! Scoring: every backbone's logits against the CPU's, and images a second, as the daemon does it. Knows no file.

use burn::tensor::{Device, FloatDType, Tensor, capture};
use crossbeam_channel::bounded;
use ichd::clock::SystemClock;
use ichd::device::{Chosen, Want, choose};
use ichd::engine::{Engine, EngineError, Scorer, blank, view};
use ichd::frugal::guarded;
use ichd::model::{Model, ModelCard, Preprocessing};
use ichd::phantom::PhantomOptions;
use ichd::phantom::render::Study;
use ichd::slice::{Pixels, Rescale, Slice};
use ichd_kernels::parity::Finding;
use ichd_kernels::{Ramp, SliceView, Transport, Window, window_tensor};
use ichd_plugin::backbone::Backbone;
use ichd_plugin::contract;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Convention, Precision};
use ichd_plugin::weights::Weights;

use crate::measure::{Times, read};
use crate::report::{Journal, NetworkTime};
use crate::{Bench, Stop};

/// Different slices; larger batches repeat them.
const SLICES: usize = 8;
/// Slices whose logits are compared.
const COMPARED: usize = 4;
/// Largest batch that is tried as a graph.
const LARGEST_OF_A_GRAPH: usize = 32;
/// Most that f32 logits may differ from the CPU's, relative to the largest of a slice or 1. Tensor cores may take TF32,
/// which has three digits more than bfloat16.
const FULL: f32 = contract::HALF / 8.0;

type Logits = Vec<[f32; N_LABELS]>;

/// The whole part.
pub fn run(bench: &Bench<'_>, journal: &mut Journal) -> Result<(), Stop> {
    let slices = slices();
    for spec in bench.backbones() {
        if bench.budget.is_spent() {
            journal.not_done(spec.name, "the time is up")?;
            continue;
        }
        // Far from 0 and 1 everywhere, so that no mistake can hide.
        let weights = spec.golden();
        let case =
            Case { bench, spec, weights: &weights, slices: &slices, side: bench.args.side.unwrap_or(spec.input_side) };
        case.run(journal)?;
        bench.chosen.device.memory_cleanup();
    }
    Ok(())
}

/// Slices of synthetic heads, each of another one and another height, 512 x 512, in HU: BatchNorms that learn make noise of
/// what a batch has in common.
pub fn slices() -> Vec<Slice> {
    let options = PhantomOptions { bleed_share: 1.0, ..PhantomOptions::default() };
    let slice = |at: usize| {
        let study = Study::new(7, at, &options);
        let height = study.n_slices * (at + 2) / (SLICES + 4);
        let pixels = Pixels::I16(study.slice(height).hu);
        Slice { pixels, rescale: Rescale { slope: 1.0, intercept: 0.0 }, ..blank(options.side) }
    };
    (0..SLICES).map(slice).collect()
}

/// Windows of the report, normalized as the backbone's published weights expect it.
pub fn preprocessing(spec: &BackboneSpec, side: usize) -> Preprocessing {
    Preprocessing {
        windows: [(40.0, 80.0), (80.0, 200.0), (40.0, 380.0)].map(|(level, width)| Window { level, width }).to_vec(),
        ramp: Ramp::LinearExact,
        side,
        mean: spec.mean.to_vec(),
        std: spec.std.to_vec(),
    }
}

/// Windowed slices `[n, 3, side, side]` in channels-last memory.
pub fn images(
    preprocessing: &Preprocessing,
    slices: &[&Slice],
    device: &Device,
    dtype: FloatDType,
) -> Result<Tensor<4>, EngineError> {
    let fail = |error: ichd_kernels::KernelError| EngineError::Window(error.to_string());
    let plan = preprocessing.plan().map_err(fail)?;
    let views: Vec<SliceView<'_>> = slices.iter().map(|slice| view(slice)).collect();
    Ok(window_tensor(&plan, &views, device, dtype, Transport::of(device)).map_err(fail)?.permute([0, 3, 1, 2]))
}

/// The first `n` of endlessly repeated slices.
pub fn batch_of(slices: &[Slice], n: usize) -> Vec<&Slice> {
    slices.iter().cycle().take(n).collect()
}

struct Case<'c> {
    bench: &'c Bench<'c>,
    spec: &'static BackboneSpec,
    weights: &'c Weights,
    slices: &'c [Slice],
    side: usize,
}

impl Case<'_> {
    fn run(&self, journal: &mut Journal) -> Result<(), Stop> {
        let expected = match self.on_cpu() {
            Ok(expected) => expected,
            Err(error) => return self.bench.excuse(journal, &format!("{} on the CPU", self.spec.name), &error),
        };
        for precision in self.bench.args.precisions.iter().copied() {
            let what = format!("{} {}", self.spec.name, precision.name());
            if self.bench.budget.is_spent() {
                journal.not_done(what, "the time is up")?;
                continue;
            }
            match guarded(|| self.compare(precision, &expected)) {
                Ok(finding) => journal.finding(finding)?,
                Err(error) => {
                    self.bench.excuse(journal, &what, &error)?;
                    continue;
                }
            }
            if self.bench.chosen.is_cpu() && precision != Precision::F32 {
                // There it is f32 that is rounded, which nobody serves.
                continue;
            }
            for wanted in self.bench.args.batches.iter().copied() {
                for from in ["pixels", "pixels ahead", "images"] {
                    self.time(journal, precision, from, wanted)?;
                }
            }
        }
        self.odd_sizes(journal)?;
        self.graphs(journal)
    }

    /// A batch of a size that is no power of two, as it comes and filled up to the next one as the daemon does: how long the
    /// device needs to get ready for it, and what the empty images cost.
    fn odd_sizes(&self, journal: &mut Journal) -> Result<(), Stop> {
        let args = &self.bench.args;
        let (Some(precision), Some(batch)) = (args.precisions.first().copied(), args.batches.first()) else {
            return Ok(());
        };
        let odd = batch - batch / 4;
        if odd.is_power_of_two() {
            return Ok(());
        }
        for from in ["pixels", "pixels filled up"] {
            self.time(journal, precision, from, odd)?;
        }
        Ok(())
    }

    /// Last, because nobody has seen them fail yet. A graph spares launches, of which large batches have few.
    fn graphs(&self, journal: &mut Journal) -> Result<(), Stop> {
        let is_served = |precision: &Precision| !self.bench.chosen.is_cpu() || *precision == Precision::F32;
        for precision in self.bench.args.precisions.iter().copied().filter(is_served) {
            for wanted in self.bench.args.batches.iter().copied().filter(|batch| *batch <= LARGEST_OF_A_GRAPH) {
                self.time(journal, precision, "images graph", wanted)?;
            }
        }
        Ok(())
    }

    fn model(&self, precision: Precision) -> Model {
        let card = ModelCard {
            name: "gpu-check".into(),
            version: "1".into(),
            sha256: String::new(),
            backbone: self.spec.name,
            convention: Convention::Torch,
            precision,
            trained: false,
            preprocessing: preprocessing(self.spec, self.side),
            calibration: None,
            operating_points: None,
        };
        Model { card, spec: self.spec, weights: self.weights.clone() }
    }

    fn on_cpu(&self) -> Result<Logits, EngineError> {
        let cpu = choose(Want::Cpu).map_err(EngineError::Device)?;
        self.served(&cpu, Precision::F32, COMPARED)
    }

    /// Logits by the daemon's engine.
    fn served(&self, chosen: &Chosen, precision: Precision, n: usize) -> Result<Logits, EngineError> {
        let mut engine = Engine::new(&self.model(precision), chosen)?;
        Ok(engine.score(&batch_of(self.slices, n), &SystemClock::new())?.logits)
    }

    /// Logits of f32 images, on the CPU in half precision as a device with it would compute them.
    fn foretold(&self, precision: Precision, n: usize) -> Result<Logits, EngineError> {
        let device = &self.bench.chosen.device;
        let model = self.model(precision);
        let mut backbone = (self.spec.infer)(device, model.card.variant(), precision);
        backbone.load(self.weights).map_err(|error| EngineError::Model(error.to_string()))?;
        let batch = batch_of(self.slices, n);
        let images = images(&model.card.preprocessing, &batch, device, FloatDType::F32)?;
        Ok(rows(&read(backbone.forward(images))?))
    }

    /// Logits of the whole first batch, so that its kernels are those that are timed next; slices repeat in it, and each
    /// must come out as on the CPU.
    fn compare(&self, precision: Precision, expected: &Logits) -> Result<Finding, EngineError> {
        let n = self.bench.args.batches.first().map_or(COMPARED, |first| *first);
        let found = if self.bench.chosen.is_cpu() && precision != Precision::F32 {
            self.foretold(precision, n)?
        } else {
            self.served(self.bench.chosen, precision, n)?
        };
        let allowed = if precision == Precision::F32 { FULL } else { contract::HALF };
        let expected = |at: usize| expected.get(at % self.slices.len());
        let errors = found.iter().enumerate().filter_map(|(at, found)| Some(relative(found, expected(at)?)));
        let error = if found.len() == n { errors.fold(0.0, worse) } else { f32::INFINITY };
        let name = format!("{} logits, {}, {n} slices of side {}", self.spec.name, precision.name(), self.side);
        Ok(Finding { name, error: error.into(), allowed: allowed.into() })
    }

    /// Images a second, of fewer images where the memory is short.
    fn time(&self, journal: &mut Journal, precision: Precision, from: &'static str, wanted: usize) -> Result<(), Stop> {
        let what = format!("{} {} batch {wanted} from {from}", self.spec.name, precision.name());
        let mut batch = wanted;
        loop {
            if self.bench.budget.is_spent() {
                return journal.not_done(what, "the time is up");
            }
            self.bench.chosen.device.memory_cleanup();
            let times = match from {
                "pixels" => guarded(|| self.score_pixels(precision, batch, &[])),
                "pixels filled up" => guarded(|| self.score_pixels(precision, batch, &[batch.next_power_of_two()])),
                "pixels ahead" => guarded(|| self.score_ahead(precision, batch)),
                "images graph" => guarded(|| self.score_graph(precision, batch)),
                _ => guarded(|| self.score_images(precision, batch)),
            };
            match times {
                Ok(times) => {
                    let usage = self.bench.chosen.device.memory_pool_usage();
                    return journal.network(NetworkTime {
                        backbone: self.spec.name,
                        from,
                        precision: precision.name(),
                        batch,
                        wanted_batch: wanted,
                        side: self.side,
                        devices: 1,
                        images_per_second: batch as f64 / times.milliseconds * 1e3,
                        times,
                        reserved_mib: usage.map(|usage| usage.bytes_reserved >> 20),
                    });
                }
                Err(EngineError::Memory(_)) if batch > 1 => batch /= 2,
                Err(error) => return self.bench.excuse(journal, &what, &error),
            }
        }
    }

    /// From stored pixels in memory to logits in memory: gathered, moved, windowed, scored and read, as served, in batches of
    /// `sizes`.
    fn score_pixels(&self, precision: Precision, batch: usize, sizes: &[usize]) -> Result<Times, EngineError> {
        let mut engine = Engine::new(&self.model(precision), self.bench.chosen)?.for_sizes(sizes);
        let (batch, clock) = (batch_of(self.slices, batch), SystemClock::new());
        self.bench.budget.time(|| engine.score(&batch, &clock).map(drop))
    }

    /// The same, while another thread brings the next batch to the device.
    fn score_ahead(&self, precision: Precision, batch: usize) -> Result<Times, EngineError> {
        let mut engine = Engine::new(&self.model(precision), self.bench.chosen)?;
        let mut uploader = engine.any_uploader();
        let (batch, clock) = (batch_of(self.slices, batch), SystemClock::new());
        let (made, ready) = bounded(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let made = made;
                while made.send(guarded(|| uploader.upload(&batch, &clock))).is_ok() {}
            });
            let ready = ready;
            self.bench.budget.time(|| {
                let images = ready.recv().map_err(|error| EngineError::Device(error.to_string()))??;
                engine.score_images(&batch, images, &clock).map(drop)
            })
        })
    }

    /// The network alone: images lie on the device, logits are read.
    fn score_images(&self, precision: Precision, batch: usize) -> Result<Times, EngineError> {
        let (backbone, images) = self.network(precision, batch)?;
        self.bench.budget.time(|| read(backbone.forward(images.clone())).map(drop))
    }

    /// The same, captured once as a graph of launches and replayed.
    fn score_graph(&self, precision: Precision, batch: usize) -> Result<Times, EngineError> {
        let (backbone, images) = self.network(precision, batch)?;
        let expected = read(backbone.forward(images.clone()))?;
        let mut graph = capture(&self.bench.chosen.device, || backbone.forward(images.clone()));
        if !graph.is_hardware() && !self.bench.chosen.is_cpu() {
            return Err(EngineError::Model("the tensor library captured no graph of it".into()));
        }
        // SAFETY: the images and the backbone's weights, all that the graph reads, live until the end of this function, and
        // no other thread knows them. Nothing is refreshed; the output is read on this thread, which captured the graph.
        let mut replay = || read(unsafe { graph.replay() }.clone());
        let error = relative(&replay()?, &expected);
        if error > FULL {
            return Err(EngineError::Model(format!("the graph's logits differ by {error:.1e}")));
        }
        self.bench.budget.time(|| replay().map(drop))
    }

    /// A network and its images on the device.
    fn network(&self, precision: Precision, batch: usize) -> Result<(Box<dyn Backbone>, Tensor<4>), EngineError> {
        let device = &self.bench.chosen.device;
        let model = self.model(precision);
        let mut backbone = (self.spec.infer)(device, model.card.variant(), precision);
        backbone.load(self.weights).map_err(|error| EngineError::Model(error.to_string()))?;
        let dtype = match precision {
            Precision::F32 => FloatDType::F32,
            Precision::F16 => FloatDType::F16,
            Precision::Bf16 => FloatDType::BF16,
        };
        let images = images(&model.card.preprocessing, &batch_of(self.slices, batch), device, dtype)?;
        Ok((backbone, images))
    }
}

fn rows(values: &[f32]) -> Logits {
    values.as_chunks::<N_LABELS>().0.to_vec()
}

/// Largest difference, relative to the largest value expected or 1.
fn relative(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale).fold(0.0, worse)
}

/// The larger one; what is no number is worse than all.
fn worse(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::INFINITY } else { a.max(b) }
}
