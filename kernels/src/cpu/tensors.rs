//! Burn's CPU tensors as slices.

use burn::tensor::{Shape, TensorData};
use burn_flex::FlexTensor;

use super::Real;
use super::direct::Source;

/// Values of a contiguous tensor.
///
/// # Panics
/// The tensor is not contiguous or has another type: a bug of the caller.
pub(crate) fn values<T: Real>(tensor: &FlexTensor) -> &[T] {
    tensor.as_slice().expect("contiguous tensor of the expected type")
}

/// A tensor of `values`, contiguous.
pub(crate) fn tensor<T: Real>(values: Vec<T>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Dimensions of a tensor of known rank.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    let shape = tensor.layout().shape();
    std::array::from_fn(|axis| shape[axis])
}

/// Step from pixel to pixel of images `[n, height, width, channels]` that lie in memory as such, perhaps as some of the
/// channels of wider ones.
fn pitch(tensor: &FlexTensor) -> Option<usize> {
    let [n, height, width, channels] = dims(tensor);
    let [image, row, pixel, value]: [isize; 4] = tensor.layout().strides().try_into().ok()?;
    let pitch = usize::try_from(pixel).ok().filter(|pitch| *pitch >= channels)?;
    let is = |step: isize, expected: usize| usize::try_from(step) == Ok(expected);
    let lies = value == 1 && (height == 1 || is(row, width * pitch)) && (n == 1 || (is(image, height * width * pitch)));
    lies.then_some(pitch)
}

/// Images that [`source`] can read: the same ones if possible, else a copy.
pub(crate) fn readable(tensor: FlexTensor) -> FlexTensor {
    if pitch(&tensor).is_some() { tensor } else { tensor.to_contiguous() }
}

/// The pixels of images that [`readable`] gave.
///
/// # Panics
/// The images are not readable or have another type: a bug of the caller.
pub(crate) fn source<T: Real>(tensor: &FlexTensor) -> Source<'_, T> {
    let pitch = pitch(tensor).expect("images whose channels lie side by side");
    Source { values: &tensor.storage()[tensor.layout().start_offset()..], pitch }
}
