//! Cuts pixel data into frames: by size where it is native, by fragments where it is encapsulated (PS3.5 A.4).
//! Decodes nothing.

use std::borrow::Cow;
use std::ops::Range;

use super::admission::Layout;
use super::prewalk::PixelData;
use super::syntax::Codec;
use super::tags;
use crate::reject::{RejectCode, Rejection};

/// Bytes of an item's tag and length.
const ITEM_HEAD_BYTES: usize = 8;

/// The frames of one file.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    /// Bytes of each frame: exactly its cells if native, the codestream if encapsulated.
    pub frames: Vec<Cow<'a, [u8]>>,
    /// Bytes behind the last frame of native data, a single byte to make the length even not counted.
    pub n_extra_bytes: usize,
}

/// Cuts the pixel data of `data_set` into frames.
pub(super) fn split<'a>(
    data_set: &'a [u8],
    pixels: &PixelData,
    codec: Codec,
    layout: &Layout,
) -> Result<Frames<'a>, Rejection> {
    match pixels {
        PixelData::Native(range) if codec == Codec::Native => {
            native(data_set.get(range.clone()).unwrap_or_default(), layout)
        }
        PixelData::Encapsulated { offsets, fragments } if codec != Codec::Native => {
            let groups = group(data_set, offsets, fragments, codec, layout.frames)?;
            let frames = groups.into_iter().map(|group| join(data_set, group)).collect();
            Ok(Frames { frames, n_extra_bytes: 0 })
        }
        _ => Err(wrong_coding()),
    }
}

/// Judges the size of native pixel data; gives the bytes of one frame and of all.
pub(super) fn check_native(n_bytes: usize, layout: &Layout) -> Result<(usize, usize), Rejection> {
    let frame_bytes = layout.n_pixels() * usize::from(layout.bits_allocated / 8);
    let needed = frame_bytes * layout.frames;
    if n_bytes < needed {
        let Layout { rows, columns, frames, .. } = layout;
        let sentence = format!("{n_bytes} bytes; {frames} x {rows} x {columns} pixels take {needed}");
        return Err(fault(RejectCode::ShortPixels, sentence));
    }
    Ok((frame_bytes, needed))
}

/// The refusal of pixel data whose coding contradicts the transfer syntax.
pub(super) fn wrong_coding() -> Rejection {
    fault(RejectCode::Corrupt, "it is stored in another way than the transfer syntax says")
}

fn native<'a>(bytes: &'a [u8], layout: &Layout) -> Result<Frames<'a>, Rejection> {
    let (frame_bytes, needed) = check_native(bytes.len(), layout)?;
    let frames = bytes.chunks_exact(frame_bytes).take(layout.frames).map(Cow::Borrowed).collect();
    let n_extra_bytes = match bytes.len() - needed {
        1 => 0,
        extra => extra,
    };
    Ok(Frames { frames, n_extra_bytes })
}

/// The fragments of each frame.
fn group<'f>(
    data_set: &[u8],
    offsets: &Range<usize>,
    fragments: &'f [Range<usize>],
    codec: Codec,
    n_frames: usize,
) -> Result<Vec<&'f [Range<usize>]>, Rejection> {
    if fragments.len() < n_frames {
        let sentence = format!("{} fragments cannot hold {n_frames} frames", fragments.len());
        return Err(fault(RejectCode::ShortPixels, sentence));
    }
    if n_frames == 1 {
        return Ok(vec![fragments]);
    }
    if fragments.len() == n_frames {
        return Ok(fragments.chunks(1).collect());
    }
    let table = data_set.get(offsets.clone()).unwrap_or_default();
    let starts = starts_by_table(table, fragments).unwrap_or_else(|| starts_by_mark(data_set, fragments, codec));
    if starts.len() != n_frames || starts.first() != Some(&0) {
        let sentence = format!("its fragments cannot be told apart into {n_frames} frames");
        return Err(fault(RejectCode::BadPixelData, sentence));
    }
    let ends = starts.iter().skip(1).copied().chain([fragments.len()]);
    Ok(starts.iter().zip(ends).filter_map(|(start, end)| fragments.get(*start..end)).collect())
}

