//! What has no weights: pools, joins. Images are `[n, height, width, channels]`. Knows no network.

use burn::tensor::Tensor;
use burn::tensor::module::{avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};

use crate::conv::Pad;

/// Mean over height and width: `[n, h, w, c]` to `[n, c]`.
pub fn global_average(x: Tensor<4>) -> Tensor<2> {
    let [n, height, width, channels] = x.dims();
    x.reshape([n, height * width, channels]).mean_dim(1).reshape([n, channels])
}

/// Maximum over a square of side `kernel`; outside the image counts as less than everything.
pub fn max_pool(x: Tensor<4>, kernel: usize, stride: usize, pad: Pad) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let [top, left, bottom, right] = pad.zeros([kernel; 2], stride, [height, width]);
    let options = MaxPoolOptions {
        kernel_size: [kernel; 2],
        stride: [stride; 2],
        padding: [(top, bottom), (left, right)],
        dilation: [1, 1],
        ceil_mode: false,
    };
    max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// Mean over a square of side `kernel`. `count_outside`: whether what lies outside the image counts as zeros, as in
/// PyTorch, or not at all, as in TensorFlow.
pub fn average_pool(x: Tensor<4>, kernel: usize, stride: usize, pad: Pad, count_outside: bool) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let [top, left, bottom, right] = pad.zeros([kernel; 2], stride, [height, width]);
    let options = AvgPoolOptions {
        kernel_size: [kernel; 2],
        stride: [stride; 2],
        padding: [(top, bottom), (left, right)],
        count_include_pad: count_outside,
        ceil_mode: false,
    };
    avg_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// Images side by side in their channels.
pub fn join(images: Vec<Tensor<4>>) -> Tensor<4> {
    Tensor::cat(images, 3)
}
