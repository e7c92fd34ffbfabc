//! Weights by PyTorch's names and layouts, and the safetensors format. Knows no network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::spec::Precision;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

/// All tensors of a network by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    entries: BTreeMap<String, Entry>,
}

/// Weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file is no safetensors file, or is damaged.
    #[error("{file}: not a whole safetensors file ({reason})")]
    Format {
        /// The file.
        file: String,
        /// The library's reason.
        reason: String,
    },
    /// A tensor of the file cannot be used.
    #[error("{file}: tensor {tensor}: {reason}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The set of tensors is not that of the network.
    #[error("the weights do not fit {backbone}:{}", mismatch_text(.missing, .unexpected, .misshapen))]
    Mismatch {
        /// The network.
        backbone: String,
        /// Names that the network has and the weights lack.
        missing: Vec<String>,
        /// Names that the network lacks.
        unexpected: Vec<String>,
        /// Names with their shapes, found and expected.
        misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    },
    /// Writing failed.
    #[error("the weights cannot be written: {0}")]
    Write(String),
}

fn mismatch_text(missing: &[String], unexpected: &[String], misshapen: &[(String, Vec<usize>, Vec<usize>)]) -> String {
    let mut text = String::new();
    if !missing.is_empty() {
        let _ = write!(text, " missing {};", missing.join(", "));
    }
    if !unexpected.is_empty() {
        let _ = write!(text, " unknown {};", unexpected.join(", "));
    }
    for (name, found, expected) in misshapen {
        let _ = write!(text, " {name} has shape {found:?}, not {expected:?};");
    }
    text.trim_end_matches(';').to_owned()
}

impl Weights {
    /// No tensor.
    pub fn new() -> Self {
        Weights::default()
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) {
        self.entries.insert(name.into(), Entry { shape, values });
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) -> Option<Entry> {
        self.entries.remove(name)
    }

    /// All tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Holds the tensors against the names and shapes of a network. PyTorch's `num_batches_tracked` do not count.
    ///
    /// # Errors
    /// Everything that differs.
    pub fn check(&self, backbone: &str, shapes: &[(String, Vec<usize>)]) -> Result<(), WeightsError> {
        let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
        for (name, shape) in shapes {
            match self.entries.get(name) {
                None => missing.push(name.clone()),
                Some(entry) if entry.shape != *shape => {
                    misshapen.push((name.clone(), entry.shape.clone(), shape.clone()))
                }
                Some(_) => {}
            }
        }
        let known =
            |name: &String| name.ends_with(".num_batches_tracked") || shapes.iter().any(|(known, _)| known == name);
        let unexpected: Vec<String> = self.entries.keys().filter(|name| !known(name)).cloned().collect();
        if missing.is_empty() && unexpected.is_empty() && misshapen.is_empty() {
            return Ok(());
        }
        Err(WeightsError::Mismatch { backbone: backbone.to_owned(), missing, unexpected, misshapen })
    }

    /// Reads a safetensors file of f32, f16 or bf16 tensors; `num_batches_tracked` are left out.
    ///
    /// # Errors
    /// A damaged file, another type of number, a number that is not finite.
    pub fn from_safetensors(bytes: &[u8], file: &str) -> Result<Weights, WeightsError> {
        let format = |reason: String| WeightsError::Format { file: file.to_owned(), reason };
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| format(format!("{error:?}")))?;
        refuse_repeats(bytes).map_err(format)?;
        let mut weights = Weights::new();
        for (name, view) in tensors.iter() {
            if name.ends_with(".num_batches_tracked") {
                continue;
            }
            let fail = |reason: String| WeightsError::Tensor { file: file.to_owned(), tensor: name.to_owned(), reason };
            let values = values_of(&view).map_err(fail)?;
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(fail(format!("value {at} is {}", values[at])));
            }
            weights.insert(name, view.shape().to_vec(), values);
        }
        Ok(weights)
    }

    /// The file's content, f32, the same bytes for the same weights.
    ///
    /// # Errors
    /// A shape that does not fit its values.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, WeightsError> {
        self.to_safetensors_in(Precision::F32)
    }

    /// The file's content in this type of number, the same bytes for the same weights.
    ///
    /// # Errors
    /// A shape that does not fit its values, or a value that the type cannot hold.
    pub fn to_safetensors_in(&self, precision: Precision) -> Result<Vec<u8>, WeightsError> {
        let dtype = match precision {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
            Precision::Bf16 => Dtype::BF16,
        };
        let mut bytes: Vec<(&String, &Entry, Vec<u8>)> = Vec::with_capacity(self.entries.len());
        for (name, entry) in &self.entries {
            if let Some(value) =
                entry.values.iter().find(|value| value.is_finite() && !rounded(**value, precision).is_finite())
            {
                return Err(WeightsError::Write(format!("{name}: {value} is too large for {}", precision.name())));
            }
            bytes.push((name, entry, bytes_of(&entry.values, precision)));
        }
        let mut views = Vec::with_capacity(bytes.len());
        for (name, entry, bytes) in &bytes {
            let view = TensorView::new(dtype, entry.shape.clone(), bytes)
                .map_err(|error| WeightsError::Write(format!("{name}: {error:?}")))?;
            views.push((name.as_str(), view));
        }
        serialize(views, None).map_err(|error| WeightsError::Write(format!("{error:?}")))
    }

    /// Every value as this type of number holds it.
    pub fn rounded(&self, precision: Precision) -> Weights {
        let mut weights = self.clone();
        for entry in weights.entries.values_mut() {
            entry.values.iter_mut().for_each(|value| *value = rounded(*value, precision));
        }
        weights
    }
}

