//! What every backbone must keep, checked in one place. Each family's tests call it.

use burn::tensor::{Device, Tensor, TensorData};

use crate::backbone::{Rule, Trainee};
use crate::fill::uniform;
use crate::label::N_LABELS;
use crate::parallel;
use crate::spec::{BackboneSpec, Precision, Variant};
use crate::weights::Weights;

/// Most that logits of folded weights may differ from those of unfolded ones, relative to the largest of a slice or 1.
const FOLDED: f32 = 1e-5;

/// Most that logits in half precision may differ from those in f32, likewise: a hundred layers of bfloat16's three digits.
pub const HALF: f32 = 0.1;

/// Checks a backbone on a device, at its smallest side to save time: names and counts, shapes of outputs, independence of
/// slices in a batch, weights out and in, half precision, that training lowers the loss, that frozen parts stay, and that
/// interrupted training ends with the same bits, and that devices that share a batch take the step of the whole batch.
///
/// # Errors
/// The first promise that is broken.
pub fn check(spec: &'static BackboneSpec, device: &Device) -> Result<(), String> {
    check_shapes(spec)?;
    let side = spec.side_min;
    let weights = spec.untrained(7);
    check_scoring(spec, device, side, &weights)?;
    check_training(spec, device, side, &weights)?;
    check_precisions(spec, device, side, &weights)?;
    check_freezing(spec, device, side, &weights)?;
    check_resuming(spec, device, side, &weights)?;
    check_sharing(spec, device, side, &weights)
}

/// A reproducible batch of images `[n, 3, side, side]` with values in -2..2.
pub fn images(n: usize, side: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = uniform("images", n * 3 * side * side, 0).map(|u| 4.0 * u - 2.0).collect();
    Tensor::from_data(TensorData::new(values, [n, 3, side, side]), device)
}

/// Logits as rows.
///
/// # Errors
/// The device failed.
pub fn rows(logits: Tensor<2>) -> Result<Vec<Vec<f32>>, String> {
    let [_, columns] = logits.dims();
    let values = logits.try_into_data().map_err(|error| format!("{error:?}"))?;
    let values = values.try_to_vec_as::<f32>().map_err(|error| format!("{error:?}"))?;
    Ok(values.chunks(columns).map(<[f32]>::to_vec).collect())
}

fn check_shapes(spec: &BackboneSpec) -> Result<(), String> {
    let shapes = (spec.shapes)(3);
    let trainable = |name: &str| !name.ends_with("running_mean") && !name.ends_with("running_var");
    let size = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let base: u64 = shapes
        .iter()
        .filter(|(name, _)| trainable(name) && !spec.is_classifier(name))
        .map(|(_, shape)| size(shape))
        .sum();
    if base != spec.parameters {
        return Err(format!("{}: {base} parameters, the spec says {}", spec.name, spec.parameters));
    }
    let head = vec![N_LABELS, spec.feature_width];
    for (name, shape) in
        [(format!("{}.weight", spec.classifier), head), (format!("{}.bias", spec.classifier), vec![N_LABELS])]
    {
        if !shapes.contains(&(name.clone(), shape)) {
            return Err(format!("{}: no {name} of the right shape", spec.name));
        }
    }
    if !shapes.iter().any(|(name, shape)| name == spec.first_conv && shape.get(1) == Some(&3)) {
        return Err(format!("{}: no first convolution {} for 3 channels", spec.name, spec.first_conv));
    }
    let mut names: Vec<&String> = shapes.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    if names.len() == shapes.len() { Ok(()) } else { Err(format!("{}: a name stands twice", spec.name)) }
}

fn check_scoring(spec: &'static BackboneSpec, device: &Device, side: usize, weights: &Weights) -> Result<(), String> {
    let mut backbone = (spec.infer)(device, Variant::default(), Precision::F32);
    let mut short = weights.clone();
    short.remove(spec.first_conv);
    if backbone.load(&short).is_ok() {
        return Err(format!("{}: weights without {} were taken", spec.name, spec.first_conv));
    }
    backbone.load(weights).map_err(|error| error.to_string())?;
    let batch = images(3, side, device);
    let together = rows(backbone.forward(batch.clone()))?;
    if together.len() != 3 || together.iter().any(|row| row.len() != N_LABELS || row.iter().any(|v| !v.is_finite())) {
        return Err(format!("{}: logits are not three finite rows of {N_LABELS}", spec.name));
    }
    if distance(&together[0], &together[1]) < 1e-6 {
        return Err(format!("{}: different images give the same logits", spec.name));
    }
    for (idx, row) in together.iter().enumerate() {
        let alone = rows(backbone.forward(batch.clone().narrow(0, idx, 1)))?;
        let error = distance(row, &alone[0]);
        if error > 1e-4 * scale(row) {
            return Err(format!("{}: slice {idx} alone differs by {error} from its batch", spec.name));
        }
    }
    Ok(())
}

