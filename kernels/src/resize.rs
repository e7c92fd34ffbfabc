//! Filter taps of antialiased bilinear resampling along one axis. Knows no image.

/// Output positions that a GPU's unit takes at once.
pub(crate) const BLOCK: usize = 4;

/// What [`BLOCK`] neighboring output positions read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TapBlock {
    /// First source position of all.
    pub start: usize,
    /// For each source position its weight in each output position.
    pub weights: Vec<[f32; BLOCK]>,
}

/// For each output position the first source position that counts and the weights from there on.
///
/// The filter is a triangle whose half width is the scale when sizes shrink and 1 when they grow; weights are those of
/// `torch.nn.functional.interpolate(mode="bilinear", antialias=True, align_corners=False)`, computed in f64 and rounded
/// once to f32. Equal sizes give a single weight of 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    starts: Vec<usize>,
    weights: Vec<f32>,
    width: usize,
    counts: Vec<usize>,
}

impl Taps {
    /// From `source` samples to `side`, both above 0.
    pub fn new(source: usize, side: usize) -> Taps {
        let scale = source as f64 / side as f64;
        let support = scale.max(1.0);
        let width = support.ceil() as usize * 2 + 1;
        let mut taps = Taps { starts: Vec::new(), weights: vec![0.0; width * side], width, counts: Vec::new() };
        for out in 0..side {
            let center = scale * (out as f64 + 0.5);
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(source);
            let weight = |at: usize| (1.0 - ((at as f64 - center + 0.5) / support).abs()).max(0.0);
            let raw: Vec<f64> = (start..end).map(weight).collect();
            let total: f64 = raw.iter().sum();
            for (slot, weight) in taps.weights[out * width..].iter_mut().zip(&raw) {
                *slot = (weight / total) as f32;
            }
            taps.starts.push(start);
            taps.counts.push(raw.len());
        }
        taps
    }

    /// First source position and weights of an output position.
    pub fn of(&self, out: usize) -> (usize, &[f32]) {
        let from = out * self.width;
        (self.starts[out], &self.weights[from..from + self.counts[out]])
    }

    /// Most source positions of an output position.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for AVX-512"))]
    pub(crate) fn count_max(&self) -> usize {
        self.counts.iter().copied().max().unwrap_or(0)
    }

    /// The taps of [`BLOCK`] neighboring output positions at a time, the last block filled up with positions that count for
    /// nothing.
    #[cfg_attr(not(feature = "cube"), expect(dead_code, reason = "for GPUs"))]
    pub(crate) fn blocks(&self) -> impl Iterator<Item = TapBlock> {
        (0..self.len()).step_by(BLOCK).map(|first| {
            let outs = first..self.len().min(first + BLOCK);
            let start = outs.clone().map(|out| self.starts[out]).min().unwrap_or(0);
            let end = outs.clone().map(|out| self.starts[out] + self.counts[out]).max().unwrap_or(start);
            let mut weights = vec![[0.0; BLOCK]; end - start];
            for (lane, out) in outs.enumerate() {
                let (from, taps) = self.of(out);
                for (weight, tap) in weights[from - start..].iter_mut().zip(taps) {
                    weight[lane] = *tap;
                }
            }
            TapBlock { start, weights }
        })
    }

    /// Number of output positions.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sizes_pass_through() {
        let taps = Taps::new(7, 7);
        for out in 0..7 {
            let (start, weights) = taps.of(out);
            let picked: Vec<(usize, f32)> =
                weights.iter().enumerate().map(|(k, w)| (start + k, *w)).filter(|(_, w)| *w != 0.0).collect();
            assert_eq!(picked, [(out, 1.0)]);
        }
    }

    #[test]
    fn weights_add_up_to_one_and_stay_inside() {
        for (source, side) in [(512, 224), (1, 9), (9, 1), (37, 224), (224, 223), (3, 2)] {
            let taps = Taps::new(source, side);
            assert_eq!(taps.len(), side);
            for out in 0..side {
                let (start, weights) = taps.of(out);
                let total: f32 = weights.iter().sum();
                assert!((total - 1.0).abs() < 1e-6 && start + weights.len() <= source, "{source} to {side} at {out}");
            }
        }
    }
}
