//! The innermost loop of dense convolution: a few pixels by a few vectors of output channels, all sums in registers.
//!
//! Written over [`pulp`]'s vectors rather than plain arrays, because here the number of registers decides the shape.

// A number of a register or a row stands for several arrays at once.
#![allow(clippy::needless_range_loop)]

use pulp::Simd;

use super::Real;
use crate::geometry::Act;

/// The vectors of a number type.
pub trait Lanes: Sized {
    /// A vector of the width that `S` has.
    type Vector<S: Simd>: Copy;
    /// The same value everywhere.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    /// `a * b + c`, rounded once.
    fn fused<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// Sum.
    fn sum<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// Difference.
    fn difference<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// Product.
    fn product<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The larger one. What is not a number counts as larger.
    fn larger<S: Simd>(simd: S, so_far: Self::Vector<S>, value: Self::Vector<S>) -> Self::Vector<S>;
    /// Between the bounds; what is not a number stays so.
    fn clamp<S: Simd>(simd: S, value: Self::Vector<S>, low: Self::Vector<S>, high: Self::Vector<S>) -> Self::Vector<S>;
}

macro_rules! lanes {
    ($T:ty, $vector:ident, $splat:ident, $fma:ident, $add:ident, $sub:ident, $mul:ident, $less:ident, $greater:ident,
     $equal:ident, $select:ident, $max:ident, $min:ident) => {
        impl Lanes for $T {
            type Vector<S: Simd> = S::$vector;
            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: $T) -> S::$vector {
                simd.$splat(value)
            }
            #[inline(always)]
            fn fused<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$fma(a, b, c)
            }
            #[inline(always)]
            fn sum<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn difference<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn product<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn larger<S: Simd>(simd: S, so_far: S::$vector, value: S::$vector) -> S::$vector {
                let larger = simd.$select(simd.$greater(value, so_far), value, so_far);
                // Only what is not a number differs from itself.
                simd.$select(simd.$equal(value, value), larger, value)
            }
            #[inline(always)]
            fn clamp<S: Simd>(simd: S, value: S::$vector, low: S::$vector, high: S::$vector) -> S::$vector {
                if lanes::<$T, S>() == 1 || cfg!(not(target_arch = "x86_64")) {
                    // Comparisons with what is not a number are false on every machine; a maximum is not.
                    let raised = simd.$select(simd.$less(value, low), low, value);
                    return simd.$select(simd.$greater(raised, high), high, raised);
                }
                // These vectors take the second of the two where one is not a number (Intel's manual, MAXPS and MINPS).
                simd.$min(high, simd.$max(low, value))
            }
        }
    };
}

lanes!(
    f32,
    f32s,
    splat_f32s,
    mul_add_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    less_than_f32s,
    greater_than_f32s,
    equal_f32s,
    select_f32s,
    max_f32s,
    min_f32s
);
lanes!(
    f64,
    f64s,
    splat_f64s,
    mul_add_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    less_than_f64s,
    greater_than_f64s,
    equal_f64s,
    select_f64s,
    max_f64s,
    min_f64s
);

/// Values in a vector.
pub(crate) const fn lanes<T: Lanes, S: Simd>() -> usize {
    size_of::<T::Vector<S>>() / size_of::<T>()
}

/// Vectors of output channels in a tile.
pub(crate) const VECTORS: usize = 2;

/// The most pixels in a tile on any machine.
pub(crate) const PIXELS: usize = 14;

/// The most pixels in a tile: [`VECTORS`] sums for each, the weights and one more must fit the registers.
pub(crate) const fn pixels<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { PIXELS } else { 6 }
}

/// How many tiles a block of `count` pixels has. All but the last are full: a tile costs what the next size that there is
/// costs, and a small one little.
#[inline(always)]
pub(crate) const fn tiles<S: Simd>(count: usize) -> usize {
    count.div_ceil(pixels::<S>())
}

