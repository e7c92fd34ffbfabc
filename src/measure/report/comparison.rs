//! The comparison of several models: one row a backbone, the best value of each column marked. Knows no slices.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::table::{Align, Cell, Table};
use super::{NOTHING, decimal, millions};
use crate::measure::metrics::Metrics;

/// A model in the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRow {
    /// Name of the backbone, or of the model where a backbone comes twice.
    pub backbone: String,
    /// Share of right answers at 0.5, all labels pooled.
    pub accuracy: Option<f64>,
    /// Mean over labels.
    pub auroc: Option<f64>,
    /// Labels in that mean.
    pub auroc_labels: usize,
    /// Of the network as used, head included.
    pub parameters: Option<u64>,
    /// Mean over labels.
    pub log_loss: Option<f64>,
    /// The contest's metric.
    pub weighted_log_loss: Option<f64>,
    /// Seconds an epoch of training takes.
    pub epoch_seconds: Option<f64>,
    /// Slices scored a second, decoding left out.
    pub slices_per_second: Option<f64>,
    /// Names the evaluated slices, such as the digest of the validation split.
    pub evaluated_on: String,
}

impl ModelRow {
    /// A row with the metrics of an evaluation and nothing else known yet.
    pub fn new(backbone: impl Into<String>, evaluated_on: impl Into<String>, metrics: &Metrics) -> Self {
        ModelRow {
            backbone: backbone.into(),
            accuracy: metrics.pooled.accuracy,
            auroc: metrics.means.auroc.value,
            auroc_labels: metrics.means.auroc.labels,
            parameters: None,
            log_loss: metrics.means.log_loss.value,
            weighted_log_loss: metrics.weighted_log_loss,
            epoch_seconds: None,
            slices_per_second: None,
            evaluated_on: evaluated_on.into(),
        }
    }
}

/// A column to sort by, the best row first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the alphabet.
    Backbone,
    /// Highest first.
    Accuracy,
    /// Highest first.
    Auroc,
    /// Fewest first.
    Parameters,
    /// Lowest first.
    LogLoss,
    /// Lowest first.
    WeightedLogLoss,
    /// Shortest first.
    EpochTime,
    /// Fastest first.
    Speed,
}

impl By {
    /// All columns from left to right.
    pub const ALL: [By; 8] = [
        By::Backbone,
        By::Accuracy,
        By::Auroc,
        By::Parameters,
        By::LogLoss,
        By::WeightedLogLoss,
        By::EpochTime,
        By::Speed,
    ];

    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            By::Backbone => "backbone",
            By::Accuracy => "accuracy",
            By::Auroc => "auroc",
            By::Parameters => "parameters",
            By::LogLoss => "log_loss",
            By::WeightedLogLoss => "weighted_log_loss",
            By::EpochTime => "epoch_time",
            By::Speed => "speed",
        }
    }

    /// The column of that name.
    pub fn from_name(name: &str) -> Option<By> {
        By::ALL.into_iter().find(|column| column.name() == name)
    }

    const fn heading(self) -> &'static str {
        match self {
            By::Backbone => "backbone",
            By::Accuracy => "accuracy",
            By::Auroc => "AUROC",
            By::Parameters => "parameters",
            By::LogLoss => "log loss",
            By::WeightedLogLoss => "weighted log loss",
            By::EpochTime => "time per epoch",
            By::Speed => "slices per second",
        }
    }

    /// The column's number; less is better. None for names and what is not known.
    fn cost(self, row: &ModelRow) -> Option<f64> {
        let cost = match self {
            By::Backbone => None,
            By::Accuracy => row.accuracy.map(|value| -value),
            By::Auroc => row.auroc.map(|value| -value),
            By::Parameters => row.parameters.map(|count| count as f64),
            By::LogLoss => row.log_loss,
            By::WeightedLogLoss => row.weighted_log_loss,
            By::EpochTime => row.epoch_seconds,
            By::Speed => row.slices_per_second.map(|value| -value),
        };
        cost.filter(|cost| !cost.is_nan())
    }

    fn text(self, row: &ModelRow) -> String {
        match self {
            By::Backbone => row.backbone.clone(),
            By::Accuracy => decimal(row.accuracy, 4),
            By::Auroc => decimal(row.auroc, 4),
            By::Parameters => row.parameters.map_or(NOTHING.to_owned(), millions),
            By::LogLoss => decimal(row.log_loss, 4),
            By::WeightedLogLoss => decimal(row.weighted_log_loss, 4),
            By::EpochTime => row.epoch_seconds.map_or(NOTHING.to_owned(), duration),
            By::Speed => decimal(row.slices_per_second, 0),
        }
    }

    /// Best first, then what has no value; equals by name.
    fn order(self, a: &ModelRow, b: &ModelRow) -> Ordering {
        let cost = |row: &ModelRow| self.cost(row).unwrap_or(f64::INFINITY);
        cost(a).total_cmp(&cost(b)).then_with(|| a.backbone.cmp(&b.backbone))
    }
}

