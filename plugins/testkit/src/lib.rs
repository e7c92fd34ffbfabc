//! Holds a backbone against golden files that `tools/golden_backbones.py` makes with torchvision on the same weights.
//!
//! The files carry the reference's numbers in f32 and in f64. Ours must come as close to the f64 ones as three times the
//! reference's own f32 error; logits and loss must never be off by more than 1e-3 of the largest value (gradients through
//! many BatchNorms are worse conditioned than that, in the reference too). All figures are printed.

pub mod keras;

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType, IntDType, Tensor, TensorData};
use ichd_plugin::backbone::{Pass, Trainee};
use ichd_plugin::contract::{images, rows};
use ichd_plugin::fill::uniform;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Precision, Variant};
use serde::Deserialize;

/// Most that f32 results may differ from f64 ones, relative to the largest value.
const WORST: f64 = 1e-3;

/// Most that f64 results may differ from the reference's f64 ones, relative to the largest value of the tensor: they are
/// read back as f32, which rounds by 6e-8 of each value.
const EXACT: f64 = 1e-6;

/// Gradients jump where an activation is near 0 or 6 and rounding puts it on either side, so that two f32 computations
/// differ from each other by more than their rounding: they may be off by this many times the reference's error.
const KINKS: f64 = 10.0;

#[derive(Debug, Deserialize)]
struct Golden {
    backbone: String,
    torchvision: String,
    parameters: u64,
    parameters_imagenet: u64,
    multiply_adds: u64,
    eval: Vec<Eval>,
    train: Train,
}