/// First pixel and number of pixels of such a tile.
#[inline(always)]
pub(crate) const fn tile_of<S: Simd>(tile: usize, count: usize) -> (usize, usize) {
    let (first, most) = (tile * pixels::<S>(), pixels::<S>());
    (first, if count - first < most { count - first } else { most })
}

/// Where the pixels of a tile read one segment of their patches.
pub(crate) type Reads<T> = [*const T; PIXELS];

/// A tile of the product and what follows it.
pub(crate) struct Tile<'a, T> {
    /// For each segment, where it begins for each pixel. Places behind `count` repeat the last pixel.
    pub reads: &'a [Reads<T>],
    /// Values of a segment.
    pub segment: usize,
    /// Weights: for each value of a patch a row of the tile's output channels.
    pub panel: &'a [T],
    /// Starting values of the sums, as many as a row of the panel has.
    pub bias: &'a [T],
    /// Pixels.
    pub count: usize,
    /// Output channels, no more than a row of the panel has.
    pub outputs: usize,
    /// Result of the first pixel, and the step from pixel to pixel.
    pub out: *mut T,
    pub out_pitch: usize,
    /// What is added to it, or null, and its step.
    pub addend: *const T,
    pub addend_pitch: usize,
    /// Bounds of the result.
    pub bounds: [T; 2],
}

impl<T: Real> Tile<'_, T> {
    /// Computes the tile.
    ///
    /// # Safety
    /// Every pointer of `reads` has `segment` readable values; `out` and `addend` (if not null) have `count` rows of
    /// `outputs` values at their pitch, and nobody else uses those of `out` meanwhile.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(&self, simd: S) {
        let width = lanes::<T, S>();
        let rows = self.reads.len() * self.segment;
        let narrow = self.bias.len() == width;
        assert!(self.panel.len() >= rows * self.bias.len() && self.outputs <= self.bias.len(), "panel of a tile");
        assert!(narrow || self.bias.len() == VECTORS * width, "width of a panel");
        assert!(self.count <= pixels::<S>(), "pixels of a tile");
        // SAFETY: sizes were checked here, pointers are the caller's promise.
        unsafe {
            match (self.count, narrow) {
                (..=1, false) => self.sized::<S, 1, VECTORS>(simd),
                (2, false) => self.sized::<S, 2, VECTORS>(simd),
                (3..=4, false) => self.sized::<S, 4, VECTORS>(simd),
                (5..=6, false) => self.sized::<S, 6, VECTORS>(simd),
                (7..=8, false) => self.sized::<S, 8, VECTORS>(simd),
                (9..=10, false) => self.sized::<S, 10, VECTORS>(simd),
                (11..=12, false) => self.sized::<S, 12, VECTORS>(simd),
                (_, false) => self.sized::<S, PIXELS, VECTORS>(simd),
                (..=1, true) => self.sized::<S, 1, 1>(simd),
                (2..=4, true) => self.sized::<S, 4, 1>(simd),
                (5..=8, true) => self.sized::<S, 8, 1>(simd),
                (_, true) => self.sized::<S, PIXELS, 1>(simd),
            }
        }
    }

    /// For `M` pixels and `V` vectors of output channels.
    #[inline(always)]
    unsafe fn sized<S: Simd, const M: usize, const V: usize>(&self, simd: S) {
        if M > pixels::<S>().next_multiple_of(4) {
            // Never asked for on a machine with so few registers; this keeps the code from being made.
            return;
        }
        let width = lanes::<T, S>();
        let zero = T::splat(simd, T::ZERO);
        // Plain loops throughout: a helper that is not inlined would be compiled without the wide vectors.
        // SAFETY: `run` checked panel and bias, its caller promises the rest.
        unsafe {
            let mut start = [zero; V];
            for v in 0..V {
                start[v] = load::<T, S>(self.bias.as_ptr().add(v * width));
            }
            let mut sums = [start; M];
            let mut panel = self.panel.as_ptr();
            for reads in self.reads {
                let mut from = [reads[0]; M];
                from.copy_from_slice(&reads[..M]);
                for k in 0..self.segment {
                    let mut weights = [zero; V];
                    for v in 0..V {
                        weights[v] = load::<T, S>(panel.add(v * width));
                    }
                    panel = panel.add(V * width);
                    for m in 0..M {
                        let value = T::splat(simd, *from[m].add(k));
                        for v in 0..V {
                            sums[m][v] = T::fused(simd, value, weights[v], sums[m][v]);
                        }
                    }
                }
            }
            if self.count == M && self.outputs == V * width {
                // The usual case, straight from the registers. One thing a loop: longer ones are not unrolled.
                if !self.addend.is_null() {
                    for m in 0..M {
                        for v in 0..V {
                            let addend = load::<T, S>(self.addend.wrapping_add(m * self.addend_pitch + v * width));
                            sums[m][v] = T::sum(simd, sums[m][v], addend);
                        }
                    }
                }
                let [low, high] = self.bounds.map(|bound| T::splat(simd, bound));
                if self.bounds != Act::Linear.bounds().map(T::of) {
                    for m in 0..M {
                        for v in 0..V {
                            sums[m][v] = T::clamp(simd, sums[m][v], low, high);
                        }
                    }
                }
                for m in 0..M {
                    for v in 0..V {
                        let out = self.out.wrapping_add(m * self.out_pitch + v * width);
                        out.cast::<T::Vector<S>>().write_unaligned(sums[m][v]);
                    }
                }
                return;
            }
            // A copy in memory: the sums themselves are only ever indexed by constants, so that they stay in registers.
            let mut done = [[zero; V]; M];
            for m in 0..M {
                for v in 0..V {
                    done[m][v] = sums[m][v];
                }
            }
            for (m, sums) in done.iter().enumerate().take(self.count) {
                for (v, sum) in sums.iter().enumerate() {
                    self.finish::<S>(simd, sum, m, v * width);
                }
            }
        }
    }

    /// Writes the sums of one vector of output channels from `channel` on of pixel `m`.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, simd: S, sum: &T::Vector<S>, m: usize, channel: usize) {
        let left = self.outputs.saturating_sub(channel).min(lanes::<T, S>());
        let out = self.out.wrapping_add(m * self.out_pitch + channel);
        let addend = match self.addend.is_null() {
            true => std::ptr::null(),
            false => self.addend.wrapping_add(m * self.addend_pitch + channel),
        };
        // SAFETY: `left` values from `channel` on are inside the rows that the caller of `run` promises.
        unsafe { finish(simd, sum, left, out, addend, self.bounds) };
    }
}

