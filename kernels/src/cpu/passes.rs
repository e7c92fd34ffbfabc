//! One pass over channels-last pixels: a line for each channel, an activation, joining.

use super::direct::Source;
use super::pool::Buffer;
use super::threads::each_piece;
use super::{Curve, Real, curved, wide};
use crate::geometry::Act;

/// Values that a thread takes at once.
const PIECE: usize = 32 * 1024;

fn pixels_of_piece(channels: usize) -> usize {
    (PIECE / channels.max(1)).max(1)
}

/// `act(x * slope + level)` with a slope and a level for each channel, or `act(x)` without, of `pixels` pixels.
pub(crate) fn line<T: Real>(
    input: Source<'_, T>,
    pixels: usize,
    channels: usize,
    line: Option<[&[T]; 2]>,
    act: Act,
) -> Buffer<T> {
    let mut out = Buffer::new(pixels * channels);
    let piece = pixels_of_piece(channels);
    each_piece(&mut out, piece * channels, |at, out| {
        let values = &input.values[at * piece * input.pitch..];
        curved!(act, T, curve => wide(Line { values, pitch: input.pitch, channels, line, curve, out }));
    });
    out
}

struct Line<'a, T, C> {
    values: &'a [T],
    pitch: usize,
    channels: usize,
    line: Option<[&'a [T]; 2]>,
    curve: C,
    out: &'a mut [T],
}

impl<T: Real, C: Curve<T>> pulp::WithSimd for Line<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let channels = self.channels;
        for (at, out) in self.out.chunks_exact_mut(channels).enumerate() {
            let values = &self.values[at * self.pitch..][..channels];
            match self.line {
                Some([slope, level]) => {
                    let (slope, level) = (&slope[..channels], &level[..channels]);
                    for c in 0..channels {
                        out[c] = self.curve.value(values[c].fma(slope[c], level[c]));
                    }
                }
                None => {
                    for c in 0..channels {
                        out[c] = self.curve.value(values[c]);
                    }
                }
            }
        }
    }
}

/// Images side by side in their channels: each with its number of channels.
pub(crate) fn join<T: Real>(images: &[(Source<'_, T>, usize)], pixels: usize) -> Buffer<T> {
    let channels: usize = images.iter().map(|(_, channels)| channels).sum();
    let mut out = Buffer::new(pixels * channels);
    let piece = pixels_of_piece(channels);
    each_piece(&mut out, piece * channels, |at, out| {
        for (pixel, out) in (at * piece..).zip(out.chunks_exact_mut(channels)) {
            let mut rest = out;
            for (source, count) in images {
                let (place, behind) = rest.split_at_mut(*count);
                place.copy_from_slice(&source.values[pixel * source.pitch..][..*count]);
                rest = behind;
            }
        }
    });
    out
}

/// Writes images into channels `from..` of wider ones of `pitch` channels.
pub(crate) fn place<T: Real>(images: Source<'_, T>, channels: usize, wider: &mut [T], pitch: usize, from: usize) {
    let piece = pixels_of_piece(channels);
    each_piece(wider, piece * pitch, |at, wider| {
        for (pixel, wider) in (at * piece..).zip(wider.chunks_exact_mut(pitch)) {
            wider[from..from + channels].copy_from_slice(&images.values[pixel * images.pitch..][..channels]);
        }
    });
}
