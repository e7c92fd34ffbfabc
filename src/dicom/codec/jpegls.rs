//! JPEG-LS (ITU-T T.87), lossless and near-lossless, of one component. Names follow the recommendation.

mod bits;
mod context;

use bits::Bits;
use context::{Parameters, Regular, RunInterruption};

use super::{CodecError, Size};
use crate::dicom::stored::Cells;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DRI: u8 = 0xDD;
const SOF55: u8 = 0xF7;
const LSE: u8 = 0xF8;

/// Code lengths of runs (table A.3), as powers of two.
const J: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Contexts of regular mode (A.3.4), and a first one that is that of runs.
const N_CONTEXTS: usize = 365;

/// Decodes a codestream of one picture.
pub(super) fn decode(codestream: &[u8], size: Size) -> Result<Cells, CodecError> {
    let head = Head::read(codestream, size)?;
    let mut scan = Scan::new(head.parameters, head.data);
    let mut values = vec![0u16; size.n_pixels()];
    scan.decode(&mut values, size.columns)?;
    Ok(Cells { values, precision: head.precision })
}

/// Everything before the coded samples.
struct Head<'a> {
    precision: u16,
    parameters: Parameters,
    data: &'a [u8],
}

impl<'a> Head<'a> {
    fn read(codestream: &'a [u8], size: Size) -> Result<Head<'a>, CodecError> {
        let mut rest = codestream.strip_prefix(&[0xFF, SOI]).ok_or(CodecError::Damaged("it does not begin as JPEG"))?;
        let mut precision = None;
        let mut presets = [0u16; 5];
        loop {
            let (marker, segment, behind) = segment(rest)?;
            rest = behind;
            match marker {
                SOF55 => precision = Some(frame_header(segment, size)?),
                LSE => presets = preset(segment)?,
                SOS => {
                    let precision = precision.ok_or(CodecError::Damaged("a scan stands before its frame"))?;
                    let near = scan_header(segment)?;
                    let parameters = Parameters::new(precision, near, presets)?;
                    return Ok(Head { precision, parameters, data: rest });
                }
                DRI if segment.iter().any(|byte| *byte != 0) => {
                    return Err(CodecError::Unsupported("restart intervals"));
                }
                EOI => return Err(CodecError::Short),
                0xC0..=0xCF => return Err(CodecError::Damaged("it is JPEG, not JPEG-LS")),
                _ => {}
            }
        }
    }
}

/// Marker, content of its segment, and what follows.
fn segment(data: &[u8]) -> Result<(u8, &[u8], &[u8]), CodecError> {
    let mut rest = data.strip_prefix(&[0xFF]).ok_or(CodecError::Damaged("a marker is missing"))?;
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

/// The precision of a frame that fits.
fn frame_header(segment: &[u8], size: Size) -> Result<u16, CodecError> {
    let &[precision, y0, y1, x0, x1, n_components] = segment.first_chunk::<6>().ok_or(CodecError::Short)?;
    if n_components != 1 {
        return Err(CodecError::Unsupported("several components"));
    }
    if !(2..=16).contains(&precision) {
        return Err(CodecError::Damaged("its precision is not 2 to 16 bits"));
    }
    size.check(u16::from_be_bytes([y0, y1]).into(), u16::from_be_bytes([x0, x1]).into())?;
    Ok(precision.into())
}

/// MAXVAL, T1, T2, T3 and RESET; zero stands for the default.
fn preset(segment: &[u8]) -> Result<[u16; 5], CodecError> {
    match segment.split_first() {
        Some((1, values)) => {
            let values = values.first_chunk::<10>().ok_or(CodecError::Short)?;
            let mut presets = [0u16; 5];
            for (preset, pair) in presets.iter_mut().zip(values.as_chunks::<2>().0) {
                *preset = u16::from_be_bytes(*pair);
            }
            Ok(presets)
        }
        _ => Err(CodecError::Unsupported("mapping tables or an oversize picture")),
    }
}

/// NEAR of a scan of one component.
fn scan_header(segment: &[u8]) -> Result<i32, CodecError> {
    let &[n_components, _, mapping, near, _, point] = segment.first_chunk::<6>().ok_or(CodecError::Short)?;
    if n_components != 1 {
        return Err(CodecError::Unsupported("several components"));
    }
    if mapping != 0 || point != 0 {
        return Err(CodecError::Unsupported("a mapping table or point transform"));
    }
    Ok(near.into())
}

/// State of the decoding procedure.
struct Scan<'a> {
    bits: Bits<'a>,
    parameters: Parameters,
    regular: [Regular; N_CONTEXTS],
    interruption: [RunInterruption; 2],
    run_index: usize,
}

impl<'a> Scan<'a> {
    fn new(parameters: Parameters, data: &'a [u8]) -> Self {
        Scan {
            bits: Bits::new(data),
            regular: [Regular::new(&parameters); N_CONTEXTS],
            interruption: [RunInterruption::new(&parameters); 2],
            run_index: 0,
            parameters,
        }
    }

