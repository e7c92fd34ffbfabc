//! Small pictures as PNG: windowed slices, text, bars and sheets of them. Knows no DICOM and no network.

mod labels;

use std::io;

use font8x8::UnicodeFonts;
use ichd_kernels::{Ramp, Window, window_hu};

pub use labels::{label_bars, truth_note};

/// Red, green, blue.
pub type Rgb = [u8; 3];

const BACKGROUND: Rgb = [16, 18, 22];
const PANEL: Rgb = [28, 31, 38];
const TEXT: Rgb = [222, 226, 232];
const FAINT: Rgb = [134, 142, 154];
const BAR: Rgb = [232, 148, 62];
const GROOVE: Rgb = [52, 57, 68];
/// Side of a character cell in pixels.
const CELL: usize = 8;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` pixels.
    pub pixels: Vec<Rgb>,
}

impl Image {
    /// One color.
    pub fn new(width: usize, height: usize, color: Rgb) -> Self {
        Image { width, height, pixels: vec![color; width * height] }
    }

    /// Colors one pixel; outside the picture nothing happens.
    pub fn set(&mut self, x: usize, y: usize, color: Rgb) {
        if x < self.width
            && let Some(pixel) = self.pixels.get_mut(y * self.width + x)
        {
            *pixel = color;
        }
    }

    /// Fills a rectangle, as far as it lies in the picture.
    pub fn fill(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), color: Rgb) {
        for row in y..(y + height).min(self.height) {
            for column in x..(x + width).min(self.width) {
                self.set(column, row, color);
            }
        }
    }

    /// Copies another picture in, as far as it fits.
    pub fn blit(&mut self, (x, y): (usize, usize), other: &Image) {
        for (row, line) in other.pixels.chunks_exact(other.width.max(1)).enumerate() {
            for (column, color) in line.iter().enumerate() {
                self.set(x + column, y + row, *color);
            }
        }
    }

    /// Writes text in at most `width` pixels; what does not fit ends in two dots.
    pub fn text(&mut self, (x, y): (usize, usize), width: usize, text: &str, color: Rgb) {
        let most = width / CELL;
        let count = text.chars().count();
        let shown: String = if count <= most {
            text.to_owned()
        } else {
            text.chars().take(most.saturating_sub(2)).chain("..".chars().take(most)).collect()
        };
        for (at, letter) in shown.chars().enumerate() {
            let Some(glyph) = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::BASIC_FONTS.get('?')) else {
                continue;
            };
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..CELL).filter(|column| bits >> column & 1 == 1) {
                    self.set(x + at * CELL + column, y + row, color);
                }
            }
        }
    }

    /// The picture in another size: means of the pixels that fall into one when it shrinks.
    pub fn resized(&self, width: usize, height: usize) -> Image {
        let mut out = Image::new(width, height, [0; 3]);
        let span = |at: usize, to: usize, from: usize| {
            let first = at * from / to;
            first..((at + 1) * from).div_ceil(to).clamp(first + 1, from.max(1))
        };
        for y in 0..height {
            for x in 0..width {
                let (mut sum, mut count) = ([0u32; 3], 0u32);
                for v in span(y, height, self.height) {
                    for u in span(x, width, self.width) {
                        for (total, part) in sum.iter_mut().zip(self.pixels[v * self.width + u]) {
                            *total += u32::from(part);
                        }
                        count += 1;
                    }
                }
                out.set(x, y, sum.map(|total| (total / count.max(1)) as u8));
            }
        }
        out
    }

    /// The bytes of a PNG file.
    ///
    /// # Errors
    /// The encoder refuses.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(self.pixels.as_flattened()).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// A slice as a gray picture through one window.
pub fn windowed(hu: &[f32], rows: usize, columns: usize, window: Window, ramp: Ramp) -> Image {
    let gray = |hu: &f32| [(window_hu(*hu, window, ramp) * 255.0).round() as u8; 3];
    let mut image = Image::new(columns, rows, [0; 3]);
    for (pixel, hu) in image.pixels.iter_mut().zip(hu) {
        *pixel = gray(hu);
    }
    image
}

/// One slice of a sheet.
#[derive(Clone, Debug)]
pub struct Tile {
    /// Its picture, of any size.
    pub image: Image,
    /// Above the picture.
    pub title: String,
    /// Below it: names with numbers from 0 to 1.
    pub bars: Vec<(String, f32)>,
    /// Below the bars.
    pub note: String,
}

/// Side of a slice's picture on a sheet, in pixels.
pub const TILE: usize = 208;
const GAP: usize = 10;
const LINE: usize = 12;

/// Tiles in rows, with a heading above and a footer below.
pub fn contact_sheet(heading: &str, tiles: &[Tile], columns: usize, footer: &str) -> Image {
    let columns = columns.max(1);
    let n_bars = tiles.iter().map(|tile| tile.bars.len()).max().unwrap_or(0);
    let tile_height = 16 + TILE + n_bars * LINE + 22;
    let n_rows = tiles.len().div_ceil(columns);
    let width = columns * (TILE + GAP) + GAP;
    let height = 34 + n_rows * (tile_height + GAP) + 24;
    let mut sheet = Image::new(width, height, BACKGROUND);
    sheet.text((GAP, 13), width - 2 * GAP, heading, TEXT);
    for (idx, tile) in tiles.iter().enumerate() {
        let x = GAP + idx % columns * (TILE + GAP);
        let y = 34 + idx / columns * (tile_height + GAP);
        sheet.fill((x, y), (TILE, tile_height), PANEL);
        draw_tile(&mut sheet, (x, y), tile);
    }
    sheet.text((GAP, height - 17), width - 2 * GAP, footer, FAINT);
    sheet
}

fn draw_tile(sheet: &mut Image, (x, y): (usize, usize), tile: &Tile) {
    sheet.text((x + 4, y + 4), TILE - 8, &tile.title, TEXT);
    sheet.blit((x, y + 16), &tile.image.resized(TILE, TILE));
    let mut line = y + 16 + TILE + 5;
    const NAME: usize = 14 * CELL;
    const VALUE: usize = 4 * CELL;
    for (name, value) in &tile.bars {
        let track = TILE - NAME - VALUE - 12;
        sheet.text((x + 4, line), NAME, name, FAINT);
        sheet.fill((x + 4 + NAME, line + 1), (track, 6), GROOVE);
        let filled = (value.clamp(0.0, 1.0) * track as f32).round() as usize;
        sheet.fill((x + 4 + NAME, line + 1), (filled, 6), BAR);
        sheet.text((x + TILE - VALUE - 4, line), VALUE, &format!("{value:.2}"), TEXT);
        line += LINE;
    }
    sheet.text((x + 4, line + 2), TILE - 8, &tile.note, BAR);
}

/// Pictures side by side with a caption above each.
pub fn side_by_side(pictures: &[(String, Image)]) -> Image {
    let width: usize = pictures.iter().map(|(_, image)| image.width + GAP).sum::<usize>() + GAP;
    let height = pictures.iter().map(|(_, image)| image.height).max().unwrap_or(0) + 20 + GAP;
    let mut sheet = Image::new(width, height, BACKGROUND);
    let mut x = GAP;
    for (caption, image) in pictures {
        sheet.text((x, 6), image.width, caption, TEXT);
        sheet.blit((x, 20), image);
        x += image.width + GAP;
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_leaves_its_box() {
        let mut image = Image::new(100, 10, BACKGROUND);
        image.text((2, 1), 40, "a very long line of text", TEXT);
        let beyond = image.pixels.chunks_exact(100).any(|line| line[42..].iter().any(|pixel| *pixel != BACKGROUND));
        assert!(!beyond);
        assert!(image.pixels.contains(&TEXT));
        image.text((98, 8), 400, "outside", TEXT);
    }

    #[test]
    fn windows_and_sizes() {
        let window = Window { level: 40.0, width: 80.0 };
        let image = windowed(&[-1000.0, 40.0, 80.0, 3000.0], 2, 2, window, Ramp::LinearExact);
        assert_eq!(image.pixels, [[0; 3], [128; 3], [255; 3], [255; 3]]);
        assert_eq!(image.resized(1, 1).pixels, [[159; 3]]);
        assert_eq!(image.resized(4, 4).pixels[5], [0; 3]);
    }

    #[test]
    fn a_png_comes_back_as_it_was() {
        let image = Image { width: 2, height: 1, pixels: vec![[1, 2, 3], [4, 5, 6]] };
        let bytes = image.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut found = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut found).unwrap();
        assert_eq!(found, [1, 2, 3, 4, 5, 6]);
    }
}
