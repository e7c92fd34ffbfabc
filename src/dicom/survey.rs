//! What can be known of a file from its beginning: who it is, whose it is, whether its slice could be decoded as far as
//! the header tells. Reads no pixel. Knows no label.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::admission::{self, AdmissionRules};
use super::frames;
use super::part10::{self, Part10};
use super::prewalk::{self, Walk};
use super::syntax::Codec;
use super::tags;
use super::{header_of, layout_of, no_pixels};
use crate::reject::{RejectCode, Rejection};
use crate::slice::Geometry;

/// A file that would be admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// SOPInstanceUID, empty if missing.
    pub instance: String,
    /// StudyInstanceUID, empty if missing.
    pub study: String,
    /// SeriesInstanceUID, empty if missing.
    pub series: String,
    /// SHA-256 of PatientID without the blanks around it; nothing if it is missing or empty. The identifier itself is not kept.
    pub patient_sha256: Option<[u8; 32]>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Frames.
    pub frames: usize,
    /// Where the first frame lies.
    pub geometry: Geometry,
}

/// Judges a file of `file_bytes` bytes by its first bytes. `None` asks for more of them; it is never the answer to a whole file.
///
/// # Errors
/// The reason why the file is refused, as [`super::decode`] would give it, except for what only the pixels tell.
pub fn survey(start: &[u8], file_bytes: u64, rules: &AdmissionRules) -> Result<Option<Survey>, Rejection> {
    let whole = start.len() as u64 >= file_bytes;
    match survey_start(start, file_bytes, rules) {
        Err(rejection) if !whole && may_lack_bytes(rejection.code, start.len()) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a refusal may only mean that what is missing was not read yet.
fn may_lack_bytes(code: RejectCode, n_read: usize) -> bool {
    match code {
        RejectCode::Truncated | RejectCode::Corrupt | RejectCode::NotAnImage | RejectCode::Empty => true,
        RejectCode::NotDicom => n_read < part10::MARK_END,
        _ => false,
    }
}

fn survey_start(start: &[u8], file_bytes: u64, rules: &AdmissionRules) -> Result<Survey, Rejection> {
    let part10 = part10::open(start, rules)?;
    let walk = prewalk::walk_header(&part10.data_set, part10.syntax.encoding)?;
    let header = header_of(&part10, &walk)?;
    if walk.announced.is_none() {
        return Err(no_pixels(&header));
    }
    let layout = layout_of(&part10, &header, rules)?;
    check_pixels(&part10, &walk, &layout, start.len(), file_bytes)?;
    for index in 0..layout.frames {
        admission::admit_frame(&header.frame(index), rules)?;
    }
    Ok(Survey {
        patient_sha256: patient(&part10, &walk),
        rows: layout.rows,
        columns: layout.columns,
        frames: layout.frames,
        geometry: header.frame(0).geometry,
        instance: header.instance,
        study: header.study,
        series: header.series,
    })
}

/// Judges the announced size of the pixel data: against what the header asks for, and against the file.
fn check_pixels(
    part10: &Part10<'_>,
    walk: &Walk,
    layout: &admission::Layout,
    n_read: usize,
    file_bytes: u64,
) -> Result<(), Rejection> {
    let Some(announced) = walk.announced else { return Ok(()) };
    let Some(length) = announced.length else {
        return if part10.syntax.codec == Codec::Native { Err(frames::wrong_coding()) } else { Ok(()) };
    };
    if part10.syntax.codec != Codec::Native {
        return Err(frames::wrong_coding());
    }
    let n_data = part10.data_set.len();
    let data_bytes = match part10.data_set {
        // An inflated data set is there as a whole.
        Cow::Owned(_) => n_data as u64,
        Cow::Borrowed(_) => file_bytes.saturating_sub((n_read - n_data) as u64),
    };
    let left = data_bytes.saturating_sub(announced.start as u64);
    if u64::from(length) > left {
        let sentence = format!("announces {length} bytes, but only {left} are left");
        return Err(Rejection::of_tag(RejectCode::Truncated, tags::name(tags::PIXEL_DATA), sentence));
    }
    frames::check_native(usize::try_from(length).unwrap_or(usize::MAX), layout).map(drop)
}

fn patient(part10: &Part10<'_>, walk: &Walk) -> Option<[u8; 32]> {
    let value = part10.data_set.get(walk.patient.clone()?)?;
    let blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let first = value.iter().position(|byte| !blank(byte))?;
    let last = value.iter().rposition(|byte| !blank(byte))?;
    Some(Sha256::digest(&value[first..=last]).into())
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

    use super::super::decode;
    use super::*;

    const SIDE: u16 = 64;

    fn file(syntax: &str, change: impl Fn(&mut InMemDicomObject)) -> Vec<u8> {
        let mut object = InMemDicomObject::new_empty();
        let text = |object: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str| {
            object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
        };
        text(&mut object, tags::MODALITY, VR::CS, "CT");
        text(&mut object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        text(&mut object, tags::SOP_INSTANCE_UID, VR::UI, "ID_1");
        text(&mut object, tags::STUDY_INSTANCE_UID, VR::UI, "ID_2");
        text(&mut object, tags::PATIENT_ID, VR::LO, " SECRET");
        text(&mut object, tags::IMAGE_POSITION_PATIENT, VR::DS, "1\\2\\3");
        for (tag, number) in [
            (tags::SAMPLES_PER_PIXEL, 1),
            (tags::ROWS, SIDE),
            (tags::COLUMNS, SIDE),
            (tags::BITS_ALLOCATED, 16),
            (tags::BITS_STORED, 16),
            (tags::HIGH_BIT, 15),
            (tags::PIXEL_REPRESENTATION, 1),
        ] {
            object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(number)));
        }
        let words = vec![0u16; usize::from(SIDE) * usize::from(SIDE)];
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
        change(&mut object);
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(syntax)
            .media_storage_sop_class_uid("1.2.840.10008.5.1.4.1.1.2")
            .media_storage_sop_instance_uid("ID_1");
        let mut bytes = Vec::new();
        object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
        bytes
    }

    fn whole(bytes: &[u8]) -> Result<Option<Survey>, Rejection> {
        survey(bytes, bytes.len() as u64, &AdmissionRules::default())
    }

    #[test]
    fn every_beginning_gives_the_same_answer_or_asks_for_more() {
        for syntax in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"] {
            let bytes = file(syntax, |_| {});
            let expected = whole(&bytes).unwrap().unwrap();
            assert_eq!((expected.rows, expected.columns, expected.frames), (64, 64, 1));
            assert_eq!((expected.instance.as_str(), expected.study.as_str()), ("ID_1", "ID_2"));
            assert_eq!(expected.geometry.position, Some([1.0, 2.0, 3.0]));
            let digest: [u8; 32] = Sha256::digest(b"SECRET").into();
            assert_eq!(expected.patient_sha256, Some(digest));
            assert!(!format!("{expected:?}").contains("SECRET"));
            let pixels_at = bytes.len() - 2 * usize::from(SIDE * SIDE);
            for n_read in 0..bytes.len() {
                let answer = survey(&bytes[..n_read], bytes.len() as u64, &AdmissionRules::default());
                let expected = (n_read >= pixels_at).then(|| expected.clone());
                assert_eq!(answer, Ok(expected), "{n_read}");
            }
        }
    }

    #[test]
    fn what_decoding_would_refuse_by_the_header_is_refused() {
        let syntax = "1.2.840.10008.1.2.1";
        let put = |tag: Tag, vr: VR, value: PrimitiveValue| {
            file(syntax, move |object| {
                object.put(DataElement::new(tag, vr, value.clone()));
            })
        };
        let mut cut = file(syntax, |_| {});
        cut.truncate(cut.len() - 10);
        let files = [
            put(tags::ROWS, VR::US, 65u16.into()),
            put(tags::MODALITY, VR::CS, "MR".into()),
            put(tags::RESCALE_SLOPE, VR::DS, "0".into()),
            file(syntax, |object| {
                object.remove_element(tags::PIXEL_DATA);
            }),
            cut[..100].to_vec(),
            cut.clone(),
            Vec::new(),
        ];
        for bytes in &files {
            let expected = decode(bytes, &AdmissionRules::default()).map(drop);
            assert!(expected.is_err());
            assert_eq!(whole(bytes).map(drop), expected);
        }
        assert_eq!(whole(&files[0]).unwrap_err().code, RejectCode::ShortPixels);
        let no_patient = put(tags::PATIENT_ID, VR::LO, " ".into());
        assert_eq!(whole(&no_patient).unwrap().unwrap().patient_sha256, None);
    }
}
