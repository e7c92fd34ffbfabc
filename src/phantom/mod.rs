//! Synthetic labelled head-CT studies as real DICOM files. Knows nothing of the daemon.
//!
//! A head is a function of space ([`head`]), blood lies in it ([`bleed`]), a scanner cuts it into noisy slices
//! ([`render`]). Everything follows from a seed; no patient was ever involved.

pub mod bleed;
pub mod dicom;
pub mod head;
pub mod noise;
pub mod render;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ichd_plugin::label::{Label, N_LABELS};
use rayon::prelude::*;

use crate::disk::{Disk, RealDisk};
use render::Study;

/// What to make.
#[derive(Clone, Debug)]
pub struct PhantomOptions {
    /// Number of studies.
    pub studies: usize,
    /// Everything follows from it.
    pub seed: u64,
    /// Share of studies with blood.
    pub bleed_share: f64,
    /// Subtypes that may occur.
    pub subtypes: Vec<Label>,
    /// Side of a slice in pixels.
    pub side: usize,
    /// Slices per study.
    pub slices: RangeInclusive<usize>,
    /// Identifiers and elements as in the RSNA 2019 set, instead of legal ones.
    pub rsna_style: bool,
}

impl Default for PhantomOptions {
    fn default() -> Self {
        PhantomOptions {
            studies: 4,
            seed: 1,
            bleed_share: 0.5,
            subtypes: Label::SUBTYPES.to_vec(),
            side: 512,
            slices: 30..=40,
            rsna_style: false,
        }
    }
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Studies.
    pub studies: usize,
    /// Slices.
    pub slices: usize,
    /// Positive slices in label order.
    pub positive: [usize; N_LABELS],
}

/// A wish that cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum PhantomError {
    /// Options that make no sense.
    #[error("{0}")]
    Options(String),
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The DICOM library refused the data: a bug.
    #[error("a phantom could not be encoded: {0}; this is a bug")]
    Encode(String),
}

impl PhantomOptions {
    fn check(&self) -> Result<(), PhantomError> {
        let fail = |sentence: &str| Err(PhantomError::Options(sentence.to_owned()));
        if !(1..=100_000).contains(&self.studies) {
            return fail("the number of studies must be 1 to 100000");
        }
        if !(32..=2048).contains(&self.side) {
            return fail("the side of a slice must be 32 to 2048 pixels");
        }
        if !(0.0..=1.0).contains(&self.bleed_share) {
            return fail("the share of studies with blood must be 0 to 1");
        }
        if *self.slices.start() == 0 || self.slices.is_empty() || *self.slices.end() > 1000 {
            return fail("the number of slices must be 1 to 1000");
        }
        if self.subtypes.contains(&Label::Any) {
            return fail("`any` is no subtype");
        }
        Ok(())
    }
}

/// Writes `out/<study>/<instance>.dcm` for every slice and `out/labels.csv` in RSNA's format. Each file appears whole.
/// `progress` is told how many slices are done and how many there will be.
///
/// # Errors
/// Options that make no sense, or a file that cannot be written.
pub fn write_dataset(
    out: &Path,
    options: &PhantomOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Summary, PhantomError> {
    options.check()?;
    let studies: Vec<Study> = (0..options.studies).map(|idx| Study::new(options.seed, idx, options)).collect();
    let slices: Vec<(&Study, usize)> =
        studies.iter().flat_map(|study| (0..study.n_slices).map(move |slice_idx| (study, slice_idx))).collect();
    let (total, done) = (slices.len() as u64, AtomicU64::new(0));
    progress(0, total);
    let write = |(study, slice_idx): &(&Study, usize)| {
        let slice = study.slice(*slice_idx);
        let ids = dicom::ids(options, study, *slice_idx);
        let bytes = dicom::encode(options, study, *slice_idx, &slice.hu)?;
        let path = out.join(&ids.study).join(format!("{}.dcm", ids.instance));
        RealDisk.write_whole(&path, &bytes).map_err(|source| PhantomError::Io { path, source })?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        Ok((ids.instance, slice.labels))
    };
    let rows: Vec<(String, [bool; N_LABELS])> = slices.par_iter().map(write).collect::<Result<_, PhantomError>>()?;
    let path = out.join("labels.csv");
    RealDisk.write_whole(&path, csv(&rows).as_bytes()).map_err(|source| PhantomError::Io { path, source })?;
    let mut summary = Summary { studies: studies.len(), slices: rows.len(), positive: [0; N_LABELS] };
    for (_, labels) in &rows {
        for (count, label) in summary.positive.iter_mut().zip(labels) {
            *count += usize::from(*label);
        }
    }
    Ok(summary)
}

/// RSNA's long table: six rows for each image, the subtypes in alphabetical order and `any` last.
fn csv(rows: &[(String, [bool; N_LABELS])]) -> String {
    let mut text = String::from("ID,Label\n");
    for (instance, labels) in rows {
        for label in Label::SUBTYPES.into_iter().chain([Label::Any]) {
            text.push_str(&format!("{instance}_{label},{}\n", u8::from(labels[label as usize])));
        }
    }
    text
}
