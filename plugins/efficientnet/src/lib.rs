//! EfficientNet B0, B2 and B3: Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019
//! (arXiv 1905.11946).
//!
//! The networks of torchvision, without its dropout and without dropping whole blocks while training: the report's head is
//! global average pooling and one layer of six units. Keras pads strided convolutions unevenly and has another epsilon.

mod names;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{
    Act, ConvSpec, ConvUnit, Head, Layer, Network, Squeeze, global_average, inference, shapes, training,
};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Convention, IMAGENET_MEAN, IMAGENET_STD, Variant};

/// EfficientNet-B0 with torchvision's names.
pub static EFFICIENTNET_B0: BackboneSpec = BackboneSpec {
    name: "efficientnet_b0",
    input_side: 224,
    feature_width: 1280,
    parameters: 4_007_548,
    parameters_imagenet: 5_288_548,
    multiply_adds: 385_814_752,
    shapes: shapes::<EfficientNet<0>>,
    infer: |device, variant, precision| inference::<EfficientNet<0>>(&EFFICIENTNET_B0, device, variant, precision),
    train: |device, variant| training::<EfficientNet<0>>(&EFFICIENTNET_B0, device, variant),
    ..COMMON
};

/// EfficientNet-B2 with torchvision's names, at the paper's side; torchvision's own weights were trained at 288.
pub static EFFICIENTNET_B2: BackboneSpec = BackboneSpec {
    name: "efficientnet_b2",
    input_side: 260,
    feature_width: 1408,
    parameters: 7_700_994,
    parameters_imagenet: 9_109_994,
    multiply_adds: 993_561_872,
    shapes: shapes::<EfficientNet<2>>,
    infer: |device, variant, precision| inference::<EfficientNet<2>>(&EFFICIENTNET_B2, device, variant, precision),
    train: |device, variant| training::<EfficientNet<2>>(&EFFICIENTNET_B2, device, variant),
    ..COMMON
};

/// EfficientNet-B3 with torchvision's names.
pub static EFFICIENTNET_B3: BackboneSpec = BackboneSpec {
    name: "efficientnet_b3",
    input_side: 300,
    feature_width: 1536,
    parameters: 10_696_232,
    parameters_imagenet: 12_233_232,
    multiply_adds: 1_827_141_392,
    shapes: shapes::<EfficientNet<3>>,
    infer: |device, variant, precision| inference::<EfficientNet<3>>(&EFFICIENTNET_B3, device, variant, precision),
    train: |device, variant| training::<EfficientNet<3>>(&EFFICIENTNET_B3, device, variant),
    ..COMMON
};

/// What the three share.
const COMMON: BackboneSpec = BackboneSpec {
    name: "",
    family: "efficientnet",
    input_side: 0,
    side_min: 32,
    feature_width: 0,
    parameters: 0,
    parameters_imagenet: 0,
    multiply_adds: 0,
    first_conv: "features.0.0.weight",
    classifier: "classifier.1",
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
    left_out: &[],
    dialects: names::DIALECTS,
    paper: "Tan, Le 2019, arXiv 1905.11946",
    shapes: shapes::<EfficientNet<0>>,
    infer: |device, variant, precision| inference::<EfficientNet<0>>(&EFFICIENTNET_B0, device, variant, precision),
    train: |device, variant| training::<EfficientNet<0>>(&EFFICIENTNET_B0, device, variant),
};

/// Table 1 of the paper, B0: expansion, kernel, stride of the first repeat, output channels, repeats.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];
/// Channels of B0's stem.
const STEM: usize = 32;
/// Output channels of the last convolution for each of its input channels.
const LAST: usize = 4;
/// Input channels of a block for each channel of its squeeze.
const SQUEEZE: usize = 4;

/// Factors on channels and repeats of variant `B`, in tenths.
const fn factors(variant: usize) -> (usize, usize) {
    match variant {
        0 => (10, 10),
        1 => (10, 11),
        2 => (11, 12),
        _ => (12, 14),
    }
}

/// Scaled channels: the nearest multiple of 8, but not less than nine tenths of the exact number.
fn wide(channels: usize, tenths: usize) -> usize {
    let exact = channels * tenths;
    let rounded = ((exact + 40) / 80 * 8).max(8);
    if rounded * 100 < exact * 9 { rounded + 8 } else { rounded }
}