fn check_training(spec: &'static BackboneSpec, device: &Device, side: usize, weights: &Weights) -> Result<(), String> {
    let mut trainee = (spec.train)(device, Variant::default());
    trainee.load(weights).map_err(|error| error.to_string())?;
    if trainee.weights() != *weights {
        return Err(format!("{}: weights come out of training other than they went in", spec.name));
    }
    let mut backbone = (spec.infer)(device, Variant::default(), Precision::F32);
    backbone.load(weights).map_err(|error| error.to_string())?;
    let batch = images(2, side, device);
    let (folded, plain) = (rows(backbone.forward(batch.clone()))?, rows(trainee.forward(batch.clone()))?);
    for (a, b) in folded.iter().zip(&plain) {
        if distance(a, b) > FOLDED * scale(b) {
            return Err(format!("{}: folded {a:?} differs from unfolded {b:?}", spec.name));
        }
    }
    let targets: Vec<f32> = (0..2 * N_LABELS).map(|n| (n % 3 == 0).into()).map(|t: u8| t.into()).collect();
    let targets = Tensor::<2>::from_data(TensorData::new(targets, [2, N_LABELS]), device);
    let losses: Vec<f64> = (0..4).map(|_| trainee.step(batch.clone(), targets.clone(), 1e-3)).collect();
    if losses.iter().any(|loss| !loss.is_finite()) || losses[3] >= losses[0] {
        return Err(format!("{}: four steps did not lower the loss: {losses:?}", spec.name));
    }
    let learned = trainee.weights();
    let moved = |name: &str| learned.get(name) != weights.get(name);
    if !moved(spec.first_conv) || !moved(&format!("{}.weight", spec.classifier)) {
        return Err(format!("{}: the first or the last layer did not learn", spec.name));
    }
    Ok(())
}

/// Half precision gives what f32 gives, as far as its digits go.
fn check_precisions(
    spec: &'static BackboneSpec,
    device: &Device,
    side: usize,
    weights: &Weights,
) -> Result<(), String> {
    let batch = images(2, side, device);
    let score = |weights: &Weights, precision| -> Result<Vec<Vec<f32>>, String> {
        let mut backbone = (spec.infer)(device, Variant::default(), precision);
        backbone.load(weights).map_err(|error| error.to_string())?;
        rows(backbone.forward(batch.clone()))
    };
    let mut weights = weights.clone();
    if !score(&weights, Precision::F16)?.iter().flatten().all(|logit| logit.is_finite()) {
        // Without BatchNorm statistics of its own an untrained network may grow beyond what f16 holds.
        weights = settled(spec, device, &batch, &weights)?;
    }
    let full = score(&weights, Precision::F32)?;
    for precision in [Precision::F16, Precision::Bf16] {
        for (row, full) in score(&weights, precision)?.iter().zip(&full) {
            let error = distance(row, full) / scale(full);
            // Comparisons with what is no number are false.
            if !(row.iter().all(|logit| logit.is_finite()) && error > 0.0 && error < HALF) {
                return Err(format!("{}: {} gives {row:?}, f32 {full:?}", spec.name, precision.name()));
            }
        }
    }
    Ok(())
}

/// Weights with BatchNorm statistics near those of a batch.
fn settled(
    spec: &'static BackboneSpec,
    device: &Device,
    batch: &Tensor<4>,
    weights: &Weights,
) -> Result<Weights, String> {
    const PASSES: usize = 40;
    let mut trainee = (spec.train)(device, Variant::default());
    trainee.load(weights).map_err(|error| error.to_string())?;
    for _ in 0..PASSES {
        trainee.gradients(batch.clone(), Tensor::<2>::zeros([2, N_LABELS], device));
    }
    Ok(trainee.weights())
}

/// A file of the weights comes back as the same weights, and what is frozen stays as it is while the head learns.
fn check_freezing(spec: &'static BackboneSpec, device: &Device, side: usize, weights: &Weights) -> Result<(), String> {
    let bytes = weights.to_safetensors().map_err(|error| error.to_string())?;
    let weights = Weights::from_safetensors(&bytes, spec.name).map_err(|error| error.to_string())?;
    let mut trainee = (spec.train)(device, Variant::default());
    trainee.load(&weights).map_err(|error| error.to_string())?;
    trainee.freeze(&|name| !spec.is_classifier(name));
    let targets = Tensor::<2>::ones([2, N_LABELS], device);
    trainee.step(images(2, side, device), targets, 1e-3);
    let learned = trainee.weights();
    for (name, entry) in weights.iter() {
        let stayed = learned.get(name) == Some(entry);
        if stayed == spec.is_classifier(name) {
            let problem = if stayed { "did not learn" } else { "is frozen and learned" };
            return Err(format!("{}: {name} {problem}", spec.name));
        }
    }
    Ok(())
}

