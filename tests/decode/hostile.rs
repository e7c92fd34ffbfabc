//! Files that ask for far more than they are: each is refused for little time and memory, which a child process that
//! does nothing else measures. What such files did to a parser without a bounded walk before it: 4 GiB of memory for
//! 264 bytes, a stack overflow for 72 kB, 1 GiB for 1 MB.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use ichd::reject::RejectCode;

use super::editor::Editor;
use super::{code, data};
use crate::support::heap::{decoding_bytes_max, peak_of};

const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1\0";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2\0";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const CHILD: &str = "ICHD_TEST_HOSTILE_CHILD";
/// Longest time that any of the samples may take, on a busy machine and without optimization of our own code; RELIABILITY.md
/// states what it takes otherwise.
const TIME_MAX: Duration = Duration::from_secs(20);

fn part10(syntax: &str, data_set: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    bytes.extend([2, 0, 0x10, 0, b'U', b'I', syntax.len() as u8, 0]);
    bytes.extend(syntax.as_bytes());
    bytes.extend(data_set);
    bytes
}

fn ct() -> Vec<u8> {
    b"\x08\x00\x60\x00CS\x02\x00CT".to_vec()
}

/// Pixel data of 4 GiB in a file of some hundred bytes.
fn giant_length() -> Vec<u8> {
    let mut data_set = ct();
    data_set.extend(b"\xE0\x7F\x10\x00OW\0\0\xF0\xFF\xFF\xFF");
    data_set.resize(264 - 160, 0);
    part10(EXPLICIT_LE, &data_set)
}

/// Sequences in sequences without lengths; each level takes 36 bytes when closed.
fn nested(levels: usize, explicit: bool) -> Vec<u8> {
    let mut data_set = Vec::new();
    for _ in 0..levels {
        data_set.extend(b"\x00\x52\x30\x92");
        data_set.extend(if explicit { b"SQ\0\0".as_slice() } else { b"" });
        data_set.extend(b"\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF");
    }
    for _ in 0..levels {
        data_set.extend(b"\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0");
    }
    part10(if explicit { EXPLICIT_LE } else { IMPLICIT_LE }, &data_set)
}

/// One megabyte that inflates to one gigabyte.
fn deflate_bomb() -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&zeros).unwrap();
    }
    part10(DEFLATED, &encoder.finish().unwrap())
}

/// The phantom, said to be larger, in a few thousand bytes.
fn giant_picture(name: &str, side: u16) -> Vec<u8> {
    let bytes = data(name);
    let at = |tag: [u8; 6]| bytes.windows(6).position(|window| window == tag).unwrap() + 8;
    let (rows, columns) = (at(*b"\x28\x00\x10\x00US"), at(*b"\x28\x00\x11\x00US"));
    let mut giant = bytes;
    for place in [rows, columns] {
        giant[place..place + 2].copy_from_slice(&side.to_le_bytes());
    }
    giant
}

/// The same with a codestream that agrees, as one tile.
fn giant_j2k(side: u16) -> Vec<u8> {
    let mut giant = giant_picture("signed16_j2k_lossless.dcm", side);
    let size = giant.windows(4).position(|window| window == b"\xFF\x4F\xFF\x51").unwrap() + 8;
    for place in [size, size + 4, size + 16, size + 20] {
        giant[place..place + 4].copy_from_slice(&u32::from(side).to_be_bytes());
    }
    giant
}

/// One for each resolution of the phantom's codestream.
const N_PACKETS: usize = 5;

/// A codestream of empty packets, which is a sound picture of one value, and padding that makes it look worth its size.
fn empty_j2k(side: u16, block: u8, n_padding: usize) -> Vec<u8> {
    let mut file = giant_j2k(side);
    let style = file.windows(2).position(|window| window == [0xFF, 0x52]).unwrap();
    file[style + 10..style + 12].fill(block);
    let stream = file.windows(4).position(|window| window == b"\xFF\x4F\xFF\x51").unwrap();
    let tile = stream + file[stream..].windows(2).position(|window| window == [0xFF, 0x90]).unwrap();
    let data = tile + file[tile..].windows(2).position(|window| window == [0xFF, 0x93]).unwrap() + 2;
    file.truncate(data);
    file.resize(data + N_PACKETS, 0);
    let length = (file.len() - tile) as u32;
    file[tile + 6..tile + 10].copy_from_slice(&length.to_be_bytes());
    file.extend([0xFF, 0xD9]);
    file.resize(file.len() + n_padding + file.len() % 2, 0);
    let length = (file.len() - stream) as u32;
    file[stream - 4..stream].copy_from_slice(&length.to_le_bytes());
    file.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    file
}

