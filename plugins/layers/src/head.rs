//! The last layer. Knows no network.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use ichd_plugin::weights::Entry;

use crate::part::{Part, Place, Slot, constant};

/// Features to logits.
#[derive(Module, Debug)]
pub struct Head {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    outputs: usize,
    features: usize,
    frozen: bool,
}

impl Head {
    /// A head that has no weights yet.
    pub fn new(features: usize, outputs: usize, device: &Device) -> Self {
        Head {
            weight: Param::from_tensor(Tensor::zeros([outputs, features], device)),
            bias: Param::from_tensor(Tensor::zeros([outputs], device)),
            outputs,
            features,
            frozen: false,
        }
    }

    /// `[n, features]` to `[n, outputs]`.
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let (weight, bias) = if self.frozen { (constant(weight), constant(bias)) } else { (weight, bias) };
        features.matmul(weight.transpose()) + bias.unsqueeze()
    }

    /// Outputs and features.
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.outputs, self.features]
    }

    pub(crate) fn set(&mut self, weight: &Entry, bias: &Entry, place: &Place) {
        self.weight = Param::from_tensor(place.put(weight.values.clone(), self.shape()));
        self.bias = Param::from_tensor(place.vector(&bias.values));
    }

    pub(crate) fn parts(&self) -> Vec<Part> {
        vec![Part::Matrix(self.weight.val()), Part::Vector(self.bias.val())]
    }

    pub(crate) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Matrix(&mut self.weight), Slot::Vector(&mut self.bias)]
    }

    pub(crate) fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }
}
