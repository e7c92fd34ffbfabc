//! Squeeze and excitation: Hu, Shen, Albanie, Sun, Wu 2017 (arXiv 1709.01507). Knows no network.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use ichd_kernels::Act;

use crate::conv::{ConvSpec, ConvUnit, Follow};
use crate::pool::global_average;

/// Weighs each channel by what all channels look like on average.
#[derive(Module, Debug)]
pub struct Squeeze {
    /// To fewer channels.
    pub reduce: ConvUnit,
    /// And back.
    pub expand: ConvUnit,
}

impl Squeeze {
    /// For `channels`, through `squeezed` ones, with `act` between.
    pub fn new(channels: usize, squeezed: usize, act: Act, device: &Device) -> Self {
        let conv = |inputs, outputs, act| {
            ConvUnit::new(ConvSpec::new(inputs, outputs, 1).follow(Follow::Bias).act(act), device)
        };
        Squeeze { reduce: conv(channels, squeezed, act), expand: conv(squeezed, channels, Act::Linear) }
    }

    /// What each channel of each of the images is to be multiplied with: `[n, 1, 1, channels]`.
    pub fn factors(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, _, _, channels] = x.dims();
        let average = global_average(x).reshape([n, 1, 1, channels]);
        sigmoid(self.expand.forward(self.reduce.forward(average)))
    }
}
