//! From the bytes of one file to its slices, or to the reason why there are none. The only module that knows DICOM.
//!
//! Order of trust: `part10` opens the container, `prewalk` bounds and locates what is wanted, `header` reads values,
//! `admission` judges them, `frames` cuts the pixel data, `codec` decodes it, `stored` gives stored values. Nothing is
//! allocated before the size that asks for it has been judged, and no input makes it panic.

mod admission;
mod codec;
#[cfg(fuzzing)]
pub mod doors;
mod frames;
mod header;
mod part10;
mod prewalk;
mod stored;
mod survey;
mod syntax;
mod tags;
mod text;

pub use admission::{AdmissionRules, EXPANSION_FREE_BYTES};
pub use header::{FrameHeader, Header};
pub use prewalk::{DEPTH_MAX, ELEMENTS_MAX, SEQUENCE_BYTES_MAX, VALUE_BYTES_MAX, VALUES_MAX};
pub use survey::{Survey, survey};

use admission::Layout;
use frames::Frames;
use part10::Part10;
use prewalk::{PixelData, Walk};

use crate::reject::{RejectCode, Rejection};
use crate::slice::{Facts, Slice, SliceIds, Warning};

/// Turns the bytes of one file into its slices, one for each frame.
///
/// # Errors
/// The reason why the file is refused: it is no DICOM, no CT slice, damaged, or too large for the rules.
pub fn decode(bytes: &[u8], rules: &AdmissionRules) -> Result<Vec<Slice>, Rejection> {
    let part10 = part10::open(bytes, rules)?;
    let walk = prewalk::walk(&part10.data_set, part10.syntax.encoding)?;
    let header = header_of(&part10, &walk)?;
    let pixels = walk.pixels.as_ref().ok_or_else(|| no_pixels(&header))?;
    let layout = layout_of(&part10, &header, rules)?;
    if let PixelData::Encapsulated { fragments, .. } = pixels {
        admission::admit_codestreams(fragments.iter().map(ExactSizeIterator::len).sum(), &layout, rules)?;
    }
    let frames = frames::split(&part10.data_set, pixels, part10.syntax.codec, &layout)?;
    let file = File { part10: &part10, header: &header, layout, rules };
    file.slices(&frames)
}

/// Reads the header without judging it, for people who want to know what a file is.
///
/// # Errors
/// The file is no DICOM, or damaged.
pub fn read_header(bytes: &[u8], rules: &AdmissionRules) -> Result<Header, Rejection> {
    let part10 = part10::open(bytes, rules)?;
    let walk = prewalk::walk(&part10.data_set, part10.syntax.encoding)?;
    header_of(&part10, &walk)
}

/// What routes ask about each frame that the header announces, without decoding one.
///
/// # Errors
/// The file is no DICOM, damaged, or announces more frames than the rules allow.
pub fn read_facts(bytes: &[u8], rules: &AdmissionRules) -> Result<Vec<Facts>, Rejection> {
    let header = read_header(bytes, rules)?;
    let frames = header.frames.and_then(|frames| usize::try_from(frames).ok()).unwrap_or(1);
    if frames > rules.frames_max {
        return Err(Rejection::new(RejectCode::TooManyFrames, format!("{frames} frames")));
    }
    Ok((0..frames.max(1)).map(|index| header.frame(index).facts).collect())
}

/// The header; what the data set lacks is taken from the file meta information.
fn header_of(part10: &Part10<'_>, walk: &Walk) -> Result<Header, Rejection> {
    let mut header = Header::read(&part10.data_set, walk, part10.syntax.encoding, part10.syntax.uid)?;
    if header.is_directory {
        return Err(part10::media_directory());
    }
    if header.sop_class.is_none() && !part10.sop_class.is_empty() {
        header.sop_class = Some(part10.sop_class.clone());
    }
    if header.instance.is_empty() && part10.sop_instance.chars().count() <= header::UID_CHARS_MAX {
        header.instance.clone_from(&part10.sop_instance);
    }
    Ok(header)
}

