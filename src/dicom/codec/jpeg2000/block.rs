//! Coefficients of one code-block from its bit planes (T.800 annex D). Knows neither packets nor bands.
//!
//! Coefficients are taken in stripes of four rows. A word holds what a column of a stripe has to know: in the lowest 18 bits
//! which of the 6 x 3 coefficients in and around it are significant (bit 3 x row + column, rows and columns counted from
//! above and left of it), then for each of its four rows, three bits apart, the flags below.

use super::arithmetic::{Arithmetic, Contexts, Decisions, FIRST, Plain, REFINEMENT, RUN, UNIFORM};
use super::wavelet::Coefficient;
use crate::dicom::codec::CodecError;

/// Decoded by this bit plane's first pass.
const VISITED: u32 = 18;
/// Has been refined before.
const REFINED: u32 = 19;
/// Is negative.
const NEGATIVE: u32 = 20;
/// Is significant.
const SIGNIFICANT: u32 = 4;

/// The lowest of each row's three bits.
const ROWS: u32 = 0b001_001_001_001;

/// Most bit planes: half of the last one's unit and the sign need a bit each.
pub(super) const PLANES_MAX: u32 = 30;
/// The first bit plane has one pass, the others three.
pub(super) const PASSES_MAX: u32 = 3 * PLANES_MAX - 2;
/// Said of both bounds.
pub(super) const TOO_MANY_PASSES: &str = "a code-block has more passes than bit planes";

/// Style of code-blocks (table A.19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style(pub u8);

impl Style {
    pub fn has_bypass(self) -> bool {
        self.0 & 1 != 0
    }
    fn resets(self) -> bool {
        self.0 & 2 != 0
    }
    pub fn ends_each_pass(self) -> bool {
        self.0 & 4 != 0
    }
    fn is_causal(self) -> bool {
        self.0 & 8 != 0
    }
    fn has_symbols(self) -> bool {
        self.0 & 32 != 0
    }
    /// Whether pass number `pass` of a block is written in plain bits (table D.9): from the fifth plane on, all but the last of
    /// each plane.
    pub fn is_plain(self, pass: u32) -> bool {
        self.has_bypass() && pass >= 10 && !pass.is_multiple_of(3)
    }
}

/// Which neighbors count how (table D.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orientation {
    /// Low-pass both ways, or vertically high-pass.
    Low = 0,
    /// Horizontally high-pass.
    Across = 1,
    /// High-pass both ways.
    Both = 2,
}

/// Contexts by the neighbors: bits as in a word, from the row above on; the fifth bit, the coefficient itself, is not asked.
static SIGNIFICANCE: [[u8; 512]; 3] = [significance(0), significance(1), significance(2)];

const fn significance(orientation: usize) -> [u8; 512] {
    let mut table = [0; 512];
    let mut i = 0;
    while i < 512 {
        let diagonal = (i & 1) + (i >> 2 & 1) + (i >> 6 & 1) + (i >> 8 & 1);
        let across = (i >> 3 & 1) + (i >> 5 & 1);
        let down = (i >> 1 & 1) + (i >> 7 & 1);
        let (first, second) = if orientation == 1 { (down, across) } else { (across, down) };
        table[i] = if orientation == 2 {
            match (diagonal, across + down) {
                (0, sides) => {
                    if sides >= 2 {
                        2
                    } else {
                        sides as u8
                    }
                }
                (1, sides) => 3 + if sides >= 2 { 2 } else { sides as u8 },
                (2, 0) => 6,
                (2, _) => 7,
                _ => 8,
            }
        } else {
            match (first, second, diagonal) {
                (2, _, _) => 8,
                (1, 0, 0) => 5,
                (1, 0, _) => 6,
                (1, _, _) => 7,
                (_, 2, _) => 4,
                (_, 1, _) => 3,
                (_, _, 0) => 0,
                (_, _, 1) => 1,
                _ => 2,
            }
        };
        i += 1;
    }
    table
}

