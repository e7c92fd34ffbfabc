//! BatchNorm, beside a convolution or alone. Knows no network.

use burn::module::{Module, Param, RunningState};
use burn::tensor::module::batch_norm as batch_norm_with;
use burn::tensor::{Device, Tensor};
use ichd_kernels::{Act, Way, activate, batch_norm, line, scores_here};
use ichd_plugin::weights::Entry;

use crate::part::{Part, Place, Slot, constant};

/// Names of a BatchNorm's vectors after its prefix.
pub(crate) const NORM_VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// How many of [`NORM_VECTORS`] are learned: the first ones.
pub(crate) const NORM_LEARNED: usize = 2;

/// Share of a batch in the running statistics: PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// PyTorch's default.
pub const EPSILON: f64 = 1e-5;

/// Keras' default.
pub const KERAS_EPSILON: f64 = 1e-3;

/// BatchNorm with PyTorch's meaning: the running variance is the unbiased one, which the tensor library's own layer
/// does not keep.
#[derive(Module, Debug)]
pub(crate) struct Norm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
    epsilon: f64,
    frozen: bool,
}

impl Norm {
    pub fn new(channels: usize, epsilon: f64, device: &Device) -> Self {
        Norm {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            epsilon,
            frozen: false,
        }
    }

    /// Vectors in the order of [`NORM_VECTORS`].
    pub fn set(&mut self, vectors: [&Entry; 4], place: &Place) {
        let [gamma, beta, mean, var] = vectors.map(|entry| place.vector(&entry.values));
        self.gamma = Param::from_tensor(gamma);
        self.beta = Param::from_tensor(beta);
        self.running_mean = RunningState::new(mean);
        self.running_var = RunningState::new(var);
    }

    pub fn parts(&self) -> [Part; 4] {
        let vectors =
            [self.gamma.val(), self.beta.val(), self.running_mean.value_sync(), self.running_var.value_sync()];
        vectors.map(Part::Vector)
    }

    /// What learns, in the order of [`NORM_VECTORS`].
    pub fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Vector(&mut self.gamma), Slot::Vector(&mut self.beta)]
    }

    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    pub fn forward(&self, x: Tensor<4>, act: Act) -> Tensor<4> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        let learns = x.device().is_autodiff();
        if !learns || self.frozen {
            let (mean, var) = (self.running_mean.value(), self.running_var.value());
            let [gamma, beta] = if learns { [constant(gamma), constant(beta)] } else { [gamma, beta] };
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

/// A trained BatchNorm as a line for each channel, `x * slope + level`, computed in f64.
pub(crate) fn lines([gamma, beta, mean, var]: [&Entry; 4], epsilon: f64) -> Vec<(f64, f64)> {
    let statistics = gamma.values.iter().zip(&beta.values).zip(mean.values.iter().zip(&var.values));
    let line = |((gamma, beta), (mean, var)): ((&f32, &f32), (&f32, &f32))| {
        let slope = f64::from(*gamma) / (f64::from(*var) + epsilon).sqrt();
        (slope, f64::from(*beta) - f64::from(*mean) * slope)
    };
    statistics.map(line).collect()
}

/// A BatchNorm that follows no convolution, and its activation.
#[derive(Module, Debug)]
pub struct NormUnit {
    norm: Option<Norm>,
    /// Folded: slope and level of each channel.
    lines: Option<[Param<Tensor<1>>; 2]>,
    channels: usize,
    epsilon: f64,
    #[module(skip)]
    act: Act,
}

impl NormUnit {
    /// A unit that has no weights yet.
    pub fn new(channels: usize, epsilon: f64, act: Act, device: &Device) -> Self {
        NormUnit { norm: Some(Norm::new(channels, epsilon, device)), lines: None, channels, epsilon, act }
    }

    /// `[n, height, width, channels]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if let Some([slope, level]) = &self.lines {
            if scores_here(&x) {
                return line(x, Some([slope.val(), level.val()]), self.act);
            }
            let wide = |vector: &Param<Tensor<1>>| vector.val().reshape([1, 1, 1, self.channels]);
            return activate(x * wide(slope) + wide(level), self.act);
        }
        match &self.norm {
            Some(norm) => norm.forward(x, self.act),
            None => activate(x, self.act),
        }
    }

    /// The same as an entry of a convolution, where it is folded and can be one.
    pub(crate) fn way(&self) -> Option<Way> {
        let [slope, level] = self.lines.as_ref().filter(|_| self.act != Act::Silu)?;
        Some(Way::Line([slope.val(), level.val()], self.act))
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    pub(crate) fn set(&mut self, vectors: [&Entry; 4], place: &Place) {
        if place.folded {
            let (slopes, levels): (Vec<f32>, Vec<f32>) =
                lines(vectors, self.epsilon).into_iter().map(|(slope, level)| (slope as f32, level as f32)).unzip();
            self.lines = Some([slopes, levels].map(|vector| Param::from_tensor(place.vector(&vector))));
            self.norm = None;
        } else if let Some(norm) = &mut self.norm {
            norm.set(vectors, place);
        }
    }

    pub(crate) fn parts(&self) -> Vec<Part> {
        self.norm.iter().flat_map(Norm::parts).collect()
    }

    pub(crate) fn slots(&mut self) -> Vec<Slot<'_>> {
        self.norm.iter_mut().flat_map(Norm::slots).collect()
    }

    pub(crate) fn freeze(&mut self, frozen: bool) {
        if let Some(norm) = &mut self.norm {
            norm.freeze(frozen);
        }
    }
}
