//! BatchNorm in training mode with the activation that follows it, on channels-last slices `[pixels, channels]`.

use rayon::prelude::*;

use super::pool::Buffer;
use super::{Curve, Real, wide};

/// Mean and biased variance of each channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moments<T> {
    pub mean: Vec<T>,
    pub variance: Vec<T>,
}

/// Pixels of a part. Sums over a part stay in the number type, sums over parts are f64, so the result has all the digits
/// of the type and does not depend on the number of threads.
const PART: usize = 64;

/// Sums of `count` values a channel over all parts, each found by `sums(part of the pixels, sums in turn)`.
fn channel_sums<T: Real, const N: usize>(
    pixels: usize,
    channels: usize,
    sums: impl Fn(std::ops::Range<usize>, &mut [Vec<T>; N]) + Sync,
) -> [Vec<f64>; N] {
    const PARTS_A_TASK: usize = 64;
    let tasks = pixels.div_ceil(PART * PARTS_A_TASK);
    let partial: Vec<[Vec<f64>; N]> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let mut total: [Vec<f64>; N] = std::array::from_fn(|_| vec![0.0; channels]);
            let mut part: [Vec<T>; N] = std::array::from_fn(|_| vec![T::ZERO; channels]);
            let end = pixels.min((task + 1) * PART * PARTS_A_TASK);
            for first in (task * PART * PARTS_A_TASK..end).step_by(PART) {
                part.iter_mut().for_each(|sum| sum.fill(T::ZERO));
                sums(first..end.min(first + PART), &mut part);
                for (total, part) in total.iter_mut().zip(&part) {
                    for (total, part) in total.iter_mut().zip(part) {
                        *total += part.wide();
                    }
                }
            }
            total
        })
        .collect();
    std::array::from_fn(|which| {
        (0..channels).map(|channel| partial.iter().map(|sums| sums[which][channel]).sum()).collect()
    })
}

/// Moments of `x`, `[pixels, channels]`.
pub(crate) fn moments<T: Real>(x: &[T], channels: usize) -> Moments<T> {
    let pixels = x.len() / channels;
    // Sums are taken around a rough mean: the squares of large means would drown the variance.
    let origin = &rough_mean(x, channels)[..];
    let [sum, squares] = channel_sums(pixels, channels, |part, sums: &mut [Vec<T>; 2]| {
        wide(AroundOrigin { x: &x[part.start * channels..part.end * channels], origin, sums });
    });
    let count = pixels as f64;
    let mean = |channel: usize| origin[channel].wide() + sum[channel] / count;
    let variance = |channel: usize| (squares[channel] / count - (sum[channel] / count).powi(2)).max(0.0);
    Moments {
        mean: (0..channels).map(|channel| T::of(mean(channel))).collect(),
        variance: (0..channels).map(|channel| T::of(variance(channel))).collect(),
    }
}

/// Mean of a few pixels from everywhere.
fn rough_mean<T: Real>(x: &[T], channels: usize) -> Vec<T> {
    const SAMPLES: usize = 64;
    let pixels = x.len() / channels;
    let samples = SAMPLES.min(pixels);
    let mut mean = vec![T::ZERO; channels];
    for sample in 0..samples {
        let pixel = &x[sample * pixels / samples * channels..][..channels];
        for (mean, value) in mean.iter_mut().zip(pixel) {
            *mean += *value * T::of(1.0 / samples as f64);
        }
    }
    mean
}

struct AroundOrigin<'a, T> {
    x: &'a [T],
    origin: &'a [T],
    sums: &'a mut [Vec<T>; 2],
}

impl<T: Real> pulp::WithSimd for AroundOrigin<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let [sums, squares] = self.sums;
        for pixel in self.x.chunks_exact(self.origin.len()) {
            let sums = sums.iter_mut().zip(squares.iter_mut());
            for ((value, origin), (sum, square)) in pixel.iter().zip(self.origin).zip(sums) {
                let distance = *value - *origin;
                *sum += distance;
                *square = distance.fma(distance, *square);
            }
        }
    }
}

/// A normalization as a line for each channel: `x * scale + shift` before the activation.
struct Lines<T> {
    scale: Vec<T>,
    shift: Vec<T>,
    /// 1 / standard deviation.
    inverse: Vec<T>,
}

impl<T: Real> Lines<T> {
    fn new(moments: &Moments<T>, gamma: &[T], beta: &[T], epsilon: f64) -> Self {
        let inverse: Vec<f64> = moments.variance.iter().map(|v| 1.0 / (v.wide() + epsilon).sqrt()).collect();
        let scale: Vec<f64> = inverse.iter().zip(gamma).map(|(inverse, gamma)| inverse * gamma.wide()).collect();
        let shift = beta.iter().zip(moments.mean.iter().zip(&scale));
        Lines {
            shift: shift.map(|(beta, (mean, scale))| T::of(beta.wide() - mean.wide() * scale)).collect(),
            scale: scale.into_iter().map(T::of).collect(),
            inverse: inverse.into_iter().map(T::of).collect(),
        }
    }
}

/// Pixels that a thread takes at once where nothing is summed.
const PIECE: usize = 256;

