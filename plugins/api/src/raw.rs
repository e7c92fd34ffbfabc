//! Named tensors as they lie in a file, before anybody asks what they belong to. Knows no network.
//!
//! Two kinds of file are read: safetensors, and PyTorch's own (`.pth`, `.pt`), whose pickle is read without running anything
//! in it. Tensors borrow the file's bytes and become numbers one at a time, when they are asked for.

mod pickle;
mod pth;
mod zip;

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::weights::refuse_repeats;

/// A file that cannot be read as tensors.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct RawError {
    /// The file.
    pub file: String,
    /// Why not, and what would be right.
    pub reason: String,
}

/// The type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// 32 bits.
    F32,
    /// 64 bits.
    F64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// No float: its name, and bytes of one.
    Other(&'static str, usize),
}

impl Number {
    /// Bytes of one.
    pub const fn size(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::F64 => 8,
            Number::F16 | Number::Bf16 => 2,
            Number::Other(_, size) => size,
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct RawTensor<'a> {
    shape: Vec<usize>,
    /// In values, for each dimension.
    strides: Vec<usize>,
    number: Number,
    /// From the first value on.
    bytes: Cow<'a, [u8]>,
}

/// The tensors of a file.
#[derive(Clone, Debug, Default)]
pub struct Bag<'a> {
    /// By name.
    pub tensors: BTreeMap<String, RawTensor<'a>>,
    /// Names in the same place that hold no tensor.
    pub others: Vec<String>,
    /// What was chosen on the way, for people.
    pub notes: Vec<String>,
}

impl<'a> RawTensor<'a> {
    /// A tensor whose first value is the first of `bytes`. Values lie `strides` apart; none means in row-major order.
    ///
    /// # Errors
    /// It reaches beyond the bytes, or claims more values than there are (as an expanded view does).
    pub fn new(
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
        number: Number,
        bytes: Cow<'a, [u8]>,
    ) -> Result<Self, String> {
        let available = bytes.len() / number.size().max(1);
        let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
        let count = count.filter(|count| *count <= available);
        let count = count.ok_or_else(|| format!("shape {shape:?} needs more than the {available} values there are"))?;
        let strides = strides.unwrap_or_else(|| row_major(&shape));
        if strides.len() != shape.len() {
            return Err(format!("{} strides for {} dimensions", strides.len(), shape.len()));
        }
        if count > 0 {
            let mut steps = shape.iter().zip(&strides).map(|(side, stride)| (side - 1).checked_mul(*stride));
            let last = steps.try_fold(0usize, |sum, step| sum.checked_add(step?));
            if last.is_none_or(|last| last >= available) {
                return Err(format!("shape {shape:?} with strides {strides:?} reaches beyond its data"));
            }
        }
        Ok(RawTensor { shape, strides, number, bytes })
    }

    /// A tensor of numbers in memory.
    ///
    /// # Errors
    /// As [`RawTensor::new`].
    pub fn of(shape: Vec<usize>, values: &[f32]) -> Result<Self, String> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        RawTensor::new(shape, None, Number::F32, Cow::Owned(bytes))
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order, as f32. Doubles are rounded.
    ///
    /// # Errors
    /// They are no floats, or one is not finite.
    pub fn values(&self) -> Result<Vec<f32>, String> {
        let ordered = self.ordered();
        let values: Vec<f32> = match self.number {
            Number::F32 => ordered.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Number::F64 => ordered.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            Number::F16 => ordered.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            Number::Bf16 => {
                ordered.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
            }
            Number::Other(name, _) => return Err(format!("holds {name}; f32, f16, bf16 or f64 would be right")),
        };
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(format!("value {at} is {}", values[at])),
            None => Ok(values),
        }
    }

    /// Number of values; [`RawTensor::new`] made sure that they exist.
    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes of the values in row-major order.
    fn ordered(&self) -> Cow<'_, [u8]> {
        let (size, count) = (self.number.size(), self.count());
        if count == 0 || self.strides == row_major(&self.shape) {
            return Cow::Borrowed(self.bytes.get(..count * size).unwrap_or_default());
        }
        let mut ordered = Vec::with_capacity(count * size);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&self.strides).map(|(at, stride)| at * stride).sum::<usize>() * size;
            ordered.extend_from_slice(self.bytes.get(at..at + size).unwrap_or_default());
            for (at, side) in index.iter_mut().zip(&self.shape).rev() {
                *at += 1;
                if *at < *side {
                    break;
                }
                *at = 0;
            }
        }
        Cow::Owned(ordered)
    }
}

/// Distances of values that lie one after the other, the last dimension closest. They saturate for shapes that
/// [`RawTensor::new`] refuses.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at].saturating_mul(shape[at]);
    }
    strides
}

/// Reads a file of either kind; the content tells which.
///
/// # Errors
/// It is of another kind, damaged, or asks for more than tensors.
pub fn read<'a>(bytes: &'a [u8], file: &str) -> Result<Bag<'a>, RawError> {
    let bag = if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80]) && bytes.get(8) != Some(&b'{') {
        pth::read(bytes)
    } else if bytes.starts_with(b"\x89HDF") {
        Err("is an HDF5 file; tools/keras_to_safetensors.py makes a safetensors file of it".into())
    } else {
        safetensors(bytes).map_err(|reason| format!("not a whole safetensors or PyTorch file ({reason})"))
    };
    bag.map_err(|reason| RawError { file: file.to_owned(), reason })
}

fn safetensors(bytes: &[u8]) -> Result<Bag<'_>, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| format!("{error:?}"))?;
    refuse_repeats(bytes)?;
    let mut bag = Bag::default();
    for (name, view) in tensors.iter() {
        let number = match view.dtype() {
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            Dtype::I64 => Number::Other("int64", 8),
            Dtype::I32 => Number::Other("int32", 4),
            Dtype::I16 => Number::Other("int16", 2),
            Dtype::I8 => Number::Other("int8", 1),
            Dtype::U8 => Number::Other("uint8", 1),
            Dtype::BOOL => Number::Other("bool", 1),
            other => return Err(format!("tensor {name}: holds {other:?}, which is not read")),
        };
        plain(name)?;
        let tensor = RawTensor::new(view.shape().to_vec(), None, number, Cow::Borrowed(view.data()));
        bag.tensors.insert(name.to_owned(), tensor.map_err(|reason| format!("tensor {name}: {reason}"))?);
    }
    Ok(bag)
}

/// Names end up in messages and tables: they must not play with a terminal.
fn plain(name: &str) -> Result<(), String> {
    if name.chars().any(char::is_control) {
        return Err(format!("the name `{}` holds control characters", name.escape_debug()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
