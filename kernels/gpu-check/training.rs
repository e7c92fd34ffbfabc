//! Training: gradients against the CPU's, and images a second of the trainer's steps. Knows no file and no data set.

use std::time::Instant;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use ichd::engine::EngineError;
use ichd::frugal::guarded;
use ichd::slice::Slice;
use ichd::trainer::recipe::TrainSetting;
use ichd::trainer::training::READ_EVERY;
use ichd_kernels::parity::Finding;
use ichd_plugin::backbone::Trainee;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Precision, Variant};
use ichd_plugin::weights::Weights;
use ichd_plugin::{contract, parallel};

use crate::measure::{Times, read};
use crate::networks::{batch_of, images, preprocessing, slices};
use crate::report::{Journal, NetworkTime};
use crate::{Bench, Stop, gpus};

/// Side of the input in the report, for all backbones.
const SIDE: usize = 224;
/// Images and side of the comparison of gradients: enough for every BatchNorm to have something to average over.
const COMPARED: usize = 8;
const COMPARED_SIDE: usize = 128;
/// Most that the loss may be off (relative), in f32 and in bf16.
const LOSS: [f64; 2] = [1e-2, contract::HALF as f64];
/// Most that the direction of the gradient may be off (1 - cosine), likewise. Untrained networks amplify rounding: on the CPU
/// bf16 was seen to turn the gradient of inception_v3 by 0.4 and of others by less than 0.04, and TF32 rounds eight times
/// finer. A gradient that has nothing to do with the right one is off by 1.
const DIRECTION: [f64; 2] = [0.05, 0.6];
/// Seconds that one run of several steps may take.
const RUN: f64 = 0.5;

/// The whole part.
pub fn run(bench: &Bench<'_>, journal: &mut Journal) -> Result<(), Stop> {
    let slices = slices();
    for spec in bench.backbones() {
        if bench.budget.is_spent() {
            journal.not_done(format!("training {}", spec.name), "the time is up")?;
            continue;
        }
        let weights = spec.untrained(7);
        Case { bench, spec, weights: &weights, slices: &slices }.run(journal)?;
        bench.chosen.device.memory_cleanup();
    }
    Ok(())
}

struct Case<'c> {
    bench: &'c Bench<'c>,
    spec: &'static BackboneSpec,
    weights: &'c Weights,
    slices: &'c [Slice],
}