/// Context of a sign (tables D.2 and D.3) in the lowest five bits, above it whether the sign is the other one. The place has
/// at bits 1, 3, 5 and 7 whether the neighbor above, left, right and below is significant, and at the bit below each
/// whether it is negative.
static SIGNS: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut sums = [0i32; 2];
        let mut neighbor = 0;
        while neighbor < 4 {
            let is_vertical = neighbor == 0 || neighbor == 3;
            if i >> (2 * neighbor + 1) & 1 == 1 {
                sums[is_vertical as usize] += if i >> (2 * neighbor) & 1 == 1 { -1 } else { 1 };
            }
            neighbor += 1;
        }
        let mut flip = 0;
        let mut across = sums[0].signum();
        let mut down = sums[1].signum();
        if across < 0 || across == 0 && down < 0 {
            (across, down, flip) = (-across, -down, 32);
        }
        table[i as usize] = flip
            | match (across, down) {
                (1, 1) => 13,
                (1, 0) => 12,
                (1, _) => 11,
                (_, 1) => 10,
                _ => 9,
            };
        i += 1;
    }
    table
};

/// A run of passes with bytes of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    /// How many.
    pub n_passes: u32,
    /// Where its bytes end in the block's; they begin where those of the one before end.
    pub end: usize,
}

/// What is decoded.
pub(super) struct Block<'a> {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bit planes that are not known to be empty.
    pub n_planes: u32,
    /// Which band's.
    pub orientation: Orientation,
    /// How it is coded.
    pub style: Style,
    /// Bytes of all segments.
    pub data: &'a [u8],
    /// In order.
    pub segments: &'a [Segment],
}

/// Memory that is used from block to block.
#[derive(Default)]
pub(super) struct Coefficients {
    width: usize,
    words: Vec<u32>,
    /// Four to a column of a stripe. Twice the magnitude, with a one where the first bit that is not known would stand; the
    /// sign in the highest bit.
    values: Vec<u32>,
    list: Vec<u32>,
}

impl Coefficients {
    /// Decodes a block.
    ///
    /// # Errors
    /// There are more passes than bit planes, or the symbols that end a plane are others.
    #[inline(always)]
    pub fn decode(&mut self, block: &Block<'_>) -> Result<(), CodecError> {
        let n_stripes = block.height.div_ceil(4);
        self.width = block.width;
        self.words.clear();
        self.words.resize((block.width + 2) * (n_stripes + 2), 0);
        self.values.clear();
        self.values.resize(block.width * n_stripes * 4, 0);
        self.list.resize(4 * block.width + 4, 0);
        let mut contexts = FIRST;
        let (mut pass, mut begin) = (0, 0);
        for segment in block.segments {
            let data = block.data.get(begin..segment.end).ok_or(CodecError::Short)?;
            begin = segment.end;
            let end = pass + segment.n_passes;
            if end > (3 * block.n_planes).saturating_sub(2) {
                return Err(CodecError::Damaged(TOO_MANY_PASSES));
            }
            if block.style.is_plain(pass) {
                let mut plain = Plain::new(data);
                for pass in pass..end {
                    self.pass(block, pass, &mut plain, &mut contexts)?;
                }
            } else {
                let mut arithmetic = Arithmetic::new(data);
                for pass in pass..end {
                    self.pass(block, pass, &mut arithmetic, &mut contexts)?;
                }
            }
            pass = end;
        }
        Ok(())
    }

    #[inline(always)]
    fn pass(
        &mut self,
        block: &Block<'_>,
        number: u32,
        decisions: &mut (impl Decisions + Copy),
        contexts: &mut Contexts,
    ) -> Result<(), CodecError> {
        // Decisions and contexts are copied, so that they may lie in registers.
        let mut pass = Pass {
            height: block.height,
            // The first plane has only a last pass.
            plane: block.n_planes - 1 - number.div_ceil(3),
            table: &SIGNIFICANCE[block.orientation as usize],
            is_causal: block.style.is_causal(),
            decisions: *decisions,
            contexts: *contexts,
        };
        match number % 3 {
            0 => self.clean_up(&mut pass),
            1 => self.propagate(&mut pass),
            _ => self.refine(&mut pass),
        }
        if number.is_multiple_of(3) && block.style.has_symbols() {
            let symbols = (0..4).fold(0, |symbols, _| symbols << 1 | pass.next(UNIFORM));
            if symbols != 0b1010 {
                return Err(CodecError::Damaged("a bit plane ends otherwise than it says"));
            }
        }
        *decisions = pass.decisions;
        *contexts = if block.style.resets() { FIRST } else { pass.contexts };
        Ok(())
    }

