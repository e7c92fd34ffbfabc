//! The header of a slice: typed values of the wanted elements, for the whole file and for each frame. Reads values,
//! judges nothing.

use std::ops::Range;

use dicom_core::Tag;
use dicom_core::header::HasLength;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries;

use super::prewalk::Walk;
use super::syntax::Encoding;
use super::tags;
use super::text::trimmed;
use crate::reject::{RejectCode, Rejection};
use crate::slice::{Facts, Geometry};

/// Longest identifier that is believed. The standard allows 64 characters.
pub(super) const UID_CHARS_MAX: usize = 128;

/// The wanted elements of a file.
#[derive(Clone, Debug)]
pub struct Header {
    /// UID of the transfer syntax.
    pub transfer_syntax: &'static str,
    /// SOPClassUID of the data set, else that of the file meta information.
    pub sop_class: Option<String>,
    /// SOPInstanceUID of the data set, else that of the file meta information; empty if both lack it.
    pub instance: String,
    /// StudyInstanceUID, empty if missing.
    pub study: String,
    /// SeriesInstanceUID, empty if missing.
    pub series: String,
    /// Modality.
    pub modality: Option<String>,
    /// ImageType, in capitals.
    pub image_type: Vec<String>,
    /// PhotometricInterpretation.
    pub photometric: Option<String>,
    /// SamplesPerPixel.
    pub samples: Option<i64>,
    /// Rows.
    pub rows: Option<i64>,
    /// Columns.
    pub columns: Option<i64>,
    /// NumberOfFrames, if the element is there.
    pub frames: Option<i64>,
    /// BitsAllocated.
    pub bits_allocated: Option<i64>,
    /// BitsStored.
    pub bits_stored: Option<i64>,
    /// HighBit.
    pub high_bit: Option<i64>,
    /// PixelRepresentation: 0 unsigned, 1 signed.
    pub representation: Option<i64>,
    /// PixelPaddingValue, its 16 bits as they stand.
    pub padding: Option<u16>,
    /// PixelPaddingRangeLimit, its 16 bits as they stand.
    pub padding_limit: Option<u16>,
    /// Whether LossyImageCompression is 01.
    pub lossy: bool,
    /// WindowCenter and WindowWidth of the first window, for people only.
    pub window: Option<(f64, f64)>,
    /// Whether a DirectoryRecordSequence is there.
    pub(super) is_directory: bool,
    object: InMemDicomObject,
}

/// What may differ from frame to frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameHeader {
    /// Where the frame lies.
    pub geometry: Geometry,
    /// What routes ask about, without the folder.
    pub facts: Facts,
    /// RescaleSlope as text, if there.
    pub slope: Option<String>,
    /// RescaleIntercept as text, if there.
    pub intercept: Option<String>,
    /// RescaleType.
    pub rescale_type: Option<String>,
    /// FrameType of enhanced CT, in capitals; empty otherwise.
    pub frame_type: Vec<String>,
}

impl Header {
    pub(super) fn read(
        data: &[u8],
        walk: &Walk,
        encoding: Encoding,
        transfer_syntax: &'static str,
    ) -> Result<Header, Rejection> {
        let object = parse(data, walk.elements.iter().map(|(_, range)| range), encoding)?;
        let number = |tag| integer(&object, tag);
        let lossy = text(&object, tags::LOSSY_IMAGE_COMPRESSION);
        let window = numbers(&object, tags::WINDOW_CENTER).zip(numbers(&object, tags::WINDOW_WIDTH));
        Ok(Header {
            transfer_syntax,
            sop_class: text(&object, tags::SOP_CLASS_UID),
            instance: uid(&object, tags::SOP_INSTANCE_UID)?,
            study: uid(&object, tags::STUDY_INSTANCE_UID)?,
            series: uid(&object, tags::SERIES_INSTANCE_UID)?,
            modality: text(&object, tags::MODALITY),
            image_type: capitals(&object, tags::IMAGE_TYPE),
            photometric: text(&object, tags::PHOTOMETRIC_INTERPRETATION),
            samples: number(tags::SAMPLES_PER_PIXEL),
            rows: number(tags::ROWS),
            columns: number(tags::COLUMNS),
            frames: frames(&object)?,
            bits_allocated: number(tags::BITS_ALLOCATED),
            bits_stored: number(tags::BITS_STORED),
            high_bit: number(tags::HIGH_BIT),
            representation: number(tags::PIXEL_REPRESENTATION),
            padding: sixteen_bits(&object, tags::PIXEL_PADDING_VALUE),
            padding_limit: sixteen_bits(&object, tags::PIXEL_PADDING_RANGE_LIMIT),
            lossy: lossy.as_deref() == Some("01"),
            window: window.and_then(|(level, width)| level.first().copied().zip(width.first().copied())),
            is_directory: object.get(tags::DIRECTORY_RECORD_SEQUENCE).is_some(),
            object,
        })
    }

