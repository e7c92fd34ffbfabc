//! The kernels of a device against their CPU forms, on made-up input: run by the tests on a software rasterizer and by
//! `gpu-check` on real hardware.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use crate::geometry::{Act, Plane};
use crate::layer::{After, Transport, depthwise_conv2d, window_tensor};
use crate::window::{Flip, Ramp, Rect, SliceView, StoredPixels, Window, WindowPlan};

/// One comparison.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// What was compared.
    pub name: String,
    /// Largest difference, as a share of the largest value (at least 1).
    pub error: f64,
    /// The most that is right.
    pub allowed: f64,
}

impl Finding {
    /// Whether the device is right. A difference that is not a number is not.
    pub fn passed(&self) -> bool {
        self.error <= self.allowed
    }
}

/// Numbers without a pattern, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

fn compare(name: String, found: Tensor<4>, expected: &[f32], allowed: f64) -> Finding {
    let found = found.into_data().convert::<f32>().try_into_vec::<f32>().unwrap_or_default();
    let largest = expected.iter().fold(1.0f64, |most, value| most.max(f64::from(value.abs())));
    let worst = found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b));
    // max ignores what is not a number, so that is looked for apart.
    let sane = found.len() == expected.len() && found.iter().all(|value| value.is_finite());
    let error = if sane { worst.fold(0.0f64, |most, off| most.max(off.abs())) / largest } else { f64::INFINITY };
    Finding { name, error, allowed }
}

/// Rounding of a type, as a share of the value.
fn rounding(dtype: FloatDType) -> f64 {
    match dtype {
        FloatDType::F16 => 2f64.powi(-11),
        FloatDType::BF16 => 2f64.powi(-8),
        _ => 0.0,
    }
}

/// Types that both we and the device have.
pub fn types(device: &Device) -> Vec<FloatDType> {
    [FloatDType::F32, FloatDType::F16, FloatDType::BF16]
        .into_iter()
        .filter(|dtype| *dtype == FloatDType::F32 || device.supports_dtype(*dtype))
        .collect()
}

/// Slices of many shapes and kinds in one batch, for `windows` windows and an output of `side`.
fn window_case(
    device: &Device,
    seed: u64,
    side: usize,
    windows: usize,
    dtype: FloatDType,
    transport: Transport,
) -> Finding {
    let mut noise = Noise(seed);
    let shapes = [(64, 64), (37, 53), (1, 9), (130, 41), (512, 512)];
    let stored: Vec<Vec<u16>> = shapes
        .iter()
        .map(|(rows, columns)| (0..rows * columns).map(|_| (noise.next() % 4096) as u16).collect())
        .collect();
    let signed: Vec<Vec<i16>> = stored.iter().map(|s| s.iter().map(|v| *v as i16 - 1024).collect()).collect();
    let views: Vec<SliceView<'_>> = shapes
        .iter()
        .enumerate()
        .map(|(at, (rows, columns))| {
            let is_signed = at % 2 == 0;
            let rect = Rect {
                top: rows / 5,
                left: columns / 7,
                rows: rows - rows / 5 - noise.below(rows / 4 + 1),
                columns: columns - columns / 7 - noise.below(columns / 4 + 1),
            };
            SliceView {
                pixels: if is_signed { StoredPixels::I16(&signed[at]) } else { StoredPixels::U16(&stored[at]) },
                rows: *rows,
                columns: *columns,
                slope: [1.0, 0.5, 2.0][at % 3],
                intercept: if is_signed { 0.0 } else { -1024.0 },
                bits_stored: 12,
                inverted: at == 3,
                padding: (at > 0).then_some(40..=55),
                rect: (at != 4).then_some(rect),
                flip: Flip { horizontal: at % 2 == 1, vertical: at % 3 == 1 },
            }
        })
        .collect();
    let all = [(40.0, 80.0), (80.0, 200.0), (40.0, 380.0), (600.0, 2800.0), (-5.0, 31.0)];
    let chosen: Vec<Window> =
        all[..windows].iter().map(|(level, width)| Window { level: *level, width: *width }).collect();
    let (mean, std) = (vec![0.45; windows], vec![0.225; windows]);
    let ramp = if seed.is_multiple_of(2) { Ramp::LinearExact } else { Ramp::Linear };
    let name = format!("window {windows} x {side}, {dtype:?}, {transport:?}");
    let failed = |_| Finding { name: name.clone(), error: f64::INFINITY, allowed: 0.0 };
    let plan = match WindowPlan::new(&chosen, ramp, side, &mean, &std) {
        Ok(plan) => plan,
        Err(error) => return failed(error),
    };
    let mut expected = vec![0.0; views.len() * plan.values_per_slice()];
    let found = crate::ct_window(&plan, &views, &mut expected)
        .and_then(|()| window_tensor(&plan, &views, device, dtype, transport));
    match found {
        Ok(found) => compare(name, found, &expected, 1e-5 + rounding(dtype)),
        Err(error) => failed(error),
    }
}

/// A second's worth of comparisons, for a program that is about to trust a device.
pub fn quick(device: &Device) -> Vec<Finding> {
    let mut findings = vec![window_case(device, 0, 64, 3, FloatDType::F32, Transport::of(device))];
    findings.extend(depthwise_findings(device, FloatDType::F32, &depthwise_cases()[..1]));
    findings
}

