//! RLE (PS3.5 annex G): one PackBits segment for each byte of a cell, the most significant first.

use super::{CodecError, Size};
use crate::dicom::stored::Cells;

const HEADER_BYTES: usize = 64;

pub(super) fn decode(frame: &[u8], size: Size, bits_allocated: u16) -> Result<Cells, CodecError> {
    let header = frame.first_chunk::<HEADER_BYTES>().ok_or(CodecError::Short)?;
    let words: Vec<usize> = header.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word) as usize).collect();
    let n_segments = usize::from(bits_allocated / 8);
    if words.first() != Some(&n_segments) {
        return Err(CodecError::Damaged("its number of segments does not fit the bits allocated"));
    }
    let offsets = words.get(1..=n_segments).ok_or(CodecError::Short)?;
    let mut values = vec![0u16; size.n_pixels()];
    for (index, start) in offsets.iter().enumerate() {
        let end = offsets.get(index + 1).copied().unwrap_or(frame.len());
        if *start < HEADER_BYTES {
            return Err(CodecError::Damaged("a segment lies in the header"));
        }
        let segment = frame.get(*start..end).ok_or(CodecError::Damaged("a segment lies outside the frame"))?;
        unpack(segment, &mut values)?;
    }
    Ok(Cells { values, precision: bits_allocated })
}

/// Unpacks one segment into the low bytes of `values` and moves what was there up.
fn unpack(segment: &[u8], values: &mut [u16]) -> Result<(), CodecError> {
    let mut rest = segment;
    let mut cells = values.iter_mut();
    let mut push = |byte: u8| match cells.next() {
        Some(cell) => {
            *cell = (*cell << 8) | u16::from(byte);
            true
        }
        None => false,
    };
    while let Some((&control, behind)) = rest.split_first() {
        rest = behind;
        match control {
            0..=127 => {
                let (literal, behind) = rest.split_at_checked(usize::from(control) + 1).unwrap_or((rest, &[]));
                rest = behind;
                // Bytes beyond the last pixel can only be padding.
                if !literal.iter().all(|byte| push(*byte)) {
                    return Ok(());
                }
            }
            128 => {}
            129..=255 => {
                let (&byte, behind) = rest.split_first().ok_or(CodecError::Short)?;
                rest = behind;
                if !(0..257 - usize::from(control)).all(|_| push(byte)) {
                    return Ok(());
                }
            }
        }
    }
    if cells.next().is_some() { Err(CodecError::Short) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 2, columns: 2 };

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut words = vec![segments.len() as u32];
        let mut start = HEADER_BYTES;
        for segment in segments {
            words.push(start as u32);
            start += segment.len();
        }
        words.resize(HEADER_BYTES / 4, 0);
        let mut frame: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        segments.iter().for_each(|segment| frame.extend(*segment));
        frame
    }

    #[test]
    fn segments_are_joined_with_the_most_significant_byte_first() {
        let frame = frame(&[&[0xFD, 0x01], &[0x01, 0x0A, 0x0B, 0x80, 0xFF, 0x0C]]);
        assert_eq!(decode(&frame, SIZE, 16).unwrap().values, [0x010A, 0x010B, 0x010C, 0x010C]);
    }

    #[test]
    fn short_segments_and_wrong_offsets_are_refused() {
        assert_eq!(decode(&frame(&[&[0xFD, 1], &[0xFE, 1]]), SIZE, 16), Err(CodecError::Short));
        assert_eq!(decode(&frame(&[&[0xFD, 1], &[0xFD]]), SIZE, 16), Err(CodecError::Short));
        assert!(decode(&frame(&[&[0xFD, 1]]), SIZE, 16).is_err());
        let mut outside = frame(&[&[0xFD, 1], &[0xFD, 1]]);
        outside[8] = 0xFF;
        assert!(decode(&outside, SIZE, 16).is_err());
        assert_eq!(decode(&[0; 63], SIZE, 16), Err(CodecError::Short));
    }
}
