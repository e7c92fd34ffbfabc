//! What a threshold finds: the four counts and the shares made of them. Knows no probability above or below it.

use serde::Serialize;

use crate::measure::Column;

/// Counts of slices at a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Found and positive.
    pub true_positives: u64,
    /// Found, but negative.
    pub false_positives: u64,
    /// Not found and negative.
    pub true_negatives: u64,
    /// Not found, but positive.
    pub false_negatives: u64,
}

/// Whether a label counts as found: probability, rounded to f32 as result files have it, at or above the operating point.
pub fn is_found(probability: f64, point: f32) -> bool {
    probability as f32 >= point
}

/// Part of a whole; None of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Confusion {
    /// Counts at an operating point, as [`is_found`] decides.
    pub fn at(column: Column<'_>, point: f32) -> Self {
        let mut counts = Confusion::default();
        for (probability, target) in column.pairs() {
            match (is_found(probability, point), target) {
                (true, true) => counts.true_positives += 1,
                (true, false) => counts.false_positives += 1,
                (false, false) => counts.true_negatives += 1,
                (false, true) => counts.false_negatives += 1,
            }
        }
        counts
    }

    /// Counts of both together.
    #[must_use]
    pub fn plus(self, other: Confusion) -> Confusion {
        Confusion {
            true_positives: self.true_positives + other.true_positives,
            false_positives: self.false_positives + other.false_positives,
            true_negatives: self.true_negatives + other.true_negatives,
            false_negatives: self.false_negatives + other.false_negatives,
        }
    }

    /// All slices.
    pub fn n_slices(&self) -> u64 {
        self.true_positives + self.false_positives + self.true_negatives + self.false_negatives
    }

    /// (TP + TN) / all.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.true_positives + self.true_negatives, self.n_slices())
    }

    /// TP / (TP + FN), also called recall; None without a positive slice.
    pub fn sensitivity(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// TN / (TN + FP); None without a negative slice.
    pub fn specificity(&self) -> Option<f64> {
        share(self.true_negatives, self.true_negatives + self.false_positives)
    }

    /// Positive predictive value, TP / (TP + FP), also called precision; None if nothing is found.
    pub fn ppv(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Negative predictive value, TN / (TN + FN); None if everything is found.
    pub fn npv(&self) -> Option<f64> {
        share(self.true_negatives, self.true_negatives + self.false_negatives)
    }

    /// F1 = 2 TP / (2 TP + FP + FN), the harmonic mean of sensitivity and PPV; None if nothing is positive or found.
    pub fn f1(&self) -> Option<f64> {
        share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_table_done_by_hand() {
        let probabilities = [0.9, 0.6, 0.5, 0.4, 0.2];
        let targets = [true, false, true, true, false];
        let counts = Confusion::at(Column::new(&probabilities, &targets).unwrap(), 0.5);
        let expected = Confusion { true_positives: 2, false_positives: 1, true_negatives: 1, false_negatives: 1 };
        assert_eq!(counts, expected);
        assert_eq!(counts.accuracy(), Some(3.0 / 5.0));
        assert_eq!((counts.sensitivity(), counts.specificity()), (Some(2.0 / 3.0), Some(0.5)));
        assert_eq!((counts.ppv(), counts.npv(), counts.f1()), (Some(2.0 / 3.0), Some(0.5), Some(4.0 / 6.0)));
        assert_eq!(counts.plus(expected).n_slices(), 10);
    }

    #[test]
    fn nothing_has_no_shares() {
        let none = Confusion::default();
        let shares = [none.accuracy(), none.sensitivity(), none.specificity(), none.ppv(), none.npv(), none.f1()];
        assert_eq!(shares, [None; 6]);
    }

    #[test]
    fn thresholds_compare_as_the_daemon_does() {
        // 0.3 as f32 lies above 0.3 as f64; a result file has the f32.
        assert!(is_found(0.3, 0.3));
        assert!(!is_found(0.299_999, 0.3));
    }
}
