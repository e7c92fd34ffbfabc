//! ResNet-50: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015 (arXiv 1512.03385).
//!
//! The network of torchvision, which differs from the paper in one thing: a block that shrinks the image does so in its
//! 3 x 3 convolution, not in the first 1 x 1 ("v1.5"). Keras keeps the paper's place. The classifier is global average
//! pooling and one layer of six units.

mod names;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{
    Act, ConvSpec, ConvUnit, EPSILON, Follow, Head, Layer, Network, Pad, global_average, inference, max_pool, shapes,
    training,
};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Convention, IMAGENET_MEAN, IMAGENET_STD, Variant};

/// ResNet-50 with torchvision's names.
pub static RESNET50: BackboneSpec = BackboneSpec {
    name: "resnet50",
    family: "resnet",
    input_side: 224,
    side_min: 32,
    feature_width: 2048,
    parameters: 23_508_032,
    parameters_imagenet: 25_557_032,
    multiply_adds: 4_089_184_256,
    first_conv: "conv1.weight",
    classifier: "fc",
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
    left_out: &[],
    dialects: names::DIALECTS,
    paper: "He et al. 2015, arXiv 1512.03385",
    shapes: shapes::<ResNet50>,
    infer: |device, variant, precision| inference::<ResNet50>(&RESNET50, device, variant, precision),
    train: |device, variant| training::<ResNet50>(&RESNET50, device, variant),
};

/// Blocks and width of each of the four layers.
const LAYERS: [(usize, usize); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
/// Output channels of a block for each channel of its width.
const EXPANSION: usize = 4;
/// Epsilon of the BatchNorms of Keras' ResNets.
const KERAS_EPSILON: f64 = 1.001e-5;

/// The network.
#[derive(Module, Debug)]
pub struct ResNet50 {
    conv1: ConvUnit,
    layers: Vec<Vec<Bottleneck>>,
    fc: Head,
}

/// 1 x 1, 3 x 3 and 1 x 1 convolutions around which the input is added.
#[derive(Module, Debug)]
struct Bottleneck {
    conv1: ConvUnit,
    conv2: ConvUnit,
    conv3: ConvUnit,
    downsample: Option<ConvUnit>,
}

impl Bottleneck {
    fn new(inputs: usize, width: usize, stride: usize, device: &Device, convention: Convention) -> Self {
        let outputs = width * EXPANSION;
        let (epsilon, strides) = match convention {
            Convention::Torch => (EPSILON, [1, stride]),
            Convention::Keras => (KERAS_EPSILON, [stride, 1]),
        };
        let conv = |spec: ConvSpec| ConvUnit::new(spec.follow(Follow::Norm(epsilon)), device);
        let shortcut = ConvSpec::new(inputs, outputs, 1).stride(stride).act(Act::Linear);
        Bottleneck {
            conv1: conv(ConvSpec::new(inputs, width, 1).stride(strides[0])),
            conv2: conv(ConvSpec::new(width, width, 3).stride(strides[1])),
            conv3: conv(ConvSpec::new(width, outputs, 1)),
            downsample: (stride != 1 || inputs != outputs).then(|| conv(shortcut)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let branch = self.conv2.forward(self.conv1.forward(x.clone()));
        let shortcut = match &self.downsample {
            Some(unit) => unit.forward(x),
            None => x,
        };
        self.conv3.forward_added(branch, shortcut)
    }
}

impl Network for ResNet50 {
    fn new(device: &Device, variant: Variant) -> Self {
        let Variant { convention, windows } = variant;
        let mut inputs = 64;
        let mut layers = Vec::with_capacity(LAYERS.len());
        for (layer_idx, (n_blocks, width)) in LAYERS.into_iter().enumerate() {
            let mut blocks = Vec::with_capacity(n_blocks);
            for block_idx in 0..n_blocks {
                let stride = if layer_idx > 0 && block_idx == 0 { 2 } else { 1 };
                blocks.push(Bottleneck::new(inputs, width, stride, device, convention));
                inputs = width * EXPANSION;
            }
            layers.push(blocks);
        }
        let epsilon = if convention == Convention::Keras { KERAS_EPSILON } else { EPSILON };
        let stem = ConvSpec::new(windows, 64, 7).stride(2).follow(Follow::Norm(epsilon));
        let conv1 = ConvUnit::new(stem, device);
        ResNet50 { conv1, layers, fc: Head::new(inputs, N_LABELS, device) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = max_pool(self.conv1.forward(images), 3, 2, Pad::Half);
        for block in self.layers.iter().flatten() {
            x = block.forward(x);
        }
        self.fc.forward(global_average(x))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = vec![Layer::conv("conv1", "bn1", &mut self.conv1)];
        for (layer_idx, blocks) in self.layers.iter_mut().enumerate() {
            for (block_idx, block) in blocks.iter_mut().enumerate() {
                let prefix = format!("layer{}.{block_idx}", layer_idx + 1);
                let units = [&mut block.conv1, &mut block.conv2, &mut block.conv3];
                for (n, unit) in (1..).zip(units) {
                    all.push(Layer::conv(format!("{prefix}.conv{n}"), format!("{prefix}.bn{n}"), unit));
                }
                if let Some(unit) = &mut block.downsample {
                    all.push(Layer::conv(format!("{prefix}.downsample.0"), format!("{prefix}.downsample.1"), unit));
                }
            }
        }
        all.push(Layer::Head { name: "fc", head: &mut self.fc });
        all
    }
}
