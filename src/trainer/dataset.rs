//! From a labelled folder to what epochs need: inventory, split, cache. Knows no network.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ichd_plugin::label::N_LABELS;

use super::cache::{self, Cache, CacheError, CacheOptions, Wanted};
use super::inventory::{Inventory, InventoryOptions, Item};
use super::labels::{self, LabelRow, LabelTable};
use super::problems::{Problem, TooManyProblems};
use super::recipe::TrainSetting;
use super::split::{Member, Plan, Split, SplitError};
use super::table::TableError;
use crate::dicom::AdmissionRules;
use crate::disk::{Disk, RealDisk};
use crate::identity::sha256;
use crate::measure::report::DataFacts;

/// Where the data lies.
#[derive(Clone, Debug)]
pub struct DataFolder {
    /// DICOM files, in any folders.
    pub data: PathBuf,
    /// The label table.
    pub labels: PathBuf,
    /// Which files count as slices.
    pub rules: AdmissionRules,
    /// Larger files are refused.
    pub file_bytes_max: u64,
}

/// Data that cannot be trained on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DataError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("{path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Problems(#[from] TooManyProblems),
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("{path}: the split does not fit the data: {sentence}; delete it to split anew")]
    OtherSplit { path: PathBuf, sentence: String },
    #[error(
        "{path} holds a split {found}; the settings ask for one {wanted}. Put `train.split` back as it was, give another folder with --run, or delete the file to split anew"
    )]
    OtherPlan { path: PathBuf, found: String, wanted: String },
    #[error("{0}")]
    Nothing(String),
}

/// The slices of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Those that train and those that validate.
    pub slices: [Vec<usize>; 2],
    /// How they were parted, as the files of the split say.
    pub words: String,
    /// Patients with slices in both: none unless it was split by slice.
    pub shared_patients: u64,
}

/// Labelled slices, decoded.
pub struct Dataset {
    /// Slices in the order of the cache.
    pub items: Vec<Item>,
    /// Their truth.
    pub labels: Vec<LabelRow>,
    /// Their patients as numbers.
    pub groups: Vec<u32>,
    /// Their values.
    pub cache: Cache,
    /// Digest of the label table.
    pub labels_sha256: String,
}

/// What was found on the way, to be told.
pub type Tell<'t> = &'t mut dyn FnMut(String);

/// What shows how far long work has come.
pub struct Watcher<'w> {
    /// What is done, how much of it, and how much there is.
    pub progress: &'w (dyn Fn(&str, u64, u64) + Sync),
    /// Whether the wish to stop was voiced.
    pub is_stopped: &'w dyn Fn() -> bool,
}

