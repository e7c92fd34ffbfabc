//! Markers of a codestream (T.800 annex A): what its main header and those of its tile-parts say of one component. Whatever
//! would cost more than a picture of that size justifies is refused here. Knows no packets.

use super::block::{PLANES_MAX, Style};
use crate::dicom::codec::{CodecError, Size};

const SOC: [u8; 2] = [0xFF, 0x4F];
const SIZ: u8 = 0x51;
const COD: u8 = 0x52;
const COC: u8 = 0x53;
const QCD: u8 = 0x5C;
const QCC: u8 = 0x5D;
const RGN: u8 = 0x5E;
const POC: u8 = 0x5F;
const PPM: u8 = 0x60;
const PPT: u8 = 0x61;
const SOT: u8 = 0x90;
const SOD: u8 = 0x93;
const EOC: u8 = 0xD9;

/// Most tiles; writers of CT use one.
const TILES_MAX: u64 = 4096;
/// Largest exponent of a code-block's sides, and of both together, less two each, as they stand in the file (table A.18).
const BLOCK_EXPONENT_MAX: u8 = 8;
/// Most decompositions (table A.15).
const LEVELS_MAX: u8 = 32;
/// Most bands: the lowest one, and three for each decomposition.
const BANDS_MAX: usize = 3 * LEVELS_MAX as usize + 1;
/// Most changes of order.
const PROGRESSIONS_MAX: usize = 64;
/// A JP2 box header would stand within this many bytes before the codestream.
const BOXES_BYTES_MAX: usize = 4096;

/// What the main header says about samples and tiles (A.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bits of a sample, 2 to 16.
    pub precision: u16,
    /// Whether samples have a sign.
    pub signed: bool,
    /// The picture on the reference grid.
    pub image: Area,
    tile: [u32; 2],
    tile_start: [u32; 2],
    tiles_across: usize,
    n_tiles: usize,
}

/// A rectangle: first column and row, and those behind the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Area {
    pub left: u32,
    pub top: u32,
    pub right: u32,
    pub bottom: u32,
}

impl Area {
    /// Columns.
    pub fn width(self) -> usize {
        self.right.saturating_sub(self.left) as usize
    }
    /// Rows.
    pub fn height(self) -> usize {
        self.bottom.saturating_sub(self.top) as usize
    }
}

impl Head {
    /// The part of the picture that a tile holds (B.3).
    pub fn tile(&self, index: usize) -> Area {
        let at = |place: usize, axis: usize, low: u32, high: u32| {
            let begin = u64::from(self.tile_start[axis]) + place as u64 * u64::from(self.tile[axis]);
            let end = begin + u64::from(self.tile[axis]);
            (begin.max(low.into()) as u32, end.min(high.into()) as u32)
        };
        let (left, right) = at(index % self.tiles_across, 0, self.image.left, self.image.right);
        let (top, bottom) = at(index / self.tiles_across, 1, self.image.top, self.image.bottom);
        Area { left, top, right, bottom }
    }
}

/// How a tile is coded (A.6.1, A.6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Coding {
    /// Whether packets may begin with a marker segment.
    pub has_packet_starts: bool,
    /// Whether their headers end with a marker.
    pub has_header_ends: bool,
    /// Order of packets.
    pub order: u8,
    /// Quality layers.
    pub n_layers: u32,
    /// Of code-blocks and transform.
    pub component: Component,
}

/// The part of it that may be a component's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Component {
    /// Decompositions.
    pub n_levels: u32,
    /// Exponents of a code-block's width and height.
    pub block: [u32; 2],
    /// Style of code-blocks.
    pub style: Style,
    /// Whether the transform is the one in whole numbers.
    pub reversible: bool,
    /// Exponents of a precinct's width and height at each resolution; none for the largest ones.
    precincts: Vec<u8>,
}

impl Component {
    /// Exponents of a precinct's width and height.
    pub fn precinct(&self, resolution: u32) -> [u32; 2] {
        let sides = self.precincts.get(resolution as usize).copied().unwrap_or(0xFF);
        [u32::from(sides & 15), u32::from(sides >> 4)]
    }
}

