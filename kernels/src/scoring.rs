//! What the CPU does for a network that scores and cannot be differentiated: convolution over packed weights, pools, joins,
//! each in one pass over channels-last images by all threads. Where these do not apply (a GPU, a network that learns, half
//! precision) the callers use the tensor library's operations.

use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_flex::FlexTensor;
use half::bf16;

use crate::cpu::chain::Chain;
use crate::cpu::depthwise::Strip;
use crate::cpu::direct::{self, Before, Extras, Product};
use crate::cpu::panels::Cut;
use crate::cpu::pointwise::{Panels, Pointwise};
use crate::cpu::pool::Buffer;
use crate::cpu::pools::{self, Pool};
use crate::cpu::{Real, bfloat, conv, passes, tensors};
use crate::geometry::{Act, Plane};
use crate::layer::{After, on_cpu};
use crate::ops::typed;

/// Whether the operations of this module can take a tensor.
pub fn scores_here<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    on_cpu(&device) && !device.is_autodiff() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// The CPU's own tensor.
fn flex<const D: usize>(x: Tensor<D>) -> FlexTensor {
    x.try_into_primitive::<Flex>().unwrap_or_else(|error| panic!("not a plain tensor of the CPU: {error:?}"))
}

fn contiguous<const D: usize>(x: Tensor<D>) -> FlexTensor {
    flex(x).to_contiguous()
}

fn images(x: Tensor<4>) -> FlexTensor {
    tensors::readable(flex(x))
}

/// What is done to the input of a convolution with one tap and no padding on its way in.
#[allow(clippy::large_enum_variant)] // One a layer; a box would only cost a step more.
#[derive(Clone, Debug)]
pub enum Way {
    /// Nothing; for every convolution.
    AsItIs,
    /// `x * slope + level` of each channel, then an activation that is no SiLU: a folded BatchNorm.
    Line([Tensor<1>; 2], Act),
    /// Factors `[n, 1, 1, channels]`.
    Scaled(Tensor<4>),
}

/// In what a CPU multiplies where it scores; sums and all else are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// In f32.
    Whole,
    /// In bfloat16, where there are channels enough, in pairs. For processors of [`has_half_products`].
    Half,
}

/// Whether this machine's processor multiplies in bfloat16 by itself (AVX512-BF16).
pub fn has_half_products() -> bool {
    bfloat::is_here()
}

/// A dense kernel `[outputs, inputs, height, width]` arranged as the CPU's convolution of this stride reads it. About as
/// large as the kernel (outputs are filled up to a whole vector), or 16/9 of it where 3 x 3 kernels are transformed; half of
/// that where products are taken in bfloat16, which the tensor's type tells. The arrangement is this machine's and is never
/// stored.
pub fn pack(weight: Tensor<4>, stride: [usize; 2], products: Products) -> Tensor<1> {
    let [outputs, inputs, down, across] = weight.dims();
    let weight = contiguous(weight.permute([0, 2, 3, 1]));
    if products == Products::Half && bfloat::suits(inputs) {
        let cut = bfloat::cut(outputs, inputs * down * across);
        let packed = bfloat::pack(&cut, tensors::values(&weight));
        let len = packed.len();
        return Tensor::from_data(TensorData::new(packed, [len]), (&Device::flex(), DType::BF16));
    }
    let packed = typed!(weight, T => {
        let cut = Cut::new::<T>(outputs, inputs * down * across);
        let packed = conv::pack::<T>(&cut, tensors::values(&weight), [down, across], stride);
        let len = packed.len();
        tensors::tensor(packed, [len])
    });
    Tensor::from_primitive::<Flex>(packed)
}

/// [`crate::conv2d`] over weights that [`pack`] made of a kernel with `outputs`.
///
/// # Panics
/// Shapes that do not fit each other, or an entry that this convolution cannot have.
pub fn conv2d_packed(
    x: Tensor<4>,
    entry: Way,
    packed: Tensor<1>,
    outputs: usize,
    plane: Plane,
    after: After,
) -> Tensor<4> {
    let [n, height, width, inputs] = x.dims();
    let [down, across] = plane.must_output([height, width]);
    assert!(matches!(entry, Way::AsItIs) || direct::has_one_tap(&plane), "entry of a convolution with several taps");
    assert!(!matches!(entry, Way::Line(_, Act::Silu)), "SiLU at the entry of a convolution");
    let shape = conv::Shape { plane, input: [n, height, width, inputs], outputs };
    let (x, packed) = (images(x), contiguous(packed));
    let (bias, addend) = (after.bias.map(contiguous), after.addend.map(contiguous));
    let entry_tensors = match &entry {
        Way::AsItIs => Vec::new(),
        Way::Line(lines, _) => lines.iter().cloned().map(contiguous).collect(),
        Way::Scaled(factors) => {
            assert_eq!(factors.dims(), [n, 1, 1, inputs], "factors at the entry of a convolution");
            vec![contiguous(factors.clone())]
        }
    };
    if packed.dtype() == DType::BF16 {
        let product = Product {
            shape,
            input: tensors::source(&x),
            before: before(&entry, &entry_tensors),
            cut: bfloat::cut(outputs, shape.patch()),
            panels: bfloats(&packed),
            extras: extras(&bias, &addend, after.act),
        };
        let mut out = Buffer::<f32>::new(shape.pixels() * outputs);
        bfloat::run(&product, &mut out);
        return Tensor::from_primitive::<Flex>(out.into_tensor([n, down, across, outputs]));
    }
    let out = typed!(x, T => {
        let product = Product {
            shape,
            input: tensors::source::<T>(&x),
            before: before(&entry, &entry_tensors),
            cut: Cut::new::<T>(outputs, shape.patch()),
            panels: tensors::values(&packed),
            extras: extras(&bias, &addend, after.act),
        };
        conv::packed(&product).into_tensor([n, down, across, outputs])
    });
    Tensor::from_primitive::<Flex>(out)
}

