//! Packets of a tile (T.800 annex B.9 to B.12): in which order they stand, what their headers say, and which bytes are
//! whose. Knows no coefficients.

use super::block::{PASSES_MAX, Segment, Style, TOO_MANY_PASSES};
use super::headers::{Progression, Tile};
use super::tag_tree::{Bits, Node};
use super::tile::{Band, BlockState, Layout, Part};
use crate::dicom::codec::CodecError;

/// Before a packet, if its coding style says so (A.8.1): marker, length and number.
const PACKET_START: [u8; 2] = [0xFF, 0x91];
const PACKET_START_BYTES: usize = 6;
/// Behind a packet's header (A.8.2).
const HEADER_END: [u8; 2] = [0xFF, 0x92];

/// Code-blocks that the headers of all packets of a tile may speak of, for each pixel, and some more: each is looked at
/// although a packet may bring nothing of it.
const LOOKS_A_PIXEL: usize = 4;
const LOOKS_FREE: usize = 1 << 20;

/// Pieces of code-blocks that the packets of a tile may bring, one for so many pixels, and some more: each is noted down.
const PIXELS_A_PIECE: usize = 8;
const PIECES_FREE: usize = 1 << 18;

/// Most bits of a length, to which those of a number of passes are added: no file is as long.
const LENGTH_BITS_MAX: u8 = 25;

/// What one packet brought of one code-block's segment. There may be millions of them, so it is small.
#[derive(Clone, Copy, Debug)]
struct Contribution {
    block: u32,
    begin: u32,
    length: u32,
    n_passes: u8,
    begins_segment: bool,
}

impl Contribution {
    fn bytes(self, tile: &[u8]) -> &[u8] {
        let begin = self.begin as usize;
        tile.get(begin..begin + self.length as usize).unwrap_or_default()
    }
}

/// What all packets brought of every code-block.
#[derive(Debug, Default)]
pub(super) struct Contributions {
    list: Vec<Contribution>,
}

impl Contributions {
    /// In the order of blocks, and of packets within each.
    fn sort(&mut self) {
        self.list.sort_by_key(|one| one.block);
    }

    /// Blocks that something was brought of, with where that stands.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, BlockBytes<'_>)> {
        self.list.chunk_by(|a, b| a.block == b.block).map(|list| (list[0].block as usize, BlockBytes { list }))
    }
}

/// What all packets brought of one code-block.
pub(super) struct BlockBytes<'a> {
    list: &'a [Contribution],
}

impl BlockBytes<'_> {
    /// Gathers the bytes from those of the tile, and the segments that they make.
    pub fn gather(&self, tile: &[u8], bytes: &mut Vec<u8>, segments: &mut Vec<Segment>) {
        bytes.clear();
        segments.clear();
        for one in self.list {
            bytes.extend_from_slice(one.bytes(tile));
            match segments.last_mut() {
                Some(segment) if !one.begins_segment => {
                    segment.n_passes += u32::from(one.n_passes);
                    segment.end = bytes.len();
                }
                _ => segments.push(Segment { n_passes: one.n_passes.into(), end: bytes.len() }),
            }
        }
    }
}

/// Reads all packets of a tile, whose bytes are `data`.
///
/// # Errors
/// Some are missing or damaged.
pub(super) fn read(tile: &Tile<'_>, layout: &mut Layout, data: &[u8]) -> Result<Contributions, CodecError> {
    let n_resolutions = layout.resolutions.len() as u32;
    let whole =
        Progression { resolutions: [0, n_resolutions], layers_end: tile.coding.n_layers, order: tile.coding.order };
    let progressions = if tile.progressions.is_empty() { &[whole] } else { tile.progressions.as_slice() };
    let n_precincts: usize = layout.resolutions.iter().map(|resolution| resolution.precincts.len()).sum();
    let n_pixels = layout.resolutions.last().map_or(0, |last| last.area.width() * last.area.height());
    let mut packets = Packets {
        tile,
        layout,
        data,
        position: 0,
        packed_position: 0,
        n_missing: n_precincts as u64 * u64::from(tile.coding.n_layers),
        looks_left: LOOKS_A_PIXEL * n_pixels + LOOKS_FREE,
        pieces_max: n_pixels / PIXELS_A_PIECE + PIECES_FREE,
        list: Vec::new(),
    };
    for progression in progressions {
        if packets.n_missing > 0 {
            packets.progression(progression, n_resolutions)?;
        }
    }
    if packets.n_missing > 0 {
        return Err(CodecError::Short);
    }
    let mut contributions = Contributions { list: packets.list };
    contributions.sort();
    Ok(contributions)
}

