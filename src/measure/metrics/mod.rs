//! All metrics of an evaluation in one place, per label, over all labels together, and as means over labels. Knows no plot.
//!
//! What a table does not define is `None`: a label without a positive (or negative) slice has no AUROC, a threshold that finds
//! nothing has no PPV. Values equal scikit-learn's to 1e-9 (`tools/golden_metrics.py`).

mod bootstrap;
mod confusion;
mod losses;
mod ranking;

use ichd_plugin::label::N_LABELS;
use serde::Serialize;

pub use bootstrap::{Bootstrap, Interval, auroc_intervals};
pub use confusion::{Confusion, is_found};
pub use losses::{
    Bin, CALIBRATION_BINS, CONTEST_FLOOR, CONTEST_WEIGHTS, LOG_LOSS_FLOOR, bins, brier, calibration_error, log_loss,
    weighted_log_loss,
};
pub use ranking::{CURVE_POINTS, Curve, CurvePoint, auroc, average_precision, precision_recall_curve, roc_curve};

use super::{Column, Predictions};

/// The threshold of plain accuracy, and of every label without an operating point of its own.
pub const HALF: f32 = 0.5;

/// Metrics of one label, or of all labels as one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BinaryMetrics {
    /// Slices (times labels, if of all labels).
    pub slices: u64,
    /// Positive ones.
    pub positives: u64,
    /// Share of right answers at 0.5.
    pub accuracy: Option<f64>,
    /// See [`auroc`].
    pub auroc: Option<f64>,
    /// See [`average_precision`].
    pub average_precision: Option<f64>,
    /// See [`log_loss`].
    pub log_loss: Option<f64>,
    /// See [`brier`].
    pub brier: Option<f64>,
    /// See [`calibration_error`].
    pub calibration_error: Option<f64>,
    /// At the operating points.
    pub confusion: Confusion,
}

impl BinaryMetrics {
    /// Metrics of a column at an operating point.
    pub fn of(column: Column<'_>, point: f32) -> Self {
        BinaryMetrics {
            slices: column.n_slices(),
            positives: column.n_positives(),
            accuracy: Confusion::at(column, HALF).accuracy(),
            auroc: auroc(column),
            average_precision: average_precision(column),
            log_loss: log_loss(column),
            brier: brier(column),
            calibration_error: calibration_error(column),
            confusion: Confusion::at(column, point),
        }
    }

    /// Positives / slices.
    pub fn prevalence(&self) -> Option<f64> {
        (self.slices > 0).then(|| self.positives as f64 / self.slices as f64)
    }
}

/// A mean over the labels for which a metric is defined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// None if no label has the metric.
    pub value: Option<f64>,
    /// Labels that have it; a mean over fewer than six is another quantity and has to be told.
    pub labels: usize,
}

impl Mean {
    /// Mean of those that are defined.
    pub fn of(values: [Option<f64>; N_LABELS]) -> Self {
        let labels = values.iter().flatten().count();
        let sum: f64 = values.iter().flatten().sum();
        Mean { value: (labels > 0).then(|| sum / labels as f64), labels }
    }
}

/// Unweighted means over labels ("macro").
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Means {
    pub accuracy: Mean,
    pub auroc: Mean,
    pub average_precision: Mean,
    pub log_loss: Mean,
    pub brier: Mean,
    pub calibration_error: Mean,
    pub sensitivity: Mean,
    pub specificity: Mean,
    pub ppv: Mean,
    pub npv: Mean,
    pub f1: Mean,
}

impl Means {
    fn of(labels: &[BinaryMetrics; N_LABELS]) -> Self {
        let mean = |value: fn(&BinaryMetrics) -> Option<f64>| Mean::of(labels.each_ref().map(value));
        Means {
            accuracy: mean(|label| label.accuracy),
            auroc: mean(|label| label.auroc),
            average_precision: mean(|label| label.average_precision),
            log_loss: mean(|label| label.log_loss),
            brier: mean(|label| label.brier),
            calibration_error: mean(|label| label.calibration_error),
            sensitivity: mean(|label| label.confusion.sensitivity()),
            specificity: mean(|label| label.confusion.specificity()),
            ppv: mean(|label| label.confusion.ppv()),
            npv: mean(|label| label.confusion.npv()),
            f1: mean(|label| label.confusion.f1()),
        }
    }
}

/// Everything about one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Different patients.
    pub patients: usize,
    /// In label order.
    pub labels: [BinaryMetrics; N_LABELS],
    /// Operating points of the confusion counts, in label order.
    pub points: [f32; N_LABELS],
    /// All labels of all slices as one column ("micro"), the form in which the literature's single accuracy and AUROC of
    /// six labels usually come. Its AUROC also rewards knowing which labels are rare; prefer the mean.
    pub pooled: BinaryMetrics,
    /// Means over labels.
    pub means: Means,
    /// See [`weighted_log_loss`].
    pub weighted_log_loss: Option<f64>,
}

