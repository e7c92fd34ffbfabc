//! Pools over channels-last images, `[n, height, width, channels]`.

// A number of a register stands for several arrays at once.
#![allow(clippy::needless_range_loop)]

use pulp::Simd;

use super::direct::{Source, Target};
use super::pool::Buffer;
use super::threads::{each, each_piece};
use super::tile::{self, load};
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
    /// `V` vectors of channels from `from` on of the pixel in column `at`, all in registers.
    #[inline(always)]
    fn block<S: Simd, const V: usize>(&mut self, simd: S, at: usize, from: usize) {
        let (column, lanes) = (self.columns[at], tile::lanes::<T, S>());
        let maximum = self.kind == Pool::Maximum;
        let mut result = [T::splat(simd, if maximum { T::of(f64::NEG_INFINITY) } else { T::ZERO }); V];
        for y in self.row.from..self.row.from + self.row.count {
            for x in column.from..column.from + column.count {
                let values = self.values[(y * self.width + x) * self.pitch + from..][..V * lanes].as_ptr();
                for v in 0..V {
                    // SAFETY: the slice above has `V` vectors.
                    let value = unsafe { load::<T, S>(values.add(v * lanes)) };
                    result[v] =
                        if maximum { T::larger(simd, result[v], value) } else { T::sum(simd, result[v], value) };
                }
            }
        }
        let share = T::splat(simd, self.share(column));
        let out = self.out[at * self.channels + from..][..V * lanes].as_mut_ptr();
        for v in 0..V {
            let value = if maximum { result[v] } else { T::product(simd, result[v], share) };
            // SAFETY: as above.
            unsafe { out.add(v * lanes).cast::<T::Vector<S>>().write_unaligned(value) };
        }
    }

    /// One channel.
    #[inline(always)]
    fn channel(&mut self, at: usize, channel: usize) {
        let column = self.columns[at];
        let maximum = self.kind == Pool::Maximum;
        let mut result = if maximum { T::of(f64::NEG_INFINITY) } else { T::ZERO };
        for y in self.row.from..self.row.from + self.row.count {
            for x in column.from..column.from + column.count {
                let value = self.values[(y * self.width + x) * self.pitch + channel];
                // Only what is not a number differs from itself.
                #[allow(clippy::eq_op, reason = "the test for what is not a number")]
                let is_larger = value > result || value != value;
                result = match maximum {
                    true if is_larger => value,
                    true => result,
                    false => result + value,
                };
            }
        }
        self.out[at * self.channels + channel] = if maximum { result } else { result * self.share(column) };
    }

    /// What a sum is multiplied with.
    #[inline(always)]
    fn share(&self, column: Span) -> T {
        let count = if self.kind == Pool::Average { self.row.count * column.count } else { self.taps };
        T::of(1.0 / count as f64)
    }
}

impl<T: Real> pulp::WithSimd for Row<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = tile::lanes::<T, S>();
        for at in 0..self.columns.len() {
            let mut from = 0;
            while from + 4 * lanes <= self.channels {
                self.block::<S, 4>(simd, at, from);
                from += 4 * lanes;
            }
            while from + lanes <= self.channels {
                self.block::<S, 1>(simd, at, from);
                from += lanes;
            }
            while from < self.channels {
                self.channel(at, from);
                from += 1;
            }
        }
    }
}

/// Pixels that are summed by themselves. Their number is no matter of threads, so the mean is not either.
const RUN: usize = 512;

/// Channels that are summed together.
const GROUP: usize = 256;

/// Mean over height and width, `[n, c]`.
pub(crate) fn global_average<T: Real>(input: Source<'_, T>, [n, height, width, channels]: [usize; 4]) -> Vec<T> {
    let pixels = height * width;
    let runs = pixels.div_ceil(RUN);
    let mut sums = Buffer::<T>::new(n * runs * channels);
    let groups = channels.div_ceil(GROUP);
    let target = Target(sums.as_mut_ptr());
    each(n * runs * groups, |at| {
        let (run, from, target) = (at / groups, at % groups * GROUP, &target);
        let (image, first) = (run / runs, run % runs * RUN);
        let values = &input.values[(image * pixels + first) * input.pitch + from..];
        let len = GROUP.min(channels - from);
        // SAFETY: these channels of this run are this part's alone, and each is written.
        let out = unsafe { std::slice::from_raw_parts_mut(target.0.add(run * channels + from), len) };
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

impl<T: Real> pulp::WithSimd for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (mut from, lanes) = (0, tile::lanes::<T, S>());
        while from + 4 * lanes <= self.out.len() {
            self.block::<S, 4>(simd, from);
            from += 4 * lanes;
        }
        while from + lanes <= self.out.len() {
            self.block::<S, 1>(simd, from);
            from += lanes;
        }
        for channel in from..self.out.len() {
            let mut sum = T::ZERO;
            for pixel in 0..self.pixels {
                sum += self.values[pixel * self.pitch + channel];
            }
            self.out[channel] = sum;
        }
    }
}

impl<T: Real> Sums<'_, T> {
    /// `V` vectors of channels from `from` on, in registers.
    #[inline(always)]
    fn block<S: Simd, const V: usize>(&mut self, simd: S, from: usize) {
        let lanes = tile::lanes::<T, S>();
        let mut sums = [T::splat(simd, T::ZERO); V];
        for pixel in 0..self.pixels {
            let values = self.values[pixel * self.pitch + from..][..V * lanes].as_ptr();
            for v in 0..V {
                // SAFETY: the slice above has `V` vectors.
                sums[v] = T::sum(simd, sums[v], unsafe { load::<T, S>(values.add(v * lanes)) });
            }
        }
        let out = self.out[from..][..V * lanes].as_mut_ptr();
        for v in 0..V {
            // SAFETY: as above.
            unsafe { out.add(v * lanes).cast::<T::Vector<S>>().write_unaligned(sums[v]) };
        }
    }
}
