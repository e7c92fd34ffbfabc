//! Drawings as PNG: lines by tiny-skia, letters from Noto Sans Mono's bitmaps, which are compiled in, so that no system font is
//! needed. Knows no axis.

use std::io;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, StrokeDash, Transform};

use super::drawing::{Anchor, Drawing, PAPER, Point, Shape, Size, Stroke, TextStyle};
use crate::picture::{Image, Rgb};

fn height(size: Size) -> RasterHeight {
    match size {
        Size::Text => RasterHeight::Size16,
        Size::Title => RasterHeight::Size20,
    }
}

/// Width of a letter in pixels; all are equally wide.
pub fn advance(size: Size) -> f32 {
    get_raster_width(FontWeight::Regular, height(size)) as f32
}

fn color(color: Rgb) -> tiny_skia::Color {
    tiny_skia::Color::from_rgba8(color[0], color[1], color[2], 255)
}

fn paint(rgb: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(color(rgb));
    paint
}

impl Drawing {
    /// The picture's pixels.
    ///
    /// # Errors
    /// Its size is 0 or too large for memory.
    pub fn image(&self) -> io::Result<Image> {
        let (width, height) = (self.width, self.height);
        let mut pixmap = Pixmap::new(width, height)
            .ok_or_else(|| io::Error::other(format!("a picture of {width} x {height} pixels cannot be made")))?;
        pixmap.fill(color(PAPER));
        for shape in &self.shapes {
            match shape {
                Shape::Rect { at, size, color } => fill(&mut pixmap, *at, *size, *color),
                Shape::Line { points, stroke } => line(&mut pixmap, points, stroke),
                Shape::Dot { at, radius, color } => dot(&mut pixmap, *at, *radius, *color),
                Shape::Text { at, text, style } => letters(&mut pixmap, *at, text, style),
            }
        }
        // White paper lies below everything, so no pixel is transparent.
        let pixels = pixmap.pixels().iter().map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
        Ok(Image { width: width as usize, height: height as usize, pixels })
    }

    /// The content of a PNG file.
    ///
    /// # Errors
    /// Its size is 0 or too large for memory, or the encoder refuses.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        self.image()?.png()
    }
}

// Shapes that are no shapes (no area, or numbers that are none) are left out, as browsers do.

fn fill(pixmap: &mut Pixmap, [x, y]: Point, [width, height]: Point, color: Rgb) {
    if let Some(rect) = Rect::from_xywh(x, y, width, height) {
        pixmap.fill_rect(rect, &paint(color), Transform::identity(), None);
    }
}

fn line(pixmap: &mut Pixmap, points: &[Point], stroke: &Stroke) {
    let mut builder = PathBuilder::new();
    for (idx, [x, y]) in points.iter().enumerate() {
        if idx == 0 {
            builder.move_to(*x, *y);
        } else {
            builder.line_to(*x, *y);
        }
    }
    let look = tiny_skia::Stroke {
        width: stroke.width,
        line_join: LineJoin::Round,
        line_cap: LineCap::Butt,
        dash: StrokeDash::new(stroke.dash.to_vec(), 0.0),
        ..tiny_skia::Stroke::default()
    };
    if let Some(path) = builder.finish() {
        pixmap.stroke_path(&path, &paint(stroke.color), &look, Transform::identity(), None);
    }
}

fn dot(pixmap: &mut Pixmap, [x, y]: Point, radius: f32, color: Rgb) {
    if let Some(path) = PathBuilder::from_circle(x, y, radius) {
        pixmap.fill_path(&path, &paint(color), FillRule::Winding, Transform::identity(), None);
    }
}

fn letters(pixmap: &mut Pixmap, at: Point, text: &str, style: &TextStyle) {
    let weight = if style.bold { FontWeight::Bold } else { FontWeight::Regular };
    let size = height(style.size);
    let wide = get_raster_width(weight, size) as i32;
    let tall = size.val() as i32;
    let length = wide * text.chars().count() as i32;
    let before = match style.anchor {
        Anchor::Start => 0,
        Anchor::Middle => length / 2,
        Anchor::End => length,
    };
    let (x0, y0) = (at[0].round() as i32, at[1].round() as i32);
    for (idx, letter) in text.chars().enumerate() {
        let Some(glyph) = get_raster(letter, weight, size).or_else(|| get_raster('?', weight, size)) else { continue };
        for (row, line) in glyph.rows().enumerate() {
            for (column, cover) in line.iter().enumerate().filter(|pixel| *pixel.1 > 0) {
                let along = idx as i32 * wide + column as i32 - before;
                let across = row as i32 - tall / 2;
                let (x, y) = if style.turned { (x0 + across, y0 - along) } else { (x0 + along, y0 + across) };
                blend(pixmap, (x, y), style.color, *cover);
            }
        }
    }
}

