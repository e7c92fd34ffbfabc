//! Metrics, calibrations, operating points and intervals against scikit-learn's and scipy's, from `tools/golden_metrics.py`.
//! Knows no definition of its own: tables come from the hash of `ichd_plugin::fill`.

use ichd_plugin::fill::uniform;
use ichd_plugin::label::{Label, N_LABELS};
use serde::Deserialize;

use super::Predictions;
use super::calibrate::{self, Free, IDENTITY, Method, Outcome, PRIOR, minimize};
use super::metrics::{self, BinaryMetrics, Bootstrap, Curve, Mean};
use super::operating::{self, Rule};
use super::predictions::logistic;

const FILE: &str = include_str!("golden/metrics.json");
/// Most that a number may be off, relative to itself or 1.
const EXACT: f64 = 1e-9;
/// Lines are kept in f32.
const F32: f64 = 1e-7;

type ByLabel<T> = [T; N_LABELS];

#[derive(Deserialize)]
struct Golden {
    points: ByLabel<f32>,
    prior: f64,
    bootstrap: (usize, u64),
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    name: String,
    rows: usize,
    spread: f32,
    tied: bool,
    extreme: bool,
    base: ByLabel<f64>,
    gain: ByLabel<f64>,
    patients: usize,
    evaluation: Evaluation,
    calibration: Calibrations,
    youden: ByLabel<Option<(f32, u64, u64)>>,
    #[serde(rename = "sensitivity_0.9")]
    sensitivity: ByLabel<Option<(f32, u64, u64)>>,
    intervals: ByLabel<Option<(f64, f64, usize)>>,
    curves: Option<Curves>,
}

#[derive(Deserialize)]
struct Evaluation {
    labels: ByLabel<Binary>,
    pooled: Binary,
    means: GoldenMeans,
    weighted_log_loss: f64,
}

#[derive(Deserialize)]
struct Binary {
    slices: u64,
    positives: u64,
    accuracy: Option<f64>,
    auroc: Option<f64>,
    average_precision: Option<f64>,
    log_loss: Option<f64>,
    brier: Option<f64>,
    calibration_error: Option<f64>,
    confusion: [u64; 4],
    sensitivity: Option<f64>,
    specificity: Option<f64>,
    ppv: Option<f64>,
    npv: Option<f64>,
    f1: Option<f64>,
}

type GoldenMean = (Option<f64>, usize);

#[derive(Deserialize)]
struct GoldenMeans {
    accuracy: GoldenMean,
    auroc: GoldenMean,
    average_precision: GoldenMean,
    log_loss: GoldenMean,
    brier: GoldenMean,
    calibration_error: GoldenMean,
    sensitivity: GoldenMean,
    specificity: GoldenMean,
    ppv: GoldenMean,
    npv: GoldenMean,
    f1: GoldenMean,
}

#[derive(Deserialize)]
struct Calibrations {
    unpenalized: ByLabel<Option<(f64, f64)>>,
    platt: ByLabel<Option<(f64, f64)>>,
    temperature: f64,
}

#[derive(Deserialize)]
struct Curves {
    roc: Vec<(f64, f64, Option<f64>)>,
    precision_recall: Vec<(f64, f64, f64)>,
}

type Rows = (Vec<[f32; N_LABELS]>, Vec<[bool; N_LABELS]>, Vec<u32>);

impl Table {
    /// The rule in the script's head.
    fn rows(&self) -> Rows {
        let draw =
            |what: &str| -> Vec<f32> { uniform(&format!("{}.{what}", self.name), self.rows * N_LABELS, 0).collect() };
        let (units, own) = (draw("logit"), draw("target"));
        let logit = |(idx, unit): (usize, &f32)| {
            let value = self.spread * (2.0 * unit - 1.0);
            let value = if self.tied { (value * 4.0).floor() / 4.0 } else { value };
            if self.extreme && idx.is_multiple_of(37) { value * 40.0 } else { value }
        };
        let target = |(idx, (unit, own)): (usize, (&f32, &f32))| {
            let label = idx % N_LABELS;
            f64::from(*own) < self.base[label] + self.gain[label] * f64::from(*unit)
        };
        let logits: Vec<f32> = units.iter().enumerate().map(logit).collect();
        let targets: Vec<bool> = units.iter().zip(&own).enumerate().map(target).collect();
        (
            logits.as_chunks().0.to_vec(),
            targets.as_chunks().0.to_vec(),
            (0..self.rows).map(|row| (row * 7919 % self.patients) as u32).collect(),
        )
    }
}

