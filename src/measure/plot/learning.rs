//! Learning curves: losses, validation AUROCs and the learning rate per epoch. Knows no training loop.

use ichd_plugin::label::Label;

use super::axis::Axis;
use super::drawing::{Drawing, FAINT, INK, Size, Stroke, TextStyle};
use super::panel::{Entry, Panel, Series, legend};
use super::{BLACK, BLUE, DASHED, DOTTED, SIZE, VERMILION, look};
use crate::measure::epoch::Epoch;

/// Rates that differ by more than this factor are drawn by their logarithm.
const RATE_RATIO: f64 = 8.0;

/// Loss of training and validation, AUROC of validation by label, and learning rate, over epochs. The epoch of least
/// validation loss is marked.
pub fn learning_curves(title: &str, epochs: &[Epoch]) -> Drawing {
    let mut drawing = Drawing::new(SIZE.0, SIZE.1, title);
    drawing.text([24.0, 24.0], title, TextStyle { size: Size::Title, bold: true, ..TextStyle::plain(INK) });
    let best = best(epochs);
    losses(&mut drawing, epochs, best);
    areas(&mut drawing, epochs, best);
    rates(&mut drawing, epochs);
    drawing
}

/// The epoch of least validation loss, the first of equals.
fn best(epochs: &[Epoch]) -> Option<&Epoch> {
    let validated = epochs.iter().filter(|epoch| epoch.validation_loss.is_some_and(f64::is_finite));
    validated.min_by(|a, b| a.validation_loss.unwrap_or(f64::NAN).total_cmp(&b.validation_loss.unwrap_or(f64::NAN)))
}

fn epoch_axis(epochs: &[Epoch]) -> Axis {
    let (first, last) = (epochs.first().map_or(1, |one| one.epoch), epochs.last().map_or(1, |one| one.epoch));
    Axis::counting("epoch", first, last, 8)
}

fn over(epochs: &[Epoch], value: impl Fn(&Epoch) -> Option<f64>) -> Vec<(f64, f64)> {
    epochs.iter().map(|epoch| (f64::from(epoch.epoch), value(epoch).unwrap_or(f64::NAN))).collect()
}

/// Small dots while there are few epochs, so that a single one shows.
fn dots(epochs: &[Epoch]) -> f32 {
    if epochs.len() <= 40 { 3.0 } else { 0.0 }
}

fn mark(drawing: &mut Drawing, panel: &Panel, best: Option<&Epoch>) {
    if let Some(best) = best {
        let at = f64::from(best.epoch);
        let points = vec![(at, panel.y.low), (at, panel.y.high)];
        let stroke = Stroke { color: FAINT, width: 1.0, dash: &[3.0, 3.0] };
        panel.series(drawing, &Series { points, stroke, dots: 0.0 });
    }
}

fn losses(drawing: &mut Drawing, epochs: &[Epoch], best: Option<&Epoch>) {
    let train = over(epochs, |epoch| Some(epoch.train_loss));
    let validation = over(epochs, |epoch| epoch.validation_loss);
    let values = train.iter().chain(&validation).map(|point| point.1);
    let panel = Panel {
        at: [84.0, 78.0],
        size: [358.0, 262.0],
        title: "Log loss".into(),
        x: epoch_axis(epochs),
        y: Axis::around("loss", values, 5),
    };
    panel.draw(drawing);
    mark(drawing, &panel, best);
    let looks = [Stroke { color: BLUE, width: 2.0, dash: DASHED }, Stroke::solid(VERMILION, 2.5)];
    let mut entries = Vec::new();
    for ((points, stroke), name) in [train, validation].into_iter().zip(looks).zip(["train", "validation"]) {
        let last = points.iter().rev().find(|point| point.1.is_finite()).map(|point| point.1);
        let text = last.map_or(format!("{name:<11}-"), |value| format!("{name:<11}{value:.4}"));
        panel.series(drawing, &Series { points, stroke, dots: dots(epochs) });
        entries.push(Entry { stroke, text, note: None });
    }
    if epochs.is_empty() {
        panel.remark(drawing, "no epochs");
    }
    let below = legend(drawing, [84.0, 400.0], &entries);
    if let Some(best) = best {
        let stroke = Stroke { color: FAINT, width: 1.0, dash: &[3.0, 3.0] };
        let loss = best.validation_loss.unwrap_or(f64::NAN);
        let text = format!("least validation loss: {loss:.4} in epoch {}", best.epoch);
        legend(drawing, [84.0, 400.0 + below], &[Entry { stroke, text, note: None }]);
    }
}

