//! How well probabilities order slices: ROC and precision-recall curves and the areas under them. Knows one label at a time.
//!
//! All counts are whole numbers until the last division, so areas are exact to a rounding or two.

use serde::Serialize;

use crate::measure::Column;

/// Slices found when everything at or above a probability counts as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// Found and positive.
    hits: u64,
    /// Found and negative.
    alarms: u64,
}

/// One threshold for each different probability, from the highest down, with what it finds.
fn thresholds(column: Column<'_>) -> Vec<(f64, Counts)> {
    let mut pairs: Vec<(f64, bool)> = column.pairs().collect();
    pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut found = Counts { hits: 0, alarms: 0 };
    let mut steps: Vec<(f64, Counts)> = Vec::new();
    for (probability, target) in pairs {
        if target {
            found.hits += 1;
        } else {
            found.alarms += 1;
        }
        match steps.last_mut() {
            // Equal as numbers: -0 and 0 are one threshold.
            Some((last, counts)) if *last == probability => *counts = found,
            _ => steps.push((probability, found)),
        }
    }
    steps
}

/// Area under the ROC curve: the share of pairs of a positive and a negative slice that are in the right order, ties one
/// half (Mann and Whitney). None with one class only. O(n log n).
pub fn auroc(column: Column<'_>) -> Option<f64> {
    auroc_of(&thresholds(column))
}

fn auroc_of(steps: &[(f64, Counts)]) -> Option<f64> {
    let all = steps.last()?.1;
    if all.hits == 0 || all.alarms == 0 {
        return None;
    }
    let mut above = Counts { hits: 0, alarms: 0 };
    let mut twice: u128 = 0;
    for (_, found) in steps {
        let (positives, negatives) = (found.hits - above.hits, found.alarms - above.alarms);
        // Negatives below win fully, those at the same probability half.
        twice += u128::from(positives) * (2 * u128::from(all.alarms - found.alarms) + u128::from(negatives));
        above = *found;
    }
    Some(twice as f64 / 2.0 / (all.hits as f64 * all.alarms as f64))
}

/// Average precision: the sum over thresholds, from the highest down, of the gain in recall times the precision there
/// (scikit-learn's `average_precision_score`; no interpolation). None without a positive slice.
pub fn average_precision(column: Column<'_>) -> Option<f64> {
    let steps = thresholds(column);
    let positives = steps.last()?.1.hits;
    if positives == 0 {
        return None;
    }
    let mut before = 0;
    let mut sum = 0.0;
    for (_, found) in &steps {
        sum += (found.hits - before) as f64 * found.hits as f64 / (found.hits + found.alarms) as f64;
        before = found.hits;
    }
    Some(sum / positives as f64)
}

/// A point of a curve; the threshold finds slices at or above it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// ROC: share of negatives found (1 - specificity). Precision-recall: recall (sensitivity).
    pub x: f64,
    /// ROC: sensitivity. Precision-recall: precision (positive predictive value).
    pub y: f64,
    /// Probability.
    pub threshold: f64,
}

/// A curve for a plot and the exact area that it stands for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// From the highest threshold down; thinned.
    pub points: Vec<CurvePoint>,
    /// ROC: [`auroc`]. Precision-recall: [`average_precision`]. Of all points, not of the thinned ones.
    pub area: f64,
}

/// Points that a plot of a few hundred pixels can show.
pub const CURVE_POINTS: usize = 300;

/// ROC curve from (0, 0), where the threshold is infinite, to (1, 1), of about `most` points at most. None with one class only.
pub fn roc_curve(column: Column<'_>, most: usize) -> Option<Curve> {
    let steps = thresholds(column);
    let area = auroc_of(&steps)?;
    let all = steps.last()?.1;
    let start = CurvePoint { x: 0.0, y: 0.0, threshold: f64::INFINITY };
    let point = |(threshold, found): &(f64, Counts)| CurvePoint {
        x: found.alarms as f64 / all.alarms as f64,
        y: found.hits as f64 / all.hits as f64,
        threshold: *threshold,
    };
    let points: Vec<CurvePoint> = std::iter::once(start).chain(steps.iter().map(point)).collect();
    Some(Curve { points: thinned(&points, most), area })
}

