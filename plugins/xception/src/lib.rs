//! Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2016 (arXiv 1610.02357).
//!
//! The network of timm (`legacy_xception`), whose names it has, since torchvision lacks it. Against the original in Keras,
//! timm pads strided pools evenly and gives BatchNorms PyTorch's epsilon; both conventions are here. The classifier is
//! global average pooling and one layer of six units.

mod names;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{
    Act, ConvSpec, ConvUnit, EPSILON, Follow, Head, KERAS_EPSILON, Layer, Network, Pad, activate, global_average,
    inference, max_pool, shapes, training,
};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Convention, HALF, Variant};

/// Xception with timm's names.
pub static XCEPTION: BackboneSpec = BackboneSpec {
    name: "xception",
    family: "xception",
    input_side: 299,
    side_min: 71,
    feature_width: FEATURES,
    parameters: 20_806_952,
    parameters_imagenet: 22_855_952,
    multiply_adds: 8_357_403_496,
    first_conv: "conv1.weight",
    classifier: "fc",
    mean: HALF,
    std: HALF,
    left_out: &[],
    dialects: names::DIALECTS,
    paper: "Chollet 2016, arXiv 1610.02357",
    shapes: shapes::<Xception>,
    infer: |device, variant, precision| inference::<Xception>(&XCEPTION, device, variant, precision),
    train: |device, variant| training::<Xception>(&XCEPTION, device, variant),
};

/// Figure 5 of the paper: output channels of each separable convolution, and the stride, of the blocks.
const BLOCKS: [(&[usize], usize); 12] = [
    (&[128, 128], 2),
    (&[256, 256], 2),
    (&[728, 728], 2),
    (&[728; 3], 1),
    (&[728; 3], 1),
    (&[728; 3], 1),
    (&[728; 3], 1),
    (&[728; 3], 1),
    (&[728; 3], 1),
    (&[728; 3], 1),
    (&[728; 3], 1),
    (&[728, 1024], 2),
];
/// Separable convolutions of the exit.
const EXIT: [usize; 2] = [1536, FEATURES];
const FEATURES: usize = 2048;

/// The network.
#[derive(Module, Debug)]
pub struct Xception {
    stem: Vec<ConvUnit>,
    blocks: Vec<Block>,
    exit: Vec<Separable>,
    fc: Head,
}

/// A filter for each channel, then a mix of the channels; nothing between.
#[derive(Module, Debug)]
struct Separable {
    depthwise: ConvUnit,
    pointwise: ConvUnit,
}

/// Separable convolutions, each behind a ReLU but the very first, around which the input is added.
#[derive(Module, Debug)]
struct Block {
    parts: Vec<Separable>,
    skip: Option<ConvUnit>,
    relu_first: bool,
    stride: usize,
    #[module(skip)]
    pad: Pad,
}

/// What differs between the conventions.
struct House {
    pad: Pad,
    norm: Follow,
}

impl Separable {
    fn new(inputs: usize, outputs: usize, act: Act, device: &Device, house: &House) -> Self {
        let depthwise = ConvSpec::new(inputs, inputs, 3).depthwise().follow(Follow::Nothing).act(Act::Linear);
        let pointwise = ConvSpec::new(inputs, outputs, 1).follow(house.norm).act(act);
        Separable { depthwise: ConvUnit::new(depthwise, device), pointwise: ConvUnit::new(pointwise, device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ConvUnit::chain(None, &self.depthwise, Some(&self.pointwise), x, None)
    }

    fn forward_added(&self, x: Tensor<4>, addend: Tensor<4>) -> Tensor<4> {
        ConvUnit::chain(None, &self.depthwise, Some(&self.pointwise), x, Some(addend))
    }
}

impl Block {
    fn new(inputs: usize, widths: &[usize], stride: usize, relu_first: bool, device: &Device, house: &House) -> Self {
        let mut from = inputs;
        let mut parts = Vec::new();
        for (idx, width) in widths.iter().enumerate() {
            // The ReLU between two parts ends the first.
            let act = if idx + 1 < widths.len() { Act::Relu } else { Act::Linear };
            parts.push(Separable::new(from, *width, act, device, house));
            from = *width;
        }
        let skip = ConvSpec::new(inputs, from, 1).stride(stride).follow(house.norm).act(Act::Linear);
        let skip = (stride != 1 || inputs != from).then(|| ConvUnit::new(skip, device));
        Block { parts, skip, relu_first, stride, pad: house.pad }
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let first = if self.relu_first { activate(input.clone(), Act::Relu) } else { input.clone() };
        let (parts, last) = self.parts.split_at(self.parts.len() - 1);
        let x = parts.iter().fold(first, |x, part| part.forward(x));
        let Some(skip) = &self.skip else {
            return last.iter().fold(x, |x, part| part.forward_added(x, input.clone()));
        };
        let x = last.iter().fold(x, |x, part| part.forward(x));
        let x = if self.stride == 1 { x } else { max_pool(x, 3, self.stride, self.pad) };
        skip.forward_added(input, x)
    }
}

impl Network for Xception {
    fn new(device: &Device, variant: Variant) -> Self {
        let house = match variant.convention {
            Convention::Torch => House { pad: Pad::Half, norm: Follow::Norm(EPSILON) },
            Convention::Keras => House { pad: Pad::Same, norm: Follow::Norm(KERAS_EPSILON) },
        };
        let conv = |spec: ConvSpec| ConvUnit::new(spec.pad(Pad::None).follow(house.norm), device);
        let stem = vec![conv(ConvSpec::new(variant.windows, 32, 3).stride(2)), conv(ConvSpec::new(32, 64, 3))];
        let mut inputs = 64;
        let mut blocks = Vec::new();
        for (idx, (widths, stride)) in BLOCKS.into_iter().enumerate() {
            blocks.push(Block::new(inputs, widths, stride, idx > 0, device, &house));
            inputs = widths[widths.len() - 1];
        }
        let mut exit = Vec::new();
        for outputs in EXIT {
            exit.push(Separable::new(inputs, outputs, Act::Relu, device, &house));
            inputs = outputs;
        }
        Xception { stem, blocks, exit, fc: Head::new(FEATURES, N_LABELS, device) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.iter().fold(images, |x, conv| conv.forward(x));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.exit.iter().fold(x, |x, part| part.forward(x));
        self.fc.forward(global_average(x))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = Vec::new();
        for (n, unit) in (1..).zip(&mut self.stem) {
            all.push(Layer::conv(format!("conv{n}"), format!("bn{n}"), unit));
        }
        for (n, block) in (1..).zip(&mut self.blocks) {
            if let Some(skip) = &mut block.skip {
                all.push(Layer::conv(format!("block{n}.skip"), format!("block{n}.skipbn"), skip));
            }
            // timm's list holds ReLU, separable convolution, BatchNorm in turn.
            let mut member = usize::from(block.relu_first);
            for part in &mut block.parts {
                let (conv, norm) = (format!("block{n}.rep.{member}"), format!("block{n}.rep.{}", member + 1));
                all.extend(separable(&conv, norm, part));
                member += 3;
            }
        }
        for (n, part) in (3..).zip(&mut self.exit) {
            all.extend(separable(&format!("conv{n}"), format!("bn{n}"), part));
        }
        all.push(Layer::Head { name: "fc", head: &mut self.fc });
        all
    }
}

fn separable<'a>(conv: &str, norm: String, part: &'a mut Separable) -> [Layer<'a>; 2] {
    [
        Layer::plain(format!("{conv}.conv1"), &mut part.depthwise),
        Layer::conv(format!("{conv}.pointwise"), norm, &mut part.pointwise),
    ]
}
