//! `ichd models inspect --check`: what folding and half precision change, measured on synthetic slices.

use std::time::Instant;

use burn::tensor::{Device, FloatDType, Tensor};
use ichd_kernels::{Transport, has_half_products, window_tensor};
use ichd_plugin::backbone::Backbone;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::Precision;
use serde_json::{Map, Value, json};

use crate::device::Chosen;
use crate::dicom::{self, AdmissionRules};
use crate::error::{Exit, Fatal};
use crate::infer::view;
use crate::model::Model;
use crate::phantom::render::Study;
use crate::phantom::{PhantomOptions, dicom as phantom_dicom};
use crate::slice::Slice;

/// Seed of the study whose slices are scored, and every how many-eth of them.
const SEED: u64 = 7;
const STEP: usize = 5;

type Rows = Vec<[f32; N_LABELS]>;

/// The record.
pub(super) fn check(model: &Model, chosen: &Chosen) -> Result<Value, Fatal> {
    let (slices, device) = (slices()?, &chosen.device);
    let images = images(model, &slices, device)?;
    let begun = Instant::now();
    let full = backbone(model, device, Precision::F32)?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let folded = rows(full.forward(images.clone()))?;
    let mut trainee = (model.spec.train)(device, model.card.variant());
    trainee.load(&model.weights).map_err(Fatal::config)?;
    let unfolded = rows(trainee.forward(images.clone()))?;
    let mut precisions = Map::new();
    for precision in [Precision::F16, Precision::Bf16] {
        let found = rows(backbone(model, device, precision)?.forward(images.clone()))?;
        precisions.insert(precision.name().into(), difference(model, &folded, &found));
    }
    Ok(json!({
        "slices": slices.len(),
        "device": chosen.name,
        "half_precision": how(chosen),
        "load_and_fold_ms": load_ms,
        "unfolded": difference(model, &folded, &unfolded),
        "precision": precisions,
    }))
}

/// What half precision is on this device.
fn how(chosen: &Chosen) -> &'static str {
    match (chosen.is_cpu(), has_half_products()) {
        (false, _) => "on the device",
        (true, false) => "products in f32, every result rounded to the type",
        (true, true) => {
            "f16: products in f32, every result rounded to the type; bf16: factors of products rounded, as this processor serves it"
        }
    }
}

/// Slices of a synthetic head, as they come out of a file.
fn slices() -> Result<Vec<Slice>, Fatal> {
    let bug = |error: String| Fatal::new(Exit::Bug, format!("a phantom failed: {error}"));
    let options = PhantomOptions { seed: SEED, bleed_share: 1.0, ..PhantomOptions::default() };
    let study = Study::new(SEED, 0, &options);
    let mut slices = Vec::new();
    for at in (0..study.n_slices).step_by(STEP) {
        let bytes = phantom_dicom::encode(&options, &study, at, &study.slice(at).hu).map_err(|e| bug(e.to_string()))?;
        slices.extend(dicom::decode(&bytes, &AdmissionRules::default()).map_err(|e| bug(e.to_string()))?);
    }
    Ok(slices)
}

fn images(model: &Model, slices: &[Slice], device: &Device) -> Result<Tensor<4>, Fatal> {
    let plan = model.card.preprocessing.plan().map_err(Fatal::config)?;
    let views: Vec<_> = slices.iter().map(view).collect();
    let images = window_tensor(&plan, &views, device, FloatDType::F32, Transport::of(device)).map_err(Fatal::config)?;
    Ok(images.permute([0, 3, 1, 2]))
}

fn backbone(model: &Model, device: &Device, precision: Precision) -> Result<Box<dyn Backbone>, Fatal> {
    let mut backbone = (model.spec.infer)(device, model.card.variant(), precision);
    backbone.load(&model.weights).map_err(Fatal::config)?;
    Ok(backbone)
}

fn rows(logits: Tensor<2>) -> Result<Rows, Fatal> {
    let device = |error: String| Fatal::new(Exit::Device, format!("the device failed: {error}"));
    let data = logits.try_into_data().map_err(|error| device(format!("{error:?}")))?;
    let values = data.try_to_vec_as::<f32>().map_err(|error| device(format!("{error:?}")))?;
    Ok(values.as_chunks::<N_LABELS>().0.to_vec())
}

/// Largest differences of logits and probabilities.
fn difference(model: &Model, expected: &Rows, found: &Rows) -> Value {
    let worst = |of: &dyn Fn(&[f32; N_LABELS]) -> Vec<f32>| {
        let pairs = expected.iter().zip(found).flat_map(|(a, b)| of(a).into_iter().zip(of(b)));
        // What is no number is worse than every number.
        pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, |most, one| if one <= most { most } else { one })
    };
    json!({
        "logits_max_difference": worst(&|row| row.to_vec()),
        "probabilities_max_difference": worst(&|row| model.card.probabilities(row)),
        "finite": found.iter().flatten().all(|logit| logit.is_finite()),
    })
}