/// Lays a color over a pixel; outside the picture nothing happens.
fn blend(pixmap: &mut Pixmap, (x, y): (i32, i32), color: Rgb, cover: u8) {
    let (width, height) = (pixmap.width() as i32, pixmap.height() as i32);
    if !(0..width).contains(&x) || !(0..height).contains(&y) {
        return;
    }
    let pixel = &mut pixmap.pixels_mut()[(y * width + x) as usize];
    let below = [pixel.red(), pixel.green(), pixel.blue()];
    let mixed: [u8; 3] = std::array::from_fn(|part| {
        let (over, under, cover) = (u32::from(color[part]), u32::from(below[part]), u32::from(cover));
        ((over * cover + under * (255 - cover) + 127) / 255) as u8
    });
    *pixel = tiny_skia::ColorU8::from_rgba(mixed[0], mixed[1], mixed[2], 255).premultiply();
}

#[cfg(test)]
mod tests {
    use super::super::drawing::INK;
    use super::*;

    #[test]
    fn shapes_land_where_they_belong() {
        let mut drawing = Drawing::new(40, 30, "shapes");
        drawing.rect([2.0, 3.0], [4.0, 5.0], INK);
        drawing.line(vec![[10.0, 5.5], [20.0, 5.5]], Stroke::solid([255, 0, 0], 1.0));
        drawing.dot([30.0, 10.0], 3.0, [0, 0, 255]);
        let image = drawing.image().unwrap();
        let at = |x: usize, y: usize| image.pixels[y * 40 + x];
        assert_eq!((at(2, 3), at(5, 7), at(6, 8), at(1, 3)), (INK, INK, PAPER, PAPER));
        assert_eq!((at(15, 5), at(15, 7), at(30, 10), at(30, 15)), ([255, 0, 0], PAPER, [0, 0, 255], PAPER));
    }

    #[test]
    fn what_is_no_number_or_lies_outside_draws_nothing() {
        let mut drawing = Drawing::new(20, 10, "nothing");
        let nan = f32::NAN;
        drawing.rect([nan, 0.0], [5.0, 5.0], INK);
        drawing.line(vec![[nan, nan], [5.0, 5.0]], Stroke { color: INK, width: 1.0, dash: &[4.0, 3.0] });
        drawing.line(vec![[5.0, 5.0]], Stroke::solid(INK, 1.0));
        drawing.dot([3.0, f32::INFINITY], 3.0, INK);
        drawing.text([300.0, -50.0], "far away", TextStyle::plain(INK));
        assert!(drawing.image().unwrap().pixels.iter().all(|pixel| *pixel == PAPER));
        assert!(Drawing::new(0, 5, "none").png().is_err());
    }

    #[test]
    fn letters_stay_in_their_box_turned_or_not() {
        for turned in [false, true] {
            let mut drawing = Drawing::new(80, 80, "letters");
            // One letter is missing in the font.
            drawing.text([40.0, 40.0], "Ag\u{4e00}|", TextStyle { turned, ..TextStyle::plain(INK) });
            let image = drawing.image().unwrap();
            let inked: Vec<(usize, usize)> = (0..image.pixels.len())
                .filter(|idx| image.pixels[*idx] != PAPER)
                .map(|idx| (idx % 80, idx / 80))
                .collect();
            let (along, across) = (40..40 + 4 * advance(Size::Text) as usize, 32..48);
            let inside = |(x, y): &(usize, usize)| {
                if turned {
                    across.contains(x) && along.contains(&(80 - y))
                } else {
                    along.contains(x) && across.contains(y)
                }
            };
            assert!(inked.len() > 60 && inked.iter().all(inside), "{turned} {inked:?}");
        }
    }
}
