//! Plots of one evaluation: ROC, precision-recall, reliability. Knows no model.

use ichd_plugin::label::{Label, N_LABELS};

use super::axis::Axis;
use super::drawing::{Drawing, FAINT, INK, Point, Size, Stroke, TextStyle};
use super::panel::{Entry, Panel, Series, legend};
use super::{LOOKS, SIZE, look};
use crate::measure::metrics::{self, CALIBRATION_BINS, CURVE_POINTS, Curve, Interval, bins, calibration_error};
use crate::measure::{Column, Predictions};

/// Left edge of legends.
const LEGEND_X: f32 = 612.0;
const CORNER: Point = [76.0, 62.0];
const SQUARE: Point = [500.0, 480.0];
/// A share of fewer slices than these says too little to draw a line through it.
const BIN_SLICES: u64 = 20;
const REFERENCE: Stroke = Stroke { color: FAINT, width: 1.0, dash: &[4.0, 4.0] };

fn paper(title: &str) -> Drawing {
    let mut drawing = Drawing::new(SIZE.0, SIZE.1, title);
    drawing.text([24.0, 24.0], title, TextStyle { size: Size::Title, bold: true, ..TextStyle::plain(INK) });
    drawing
}

fn heading(drawing: &mut Drawing, text: &str) {
    drawing.text([LEGEND_X, 72.0], text, TextStyle { bold: true, ..TextStyle::plain(INK) });
}

/// A legend's entry of a label: its name, its number, and what is known of that.
fn entry(label: Label, value: Option<f64>, note: Option<String>) -> Entry {
    let number = value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    Entry { stroke: look(label), text: format!("{:<18}{number}", label.name()), note }
}

fn curve_points(curve: &Curve) -> Vec<(f64, f64)> {
    curve.points.iter().map(|point| (point.x, point.y)).collect()
}

/// ROC curves of the six labels with their areas, and the areas' intervals if given.
pub fn roc(title: &str, predictions: &Predictions, intervals: Option<&[Option<Interval>; N_LABELS]>) -> Drawing {
    let mut drawing = paper(title);
    let panel = Panel {
        at: CORNER,
        size: SQUARE,
        title: String::new(),
        x: Axis::unit("1 - specificity"),
        y: Axis::unit("sensitivity"),
    };
    panel.draw(&mut drawing);
    panel.series(&mut drawing, &Series { points: vec![(0.0, 0.0), (1.0, 1.0)], stroke: REFERENCE, dots: 0.0 });
    heading(&mut drawing, if intervals.is_some() { "AUROC, 95 % interval" } else { "AUROC" });
    let mut entries = Vec::new();
    for (idx, label) in Label::ALL.into_iter().enumerate() {
        let column = predictions.column(label);
        let curve = metrics::roc_curve(column, CURVE_POINTS);
        let interval = intervals.and_then(|all| all[idx]);
        let note = interval.map(|ends| format!("({:.4} to {:.4})", ends.low, ends.high));
        let none = || Some("one class only".to_owned());
        entries.push(entry(label, curve.as_ref().map(|curve| curve.area), if curve.is_some() { note } else { none() }));
        if let Some(curve) = curve {
            let series = Series { points: curve_points(&curve), stroke: look(label), dots: 0.0 };
            panel.series(&mut drawing, &series);
        }
    }
    legend(&mut drawing, [LEGEND_X, 98.0], &entries);
    drawing
}

/// Precision-recall curves of the six labels with their average precisions and prevalences, which a chance ranking reaches.
pub fn precision_recall(title: &str, predictions: &Predictions) -> Drawing {
    let mut drawing = paper(title);
    let panel = Panel {
        at: CORNER,
        size: SQUARE,
        title: String::new(),
        x: Axis::unit("recall (sensitivity)"),
        y: Axis::unit("precision (PPV)"),
    };
    panel.draw(&mut drawing);
    heading(&mut drawing, "Average precision");
    let mut entries = Vec::new();
    for label in Label::ALL {
        let column = predictions.column(label);
        let curve = metrics::precision_recall_curve(column, CURVE_POINTS);
        let share = 100.0 * column.n_positives() as f64 / column.n_slices().max(1) as f64;
        let note = if curve.is_some() { format!("prevalence {share:.2} %") } else { "no positive slice".to_owned() };
        entries.push(entry(label, curve.as_ref().map(|curve| curve.area), Some(note)));
        if let Some(curve) = curve {
            let series = Series { points: curve_points(&curve), stroke: look(label), dots: 0.0 };
            panel.series(&mut drawing, &series);
        }
    }
    legend(&mut drawing, [LEGEND_X, 98.0], &entries);
    drawing
}

