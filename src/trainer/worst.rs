//! The slices on which a model errs most, as a table and as a sheet of pictures. Knows no training.

use std::time::Instant;

use burn::tensor::Device;
use ichd_kernels::{Ramp, Window, WindowPlan};
use ichd_plugin::label::{Label, N_LABELS};

use super::batches::{Feed, plain_batches};
use super::dataset::Dataset;
use super::training::{TrainError, read};
use super::waiting::Queue;
use crate::measure::Predictions;
use crate::measure::metrics::{CONTEST_FLOOR, CONTEST_WEIGHTS};
use crate::names::csv_cell;
use crate::picture::{self, Image, TILE, Tile};
use crate::results::NOTICE;

/// Slices on the sheet.
const ON_SHEET: usize = 24;
/// Slices in the table.
const IN_TABLE: usize = 500;
/// Through this window the sheet shows them.
const BRAIN: Window = Window { level: 40.0, width: 80.0 };

/// One slice and how far the model is off.
#[derive(Clone, Debug, PartialEq)]
pub struct Miss {
    /// Its number in the data set.
    pub slice: usize,
    /// The contest's log loss of this slice alone: labels' -ln q, `any` twice, divided by 7.
    pub loss: f64,
    /// Probabilities in label order.
    pub probabilities: [f64; N_LABELS],
    /// Truth in label order.
    pub truth: [bool; N_LABELS],
}

/// The slices by falling loss. `slices` are the data set's numbers of the predictions' rows.
pub fn misses(slices: &[usize], predictions: &Predictions) -> Vec<Miss> {
    let columns = Label::ALL.map(|label| predictions.column(label));
    let mut all: Vec<Miss> = slices
        .iter()
        .enumerate()
        .map(|(row, slice)| {
            let probabilities = columns.map(|column| column.probabilities()[row]);
            let truth = columns.map(|column| column.targets()[row]);
            let losses = (0..N_LABELS).map(|label| {
                let of_truth = if truth[label] { probabilities[label] } else { 1.0 - probabilities[label] };
                -CONTEST_WEIGHTS[label] * of_truth.clamp(CONTEST_FLOOR, 1.0 - CONTEST_FLOOR).ln()
            });
            let loss = losses.sum::<f64>() / CONTEST_WEIGHTS.iter().sum::<f64>();
            Miss { slice: *slice, loss, probabilities, truth }
        })
        .collect();
    all.sort_by(|a, b| b.loss.total_cmp(&a.loss).then(a.slice.cmp(&b.slice)));
    all
}

/// The worst of them as csv: instance, loss, and of each label truth and probability.
pub fn table(dataset: &Dataset, misses: &[Miss]) -> String {
    let names: String = Label::ALL.iter().map(|label| format!(",{label},p_{label}")).collect();
    let mut text = format!("instance,weighted_log_loss{names}\n");
    for miss in misses.iter().take(IN_TABLE) {
        text.push_str(&row(&dataset.items[miss.slice].instance, miss));
    }
    text
}

fn row(instance: &str, miss: &Miss) -> String {
    let mut text = format!("{},{:.6}", csv_cell(instance), miss.loss);
    for (truth, probability) in miss.truth.iter().zip(&miss.probabilities) {
        text.push_str(&format!(",{},{probability:.6}", u8::from(*truth)));
    }
    text.push('\n');
    text
}

/// A sheet of the worst slices in the brain window, each with the model's probabilities and the truth.
///
/// # Errors
/// The cache.
pub fn sheet(dataset: &Dataset, title: &str, misses: &[Miss]) -> Result<Image, TrainError> {
    let shown = &misses[..misses.len().min(ON_SHEET)];
    let slices: Vec<usize> = shown.iter().map(|miss| miss.slice).collect();
    let images = pictures(dataset, &slices)?;
    let tiles: Vec<Tile> = shown
        .iter()
        .zip(images)
        .map(|(miss, image)| Tile {
            image,
            title: format!("loss {:.2}  L 40 W 80", miss.loss),
            bars: picture::label_bars(miss.probabilities.map(|probability| probability as f32)),
            note: picture::truth_note(&miss.truth),
        })
        .collect();
    let heading = format!("{title}: the {} slices with the largest loss", shown.len());
    Ok(picture::contact_sheet(&heading, &tiles, 4, NOTICE))
}

/// Slices as gray pictures, made by the windowing kernel.
fn pictures(dataset: &Dataset, slices: &[usize]) -> Result<Vec<Image>, TrainError> {
    let plan = WindowPlan::new(&[BRAIN], Ramp::LinearExact, TILE, &[0.0], &[1.0])?;
    let feed = Feed { dataset, plan: &plan, device: Device::flex(), threads: 1 };
    let mut images = Vec::with_capacity(slices.len());
    feed.walk(&plain_batches(slices, ON_SHEET), |_, batch| {
        for values in read(batch)?.chunks_exact(TILE * TILE) {
            let pixels = values.iter().map(|value| [(value.clamp(0.0, 1.0) * 255.0).round() as u8; 3]).collect();
            images.push(Image { width: TILE, height: TILE, pixels });
        }
        Ok::<_, TrainError>(Queue::Empty(Instant::now()))
    })?;
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_no_formulas_and_no_other_rows() {
        let miss = Miss { slice: 0, loss: 0.5, probabilities: [0.25; N_LABELS], truth: [true; N_LABELS] };
        assert!(row("1.2.3", &miss).starts_with("1.2.3,0.500000,1,0.250000,"));
        assert!(row("=HYPERLINK(1)", &miss).starts_with("'=HYPERLINK(1),0.5"));
        assert!(row("a,1\nb", &miss).starts_with("\"a,1\nb\",0.5"));
    }

    #[test]
    fn the_worst_come_first() {
        let (sure, unsure) = ([6.0f32; N_LABELS], [0.0f32; N_LABELS]);
        let (yes, no) = ([true; N_LABELS], [false; N_LABELS]);
        let predictions = Predictions::from_logits(&[sure, sure, unsure], &[yes, no, no], &[0, 1, 2], None).unwrap();
        let found = misses(&[7, 8, 9], &predictions);
        let order: Vec<usize> = found.iter().map(|miss| miss.slice).collect();
        assert_eq!(order, [8, 9, 7]);
        // ln(1 + e^6), ln 2 and ln(1 + e^-6): all labels alike, so the weights cancel.
        for (miss, loss) in found.iter().zip([6.002_475_7, std::f64::consts::LN_2, 0.002_475_7]) {
            assert!((miss.loss - loss).abs() < 1e-6, "{}", miss.loss);
        }
    }
}