/// Writes the first `left` values of a vector, with an addend (or null) and between the bounds.
///
/// # Safety
/// `out` and `addend` have `left` values.
#[inline(always)]
pub(crate) unsafe fn finish<T: Real, S: Simd>(
    simd: S,
    sum: &T::Vector<S>,
    left: usize,
    out: *mut T,
    addend: *const T,
    bounds: [T; 2],
) {
    // SAFETY: only the first `left` values are touched unless they are a whole vector.
    unsafe {
        if left == lanes::<T, S>() {
            let sum = if addend.is_null() { *sum } else { T::sum(simd, *sum, load::<T, S>(addend)) };
            let [low, high] = bounds;
            let value = T::clamp(simd, sum, T::splat(simd, low), T::splat(simd, high));
            out.cast::<T::Vector<S>>().write_unaligned(value);
            return;
        }
        let values = (&raw const *sum).cast::<T>();
        for lane in 0..left {
            let more = if addend.is_null() { T::ZERO } else { *addend.add(lane) };
            *out.add(lane) = super::clamp(*values.add(lane) + more, bounds);
        }
    }
}

/// A vector from anywhere.
///
/// # Safety
/// A whole vector of values is there.
#[inline(always)]
pub(crate) unsafe fn load<T: Lanes, S: Simd>(from: *const T) -> T::Vector<S> {
    // SAFETY: the caller promises a whole vector of values there, and vectors are plain numbers.
    unsafe { from.cast::<T::Vector<S>>().read_unaligned() }
}
