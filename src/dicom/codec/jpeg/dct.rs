//! Sequential DCT JPEG (T.81 annexes A.3 and F.2): Huffman coded coefficients of 8 x 8 blocks.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use super::bits::Bits;
use super::huffman::Table;
use crate::dicom::codec::{CodecError, Size};

const SIDE: usize = 8;
type Block = [f32; SIDE * SIDE];

/// Place in the block of each coefficient in zigzag order (figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// What a sequential scan needs.
pub(super) struct Scan<'t> {
    pub precision: u16,
    pub dc: &'t Table,
    pub ac: &'t Table,
    /// Quantization steps in zigzag order.
    pub steps: &'t [u16; 64],
}

impl Scan<'_> {
    pub fn decode(&self, mut bits: Bits<'_>, restart: usize, size: Size) -> Result<Vec<u16>, CodecError> {
        let basis = basis();
        let mut values = vec![0u16; size.n_pixels()];
        let mut dc = 0i32;
        let mut n_blocks = 0usize;
        for band in values.chunks_mut(SIDE * size.columns) {
            for left in (0..size.columns).step_by(SIDE) {
                if restart > 0 && n_blocks > 0 && n_blocks.is_multiple_of(restart) {
                    bits.restart()?;
                    dc = 0;
                }
                let block = inverse(&self.block(&mut bits, &mut dc)?, &basis);
                self.place(&block, band, left, size.columns);
                n_blocks += 1;
            }
        }
        Ok(values)
    }

    /// Dequantized coefficients in their places.
    fn block(&self, bits: &mut Bits<'_>, dc: &mut i32) -> Result<Block, CodecError> {
        let mut block = [0.0; SIDE * SIDE];
        let category = self.dc.decode(bits)?;
        if category > 15 {
            return Err(CodecError::Damaged("a coefficient is out of range"));
        }
        *dc = dc.saturating_add(bits.difference(category.into())?).clamp(-(1 << 20), 1 << 20);
        block[0] = *dc as f32 * f32::from(self.steps[0]);
        let mut index = 1;
        while index < block.len() {
            let symbol = self.ac.decode(bits)?;
            let (run, category) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if category == 0 {
                if run < 15 {
                    break;
                }
                index += 16;
                continue;
            }
            index += run;
            let (Some(place), Some(step)) = (ZIGZAG.get(index), self.steps.get(index)) else {
                return Err(CodecError::Damaged("a block has too many coefficients"));
            };
            if let Some(coefficient) = block.get_mut(usize::from(*place)) {
                *coefficient = bits.difference(category)? as f32 * f32::from(*step);
            }
            index += 1;
        }
        Ok(block)
    }

    /// Level shift, clamp, and the part of the block that lies in the picture.
    fn place(&self, block: &Block, band: &mut [u16], left: usize, columns: usize) {
        let middle = (1u32 << (self.precision - 1)) as f32;
        let highest = 2.0 * middle - 1.0;
        for (line, samples) in band.chunks_mut(columns).zip(block.as_chunks::<SIDE>().0) {
            let row = line.get_mut(left..).unwrap_or_default();
            for (value, sample) in row.iter_mut().zip(samples) {
                *value = (sample + middle + 0.5).floor().clamp(0.0, highest) as u16;
            }
        }
    }
}

/// `basis[u][x]`: half the weight of frequency u times its cosine at x (A.3.3).
fn basis() -> [[f32; SIDE]; SIDE] {
    let mut basis = [[0.0; SIDE]; SIDE];
    for (u, row) in basis.iter_mut().enumerate() {
        let weight = if u == 0 { FRAC_1_SQRT_2 } else { 1.0 } / 2.0;
        for (x, value) in row.iter_mut().enumerate() {
            *value = weight * ((2 * x + 1) as f32 * u as f32 * PI / 16.0).cos();
        }
    }
    basis
}

/// The inverse transform, lines first, then columns.
fn inverse(block: &Block, basis: &[[f32; SIDE]; SIDE]) -> Block {
    let mut lines = [[0.0f32; SIDE]; SIDE];
    for (line, coefficients) in lines.iter_mut().zip(block.as_chunks::<SIDE>().0) {
        for (coefficient, wave) in coefficients.iter().zip(basis) {
            if *coefficient != 0.0 {
                line.iter_mut().zip(wave).for_each(|(sum, value)| *sum += coefficient * value);
            }
        }
    }
    let mut samples = [0.0; SIDE * SIDE];
    for (line, wave) in lines.iter().zip(basis) {
        for (row, weight) in samples.as_chunks_mut::<SIDE>().0.iter_mut().zip(wave) {
            row.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_of_a_constant_is_constant() {
        let mut block = [0.0; 64];
        block[0] = 80.0;
        assert!(inverse(&block, &basis()).iter().all(|sample| (sample - 10.0).abs() < 1e-4));
    }

    #[test]
    fn the_transform_keeps_energy_and_tells_rows_from_columns() {
        let mut block = [0.0; 64];
        block[1] = 16.0;
        let samples = inverse(&block, &basis());
        let energy: f32 = samples.iter().map(|sample| sample * sample).sum();
        assert!((energy - 256.0).abs() < 1e-2, "{energy}");
        assert!((samples[0] - samples[8]).abs() < 1e-5 && samples[0] > 1.0 && samples[7] < -1.0);
    }

    #[test]
    fn zigzag_visits_every_place_once() {
        let mut places = ZIGZAG.to_vec();
        places.sort_unstable();
        assert!(places.iter().enumerate().all(|(index, place)| index == usize::from(*place)));
    }
}