fn golden() -> Golden {
    serde_json::from_str(FILE).unwrap()
}

/// Every table with its rows as predictions.
fn each(check: impl Fn(&Golden, &Table, &Rows, &Predictions)) {
    let golden = golden();
    assert_eq!(golden.tables.len(), 5);
    for table in &golden.tables {
        let rows = table.rows();
        let predictions = Predictions::from_logits(&rows.0, &rows.1, &rows.2, None).unwrap();
        check(&golden, table, &rows, &predictions);
    }
}

fn close(what: &str, found: f64, expected: f64, within: f64) {
    let error = (found - expected).abs();
    assert!(error <= within * expected.abs().max(1.0), "{what}: {found} instead of {expected}");
}

fn same(what: &str, found: Option<f64>, expected: Option<f64>) {
    match (found, expected) {
        (Some(found), Some(expected)) => close(what, found, expected, EXACT),
        _ => assert_eq!(found, expected, "{what}"),
    }
}

fn same_metrics(what: &str, found: &BinaryMetrics, expected: &Binary) {
    let counts = found.confusion;
    assert_eq!((found.slices, found.positives), (expected.slices, expected.positives), "{what}");
    let found_counts = [counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives];
    assert_eq!(found_counts, expected.confusion, "{what}");
    for (name, found, expected) in [
        ("accuracy", found.accuracy, expected.accuracy),
        ("AUROC", found.auroc, expected.auroc),
        ("average precision", found.average_precision, expected.average_precision),
        ("log loss", found.log_loss, expected.log_loss),
        ("Brier", found.brier, expected.brier),
        ("calibration error", found.calibration_error, expected.calibration_error),
        ("sensitivity", counts.sensitivity(), expected.sensitivity),
        ("specificity", counts.specificity(), expected.specificity),
        ("PPV", counts.ppv(), expected.ppv),
        ("NPV", counts.npv(), expected.npv),
        ("F1", counts.f1(), expected.f1),
    ] {
        same(&format!("{what}, {name}"), found, expected);
    }
}

#[test]
fn metrics_equal_scikit_learns() {
    each(|golden, table, _, predictions| {
        let found = metrics::evaluate(predictions, &golden.points);
        let expected = &table.evaluation;
        for (label, (one, other)) in Label::ALL.iter().zip(found.labels.iter().zip(&expected.labels)) {
            same_metrics(&format!("{}, {label}", table.name), one, other);
        }
        same_metrics(&format!("{}, pooled", table.name), &found.pooled, &expected.pooled);
        same("weighted log loss", found.weighted_log_loss, Some(expected.weighted_log_loss));
        let (mean, golden) = (&found.means, &expected.means);
        let same_mean = |name: &str, found: &Mean, expected: &GoldenMean| {
            assert_eq!(found.labels, expected.1, "{}, {name}", table.name);
            same(&format!("{}, mean {name}", table.name), found.value, expected.0);
        };
        same_mean("accuracy", &mean.accuracy, &golden.accuracy);
        same_mean("AUROC", &mean.auroc, &golden.auroc);
        same_mean("average precision", &mean.average_precision, &golden.average_precision);
        same_mean("log loss", &mean.log_loss, &golden.log_loss);
        same_mean("Brier", &mean.brier, &golden.brier);
        same_mean("calibration error", &mean.calibration_error, &golden.calibration_error);
        same_mean("sensitivity", &mean.sensitivity, &golden.sensitivity);
        same_mean("specificity", &mean.specificity, &golden.specificity);
        same_mean("PPV", &mean.ppv, &golden.ppv);
        same_mean("NPV", &mean.npv, &golden.npv);
        same_mean("F1", &mean.f1, &golden.f1);
    });
}

#[test]
fn curves_equal_scikit_learns() {
    let same_points = |found: Option<Curve>, expected: Vec<(f64, f64, Option<f64>)>| {
        let points = found.unwrap().points;
        assert_eq!(points.len(), expected.len());
        for (point, (x, y, threshold)) in points.iter().zip(expected) {
            close("x", point.x, x, EXACT);
            close("y", point.y, y, EXACT);
            same("threshold", Some(point.threshold).filter(|threshold| threshold.is_finite()), threshold);
        }
    };
    let golden = golden();
    let table = golden.tables.iter().find(|table| table.curves.is_some()).unwrap();
    let curves = table.curves.as_ref().unwrap();
    let (logits, targets, groups) = table.rows();
    let predictions = Predictions::from_logits(&logits, &targets, &groups, None).unwrap();
    let column = predictions.column(Label::Intraventricular);
    same_points(metrics::roc_curve(column, usize::MAX), curves.roc.clone());
    let expected = curves.precision_recall.iter().map(|(x, y, threshold)| (*x, *y, Some(*threshold))).collect();
    same_points(metrics::precision_recall_curve(column, usize::MAX), expected);
}