impl Dataset {
    /// Reads labels and headers, and decodes what the cache lacks.
    ///
    /// # Errors
    /// Tables or folders that cannot be read, more problems than the settings allow, a cache that cannot be built.
    pub fn open(
        folder: &DataFolder,
        setting: &TrainSetting,
        watcher: &Watcher<'_>,
        tell: Tell<'_>,
    ) -> Result<Dataset, DataError> {
        let read = labels::read(&folder.labels)?;
        read.notes().into_iter().for_each(&mut *tell);
        let table: LabelTable = read.table;
        let options = InventoryOptions { rules: folder.rules.clone(), file_bytes_max: folder.file_bytes_max };
        let look = |done, total| (watcher.progress)("headers", done, total);
        let mut inventory = Inventory::take(&folder.data, &table, &options, &look)
            .map_err(|source| DataError::Folder { path: folder.data.clone(), source })?;
        // A table of other data is found now, and not when all of it was decoded.
        if let Err(too_many) = inventory.problems.may_train(&setting.data) {
            inventory.problems.lines().into_iter().for_each(&mut *tell);
            return Err(too_many.into());
        }
        let wanted: Vec<Wanted<'_>> =
            inventory.items.iter().map(|item| Wanted { instance: &item.instance, path: &item.path }).collect();
        let cache_options = CacheOptions {
            folder: setting.cache_path.clone(),
            side: (setting.cache_side > 0).then_some(setting.cache_side),
            rules: AdmissionRules { frames_max: 1, ..folder.rules.clone() },
            file_bytes_max: folder.file_bytes_max,
        };
        let total = wanted.len() as u64;
        let decode = |done: usize| (watcher.progress)("decoding", done as u64, total);
        let (cache, built) = cache::open(&cache_options, &wanted, &decode, watcher.is_stopped)?;
        drop(wanted);
        tell(format!(
            "{} slices of {:.0} MB decoded; {} were in the cache, {} are new",
            built.kept + built.decoded,
            cache.bytes() as f64 / 1e6,
            built.kept,
            built.decoded
        ));
        if built.refused_before > 0 {
            tell(format!("{} files gave no slice in an earlier run and were not read again", built.refused_before));
        }
        for (instance, rejection) in &built.refused {
            inventory.problems.n_unusable += 1;
            inventory.problems.note(Problem::Unreadable(rejection.code), || instance.clone());
        }
        inventory.problems.lines().into_iter().for_each(&mut *tell);
        inventory.problems.may_train(&setting.data)?;
        // Slices whose file gave no pixels keep their place in the cache and are left out of every part.
        let labels = inventory.labels(&table);
        let groups = numbered(&inventory.items);
        let dataset = Dataset { items: inventory.items, labels, groups, cache, labels_sha256: table.digest() };
        dataset.warning_of_side(setting).into_iter().for_each(&mut *tell);
        Ok(dataset)
    }

    /// What must be said where slices were made smaller before they are windowed: the daemon windows whole ones.
    pub fn warning_of_side(&self, setting: &TrainSetting) -> Option<String> {
        let side = setting.cache_side;
        let is_larger = |item: &&Item| side > 0 && item.rows.max(item.columns) > side;
        let n_smaller = self.items.iter().filter(is_larger).count();
        (n_smaller > 0).then(|| {
            format!(
                "{n_smaller} of {} slices were made smaller, to {side} pixels, before they were windowed (train.cache_side). \
                 The daemon windows whole slices: served probabilities differ from the ones measured here.",
                self.items.len()
            )
        })
    }

    /// Slices that can be shown to a network.
    pub fn usable(&self) -> Vec<usize> {
        (0..self.items.len()).filter(|at| self.cache.has(*at)).collect()
    }

    fn members<'d>(&'d self, of: &'d [usize]) -> Vec<Member<'d>> {
        let member = |at: &usize| Member {
            instance: &self.items[*at].instance,
            group: self.items[*at].group,
            labels: self.labels[*at],
        };
        of.iter().map(member).collect()
    }

    /// The slices that train and those that validate. The split is read from `file`, or made and written there.
    ///
    /// # Errors
    /// The file is damaged, speaks of other data or of another split, or no such split is possible.
    pub fn split(&self, setting: &TrainSetting, file: &Path, tell: Tell<'_>) -> Result<Parts, DataError> {
        let mut of = self.usable();
        let mut words = String::new();
        let subset_file = file.with_file_name("subset.csv");
        let subset = Plan::subset_of(&setting.split);
        // A split that is there was made of a subset or of everything; one that is to be made brings its own subset.
        if file.exists() && subset_file.exists() != subset.is_some() {
            let of = |subset: bool| if subset { "of a subset of the slices" } else { "of all slices" }.to_owned();
            let (found, wanted) = (of(subset_file.exists()), of(subset.is_some()));
            return Err(DataError::OtherPlan { path: file.to_owned(), found, wanted });
        }
        match subset {
            Some(plan) => {
                let split = self.read_or_make(&of, plan, &subset_file)?;
                of.retain(|at| split.part_of(&self.items[*at].instance) == Some(0));
                words = format!("; of a subset {}", split.plan);
            }
            None => RealDisk
                .remove(&subset_file)
                .map_err(|source| DataError::Folder { path: subset_file.clone(), source })?,
        }
        let split = self.read_or_make(&of, Plan::of(&setting.split), file)?;
        split.warning().into_iter().for_each(&mut *tell);
        let held_out = match setting.split.folds {
            0 => split.part_named("validation"),
            _ => Some(setting.split.fold),
        };
        let name = held_out.and_then(|part| split.plan.parts.get(part)).map_or("", |part| part.name.as_str());
        let words = format!("{}, of which {name} validates{words}", split.plan);
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for at in of {
            match split.part_of(&self.items[at].instance) {
                part @ Some(_) if part == held_out => validation.push(at),
                Some(_) => training.push(at),
                None => {}
            }
        }
        if training.is_empty() || validation.is_empty() {
            let (a, b) = (training.len(), validation.len());
            return Err(DataError::Nothing(format!("{a} slices would train and {b} validate; both must have some")));
        }
        let patients = |part: &[usize]| part.iter().map(|at| self.groups[*at]).collect::<HashSet<u32>>();
        let shared_patients = patients(&training).intersection(&patients(&validation)).count() as u64;
        Ok(Parts { slices: [training, validation], words, shared_patients })
    }

