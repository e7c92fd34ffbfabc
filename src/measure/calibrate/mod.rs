//! From logits to probabilities that mean what they say: temperature and Platt scaling, fitted on validation logits. Knows no
//! device and no file.
//!
//! Both minimize the log loss in f64 by Newton's method (`newton.rs`), with a weak normal prior around the identity
//! ([`PRIOR`]): a few dozen positive slices outweigh it, separable labels stay finite, and the result is never
//! worse than the identity. A scale stays at or above [`SCALE_MIN`], so that no calibration reverses the order of
//! slices. What ends up in `model.yaml` is f32, checked again there: a fit whose f32 form is not better than the identity in
//! log loss is dropped.

mod newton;

use std::fmt;

use ichd_plugin::label::{Label, N_LABELS};
use serde::Serialize;

use super::metrics::log_loss;
use super::predictions::logistic;
use super::{Column, MeasureError, Predictions};
use crate::model::Calibration;
pub use newton::{Free, IDENTITY, Line, Solution, minimize};

/// Precision of the prior on scale - 1 and shift: standard deviation 5. On the shift, one slice of probability 0.5 weighs six times as much.
pub const PRIOR: f64 = 0.04;
/// Least scale.
pub const SCALE_MIN: f64 = 0.01;

/// What is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// One scale for all labels (1 / temperature), no shifts (Guo 2017). One number, so hardly able to overfit.
    Temperature,
    /// Scale and shift for each label (Platt 1999, with the hard targets): also repairs labels that training made more frequent.
    Platt,
}

/// How a label's fit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// At the minimum.
    Fitted,
    /// At [`SCALE_MIN`]: its logits order slices no better than chance, and its probabilities are nearly constant.
    Floor,
    /// Left alone: it has positive or negative slices only.
    OneClass,
    /// Left alone: nothing found was better.
    NoGain,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Fitted => "fitted",
            Outcome::Floor => "no better than chance: nearly constant",
            Outcome::OneClass => "one class only: not calibrated",
            Outcome::NoGain => "no gain: not calibrated",
        })
    }
}

/// A label's fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LabelFit {
    /// How it ended.
    pub outcome: Outcome,
    /// Newton steps; of a temperature the same for all labels.
    pub steps: usize,
    /// Log loss of the slices it was fitted on, uncalibrated. None without slices.
    pub before: Option<f64>,
    /// The same, calibrated. Never above `before` with Platt scaling; with a temperature the mean over fitted labels is not.
    pub after: Option<f64>,
}

/// A calibration and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// For `model.yaml`; scale 1 and shift 0 where a label was left alone.
    pub calibration: Calibration,
    /// In label order.
    pub labels: [LabelFit; N_LABELS],
}

/// A label's logits and targets.
type Samples = Vec<(f64, bool)>;

/// Fits a calibration to logits `[n, 6]` and their targets. Use slices that training has not seen.
///
/// # Errors
/// The lists differ in length, or a logit is not finite.
pub fn fit(method: Method, logits: &[[f32; N_LABELS]], targets: &[[bool; N_LABELS]]) -> Result<Fit, MeasureError> {
    // Checks lengths and numbers.
    Predictions::from_logits(logits, targets, &vec![0; targets.len()], None)?;
    let samples: [Samples; N_LABELS] = std::array::from_fn(|label| {
        logits.iter().zip(targets).map(|(row, target)| (f64::from(row[label]), target[label])).collect()
    });
    let solved = match method {
        Method::Platt => samples.each_ref().map(|samples| platt(samples)),
        Method::Temperature => temperature(&samples),
    };
    let mut calibration = Calibration { scale: [1.0; N_LABELS], shift: [0.0; N_LABELS] };
    let labels = std::array::from_fn(|label| {
        let (outcome, solution) = solved[label];
        calibration.scale[label] = solution.line.scale as f32;
        calibration.shift[label] = solution.line.shift as f32;
        let before = loss(&samples[label], IDENTITY);
        LabelFit { outcome, steps: solution.steps, before, after: loss(&samples[label], solution.line) }
    });
    Ok(Fit { calibration, labels })
}

