//! What the CPU forms share: numbers, wide vectors, and channels-last views of Burn's CPU tensors.
//!
//! Loops are written plainly over fixed blocks and compiled once for each vector width; [`pulp`] picks at run time.

pub mod conv;
pub mod depthwise;
pub mod norm;
pub mod pool;
pub mod tensors;
pub mod window;

use std::ops::{Add, AddAssign, Mul, Sub};

use burn::tensor::Element;

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
    + Send
    + Sync
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
}

/// Between `low` and `high`; what is not a number stays so.
#[inline(always)]
pub(crate) fn clamp<T: Real>(value: T, [low, high]: [T; 2]) -> T {
    let raised = if value < low { low } else { value };
    if raised > high { high } else { raised }
}

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
