//! Drawings as SVG 1.1: self-contained, with text as text. Knows no axis.

use std::fmt::Write as _;

use super::drawing::{Anchor, Drawing, PAPER, Point, Shape, Size, Stroke, TextStyle};
use super::raster::advance;
use crate::measure::report::escaped;
use crate::picture::Rgb;

/// The font of the PNG, then what systems have.
const FONTS: &str = "Noto Sans Mono,DejaVu Sans Mono,Menlo,Consolas,monospace";

fn hex(color: Rgb) -> String {
    let [red, green, blue] = color;
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Hundredths of a pixel are more than enough.
fn number(value: f32) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

impl Drawing {
    /// The content of an SVG file.
    pub fn svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{FONTS}\">\n\
             <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n",
            escaped(&self.title),
            hex(PAPER)
        );
        for shape in &self.shapes {
            // Writing to a String cannot fail.
            let _ = match shape {
                Shape::Rect { at, size, color } => writeln!(
                    out,
                    "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
                    number(at[0]),
                    number(at[1]),
                    number(size[0]),
                    number(size[1]),
                    hex(*color)
                ),
                Shape::Line { points, stroke } => writeln!(out, "{}", line(points, stroke)),
                Shape::Dot { at, radius, color } => writeln!(
                    out,
                    "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"/>",
                    number(at[0]),
                    number(at[1]),
                    number(*radius),
                    hex(*color)
                ),
                Shape::Text { at, text, style } => writeln!(out, "{}", letters(*at, text, style)),
            };
        }
        out.push_str("</svg>\n");
        out
    }
}

fn line(points: &[Point], stroke: &Stroke) -> String {
    let points: Vec<String> = points.iter().map(|[x, y]| format!("{},{}", number(*x), number(*y))).collect();
    let dash: Vec<String> = stroke.dash.iter().map(|length| number(*length)).collect();
    let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{}\"", dash.join(" ")) };
    format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{dash}/>",
        points.join(" "),
        hex(stroke.color),
        number(stroke.width)
    )
}

fn letters([x, y]: Point, text: &str, style: &TextStyle) -> String {
    let anchor = match style.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let size = match style.size {
        Size::Text => 13,
        Size::Title => 16,
    };
    let weight = if style.bold { " font-weight=\"bold\"" } else { "" };
    let (x, y) = (number(x), number(y));
    let turn = if style.turned { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
    // The length makes every font as wide as the PNG's, so that nothing overlaps.
    let length = number(advance(style.size) * text.chars().count() as f32);
    format!(
        "<text x=\"{x}\" y=\"{y}\" dy=\"0.35em\" font-size=\"{size}\" text-anchor=\"{anchor}\" textLength=\"{length}\" \
         lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\" fill=\"{}\"{weight}{turn}>{}</text>",
        hex(style.color),
        escaped(text)
    )
}
