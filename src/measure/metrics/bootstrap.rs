//! How sure an AUROC is: confidence intervals from resampled patients. Knows patients only as numbers.
//!
//! Slices of a patient are alike, so resampling slices would give intervals far too narrow; whole patients are drawn
//! instead (cluster bootstrap), with replacement, as many as there are. The interval is the 2.5th to the 97.5th percentile
//! of the resampled AUROCs, linearly interpolated as numpy's `percentile` does.
//!
//! Draws come from SplitMix64, so that a seed gives the same interval on every machine and in any number of threads: draw
//! `k` of replicate `r` is `mix(mix(seed + (r + 1) STEP) + (k + 1) STEP)` with the wrapping sums of u64; its high 32 bits
//! times the number of patients, divided by 2^32, is the patient's place among all patients in ascending order.

use ichd_plugin::label::{Label, N_LABELS};
use rayon::prelude::*;
use serde::Serialize;

use crate::measure::{Column, Predictions};

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Resamplings; 1000 settle the third digit.
    pub replicates: usize,
    /// The same seed gives the same intervals.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { replicates: 1000, seed: 2019 }
    }
}

/// A 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
    /// Resamplings that it is made of: those in which both classes were drawn.
    pub replicates: usize,
}

/// Share of resamplings that must have both classes. With positives in one patient 37 % have none, in two 14 %, in three
/// 5 %: so an interval needs about three positive (and three negative) patients.
const DEFINED_SHARE: f64 = 0.9;

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// How often each of `n_groups` patients is drawn in a replicate.
fn draws(seed: u64, replicate: u64, n_groups: usize) -> Vec<u32> {
    let key = mix(seed.wrapping_add((replicate + 1).wrapping_mul(STEP)));
    let mut times = vec![0; n_groups];
    for draw in 0..n_groups as u64 {
        let bits = mix(key.wrapping_add((draw + 1).wrapping_mul(STEP)));
        times[(((bits >> 32) * n_groups as u64) >> 32) as usize] += 1;
    }
    times
}

/// A slice of the sorted table.
#[derive(Clone, Copy)]
struct Row {
    probability: f64,
    group: u32,
    target: bool,
}

/// Places of patients among all of them in ascending order, for each slice, and their number.
fn places(groups: &[u32]) -> (Vec<u32>, usize) {
    let mut names = groups.to_vec();
    names.sort_unstable();
    names.dedup();
    let place = |name: &u32| names.partition_point(|other| other < name) as u32;
    (groups.iter().map(place).collect(), names.len())
}

/// Intervals of all labels' AUROCs. None for a label with one class only, with fewer than two patients, or of whose
/// resamplings more than a tenth lack a class.
pub fn auroc_intervals(predictions: &Predictions, settings: &Bootstrap) -> [Option<Interval>; N_LABELS] {
    let (places, n_groups) = places(predictions.groups());
    Label::ALL.map(|label| interval(predictions.column(label), &places, n_groups, settings))
}

fn interval(column: Column<'_>, places: &[u32], n_groups: usize, settings: &Bootstrap) -> Option<Interval> {
    if n_groups < 2 || settings.replicates == 0 {
        return None;
    }
    let row = |((probability, target), group): ((f64, bool), &u32)| Row { probability, group: *group, target };
    let mut rows: Vec<Row> = column.pairs().zip(places).map(row).collect();
    rows.sort_unstable_by(|a, b| a.probability.total_cmp(&b.probability));
    let replicate = |at: usize| resampled_auroc(&rows, &draws(settings.seed, at as u64, n_groups));
    let mut areas: Vec<f64> = (0..settings.replicates).into_par_iter().filter_map(replicate).collect();
    if (areas.len() as f64) < DEFINED_SHARE * settings.replicates as f64 {
        return None;
    }
    areas.sort_unstable_by(f64::total_cmp);
    Some(Interval { low: percentile(&areas, 0.025)?, high: percentile(&areas, 0.975)?, replicates: areas.len() })
}

