//! What a backbone says about itself. Knows no layer.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, Trainee};
use crate::fill;
use crate::import::for_windows;
use crate::weights::Weights;

/// Whose arithmetic a set of weights was trained with. The programs differ in how they pad an image of even side under a
/// stride, in BatchNorm's epsilon, in whether average pools count their padding, and in which convolution of a ResNet block
/// shrinks the image. Weights of one convention are worth little in the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// torchvision's, or timm's where torchvision lacks the network.
    #[default]
    Torch,
    /// Those of `keras.applications`, and of timm's `tf_` networks.
    Keras,
}

impl Convention {
    /// The word used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Convention::Torch => "torch",
            Convention::Keras => "keras",
        }
    }
}

/// A backbone as a model wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Whose arithmetic.
    pub convention: Convention,
    /// Channels of the input: one for each intensity window.
    pub windows: usize,
}

impl Default for Variant {
    /// As published: three channels, torchvision's arithmetic.
    fn default() -> Self {
        Variant { convention: Convention::Torch, windows: 3 }
    }
}

impl Variant {
    /// Three channels in a convention.
    pub fn of(convention: Convention) -> Self {
        Variant { convention, ..Variant::default() }
    }
}

/// The type of number that a network computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// The device's own: 32 bits.
    #[default]
    F32,
    /// IEEE half precision, on devices that have it.
    F16,
    /// bfloat16, on devices that have it.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Bf16];

    /// The word used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }
}

/// Another program's names for the layers of a backbone.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Whose names.
    pub program: Program,
    /// That program's name of a layer for ours, both without the part after the last dot or slash: from
    /// `features.0.0` to `conv_stem` (timm) or `stem_conv` (Keras). `None`: it has no other name.
    pub rename: fn(&str) -> Option<String>,
}

/// A program that weights come from and whose names differ from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// PyTorch Image Models; layouts are PyTorch's.
    Timm,
    /// `keras.applications`; layouts are TensorFlow's.
    Keras,
}

/// A backbone: a published network with its ImageNet classifier replaced by six units.
#[derive(Debug)]
pub struct BackboneSpec {
    /// Name as in torchvision, such as `resnet50`; the word used in files and on the command line.
    pub name: &'static str,
    /// Name of its family, which is that of its crate.
    pub family: &'static str,
    /// Side of the square input in pixels that it was published with.
    pub input_side: usize,
    /// Side of the smallest input that its strides and kernels leave something of.
    pub side_min: usize,
    /// Features that go into the head.
    pub feature_width: usize,
    /// Trainable parameters without the classifier.
    pub parameters: u64,
    /// Trainable parameters with the ImageNet classifier of 1000 units, as published.
    pub parameters_imagenet: u64,
    /// Multiply-adds of one forward pass at `input_side` with the ImageNet classifier, as torchvision counts them.
    pub multiply_adds: u64,
    /// Name of the first convolution's weight, which fits three input channels.
    pub first_conv: &'static str,
    /// Prefix of the classifier's weight and bias.
    pub classifier: &'static str,
    /// Channel means that its published weights expect of an input in 0..1.
    pub mean: [f32; 3],
    /// Channel deviations, likewise.
    pub std: [f32; 3],
    /// Prefixes of tensors in published files that are no part of the network, such as auxiliary classifiers.
    pub left_out: &'static [&'static str],
    /// Other programs' names.
    pub dialects: &'static [Dialect],
    /// Where it was published.
    pub paper: &'static str,
    /// Names and shapes of all weights for a number of windows, BatchNorm statistics included, in the order of the network.
    pub shapes: fn(usize) -> Vec<(String, Vec<usize>)>,
    /// Makes the form that scores.
    pub infer: fn(&Device, Variant, Precision) -> Box<dyn Backbone>,
    /// Makes the form that learns.
    pub train: fn(&Device, Variant) -> Box<dyn Trainee>,
}

/// Means that ImageNet weights of torchvision expect.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Deviations, likewise.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Means, and deviations, of weights that expect an input in -1..1.
pub const HALF: [f32; 3] = [0.5; 3];

impl BackboneSpec {
    /// Weights for three windows that were never trained: the same for the same seed on every machine.
    pub fn untrained(&self, seed: u64) -> Weights {
        self.untrained_for(self.mean.len(), seed)
    }

    /// As [`BackboneSpec::untrained`], for any number of windows, which are at least one. Only the first convolution differs.
    pub fn untrained_for(&self, windows: usize, seed: u64) -> Weights {
        fill::weights(&(self.shapes)(windows), &|name, shape| fill::untrained(name, shape, seed))
    }

    /// Mean and deviation of each of so many windows: the published ones of three, and their average of any other number.
    pub fn normalization_for(&self, windows: usize) -> (Vec<f32>, Vec<f32>) {
        (for_windows(&self.mean, windows), for_windows(&self.std, windows))
    }

    /// Weights of the golden tests; see [`fill::golden`].
    pub fn golden(&self) -> Weights {
        fill::weights(&(self.shapes)(3), &fill::golden)
    }

    /// Whether the name belongs to the classifier.
    pub fn is_classifier(&self, name: &str) -> bool {
        name.strip_prefix(self.classifier).is_some_and(|rest| rest.starts_with('.'))
    }
}