/// Windowing: f32 within 1e-5 of the CPU, shorter types within their rounding.
pub fn windows(device: &Device) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut transports = vec![Transport::Packed];
    if Transport::of(device) == Transport::Words {
        transports.push(Transport::Words);
    }
    for transport in transports {
        for (seed, (side, count)) in [(224, 3), (37, 1), (65, 5), (96, 2)].into_iter().enumerate() {
            findings.push(window_case(device, seed as u64, side, count, FloatDType::F32, transport));
        }
        for dtype in types(device).into_iter().skip(1) {
            findings.push(window_case(device, 7, 48, 3, dtype, transport));
        }
    }
    findings
}

struct DepthwiseCase {
    plane: Plane,
    /// Images, height, width, channels.
    input: [usize; 4],
    act: Act,
}

fn depthwise_cases() -> Vec<DepthwiseCase> {
    let case = |plane, input, act| DepthwiseCase { plane, input, act };
    let uneven = |kernel, stride| Plane { kernel: [kernel; 2], stride: [stride; 2], padding: [0, 1, kernel / 2, 2] };
    vec![
        case(Plane::square(3, 1), [2, 14, 14, 32], Act::Relu6),
        case(Plane::square(3, 2), [2, 14, 14, 32], Act::Silu),
        case(Plane::square(3, 2), [3, 15, 12, 40], Act::Relu),
        case(Plane::square(5, 1), [1, 9, 11, 33], Act::Linear),
        case(Plane::square(5, 2), [2, 16, 7, 7], Act::Silu),
        case(Plane::square(7, 1), [1, 8, 8, 3], Act::Linear),
        case(uneven(3, 2), [2, 9, 10, 65], Act::Relu),
        case(uneven(5, 3), [1, 13, 8, 20], Act::Linear),
        case(Plane { kernel: [1, 7], stride: [1, 2], padding: [0, 3, 0, 3] }, [1, 6, 13, 18], Act::Relu),
    ]
}

/// Depthwise convolution: the forward pass with and without its epilogue, and both gradients through Burn's autodiff.
pub fn depthwise(device: &Device) -> Vec<Finding> {
    let cases = depthwise_cases();
    types(device).into_iter().flat_map(|dtype| depthwise_findings(device, dtype, &cases)).collect()
}

/// What both sides of a comparison are given.
struct DepthwiseInput {
    plane: Plane,
    act: Act,
    x: TensorData,
    weight: TensorData,
    bias: TensorData,
    /// What the output is multiplied with before its gradient is taken.
    pull: TensorData,
}

impl DepthwiseInput {
    fn new(seed: u64, case: &DepthwiseCase) -> Option<DepthwiseInput> {
        let DepthwiseCase { plane, input: [n, height, width, channels], act } = *case;
        let [down, across] = plane.output([height, width])?;
        let mut noise = Noise(seed);
        // Multiples of 1/64 below 1: every type holds them, so the CPU gets what the device gets.
        let mut data = |shape: Vec<usize>| {
            let values = noise.floats(shape.iter().product()).into_iter().map(|value| (value * 64.0).trunc() / 64.0);
            TensorData::new(values.collect::<Vec<f32>>(), shape)
        };
        Some(DepthwiseInput {
            plane,
            act,
            x: data(vec![n, height, width, channels]),
            weight: data(vec![channels, 1, plane.kernel[0], plane.kernel[1]]),
            bias: data(vec![channels]),
            pull: data(vec![n, down, across, channels]),
        })
    }

    /// Forward pass with epilogue and without, gradients of input and weights.
    fn run(&self, device: &Device, dtype: FloatDType) -> [Option<Tensor<4>>; 4] {
        let four = |data: &TensorData, device: &Device| Tensor::<4>::from_data(data.clone(), device).cast(dtype);
        let bias = Some(Tensor::<1>::from_data(self.bias.clone(), device).cast(dtype));
        let after = After { bias, addend: None, act: self.act };
        let fused = depthwise_conv2d(four(&self.x, device), four(&self.weight, device), self.plane, after);
        let tracked = device.clone().autodiff();
        let x = four(&self.x, &tracked).require_grad();
        let weight = four(&self.weight, &tracked).require_grad();
        let plain = depthwise_conv2d(x.clone(), weight.clone(), self.plane, After::nothing());
        // From ones, as the sum of all products would give: Burn's own sum needs shared memory, see gpu/window.rs.
        let grads = (plain.clone() * four(&self.pull, &tracked)).backward();
        [Some(fused), Some(plain.inner()), x.grad(&grads), weight.grad(&grads)]
    }
}

fn depthwise_findings(device: &Device, dtype: FloatDType, cases: &[DepthwiseCase]) -> Vec<Finding> {
    // Sums of some hundred products at most, in f32 whatever the type.
    let allowed = 2e-6 + 2.0 * rounding(dtype);
    let names = ["forward with bias and activation", "forward", "input gradient", "weight gradient"];
    let mut findings = Vec::new();
    for (seed, case) in cases.iter().enumerate() {
        let Some(input) = DepthwiseInput::new(seed as u64, case) else { continue };
        let expected = input.run(&Device::flex(), FloatDType::F32);
        for ((name, found), expected) in names.into_iter().zip(input.run(device, dtype)).zip(expected) {
            let name = format!("depthwise {name}, {:?}, {:?}, {dtype:?}", case.plane, case.input);
            findings.push(match (found, expected) {
                (Some(found), Some(expected)) => {
                    let expected = expected.into_data().try_into_vec::<f32>().unwrap_or_default();
                    compare(name, found, &expected, allowed)
                }
                _ => Finding { name, error: f64::INFINITY, allowed },
            });
        }
    }
    findings
}
