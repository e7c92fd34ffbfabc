//! Pools over channels-last images, `[n, height, width, channels]`.

use rayon::prelude::*;

use super::direct::Source;
use super::pool::Buffer;
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
    out.par_chunks_exact_mut((across * channels).max(1)).enumerate().for_each(|(at, out)| {
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

/// Channels whose mean a thread takes at once.
const GROUP: usize = 128;

/// Mean over height and width, `[n, c]`.
pub(crate) fn global_average<T: Real>(input: Source<'_, T>, [n, height, width, channels]: [usize; 4]) -> Vec<T> {
    let mut out = vec![T::ZERO; n * channels];
    let groups = channels.div_ceil(GROUP);
    let parts: Vec<(usize, &mut [T])> = out
        .chunks_exact_mut(channels.max(1))
        .enumerate()
        .flat_map(|(image, out)| {
            out.chunks_mut(GROUP).enumerate().map(move |(group, out)| (image * groups + group, out))
        })
        .collect();
    parts.into_par_iter().for_each(|(at, out)| {
        let (image, group) = (at / groups, at % groups);
        let values = &input.values[image * height * width * input.pitch + group * GROUP..];
        wide(Mean { values, pitch: input.pitch, pixels: height * width, out });
    });
    out
}

struct Mean<'a, T> {
    values: &'a [T],
    pitch: usize,
    pixels: usize,
    out: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for Mean<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let channels = self.out.len();
        for pixel in 0..self.pixels {
            let values = &self.values[pixel * self.pitch..][..channels];
            for (sum, value) in self.out.iter_mut().zip(values) {
                *sum += *value;
            }
        }
        let share = T::of(1.0 / self.pixels as f64);
        for sum in self.out.iter_mut() {
            *sum = *sum * share;
        }
    }
}
