//! Convolution, BatchNorm and activation as one unit, and the head. Knows no network.

use burn::module::{Module, Param, RunningState};
use burn::tensor::module::{batch_norm as batch_norm_with, max_pool2d};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor, TensorData};
use ichd_kernels::{Act, After, Plane, activate, batch_norm, conv2d, depthwise_conv2d};
use ichd_plugin::weights::Entry;

/// The shape of a unit. Padding is symmetric, `(kernel - 1) / 2`, as in torchvision.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Side of the kernel, odd.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Groups; as many as channels for a depthwise convolution.
    pub groups: usize,
    /// What follows.
    pub act: Act,
}

impl ConvSpec {
    /// A 1 x 1 or larger convolution with stride 1, one group and ReLU.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        ConvSpec { inputs, outputs, kernel, stride: 1, groups: 1, act: Act::Relu }
    }

    /// With another stride.
    pub fn stride(self, stride: usize) -> Self {
        ConvSpec { stride, ..self }
    }

    /// With one group for each channel.
    pub fn depthwise(self) -> Self {
        ConvSpec { groups: self.inputs, ..self }
    }

    /// With another activation.
    pub fn act(self, act: Act) -> Self {
        ConvSpec { act, ..self }
    }

    /// Shape of the kernel, `[outputs, inputs / groups, side, side]`.
    pub fn kernel_shape(&self) -> [usize; 4] {
        [self.outputs, self.inputs / self.groups, self.kernel, self.kernel]
    }

    fn plane(&self) -> Plane {
        Plane::square(self.kernel, self.stride)
    }
}

/// BatchNorm with PyTorch's meaning: the running variance is the unbiased one, which the tensor library's own layer
/// does not keep.
#[derive(Module, Debug)]
struct Norm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
    epsilon: f64,
}

/// Share of a batch in the running statistics: PyTorch's default.
const MOMENTUM: f64 = 0.1;
/// PyTorch's default.
const EPSILON: f64 = 1e-5;

impl Norm {
    fn new(channels: usize, device: &Device) -> Self {
        Norm {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            epsilon: EPSILON,
        }
    }

    fn forward(&self, x: Tensor<4>, act: Act) -> Tensor<4> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        if !x.device().is_autodiff() {
            let (mean, var) = (self.running_mean.value(), self.running_var.value());
            let output = batch_norm_with(x.permute([0, 3, 1, 2]), gamma, beta, mean, var, self.epsilon);
            return activate(output.permute([0, 2, 3, 1]), act);
        }
        let [n, height, width, _] = x.dims();
        let count = (n * height * width) as f64;
        let result = batch_norm(x, gamma, beta, self.epsilon, act);
        let unbiased = count / (count - 1.0).max(1.0);
        let blend = |running: Tensor<1>, batch: Tensor<1>| (running * (1.0 - MOMENTUM) + batch * MOMENTUM).detach();
        self.running_mean.update(blend(self.running_mean.value_sync(), result.mean));
        self.running_var.update(blend(self.running_var.value_sync(), result.variance * unbiased));
        result.output
    }
}

/// Convolution without bias, BatchNorm, activation. Folded, the BatchNorm is gone and the convolution has a bias.
#[derive(Module, Debug)]
pub struct ConvUnit {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    norm: Option<Norm>,
    #[module(skip)]
    spec: ConvSpec,
}