/// How coefficients were rounded (A.6.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quantization {
    /// Guard bits.
    pub guard: u32,
    /// Exponent and mantissa of each band, or of the first one alone.
    steps: Vec<(u32, u32)>,
    is_derived: bool,
}

impl Quantization {
    /// Exponent and mantissa of a band by its number, 0 for the lowest; it went through `levels_less` decompositions less than that
    /// one (E-5).
    pub fn step(&self, band: usize, levels_less: u32) -> Result<(u32, u32), CodecError> {
        let missing = CodecError::Damaged("a band has no step size");
        if self.is_derived {
            let (exponent, mantissa) = *self.steps.first().ok_or(missing.clone())?;
            Ok((exponent.checked_sub(levels_less).ok_or(missing)?, mantissa))
        } else {
            self.steps.get(band).copied().ok_or(missing)
        }
    }
}

/// One entry of a POC segment (A.6.6): which packets come next, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progression {
    /// First resolution, and the one behind the last.
    pub resolutions: [u32; 2],
    /// The layer behind the last.
    pub layers_end: u32,
    /// Order of packets.
    pub order: u8,
}

/// Everything about one tile.
#[derive(Clone, Debug, Default)]
pub(super) struct Tile<'a> {
    pub coding: Coding,
    pub quantization: Quantization,
    /// Planes by which a region of interest was raised.
    pub raised: u32,
    /// Orders that take the place of the coding's.
    pub progressions: Vec<Progression>,
    /// Headers of packets, if they do not stand before their bodies.
    pub packed: Option<Vec<u8>>,
    /// The bytes of its parts.
    pub parts: Vec<&'a [u8]>,
}

impl Tile<'_> {
    /// Most precincts that there can be: each has a packet in each layer, and each packet a header of a byte at least.
    pub fn precincts_max(&self) -> u64 {
        let bytes = self.packed.as_ref().map_or_else(|| self.parts.iter().map(|part| part.len()).sum(), Vec::len);
        bytes as u64 / u64::from(self.coding.n_layers.max(1))
    }
}

/// What headers may set, for all tiles or for one.
#[derive(Clone, Debug, Default)]
struct Settings {
    coding: Option<Coding>,
    own_coding: Option<Component>,
    quantization: Option<Quantization>,
    own_quantization: Option<Quantization>,
    raised: Option<u32>,
    progressions: Vec<Progression>,
}

