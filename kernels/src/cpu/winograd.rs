//! 3 x 3 convolution with stride 1 by Winograd's minimal filtering F(2 x 2, 3 x 3): Lavin, Gray 2015, "Fast Algorithms for
//! Convolutional Neural Networks" (arXiv 1509.09308).
//!
//! Four output pixels take 16 multiplications of a channel instead of 36. A square of 4 x 4 input pixels is transformed by
//! additions alone, multiplied point by point with the transformed kernel, where the sums over channels are 16 matrix
//! products, and transformed back to 2 x 2 pixels. The larger F(4 x 4, 3 x 3) saves more and loses digits; this one is about
//! as exact as the plain sum.

// A number of a register or a row stands for several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::Simd;

use super::conv::Shape;
use super::direct::{Product, Target};
use super::panels::Cut;
use super::pool::with_scratch;
use super::threads::each;
use super::tile::{self, Lanes, PIXELS, Reads, Tile, finish, load};
use super::{Curve, Real, Silu, wide};
use crate::geometry::Act;

/// Places of a transformed square.
const PLACES: usize = 16;

/// Fewer channels would spend more on transforming than they save. With more the transformed kernels, 16 MB of 512 by 512,
/// no longer stay in the caches, which on small images costs what it saves, and digits are lost at the end of a network,
/// where nothing averages them out.
const CHANNELS: std::ops::RangeInclusive<usize> = 32..=256;

/// Values of the transformed input of a block.
const BLOCK_VALUES: usize = 128 * 1024;

/// Parts of the work for each thread.
const PARTS: usize = 6;

/// Whether a convolution with packed weights is computed this way.
pub(crate) fn suits(cut: &Cut, kernel: [usize; 2], stride: [usize; 2]) -> bool {
    let inputs = cut.patch / (kernel[0] * kernel[1]).max(1);
    kernel == [3, 3] && stride == [1, 1] && CHANNELS.contains(&inputs) && inputs.is_multiple_of(cut.lanes)
}

/// Transformed weights of `[outputs, 3, 3, inputs]`: panel by panel, place by place, each `[inputs, outputs of the panel]`.
pub(crate) fn pack<T: Real>(cut: &Cut, weight: &[T]) -> Vec<T> {
    let inputs = cut.patch / 9;
    let mut packed = vec![T::ZERO; PLACES * inputs * cut.filled()];
    for panel in 0..cut.panels() {
        let (first, width) = cut.span(panel);
        let packed = &mut packed[PLACES * inputs * first..][..PLACES * inputs * width];
        for (output, kernel) in weight.chunks_exact(9 * inputs).skip(first).take(width).enumerate() {
            for input in 0..inputs {
                let kernel =
                    std::array::from_fn(|y| std::array::from_fn(|x| kernel[(y * 3 + x) * inputs + input].wide()));
                for (place, value) in transformed_kernel(kernel).into_iter().flatten().enumerate() {
                    packed[(place * inputs + input) * width + output] = T::of(value);
                }
            }
        }
    }
    packed
}

