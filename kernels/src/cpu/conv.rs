//! Dense convolution and its gradients on channels-last slices.
//!
//! The forward pass, and with stride 1 the gradient of the input, are computed over packed weights ([`super::direct`], or
//! [`super::winograd`] where weights are packed once for many images). The other gradients are matrix products over tiles of
//! output pixels: a tile's patches are gathered into a small matrix (a 1 x 1 convolution reads the input itself) and
//! multiplied while they are in the cache.

use gemm::Parallelism;
use rayon::prelude::*;

use super::direct::{self, Before, Extras, Product, Source};
use super::panels::Cut;
use super::pool::Buffer;
use super::{Real, winograd};
use crate::geometry::{Act, Plane, Span};

/// A matrix in memory: element (row, column) at `row * rows + column * columns`.
#[derive(Clone, Copy)]
struct Matrix<'a, T> {
    values: &'a [T],
    /// Step from row to row.
    rows: usize,
    /// Step from column to column.
    columns: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `width` neighboring values.
    fn rows(values: &'a [T], width: usize) -> Self {
        Matrix { values, rows: width, columns: 1 }
    }

    fn transposed(self) -> Self {
        Matrix { rows: self.columns, columns: self.rows, ..self }
    }
}

/// `out (+)= left * right` for `[m, k]` and `[k, n]`; `out` is row-major.
fn multiply<T: Real>([m, n, k]: [usize; 3], out: &mut [T], add: bool, left: Matrix<'_, T>, right: Matrix<'_, T>) {
    let last = |matrix: &Matrix<'_, T>, rows: usize, columns: usize| {
        (rows - 1) * matrix.rows + (columns - 1) * matrix.columns < matrix.values.len()
    };
    assert!(m > 0 && n > 0 && k > 0, "empty matrix product");
    assert!(out.len() >= m * n && last(&left, m, k) && last(&right, k, n), "matrix product outside its operands");
    let stride = |step: usize| step as isize;
    // SAFETY: the assertions above keep every element that gemm touches inside its slice, `out` is borrowed mutably and
    // so overlaps neither operand, and both operand types and the output are the same plain number type.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride(n),
            add,
            left.values.as_ptr(),
            stride(left.columns),
            stride(left.rows),
            right.values.as_ptr(),
            stride(right.columns),
            stride(right.rows),
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Shapes of a convolution on slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub plane: Plane,
    /// Images, height, width, channels.
    pub input: [usize; 4],
    pub outputs: usize,
}

impl Shape {
    pub fn size_out(&self) -> [usize; 2] {
        self.plane.must_output([self.input[1], self.input[2]])
    }

    /// Output pixels of all images.
    pub fn pixels(&self) -> usize {
        let [down, across] = self.size_out();
        self.input[0] * down * across
    }

    /// Values of a patch: kernel height * kernel width * channels.
    pub fn patch(&self) -> usize {
        self.plane.kernel[0] * self.plane.kernel[1] * self.input[3]
    }

    /// With stride 1 the gradient of the input is itself a convolution, of the gradient with the kernel turned by half.
    fn backwards(&self) -> Option<Shape> {
        let Plane { kernel: [down, across], stride, padding: [top, left, bottom, right] } = self.plane;
        let [n, _, _, inputs] = self.input;
        let [height, width] = self.size_out();
        let rest = |reach: usize, zeros: usize| (reach - 1).checked_sub(zeros);
        let padding = [rest(down, top)?, rest(across, left)?, rest(down, bottom)?, rest(across, right)?];
        let plane = Plane { padding, ..self.plane };
        (stride == [1, 1]).then_some(Shape { plane, input: [n, height, width, self.outputs], outputs: inputs })
    }

    /// Pixels whose patches and results stay in the second-level cache.
    fn tile(&self) -> usize {
        const VALUES: usize = 96 * 1024;
        (VALUES / (self.patch() + self.outputs)).next_multiple_of(16).clamp(64, 512)
    }
}