fn rounded(value: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => value,
        Precision::F16 => f16::from_f32(value).to_f32(),
        Precision::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

fn bytes_of(values: &[f32], precision: Precision) -> Vec<u8> {
    match precision {
        Precision::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Precision::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        Precision::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
    }
}

/// Refuses a header that names a tensor twice over the same bytes: the library would take either description.
pub(crate) fn refuse_repeats(bytes: &[u8]) -> Result<(), String> {
    let (size, rest) = bytes.split_first_chunk::<8>().ok_or("no header")?;
    let size = usize::try_from(u64::from_le_bytes(*size)).map_err(|error| error.to_string())?;
    let header = rest.get(..size).ok_or("no whole header")?;
    serde_json::from_slice::<UniqueNames>(header).map(|UniqueNames| ()).map_err(|error| error.to_string())
}

/// A JSON object whose keys all differ.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueNames)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = UniqueNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueNames, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!("tensor {name} stands twice")));
            }
            names.insert(name);
        }
        Ok(UniqueNames)
    }
}

fn values_of(view: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => Ok(data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        Dtype::F16 => Ok(data.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()),
        Dtype::BF16 => Ok(data.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()),
        other => Err(format!("holds {other:?}; F32, F16 or BF16 would be right")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Weights {
        let mut weights = Weights::new();
        weights.insert("a.weight", vec![2, 1], vec![1.5, -2.0]);
        weights.insert("a.bias", vec![2], vec![0.0, 1e-8]);
        weights
    }

    #[test]
    fn half_a_file_holds_what_rounding_says() {
        let mut weights = sample();
        weights.insert("b", vec![3], vec![1.0 / 3.0, 65504.0, -1e-9]);
        for precision in Precision::ALL {
            let bytes = weights.to_safetensors_in(precision).unwrap();
            let back = Weights::from_safetensors(&bytes, "x").unwrap();
            assert_eq!(back, weights.rounded(precision), "{precision:?}");
            // Rounding once more changes nothing.
            assert_eq!(back.rounded(precision), back);
        }
        assert_ne!(weights.rounded(Precision::F16), weights);
        weights.insert("c", vec![1], vec![1e6]);
        let refusal = weights.to_safetensors_in(Precision::F16).unwrap_err().to_string();
        assert!(refusal.contains("c: 1000000 is too large for f16"), "{refusal}");
        assert!(weights.to_safetensors_in(Precision::Bf16).is_ok());
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let bytes = sample().to_safetensors().unwrap();
        assert_eq!(Weights::from_safetensors(&bytes, "f").unwrap(), sample());
        assert_eq!(sample().to_safetensors().unwrap(), bytes);
    }

    #[test]
    fn half_precision_is_read() {
        let bytes: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F16, vec![2], &bytes).unwrap();
        let file = serialize([("a", view)], None).unwrap();
        assert_eq!(Weights::from_safetensors(&file, "f").unwrap().get("a").unwrap().values, [1.5, -2.0]);
    }

    #[test]
    fn brain_floats_are_read() {
        let bytes: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::BF16, vec![2], &bytes).unwrap();
        let file = serialize([("a", view)], None).unwrap();
        assert_eq!(Weights::from_safetensors(&file, "f").unwrap().get("a").unwrap().values, [1.5, -2.0]);
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        for second in ["[0,4]", "[4,8]"] {
            let one = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
            let two = format!(r#""a":{{"dtype":"F32","shape":[1],"data_offsets":{second}}}"#);
            let header = format!("{{{one},{two}}}");
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.as_bytes());
            file.extend([0; 8]);
            file.truncate(8 + header.len() + if second == "[0,4]" { 4 } else { 8 });
            let text = Weights::from_safetensors(&file, "f").unwrap_err().to_string();
            assert!(text.starts_with("f: not a whole safetensors file"), "second at {second}: {text}");
        }
    }

    #[test]
    fn bad_files_name_the_file_and_the_tensor() {
        let mut broken = sample();
        broken.insert("a.bias", vec![2], vec![f32::NAN, 0.0]);
        let text =
            Weights::from_safetensors(&broken.to_safetensors().unwrap(), "w.safetensors").unwrap_err().to_string();
        assert_eq!(text, "w.safetensors: tensor a.bias: value 0 is NaN");
        let bytes = sample().to_safetensors().unwrap();
        for cut in [0, 7, 20, bytes.len() - 1] {
            let text = Weights::from_safetensors(&bytes[..cut], "w").unwrap_err().to_string();
            assert!(text.starts_with("w: not a whole safetensors file"), "{text}");
        }
    }

    #[test]
    fn every_difference_is_told() {
        let shapes = [("a.weight".to_owned(), vec![2, 2]), ("b.weight".to_owned(), vec![1])];
        let text = sample().check("net", &shapes).unwrap_err().to_string();
        assert_eq!(
            text,
            "the weights do not fit net: missing b.weight; unknown a.bias; a.weight has shape [2, 1], not [2, 2]"
        );
    }
}
