//! A slice and its parts: the nouns of the pipeline. Knows no file's content, no DICOM and no device.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// One decoded CT slice.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Who it is.
    pub ids: SliceIds,
    /// Stored values, row by row, `rows * columns` of them.
    pub pixels: Pixels,
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
    /// BitsStored (0028,0101).
    pub bits_stored: u16,
    /// From stored values to HU.
    pub rescale: Rescale,
    /// MONOCHROME1: the lowest stored value is meant to look white, so values are inverted within the stored bits.
    pub inverted: bool,
    /// Stored values that mean "no data here"; they are taken as air.
    pub padding: Option<RangeInclusive<i32>>,
    /// Where the slice lies in the patient.
    pub geometry: Geometry,
    /// What routes ask about.
    pub facts: Facts,
    /// UID of the transfer syntax it was stored in.
    pub transfer_syntax: String,
    /// What a reader of the result should know.
    pub warnings: Vec<Warning>,
}

/// Identifiers as they stand in the file: untrusted text, never used as a path without a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceIds {
    /// StudyInstanceUID (0020,000D).
    pub study: String,
    /// SeriesInstanceUID (0020,000E).
    pub series: String,
    /// SOPInstanceUID (0008,0018).
    pub instance: String,
    /// Frame number from 1, of a multi-frame instance only.
    pub frame: Option<u32>,
}

/// Stored values as they come from the decoder: sign and width of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Signed.
    I16(Vec<i16>),
    /// Unsigned.
    U16(Vec<u16>),
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Pixels::I16(values) => values.len(),
            Pixels::U16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index`, widened.
    pub fn get(&self, index: usize) -> i32 {
        match self {
            Pixels::I16(values) => values[index].into(),
            Pixels::U16(values) => values[index].into(),
        }
    }
}

/// HU = slope * stored + intercept (PS3.3 C.11.1.1.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// RescaleSlope (0028,1053).
    pub slope: f64,
    /// RescaleIntercept (0028,1052).
    pub intercept: f64,
}

/// Position and orientation (PS3.3 C.7.6.2), in millimetres.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Geometry {
    /// ImagePositionPatient (0020,0032).
    pub position: Option<[f64; 3]>,
    /// ImageOrientationPatient (0020,0037): direction of a row, then of a column.
    pub orientation: Option<[f64; 6]>,
    /// PixelSpacing (0028,0030): between rows, between columns.
    pub pixel_spacing: Option<[f64; 2]>,
    /// SliceThickness (0018,0050).
    pub thickness: Option<f64>,
    /// GantryDetectorTilt (0018,1120), degrees.
    pub gantry_tilt: Option<f64>,
    /// InstanceNumber (0020,0013).
    pub instance_number: Option<i32>,
}

/// What a route may ask about a slice: how and where it was made, never of whom. Untrusted text as it stands in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Modality (0008,0060).
    pub modality: Option<String>,
    /// BodyPartExamined (0018,0015).
    pub body_part: Option<String>,
    /// Manufacturer (0008,0070).
    pub manufacturer: Option<String>,
    /// StationName (0008,1010).
    pub station: Option<String>,
    /// ConvolutionKernel (0018,1210), its first value.
    pub kernel: Option<String>,
    /// RequestedProcedurePriority (0040,1003): STAT, HIGH, ROUTINE, MEDIUM or LOW.
    pub priority: Option<String>,
    /// SliceThickness (0018,0050) in millimetres.
    pub thickness_mm: Option<f64>,
    /// Folder below the inbox, with `/` between its parts and empty for the inbox itself; not known for a file that
    /// does not lie there. The reader of DICOM leaves it out.
    pub folder: Option<String>,
}

/// The folder of a file below the first of `roots` that it lies in, with `/` between its parts.
pub fn folder_below(roots: &[PathBuf], file: &Path) -> Option<String> {
    let below = roots.iter().find_map(|root| file.parent()?.strip_prefix(root).ok())?;
    let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    Some(parts.join("/"))
}

/// Something unusual that did not stop the slice: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Stable word, such as `gantry-tilt`.
    pub code: &'static str,
    /// One sentence without patient data.
    pub sentence: String,
}

impl Slice {
    /// The stored value that `index` shows once MONOCHROME1 is undone.
    pub fn upright_stored(&self, index: usize) -> i32 {
        let stored = self.pixels.get(index);
        if self.inverted { self.invert(stored) } else { stored }
    }

    /// Mirrors a value within the range of the stored bits.
    fn invert(&self, stored: i32) -> i32 {
        match self.pixels {
            Pixels::I16(_) => -1 - stored,
            Pixels::U16(_) => ((1i32 << self.bits_stored) - 1) - stored,
        }
    }

    /// HU of pixel `index`, padding included as stored.
    pub fn hu(&self, index: usize) -> f64 {
        self.rescale.slope * f64::from(self.upright_stored(index)) + self.rescale.intercept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_told_from_the_root_that_holds_the_file() {
        let roots = [PathBuf::from("/in"), PathBuf::from("more")];
        let folder = |file: &str| folder_below(&roots, Path::new(file));
        assert_eq!(folder("/in/er/a/x.dcm").as_deref(), Some("er/a"));
        assert_eq!(folder("/in/x.dcm").as_deref(), Some(""));
        assert_eq!(folder("more/b/x.dcm").as_deref(), Some("b"));
        assert_eq!(folder("/inner/x.dcm"), None);
    }
}
