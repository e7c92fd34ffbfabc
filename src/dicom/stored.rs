//! From cells, as they lie in the file or leave a codec, to stored values: masking, sign, padding, and the repair of
//! wrapped 12-bit files. Knows no header beyond the layout.

use std::ops::RangeInclusive;

use super::admission::Layout;
use crate::slice::{Pixels, Rescale};

/// The wrap-around is repaired only where at least one pixel in this many shows it.
const WRAP_SHARE: usize = 100;
/// Stored values of air that wrapped around lie at and above this.
const WRAPPED_MIN: u16 = 4096 - WRAP_OFFSET;
const WRAP_OFFSET: u16 = 1000;

/// One frame of cells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cells {
    /// Row by row; unsigned bits of whatever the cell holds.
    pub values: Vec<u16>,
    /// Bits that count: of the cell, or of the samples of the codestream.
    pub precision: u16,
}

impl Cells {
    /// Cells of native pixel data; `bytes` holds one frame.
    pub fn native(bytes: &[u8], layout: &Layout, big_endian: bool) -> Cells {
        // A loop of its own for each order: a function chosen before the loop would be called for every cell.
        let values = match (layout.bits_allocated, big_endian) {
            (8, _) => bytes.iter().map(|byte| u16::from(*byte)).collect(),
            (_, true) => bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect(),
            (_, false) => bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect(),
        };
        Cells { values, precision: layout.bits_allocated }
    }

    /// Stored values: bits beside the stored ones (overlays of old) are dropped, the sign is extended. Codecs with
    /// loss may overshoot into those bits; such values stop at the end of the range instead of wrapping around.
    pub fn into_pixels(self, layout: &Layout, lossy: bool) -> Pixels {
        if lossy && self.precision > layout.bits_stored { self.clamped(layout) } else { self.masked(layout) }
    }

    fn clamped(self, layout: &Layout) -> Pixels {
        let unused = 16 - self.precision.min(16);
        if layout.signed {
            let highest = i16::MAX >> (16 - layout.bits_stored);
            let clamp = |cell: u16| ((((cell << unused) as i16) >> unused) >> layout.shift).clamp(!highest, highest);
            Pixels::I16(self.values.into_iter().map(clamp).collect())
        } else {
            let highest = u16::MAX >> (16 - layout.bits_stored);
            Pixels::U16(self.values.into_iter().map(|cell| (cell >> layout.shift).min(highest)).collect())
        }
    }

    fn masked(self, layout: &Layout) -> Pixels {
        // A codestream that is no wider than the stored bits has no unused bits below.
        let shift = if self.precision > layout.bits_stored { layout.shift } else { 0 };
        let unused = 16 - layout.bits_stored;
        if layout.signed {
            let signed = |cell: u16| (((cell >> shift) << unused) as i16) >> unused;
            Pixels::I16(self.values.into_iter().map(signed).collect())
        } else {
            let mask = u16::MAX >> unused;
            Pixels::U16(self.values.into_iter().map(|cell| (cell >> shift) & mask).collect())
        }
    }
}

/// PixelPaddingValue and PixelPaddingRangeLimit as stored values: their bits mean what those of the pixels mean.
pub(super) fn padding(value: Option<u16>, limit: Option<u16>, signed: bool) -> Option<RangeInclusive<i32>> {
    let widen = |bits: u16| if signed { i32::from(bits as i16) } else { i32::from(bits) };
    let value = widen(value?);
    let limit = limit.map_or(value, widen);
    Some(value.min(limit)..=value.max(limit))
}

/// Undoes the wrap-around of some RSNA 2019 files: 12-bit unsigned with an intercept above -100, where air below the
/// intercept came out at the top of the range. Returns whether it did.
pub(super) fn repair_wrap(
    pixels: &mut Pixels,
    layout: &Layout,
    rescale: &mut Rescale,
    padding: &mut Option<RangeInclusive<i32>>,
) -> bool {
    let Pixels::U16(values) = pixels else { return false };
    if layout.bits_stored != 12 || layout.inverted || rescale.intercept <= -100.0 {
        return false;
    }
    let n_wrapped = values.iter().filter(|value| **value >= WRAPPED_MIN).count();
    if n_wrapped.saturating_mul(WRAP_SHARE) < values.len() || n_wrapped == 0 {
        return false;
    }
    for value in values.iter_mut() {
        *value = (*value + WRAP_OFFSET) & 0xFFF;
    }
    rescale.intercept = -f64::from(WRAP_OFFSET);
    *padding = padding.take().and_then(|range| wrapped_range(&range));
    true
}