/// Normalized and activated values, `[pixels, channels]`.
pub(crate) fn forward<T: Real, C: Curve<T>>(
    x: &[T],
    moments: &Moments<T>,
    gamma: &[T],
    beta: &[T],
    epsilon: f64,
    curve: C,
) -> Buffer<T> {
    let channels = gamma.len();
    let lines = Lines::new(moments, gamma, beta, epsilon);
    let mut out = Buffer::new(x.len());
    let part = PIECE * channels;
    out.par_chunks_mut(part).zip(x.par_chunks(part)).for_each(|(out, x)| {
        wide(Apply { x, lines: &lines, curve, out });
    });
    out
}

struct Apply<'a, T, C> {
    x: &'a [T],
    lines: &'a Lines<T>,
    curve: C,
    out: &'a mut [T],
}

impl<T: Real, C: Curve<T>> pulp::WithSimd for Apply<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let channels = self.lines.scale.len();
        for (out, x) in self.out.chunks_exact_mut(channels).zip(self.x.chunks_exact(channels)) {
            let lines = self.lines.scale.iter().zip(&self.lines.shift);
            for ((out, x), (scale, shift)) in out.iter_mut().zip(x).zip(lines) {
                *out = self.curve.value(x.fma(*scale, *shift));
            }
        }
    }
}

/// Gradients of input, gamma and beta.
pub(crate) struct Gradients<T> {
    pub input: Buffer<T>,
    pub gamma: Vec<T>,
    pub beta: Vec<T>,
}

/// Gradients from the gradient of the activated output. Whether the activation let a value through is computed anew from
/// `x`, with the same rounding as in [`forward`].
pub(crate) fn backward<T: Real, C: Curve<T>>(
    x: &[T],
    grad: &[T],
    moments: &Moments<T>,
    gamma: &[T],
    beta: &[T],
    epsilon: f64,
    curve: C,
) -> Gradients<T> {
    let channels = gamma.len();
    let pixels = x.len() / channels;
    let lines = Lines::new(moments, gamma, beta, epsilon);
    let [beta_sum, gamma_sum] = channel_sums(pixels, channels, |part, sums: &mut [Vec<T>; 2]| {
        let part = part.start * channels..part.end * channels;
        wide(Reduce { x: &x[part.clone()], grad: &grad[part], lines: &lines, mean: &moments.mean, curve, sums });
    });
    // dx = scale * (dz - mean(dz) - normalized * mean(dz * normalized)), as a line in dz and x.
    let count = pixels as f64;
    let slope: Vec<f64> = (0..channels).map(|c| -gamma_sum[c] * lines.inverse[c].wide() / count).collect();
    let level = (0..channels).map(|c| -beta_sum[c] / count - slope[c] * moments.mean[c].wide());
    let level: Vec<T> = level.map(T::of).collect();
    let slope: Vec<T> = slope.iter().copied().map(T::of).collect();
    let mut input = Buffer::new(x.len());
    let part = PIECE * channels;
    input.par_chunks_mut(part).zip(x.par_chunks(part).zip(grad.par_chunks(part))).for_each(|(out, (x, grad))| {
        wide(Spread { x, grad, lines: &lines, slope: &slope, level: &level, curve, out });
    });
    Gradients {
        input,
        gamma: gamma_sum.into_iter().map(T::of).collect(),
        beta: beta_sum.into_iter().map(T::of).collect(),
    }
}

struct Reduce<'a, T, C> {
    x: &'a [T],
    grad: &'a [T],
    lines: &'a Lines<T>,
    mean: &'a [T],
    curve: C,
    sums: &'a mut [Vec<T>; 2],
}

impl<T: Real, C: Curve<T>> pulp::WithSimd for Reduce<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let channels = self.mean.len();
        let [plain, weighted] = self.sums;
        let Lines { scale, shift, inverse } = self.lines;
        let (scale, shift, inverse, mean) = (&scale[..channels], &shift[..channels], &inverse[..channels], self.mean);
        let (plain, weighted) = (&mut plain[..channels], &mut weighted[..channels]);
        for (x, grad) in self.x.chunks_exact(channels).zip(self.grad.chunks_exact(channels)) {
            for c in 0..channels {
                let dz = self.curve.through(grad[c], x[c].fma(scale[c], shift[c]));
                plain[c] += dz;
                weighted[c] = dz.fma((x[c] - mean[c]) * inverse[c], weighted[c]);
            }
        }
    }
}

struct Spread<'a, T, C> {
    x: &'a [T],
    grad: &'a [T],
    lines: &'a Lines<T>,
    slope: &'a [T],
    level: &'a [T],
    curve: C,
    out: &'a mut [T],
}

impl<T: Real, C: Curve<T>> pulp::WithSimd for Spread<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let channels = self.slope.len();
        let (scale, shift) = (&self.lines.scale[..channels], &self.lines.shift[..channels]);
        let (slope, level) = (self.slope, &self.level[..channels]);
        let inputs = self.x.chunks_exact(channels).zip(self.grad.chunks_exact(channels));
        for (out, (x, grad)) in self.out.chunks_exact_mut(channels).zip(inputs) {
            for c in 0..channels {
                let dz = self.curve.through(grad[c], x[c].fma(scale[c], shift[c]));
                out[c] = scale[c] * (dz + x[c].fma(slope[c], level[c]));
            }
        }
    }
}
