//! Decisions of a code-block: the arithmetic decoder (T.800 annex C), and plain bits where it is bypassed (D.6). Knows no
//! picture.

use std::hint::select_unpredictable;

/// What is known of each context: `Qe` in the highest 16 bits, in the lowest seven the state's row of table C.2, twice, and
/// the more probable symbol.
pub(super) type Contexts = [u64; N_CONTEXTS];

/// The 19 of table D.7, and more, so that five bits are a place.
pub(super) const N_CONTEXTS: usize = 32;
/// The first one of refinement (table D.4).
pub(super) const REFINEMENT: usize = 14;
/// Four rows without a neighbor (D.3.4).
pub(super) const RUN: usize = 17;
/// Both symbols alike.
pub(super) const UNIFORM: usize = 18;

/// `Qe`, next state after the more probable symbol, after the less probable one, and whether that one changes places
/// (table C.2).
const STATES: [(u16, u8, u8, bool); 47] = [
    (0x5601, 1, 1, true),
    (0x3401, 2, 6, false),
    (0x1801, 3, 9, false),
    (0x0AC1, 4, 12, false),
    (0x0521, 5, 29, false),
    (0x0221, 38, 33, false),
    (0x5601, 7, 6, true),
    (0x5401, 8, 14, false),
    (0x4801, 9, 14, false),
    (0x3801, 10, 14, false),
    (0x3001, 11, 17, false),
    (0x2401, 12, 18, false),
    (0x1C01, 13, 20, false),
    (0x1601, 29, 21, false),
    (0x5601, 15, 14, true),
    (0x5401, 16, 14, false),
    (0x5101, 17, 15, false),
    (0x4801, 18, 16, false),
    (0x3801, 19, 17, false),
    (0x3401, 20, 18, false),
    (0x3001, 21, 19, false),
    (0x2801, 22, 19, false),
    (0x2401, 23, 20, false),
    (0x2201, 24, 21, false),
    (0x1C01, 25, 22, false),
    (0x1801, 26, 23, false),
    (0x1601, 27, 24, false),
    (0x1401, 28, 25, false),
    (0x1201, 29, 26, false),
    (0x1101, 30, 27, false),
    (0x0AC1, 31, 28, false),
    (0x09C1, 32, 29, false),
    (0x08A1, 33, 30, false),
    (0x0521, 34, 31, false),
    (0x0441, 35, 32, false),
    (0x02A1, 36, 33, false),
    (0x0221, 37, 34, false),
    (0x0141, 38, 35, false),
    (0x0111, 39, 36, false),
    (0x0085, 40, 37, false),
    (0x0049, 41, 38, false),
    (0x0025, 42, 39, false),
    (0x0015, 43, 40, false),
    (0x0009, 44, 41, false),
    (0x0005, 45, 42, false),
    (0x0001, 45, 43, false),
    (0x5601, 46, 46, false),
];

/// Where `Qe`, the interval and the part of the codestream that is compared with it stand in a word.
const TOP: u64 = 0xFFFF << 48;

const fn context(state: u8, symbol: u8) -> u64 {
    ((STATES[state as usize].0 as u64) << 48) | (state as u64 * 2 + symbol as u64)
}

/// The contexts that follow on each: after the more probable symbol, and after the less probable one.
static NEXT: [[u64; 2]; 128] = {
    let mut next = [[0; 2]; 128];
    let mut i = 0;
    while i < 2 * STATES.len() {
        let (_, more, less, switch) = STATES[i / 2];
        let symbol = (i % 2) as u8;
        next[i] = [context(more, symbol), context(less, symbol ^ switch as u8)];
        i += 1;
    }
    next
};

/// As every code-block begins (table D.7).
pub(super) const FIRST: Contexts = {
    let mut contexts = [context(0, 0); N_CONTEXTS];
    contexts[0] = context(4, 0);
    contexts[RUN] = context(3, 0);
    contexts[UNIFORM] = context(46, 0);
    contexts
};

/// Where decisions come from.
pub(super) trait Decisions {
    /// The next one, 0 or 1.
    fn next(&mut self, contexts: &mut Contexts, context: usize) -> u32;
    /// The sign of a coefficient; `flip` says that the context expects the other one.
    fn sign(&mut self, contexts: &mut Contexts, context: usize, flip: u32) -> u32;
}

