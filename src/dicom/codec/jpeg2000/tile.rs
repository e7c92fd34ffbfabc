//! Where everything lies in a tile (T.800 annex B): resolutions, bands, precincts and code-blocks, of one component. Knows no
//! bits.

use std::ops::Range;

use super::block::{Orientation, PLANES_MAX};
use super::headers::{Area, Tile};
use super::tag_tree::{Node, TagTree};
use crate::dicom::codec::CodecError;

/// Coefficients of one kind.
#[derive(Clone, Debug)]
pub(super) struct Band {
    /// On the band's own grid.
    pub area: Area,
    /// Which neighbors count how.
    pub orientation: Orientation,
    /// Bit planes of its largest coefficient (E-2), with those of a region of interest.
    pub n_planes: u32,
    /// What a coefficient of one stands for.
    pub step: f32,
}

/// One code-block, and what packets have told of it. There may be a million of them, so it is small.
#[derive(Clone, Debug)]
pub(super) struct BlockState {
    /// On the band's grid.
    pub area: Area,
    pub band: u8,
    /// Its number of empty bit planes, once it takes part.
    pub empty_planes: Option<u8>,
    /// Bits of a length (B.10.7.1).
    pub length_bits: u8,
    pub n_passes: u8,
    /// Passes that the segment it is in may still have.
    pub segment_left: u8,
}

/// A band's part of a precinct: its code-blocks, and the trees that tell which of them take part and how many of their bit
/// planes are empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub first_block: u32,
    pub inclusion: TagTree,
    pub planes: TagTree,
}

/// A precinct.
#[derive(Clone, Debug)]
pub(super) struct Precinct {
    /// Row and column of its corner on the reference grid.
    pub corner: [u64; 2],
    /// The layer whose packet comes next.
    pub next_layer: u32,
    /// The first of its parts; one for each band of its resolution.
    pub first_part: u32,
}

/// A resolution.
#[derive(Clone, Debug)]
pub(super) struct Resolution {
    pub area: Area,
    /// Parts of each precinct: one, or across, down and both ways.
    pub n_parts: u32,
    pub precincts: Vec<Precinct>,
}

/// A tile's layout.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub resolutions: Vec<Resolution>,
    pub bands: Vec<Band>,
    pub parts: Vec<Part>,
    pub blocks: Vec<BlockState>,
    pub nodes: Vec<Node>,
    /// Most of `blocks`, and of all precincts.
    blocks_max: usize,
    precincts_max: u64,
}

/// A tile may have a code-block for so many pixels, and a precinct for so many, and some more: the smallest code-blocks of
/// 4 x 4 pixels pass, and precincts of 8 x 8. Each costs some fifty or hundred bytes.
const PIXELS_A_BLOCK: usize = 12;
const PIXELS_A_PRECINCT: u64 = 32;
const SMALL_PICTURE: usize = 1024;

/// `number` / 2^`levels`, rounded up.
fn up(number: u64, levels: u32) -> u64 {
    (number + ((1 << levels) - 1)) >> levels
}

/// The squares of a grid that an area touches.
struct Places {
    columns: Range<u32>,
    rows: Range<u32>,
}

impl Places {
    /// Of squares of 2^`wide` x 2^`high`.
    fn new(area: Area, [wide, high]: [u32; 2]) -> Places {
        if area.width() == 0 || area.height() == 0 {
            return Places { columns: 0..0, rows: 0..0 };
        }
        let range = |begin: u32, end: u32, exponent: u32| begin >> exponent..((end - 1) >> exponent) + 1;
        Places { columns: range(area.left, area.right, wide), rows: range(area.top, area.bottom, high) }
    }

    fn number(&self) -> u64 {
        self.columns.len() as u64 * self.rows.len() as u64
    }
}

