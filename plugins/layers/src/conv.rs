//! Convolution with what follows it as one unit. Knows no network.

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use ichd_kernels::{
    Act, After, Dense, Filter, Plane, Way, activate, chain, conv2d, conv2d_packed, depthwise_conv2d, pack, scores_here,
};
use ichd_plugin::spec::Convention;
use ichd_plugin::weights::Entry;

use crate::norm::{EPSILON, KERAS_EPSILON, Norm, NormUnit, lines};
use crate::part::{Part, Place, Slot, constant};

/// How far a kernel reaches over the image's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pad {
    /// By `(side - 1) / 2` on every side: PyTorch's usual way.
    Half,
    /// Not at all.
    None,
    /// So that the output has `size / stride` pixels, rounded up; an odd zero goes below and to the right: TensorFlow's
    /// `same`.
    Same,
}

impl Pad {
    /// Zeros above, left, below and right of an image of `size`.
    pub(crate) fn zeros(self, kernel: [usize; 2], stride: usize, size: [usize; 2]) -> [usize; 4] {
        let [down, across] = [0, 1].map(|axis| match self {
            Pad::Half => [(kernel[axis] - 1) / 2; 2],
            Pad::None => [0; 2],
            Pad::Same => {
                let reach = (size[axis].div_ceil(stride).max(1) - 1) * stride + kernel[axis];
                let zeros = reach.saturating_sub(size[axis]);
                [zeros / 2, zeros - zeros / 2]
            }
        });
        [down[0], across[0], down[1], across[1]]
    }
}

/// What a convolution's sums go through before the activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Follow {
    /// A BatchNorm with this epsilon.
    Norm(f64),
    /// A bias.
    Bias,
    /// Nothing.
    Nothing,
}

/// The shape of a unit.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Height and width of the kernel, odd.
    pub kernel: [usize; 2],
    /// Step in both directions.
    pub stride: usize,
    /// Whether there is one group for each channel.
    pub depthwise: bool,
    /// Reach over the edge.
    pub pad: Pad,
    /// What follows.
    pub follow: Follow,
    /// What follows that.
    pub act: Act,
}

impl ConvSpec {
    /// A square kernel of side `side` with stride 1, half padding, BatchNorm with PyTorch's epsilon, and ReLU.
    pub fn new(inputs: usize, outputs: usize, side: usize) -> Self {
        ConvSpec {
            inputs,
            outputs,
            kernel: [side; 2],
            stride: 1,
            depthwise: false,
            pad: Pad::Half,
            follow: Follow::Norm(EPSILON),
            act: Act::Relu,
        }
    }

    /// With a kernel of another height and width.
    pub fn kernel(self, kernel: [usize; 2]) -> Self {
        ConvSpec { kernel, ..self }
    }

    /// With another stride.
    pub fn stride(self, stride: usize) -> Self {
        ConvSpec { stride, ..self }
    }

    /// With one group for each channel.
    pub fn depthwise(self) -> Self {
        ConvSpec { depthwise: true, ..self }
    }

    /// With another reach over the edge.
    pub fn pad(self, pad: Pad) -> Self {
        ConvSpec { pad, ..self }
    }

    /// With something else than a BatchNorm of PyTorch's epsilon.
    pub fn follow(self, follow: Follow) -> Self {
        ConvSpec { follow, ..self }
    }

    /// Padded and normalized as most networks of a convention are.
    pub fn convention(self, convention: Convention) -> Self {
        match convention {
            Convention::Torch => self.pad(Pad::Half).follow(Follow::Norm(EPSILON)),
            Convention::Keras => self.pad(Pad::Same).follow(Follow::Norm(KERAS_EPSILON)),
        }
    }

    /// With another activation.
    pub fn act(self, act: Act) -> Self {
        ConvSpec { act, ..self }
    }

    /// Shape of the kernel, `[outputs, inputs / groups, height, width]`.
    pub fn kernel_shape(&self) -> [usize; 4] {
        let inputs = if self.depthwise { 1 } else { self.inputs };
        [self.outputs, inputs, self.kernel[0], self.kernel[1]]
    }

    fn plane(&self, size: [usize; 2]) -> Plane {
        let padding = self.pad.zeros(self.kernel, self.stride, size);
        Plane { kernel: self.kernel, stride: [self.stride; 2], padding }
    }
}

/// Convolution, BatchNorm or bias, activation. Folded, a BatchNorm is gone and the convolution has a bias instead.
#[derive(Module, Debug)]
pub struct ConvUnit {
    /// The kernel, unless it is packed.
    weight: Option<Param<Tensor<4>>>,
    /// The kernel as the CPU's convolution reads it: where that scores, it takes the kernel's place.
    packed: Option<Param<Tensor<1>>>,
    bias: Option<Param<Tensor<1>>>,
    norm: Option<Norm>,
    frozen: bool,
    #[module(skip)]
    half: Option<FloatDType>,
    #[module(skip)]
    spec: ConvSpec,
}