#[test]
fn lines_equal_logistic_regressions_without_penalty() {
    each(|_, table, (logits, targets, _), _| {
        for (idx, expected) in table.calibration.unpenalized.iter().enumerate() {
            let Some((scale, shift)) = expected else { continue };
            let samples: Vec<(f64, bool)> =
                logits.iter().zip(targets).map(|(row, target)| (f64::from(row[idx]), target[idx])).collect();
            let found = minimize(&samples, IDENTITY, Free::Both, 0.0);
            assert!(found.converged, "{}, {idx}: {found:?}", table.name);
            // The few positives of `rare` leave the reference itself in doubt after nine digits.
            close(&format!("{}, {idx}, scale", table.name), found.line.scale, *scale, 1e-8);
            close(&format!("{}, {idx}, shift", table.name), found.line.shift, *shift, 1e-8);
        }
    });
}

#[test]
fn calibrations_equal_scipys_minima() {
    each(|golden, table, (logits, targets, _), predictions| {
        assert_eq!(golden.prior, PRIOR);
        let platt = calibrate::fit(Method::Platt, logits, targets).unwrap();
        let temperature = calibrate::fit(Method::Temperature, logits, targets).unwrap();
        for (idx, expected) in table.calibration.platt.iter().enumerate() {
            let what = format!("{}, {idx}", table.name);
            let found =
                |fit: &calibrate::Fit| (f64::from(fit.calibration.scale[idx]), f64::from(fit.calibration.shift[idx]));
            let Some((scale, shift)) = expected else {
                assert_eq!(platt.labels[idx].outcome, Outcome::OneClass, "{what}");
                assert_eq!((found(&platt), found(&temperature)), ((1.0, 0.0), (1.0, 0.0)), "{what}");
                continue;
            };
            close(&what, found(&platt).0, *scale, F32);
            close(&what, found(&platt).1, *shift, F32);
            close(&what, found(&temperature).0, table.calibration.temperature, F32);
            assert!(platt.labels[idx].after <= platt.labels[idx].before, "{what}");
        }
        // What the fit says of itself is what an evaluation of it finds.
        let calibrated =
            Predictions::from_logits(logits, targets, predictions.groups(), Some(&platt.calibration)).unwrap();
        let after = Label::ALL.map(|label| metrics::log_loss(calibrated.column(label)));
        assert_eq!(after, platt.labels.map(|fit| fit.after));
    });
}

#[test]
fn operating_points_equal_those_of_scikit_learns_curves() {
    each(|_, table, _, predictions| {
        for (rule, expected) in [(Rule::Youden, &table.youden), (Rule::Sensitivity(0.9), &table.sensitivity)] {
            let found = operating::choose(predictions, rule).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                let counts = |found: &operating::OperatingPoint| {
                    (found.confusion.true_positives, found.confusion.false_positives)
                };
                assert_eq!(
                    found.as_ref().map(counts),
                    expected.map(|(_, hits, alarms)| (hits, alarms)),
                    "{}",
                    table.name
                );
                let points =
                    (found.map(|found| f64::from(found.point)), expected.map(|expected| f64::from(expected.0)));
                assert!(points.0.zip(points.1).is_none_or(|(a, b)| (a - b).abs() < F32), "{points:?}");
            }
        }
    });
}

#[test]
fn intervals_equal_numpys_percentiles_of_scikit_learns_areas() {
    each(|golden, table, _, predictions| {
        let (replicates, seed) = golden.bootstrap;
        let found = metrics::auroc_intervals(predictions, &Bootstrap { replicates, seed });
        for (found, expected) in found.iter().zip(&table.intervals) {
            assert_eq!(found.map(|found| found.replicates), expected.map(|expected| expected.2), "{}", table.name);
            let Some((found, expected)) = found.zip(*expected) else { continue };
            close(&table.name, found.low, expected.0, EXACT);
            close(&table.name, found.high, expected.1, EXACT);
        }
    });
}

#[test]
fn the_logistic_function_is_symmetric_and_finite() {
    assert_eq!([logistic(0.0), logistic(-1e9), logistic(1e9)], [0.5, 0.0, 1.0]);
    close("logistic", logistic(2.0), 0.880_797_077_977_882_4, 1e-15);
}
