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

const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1\0";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2\0";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const CHILD: &str = "ICHD_TEST_HOSTILE_CHILD";
/// More than the inflated cap of the bomb test, and far less than any of the files asks for.
const MEMORY_MAX_KIB: u64 = 200 << 10;

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

/// The phantom, said to be of the largest size that the rules allow, in a few hundred bytes.
fn giant_picture(name: &str) -> Vec<u8> {
    let bytes = data(name);
    let at = |tag: [u8; 6]| bytes.windows(6).position(|window| window == tag).unwrap() + 8;
    let (rows, columns) = (at(*b"\x28\x00\x10\x00US"), at(*b"\x28\x00\x11\x00US"));
    let mut giant = bytes;
    for place in [rows, columns] {
        giant[place..place + 2].copy_from_slice(&4096u16.to_le_bytes());
    }
    giant
}

/// The same with a codestream that agrees, as one tile.
fn giant_codestream() -> Vec<u8> {
    let mut giant = giant_picture("signed16_j2k_lossless.dcm");
    let size = giant.windows(4).position(|window| window == b"\xFF\x4F\xFF\x51").unwrap() + 8;
    for place in [size, size + 4, size + 16, size + 20] {
        giant[place..place + 4].copy_from_slice(&4096u32.to_be_bytes());
    }
    giant
}

/// Millions of empty items in a sequence that is read.
fn item_flood() -> Vec<u8> {
    let mut data_set = b"\x00\x52\x30\x92SQ\0\0\xFF\xFF\xFF\xFF".to_vec();
    data_set.extend(b"\xFE\xFF\x00\xE0\0\0\0\0".repeat(4_000_000));
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
    assert_eq!(code(&item_flood()), Some(RejectCode::Corrupt));
    assert_eq!(code(&value_flood()), Some(RejectCode::Corrupt));
    for name in ["rle", "jpeg_lossless_sv1", "jpegls_lossless", "j2k_lossless"] {
        let code = code(&giant_picture(&format!("signed16_{name}.dcm")));
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
        for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            assert!(code(&bytes[..length]).is_some(), "{name} cut at {length}");
        }
    }
}

/// Does the work of the next test when that asks for it.
#[test]
fn hostile_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let rules = ichd::dicom::AdmissionRules { inflated_bytes_max: 64 << 20, ..Default::default() };
    let files = [
        giant_length(),
        nested(100_000, true),
        deflate_bomb(),
        giant_picture("signed16_rle.dcm"),
        item_flood(),
        giant_codestream(),
    ];
    let begun = Instant::now();
    for bytes in files {
        let rejection = ichd::dicom::decode(&bytes, &rules).unwrap_err();
        println!("{rejection}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    if let Some(peak) = peak_memory_kib() {
        assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
        println!("peak {peak} KiB");
    }
}

/// Largest resident memory of this process so far, where the system tells.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
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
    assert!(child.status.success(), "{output}");
    for code in ["truncated", "corrupt-dicom", "file-too-large"] {
        assert!(output.contains(code), "{code} is not in {output}");
    }
}
