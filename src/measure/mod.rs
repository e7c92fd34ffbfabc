//! What a model is worth, measured: metrics, calibration, operating points, plots and reports. Knows no device, no DICOM, no
//! file: numbers in, numbers or the contents of files out.
//!
//! A training or evaluation loop holds logits, targets and the patient of each slice, and goes
//!
//! ```text
//! Predictions::from_logits(&logits, &targets, &groups, None)?   checked columns, one a label
//!   -> metrics::evaluate(&predictions, &[0.5; 6])               everything at once, each epoch
//!   -> metrics::auroc_intervals(&predictions, &settings)        once, at the end: 1000 resamplings
//! calibrate::fit(calibrate::Method::Platt, &logits, &targets)?  what model.yaml keeps
//! operating::choose(&calibrated, Rule::default())?              what model.yaml keeps
//! plot::learning_curves(&epochs).svg() / .png()?                pictures
//! report::epoch_row(&epoch), report::label_table(&metrics)      a line of metrics.csv, tables, the model card
//! ```

pub mod calibrate;
pub mod epoch;
pub mod metrics;
pub mod operating;
pub mod plot;
pub mod predictions;
pub mod report;

#[cfg(test)]
mod golden;

pub use predictions::{Column, MeasureError, Predictions};
