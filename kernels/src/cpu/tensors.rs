//! Burn's CPU tensors as slices.

use burn::tensor::{Shape, TensorData};
use burn_flex::FlexTensor;

use super::Real;

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