/// The same padding among repaired values, if it is still one range.
fn wrapped_range(range: &RangeInclusive<i32>) -> Option<RangeInclusive<i32>> {
    let move_on = |value: i32| (0..4096).contains(&value).then(|| (value + i32::from(WRAP_OFFSET)) & 0xFFF);
    let (start, end) = (move_on(*range.start())?, move_on(*range.end())?);
    (start <= end).then_some(start..=end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(bits_allocated: u16, bits_stored: u16, shift: u16, signed: bool) -> Layout {
        Layout {
            rows: 1,
            columns: 4,
            frames: 1,
            is_multi_frame: false,
            bits_allocated,
            bits_stored,
            shift,
            signed,
            inverted: false,
        }
    }

    fn pixels(values: &[u16], layout: &Layout) -> Pixels {
        Cells { values: values.to_vec(), precision: 16 }.into_pixels(layout, false)
    }

    #[test]
    fn bits_beside_the_stored_ones_are_dropped() {
        assert_eq!(pixels(&[0xF123, 0x0FFF], &layout(16, 12, 0, false)), Pixels::U16(vec![0x123, 0xFFF]));
        assert_eq!(pixels(&[0x123F, 0xFFF0], &layout(16, 12, 4, false)), Pixels::U16(vec![0x123, 0xFFF]));
        assert_eq!(pixels(&[0xFFFF, 0x8000], &layout(16, 16, 0, false)), Pixels::U16(vec![0xFFFF, 0x8000]));
    }

    #[test]
    fn the_sign_bit_is_the_highest_stored_one() {
        assert_eq!(pixels(&[0x0800, 0xF7FF, 0x0FFF], &layout(16, 12, 0, true)), Pixels::I16(vec![-2048, 2047, -1]));
        assert_eq!(pixels(&[0x8000, 0x7FF0], &layout(16, 12, 4, true)), Pixels::I16(vec![-2048, 2047]));
        assert_eq!(pixels(&[0x8000, 0xFFFF], &layout(16, 16, 0, true)), Pixels::I16(vec![i16::MIN, -1]));
    }

    #[test]
    fn overshoot_of_lossy_codecs_stops_at_the_end_of_the_range() {
        let clamp = |values: &[u16], layout: &Layout| {
            Cells { values: values.to_vec(), precision: 16 }.into_pixels(layout, true)
        };
        assert_eq!(clamp(&[4098, 4095, 0], &layout(16, 12, 0, false)), Pixels::U16(vec![4095, 4095, 0]));
        assert_eq!(clamp(&[2050, 0xF7F0, 0xFFFF], &layout(16, 12, 0, true)), Pixels::I16(vec![2047, -2048, -1]));
        assert_eq!(clamp(&[0x8000, 0xFFFF], &layout(16, 16, 0, true)), Pixels::I16(vec![i16::MIN, -1]));
    }

    #[test]
    fn native_cells_follow_the_byte_order() {
        let layout = layout(16, 16, 0, false);
        assert_eq!(Cells::native(&[1, 2, 3, 4], &layout, false).values, [0x0201, 0x0403]);
        assert_eq!(Cells::native(&[1, 2, 3, 4], &layout, true).values, [0x0102, 0x0304]);
    }

    #[test]
    fn padding_is_read_with_the_sign_of_the_pixels() {
        assert_eq!(padding(Some(0xF830), None, true), Some(-2000..=-2000));
        assert_eq!(padding(Some(0xF830), None, false), Some(63536..=63536));
        assert_eq!(padding(Some(10), Some(0xFFFF), true), Some(-1..=10));
        assert_eq!(padding(None, Some(1), true), None);
    }

    #[test]
    fn only_wrapped_pictures_are_repaired() {
        let layout = layout(16, 12, 0, false);
        let repair = |values: Vec<u16>, intercept: f64| {
            let mut pixels = Pixels::U16(values);
            let mut rescale = Rescale { slope: 1.0, intercept };
            let mut padding = Some(3096..=3100);
            let done = repair_wrap(&mut pixels, &layout, &mut rescale, &mut padding);
            (done, pixels, rescale.intercept, padding)
        };
        let wrapped = vec![3096, 4095, 0, 40];
        assert_eq!(repair(wrapped.clone(), 0.0), (true, Pixels::U16(vec![0, 999, 1000, 1040]), -1000.0, Some(0..=4)));
        assert!(!repair(wrapped, -1024.0).0);
        assert!(!repair(vec![0, 10, 20, 3095], 0.0).0);
        let mut rare = vec![0; 1000];
        rare[0] = 4000;
        assert!(!repair(rare, 0.0).0);
    }
}