const UNTOUCHED: Solution = Solution { line: IDENTITY, steps: 0, converged: true };

fn has_both(samples: &[(f64, bool)]) -> bool {
    samples.iter().any(|sample| sample.1) && samples.iter().any(|sample| !sample.1)
}

/// Log loss as the metrics have it, of the probabilities that the daemon would give: the line rounded to f32, applied in f32.
/// Infinite where that overflows.
fn loss(samples: &[(f64, bool)], line: Line) -> Option<f64> {
    let calibrated = |x: &(f64, bool)| line.scale as f32 * x.0 as f32 + line.shift as f32;
    if samples.iter().any(|sample| !calibrated(sample).is_finite()) {
        return Some(f64::INFINITY);
    }
    let probabilities: Vec<f64> = samples.iter().map(|sample| logistic(f64::from(calibrated(sample)))).collect();
    let targets: Vec<bool> = samples.iter().map(|sample| sample.1).collect();
    log_loss(Column::checked(&probabilities, &targets))
}

fn platt(samples: &[(f64, bool)]) -> (Outcome, Solution) {
    if !has_both(samples) {
        return (Outcome::OneClass, UNTOUCHED);
    }
    let free = minimize(samples, IDENTITY, Free::Both, PRIOR);
    // By convexity the best line with a scale of at least the floor lies on the floor.
    let (outcome, found) = if free.line.scale < SCALE_MIN {
        let start = Line { scale: SCALE_MIN, shift: 0.0 };
        (Outcome::Floor, minimize(samples, start, Free::Shift, PRIOR))
    } else {
        (Outcome::Fitted, free)
    };
    kept_if_better(outcome, found, loss(samples, found.line), loss(samples, IDENTITY))
}

fn temperature(labels: &[Samples; N_LABELS]) -> [(Outcome, Solution); N_LABELS] {
    let fitted: Vec<&Samples> = labels.iter().filter(|samples| has_both(samples)).collect();
    let all: Samples = fitted.iter().flat_map(|samples| samples.iter().copied()).collect();
    let mut found = minimize(&all, IDENTITY, Free::Scale, PRIOR);
    let mut outcome = Outcome::Fitted;
    if found.line.scale < SCALE_MIN {
        found.line.scale = SCALE_MIN;
        outcome = Outcome::Floor;
    }
    let shared = kept_if_better(outcome, found, loss(&all, found.line), loss(&all, IDENTITY));
    labels.each_ref().map(|samples| if has_both(samples) { shared } else { (Outcome::OneClass, UNTOUCHED) })
}

/// A search that did not converge may still have gained; a gain that clipping or rounding to f32 eats up is none.
fn kept_if_better(outcome: Outcome, found: Solution, after: Option<f64>, before: Option<f64>) -> (Outcome, Solution) {
    if after <= before { (outcome, found) } else { (Outcome::NoGain, Solution { line: IDENTITY, ..found }) }
}

