//! The attributes that a slice is made of, and how they are named to people. Knows no file.

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::header::VR;
use dicom_dictionary_std::StandardDataDictionary;
pub(super) use dicom_dictionary_std::tags::*;

/// Attributes that are read from the top level of a data set. Whatever else a file holds is skipped.
const WANTED: &[Tag] = &[
    DIRECTORY_RECORD_SEQUENCE,
    IMAGE_TYPE,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    MODALITY,
    MANUFACTURER,
    STATION_NAME,
    BODY_PART_EXAMINED,
    SLICE_THICKNESS,
    GANTRY_DETECTOR_TILT,
    CONVOLUTION_KERNEL,
    STUDY_INSTANCE_UID,
    SERIES_INSTANCE_UID,
    INSTANCE_NUMBER,
    IMAGE_POSITION_PATIENT,
    IMAGE_ORIENTATION_PATIENT,
    SAMPLES_PER_PIXEL,
    PHOTOMETRIC_INTERPRETATION,
    NUMBER_OF_FRAMES,
    ROWS,
    COLUMNS,
    PIXEL_SPACING,
    BITS_ALLOCATED,
    BITS_STORED,
    HIGH_BIT,
    PIXEL_REPRESENTATION,
    PIXEL_PADDING_VALUE,
    PIXEL_PADDING_RANGE_LIMIT,
    WINDOW_CENTER,
    WINDOW_WIDTH,
    RESCALE_INTERCEPT,
    RESCALE_SLOPE,
    RESCALE_TYPE,
    LOSSY_IMAGE_COMPRESSION,
    REQUESTED_PROCEDURE_PRIORITY,
    SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
];

/// Whether the attribute is read from the top level.
pub(super) fn is_wanted(tag: Tag) -> bool {
    WANTED.contains(&tag)
}

/// Whether the attribute is read from the functional groups of frames.
pub(super) fn is_read_in_groups(tag: Tag) -> bool {
    tag == FRAME_TYPE || is_wanted(tag)
}

/// Whether the standard says that the attribute is a sequence; needed where the VR does not stand in the file.
pub(super) fn is_sequence(tag: Tag) -> bool {
    StandardDataDictionary.by_tag(tag).is_some_and(|entry| entry.vr().relaxed() == VR::SQ)
}

/// Bytes of one value of the attribute, 1 if its values are text. The VR is that of the file, else the standard's.
pub(super) fn unit_bytes(tag: Tag, vr: Option<[u8; 2]>) -> usize {
    let vr = match vr {
        Some(vr) => VR::from_binary(vr),
        None => StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed()),
    };
    match vr {
        Some(VR::US | VR::SS | VR::OW) => 2,
        Some(VR::AT | VR::UL | VR::SL | VR::FL | VR::OF | VR::OL) => 4,
        Some(VR::FD | VR::OD | VR::OV | VR::SV | VR::UV) => 8,
        _ => 1,
    }
}

/// The tag as people know it: `(7FE0,0010) PixelData`.
pub(super) fn name(tag: Tag) -> String {
    match StandardDataDictionary.by_tag(tag) {
        Some(entry) => format!("({:04X},{:04X}) {}", tag.group(), tag.element(), entry.alias()),
        None => format!("({:04X},{:04X})", tag.group(), tag.element()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_carry_their_keyword_where_they_have_one() {
        assert_eq!(name(PIXEL_DATA), "(7FE0,0010) PixelData");
        assert_eq!(name(Tag(0x0009, 0x1001)), "(0009,1001)");
    }

    #[test]
    fn sequences_are_known_by_the_dictionary() {
        assert!(is_sequence(PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE));
        assert!(!is_sequence(ROWS));
        assert!(!is_sequence(Tag(0x0009, 0x1001)));
    }
}