/// Seconds as people say them: `48.2 s`, `3 min 05 s`, `2 h 07 min`.
fn duration(seconds: f64) -> String {
    // Rounded before it is divided, so that no 60 seconds appear.
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        ..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => {
            let minutes = (seconds / 60.0).round() as u64;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// Models below each other, the best first, the best value of each column marked if there is more than one model.
pub fn comparison_table(caption: &str, rows: &[ModelRow], by: By) -> Table {
    let align = |column: By| if column == By::Backbone { Align::Left } else { Align::Right };
    let columns = By::ALL.map(|column| (column.heading(), align(column)));
    let mut table = Table::new(caption, &columns);
    let mut sorted: Vec<&ModelRow> = rows.iter().collect();
    sorted.sort_by(|a, b| by.order(a, b));
    let best = By::ALL.map(|column| rows.iter().filter_map(|row| column.cost(row)).min_by(f64::total_cmp));
    for row in sorted {
        let cell = |(column, best): (By, Option<f64>)| Cell {
            text: column.text(row),
            best: rows.len() > 1 && best.is_some() && column.cost(row) == best,
        };
        table.rows.push(By::ALL.into_iter().zip(best).map(cell).collect());
    }
    table.notes = notes(rows);
    table
}

fn notes(rows: &[ModelRow]) -> Vec<String> {
    let mut notes =
        vec!["Accuracy at 0.5 over all labels pooled; AUROC and log loss are means over labels.".to_owned()];
    if rows.windows(2).any(|pair| pair[0].evaluated_on != pair[1].evaluated_on) {
        notes.push("These models were evaluated on different slices: their metrics do not compare.".into());
    }
    for row in rows.iter().filter(|row| row.auroc.is_some() && row.auroc_labels < ichd_plugin::label::N_LABELS) {
        notes.push(format!("The AUROC of {} is a mean of {} labels.", row.backbone, row.auroc_labels));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    fn row(backbone: &str, accuracy: f64, auroc: f64, parameters: u64, epoch_seconds: f64) -> ModelRow {
        ModelRow {
            backbone: backbone.into(),
            accuracy: Some(accuracy),
            auroc: Some(auroc),
            auroc_labels: 6,
            parameters: Some(parameters),
            log_loss: Some(1.0 - auroc),
            weighted_log_loss: Some(1.1 - auroc),
            epoch_seconds: Some(epoch_seconds),
            slices_per_second: Some(1e5 / epoch_seconds),
            evaluated_on: "a".into(),
        }
    }

    fn rows() -> Vec<ModelRow> {
        vec![
            row("mobilenet_v2", 0.97, 0.9714, 2_231_558, 59.96),
            row("resnet50", 0.9713, 0.973, 23_520_326, 3599.6),
            ModelRow {
                auroc: None,
                weighted_log_loss: Some(f64::NAN),
                ..row("vgg16", 0.9713, 0.0, 14_717_766, 7620.0)
            },
        ]
    }

    #[test]
    fn models_sort_with_the_best_marked() {
        let found = comparison_table("Table 2", &rows(), By::Auroc).text();
        let names: Vec<&str> = found.lines().skip(3).take(3).filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["resnet50", "mobilenet_v2", "vgg16"]);
        check(&found, "comparison_table.txt");
    }

    #[test]
    fn every_column_sorts_with_unknown_values_last() {
        let first = |by: By| comparison_table("t", &rows(), by).rows[0][0].text.clone();
        let found = By::ALL.map(first);
        let expected = ["mobilenet_v2", "resnet50", "resnet50", "mobilenet_v2", "resnet50", "resnet50"];
        assert_eq!(found[..6], expected);
        assert_eq!(found[6..], ["mobilenet_v2", "mobilenet_v2"]);
        assert!(By::ALL.into_iter().all(|by| By::from_name(by.name()) == Some(by)));
        assert_eq!(By::from_name("price"), None);
    }

    #[test]
    fn a_single_model_is_not_the_best_and_different_slices_are_told() {
        let alone = comparison_table("t", &rows()[..1], By::Auroc);
        assert!(alone.rows.iter().flatten().all(|cell| !cell.best));
        let mut other = rows();
        other[1].evaluated_on = "b".into();
        other[1].auroc_labels = 5;
        let notes = comparison_table("t", &other, By::Auroc).notes.join("\n");
        assert!(notes.contains("different slices") && notes.contains("resnet50 is a mean of 5 labels"));
    }

    #[test]
    fn durations_read_well() {
        let found = [48.23, 59.94, 59.96, 185.0, 3599.6, 7620.0].map(duration);
        assert_eq!(found, ["48.2 s", "59.9 s", "1 min 00 s", "3 min 05 s", "1 h 00 min", "2 h 07 min"]);
    }
}
