//! Doors for fuzz targets: the pre-walk and each codec alone, which the daemon never offers. Compiled for them only.

use super::admission::Layout;
use super::syntax::{Codec, Encoding};
use super::{codec, prewalk};
use crate::reject::Rejection;

/// A codec of encapsulated pixel data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Door {
    Rle,
    Jpeg,
    JpegLs,
    Jpeg2000,
}

/// Walks over a data set twice, with and without its pixels. Each place that was found must lie in it.
///
/// # Errors
/// As decoding the file would give it.
pub fn walk(data: &[u8], explicit: bool, big_endian: bool) -> Result<usize, Rejection> {
    let encoding = Encoding { explicit, big_endian };
    let header = prewalk::walk_header(data, encoding);
    let walk = prewalk::walk(data, encoding)?;
    let header = header?;
    assert_eq!(header.elements, walk.elements, "the pixels changed what stands before them");
    for (tag, range) in &walk.elements {
        assert!(range.start < range.end && range.end <= data.len(), "{tag} lies outside");
    }
    match walk.pixels {
        Some(prewalk::PixelData::Native(range)) => assert!(data.get(range).is_some()),
        Some(prewalk::PixelData::Encapsulated { offsets, fragments }) => {
            assert!(std::iter::once(offsets).chain(fragments).all(|range| data.get(range).is_some()));
        }
        None => {}
    }
    Ok(walk.elements.len())
}

/// Decodes one codestream of a picture of that size.
///
/// # Errors
/// As decoding the file would give it.
pub fn decode(
    door: Door,
    codestream: &[u8],
    rows: usize,
    columns: usize,
    bits_allocated: u16,
) -> Result<Vec<u16>, Rejection> {
    let codec = match door {
        Door::Rle => Codec::Rle,
        Door::Jpeg => Codec::Jpeg,
        Door::JpegLs => Codec::JpegLs,
        Door::Jpeg2000 => Codec::Jpeg2000,
    };
    let layout = Layout {
        rows,
        columns,
        frames: 1,
        is_multi_frame: false,
        bits_allocated,
        bits_stored: bits_allocated,
        shift: 0,
        signed: false,
        inverted: false,
    };
    codec::decode(codec, codestream, &layout, false).map(|cells| cells.values)
}