    /// Shows `work` each column of each stripe, with its values and the rows of it that are there.
    #[inline(always)]
    fn columns<D>(
        &mut self,
        pass: &mut Pass<D>,
        mut work: impl FnMut(&mut Pass<D>, &mut Column<'_>, &mut [u32; 4], u32),
    ) {
        let (width, stride) = (self.width, self.width + 2);
        for (stripe, values) in self.values.chunks_exact_mut(4 * width).enumerate() {
            let rows = rows(pass.height - 4 * stripe);
            let Some(words) = self.words.get_mut(stripe * stride..(stripe + 3) * stride) else { return };
            let mut column = Column { words, stride, x: 0, own: 0 };
            for (x, values) in values.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                column.x = x;
                column.own = column.words[stride + x + 1];
                work(pass, &mut column, values, rows);
                column.words[stride + x + 1] = column.own;
            }
        }
    }

    /// Significance propagation (D.3.1).
    #[inline(always)]
    fn propagate(&mut self, pass: &mut Pass<impl Decisions>) {
        self.columns(
            pass,
            #[inline(always)]
            |pass, column, values, rows| {
                let mut left = column.candidates() & rows;
                if left != 0 {
                    column.propagate::<0>(&mut left, rows, values, pass);
                    column.propagate::<1>(&mut left, rows, values, pass);
                    column.propagate::<2>(&mut left, rows, values, pass);
                    column.propagate::<3>(&mut left, rows, values, pass);
                }
            },
        );
    }

    /// Magnitude refinement (D.3.3). Who is refined, and in which context, is known before the first bit is: it is listed,
    /// without jumps, for a stripe at a time.
    #[inline(always)]
    fn refine(&mut self, pass: &mut Pass<impl Decisions>) {
        let (width, stride) = (self.width, self.width + 2);
        for (stripe, values) in self.values.chunks_exact_mut(4 * width).enumerate() {
            let rows = rows(pass.height - 4 * stripe);
            let Some(words) = self.words.get_mut((stripe + 1) * stride + 1..(stripe + 2) * stride - 1) else { return };
            let list = self.list.as_mut_slice();
            let mut n = 0;
            for (x, place) in words.iter_mut().enumerate() {
                let word = *place;
                let refined = (word >> SIGNIFICANT) & !(word >> VISITED) & rows;
                if refined == 0 {
                    continue;
                }
                *place = word | refined << REFINED;
                // Any of a row, and those beside its middle.
                let any = word | word >> 1 | word >> 2;
                let beside = word | word >> 2;
                let has_neighbors = (any | beside >> 3 | any >> 6) & ROWS;
                let before = (word >> REFINED) & ROWS;
                let kind = has_neighbors & !before | before << 1;
                for row in 0..4 {
                    list[n] = (4 * x as u32 + row) << 2 | (kind >> (3 * row)) & 3;
                    n += (refined >> (3 * row) & 1) as usize;
                }
            }
            let (one, half) = (2 << pass.plane, 1 << pass.plane);
            for entry in &list[..n] {
                let bit = pass.next(REFINEMENT + (entry & 3) as usize);
                // What was a half is the bit itself now.
                values[(entry >> 2) as usize] ^= (one & bit.wrapping_sub(1)) | half;
            }
        }
    }

