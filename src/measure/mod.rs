//! What a model is worth, measured: metrics, calibration, operating points, plots and reports. Knows no device, no DICOM, no
//! file: numbers in, numbers or the contents of files out.
//!
//! A training or evaluation holds the logits, targets and patient of each slice, `[[f32; 6]]`, `[[bool; 6]]` and `[u32]`:
//!
//! - [`Predictions::from_logits`] checks them once and makes columns, one a label.
//! - [`metrics::evaluate`] measures everything at once, [`metrics::auroc_intervals`] how sure the AUROCs are.
//! - [`calibrate::fit`] and [`operating::choose`] make what `model.yaml` keeps.
//! - [`epoch::Epoch`] is a line of `metrics.csv`; [`plot`] draws, [`report`] writes tables, a page and the model card.
//!
//! The test below goes the whole way.

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

#[cfg(test)]
mod tests {
    use ichd_plugin::fill::uniform;

    use super::calibrate::Method;
    use super::epoch::Epoch;
    use super::operating::Rule;
    use super::report::{ModelRow, Page};
    use super::*;

    /// Logits that are twice too sure, in 40 patients of 20 slices.
    fn validation() -> (Vec<[f32; 6]>, Vec<[bool; 6]>, Vec<u32>) {
        let units: Vec<f32> = uniform("logits", 4800, 0).collect();
        let own: Vec<f32> = uniform("targets", 4800, 0).collect();
        let logits: Vec<f32> = units.iter().map(|unit| 12.0 * unit - 8.0).collect();
        let truth = |(logit, own): (&f32, &f32)| f64::from(*own) < predictions::logistic(f64::from(*logit) / 2.0);
        let targets: Vec<bool> = logits.iter().zip(&own).map(truth).collect();
        (logits.as_chunks().0.to_vec(), targets.as_chunks().0.to_vec(), (0..800).map(|row| row / 20).collect())
    }

    #[test]
    fn from_logits_to_a_page() -> Result<(), Box<dyn std::error::Error>> {
        let (logits, targets, groups) = validation();

        // After every epoch.
        let predictions = Predictions::from_logits(&logits, &targets, &groups, None)?;
        let metrics = metrics::evaluate(&predictions, &[metrics::HALF; 6]);
        let epoch =
            Epoch { epoch: 1, learning_rate: 1e-4, train_loss: 0.5, ..Epoch::default() }.with_validation(&metrics);
        let csv = format!("{}{}", epoch::header(), epoch.row());

        // After the last one.
        let fit = calibrate::fit(Method::Platt, &logits, &targets)?;
        let calibrated = Predictions::from_logits(&logits, &targets, &groups, Some(&fit.calibration))?;
        let points = operating::or_half(&operating::choose(&calibrated, Rule::default())?);
        let metrics = metrics::evaluate(&calibrated, &points);
        let settings = metrics::Bootstrap { replicates: 100, ..metrics::Bootstrap::default() };
        let intervals = metrics::auroc_intervals(&calibrated, &settings);
        let html = Page::new("resnet50")
            .table(&report::label_table("Validation", &metrics, Some(&intervals)))
            .table(&report::confusion_table("Operating points", &metrics))
            .drawing(&plot::learning_curves("Learning curves", &epoch::parse(&csv)?))
            .drawing(&plot::roc("ROC", &calibrated, Some(&intervals)))
            .drawing(&plot::reliability("Reliability", &calibrated))
            .html();

        // What should have come out.
        let rows = [ModelRow::new("resnet50", "fold 0", &metrics), ModelRow::new("vgg16", "fold 0", &metrics)];
        let comparison = report::comparison_table("Models", &rows, report::By::LogLoss);
        assert!(html.contains("resnet50") && comparison.text().contains("vgg16"));
        assert!(fit.calibration.scale.iter().all(|scale| (0.35..0.65).contains(scale)), "{fit:?}");
        assert!(fit.labels.iter().all(|label| label.after < label.before));
        for (label, interval) in metrics.labels.iter().zip(intervals) {
            let area = label.auroc.unwrap_or_default();
            assert!(interval.is_some_and(|ends| ends.low < area && area < ends.high));
            assert!(label.confusion.sensitivity() >= Some(0.9));
        }
        Ok(())
    }
}