impl Settings {
    /// Takes a segment that may stand in either kind of header.
    fn take(&mut self, marker: u8, segment: &[u8]) -> Result<(), CodecError> {
        match marker {
            COD => self.coding = Some(coding(segment)?),
            COC => {
                let rest = of_first_component(segment)?;
                let (&style, rest) = rest.split_first().ok_or(CodecError::Short)?;
                self.own_coding = Some(component(style, rest)?);
            }
            QCD => self.quantization = Some(quantization(segment)?),
            QCC => self.own_quantization = Some(quantization(of_first_component(segment)?)?),
            RGN => match of_first_component(segment)? {
                [0, raised, ..] => self.raised = Some((*raised).into()),
                _ => return Err(CodecError::Unsupported("an unknown region of interest")),
            },
            POC => {
                for entry in segment.as_chunks::<7>().0 {
                    let [first, component, layers_high, layers_low, end, _, order] = *entry;
                    if component != 0 {
                        return Err(CodecError::Unsupported("several or subsampled components"));
                    }
                    if self.progressions.len() == PROGRESSIONS_MAX {
                        return Err(CodecError::Unsupported("dozens of orders of packets"));
                    }
                    self.progressions.push(Progression {
                        resolutions: [first.into(), end.into()],
                        layers_end: u16::from_be_bytes([layers_high, layers_low]).into(),
                        order,
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A tile's, where they are set, else those of the main header; a component's own before those for all (A.6).
    fn tile(&self, main: &Settings) -> Result<Tile<'static>, CodecError> {
        let missing = CodecError::Damaged("it does not say how it is coded");
        let mut coding = self.coding.as_ref().or(main.coding.as_ref()).ok_or(missing.clone())?.clone();
        let own = match (&self.own_coding, &self.coding) {
            (Some(own), _) => Some(own),
            (None, Some(_)) => None,
            (None, None) => main.own_coding.as_ref(),
        };
        if let Some(own) = own {
            coding.component = own.clone();
        }
        let quantization = [&self.own_quantization, &self.quantization, &main.own_quantization, &main.quantization];
        let quantization = quantization.into_iter().flatten().next().ok_or(missing)?.clone();
        let raised = self.raised.or(main.raised).unwrap_or_default();
        if raised > PLANES_MAX {
            return Err(CodecError::Unsupported("a region of interest that is raised by more than 30 bits"));
        }
        let progressions = if self.progressions.is_empty() { &main.progressions } else { &self.progressions };
        Ok(Tile { coding, quantization, raised, progressions: progressions.clone(), packed: None, parts: Vec::new() })
    }
}

/// Reads all headers of a codestream, which may stand in JP2 boxes.
///
/// # Errors
/// It is damaged or too short, of another size, of several components, or asks for more than a picture needs.
pub(super) fn read<'a>(frame: &'a [u8], size: Size) -> Result<(Head, Vec<Tile<'a>>), CodecError> {
    let start = frame.windows(4).take(BOXES_BYTES_MAX).position(|bytes| bytes == [SOC[0], SOC[1], 0xFF, SIZ]);
    let start = start.ok_or(CodecError::Damaged("it does not begin as JPEG 2000"))?;
    let mut rest = frame.get(start + SOC.len()..).unwrap_or_default();
    let (mut head, mut main, mut packed) = (None, Settings::default(), Packed::default());
    // In boxes: most of thousands of tiles may never come.
    let mut tiles: Vec<Option<Box<(Settings, Tile<'a>)>>> = Vec::new();
    // A missing end marker, which some writers leave out, takes nothing from the picture; a missing packet does.
    while !(rest.len() < 2 && tiles.iter().any(Option::is_some)) {
        let tile_part = rest;
        let (marker, segment, behind) = segment(rest)?;
        rest = behind;
        match marker {
            SIZ => {
                let read = image_size(segment, size)?;
                tiles.resize_with(read.n_tiles, || None);
                head = Some(read);
            }
            PPM => packed.add(segment)?,
            SOT => {
                let part = TilePart::read(segment, tile_part)?;
                let slot = tiles.get_mut(part.tile).ok_or(CodecError::Damaged("a tile lies outside the picture"))?;
                *slot = Some(Box::new(part.add(slot.take(), &main, &mut packed)?));
                rest = part.behind;
                if part.is_last {
                    break;
                }
            }
            EOC => break,
            _ => main.take(marker, segment)?,
        }
    }
    let head = head.ok_or(CodecError::Damaged("its size is missing"))?;
    let tiles = tiles.into_iter().map(|tile| tile.map(|known| known.1).ok_or(CodecError::Short));
    Ok((head, tiles.collect::<Result<_, _>>()?))
}

/// Headers of packets that stand in the main header (A.7.4): PPM segments in the order of their numbers make one run of
/// bytes, in which each tile-part's headers follow on their length.
#[derive(Default)]
struct Packed {
    segments: Vec<(u8, Vec<u8>)>,
    bytes: Option<Vec<u8>>,
    position: usize,
}

impl Packed {
    fn add(&mut self, segment: &[u8]) -> Result<(), CodecError> {
        let (&number, bytes) = segment.split_first().ok_or(CodecError::Short)?;
        self.segments.push((number, bytes.to_vec()));
        Ok(())
    }

    /// Those of the next tile-part, if there are any at all.
    fn next(&mut self) -> Result<Option<&[u8]>, CodecError> {
        if self.segments.is_empty() && self.bytes.is_none() {
            return Ok(None);
        }
        let bytes = self.bytes.get_or_insert_with(|| joined(std::mem::take(&mut self.segments)));
        let rest = bytes.get(self.position..).unwrap_or_default();
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(CodecError::Short)?;
        let length = u32::from_be_bytes(*length) as usize;
        self.position += 4 + length;
        rest.get(..length).map(Some).ok_or(CodecError::Short)
    }
}

/// Bytes of numbered segments in order.
fn joined(mut segments: Vec<(u8, Vec<u8>)>) -> Vec<u8> {
    segments.sort_by_key(|(number, _)| *number);
    segments.into_iter().flat_map(|(_, bytes)| bytes).collect()
}

/// What an SOT segment says (A.4.2).
struct TilePart<'a> {
    tile: usize,
    /// From the marker SOT on.
    bytes: &'a [u8],
    /// What follows on it.
    behind: &'a [u8],
    /// It reaches to the end.
    is_last: bool,
}

/// Bytes of an SOT segment and its marker.
const SOT_BYTES: usize = 12;

impl<'a> TilePart<'a> {
    fn read(segment: &[u8], from_marker: &'a [u8]) -> Result<TilePart<'a>, CodecError> {
        let &[tile_high, tile_low, a, b, c, d] = segment.first_chunk::<6>().ok_or(CodecError::Short)?;
        let tile = u16::from_be_bytes([tile_high, tile_low]).into();
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length == 0 {
            let bytes = from_marker.strip_suffix(&[0xFF, EOC]).unwrap_or(from_marker);
            return Ok(TilePart { tile, bytes, behind: &[], is_last: true });
        }
        let (bytes, behind) = from_marker.split_at_checked(length).ok_or(CodecError::Short)?;
        Ok(TilePart { tile, bytes, behind, is_last: false })
    }

    /// Reads its header and adds its bytes to what is known of the tile from earlier parts.
    fn add(
        &self,
        known: Option<Box<(Settings, Tile<'a>)>>,
        main: &Settings,
        packed: &mut Packed,
    ) -> Result<(Settings, Tile<'a>), CodecError> {
        let (mut settings, known) = known.map(|known| *known).unzip();
        let settings: &mut Settings = settings.get_or_insert_default();
        let mut rest = self.bytes.get(SOT_BYTES..).ok_or(CodecError::Short)?;
        let mut segments = Vec::new();
        let body = loop {
            let (marker, segment, behind) = segment(rest)?;
            rest = behind;
            match marker {
                SOD => break rest,
                PPT => {
                    let (&number, bytes) = segment.split_first().ok_or(CodecError::Short)?;
                    segments.push((number, bytes.to_vec()));
                }
                SIZ | SOT | EOC => return Err(CodecError::Damaged("a tile has no data")),
                _ => settings.take(marker, segment)?,
            }
        };
        let mut tile = settings.tile(main)?;
        if let Some(known) = known {
            // Only the order may change with a later part.
            (tile.parts, tile.packed) = (known.parts, known.packed);
        }
        if let Some(headers) = packed.next()? {
            tile.packed.get_or_insert_default().extend_from_slice(headers);
        } else if !segments.is_empty() {
            tile.packed.get_or_insert_default().extend(joined(segments));
        }
        tile.parts.push(body);
        Ok((std::mem::take(settings), tile))
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
    let words = segment.get(2..34).ok_or(CodecError::Short)?.as_chunks::<4>().0;
    let words: Vec<u32> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
    let &[right, bottom, left, top, tile_x, tile_y, tile_left, tile_top] = words.as_slice() else {
        return Err(CodecError::Short);
    };
    let is_first_tile =
        |start: u32, tile: u32, low: u32| start <= low && u64::from(start) + u64::from(tile) > low.into();
    if right <= left
        || bottom <= top
        || !is_first_tile(tile_left, tile_x, left)
        || !is_first_tile(tile_top, tile_y, top)
    {
        return Err(CodecError::Damaged("its size makes no sense"));
    }
    size.check((bottom - top) as usize, (right - left) as usize)?;
    let tiles_across = u64::from(right - tile_left).div_ceil(tile_x.into());
    let n_tiles = tiles_across.saturating_mul(u64::from(bottom - tile_top).div_ceil(tile_y.into()));
    if n_tiles > TILES_MAX {
        return Err(CodecError::Unsupported("thousands of tiles"));
    }
    let &[high, low, depth, step_x, step_y] =
        segment.get(34..).and_then(|rest| rest.first_chunk::<5>()).ok_or(CodecError::Short)?;
    if [high, low] != [0, 1] || [step_x, step_y] != [1, 1] {
        return Err(CodecError::Unsupported("several or subsampled components"));
    }
    let precision = u16::from(depth & 0x7F) + 1;
    if !(2..=16).contains(&precision) {
        return Err(CodecError::Unsupported("samples of other than 2 to 16 bits"));
    }
    Ok(Head {
        precision,
        signed: depth & 0x80 != 0,
        image: Area { left, top, right, bottom },
        tile: [tile_x, tile_y],
        tile_start: [tile_left, tile_top],
        tiles_across: tiles_across as usize,
        n_tiles: n_tiles as usize,
    })
}

/// What follows on the number of the component, which must be the one that there is.
fn of_first_component(segment: &[u8]) -> Result<&[u8], CodecError> {
    match segment.split_first().ok_or(CodecError::Short)? {
        (0, rest) => Ok(rest),
        _ => Err(CodecError::Unsupported("several or subsampled components")),
    }
}

/// A.6.1.
fn coding(segment: &[u8]) -> Result<Coding, CodecError> {
    let (&[style, order, layers_high, layers_low, _], rest) =
        segment.split_first_chunk::<5>().ok_or(CodecError::Short)?;
    let n_layers = u16::from_be_bytes([layers_high, layers_low]).into();
    if n_layers == 0 {
        return Err(CodecError::Damaged("it has no layers"));
    }
    Ok(Coding {
        has_packet_starts: style & 2 != 0,
        has_header_ends: style & 4 != 0,
        order,
        n_layers,
        component: component(style, rest)?,
    })
}

/// Decompositions, code-blocks, transform and precincts of COD and COC.
fn component(style: u8, segment: &[u8]) -> Result<Component, CodecError> {
    let (&[n_levels, width, height, blocks, transform], precincts) =
        segment.split_first_chunk::<5>().ok_or(CodecError::Short)?;
    if n_levels > LEVELS_MAX {
        return Err(CodecError::Damaged("it has more than 32 resolutions"));
    }
    let (width, height) = (width & 15, height & 15);
    if width + height > BLOCK_EXPONENT_MAX {
        return Err(CodecError::Damaged("its code-blocks are too large"));
    }
    // Bits that later parts of the standard use: for other coders.
    if blocks & 0xC0 != 0 || transform > 1 {
        return Err(CodecError::Unsupported("a coder or transform of another part of the standard"));
    }
    let precincts = if style & 1 == 0 {
        Vec::new()
    } else {
        precincts.get(..usize::from(n_levels) + 1).ok_or(CodecError::Short)?.to_vec()
    };
    // Above the lowest resolution a precinct is cut in halves for its bands.
    if precincts.iter().skip(1).any(|sides| sides & 15 == 0 || sides >> 4 == 0) {
        return Err(CodecError::Damaged("its precincts are smaller than a coefficient"));
    }
    Ok(Component {
        n_levels: n_levels.into(),
        block: [u32::from(width) + 2, u32::from(height) + 2],
        style: Style(blocks),
        reversible: transform == 1,
        precincts,
    })
}

/// A.6.4.
fn quantization(segment: &[u8]) -> Result<Quantization, CodecError> {
    let (&style, steps) = segment.split_first().ok_or(CodecError::Short)?;
    let steps: Vec<(u32, u32)> = match style & 31 {
        0 => steps.iter().take(BANDS_MAX).map(|step| (u32::from(step >> 3), 0)).collect(),
        1 | 2 => {
            let step = |pair: &[u8; 2]| u32::from(u16::from_be_bytes(*pair));
            let pairs = steps.as_chunks::<2>().0.iter().take(BANDS_MAX);
            pairs.map(|pair| (step(pair) >> 11, step(pair) & 0x7FF)).collect()
        }
        _ => return Err(CodecError::Damaged("its step sizes are of no known kind")),
    };
    Ok(Quantization { guard: (style >> 5).into(), steps, is_derived: style & 31 == 1 })
}

#[cfg(test)]
mod tests;