/// AUROC of rows sorted by probability, each counted as often as its patient was drawn.
fn resampled_auroc(rows: &[Row], times: &[u32]) -> Option<f64> {
    let (mut positives, mut negatives, mut twice) = (0u64, 0u64, 0u128);
    for tied in rows.chunk_by(|a, b| a.probability == b.probability) {
        let (mut tied_positives, mut tied_negatives) = (0u64, 0u64);
        for row in tied {
            let count = u64::from(times[row.group as usize]);
            if row.target {
                tied_positives += count;
            } else {
                tied_negatives += count;
            }
        }
        twice += u128::from(tied_positives) * (2 * u128::from(negatives) + u128::from(tied_negatives));
        positives += tied_positives;
        negatives += tied_negatives;
    }
    (positives > 0 && negatives > 0).then(|| twice as f64 / 2.0 / (positives as f64 * negatives as f64))
}

/// Percentile of sorted values, linear between the two nearest.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    let below = *sorted.get(at.floor() as usize)?;
    let above = *sorted.get(at.ceil() as usize)?;
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patients with ten slices each; every third has blood, which a fair model sees.
    fn table(patients: u32) -> Predictions {
        let rows = patients * 10;
        let noise = |row: u32| (mix(u64::from(row)) >> 40) as f32 / 16_777_216.0;
        let blood = |row: u32| (row / 10).is_multiple_of(3);
        let logits: Vec<[f32; 6]> =
            (0..rows).map(|row| [2.0 * noise(row) + if blood(row) { 0.5 } else { 0.0 }; 6]).collect();
        let targets: Vec<[bool; 6]> = (0..rows).map(|row| [blood(row); 6]).collect();
        let groups: Vec<u32> = (0..rows).map(|row| row / 10 * 7).collect();
        Predictions::from_logits(&logits, &targets, &groups, None).unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_interval_around_the_area() {
        let predictions = table(60);
        let settings = Bootstrap { replicates: 200, seed: 1 };
        let found = auroc_intervals(&predictions, &settings)[0].unwrap();
        let area = super::super::auroc(predictions.column(Label::Any)).unwrap();
        assert!(found.low < area && area < found.high, "{found:?} {area}");
        assert!(found.high - found.low < 0.2, "{found:?}");
        assert_eq!(auroc_intervals(&predictions, &settings)[0], Some(found));
        assert_ne!(auroc_intervals(&predictions, &Bootstrap { seed: 2, ..settings })[0], Some(found));
    }

    #[test]
    fn whole_patients_are_drawn() {
        // One slice a patient or ten equal ones: nothing new was learned, so the interval must not shrink.
        let logits: Vec<[f32; 6]> = (0..40).map(|k| [(mix(k) >> 40) as f32 / 1e6 + k as f32 / 9.0; 6]).collect();
        let targets: Vec<[bool; 6]> = (0..40).map(|k| [k % 3 == 0; 6]).collect();
        let groups: Vec<u32> = (0..40).collect();
        let once = Predictions::from_logits(&logits, &targets, &groups, None).unwrap();
        let tenfold =
            Predictions::from_logits(&logits.repeat(10), &targets.repeat(10), &groups.repeat(10), None).unwrap();
        let settings = Bootstrap { replicates: 100, seed: 3 };
        assert_eq!(auroc_intervals(&once, &settings), auroc_intervals(&tenfold, &settings));
    }

    #[test]
    fn too_few_patients_give_no_interval() {
        assert_eq!(auroc_intervals(&table(1), &Bootstrap::default()), [None; 6]);
        // Blood in one patient of three.
        assert_eq!(auroc_intervals(&table(3), &Bootstrap::default()), [None; 6]);
        let empty = Predictions::from_logits(&[], &[], &[], None).unwrap();
        assert_eq!(auroc_intervals(&empty, &Bootstrap::default()), [None; 6]);
    }

    #[test]
    fn percentiles_are_linear() {
        let sorted = [0.0, 1.0, 2.0, 3.0];
        assert_eq!([0.0, 0.5, 1.0].map(|share| percentile(&sorted, share)), [Some(0.0), Some(1.5), Some(3.0)]);
        assert_eq!(percentile(&[], 0.5), None);
    }
}