/// Learning that goes on from a saved state ends with the same bits as learning that was not interrupted, also with
/// gradients in two parts, averages and decay; and in half precision it learns too.
fn check_resuming(spec: &'static BackboneSpec, device: &Device, side: usize, weights: &Weights) -> Result<(), String> {
    let rule = Rule { learning_rate: 1e-3, weight_decay: 0.01, average_decay: Some(0.9) };
    let batch = images(2, side, device);
    let targets = Tensor::<2>::ones([2, N_LABELS], device);
    let shares = vec![2.0f32, 1.0, 1.0, 1.0, 1.0, 1.0];
    let label_weights = Tensor::<2>::from_data(TensorData::new(shares, [1, N_LABELS]), device);
    let learn = |trainee: &mut dyn Trainee| -> Result<f32, String> {
        let mut last = f32::NAN;
        for _ in 0..2 {
            let loss = trainee.accumulate(batch.clone(), targets.clone(), label_weights.clone(), 0.5);
            last = loss.try_into_data().map_err(|error| format!("{error:?}"))?.iter::<f32>().next().unwrap_or(f32::NAN);
        }
        trainee.apply(&rule);
        Ok(last)
    };
    let mut whole = (spec.train)(device, Variant::default());
    whole.load(weights).map_err(|error| error.to_string())?;
    learn(whole.as_mut())?;
    let bytes = whole.state().to_safetensors().map_err(|error| error.to_string())?;
    learn(whole.as_mut())?;
    let mut resumed = (spec.train)(device, Variant::default());
    let state = Weights::from_safetensors(&bytes, "state").map_err(|error| error.to_string())?;
    resumed.restore(&state).map_err(|error| error.to_string())?;
    learn(resumed.as_mut())?;
    if whole.state() != resumed.state() || whole.averaged().is_none() || whole.averaged() == Some(whole.weights()) {
        return Err(format!("{}: learning that was interrupted ends elsewhere", spec.name));
    }
    let mut mixed = (spec.train)(device, Variant::default());
    mixed.load(weights).map_err(|error| error.to_string())?;
    mixed.mix(Precision::Bf16);
    let losses = [learn(mixed.as_mut())?, learn(mixed.as_mut())?, learn(mixed.as_mut())?];
    if losses.iter().any(|loss| !loss.is_finite()) || losses[2] >= losses[0] {
        return Err(format!("{}: in bf16 it does not learn: {losses:?}", spec.name));
    }
    Ok(())
}

/// Two replicas that share batches take the step of the whole batch, if BatchNorms hold still, and stay alike if not.
fn check_sharing(spec: &'static BackboneSpec, device: &Device, side: usize, weights: &Weights) -> Result<(), String> {
    const APART: f32 = 1e-5;
    let rule = Rule { learning_rate: 1e-3, weight_decay: 0.01, average_decay: Some(0.9) };
    // Parts of two and one: shares of a batch need not be equal.
    let batch = images(3, side, device);
    let values: Vec<f32> = (0..3 * N_LABELS).map(|at| (at % 2) as f32).collect();
    let targets = Tensor::<2>::from_data(TensorData::new(values, [3, N_LABELS]), device);
    let values: Vec<f32> = (0..3 * N_LABELS).map(|at| 1.0 + (at % 4) as f32).collect();
    let label_weights = Tensor::<2>::from_data(TensorData::new(values, [3, N_LABELS]), device);
    let learn = |n_devices: usize, frozen: bool| -> Result<(f32, Weights), String> {
        let devices = vec![device.clone(); n_devices];
        let mut trainee = parallel::trainee(spec, &devices, Variant::default());
        trainee.load(weights).map_err(|error| error.to_string())?;
        trainee.freeze(&|name| frozen && !spec.is_classifier(name));
        let mut last = f32::NAN;
        for _ in 0..2 {
            let loss = trainee.accumulate(batch.clone(), targets.clone(), label_weights.clone(), 1.0);
            last = loss.try_into_data().map_err(|error| format!("{error:?}"))?.iter::<f32>().next().unwrap_or(f32::NAN);
            trainee.apply(&rule);
        }
        Ok((last, trainee.weights()))
    };
    let ((alone, one), (shared, two)) = (learn(1, true)?, learn(2, true)?);
    if (alone - shared).abs() > APART * alone.abs().max(1.0) {
        return Err(format!("{}: the loss is {alone} on one device and {shared} on two", spec.name));
    }
    for (name, entry) in one.iter() {
        let apart = two.get(name).map_or(f32::INFINITY, |other| distance(&entry.values, &other.values));
        if apart > APART * scale(&entry.values) {
            return Err(format!("{}: {name} is {apart} apart after two steps on two devices", spec.name));
        }
    }
    let (loss, _) = learn(2, false)?;
    if loss.is_finite() { Ok(()) } else { Err(format!("{}: on two devices the loss is {loss}", spec.name)) }
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

fn scale(row: &[f32]) -> f32 {
    row.iter().fold(1.0, |most, value| most.max(value.abs()))
}
