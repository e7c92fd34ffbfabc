//! Gradient of the weights of a depthwise convolution on channels-last slices.

use rayon::prelude::*;

use super::depthwise::{Dims, Source};
use super::{BLOCK, Real, blocks, wide};
use crate::geometry::{Plane, Span};

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
