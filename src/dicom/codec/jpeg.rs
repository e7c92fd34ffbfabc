//! JPEG (ITU-T T.81) of one component, Huffman coded: baseline and extended sequential of 8 and 12 bits, and lossless
//! (process 14). Progressive, hierarchical and arithmetic forms are refused; DICOM has retired them.

mod bits;
mod dct;
mod huffman;
mod lossless;

use bits::Bits;
use huffman::Table;

use super::{CodecError, Size};
use crate::dicom::stored::Cells;

const SOF0: u8 = 0xC0;
const SOF1: u8 = 0xC1;
const SOF3: u8 = 0xC3;
const DHT: u8 = 0xC4;
const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DQT: u8 = 0xDB;
const DRI: u8 = 0xDD;

/// Decodes a codestream of one picture.
pub(super) fn decode(codestream: &[u8], size: Size) -> Result<Cells, CodecError> {
    let mut rest = codestream.strip_prefix(&[0xFF, SOI]).ok_or(CodecError::Damaged("it does not begin as JPEG"))?;
    let mut tables = Tables::default();
    let mut frame = None;
    loop {
        let (marker, segment, behind) = segment(rest)?;
        rest = behind;
        match marker {
            SOF0 | SOF1 | SOF3 => frame = Some(Frame::read(marker, segment, size)?),
            DHT => tables.huffman(segment)?,
            DQT => tables.quantization(segment)?,
            DRI => tables.restart = segment.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes)).into(),
            SOS => {
                let frame = frame.ok_or(CodecError::Damaged("a scan stands before its frame"))?;
                return scan(&frame, &tables, segment, rest, size);
            }
            EOI => return Err(CodecError::Short),
            0xC2 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return Err(CodecError::Unsupported("progressive, hierarchical or arithmetic coding"));
            }
            _ => {}
        }
    }
}

/// Marker, content of its segment, and what follows.
fn segment(data: &[u8]) -> Result<(u8, &[u8], &[u8]), CodecError> {
    let mut rest = match data.split_first() {
        Some((0xFF, rest)) => rest,
        Some(_) => return Err(CodecError::Damaged("a marker is missing")),
        None => return Err(CodecError::Short),
    };
    while let Some(behind) = rest.strip_prefix(&[0xFF]) {
        rest = behind;
    }
    let (&marker, rest) = rest.split_first().ok_or(CodecError::Short)?;
    if marker == EOI {
        return Ok((marker, &[], rest));
    }
    let length =
        rest.first_chunk::<2>().map(|bytes| usize::from(u16::from_be_bytes(*bytes))).ok_or(CodecError::Short)?;
    let (segment, behind) = rest.split_at_checked(length).ok_or(CodecError::Short)?;
    Ok((marker, segment.get(2..).ok_or(CodecError::Damaged("a segment has no length"))?, behind))
}

/// What a frame header says.
#[derive(Clone, Copy)]
struct Frame {
    lossless: bool,
    precision: u16,
    component: u8,
    quantization: u8,
}

impl Frame {
    fn read(marker: u8, segment: &[u8], size: Size) -> Result<Frame, CodecError> {
        let &[precision, y0, y1, x0, x1, n_components] = segment.first_chunk::<6>().ok_or(CodecError::Short)?;
        if n_components != 1 {
            return Err(CodecError::Unsupported("several components"));
        }
        let &[component, _, quantization] =
            segment.get(6..).and_then(|rest| rest.first_chunk::<3>()).ok_or(CodecError::Short)?;
        let lossless = marker == SOF3;
        let fits = match marker {
            SOF0 => precision == 8,
            SOF1 => matches!(precision, 8 | 12),
            _ => (2..=16).contains(&precision),
        };
        if !fits {
            return Err(CodecError::Damaged("its precision does not fit its process"));
        }
        size.check(u16::from_be_bytes([y0, y1]).into(), u16::from_be_bytes([x0, x1]).into())?;
        Ok(Frame { lossless, precision: precision.into(), component, quantization })
    }
}

/// Tables and settings between markers.
#[derive(Default)]
struct Tables {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// In zigzag order.
    quantization: [Option<[u16; 64]>; 4],
    /// Units between restart markers; 0 for none.
    restart: usize,
}

