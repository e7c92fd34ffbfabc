//! Our operations as extensions of Burn: which backend runs which form, and their gradients.
//!
//! Depthwise convolution has a CPU form and a GPU form. Dense convolution and BatchNorm have a CPU form only: on GPUs
//! Burn's own are used.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::Shape;

use crate::cpu::adam::{self, AdamStep};
use crate::cpu::{conv, curved, depthwise, depthwise_weights, direct, norm, tensors};
use crate::geometry::{Act, Plane};

fn size(shape: &Shape) -> [usize; 2] {
    [shape[1], shape[2]]
}

fn depthwise_shape(input: &Shape, plane: &Plane) -> Shape {
    let [down, across] = plane.must_output(size(input));
    Shape::from(vec![input[0], down, across, input[3]])
}

fn weight_shape(input: &Shape, plane: &Plane) -> Shape {
    Shape::from(vec![input[3], 1, plane.kernel[0], plane.kernel[1]])
}

fn input_shape(grad: &Shape, [height, width]: &[usize; 2]) -> Shape {
    Shape::from(vec![grad[0], *height, *width, grad[3]])
}

/// Depthwise convolution. Images are `[n, height, width, channels]`, weights `[channels, 1, kernel height, kernel width]`.
#[backend_extension(Cube: cfg(feature = "cube"), Flex, Autodiff, Fusion: cfg(feature = "cube"))]
pub trait DepthwiseOps: Backend {
    /// The convolution alone.
    #[fusion(dtype = input, shape = depthwise_shape(input, plane))]
    fn depthwise(input: FloatTensor<Self>, weight: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self>;

    /// With bias and activation.
    #[fusion(dtype = input, shape = depthwise_shape(input, plane))]
    fn depthwise_fused(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        plane: Plane,
        act: Act,
    ) -> FloatTensor<Self>;

    /// Gradient of an input of height and width `size`.
    #[fusion(dtype = grad, shape = input_shape(grad, size))]
    fn depthwise_input_grad(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        plane: Plane,
        size: [usize; 2],
    ) -> FloatTensor<Self>;

    /// Gradient of the weights.
    #[fusion(dtype = input, shape = weight_shape(input, plane))]
    fn depthwise_weight_grad(input: FloatTensor<Self>, grad: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self>;
}

/// Dense convolution and BatchNorm on the CPU. Images are `[n, height, width, channels]`, kernels
/// `[outputs, inputs, kernel height, kernel width]`.
#[backend_extension(Flex, Autodiff)]
pub trait CpuOps: Backend {
    /// Convolution alone.
    fn cpu_conv(input: FloatTensor<Self>, weight: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self>;

    /// Convolution with bias and activation.
    fn cpu_conv_fused(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        plane: Plane,
        act: Act,
    ) -> FloatTensor<Self>;

    /// Convolution with bias, then the sum with `addend`, then the activation.
    fn cpu_conv_added(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        plane: Plane,
        act: Act,
    ) -> FloatTensor<Self>;

    /// Gradient of an input of height and width `size`.
    fn cpu_conv_input_grad(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        plane: Plane,
        size: [usize; 2],
    ) -> FloatTensor<Self>;

    /// Gradient of the kernel.
    fn cpu_conv_weight_grad(input: FloatTensor<Self>, grad: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self>;

    /// BatchNorm over the batch's own statistics with its activation: output, mean and biased variance.
    fn cpu_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        act: Act,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of input, gamma and beta.
    #[allow(clippy::too_many_arguments, reason = "an extension's tensors are arguments of their own")]
    fn cpu_norm_grad(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        act: Act,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// One step of Adam: new weights, means and mean squares. Nothing to differentiate.
    fn cpu_adam(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Runs `$body` with `$T` as the tensor's number type.
macro_rules! typed {
    ($tensor:expr, $T:ident => $body:expr) => {
        match burn::backend::TensorMetadata::dtype(&$tensor) {
            burn::tensor::DType::F32 => {
                type $T = f32;
                $body
            }
            burn::tensor::DType::F64 => {
                type $T = f64;
                $body
            }
            other => panic!("the CPU computes in f32 and f64, not in {other:?}"),
        }
    };
}
pub(crate) use typed;

type FlexTensor = FloatTensor<Flex>;

/// Depthwise weights as `[taps, channels]`.
fn depthwise_weight(weight: &FlexTensor) -> FlexTensor {
    weight.permute(&[2, 3, 0, 1]).to_contiguous()
}

fn flex_depthwise(
    input: FlexTensor,
    weight: &FlexTensor,
    bias: Option<FlexTensor>,
    plane: &Plane,
    act: Act,
) -> FlexTensor {
    let [n, height, width, channels] = tensors::dims(&input);
    let [down, across] = plane.must_output([height, width]);
    let (input, weight) = (input.to_contiguous(), depthwise_weight(weight));
    typed!(input, T => {
        let bias = bias.as_ref().map(|bias| bias.to_contiguous());
        let out = depthwise::forward::<T>(
            plane,
            tensors::values(&input),
            [n, height, width, channels],
            tensors::values(&weight),
            bias.as_ref().map(tensors::values),
            act,
        );
        out.into_tensor([n, down, across, channels])
    })
}

impl DepthwiseOps for Flex {
    fn depthwise(input: FlexTensor, weight: FlexTensor, plane: Plane) -> FlexTensor {
        flex_depthwise(input, &weight, None, &plane, Act::Linear)
    }

    fn depthwise_fused(input: FlexTensor, weight: FlexTensor, bias: FlexTensor, plane: Plane, act: Act) -> FlexTensor {
        flex_depthwise(input, &weight, Some(bias), &plane, act)
    }

    fn depthwise_input_grad(grad: FlexTensor, weight: FlexTensor, plane: Plane, size: [usize; 2]) -> FlexTensor {
        let [n, down, across, channels] = tensors::dims(&grad);
        let (grad, weight) = (grad.to_contiguous(), depthwise_weight(&weight));
        typed!(grad, T => {
            let dims = [n, down, across, channels];
            let (grad, weight) = (tensors::values::<T>(&grad), tensors::values(&weight));
            depthwise::input_gradient(&plane, grad, dims, weight, size).into_tensor([n, size[0], size[1], channels])
        })
    }

    fn depthwise_weight_grad(input: FlexTensor, grad: FlexTensor, plane: Plane) -> FlexTensor {
        let [n, height, width, channels] = tensors::dims(&input);
        let (input, grad) = (input.to_contiguous(), grad.to_contiguous());
        typed!(input, T => {
            let dims = [n, height, width, channels];
            let sums = depthwise_weights::weight_gradient::<T>(&plane, tensors::values(&input), dims, tensors::values(&grad));
            let [down, across] = plane.kernel;
            tensors::tensor(sums, [down, across, channels, 1]).permute(&[2, 3, 0, 1]).to_contiguous()
        })
    }
}

/// A kernel with the inputs of a tap side by side: `[outputs, kernel height, kernel width, inputs]`.
fn dense_weight(weight: &FlexTensor) -> FlexTensor {
    weight.permute(&[0, 2, 3, 1]).to_contiguous()
}

fn flex_conv(
    input: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    addend: Option<FlexTensor>,
    plane: Plane,
    act: Act,
) -> FlexTensor {
    let [n, height, width, inputs] = tensors::dims(&input);
    let [outputs, ..] = tensors::dims::<4>(&weight);
    let [down, across] = plane.must_output([height, width]);
    let shape = conv::Shape { plane, input: [n, height, width, inputs], outputs };
    let (input, weight) = (input.to_contiguous(), dense_weight(&weight));
    let (bias, addend) = (bias.map(|bias| bias.to_contiguous()), addend.map(|addend| addend.to_contiguous()));
    typed!(input, T => {
        let extras = direct::Extras {
            bias: bias.as_ref().map(tensors::values),
            addend: addend.as_ref().map(tensors::values),
            act,
        };
        let (input, weight) = (tensors::values::<T>(&input), tensors::values(&weight));
        conv::forward(&shape, input, weight, extras).into_tensor([n, down, across, outputs])
    })
}

impl CpuOps for Flex {
    fn cpu_conv(input: FlexTensor, weight: FlexTensor, plane: Plane) -> FlexTensor {
        flex_conv(input, weight, None, None, plane, Act::Linear)
    }

    fn cpu_conv_fused(input: FlexTensor, weight: FlexTensor, bias: FlexTensor, plane: Plane, act: Act) -> FlexTensor {
        flex_conv(input, weight, Some(bias), None, plane, act)
    }

    fn cpu_conv_added(
        input: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        addend: FlexTensor,
        plane: Plane,
        act: Act,
    ) -> FlexTensor {
        flex_conv(input, weight, Some(bias), Some(addend), plane, act)
    }

    fn cpu_conv_input_grad(grad: FlexTensor, weight: FlexTensor, plane: Plane, size: [usize; 2]) -> FlexTensor {
        let [n, _, _, outputs] = tensors::dims(&grad);
        let [_, inputs, ..] = tensors::dims::<4>(&weight);
        let shape = conv::Shape { plane, input: [n, size[0], size[1], inputs], outputs };
        let (grad, weight) = (grad.to_contiguous(), dense_weight(&weight));
        typed!(grad, T => {
            let (grad, weight) = (tensors::values::<T>(&grad), tensors::values(&weight));
            conv::input_gradient(&shape, grad, weight).into_tensor(shape.input)
        })
    }

    fn cpu_conv_weight_grad(input: FlexTensor, grad: FlexTensor, plane: Plane) -> FlexTensor {
        let [n, height, width, inputs] = tensors::dims(&input);
        let [.., outputs] = tensors::dims::<4>(&grad);
        let shape = conv::Shape { plane, input: [n, height, width, inputs], outputs };
        let (input, grad) = (input.to_contiguous(), grad.to_contiguous());
        let [down, across] = plane.kernel;
        typed!(input, T => {
            let sums = conv::weight_gradient::<T>(&shape, tensors::values(&input), tensors::values(&grad));
            tensors::tensor(sums, [down, across, inputs, outputs]).permute(&[3, 2, 0, 1]).to_contiguous()
        })
    }

    fn cpu_norm(
        input: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        act: Act,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [n, height, width, channels] = tensors::dims(&input);
        let (input, gamma, beta) = (input.to_contiguous(), gamma.to_contiguous(), beta.to_contiguous());
        typed!(input, T => {
            let x = tensors::values::<T>(&input);
            let moments = norm::moments(x, channels);
            let (gamma, beta) = (tensors::values(&gamma), tensors::values(&beta));
            let out = curved!(act, T, curve => norm::forward(x, &moments, gamma, beta, epsilon, curve));
            (
                out.into_tensor([n, height, width, channels]),
                tensors::tensor(moments.mean, [channels]),
                tensors::tensor(moments.variance, [channels]),
            )
        })
    }

    fn cpu_norm_grad(
        input: FlexTensor,
        grad: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        act: Act,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [n, height, width, channels] = tensors::dims(&input);
        let (input, grad) = (input.to_contiguous(), grad.to_contiguous());
        let (gamma, beta) = (gamma.to_contiguous(), beta.to_contiguous());
        typed!(input, T => {
            let owned = |tensor: &FlexTensor| tensors::values::<T>(&tensor.to_contiguous()).to_vec();
            let moments = norm::Moments { mean: owned(&mean), variance: owned(&variance) };
            let (x, grad) = (tensors::values(&input), tensors::values(&grad));
            let (gamma, beta) = (tensors::values(&gamma), tensors::values(&beta));
            let grads = curved!(act, T, curve => norm::backward(x, grad, &moments, gamma, beta, epsilon, curve));
            (
                grads.input.into_tensor([n, height, width, channels]),
                tensors::tensor(grads.gamma, [channels]),
                tensors::tensor(grads.beta, [channels]),
            )
        })
    }

    fn cpu_adam(
        weight: FlexTensor,
        grad: FlexTensor,
        mean: FlexTensor,
        square: FlexTensor,
        step: AdamStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let shape = weight.shape();
        let [weight, grad, mean, square] = [weight, grad, mean, square].map(|tensor| tensor.to_contiguous());
        typed!(weight, T => {
            let [weight, grad, mean, square] = [&weight, &grad, &mean, &square].map(tensors::values::<T>);
            let [weight, mean, square] = adam::step(&step, weight, grad, mean, square);
            (weight.into_tensor(shape.clone()), mean.into_tensor(shape.clone()), square.into_tensor(shape))
        })
    }
}

/// Adds bias and activation with operations that Burn can differentiate.
fn epilogue<B: Backend>(output: FloatTensor<B>, bias: FloatTensor<B>, act: Act) -> FloatTensor<B> {
    let channels = output.shape()[3];
    let sum = B::float_add(output, B::float_reshape(bias, Shape::from(vec![1, 1, 1, channels])));
    match act {
        Act::Linear => sum,
        Act::Relu | Act::Relu6 => {
            let [low, high] = act.bounds();
            B::float_clamp(sum, low.into(), high.into())
        }
        Act::Silu => B::float_mul(sum.clone(), B::sigmoid(sum)),
    }
}

/// From the output's gradient, the weights and the input's height and width.
type InputGrad<B> = fn(FloatTensor<B>, FloatTensor<B>, Plane, [usize; 2]) -> FloatTensor<B>;
/// From the input and the output's gradient.
type WeightGrad<B> = fn(FloatTensor<B>, FloatTensor<B>, Plane) -> FloatTensor<B>;

/// The two gradients of a convolution.
struct ConvGrads<B: Backend> {
    input: InputGrad<B>,
    weight: WeightGrad<B>,
}

impl<B: Backend> std::fmt::Debug for ConvGrads<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConvGrads")
    }
}

impl<B: Backend> Backward<B, 2> for ConvGrads<B> {
    type State = (FloatTensor<B>, FloatTensor<B>, Plane);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (input, weight, plane) = ops.state;
        let [input_node, weight_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = input_node {
            let size = size(&input.shape());
            grads.register::<B>(node.id, (self.input)(grad.clone(), weight, plane, size));
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, (self.weight)(input, grad, plane));
        }
    }
}

/// A convolution whose gradients are known.
fn tracked_conv<B: Backend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    plane: Plane,
    forward: fn(FloatTensor<B>, FloatTensor<B>, Plane) -> FloatTensor<B>,
    backward: ConvGrads<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let ((input, input_node), (weight, weight_node)) = (input.into_parts(), weight.into_parts());
    match backward.prepare::<C>([input_node, weight_node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let output = forward(input.clone(), weight.clone(), plane);
            prep.finish((input, weight, plane), output)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(input, weight, plane)),
    }
}

/// A value without a past. Gradients of gradients are not offered.
fn constant<B: Backend, C: CheckpointStrategy>(value: FloatTensor<B>) -> FloatTensor<Autodiff<B, C>> {
    Autodiff::<B, C>::from_inner(value)
}

impl<B: DepthwiseOps, C: CheckpointStrategy> DepthwiseOps for Autodiff<B, C> {
    fn depthwise(input: FloatTensor<Self>, weight: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self> {
        let backward = ConvGrads { input: B::depthwise_input_grad, weight: B::depthwise_weight_grad };
        tracked_conv::<B, C>(input, weight, plane, B::depthwise, backward)
    }

    fn depthwise_fused(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        plane: Plane,
        act: Act,
    ) -> FloatTensor<Self> {
        epilogue::<Self>(Self::depthwise(input, weight, plane), bias, act)
    }

    fn depthwise_input_grad(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        plane: Plane,
        size: [usize; 2],
    ) -> FloatTensor<Self> {
        constant::<B, C>(B::depthwise_input_grad(grad.into_primitive(), weight.into_primitive(), plane, size))
    }

    fn depthwise_weight_grad(input: FloatTensor<Self>, grad: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self> {
        constant::<B, C>(B::depthwise_weight_grad(input.into_primitive(), grad.into_primitive(), plane))
    }
}

/// The gradient of a BatchNorm.
#[derive(Debug)]
struct NormGrad;

impl<B: CpuOps> Backward<B, 3> for NormGrad {
    type State = ([FloatTensor<B>; 5], f64, Act);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([input, mean, variance, gamma, beta], epsilon, act) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (input, gamma, beta) = B::cpu_norm_grad(input, grad, mean, variance, gamma, beta, epsilon, act);
        for (node, value) in ops.parents.into_iter().zip([input, gamma, beta]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, value);
            }
        }
    }
}

impl<B: CpuOps, C: CheckpointStrategy> CpuOps for Autodiff<B, C> {
    fn cpu_conv(input: FloatTensor<Self>, weight: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self> {
        let backward = ConvGrads { input: B::cpu_conv_input_grad, weight: B::cpu_conv_weight_grad };
        tracked_conv::<B, C>(input, weight, plane, B::cpu_conv, backward)
    }

    fn cpu_conv_fused(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        plane: Plane,
        act: Act,
    ) -> FloatTensor<Self> {
        epilogue::<Self>(Self::cpu_conv(input, weight, plane), bias, act)
    }

    fn cpu_conv_added(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        plane: Plane,
        act: Act,
    ) -> FloatTensor<Self> {
        let sum = Self::float_add(Self::cpu_conv(input, weight, plane), addend);
        epilogue::<Self>(sum, bias, act)
    }

    fn cpu_conv_input_grad(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        plane: Plane,
        size: [usize; 2],
    ) -> FloatTensor<Self> {
        constant::<B, C>(B::cpu_conv_input_grad(grad.into_primitive(), weight.into_primitive(), plane, size))
    }

    fn cpu_conv_weight_grad(input: FloatTensor<Self>, grad: FloatTensor<Self>, plane: Plane) -> FloatTensor<Self> {
        constant::<B, C>(B::cpu_conv_weight_grad(input.into_primitive(), grad.into_primitive(), plane))
    }

    fn cpu_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        act: Act,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let parts = [input, gamma, beta].map(|tensor| tensor.into_parts());
        let [(input, a), (gamma, b), (beta, c)] = parts;
        let (output, mean, variance) = B::cpu_norm(input.clone(), gamma.clone(), beta.clone(), epsilon, act);
        let statistics = (constant::<B, C>(mean.clone()), constant::<B, C>(variance.clone()));
        let output = match NormGrad.prepare::<C>([a, b, c]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(([input, mean, variance, gamma, beta], epsilon, act), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        (output, statistics.0, statistics.1)
    }

    fn cpu_norm_grad(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        act: Act,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let tensors = [input, grad, mean, variance, gamma, beta].map(|tensor| tensor.into_primitive());
        let [input, grad, mean, variance, gamma, beta] = tensors;
        let (input, gamma, beta) = B::cpu_norm_grad(input, grad, mean, variance, gamma, beta, epsilon, act);
        (constant::<B, C>(input), constant::<B, C>(gamma), constant::<B, C>(beta))
    }

    fn cpu_adam(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [weight, grad, mean, square] = [weight, grad, mean, square].map(|tensor| tensor.into_primitive());
        let (weight, mean, square) = B::cpu_adam(weight, grad, mean, square, step);
        (constant::<B, C>(weight), constant::<B, C>(mean), constant::<B, C>(square))
    }
}