fn areas(drawing: &mut Drawing, epochs: &[Epoch], best: Option<&Epoch>) {
    let values = epochs.iter().flat_map(|epoch| epoch.auroc.into_iter().chain([epoch.mean_auroc]).flatten());
    let mut y = Axis::around("AUROC", values, 5);
    if y.high > 1.0 {
        y = Axis::between("AUROC", y.low, 1.0, 7);
    }
    let panel =
        Panel { at: [530.0, 78.0], size: [346.0, 262.0], title: "Validation AUROC".into(), x: epoch_axis(epochs), y };
    panel.draw(drawing);
    mark(drawing, &panel, best);
    let shown = best.or(epochs.last());
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let mut entries = Vec::new();
    for label in Label::ALL {
        let points = over(epochs, |epoch| epoch.auroc[label as usize]);
        panel.series(drawing, &Series { points, stroke: look(label), dots: dots(epochs).min(2.0) });
        let value = shown.and_then(|epoch| epoch.auroc[label as usize]);
        entries.push(Entry { stroke: look(label), text: format!("{:<18}{}", label.name(), number(value)), note: None });
    }
    let stroke = Stroke { color: BLACK, width: 2.0, dash: DOTTED };
    panel.series(drawing, &Series { points: over(epochs, |epoch| epoch.mean_auroc), stroke, dots: 0.0 });
    let value = shown.and_then(|epoch| epoch.mean_auroc);
    entries.push(Entry { stroke, text: format!("{:<18}{}", "mean of labels", number(value)), note: None });
    if epochs.iter().all(|epoch| epoch.mean_auroc.is_none()) {
        panel.remark(drawing, "no validation");
    }
    let heading = match shown {
        Some(epoch) => format!("AUROC in epoch {}", epoch.epoch),
        None => "AUROC".into(),
    };
    drawing.text([530.0, 402.0], heading, TextStyle { bold: true, ..TextStyle::plain(INK) });
    legend(drawing, [530.0, 426.0], &entries);
}

fn rates(drawing: &mut Drawing, epochs: &[Epoch]) {
    let points = over(epochs, |epoch| Some(epoch.learning_rate));
    let rates = || points.iter().map(|point| point.1).filter(|rate| rate.is_finite() && *rate > 0.0);
    let (least, greatest) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    let y = if greatest > RATE_RATIO * least || greatest < 1e-2 {
        // A constant rate would lie on the frame.
        let margin = if greatest > 1.01 * least { 1.0 } else { 3.0 };
        Axis::decades("", rates().flat_map(|rate| [rate / margin, rate * margin]))
    } else {
        Axis::around("", rates(), 3)
    };
    let panel = Panel {
        at: [84.0, 490.0],
        size: [358.0, 62.0],
        title: "Learning rate".into(),
        x: epoch_axis(epochs),
        y: Axis { ticks: sparse(y.ticks), ..y },
    };
    panel.draw(drawing);
    panel.series(drawing, &Series { points, stroke: Stroke::solid(BLACK, 2.0), dots: dots(epochs).min(2.0) });
}

/// At most four ticks fit into a low frame.
fn sparse(ticks: Vec<(f64, String)>) -> Vec<(f64, String)> {
    let stride = ticks.len().saturating_sub(1).div_ceil(3).max(1);
    ticks.into_iter().step_by(stride).collect()
}
