//! JPEG 2000 (ITU-T T.800): the codestream's headers are checked for anything that would cost more than its size
//! justifies, then the hayro decoder does the work. One component; sign from the codestream.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use super::{CodecError, Size};
use crate::dicom::stored::Cells;

const SOC: [u8; 2] = [0xFF, 0x4F];
const SIZ: u8 = 0x51;
const COD: u8 = 0x52;
const COC: u8 = 0x53;
const SOT: u8 = 0x90;
const SOD: u8 = 0x93;
const EOC: u8 = 0xD9;

/// Most tiles; writers of CT use one.
const TILES_MAX: u64 = 4096;
/// Smallest exponent of a precinct's sides; each precinct costs the decoder some hundred bytes.
const PRECINCT_EXPONENT_MIN: u8 = 4;
/// Smallest exponent of a code-block's sides less two, as it stands in the file; each block costs some hundred bytes, too.
const BLOCK_EXPONENT_MIN: u8 = 2;
/// A JP2 box header would stand within this many bytes before the codestream.
const BOXES_BYTES_MAX: usize = 4096;

/// Decodes a codestream of one picture.
pub(super) fn decode(frame: &[u8], size: Size) -> Result<Cells, CodecError> {
    let codestream = codestream(frame)?;
    let head = check(codestream, size)?;
    let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    let damaged = CodecError::Damaged("the JPEG 2000 decoder refuses it");
    let image = Image::new(codestream, &settings).map_err(|_| damaged.clone())?;
    size.check(image.height() as usize, image.width() as usize)?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|_| damaged.clone())?;
    let [component] = decoded.components() else { return Err(CodecError::Unsupported("several components")) };
    let samples = component.samples();
    if samples.len() != size.n_pixels() {
        return Err(CodecError::Short);
    }
    Ok(Cells { values: samples.iter().map(|sample| head.cell(*sample)).collect(), precision: head.precision })
}

/// Without the JP2 boxes that some writers leave around it.
fn codestream(frame: &[u8]) -> Result<&[u8], CodecError> {
    let start = frame.windows(4).take(BOXES_BYTES_MAX).position(|bytes| bytes == [SOC[0], SOC[1], 0xFF, SIZ]);
    let start = start.ok_or(CodecError::Damaged("it does not begin as JPEG 2000"))?;
    Ok(frame.get(start..).unwrap_or_default())
}

/// What the main header says about samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    precision: u16,
    signed: bool,
}

/// From here to its double the floats are the whole numbers.
const WHOLE: f32 = 8_388_608.0;

impl Head {
    /// The decoder shifts every sample up by half the range, signed ones too, and does not clamp. Rounded to even by one
    /// addition, which leaves the number in the lowest bits; a loop of it becomes vectors, one of calls to round does not.
    #[inline(always)]
    fn cell(self, sample: f32) -> u16 {
        let largest = u16::MAX >> (16 - self.precision);
        let half = if self.signed { largest / 2 + 1 } else { 0 };
        let shifted = (sample.max(0.0).min(largest.into()) + WHOLE).to_bits() as u16;
        shifted.wrapping_sub(half)
    }
}

/// Walks over the headers of the codestream and its tile-parts.
fn check(codestream: &[u8], size: Size) -> Result<Head, CodecError> {
    let mut rest = codestream.strip_prefix(&SOC).ok_or(CodecError::Damaged("it does not begin as JPEG 2000"))?;
    let mut head = None;
    loop {
        let tile_part = rest;
        let (marker, segment, behind) = segment(rest)?;
        rest = behind;
        match marker {
            SIZ => head = Some(image_size(segment, size)?),
            COD | COC => coding_style(marker, segment)?,
            SOT => {
                let length = segment.get(2..6).and_then(|bytes| bytes.first_chunk::<4>()).ok_or(CodecError::Short)?;
                let length = u32::from_be_bytes(*length) as usize;
                rest = tile_header(rest)?;
                match length {
                    // The last tile-part may reach to the end.
                    0 => break,
                    _ => {
                        rest = tile_part
                            .get(length..)
                            .filter(|after| after.len() <= rest.len())
                            .ok_or(CodecError::Short)?
                    }
                }
            }
            EOC => break,
            _ => {}
        }
    }
    head.ok_or(CodecError::Damaged("its size is missing"))
}

/// The header of one tile-part; gives what stands behind it.
fn tile_header(data: &[u8]) -> Result<&[u8], CodecError> {
    let mut rest = data;
    loop {
        let (marker, segment, behind) = segment(rest)?;
        rest = behind;
        match marker {
            SOD => return Ok(rest),
            COD | COC => coding_style(marker, segment)?,
            SIZ | SOT | EOC => return Err(CodecError::Damaged("a tile has no data")),
            _ => {}
        }
    }
}

/// Marker, content of its segment, and what follows.
fn segment(data: &[u8]) -> Result<(u8, &[u8], &[u8]), CodecError> {
    let (&[first, marker], rest) = data.split_first_chunk::<2>().ok_or(CodecError::Short)?;
    if first != 0xFF {
        return Err(CodecError::Damaged("a marker is missing"));
    }
    if matches!(marker, SOD | EOC) {
        return Ok((marker, &[], rest));
    }
    let length =
        rest.first_chunk::<2>().map(|bytes| usize::from(u16::from_be_bytes(*bytes))).ok_or(CodecError::Short)?;
    let (segment, behind) = rest.split_at_checked(length).ok_or(CodecError::Short)?;
    Ok((marker, segment.get(2..).ok_or(CodecError::Damaged("a segment has no length"))?, behind))
}