/// Reliability of the six labels: share of positives over mean probability in bins, and how many slices are in each.
pub fn reliability(title: &str, predictions: &Predictions) -> Drawing {
    let columns: Vec<(&str, Column<'_>)> =
        Label::ALL.into_iter().map(|label| (label.name(), predictions.column(label))).collect();
    reliability_of(title, &columns)
}

/// Reliability of any columns, such as one label before and after calibration; the looks of labels in turn.
pub fn reliability_of(title: &str, columns: &[(&str, Column<'_>)]) -> Drawing {
    let mut drawing = paper(title);
    let panel = Panel {
        at: CORNER,
        size: [SQUARE[0], 348.0],
        title: String::new(),
        x: Axis { name: String::new(), ..Axis::unit("") },
        y: Axis::unit("share of positives"),
    };
    panel.draw(&mut drawing);
    panel.series(&mut drawing, &Series { points: vec![(0.0, 0.0), (1.0, 1.0)], stroke: REFERENCE, dots: 0.0 });
    let binned: Vec<_> = columns.iter().map(|(_, column)| bins(*column, CALIBRATION_BINS)).collect();
    let counts = Panel {
        at: [CORNER[0], 450.0],
        size: [SQUARE[0], 92.0],
        title: String::new(),
        x: Axis::unit("predicted probability"),
        y: Axis::decades("slices", binned.iter().flatten().map(|bin| bin.slices as f64).chain([1.0])),
    };
    let counts = Panel { y: Axis { ticks: few(&counts.y.ticks), ..counts.y.clone() }, ..counts };
    counts.draw(&mut drawing);
    let mut entries = Vec::new();
    for (idx, (name, column)) in columns.iter().enumerate() {
        let stroke = LOOKS[idx % N_LABELS];
        let filled = || binned[idx].iter().filter_map(|bin| Some((bin.predicted()?, bin.observed()?, bin.slices)));
        let (mut points, mut doubtful) = (Vec::new(), Vec::new());
        for (predicted, observed, slices) in filled() {
            let enough = slices >= BIN_SLICES;
            points.push((predicted, if enough { observed } else { f64::NAN }));
            doubtful.extend((!enough).then_some((predicted, observed)));
        }
        panel.series(&mut drawing, &Series { points, stroke, dots: 3.5 });
        panel.series(&mut drawing, &Series { points: doubtful, stroke: Stroke { width: 0.0, ..stroke }, dots: 2.0 });
        let points = filled().map(|(predicted, _, slices)| (predicted, slices as f64)).collect();
        counts.series(&mut drawing, &Series { points, stroke: Stroke { width: 1.5, ..stroke }, dots: 2.0 });
        let error = calibration_error(*column).map_or("-".to_owned(), |error| format!("{error:.4}"));
        entries.push(Entry { stroke, text: format!("{name:<18}{error}"), note: None });
    }
    heading(&mut drawing, "Expected calibration error");
    let below = legend(&mut drawing, [LEGEND_X, 98.0], &entries);
    let notes =
        [format!("{CALIBRATION_BINS} bins of equal width;"), format!("small dots: fewer than {BIN_SLICES} slices")];
    for (line, note) in notes.into_iter().enumerate() {
        drawing.text([LEGEND_X, 106.0 + below + 18.0 * line as f32], note, TextStyle::plain(FAINT));
    }
    drawing
}

/// At most three ticks fit into the low frame.
fn few(ticks: &[(f64, String)]) -> Vec<(f64, String)> {
    let stride = ticks.len().saturating_sub(1).div_ceil(2).max(1);
    ticks.iter().step_by(stride).cloned().collect()
}
