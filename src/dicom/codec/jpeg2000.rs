//! JPEG 2000 (ITU-T T.800), lossless and lossy, of one component; sign from the codestream. Names follow the recommendation.
//!
//! `headers` reads the markers, `tile` lays a tile out, `packets` finds each code-block's bytes, `block` decodes them with
//! `arithmetic`, `wavelet` makes a picture of the bands.

mod arithmetic;
mod block;
#[cfg(test)]
mod golden;
mod headers;
mod packets;
mod tag_tree;
mod tile;
mod wavelet;

use std::borrow::Cow;

use block::{Block, Coefficients};
use headers::{Area, Head, Tile};
use tile::Layout;
use wavelet::{Coefficient, Plane};

use super::{CodecError, Size};
use crate::dicom::stored::Cells;

/// Decodes a codestream of one picture.
pub(super) fn decode(frame: &[u8], size: Size) -> Result<Cells, CodecError> {
    let (head, tiles) = headers::read(frame, size)?;
    let mut values = vec![0; size.n_pixels()];
    for (number, tile) in tiles.iter().enumerate() {
        let area = head.tile(number);
        let decode = Decode { head: &head, tile, area, values: &mut values };
        // Compiled for the vectors and the counting of bits that the processor has.
        pulp::Arch::new().dispatch(decode)?;
    }
    Ok(Cells { values, precision: head.precision })
}

/// One tile, into its part of the picture.
struct Decode<'a> {
    head: &'a Head,
    tile: &'a Tile<'a>,
    area: Area,
    values: &'a mut [u16],
}

impl pulp::NullaryFnOnce for Decode<'_> {
    type Output = Result<(), CodecError>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        if self.tile.coding.component.reversible { self.decode::<i32>() } else { self.decode::<f32>() }
    }
}

impl Decode<'_> {
    #[inline(always)]
    fn decode<T: Coefficient>(self) -> Result<(), CodecError> {
        let data = match self.tile.parts.as_slice() {
            [part] => Cow::Borrowed(*part),
            parts => Cow::Owned(parts.concat()),
        };
        let mut layout = Layout::new(self.tile, self.area, self.head.precision)?;
        let contributions = packets::read(self.tile, &mut layout, &data)?;
        let mut bands: Vec<Plane<T>> = layout.bands.iter().map(|band| Plane::new(band.area)).collect();
        let (mut bytes, mut segments, mut coefficients) = (Vec::new(), Vec::new(), Coefficients::default());
        for (number, brought) in contributions.blocks() {
            let state = &layout.blocks[number];
            let number = usize::from(state.band);
            let band = &layout.bands[number];
            brought.gather(&data, &mut bytes, &mut segments);
            let block = Block {
                width: state.area.width(),
                height: state.area.height(),
                n_planes: band.n_planes - state.empty_planes.map_or(band.n_planes, u32::from),
                orientation: band.orientation,
                style: self.tile.coding.component.style,
                data: &bytes,
                segments: &segments,
            };
            coefficients.decode(&block)?;
            let plane = &mut bands[number];
            let (left, top) = ((state.area.left - band.area.left) as usize, (state.area.top - band.area.top) as usize);
            for y in 0..block.height {
                let begin = (top + y) * plane.width + left;
                let row = &mut plane.values[begin..begin + block.width];
                coefficients.row(y, self.tile.raised, band.step, row);
            }
        }
        let mut bands = bands.into_iter();
        let mut picture = bands.next().unwrap_or_default();
        for resolution in layout.resolutions.iter().skip(1) {
            let (Some(across), Some(down), Some(both)) = (bands.next(), bands.next(), bands.next()) else {
                return Err(CodecError::Damaged("a resolution has no bands"));
            };
            picture = wavelet::joined(resolution.area, &picture, [&across, &down, &both]);
        }
        self.write(&picture);
        Ok(())
    }

    /// Shifts samples to their range (G.1.2) and cuts off what exceeds it.
    #[inline(always)]
    fn write<T: Coefficient>(self, picture: &Plane<T>) {
        let half = 1 << (self.head.precision - 1);
        let shift = if self.head.signed { 0 } else { half };
        let (left, top) = (self.area.left - self.head.image.left, self.area.top - self.head.image.top);
        for y in 0..self.area.height() {
            let begin = (top as usize + y) * self.head.image.width() + left as usize;
            let target = &mut self.values[begin..begin + picture.width];
            let source = &picture.values[y * picture.width..(y + 1) * picture.width];
            for x in 0..source.len() {
                let value = source[x].whole().clamp(-half, half - 1) + shift;
                target[x] = value as u16;
            }
        }
    }
}
