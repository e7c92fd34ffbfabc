//! Tag trees (T.800 B.10.2) and the bits of packet headers (B.10.1).

use crate::dicom::codec::CodecError;

/// Bits of a packet header: behind a byte FF stands a bit of nought.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    byte: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Bits { data, position: 0, byte: 0, left: 0 }
    }

    pub fn bit(&mut self) -> Result<u32, CodecError> {
        if self.left == 0 {
            self.left = if self.byte == 0xFF { 7 } else { 8 };
            self.byte = *self.data.get(self.position).ok_or(CodecError::Short)?;
            self.position += 1;
        }
        self.left -= 1;
        Ok(u32::from(self.byte >> self.left) & 1)
    }

    /// `n` bits, at most 32, as a number.
    pub fn read(&mut self, n: u32) -> Result<u32, CodecError> {
        let mut number = 0;
        for _ in 0..n {
            number = number << 1 | self.bit()?;
        }
        Ok(number)
    }

    /// Bytes up to the end of the header, which is that of a byte; one behind FF belongs to it.
    pub fn end(self) -> usize {
        self.position + usize::from(self.byte == 0xFF)
    }
}

/// Not known yet.
const UNKNOWN: u32 = u32::MAX;
/// More than the levels of any tree: 4,096 leaves each way have 13.
const LEVELS_MAX: usize = 16;

/// A node: no number below it is smaller than `least`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    least: u32,
    value: u32,
}

/// A tree whose nodes lie in a common list.
#[derive(Clone, Copy, Debug)]
pub(super) struct TagTree {
    first: u32,
    /// Leaves.
    pub across: u32,
    pub down: u32,
}

impl TagTree {
    /// One of `across` x `down` leaves.
    pub fn new(nodes: &mut Vec<Node>, across: usize, down: usize) -> Self {
        let first = nodes.len() as u32;
        let (mut columns, mut rows) = (across, down);
        loop {
            nodes.resize(nodes.len() + columns * rows, Node { least: 0, value: UNKNOWN });
            if columns * rows <= 1 {
                return TagTree { first, across: across as u32, down: down as u32 };
            }
            (columns, rows) = (columns.div_ceil(2), rows.div_ceil(2));
        }
    }

    /// Reads as much as tells whether a leaf's number is below `bound`.
    pub fn is_below(
        self,
        nodes: &mut [Node],
        bits: &mut Bits<'_>,
        x: usize,
        y: usize,
        bound: u32,
    ) -> Result<bool, CodecError> {
        let (mut path, mut n) = ([0; LEVELS_MAX], 0);
        let (mut columns, mut rows, mut level) = (self.across as usize, self.down as usize, self.first as usize);
        while n < LEVELS_MAX {
            path[n] = level + (y >> n) * columns + (x >> n);
            n += 1;
            if columns * rows <= 1 {
                break;
            }
            level += columns * rows;
            (columns, rows) = (columns.div_ceil(2), rows.div_ceil(2));
        }
        let (mut least, mut value) = (0, UNKNOWN);
        for place in path[..n].iter().rev() {
            let Some(node) = nodes.get_mut(*place) else { return Err(CodecError::Damaged("a code-block is nowhere")) };
            least = node.least.max(least);
            while least < bound && node.value == UNKNOWN {
                if bits.bit()? == 1 {
                    node.value = least;
                } else {
                    least += 1;
                }
            }
            node.least = least;
            value = node.value;
            if value == UNKNOWN {
                // Nor is any number below it.
                return Ok(false);
            }
        }
        Ok(value < bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of B.10.2: 6 x 3 leaves, the first three of which are 1, 3 and 2.
    #[test]
    fn the_example_of_the_standard_is_read() {
        let mut nodes = Vec::new();
        let tree = TagTree::new(&mut nodes, 6, 3);
        assert_eq!(nodes.len(), 18 + 6 + 2 + 1);
        // 01111 001 101, and noughts.
        let mut bits = Bits::new(&[0b0111_1001, 0b1010_0000]);
        let mut number = |x| {
            let mut bound = 1;
            while !tree.is_below(&mut nodes, &mut bits, x, 0, bound).unwrap() {
                bound += 1;
            }
            bound - 1
        };
        assert_eq!([number(0), number(1), number(2)], [1, 3, 2]);
        assert_eq!(bits.read(5), Ok(0));
        assert_eq!(bits.bit(), Err(CodecError::Short));
    }

    #[test]
    fn a_tree_without_leaves_has_no_nodes_and_names_none() {
        let mut nodes = Vec::new();
        let tree = TagTree::new(&mut nodes, 0, 0);
        assert!(nodes.is_empty());
        assert!(tree.is_below(&mut nodes, &mut Bits::new(&[0xFF]), 0, 0, 1).is_err());
    }

    #[test]
    fn a_header_that_ends_in_ff_takes_the_byte_behind_it() {
        let mut bits = Bits::new(&[0x80, 0xFF, 0x7F, 0x00]);
        assert_eq!(bits.read(16), Ok(0x80FF));
        assert_eq!(Bits { ..bits }.end(), 3);
        let mut bits = Bits::new(&[0xFF, 0x7F, 0x00]);
        assert_eq!(bits.read(15), Ok(0x7FFF), "the bit behind FF is left out");
        assert_eq!(bits.end(), 2);
    }
}