    fn decode(&mut self, values: &mut [u16], columns: usize) -> Result<(), CodecError> {
        if self.parameters.is_plain() {
            self.lines::<true>(values, columns)
        } else {
            self.lines::<false>(values, columns)
        }
    }

    /// Line by line; `PLAIN` as [`Parameters::is_plain`] has it. `above` has one more value at each end: Rc of the first
    /// sample, and Rd of the last.
    fn lines<const PLAIN: bool>(&mut self, values: &mut [u16], columns: usize) -> Result<(), CodecError> {
        let mut above = vec![0i32; columns + 2];
        let mut line = vec![0i32; columns + 2];
        for row in values.chunks_mut(columns) {
            if let [.., before, last] = above.as_mut_slice() {
                *last = *before;
            }
            if let (Some(start), Some(up)) = (line.first_mut(), above.get(1)) {
                *start = *up;
            }
            self.line::<PLAIN>(&above, &mut line)?;
            for (value, sample) in row.iter_mut().zip(line.iter().skip(1)) {
                *value = *sample as u16;
            }
            std::mem::swap(&mut above, &mut line);
        }
        Ok(())
    }

    fn line<const PLAIN: bool>(&mut self, above: &[i32], line: &mut [i32]) -> Result<(), CodecError> {
        let columns = line.len() - 2;
        let mut x = 1;
        while x <= columns {
            x = self.samples::<PLAIN>(above, line, x)?;
            if x <= columns {
                x = self.run::<PLAIN>(above, line, x)?;
            }
        }
        Ok(())
    }

    /// Samples in regular mode (A.3 to A.6) up to the next run; returns where it begins.
    fn samples<const PLAIN: bool>(
        &mut self,
        above: &[i32],
        line: &mut [i32],
        start: usize,
    ) -> Result<usize, CodecError> {
        let columns = line.len() - 2;
        let p = &self.parameters;
        // Copies of what every sample changes stay in registers.
        let mut bits = self.bits;
        let (mut ra, mut rb, mut rc) = (line[start - 1], above[start], above[start - 1]);
        let mut q2 = p.quantize(rb - rc);
        let mut x = start;
        while x <= columns {
            // Rd and Rb are Rb and Rc of the next sample, so is their region.
            let rd = above[x + 1];
            let q1 = p.quantize(rd - rb);
            let context = 81 * q1 + 9 * q2 + p.quantize(rc - ra);
            if context == 0 {
                break;
            }
            let sign = context >> 31;
            let Some(state) = self.regular.get_mut(((context ^ sign) - sign) as usize) else {
                return Err(CodecError::Damaged("a context does not exist"));
            };
            let px = predict(ra, rb, rc) + ((i32::from(state.c) ^ sign) - sign);
            let mapped = p.check(bits.golomb(state.k.into(), p.limit, p.qbpp)?)?;
            let errval = state.unmap(mapped);
            state.update::<PLAIN>(errval, p);
            ra = p.reconstruct::<PLAIN>(px.clamp(0, p.maxval), (errval ^ sign) - sign);
            line[x] = ra;
            (rc, rb, q2) = (rb, rd, q1);
            x += 1;
        }
        self.bits = bits;
        Ok(x)
    }

