//! DenseNet-121: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", 2016
//! (arXiv 1608.06993).
//!
//! The network of torchvision. BatchNorm and ReLU come before the convolutions here, over images that grow by joining, so
//! only the BatchNorm inside a dense layer and that of the stem can be folded. The classifier is global average pooling
//! and one layer of six units.

mod names;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{
    Act, ConvSpec, ConvUnit, EPSILON, Follow, Grown, Head, Layer, Network, NormUnit, Pad, average_pool, global_average,
    inference, max_pool, shapes, training,
};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Convention, IMAGENET_MEAN, IMAGENET_STD, Variant};

/// DenseNet-121 with torchvision's names.
pub static DENSENET121: BackboneSpec = BackboneSpec {
    name: "densenet121",
    family: "densenet",
    input_side: 224,
    side_min: 32,
    feature_width: 1024,
    parameters: 6_953_856,
    parameters_imagenet: 7_978_856,
    multiply_adds: 2_834_161_664,
    first_conv: "features.conv0.weight",
    classifier: "classifier",
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
    left_out: &[],
    dialects: names::DIALECTS,
    paper: "Huang et al. 2016, arXiv 1608.06993",
    shapes: shapes::<DenseNet121>,
    infer: |device, variant, precision| inference::<DenseNet121>(&DENSENET121, device, variant, precision),
    train: |device, variant| training::<DenseNet121>(&DENSENET121, device, variant),
};

/// Dense layers of each block.
const BLOCKS: [usize; 4] = [6, 12, 24, 16];
/// Channels that a dense layer adds.
const GROWTH: usize = 32;
/// Channels inside a dense layer for each that it adds.
const BOTTLENECK: usize = 4;
const STEM: usize = 64;

/// The network.
#[derive(Module, Debug)]
pub struct DenseNet121 {
    stem: ConvUnit,
    blocks: Vec<DenseBlock>,
    norm5: NormUnit,
    classifier: Head,
}

/// Layers that each see all before them; then, but for the last block, half the channels and half the side.
#[derive(Module, Debug)]
struct DenseBlock {
    layers: Vec<DenseLayer>,
    transition: Option<Transition>,
}

#[derive(Module, Debug)]
struct DenseLayer {
    norm1: NormUnit,
    conv1: ConvUnit,
    conv2: ConvUnit,
}

#[derive(Module, Debug)]
struct Transition {
    norm: NormUnit,
    conv: ConvUnit,
}

impl DenseLayer {
    fn new(inputs: usize, epsilon: f64, device: &Device) -> Self {
        let bare = |spec: ConvSpec| ConvUnit::new(spec.follow(Follow::Nothing).act(Act::Linear), device);
        let inner = ConvSpec::new(inputs, BOTTLENECK * GROWTH, 1).follow(Follow::Norm(epsilon));
        DenseLayer {
            norm1: NormUnit::new(inputs, epsilon, Act::Relu, device),
            conv1: ConvUnit::new(inner, device),
            conv2: bare(ConvSpec::new(BOTTLENECK * GROWTH, GROWTH, 3)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv2.forward(self.conv1.forward_behind(&self.norm1, x))
    }
}

impl Transition {
    fn new(inputs: usize, epsilon: f64, device: &Device) -> Self {
        let conv = ConvSpec::new(inputs, inputs / 2, 1).follow(Follow::Nothing).act(Act::Linear);
        Transition { norm: NormUnit::new(inputs, epsilon, Act::Relu, device), conv: ConvUnit::new(conv, device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        // The convolution mixes channels and the pool mixes pixels, both in lines, so their order is free: pooled first,
        // there is a quarter of the pixels to mix.
        self.conv.forward(average_pool(self.norm.forward(x), 2, 2, Pad::None, true))
    }
}

impl Network for DenseNet121 {
    fn new(device: &Device, variant: Variant) -> Self {
        let epsilon = match variant.convention {
            Convention::Torch => EPSILON,
            Convention::Keras => 1.001e-5,
        };
        let mut channels = STEM;
        let mut blocks = Vec::new();
        for (idx, n_layers) in BLOCKS.into_iter().enumerate() {
            let mut layers = Vec::new();
            for _ in 0..n_layers {
                layers.push(DenseLayer::new(channels, epsilon, device));
                channels += GROWTH;
            }
            let transition = (idx + 1 < BLOCKS.len()).then(|| Transition::new(channels, epsilon, device));
            if transition.is_some() {
                channels /= 2;
            }
            blocks.push(DenseBlock { layers, transition });
        }
        DenseNet121 {
            stem: ConvUnit::new(
                ConvSpec::new(variant.windows, STEM, 7).stride(2).follow(Follow::Norm(epsilon)),
                device,
            ),
            blocks,
            norm5: NormUnit::new(channels, epsilon, Act::Relu, device),
            classifier: Head::new(channels, N_LABELS, device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = max_pool(self.stem.forward(images), 3, 2, Pad::Half);
        for block in &self.blocks {
            let [.., channels] = x.dims();
            let mut grown = Grown::new(x, channels + GROWTH * block.layers.len());
            for layer in &block.layers {
                let added = layer.forward(grown.images());
                grown = grown.push(added);
            }
            x = grown.images();
            if let Some(transition) = &block.transition {
                x = transition.forward(x);
            }
        }
        self.classifier.forward(global_average(self.norm5.forward(x)))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = vec![Layer::conv("features.conv0", "features.norm0", &mut self.stem)];
        for (n, block) in (1..).zip(&mut self.blocks) {
            for (k, layer) in (1..).zip(&mut block.layers) {
                let prefix = format!("features.denseblock{n}.denselayer{k}");
                all.push(Layer::norm(format!("{prefix}.norm1"), &mut layer.norm1));
                all.push(Layer::conv(format!("{prefix}.conv1"), format!("{prefix}.norm2"), &mut layer.conv1));
                all.push(Layer::plain(format!("{prefix}.conv2"), &mut layer.conv2));
            }
            if let Some(transition) = &mut block.transition {
                all.push(Layer::norm(format!("features.transition{n}.norm"), &mut transition.norm));
                all.push(Layer::plain(format!("features.transition{n}.conv"), &mut transition.conv));
            }
        }
        all.push(Layer::norm("features.norm5", &mut self.norm5));
        all.push(Layer::Head { name: "classifier", head: &mut self.classifier });
        all
    }
}
