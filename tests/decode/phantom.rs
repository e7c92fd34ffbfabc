//! The phantom slice: stored values and HU are those that another program wrote down in `expected.csv`.

use super::{cells, data, data_dir, decode_default, figures, only, stored_digest, warnings};
use ichd::slice::{Pixels, Slice};

struct Expected {
    file: String,
    frame: usize,
    transfer_syntax: String,
    rows: usize,
    columns: usize,
    signed: bool,
    digest: String,
    /// Minimum, maximum, mean and center pixel.
    hu: [f64; 4],
    /// Steps of stored values by which decoders of this coding may differ; 0 where the coding leaves no freedom.
    tolerance: f64,
    warnings: Vec<String>,
}

fn expected() -> Vec<Expected> {
    let text = String::from_utf8(data("expected.csv")).unwrap();
    let read = |line: &str| {
        let cells = cells(line);
        let number = |index: usize| cells[index].parse::<f64>().unwrap();
        Expected {
            file: cells[0].clone(),
            frame: number(1) as usize,
            transfer_syntax: cells[2].clone(),
            rows: number(3) as usize,
            columns: number(4) as usize,
            signed: cells[5] == "1",
            digest: cells[6].clone(),
            hu: [7, 8, 9, 10].map(number),
            tolerance: number(11),
            warnings: cells[12].split(' ').filter(|word| !word.is_empty()).map(str::to_string).collect(),
        }
    };
    text.lines().skip(1).map(read).collect()
}

fn check(slice: &Slice, expected: &Expected) {
    let at = format!("{} frame {}", expected.file, expected.frame);
    assert_eq!(slice.transfer_syntax, expected.transfer_syntax, "{at}");
    assert_eq!((slice.rows, slice.columns), (expected.rows, expected.columns), "{at}");
    assert_eq!(matches!(slice.pixels, Pixels::I16(_)), expected.signed, "{at}");
    assert_eq!(warnings(slice), expected.warnings, "{at}");
    assert_eq!(slice.ids.frame, (expected.frame > 0).then_some(expected.frame as u32), "{at}");
    if expected.tolerance == 0.0 {
        assert_eq!(stored_digest(&slice.pixels), expected.digest, "{at}");
    }
    let found = figures(slice);
    let step = slice.rescale.slope.abs() * expected.tolerance;
    let allowed = [step, step, step * 0.05, step].map(|step| step + 1e-6);
    for ((found, expected), allowed) in found.iter().zip(&expected.hu).zip(allowed) {
        assert!((found - expected).abs() <= allowed, "{at}: {found} is not {expected} +- {allowed}");
    }
}

#[test]
fn every_encoding_of_the_phantom_gives_its_stored_values_and_hu() {
    let expected = expected();
    assert!(expected.len() > 40, "{} lines", expected.len());
    for line in &expected {
        let slices = decode_default(&data(&line.file)).unwrap_or_else(|rejection| panic!("{}: {rejection}", line.file));
        let n_frames = expected.iter().filter(|other| other.file == line.file).count();
        assert_eq!(slices.len(), n_frames, "{}", line.file);
        check(&slices[line.frame.saturating_sub(1)], line);
    }
}

#[test]
fn every_file_is_expected() {
    let expected = expected();
    let files = std::fs::read_dir(data_dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for file in files.filter(|file| file.ends_with(".dcm")) {
        assert!(expected.iter().any(|line| line.file == file), "{file} is not in expected.csv");
    }
}

#[test]
fn geometry_and_identifiers_are_read() {
    let slice = only(&data("signed16_explicit_be.dcm"));
    let geometry = &slice.geometry;
    assert_eq!(geometry.position, Some([-10.5, -20.25, 33.5]));
    assert_eq!(geometry.orientation, Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
    assert_eq!(geometry.pixel_spacing, Some([0.5, 0.75]));
    assert_eq!((geometry.thickness, geometry.gantry_tilt, geometry.instance_number), (Some(5.0), None, Some(7)));
    assert!(slice.ids.study.ends_with(".1") && slice.ids.series.ends_with(".2") && slice.ids.instance.ends_with(".3"));
    assert_eq!(slice.ids.frame, None);
}

#[test]
fn rsna_files_are_taken_with_their_illegal_identifiers() {
    let slice = only(&data("rsna_style.dcm"));
    assert_eq!(
        [slice.ids.instance, slice.ids.study, slice.ids.series],
        ["ID_0123456ab", "ID_1123456ab", "ID_2123456ab"]
    );
}

#[test]
fn padding_has_the_sign_of_the_pixels_in_every_encoding() {
    for name in ["explicit_le", "implicit_le", "explicit_be", "deflated", "rle", "jpegls_lossless", "j2k_lossless"] {
        let slice = only(&data(&format!("signed16_{name}.dcm")));
        assert_eq!(slice.padding, Some(-2000..=-2000), "{name}");
        let padded = (0..slice.pixels.len()).filter(|index| slice.pixels.get(*index) == -2000).count();
        assert!(padded > 100, "{name}: {padded}");
    }
    assert_eq!(only(&data("signed16_padding_range.dcm")).padding, Some(-2000..=-1900));
    assert_eq!(only(&data("unsigned12_explicit_le.dcm")).padding, None);
}

#[test]
fn monochrome1_is_marked_as_inverted() {
    let slice = only(&data("monochrome1.dcm"));
    assert!(slice.inverted);
    assert!(!only(&data("unsigned12_explicit_le.dcm")).inverted);
}

#[test]
fn frames_take_own_groups_before_shared_ones() {
    for name in ["enhanced_native.dcm", "enhanced_implicit.dcm", "enhanced_jpeg_lossless_no_table.dcm"] {
        let slices = decode_default(&data(name)).unwrap();
        let positions: Vec<_> = slices.iter().map(|slice| slice.geometry.position).collect();
        assert_eq!(positions, [Some([0.0, 0.0, 0.0]), Some([0.0, 0.0, 2.5]), Some([0.0, 0.0, 5.0])], "{name}");
        let slopes: Vec<_> = slices.iter().map(|slice| (slice.rescale.slope, slice.rescale.intercept)).collect();
        assert_eq!(slopes, [(1.0, -1024.0), (0.5, -1024.0), (2.0, 10.0)], "{name}");
        for slice in &slices {
            assert_eq!(slice.geometry.orientation, Some([1.0, 0.0, 0.0, 0.0, 0.9, -0.4]), "{name}");
            assert_eq!(slice.geometry.pixel_spacing, Some([0.5, 0.75]), "{name}");
            assert_eq!((slice.geometry.thickness, slice.geometry.gantry_tilt), (Some(2.5), Some(12.5)), "{name}");
        }
    }
}
