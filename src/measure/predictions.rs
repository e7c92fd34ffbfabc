//! Probabilities and targets of many slices, checked once, so that no metric has to doubt its input. Knows no metric.

use ichd_plugin::label::{Label, N_LABELS};

use crate::model::Calibration;

/// Input that cannot be measured.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MeasureError {
    /// Lists that belong together differ in length.
    #[error("{logits} rows of logits, {targets} of targets and {groups} of groups do not belong together")]
    Lengths {
        /// Rows of logits or probabilities.
        logits: usize,
        /// Rows of targets.
        targets: usize,
        /// Rows of groups; equal to `targets` where there are no groups.
        groups: usize,
    },
    /// A logit is infinite or not a number, as after a training step that went wrong.
    #[error("the logit of {label} in row {row} is {value}")]
    NotFinite {
        /// Row, from 0.
        row: usize,
        /// Label.
        label: Label,
        /// What was found.
        value: f32,
    },
    /// A probability outside 0 to 1.
    #[error("the probability in row {row} is {value}, not between 0 and 1")]
    NotAProbability {
        /// Row, from 0.
        row: usize,
        /// What was found.
        value: f64,
    },
    /// A wanted sensitivity that no threshold can be asked for.
    #[error("a sensitivity of {0} cannot be wanted; a number above 0 and up to 1 would be right")]
    Sensitivity(f64),
}

/// One label of many slices: probabilities from 0 to 1 and the truth, equally long.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    probabilities: &'a [f64],
    targets: &'a [bool],
}

impl<'a> Column<'a> {
    /// Checks and pairs probabilities with their targets.
    ///
    /// # Errors
    /// They differ in length, or a probability is not in 0 to 1.
    pub fn new(probabilities: &'a [f64], targets: &'a [bool]) -> Result<Self, MeasureError> {
        if probabilities.len() != targets.len() {
            let (logits, targets) = (probabilities.len(), targets.len());
            return Err(MeasureError::Lengths { logits, targets, groups: targets });
        }
        match probabilities.iter().enumerate().find(|(_, value)| !(0.0..=1.0).contains(*value)) {
            Some((row, value)) => Err(MeasureError::NotAProbability { row, value: *value }),
            None => Ok(Column { probabilities, targets }),
        }
    }

    /// Pairs what was checked before.
    pub(super) fn checked(probabilities: &'a [f64], targets: &'a [bool]) -> Self {
        debug_assert_eq!(probabilities.len(), targets.len());
        Column { probabilities, targets }
    }

    /// The probabilities.
    pub fn probabilities(&self) -> &'a [f64] {
        self.probabilities
    }

    /// The truth.
    pub fn targets(&self) -> &'a [bool] {
        self.targets
    }

    /// Each slice's probability and truth.
    pub fn pairs(&self) -> impl Iterator<Item = (f64, bool)> + use<'a> {
        self.probabilities.iter().copied().zip(self.targets.iter().copied())
    }

    /// Slices.
    pub fn n_slices(&self) -> u64 {
        self.targets.len() as u64
    }

    /// Slices that have the label.
    pub fn n_positives(&self) -> u64 {
        self.targets.iter().filter(|target| **target).count() as u64
    }
}

/// Probabilities and targets of all labels, by columns, and the patient of each slice.
#[derive(Clone, Debug)]
pub struct Predictions {
    probabilities: [Vec<f64>; N_LABELS],
    targets: [Vec<bool>; N_LABELS],
    groups: Vec<u32>,
}