fn before<'a, T: Real>(entry: &Way, tensors: &'a [FlexTensor]) -> Before<'a, T> {
    match (entry, tensors) {
        (Way::Line(_, act), [slope, level]) => {
            Before::Line { slope: tensors::values(slope), level: tensors::values(level), act: *act }
        }
        (Way::Scaled(_), [factors]) => Before::Scale(tensors::values(factors)),
        _ => Before::Nothing,
    }
}

fn extras<'a, T: Real>(bias: &'a Option<FlexTensor>, addend: &'a Option<FlexTensor>, act: Act) -> Extras<'a, T> {
    Extras { bias: bias.as_ref().map(tensors::values), addend: addend.as_ref().map(tensors::values), act }
}

/// Weights for products in bfloat16.
fn bfloats(packed: &FlexTensor) -> &[bf16] {
    packed.as_slice().expect("weights in bfloat16")
}

fn panels<T: Real>(packed: &FlexTensor) -> Panels<'_, T> {
    match packed.dtype() {
        DType::BF16 => Panels::Half(bfloats(packed)),
        _ => Panels::Whole(tensors::values(packed)),
    }
}

/// A convolution with one tap over weights that [`pack`] made, with a bias and an activation.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Packed weights.
    pub packed: Tensor<1>,
    /// One value for each output.
    pub bias: Tensor<1>,
    /// Output channels.
    pub outputs: usize,
    /// Activation.
    pub act: Act,
}

/// A depthwise convolution `[channels, 1, kernel height, kernel width]`, perhaps with a bias, and an activation.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The kernel.
    pub weight: Tensor<4>,
    /// One value for each channel.
    pub bias: Option<Tensor<1>>,
    /// Size, stride, padding.
    pub plane: Plane,
    /// Activation.
    pub act: Act,
}

/// A depthwise convolution with one-tap convolutions before and behind it, all at once; an addend of the result's shape
/// joins before the last activation. `None` where layer by layer is better: too few rows for all threads.
///
/// # Panics
/// Shapes that do not fit each other; an addend without `project`.
pub fn chain(
    x: &Tensor<4>,
    expand: Option<&Dense>,
    filter: &Filter,
    project: Option<&Dense>,
    addend: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    let [n, height, width, inputs] = x.dims();
    let [channels, ..] = filter.weight.dims();
    let [down, across] = filter.plane.must_output([height, width]);
    let outputs = project.map_or(channels, |dense| dense.outputs);
    let x = contiguous(x.clone());
    let weight = contiguous(filter.weight.clone().permute([2, 3, 0, 1]));
    let bias = filter.bias.clone().map(contiguous);
    let addend = addend.cloned().map(contiguous);
    let tensors_of = |dense: Option<&Dense>| {
        dense.map(|dense| (contiguous(dense.packed.clone()), contiguous(dense.bias.clone()), dense.outputs, dense.act))
    };
    let (expand, project) = (tensors_of(expand), tensors_of(project));
    let out = typed!(x, T => {
        let chain = Chain::<T> {
            dims: [n, height, width, inputs],
            input: tensors::values(&x),
            expand: expand.as_ref().map(|(packed, bias, outputs, act)| {
                Pointwise::new([*outputs, inputs], panels(packed), Some(tensors::values(bias)), *act)
            }),
            rows: filter.plane.reads(0, height, down),
            filter: Strip::new(
                &filter.plane,
                [height, width],
                channels,
                tensors::values(&weight),
                bias.as_ref().map(tensors::values),
                filter.act,
            ),
            project: project.as_ref().map(|(packed, bias, outputs, act)| {
                Pointwise::new([*outputs, channels], panels(packed), Some(tensors::values(bias)), *act)
            }),
            addend: addend.as_ref().map(tensors::values),
        };
        if !chain.keeps_all_busy() {
            return None;
        }
        chain.run().into_tensor([n, down, across, outputs])
    });
    Some(Tensor::from_primitive::<Flex>(out))
}