/// The network of variant `B`.
#[derive(Module, Debug)]
pub struct EfficientNet<const B: usize> {
    stem: ConvUnit,
    stages: Vec<Vec<Block>>,
    last: ConvUnit,
    classifier: Head,
}

/// Widen, filter each channel, weigh the channels, narrow; the input is added where shapes allow.
#[derive(Module, Debug)]
struct Block {
    expand: Option<ConvUnit>,
    depthwise: ConvUnit,
    squeeze: Squeeze,
    project: ConvUnit,
    residual: bool,
}

impl Block {
    /// `filter` is the spec of the depthwise convolution.
    fn new(inputs: usize, filter: ConvSpec, outputs: usize, device: &Device, convention: Convention) -> Self {
        let (width, stride) = (filter.outputs, filter.stride);
        let silu = |spec: ConvSpec| ConvUnit::new(spec.convention(convention).act(Act::Silu), device);
        Block {
            expand: (width != inputs).then(|| silu(ConvSpec::new(inputs, width, 1))),
            depthwise: silu(filter),
            squeeze: Squeeze::new(width, (inputs / SQUEEZE).max(1), Act::Silu, device),
            project: ConvUnit::new(ConvSpec::new(width, outputs, 1).convention(convention).act(Act::Linear), device),
            residual: stride == 1 && inputs == outputs,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let filtered = ConvUnit::chain(self.expand.as_ref(), &self.depthwise, None, x.clone(), None);
        let factors = self.squeeze.factors(filtered.clone());
        self.project.forward_scaled(filtered, factors, self.residual.then_some(x))
    }
}

impl<const B: usize> Network for EfficientNet<B> {
    fn new(device: &Device, variant: Variant) -> Self {
        let Variant { convention, windows } = variant;
        let (width, depth) = factors(B);
        let silu = |spec: ConvSpec| ConvUnit::new(spec.convention(convention).act(Act::Silu), device);
        let mut inputs = wide(STEM, width);
        let stem = silu(ConvSpec::new(windows, inputs, 3).stride(2));
        let mut stages = Vec::new();
        for (expansion, kernel, first_stride, outputs, repeats) in STAGES {
            let outputs = wide(outputs, width);
            let mut blocks = Vec::new();
            for repeat in 0..(repeats * depth).div_ceil(10) {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let filter = ConvSpec::new(inputs * expansion, inputs * expansion, kernel).stride(stride).depthwise();
                blocks.push(Block::new(inputs, filter, outputs, device, convention));
                inputs = outputs;
            }
            stages.push(blocks);
        }
        let last = silu(ConvSpec::new(inputs, inputs * LAST, 1));
        EfficientNet { stem, stages, last, classifier: Head::new(inputs * LAST, N_LABELS, device) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stages.iter().flatten().fold(self.stem.forward(images), |x, block| block.forward(x));
        self.classifier.forward(global_average(self.last.forward(x)))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = vec![conv("features.0", &mut self.stem)];
        let n_stages = self.stages.len();
        for (stage, blocks) in (1..).zip(&mut self.stages) {
            for (idx, block) in blocks.iter_mut().enumerate() {
                let prefix = format!("features.{stage}.{idx}.block");
                // torchvision counts the parts that are there: without expansion the depthwise convolution is the first.
                let mut part = 0;
                for unit in block.expand.iter_mut().chain([&mut block.depthwise]) {
                    all.push(conv(&format!("{prefix}.{part}"), unit));
                    part += 1;
                }
                all.push(Layer::plain(format!("{prefix}.{part}.fc1"), &mut block.squeeze.reduce));
                all.push(Layer::plain(format!("{prefix}.{part}.fc2"), &mut block.squeeze.expand));
                all.push(conv(&format!("{prefix}.{}", part + 1), &mut block.project));
            }
        }
        all.push(conv(&format!("features.{}", n_stages + 1), &mut self.last));
        all.push(Layer::Head { name: "classifier.1", head: &mut self.classifier });
        all
    }
}

fn conv<'a>(prefix: &str, unit: &'a mut ConvUnit) -> Layer<'a> {
    Layer::conv(format!("{prefix}.0"), format!("{prefix}.1"), unit)
}