    /// A run and the sample that interrupts it (A.7); returns where the line goes on.
    fn run<const PLAIN: bool>(&mut self, above: &[i32], line: &mut [i32], start: usize) -> Result<usize, CodecError> {
        let columns = line.len() - 2;
        let ra = line[start - 1];
        let mut x = start;
        while self.bits.bit()? {
            let length = (1usize << J[self.run_index]).min(columns + 1 - x);
            line[x..x + length].fill(ra);
            x += length;
            if length == 1 << J[self.run_index] {
                self.run_index = (self.run_index + 1).min(J.len() - 1);
            }
            if x > columns {
                return Ok(x);
            }
        }
        let length = self.bits.read(J[self.run_index])? as usize;
        if x + length > columns {
            return Err(CodecError::Damaged("a run leaves its line"));
        }
        line[x..x + length].fill(ra);
        x += length;
        line[x] = self.interrupt::<PLAIN>(ra, above[x])?;
        self.run_index = self.run_index.saturating_sub(1);
        Ok(x + 1)
    }

    fn interrupt<const PLAIN: bool>(&mut self, ra: i32, rb: i32) -> Result<i32, CodecError> {
        let p = &self.parameters;
        let ritype = usize::from((ra - rb).abs() <= p.near);
        let px = if ritype == 1 { ra } else { rb };
        let sign = if ritype == 0 && ra > rb { -1 } else { 1 };
        let state = &mut self.interruption[ritype];
        let k = state.golomb(ritype);
        let limit = p.limit - J[self.run_index] - 1;
        let mapped = p.check(self.bits.golomb(k, limit, p.qbpp)?)?;
        let errval = state.unmap_and_update(mapped, k, ritype, p.reset);
        Ok(p.reconstruct::<PLAIN>(px, sign * errval))
    }
}

/// The median edge detector (A.4.1): the middle one of Ra, Rb and their plane.
#[inline(always)]
fn predict(ra: i32, rb: i32, rc: i32) -> i32 {
    (ra + rb - rc).clamp(ra.min(rb), ra.max(rb))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of T.87 annex H.3: 4 x 4 samples of 8 bits.
    const EXAMPLE: &[u8] = &[
        0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00, 0xFF, 0xDA, 0x00,
        0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0, 0x00, 0x00,
        0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6, 0x00, 0x00, 0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8, 0x00, 0x00, 0x91,
        0x60, 0xFF, 0xD9,
    ];
    const SIZE: Size = Size { rows: 4, columns: 4 };

    #[test]
    fn the_example_of_the_recommendation_is_decoded() {
        let cells = decode(EXAMPLE, SIZE).unwrap();
        assert_eq!(cells.precision, 8);
        assert_eq!(cells.values, [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145]);
    }

    #[test]
    fn the_predictor_is_that_of_the_recommendation() {
        for (ra, rb, rc) in (0..512).map(|i| (i % 8, i / 8 % 8, i / 64)) {
            let (low, high) = (ra.min(rb), ra.max(rb));
            let px = match rc {
                _ if rc >= high => low,
                _ if rc <= low => high,
                _ => ra + rb - rc,
            };
            assert_eq!(predict(ra, rb, rc), px, "{ra} {rb} {rc}");
        }
    }

    #[test]
    fn every_cut_is_refused() {
        for length in 0..EXAMPLE.len() - 4 {
            assert!(decode(&EXAMPLE[..length], SIZE).is_err(), "{length}");
        }
    }

    #[test]
    fn another_size_is_refused() {
        assert!(matches!(
            decode(EXAMPLE, Size { rows: 4, columns: 5 }),
            Err(CodecError::Size { found_columns: 4, .. })
        ));
    }
}
