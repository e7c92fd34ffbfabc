//! Pools over channels-last images, `[n, height, width, channels]`.

use super::direct::Source;
use super::pool::Buffer;
use super::threads::each_piece;
use super::{Real, wide};
use crate::geometry::{Plane, Span};

/// What becomes of the values under the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The largest; outside the image there is nothing. What is not a number counts as largest.
    Maximum,
    /// The mean of those inside the image.
    Average,
    /// The sum over the kernel's size: outside the image there are zeros.
    AverageWithZeros,
}

/// `[n, ho, wo, c]` from images of `dims`.
pub(crate) fn pool<T: Real>(plane: &Plane, input: Source<'_, T>, dims: [usize; 4], kind: Pool) -> Buffer<T> {
    let [n, height, width, channels] = dims;
    let [down, across] = plane.must_output([height, width]);
    let (rows, columns) = (plane.reads(0, height, down), plane.reads(1, width, across));
    let mut out = Buffer::new(n * down * across * channels);
    each_piece(&mut out, across * channels, |at, out| {
        let (image, row) = (at / down, rows[at % down]);
        let values = &input.values[image * height * width * input.pitch..];
        let taps = plane.kernel[0] * plane.kernel[1];
        wide(Row { row, columns: &columns, values, pitch: input.pitch, width, channels, kind, taps, out });
    });
    out
}

/// One row of the result.
struct Row<'a, T> {
    row: Span,
    columns: &'a [Span],
    /// The image.
    values: &'a [T],
    pitch: usize,
    width: usize,
    channels: usize,
    kind: Pool,
    taps: usize,
    out: &'a mut [T],
}

impl<T: Real> Row<'_, T> {
    /// `N` channels from `from` on of the pixel in column `at`.
    #[inline(always)]
    fn block<const N: usize>(&mut self, at: usize, from: usize) {
        let column = self.columns[at];
        let maximum = self.kind == Pool::Maximum;
        let mut result = [if maximum { T::of(f64::NEG_INFINITY) } else { T::ZERO }; N];
        for y in self.row.from..self.row.from + self.row.count {
            for x in column.from..column.from + column.count {
                let values = &self.values[(y * self.width + x) * self.pitch + from..][..N];
                if maximum {
                    for lane in 0..N {
                        let value = values[lane];
                        // Only what is not a number differs from itself.
                        #[allow(clippy::eq_op, reason = "the test for what is not a number")]
                        let larger = value > result[lane] || value != value;
                        result[lane] = if larger { value } else { result[lane] };
                    }
                } else {
                    for lane in 0..N {
                        result[lane] += values[lane];
                    }
                }
            }
        }
        let count = if self.kind == Pool::Average { self.row.count * column.count } else { self.taps };
        let share = T::of(1.0 / count as f64);
        let out = &mut self.out[at * self.channels + from..][..N];
        for lane in 0..N {
            out[lane] = if maximum { result[lane] } else { result[lane] * share };
        }
    }
}

impl<T: Real> pulp::WithSimd for Row<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        for at in 0..self.columns.len() {
            let mut from = 0;
            while from + 64 <= self.channels {
                self.block::<64>(at, from);
                from += 64;
            }
            while from + 16 <= self.channels {
                self.block::<16>(at, from);
                from += 16;
            }
            while from < self.channels {
                self.block::<1>(at, from);
                from += 1;
            }
        }
    }
}

/// Pixels that are summed by themselves. Their number is no matter of threads, so the mean is not either.
const RUN: usize = 512;

/// Mean over height and width, `[n, c]`.
pub(crate) fn global_average<T: Real>(input: Source<'_, T>, [n, height, width, channels]: [usize; 4]) -> Vec<T> {
    let pixels = height * width;
    let runs = pixels.div_ceil(RUN);
    let mut sums = Buffer::new(n * runs * channels);
    each_piece(&mut sums, channels, |at, out| {
        let (image, first) = (at / runs, at % runs * RUN);
        let values = &input.values[(image * pixels + first) * input.pitch..];
        wide(Sums { values, pitch: input.pitch, pixels: RUN.min(pixels - first), out });
    });
    let share = T::of(1.0 / pixels as f64);
    let mut out = vec![T::ZERO; n * channels];
    for (runs, out) in sums.chunks_exact((runs * channels).max(1)).zip(out.chunks_exact_mut(channels.max(1))) {
        for run in runs.chunks_exact(channels) {
            out.iter_mut().zip(run).for_each(|(sum, value)| *sum += *value);
        }
        out.iter_mut().for_each(|sum| *sum = *sum * share);
    }
    out
}

/// Sums over pixels, channel by channel.
struct Sums<'a, T> {
    values: &'a [T],
    pitch: usize,
    pixels: usize,
    out: &'a mut [T],
}

impl<T: Real> Sums<'_, T> {
    /// Of `N` channels from `from` on, in registers.
    #[inline(always)]
    fn block<const N: usize>(&mut self, from: usize) {
        let mut sums = [T::ZERO; N];
        for pixel in 0..self.pixels {
            let values = &self.values[pixel * self.pitch + from..][..N];
            for lane in 0..N {
                sums[lane] += values[lane];
            }
        }
        self.out[from..from + N].copy_from_slice(&sums);
    }
}

impl<T: Real> pulp::WithSimd for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let (mut from, channels) = (0, self.out.len());
        while from + 64 <= channels {
            self.block::<64>(from);
            from += 64;
        }
        while from + 16 <= channels {
            self.block::<16>(from);
            from += 16;
        }
        while from < channels {
            self.block::<1>(from);
            from += 1;
        }
    }
}