/// The decoder of one codeword segment.
///
/// Bytes are added to `code` up to 48 bits ahead. The bit by which a byte behind FF overlaps its forerunner (the carry that
/// the coder put there) is added with it and reaches what stands above, sooner than in the standard's procedure; to
/// codestreams of coders that is the same, as their decisions keep to the sum.
#[derive(Clone, Copy)]
pub(super) struct Arithmetic<'a> {
    data: &'a [u8],
    position: usize,
    after_ff: bool,
    /// Length of the interval, as `A` of the standard, in the highest 16 bits.
    interval: u64,
    /// `C` of the standard, its compared part in the highest 16 bits.
    code: u64,
    /// Bits of the codestream in `code` below those.
    ahead: i32,
}

/// No decision shifts by more.
const AHEAD_MIN: i32 = 16;
/// With a byte more it is full.
const AHEAD_FULL: i32 = 40;

impl<'a> Arithmetic<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        // A bit of nought stands before the first byte (C.3.5); fifteen of the compared ones are missing.
        let begun = Arithmetic { data, position: 0, after_ff: false, interval: 1 << 63, code: 0, ahead: -15 };
        begun.refilled()
    }

    /// Adds bytes until no more would fit. Behind the end, and behind FF where no byte of a codestream can stand, come ones.
    #[inline(never)]
    fn refilled(mut self) -> Self {
        while self.ahead <= AHEAD_FULL {
            let byte = match self.data.get(self.position) {
                Some(&byte) if !(self.after_ff && byte > 0x8F) => {
                    self.ahead += if self.after_ff { 7 } else { 8 };
                    self.after_ff = byte == 0xFF;
                    self.position += 1;
                    byte
                }
                _ => {
                    self.ahead += 8;
                    0xFF
                }
            };
            self.code = self.code.wrapping_add(u64::from(byte) << (48 - self.ahead));
        }
        self
    }

    /// One decision (C.3.2), without a jump that depends on it: whether a symbol is the probable one is what cannot be
    /// foretold.
    #[inline(always)]
    fn decide(&mut self, context: &mut u64) -> u32 {
        let entry = *context;
        let qe = entry & TOP;
        let [after_more, after_less] = NEXT[(entry & 127) as usize];
        let upper = self.interval - qe;
        let is_lower = self.code < qe;
        // The less probable symbol has the lower part, unless that is the longer one.
        let is_less = is_lower ^ (upper < qe);
        let interval = select_unpredictable(is_lower, qe, upper);
        let code = select_unpredictable(is_lower, self.code, self.code.wrapping_sub(qe));
        let shift = interval.leading_zeros();
        let after_more = select_unpredictable(shift == 0, entry, after_more);
        *context = select_unpredictable(is_less, after_less, after_more);
        self.interval = interval << shift;
        self.code = code << shift;
        self.ahead -= shift as i32;
        if self.ahead < AHEAD_MIN {
            // By value, so that all of it stays in registers elsewhere.
            *self = self.refilled();
        }
        (entry & 1) as u32 ^ u32::from(is_less)
    }
}

impl Decisions for Arithmetic<'_> {
    #[inline(always)]
    fn next(&mut self, contexts: &mut Contexts, context: usize) -> u32 {
        self.decide(&mut contexts[context % N_CONTEXTS])
    }

    #[inline(always)]
    fn sign(&mut self, contexts: &mut Contexts, context: usize, flip: u32) -> u32 {
        self.next(contexts, context) ^ flip
    }
}

/// Bits as they are; after a byte FF the next one carries seven. Behind the end come ones.
#[derive(Clone, Copy)]
pub(super) struct Plain<'a> {
    data: &'a [u8],
    position: usize,
    byte: u8,
    left: u32,
}

impl<'a> Plain<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Plain { data, position: 0, byte: 0, left: 0 }
    }
}

