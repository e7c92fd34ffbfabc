//! Codestreams of OpenJPEG with all that the decoder knows (`tools/make_jpeg2000_data.py`), and some that nobody would write.

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

/// A codestream of one tile without decompositions: where its picture lies on the grid, layers, exponents of code-blocks less
/// two and of precincts, and its packets.
fn made([left, top, right, bottom]: [u32; 4], n_layers: u16, blocks: u8, precinct: u8, packets: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
    for word in [right, bottom, left, top, right, bottom, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend([0, 1, 11, 1, 1, 0xFF, 0x52, 0, 13, 1, 0]);
    bytes.extend(n_layers.to_be_bytes());
    bytes.extend([0, 0, blocks, blocks, 0, 1, precinct, 0xFF, 0x5C, 0, 4, 0x40, 0x60]);
    bytes.extend([0xFF, 0x90, 0, 10, 0, 0]);
    bytes.extend((14 + packets.len() as u32).to_be_bytes());
    bytes.extend([0, 1, 0xFF, 0x93]);
    bytes.extend(packets);
    bytes.extend([0xFF, 0xD9]);
    bytes
}

#[test]
fn a_picture_at_the_end_of_the_grid_is_the_same_as_anywhere_else() {
    // One pass of a code-block; the grid ends at 2^32, a code-block of 64 before.
    let packet = [0xE1, 0x55];
    let at = |end: u32| {
        let wide = made([end - 20, 0, end, 8], 1, 4, 0xFF, &packet);
        let high = made([0, end - 20, 8, end], 1, 4, 0xFF, &packet);
        [(wide, Size { rows: 8, columns: 20 }), (high, Size { rows: 20, columns: 8 })]
            .map(|(stream, size)| decode(&stream, size).unwrap().values)
    };
    let [wide, high] = at((1 << 20) - 1);
    assert!([&wide, &high].iter().all(|values| values.iter().any(|value| *value != 2048)));
    assert_eq!(at(u32::MAX), [wide, high]);
}

#[test]
fn what_would_cost_more_than_its_picture_is_refused() {
    let refused = |stream: Vec<u8>, rows, columns| decode(&stream, Size { rows, columns }).map(|cells| cells.precision);
    let area = |columns, rows| [0, 0, columns, rows];
    // Precincts of 2^15 x 1 make code-blocks of 4 x 1, those of 2 x 2 are too many themselves.
    let thin = made(area(2048, 480), 1, 0, 0x0F, &[0; 480]);
    assert_eq!(refused(thin, 480, 2048), Err(CodecError::Unsupported("tiny code-blocks")));
    let tiny = made(area(1024, 1024), 1, 0, 0x11, &[0; 1 << 18]);
    assert_eq!(refused(tiny, 1024, 1024), Err(CodecError::Unsupported("tiny precincts")));
    // Fewer bytes than precincts have packets.
    let short = made(area(64, 64), 2, 0, 0x33, &[0; 127]);
    assert_eq!(refused(short, 64, 64), Err(CodecError::Short));
    assert_eq!(refused(made(area(64, 64), 2, 0, 0x33, &[0; 128]), 64, 64), Ok(12));
    // Packets that bring nothing of any code-block, and so say of each that it does not take part yet.
    let again = |n: u16| made(area(1400, 1400), n, 0, 0xFF, &vec![0x80; n.into()]);
    assert_eq!(refused(again(60), 1400, 1400), Ok(12));
    let error = CodecError::Unsupported("packets that speak of nothing again and again");
    assert_eq!(refused(again(2000), 1400, 1400), Err(error));
    // Packets that each bring a pass, and no byte, of every one of the smallest code-blocks.
    let pieces = |n: u16| made(area(352, 352), n, 0, 0xFF, &pass_by_pass(88, n));
    assert_eq!(refused(pieces(30), 352, 352), Ok(12));
    let error = CodecError::Unsupported("packets that cut code-blocks to pieces");
    assert_eq!(refused(pieces(40), 352, 352), Err(error));
}

/// Packets of one pass of each of `side` x `side` code-blocks, and of no bytes.
fn pass_by_pass(side: usize, n_packets: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in 0..n_packets {
        let (mut left, mut last) = (0, 0u8);
        let mut write = |bit: bool| {
            if left == 0 {
                left = if last == 0xFF { 7 } else { 8 };
                bytes.push(0);
            }
            left -= 1;
            let byte: &mut u8 = bytes.last_mut().unwrap();
            *byte |= u8::from(bit) << left;
            last = *byte;
        };
        write(true);
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
            // At first a one for each node of both trees whose corner this is, then one to say that it takes part.
            let is_new = |level: &u32| (x >> level) << level == x && (y >> level) << level == y;
            let n_new = (0..=side.next_power_of_two().ilog2()).filter(is_new).count();
            (0..if packet == 0 { 2 * n_new } else { 1 }).for_each(|_| write(true));
            // One pass, the usual bits of a length, which is nought.
            (0..5).for_each(|_| write(false));
        }
        assert_ne!(bytes.last(), Some(&0xFF));
    }
    bytes
}