/// How the pixels of an admitted file lie.
fn layout_of(part10: &Part10<'_>, header: &Header, rules: &AdmissionRules) -> Result<Layout, Rejection> {
    let layout = admission::admit(header, rules)?;
    if layout.bits_allocated == 8 && part10.syntax.encoding.big_endian {
        let sentence = "pixels of 8 bits in a big-endian file are not supported";
        return Err(Rejection::of_tag(RejectCode::BadBits, tags::name(tags::BITS_ALLOCATED), sentence));
    }
    Ok(layout)
}

fn no_pixels(header: &Header) -> Rejection {
    let kind = text::shown(header.modality.as_deref().unwrap_or("unknown modality"));
    let sentence = format!("it holds no pixel data ({kind})");
    Rejection::of_tag(RejectCode::NotAnImage, tags::name(tags::PIXEL_DATA), sentence)
}

/// An admitted file.
struct File<'f> {
    part10: &'f Part10<'f>,
    header: &'f Header,
    layout: Layout,
    rules: &'f AdmissionRules,
}

impl File<'_> {
    fn slices(&self, frames: &Frames<'_>) -> Result<Vec<Slice>, Rejection> {
        // Every frame is judged before the first one is decoded.
        for index in 0..self.layout.frames {
            admission::admit_frame(&self.header.frame(index), self.rules)?;
        }
        frames.frames.iter().enumerate().map(|(index, bytes)| self.slice(index, bytes, frames.n_extra_bytes)).collect()
    }

    fn slice(&self, index: usize, bytes: &[u8], n_extra_bytes: usize) -> Result<Slice, Rejection> {
        let Part10 { syntax, .. } = self.part10;
        let layout = &self.layout;
        let frame = self.header.frame(index);
        let mut rescale = admission::admit_frame(&frame, self.rules)?;
        let cells = codec::decode(syntax.codec, bytes, layout, syntax.encoding.big_endian)?;
        let mut pixels = cells.into_pixels(layout, syntax.lossy);
        let mut padding = stored::padding(self.header.padding, self.header.padding_limit, layout.signed);
        let mut warnings = self.warnings(&frame, n_extra_bytes);
        if self.rules.repair_wrap_12bit && stored::repair_wrap(&mut pixels, layout, &mut rescale, &mut padding) {
            let sentence = "stored values had wrapped around at 12 bits and were repaired; the intercept is now -1000";
            warnings.push(warning("wrap-12bit-repaired", sentence));
        }
        Ok(Slice {
            ids: SliceIds {
                study: self.header.study.clone(),
                series: self.header.series.clone(),
                instance: self.header.instance.clone(),
                frame: layout.is_multi_frame.then(|| u32::try_from(index + 1).unwrap_or(u32::MAX)),
            },
            pixels,
            rows: layout.rows,
            columns: layout.columns,
            bits_stored: layout.bits_stored,
            rescale,
            inverted: layout.inverted,
            padding,
            geometry: frame.geometry,
            facts: frame.facts,
            transfer_syntax: syntax.uid.to_string(),
            warnings,
        })
    }

    fn warnings(&self, frame: &FrameHeader, n_extra_bytes: usize) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if let Some(tilt) = frame.geometry.gantry_tilt.filter(|tilt| *tilt != 0.0) {
            warnings.push(warning("gantry-tilt", &format!("the gantry was tilted by {tilt} degrees")));
        }
        if self.header.lossy || self.part10.syntax.lossy {
            warnings.push(warning("lossy-compression", "the picture was compressed with loss"));
        }
        if n_extra_bytes > 0 {
            let sentence = format!("{n_extra_bytes} bytes behind the pixels were not read");
            warnings.push(warning("extra-pixel-bytes", &sentence));
        }
        warnings
    }
}

fn warning(code: &'static str, sentence: &str) -> Warning {
    Warning { code, sentence: sentence.to_string() }
}
