//! Real files: `manifest.csv` of the samples says what they hold and what is expected. Where the samples are not at
//! hand these tests say so and pass.

use std::path::PathBuf;

use ichd::dicom::{AdmissionRules, decode, read_header};
use ichd::reject::RejectCode;

use super::{cells, decode_default, figures, only, stored_digest, warnings};

struct Sample {
    file: String,
    class: String,
    /// Minimum, maximum, mean, center; what the manifest's other programs found.
    hu: Option<[f64; 4]>,
    bytes: Vec<u8>,
}

/// The samples of a class, or nothing with a line that says so.
fn samples(class: &str) -> Vec<Sample> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/dicom-samples");
    let Ok(manifest) = std::fs::read_to_string(dir.join("manifest.csv")) else {
        eprintln!("skipped: the DICOM samples are not at hand ({})", dir.display());
        return Vec::new();
    };
    let column = |name: &str| cells(manifest.lines().next().unwrap()).iter().position(|cell| cell == name).unwrap();
    let (file, group, figures) = (column("file"), column("class"), column("hu_min_max_mean_centre"));
    let read = |line: &str| {
        let cells = cells(line);
        let numbers: Option<Vec<f64>> = cells[figures].split(" / ").map(|cell| cell.parse().ok()).collect();
        Sample {
            bytes: std::fs::read(dir.join(&cells[file])).unwrap(),
            hu: numbers.and_then(|numbers| numbers.try_into().ok()),
            file: cells[file].clone(),
            class: cells[group].clone(),
        }
    };
    let samples: Vec<Sample> = manifest.lines().skip(1).map(read).filter(|sample| sample.class == class).collect();
    assert!(!samples.is_empty(), "the manifest has no class {class}");
    samples
}

#[test]
fn usable_samples_have_the_hu_of_the_manifest() {
    for sample in samples("usable") {
        let found = figures(&only(&sample.bytes));
        let expected = sample.hu.unwrap();
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let allowed = if index == 2 { 5.1e-4 } else { 0.0 };
            assert!((found - expected).abs() <= allowed, "{}: {found} is not {expected}", sample.file);
        }
    }
}

#[test]
fn lossless_samples_of_one_slice_hold_the_same_stored_values() {
    let samples = samples("usable");
    let lossless = |sample: &&Sample| {
        sample.file.starts_with("ct_") && !sample.file.contains("small") && warnings(&only(&sample.bytes)).is_empty()
    };
    let digests: Vec<String> =
        samples.iter().filter(lossless).map(|sample| stored_digest(&only(&sample.bytes).pixels)).collect();
    assert!(samples.is_empty() || digests.len() == 6, "{}", digests.len());
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

/// Decoders of DCT JPEG may differ by one step of stored values; the mean must agree to a twentieth of a step.
#[test]
fn lossy_jpeg_samples_are_near_the_manifest() {
    for sample in samples("either").iter().filter(|sample| sample.hu.is_some()) {
        let slice = only(&sample.bytes);
        let step = slice.rescale.slope + 0.01;
        for (found, (expected, allowed)) in
            figures(&slice).iter().zip(sample.hu.unwrap().iter().zip([step, step, step / 20.0, step]))
        {
            assert!((found - expected).abs() <= allowed, "{}: {found} is not {expected} +- {allowed}", sample.file);
        }
        assert_eq!(warnings(&slice), ["lossy-compression"], "{}", sample.file);
    }
}

#[test]
fn the_perfusion_map_is_refused_unless_derived_pictures_are_wanted() {
    for sample in samples("either").iter().filter(|sample| sample.file.starts_with("enhanced")) {
        assert_eq!(decode_default(&sample.bytes).unwrap_err().code, RejectCode::Derived);
        let rules = AdmissionRules { reject_derived: false, ..AdmissionRules::default() };
        let slices = decode(&sample.bytes, &rules).unwrap();
        assert_eq!(slices.iter().map(|slice| slice.ids.frame).collect::<Vec<_>>(), [Some(1), Some(2)]);
        let z: Vec<f64> = slices.iter().map(|slice| slice.geometry.position.unwrap()[2]).collect();
        assert_eq!(z, [-159.0, -149.0]);
        // Stored values that two other decoders agree on, less the intercept of 1024.
        for (slice, [min, max, mean, center]) in
            slices.iter().zip([[-13.0, 1199.0, 383.63, 1104.0], [-14.0, 1173.0, 374.46, 1021.0]])
        {
            let found = figures(slice);
            assert!((found[0] - min).abs() <= 1.0 && (found[1] - max).abs() <= 1.0, "{found:?}");
            assert!((found[2] - mean).abs() <= 0.05 && (found[3] - center).abs() <= 1.0, "{found:?}");
        }
    }
}

#[test]
fn other_samples_are_refused_with_their_code() {
    let expected = [
        ("ct_small_no_meta.dcm", RejectCode::NotDicom),
        ("mr_small.dcm", RejectCode::WrongModality),
        ("mr_truncated.dcm", RejectCode::Truncated),
        ("rtstruct_no_meta.dcm", RejectCode::NotDicom),
        ("rtplan_truncated.dcm", RejectCode::Truncated),
        ("sr.dcm", RejectCode::NotAnImage),
        ("seg_1frame.dcm", RejectCode::WrongModality),
        ("ot_deflated.dcm", RejectCode::WrongModality),
        ("sc_rgb_jpeg_lossless.dcm", RejectCode::WrongModality),
        ("sc_jpegls_50x10.dcm", RejectCode::WrongSopClass),
        ("meta_without_transfer_syntax.dcm", RejectCode::Corrupt),
        ("DICOMDIR", RejectCode::DicomDir),
        ("derived_ct_truncated_rle.dcm", RejectCode::Truncated),
    ];
    for sample in samples("reject") {
        let rejection = decode_default(&sample.bytes).unwrap_err();
        let code = expected.iter().find(|(file, _)| *file == sample.file).map(|(_, code)| *code);
        assert_eq!(Some(rejection.code), code, "{}: {rejection}", sample.file);
        assert!(!rejection.sentence.is_empty());
    }
}

#[test]
fn refused_pictures_stay_refused_when_modality_does_not_matter() {
    let rules = AdmissionRules { require_ct: false, reject_derived: false, ..AdmissionRules::default() };
    let expected = [
        ("seg_1frame.dcm", Some(RejectCode::BadBits)),
        ("ot_deflated.dcm", None),
        ("sc_rgb_jpeg_lossless.dcm", Some(RejectCode::NotMonochrome)),
        ("sc_jpegls_50x10.dcm", Some(RejectCode::BadSize)),
        ("mr_small.dcm", None),
        ("sr.dcm", Some(RejectCode::NotAnImage)),
    ];
    for sample in samples("reject") {
        if let Some((_, code)) = expected.iter().find(|(file, _)| *file == sample.file) {
            assert_eq!(decode(&sample.bytes, &rules).err().map(|rejection| rejection.code), *code, "{}", sample.file);
        }
    }
}

#[test]
fn headers_of_refused_files_can_be_read() {
    for sample in samples("reject").iter().filter(|sample| sample.file == "mr_small.dcm") {
        let header = read_header(&sample.bytes, &AdmissionRules::default()).unwrap();
        assert_eq!(header.modality.as_deref(), Some("MR"));
        assert_eq!((header.rows, header.columns, header.window), (Some(64), Some(64), Some((600.0, 1600.0))));
    }
}
