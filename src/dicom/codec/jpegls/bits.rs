//! Bits of a JPEG-LS scan: after a byte FF the next one carries seven bits (T.87 A.1). Knows no picture.

use crate::dicom::codec::CodecError;

/// Reads from the most significant bit on.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    /// The lowest `count` bits are unread.
    held: u64,
    count: u32,
    after_ff: bool,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Bits { data, position: 0, held: 0, count: 0, after_ff: false }
    }

    /// Holds at least `n` bits, at most 32.
    fn hold(&mut self, n: u32) -> Result<(), CodecError> {
        while self.count < n {
            let byte = self.data.get(self.position).copied().ok_or(CodecError::Short)?;
            if self.after_ff && byte & 0x80 != 0 {
                // A marker: the coded samples are over.
                return Err(CodecError::Short);
            }
            let width = if self.after_ff { 7 } else { 8 };
            self.held = (self.held << width) | u64::from(byte);
            self.count += width;
            self.after_ff = byte == 0xFF;
            self.position += 1;
        }
        Ok(())
    }

    pub fn bit(&mut self) -> Result<bool, CodecError> {
        self.read(1).map(|bit| bit == 1)
    }

    /// `n` bits, at most 32, as a number.
    pub fn read(&mut self, n: u32) -> Result<u32, CodecError> {
        self.hold(n)?;
        self.count -= n;
        let mask = (1u64 << n) - 1;
        Ok(((self.held >> self.count) & mask) as u32)
    }

    /// A limited-length Golomb code (A.5.3).
    pub fn golomb(&mut self, k: u32, limit: u32, qbpp: u32) -> Result<i32, CodecError> {
        let longest = limit.saturating_sub(qbpp + 1);
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
        i32::try_from(value).map_err(|_| CodecError::Damaged("a code is out of range"))
    }
}
