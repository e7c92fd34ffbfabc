//! Convolutions and BatchNorm on the CPU: against PyTorch in f64 (`tools/golden_layers.py`) and against finite differences.

use burn::tensor::{DType, Device, Tensor, TensorData};
use ichd_kernels::{Act, AdamStep, After, Plane, adam, batch_norm, conv2d, depthwise_conv2d};
use proptest::prelude::*;
use serde_json::Value;

/// The rule that the script follows too.
fn values(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((37 * i + 11 * seed) % 41) as f64 / 16.0 - 1.25).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize, dtype: DType, device: &Device) -> Tensor<D> {
    let data = TensorData::new(values(shape.iter().product(), seed), shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().try_into_vec::<f64>().expect("f64 values")
}

fn numbers<const N: usize>(value: &Value) -> [usize; N] {
    let list = value.as_array().expect("a list");
    std::array::from_fn(|at| list[at].as_u64().expect("a number") as usize)
}

fn act(case: &Value) -> Act {
    match case["act"].as_str() {
        Some("linear") => Act::Linear,
        Some("relu") => Act::Relu,
        Some("relu6") => Act::Relu6,
        Some("silu") => Act::Silu,
        other => panic!("unknown activation {other:?}"),
    }
}

fn compare(case: &Value, key: &str, found: &[f64], allowed: f64) {
    let expected: Vec<f64> = case[key].as_array().expect(key).iter().map(|v| v.as_f64().expect("a number")).collect();
    assert_eq!(found.len(), expected.len(), "{key} of {}", case["kind"]);
    let largest = expected.iter().fold(1.0f64, |most, value| most.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let off = (found - expected).abs() / largest;
        assert!(
            off <= allowed,
            "{key} of {} {}, value {at}: {found} instead of {expected}",
            case["kind"],
            case["dims"]
        );
    }
}

fn check_conv(case: &Value, dtype: DType, allowed: f64) {
    let dims: [usize; 4] = numbers(&case["dims"]);
    let outputs = case["outputs"].as_u64().expect("a number") as usize;
    let plane = Plane {
        kernel: numbers(&case["kernel"]),
        stride: numbers(&case["stride"]),
        padding: numbers(&case["padding"]),
    };
    let depthwise = case["kind"] == "depthwise";
    let shape = [outputs, if depthwise { 1 } else { dims[3] }, plane.kernel[0], plane.kernel[1]];
    let layer = if depthwise { depthwise_conv2d } else { conv2d };
    let [down, across] = plane.output([dims[1], dims[2]]).expect("it fits");
    let out = [dims[0], down, across, outputs];

    for device in [Device::flex(), Device::flex().autodiff()] {
        let addend = (case["addend"] == true).then(|| tensor(out, 5, dtype, &device));
        let after = After { bias: Some(tensor([outputs], 3, dtype, &device)), addend, act: act(case) };
        let fused = layer(tensor(dims, 1, dtype, &device), tensor(shape, 2, dtype, &device), plane, after);
        compare(case, "fused", &read(fused.inner_if_needed()), allowed);
    }

    let device = Device::flex().autodiff();
    let x = tensor(dims, 1, dtype, &device).require_grad();
    let weight = tensor(shape, 2, dtype, &device).require_grad();
    let plain = layer(x.clone(), weight.clone(), plane, After::nothing());
    let grads = (plain.clone() * tensor(out, 4, dtype, &device)).sum().backward();
    compare(case, "plain", &read(plain.inner()), allowed);
    compare(case, "input_gradient", &read(x.grad(&grads).expect("tracked")), allowed);
    compare(case, "weight_gradient", &read(weight.grad(&grads).expect("tracked")), allowed);
}

fn check_norm(case: &Value, dtype: DType, allowed: f64) {
    let dims: [usize; 4] = numbers(&case["dims"]);
    let device = Device::flex().autodiff();
    let x = tensor(dims, 1, dtype, &device).require_grad();
    let gamma = tensor([dims[3]], 2, dtype, &device).require_grad();
    let beta = tensor([dims[3]], 3, dtype, &device).require_grad();
    let normed = batch_norm(x.clone(), gamma.clone(), beta.clone(), 1e-3, act(case));
    let grads = (normed.output.clone() * tensor(dims, 4, dtype, &device)).sum().backward();
    compare(case, "output", &read(normed.output.inner()), allowed);
    compare(case, "mean", &read(normed.mean.inner()), allowed);
    compare(case, "variance", &read(normed.variance.inner()), allowed);
    compare(case, "input_gradient", &read(x.grad(&grads).expect("tracked")), allowed);
    compare(case, "gamma_gradient", &read(gamma.grad(&grads).expect("tracked")), allowed);
    compare(case, "beta_gradient", &read(beta.grad(&grads).expect("tracked")), allowed);
}

/// Leaves the autodiff device where a tensor is on one.
trait InnerIfNeeded {
    fn inner_if_needed(self) -> Self;
}

impl<const D: usize> InnerIfNeeded for Tensor<D> {
    fn inner_if_needed(self) -> Self {
        if self.device().is_autodiff() { self.inner() } else { self }
    }
}

fn check_adam(case: &Value, dtype: DType, allowed: f64) {
    let number = |key: &str| case[key].as_f64().expect("a number");
    let count = number("count") as usize;
    let device = Device::flex();
    let mut weight = tensor([count], 1, dtype, &device);
    let [mut mean, mut square] = [(); 2].map(|()| Tensor::<1>::zeros([count], (&device, dtype)));
    for at in 0..number("steps") as usize {
        let rule = AdamStep::new(at as u64 + 1, number("learning_rate"), number("weight_decay"), [0.9, 0.999], 1e-8);
        [weight, mean, square] = adam(weight, tensor([count], 2 + at, dtype, &device), mean, square, &rule);
    }
    compare(case, "weight", &read(weight), allowed);
}

#[test]
fn layers_do_what_pytorch_does() {
    let golden: Value = serde_json::from_str(include_str!("golden/layers.json")).expect("valid JSON");
    let cases = golden["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 21);
    for case in cases {
        let check = match case["kind"].as_str() {
            Some("norm") => check_norm,
            Some("adam") => check_adam,
            _ => check_conv,
        };
        check(case, DType::F64, 1e-13);
        check(case, DType::F32, 2e-6);
    }
}

/// Sum of `output * pull` for an input of which one value is moved.
fn moved(at: usize, by: f64, plane: Plane, depthwise: bool, which: usize) -> f64 {
    let device = Device::flex();
    let shapes = if depthwise { [[1, 5, 6, 18], [18, 1, 3, 5]] } else { [[1, 5, 6, 3], [4, 3, 3, 5]] };
    let [x, weight] = [0, 1].map(|operand| {
        let shape = shapes[operand];
        let mut values = values(shape.iter().product(), operand + 1);
        if operand == which {
            values[at] += by;
        }
        Tensor::<4>::from_data(TensorData::new(values, shape), (&device, DType::F64))
    });
    let layer = if depthwise { depthwise_conv2d } else { conv2d };
    let out = layer(x, weight, plane, After::nothing());
    let pull = values(out.shape().num_elements(), 4);
    read(out).iter().zip(pull).map(|(value, pull)| value * pull).sum()
}

#[test]
fn gradients_equal_finite_differences() {
    let plane = Plane { kernel: [3, 5], stride: [2, 1], padding: [1, 0, 0, 3] };
    for depthwise in [true, false] {
        let device = Device::flex().autodiff();
        let shapes = if depthwise { [[1, 5, 6, 18], [18, 1, 3, 5]] } else { [[1, 5, 6, 3], [4, 3, 3, 5]] };
        let x = tensor(shapes[0], 1, DType::F64, &device).require_grad();
        let weight = tensor(shapes[1], 2, DType::F64, &device).require_grad();
        let layer = if depthwise { depthwise_conv2d } else { conv2d };
        let out = layer(x.clone(), weight.clone(), plane, After::nothing());
        let grads = (out.clone() * tensor(out.dims(), 4, DType::F64, &device)).sum().backward();
        let found = [x, weight].map(|tensor| read(tensor.grad(&grads).expect("tracked")));
        for (which, found) in found.iter().enumerate() {
            for at in (0..found.len()).step_by(7) {
                // The layer is linear in each operand, so any step is exact up to rounding.
                let slope = moved(at, 0.5, plane, depthwise, which) - moved(at, -0.5, plane, depthwise, which);
                assert!((slope - found[at]).abs() < 1e-10, "operand {which}, value {at}: {slope} and {}", found[at]);
            }
        }
    }
}

/// A convolution of random shape.
#[derive(Clone, Debug)]
struct Case {
    plane: Plane,
    dims: [usize; 4],
    /// `None`: depthwise.
    outputs: Option<usize>,
}

fn any_case() -> impl Strategy<Value = Case> {
    let plane = ([1usize..8, 1usize..8], [1usize..4, 1usize..4], [0usize..4, 0usize..4, 0usize..4, 0usize..4]);
    let dims = [1usize..4, 1usize..12, 1usize..12, 1usize..40];
    (plane, dims, proptest::option::of(1usize..20)).prop_filter_map(
        "fits",
        |((kernel, stride, padding), dims, outputs)| {
            let plane = Plane { kernel, stride, padding };
            plane.output([dims[1], dims[2]])?;
            Some(Case { plane, dims, outputs })
        },
    )
}

/// The definition, one product at a time.
fn oracle(case: &Case, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let Case { plane, dims: [n, height, width, channels], outputs } = case;
    let [down, across] = plane.output([*height, *width]).expect("it fits");
    let [taps_down, taps_across] = plane.kernel;
    let n_outputs = outputs.unwrap_or(*channels);
    let mut out = Vec::new();
    for image in 0..*n {
        for at in 0..down * across * n_outputs {
            let (row, column, output) = (at / n_outputs / across, at / n_outputs % across, at % n_outputs);
            let mut sum = 0.0;
            for tap in 0..taps_down * taps_across {
                let y = (row * plane.stride[0] + tap / taps_across).checked_sub(plane.padding[0]);
                let x_at = (column * plane.stride[1] + tap % taps_across).checked_sub(plane.padding[1]);
                let (Some(y), Some(x_at)) = (y.filter(|y| y < height), x_at.filter(|x| x < width)) else { continue };
                let pixel = ((image * height + y) * width + x_at) * channels;
                let inputs = if outputs.is_some() { 0..*channels } else { output..output + 1 };
                for (k, input) in inputs.enumerate() {
                    let per_output = if outputs.is_some() { *channels } else { 1 };
                    sum += x[pixel + input] * weight[(output * per_output + k) * taps_down * taps_across + tap];
                }
            }
            out.push(sum);
        }
    }
    out
}

fn inner_product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_convolution_follows_its_definition(case in any_case()) {
        let device = Device::flex().autodiff();
        let [_, _, _, channels] = case.dims;
        let n_outputs = case.outputs.unwrap_or(channels);
        let inputs = if case.outputs.is_some() { channels } else { 1 };
        let shape = [n_outputs, inputs, case.plane.kernel[0], case.plane.kernel[1]];
        let x = tensor(case.dims, 1, DType::F64, &device).require_grad();
        let weight = tensor(shape, 2, DType::F64, &device).require_grad();
        let layer = if case.outputs.is_some() { conv2d } else { depthwise_conv2d };
        let out = layer(x.clone(), weight.clone(), case.plane, After::nothing());
        let pull = tensor(out.dims(), 4, DType::F64, &device);
        let grads = (out.clone() * pull.clone()).sum().backward();
        let [x_values, weights, pull] = [x.clone(), weight.clone(), pull].map(|tensor| read(tensor.inner()));
        let found = read(out.inner());
        let expected = oracle(&case, &x_values, &weights);
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() < 1e-10, "{} instead of {}", found, expected);
        }
        // A convolution is linear in both operands, so both gradients have the same product with their operand.
        let total = inner_product(&expected, &pull);
        for (operand, grad) in [(x_values, x.grad(&grads)), (weights, weight.grad(&grads))] {
            let grad = read(grad.expect("tracked"));
            prop_assert!((inner_product(&operand, &grad) - total).abs() < 1e-8 * (1.0 + total.abs()));
        }
    }
}