/// Logistic function in f64: 1 / (1 + exp(-logit)).
pub fn logistic(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// The logit as the daemon calibrates it, in f32; without calibration as it is.
fn calibrated(logit: f32, label: usize, calibration: Option<&Calibration>) -> f64 {
    f64::from(calibration.map_or(logit, |fit| fit.scale[label] * logit + fit.shift[label]))
}

impl Predictions {
    /// Probabilities of logits `[n, 6]`, calibrated if a calibration is given, with their targets and groups.
    ///
    /// `groups` names the patient of each slice by any number; slices of a patient are resampled together. Probabilities
    /// are f64 of the f32 logits; from a logit of about 37 on they round to 1 and tie.
    ///
    /// # Errors
    /// The lists differ in length, or a logit (calibrated) is not finite.
    pub fn from_logits(
        logits: &[[f32; N_LABELS]],
        targets: &[[bool; N_LABELS]],
        groups: &[u32],
        calibration: Option<&Calibration>,
    ) -> Result<Self, MeasureError> {
        if logits.len() != targets.len() || logits.len() != groups.len() {
            let (logits, targets, groups) = (logits.len(), targets.len(), groups.len());
            return Err(MeasureError::Lengths { logits, targets, groups });
        }
        for (row, values) in logits.iter().enumerate() {
            for (idx, label) in Label::ALL.into_iter().enumerate() {
                if !calibrated(values[idx], idx, calibration).is_finite() {
                    return Err(MeasureError::NotFinite { row, label, value: values[idx] });
                }
            }
        }
        let column = |label: usize| {
            logits.iter().map(|values| logistic(calibrated(values[label], label, calibration))).collect::<Vec<f64>>()
        };
        Ok(Predictions {
            probabilities: std::array::from_fn(column),
            targets: std::array::from_fn(|label| targets.iter().map(|row| row[label]).collect()),
            groups: groups.to_vec(),
        })
    }

    /// Probabilities `[n, 6]` as result files have them, with their targets and groups.
    ///
    /// # Errors
    /// The lists differ in length, or a probability is not in 0 to 1.
    pub fn from_probabilities(
        probabilities: &[[f64; N_LABELS]],
        targets: &[[bool; N_LABELS]],
        groups: &[u32],
    ) -> Result<Self, MeasureError> {
        if probabilities.len() != targets.len() || probabilities.len() != groups.len() {
            let (logits, targets, groups) = (probabilities.len(), targets.len(), groups.len());
            return Err(MeasureError::Lengths { logits, targets, groups });
        }
        let made = Predictions {
            probabilities: std::array::from_fn(|label| probabilities.iter().map(|row| row[label]).collect()),
            targets: std::array::from_fn(|label| targets.iter().map(|row| row[label]).collect()),
            groups: groups.to_vec(),
        };
        for idx in 0..N_LABELS {
            Column::new(&made.probabilities[idx], &made.targets[idx])?;
        }
        Ok(made)
    }

    /// One label's column.
    pub fn column(&self, label: Label) -> Column<'_> {
        let idx = label as usize;
        Column::checked(&self.probabilities[idx], &self.targets[idx])
    }

    /// All columns in label order.
    pub fn columns(&self) -> [Column<'_>; N_LABELS] {
        Label::ALL.map(|label| self.column(label))
    }

    /// The patient of each slice.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// Slices.
    pub fn n_slices(&self) -> usize {
        self.groups.len()
    }

    /// Different patients.
    pub fn n_groups(&self) -> usize {
        let mut sorted = self.groups.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_measured_is_named() {
        let error = |logits: &[[f32; 6]], targets: &[[bool; 6]], groups: &[u32]| {
            Predictions::from_logits(logits, targets, groups, None).unwrap_err()
        };
        let lengths = error(&[[0.0; 6]], &[], &[1]);
        assert_eq!(lengths.to_string(), "1 rows of logits, 0 of targets and 1 of groups do not belong together");
        let mut row = [0.0; 6];
        row[5] = f32::NAN;
        let not_finite = error(&[[0.0; 6], row], &[[false; 6]; 2], &[1, 1]);
        assert_eq!(not_finite.to_string(), "the logit of subdural in row 1 is NaN");
        assert!(matches!(Column::new(&[0.5, 1.5], &[true, true]), Err(MeasureError::NotAProbability { row: 1, .. })));
        assert!(matches!(Column::new(&[f64::NAN], &[true]), Err(MeasureError::NotAProbability { row: 0, .. })));
        let overflow = Calibration { scale: [f32::MAX; 6], shift: [0.0; 6] };
        assert!(Predictions::from_logits(&[[9.0; 6]], &[[true; 6]], &[1], Some(&overflow)).is_err());
    }

    #[test]
    fn columns_are_calibrated_probabilities() {
        let calibration = Calibration { scale: [2.0, 1.0, 1.0, 1.0, 1.0, 0.5], shift: [0.0, 1.0, 0.0, 0.0, 0.0, 0.0] };
        let rows = [[1.0, -1.0, 0.0, 0.0, 0.0, 4.0]];
        let made = Predictions::from_logits(&rows, &[[true; 6]], &[7], Some(&calibration)).unwrap();
        assert_eq!(made.column(Label::Any).probabilities(), [logistic(2.0)]);
        assert_eq!(made.column(Label::Epidural).probabilities(), [0.5]);
        assert_eq!(made.column(Label::Subdural).probabilities(), [logistic(2.0)]);
        assert_eq!((made.n_slices(), made.n_groups()), (1, 1));
    }
}