impl ConvUnit {
    /// A unit that has no weights yet.
    pub fn new(spec: ConvSpec, device: &Device) -> Self {
        ConvUnit {
            weight: Some(Param::from_tensor(Tensor::zeros(spec.kernel_shape(), device))),
            packed: None,
            bias: (spec.follow == Follow::Bias).then(|| Param::from_tensor(Tensor::zeros([spec.outputs], device))),
            norm: match spec.follow {
                Follow::Norm(epsilon) => Some(Norm::new(spec.outputs, epsilon, device)),
                Follow::Bias | Follow::Nothing => None,
            },
            frozen: false,
            half: None,
            spec,
        }
    }

    /// Its shape.
    pub fn spec(&self) -> ConvSpec {
        self.spec
    }

    /// `[n, height, width, inputs]` to `[n, height / stride, width / stride, outputs]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.run(x, Way::AsItIs, None)
    }

    /// As [`ConvUnit::forward`], with a tensor of the output's shape added before the activation.
    pub fn forward_added(&self, x: Tensor<4>, addend: Tensor<4>) -> Tensor<4> {
        self.run(x, Way::AsItIs, Some(addend))
    }

    /// As [`ConvUnit::forward`] of what `norm` makes of `x`: in one pass where the CPU scores. For kernels of one tap.
    pub fn forward_behind(&self, norm: &NormUnit, x: Tensor<4>) -> Tensor<4> {
        match norm.way().filter(|_| self.packed.is_some()) {
            Some(way) => self.run(x, way, None),
            None => self.forward(norm.forward(x)),
        }
    }

    /// As [`ConvUnit::forward`] of `x` times `factors` `[n, 1, 1, inputs]`, with an addend or without: in one pass where
    /// the CPU scores. For kernels of one tap.
    pub fn forward_scaled(&self, x: Tensor<4>, factors: Tensor<4>, addend: Option<Tensor<4>>) -> Tensor<4> {
        match &self.packed {
            Some(_) => self.run(x, Way::Scaled(factors), addend),
            None => self.run(x * factors, Way::AsItIs, addend),
        }
    }

    /// As [`ConvUnit::forward`] of `expand`, `filter` and `project` one behind the other, `addend` added before the last
    /// activation: in one pass where the CPU scores. `filter` is depthwise, the others have one tap.
    pub fn chain(
        expand: Option<&ConvUnit>,
        filter: &ConvUnit,
        project: Option<&ConvUnit>,
        x: Tensor<4>,
        addend: Option<Tensor<4>>,
    ) -> Tensor<4> {
        if let Some(done) = Self::at_once(expand, filter, project, &x, addend.as_ref()) {
            return done;
        }
        let wide = expand.map_or_else(|| x.clone(), |unit| unit.forward(x.clone()));
        let filtered = filter.forward(wide);
        match (project, addend) {
            (Some(project), Some(addend)) => project.forward_added(filtered, addend),
            (Some(project), None) => project.forward(filtered),
            (None, _) => filtered,
        }
    }

    fn at_once(
        expand: Option<&ConvUnit>,
        filter: &ConvUnit,
        project: Option<&ConvUnit>,
        x: &Tensor<4>,
        addend: Option<&Tensor<4>>,
    ) -> Option<Tensor<4>> {
        if !scores_here(x) || filter.norm.is_some() {
            return None;
        }
        let dense = |unit: Option<&ConvUnit>| unit.map(ConvUnit::dense);
        let (expand, project) = (dense(expand), dense(project));
        if [&expand, &project].into_iter().any(|dense| matches!(dense, Some(None))) {
            return None;
        }
        let [_, height, width, _] = x.dims();
        let filter = Filter {
            weight: filter.weight.as_ref()?.val(),
            bias: filter.bias.as_ref().map(Param::val),
            plane: filter.spec.plane([height, width]),
            act: filter.spec.act,
        };
        chain(x, expand.flatten().as_ref(), &filter, project.flatten().as_ref(), addend)
    }

    /// A packed kernel of one tap with its bias.
    fn dense(&self) -> Option<Dense> {
        let (Some(packed), Some(bias), None) = (&self.packed, &self.bias, &self.norm) else { return None };
        let is_one_tap = self.spec.kernel == [1, 1] && self.spec.stride == 1;
        let dense = || Dense { packed: packed.val(), bias: bias.val(), outputs: self.spec.outputs, act: self.spec.act };
        is_one_tap.then(dense)
    }

    fn run(&self, x: Tensor<4>, way: Way, addend: Option<Tensor<4>>) -> Tensor<4> {
        let keep = |tensor: Tensor<1>| if self.frozen { constant(tensor) } else { tensor };
        let Some(norm) = &self.norm else {
            let bias = self.bias.as_ref().map(|bias| keep(bias.val()));
            return self.convolve(x, way, After { bias, addend, act: self.spec.act });
        };
        let x = self.convolve(x, way, After::nothing());
        match addend {
            None => norm.forward(x, self.spec.act),
            Some(addend) => activate(norm.forward(x, Act::Linear) + addend, self.spec.act),
        }
    }

    /// `way` is something else than nothing only for a packed kernel.
    fn convolve(&self, x: Tensor<4>, way: Way, after: After) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        let plane = self.spec.plane([height, width]);
        let weight = match (&self.weight, &self.packed) {
            (_, Some(packed)) => return conv2d_packed(x, way, packed.val(), self.spec.outputs, plane, after),
            (Some(weight), None) => weight.val(),
            (None, None) => unreachable!("a convolution without a kernel; this is a bug"),
        };
        let weight = if self.frozen { constant(weight) } else { weight };
        let layer = if self.spec.depthwise { depthwise_conv2d } else { conv2d };
        match self.half.filter(|_| x.device().is_autodiff()) {
            None => layer(x, weight, plane, after),
            // Products in half precision; sums, bias and all that follows in f32.
            Some(half) => {
                let sums = layer(x.cast(half), weight.cast(half), plane, After::nothing());
                after.apply(sums.cast(FloatDType::F32))
            }
        }
    }

    /// Takes a kernel, packed where it will be read so.
    fn set_kernel(&mut self, values: &[f32], place: &Place) {
        let kernel = place.kernel(values, self.spec.kernel_shape());
        if place.packs() && !self.spec.depthwise {
            (self.weight, self.packed) =
                (None, Some(Param::from_tensor(pack(kernel, [self.spec.stride; 2], place.products))));
        } else {
            (self.weight, self.packed) = (Some(Param::from_tensor(kernel)), None);
        }
    }

    /// Takes kernel and what follows, in the order of their names.
    ///
    /// Folding: w * s and b + 0 * s for the BatchNorm's line `x * s + b`, in f64, then f32, then the serving type.
    pub(crate) fn set(&mut self, entries: &[&Entry], place: &Place) {
        match (entries, self.spec.follow) {
            ([kernel, gamma, beta, mean, var], Follow::Norm(epsilon)) if place.folded => {
                let per_output = (kernel.values.len() / self.spec.outputs.max(1)).max(1);
                let lines = lines([gamma, beta, mean, var], epsilon);
                let outputs = kernel.values.chunks(per_output).zip(&lines);
                let scaled = outputs.flat_map(|(kernel, (s, _))| kernel.iter().map(|w| (f64::from(*w) * *s) as f32));
                self.set_kernel(&scaled.collect::<Vec<f32>>(), place);
                let biases: Vec<f32> = lines.iter().map(|(_, level)| *level as f32).collect();
                self.bias = Some(Param::from_tensor(place.vector(&biases)));
                self.norm = None;
            }
            ([kernel, rest @ ..], _) => {
                self.set_kernel(&kernel.values, place);
                match (rest, &mut self.norm) {
                    ([gamma, beta, mean, var], Some(norm)) => norm.set([gamma, beta, mean, var], place),
                    ([bias], _) => self.bias = Some(Param::from_tensor(place.vector(&bias.values))),
                    _ => {}
                }
            }
            ([], _) => {}
        }
    }

    /// Kernel and what follows, in the order of their names.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.weight.iter().map(|weight| Part::Kernel(weight.val())).collect();
        parts.extend(self.bias.iter().map(|bias| Part::Vector(bias.val())));
        parts.extend(self.norm.iter().flat_map(Norm::parts));
        parts
    }

    /// What learns, in the order of their names.
    pub(crate) fn slots(&mut self) -> Vec<Slot<'_>> {
        let mut slots: Vec<Slot<'_>> = self.weight.iter_mut().map(Slot::Kernel).collect();
        slots.extend(self.bias.iter_mut().map(Slot::Vector));
        slots.extend(self.norm.iter_mut().flat_map(Norm::slots));
        slots
    }

    /// The convolution's type of number while it learns; everything else stays f32.
    pub(crate) fn mix(&mut self, half: Option<FloatDType>) {
        self.half = half;
    }

    pub(crate) fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
        if let Some(norm) = &mut self.norm {
            norm.freeze(frozen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_is_tensorflows() {
        // Even sizes get their odd zero below and to the right, odd ones are symmetric.
        assert_eq!(Pad::Same.zeros([3, 3], 2, [224, 225]), [0, 1, 1, 1]);
        assert_eq!(Pad::Same.zeros([5, 5], 2, [112, 113]), [1, 2, 2, 2]);
        assert_eq!(Pad::Same.zeros([3, 3], 1, [7, 1]), [1, 1, 1, 1]);
        assert_eq!(Pad::Same.zeros([1, 1], 2, [8, 9]), [0, 0, 0, 0]);
        assert_eq!(Pad::Half.zeros([1, 7], 1, [9, 9]), [0, 3, 0, 3]);
        assert_eq!(Pad::None.zeros([3, 3], 2, [9, 9]), [0; 4]);
    }
}
