//! Depthwise convolution and its two gradients on channels-last slices, `[n, height, width, channels]`.
//!
//! Forward pass and input gradient are one computation: every pixel gathers a few pixels of the other side. Weights are
//! `[kernel height * kernel width, channels]`, so that channels fill the vectors. Columns that read alike are taken
//! together: the weights of a block of channels stay in registers while it runs along them.

use rayon::prelude::*;

use super::pool::Buffer;
use super::{BLOCK, Clamp, Curve, Real, blocks, curved, wide};
use crate::geometry::{Act, Plane, Span};

/// Shape of one side: images, height, width, channels.
pub(crate) type Dims = [usize; 4];

/// `[n, ho, wo, c]` from `[n, h, w, c]`, with bias (or zeros) and activation.
pub(crate) fn forward<T: Real>(
    plane: &Plane,
    input: &[T],
    dims: Dims,
    weight: &[T],
    bias: Option<&[T]>,
    act: Act,
) -> Buffer<T> {
    let [_, height, width, _] = dims;
    let [down, across] = plane.must_output([height, width]);
    let (rows, columns) = (plane.reads(0, height, down), plane.reads(1, width, across));
    let source = Source { values: input, dims };
    curved!(act, T, curve => gather(&rows, &columns, plane.kernel[1], source, Filter { weight, bias, curve }))
}

/// Gradient of the input: `[n, h, w, c]` from the output's gradient `[n, ho, wo, c]`.
pub(crate) fn input_gradient<T: Real>(
    plane: &Plane,
    grad: &[T],
    dims: Dims,
    weight: &[T],
    size: [usize; 2],
) -> Buffer<T> {
    let [_, down, across, _] = dims;
    let (rows, columns) = (plane.readers(0, size[0], down), plane.readers(1, size[1], across));
    let filter = Filter { weight, bias: None, curve: Clamp(Act::Linear.bounds().map(T::of)) };
    gather(&rows, &columns, plane.kernel[1], Source { values: grad, dims }, filter)
}

#[derive(Clone, Copy)]
struct Source<'a, T> {
    values: &'a [T],
    dims: Dims,
}

impl<'a, T> Source<'a, T> {
    fn image(&self, at: usize) -> &'a [T] {
        let [_, height, width, channels] = self.dims;
        &self.values[at * height * width * channels..][..height * width * channels]
    }
}

#[derive(Clone, Copy)]
struct Filter<'a, T, C> {
    weight: &'a [T],
    bias: Option<&'a [T]>,
    curve: C,
}

/// Columns with the same taps.
struct Alike {
    /// Count and taps; `from` means nothing here.
    span: Span,
    /// Each column and the first source column that it reads.
    columns: Vec<(usize, usize)>,
}

fn alike(columns: &[Span]) -> Vec<Alike> {
    let mut groups: Vec<Alike> = Vec::new();
    for (x, column) in columns.iter().enumerate() {
        let same = |group: &&mut Alike| group.span.count == column.count && group.span.tap == column.tap;
        match groups.iter_mut().find(same) {
            Some(group) => group.columns.push((x, column.from)),
            None => groups.push(Alike { span: *column, columns: vec![(x, column.from)] }),
        }
    }
    groups
}

/// Filters every image; `rows` and `columns` say what each pixel of the result reads.
fn gather<T: Real, C: Curve<T>>(
    rows: &[Span],
    columns: &[Span],
    taps_across: usize,
    source: Source<'_, T>,
    filter: Filter<'_, T, C>,
) -> Buffer<T> {
    let [n, _, width, channels] = source.dims;
    let groups = alike(columns);
    let line = columns.len() * channels;
    let mut out = Buffer::new(n * rows.len() * line);
    out.par_chunks_exact_mut(line.max(1)).enumerate().for_each(|(at, out)| {
        let image = source.image(at / rows.len());
        wide(GatherRow {
            row: rows[at % rows.len()],
            groups: &groups,
            taps_across,
            image,
            width,
            channels,
            filter,
            out,
        });
    });
    out
}

