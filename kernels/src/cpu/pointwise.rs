//! A convolution with one tap whose input and results lie in memory of its caller: a product of pixels and packed weights.

// A number of a register or a row stands for several arrays at once.
#![allow(clippy::needless_range_loop)]

use half::bf16;
use pulp::Simd;

use super::direct::CLASH;
use super::panels::Cut;
use super::tile::{self, PIXELS, Tile};
use super::{Curve, Real, Silu, bfloat, wide};
use crate::geometry::Act;

/// Packed weights.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a, T> {
    /// As [`Cut::pack`] makes them.
    Whole(&'a [T]),
    /// As [`bfloat::pack`] does, for f32 alone.
    Half(&'a [bf16]),
}

/// The convolution, ready to run.
pub(crate) struct Pointwise<'a, T> {
    cut: Cut,
    panels: Panels<'a, T>,
    /// With zeros up to a whole panel.
    bias: Vec<T>,
    act: Act,
}

impl<'a, T: Real> Pointwise<'a, T> {
    /// With weights `[outputs, inputs]` and a bias.
    pub fn new([outputs, inputs]: [usize; 2], panels: Panels<'a, T>, bias: Option<&[T]>, act: Act) -> Self {
        let (cut, len) = match panels {
            Panels::Whole(panels) => (Cut::new::<T>(outputs, inputs), panels.len()),
            Panels::Half(panels) => (bfloat::cut(outputs, inputs), panels.len()),
        };
        assert_eq!(len, cut.len(), "packed weights");
        let mut filled = vec![T::ZERO; cut.filled()];
        if let Some(bias) = bias {
            filled[..cut.outputs].copy_from_slice(bias);
        }
        Pointwise { cut, panels, bias: filled, act }
    }

    pub fn inputs(&self) -> usize {
        self.cut.patch
    }

    pub fn outputs(&self) -> usize {
        self.cut.outputs
    }

    /// The best step from pixel to pixel for an input of `channels`.
    pub fn pitch(channels: usize) -> usize {
        let line = 64 / size_of::<T>();
        let clashes = (channels * size_of::<T>()).is_multiple_of(CLASH);
        if clashes { channels + line } else { channels }
    }

    /// Results of the pixels in `values`, which lie `pitch` apart, side by side; `addend` is added before the activation.
    ///
    /// # Safety
    /// `out` has room for as many pixels, and nobody else uses it meanwhile.
    pub unsafe fn run(&self, values: &[T], pitch: usize, out: *mut T, addend: Option<&[T]>) {
        let pixels = (values.len() + pitch - self.cut.patch) / pitch;
        assert!(pitch >= self.cut.patch && addend.is_none_or(|addend| addend.len() == pixels * self.cut.outputs));
        match self.panels {
            Panels::Whole(panels) => wide(PointwiseRun { layer: self, panels, values, pitch, pixels, out, addend }),
            Panels::Half(panels) => {
                assert!(size_of::<T>() == size_of::<f32>(), "products in bfloat16 of f32");
                let (values, bias) = (bytemuck::cast_slice(values), bytemuck::cast_slice(&self.bias));
                let addend = addend.map(bytemuck::cast_slice);
                // SAFETY: the caller's promise.
                unsafe { bfloat::pointwise(self.cut, panels, bias, self.act, (values, pitch), out.cast(), addend) };
            }
        }
    }
}

struct PointwiseRun<'a, T> {
    layer: &'a Pointwise<'a, T>,
    panels: &'a [T],
    values: &'a [T],
    pitch: usize,
    pixels: usize,
    out: *mut T,
    addend: Option<&'a [T]>,
}

impl<T: Real> pulp::WithSimd for PointwiseRun<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PointwiseRun { layer: Pointwise { cut, bias, act, .. }, panels, values, pitch, pixels, out, addend } = self;
        let outputs = cut.outputs;
        for panel in 0..cut.panels() {
            let (from, width) = cut.span(panel);
            let channels = width.min(outputs - from);
            for at in 0..tile::tiles::<S>(pixels) {
                let (first, count) = tile::tile_of::<S>(at, pixels);
                let values = &values[first * pitch..][..(count - 1) * pitch + cut.patch];
                let mut reads = [[values.as_ptr(); PIXELS]];
                for m in 0..PIXELS {
                    reads[0][m] = values[m.min(count - 1) * pitch..].as_ptr();
                }
                let to = out.wrapping_add(first * outputs + from);
                // Were the number of segments known, the tile's sums would no longer all stay in registers.
                let reads = std::hint::black_box(reads.as_slice());
                let tile = Tile {
                    reads,
                    segment: cut.patch,
                    panel: cut.panel(panels, panel),
                    bias: &bias[from..from + width],
                    count,
                    outputs: channels,
                    out: to,
                    out_pitch: outputs,
                    addend: addend.map_or(std::ptr::null(), |addend| addend[first * outputs + from..].as_ptr()),
                    addend_pitch: outputs,
                    bounds: act.bounds().map(T::of),
                };
                // SAFETY: the slice above has all that is read; `run` checked the addend, and its caller promised the room.
                unsafe { tile.run(simd) };
                if *act == Act::Silu {
                    for m in 0..count {
                        // SAFETY: the values that the tile just wrote.
                        let row = unsafe { std::slice::from_raw_parts_mut(to.wrapping_add(m * outputs), channels) };
                        for value in row {
                            *value = Silu.value(*value);
                        }
                    }
                }
            }
        }
    }
}
