//! Dense convolution and its gradients on channels-last slices as matrix products over tiles of output pixels.
//!
//! A tile's input patches are gathered into a small matrix (a 1 x 1 convolution reads the input itself), multiplied while
//! they are in the cache, and bias, addend and activation are applied before the tile leaves it.

use gemm::Parallelism;
use rayon::prelude::*;

use super::pool::Buffer;
use super::{Curve, Real, curved, wide};
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
fn multiply<T: Real>(
    [m, n, k]: [usize; 3],
    out: &mut [T],
    add: bool,
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    parallelism: Parallelism,
) {
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
            parallelism,
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
    fn size_out(&self) -> [usize; 2] {
        self.plane.must_output([self.input[1], self.input[2]])
    }

    /// Output pixels of all images.
    fn pixels(&self) -> usize {
        let [down, across] = self.size_out();
        self.input[0] * down * across
    }

    /// Values of a patch: kernel height * kernel width * channels.
    fn patch(&self) -> usize {
        self.plane.kernel[0] * self.plane.kernel[1] * self.input[3]
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

/// Bias, addend and activation of a tile, while it is in the cache.
struct Finish<'a, T, C> {
    out: &'a mut [T],
    outputs: usize,
    bias: Option<&'a [T]>,
    addend: Option<&'a [T]>,
    curve: Option<C>,
}

impl<T: Real, C: Curve<T>> pulp::WithSimd for Finish<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        if let Some(bias) = self.bias {
            for pixel in self.out.chunks_exact_mut(self.outputs) {
                for (value, bias) in pixel.iter_mut().zip(bias) {
                    *value += *bias;
                }
            }
        }
        if let Some(addend) = self.addend {
            for (value, addend) in self.out.iter_mut().zip(addend) {
                *value += *addend;
            }
        }
        if let Some(curve) = self.curve {
            for value in self.out.iter_mut() {
                *value = curve.value(*value);
            }
        }
    }
}

/// What is added to the sums before the activation.
#[derive(Clone, Copy)]
pub(crate) struct Extras<'a, T> {
    /// One value for each output channel.
    pub bias: Option<&'a [T]>,
    /// As large as the output.
    pub addend: Option<&'a [T]>,
    /// Activation.
    pub act: Act,
}

/// A kernel `[outputs, kernel height, kernel width, inputs]` as a matrix `[patch, outputs]`.
fn kernel_matrix<'a, T>(shape: &Shape, weight: &'a [T]) -> Matrix<'a, T> {
    Matrix::rows(weight, shape.patch()).transposed()
}

/// `[n, ho, wo, outputs]`.
pub(crate) fn forward<T: Real>(shape: &Shape, input: &[T], weight: &[T], extras: Extras<'_, T>) -> Buffer<T> {
    let (pixels, patch, outputs) = (shape.pixels(), shape.patch(), shape.outputs);
    let mut out = Buffer::new(pixels * outputs);
    let kernel = kernel_matrix(shape, weight);
    let pointwise = shape.plane.is_pointwise();
    let tile = shape.tile();
    let finish = |first: usize, out: &mut [T]| {
        let addend = extras.addend.map(|addend| &addend[first * outputs..][..out.len()]);
        curved!(extras.act, T, curve => {
            let curve = (extras.act != Act::Linear).then_some(curve);
            wide(Finish { out, outputs, bias: extras.bias, addend, curve });
        });
    };
    if pointwise && pixels < tile * rayon::current_num_threads() {
        // Too few pixels for a tile on each thread: all threads share one product.
        let size = [pixels, outputs, patch];
        multiply(size, &mut out, false, Matrix::rows(input, patch), kernel, Parallelism::Rayon(0));
        finish(0, &mut out);
        return out;
    }
    let patches = Patches::new(*shape);
    let tile = tile.min(pixels.div_ceil(rayon::current_num_threads()).next_multiple_of(8));
    out.par_chunks_mut(tile * outputs).enumerate().for_each_init(Vec::new, |buffer, (at, out)| {
        let (first, count) = (at * tile, out.len() / outputs);
        let size = [count, outputs, patch];
        if pointwise {
            let input = &input[first * patch..][..count * patch];
            multiply(size, out, false, Matrix::rows(input, patch), kernel, Parallelism::None);
        } else {
            patches.gather(first, count, input, buffer);
            multiply(size, out, false, Matrix::rows(buffer, patch), kernel, Parallelism::None);
        }
        finish(first, out);
    });
    out
}

/// Gradient of the input, `[n, h, w, inputs]`.
pub(crate) fn input_gradient<T: Real>(shape: &Shape, grad: &[T], weight: &[T]) -> Buffer<T> {
    let (patch, outputs) = (shape.patch(), shape.outputs);
    let back = kernel_matrix(shape, weight).transposed();
    let len = shape.input.iter().product();
    let tile = shape.tile();
    if shape.plane.is_pointwise() {
        let mut out = Buffer::new(len);
        out.par_chunks_mut(tile * patch).enumerate().for_each(|(at, out)| {
            let count = out.len() / patch;
            let grad = &grad[at * tile * outputs..][..count * outputs];
            multiply([count, patch, outputs], out, false, Matrix::rows(grad, outputs), back, Parallelism::None);
        });
        return out;
    }
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
            multiply([count, patch, outputs], buffer, false, Matrix::rows(grad, outputs), back, Parallelism::None);
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
                    multiply(size, &mut sum, true, input.transposed(), grad, Parallelism::None);
                } else {
                    patches.gather(first, count, input, &mut buffer);
                    let patches = Matrix::rows(&buffer, patch);
                    multiply(size, &mut sum, true, patches.transposed(), grad, Parallelism::None);
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