/// A codestream whose code-blocks have all the passes that there can be, in no bytes: the most work for the fewest of them.
fn passes_j2k(side: u16) -> Vec<u8> {
    let mut file = empty_j2k(side, 4, 0);
    let stream = file.windows(4).position(|window| window == b"\xFF\x4F\xFF\x51").unwrap();
    let at = |file: &[u8], marker: u8| {
        stream + file[stream..].windows(2).position(|window| window == [0xFF, marker]).unwrap()
    };
    // No decompositions; 30 bit planes.
    let (style, steps) = (at(&file, 0x52), at(&file, 0x5C));
    file[style + 9] = 0;
    file[steps + 5] = 29 << 3;
    let n_blocks = usize::from(side).div_ceil(64);
    let (mut bytes, mut left) = (vec![0u8], 8);
    let mut write = |value: u32, n: u32| {
        for bit in (0..n).rev() {
            if left == 0 {
                left = if bytes.last() == Some(&0xFF) { 7 } else { 8 };
                bytes.push(0);
            }
            left -= 1;
            *bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << left;
        }
    };
    write(1, 1);
    for block in 0..n_blocks * n_blocks {
        let (x, y) = (block % n_blocks, block / n_blocks);
        // A one for each node of the two trees that is new: its corner is this block.
        let is_new = |level: &u32| (x >> level) << level == x && (y >> level) << level == y;
        let n_new = (0..=n_blocks.next_power_of_two().ilog2()).filter(is_new).count() as u32;
        write(u32::MAX >> (32 - 2 * n_new), 2 * n_new);
        // 88 passes, the usual bits of a length, of no bytes.
        write(0x1FF << 7 | (88 - 37), 16);
        write(0, 1 + 3 + 6);
    }
    let (tile, data) = (at(&file, 0x90), at(&file, 0x93) + 2);
    let end = file[data..].windows(2).position(|window| window == [0xFF, 0xD9]).unwrap() + data;
    let length = (data + bytes.len() - tile) as u32;
    let n_odd = bytes.len() % 2;
    file.splice(data..end, bytes);
    file[tile + 6..tile + 10].copy_from_slice(&length.to_be_bytes());
    // One fragment, of an even length.
    let end = file.len() - 8;
    file.splice(end..end, vec![0; usize::from(n_odd != N_PACKETS % 2)]);
    let length = (file.len() - 8 - stream) as u32;
    file[stream - 4..stream].copy_from_slice(&length.to_le_bytes());
    file
}

/// Packets in many layers that speak of every one of the smallest code-blocks and bring nothing of any.
fn layers_j2k(side: u16, n_layers: u16) -> Vec<u8> {
    let mut file = empty_j2k(side, 0, 0);
    let stream = file.windows(4).position(|window| window == b"\xFF\x4F\xFF\x51").unwrap();
    let at = |marker: u8| stream + file[stream..].windows(2).position(|window| window == [0xFF, marker]).unwrap();
    let (style, tile, data) = (at(0x52), at(0x90), at(0x93) + 2);
    file[style + 6..style + 8].copy_from_slice(&n_layers.to_be_bytes());
    file[style + 9] = 0;
    // Those that were there make it one fragment of an even length.
    file.splice(data..data, vec![0x80; usize::from(n_layers) - usize::from(n_layers % 2)]);
    let length = (usize::from(n_layers) + N_PACKETS + data - tile) as u32;
    file[tile + 6..tile + 10].copy_from_slice(&length.to_be_bytes());
    let length = (file.len() - 8 - stream) as u32;
    file[stream - 4..stream].copy_from_slice(&length.to_le_bytes());
    file
}

/// A JPEG or JPEG-LS codestream that agrees.
fn giant_jpeg(name: &str, frame: u8, side: u16) -> Vec<u8> {
    let mut giant = giant_picture(name, side);
    let size = giant.windows(2).position(|window| window == [0xFF, frame]).unwrap() + 5;
    for place in [size, size + 2] {
        giant[place..place + 2].copy_from_slice(&side.to_be_bytes());
    }
    giant
}

/// An RLE frame of a giant, of nothing but runs, which the codec takes as they are.
fn giant_rle(side: u16) -> Vec<u8> {
    let n_pixels = usize::from(side) * usize::from(side);
    let runs = [0x81, 0].repeat(n_pixels.div_ceil(128));
    let mut frame: Vec<u8> = [2u32, 64, 64 + runs.len() as u32].iter().flat_map(|word| word.to_le_bytes()).collect();
    frame.resize(64, 0);
    frame.extend([runs.as_slice(), &runs].concat());
    let mut file = giant_picture("signed16_rle.dcm", side);
    let pixels = file.windows(4).position(|window| window == b"\xE0\x7F\x10\x00").unwrap() + 12;
    file.truncate(pixels);
    file.extend(b"\xFE\xFF\x00\xE0\0\0\0\0\xFE\xFF\x00\xE0");
    file.extend((frame.len() as u32).to_le_bytes());
    file.extend(frame);
    file.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    file
}