    /// Cleanup (D.3.4).
    #[inline(always)]
    fn clean_up(&mut self, pass: &mut Pass<impl Decisions>) {
        self.columns(
            pass,
            #[inline(always)]
            |pass, column, values, rows| {
                let mut left = !(column.own >> SIGNIFICANT | column.own >> VISITED) & rows;
                if column.own == 0 && rows == ROWS {
                    if pass.next(RUN) == 0 {
                        return;
                    }
                    let row = pass.next(UNIFORM) << 1;
                    let row = row | pass.next(UNIFORM);
                    match row {
                        0 => column.becomes_significant::<0>(values, pass),
                        1 => column.becomes_significant::<1>(values, pass),
                        2 => column.becomes_significant::<2>(values, pass),
                        _ => column.becomes_significant::<3>(values, pass),
                    }
                    left &= !0 << (3 * row + 1);
                }
                if left != 0 {
                    column.clean_up::<0>(left, values, pass);
                    column.clean_up::<1>(left, values, pass);
                    column.clean_up::<2>(left, values, pass);
                    column.clean_up::<3>(left, values, pass);
                }
                column.own &= !(ROWS << VISITED);
            },
        );
    }

    /// The coefficients of row `y`, from left to right, into `row`. What `raised` planes of a region of interest lifted
    /// above all else (H.1) is brought down.
    #[inline(always)]
    pub fn row<T: Coefficient>(&self, y: usize, raised: u32, step: f32, row: &mut [T]) {
        let begin = y / 4 * 4 * self.width;
        let stripe = self.values.get(begin..begin + 4 * self.width).unwrap_or_default().as_chunks::<4>().0;
        let stripe = &stripe[..row.len()];
        for x in 0..row.len() {
            row[x] = T::new(lowered(stripe[x][y % 4], raised), step);
        }
    }
}

/// See [`Coefficients::row`].
#[inline(always)]
fn lowered(value: u32, raised: u32) -> u32 {
    let magnitude = value & 0x7FFF_FFFF;
    if magnitude >> 1 >> raised == 0 {
        return value;
    }
    // What stands in the middle of its step stays there.
    let lowered = magnitude >> raised | u32::from(magnitude & ((1 << raised) - 1) != 0);
    value & 0x8000_0000 | lowered
}

/// The rows of a stripe that are there.
fn rows(n: usize) -> u32 {
    if n >= 4 { ROWS } else { ROWS & ((1 << (3 * n)) - 1) }
}

/// One pass over a bit plane.
struct Pass<D> {
    height: usize,
    plane: u32,
    table: &'static [u8; 512],
    is_causal: bool,
    decisions: D,
    contexts: Contexts,
}

impl<D: Decisions> Pass<D> {
    #[inline(always)]
    fn next(&mut self, context: usize) -> u32 {
        self.decisions.next(&mut self.contexts, context)
    }
}

/// One column of a stripe.
struct Column<'a> {
    /// Of the stripe above, this one, and the one below; each has one more at either end.
    words: &'a mut [u32],
    stride: usize,
    x: usize,
    /// Its own word.
    own: u32,
}

