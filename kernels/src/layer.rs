//! Convolutions and BatchNorm on Burn's tensors, the same call on every device. Images are channels-last,
//! `[n, height, width, channels]`: the order in which every kernel here and Burn's own GPU convolutions work, so nothing
//! is copied between layers.

use burn::backend::Dispatch;
use burn::tensor::module::{batch_norm_train, conv2d as burn_conv2d};
use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::cpu::adam::AdamStep;
use crate::cpu::pool::Buffer;
use crate::geometry::{Act, Plane};
use crate::ops::{CpuOps, DepthwiseOps};
use crate::window::{KernelError, SliceView, WindowPlan, ct_window};

/// Whether tensors of this device are computed by our CPU forms.
pub fn on_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// Applies an activation.
pub fn activate<const D: usize>(x: Tensor<D>, act: Act) -> Tensor<D> {
    match act {
        Act::Linear => x,
        Act::Relu => burn::tensor::activation::relu(x),
        Act::Relu6 => x.clamp(0.0, 6.0),
        Act::Silu => burn::tensor::activation::silu(x),
    }
}

/// What happens to a convolution's sums, in this order.
#[derive(Clone, Debug)]
pub struct After {
    /// One value added to each output channel.
    pub bias: Option<Tensor<1>>,
    /// A tensor of the output's shape that is added: a shortcut.
    pub addend: Option<Tensor<4>>,
    /// Activation.
    pub act: Act,
}

impl After {
    /// Nothing.
    pub fn nothing() -> After {
        After { bias: None, addend: None, act: Act::Linear }
    }

    /// In another type of number.
    fn cast(self, dtype: FloatDType) -> After {
        After {
            bias: self.bias.map(|bias| bias.cast(dtype)),
            addend: self.addend.map(|addend| addend.cast(dtype)),
            act: self.act,
        }
    }

    /// With operations that every device has and Burn can differentiate.
    pub fn apply(self, sums: Tensor<4>) -> Tensor<4> {
        let sums = match self.bias {
            Some(bias) => {
                let [channels] = bias.dims();
                sums + bias.reshape([1, 1, 1, channels])
            }
            None => sums,
        };
        let sums = match self.addend {
            Some(addend) => sums + addend,
            None => sums,
        };
        activate(sums, self.act)
    }
}

/// The half-precision type of a tensor on the CPU. Our CPU forms compute in f32 and f64 only; results of half precision
/// are made from f32 and rounded, so that what a GPU will answer in that type can be foretold without one.
fn half_on_cpu(x: &Tensor<4>) -> Option<FloatDType> {
    let half = match x.dtype() {
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        _ => return None,
    };
    on_cpu(&x.device()).then_some(half)
}

/// Convolution with one filter for each channel: weights `[channels, 1, kernel height, kernel width]`.
///
/// # Panics
/// Shapes that do not fit each other.
pub fn depthwise_conv2d(x: Tensor<4>, weight: Tensor<4>, plane: Plane, after: After) -> Tensor<4> {
    let [_, height, width, channels] = x.dims();
    assert_eq!(weight.dims(), [channels, 1, plane.kernel[0], plane.kernel[1]], "depthwise weights");
    plane.must_output([height, width]);
    if let Some(half) = half_on_cpu(&x) {
        let [x, weight] = [x, weight].map(|tensor| tensor.cast(FloatDType::F32));
        return depthwise_conv2d(x, weight, plane, after.cast(FloatDType::F32)).cast(half);
    }
    // Fused bias and activation have no gradient of their own; a network that learns has a BatchNorm there anyway.
    let tracked = x.device().is_autodiff();
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    if let (Some(bias), None, false) = (&after.bias, &after.addend, tracked) {
        let bias = bias.clone().into_dispatch();
        return Tensor::from_dispatch(<Dispatch as DepthwiseOps>::depthwise_fused(x, weight, bias, plane, after.act));
    }
    after.apply(Tensor::from_dispatch(<Dispatch as DepthwiseOps>::depthwise(x, weight, plane)))
}

/// Convolution over all channels: weights `[outputs, inputs, kernel height, kernel width]`.
///
/// # Panics
/// Shapes that do not fit each other.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, plane: Plane, after: After) -> Tensor<4> {
    let [_, height, width, inputs] = x.dims();
    let [outputs, ..] = weight.dims();
    assert_eq!(weight.dims(), [outputs, inputs, plane.kernel[0], plane.kernel[1]], "convolution weights");
    plane.must_output([height, width]);
    if !on_cpu(&x.device()) {
        return after.apply(burn_conv(x, weight, plane));
    }
    if let Some(half) = half_on_cpu(&x) {
        let [x, weight] = [x, weight].map(|tensor| tensor.cast(FloatDType::F32));
        return conv2d(x, weight, plane, after.cast(FloatDType::F32)).cast(half);
    }
    let tracked = x.device().is_autodiff();
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    match after {
        After { bias: Some(bias), addend: None, act } if !tracked => {
            let bias = bias.into_dispatch();
            Tensor::from_dispatch(<Dispatch as CpuOps>::cpu_conv_fused(x, weight, bias, plane, act))
        }
        After { bias: Some(bias), addend: Some(addend), act } if !tracked => {
            let (bias, addend) = (bias.into_dispatch(), addend.into_dispatch());
            Tensor::from_dispatch(<Dispatch as CpuOps>::cpu_conv_added(x, weight, bias, addend, plane, act))
        }
        after => after.apply(Tensor::from_dispatch(<Dispatch as CpuOps>::cpu_conv(x, weight, plane))),
    }
}

