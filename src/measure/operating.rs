//! Operating points: the probability from which on a label counts as found. Knows no calibration: give it calibrated
//! probabilities if the model is calibrated.
//!
//! Probabilities are rounded to f32 first, as result files have them, and a point is put midway between the lowest probability
//! that it must find and the next lower one: another device's last digits then change no answer.

use ichd_plugin::label::{Label, N_LABELS};
use serde::Serialize;

use super::metrics::{Confusion, HALF};
use super::{Column, MeasureError, Predictions};

/// How a point is chosen. Ties go to the higher sensitivity: an overlooked hemorrhage costs more than a second look.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The highest sensitivity + specificity - 1 (Youden's J).
    Youden,
    /// The highest specificity with at least this sensitivity.
    Sensitivity(f64),
}

impl Default for Rule {
    /// Sensitivity 0.90. Cleared devices report 0.89 to 0.95; a fixed sensitivity makes models comparable by their
    /// specificity, and does not sink with a label's rarity as accuracy's best point does.
    fn default() -> Self {
        Rule::Sensitivity(0.9)
    }
}

/// A point and what it finds on the slices that it was chosen on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OperatingPoint {
    /// Probability at or above which the label counts as found.
    pub point: f32,
    /// Counts there.
    pub confusion: Confusion,
}

/// Points of all labels; None for a label with one class only.
///
/// # Errors
/// A wanted sensitivity is not above 0 and at most 1.
pub fn choose(predictions: &Predictions, rule: Rule) -> Result<[Option<OperatingPoint>; N_LABELS], MeasureError> {
    if let Rule::Sensitivity(wanted) = rule
        && !(wanted > 0.0 && wanted <= 1.0)
    {
        return Err(MeasureError::Sensitivity(wanted));
    }
    Ok(Label::ALL.map(|label| choose_one(predictions.column(label), rule)))
}

/// The points for `model.yaml`: 0.5 for a label without one.
pub fn or_half(points: &[Option<OperatingPoint>; N_LABELS]) -> [f32; N_LABELS] {
    points.map(|point| point.map_or(HALF, |found| found.point))
}

/// Slices found from one probability on.
#[derive(Clone, Copy)]
struct Cut {
    lowest: f32,
    hits: u64,
    alarms: u64,
}

fn choose_one(column: Column<'_>, rule: Rule) -> Option<OperatingPoint> {
    let positives = column.n_positives();
    let negatives = column.n_slices() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let cuts = cuts(column);
    let best = match rule {
        // J's order, in whole numbers: hits / positives - alarms / negatives. The last maximum is the most sensitive.
        Rule::Youden => {
            let j = |cut: &Cut| {
                i128::from(cut.hits) * i128::from(negatives) - i128::from(cut.alarms) * i128::from(positives)
            };
            (0..cuts.len()).max_by_key(|idx| j(&cuts[*idx]))?
        }
        Rule::Sensitivity(wanted) => {
            let first = cuts.iter().position(|cut| cut.hits as f64 / positives as f64 >= wanted)?;
            // More positives without another false alarm are free.
            cuts.iter().rposition(|cut| cut.alarms == cuts[first].alarms)?
        }
    };
    let point = cuts.get(best + 1).map_or(cuts[best].lowest, |next| between(next.lowest, cuts[best].lowest));
    Some(OperatingPoint { point, confusion: Confusion::at(column, point) })
}

/// One cut for each different probability, from the highest down.
fn cuts(column: Column<'_>) -> Vec<Cut> {
    let mut pairs: Vec<(f32, bool)> =
        column.pairs().map(|(probability, target)| (probability as f32, target)).collect();
    pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms) = (0, 0);
    let mut cuts: Vec<Cut> = Vec::new();
    for tied in pairs.chunk_by(|a, b| a.0 == b.0) {
        let found = tied.iter().filter(|pair| pair.1).count() as u64;
        hits += found;
        alarms += tied.len() as u64 - found;
        cuts.push(Cut { lowest: tied[0].0, hits, alarms });
    }
    cuts
}