impl Layout {
    /// Lays out a tile.
    ///
    /// # Errors
    /// Step sizes are missing, there are more bit planes than are supported, more code-blocks or precincts than a tile of its
    /// size needs, or more precincts than its bytes can speak of.
    pub fn new(tile: &Tile<'_>, area: Area, precision: u16) -> Result<Layout, CodecError> {
        let n_levels = tile.coding.component.n_levels;
        let n_pixels = area.width() * area.height();
        let mut layout = Layout {
            blocks_max: n_pixels / PIXELS_A_BLOCK + SMALL_PICTURE,
            precincts_max: n_pixels as u64 / PIXELS_A_PRECINCT + SMALL_PICTURE as u64,
            ..Layout::default()
        };
        let mut n_precincts = 0;
        for resolution in 0..=n_levels {
            let levels = n_levels - resolution;
            let shrunk = |edge: u32| up(edge.into(), levels) as u32;
            let resolution_area = Area {
                left: shrunk(area.left),
                top: shrunk(area.top),
                right: shrunk(area.right),
                bottom: shrunk(area.bottom),
            };
            let first_band = layout.bands.len();
            // Whether a band is high-pass across and down, and by how many bits it may exceed the samples (table E.1).
            let kinds: &[(u64, u64, Orientation, u32)] = match resolution {
                0 => &[(0, 0, Orientation::Low, 0)],
                _ => &[(1, 0, Orientation::Across, 1), (0, 1, Orientation::Low, 1), (1, 1, Orientation::Both, 2)],
            };
            let band_levels = if resolution == 0 { levels } else { levels + 1 };
            for (across, down, orientation, gain) in kinds {
                // Half of what is left out between two coefficients (B-15).
                let edge = |edge: u32, high: u64| {
                    let begin = if high == 0 { 0 } else { 1u64 << (band_levels - 1) };
                    up(u64::from(edge).saturating_sub(begin), band_levels) as u32
                };
                let (exponent, mantissa) = tile.quantization.step(layout.bands.len(), resolution.saturating_sub(1))?;
                let n_planes = (tile.quantization.guard + exponent).saturating_sub(1) + tile.raised;
                if n_planes > PLANES_MAX {
                    return Err(CodecError::Unsupported("more than 30 bit planes"));
                }
                // E-3.
                let range = i32::from(precision) + *gain as i32 - exponent as i32;
                let step = 2f64.powi(range) * (1.0 + f64::from(mantissa) / 2048.0);
                layout.bands.push(Band {
                    area: Area {
                        left: edge(area.left, *across),
                        top: edge(area.top, *down),
                        right: edge(area.right, *across),
                        bottom: edge(area.bottom, *down),
                    },
                    orientation: *orientation,
                    n_planes,
                    step: step as f32,
                });
            }
            let places = Places::new(resolution_area, tile.coding.component.precinct(resolution));
            n_precincts += places.number();
            if n_precincts > layout.precincts_max {
                return Err(CodecError::Unsupported("tiny precincts"));
            }
            if n_precincts > tile.precincts_max() {
                return Err(CodecError::Short);
            }
            let precincts = layout.precincts(tile, area, resolution, &places, first_band)?;
            let n_parts = kinds.len() as u32;
            layout.resolutions.push(Resolution { area: resolution_area, n_parts, precincts });
        }
        Ok(layout)
    }

    /// Precincts of a resolution (B.6) and their code-blocks (B.7).
    fn precincts(
        &mut self,
        tile: &Tile<'_>,
        tile_area: Area,
        resolution: u32,
        places: &Places,
        first_band: usize,
    ) -> Result<Vec<Precinct>, CodecError> {
        let component = &tile.coding.component;
        let [wide, high] = component.precinct(resolution);
        let levels = component.n_levels - resolution;
        // A band's precincts are half as large, but for the lowest.
        let halved = u32::from(resolution > 0);
        let block = [component.block[0].min(wide - halved), component.block[1].min(high - halved)];
        let mut precincts = Vec::new();
        for y in places.rows.clone() {
            for x in places.columns.clone() {
                let first_part = self.parts.len() as u32;
                for band in first_band..self.bands.len() {
                    let within = self.bands[band].area;
                    let cut = |place: u32, exponent: u32, low: u32, high: u32| {
                        let begin = u64::from(place) << (exponent - halved);
                        let end = u64::from(place + 1) << (exponent - halved);
                        (begin.clamp(low.into(), high.into()) as u32, end.clamp(low.into(), high.into()) as u32)
                    };
                    let (left, right) = cut(x, wide, within.left, within.right);
                    let (top, bottom) = cut(y, high, within.top, within.bottom);
                    let part = self.part(band, Area { left, top, right, bottom }, block)?;
                    self.parts.push(part);
                }
                let corner =
                    |place: u32, exponent: u32, begin: u32| (u64::from(place) << (exponent + levels)).max(begin.into());
                let corner = [corner(y, high, tile_area.top), corner(x, wide, tile_area.left)];
                precincts.push(Precinct { corner, next_layer: 0, first_part });
            }
        }
        Ok(precincts)
    }

    /// The code-blocks of a band's part of a precinct.
    fn part(&mut self, band: usize, area: Area, [wide, high]: [u32; 2]) -> Result<Part, CodecError> {
        let first_block = self.blocks.len() as u32;
        let places = Places::new(area, [wide, high]);
        if places.number() > (self.blocks_max - self.blocks.len()) as u64 {
            return Err(CodecError::Unsupported("tiny code-blocks"));
        }
        // The last one may end where the grid does, beyond what 32 bits hold.
        let end = |place: u32, exponent: u32, last: u32| ((u64::from(place) + 1) << exponent).min(last.into()) as u32;
        for y in places.rows.clone() {
            for x in places.columns.clone() {
                let area = Area {
                    left: (x << wide).max(area.left),
                    top: (y << high).max(area.top),
                    right: end(x, wide, area.right),
                    bottom: end(y, high, area.bottom),
                };
                self.blocks.push(BlockState {
                    area,
                    band: band as u8,
                    empty_planes: None,
                    length_bits: 3,
                    n_passes: 0,
                    segment_left: 0,
                });
            }
        }
        let (across, down) = (places.columns.len(), places.rows.len());
        let inclusion = TagTree::new(&mut self.nodes, across, down);
        let planes = TagTree::new(&mut self.nodes, across, down);
        Ok(Part { first_block, inclusion, planes })
    }
}