/// Pools with the square that `plane` describes.
///
/// # Panics
/// The square does not fit the padded images.
pub fn pool2d(x: Tensor<4>, plane: Plane, kind: Pool) -> Tensor<4> {
    let [n, height, width, channels] = x.dims();
    let [down, across] = plane.must_output([height, width]);
    let x = images(x);
    let out = typed!(x, T => {
        let out = pools::pool::<T>(&plane, tensors::source(&x), [n, height, width, channels], kind);
        out.into_tensor([n, down, across, channels])
    });
    Tensor::from_primitive::<Flex>(out)
}

/// Mean over height and width: `[n, h, w, c]` to `[n, c]`.
pub fn mean_of_pixels(x: Tensor<4>) -> Tensor<2> {
    let [n, height, width, channels] = x.dims();
    let x = images(x);
    let mean = typed!(x, T => {
        let mean = pools::global_average::<T>(tensors::source(&x), [n, height, width, channels]);
        tensors::tensor(mean, [n, channels])
    });
    Tensor::from_primitive::<Flex>(mean)
}

/// `act(x * slope + level)` with a slope and a level for each channel, or `act(x)`.
pub fn line(x: Tensor<4>, line: Option<[Tensor<1>; 2]>, act: Act) -> Tensor<4> {
    let [n, height, width, channels] = x.dims();
    let (x, line) = (images(x), line.map(|line| line.map(contiguous)));
    let out = typed!(x, T => {
        let line = line.as_ref().map(|line| line.each_ref().map(tensors::values));
        let out = passes::line::<T>(tensors::source(&x), n * height * width, channels, line, act);
        out.into_tensor([n, height, width, channels])
    });
    Tensor::from_primitive::<Flex>(out)
}

/// Images side by side in their channels.
///
/// # Panics
/// Images of different number, height, width or type.
pub fn join_channels(parts: Vec<Tensor<4>>) -> Tensor<4> {
    let dims: Vec<[usize; 4]> = parts.iter().map(Tensor::dims).collect();
    let Some([n, height, width, _]) = dims.first().copied() else { panic!("nothing to join") };
    assert!(
        dims.iter().all(|part| part[..3] == [n, height, width]),
        "images of different sizes side by side: {dims:?}"
    );
    let channels = dims.iter().map(|part| part[3]).sum();
    let parts: Vec<FlexTensor> = parts.into_iter().map(images).collect();
    let out = typed!(parts[0], T => {
        let sources: Vec<_> = parts.iter().zip(&dims).map(|(part, dims)| (tensors::source::<T>(part), dims[3])).collect();
        passes::join(&sources, n * height * width).into_tensor([n, height, width, channels])
    });
    Tensor::from_primitive::<Flex>(out)
}

/// Images that other images join one after the other, in memory that is as wide as all of them from the start.
#[derive(Debug)]
pub struct Growing {
    wide: FlexTensor,
    channels: usize,
}

impl Growing {
    /// Begins with `x` and has room for `most` channels.
    ///
    /// # Panics
    /// `x` alone has more channels.
    pub fn new(x: Tensor<4>, most: usize) -> Growing {
        let [n, height, width, channels] = x.dims();
        assert!(channels <= most, "{channels} channels in the place of {most}");
        let x = images(x);
        let wide = typed!(x, T => {
            let mut wide = Buffer::<T>::new(n * height * width * most);
            passes::place(tensors::source(&x), channels, &mut wide, most, 0);
            wide.into_tensor([n, height, width, most])
        });
        Growing { wide, channels }
    }

    /// The images so far. While they are alive, joining costs a copy of all.
    pub fn images(&self) -> Tensor<4> {
        Tensor::from_primitive::<Flex>(self.wide.narrow(3, 0, self.channels))
    }

    /// Joins more channels.
    ///
    /// # Panics
    /// Another size or type, or no room.
    pub fn push(&mut self, more: Tensor<4>) {
        let [n, height, width, channels] = more.dims();
        let [.., most] = tensors::dims::<4>(&self.wide);
        assert_eq!(tensors::dims::<4>(&self.wide), [n, height, width, most], "images of other sizes side by side");
        assert!(self.channels + channels <= most, "no room for {channels} more channels");
        if !self.wide.is_unique() {
            // Somebody still holds the images so far. The library's own copy refuses memory aligned to cache lines.
            self.wide = Growing::new(self.images(), most).wide;
        }
        let (more, from) = (images(more), self.channels);
        typed!(more, T => {
            passes::place(tensors::source::<T>(&more), channels, self.wide.storage_mut(), most, from);
        });
        self.channels += channels;
    }
}
