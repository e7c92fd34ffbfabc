//! The cache: kept, torn, damaged, smaller.

use std::path::PathBuf;

use super::*;
use crate::phantom::{PhantomOptions, write_dataset};

/// A folder with the files of one small head.
struct Heads {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Heads {
    fn new() -> Heads {
        let folder = tempfile::tempdir().unwrap();
        let options = PhantomOptions { studies: 1, side: 48, slices: 5..=5, ..PhantomOptions::default() };
        write_dataset(&folder.path().join("heads"), &options, &|_, _| {}).unwrap();
        let mut files = Vec::new();
        for study in std::fs::read_dir(folder.path().join("heads")).unwrap().map(|entry| entry.unwrap().path()) {
            if study.is_dir() {
                files.extend(std::fs::read_dir(study).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        files.sort();
        assert_eq!(files.len(), 5);
        Heads { folder, files }
    }

    fn options(&self, side: Option<usize>) -> CacheOptions {
        let folder = self.folder.path().join("cache");
        CacheOptions { folder, side, rules: AdmissionRules::default(), file_bytes_max: 1 << 20 }
    }

    fn open(&self, side: Option<usize>) -> Result<(Cache, Built), CacheError> {
        let names: Vec<String> = (0..self.files.len()).map(|at| format!("slice-{at}")).collect();
        let wanted: Vec<Wanted<'_>> =
            names.iter().zip(&self.files).map(|(instance, path)| Wanted { instance, path }).collect();
        open(&self.options(side), &wanted, &|_| {}, &|| false)
    }

    fn cached(&self, name: &str) -> PathBuf {
        self.folder.path().join("cache/full").join(name)
    }
}

fn stored(view: &SliceView<'_>) -> Vec<i32> {
    match view.pixels {
        StoredPixels::I16(values) => values.iter().map(|value| i32::from(*value)).collect(),
        StoredPixels::U16(values) => values.iter().map(|value| i32::from(*value)).collect(),
    }
}

#[test]
fn slices_come_back_as_they_were_decoded_and_are_decoded_once() {
    let heads = Heads::new();
    let (cache, built) = heads.open(None).unwrap();
    assert_eq!((built.kept, built.decoded, built.refused.len()), (0, 5, 0));
    for (at, file) in heads.files.iter().enumerate() {
        let slices = dicom::decode(&std::fs::read(file).unwrap(), &AdmissionRules::default()).unwrap();
        let view = cache.view(at).unwrap();
        let expected: Vec<i32> = (0..slices[0].pixels.len()).map(|pixel| slices[0].pixels.get(pixel)).collect();
        assert_eq!(stored(&view), expected);
        assert_eq!((view.slope, view.intercept), (slices[0].rescale.slope, slices[0].rescale.intercept));
        cache.verify(at).unwrap();
    }
    assert_eq!(cache.bytes(), 5 * 48 * 48 * 2);
    drop(cache);
    let (_, again) = heads.open(None).unwrap();
    assert_eq!((again.kept, again.decoded), (5, 0));
}

#[test]
fn what_a_crash_tore_is_decoded_again_and_a_changed_file_too() {
    let heads = Heads::new();
    drop(heads.open(None).unwrap());
    let index = heads.cached("index.jsonl");
    let text = std::fs::read(&index).unwrap();
    std::fs::write(&index, &text[..text.len() - 7]).unwrap();
    let (cache, built) = heads.open(None).unwrap();
    assert_eq!((built.kept, built.decoded), (4, 1));
    (0..5).for_each(|at| cache.verify(at).unwrap());
    drop(cache);
    let bytes = std::fs::read(&heads.files[1]).unwrap();
    std::fs::write(&heads.files[2], bytes).unwrap();
    let (cache, built) = heads.open(None).unwrap();
    assert_eq!((built.kept, built.decoded), (4, 1));
    assert_eq!(stored(&cache.view(1).unwrap()), stored(&cache.view(2).unwrap()));
    drop(cache);
    std::fs::write(&heads.files[3], b"no slice any more").unwrap();
    let (cache, built) = heads.open(None).unwrap();
    assert_eq!((built.decoded, built.refused[0].0.as_str()), (0, "slice-3"));
    assert!(!cache.has(3) && cache.view(3).is_none() && cache.has(2));
}

#[test]
fn damage_is_told_with_the_file() {
    let heads = Heads::new();
    let (cache, _) = heads.open(None).unwrap();
    let shard = heads.cached("shard-0000.raw");
    drop(cache);
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[48 * 48 * 2 + 5] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    let (cache, _) = heads.open(None).unwrap();
    assert_eq!((0..5).filter(|at| cache.verify(*at).is_err()).count(), 1);
    drop(cache);
    std::fs::write(&shard, &bytes[..100]).unwrap();
    let text = heads.open(None).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("shard-0000.raw") && text.contains("the index speaks of"), "{text}");
}

#[test]
fn smaller_slices_keep_their_mean() {
    let heads = Heads::new();
    let (full, _) = heads.open(None).unwrap();
    let (small, _) = heads.open(Some(24)).unwrap();
    for at in 0..5 {
        let (a, b) = (full.view(at).unwrap(), small.view(at).unwrap());
        assert_eq!((b.rows, b.columns), (24, 24));
        let mean = |values: Vec<i32>| values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        // Outside the scanner's circle lies padding, which becomes air.
        let air = ((AIR_HU - a.intercept) / a.slope).round() as i32;
        let is_padding = |value: &i32| a.padding.as_ref().is_some_and(|range| range.contains(value));
        let upright = stored(&a).into_iter().map(|value| if is_padding(&value) { air } else { value }).collect();
        let (a, b) = (mean(upright), mean(stored(&b)));
        assert!((a - b).abs() < 15.0, "slice {at}: {a} and {b}");
    }
}

#[test]
fn two_runs_read_the_same_cache_but_only_one_builds_it() {
    let heads = Heads::new();
    let (first, _) = heads.open(None).unwrap();
    let (second, built) = heads.open(None).unwrap();
    assert_eq!((built.kept, built.decoded), (5, 0));
    let bytes = std::fs::read(&heads.files[0]).unwrap();
    std::fs::write(&heads.files[4], bytes).unwrap();
    assert!(matches!(heads.open(None), Err(CacheError::Busy(_))));
    drop((first, second));
    assert_eq!(heads.open(None).unwrap().1.decoded, 1);
}

#[test]
fn what_was_refused_is_known_to_later_runs_until_file_or_rules_change() {
    let heads = Heads::new();
    std::fs::write(&heads.files[3], b"no slice").unwrap();
    let (first, built) = heads.open(None).unwrap();
    assert_eq!((built.decoded, built.refused_before, built.refused.len()), (4, 0, 1));
    let reason = built.refused[0].1.clone();
    // A second run beside the first has nothing to build, and tells the same.
    let (second, built) = heads.open(None).unwrap();
    assert_eq!((built.kept, built.decoded, built.refused_before), (4, 0, 1));
    assert_eq!(built.refused, [("slice-3".to_owned(), reason.clone())]);
    assert!(!second.has(3) && second.has(4));
    drop((first, second));

    // Other rules may take what these refuse.
    let names: Vec<String> = (0..5).map(|at| format!("slice-{at}")).collect();
    let wanted: Vec<Wanted<'_>> =
        names.iter().zip(&heads.files).map(|(instance, path)| Wanted { instance, path }).collect();
    let mut options = heads.options(None);
    options.rules.require_ct = false;
    let (_, built) = super::open(&options, &wanted, &|_| {}, &|| false).unwrap();
    assert_eq!((built.kept, built.refused_before, built.refused.len()), (4, 0, 1));

    // So may another file of that name; and it may be refused once more.
    let good = std::fs::read(&heads.files[0]).unwrap();
    std::fs::write(&heads.files[3], good).unwrap();
    let (cache, built) = heads.open(None).unwrap();
    assert_eq!((built.decoded, built.refused.len(), cache.has(3)), (1, 0, true));
    drop(cache);
    std::fs::write(&heads.files[3], b"no slice again").unwrap();
    drop(heads.open(None).unwrap());
    let (cache, built) = heads.open(None).unwrap();
    assert_eq!((built.kept, built.decoded, built.refused_before, cache.has(3)), (4, 0, 1, false));
}

#[test]
fn what_could_not_be_read_is_tried_again() {
    let heads = Heads::new();
    let away = heads.folder.path().join("away");
    std::fs::rename(&heads.files[2], &away).unwrap();
    let (_, built) = heads.open(None).unwrap();
    assert_eq!((built.decoded, built.refused[0].1.code), (4, RejectCode::Unreadable));
    std::fs::rename(&away, &heads.files[2]).unwrap();
    assert_eq!(heads.open(None).unwrap().1.decoded, 1);
}