/// All metrics, with the confusion counts at these operating points (probabilities, in label order).
pub fn evaluate(predictions: &Predictions, points: &[f32; N_LABELS]) -> Metrics {
    let columns = predictions.columns();
    let labels: [BinaryMetrics; N_LABELS] = std::array::from_fn(|idx| BinaryMetrics::of(columns[idx], points[idx]));
    let probabilities: Vec<f64> = columns.iter().flat_map(|column| column.probabilities()).copied().collect();
    let targets: Vec<bool> = columns.iter().flat_map(|column| column.targets()).copied().collect();
    let all = Column::checked(&probabilities, &targets);
    let confusion = labels.iter().fold(Confusion::default(), |sum, label| sum.plus(label.confusion));
    Metrics {
        patients: predictions.n_groups(),
        labels,
        points: *points,
        pooled: BinaryMetrics { confusion, ..BinaryMetrics::of(all, HALF) },
        means: Means::of(&labels),
        weighted_log_loss: weighted_log_loss(predictions),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_and_one_class_are_undefined_and_not_invented() {
        let empty = evaluate(&Predictions::from_logits(&[], &[], &[], None).unwrap(), &[HALF; 6]);
        assert_eq!((empty.pooled.auroc, empty.pooled.accuracy, empty.weighted_log_loss), (None, None, None));
        assert_eq!(empty.means.auroc, Mean { value: None, labels: 0 });
        assert_eq!(empty.pooled.prevalence(), None);
        let mut targets = [[false; 6]; 4];
        targets[1][5] = true;
        let logits = [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]; 4];
        let one = evaluate(&Predictions::from_logits(&logits, &targets, &[0, 0, 1, 1], None).unwrap(), &[0.9; 6]);
        assert_eq!(one.labels[0].auroc, None);
        assert_eq!(one.labels[5].auroc, Some(0.5));
        assert_eq!(one.means.auroc, Mean { value: Some(0.5), labels: 1 });
        assert_eq!((one.patients, one.labels[5].confusion.ppv()), (2, None));
    }

    fn tables() -> impl Strategy<Value = Vec<([i8; 6], [bool; 6], u8)>> {
        proptest::collection::vec((any::<[i8; 6]>(), any::<[bool; 6]>(), 0..9u8), 0..60)
    }

    fn predictions(rows: &[([i8; 6], [bool; 6], u8)], scale: f32) -> Predictions {
        let logits: Vec<[f32; 6]> = rows.iter().map(|row| row.0.map(|value| f32::from(value) * scale)).collect();
        let targets: Vec<[bool; 6]> = rows.iter().map(|row| row.1).collect();
        let groups: Vec<u32> = rows.iter().map(|row| u32::from(row.2)).collect();
        Predictions::from_logits(&logits, &targets, &groups, None).unwrap()
    }

    proptest! {
        #[test]
        fn values_are_finite_and_in_their_ranges(rows in tables(), point in 0.0f32..=1.0) {
            let metrics = evaluate(&predictions(&rows, 0.5), &[point; 6]);
            for one in metrics.labels.iter().chain([&metrics.pooled]) {
                let shares = [one.accuracy, one.auroc, one.average_precision, one.brier, one.calibration_error,
                    one.confusion.f1(), one.confusion.ppv()];
                prop_assert!(shares.iter().flatten().all(|share| (0.0..=1.0).contains(share)), "{one:?}");
                prop_assert!(one.log_loss.is_none_or(|loss| (0.0..=36.1).contains(&loss)));
                prop_assert_eq!(one.confusion.n_slices(), one.slices);
                prop_assert_eq!(one.auroc.is_some(), one.positives > 0 && one.positives < one.slices);
            }
        }

        #[test]
        fn the_area_is_the_share_of_ordered_pairs(rows in tables()) {
            for column in predictions(&rows, 0.05).columns() {
                let (mut wins, mut pairs) = (0.0, 0.0);
                for (positive, _) in column.pairs().filter(|pair| pair.1) {
                    for (negative, _) in column.pairs().filter(|pair| !pair.1) {
                        pairs += 1.0;
                        wins += if positive > negative { 1.0 } else if positive == negative { 0.5 } else { 0.0 };
                    }
                }
                prop_assert_eq!(auroc(column), (pairs > 0.0).then(|| wins / pairs));
            }
        }

        #[test]
        fn the_area_knows_only_the_order_and_turns_with_the_truth(rows in tables()) {
            let (narrow, wide) = (predictions(&rows, 0.01), predictions(&rows, 0.05));
            for (a, b) in narrow.columns().into_iter().zip(wide.columns()) {
                prop_assert_eq!(auroc(a), auroc(b));
                let turned: Vec<bool> = a.targets().iter().map(|target| !target).collect();
                let other = auroc(Column::new(a.probabilities(), &turned).unwrap());
                prop_assert!(auroc(a).zip(other).is_none_or(|(area, other)| (area + other - 1.0).abs() < 1e-12));
            }
        }
    }
}
