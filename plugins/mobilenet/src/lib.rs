//! MobileNetV2: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018
//! (arXiv 1801.04381).
//!
//! The network of torchvision at width 1.0, without its dropout before the classifier: the report's head is global
//! average pooling and one layer of six units.

mod names;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{Act, ConvSpec, ConvUnit, Head, Layer, Network, global_average, inference, shapes, training};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Convention, IMAGENET_MEAN, IMAGENET_STD, Variant};

/// MobileNetV2 with torchvision's names.
pub static MOBILENET_V2: BackboneSpec = BackboneSpec {
    name: "mobilenet_v2",
    family: "mobilenet",
    input_side: 224,
    side_min: 32,
    feature_width: FEATURES,
    parameters: 2_223_872,
    parameters_imagenet: 3_504_872,
    multiply_adds: 300_774_272,
    first_conv: "features.0.0.weight",
    classifier: "classifier.1",
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
    left_out: &[],
    dialects: names::DIALECTS,
    paper: "Sandler et al. 2018, arXiv 1801.04381",
    shapes: shapes::<MobileNetV2>,
    infer: |device, variant, precision| inference::<MobileNetV2>(&MOBILENET_V2, device, variant, precision),
    train: |device, variant| training::<MobileNetV2>(&MOBILENET_V2, device, variant),
};

/// Table 2 of the paper: expansion, output channels, repeats, stride of the first repeat.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
const FEATURES: usize = 1280;

/// The network.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    stem: ConvUnit,
    blocks: Vec<InvertedResidual>,
    last: ConvUnit,
    classifier: Head,
}

/// Widen, filter each channel, narrow; the input is added where shapes allow.
#[derive(Module, Debug)]
struct InvertedResidual {
    expand: Option<ConvUnit>,
    depthwise: ConvUnit,
    project: ConvUnit,
    residual: bool,
}

impl InvertedResidual {
    fn new(
        inputs: usize,
        outputs: usize,
        expansion: usize,
        stride: usize,
        device: &Device,
        convention: Convention,
    ) -> Self {
        let width = inputs * expansion;
        let relu6 = |spec: ConvSpec| ConvUnit::new(spec.convention(convention).act(Act::Relu6), device);
        InvertedResidual {
            expand: (expansion != 1).then(|| relu6(ConvSpec::new(inputs, width, 1))),
            depthwise: relu6(ConvSpec::new(width, width, 3).stride(stride).depthwise()),
            project: ConvUnit::new(ConvSpec::new(width, outputs, 1).convention(convention).act(Act::Linear), device),
            residual: stride == 1 && inputs == outputs,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = self.residual.then(|| x.clone());
        ConvUnit::chain(self.expand.as_ref(), &self.depthwise, Some(&self.project), x, shortcut)
    }
}

impl Network for MobileNetV2 {
    fn new(device: &Device, variant: Variant) -> Self {
        let Variant { convention, windows } = variant;
        let relu6 = |spec: ConvSpec| ConvUnit::new(spec.convention(convention).act(Act::Relu6), device);
        let stem = relu6(ConvSpec::new(windows, 32, 3).stride(2));
        let mut inputs = 32;
        let mut blocks = Vec::new();
        for (expansion, outputs, repeats, first_stride) in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                blocks.push(InvertedResidual::new(inputs, outputs, expansion, stride, device, convention));
                inputs = outputs;
            }
        }
        let last = relu6(ConvSpec::new(inputs, FEATURES, 1));
        MobileNetV2 { stem, blocks, last, classifier: Head::new(FEATURES, N_LABELS, device) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = self.stem.forward(images);
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.classifier.forward(global_average(self.last.forward(x)))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = vec![conv("features.0", &mut self.stem)];
        let n_blocks = self.blocks.len();
        for (idx, block) in (1..).zip(&mut self.blocks) {
            let prefix = format!("features.{idx}.conv");
            // torchvision counts the parts that are there: without expansion the depthwise convolution is the first.
            let mut part = 0;
            for unit in block.expand.iter_mut().chain([&mut block.depthwise]) {
                all.push(conv(&format!("{prefix}.{part}"), unit));
                part += 1;
            }
            let (project, norm) = (format!("{prefix}.{part}"), format!("{prefix}.{}", part + 1));
            all.push(Layer::conv(project, norm, &mut block.project));
        }
        all.push(conv(&format!("features.{}", n_blocks + 1), &mut self.last));
        all.push(Layer::Head { name: "classifier.1", head: &mut self.classifier });
        all
    }
}

fn conv<'a>(prefix: &str, unit: &'a mut ConvUnit) -> Layer<'a> {
    Layer::conv(format!("{prefix}.0"), format!("{prefix}.1"), unit)
}
