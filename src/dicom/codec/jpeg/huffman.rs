//! Huffman tables of JPEG (T.81 annex C and F.2.2.3).

use super::bits::Bits;
use crate::dicom::codec::CodecError;

/// Codes up to this length are looked up at once.
const FAST_BITS: u32 = 9;

/// A table of up to 256 codes.
pub(super) struct Table {
    /// Length and symbol of the code that the first bits begin with; length 0 if it is longer.
    fast: Vec<(u8, u8)>,
    /// For each length from 1: the first code behind those of that length, at the left of 16 bits.
    ends: [u32; 16],
    /// For each length: what to add to a code for the index of its symbol.
    offsets: [i32; 16],
    symbols: Vec<u8>,
}

impl Table {
    /// Reads counts and symbols; gives the bytes that were used as well.
    pub fn read(data: &[u8]) -> Result<(Table, usize), CodecError> {
        let counts = data.first_chunk::<16>().ok_or(CodecError::Short)?;
        let n_symbols: usize = counts.iter().map(|count| usize::from(*count)).sum();
        let symbols = data.get(16..16 + n_symbols).ok_or(CodecError::Short)?.to_vec();
        let mut table = Table { fast: vec![(0, 0); 1 << FAST_BITS], ends: [0; 16], offsets: [0; 16], symbols };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, count) in (1u32..).zip(counts) {
            let slot = length as usize - 1;
            table.offsets[slot] = index as i32 - code as i32;
            for _ in 0..*count {
                let symbol = table.symbols.get(index).copied().unwrap_or_default();
                if length <= FAST_BITS {
                    let first = (code as usize) << (FAST_BITS - length);
                    let same = table.fast.get_mut(first..first + (1 << (FAST_BITS - length)));
                    same.ok_or(CodecError::Damaged("a Huffman table is overfull"))?.fill((length as u8, symbol));
                }
                code += 1;
                index += 1;
            }
            if code > 1 << length {
                return Err(CodecError::Damaged("a Huffman table is overfull"));
            }
            table.ends[slot] = code << (16 - length);
            code <<= 1;
        }
        Ok((table, 16 + n_symbols))
    }

    /// The next symbol.
    pub fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, CodecError> {
        let ahead = bits.peek16();
        if let Some((length @ 1.., symbol)) = self.fast.get(usize::from(ahead >> (16 - FAST_BITS))).copied() {
            bits.consume(length.into())?;
            return Ok(symbol);
        }
        let ahead = u32::from(ahead);
        for (length, (end, offset)) in (1u32..).zip(self.ends.iter().zip(&self.offsets)).skip(FAST_BITS as usize) {
            if ahead < *end {
                bits.consume(length)?;
                let index = (ahead >> (16 - length)) as i32 + offset;
                let symbol = usize::try_from(index).ok().and_then(|index| self.symbols.get(index)).copied();
                return symbol.ok_or(CodecError::Damaged("a code is not in its table"));
            }
        }
        // Past the last bit zeros or ones may look like no code at all.
        bits.consume(16)?;
        Err(CodecError::Damaged("a code is not in its table"))
    }
}
