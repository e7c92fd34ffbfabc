//! Which headers are CT slices: the rules, each of which can be turned off, and the checks that always hold because
//! pixels could not be placed without them. Reads headers, touches no pixel.

use dicom_core::Tag;
use serde::{Deserialize, Serialize};

use super::header::{FrameHeader, Header};
use super::tags;
use super::text::shown;
use crate::reject::{RejectCode, Rejection};
use crate::slice::Rescale;

/// CT, enhanced CT and legacy converted enhanced CT image storage (PS3.4 table B.5-1).
const CT_SOP_CLASSES: &[&str] = &["1.2.840.10008.5.1.4.1.1.2", ENHANCED_CT, "1.2.840.10008.5.1.4.1.1.2.2"];
const ENHANCED_CT: &str = "1.2.840.10008.5.1.4.1.1.2.1";

/// Words from the third value of ImageType on that mark a scout view.
const LOCALIZER_WORDS: &[&str] = &["LOCALIZER", "SCOUT", "TOPOGRAM"];

/// Words from the third value of ImageType on that mark a picture whose numbers are no attenuation of one slice:
/// screens, dose sheets, projections, renderings and perfusion maps.
const DERIVED_WORDS: &[&str] = &[
    "SCREEN SAVE",
    "SCREENSAVE",
    "SCREEN_SAVE",
    "DOSE",
    "DOSE_INFO",
    "DOSE INFO",
    "REPORT",
    "PROTOCOL",
    "MIP",
    "MAX_IP",
    "MAXIMUM",
    "MINIP",
    "MIN_IP",
    "MINIMUM",
    "PROJECTION IMAGE",
    "3D",
    "VRT",
    "VOLREN",
    "VOLUME_RENDER",
    "SURFACE_RENDER",
    "SSD",
    "PERFUSION",
    "RCBF",
    "RCBV",
    "MTT",
    "TTP",
    "TMAX",
    "SUBTRACTION",
    "Z_SCORE",
    "STD_DEVIATION",
];

/// Decoded bytes that any file may have, however small it is: pictures of one value shrink to nothing.
pub const EXPANSION_FREE_BYTES: u64 = 4 << 20;

/// Rescale slopes and intercepts of CT lie far within these.
const SLOPE_MAX: f64 = 1.0e4;
const INTERCEPT_MAX: f64 = 1.0e6;

/// What counts as a slice. Field for field the keys of `admission` in `daemon.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionRules {
    /// Modality must be CT, and the SOP class CT, enhanced CT or legacy converted enhanced CT. Either may be missing
    /// if the other one is there: files of the RSNA 2019 challenge have no SOP class.
    pub require_ct: bool,
    /// Refuses scout views: ImageType says LOCALIZER, SCOUT or TOPOGRAM from its third value on.
    pub reject_localizers: bool,
    /// Refuses derived screens: ImageType names a screen, dose sheet, projection, rendering or perfusion map from its
    /// third value on, or is DERIVED\SECONDARY without being AXIAL. DERIVED\PRIMARY is taken: every slice that was
    /// compressed with loss says so.
    pub reject_derived: bool,
    /// Repairs the wrap-around of some 12-bit unsigned files, where the picture shows it.
    pub repair_wrap_12bit: bool,
    /// Fewest rows and columns.
    pub side_min: usize,
    /// Most rows and columns.
    pub side_max: usize,
    /// Most frames in one file.
    pub frames_max: usize,
    /// Most bytes that a deflated data set, or all decoded frames of a file together, may take.
    pub inflated_bytes_max: u64,
    /// Most decoded bytes for each encoded one, beyond [`EXPANSION_FREE_BYTES`]. Slices of CT shrink to a third without
    /// loss and to a twentieth with it; what grows a hundredfold is no picture.
    pub expansion_max: u64,
}

impl AdmissionRules {
    /// What `encoded` bytes may become.
    pub(super) fn decoded_bytes_max(&self, encoded: usize) -> u64 {
        self.inflated_bytes_max.min(self.expanded(encoded))
    }

    /// The key that sets [`decoded_bytes_max`](Self::decoded_bytes_max), for people.
    pub(super) fn decoded_key(&self, encoded: usize) -> &'static str {
        if self.expanded(encoded) < self.inflated_bytes_max {
            "admission.expansion_max"
        } else {
            "admission.inflated_bytes_max"
        }
    }

    fn expanded(&self, encoded: usize) -> u64 {
        self.expansion_max.saturating_mul(encoded as u64).saturating_add(EXPANSION_FREE_BYTES)
    }
}

