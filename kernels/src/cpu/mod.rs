//! What the CPU forms share: numbers, wide vectors, and channels-last views of Burn's CPU tensors.
//!
//! Loops are written plainly over fixed blocks and compiled once for each vector width; [`pulp`] picks at run time.

pub mod adam;
#[cfg(target_arch = "x86_64")]
pub mod bfloat;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_bfloat.rs"]
pub mod bfloat;
pub mod chain;
pub mod conv;
pub mod depthwise;
pub mod depthwise_weights;
pub mod direct;
pub mod norm;
pub mod panels;
pub mod passes;
pub mod pointwise;
pub mod pool;
pub mod pools;
pub mod tensors;
pub mod threads;
pub mod tile;
pub mod window;
pub mod winograd;

use std::ops::{Add, AddAssign, Div, Mul, Sub};

use burn::tensor::Element;

pub(crate) use self::threads::alone;

/// f32, or f64 where exactness is tested.
pub trait Real:
    Element
    + bytemuck::Pod
    + Default
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Send
    + Sync
    + tile::Lanes
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// `self * factor + addend`, rounded once.
    fn fma(self, factor: Self, addend: Self) -> Self;
    /// Nearest value.
    fn of(value: f64) -> Self;
    /// Exact.
    fn wide(self) -> f64;
    /// 1 / (1 + exp(-self)).
    fn sigmoid(self) -> Self;
    /// Square root.
    fn root(self) -> Self;
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    #[inline(always)]
    fn fma(self, factor: f32, addend: f32) -> f32 {
        self.mul_add(factor, addend)
    }
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    /// Off by three roundings at most. Only operations that fill vectors: exp by splitting off a power of 2, whose
    /// exponent is read from the low bits of a sum with a large constant.
    #[inline(always)]
    fn sigmoid(self) -> f32 {
        const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number.
        const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4]; // In two parts, the first with few digits.
        // Taylor's series; the next term is 5e-9 of the sum.
        const SERIES: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        let power = clamp(-self, [-87.0, 88.0]);
        let shifted = power.mul_add(std::f32::consts::LOG2_E, MAGIC);
        let whole = shifted - MAGIC;
        let rest = whole.mul_add(-LN_2[1], whole.mul_add(-LN_2[0], power));
        let mut exp = SERIES[0];
        for term in &SERIES[1..] {
            exp = exp.mul_add(rest, *term);
        }
        let two_to_whole = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
        1.0 / exp.mul_add(two_to_whole, 1.0)
    }
    #[inline(always)]
    fn root(self) -> f32 {
        self.sqrt()
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    #[inline(always)]
    fn fma(self, factor: f64, addend: f64) -> f64 {
        self.mul_add(factor, addend)
    }
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sigmoid(self) -> f64 {
        1.0 / (1.0 + (-self).exp())
    }
    #[inline(always)]
    fn root(self) -> f64 {
        self.sqrt()
    }
}

/// Between `low` and `high`; what is not a number stays so.
#[inline(always)]
pub(crate) fn clamp<T: Real>(value: T, [low, high]: [T; 2]) -> T {
    let raised = if value < low { low } else { value };
    if raised > high { high } else { raised }
}

/// An activation in the inner loops.
pub(crate) trait Curve<T>: Copy + Send + Sync {
    /// Its value.
    fn value(self, z: T) -> T;
    /// `grad` times its slope. A value at a bound counts as cut off, as in PyTorch.
    fn through(self, grad: T, z: T) -> T;
}

/// Identity, ReLU and ReLU6.
#[derive(Clone, Copy)]
pub(crate) struct Clamp<T>(pub [T; 2]);

impl<T: Real> Curve<T> for Clamp<T> {
    #[inline(always)]
    fn value(self, z: T) -> T {
        clamp(z, self.0)
    }

    #[inline(always)]
    fn through(self, grad: T, z: T) -> T {
        let [low, high] = self.0;
        if z > low && z < high { grad } else { T::ZERO }
    }
}

/// SiLU.
#[derive(Clone, Copy)]
pub(crate) struct Silu;

impl<T: Real> Curve<T> for Silu {
    #[inline(always)]
    fn value(self, z: T) -> T {
        z * z.sigmoid()
    }

    #[inline(always)]
    fn through(self, grad: T, z: T) -> T {
        let s = z.sigmoid();
        grad * (s + z * s * (T::ONE - s))
    }
}

/// Runs `$body` with `$curve` as the activation `$act` over numbers of type `$T`.
macro_rules! curved {
    ($act:expr, $T:ty, $curve:ident => $body:expr) => {
        match $act {
            $crate::geometry::Act::Silu => {
                let $curve = $crate::cpu::Silu;
                $body
            }
            clamped => {
                let $curve = $crate::cpu::Clamp(clamped.bounds().map(<$T as $crate::cpu::Real>::of));
                $body
            }
        }
    };
}
pub(crate) use curved;

/// Runs `op` compiled for the widest vectors that this CPU has.
#[inline]
pub(crate) fn wide<Op: pulp::WithSimd>(op: Op) -> Op::Output {
    pulp::Arch::new().dispatch(op)
}

/// Channels that a loop takes at once: one cache line of f32.
pub(crate) const BLOCK: usize = 16;

/// First channels of the blocks that cover `channels`, at least [`BLOCK`]. The last one may overlap the one before, so
/// results must be written, not added to.
#[inline(always)]
pub(crate) fn blocks(channels: usize) -> impl Iterator<Item = usize> {
    (0..channels).step_by(BLOCK).map(move |at| at.min(channels - BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_sigmoid_is_as_good_as_f32_allows() {
        let mut worst: f64 = 0.0;
        for at in -400_000..400_000i32 {
            let x = at as f32 / 4000.0;
            let expected = f64::from(x).sigmoid();
            worst = worst.max((f64::from(x.sigmoid()) - expected).abs() / expected.max(1e-30));
        }
        assert!(worst < 3.0 * f64::from(f32::EPSILON), "off by {worst:e}");
        assert!(f32::NAN.sigmoid().is_nan());
        assert_eq!([f32::INFINITY.sigmoid(), f32::MAX.sigmoid()], [1.0, 1.0]);
        // Far out it stays at the least power of 2 that it can make.
        assert!(f32::NEG_INFINITY.sigmoid() < 1e-37);
        assert!(<Silu as Curve<f32>>::value(Silu, f32::MIN).abs() < 1e3);
    }
}
