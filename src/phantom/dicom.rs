//! A phantom slice as the bytes of a DICOM file. Knows no anatomy.

use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ichd_plugin::label::Label;
use sha2::{Digest, Sha256};

use super::render::{PADDING_HU, Study};
use super::{PhantomError, PhantomOptions};

/// Identifiers of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// StudyInstanceUID.
    pub study: String,
    /// SeriesInstanceUID.
    pub series: String,
    /// SOPInstanceUID, which is also the file's stem.
    pub instance: String,
    /// PatientID.
    pub patient: String,
}

/// Stored value = HU - INTERCEPT.
const INTERCEPT: i16 = -1024;

/// Identifiers of slice `slice_idx`. They follow from the seed and everything else that makes the picture.
pub fn ids(options: &PhantomOptions, study: &Study, slice_idx: usize) -> Ids {
    let subtypes: Vec<&str> = options.subtypes.iter().map(|label| Label::name(*label)).collect();
    let world = format!("{} {} {:?} {} {subtypes:?}", options.seed, options.side, options.slices, options.bleed_share);
    let make = |kind: &str, number: String| {
        let digest = Sha256::digest(format!("ichd phantom {world} {kind} {number}").as_bytes());
        let mut bits = [0u8; 16];
        bits.copy_from_slice(&digest[..16]);
        let number = u128::from_be_bytes(bits);
        // UIDs from random numbers: PS3.5 B.2. RSNA's are not legal.
        if options.rsna_style { format!("ID_{:09x}", number >> 92) } else { format!("2.25.{number}") }
    };
    // One patient in four has a second study.
    let patient = study.idx - usize::from(study.idx % 4 == 3);
    Ids {
        study: make("study", study.idx.to_string()),
        series: make("series", study.idx.to_string()),
        instance: make("instance", format!("{}/{slice_idx}", study.idx)),
        patient: if options.rsna_style {
            make("patient", patient.to_string())
        } else {
            format!("PHANTOM-{patient:05}")
        },
    }
}

/// The file of slice `slice_idx`: Explicit VR Little Endian, 16 bits signed.
///
/// # Errors
/// The DICOM library refuses, which is a bug.
pub fn encode(options: &PhantomOptions, study: &Study, slice_idx: usize, hu: &[i16]) -> Result<Vec<u8>, PhantomError> {
    let ids = ids(options, study, slice_idx);
    let mut object = InMemDicomObject::new_empty();
    put_image(&mut object, options.side, hu);
    put_identity(&mut object, &ids);
    put_geometry(&mut object, study, slice_idx);
    if !options.rsna_style {
        put_scanner(&mut object, study, slice_idx, &ids);
    }
    let fail = |error: &dyn std::fmt::Display| PhantomError::Encode(error.to_string());
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid(&ids.instance);
    let file = object.with_meta(meta).map_err(|error| fail(&error))?;
    let mut bytes = Vec::new();
    file.write_all(&mut bytes).map_err(|error| fail(&error))?;
    Ok(bytes)
}

fn text(object: &mut InMemDicomObject, tag: dicom_core::Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}

fn number(object: &mut InMemDicomObject, tag: dicom_core::Tag, value: u16) {
    object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
}

fn put_image(object: &mut InMemDicomObject, side: usize, hu: &[i16]) {
    let side = side as u16;
    let stored: Vec<i16> = hu.iter().map(|hu| if *hu == PADDING_HU { PADDING_HU } else { hu - INTERCEPT }).collect();
    text(object, tags::MODALITY, VR::CS, "CT");
    text(object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    number(object, tags::SAMPLES_PER_PIXEL, 1);
    number(object, tags::ROWS, side);
    number(object, tags::COLUMNS, side);
    number(object, tags::BITS_ALLOCATED, 16);
    number(object, tags::BITS_STORED, 16);
    number(object, tags::HIGH_BIT, 15);
    number(object, tags::PIXEL_REPRESENTATION, 1);
    object.put(DataElement::new(tags::PIXEL_PADDING_VALUE, VR::SS, dicom_value!(I16, [PADDING_HU])));
    text(object, tags::WINDOW_CENTER, VR::DS, "40");
    text(object, tags::WINDOW_WIDTH, VR::DS, "80");
    text(object, tags::RESCALE_INTERCEPT, VR::DS, &INTERCEPT.to_string());
    text(object, tags::RESCALE_SLOPE, VR::DS, "1");
    let words: Vec<u16> = stored.iter().map(|value| *value as u16).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
}

fn put_identity(object: &mut InMemDicomObject, ids: &Ids) {
    text(object, tags::SOP_INSTANCE_UID, VR::UI, &ids.instance);
    text(object, tags::STUDY_INSTANCE_UID, VR::UI, &ids.study);
    text(object, tags::SERIES_INSTANCE_UID, VR::UI, &ids.series);
    text(object, tags::PATIENT_ID, VR::LO, &ids.patient);
    text(object, tags::STUDY_ID, VR::SH, "");
}

/// Decimal strings have at most 16 characters (PS3.5 6.2).
fn decimals(values: &[f32]) -> String {
    let parts: Vec<String> = values.iter().map(|value| format!("{value:.6}")).collect();
    parts.join("\\")
}

fn put_geometry(object: &mut InMemDicomObject, study: &Study, slice_idx: usize) {
    let (position, down) = study.geometry(slice_idx);
    text(object, tags::IMAGE_POSITION_PATIENT, VR::DS, &decimals(&position));
    text(object, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &decimals(&[1.0, 0.0, 0.0, down[0], down[1], down[2]]));
    text(object, tags::PIXEL_SPACING, VR::DS, &decimals(&[study.pixel_mm, study.pixel_mm]));
}

fn put_scanner(object: &mut InMemDicomObject, study: &Study, slice_idx: usize, ids: &Ids) {
    text(object, tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
    text(object, tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL");
    text(object, tags::MANUFACTURER, VR::LO, "ichd phantom");
    text(object, tags::BODY_PART_EXAMINED, VR::CS, "HEAD");
    text(object, tags::STUDY_DESCRIPTION, VR::LO, "Synthetic head, no patient");
    text(object, tags::PATIENT_NAME, VR::PN, &format!("{}^SYNTHETIC", ids.patient));
    text(object, tags::SLICE_THICKNESS, VR::DS, &decimals(&[study.spacing_mm]));
    text(object, tags::KVP, VR::DS, "120");
    text(object, tags::GANTRY_DETECTOR_TILT, VR::DS, &decimals(&[study.tilt_deg]));
    text(object, tags::INSTANCE_NUMBER, VR::IS, &(slice_idx + 1).to_string());
    text(object, tags::SERIES_NUMBER, VR::IS, "2");
    text(object, tags::RESCALE_TYPE, VR::LO, "HU");
}