/// Where the pixels of a tile read.
struct Patches {
    rows: Vec<Span>,
    columns: Vec<Span>,
    shape: Shape,
}

impl Patches {
    fn new(shape: Shape) -> Self {
        let [down, across] = shape.size_out();
        Patches {
            rows: shape.plane.reads(0, shape.input[1], down),
            columns: shape.plane.reads(1, shape.input[2], across),
            shape,
        }
    }

    /// Calls `copy(offset in the patches, offset in the input, length)` for each run of values that the patches of
    /// `count` pixels from `first` on share with the input.
    #[inline(always)]
    fn runs(&self, first: usize, count: usize, mut copy: impl FnMut(usize, usize, usize)) {
        let [_, height, width, channels] = self.shape.input;
        let (down, across, taps_across) = (self.rows.len(), self.columns.len(), self.shape.plane.kernel[1]);
        for (at, pixel) in (first..first + count).enumerate() {
            let (image, row, column) = (pixel / (down * across), pixel / across % down, pixel % across);
            let column = self.columns[column];
            if column.count == 0 {
                // A patch that lies in the padding altogether has no place in the input.
                continue;
            }
            for (y, tap_y) in self.rows[row].pairs() {
                let to = at * self.shape.patch() + (tap_y * taps_across + column.tap) * channels;
                let from = ((image * height + y) * width + column.from) * channels;
                copy(to, from, column.count * channels);
            }
        }
    }

    fn gather<T: Real>(&self, first: usize, count: usize, input: &[T], patches: &mut Vec<T>) {
        patches.clear();
        patches.resize(count * self.shape.patch(), T::ZERO);
        self.runs(first, count, |to, from, len| patches[to..to + len].copy_from_slice(&input[from..from + len]));
    }
}

/// A kernel `[outputs, kernel height, kernel width, inputs]` as a matrix `[patch, outputs]`.
fn kernel_matrix<'a, T>(shape: &Shape, weight: &'a [T]) -> Matrix<'a, T> {
    Matrix::rows(weight, shape.patch()).transposed()
}

/// `[n, ho, wo, outputs]`, for weights `[outputs, patch]` that are used this once.
pub(crate) fn forward<T: Real>(shape: &Shape, input: &[T], weight: &[T], extras: Extras<'_, T>) -> Buffer<T> {
    let cut = Cut::new::<T>(shape.outputs, shape.patch());
    let panels = cut.pack(weight);
    let input = Source { values: input, pitch: shape.input[3] };
    let product = Product { shape: *shape, input, before: Before::Nothing, cut, panels: &panels, extras };
    let mut out = Buffer::new(shape.pixels() * shape.outputs);
    direct::run(&product, &mut out, shape.outputs);
    out
}

/// Weights `[outputs, kernel height, kernel width, inputs]` as [`packed`] reads them.
pub(crate) fn pack<T: Real>(cut: &Cut, weight: &[T], kernel: [usize; 2], stride: [usize; 2]) -> Vec<T> {
    if winograd::suits(cut, kernel, stride) { winograd::pack(cut, weight) } else { cut.pack(weight) }
}

/// `[n, ho, wo, outputs]`, for weights that [`pack`] arranged.
pub(crate) fn packed<T: Real>(product: &Product<'_, T>) -> Buffer<T> {
    let Shape { plane, outputs, .. } = product.shape;
    let mut out = Buffer::new(product.shape.pixels() * outputs);
    if winograd::suits(&product.cut, plane.kernel, plane.stride) {
        winograd::run(product, &mut out, outputs);
    } else {
        direct::run(product, &mut out, outputs);
    }
    out
}