    /// Frame `index` from 0: the functional groups of the frame, else the shared ones, else the top level
    /// (PS3.3 C.7.6.16).
    pub fn frame(&self, index: usize) -> FrameHeader {
        let own = item(&self.object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, index);
        let shared = item(&self.object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0);
        let groups = [own, shared];
        let holders = |group: Tag| -> Vec<&InMemDicomObject> {
            let macros = groups.iter().flatten().filter_map(|holder| item(holder, group, 0));
            macros.chain(std::iter::once(&self.object)).collect()
        };
        let measures = holders(tags::PIXEL_MEASURES_SEQUENCE);
        let position = holders(tags::PLANE_POSITION_SEQUENCE);
        let orientation = holders(tags::PLANE_ORIENTATION_SEQUENCE);
        let transformation = holders(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        let acquisition = holders(tags::CT_ACQUISITION_DETAILS_SEQUENCE);
        let reconstruction = holders(tags::CT_RECONSTRUCTION_SEQUENCE);
        let thickness = first_number(&measures, tags::SLICE_THICKNESS);
        let frame_type =
            groups.iter().flatten().filter_map(|holder| item(holder, tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, 0));
        FrameHeader {
            geometry: Geometry {
                position: array(&position, tags::IMAGE_POSITION_PATIENT),
                orientation: array(&orientation, tags::IMAGE_ORIENTATION_PATIENT),
                pixel_spacing: array(&measures, tags::PIXEL_SPACING),
                thickness,
                gantry_tilt: first_number(&acquisition, tags::GANTRY_DETECTOR_TILT),
                instance_number: integer(&self.object, tags::INSTANCE_NUMBER).and_then(|n| i32::try_from(n).ok()),
            },
            facts: Facts {
                modality: self.modality.clone(),
                body_part: text(&self.object, tags::BODY_PART_EXAMINED),
                manufacturer: text(&self.object, tags::MANUFACTURER),
                station: text(&self.object, tags::STATION_NAME),
                kernel: first_text(&reconstruction, tags::CONVOLUTION_KERNEL),
                priority: text(&self.object, tags::REQUESTED_PROCEDURE_PRIORITY),
                thickness_mm: thickness,
                folder: None,
            },
            slope: first_text(&transformation, tags::RESCALE_SLOPE),
            intercept: first_text(&transformation, tags::RESCALE_INTERCEPT),
            rescale_type: first_text(&transformation, tags::RESCALE_TYPE),
            frame_type: frame_type.map(|holder| capitals(holder, tags::FRAME_TYPE)).next().unwrap_or_default(),
        }
    }
}

/// Hands the wanted elements, one after the other, to the parser of values.
fn parse<'a>(
    data: &[u8],
    ranges: impl Iterator<Item = &'a Range<usize>>,
    encoding: Encoding,
) -> Result<InMemDicomObject, Rejection> {
    let mut wanted = Vec::new();
    for range in ranges {
        wanted.extend_from_slice(data.get(range.clone()).unwrap_or_default());
    }
    let syntax = match (encoding.explicit, encoding.big_endian) {
        (false, _) => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
        (true, false) => entries::EXPLICIT_VR_LITTLE_ENDIAN.erased(),
        (true, true) => entries::EXPLICIT_VR_BIG_ENDIAN.erased(),
    };
    // The parser's own message may quote values, so it is not passed on.
    InMemDicomObject::read_dataset_with_ts(wanted.as_slice(), &syntax)
        .map_err(|_| Rejection::new(RejectCode::Corrupt, "its header cannot be read"))
}

