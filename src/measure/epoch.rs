//! One epoch of a training, and `metrics.csv`, which holds one line of each. Knows no file: the caller appends.

use ichd_plugin::label::{Label, N_LABELS};
use serde::Serialize;

use super::metrics::Metrics;

/// What an epoch came to. Losses are log losses (natural logarithm), unweighted unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: u32,
    /// At the epoch's last step.
    pub learning_rate: f64,
    /// Mean over the epoch's steps, as trained on: with augmentation and the training's own weights.
    pub train_loss: f64,
    /// Of the validation slices, mean over labels.
    pub validation_loss: Option<f64>,
    /// The contest's metric on them.
    pub weighted_log_loss: Option<f64>,
    /// Share of right answers at 0.5, all labels pooled.
    pub accuracy: Option<f64>,
    /// Mean over labels.
    pub mean_auroc: Option<f64>,
    /// Mean over labels.
    pub mean_average_precision: Option<f64>,
    /// In label order.
    pub auroc: [Option<f64>; N_LABELS],
    /// The epoch's wall-clock time, validation included.
    pub seconds: f64,
    /// Training slices a second, without validation.
    pub slices_per_second: f64,
}

/// Columns before and after those of the labels.
const BEFORE: [&str; 8] = [
    "epoch",
    "learning_rate",
    "train_loss",
    "validation_loss",
    "weighted_log_loss",
    "accuracy",
    "mean_auroc",
    "mean_average_precision",
];
const AFTER: [&str; 2] = ["seconds", "slices_per_second"];
const N_COLUMNS: usize = BEFORE.len() + N_LABELS + AFTER.len();

/// A line of `metrics.csv` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metrics.csv, line {line}: {sentence}")]
pub struct EpochError {
    /// Counted from 1; the header is the first.
    pub line: usize,
    /// What is wrong.
    pub sentence: String,
}

/// The header line, with its line end. Columns are only ever added, at the end.
pub fn header() -> String {
    let labels = Label::ALL.map(|label| format!("auroc_{label}"));
    let names: Vec<&str> = BEFORE.into_iter().chain(labels.iter().map(String::as_str)).chain(AFTER).collect();
    format!("{}\n", names.join(","))
}

impl Epoch {
    /// An epoch whose validation gave these metrics.
    pub fn with_validation(mut self, metrics: &Metrics) -> Self {
        self.validation_loss = metrics.means.log_loss.value;
        self.weighted_log_loss = metrics.weighted_log_loss;
        self.accuracy = metrics.pooled.accuracy;
        self.mean_auroc = metrics.means.auroc.value;
        self.mean_average_precision = metrics.means.average_precision.value;
        self.auroc = metrics.labels.each_ref().map(|label| label.auroc);
        self
    }

    /// Its line, with its line end: shortest decimals that read back as the same f64, nothing where a value is undefined. Write
    /// header and lines whole; [`parse`] forgives a last line without an end.
    pub fn row(&self) -> String {
        let optional = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let mut cells = vec![self.epoch.to_string(), self.learning_rate.to_string(), self.train_loss.to_string()];
        let validation =
            [self.validation_loss, self.weighted_log_loss, self.accuracy, self.mean_auroc, self.mean_average_precision];
        cells.extend(validation.into_iter().chain(self.auroc).map(optional));
        cells.extend([self.seconds.to_string(), self.slices_per_second.to_string()]);
        format!("{}\n", cells.join(","))
    }

    fn read(text: &str) -> Result<Self, String> {
        let cells: Vec<&str> = text.split(',').collect();
        if cells.len() < N_COLUMNS {
            return Err(format!("{} columns; {N_COLUMNS} would be right", cells.len()));
        }
        let optional = |at: usize| -> Result<Option<f64>, String> {
            let cell = cells[at];
            if cell.is_empty() {
                return Ok(None);
            }
            cell.parse().map(Some).map_err(|_| format!("`{cell}` is not a number"))
        };
        let needed = |at: usize| optional(at)?.ok_or_else(|| format!("column {} is empty", at + 1));
        let mut auroc = [None; N_LABELS];
        for (idx, area) in auroc.iter_mut().enumerate() {
            *area = optional(BEFORE.len() + idx)?;
        }
        Ok(Epoch {
            epoch: cells[0].parse().map_err(|_| format!("`{}` is not the number of an epoch", cells[0]))?,
            learning_rate: needed(1)?,
            train_loss: needed(2)?,
            validation_loss: optional(3)?,
            weighted_log_loss: optional(4)?,
            accuracy: optional(5)?,
            mean_auroc: optional(6)?,
            mean_average_precision: optional(7)?,
            auroc,
            seconds: needed(N_COLUMNS - 2)?,
            slices_per_second: needed(N_COLUMNS - 1)?,
        })
    }
}