/// As many frames as are allowed, and every value that is read anew for each as long as it may be.
fn costly_frames() -> Vec<u8> {
    let many = |value: &str| [value; 64].join("\\");
    let mut file = Editor::of("unsigned8.dcm").text(0x28, 8, b"IS", "2000").pixels(&vec![0; 2000 * 16 * 16]);
    file = file.us(0x28, 0x10, 16).us(0x28, 0x11, 16);
    for (group, element) in [(0x28, 0x1052), (0x28, 0x1053), (0x28, 0x30), (0x20, 0x32), (0x20, 0x37), (0x18, 0x50)] {
        file = file.text(group, element, b"DS", &many("1.000000000000"));
    }
    for (group, element) in [(0x18, 0x1210), (0x08, 0x70), (0x08, 0x1010), (0x18, 0x15), (0x40, 0x1003)] {
        file = file.text(group, element, b"LO", &many("ABCDEFGHIJKLMN "));
    }
    file.bytes()
}

/// As many fragments as a file may hold, all of them empty.
fn fragment_flood() -> Vec<u8> {
    let mut file = data("signed16_rle.dcm");
    let pixels = file.windows(4).position(|window| window == b"\xE0\x7F\x10\x00").unwrap() + 12;
    file.truncate(pixels);
    file.extend(b"\xFE\xFF\x00\xE0\0\0\0\0".repeat(ichd::dicom::ELEMENTS_MAX - 1000));
    file.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    file
}

/// Text of as many values as a sequence may hold, in a private element of the functional groups.
fn group_flood(unit: &[u8], n_values: usize) -> Vec<u8> {
    let value = unit.repeat(n_values);
    let mut data_set = ct();
    data_set.extend(b"\x00\x52\x29\x92SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF\x09\x00\x01\x10UC\0\0");
    data_set.extend((value.len() as u32).to_le_bytes());
    data_set.extend(value);
    data_set.extend(b"\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0");
    part10(EXPLICIT_LE, &data_set)
}

/// So many empty items in a sequence that is read.
fn item_flood(n_items: usize) -> Vec<u8> {
    let mut data_set = b"\x00\x52\x30\x92SQ\0\0\xFF\xFF\xFF\xFF".to_vec();
    data_set.extend(b"\xFE\xFF\x00\xE0\0\0\0\0".repeat(n_items));
    data_set.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    part10(EXPLICIT_LE, &data_set)
}

/// Text of millions of values in an element that is read.
fn value_flood() -> Vec<u8> {
    let mut data_set = b"\x08\x00\x08\x00UT\0\0\x00\x00\x00\x02".to_vec();
    data_set.resize(12 + (32 << 20), b'\\');
    part10(EXPLICIT_LE, &data_set)
}

#[test]
fn hostile_files_are_refused_for_their_reason() {
    assert_eq!(giant_length().len(), 264);
    assert_eq!(code(&giant_length()), Some(RejectCode::Truncated));
    assert_eq!(nested(2_000, true).len() / 1000, 72);
    for levels in [65, 2_000, 100_000] {
        assert_eq!(code(&nested(levels, true)), Some(RejectCode::Corrupt), "{levels}");
        assert_eq!(code(&nested(levels, false)), Some(RejectCode::Corrupt), "{levels}");
    }
    assert_eq!(code(&nested(64, true)), Some(RejectCode::NotAnImage));
    assert_eq!(code(&nested(64, false)), Some(RejectCode::NotAnImage));
    assert_eq!(code(&item_flood(4_000_000)), Some(RejectCode::Corrupt));
    assert_eq!(code(&value_flood()), Some(RejectCode::Corrupt));
    for name in ["rle", "jpeg_lossless_sv1", "jpegls_lossless", "j2k_lossless"] {
        let file = format!("signed16_{name}.dcm");
        assert_eq!(code(&giant_picture(&file, 4096)), Some(RejectCode::TooLarge), "{name}");
        let code = code(&giant_picture(&file, 1400));
        assert!(matches!(code, Some(RejectCode::BadPixelData | RejectCode::ShortPixels)), "{name}: {code:?}");
    }
}

#[test]
fn files_that_are_no_dicom_are_told_apart() {
    assert_eq!(code(b""), Some(RejectCode::Empty));
    assert_eq!(code(&[0; 100_000]), Some(RejectCode::NotDicom));
    assert_eq!(code(b"PK\x03\x04 something else"), Some(RejectCode::NotDicom));
    let mut polyglot = Editor::new().bytes();
    polyglot[..4].copy_from_slice(b"\x7FELF");
    assert_eq!(code(&polyglot), None, "the preamble is never looked at");
}