/// One row of the result.
struct GatherRow<'a, T, C> {
    row: Span,
    groups: &'a [Alike],
    taps_across: usize,
    image: &'a [T],
    width: usize,
    channels: usize,
    filter: Filter<'a, T, C>,
    out: &'a mut [T],
}

impl<T: Real, C: Curve<T>> GatherRow<'_, T, C> {
    #[inline(always)]
    fn bias<const N: usize>(&self, from: usize) -> [T; N] {
        let mut start = [T::ZERO; N];
        if let Some(bias) = self.filter.bias {
            start.copy_from_slice(&bias[from..from + N]);
        }
        start
    }

    /// A block of `N` channels of all columns of a group with `R` rows and `Q` columns of taps.
    #[inline(always)]
    fn known<const N: usize, const R: usize, const Q: usize>(&mut self, group: &Alike, from: usize) {
        let mut weights = [[[T::ZERO; N]; Q]; R];
        for (line, (_, tap_y)) in weights.iter_mut().zip(self.row.pairs()) {
            for (weight, (_, tap_x)) in line.iter_mut().zip(group.span.pairs()) {
                let at = (tap_y * self.taps_across + tap_x) * self.channels + from;
                weight.copy_from_slice(&self.filter.weight[at..at + N]);
            }
        }
        let start = self.bias::<N>(from);
        let (pitch, channels) = (self.width * self.channels, self.channels);
        for (x, first) in &group.columns {
            let base = self.row.from * pitch + first * channels + from;
            let mut sum = start;
            for (r, line) in weights.iter().enumerate() {
                for (q, weight) in line.iter().enumerate() {
                    let at = base + r * pitch + q * channels;
                    let values = &self.image[at..at + N];
                    for lane in 0..N {
                        sum[lane] = values[lane].fma(weight[lane], sum[lane]);
                    }
                }
            }
            // A plain loop: only that is turned into vectors for every activation.
            for value in &mut sum {
                *value = self.filter.curve.value(*value);
            }
            self.out[x * channels + from..][..N].copy_from_slice(&sum);
        }
    }

    /// As [`GatherRow::known`] for any number of taps.
    #[inline(always)]
    fn any<const N: usize>(&mut self, group: &Alike, from: usize) {
        let start = self.bias::<N>(from);
        for (x, first) in &group.columns {
            let mut sum = start;
            for (y, tap_y) in self.row.pairs() {
                for (k, (_, tap_x)) in group.span.pairs().enumerate() {
                    let at = (y * self.width + first + k) * self.channels + from;
                    let tap = (tap_y * self.taps_across + tap_x) * self.channels + from;
                    let (values, weights) = (&self.image[at..at + N], &self.filter.weight[tap..tap + N]);
                    for lane in 0..N {
                        sum[lane] = values[lane].fma(weights[lane], sum[lane]);
                    }
                }
            }
            // A plain loop: only that is turned into vectors for every activation.
            for value in &mut sum {
                *value = self.filter.curve.value(*value);
            }
            self.out[x * self.channels + from..][..N].copy_from_slice(&sum);
        }
    }
}

impl<T: Real, C: Curve<T>> pulp::WithSimd for GatherRow<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        for group in self.groups {
            if self.channels < BLOCK {
                for channel in 0..self.channels {
                    self.any::<1>(group, channel);
                }
                continue;
            }
            for from in blocks(self.channels) {
                match (self.row.count, group.span.count) {
                    (3, 3) => self.known::<BLOCK, 3, 3>(group, from),
                    // What a stride of 2 reads backwards.
                    (1, 1) => self.known::<BLOCK, 1, 1>(group, from),
                    (1, 2) => self.known::<BLOCK, 1, 2>(group, from),
                    (2, 1) => self.known::<BLOCK, 2, 1>(group, from),
                    (2, 2) => self.known::<BLOCK, 2, 2>(group, from),
                    (5, 5) => self.known::<BLOCK, 5, 5>(group, from),
                    _ => self.any::<BLOCK>(group, from),
                }
            }
        }
    }
}

/// Output rows whose products are added up before they join the sum: f32 sums of whole images would lose digits, and
/// fixed parts make the result independent of the number of threads.
const ROWS_PER_PART: usize = 8;