impl Default for AdmissionRules {
    fn default() -> Self {
        AdmissionRules {
            require_ct: true,
            reject_localizers: true,
            reject_derived: true,
            repair_wrap_12bit: true,
            side_min: 16,
            side_max: 4096,
            frames_max: 2000,
            inflated_bytes_max: 512 << 20,
            expansion_max: 100,
        }
    }
}

/// How stored values lie in the pixel data; within the limits of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub rows: usize,
    pub columns: usize,
    pub frames: usize,
    /// Frames are numbered in the results.
    pub is_multi_frame: bool,
    /// 8 or 16.
    pub bits_allocated: u16,
    /// 8 to 16, at most `bits_allocated`.
    pub bits_stored: u16,
    /// Unused bits below the stored ones.
    pub shift: u16,
    pub signed: bool,
    /// MONOCHROME1.
    pub inverted: bool,
}

impl Layout {
    /// Values of one frame.
    pub fn n_pixels(&self) -> usize {
        self.rows * self.columns
    }
}

/// Judges a header and says how its pixels lie.
pub(super) fn admit(header: &Header, rules: &AdmissionRules) -> Result<Layout, Rejection> {
    if rules.require_ct {
        check_ct(header)?;
    }
    check_monochrome(header)?;
    check_image_type(&header.image_type, tags::IMAGE_TYPE, rules)?;
    let (rows, columns, frames) = size(header, rules)?;
    let layout = bits(header)?;
    let is_multi_frame = frames > 1 || header.sop_class.as_deref() == Some(ENHANCED_CT);
    Ok(Layout { rows, columns, frames, is_multi_frame, ..layout })
}

/// Judges the size of the picture against that of its codestreams together.
pub(super) fn admit_codestreams(n_bytes: usize, layout: &Layout, rules: &AdmissionRules) -> Result<(), Rejection> {
    // Within the bounds of `size`.
    let decoded = (layout.n_pixels() * layout.frames * 2) as u64;
    if decoded > rules.decoded_bytes_max(n_bytes) {
        let sentence = format!("{n_bytes} bytes cannot hold a picture of {decoded} bytes (admission.expansion_max)");
        return Err(of_tag(RejectCode::TooLarge, tags::PIXEL_DATA, sentence));
    }
    Ok(())
}

/// Judges what may differ from frame to frame, and gives the way from stored values to HU.
pub(super) fn admit_frame(frame: &FrameHeader, rules: &AdmissionRules) -> Result<Rescale, Rejection> {
    check_image_type(&frame.frame_type, tags::FRAME_TYPE, rules)?;
    // US is "unspecified"; many scanners write it although they mean HU.
    if let Some(unit) = frame.rescale_type.as_deref().filter(|unit| !matches!(*unit, "HU" | "US" | "HU_MOD")) {
        let sentence = format!("stored values are rescaled to {}, not to HU", shown(unit));
        return Err(of_tag(RejectCode::BadRescale, tags::RESCALE_TYPE, sentence));
    }
    let slope = rescale_number(frame.slope.as_deref(), 1.0, SLOPE_MAX, tags::RESCALE_SLOPE)?;
    let intercept = rescale_number(frame.intercept.as_deref(), 0.0, INTERCEPT_MAX, tags::RESCALE_INTERCEPT)?;
    if slope == 0.0 {
        return Err(of_tag(RejectCode::BadRescale, tags::RESCALE_SLOPE, "it is zero"));
    }
    Ok(Rescale { slope, intercept })
}

fn rescale_number(text: Option<&str>, missing: f64, max: f64, tag: Tag) -> Result<f64, Rejection> {
    match text.map(str::parse::<f64>) {
        None => Ok(missing),
        Some(Ok(number)) if number.abs() <= max => Ok(number),
        Some(Ok(number)) if number.is_finite() => {
            Err(of_tag(RejectCode::BadRescale, tag, format!("{number:e} is beyond anything that CT needs")))
        }
        Some(_) => Err(of_tag(RejectCode::BadRescale, tag, "it is not a number")),
    }
}