struct Packets<'a> {
    tile: &'a Tile<'a>,
    layout: &'a mut Layout,
    data: &'a [u8],
    position: usize,
    packed_position: usize,
    /// Packets that have not been yet.
    n_missing: u64,
    /// See [`LOOKS_A_PIXEL`].
    looks_left: usize,
    /// See [`PIXELS_A_PIECE`].
    pieces_max: usize,
    list: Vec<Contribution>,
}

impl Packets<'_> {
    /// The packets of one progression that have not been before (B.12). With one component positions in a resolution are
    /// the order of its precincts.
    fn progression(&mut self, progression: &Progression, n_resolutions: u32) -> Result<(), CodecError> {
        let [begin, end] = progression.resolutions.map(|resolution| resolution.min(n_resolutions) as usize);
        let layers = progression.layers_end.min(self.tile.coding.n_layers);
        let n_precincts = |packets: &Self, resolution: usize| packets.layout.resolutions[resolution].precincts.len();
        // Where a tile has more resolutions than its sides can be halved, some are empty.
        let resolutions: Vec<usize> = (begin..end).filter(|resolution| n_precincts(self, *resolution) > 0).collect();
        if resolutions.is_empty() {
            return Ok(());
        }
        match progression.order {
            0 => {
                for layer in 0..layers {
                    for &resolution in &resolutions {
                        for precinct in 0..n_precincts(self, resolution) {
                            self.packet(resolution, precinct, layer)?;
                        }
                    }
                }
            }
            1 => {
                for &resolution in &resolutions {
                    for layer in 0..layers {
                        for precinct in 0..n_precincts(self, resolution) {
                            self.packet(resolution, precinct, layer)?;
                        }
                    }
                }
            }
            2 => {
                for &resolution in &resolutions {
                    for precinct in 0..n_precincts(self, resolution) {
                        for layer in 0..layers {
                            self.packet(resolution, precinct, layer)?;
                        }
                    }
                }
            }
            3 | 4 => {
                let mut places = Vec::new();
                for &resolution in &resolutions {
                    let precincts = self.layout.resolutions[resolution].precincts.iter().enumerate();
                    let missing = precincts.filter(|(_, precinct)| precinct.next_layer < layers);
                    places.extend(missing.map(|(place, precinct)| (precinct.corner, resolution, place)));
                }
                places.sort_unstable();
                for (_, resolution, precinct) in places {
                    for layer in 0..layers {
                        self.packet(resolution, precinct, layer)?;
                    }
                }
            }
            _ => return Err(CodecError::Damaged("its packets are in no known order")),
        }
        Ok(())
    }

    /// One packet, unless it has been before: header (B.10) and body.
    fn packet(&mut self, resolution: usize, precinct: usize, layer: u32) -> Result<(), CodecError> {
        let Layout { resolutions, parts, blocks, nodes, bands, .. } = &mut *self.layout;
        let n_parts = resolutions[resolution].n_parts as usize;
        let precinct = &mut resolutions[resolution].precincts[precinct];
        if precinct.next_layer != layer {
            return Ok(());
        }
        precinct.next_layer += 1;
        self.n_missing -= 1;
        let coding = &self.tile.coding;
        let mut body = self.data.get(self.position..).unwrap_or_default();
        if coding.has_packet_starts && body.starts_with(&PACKET_START) {
            self.position += PACKET_START_BYTES;
            body = self.data.get(self.position..).ok_or(CodecError::Short)?;
        }
        let headers = match &self.tile.packed {
            Some(packed) => packed.get(self.packed_position..).unwrap_or_default(),
            None => body,
        };
        let first = self.list.len();
        let mut header = Header {
            bits: Bits::new(headers),
            style: coding.component.style,
            layer,
            pieces_max: self.pieces_max,
            list: &mut self.list,
        };
        if header.bits.bit()? == 1 {
            let first = precinct.first_part as usize;
            for part in &parts[first..first + n_parts] {
                let looks = part.inclusion.across as usize * part.inclusion.down as usize;
                let left = self.looks_left.checked_sub(looks);
                self.looks_left =
                    left.ok_or(CodecError::Unsupported("packets that speak of nothing again and again"))?;
                header.part(part, blocks, nodes, bands)?;
            }
        }
        let mut header_end = header.bits.end();
        if coding.has_header_ends {
            if !headers.get(header_end..).is_some_and(|rest| rest.starts_with(&HEADER_END)) {
                return Err(CodecError::Damaged("a packet's header does not end where it says"));
            }
            header_end += HEADER_END.len();
        }
        if self.tile.packed.is_some() {
            self.packed_position += header_end
        } else {
            self.position += header_end
        }
        for one in &mut self.list[first..] {
            // What lies beyond 32 bits lies beyond the end of any file that is admitted.
            one.begin = u32::try_from(self.position).map_err(|_| CodecError::Short)?;
            self.position += one.length as usize;
        }
        if self.position > self.data.len() {
            return Err(CodecError::Short);
        }
        Ok(())
    }
}

