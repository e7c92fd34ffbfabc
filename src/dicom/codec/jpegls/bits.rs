//! Bits of a JPEG-LS scan: after a byte FF the next one carries seven bits (T.87 A.1). Knows no picture.

use crate::dicom::codec::CodecError;

/// Reads from the most significant bit on. Bytes come eight at a time where none of them is FF, else one at a time.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    /// From `position` up to here no byte is FF or stands behind one.
    plain_end: usize,
    /// The highest `count` bits are unread; what stands below them is nought, or what comes next anyway.
    held: u64,
    count: u32,
    after_ff: bool,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Bits { data, position: 0, plain_end: 0, held: 0, count: 0, after_ff: false }
    }

    /// Holds at least 56 bits, or all that are left.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some(bytes) = self.data.get(self.position..self.plain_end).and_then(|plain| plain.first_chunk()) {
            let n_bytes = (63 - self.count) / 8;
            self.held |= u64::from_be_bytes(*bytes) >> self.count;
            self.position += n_bytes as usize;
            self.count += 8 * n_bytes;
        } else {
            // By value, so that what is held stays in registers elsewhere.
            *self = self.refilled_by_bytes();
        }
    }

    #[cold]
    fn refilled_by_bytes(mut self) -> Self {
        while self.count < 56 {
            let Some(&byte) = self.data.get(self.position) else { break };
            if self.after_ff && byte & 0x80 != 0 {
                // A marker: the coded samples are over.
                break;
            }
            let width = if self.after_ff { 7 } else { 8 };
            self.held |= u64::from(byte) << (64 - width - self.count);
            self.count += width;
            self.after_ff = byte == 0xFF;
            self.position += 1;
        }
        if self.position >= self.plain_end {
            let n_plain = match self.data.get(self.position..) {
                Some(rest) if !self.after_ff => rest.iter().take_while(|byte| **byte != 0xFF).count(),
                _ => 0,
            };
            self.plain_end = self.position + n_plain;
        }
        self
    }

    #[inline(always)]
    fn skip(&mut self, n: u32) {
        self.held <<= n;
        self.count -= n;
    }

    pub fn bit(&mut self) -> Result<bool, CodecError> {
        self.read(1).map(|bit| bit == 1)
    }

    /// `n` bits, at most 32, as a number.
    pub fn read(&mut self, n: u32) -> Result<u32, CodecError> {
        if self.count < n {
            self.refill();
            if self.count < n {
                return Err(CodecError::Short);
            }
        }
        // In two steps, for n may be nought.
        let bits = (self.held >> 1) >> (63 - n);
        self.skip(n);
        Ok(bits as u32)
    }

    /// A limited-length Golomb code (A.5.3), `k` at most 24.
    #[inline(always)]
    pub fn golomb(&mut self, k: u32, limit: u32, qbpp: u32) -> Result<i32, CodecError> {
        let longest = limit.saturating_sub(qbpp + 1);
        self.refill();
        let zeros = self.held.leading_zeros();
        if zeros < longest && zeros + k < self.count {
            let one_and_rest = ((self.held << zeros) >> (63 - k)) as u32;
            self.skip(zeros + 1 + k);
            // Less than 64 << 24.
            return Ok(((zeros << k) + one_and_rest - (1 << k)) as i32);
        }
        let (value, behind) = self.long_golomb(k, longest, qbpp)?;
        *self = behind;
        Ok(value)
    }

    /// One that is at its limit, or longer than what can be held at once.
    #[cold]
    fn long_golomb(mut self, k: u32, longest: u32, qbpp: u32) -> Result<(i32, Self), CodecError> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > longest {
                return Err(CodecError::Damaged("a code is longer than its limit"));
            }
        }
        let value = if zeros < longest {
            (u64::from(zeros) << k) | u64::from(self.read(k)?)
        } else {
            u64::from(self.read(qbpp)?) + 1
        };
        let value = i32::try_from(value).map_err(|_| CodecError::Damaged("a code is out of range"))?;
        Ok((value, self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u32 = 64;
    const QBPP: u32 = 16;

    /// Packs bits one by one.
    #[derive(Default)]
    struct Writer {
        bytes: Vec<u8>,
        byte: u8,
        free: u32,
    }

    impl Writer {
        fn new() -> Self {
            Writer { free: 8, ..Writer::default() }
        }

        fn bits(&mut self, value: u32, n: u32) {
            for i in (0..n).rev() {
                self.free -= 1;
                self.byte |= ((u64::from(value) >> i & 1) as u8) << self.free;
                if self.free == 0 {
                    self.bytes.push(self.byte);
                    self.free = if self.byte == 0xFF { 7 } else { 8 };
                    self.byte = 0;
                }
            }
        }

        fn golomb(&mut self, value: u32, k: u32) {
            let longest = LIMIT - QBPP - 1;
            let zeros = (value >> k).min(longest);
            self.bits(0, zeros);
            self.bits(1, 1);
            if zeros < longest { self.bits(value & ((1 << k) - 1), k) } else { self.bits(value - 1, QBPP) }
        }

        /// Whole bytes, and the marker behind them.
        fn end(mut self) -> Vec<u8> {
            while !self.free.is_multiple_of(8) {
                self.bits(0, 1);
            }
            self.bytes.extend([0xFF, 0xD9]);
            self.bytes
        }
    }

    /// What is written between codes: plain numbers, many of them all ones, so that FF occurs everywhere.
    fn parts() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
        let ones = prop_oneof![Just(u32::MAX), any::<u32>()];
        prop::collection::vec((1u32..=65_535, 0u32..=16, ones), 1..200)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(parts in parts()) {
            let mut writer = Writer::new();
            for (value, k, plain) in &parts {
                writer.golomb(*value, *k);
                writer.bits(plain >> (31 - k), k + 1);
            }
            let bytes = writer.end();
            let mut bits = Bits::new(&bytes);
            for (value, k, plain) in &parts {
                prop_assert_eq!(bits.golomb(*k, LIMIT, QBPP), Ok(*value as i32));
                prop_assert_eq!(bits.read(k + 1), Ok(plain >> (31 - k)));
            }
            // What is left is less than a byte and the marker's first one.
            prop_assert_eq!(bits.read(16), Err(CodecError::Short));
        }
    }

    #[test]
    fn nothing_comes_behind_a_marker_or_the_end() {
        let mut bits = Bits::new(&[0xA5, 0xFF, 0x80, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(bits.read(16), Ok(0xA5FF));
        assert_eq!(bits.bit(), Err(CodecError::Short));
        assert_eq!(bits.golomb(0, LIMIT, QBPP), Err(CodecError::Short));
        assert_eq!(Bits::new(&[0; 5]).golomb(3, LIMIT, QBPP), Err(CodecError::Short));
    }

    #[test]
    fn a_code_of_too_many_noughts_is_damaged() {
        assert!(matches!(Bits::new(&[0; 9]).golomb(3, LIMIT, QBPP), Err(CodecError::Damaged(_))));
    }
}
