//! Which labelled slices there are: finds the files of a folder, reads the beginning of each, and matches them with the
//! label table. Decodes no pixel and keeps no PatientID, only its digest.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::groups::GroupKey;
use super::labels::{LabelRow, LabelTable};
use super::problems::{Problem, ProblemTable};
use super::split::Member;
use crate::dicom::{self, AdmissionRules, Survey};
use crate::disk::Beginning;
use crate::reject::{RejectCode, Rejection};
use crate::slice::Geometry;
use crate::study::{dot, slice_normal};
use crate::watch::list_files;

/// First bytes that are read of a file. Headers of head CTs take 1 to 8 KiB.
const START_BYTES: u64 = 16 << 10;

/// How much more is read each time that it was too little.
const START_GROWTH: u64 = 8;

/// A labelled slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its file.
    pub path: PathBuf,
    /// SOPInstanceUID.
    pub instance: Box<str>,
    /// StudyInstanceUID, empty if missing.
    pub study: Arc<str>,
    /// SeriesInstanceUID, empty if missing.
    pub series: Arc<str>,
    /// Its patient: SHA-256 of PatientID, else of StudyInstanceUID.
    pub group: GroupKey,
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
    /// Place along the normal of the slice plane in mm, by which a series is ordered; without an orientation, z.
    pub z_mm: Option<f64>,
    /// Row in the label table.
    pub label_row: usize,
}

/// The labelled slices of a folder, by instance UID and path, and what is wrong with the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Each instance and each label row once.
    pub items: Vec<Item>,
    /// What is wrong.
    pub problems: ProblemTable,
    /// Files that were looked at.
    pub n_files: usize,
}

/// How files are judged.
#[derive(Clone, Debug)]
pub struct InventoryOptions {
    /// As in the daemon. A file with several frames is refused whatever they say: one label row cannot say which frame it means.
    pub rules: AdmissionRules,
    /// Largest file that is read.
    pub file_bytes_max: u64,
}

/// A file that could be a training slice.
struct Found {
    path: PathBuf,
    survey: Survey,
}

type Verdict = Result<Found, (PathBuf, Rejection)>;

impl Inventory {
    /// Looks at all files below `folder` as the inbox would: no links, no hidden or unfinished names. The
    /// result does not depend on the number of threads. `progress` is told how many files are done and how many there are.
    ///
    /// # Errors
    /// The folder, or one below it, cannot be read.
    pub fn take(
        folder: &Path,
        labels: &LabelTable,
        options: &InventoryOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> io::Result<Inventory> {
        let options = InventoryOptions {
            rules: AdmissionRules { frames_max: 1, ..options.rules.clone() },
            file_bytes_max: options.file_bytes_max,
        };
        let paths = list_files(folder)?;
        let (total, done) = (paths.len() as u64, AtomicU64::new(0));
        progress(0, total);
        let look = |path: PathBuf| {
            let verdict = look_at(&path, &options);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            match verdict {
                Ok(survey) => Ok(Found { path, survey }),
                Err(rejection) => Err((path, rejection)),
            }
        };
        let n_files = paths.len();
        let verdicts: Vec<Verdict> = paths.into_par_iter().map(look).collect();
        Ok(Inventory { n_files, ..matched(verdicts, labels) })
    }

    /// What a split needs of each item.
    pub fn members<'i>(&'i self, labels: &LabelTable) -> Vec<Member<'i>> {
        let member = |item: &'i Item| Member {
            instance: &item.instance,
            group: item.group,
            labels: labels.labels(item.label_row),
        };
        self.items.iter().map(member).collect()
    }

    /// Truth of each item.
    pub fn labels(&self, labels: &LabelTable) -> Vec<LabelRow> {
        self.items.iter().map(|item| labels.labels(item.label_row)).collect()
    }
}

/// Reads as much of a file as its header takes.
fn look_at(path: &Path, options: &InventoryOptions) -> Result<Survey, Rejection> {
    let unreadable = |error: io::Error| Rejection::new(RejectCode::Unreadable, error.kind().to_string());
    let mut beginning = Beginning::open(path).map_err(unreadable)?;
    if beginning.file_bytes > options.file_bytes_max {
        return Err(Rejection::new(RejectCode::TooLarge, format!("{} bytes", beginning.file_bytes)));
    }
    let mut wanted = START_BYTES;
    loop {
        let read_before = beginning.bytes.len();
        beginning.extend_to(wanted).map_err(unreadable)?;
        let (bytes, file_bytes) = (&beginning.bytes, beginning.file_bytes);
        // A panic in the reader would be a bug; it must not end hours of preparation.
        let survey = catch_unwind(AssertUnwindSafe(|| dicom::survey(bytes, file_bytes, &options.rules)))
            .unwrap_or_else(|_| Err(Rejection::new(RejectCode::Corrupt, "the reader failed on it")))?;
        match survey {
            Some(survey) if survey.instance.is_empty() => {
                return Err(Rejection::new(RejectCode::MissingTag, "it has no SOPInstanceUID"));
            }
            Some(survey) if group_of(&survey).is_none() => {
                return Err(Rejection::new(RejectCode::MissingTag, "it has neither PatientID nor StudyInstanceUID"));
            }
            Some(survey) => return Ok(survey),
            // The file became shorter meanwhile.
            None if beginning.bytes.len() == read_before && read_before > 0 => {
                return Err(Rejection::new(RejectCode::Unreadable, "it changed while it was read"));
            }
            None => wanted = wanted.saturating_mul(START_GROWTH),
        }
    }
}

