//! What a backbone says about itself. Knows no layer.

use burn::tensor::Device;

use crate::backbone::{Backbone, Trainee};
use crate::fill;
use crate::weights::Weights;

/// A backbone: a published network with its ImageNet classifier replaced by six units.
#[derive(Debug)]
pub struct BackboneSpec {
    /// Name as in torchvision, such as `resnet50`; the word used in files and on the command line.
    pub name: &'static str,
    /// Name of its family, which is that of its crate.
    pub family: &'static str,
    /// Side of the square input in pixels that it was published with.
    pub input_side: usize,
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
    /// Where it was published.
    pub paper: &'static str,
    /// Names and shapes of all weights, BatchNorm statistics included, in the order of the network.
    pub shapes: fn() -> Vec<(String, Vec<usize>)>,
    /// Makes the form that scores.
    pub infer: fn(&Device) -> Box<dyn Backbone>,
    /// Makes the form that learns.
    pub train: fn(&Device) -> Box<dyn Trainee>,
}

impl BackboneSpec {
    /// Weights that were never trained: the same for the same seed on every machine.
    pub fn untrained(&self, seed: u64) -> Weights {
        fill::weights(&(self.shapes)(), &|name, shape| fill::untrained(name, shape, seed))
    }

    /// Weights of the golden tests; see [`fill::golden`].
    pub fn golden(&self) -> Weights {
        fill::weights(&(self.shapes)(), &fill::golden)
    }

    /// Whether the name belongs to the classifier.
    pub fn is_classifier(&self, name: &str) -> bool {
        name.strip_prefix(self.classifier).is_some_and(|rest| rest.starts_with('.'))
    }
}
