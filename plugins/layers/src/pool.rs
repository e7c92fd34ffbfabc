//! What has no weights: pools, joins, activations. Images are `[n, height, width, channels]`. Knows no network.

use burn::tensor::Tensor;
use burn::tensor::module::{avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use ichd_kernels::{
    Act, Growing, Plane, Pool, activate as activate_any, join_channels, line, mean_of_pixels, pool2d, scores_here,
};

use crate::conv::Pad;

/// Mean over height and width: `[n, h, w, c]` to `[n, c]`.
pub fn global_average(x: Tensor<4>) -> Tensor<2> {
    if scores_here(&x) {
        return mean_of_pixels(x);
    }
    let [n, height, width, channels] = x.dims();
    x.reshape([n, height * width, channels]).mean_dim(1).reshape([n, channels])
}

/// Applies an activation.
pub fn activate(x: Tensor<4>, act: Act) -> Tensor<4> {
    if act != Act::Linear && scores_here(&x) { line(x, None, act) } else { activate_any(x, act) }
}

/// The square of side `kernel` as it lies on `x`.
fn square(x: &Tensor<4>, kernel: usize, stride: usize, pad: Pad) -> Plane {
    let [_, height, width, _] = x.dims();
    Plane { kernel: [kernel; 2], stride: [stride; 2], padding: pad.zeros([kernel; 2], stride, [height, width]) }
}

/// Maximum over a square of side `kernel`; outside the image counts as less than everything.
pub fn max_pool(x: Tensor<4>, kernel: usize, stride: usize, pad: Pad) -> Tensor<4> {
    let plane = square(&x, kernel, stride, pad);
    if scores_here(&x) {
        return pool2d(x, plane, Pool::Maximum);
    }
    let [top, left, bottom, right] = plane.padding;
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
    let plane = square(&x, kernel, stride, pad);
    if scores_here(&x) {
        return pool2d(x, plane, if count_outside { Pool::AverageWithZeros } else { Pool::Average });
    }
    let [top, left, bottom, right] = plane.padding;
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
    if images.iter().all(scores_here) { join_channels(images) } else { Tensor::cat(images, 3) }
}

/// Images that others join one after the other. Where the CPU scores they have their place from the start, so that joining
/// copies only what is new.
#[derive(Debug)]
pub enum Grown {
    /// In memory as wide as all of them.
    InPlace(Growing),
    /// As they are.
    Joined(Tensor<4>),
}

impl Grown {
    /// Begins with `x`; there will be `most` channels at most.
    pub fn new(x: Tensor<4>, most: usize) -> Grown {
        if scores_here(&x) { Grown::InPlace(Growing::new(x, most)) } else { Grown::Joined(x) }
    }

    /// The images so far. They should be gone before others join.
    pub fn images(&self) -> Tensor<4> {
        match self {
            Grown::InPlace(growing) => growing.images(),
            Grown::Joined(images) => images.clone(),
        }
    }

    /// Joins more channels.
    pub fn push(self, more: Tensor<4>) -> Grown {
        match self {
            Grown::InPlace(mut growing) => {
                growing.push(more);
                Grown::InPlace(growing)
            }
            Grown::Joined(images) => Grown::Joined(join(vec![images, more])),
        }
    }
}