/// Item `index` of a sequence.
fn item(object: &InMemDicomObject, sequence: Tag, index: usize) -> Option<&InMemDicomObject> {
    object.get(sequence)?.value().items()?.get(index)
}

/// The first value as trimmed text; nothing if the element is missing or empty.
fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    texts(object, tag)?.into_iter().next().filter(|text| !text.is_empty())
}

fn texts(object: &InMemDicomObject, tag: Tag) -> Option<Vec<String>> {
    let value = object.get(tag)?.value();
    if value.is_empty() {
        return None;
    }
    let texts = value.to_multi_str().ok()?;
    // A text without a backslash in it may come as one value with backslashes where the VR is unusual.
    Some(texts.iter().flat_map(|text| text.split('\\')).map(|text| trimmed(text).to_string()).collect())
}

fn capitals(object: &InMemDicomObject, tag: Tag) -> Vec<String> {
    texts(object, tag).unwrap_or_default().into_iter().map(|text| text.to_ascii_uppercase()).collect()
}

/// All values as finite numbers; nothing if one of them is none.
fn numbers(object: &InMemDicomObject, tag: Tag) -> Option<Vec<f64>> {
    texts(object, tag)?.iter().map(|text| text.parse().ok().filter(|number: &f64| number.is_finite())).collect()
}

fn integer(object: &InMemDicomObject, tag: Tag) -> Option<i64> {
    text(object, tag)?.parse().ok()
}

/// Absent or empty is one frame that no number is given to; anything that is no number is refused.
fn frames(object: &InMemDicomObject) -> Result<Option<i64>, Rejection> {
    let Some(text) = text(object, tags::NUMBER_OF_FRAMES) else { return Ok(None) };
    let refusal = || Rejection::of_tag(RejectCode::Corrupt, tags::name(tags::NUMBER_OF_FRAMES), "it is not a number");
    text.parse().map(Some).map_err(|_| refusal())
}

/// An identifier, legal or not.
fn uid(object: &InMemDicomObject, tag: Tag) -> Result<String, Rejection> {
    let uid = text(object, tag).unwrap_or_default();
    if uid.chars().count() > UID_CHARS_MAX {
        let sentence = format!("it is longer than {UID_CHARS_MAX} characters");
        return Err(Rejection::of_tag(RejectCode::Corrupt, tags::name(tag), sentence));
    }
    Ok(uid)
}

/// A value of VR US or SS. In implicit VR the parser cannot know which, so only the bits are taken.
fn sixteen_bits(object: &InMemDicomObject, tag: Tag) -> Option<u16> {
    let number = integer(object, tag)?;
    i16::try_from(number).map(|signed| signed as u16).or_else(|_| u16::try_from(number)).ok()
}

/// The first holder that has the element decides, even if its value is unusable.
fn first_texts(holders: &[&InMemDicomObject], tag: Tag) -> Option<Vec<String>> {
    holders.iter().find_map(|holder| texts(holder, tag))
}

fn first_text(holders: &[&InMemDicomObject], tag: Tag) -> Option<String> {
    first_texts(holders, tag)?.into_iter().next().filter(|text| !text.is_empty())
}

fn first_number(holders: &[&InMemDicomObject], tag: Tag) -> Option<f64> {
    first_text(holders, tag)?.parse().ok().filter(|number: &f64| number.is_finite())
}

fn array<const N: usize>(holders: &[&InMemDicomObject], tag: Tag) -> Option<[f64; N]> {
    let texts = first_texts(holders, tag)?;
    let numbers: Option<Vec<f64>> =
        texts.iter().map(|text| text.parse().ok().filter(|number: &f64| number.is_finite())).collect();
    numbers?.try_into().ok()
}