/// Indices of the fragments that the basic offset table points to; nothing if it is empty or points elsewhere.
fn starts_by_table(table: &[u8], fragments: &[Range<usize>]) -> Option<Vec<usize>> {
    let (entries, odd) = table.as_chunks::<4>();
    let base = fragments.first()?.start.checked_sub(ITEM_HEAD_BYTES)?;
    if entries.is_empty() || !odd.is_empty() {
        return None;
    }
    let mut starts: Vec<usize> = Vec::new();
    for entry in entries {
        let value =
            base.checked_add(usize::try_from(u32::from_le_bytes(*entry)).ok()?)?.checked_add(ITEM_HEAD_BYTES)?;
        let index = fragments.binary_search_by_key(&value, |fragment| fragment.start).ok()?;
        if starts.last().is_some_and(|last| *last >= index) {
            return None;
        }
        starts.push(index);
    }
    Some(starts)
}

/// Indices of the fragments that begin like a codestream.
fn starts_by_mark(data_set: &[u8], fragments: &[Range<usize>], codec: Codec) -> Vec<usize> {
    let mark: &[u8] = match codec {
        Codec::Jpeg | Codec::JpegLs => &[0xFF, 0xD8, 0xFF],
        Codec::Jpeg2000 => &[0xFF, 0x4F, 0xFF, 0x51],
        Codec::Native | Codec::Rle => return Vec::new(),
    };
    let begins = |fragment: &Range<usize>| data_set.get(fragment.clone()).is_some_and(|bytes| bytes.starts_with(mark));
    fragments.iter().enumerate().filter(|(_, fragment)| begins(fragment)).map(|(index, _)| index).collect()
}

fn join<'a>(data_set: &'a [u8], fragments: &[Range<usize>]) -> Cow<'a, [u8]> {
    let bytes = |fragment: &Range<usize>| data_set.get(fragment.clone()).unwrap_or_default();
    match fragments {
        [only] => Cow::Borrowed(bytes(only)),
        several => Cow::Owned(several.iter().flat_map(bytes).copied().collect()),
    }
}

fn fault(code: RejectCode, sentence: impl Into<String>) -> Rejection {
    Rejection::of_tag(code, tags::name(tags::PIXEL_DATA), sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        rows: 2,
        columns: 3,
        frames: 2,
        is_multi_frame: true,
        bits_allocated: 16,
        bits_stored: 16,
        shift: 0,
        signed: false,
        inverted: false,
    };

    #[test]
    fn native_frames_are_never_short() {
        let bytes = [0; 30];
        let extra = |length: usize| native(&bytes[..length], &LAYOUT).map(|frames| frames.n_extra_bytes);
        assert_eq!(extra(23).unwrap_err().code, RejectCode::ShortPixels);
        assert_eq!((extra(24), extra(25), extra(26)), (Ok(0), Ok(0), Ok(2)));
    }

    #[test]
    fn fragments_are_grouped_by_table_or_by_mark() {
        let mut data = vec![0; 60];
        let fragments = [8..12, 20..24, 32..36];
        for start in [8, 32] {
            data[start..start + 3].copy_from_slice(&[0xFF, 0xD8, 0xFF]);
        }
        let grouped = |data: &[u8], table: Range<usize>, codec| {
            group(data, &table, &fragments, codec, 2)
                .map(|groups| groups.iter().map(|group| group.len()).collect::<Vec<_>>())
                .map_err(|rejection| rejection.code)
        };
        assert_eq!(grouped(&data, 0..0, Codec::Jpeg), Ok(vec![2, 1]));
        assert_eq!(grouped(&data, 0..0, Codec::Rle), Err(RejectCode::BadPixelData));
        data[52] = 12;
        assert_eq!(grouped(&data, 48..56, Codec::Rle), Ok(vec![1, 2]));
        data[52] = 13;
        assert_eq!(grouped(&data, 48..56, Codec::Jpeg), Ok(vec![2, 1]));
    }
}