/// `G g G'` with the rows `(1, 0, 0), (1/2, 1/2, 1/2), (1/2, -1/2, 1/2), (0, 0, 1)` of `G`.
fn transformed_kernel(kernel: [[f64; 3]; 3]) -> [[f64; 4]; 4] {
    let along = |[a, b, c]: [f64; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let rows = kernel.map(along);
    let columns: [[f64; 4]; 4] = std::array::from_fn(|x| along(std::array::from_fn(|y| rows[y][x])));
    std::array::from_fn(|y| std::array::from_fn(|x| columns[x][y]))
}

/// Squares of 2 x 2 output pixels.
#[derive(Clone, Copy)]
struct Squares {
    shape: Shape,
    size_out: [usize; 2],
    /// Squares down and across.
    counts: [usize; 2],
}

impl Squares {
    fn new(shape: Shape) -> Squares {
        let size_out = shape.size_out();
        Squares { shape, size_out, counts: size_out.map(|size| size.div_ceil(2)) }
    }

    fn total(&self) -> usize {
        self.shape.input[0] * self.counts[0] * self.counts[1]
    }

    /// Image, first row and first column of the output.
    #[inline(always)]
    fn corner(&self, at: usize) -> [usize; 3] {
        let [down, across] = self.counts;
        [at / (down * across), at / across % down * 2, at % across * 2]
    }
}

/// Computes a convolution into `out`, as [`super::direct::run`] does.
pub(crate) fn run<T: Real>(product: &Product<'_, T>, out: &mut [T], pitch: usize) {
    let (pixels, outputs) = (product.shape.pixels(), product.shape.outputs);
    if pixels == 0 || outputs == 0 {
        return;
    }
    let [.., inputs] = product.shape.input;
    let squares = Squares::new(product.shape);
    assert!(out.len() >= (pixels - 1) * pitch + outputs && pitch >= outputs, "room for a convolution's results");
    assert_eq!(product.panels.len(), PLACES * inputs * product.cut.filled(), "packed weights");
    assert!(product.extras.addend.is_none_or(|addend| addend.len() == pixels * outputs), "addend of a convolution");
    let mut bias = vec![T::ZERO; product.cut.filled()];
    if let Some(values) = product.extras.bias {
        bias[..outputs].copy_from_slice(values);
    }
    let (total, panels) = (squares.total(), product.cut.panels());
    let wanted = PARTS * rayon::current_num_threads();
    let fits = (BLOCK_VALUES / (PLACES * inputs)).clamp(PIXELS, 4 * PIXELS) / PIXELS * PIXELS;
    let blocks = total.div_ceil(fits.min(total.div_ceil(wanted).next_multiple_of(PIXELS).max(2 * PIXELS)));
    let block = total.div_ceil(blocks).next_multiple_of(PIXELS);
    let blocks = total.div_ceil(block);
    let groups = wanted.div_ceil(blocks).min(panels);
    let line = 64 / size_of::<T>();
    let row = (inputs.div_ceil(line) | 1) * line;
    let zeros = vec![T::ZERO; inputs];
    let target = Target(out.as_mut_ptr());
    each(blocks * groups, |at| {
        let (group, first) = (at / blocks, at % blocks * block);
        let bound = |group: usize| group * panels / groups;
        let range = first.min(total)..total.min(first + block);
        let target = &target;
        with_scratch(PLACES * range.len() * (row + product.cut.width()), |scratch| {
            let (transformed, products) = scratch.split_at_mut(PLACES * range.len() * row);
            wide(Work {
                product,
                squares,
                bias: &bias,
                zeros: &zeros,
                range,
                panels: bound(group)..bound(group + 1),
                transformed,
                row,
                products,
                out: target.0,
                pitch,
            });
        });
    });
}

/// Some squares by some panels.
struct Work<'a, T> {
    product: &'a Product<'a, T>,
    squares: Squares,
    bias: &'a [T],
    zeros: &'a [T],
    range: Range<usize>,
    panels: Range<usize>,
    /// Transformed input, `[places, squares, row]`.
    transformed: &'a mut [T],
    row: usize,
    /// Products of one panel, `[places, squares, outputs of a panel]`.
    products: &'a mut [T],
    out: *mut T,
    pitch: usize,
}

/// `B' d` for one column of a square.
#[inline(always)]
fn into_places<T: Lanes, S: Simd>(simd: S, [a, b, c, d]: [T::Vector<S>; 4]) -> [T::Vector<S>; 4] {
    [T::difference(simd, a, c), T::sum(simd, b, c), T::difference(simd, c, b), T::difference(simd, b, d)]
}

/// `A' m` for one column of places.
#[inline(always)]
fn out_of_places<T: Lanes, S: Simd>(simd: S, [a, b, c, d]: [T::Vector<S>; 4]) -> [T::Vector<S>; 2] {
    let (sum, difference) = (T::sum(simd, b, c), T::difference(simd, b, c));
    [T::sum(simd, a, sum), T::difference(simd, difference, d)]
}