impl Fit {
    /// The outcomes worth a sentence, for logs and model cards: labels that were not plainly fitted.
    pub fn remarks(&self) -> Vec<String> {
        let odd = Label::ALL.iter().zip(&self.labels).filter(|(_, fit)| fit.outcome != Outcome::Fitted);
        odd.map(|(label, fit)| format!("{label}: {}", fit.outcome)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ichd_plugin::fill::uniform;
    use proptest::prelude::*;

    use super::*;

    /// Logits whose truth follows another line: honest logit = 0.5 x - 1.
    fn overconfident(n: usize) -> (Vec<[f32; 6]>, Vec<[bool; 6]>) {
        let rows: Vec<[f32; 6]> = uniform("logits", n, 0).map(|unit| [8.0 * unit - 4.0; 6]).collect();
        let truth = |(row, unit): (&[f32; 6], f32)| [f64::from(unit) < logistic(0.5 * f64::from(row[0]) - 1.0); 6];
        let targets = rows.iter().zip(uniform("targets", n, 0)).map(truth).collect();
        (rows, targets)
    }

    #[test]
    fn the_line_behind_the_data_is_found() {
        let (logits, targets) = overconfident(20_000);
        let platt = fit(Method::Platt, &logits, &targets).unwrap();
        assert!((platt.calibration.scale[0] - 0.5).abs() < 0.03, "{platt:?}");
        assert!((platt.calibration.shift[0] + 1.0).abs() < 0.06, "{platt:?}");
        assert!(platt.labels[0].after < platt.labels[0].before.map(|loss| loss - 0.05));
        let temperature = fit(Method::Temperature, &logits, &targets).unwrap();
        assert_eq!(temperature.calibration.shift, [0.0; 6]);
        assert!(temperature.calibration.scale[3] < 0.7, "{temperature:?}");
        assert!(temperature.labels[0].after < temperature.labels[0].before);
        assert!(platt.remarks().is_empty());
    }

    #[test]
    fn one_class_is_left_alone_and_told() {
        let (logits, mut targets) = overconfident(300);
        targets.iter_mut().for_each(|row| row[1] = false);
        for method in [Method::Platt, Method::Temperature] {
            let found = fit(method, &logits, &targets).unwrap();
            assert_eq!((found.calibration.scale[1], found.calibration.shift[1]), (1.0, 0.0));
            assert_ne!(found.calibration.scale[0], 1.0);
            assert_eq!(found.remarks(), ["epidural: one class only: not calibrated"]);
        }
        let nothing = fit(Method::Platt, &[], &[]).unwrap();
        assert_eq!((nothing.calibration.scale, nothing.labels[0].before), ([1.0; 6], None));
    }

    #[test]
    fn separable_and_reversed_labels_stay_sane() {
        let logits: Vec<[f32; 6]> = (0..40).map(|k| [k as f32 / 10.0 - 2.0; 6]).collect();
        let separable: Vec<[bool; 6]> = (0..40).map(|k| [k >= 25; 6]).collect();
        let found = fit(Method::Platt, &logits, &separable).unwrap();
        assert_eq!(found.labels[0].outcome, Outcome::Fitted);
        assert!((1.0..20.0).contains(&found.calibration.scale[0]), "{found:?}");
        let reversed: Vec<[bool; 6]> = (0..40).map(|k| [k < 25; 6]).collect();
        let found = fit(Method::Platt, &logits, &reversed).unwrap();
        assert_eq!((found.labels[0].outcome, found.calibration.scale[0]), (Outcome::Floor, SCALE_MIN as f32));
        // Nearly the prevalence for everyone.
        assert!((logistic(f64::from(found.calibration.shift[0])) - 25.0 / 40.0).abs() < 0.01);
        assert_eq!(fit(Method::Temperature, &logits, &reversed).unwrap().labels[0].outcome, Outcome::Floor);
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        let error = fit(Method::Platt, &[[f32::INFINITY; 6]], &[[true; 6]]).unwrap_err();
        assert!(matches!(error, MeasureError::NotFinite { row: 0, label: Label::Any, .. }));
        assert!(fit(Method::Platt, &[], &[[true; 6]]).is_err());
    }

    proptest! {
        #[test]
        fn never_worse_than_uncalibrated(
            rows in proptest::collection::vec((any::<i16>(), any::<bool>()), 1..60),
            exponent in -12i32..28,
        ) {
            let logits: Vec<[f32; 6]> = rows.iter().map(|row| [f32::from(row.0) * 2f32.powi(exponent); 6]).collect();
            let targets: Vec<[bool; 6]> = rows.iter().map(|row| [row.1; 6]).collect();
            for method in [Method::Platt, Method::Temperature] {
                let found = fit(method, &logits, &targets).unwrap();
                let [after, before] = [found.labels[0].after, found.labels[0].before].map(Option::unwrap_or_default);
                // Sums of many losses in another order: one rounding more or less is no difference.
                prop_assert!(after <= before * (1.0 + 4.0 * f64::EPSILON), "{:?}", found);
                prop_assert!(found.calibration.scale[0] > 0.0 && found.calibration.shift[0].is_finite());
            }
        }
    }
}