fn group_of(survey: &Survey) -> Option<GroupKey> {
    let by_study = || (!survey.study.is_empty()).then(|| GroupKey::of(&survey.study));
    survey.patient_sha256.map(GroupKey).or_else(by_study)
}

/// What is labelled so far.
struct Claims<'l> {
    labels: &'l LabelTable,
    /// Of each label row, the best that was found.
    state: Vec<Claim>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    NoFile,
    Unusable,
    Used,
}

impl Claims<'_> {
    /// The row of a file's name: whole, or without its last ending.
    fn row_of_name(&self, path: &Path) -> Option<usize> {
        let name = path.file_name().and_then(|name| name.to_str())?;
        let stem = path.file_stem().and_then(|stem| stem.to_str())?;
        self.labels.find(name).or_else(|| self.labels.find(stem))
    }

    fn row_of(&self, found: &Found) -> Option<usize> {
        self.labels.find(&found.survey.instance).or_else(|| self.row_of_name(&found.path))
    }
}

/// Matches files with labels. Verdicts come in the order of paths.
fn matched(verdicts: Vec<Verdict>, labels: &LabelTable) -> Inventory {
    let mut problems = ProblemTable { n_labelled: labels.len(), ..ProblemTable::default() };
    let mut claims = Claims { labels, state: vec![Claim::NoFile; labels.len()] };
    let mut founds = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        match verdict {
            Ok(found) => founds.push(found),
            Err((path, rejection)) => {
                problems.note(Problem::Unreadable(rejection.code), || path.display().to_string());
                if let Some(row) = claims.row_of_name(&path) {
                    claims.state[row] = Claim::Unusable;
                }
            }
        }
    }
    founds.sort_by(|a, b| a.survey.instance.cmp(&b.survey.instance).then_with(|| a.path.cmp(&b.path)));
    founds.dedup_by(|later, first| {
        let same = later.survey.instance == first.survey.instance;
        if same {
            problems.note(Problem::Duplicate, || later.path.display().to_string());
        }
        same
    });
    // Identifiers go before names: a file that is only called like an image must not take its label.
    for found in &founds {
        if let Some(row) = labels.find(&found.survey.instance) {
            claims.state[row] = Claim::Used;
        }
    }
    let mut texts = Texts::default();
    let mut items = Vec::with_capacity(founds.len());
    for found in founds {
        let by_identifier = labels.find(&found.survey.instance).is_some();
        match claims.row_of(&found).zip(group_of(&found.survey)) {
            None => problems.note(Problem::Unlabelled, || found.path.display().to_string()),
            Some((row, _)) if !by_identifier && claims.state[row] == Claim::Used => {
                problems.note(Problem::Duplicate, || found.path.display().to_string());
            }
            Some((row, group)) => {
                claims.state[row] = Claim::Used;
                items.push(item(found, row, group, &mut texts));
            }
        }
    }
    for (row, claim) in claims.state.iter().enumerate() {
        match claim {
            Claim::Used => {}
            Claim::Unusable => problems.n_unusable += 1,
            Claim::NoFile => {
                problems.n_without_file += 1;
                problems.note(Problem::WithoutFile, || labels.id(row).to_owned());
            }
        }
    }
    Inventory { items, problems, n_files: 0 }
}

/// Each text once: the slices of a series share theirs.
#[derive(Default)]
struct Texts(HashMap<String, Arc<str>>);

impl Texts {
    fn shared(&mut self, text: String) -> Arc<str> {
        Arc::clone(self.0.entry(text).or_insert_with_key(|text| text.as_str().into()))
    }
}

fn item(found: Found, label_row: usize, group: GroupKey, texts: &mut Texts) -> Item {
    let Found { path, survey } = found;
    Item {
        path,
        instance: survey.instance.into(),
        study: texts.shared(survey.study),
        series: texts.shared(survey.series),
        group,
        rows: survey.rows,
        columns: survey.columns,
        z_mm: z_mm(&survey.geometry),
        label_row,
    }
}

fn z_mm(geometry: &Geometry) -> Option<f64> {
    let position = geometry.position?;
    let along = geometry.orientation.and_then(slice_normal).map(|normal| dot(normal, position));
    Some(along.unwrap_or(position[2]))
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
