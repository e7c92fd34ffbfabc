//! A frame with two axes and lines in it, and a legend. Knows nothing of what is plotted.

use super::axis::Axis;
use super::drawing::{Anchor, Drawing, FAINT, FRAME, GRID, INK, Point, Size, Stroke, TextStyle};
use super::raster::advance;

/// Lines of a series.
#[derive(Clone, Debug)]
pub struct Series {
    /// From left to right; a point without a place on the axes interrupts the line.
    pub points: Vec<(f64, f64)>,
    /// Look; a width of 0 leaves only dots.
    pub stroke: Stroke,
    /// Radius of a dot at each point; 0 for none.
    pub dots: f32,
}

/// A frame in a drawing.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Upper left corner of the frame.
    pub at: Point,
    /// Width and height of the frame.
    pub size: Point,
    /// Above the frame.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
}

/// Lowest line of a legend and its entries' height.
const LINE: f32 = 20.0;
const SAMPLE: f32 = 30.0;

impl Panel {
    /// Where a point lies in the drawing; None without a place on the axes.
    pub fn place(&self, (x, y): (f64, f64)) -> Option<Point> {
        // Far outside is not a place either: it would be drawn over the neighbors.
        let inside = |share: f64| (-0.001..=1.001).contains(&share).then_some(share as f32);
        let (along, up) = (inside(self.x.place(x)?)?, inside(self.y.place(y)?)?);
        Some([self.at[0] + along * self.size[0], self.at[1] + (1.0 - up) * self.size[1]])
    }

    /// Grid, frame, ticks and names. Draw it before the series.
    pub fn draw(&self, drawing: &mut Drawing) {
        let ([left, top], [width, height]) = (self.at, self.size);
        let (right, bottom) = (left + width, top + height);
        let label = TextStyle::plain(FAINT);
        // Lines on half pixels are sharp.
        let sharp = |at: f32| at.floor() + 0.5;
        let mut widest = 0;
        for (value, text) in &self.x.ticks {
            let Some(share) = self.x.place(*value) else { continue };
            let x = sharp(left + share as f32 * width);
            drawing.line(vec![[x, top], [x, bottom]], Stroke::solid(GRID, 1.0));
            drawing.line(vec![[x, bottom], [x, bottom + 5.0]], Stroke::solid(FRAME, 1.0));
            drawing.text([x, bottom + 15.0], text, label.anchored(Anchor::Middle));
        }
        for (value, text) in &self.y.ticks {
            let Some(share) = self.y.place(*value) else { continue };
            let y = sharp(bottom - share as f32 * height);
            drawing.line(vec![[left, y], [right, y]], Stroke::solid(GRID, 1.0));
            drawing.line(vec![[left - 5.0, y], [left, y]], Stroke::solid(FRAME, 1.0));
            drawing.text([left - 9.0, y], text, label.anchored(Anchor::End));
            widest = widest.max(text.chars().count());
        }
        let (l, t, r, b) = (sharp(left), sharp(top), sharp(right), sharp(bottom));
        drawing.line(vec![[l, t], [r, t], [r, b], [l, b], [l, t]], Stroke::solid(FRAME, 1.0));
        let name = TextStyle::plain(INK).anchored(Anchor::Middle);
        drawing.text([left + width / 2.0, bottom + 34.0], &self.x.name, name);
        let beside = left - 21.0 - widest as f32 * advance(Size::Text);
        drawing.text([beside, top + height / 2.0], &self.y.name, TextStyle { turned: true, ..name });
        drawing.text([left, top - 14.0], &self.title, TextStyle { bold: true, ..TextStyle::plain(INK) });
    }

    /// One series.
    pub fn series(&self, drawing: &mut Drawing, series: &Series) {
        let mut runs = vec![Vec::new()];
        for point in &series.points {
            match self.place(*point) {
                Some(place) => runs.last_mut().into_iter().for_each(|run| run.push(place)),
                None => runs.push(Vec::new()),
            }
        }
        if series.stroke.width > 0.0 {
            runs.into_iter().for_each(|run| drawing.line(run, series.stroke));
        }
        if series.dots > 0.0 {
            for place in series.points.iter().filter_map(|point| self.place(*point)) {
                drawing.dot(place, series.dots, series.stroke.color);
            }
        }
    }

    /// Words in the middle of a frame in which nothing can be drawn.
    pub fn remark(&self, drawing: &mut Drawing, text: &str) {
        let middle = [self.at[0] + self.size[0] / 2.0, self.at[1] + self.size[1] / 2.0];
        drawing.text(middle, text, TextStyle::plain(FAINT).anchored(Anchor::Middle));
    }
}

/// An entry of a legend.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Look of the line.
    pub stroke: Stroke,
    /// What it is.
    pub text: String,
    /// Fainter, in a second line.
    pub note: Option<String>,
}

/// Entries below each other; returns the height that they take.
pub fn legend(drawing: &mut Drawing, [x, y]: Point, entries: &[Entry]) -> f32 {
    let mut line = y;
    for entry in entries {
        drawing.line(vec![[x, line], [x + SAMPLE, line]], entry.stroke);
        drawing.text([x + SAMPLE + 8.0, line], &entry.text, TextStyle::plain(INK));
        line += LINE;
        if let Some(note) = &entry.note {
            drawing.text([x + SAMPLE + 8.0, line - 3.0], note, TextStyle::plain(FAINT));
            line += LINE - 2.0;
        }
    }
    line - y
}
