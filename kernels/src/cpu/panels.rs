//! Weights of a dense convolution in the order in which [`super::tile`] reads them.
//!
//! A matrix `[outputs, patch]` is cut into panels of as many outputs as a tile has; a panel holds for each value of a patch
//! its outputs side by side. The last panel is half as wide where that suffices; missing outputs are zeros. The width is
//! that of this machine's vectors, so panels are made when weights are loaded and never stored.

use pulp::Simd;

use super::tile::{self, VECTORS};
use super::{Real, wide};

/// How a matrix of weights is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub outputs: usize,
    pub patch: usize,
    /// Values in a vector of this machine.
    pub lanes: usize,
}

struct LanesOf<T>(std::marker::PhantomData<T>);

impl<T: Real> pulp::WithSimd for LanesOf<T> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        tile::lanes::<T, S>()
    }
}

impl Cut {
    pub fn new<T: Real>(outputs: usize, patch: usize) -> Cut {
        Cut { outputs, patch, lanes: wide(LanesOf::<T>(std::marker::PhantomData)) }
    }

    /// Outputs of a full panel.
    pub fn width(&self) -> usize {
        VECTORS * self.lanes
    }

    /// Outputs with the zeros that fill the last vector.
    pub fn filled(&self) -> usize {
        self.outputs.next_multiple_of(self.lanes)
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(self.width())
    }

    /// Values of all panels.
    pub fn len(&self) -> usize {
        self.filled() * self.patch
    }

    /// First output of a panel and how many it has, filling zeros included.
    pub fn span(&self, panel: usize) -> (usize, usize) {
        let first = panel * self.width();
        (first, self.width().min(self.filled() - first))
    }

    /// A panel's values.
    pub fn panel<'a, T>(&self, panels: &'a [T], panel: usize) -> &'a [T] {
        let (first, width) = self.span(panel);
        &panels[first * self.patch..][..width * self.patch]
    }

    /// Panels of `[outputs, patch]`.
    pub fn pack<T: Real>(&self, weight: &[T]) -> Vec<T> {
        let mut panels = vec![T::ZERO; self.len()];
        for panel in 0..self.panels() {
            let (first, width) = self.span(panel);
            let panel = &mut panels[first * self.patch..][..width * self.patch];
            for (output, weights) in weight.chunks_exact(self.patch).skip(first).take(width).enumerate() {
                for (row, weight) in panel.chunks_exact_mut(width).zip(weights) {
                    row[output] = *weight;
                }
            }
        }
        panels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_every_weight_once_and_zeros_else() {
        for (outputs, patch) in [(1, 1), (5, 3), (32, 7), (33, 2), (100, 9)] {
            let cut = Cut { outputs, patch, lanes: 16 };
            let weight: Vec<f32> = (1..=outputs * patch).map(|value| value as f32).collect();
            let panels = cut.pack(&weight);
            assert_eq!(panels.len(), cut.len());
            let mut seen = 0;
            for panel in 0..cut.panels() {
                let (first, width) = cut.span(panel);
                for (at, value) in cut.panel(&panels, panel).iter().enumerate() {
                    let (value_of_patch, output) = (at / width, first + at % width);
                    let expected = if output < outputs { weight[output * patch + value_of_patch] } else { 0.0 };
                    assert_eq!(*value, expected, "{outputs} x {patch}: output {output}, value {value_of_patch}");
                    seen += usize::from(output < outputs);
                }
            }
            assert_eq!(seen, outputs * patch);
        }
    }
}