    /// The slices of a named part of a split file.
    ///
    /// # Errors
    /// The file cannot be read, or has no such part.
    pub fn part(&self, file: &Path, name: &str) -> Result<Vec<usize>, DataError> {
        let split = Split::read(file)?;
        let part = split.part_named(name).ok_or_else(|| {
            let names: Vec<&str> = split.plan.parts.iter().map(|part| part.name.as_str()).collect();
            DataError::Nothing(format!("{} has no part `{name}`; it has {}", file.display(), names.join(", ")))
        })?;
        let of = self.usable().into_iter();
        Ok(of.filter(|at| split.part_of(&self.items[*at].instance) == Some(part)).collect())
    }

    fn read_or_make(&self, of: &[usize], plan: Plan, file: &Path) -> Result<Split, DataError> {
        let members = self.members(of);
        if !file.exists() {
            let split = Split::make(&members, plan, self.labels_sha256.clone())?;
            split.write(&RealDisk, file).map_err(|source| DataError::Folder { path: file.to_owned(), source })?;
            return Ok(split);
        }
        let split = Split::read(file)?;
        if split.plan != plan {
            let (found, wanted) = (split.plan.to_string(), plan.to_string());
            return Err(DataError::OtherPlan { path: file.to_owned(), found, wanted });
        }
        let differences = split.differences(&members, &self.labels_sha256);
        if !differences.is_empty() {
            let sentence = differences.to_string();
            return Err(DataError::OtherSplit { path: file.to_owned(), sentence });
        }
        Ok(split)
    }

    /// Targets of slices, as numbers.
    pub fn targets(&self, of: &[usize]) -> Vec<f32> {
        of.iter().flat_map(|at| self.labels[*at].map(|label| f32::from(u8::from(label)))).collect()
    }

    /// What a model card says about slices.
    pub fn facts(&self, of: &[usize]) -> DataFacts {
        let names: Vec<&str> = of.iter().map(|at| &*self.items[*at].instance).collect();
        let studies: HashSet<&str> = of.iter().map(|at| &*self.items[*at].study).collect();
        let patients: HashSet<u32> = of.iter().map(|at| self.groups[*at]).collect();
        DataFacts {
            slices: of.len() as u64,
            studies: Some(studies.len() as u64),
            patients: Some(patients.len() as u64),
            sha256: sha256(names.join("\n").as_bytes()),
        }
    }

    /// Truth and patients of slices.
    pub fn truth(&self, of: &[usize]) -> (Vec<[bool; N_LABELS]>, Vec<u32>) {
        of.iter().map(|at| (self.labels[*at], self.groups[*at])).unzip()
    }
}

/// Patients as numbers, in the order in which they come.
fn numbered(items: &[Item]) -> Vec<u32> {
    let mut numbers = HashMap::new();
    items
        .iter()
        .map(|item| {
            let next = numbers.len() as u32;
            *numbers.entry(item.group).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
pub(super) mod tests;