impl Column<'_> {
    /// Rows that are not significant and have a neighbor that is.
    #[inline(always)]
    fn candidates(&self) -> u32 {
        let any = self.own | self.own >> 1 | self.own >> 2;
        (any | any >> 3 | any >> 6) & !(self.own >> SIGNIFICANT) & ROWS
    }

    #[inline(always)]
    fn propagate<const ROW: u32>(
        &mut self,
        left: &mut u32,
        rows: u32,
        values: &mut [u32; 4],
        pass: &mut Pass<impl Decisions>,
    ) {
        if *left >> (3 * ROW) & 1 == 0 {
            return;
        }
        self.own |= 1 << (VISITED + 3 * ROW);
        if self.is_significant::<ROW>(pass) {
            self.becomes_significant::<ROW>(values, pass);
            if ROW < 3 {
                // The next one has a significant neighbor now.
                *left |= !(self.own >> SIGNIFICANT) & rows & 1 << (3 * ROW + 3);
            }
        }
    }

    #[inline(always)]
    fn clean_up<const ROW: u32>(&mut self, left: u32, values: &mut [u32; 4], pass: &mut Pass<impl Decisions>) {
        if left >> (3 * ROW) & 1 == 1 && self.is_significant::<ROW>(pass) {
            self.becomes_significant::<ROW>(values, pass);
        }
    }

    /// Whether it becomes so (D.3.1).
    #[inline(always)]
    fn is_significant<const ROW: u32>(&self, pass: &mut Pass<impl Decisions>) -> bool {
        let context = pass.table[(self.own >> (3 * ROW) & 511) as usize];
        pass.next(context.into()) == 1
    }

    /// Reads a sign (D.3.2) and tells the neighbors.
    #[inline(always)]
    fn becomes_significant<const ROW: u32>(&mut self, values: &mut [u32; 4], pass: &mut Pass<impl Decisions>) {
        let (above, here, below) = (self.x, self.stride + self.x, 2 * self.stride + self.x);
        let sign_of = |word: u32, row: u32| word >> (NEGATIVE + 3 * row) & 1;
        let up = if ROW == 0 { sign_of(self.words[above + 1], 3) } else { sign_of(self.own, ROW.wrapping_sub(1)) };
        let down = if ROW == 3 { sign_of(self.words[below + 1], 0) } else { sign_of(self.own, ROW + 1) };
        let left = sign_of(self.words[here], ROW);
        let right = sign_of(self.words[here + 2], ROW);
        let neighbors = self.own >> (3 * ROW) & 0b1010_1010;
        let sign = SIGNS[(neighbors | up | left << 2 | right << 4 | down << 6) as usize];
        let negative = pass.decisions.sign(&mut pass.contexts, (sign & 31).into(), u32::from(sign >> 5));
        values[ROW as usize] = negative << 31 | 3 << pass.plane;
        self.own |= 1 << (SIGNIFICANT + 3 * ROW) | negative << (NEGATIVE + 3 * ROW);
        // Right of the one on the left, left of the one on the right.
        self.words[here] |= 1 << (3 * ROW + 5);
        self.words[here + 2] |= 1 << (3 * ROW + 3);
        if ROW == 0 && !pass.is_causal {
            self.words[above] |= 1 << 17;
            self.words[above + 1] |= 1 << 16;
            self.words[above + 2] |= 1 << 15;
        }
        if ROW == 3 {
            self.words[below] |= 1 << 2;
            self.words[below + 1] |= 1 << 1;
            self.words[below + 2] |= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(n_planes: u32, n_passes: u32) -> Result<Vec<u32>, CodecError> {
        let data = [0x5A; 40];
        let segments = [Segment { n_passes, end: data.len() }];
        let (orientation, style) = (Orientation::Low, Style::default());
        let block = Block { width: 5, height: 6, n_planes, orientation, style, data: &data, segments: &segments };
        let mut coefficients = Coefficients::default();
        coefficients.decode(&block).map(|()| coefficients.values)
    }

    #[test]
    fn a_block_has_no_more_passes_than_its_planes_have() {
        assert!(decoded(4, 10).is_ok());
        assert_eq!(decoded(4, 11), Err(CodecError::Damaged(TOO_MANY_PASSES)));
        assert_eq!(decoded(0, 1), Err(CodecError::Damaged(TOO_MANY_PASSES)));
        assert!(decoded(PLANES_MAX, PASSES_MAX).is_ok());
    }

    #[test]
    fn what_is_not_decoded_stays_in_the_middle() {
        for value in decoded(4, 1).unwrap() {
            // The first plane's unit is 8, so 16 twice; its half is 8.
            assert!([0, 24].contains(&(value & 0x7FFF_FFFF)), "{value:x}");
        }
    }

    #[test]
    fn rows_below_a_block_stay_empty() {
        let values = decoded(6, 16).unwrap();
        assert_eq!(values.len(), 5 * 8);
        let (inside, below): (Vec<_>, Vec<_>) =
            values.into_iter().enumerate().partition(|(i, _)| i / 20 == 0 || i % 4 < 2);
        assert!(inside.iter().any(|(_, value)| *value != 0));
        assert!(below.iter().all(|(_, value)| *value == 0));
    }

    #[test]
    fn a_region_of_interest_is_brought_down() {
        // Nine stands above three raised planes, seven does not.
        assert_eq!(lowered(9 << 1 | 0x8000_0000, 3), 1 << 1 | 1 | 0x8000_0000);
        assert_eq!(lowered(8 << 1 | 1, 3), 1 << 1 | 1, "the middle of a step");
        assert_eq!(lowered(7 << 1, 3), 7 << 1);
        assert_eq!(lowered(7 << 1, 0), 7 << 1);
    }
}