/// Gradient of the weights, `[kernel height * kernel width, channels]`, from the input and the output's gradient.
pub(crate) fn weight_gradient<T: Real>(plane: &Plane, input: &[T], dims: Dims, grad: &[T]) -> Vec<T> {
    let [n, height, width, channels] = dims;
    let [down, across] = plane.must_output([height, width]);
    let rows = plane.reads(0, height, down);
    let groups = alike(&plane.reads(1, width, across));
    let source = Source { values: input, dims };
    let n_taps = plane.kernel[0] * plane.kernel[1];
    let parts = down.div_ceil(ROWS_PER_PART);
    let sums: Vec<Vec<T>> = (0..n * parts)
        .into_par_iter()
        .map(|part| {
            let (image, first) = (part / parts, part % parts * ROWS_PER_PART);
            let mut sum = vec![T::ZERO; n_taps * channels];
            for (at, row) in rows.iter().enumerate().skip(first).take(ROWS_PER_PART) {
                wide(ProductsOfRow {
                    row: *row,
                    groups: &groups,
                    taps_across: plane.kernel[1],
                    image: source.image(image),
                    width,
                    grad: &grad[(image * down + at) * across * channels..][..across * channels],
                    channels,
                    sum: &mut sum,
                });
            }
            sum
        })
        .collect();
    (0..n_taps * channels).map(|at| T::of(sums.iter().map(|part| part[at].wide()).sum())).collect()
}

/// Products of one row of the output's gradient with what it read, per tap and channel.
struct ProductsOfRow<'a, T> {
    row: Span,
    groups: &'a [Alike],
    taps_across: usize,
    image: &'a [T],
    width: usize,
    grad: &'a [T],
    channels: usize,
    sum: &'a mut [T],
}

impl<T: Real> ProductsOfRow<'_, T> {
    /// A block of `N` channels for `R` rows and `Q` columns of taps, from tap `(y0, x0)` of this row and group on. The
    /// first `done` channels were counted by the block before.
    #[inline(always)]
    fn block<const N: usize, const R: usize, const Q: usize>(
        &mut self,
        group: &Alike,
        [y0, x0]: [usize; 2],
        from: usize,
        done: usize,
    ) {
        let (pitch, channels) = (self.width * self.channels, self.channels);
        let mut sums = [[[T::ZERO; N]; Q]; R];
        for (x, first) in &group.columns {
            let grad = &self.grad[x * channels + from..][..N];
            let base = (self.row.from + y0) * pitch + (first + x0) * channels + from;
            for (r, line) in sums.iter_mut().enumerate() {
                for (q, sum) in line.iter_mut().enumerate() {
                    let at = base + r * pitch + q * channels;
                    let values = &self.image[at..at + N];
                    for lane in 0..N {
                        sum[lane] = values[lane].fma(grad[lane], sum[lane]);
                    }
                }
            }
        }
        for (r, line) in sums.iter().enumerate() {
            for (q, sum) in line.iter().enumerate() {
                let tap = (self.row.tap + y0 + r) * self.taps_across + group.span.tap + x0 + q;
                let total = &mut self.sum[tap * channels + from..][..N];
                for lane in done..N {
                    total[lane] += sum[lane];
                }
            }
        }
    }
}

impl<T: Real> pulp::WithSimd for ProductsOfRow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        for group in self.groups {
            let (rows, columns) = (self.row.count, group.span.count);
            if self.channels < BLOCK {
                for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
                    for channel in 0..self.channels {
                        self.block::<1, 1, 1>(group, [y, x], channel, 0);
                    }
                }
                continue;
            }
            let mut counted = 0;
            for from in blocks(self.channels) {
                let done = counted - from;
                counted = from + BLOCK;
                if (rows, columns) == (3, 3) {
                    self.block::<BLOCK, 3, 3>(group, [0, 0], from, done);
                    continue;
                }
                for y in 0..rows {
                    let mut x = 0;
                    while x + 3 <= columns {
                        self.block::<BLOCK, 1, 3>(group, [y, x], from, done);
                        x += 3;
                    }
                    while x < columns {
                        self.block::<BLOCK, 1, 1>(group, [y, x], from, done);
                        x += 1;
                    }
                }
            }
        }
    }
}