/// A number above `low` and at most `high`, midway if f32 has one there.
fn between(low: f32, high: f32) -> f32 {
    let middle = f32::midpoint(low, high);
    if middle > low { middle } else { high }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(probabilities: &[f64], targets: &[bool], rule: Rule) -> OperatingPoint {
        choose_one(Column::new(probabilities, targets).unwrap(), rule).unwrap()
    }

    #[test]
    fn points_lie_between_probabilities() {
        let probabilities = [0.1, 0.25, 0.5, 0.75, 1.0];
        let targets = [false, false, true, false, true];
        assert_eq!(point(&probabilities, &targets, Rule::Youden).point, 0.375);
        assert_eq!(point(&probabilities, &targets, Rule::Sensitivity(0.5)).point, 0.875);
        assert_eq!(point(&probabilities, &targets, Rule::Sensitivity(0.51)).point, 0.375);
        // Everything must be found: nothing lies below.
        assert_eq!(point(&[0.25, 0.5], &[true, false], Rule::Sensitivity(1.0)).point, 0.25);
        assert_eq!(between(0.5, 0.5f32.next_up()), 0.5f32.next_up());
    }

    #[test]
    fn ties_go_to_the_higher_sensitivity() {
        // J is 1/2 at 0.8 (1/2 of positives, no negative) and at 0.4 (all positives, 1/2 of negatives).
        let targets = [true, false, true, false];
        let found = point(&[0.8, 0.6, 0.4, 0.2], &targets, Rule::Youden);
        assert_eq!(found.confusion.sensitivity(), Some(1.0));
        // Half is enough, but the second positive costs no false alarm.
        let found = point(&[0.8, 0.7, 0.6, 0.5], &[true, true, false, true], Rule::Sensitivity(0.3));
        assert_eq!((found.point, found.confusion.true_positives, found.confusion.false_positives), (0.65, 2, 0));
    }

    #[test]
    fn one_class_has_no_point_and_impossible_wishes_are_refused() {
        let predictions = Predictions::from_logits(&[[0.0; 6]], &[[true; 6]], &[1], None).unwrap();
        let points = choose(&predictions, Rule::default()).unwrap();
        assert_eq!((points, or_half(&points)), ([None; 6], [0.5; 6]));
        for wanted in [0.0, -1.0, 1.1, f64::NAN] {
            let error = choose(&predictions, Rule::Sensitivity(wanted)).unwrap_err();
            assert!(error.to_string().contains("cannot be wanted"));
        }
    }

    proptest! {
        #[test]
        fn points_keep_their_promise_and_no_better_one_exists(
            rows in proptest::collection::vec((0..40u32, any::<bool>()), 2..80), wanted in 0.01f64..=1.0,
        ) {
            let probabilities: Vec<f64> = rows.iter().map(|row| f64::from(row.0) / 39.0).collect();
            let targets: Vec<bool> = rows.iter().map(|row| row.1).collect();
            let column = Column::new(&probabilities, &targets).unwrap();
            prop_assume!(column.n_positives() > 0 && column.n_positives() < column.n_slices());
            let all: Vec<Confusion> = probabilities.iter().map(|p| Confusion::at(column, *p as f32)).collect();
            let key = |counts: &Confusion| (counts.specificity(), counts.sensitivity());

            let sensitive = point(&probabilities, &targets, Rule::Sensitivity(wanted)).confusion;
            prop_assert!(sensitive.sensitivity() >= Some(wanted));
            for other in all.iter().filter(|counts| counts.sensitivity() >= Some(wanted)) {
                prop_assert!(key(other) <= key(&sensitive), "{:?} {:?}", other, sensitive);
            }

            let youden = |counts: &Confusion| counts.sensitivity().unwrap() + counts.specificity().unwrap();
            let best = point(&probabilities, &targets, Rule::Youden).confusion;
            for other in &all {
                let gain = youden(other) - youden(&best);
                prop_assert!(gain < 1e-12);
                prop_assert!(gain < -1e-12 || other.sensitivity() <= best.sensitivity());
            }
        }
    }
}
