//! A picture as a list of shapes, from which both SVG and PNG are made. Knows no axis and no format.

use crate::picture::Rgb;

/// Dark text on white.
pub const INK: Rgb = [0x22, 0x26, 0x2B];
/// Second thoughts: tick labels, notes.
pub const FAINT: Rgb = [0x5C, 0x64, 0x6E];
/// Grid lines.
pub const GRID: Rgb = [0xE3, 0xE6, 0xEA];
/// Frames and ticks.
pub const FRAME: Rgb = [0x9A, 0xA1, 0xAA];
/// Paper.
pub const PAPER: Rgb = [0xFF; 3];

/// Right and down from the upper left corner, in pixels.
pub type Point = [f32; 2];

/// Size of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Everything but titles.
    Text,
    /// Titles.
    Title,
}

/// Where a text stands to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextStyle {
    /// Color.
    pub color: Rgb,
    /// Size.
    pub size: Size,
    /// Where its point is.
    pub anchor: Anchor,
    /// Runs upwards.
    pub turned: bool,
    /// Heavy.
    pub bold: bool,
}

impl TextStyle {
    /// Plain text of that color that begins at its point.
    pub const fn plain(color: Rgb) -> Self {
        TextStyle { color, size: Size::Text, anchor: Anchor::Start, turned: false, bold: false }
    }

    /// The same with its point elsewhere.
    pub const fn anchored(self, anchor: Anchor) -> Self {
        TextStyle { anchor, ..self }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    /// Color.
    pub color: Rgb,
    /// Pixels.
    pub width: f32,
    /// Pixels drawn and left out, in turns; nothing for a whole line.
    pub dash: &'static [f32],
}

impl Stroke {
    /// A whole line.
    pub const fn solid(color: Rgb, width: f32) -> Self {
        Stroke { color, width, dash: &[] }
    }
}

/// One shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A filled rectangle.
    Rect {
        /// Upper left corner.
        at: Point,
        /// Width and height.
        size: Point,
        /// Color.
        color: Rgb,
    },
    /// Straight lines from point to point.
    Line {
        /// Two or more.
        points: Vec<Point>,
        /// Look.
        stroke: Stroke,
    },
    /// A filled circle.
    Dot {
        /// Middle.
        at: Point,
        /// Pixels.
        radius: f32,
        /// Color.
        color: Rgb,
    },
    /// One line of text; its point is at half its height.
    Text {
        /// Where its anchor is.
        at: Point,
        /// What it says.
        text: String,
        /// Look.
        style: TextStyle,
    },
}

/// Shapes on white paper, later ones above earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// For readers who cannot see it.
    pub title: String,
    /// From the back to the front.
    pub shapes: Vec<Shape>,
}

impl Drawing {
    /// White paper with a title for screen readers.
    pub fn new(width: u32, height: u32, title: impl Into<String>) -> Self {
        Drawing { width, height, title: title.into(), shapes: Vec::new() }
    }

    /// Adds a rectangle.
    pub fn rect(&mut self, at: Point, size: Point, color: Rgb) {
        self.shapes.push(Shape::Rect { at, size, color });
    }

    /// Adds a line; fewer than two points draw nothing.
    pub fn line(&mut self, points: Vec<Point>, stroke: Stroke) {
        if points.len() > 1 {
            self.shapes.push(Shape::Line { points, stroke });
        }
    }

    /// Adds a dot.
    pub fn dot(&mut self, at: Point, radius: f32, color: Rgb) {
        self.shapes.push(Shape::Dot { at, radius, color });
    }

    /// Adds a text.
    pub fn text(&mut self, at: Point, text: impl Into<String>, style: TextStyle) {
        self.shapes.push(Shape::Text { at, text: text.into(), style });
    }
}