impl Decisions for Plain<'_> {
    #[inline(always)]
    fn next(&mut self, _: &mut Contexts, _: usize) -> u32 {
        if self.left == 0 {
            self.left = if self.byte == 0xFF { 7 } else { 8 };
            self.byte = self.data.get(self.position).copied().unwrap_or(0xFF);
            self.position += 1;
        }
        self.left -= 1;
        u32::from(self.byte >> self.left) & 1
    }

    #[inline(always)]
    fn sign(&mut self, contexts: &mut Contexts, context: usize, _: u32) -> u32 {
        self.next(contexts, context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The coder of annex C.2, as its flow charts have it.
    struct Coder {
        states: [(usize, u32); N_CONTEXTS],
        a: u32,
        c: u32,
        ct: u32,
        bytes: Vec<u8>,
    }

    impl Coder {
        fn new() -> Self {
            // Where the first byte would be counted up, none is.
            Coder { states: [(0, 0); N_CONTEXTS], a: 0x8000, c: 0, ct: 12, bytes: vec![0] }
        }

        fn code(&mut self, context: usize, decision: u32) {
            let (state, symbol) = self.states[context];
            let (qe, more, less, switch) = STATES[state];
            let qe = u32::from(qe);
            self.a -= qe;
            if decision == symbol {
                if self.a & 0x8000 != 0 {
                    self.c += qe;
                    return;
                }
                if self.a < qe {
                    self.a = qe
                } else {
                    self.c += qe
                }
                self.states[context].0 = more.into();
            } else {
                if self.a < qe {
                    self.c += qe
                } else {
                    self.a = qe
                }
                self.states[context] = (less.into(), symbol ^ u32::from(switch));
            }
            while self.a & 0x8000 == 0 {
                self.a <<= 1;
                self.c <<= 1;
                self.ct -= 1;
                if self.ct == 0 {
                    self.byte_out();
                }
            }
        }

        fn byte_out(&mut self) {
            let last = self.bytes.last_mut().unwrap();
            if *last != 0xFF && self.c >= 0x800_0000 {
                *last += 1;
                self.c &= 0x7FF_FFFF;
            }
            let bits = if *last == 0xFF { 7 } else { 8 };
            self.bytes.push((self.c >> (27 - bits)) as u8);
            self.c &= (1 << (27 - bits)) - 1;
            self.ct = bits;
        }

        fn end(mut self) -> Vec<u8> {
            let sum = self.c + self.a;
            self.c |= 0xFFFF;
            if self.c >= sum {
                self.c -= 0x8000;
            }
            for _ in 0..2 {
                self.c <<= self.ct;
                self.byte_out();
            }
            if self.bytes.last() == Some(&0xFF) {
                self.bytes.pop();
            }
            self.bytes.split_off(1)
        }
    }

    /// Contexts, and decisions of every kind of skew: half of them are the last one of their context again.
    fn decisions() -> impl Strategy<Value = Vec<(usize, u32)>> {
        let decision = (0..19usize, prop_oneof![3 => Just(0u32), 1 => Just(1), 2 => 0..2u32]);
        prop::collection::vec(decision, 1..3000)
    }

    proptest! {
        #[test]
        fn what_was_coded_is_decided(decisions in decisions()) {
            let mut coder = Coder::new();
            for (context, decision) in &decisions {
                coder.code(*context, *decision);
            }
            let bytes = coder.end();
            let mut contexts = [context(0, 0); N_CONTEXTS];
            let mut arithmetic = Arithmetic::new(&bytes);
            for (at, (context, decision)) in decisions.iter().enumerate() {
                prop_assert_eq!(arithmetic.next(&mut contexts, *context), *decision, "decision {}", at);
            }
        }
    }

    /// The test sequence of ITU-T T.88, H.2, for the same coder.
    #[test]
    fn the_sequence_of_the_standard_is_decoded() {
        let coded = [
            0x84, 0xC7, 0x3B, 0xFC, 0xE1, 0xA1, 0x43, 0x04, 0x02, 0x20, 0x00, 0x00, 0x41, 0x0D, 0xBB, 0x86, 0xF4, 0x31,
            0x7F, 0xFF, 0x88, 0xFF, 0x37, 0x47, 0x1A, 0xDB, 0x6A, 0xDF, 0xFF, 0xAC,
        ];
        let expected = [
            0x00, 0x02, 0x00, 0x51, 0x00, 0x00, 0x00, 0xC0, 0x03, 0x52, 0x87, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA, 0x82, 0xC0,
            0x20, 0x00, 0xFC, 0xD7, 0x9E, 0xF6, 0xBF, 0x7F, 0xED, 0x90, 0x4F, 0x46, 0xA3, 0xBF,
        ];
        let mut contexts = [context(0, 0); N_CONTEXTS];
        let mut arithmetic = Arithmetic::new(&coded);
        let mut byte = || (0..8).fold(0, |byte, _| byte << 1 | arithmetic.next(&mut contexts, 0));
        assert_eq!(expected.map(|_| byte()), expected);
    }

    #[test]
    fn plain_bits_leave_out_those_behind_ff_and_end_in_ones() {
        let mut plain = Plain::new(&[0xA5, 0xFF, 0x7F, 0x80]);
        let mut contexts = FIRST;
        let mut read = |n| (0..n).fold(0, |bits, _| bits << 1 | plain.next(&mut contexts, 0));
        assert_eq!([read(8), read(8), read(7), read(8), read(9)], [0xA5, 0xFF, 0x7F, 0x80, 0x1FF]);
    }
}