impl Case<'_> {
    fn run(&self, journal: &mut Journal) -> Result<(), Stop> {
        for precision in self.bench.args.train_precisions.iter().copied() {
            let what = format!("training {} {}", self.spec.name, precision.name());
            if self.bench.budget.is_spent() {
                journal.not_done(what, "the time is up")?;
                continue;
            }
            match guarded(|| self.compare(precision)) {
                Ok(findings) => findings.into_iter().try_for_each(|finding| journal.finding(finding))?,
                Err(error) => {
                    self.bench.excuse(journal, &what, &error)?;
                    continue;
                }
            }
            for side in self.sides() {
                for n_devices in self.devices() {
                    for from in ["train_pixels", "train_images"] {
                        self.time(journal, precision, side, n_devices, from)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The report's side, then the network's own.
    fn sides(&self) -> Vec<usize> {
        match self.bench.args.side {
            Some(side) => vec![side],
            None if self.spec.input_side == SIDE => vec![SIDE],
            None => vec![SIDE, self.spec.input_side],
        }
    }

    /// One, then all that are to share.
    fn devices(&self) -> Vec<usize> {
        let all = self.bench.args.devices.unwrap_or_else(|| if self.bench.chosen.is_cpu() { 1 } else { gpus() });
        if all > 1 { vec![1, all] } else { vec![1] }
    }

    fn compare(&self, precision: Precision) -> Result<[Finding; 2], EngineError> {
        let side = self.bench.args.side.unwrap_or(COMPARED_SIDE).max(self.spec.side_min);
        let gradients = |device: &Device, precision: Precision| -> Result<(f64, Weights), EngineError> {
            let mut trainee = (self.spec.train)(device, Variant::default());
            trainee.load(self.weights).map_err(|error| EngineError::Model(error.to_string()))?;
            trainee.mix(precision);
            let batch = batch_of(self.slices, COMPARED);
            let images = images(&preprocessing(self.spec, side), &batch, device, FloatDType::F32)?;
            let pass = trainee.gradients(images, targets(COMPARED, device));
            Ok((pass.loss, pass.gradients))
        };
        let (loss, gradient) = gradients(&Device::flex(), Precision::F32)?;
        let (found_loss, found) = gradients(&self.bench.chosen.device, precision)?;
        let column = usize::from(precision != Precision::F32);
        let name =
            |what: &str| format!("{} {what}, {}, {COMPARED} images of side {side}", self.spec.name, precision.name());
        let loss_error = (found_loss - loss).abs() / loss.abs().max(1.0);
        Ok([
            Finding { name: name("loss"), error: loss_error, allowed: LOSS[column] },
            Finding {
                name: name("direction of the gradient"),
                error: apart(&gradient, &found),
                allowed: DIRECTION[column],
            },
        ])
    }

    fn time(
        &self,
        journal: &mut Journal,
        precision: Precision,
        side: usize,
        n_devices: usize,
        from: &'static str,
    ) -> Result<(), Stop> {
        let batch = self.bench.args.train_batch;
        let what = format!(
            "training {} {} batch {batch} side {side} on {n_devices} from {from}",
            self.spec.name,
            precision.name()
        );
        if self.bench.budget.is_spent() {
            return journal.not_done(what, "the time is up");
        }
        self.bench.chosen.device.memory_cleanup();
        let steps = Steps { case: self, precision, side, n_devices, is_windowed: from == "train_images" };
        match guarded(|| steps.time()) {
            Ok(times) => {
                let usage = self.bench.chosen.device.memory_pool_usage();
                journal.network(NetworkTime {
                    backbone: self.spec.name,
                    from,
                    precision: precision.name(),
                    batch,
                    wanted_batch: batch,
                    side,
                    devices: n_devices,
                    images_per_second: batch as f64 / times.milliseconds * 1e3,
                    times,
                    reserved_mib: usage.map(|usage| usage.bytes_reserved >> 20),
                })
            }
            Err(error) => self.bench.excuse(journal, &what, &error),
        }
    }
}

/// Steps as the trainer makes them, on slices that are always the same.
struct Steps<'s> {
    case: &'s Case<'s>,
    precision: Precision,
    side: usize,
    n_devices: usize,
    /// Whether the images lie on the device from the start.
    is_windowed: bool,
}

impl Steps<'_> {
    fn time(&self) -> Result<Times, EngineError> {
        let Bench { chosen, args, budget } = self.case.bench;
        let setting = TrainSetting { batch: args.train_batch, precision: self.precision, ..TrainSetting::default() };
        let devices = chosen.and_next(self.n_devices).map_err(EngineError::Device)?;
        let mut trainee = parallel::trainee(self.case.spec, &devices, Variant::default());
        trainee.load(self.case.weights).map_err(|error| EngineError::Model(error.to_string()))?;
        trainee.mix(self.precision);
        let ready = self.is_windowed.then(|| self.images()).transpose()?;
        let mut done = 0;
        let mut run = |steps: u64| -> Result<(), EngineError> {
            let mut sum: Option<Tensor<1>> = None;
            for _ in 0..steps {
                let images = ready.clone().map_or_else(|| self.images(), Ok)?;
                let loss = step(trainee.as_mut(), &setting, images, &chosen.device, done);
                sum = Some(match sum {
                    Some(sum) => sum + loss,
                    None => loss,
                });
                done += 1;
            }
            let sums = sum.map_or(Ok(Vec::new()), read)?;
            match sums.as_slice() {
                [sum] if sum.is_finite() => Ok(()),
                other => Err(EngineError::Model(format!("the sum of losses is {other:?}"))),
            }
        };
        let begun = Instant::now();
        run(1)?;
        run(1)?;
        let last = Instant::now();
        run(1)?;
        // As seldom as the trainer reads losses, but for slow steps.
        let fits = (RUN / last.elapsed().as_secs_f64().max(1e-6)) as u64;
        let steps = fits.clamp(1, if chosen.is_cpu() { 1 } else { READ_EVERY });
        let before = begun.elapsed().as_secs_f64();
        let mut times = budget.time(|| run(steps))?.of_parts(steps as usize);
        times.warm_up_seconds += before;
        Ok(times)
    }

    fn images(&self) -> Result<Tensor<4>, EngineError> {
        let Bench { chosen, args, .. } = self.case.bench;
        let batch = batch_of(self.case.slices, args.train_batch);
        images(&preprocessing(self.case.spec, self.side), &batch, &chosen.device, FloatDType::F32)
    }
}

/// One step, with targets and what they weigh brought to the device as for every batch.
fn step(trainee: &mut dyn Trainee, setting: &TrainSetting, images: Tensor<4>, device: &Device, done: u64) -> Tensor<1> {
    const STEPS_PER_EPOCH: u64 = 1000;
    let [n, ..] = images.dims();
    let sum: f32 = setting.label_weights.iter().sum();
    let shares = setting.label_weights.iter().map(|weight| weight * N_LABELS as f32 / sum);
    let shares: Vec<f32> = shares.cycle().take(n * N_LABELS).collect();
    let shares = Tensor::<2>::from_data(TensorData::new(shares, [n, N_LABELS]), device);
    let loss = trainee.accumulate(images, targets(n, device), shares, 1.0);
    trainee.apply(&setting.rule(done, STEPS_PER_EPOCH));
    loss
}

/// Targets `[n, 6]` of which a third is positive.
fn targets(n: usize, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..n * N_LABELS).map(|at| if at % 3 == 0 { 1.0 } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(values, [n, N_LABELS]), device)
}

/// 1 - cosine of two gradients over all weights; infinite where they are not of the same weights.
fn apart(expected: &Weights, found: &Weights) -> f64 {
    let (mut product, mut squares) = (0.0f64, [0.0f64; 2]);
    for (name, entry) in expected.iter() {
        let Some(other) = found.get(name).filter(|other| other.values.len() == entry.values.len()) else {
            return f64::INFINITY;
        };
        for (a, b) in entry.values.iter().zip(&other.values) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            product += a * b;
            squares[0] += a * a;
            squares[1] += b * b;
        }
    }
    let cosine = product / (squares[0] * squares[1]).sqrt();
    if cosine.is_finite() { 1.0 - cosine } else { f64::INFINITY }
}
