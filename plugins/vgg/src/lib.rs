//! VGG16: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014
//! (arXiv 1409.1556), configuration D.
//!
//! The network of torchvision without BatchNorms up to its last pool. The three large layers behind it are replaced, as
//! in the report, by global average pooling and one layer of six units; with them goes the fixed input side.

mod names;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{
    ConvSpec, ConvUnit, Follow, Head, Layer, Network, Pad, global_average, inference, max_pool, shapes, training,
};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, IMAGENET_MEAN, IMAGENET_STD, Variant};

/// VGG16 with torchvision's names.
pub static VGG16: BackboneSpec = BackboneSpec {
    name: "vgg16",
    family: "vgg",
    input_side: 224,
    side_min: 32,
    feature_width: FEATURES,
    parameters: 14_714_688,
    parameters_imagenet: 138_357_544,
    multiply_adds: 15_470_264_320,
    first_conv: "features.0.weight",
    classifier: "classifier",
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
    left_out: names::LEFT_OUT,
    dialects: names::DIALECTS,
    paper: "Simonyan, Zisserman 2014, arXiv 1409.1556",
    shapes: shapes::<Vgg16>,
    infer: |device, variant, precision| inference::<Vgg16>(&VGG16, device, variant, precision),
    train: |device, variant| training::<Vgg16>(&VGG16, device, variant),
};

/// Channels of the convolutions in each stage; a pool ends a stage.
const STAGES: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];
const FEATURES: usize = 512;

/// The network. Both conventions are the same here: no stride, no BatchNorm.
#[derive(Module, Debug)]
pub struct Vgg16 {
    stages: Vec<Vec<ConvUnit>>,
    classifier: Head,
}

impl Network for Vgg16 {
    fn new(device: &Device, variant: Variant) -> Self {
        let mut inputs = variant.windows;
        let mut conv = |outputs: usize| {
            let spec = ConvSpec::new(inputs, outputs, 3).follow(Follow::Bias);
            inputs = outputs;
            ConvUnit::new(spec, device)
        };
        let stages = STAGES.iter().map(|stage| stage.iter().map(|outputs| conv(*outputs)).collect()).collect();
        Vgg16 { stages, classifier: Head::new(FEATURES, N_LABELS, device) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = images;
        for stage in &self.stages {
            x = stage.iter().fold(x, |x, conv| conv.forward(x));
            x = max_pool(x, 2, 2, Pad::None);
        }
        self.classifier.forward(global_average(x))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = Vec::new();
        // torchvision counts a convolution's ReLU and a stage's pool as members of the list.
        let mut member = 0;
        for stage in &mut self.stages {
            for unit in stage {
                all.push(Layer::plain(format!("features.{member}"), unit));
                member += 2;
            }
            member += 1;
        }
        all.push(Layer::Head { name: "classifier", head: &mut self.classifier });
        all
    }
}
