//! Weights as a file that torchvision and timm load. Knows no network.

use std::collections::HashMap;

use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

use crate::weights::{Weights, WeightsError};

/// The file's content: all weights as f32 by our names, which are PyTorch's, and for every BatchNorm the count of batches
/// that `load_state_dict(strict=True)` asks for: an int64 scalar, 0, which says nothing about the training. The same bytes
/// for the same weights.
///
/// # Errors
/// A shape that does not fit its values.
pub fn to_pytorch(weights: &Weights) -> Result<Vec<u8>, WeightsError> {
    let zero = 0i64.to_le_bytes();
    let mut parts: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, entry) in weights.iter() {
        let bytes = entry.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        parts.push((name.to_owned(), Dtype::F32, entry.shape.clone(), bytes));
        if let Some(norm) = name.strip_suffix(".running_var") {
            parts.push((format!("{norm}.num_batches_tracked"), Dtype::I64, Vec::new(), zero.to_vec()));
        }
    }
    let mut views = Vec::with_capacity(parts.len());
    for (name, number, shape, bytes) in &parts {
        let view = TensorView::new(*number, shape.clone(), bytes)
            .map_err(|error| WeightsError::Write(format!("{name}: {error:?}")))?;
        views.push((name.as_str(), view));
    }
    // What Hugging Face's and timm's loaders look for.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize(views, Some(metadata)).map_err(|error| WeightsError::Write(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::raw;

    #[test]
    fn every_batchnorm_gets_its_counter_and_everything_comes_back() {
        let mut weights = Weights::new();
        weights.insert("bn.weight", vec![2], vec![1.0, 2.0]);
        weights.insert("bn.running_var", vec![2], vec![0.5, 0.25]);
        let bytes = to_pytorch(&weights).unwrap();
        assert_eq!(to_pytorch(&weights).unwrap(), bytes);
        let found = SafeTensors::deserialize(&bytes).unwrap();
        let counter = found.tensor("bn.num_batches_tracked").unwrap();
        assert_eq!((counter.dtype(), counter.shape().len(), counter.data()), (Dtype::I64, 0, &[0u8; 8][..]));
        assert_eq!(Weights::from_safetensors(&bytes, "f").unwrap(), weights);
        let bag = raw::read(&bytes, "f").unwrap();
        assert_eq!(bag.tensors["bn.weight"].values().unwrap(), [1.0, 2.0]);
    }
}
