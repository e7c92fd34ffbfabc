//! Where a convolution's kernel lies on its input: kernel, stride and padding, and what follows it.

/// What follows a convolution or a normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Nothing.
    Linear,
    /// max(x, 0).
    Relu,
    /// x between 0 and 6.
    Relu6,
    /// x / (1 + exp(-x)) (Elfwing, Uchibe, Doya 2017, arXiv 1702.03118), also called swish.
    Silu,
}

impl Act {
    /// All but SiLU are clamps; these are the bounds. SiLU has none.
    pub fn bounds(self) -> [f64; 2] {
        match self {
            Act::Linear | Act::Silu => [f64::NEG_INFINITY, f64::INFINITY],
            Act::Relu => [0.0, f64::INFINITY],
            Act::Relu6 => [0.0, 6.0],
        }
    }
}

/// Kernel, stride and padding in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plane {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps down and across.
    pub stride: [usize; 2],
    /// Zeros above, left, below, right.
    pub padding: [usize; 4],
}

impl Plane {
    /// A square kernel of odd side with PyTorch's usual padding of `(side - 1) / 2` on every side.
    pub fn square(side: usize, stride: usize) -> Plane {
        Plane { kernel: [side; 2], stride: [stride; 2], padding: [(side - 1) / 2; 4] }
    }

    /// Height and width of the output, or `None` where the kernel does not fit the padded input once.
    pub fn output(&self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let [top, left, bottom, right] = self.padding;
        let along = |size: usize, pads: usize, kernel: usize, stride: usize| {
            (size + pads).checked_sub(kernel).filter(|_| kernel > 0 && stride > 0).map(|room| room / stride + 1)
        };
        let down = along(height, top + bottom, self.kernel[0], self.stride[0])?;
        let across = along(width, left + right, self.kernel[1], self.stride[1])?;
        (height > 0 && width > 0).then_some([down, across])
    }

    /// As [`Plane::output`] for callers whose shapes are known to fit.
    ///
    /// # Panics
    /// The kernel does not fit.
    pub(crate) fn must_output(&self, size: [usize; 2]) -> [usize; 2] {
        self.output(size).unwrap_or_else(|| panic!("a convolution {self:?} does not fit an input of {size:?}"))
    }

    /// Whether each output pixel looks at exactly the input pixel of the same place.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0; 4]
    }

    /// For each output row (`axis` 0) or column (1): what it reads of an input of `size`.
    pub(crate) fn reads(&self, axis: usize, size: usize, n_out: usize) -> Vec<Span> {
        let (kernel, stride, pad) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
        let span = |out: usize| {
            let tap = pad.saturating_sub(out * stride).min(kernel);
            let end = (size + pad).saturating_sub(out * stride).min(kernel);
            Span { from: (out * stride + tap).saturating_sub(pad), count: end.saturating_sub(tap), tap, tap_down: None }
        };
        (0..n_out).map(span).collect()
    }

    /// For each input row or column: which of the `n_out` outputs read it, and with which tap.
    pub(crate) fn readers(&self, axis: usize, size: usize, n_out: usize) -> Vec<Span> {
        let (kernel, stride, pad) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
        let span = |at: usize| {
            // out * stride + tap = at + pad with 0 <= tap < kernel
            let place = at + pad;
            let from = (place + 1).saturating_sub(kernel).div_ceil(stride);
            let end = (place / stride + 1).min(n_out);
            Span {
                from,
                count: end.saturating_sub(from),
                tap: place.saturating_sub(from * stride),
                tap_down: Some(stride),
            }
        };
        (0..size).map(span).collect()
    }
}

/// A run of neighboring source positions and the kernel taps that belong to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First source position.
    pub from: usize,
    /// Number of positions, possibly 0.
    pub count: usize,
    /// Tap of the first position.
    pub tap: usize,
    /// By how much the tap falls from position to position; `None`: it rises by 1.
    pub tap_down: Option<usize>,
}

impl Span {
    /// Source positions and taps.
    #[inline(always)]
    pub fn pairs(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).map(move |k| {
            let tap = match self.tap_down {
                None => self.tap + k,
                Some(step) => self.tap - k * step,
            };
            (self.from + k, tap)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_pytorch() {
        assert_eq!(Plane::square(3, 1).output([224, 224]), Some([224, 224]));
        assert_eq!(Plane::square(3, 2).output([224, 225]), Some([112, 113]));
        assert_eq!(Plane::square(5, 2).output([1, 2]), Some([1, 1]));
        let same = Plane { kernel: [3, 3], stride: [2, 2], padding: [0, 0, 1, 1] };
        assert_eq!(same.output([224, 7]), Some([112, 3]));
        assert_eq!(Plane { padding: [0; 4], ..Plane::square(3, 1) }.output([2, 9]), None);
    }

    #[test]
    fn reads_and_readers_are_the_same_pairs() {
        for (kernel, stride, padding, size) in [
            (3, 1, [1, 1], 7),
            (3, 2, [0, 1], 8),
            (5, 2, [2, 2], 9),
            (5, 3, [1, 4], 4),
            (1, 2, [0, 0], 5),
            (7, 1, [6, 6], 1),
        ] {
            let plane = Plane {
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [padding[0], padding[0], padding[1], padding[1]],
            };
            let [n_out, _] = plane.output([size; 2]).expect("it fits");
            let all = |spans: Vec<Span>, swap: bool| {
                let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
                for (at, span) in spans.into_iter().enumerate() {
                    pairs.extend(
                        span.pairs().map(|(other, tap)| if swap { (other, at, tap) } else { (at, other, tap) }),
                    );
                }
                pairs.sort_unstable();
                pairs
            };
            let mut expected = Vec::new();
            for out in 0..n_out {
                for tap in 0..kernel {
                    if let Some(at) = (out * stride + tap).checked_sub(padding[0]).filter(|at| *at < size) {
                        expected.push((out, at, tap));
                    }
                }
            }
            expected.sort_unstable();
            assert_eq!(all(plane.reads(0, size, n_out), false), expected, "{plane:?}");
            assert_eq!(all(plane.readers(0, size, n_out), true), expected, "{plane:?}");
        }
    }
}