/// Names of a unit's vectors after its BatchNorm's prefix.
pub(crate) const NORM_VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl ConvUnit {
    /// A unit that has no weights yet.
    pub fn new(spec: ConvSpec, device: &Device) -> Self {
        let weight = Param::from_tensor(Tensor::zeros(spec.kernel_shape(), device));
        ConvUnit { weight, bias: None, norm: Some(Norm::new(spec.outputs, device)), spec }
    }

    /// Its shape.
    pub fn spec(&self) -> ConvSpec {
        self.spec
    }

    /// `[n, height, width, inputs]` to `[n, height / stride, width / stride, outputs]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.run(x, None)
    }

    /// As [`ConvUnit::forward`], with a tensor of the output's shape added before the activation.
    pub fn forward_added(&self, x: Tensor<4>, addend: Tensor<4>) -> Tensor<4> {
        self.run(x, Some(addend))
    }

    fn run(&self, x: Tensor<4>, addend: Option<Tensor<4>>) -> Tensor<4> {
        let Some(norm) = &self.norm else {
            let bias = self.bias.as_ref().map(Param::val);
            return self.convolve(x, After { bias, addend, act: self.spec.act });
        };
        let x = self.convolve(x, After::nothing());
        match addend {
            None => norm.forward(x, self.spec.act),
            Some(addend) => activate(norm.forward(x, Act::Linear) + addend, self.spec.act),
        }
    }

    fn convolve(&self, x: Tensor<4>, after: After) -> Tensor<4> {
        let (weight, plane) = (self.weight.val(), self.spec.plane());
        if self.spec.groups == 1 { conv2d(x, weight, plane, after) } else { depthwise_conv2d(x, weight, plane, after) }
    }

    /// Takes kernel and BatchNorm as they are.
    pub(crate) fn set(&mut self, kernel: &Entry, norm: [&Entry; 4], device: &Device) {
        self.weight = Param::from_tensor(tensor4(&kernel.values, self.spec.kernel_shape(), device));
        let [gamma, beta, mean, var] = norm.map(|entry| tensor1(&entry.values, device));
        self.bias = None;
        self.norm = Some(Norm {
            gamma: Param::from_tensor(gamma),
            beta: Param::from_tensor(beta),
            running_mean: RunningState::new(mean),
            running_var: RunningState::new(var),
            epsilon: EPSILON,
        });
    }

    /// Takes kernel and BatchNorm as one convolution with bias: w * g / s and b - m * g / s with s = sqrt(v + e), in f64.
    pub(crate) fn set_folded(&mut self, kernel: &Entry, norm: [&Entry; 4], device: &Device) {
        let [gamma, beta, mean, var] = norm.map(|entry| entry.values.as_slice());
        let per_output = (kernel.values.len() / self.spec.outputs.max(1)).max(1);
        let mut weights = Vec::with_capacity(kernel.values.len());
        let mut biases = Vec::with_capacity(self.spec.outputs);
        let statistics = gamma.iter().zip(beta).zip(mean.iter().zip(var));
        for (weight, ((gamma, beta), (mean, var))) in kernel.values.chunks(per_output).zip(statistics) {
            let factor = f64::from(*gamma) / (f64::from(*var) + EPSILON).sqrt();
            weights.extend(weight.iter().map(|w| (f64::from(*w) * factor) as f32));
            biases.push((f64::from(*beta) - f64::from(*mean) * factor) as f32);
        }
        self.weight = Param::from_tensor(tensor4(&weights, self.spec.kernel_shape(), device));
        self.bias = Some(Param::from_tensor(tensor1(&biases, device)));
        self.norm = None;
    }

    /// The kernel.
    pub(crate) fn kernel(&self) -> Tensor<4> {
        self.weight.val()
    }

    /// The BatchNorm's vectors in the order of [`NORM_VECTORS`].
    pub(crate) fn norm_vectors(&self) -> Option<[Tensor<1>; 4]> {
        let norm = self.norm.as_ref()?;
        Some([norm.gamma.val(), norm.beta.val(), norm.running_mean.value_sync(), norm.running_var.value_sync()])
    }
}

/// The last layer: features to logits.
#[derive(Module, Debug)]
pub struct Head {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Head {
    /// A head that has no weights yet.
    pub fn new(features: usize, outputs: usize, device: &Device) -> Self {
        Head {
            weight: Param::from_tensor(Tensor::zeros([outputs, features], device)),
            bias: Param::from_tensor(Tensor::zeros([outputs], device)),
        }
    }

    /// `[n, features]` to `[n, outputs]`.
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        features.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }

    pub(crate) fn shape(&self) -> [usize; 2] {
        self.weight.val().dims()
    }

    pub(crate) fn set(&mut self, weight: &Entry, bias: &Entry, device: &Device) {
        let data = TensorData::new(weight.values.clone(), self.shape());
        self.weight = Param::from_tensor(Tensor::from_data(data, device));
        self.bias = Param::from_tensor(tensor1(&bias.values, device));
    }

    pub(crate) fn parts(&self) -> (Tensor<2>, Tensor<1>) {
        (self.weight.val(), self.bias.val())
    }
}

/// Mean over height and width: `[n, h, w, c]` to `[n, c]`.
pub fn global_average(x: Tensor<4>) -> Tensor<2> {
    let [n, height, width, channels] = x.dims();
    x.reshape([n, height * width, channels]).mean_dim(1).reshape([n, channels])
}

/// Maximum over a square of side `kernel`; outside the image counts as less than everything.
pub fn max_pool(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    let options = MaxPoolOptions {
        kernel_size: [kernel; 2],
        stride: [stride; 2],
        padding: [(padding, padding); 2],
        dilation: [1, 1],
        ceil_mode: false,
    };
    max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

fn tensor1(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn tensor4(values: &[f32], shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}
