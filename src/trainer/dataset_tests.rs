//! Tests of opening and splitting data, on phantoms.

use super::super::settings::{SplitMode, SplitSetting};
use super::*;
use crate::phantom::{PhantomOptions, write_dataset};

/// Eight small labelled heads and a place for runs.
pub struct Heads {
    pub folder: tempfile::TempDir,
    pub setting: TrainSetting,
}

impl Heads {
    pub fn new() -> Heads {
        let folder = tempfile::tempdir().unwrap();
        let options =
            PhantomOptions { studies: 8, side: 48, slices: 6..=6, bleed_share: 1.0, ..PhantomOptions::default() };
        write_dataset(&folder.path().join("heads"), &options, &|_, _| {}).unwrap();
        let mut setting = TrainSetting { cache_path: folder.path().join("cache"), ..TrainSetting::default() };
        setting.split.validation = 0.3;
        Heads { folder, setting }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open_with(&self, labels: &Path) -> (Result<Dataset, DataError>, Vec<String>) {
        let data = DataFolder {
            data: self.path("heads"),
            labels: labels.to_owned(),
            rules: AdmissionRules::default(),
            file_bytes_max: 1 << 20,
        };
        let mut told = Vec::new();
        let watcher = Watcher { progress: &|_, _, _| {}, is_stopped: &|| false };
        (Dataset::open(&data, &self.setting, &watcher, &mut |line| told.push(line)), told)
    }

    pub fn open(&self) -> Dataset {
        self.open_with(&self.path("heads/labels.csv")).0.unwrap()
    }

    /// The split of a run of that name.
    pub fn split(&self, dataset: &Dataset, run: &str) -> Result<Parts, DataError> {
        dataset.split(&self.setting, &self.path(run).join("split.csv"), &mut |_| {})
    }
}

#[test]
fn a_table_of_other_data_is_refused_before_anything_is_decoded() {
    let heads = Heads::new();
    let labels = heads.path("other.csv");
    std::fs::write(
        &labels,
        "id,any,epidural,intraparenchymal,intraventricular,subarachnoid,subdural\n1.2.3,0,0,0,0,0,0\n",
    )
    .unwrap();
    let (opened, told) = heads.open_with(&labels);
    assert!(matches!(opened.err(), Some(DataError::Problems(TooManyProblems::NothingLeft))));
    assert!(told.iter().any(|line| line.contains("label without a file: 1.2.3")), "{told:?}");
    assert!(!heads.path("cache").exists());
}

#[test]
fn a_split_that_is_there_must_be_the_one_that_is_wished() {
    let mut heads = Heads::new();
    let dataset = heads.open();
    let first = heads.split(&dataset, "run").unwrap();
    assert_eq!(first.words, "by patient, seed 1: validation 0.3, train 0.7, of which validation validates");
    assert_eq!((heads.split(&dataset, "run").unwrap(), first.shared_patients), (first.clone(), 0));

    let usual = heads.setting.split.clone();
    let mut refused = |split: SplitSetting, sentences: &[&str]| {
        heads.setting.split = split;
        let complaint = heads.split(&dataset, "run").unwrap_err().to_string();
        for sentence in sentences {
            assert!(complaint.contains(sentence), "{complaint}");
        }
    };
    let found = "split.csv holds a split by patient, seed 1: validation 0.3, train 0.7; the settings ask for one";
    let other = usual.clone();
    refused(SplitSetting { mode: SplitMode::Slice, ..other }, &[found, "one by slice", "--run"]);
    let other = usual.clone();
    refused(SplitSetting { validation: 0.2, ..other }, &[found, "validation 0.2, train 0.8"]);
    let other = usual.clone();
    refused(SplitSetting { seed: 2, ..other }, &[found, "seed 2"]);
    let other = usual.clone();
    refused(SplitSetting { folds: 2, ..other }, &[found, "fold-0 0.5, fold-1 0.5"]);
    let other = usual.clone();
    refused(SplitSetting { subset: 0.5, ..other }, &["of all slices", "of a subset"]);
    assert!(!heads.path("run/subset.csv").exists(), "nothing is written that does not fit");

    // The other way round.
    heads.setting.split = SplitSetting { subset: 0.5, ..usual.clone() };
    let words = heads.split(&dataset, "part").unwrap().words;
    assert!(words.ends_with("; of a subset by patient, seed 1: subset 0.5, rest 0.5"), "{words}");
    heads.setting.split.subset = 0.6;
    let complaint = heads.split(&dataset, "part").unwrap_err().to_string();
    assert!(
        complaint.contains("subset.csv holds a split") && complaint.contains("subset 0.6, rest 0.4"),
        "{complaint}"
    );
    heads.setting.split = usual;
    let complaint = heads.split(&dataset, "part").unwrap_err().to_string();
    assert!(complaint.contains("of a subset of the slices; the settings ask for one of all slices"), "{complaint}");
}

#[test]
fn patients_on_both_sides_and_smaller_slices_are_counted() {
    let mut heads = Heads::new();
    heads.setting.split.mode = SplitMode::Slice;
    let dataset = heads.open();
    assert_eq!(dataset.warning_of_side(&heads.setting), None);
    let parts = heads.split(&dataset, "run").unwrap();
    assert!(parts.words.starts_with("by slice") && parts.shared_patients > 2, "{parts:?}");
    let smaller = |cache_side| dataset.warning_of_side(&TrainSetting { cache_side, ..heads.setting.clone() });
    assert_eq!(smaller(48), None);
    let warning = smaller(32).unwrap();
    assert!(warning.starts_with("48 of 48 slices were made smaller, to 32 pixels"), "{warning}");
}
