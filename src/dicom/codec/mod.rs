//! Codecs of encapsulated pixel data: one frame's codestream becomes its cells. Pure Rust, bounded by the size that
//! the header announces; knows no attribute but that size.

mod jpeg;
mod jpeg2000;
mod jpegls;
mod rle;

use super::admission::Layout;
use super::stored::Cells;
use super::syntax::Codec;
use super::tags;
use crate::reject::{RejectCode, Rejection};

/// Why a codestream cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    /// It ends early.
    #[error("it ends before the picture is complete")]
    Short,
    /// It contradicts its own specification.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// A legal form that no CT uses.
    #[error("it uses {0}, which is not supported")]
    Unsupported(&'static str),
    /// It shows another size than the header.
    #[error("it holds {found_rows} x {found_columns} pixels, but the header says {rows} x {columns}")]
    Size {
        /// From the header.
        rows: usize,
        /// From the header.
        columns: usize,
        /// From the codestream.
        found_rows: usize,
        /// From the codestream.
        found_columns: usize,
    },
}

/// Size of the picture that a codestream must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    rows: usize,
    columns: usize,
}

impl Size {
    fn n_pixels(self) -> usize {
        self.rows * self.columns
    }

    /// Fails unless the codestream has this size.
    fn check(self, found_rows: usize, found_columns: usize) -> Result<(), CodecError> {
        let Size { rows, columns } = self;
        if (rows, columns) == (found_rows, found_columns) {
            Ok(())
        } else {
            Err(CodecError::Size { rows, columns, found_rows, found_columns })
        }
    }
}

/// Decodes one frame.
pub(super) fn decode(codec: Codec, codestream: &[u8], layout: &Layout, big_endian: bool) -> Result<Cells, Rejection> {
    let size = Size { rows: layout.rows, columns: layout.columns };
    let decoded = match codec {
        Codec::Native => Ok(Cells::native(codestream, layout, big_endian)),
        Codec::Rle => rle::decode(codestream, size, layout.bits_allocated),
        Codec::Jpeg => jpeg::decode(codestream, size),
        Codec::JpegLs => jpegls::decode(codestream, size),
        Codec::Jpeg2000 => jpeg2000::decode(codestream, size),
    };
    let cells = decoded.map_err(|error| {
        let code = if error == CodecError::Short { RejectCode::ShortPixels } else { RejectCode::BadPixelData };
        Rejection::of_tag(code, tags::name(tags::PIXEL_DATA), error.to_string())
    })?;
    if cells.values.len() != size.n_pixels() {
        let error = CodecError::Short;
        return Err(Rejection::of_tag(RejectCode::ShortPixels, tags::name(tags::PIXEL_DATA), error.to_string()));
    }
    Ok(cells)
}