fn check_ct(header: &Header) -> Result<(), Rejection> {
    let class = header.sop_class.as_deref();
    match header.modality.as_deref() {
        Some("CT") => {}
        Some(other) => {
            let sentence = format!("modality is {}, not CT", shown(other));
            return Err(of_tag(RejectCode::WrongModality, tags::MODALITY, sentence));
        }
        None if class.is_none() => {
            return Err(of_tag(RejectCode::WrongModality, tags::MODALITY, "neither modality nor SOP class says CT"));
        }
        None => {}
    }
    match class {
        Some(class) if !CT_SOP_CLASSES.contains(&class) => {
            let sentence = format!("SOP class {} is neither CT nor enhanced CT", shown(class));
            Err(of_tag(RejectCode::WrongSopClass, tags::SOP_CLASS_UID, sentence))
        }
        _ => Ok(()),
    }
}

fn check_monochrome(header: &Header) -> Result<(), Rejection> {
    if let Some(samples) = header.samples.filter(|samples| *samples != 1) {
        let sentence = format!("{samples} samples per pixel; one is needed");
        return Err(of_tag(RejectCode::NotMonochrome, tags::SAMPLES_PER_PIXEL, sentence));
    }
    match header.photometric.as_deref() {
        Some("MONOCHROME1" | "MONOCHROME2") => Ok(()),
        Some(other) => {
            let sentence = format!("photometric interpretation is {}", shown(other));
            Err(of_tag(RejectCode::NotMonochrome, tags::PHOTOMETRIC_INTERPRETATION, sentence))
        }
        None => Err(missing(tags::PHOTOMETRIC_INTERPRETATION)),
    }
}

fn check_image_type(values: &[String], tag: Tag, rules: &AdmissionRules) -> Result<(), Rejection> {
    let flavors = values.get(2..).unwrap_or_default();
    let one_of = |words: &[&str]| flavors.iter().find(|flavor| words.contains(&flavor.as_str()));
    if rules.reject_localizers
        && let Some(word) = one_of(LOCALIZER_WORDS)
    {
        return Err(of_tag(RejectCode::Localizer, tag, format!("it is a scout view ({})", shown(word))));
    }
    if !rules.reject_derived {
        return Ok(());
    }
    if let Some(word) = one_of(DERIVED_WORDS) {
        return Err(of_tag(RejectCode::Derived, tag, format!("it is no plain slice ({})", shown(word))));
    }
    match values {
        [pixels, patient, rest @ ..]
            if pixels == "DERIVED" && patient == "SECONDARY" && rest.first().is_none_or(|flavor| flavor != "AXIAL") =>
        {
            Err(of_tag(RejectCode::Derived, tag, "it is a secondary derived picture and not axial"))
        }
        _ => Ok(()),
    }
}

/// Rows, columns and frames.
fn size(header: &Header, rules: &AdmissionRules) -> Result<(usize, usize, usize), Rejection> {
    let side = |value: Option<i64>, tag: Tag| {
        let value = value.ok_or_else(|| of_tag(RejectCode::BadSize, tag, "it is missing or not a number"))?;
        let side = usize::try_from(value).ok().filter(|side| (rules.side_min..=rules.side_max).contains(side));
        side.filter(|side| *side > 0).ok_or_else(|| {
            let sentence = format!("{value} is outside {} to {}", rules.side_min, rules.side_max);
            of_tag(RejectCode::BadSize, tag, sentence)
        })
    };
    let rows = side(header.rows, tags::ROWS)?;
    let columns = side(header.columns, tags::COLUMNS)?;
    let announced = header.frames.unwrap_or(1);
    let frames = match usize::try_from(announced) {
        Ok(frames) if frames > rules.frames_max => {
            let sentence = format!("{frames} frames; at most {} are read", rules.frames_max);
            return Err(of_tag(RejectCode::TooManyFrames, tags::NUMBER_OF_FRAMES, sentence));
        }
        Ok(frames) if frames > 0 => frames,
        _ => return Err(of_tag(RejectCode::BadSize, tags::NUMBER_OF_FRAMES, format!("{announced} frames"))),
    };
    let bytes =
        [columns, frames, 2].iter().try_fold(rows as u64, |product, factor| product.checked_mul(*factor as u64));
    if bytes.is_none_or(|bytes| bytes > rules.inflated_bytes_max) {
        let max = rules.inflated_bytes_max;
        let sentence =
            format!("{frames} frames of {rows} x {columns} take more than {max} bytes (admission.inflated_bytes_max)");
        return Err(Rejection::new(RejectCode::TooLarge, sentence));
    }
    Ok((rows, columns, frames))
}