/// Precision-recall curve, of about `most` points at most. None without a positive slice.
///
/// It begins at the highest probability; scikit-learn's additional end at recall 0 and precision 1 is nothing measured.
pub fn precision_recall_curve(column: Column<'_>, most: usize) -> Option<Curve> {
    let steps = thresholds(column);
    let area = average_precision(column)?;
    let positives = steps.last()?.1.hits;
    let point = |(threshold, found): &(f64, Counts)| CurvePoint {
        x: found.hits as f64 / positives as f64,
        y: found.hits as f64 / (found.hits + found.alarms) as f64,
        threshold: *threshold,
    };
    let points: Vec<CurvePoint> = steps.iter().map(point).collect();
    Some(Curve { points: thinned(&points, most), area })
}

/// Keeps the first and last point and about `most` points equally spaced along the curve (way in x plus way in y), since
/// points crowd where nothing can be seen.
fn thinned(points: &[CurvePoint], most: usize) -> Vec<CurvePoint> {
    if points.len() <= most.max(2) {
        return points.to_vec();
    }
    let way = |a: &CurvePoint, b: &CurvePoint| (b.x - a.x).abs() + (b.y - a.y).abs();
    let length: f64 = points.windows(2).map(|pair| way(&pair[0], &pair[1])).sum();
    let stride = length / (most.max(2) - 1) as f64;
    let mut kept = Vec::with_capacity(most + 2);
    let (mut walked, mut due) = (0.0, 0.0);
    for (idx, point) in points.iter().enumerate() {
        if idx > 0 {
            walked += way(&points[idx - 1], point);
        }
        if walked >= due || idx + 1 == points.len() {
            kept.push(*point);
            due = ((walked / stride).floor() + 1.0) * stride;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column<'a>(probabilities: &'a [f64], targets: &'a [bool]) -> Column<'a> {
        Column::new(probabilities, targets).unwrap()
    }

    #[test]
    fn areas_of_a_table_done_by_hand() {
        // Pairs: (.8 > .3), (.8 > .5), (.5 > .3), (.5 = .5): 3.5 of 4.
        let table = column(&[0.3, 0.5, 0.5, 0.8], &[false, false, true, true]);
        assert_eq!(auroc(table), Some(3.5 / 4.0));
        // Recall 1/2 at precision 1, the other half at 2/3.
        assert_eq!(average_precision(table), Some(0.5 + 0.5 * 2.0 / 3.0));
        let roc = roc_curve(table, CURVE_POINTS).unwrap();
        let points: Vec<(f64, f64)> = roc.points.iter().map(|point| (point.x, point.y)).collect();
        assert_eq!(points, [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
        assert_eq!(roc.area, 3.5 / 4.0);
    }

    #[test]
    fn one_class_has_no_area() {
        assert_eq!(auroc(column(&[], &[])), None);
        assert_eq!(auroc(column(&[0.1, 0.9], &[true, true])), None);
        assert_eq!(auroc(column(&[0.1, 0.9], &[false, false])), None);
        assert_eq!(average_precision(column(&[0.1, 0.9], &[false, false])), None);
        assert_eq!(average_precision(column(&[0.1, 0.9], &[true, true])), Some(1.0));
        assert!(roc_curve(column(&[0.1], &[true]), 9).is_none());
        assert!(precision_recall_curve(column(&[0.1], &[false]), 9).is_none());
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(auroc(column(&[-0.0, 0.0], &[false, true])), Some(0.5));
    }

    #[test]
    fn long_curves_become_short_and_keep_their_ends() {
        let probabilities: Vec<f64> = (0..20_000).map(|k| f64::from(k) / 20_000.0).collect();
        let targets: Vec<bool> = (0..20_000u32).map(|k| k.wrapping_mul(2_654_435_761) >> 16 < k).collect();
        let table = column(&probabilities, &targets);
        for curve in [roc_curve(table, 300), precision_recall_curve(table, 300)] {
            let points = curve.unwrap().points;
            assert!((100..=301).contains(&points.len()), "{} points", points.len());
            assert_eq!(points.last().map(|point| (point.threshold, point.x)), Some((0.0, 1.0)));
        }
        let points = roc_curve(table, 300).unwrap().points;
        // No gap is wider than a stride and a step.
        assert!(points.windows(2).all(|pair| pair[1].x - pair[0].x + pair[1].y - pair[0].y < 2.5 * 2.0 / 299.0));
        assert!(points.windows(2).all(|pair| pair[0].threshold > pair[1].threshold));
    }
}
