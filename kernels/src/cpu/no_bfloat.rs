//! Stands for products in bfloat16 where no processor has them.

use half::bf16;

use super::direct::Product;
use super::panels::Cut;
use crate::geometry::Act;

pub(crate) fn is_here() -> bool {
    false
}

pub(crate) fn suits(_: usize) -> bool {
    false
}

pub(crate) fn cut(outputs: usize, patch: usize) -> Cut {
    Cut { outputs, patch, lanes: 1 }
}

pub(crate) fn pack(_: &Cut, _: &[f32]) -> Vec<bf16> {
    unreachable!("`suits` said so")
}

pub(crate) fn run(_: &Product<'_, f32, bf16>, _: &mut [f32]) {
    unreachable!("`suits` said so")
}

/// # Safety
/// None is needed: it is never called.
pub(crate) unsafe fn pointwise(
    _: Cut,
    _: &[bf16],
    _: &[f32],
    _: Act,
    _: (&[f32], usize),
    _: *mut f32,
    _: Option<&[f32]>,
) {
    unreachable!("`suits` said so")
}