impl<T: Real> Work<'_, T> {
    /// Transforms the input of all squares.
    #[inline(always)]
    fn transform<S: Simd>(&mut self, simd: S) {
        let Shape { plane, input: [_, height, width, inputs], .. } = self.product.shape;
        let source = self.product.input;
        let lanes = tile::lanes::<T, S>();
        let count = self.range.len();
        for (at, square) in self.range.clone().enumerate() {
            let [image, row, column] = self.squares.corner(square);
            let mut pixels = [[self.zeros; 4]; 4];
            for (y, line) in pixels.iter_mut().enumerate() {
                for (x, pixel) in line.iter_mut().enumerate() {
                    let y = (row + y).checked_sub(plane.padding[0]).filter(|y| *y < height);
                    let x = (column + x).checked_sub(plane.padding[1]).filter(|x| *x < width);
                    if let (Some(y), Some(x)) = (y, x) {
                        *pixel = &source.values[((image * height + y) * width + x) * source.pitch..][..inputs];
                    }
                }
            }
            let mut channel = 0;
            while channel + lanes <= inputs {
                // SAFETY: every pixel has `inputs` values, and the place of each square a row of at least as many.
                unsafe {
                    let get = |y: usize, x: usize| load::<T, S>(pixels[y][x].as_ptr().add(channel));
                    let columns = [
                        into_places::<T, S>(simd, [get(0, 0), get(1, 0), get(2, 0), get(3, 0)]),
                        into_places::<T, S>(simd, [get(0, 1), get(1, 1), get(2, 1), get(3, 1)]),
                        into_places::<T, S>(simd, [get(0, 2), get(1, 2), get(2, 2), get(3, 2)]),
                        into_places::<T, S>(simd, [get(0, 3), get(1, 3), get(2, 3), get(3, 3)]),
                    ];
                    let out = self.transformed.as_mut_ptr().add(at * self.row + channel);
                    for y in 0..4 {
                        let line = [columns[0][y], columns[1][y], columns[2][y], columns[3][y]];
                        let line = into_places::<T, S>(simd, line);
                        for x in 0..4 {
                            let place = out.add((y * 4 + x) * count * self.row);
                            place.cast::<T::Vector<S>>().write_unaligned(line[x]);
                        }
                    }
                }
                channel += lanes;
            }
        }
    }

    /// Writes the results of one panel.
    #[inline(always)]
    fn finish_panel<S: Simd>(&self, simd: S, from: usize, width: usize) {
        let (outputs, extras) = (self.product.shape.outputs, &self.product.extras);
        let lanes = tile::lanes::<T, S>();
        let [down, across] = self.squares.size_out;
        let bounds = extras.act.bounds().map(T::of);
        let silu = extras.act == Act::Silu;
        let count = self.range.len();
        for (at, square) in self.range.clone().enumerate() {
            let [image, row, column] = self.squares.corner(square);
            let mut channel = 0;
            while channel < width {
                let left = outputs.saturating_sub(from + channel).min(lanes);
                // SAFETY: products and bias have whole vectors for every panel; only pixels inside the output and `left`
                // channels are written, which are this part's alone, and `run` checked the sizes.
                unsafe {
                    let products = self.products.as_ptr().add(at * width + channel);
                    let get = |y: usize, x: usize| load::<T, S>(products.add((y * 4 + x) * count * width));
                    let columns = [
                        out_of_places::<T, S>(simd, [get(0, 0), get(1, 0), get(2, 0), get(3, 0)]),
                        out_of_places::<T, S>(simd, [get(0, 1), get(1, 1), get(2, 1), get(3, 1)]),
                        out_of_places::<T, S>(simd, [get(0, 2), get(1, 2), get(2, 2), get(3, 2)]),
                        out_of_places::<T, S>(simd, [get(0, 3), get(1, 3), get(2, 3), get(3, 3)]),
                    ];
                    let bias = load::<T, S>(self.bias.as_ptr().add(from + channel));
                    for y in 0..2 {
                        let line = [columns[0][y], columns[1][y], columns[2][y], columns[3][y]];
                        let line = out_of_places::<T, S>(simd, line);
                        for x in 0..2 {
                            if row + y >= down || column + x >= across {
                                continue;
                            }
                            let pixel = (image * down + row + y) * across + column + x;
                            let sum = T::sum(simd, line[x], bias);
                            let out = self.out.add(pixel * self.pitch + from + channel);
                            let addend = match extras.addend {
                                Some(addend) => addend.as_ptr().add(pixel * outputs + from + channel),
                                None => std::ptr::null(),
                            };
                            finish::<T, S>(simd, &sum, left, out, addend, bounds);
                            if silu {
                                for value in std::slice::from_raw_parts_mut(out, left) {
                                    *value = Silu.value(*value);
                                }
                            }
                        }
                    }
                }
                channel += lanes;
            }
        }
    }
}

impl<T: Real> pulp::WithSimd for Work<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.transform(simd);
        let [.., inputs] = self.product.shape.input;
        let (count, cut) = (self.range.len(), self.product.cut);
        let nothing = vec![T::ZERO; cut.width()];
        for panel in self.panels.clone() {
            let (from, width) = cut.span(panel);
            let weights = &self.product.panels[PLACES * inputs * from..][..PLACES * inputs * width];
            for place in 0..PLACES {
                for at in 0..tile::tiles::<S>(count) {
                    let (first, pixels) = tile::tile_of::<S>(at, count);
                    let mut reads: [Reads<T>; 1] = [[self.zeros.as_ptr(); PIXELS]];
                    for m in 0..PIXELS {
                        let square = first + m.min(pixels - 1);
                        reads[0][m] = self.transformed[(place * count + square) * self.row..][..inputs].as_ptr();
                    }
                    let out = self.products[(place * count + first) * width..][..pixels * width].as_mut_ptr();
                    let tile = Tile {
                        // As in `pointwise.rs`.
                        reads: std::hint::black_box(reads.as_slice()),
                        segment: inputs,
                        panel: &weights[place * inputs * width..][..inputs * width],
                        bias: &nothing[..width],
                        count: pixels,
                        outputs: width,
                        out,
                        out_pitch: width,
                        addend: std::ptr::null(),
                        addend_pitch: 0,
                        bounds: Act::Linear.bounds().map(T::of),
                    };
                    // SAFETY: slices of the right lengths were taken for every pointer.
                    unsafe { tile.run(simd) };
                }
            }
            self.finish_panel(simd, from, width);
        }
    }
}
