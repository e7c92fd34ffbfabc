//! Lossless JPEG (T.81 annex H): each sample is predicted from its neighbors, the differences are Huffman coded.

use super::bits::Bits;
use super::huffman::Table;
use crate::dicom::codec::{CodecError, Size};

/// What a lossless scan says.
pub(super) struct Scan {
    pub precision: u16,
    /// Selection value, 1 to 7.
    pub predictor: u8,
    /// Point transform: low bits that were dropped.
    pub point: u16,
}

impl Scan {
    pub fn decode(
        &self,
        mut bits: Bits<'_>,
        table: &Table,
        restart: usize,
        size: Size,
    ) -> Result<Vec<u16>, CodecError> {
        if !(1..=7).contains(&self.predictor) || self.point >= self.precision {
            return Err(CodecError::Damaged("its predictor or point transform does not exist"));
        }
        if !restart.is_multiple_of(size.columns) {
            return Err(CodecError::Damaged("a restart interval is not made of whole lines"));
        }
        let lines = restart / size.columns;
        let mut values = vec![0u16; size.n_pixels()];
        let mut above: Vec<u16> = Vec::new();
        for (row, line) in values.chunks_mut(size.columns).enumerate() {
            let restarts = lines > 0 && row > 0 && row.is_multiple_of(lines);
            if restarts {
                bits.restart()?;
            }
            let first = row == 0 || restarts;
            self.line(&mut bits, table, if first { None } else { Some(&above) }, line)?;
            above.clear();
            above.extend_from_slice(line);
        }
        if self.point > 0 {
            values.iter_mut().for_each(|value| *value <<= self.point);
        }
        Ok(values)
    }

    /// One line; the first one, and the first after a restart, has none above (H.1.2.1).
    fn line(
        &self,
        bits: &mut Bits<'_>,
        table: &Table,
        above: Option<&[u16]>,
        line: &mut [u16],
    ) -> Result<(), CodecError> {
        let mut left = 1i32 << (self.precision - self.point - 1);
        let mut above_left = 0;
        for (x, value) in line.iter_mut().enumerate() {
            let prediction = match above.and_then(|above| above.get(x)) {
                None => left,
                Some(&up) => {
                    let up = i32::from(up);
                    let prediction = if x == 0 { up } else { self.predict(left, up, above_left) };
                    above_left = up;
                    prediction
                }
            };
            let difference = match table.decode(bits)? {
                category @ 0..=15 => bits.difference(category.into())?,
                16 => 32768,
                _ => return Err(CodecError::Damaged("a difference is out of range")),
            };
            *value = (prediction + difference) as u16;
            left = i32::from(*value);
        }
        Ok(())
    }

    /// Table H.1.
    fn predict(&self, left: i32, up: i32, above_left: i32) -> i32 {
        match self.predictor {
            1 => left,
            2 => up,
            3 => above_left,
            4 => left + up - above_left,
            5 => left + ((up - above_left) >> 1),
            6 => up + ((left - above_left) >> 1),
            _ => (left + up) >> 1,
        }
    }
}