/// Numbers of the reference in both precisions.
#[derive(Debug, Deserialize)]
struct Numbers {
    f32: Vec<f64>,
    f64: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Eval {
    side: usize,
    batch: usize,
    logits: Numbers,
}

#[derive(Debug, Deserialize)]
struct Train {
    side: usize,
    batch: usize,
    /// Of the batch, in training mode.
    logits: Numbers,
    loss: Numbers,
    gradients: BTreeMap<String, Numbers>,
    running: BTreeMap<String, Numbers>,
}

/// Checks evaluation mode: parameter counts and logits at every side of the file.
///
/// # Panics
/// Where ours differs: this is for tests.
pub fn check_eval(spec: &'static BackboneSpec, golden: &str) {
    let golden = read(spec, golden);
    assert_eq!(spec.parameters, golden.parameters, "parameters without the classifier");
    assert_eq!(spec.parameters_imagenet, golden.parameters_imagenet, "parameters with the ImageNet classifier");
    assert_eq!(spec.multiply_adds, golden.multiply_adds, "multiply-adds");
    let device = Device::flex();
    let mut backbone = (spec.infer)(&device, Variant::default(), Precision::F32);
    backbone.load(&spec.golden()).expect("golden weights");
    for case in &golden.eval {
        let found = rows(backbone.forward(images(case.batch, case.side, &device))).expect("logits").concat();
        compare(&format!("{} logits at side {}", spec.name, case.side), &found, &case.logits, 0.0, WORST);
    }
}

/// Sets the number type of the CPU device to f64 for the whole process, before its first tensor.
///
/// # Panics
/// There was a tensor before.
pub fn set_exact() {
    Device::flex().configure((FloatDType::F64, IntDType::I32)).expect("f64 before the first tensor");
}

/// Checks both modes with every tensor in f64, where no activation changes sides of a kink by rounding, so that logits,
/// loss, gradients and statistics must equal the reference's f64 ones to [`EXACT`]. Call [`set_exact`] before, in a test
/// program of its own.
///
/// # Panics
/// Where ours differs: this is for tests.
pub fn check_exact(spec: &'static BackboneSpec, golden: &str) {
    let golden = read(spec, golden);
    let device = Device::flex();
    let mut backbone = (spec.infer)(&device, Variant::default(), Precision::F32);
    backbone.load(&spec.golden()).expect("golden weights");
    for case in &golden.eval {
        let found = rows(backbone.forward(images(case.batch, case.side, &device))).expect("logits").concat();
        // Folded weights are kept as f32, so this form is as good as f32 and no better.
        println!(
            "{} folded logits at side {}, f64 with f32 weights: off by {:.2e}",
            spec.name,
            case.side,
            case.logits.off(&found)
        );
    }
    let (pass, mut trainee) = train(spec, &golden.train, &device);
    let learned = trainee.weights();
    let numbers = golden.train.gradients.iter().map(|(name, numbers)| (name, pass.gradients.get(name), numbers));
    let running = golden.train.running.iter().map(|(name, numbers)| (name, learned.get(name), numbers));
    exact("loss", &[pass.loss as f32], &golden.train.loss);
    for (name, found, numbers) in numbers.chain(running) {
        exact(name, &sample(&found.unwrap_or_else(|| panic!("no {name}")).values, numbers), numbers);
    }
    trainee.load(&spec.golden()).expect("golden weights");
    for case in &golden.eval {
        let found = rows(trainee.forward(images(case.batch, case.side, &device))).expect("logits").concat();
        exact(&format!("logits at side {}", case.side), &found, &case.logits);
    }
}

fn exact(what: &str, found: &[f32], expected: &Numbers) {
    assert_eq!(found.len(), expected.f64.len(), "{what}: other number of values");
    let relative = expected.off(found) / expected.scale();
    println!("{what} in f64: off by {relative:.2e} of the largest value");
    assert!(relative <= EXACT, "{what} in f64: off by {relative:e} of the largest value");
}

/// One pass of training on the file's batch.
fn train(spec: &'static BackboneSpec, train: &Train, device: &Device) -> (Pass, Box<dyn Trainee>) {
    let mut trainee = (spec.train)(device, Variant::default());
    trainee.load(&spec.golden()).expect("golden weights");
    let targets: Vec<f32> =
        uniform("targets", train.batch * N_LABELS, 0).map(|u| if u < 0.5 { 0.0 } else { 1.0 }).collect();
    let targets = Tensor::<2>::from_data(TensorData::new(targets, [train.batch, N_LABELS]), device);
    let pass = trainee.gradients(images(train.batch, train.side, device), targets);
    (pass, trainee)
}

/// Checks training mode: loss, gradients and running statistics after one pass.
///
/// # Panics
/// Where ours differs: this is for tests.
pub fn check_train(spec: &'static BackboneSpec, golden: &str) {
    let train = read(spec, golden).train;
    let (pass, mut trainee) = self::train(spec, &train, &Device::flex());
    // The loss moves by no more than the logits do, and one number alone tells little of how well it is conditioned.
    let (off, allowed) = (train.loss.off(&[pass.loss as f32]), 3.0 * train.loss.error().max(train.logits.error()));
    println!("{} loss: off by {off:.2e}, allowed {allowed:.2e}", spec.name);
    assert!(off <= allowed && off <= WORST * train.loss.scale(), "{} loss: off by {off:e}", spec.name);
    // Few values are kept of each tensor, so its own error in the reference is a poor guess of how well it is
    // conditioned; the worst relative one of all gradients is a better one.
    let relative = train.gradients.values().map(Numbers::relative_error).fold(0.0, f64::max);
    for (name, numbers) in &train.gradients {
        let found = &pass.gradients.get(name).unwrap_or_else(|| panic!("no gradient of {name}")).values;
        compare(
            &format!("{} gradient of {name}", spec.name),
            &sample(found, numbers),
            numbers,
            relative,
            f64::INFINITY,
        );
    }
    let weights = trainee.weights();
    for (name, numbers) in &train.running {
        let found = &weights.get(name).unwrap_or_else(|| panic!("no {name}")).values;
        compare(&format!("{} {name}", spec.name), &sample(found, numbers), numbers, 0.0, f64::INFINITY);
    }
}

/// The values that the file keeps: evenly spread over the tensor.
fn sample(values: &[f32], numbers: &Numbers) -> Vec<f32> {
    let n = numbers.f64.len();
    (0..n).map(|k| values[k * values.len() / n]).collect()
}

fn read(spec: &BackboneSpec, golden: &str) -> Golden {
    let golden: Golden = serde_json::from_str(golden).expect("a golden file");
    assert_eq!(golden.backbone, spec.name);
    println!("{}: reference torchvision {}", spec.name, golden.torchvision);
    golden
}

impl Numbers {
    fn scale(&self) -> f64 {
        self.f64.iter().fold(0.0, |most, value| most.max(value.abs()))
    }

    /// The worst that some values differ from the f64 ones.
    fn off(&self, found: &[f32]) -> f64 {
        found.iter().zip(&self.f64).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
    }

    fn error(&self) -> f64 {
        self.f32.iter().zip(&self.f64).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    fn relative_error(&self) -> f64 {
        self.error() / self.scale()
    }
}

/// `relative`: an error of the reference in f32, relative to the largest value, that counts if it is greater than the
/// tensor's own. `most`: what must never be exceeded.
fn compare(what: &str, found: &[f32], expected: &Numbers, relative: f64, most: f64) {
    assert_eq!(found.len(), expected.f64.len(), "{what}: other number of values");
    let scale = expected.scale();
    let ours = expected.off(found);
    let theirs = expected.error().max(relative * scale);
    // One rounding of the result itself is always allowed.
    let factor = if relative > 0.0 { KINKS } else { 3.0 };
    let allowed = (factor * theirs).max(scale * f64::from(f32::EPSILON));
    let reference = expected.error();
    println!(
        "{what}: off by {ours:.2e}, reference in f32 by {reference:.2e}, allowed {allowed:.2e}, largest value {scale:.2e}"
    );
    assert!(ours <= allowed, "{what}: off by {ours:e}, allowed {allowed:e}");
    assert!(ours <= most * scale, "{what}: off by {ours:e} of {scale:e}");
}
