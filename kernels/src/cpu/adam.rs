//! One step of Adam over a tensor's values in one pass.

use rayon::prelude::*;

use super::pool::Buffer;
use super::{Real, wide};

/// A step of Adam with decoupled weight decay (Kingma, Ba 2014, arXiv 1412.6980; Loshchilov, Hutter 2017,
/// arXiv 1711.05101), as PyTorch's AdamW computes it:
///
/// mean = b1 mean + (1 - b1) g, square = b2 square + (1 - b2) g^2,
/// w = w (1 - shrink) - rate * mean / (sqrt(square) * root + epsilon).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Share of the old mean that stays.
    pub beta_1: f64,
    /// Share of the old mean square that stays.
    pub beta_2: f64,
    /// Keeps the quotient finite.
    pub epsilon: f64,
    /// Learning rate over 1 - b1^t.
    pub rate: f64,
    /// 1 / sqrt(1 - b2^t).
    pub root: f64,
    /// Learning rate times weight decay.
    pub shrink: f64,
}

impl AdamStep {
    /// Step number `step`, from 1.
    pub fn new(step: u64, learning_rate: f64, weight_decay: f64, [beta_1, beta_2]: [f64; 2], epsilon: f64) -> AdamStep {
        let left = |beta: f64| 1.0 - beta.powf(step as f64);
        AdamStep {
            beta_1,
            beta_2,
            epsilon,
            rate: learning_rate / left(beta_1),
            root: 1.0 / left(beta_2).sqrt(),
            shrink: learning_rate * weight_decay,
        }
    }
}

/// Values that a thread takes at once.
const PIECE: usize = 16 * 1024;

/// New weights, means and mean squares.
pub(crate) fn step<T: Real>(rule: &AdamStep, weight: &[T], grad: &[T], mean: &[T], square: &[T]) -> [Buffer<T>; 3] {
    let [mut new_weight, mut new_mean, mut new_square] = [(); 3].map(|()| Buffer::new(weight.len()));
    let out = new_weight.par_chunks_mut(PIECE).zip(new_mean.par_chunks_mut(PIECE));
    let out = out.zip(new_square.par_chunks_mut(PIECE));
    let old = weight.par_chunks(PIECE).zip(grad.par_chunks(PIECE));
    let old = old.zip(mean.par_chunks(PIECE).zip(square.par_chunks(PIECE)));
    out.zip(old).for_each(|(((new_weight, new_mean), new_square), ((weight, grad), (mean, square)))| {
        wide(Piece { rule, old: [weight, grad, mean, square], new: [new_weight, new_mean, new_square] });
    });
    [new_weight, new_mean, new_square]
}

struct Piece<'a, T> {
    rule: &'a AdamStep,
    /// Weights, gradients, means, mean squares.
    old: [&'a [T]; 4],
    /// Weights, means, mean squares.
    new: [&'a mut [T]; 3],
}

impl<T: Real> pulp::WithSimd for Piece<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let AdamStep { beta_1, beta_2, epsilon, rate, root, shrink } = *self.rule;
        let [keep_1, take_1, keep_2, take_2] = [beta_1, 1.0 - beta_1, beta_2, 1.0 - beta_2].map(T::of);
        let [epsilon, rate, root, stay] = [epsilon, rate, root, 1.0 - shrink].map(T::of);
        let [weight, grad, mean, square] = self.old;
        let [new_weight, new_mean, new_square] = self.new;
        let n = new_weight.len();
        let (weight, grad, mean, square) = (&weight[..n], &grad[..n], &mean[..n], &square[..n]);
        let (new_mean, new_square) = (&mut new_mean[..n], &mut new_square[..n]);
        for at in 0..n {
            let m = mean[at] * keep_1 + grad[at] * take_1;
            let v = square[at] * keep_2 + grad[at] * grad[at] * take_2;
            new_mean[at] = m;
            new_square[at] = v;
            new_weight[at] = weight[at] * stay - rate * (m / (v.root() * root + epsilon));
        }
    }
}