/// All epochs of a `metrics.csv`. A last line without a line end was cut short by a crash and is left out; columns that a later
/// version added at the end are not looked at.
///
/// # Errors
/// It has another header, or a line is damaged.
pub fn parse(text: &str) -> Result<Vec<Epoch>, EpochError> {
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut lines = whole.lines().enumerate();
    let header = header();
    match lines.next() {
        Some((_, first)) if first.starts_with(header.trim_end()) => {}
        _ => return Err(EpochError { line: 1, sentence: format!("does not begin with `{}`", header.trim_end()) }),
    }
    lines.map(|(idx, line)| Epoch::read(line).map_err(|sentence| EpochError { line: idx + 1, sentence })).collect()
}

/// Mean time of an epoch in seconds; none without epochs.
pub fn mean_seconds(epochs: &[Epoch]) -> Option<f64> {
    (!epochs.is_empty()).then(|| epochs.iter().map(|epoch| epoch.seconds).sum::<f64>() / epochs.len() as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_look_like_this() {
        assert_eq!(
            header(),
            "epoch,learning_rate,train_loss,validation_loss,weighted_log_loss,accuracy,mean_auroc,\
             mean_average_precision,auroc_any,auroc_epidural,auroc_intraparenchymal,auroc_intraventricular,\
             auroc_subarachnoid,auroc_subdural,seconds,slices_per_second\n"
        );
        let mut epoch = Epoch { epoch: 3, learning_rate: 1e-4, train_loss: 0.25, seconds: 61.5, ..Epoch::default() };
        epoch.auroc[5] = Some(0.975);
        assert_eq!(epoch.row(), "3,0.0001,0.25,,,,,,,,,,,0.975,61.5,0\n");
    }

    #[test]
    fn damage_is_named_and_a_torn_end_forgiven() {
        let row = Epoch::default().row();
        let read = |body: &str| parse(&format!("{}{body}", header()));
        assert_eq!(read(&format!("{row}{}", &row[..5])).unwrap().len(), 1);
        assert_eq!(read("1,2\n").unwrap_err().to_string(), "metrics.csv, line 2: 2 columns; 16 would be right");
        let error = read(&format!("{row}{}", row.replacen("0,", "x,", 1))).unwrap_err();
        assert_eq!(error.to_string(), "metrics.csv, line 3: `x` is not the number of an epoch");
        assert_eq!(parse("").unwrap_err().line, 1);
        // A later version's column.
        let later = format!("{},momentum\n{},0.9\n", header().trim_end(), row.trim_end());
        assert_eq!(parse(&later).unwrap(), [Epoch::default()]);
    }

    proptest! {
        #[test]
        fn lines_read_back_as_they_were(epoch: u32, numbers: [f64; 4], optional: [Option<f64>; 11]) {
            prop_assume!(numbers.iter().chain(optional.iter().flatten()).all(|number| !number.is_nan()));
            let made = Epoch {
                epoch,
                learning_rate: numbers[0],
                train_loss: numbers[1],
                seconds: numbers[2],
                slices_per_second: numbers[3],
                validation_loss: optional[0],
                weighted_log_loss: optional[1],
                accuracy: optional[2],
                mean_auroc: optional[3],
                mean_average_precision: optional[4],
                auroc: std::array::from_fn(|label| optional[5 + label]),
            };
            prop_assert_eq!(parse(&format!("{}{}", header(), made.row())).unwrap(), [made]);
        }
    }
}
