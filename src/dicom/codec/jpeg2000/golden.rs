//! Codestreams of OpenJPEG with all that the decoder knows (`tools/make_jpeg2000_data.py`).

use std::fs;
use std::path::{Path, PathBuf};

use super::decode;
use crate::dicom::codec::{CodecError, Size};

struct Case {
    name: String,
    size: Size,
    precision: u16,
    tolerance: i32,
    stream: Vec<u8>,
    values: Vec<u16>,
}

fn cases() -> Vec<Case> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jpeg2000");
    let folder = std::env::var_os("ICHD_JPEG2000_CASES").map_or(kept, PathBuf::from);
    let table = fs::read_to_string(folder.join("cases.csv")).unwrap();
    let cases = table.lines().map(|line| {
        let [name, rows, columns, precision, _, tolerance] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let values = fs::read(folder.join(format!("{name}.values"))).unwrap();
        Case {
            name: name.to_owned(),
            size: Size { rows: rows.parse().unwrap(), columns: columns.parse().unwrap() },
            precision: precision.parse().unwrap(),
            tolerance: tolerance.parse().unwrap(),
            stream: fs::read(folder.join(format!("{name}.j2k"))).unwrap(),
            values: values.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect(),
        }
    });
    cases.collect()
}

#[test]
fn codestreams_decode_to_what_went_in() {
    let cases = cases();
    assert!(cases.len() > 40, "{} codestreams", cases.len());
    for case in cases {
        let cells = decode(&case.stream, case.size).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!((cells.precision, cells.values.len()), (case.precision, case.values.len()), "{}", case.name);
        for (at, (found, expected)) in cells.values.iter().zip(&case.values).enumerate() {
            let apart = i32::from(found.wrapping_sub(*expected) as i16);
            assert!(apart.abs() <= case.tolerance, "{}: {found} instead of {expected} at {at}", case.name);
        }
    }
}

#[test]
fn a_codestream_that_is_cut_off_is_refused() {
    for case in cases() {
        for part in 1..20 {
            let length = case.stream.len() * part / 20;
            let cut = decode(&case.stream[..length], case.size).map(|cells| cells.precision);
            assert!(
                matches!(cut, Err(CodecError::Short | CodecError::Damaged(_))),
                "{} to {length}: {cut:?}",
                case.name
            );
        }
    }
}

#[test]
fn damage_is_refused_or_gives_a_picture_and_never_more() {
    for case in cases() {
        // Everywhere in the headers, and here and there behind them.
        let places = (0..case.stream.len().min(140)).chain((140..case.stream.len()).step_by(37));
        for place in places {
            for byte in [0x00, 0xFF, case.stream[place] ^ 1, case.stream[place] ^ 0x90] {
                let mut damaged = case.stream.clone();
                damaged[place] = byte;
                if let Ok(cells) = decode(&damaged, case.size) {
                    assert_eq!(cells.values.len(), case.values.len());
                }
            }
        }
    }
}
