//! Bits of a JPEG scan: a zero follows each byte FF, anything else there is a marker (T.81 F.2.2.5). Knows no picture.

use crate::dicom::codec::CodecError;

/// Reads from the most significant bit on.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    /// The lowest `count` bits are unread.
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Bits { data, position: 0, held: 0, count: 0 }
    }

    /// Holds as many bits as stand before the next marker, up to 56.
    fn fill(&mut self) {
        while self.count <= 48 {
            let Some(&byte) = self.data.get(self.position) else { return };
            if byte == 0xFF {
                if self.data.get(self.position + 1) != Some(&0) {
                    return;
                }
                self.position += 1;
            }
            self.position += 1;
            self.held = (self.held << 8) | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next 16 bits, zeros behind the last one.
    pub fn peek16(&mut self) -> u16 {
        if self.count < 16 {
            self.fill();
        }
        if self.count >= 16 { (self.held >> (self.count - 16)) as u16 } else { (self.held << (16 - self.count)) as u16 }
    }

    /// Takes `n` bits that were peeked at.
    pub fn consume(&mut self, n: u32) -> Result<(), CodecError> {
        if n > self.count {
            return Err(CodecError::Short);
        }
        self.count -= n;
        Ok(())
    }

    /// `n` bits, at most 16, as a difference of that category (T.81 F.2.2.1).
    pub fn difference(&mut self, n: u32) -> Result<i32, CodecError> {
        if n == 0 {
            return Ok(0);
        }
        let value = i32::from(self.peek16() >> (16 - n));
        self.consume(n)?;
        Ok(if value < 1 << (n - 1) { value - (1 << n) + 1 } else { value })
    }

    /// Goes past the next restart marker.
    pub fn restart(&mut self) -> Result<(), CodecError> {
        self.held = 0;
        self.count = 0;
        let rest = self.data.get(self.position..).unwrap_or_default();
        match rest {
            [0xFF, 0xD0..=0xD7, ..] => {
                self.position += 2;
                Ok(())
            }
            [] | [0xFF, 0xD9, ..] => Err(CodecError::Short),
            _ => Err(CodecError::Damaged("a restart marker is missing")),
        }
    }
}
