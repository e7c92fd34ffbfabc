//! What weights expect of the input, and how a first convolution for three channels is made one for any number of windows.
//! Knows no file.
//!
//! The daemon gives a network one channel for each window, with values in 0..1, less `mean`, divided by `std`.
//!
//! **Normalization.** PyTorch's weights expect the backbone's own mean and deviation. Keras has three ways, called `tf`,
//! `caffe` and `torch` there (`keras.applications.imagenet_utils.preprocess_input`):
//!
//! | Keras network | expects | here |
//! |---|---|---|
//! | mobilenet_v2, xception, inception_v3 | `tf`: -1..1 | `half`: mean 0.5, deviation 0.5 |
//! | vgg16, resnet50 | `caffe`: blue, green, red in 0..255, less a mean | `caffe`: see below |
//! | densenet121 | `torch`: ImageNet's mean and deviation | `imagenet` |
//! | efficientnet_b0, b2, b3 | 0..255; layers of its own divide by 255 and by ImageNet's mean and deviation | `imagenet`, or `none` where the file's own layer does nothing |
//!
//! `caffe`: the input channels of the first convolution are put in the opposite order, so that it takes red first as all
//! others do; mean = [123.68, 116.779, 103.939] / 255 and deviation 1 / 255 then give what Keras computes.
//!
//! **Other numbers of windows.** For k windows, k not 3, the kernels of the first convolution are summed over the three
//! channels, divided by k, and the result is used for every window: an image that is the same in all channels gives the same
//! response as before. Mean and deviation of every window are then the averages of the three.

use super::{Names, Report, Target, Tensors};
use crate::spec::{HALF, IMAGENET_MEAN, IMAGENET_STD};
use crate::weights::{Entry, Weights};

/// Red, green and blue means of `caffe`, for an input in 0..1.
pub const CAFFE_MEAN: [f32; 3] = [123.68 / 255.0, 116.779 / 255.0, 103.939 / 255.0];
/// Deviations of `caffe`, for an input in 0..1.
pub const CAFFE_STD: [f32; 3] = [1.0 / 255.0; 3];

/// What weights expect of their input; see the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// ImageNet's mean and deviation.
    Imagenet,
    /// -1..1.
    Half,
    /// 0..255 less a mean, blue first.
    Caffe,
    /// 0..1.
    None,
}

impl Normalization {
    /// The word used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Normalization::Imagenet => "imagenet",
            Normalization::Half => "half",
            Normalization::Caffe => "caffe",
            Normalization::None => "none",
        }
    }

    /// Means and deviations of red, green and blue.
    pub const fn mean_std(self) -> ([f32; 3], [f32; 3]) {
        match self {
            Normalization::Imagenet => (IMAGENET_MEAN, IMAGENET_STD),
            Normalization::Half => (HALF, HALF),
            Normalization::Caffe => (CAFFE_MEAN, CAFFE_STD),
            Normalization::None => ([0.0; 3], [1.0; 3]),
        }
    }
}

/// What a file's weights expect as far as it is known; none: the backbone's own.
pub(super) fn usual(target: &Target, names: Names, tensors: &Tensors<'_, '_>) -> Option<Normalization> {
    if names != Names::Keras {
        return None;
    }
    match target.backbone {
        "mobilenet_v2" | "xception" | "inception_v3" => Some(Normalization::Half),
        "vgg16" | "resnet50" => Some(Normalization::Caffe),
        "densenet121" => Some(Normalization::Imagenet),
        name if name.starts_with("efficientnet_b") => {
            let all = |name: &str, wanted: f32| {
                let values = tensors.get(name).and_then(|tensor| tensor.values().ok());
                values.is_some_and(|values| values.iter().all(|value| *value == wanted))
            };
            // Made without ImageNet's weights, Keras' layer divides by 1 and subtracts 0.
            let idle = all("normalization/mean", 0.0) && all("normalization/variance", 1.0);
            Some(if idle { Normalization::None } else { Normalization::Imagenet })
        }
        _ => None,
    }
}

