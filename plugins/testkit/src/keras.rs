//! Holds a backbone in Keras' arithmetic against golden files that `tools/golden_keras.py` makes with `keras.applications`,
//! and with it the import of Keras' names and layouts: the same tensors go in on both sides, in TensorFlow's layouts.
//!
//! In f64, without folding, ours must equal the reference's logits to seven digits. In f32 ours must come as close to them as
//! three times the reference's own f32 error, and never be off by more than 1e-3 of the largest.

use burn::tensor::Device;
use ichd_plugin::contract::{images, rows};
use ichd_plugin::fill::uniform;
use ichd_plugin::import::{Imported, Names, Normalization, Options, Target, import};
use ichd_plugin::raw::{Bag, RawTensor};
use ichd_plugin::spec::{BackboneSpec, Convention, Precision, Variant};
use serde::Deserialize;

/// Most that f32 logits may differ from f64 ones, relative to the largest.
const WORST: f64 = 1e-3;

/// Most that f64 logits may differ from the reference's, relative to the largest: they are read back as f32.
const EXACT: f64 = 1e-6;

#[derive(Debug, Deserialize)]
struct Golden {
    backbone: String,
    keras: String,
    tensors: Vec<(String, Vec<usize>)>,
    eval: Vec<Eval>,
}

#[derive(Debug, Deserialize)]
struct Eval {
    side: usize,
    batch: usize,
    logits: Numbers,
}

#[derive(Debug, Deserialize)]
struct Numbers {
    f32: Vec<f64>,
    f64: Vec<f64>,
}

/// The values that `tools/golden_keras.py` gives a variable of a Keras layer, in Keras' layout.
fn fill(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let variable = name.rsplit('/').next().unwrap_or_default();
    let symmetric = |scale: f32| uniform(name, count, 0).map(|u| (2.0 * u - 1.0) * scale).collect();
    if variable.ends_with("kernel") {
        // What one output sees: height and width alone where every channel is filtered by itself.
        let seen = if variable == "depthwise_kernel" { 2 } else { shape.len() - 1 };
        let fan_in = shape[..seen].iter().product::<usize>() as f64;
        return symmetric((4.5 / fan_in).sqrt() as f32);
    }
    match variable {
        "moving_variance" => uniform(name, count, 0).map(|u| u * 1.5 + 0.5).collect(),
        "gamma" => uniform(name, count, 0).map(|u| u + 0.5).collect(),
        _ => symmetric(0.5),
    }
}

/// The golden file's tensors, imported with their head.
fn imported(spec: &'static BackboneSpec, golden: &Golden) -> Imported {
    let mut bag = Bag::default();
    for (name, shape) in &golden.tensors {
        let tensor = RawTensor::of(shape.clone(), &fill(name, shape)).expect("a tensor");
        bag.tensors.insert(name.clone(), tensor);
    }
    // Images go into the first convolution as they are, so its channels keep their order.
    let normalization = Some(Normalization::None);
    let options = Options { keep_head: true, normalization, ..Options::default() };
    let found = import(&Target::of(spec, 3), &bag, "golden", &options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.names, found.convention), (Names::Keras, Convention::Keras));
    assert!(found.report.dropped.is_empty(), "{:?}", found.report.dropped);
    found
}

impl Numbers {
    fn scale(&self) -> f64 {
        self.f64.iter().fold(0.0, |most, value| most.max(value.abs()))
    }

    /// The worst that some values differ from the f64 ones.
    fn off(&self, found: &[f32]) -> f64 {
        assert_eq!(found.len(), self.f64.len(), "other number of logits");
        found.iter().zip(&self.f64).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
    }

    fn error(&self) -> f64 {
        self.f32.iter().zip(&self.f64).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }
}

fn read(spec: &BackboneSpec, golden: &str) -> Golden {
    let golden: Golden = serde_json::from_str(golden).expect("a golden file");
    assert_eq!(golden.backbone, spec.name);
    println!("{}: reference keras {}", spec.name, golden.keras);
    golden
}

/// Checks the form that scores, in f32 and Keras' arithmetic, at every side of the file.
///
/// # Panics
/// Where ours differs: this is for tests.
pub fn check_keras(spec: &'static BackboneSpec, golden: &str) {
    let golden = read(spec, golden);
    let device = Device::flex();
    let mut backbone = (spec.infer)(&device, Variant::of(Convention::Keras), Precision::F32);
    backbone.load(&imported(spec, &golden).weights).expect("imported weights");
    for case in &golden.eval {
        let found = rows(backbone.forward(images(case.batch, case.side, &device))).expect("logits").concat();
        let (ours, theirs, scale) = (case.logits.off(&found), case.logits.error(), case.logits.scale());
        // One rounding of the result itself is always allowed.
        let allowed = (3.0 * theirs).max(scale * f64::from(f32::EPSILON)).min(WORST * scale);
        println!(
            "{} in Keras' arithmetic, side {}: off by {ours:.2e}, reference in f32 by {theirs:.2e}, allowed {allowed:.2e}, \
             largest value {scale:.2e}",
            spec.name, case.side
        );
        assert!(ours <= allowed, "{} at side {}: off by {ours:e}, allowed {allowed:e}", spec.name, case.side);
    }
}

/// Checks the form that learns, in f64 and Keras' arithmetic, whose BatchNorms are not folded: it must equal the reference.
/// Call [`crate::set_exact`] before, in a test program of its own.
///
/// # Panics
/// Where ours differs: this is for tests.
pub fn check_keras_exact(spec: &'static BackboneSpec, golden: &str) {
    let golden = read(spec, golden);
    let device = Device::flex();
    let mut trainee = (spec.train)(&device, Variant::of(Convention::Keras));
    trainee.load(&imported(spec, &golden).weights).expect("imported weights");
    for case in &golden.eval {
        let found = rows(trainee.forward(images(case.batch, case.side, &device))).expect("logits").concat();
        let relative = case.logits.off(&found) / case.logits.scale();
        println!("{} in Keras' arithmetic, side {}, f64: off by {relative:.2e} of the largest", spec.name, case.side);
        assert!(relative <= EXACT, "{} at side {}: off by {relative:e} of the largest", spec.name, case.side);
    }
}