/// Burn's convolution is channels-first to the caller and pads both sides alike; where they differ the zeros are put
/// there first.
fn burn_conv(x: Tensor<4>, weight: Tensor<4>, plane: Plane) -> Tensor<4> {
    let [top, left, bottom, right] = plane.padding;
    let x = x.permute([0, 3, 1, 2]);
    let (x, padding) = if top == bottom && left == right {
        (x, [top, left])
    } else {
        (x.pad((left, right, top, bottom), PadMode::Constant(0.0)), [0, 0])
    };
    burn_conv2d(x, weight, None, ConvOptions::new(plane.stride, padding, [1, 1], 1)).permute([0, 2, 3, 1])
}

/// What a BatchNorm in training mode gives.
#[derive(Clone, Debug)]
pub struct Normed {
    /// Normalized and activated values.
    pub output: Tensor<4>,
    /// Mean of each channel over batch, height and width.
    pub mean: Tensor<1>,
    /// Biased variance of each channel.
    pub variance: Tensor<1>,
}

/// BatchNorm over the batch's own statistics (Ioffe, Szegedy 2015, arXiv 1502.03167), then the activation.
pub fn batch_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64, act: Act) -> Normed {
    if !on_cpu(&x.device()) {
        let result = batch_norm_train(x.permute([0, 3, 1, 2]), gamma, beta, epsilon);
        let output = activate(result.output.permute([0, 2, 3, 1]), act);
        return Normed { output, mean: result.mean, variance: result.variance };
    }
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    let (output, mean, variance) = <Dispatch as CpuOps>::cpu_norm(x, gamma, beta, epsilon, act);
    Normed {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
    }
}

/// One step of Adam over flat tensors: new weights, means and mean squares.
pub fn adam(weight: Tensor<1>, grad: Tensor<1>, mean: Tensor<1>, square: Tensor<1>, step: &AdamStep) -> [Tensor<1>; 3] {
    if on_cpu(&weight.device()) {
        let [weight, grad, mean, square] = [weight, grad, mean, square].map(Tensor::into_dispatch);
        let (weight, mean, square) = <Dispatch as CpuOps>::cpu_adam(weight, grad, mean, square, *step);
        return [weight, mean, square].map(Tensor::from_dispatch);
    }
    let mean = mean * step.beta_1 + grad.clone() * (1.0 - step.beta_1);
    let square = square * step.beta_2 + grad.clone() * grad * (1.0 - step.beta_2);
    let quotient = mean.clone() / (square.clone().sqrt() * step.root + step.epsilon);
    [weight * (1.0 - step.shrink) - quotient * step.rate, mean, square]
}

/// How pixels reach a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As 16-bit integers.
    Words,
    /// Two in each 32-bit integer, for devices that have no shorter ones.
    Packed,
}

impl Transport {
    /// What a device can take.
    pub fn of(device: &Device) -> Transport {
        if device.supports_dtype(DType::I16) { Transport::Words } else { Transport::Packed }
    }
}

/// Stands for a batch gathered for a GPU: without GPU kernels there is none.
#[cfg(not(feature = "cube"))]
#[derive(Clone, Debug, PartialEq)]
pub enum Gathered {}

/// Stands for a batch on a GPU: without GPU kernels there is none.
#[cfg(not(feature = "cube"))]
#[derive(Clone, Debug)]
pub enum Uploaded {}

#[cfg(not(feature = "cube"))]
impl Gathered {
    /// Gathers nothing.
    ///
    /// # Errors
    /// Always: there are no GPU kernels.
    pub fn new(_: &WindowPlan, _: &[SliceView<'_>], _: Transport) -> Result<Gathered, KernelError> {
        Err(KernelError::Plan("this program was built without GPU kernels".to_owned()))
    }

    /// There is nothing to be moved.
    pub fn upload(self, _: &Device) -> Uploaded {
        match self {}
    }
}

#[cfg(not(feature = "cube"))]
impl Uploaded {
    /// There is nothing to be windowed.
    pub fn window(&self, _: FloatDType) -> Tensor<4> {
        match *self {}
    }
}

/// [`crate::ct_window`] onto a device: `[n, side, side, channels]` of type `dtype`, in one launch on a GPU. On the CPU
/// f32 is the only type.
///
/// # Errors
/// Numbers that make no sense, or a type that the device does not have.
pub fn window_tensor(
    plan: &WindowPlan,
    slices: &[SliceView<'_>],
    device: &Device,
    dtype: FloatDType,
    transport: Transport,
) -> Result<Tensor<4>, KernelError> {
    if !on_cpu(device) {
        #[cfg(feature = "cube")]
        return Ok(crate::gpu::upload::Uploaded::new(plan, slices, device, transport)?.window(dtype));
        #[cfg(not(feature = "cube"))]
        return Err(KernelError::Plan("this program was built without GPU kernels".to_owned()));
    }
    if dtype != FloatDType::F32 {
        return Err(KernelError::Plan(format!("the CPU computes in f32, not in {dtype:?}")));
    }
    let mut values = Buffer::<f32>::new(slices.len() * plan.values_per_slice());
    ct_window(plan, slices, &mut values)?;
    Ok(Tensor::from_data(values.into_data([slices.len(), plan.side(), plan.side(), plan.channels()]), device))
}