/// Makes the first convolution fit the windows, and gives mean and deviation for each.
pub(super) fn finish(
    target: &Target,
    chosen: Option<Normalization>,
    weights: &mut Weights,
    report: &mut Report,
) -> (Vec<f32>, Vec<f32>) {
    let wanted = target.shapes.iter().find(|(name, _)| name == target.first_conv);
    let windows = wanted.and_then(|(_, shape)| shape.get(1)).copied().unwrap_or(3);
    let (mean, std) = chosen.map_or((target.mean, target.std), Normalization::mean_std);
    if let Some(mut stem) = weights.remove(target.first_conv) {
        if chosen == Some(Normalization::Caffe) && stem.shape.get(1) == Some(&3) {
            stem = opposite_channels(&stem);
            report.notes.push(format!("the input channels of {} were put in the opposite order", target.first_conv));
        }
        if stem.shape.get(1) != Some(&windows) {
            stem = adapt_stem(&stem, windows);
            report.notes.push(format!(
                "{} was made for {windows} windows: the sum over its 3 channels, divided by {windows}",
                target.first_conv
            ));
        }
        weights.insert(target.first_conv, stem.shape, stem.values);
    }
    (for_windows(&mean, windows), for_windows(&std, windows))
}

/// A mean or deviation of each channel for another number of them: the average for each.
pub fn for_windows(channels: &[f32], windows: usize) -> Vec<f32> {
    if windows == channels.len() {
        return channels.to_vec();
    }
    let average = channels.iter().map(|value| f64::from(*value)).sum::<f64>() / channels.len().max(1) as f64;
    vec![average as f32; windows]
}

/// A kernel `[out, in, height, width]` for `windows` input channels, each the sum over the old ones divided by `windows`.
pub fn adapt_stem(kernel: &Entry, windows: usize) -> Entry {
    let &[outputs, inputs, height, width] = kernel.shape.as_slice() else { return kernel.clone() };
    let area = height * width;
    let mut values = Vec::with_capacity(outputs * windows * area);
    for filter in kernel.values.chunks((inputs * area).max(1)) {
        let mean: Vec<f32> = (0..area)
            .map(|at| filter.iter().skip(at).step_by(area).map(|value| f64::from(*value)).sum::<f64>() / windows as f64)
            .map(|value| value as f32)
            .collect();
        for _ in 0..windows {
            values.extend_from_slice(&mean);
        }
    }
    Entry { shape: vec![outputs, windows, height, width], values }
}

/// A kernel `[out, in, height, width]` with its input channels in the opposite order.
fn opposite_channels(kernel: &Entry) -> Entry {
    let &[_, inputs, height, width] = kernel.shape.as_slice() else { return kernel.clone() };
    let area = (height * width).max(1);
    let filters = kernel.values.chunks((inputs * area).max(1));
    let values = filters.flat_map(|filter| filter.chunks(area).rev().flatten().copied()).collect();
    Entry { shape: kernel.shape.clone(), values }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Entry {
        Entry { shape: vec![2, 3, 1, 2], values: (0..12).map(|value| value as f32).collect() }
    }

    #[test]
    fn a_grey_image_gives_the_same_response() {
        for windows in [1, 2, 4, 5] {
            let adapted = adapt_stem(&kernel(), windows);
            assert_eq!(adapted.shape, [2, windows, 1, 2]);
            for (old, new) in kernel().values.chunks(6).zip(adapted.values.chunks(2 * windows)) {
                for at in 0..2 {
                    let sum = |filter: &[f32]| filter.iter().skip(at).step_by(2).sum::<f32>();
                    assert!((sum(old) - sum(new)).abs() < 1e-5, "{windows} windows");
                }
                assert!(new.chunks(2).all(|channel| channel == &new[..2]), "all windows are treated alike");
            }
        }
    }

    #[test]
    fn channels_change_places() {
        assert_eq!(opposite_channels(&kernel()).values, [4.0, 5.0, 2.0, 3.0, 0.0, 1.0, 10.0, 11.0, 8.0, 9.0, 6.0, 7.0]);
    }

    #[test]
    fn caffe_is_what_keras_computes() {
        // Keras: red in 0..255 less 123.68.
        let red = 0.7f32;
        let ours = (red - CAFFE_MEAN[0]) / CAFFE_STD[0];
        assert!((ours - (red * 255.0 - 123.68)).abs() < 1e-4);
    }
}
