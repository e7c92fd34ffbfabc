//! How far probabilities are from the truth: log losses, Brier score, calibration error. Knows no order of slices.

use ichd_plugin::label::{Label, N_LABELS};
use serde::Serialize;

use crate::measure::{Column, Predictions};

/// Smallest probability of the truth that [`log_loss`] takes seriously: f64's epsilon, scikit-learn's choice.
pub const LOG_LOSS_FLOOR: f64 = f64::EPSILON;
/// The same in the contest's metric.
pub const CONTEST_FLOOR: f64 = 1e-15;
/// Weights of the contest's metric in label order: `any` counts twice.
pub const CONTEST_WEIGHTS: [f64; N_LABELS] = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Bins of [`calibration_error`].
pub const CALIBRATION_BINS: usize = 15;

/// Mean of -ln q, where q is the probability given to the truth (p if positive, else 1 - p), clipped to
/// `floor` to 1 - `floor`.
fn clipped_log_loss(column: Column<'_>, floor: f64) -> Option<f64> {
    let loss = |(probability, target): (f64, bool)| {
        let of_truth = if target { probability } else { 1.0 - probability };
        -of_truth.clamp(floor, 1.0 - floor).ln()
    };
    mean(column.pairs().map(loss), column.n_slices())
}

fn mean(values: impl Iterator<Item = f64>, count: u64) -> Option<f64> {
    (count > 0).then(|| values.sum::<f64>() / count as f64)
}

/// Log loss (binary cross entropy, natural logarithm) as scikit-learn's `log_loss` on f64 probabilities: the mean of
/// -ln q, q the probability of the truth clipped to 2.2e-16 and 1 - 2.2e-16 ([`LOG_LOSS_FLOOR`]), so at most 36.04 a slice.
/// None without slices; defined with one class.
pub fn log_loss(column: Column<'_>) -> Option<f64> {
    clipped_log_loss(column, LOG_LOSS_FLOOR)
}

/// The metric of the RSNA 2019 contest: log losses of the six labels, clipped at 1e-15 ([`CONTEST_FLOOR`]), `any` twice,
/// divided by 7. None without slices.
pub fn weighted_log_loss(predictions: &Predictions) -> Option<f64> {
    let mut sum = 0.0;
    for (label, weight) in Label::ALL.into_iter().zip(CONTEST_WEIGHTS) {
        sum += weight * clipped_log_loss(predictions.column(label), CONTEST_FLOOR)?;
    }
    Some(sum / CONTEST_WEIGHTS.iter().sum::<f64>())
}

/// Brier score: mean of (p - y)^2, y = 1 if positive, else 0. None without slices.
pub fn brier(column: Column<'_>) -> Option<f64> {
    let square = |(probability, target): (f64, bool)| (probability - f64::from(u8::from(target))).powi(2);
    mean(column.pairs().map(square), column.n_slices())
}

/// Slices whose probabilities fall into one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bin {
    /// Slices in it.
    pub slices: u64,
    /// Positive ones.
    pub positives: u64,
    /// Sum of their probabilities.
    pub sum: f64,
}

impl Bin {
    /// Mean probability; None if the bin is empty.
    pub fn predicted(&self) -> Option<f64> {
        (self.slices > 0).then(|| self.sum / self.slices as f64)
    }

    /// Share of positives; None if the bin is empty.
    pub fn observed(&self) -> Option<f64> {
        (self.slices > 0).then(|| self.positives as f64 / self.slices as f64)
    }
}

/// Bins of equal width over 0 to 1: bin k holds k / n <= p < (k + 1) / n, the last one 1 too. `count` 0 counts as 1.
pub fn bins(column: Column<'_>, count: usize) -> Vec<Bin> {
    let count = count.max(1);
    let mut bins = vec![Bin::default(); count];
    for (probability, target) in column.pairs() {
        let bin = &mut bins[((probability * count as f64) as usize).min(count - 1)];
        bin.slices += 1;
        bin.positives += u64::from(target);
        bin.sum += probability;
    }
    bins
}

/// Expected calibration error over [`CALIBRATION_BINS`] bins of equal width ([`bins`]): the mean over slices of
/// |mean probability - share of positives| in the slice's bin. Of the probability of the label (Naeini 2015), not of the
/// more probable class. None without slices.
pub fn calibration_error(column: Column<'_>) -> Option<f64> {
    // |sum p - positives| = slices |mean p - share|, without dividing and multiplying by the bin's slices.
    let gaps = bins(column, CALIBRATION_BINS).into_iter().map(|bin| (bin.sum - bin.positives as f64).abs());
    mean(gaps, column.n_slices())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column<'a>(probabilities: &'a [f64], targets: &'a [bool]) -> Column<'a> {
        Column::new(probabilities, targets).unwrap()
    }

    #[test]
    fn losses_of_tables_done_by_hand() {
        let table = column(&[0.5, 0.25], &[true, false]);
        assert_eq!(log_loss(table), Some(-(0.5f64.ln() + 0.75f64.ln()) / 2.0));
        assert_eq!(brier(table), Some((0.25 + 0.0625) / 2.0));
        assert_eq!(log_loss(column(&[0.0], &[true])), Some(-f64::EPSILON.ln()));
        assert_eq!(log_loss(column(&[1.0], &[false])), Some(-f64::EPSILON.ln()));
        assert_eq!([log_loss, brier, calibration_error].map(|metric| metric(column(&[], &[]))), [None; 3]);
    }

    #[test]
    fn the_contest_counts_any_twice_and_clips_at_1e_15() {
        let one_wrong = |label: Label| {
            let mut row = [0.0; N_LABELS];
            row[label as usize] = 1.0;
            Predictions::from_probabilities(&[row], &[[false; N_LABELS]], &[0]).unwrap()
        };
        let floor = -1e-15f64.ln();
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
        assert!(close(weighted_log_loss(&one_wrong(Label::Any)), floor * 2.0 / 7.0));
        assert!(close(weighted_log_loss(&one_wrong(Label::Subdural)), floor / 7.0));
        // What the sample submission scores.
        let half = Predictions::from_probabilities(&[[0.5; 6]], &[[true; 6]], &[0]).unwrap();
        assert!(close(weighted_log_loss(&half), std::f64::consts::LN_2));
    }

    #[test]
    fn bins_close_below_and_the_last_one_above() {
        let found = bins(column(&[0.0, 0.2, 1.0, 0.999], &[false, true, true, false]), 5);
        let slices: Vec<u64> = found.iter().map(|bin| bin.slices).collect();
        assert_eq!(slices, [1, 1, 0, 0, 2]);
        assert_eq!((found[4].observed(), found[2].observed(), found[2].predicted()), (Some(0.5), None, None));
    }

    #[test]
    fn calibration_error_is_the_gap_weighted_by_slices() {
        // Bin 3 (0.2): 0.2 against 0; bin 13 (0.9): 0.9 against 2/3.
        let table = column(&[0.2, 0.9, 0.9, 0.9], &[false, true, true, false]);
        let expected = (0.2 + 3.0 * (0.9 - 2.0 / 3.0)) / 4.0;
        assert!((calibration_error(table).unwrap() - expected).abs() < 1e-12);
    }
}
