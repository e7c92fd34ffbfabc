//! `ichd::dicom` against files: the phantom slice of `tests/data/dicom` in every transfer syntax, the real samples
//! where they are at hand, every admission rule, hostile files and damaged ones.

pub mod editor;
mod hostile;
mod mutated;
mod phantom;
mod rules;
mod samples;

use std::path::PathBuf;

use ichd::dicom::{AdmissionRules, decode};
use ichd::reject::{RejectCode, Rejection};
use ichd::slice::{Pixels, Slice};
use sha2::{Digest, Sha256};

fn data_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/dicom")
}

fn data(name: &str) -> Vec<u8> {
    std::fs::read(data_dir().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn decode_default(bytes: &[u8]) -> Result<Vec<Slice>, Rejection> {
    decode(bytes, &AdmissionRules::default())
}

fn code(bytes: &[u8]) -> Option<RejectCode> {
    decode_default(bytes).err().map(|rejection| rejection.code)
}

fn only(bytes: &[u8]) -> Slice {
    let mut slices = decode_default(bytes).unwrap();
    assert_eq!(slices.len(), 1);
    slices.remove(0)
}

fn warnings(slice: &Slice) -> Vec<&'static str> {
    slice.warnings.iter().map(|warning| warning.code).collect()
}

/// SHA-256 of the stored values as 16-bit little-endian words.
fn stored_digest(pixels: &Pixels) -> String {
    let bytes: Vec<u8> = match pixels {
        Pixels::I16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Pixels::U16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Minimum, maximum, mean, and the value at [rows/2, columns/2], in HU.
fn figures(slice: &Slice) -> [f64; 4] {
    let hu: Vec<f64> = (0..slice.pixels.len()).map(|index| slice.hu(index)).collect();
    let min = hu.iter().copied().fold(f64::INFINITY, f64::min);
    let max = hu.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = hu.iter().sum::<f64>() / hu.len() as f64;
    [min, max, mean, hu[slice.rows / 2 * slice.columns + slice.columns / 2]]
}

/// The cells of one line of a csv file; cells may be quoted.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut().unwrap().push(other),
        }
    }
    cells
}