/// How the bits of a stored value lie; sizes are left at zero.
fn bits(header: &Header) -> Result<Layout, Rejection> {
    let allocated = header.bits_allocated.ok_or_else(|| missing(tags::BITS_ALLOCATED))?;
    let stored = header.bits_stored.ok_or_else(|| missing(tags::BITS_STORED))?;
    let representation = header.representation.ok_or_else(|| missing(tags::PIXEL_REPRESENTATION))?;
    let high = header.high_bit.unwrap_or(stored.saturating_sub(1));
    if !matches!(allocated, 8 | 16) {
        return Err(of_tag(RejectCode::BadBits, tags::BITS_ALLOCATED, format!("{allocated}; 8 or 16 are read")));
    }
    if !(8..=allocated).contains(&stored) {
        let sentence = format!("{stored} of {allocated} bits; 8 to {allocated} are read");
        return Err(of_tag(RejectCode::BadBits, tags::BITS_STORED, sentence));
    }
    if !(stored - 1..allocated).contains(&high) {
        let sentence = format!("{high} does not fit {stored} stored bits of {allocated}");
        return Err(of_tag(RejectCode::BadBits, tags::HIGH_BIT, sentence));
    }
    if !matches!(representation, 0 | 1) {
        let sentence = format!("{representation} is neither 0 nor 1");
        return Err(of_tag(RejectCode::BadBits, tags::PIXEL_REPRESENTATION, sentence));
    }
    Ok(Layout {
        rows: 0,
        columns: 0,
        frames: 0,
        is_multi_frame: false,
        bits_allocated: allocated as u16,
        bits_stored: stored as u16,
        shift: (high + 1 - stored) as u16,
        signed: representation == 1,
        inverted: header.photometric.as_deref() == Some("MONOCHROME1"),
    })
}

fn missing(tag: Tag) -> Rejection {
    of_tag(RejectCode::MissingTag, tag, "it is missing or empty")
}

fn of_tag(code: RejectCode, tag: Tag, sentence: impl Into<String>) -> Rejection {
    Rejection::of_tag(code, tags::name(tag), sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(image_type: &str) -> Option<RejectCode> {
        let values: Vec<String> = image_type.split('\\').map(str::to_string).collect();
        check_image_type(&values, tags::IMAGE_TYPE, &AdmissionRules::default()).err().map(|rejection| rejection.code)
    }

    #[test]
    fn image_types_are_told_apart() {
        for taken in [
            "",
            "ORIGINAL\\PRIMARY\\AXIAL",
            "DERIVED\\PRIMARY\\AXIAL",
            "ORIGINAL\\SECONDARY\\AXIAL",
            "DERIVED\\SECONDARY\\AXIAL",
            "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI",
            "ORIGINAL\\PRIMARY",
        ] {
            assert_eq!(judge(taken), None, "{taken}");
        }
        assert_eq!(judge("ORIGINAL\\PRIMARY\\LOCALIZER"), Some(RejectCode::Localizer));
        assert_eq!(judge("ORIGINAL\\PRIMARY\\LOCALIZER\\CT_SOM5 TOP"), Some(RejectCode::Localizer));
        for refused in [
            "DERIVED\\SECONDARY",
            "DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE",
            "DERIVED\\SECONDARY\\OTHER",
            "DERIVED\\PRIMARY\\PERFUSION\\RCBF",
            "ORIGINAL\\SECONDARY\\SCREEN SAVE",
            "DERIVED\\PRIMARY\\AXIAL\\MIP",
        ] {
            assert_eq!(judge(refused), Some(RejectCode::Derived), "{refused}");
        }
    }

    #[test]
    fn rescale_is_finite_and_not_zero() {
        let rescale = |slope: Option<&str>, intercept: Option<&str>| {
            let frame = FrameHeader {
                slope: slope.map(str::to_string),
                intercept: intercept.map(str::to_string),
                ..FrameHeader::default()
            };
            admit_frame(&frame, &AdmissionRules::default()).map_err(|rejection| rejection.code)
        };
        assert_eq!(rescale(None, None), Ok(Rescale { slope: 1.0, intercept: 0.0 }));
        assert_eq!(rescale(Some("-2.5e0"), Some("-1024")), Ok(Rescale { slope: -2.5, intercept: -1024.0 }));
        for bad in ["0", "-0.0", "NaN", "inf", "1e300", "one", "1,5"] {
            assert_eq!(rescale(Some(bad), None), Err(RejectCode::BadRescale), "{bad}");
        }
        for bad in ["NaN", "-inf", "1e9", "x"] {
            assert_eq!(rescale(None, Some(bad)), Err(RejectCode::BadRescale), "{bad}");
        }
    }
}