/// The header of one packet (B.10).
struct Header<'a, 'list> {
    bits: Bits<'a>,
    style: Style,
    layer: u32,
    pieces_max: usize,
    list: &'list mut Vec<Contribution>,
}

impl Header<'_, '_> {
    /// What it says of a band's code-blocks.
    fn part(
        &mut self,
        part: &Part,
        blocks: &mut [BlockState],
        nodes: &mut [Node],
        bands: &[Band],
    ) -> Result<(), CodecError> {
        let (across, down) = (part.inclusion.across as usize, part.inclusion.down as usize);
        for place in 0..across * down {
            let (x, y) = (place % across, place / across);
            let number = part.first_block as usize + place;
            let block = &mut blocks[number];
            let takes_part = match block.empty_planes {
                Some(_) => self.bits.bit()? == 1,
                None => part.inclusion.is_below(nodes, &mut self.bits, x, y, self.layer + 1)?,
            };
            if !takes_part {
                continue;
            }
            if block.empty_planes.is_none() {
                let mut empty = 0;
                while !part.planes.is_below(nodes, &mut self.bits, x, y, u32::from(empty) + 1)? {
                    empty += 1;
                    if u32::from(empty) > bands[usize::from(block.band)].n_planes {
                        return Err(CodecError::Damaged("a code-block has more empty bit planes than all"));
                    }
                }
                block.empty_planes = Some(empty);
            }
            self.passes(number, block)?;
        }
        Ok(())
    }

    /// How many passes it brings of a block, and how many bytes each segment has of them.
    fn passes(&mut self, number: usize, block: &mut BlockState) -> Result<(), CodecError> {
        let mut n_passes = self.n_passes()?;
        if block.n_passes + n_passes > PASSES_MAX as u8 {
            return Err(CodecError::Damaged(TOO_MANY_PASSES));
        }
        while self.bits.bit()? == 1 {
            block.length_bits += 1;
            if block.length_bits > LENGTH_BITS_MAX {
                return Err(CodecError::Damaged("a code-block's bytes have no end"));
            }
        }
        while n_passes > 0 {
            let begins_segment = block.segment_left == 0;
            if begins_segment {
                block.segment_left = segment_passes(self.style, block.n_passes);
            }
            let n = n_passes.min(block.segment_left);
            let length = self.bits.read(u32::from(block.length_bits) + n.ilog2())?;
            block.segment_left -= n;
            block.n_passes += n;
            n_passes -= n;
            // Where they begin is known when the header ends.
            if self.list.len() == self.pieces_max {
                return Err(CodecError::Unsupported("packets that cut code-blocks to pieces"));
            }
            self.list.push(Contribution { block: number as u32, begin: 0, length, n_passes: n, begins_segment });
        }
        Ok(())
    }

    /// Number of passes (table B.4).
    fn n_passes(&mut self) -> Result<u8, CodecError> {
        if self.bits.bit()? == 0 {
            return Ok(1);
        }
        if self.bits.bit()? == 0 {
            return Ok(2);
        }
        Ok(match self.bits.read(2)? {
            3 => match self.bits.read(5)? {
                31 => 37 + self.bits.read(7)? as u8,
                more => 6 + more as u8,
            },
            more => 3 + more as u8,
        })
    }
}

/// Passes that a segment may have which begins with pass number `pass` of its block (table D.8, D.9).
fn segment_passes(style: Style, pass: u8) -> u8 {
    match () {
        () if style.ends_each_pass() => 1,
        () if !style.has_bypass() => PASSES_MAX as u8,
        () if pass < 10 => 10 - pass,
        () if pass % 3 == 1 => 2,
        () => 1,
    }
}