impl Tables {
    fn huffman(&mut self, segment: &[u8]) -> Result<(), CodecError> {
        let mut rest = segment;
        while let Some((&class, behind)) = rest.split_first() {
            let (table, used) = Table::read(behind)?;
            let tables = if class >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut(usize::from(class & 15)).ok_or(CodecError::Damaged("a table has no place"))?;
            *slot = Some(table);
            rest = behind.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    fn quantization(&mut self, segment: &[u8]) -> Result<(), CodecError> {
        let mut rest = segment;
        while let Some((&head, behind)) = rest.split_first() {
            let wide = head >> 4 != 0;
            let (bytes, behind) = behind.split_at_checked(if wide { 128 } else { 64 }).ok_or(CodecError::Short)?;
            let mut steps = [0u16; 64];
            for (index, step) in steps.iter_mut().enumerate() {
                *step = match (wide, bytes.get(index), bytes.get(2 * index), bytes.get(2 * index + 1)) {
                    (true, _, Some(high), Some(low)) => u16::from_be_bytes([*high, *low]),
                    (_, Some(byte), ..) => u16::from(*byte),
                    _ => return Err(CodecError::Short),
                };
            }
            let slot = self.quantization.get_mut(usize::from(head & 15));
            *slot.ok_or(CodecError::Damaged("a table has no place"))? = Some(steps);
            rest = behind;
        }
        Ok(())
    }
}

fn scan(frame: &Frame, tables: &Tables, segment: &[u8], data: &[u8], size: Size) -> Result<Cells, CodecError> {
    let &[n_components, component, choice, start, end, approximation] =
        segment.first_chunk::<6>().ok_or(CodecError::Short)?;
    if n_components != 1 || component != frame.component {
        return Err(CodecError::Damaged("its scan is not of its component"));
    }
    let missing = CodecError::Damaged("a table is missing");
    let dc = tables.dc.get(usize::from(choice >> 4)).and_then(Option::as_ref).ok_or(missing.clone())?;
    let bits = Bits::new(data);
    let values = if frame.lossless {
        let scan = lossless::Scan { precision: frame.precision, predictor: start, point: (approximation & 15).into() };
        scan.decode(bits, dc, tables.restart, size)?
    } else {
        if (start, end, approximation) != (0, 63, 0) {
            return Err(CodecError::Damaged("a sequential scan is not complete"));
        }
        let ac = tables.ac.get(usize::from(choice & 15)).and_then(Option::as_ref).ok_or(missing.clone())?;
        let steps = tables.quantization.get(usize::from(frame.quantization)).and_then(Option::as_ref).ok_or(missing)?;
        dct::Scan { precision: frame.precision, dc, ac, steps }.decode(bits, tables.restart, size)?
    };
    Ok(Cells { values, precision: frame.precision })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 1, columns: 4 };

    /// A lossless picture of one line, 16 bits, predictor 1; code 0 is category 0, 10 is 1, 110 is 16.
    fn lossless(coded: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xFF, SOI, 0xFF, SOF3, 0, 11, 16, 0, 1, 0, 4, 1, 1, 0x11, 0];
        bytes.extend([0xFF, DHT, 0, 22, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 16]);
        bytes.extend([0xFF, SOS, 0, 8, 1, 1, 0, 1, 0, 0]);
        bytes.extend(coded);
        bytes.extend([0xFF, EOI]);
        bytes
    }

    #[test]
    fn differences_add_up_modulo_two_to_the_sixteen() {
        // 110 (+32768), 0 (+0), 10 1 (+1), 10 0 (-1), then ones.
        let cells = decode(&lossless(&[0b1100_1011, 0b0011_1111]), SIZE).unwrap();
        assert_eq!(cells.values, [0, 0, 1, 0]);
        assert_eq!(cells.precision, 16);
    }

    #[test]
    fn short_and_damaged_streams_are_refused() {
        assert_eq!(decode(&lossless(&[0b1100_1011]), SIZE), Err(CodecError::Short));
        assert!(matches!(decode(&lossless(&[0xFF, 0, 0xFF, 0]), SIZE), Err(CodecError::Damaged(_))));
        let mut arithmetic = lossless(&[0, 0]);
        arithmetic[3] = 0xC9;
        assert!(matches!(decode(&arithmetic, SIZE), Err(CodecError::Unsupported(_))));
        let good = lossless(&[0b1100_1011, 0b0011_1111]);
        for length in 0..good.len() - 3 {
            assert!(decode(&good[..length], SIZE).is_err(), "{length}");
        }
    }
}
