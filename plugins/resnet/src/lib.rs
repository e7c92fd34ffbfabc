//! ResNet-50: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015 (arXiv 1512.03385).
//!
//! The network of torchvision, which differs from the paper in one thing: a block that shrinks the image does so in its
//! 3 x 3 convolution, not in the first 1 x 1 ("v1.5"). The classifier is global average pooling and one layer of six units.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{
    Act, ConvSpec, ConvUnit, Head, Layer, Network, global_average, inference, max_pool, shapes, training,
};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, IMAGENET_MEAN, IMAGENET_STD};

/// ResNet-50 with torchvision's names.
pub static RESNET50: BackboneSpec = BackboneSpec {
    name: "resnet50",
    family: "resnet",
    input_side: 224,
    feature_width: 2048,
    parameters: 23_508_032,
    parameters_imagenet: 25_557_032,
    multiply_adds: 4_089_184_256,
    first_conv: "conv1.weight",
    classifier: "fc",
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
    left_out: &[],
    dialects: &[],
    paper: "He et al. 2015, arXiv 1512.03385",
    shapes: shapes::<ResNet50>,
    infer: |device, convention, precision| inference::<ResNet50>(&RESNET50, device, convention, precision),
    train: |device, convention| training::<ResNet50>(&RESNET50, device, convention),
};

/// Blocks and width of each of the four layers.
const LAYERS: [(usize, usize); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
/// Output channels of a block for each channel of its width.
const EXPANSION: usize = 4;

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
    fn new(inputs: usize, width: usize, stride: usize, device: &Device) -> Self {
        let outputs = width * EXPANSION;
        let shortcut = ConvSpec::new(inputs, outputs, 1).stride(stride).act(Act::Linear);
        Bottleneck {
            conv1: ConvUnit::new(ConvSpec::new(inputs, width, 1), device),
            conv2: ConvUnit::new(ConvSpec::new(width, width, 3).stride(stride), device),
            conv3: ConvUnit::new(ConvSpec::new(width, outputs, 1), device),
            downsample: (stride != 1 || inputs != outputs).then(|| ConvUnit::new(shortcut, device)),
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
    fn new(device: &Device) -> Self {
        let mut inputs = 64;
        let mut layers = Vec::with_capacity(LAYERS.len());
        for (layer_idx, (n_blocks, width)) in LAYERS.into_iter().enumerate() {
            let mut blocks = Vec::with_capacity(n_blocks);
            for block_idx in 0..n_blocks {
                let stride = if layer_idx > 0 && block_idx == 0 { 2 } else { 1 };
                blocks.push(Bottleneck::new(inputs, width, stride, device));
                inputs = width * EXPANSION;
            }
            layers.push(blocks);
        }
        let conv1 = ConvUnit::new(ConvSpec::new(3, 64, 7).stride(2), device);
        ResNet50 { conv1, layers, fc: Head::new(inputs, N_LABELS, device) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = max_pool(self.conv1.forward(images), 3, 2, 1);
        for block in self.layers.iter().flatten() {
            x = block.forward(x);
        }
        self.fc.forward(global_average(x))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = vec![Layer::Conv { conv: "conv1".into(), norm: "bn1".into(), unit: &mut self.conv1 }];
        for (layer_idx, blocks) in self.layers.iter_mut().enumerate() {
            for (block_idx, block) in blocks.iter_mut().enumerate() {
                let prefix = format!("layer{}.{block_idx}", layer_idx + 1);
                let units = [&mut block.conv1, &mut block.conv2, &mut block.conv3];
                for (n, unit) in (1..).zip(units) {
                    all.push(Layer::Conv { conv: format!("{prefix}.conv{n}"), norm: format!("{prefix}.bn{n}"), unit });
                }
                if let Some(unit) = &mut block.downsample {
                    let (conv, norm) = (format!("{prefix}.downsample.0"), format!("{prefix}.downsample.1"));
                    all.push(Layer::Conv { conv, norm, unit });
                }
            }
        }
        all.push(Layer::Head { name: "fc", head: &mut self.fc });
        all
    }
}
