//! Weights from an integer hash: the same on every machine and in every language. Knows no network.
//!
//! The hash of value `index` of tensor `name`: `h` = FNV-1a (64 bit) of the name's UTF-8 bytes, xor `seed`;
//! `z = h + (index + 1) * 0x9E3779B97F4A7C15` (mod 2^64), mixed as in SplitMix64; `u` = its top 24 bits / 2^24, exact in
//! f32, and `s = 2u - 1`, exact too. Every rule below is one f32 multiplication and at most one f32 addition, so that
//! `tools/golden_backbones.py` makes the same bits.

use crate::weights::Weights;

/// SplitMix64's increment.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// FNV-1a of the name.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// `count` numbers in [0, 1) for a tensor.
pub fn uniform(name: &str, count: usize, seed: u64) -> impl Iterator<Item = f32> {
    let hash = name_hash(name) ^ seed;
    (0..count as u64).map(move |index| {
        let mut z = hash.wrapping_add((index + 1).wrapping_mul(STEP));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u32 << 24) as f32
    })
}

/// Numbers in [-scale, scale).
fn symmetric(name: &str, count: usize, seed: u64, scale: f32) -> Vec<f32> {
    uniform(name, count, seed).map(|u| (2.0 * u - 1.0) * scale).collect()
}

fn fan_in(shape: &[usize]) -> f64 {
    shape.iter().skip(1).product::<usize>() as f64
}

/// Is this a matrix or a convolution, or one vector of a BatchNorm or bias?
fn is_kernel(shape: &[usize]) -> bool {
    shape.len() > 1
}

/// The golden tests' rule: kernels in +-sqrt(4.5 / fan in); BatchNorm far from 0 and 1, so that no mistake in its
/// arithmetic can hide: weight 0.5..1.5, variance 0.5..2, mean and bias +-0.5.
pub fn golden(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if is_kernel(shape) {
        return symmetric(name, count, 0, (4.5 / fan_in(shape)).sqrt() as f32);
    }
    if name.ends_with("running_var") {
        return uniform(name, count, 0).map(|u| u * 1.5 + 0.5).collect();
    }
    if name.ends_with("weight") {
        return uniform(name, count, 0).map(|u| u + 0.5).collect();
    }
    symmetric(name, count, 0, 0.5)
}

/// An untrained head is small, so that no probability of an untrained mobilenet_v2 is near 0 or 1.
const HEAD_GAIN: f64 = 0.05;

/// Untrained weights: kernels by He's rule (uniform, +-sqrt(6 / fan in)), the head [`HEAD_GAIN`] of that, BatchNorms
/// that do nothing yet, biases 0.
pub fn untrained(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let count = shape.iter().product();
    if is_kernel(shape) {
        let gain = if shape.len() == 2 { HEAD_GAIN } else { 1.0 };
        return symmetric(name, count, seed, (gain * (6.0 / fan_in(shape)).sqrt()) as f32);
    }
    let ones = name.ends_with("weight") || name.ends_with("running_var");
    vec![if ones { 1.0 } else { 0.0 }; count]
}

/// Fills all tensors by a rule.
pub fn weights(shapes: &[(String, Vec<usize>)], rule: &dyn Fn(&str, &[usize]) -> Vec<f32>) -> Weights {
    let mut weights = Weights::new();
    for (name, shape) in shapes {
        weights.insert(name.clone(), shape.clone(), rule(name, shape));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_documented_one() {
        // From the same rule in Python with arbitrary-precision integers; tools/golden_backbones.py prints them too.
        let found: Vec<u32> = uniform("conv1.weight", 4, 0).map(|u| (u * 16_777_216.0) as u32).collect();
        assert_eq!(found, [9144840, 12501739, 384562, 12351349]);
    }

    #[test]
    fn rules_keep_their_ranges() {
        let within = |values: Vec<f32>, low: f32, high: f32| values.iter().all(|value| (low..high).contains(value));
        assert!(within(golden("bn.running_var", &[999]), 0.5, 2.0));
        assert!(within(golden("bn.weight", &[999]), 0.5, 1.5));
        assert!(within(golden("bn.bias", &[999]), -0.5, 0.5));
        assert!(within(golden("conv.weight", &[9, 18, 1, 1]), -0.5, 0.5));
        assert_eq!(untrained("bn.running_var", &[2], 1), [1.0, 1.0]);
        assert_ne!(untrained("c.weight", &[2, 2], 1), untrained("c.weight", &[2, 2], 2));
    }
}