/// A.5.1.
fn image_size(segment: &[u8], size: Size) -> Result<Head, CodecError> {
    let words: Vec<u64> = segment
        .get(2..34)
        .ok_or(CodecError::Short)?
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_be_bytes(*word).into())
        .collect();
    let &[x, y, left, top, tile_x, tile_y, tile_left, tile_top] = words.as_slice() else {
        return Err(CodecError::Short);
    };
    if x <= left || y <= top || tile_x == 0 || tile_y == 0 || tile_left > left || tile_top > top {
        return Err(CodecError::Damaged("its size makes no sense"));
    }
    size.check((y - top) as usize, (x - left) as usize)?;
    if (x - tile_left).div_ceil(tile_x).saturating_mul((y - tile_top).div_ceil(tile_y)) > TILES_MAX {
        return Err(CodecError::Unsupported("thousands of tiles"));
    }
    let &[high, low, depth, step_x, step_y] =
        segment.get(34..).and_then(|rest| rest.first_chunk::<5>()).ok_or(CodecError::Short)?;
    if [high, low] != [0, 1] || [step_x, step_y] != [1, 1] {
        return Err(CodecError::Unsupported("several or subsampled components"));
    }
    let precision = u16::from(depth & 0x7F) + 1;
    if !(2..=16).contains(&precision) {
        return Err(CodecError::Unsupported("samples of more than 16 bits"));
    }
    Ok(Head { precision, signed: depth & 0x80 != 0 })
}

/// Code-blocks and precincts of COD (A.6.1) and, of one component, COC (A.6.2).
fn coding_style(marker: u8, segment: &[u8]) -> Result<(), CodecError> {
    let (style, skipped) = if marker == COD { (segment.first(), 5) } else { (segment.get(1), 2) };
    let blocks = segment.get(skipped + 1..skipped + 3).ok_or(CodecError::Short)?;
    if blocks.iter().any(|exponent| *exponent < BLOCK_EXPONENT_MIN) {
        return Err(CodecError::Unsupported("tiny code-blocks"));
    }
    if style.ok_or(CodecError::Short)? & 1 == 0 {
        return Ok(());
    }
    let precincts = segment.get(skipped + 5..).ok_or(CodecError::Short)?;
    let tiny = |sides: &u8| sides & 15 < PRECINCT_EXPONENT_MIN || sides >> 4 < PRECINCT_EXPONENT_MIN;
    if precincts.iter().any(tiny) { Err(CodecError::Unsupported("tiny precincts")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 3, columns: 4 };

    fn siz(tile: u32, depth: u8) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0x4F, 0xFF, SIZ, 0, 41, 0, 0];
        for word in [4u32, 3, 0, 0, tile, tile, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend([0, 1, depth, 1, 1]);
        bytes
    }

    #[test]
    fn headers_are_judged_before_decoding() {
        let with_end = |mut bytes: Vec<u8>| {
            bytes.extend([0xFF, EOC]);
            bytes
        };
        assert_eq!(check(&with_end(siz(4, 0x8F)), SIZE), Ok(Head { precision: 16, signed: true }));
        assert!(matches!(check(&with_end(siz(4, 15)), Size { rows: 4, columns: 4 }), Err(CodecError::Size { .. })));
        assert!(check(&with_end(siz(0, 15)), SIZE).is_err());
        assert!(check(&with_end(siz(4, 37)), SIZE).is_err());
        let mut precincts = siz(4, 15);
        precincts.extend([0xFF, COD, 0, 14, 1, 0, 0, 1, 0, 1, 4, 4, 0, 0, 0x33, 0x33]);
        assert_eq!(check(&with_end(precincts), SIZE), Err(CodecError::Unsupported("tiny precincts")));
        let mut blocks = siz(4, 15);
        blocks.extend([0xFF, COD, 0, 12, 0, 0, 0, 1, 0, 1, 1, 4, 0, 0]);
        assert_eq!(check(&with_end(blocks), SIZE), Err(CodecError::Unsupported("tiny code-blocks")));
        assert_eq!(check(&siz(4, 15), SIZE), Err(CodecError::Short));
    }

    #[test]
    fn a_tile_that_reaches_past_the_end_is_short() {
        let mut bytes = siz(4, 15);
        bytes.extend([0xFF, SOT, 0, 10, 0, 0, 0, 0, 1, 0, 0, 1, 0xFF, SOD, 0, 0]);
        assert_eq!(check(&bytes, SIZE), Err(CodecError::Short));
    }

    #[test]
    fn cells_carry_the_sign_of_the_codestream() {
        assert_eq!(Head { precision: 16, signed: true }.cell(32767.0), 0xFFFF);
        assert_eq!(Head { precision: 12, signed: true }.cell(2048.0), 0);
        assert_eq!(Head { precision: 12, signed: false }.cell(4099.4), 4095);
        assert_eq!(Head { precision: 12, signed: false }.cell(-3.0), 0);
    }

    #[test]
    fn cells_are_rounded_to_even_within_the_range() {
        for precision in 2..=16 {
            let largest = (1i32 << precision) - 1;
            // Quarters of ones from below the range to above it.
            for sample in (-40..4 * largest + 40).map(|quarters| quarters as f32 / 4.0) {
                let rounded = (sample.round_ties_even() as i32).clamp(0, largest);
                assert_eq!(Head { precision, signed: false }.cell(sample), rounded as u16, "{sample}");
                let signed = (rounded - (largest + 1) / 2) as u16;
                assert_eq!(Head { precision, signed: true }.cell(sample), signed, "{sample}");
            }
            for (sample, expected) in
                [(f32::NAN, 0), (f32::INFINITY, largest), (f32::MIN, 0), (-0.0, 0), (3e9, largest)]
            {
                assert_eq!(Head { precision, signed: false }.cell(sample), expected as u16, "{sample}");
            }
        }
    }
}
