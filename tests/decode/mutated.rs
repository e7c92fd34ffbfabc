//! Damaged files: whatever happens to the bytes of a file, the answer is slices that fit their announced size or a
//! refusal with a reason; never a panic.

use ichd::dicom::AdmissionRules;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{data, data_dir};

/// Cases of each property; `PROPTEST_CASES` of the environment raises it for a long run.
const CASES: u32 = 500;
/// Bytes in which headers lie.
const HEAD_BYTES: usize = 1400;

fn files() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = std::fs::read_dir(data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".dcm"))
        .collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), data(&name))).collect()
}

/// What happens to a file.
#[derive(Clone, Debug)]
enum Harm {
    /// Bytes are overwritten anywhere.
    Overwrite(Vec<(Index, u8)>),
    /// Bytes are overwritten where headers lie.
    OverwriteHead(Vec<(Index, u8)>),
    /// The file ends early.
    Cut(Index),
    /// A stretch is missing.
    Remove(Index, usize),
    /// A stretch appears twice.
    Repeat(Index, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    // Lengths and markers are made of few values, so these are tried more often.
    let byte = || prop_oneof![any::<u8>(), Just(0), Just(1), Just(0xFF), Just(0xFE), Just(0x7F), Just(0x80)];
    prop_oneof![
        3 => vec((any::<Index>(), byte()), 1..12).prop_map(Harm::Overwrite),
        4 => vec((any::<Index>(), byte()), 1..6).prop_map(Harm::OverwriteHead),
        1 => any::<Index>().prop_map(Harm::Cut),
        1 => (any::<Index>(), 1usize..64).prop_map(|(at, length)| Harm::Remove(at, length)),
        1 => (any::<Index>(), 1usize..64).prop_map(|(at, length)| Harm::Repeat(at, length)),
    ]
}

fn apply(harm: &Harm, bytes: &mut Vec<u8>) {
    match harm {
        Harm::Overwrite(changes) => changes.iter().for_each(|(at, byte)| *at.get_mut(bytes) = *byte),
        Harm::OverwriteHead(changes) => {
            let head = HEAD_BYTES.min(bytes.len());
            changes.iter().for_each(|(at, byte)| *at.get_mut(&mut bytes[132.min(head - 1)..head]) = *byte);
        }
        Harm::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Harm::Remove(at, length) => {
            let start = at.index(bytes.len());
            bytes.drain(start..(start + length).min(bytes.len()));
        }
        Harm::Repeat(at, length) => {
            let start = at.index(bytes.len());
            let stretch = bytes[start..(start + length).min(bytes.len())].to_vec();
            bytes.splice(start..start, stretch);
        }
    }
}

/// The smaller of the limits keep a flipped bit in the size from costing the test its time.
fn rules() -> AdmissionRules {
    AdmissionRules {
        require_ct: false,
        reject_localizers: false,
        reject_derived: false,
        side_max: 512,
        frames_max: 8,
        inflated_bytes_max: 8 << 20,
        ..AdmissionRules::default()
    }
}

fn answer_is_sound(name: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    match ichd::dicom::decode(bytes, &rules()) {
        Ok(slices) => {
            prop_assert!(!slices.is_empty(), "{name}");
            for slice in slices {
                prop_assert_eq!(slice.pixels.len(), slice.rows * slice.columns, "{}", name);
                prop_assert!(slice.hu(0).is_finite() && slice.hu(slice.pixels.len() - 1).is_finite(), "{}", name);
                prop_assert!((8..=16).contains(&slice.bits_stored), "{}", name);
            }
        }
        Err(rejection) => prop_assert!(!rejection.sentence.is_empty(), "{name}"),
    }
    Ok(())
}

fn cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(CASES), failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn damaged_files_give_slices_or_reasons() {
    let files = files();
    proptest!(cases(), |(which in any::<Index>(), harms in vec(harm(), 1..3))| {
        let (name, bytes) = which.get(&files);
        let mut bytes = bytes.clone();
        for harm in &harms {
            if !bytes.is_empty() {
                apply(harm, &mut bytes);
            }
        }
        answer_is_sound(name, &bytes)?;
    });
}

#[test]
fn noise_behind_a_good_head_gives_slices_or_reasons() {
    let files = files();
    proptest!(cases(), |(which in any::<Index>(), at in any::<Index>(), noise in vec(any::<u8>(), 0..300))| {
        let (name, bytes) = which.get(&files);
        let mut bytes = bytes.clone();
        bytes.truncate(at.index(bytes.len()));
        bytes.extend(noise);
        answer_is_sound(name, &bytes)?;
    });
}

#[test]
fn noise_is_refused() {
    proptest!(cases(), |(noise in vec(any::<u8>(), 0..2000))| {
        prop_assert!(ichd::dicom::decode(&noise, &rules()).is_err());
    });
}