#[test]
fn every_cut_of_a_file_is_refused() {
    for name in
        ["unsigned12_explicit_le.dcm", "signed16_implicit_le.dcm", "enhanced_rle.dcm", "signed16_j2k_lossless.dcm"]
    {
        let bytes = data(name);
        let pixels = bytes.windows(4).rposition(|window| window == b"\xE0\x7F\x10\x00").unwrap() + 12;
        for length in (0..bytes.len()).step_by(7).chain([131, 132, pixels, bytes.len() - 1]) {
            let found = code(&bytes[..length]);
            let is_right = match length {
                0 => found == Some(RejectCode::Empty),
                1..132 => found == Some(RejectCode::NotDicom),
                // Cut between two elements it is whole, and lacks its transfer syntax or its pixels.
                _ if length < pixels => {
                    matches!(found, Some(RejectCode::Truncated | RejectCode::Corrupt | RejectCode::NotAnImage))
                }
                _ => found == Some(RejectCode::Truncated),
            };
            assert!(is_right, "{name} cut at {length}: {found:?}");
        }
    }
}

#[test]
fn empty_pictures_are_taken_and_giants_of_nothing_are_not() {
    // A slice of one value shrinks to nothing and is a slice all the same; 32 MiB out of a few hundred kilobytes are none.
    assert_eq!(code(&giant_rle(1400)), None);
    assert_eq!(code(&giant_rle(4096)), None, "RLE shrinks to a 64th at best");
    assert_eq!(code(&giant_j2k(4096)), Some(RejectCode::TooLarge));
    assert_eq!(code(&empty_j2k(1400, 4, 0)), None);
    assert_eq!(code(&empty_j2k(4096, 4, 0)), Some(RejectCode::TooLarge));
    assert_eq!(code(&passes_j2k(130)), None);
}

/// Files that ask for much, by name.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("announced length", giant_length()),
        ("nesting", nested(100_000, true)),
        ("deflate bomb", deflate_bomb()),
        ("announced size, RLE", giant_picture("signed16_rle.dcm", 4096)),
        ("runs", giant_rle(4096)),
        ("small runs", giant_rle(1400)),
        ("announced size, JPEG", giant_jpeg("signed16_jpeg_lossless_sv1.dcm", 0xC3, 1400)),
        ("announced size, JPEG-LS", giant_jpeg("signed16_jpegls_lossless.dcm", 0xF7, 1400)),
        ("announced size, JPEG 2000", giant_j2k(1400)),
        ("empty packets", empty_j2k(1400, 4, 0)),
        ("empty packets and padding", empty_j2k(4096, 4, 300_000)),
        ("small blocks", empty_j2k(1400, 2, 0)),
        ("small blocks and padding", empty_j2k(4096, 2, 300_000)),
        ("smallest blocks", empty_j2k(1400, 0, 0)),
        ("smallest blocks and padding", empty_j2k(4096, 0, 300_000)),
        ("passes of no bytes", passes_j2k(1400)),
        ("layers of nothing", layers_j2k(1400, 60)),
        ("layers of nothing, too many", layers_j2k(1400, 60_000)),
        ("items, too many", item_flood(4_000_000)),
        ("items", item_flood(499_000)),
        ("fragments", fragment_flood()),
        ("value, too long", value_flood()),
        ("values of groups, too many", group_flood(b"\\", 4_000_000)),
        ("values of groups", group_flood(b"1\\", 498_000)),
        ("long value of groups", group_flood(b"1234567\\", 250_000)),
        ("frames", costly_frames()),
        ("deflated noise", part10(DEFLATED, &[0x55; 4096])),
        ("zeros", vec![0; 1 << 20]),
    ]
}

/// Does the work of the next test when that asks for it: each sample is decoded as the daemon decodes it, with all defaults.
#[test]
fn hostile_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // What is made once for the process is not the file's fault.
    let _ = super::decode_default(&data("signed16_explicit_le.dcm"));
    for (name, bytes) in samples() {
        let begun = Instant::now();
        let (decoded, peak) = peak_of(|| super::decode_default(&bytes).map(|slices| slices.len()));
        let (time, allowed) = (begun.elapsed(), decoding_bytes_max(bytes.len()));
        let answer = decoded.map_or_else(|rejection| rejection.code.word().to_owned(), |n| format!("{n} slices"));
        println!("{name}: {} bytes, {peak} bytes of memory ({allowed} allowed), {time:?}, {answer}", bytes.len());
        assert!(peak <= allowed, "{name} takes {peak} bytes of memory; {allowed} are allowed");
        assert!(time < TIME_MAX, "{name} takes {time:?}");
    }
}

#[test]
fn hostile_files_cost_little_memory_and_time() {
    let module = module_path!().split_once("::").map_or("", |(_, rest)| rest);
    let child = Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::hostile_child"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    for code in ["truncated", "corrupt-dicom", "file-too-large", "2000 slices"] {
        assert!(output.contains(code), "{code} is not in {output}");
    }
}
