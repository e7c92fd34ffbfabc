//! Tables of one evaluation: metrics by label, and what the operating points find. Knows no other model.

use ichd_plugin::label::{Label, N_LABELS};

use super::table::{Align, Cell, Table};
use super::{NOTHING, decimal, grouped};
use crate::measure::metrics::{BinaryMetrics, Interval, Mean, Metrics};

/// A share as a percentage.
fn percent(share: Option<f64>) -> String {
    share.map_or(NOTHING.to_owned(), |share| format!("{:.2} %", 100.0 * share))
}

/// An interval's ends; `interval` None stands for a row that has none by its nature.
fn interval_text(interval: Option<Option<Interval>>) -> String {
    let Some(interval) = interval else { return String::new() };
    interval.map_or(NOTHING.to_owned(), |ends| format!("{:.4} to {:.4}", ends.low, ends.high))
}

/// Metrics of each label, their means, and of all labels pooled; with the AUROCs' intervals if given.
pub fn label_table(caption: &str, metrics: &Metrics, intervals: Option<&[Option<Interval>; N_LABELS]>) -> Table {
    use Align::{Left, Right};
    let mut columns = vec![("label", Left), ("positives", Right), ("prevalence", Right), ("AUROC", Right)];
    columns.extend(intervals.map(|_| ("95 % interval", Right)));
    columns.extend([
        ("avg. precision", Right),
        ("accuracy", Right),
        ("log loss", Right),
        ("Brier", Right),
        ("calib. error", Right),
    ]);
    let mut table = Table::new(caption, &columns);
    let row = |name: &str, one: &BinaryMetrics, interval: Option<Option<Interval>>| {
        let mut cells: Vec<Cell> = vec![
            name.into(),
            grouped(one.positives).into(),
            percent(one.prevalence()).into(),
            decimal(one.auroc, 4).into(),
        ];
        cells.extend(intervals.map(|_| interval_text(interval).into()));
        let rest = [one.average_precision, one.accuracy, one.log_loss, one.brier, one.calibration_error];
        cells.extend(rest.map(|value| Cell::from(decimal(value, 4))));
        cells
    };
    for (idx, label) in Label::ALL.into_iter().enumerate() {
        table.rows.push(row(label.name(), &metrics.labels[idx], intervals.map(|all| all[idx])));
    }
    let means = &metrics.means;
    let mean = |mean: &Mean| Cell::from(decimal(mean.value, 4));
    let mut cells: Vec<Cell> = vec!["mean of labels".into(), "".into(), "".into(), mean(&means.auroc)];
    cells.extend(intervals.map(|_| "".into()));
    cells.extend(
        [&means.average_precision, &means.accuracy, &means.log_loss, &means.brier, &means.calibration_error].map(mean),
    );
    table.rows.push(cells);
    table.rows.push(row("all pooled", &metrics.pooled, None));
    table.notes = notes(metrics);
    table
}

fn notes(metrics: &Metrics) -> Vec<String> {
    let slices = metrics.labels[0].slices;
    let contest = decimal(metrics.weighted_log_loss, 5);
    let mut notes = vec![format!(
        "{} slices of {} patients. Weighted log loss (any twice, divided by 7): {contest}. Accuracy at 0.5.",
        grouped(slices),
        grouped(metrics.patients as u64)
    )];
    let labels = metrics.means.auroc.labels;
    if labels < N_LABELS {
        notes.push(format!(
            "The mean AUROC is of {labels} labels: the others have one class only, and it compares with no mean of six."
        ));
    }
    notes
}

/// Counts and shares at the operating points.
pub fn confusion_table(caption: &str, metrics: &Metrics) -> Table {
    use Align::{Left, Right};
    let names = ["point", "TP", "FP", "TN", "FN", "sensitivity", "specificity", "PPV", "NPV", "F1"];
    let columns: Vec<(&str, Align)> =
        std::iter::once(("label", Left)).chain(names.into_iter().map(|name| (name, Right))).collect();
    let mut table = Table::new(caption, &columns);
    let row = |name: &str, point: String, one: &BinaryMetrics| {
        let counts = one.confusion;
        let mut cells: Vec<Cell> = vec![name.into(), point.into()];
        let numbers = [counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives];
        cells.extend(numbers.map(|count| Cell::from(grouped(count))));
        let shares = [counts.sensitivity(), counts.specificity(), counts.ppv(), counts.npv(), counts.f1()];
        cells.extend(shares.map(|share| Cell::from(decimal(share, 4))));
        cells
    };
    for (label, (one, point)) in Label::ALL.iter().zip(metrics.labels.iter().zip(metrics.points)) {
        table.rows.push(row(label.name(), decimal(Some(f64::from(point)), 4), one));
    }
    table.rows.push(row("all pooled", String::new(), &metrics.pooled));
    table
        .notes
        .push("A label is found at or above its point. TP, FP, TN, FN: true and false positives and negatives.".into());
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::check;
    use super::*;
    use crate::measure::{Predictions, metrics};

    /// Eight slices of four patients; subdural has no positive one.
    pub fn metrics_of_eight() -> Metrics {
        let row = |k: u8| [0, 1, 2, 3, 4, 5].map(|label| f32::from((k * 5 + label) % 8) / 2.0 - 1.75);
        let logits: Vec<[f32; 6]> = (0..8).map(row).collect();
        let targets: Vec<[bool; 6]> = (0..8u8)
            .map(|k| std::array::from_fn(|label| label < 5 && (k * 5 + label as u8) % 8 > 2 + label as u8))
            .collect();
        let predictions = Predictions::from_logits(&logits, &targets, &[0, 0, 1, 1, 2, 2, 3, 3], None).unwrap();
        metrics::evaluate(&predictions, &[0.5; 6])
    }

    #[test]
    fn metrics_by_label_look_like_this() {
        let metrics = metrics_of_eight();
        let interval = Interval { low: 0.875, high: 1.0, replicates: 1000 };
        let table = label_table("Validation", &metrics, Some(&[Some(interval), None, None, None, None, None]));
        check(&table.text(), "label_table.txt");
        assert!(!label_table("Validation", &metrics, None).text().contains("interval"));
    }

    #[test]
    fn confusion_looks_like_this() {
        check(&confusion_table("At the operating points", &metrics_of_eight()).text(), "confusion_table.txt");
    }
}