/// Weights `[outputs, taps, inputs]` as `[inputs, taps, outputs]` with the last tap first.
fn turned<T: Real>(shape: &Shape, weight: &[T]) -> Vec<T> {
    let (inputs, outputs) = (shape.input[3], shape.outputs);
    let taps = shape.patch() / inputs;
    let mut turned = vec![T::ZERO; weight.len()];
    turned.par_chunks_exact_mut(taps * outputs).enumerate().for_each(|(input, turned)| {
        for (tap, turned) in turned.chunks_exact_mut(outputs).enumerate() {
            for (output, value) in turned.iter_mut().enumerate() {
                *value = weight[(output * taps + taps - 1 - tap) * inputs + input];
            }
        }
    });
    turned
}

/// Gradient of the input, `[n, h, w, inputs]`.
pub(crate) fn input_gradient<T: Real>(shape: &Shape, grad: &[T], weight: &[T]) -> Buffer<T> {
    if let Some(back) = shape.backwards() {
        let extras = Extras { bias: None, addend: None, act: Act::Linear };
        return forward(&back, grad, &turned(shape, weight), extras);
    }
    let (patch, outputs) = (shape.patch(), shape.outputs);
    let back = kernel_matrix(shape, weight).transposed();
    let len = shape.input.iter().product();
    let tile = shape.tile();
    let patches = Patches::new(*shape);
    let [_, height, width, channels] = shape.input;
    let per_image = shape.size_out().iter().product::<usize>();
    let mut out = Buffer::zeros(len);
    // Patches overlap inside an image, so an image is one thread's.
    out.par_chunks_exact_mut(height * width * channels).enumerate().for_each_init(Vec::new, |buffer, (image, out)| {
        for from in (0..per_image).step_by(tile) {
            let (first, count) = (image * per_image + from, tile.min(per_image - from));
            buffer.resize(count * patch, T::ZERO);
            let grad = &grad[first * outputs..][..count * outputs];
            multiply([count, patch, outputs], buffer, false, Matrix::rows(grad, outputs), back);
            let base = image * height * width * channels;
            patches.runs(first, count, |at, to, len| {
                for (sum, value) in out[to - base..to - base + len].iter_mut().zip(&buffer[at..at + len]) {
                    *sum += *value;
                }
            });
        }
    });
    out
}

/// Gradient of the weights, `[kernel height, kernel width, inputs, outputs]`. The sum is split in parts that do not
/// depend on the number of threads, so the result does not either.
pub(crate) fn weight_gradient<T: Real>(shape: &Shape, input: &[T], grad: &[T]) -> Vec<T> {
    const PARTS: usize = 16;
    const VALUES: usize = 1 << 24;
    let (pixels, patch, outputs) = (shape.pixels(), shape.patch(), shape.outputs);
    let tile = shape.tile();
    let n_tiles = pixels.div_ceil(tile);
    let parts = PARTS.min(n_tiles).min((VALUES / (patch * outputs)).max(2));
    let tiles_per_part = n_tiles.div_ceil(parts);
    let patches = Patches::new(*shape);
    let sums: Vec<Vec<T>> = (0..n_tiles.div_ceil(tiles_per_part))
        .into_par_iter()
        .map(|part| {
            let (mut sum, mut buffer) = (vec![T::ZERO; patch * outputs], Vec::new());
            for first in (part * tiles_per_part..n_tiles.min((part + 1) * tiles_per_part)).map(|at| at * tile) {
                let count = tile.min(pixels - first);
                let grad = Matrix::rows(&grad[first * outputs..][..count * outputs], outputs);
                let size = [patch, outputs, count];
                if shape.plane.is_pointwise() {
                    let input = Matrix::rows(&input[first * patch..][..count * patch], patch);
                    multiply(size, &mut sum, true, input.transposed(), grad);
                } else {
                    patches.gather(first, count, input, &mut buffer);
                    let patches = Matrix::rows(&buffer, patch);
                    multiply(size, &mut sum, true, patches.transposed(), grad);
                }
            }
            sum
        })
        .collect();
    let mut parts = sums.into_iter();
    let mut total = parts.next().unwrap_or_default();
    for part in parts {
        for (sum, value) in total.iter_mut().zip(part) {
            *sum += value;
        }
    }
    total
}
