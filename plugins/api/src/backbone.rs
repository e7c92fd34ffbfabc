//! What a backbone is asked to do: score, and learn. Both forms are object-safe.

use burn::tensor::Tensor;

use crate::spec::BackboneSpec;
use crate::weights::{Weights, WeightsError};

/// The form that scores. Its BatchNorms are folded into the convolutions when weights are loaded.
pub trait Backbone: Send {
    /// What it is.
    fn spec(&self) -> &'static BackboneSpec;

    /// Takes weights with exactly the names and shapes of the spec.
    ///
    /// # Errors
    /// Names that are missing or unknown, wrong shapes: all of them.
    fn load(&mut self, weights: &Weights) -> Result<(), WeightsError>;

    /// Images `[n, 3, side, side]`, in any memory order, to logits `[n, 6]` in label order.
    fn forward(&self, images: Tensor<4>) -> Tensor<2>;
}

/// What one pass of training measured.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Mean binary cross-entropy over slices and labels.
    pub loss: f64,
    /// Gradients by weight name.
    pub gradients: Weights,
}

/// The form that learns.
pub trait Trainee: Send {
    /// What it is.
    fn spec(&self) -> &'static BackboneSpec;

    /// Takes weights with exactly the names and shapes of the spec.
    ///
    /// # Errors
    /// As [`Backbone::load`].
    fn load(&mut self, weights: &Weights) -> Result<(), WeightsError>;

    /// Its present weights, BatchNorm statistics included.
    fn weights(&mut self) -> Weights;

    /// Says by weight name which layers learn no more; their BatchNorms keep their statistics too. A layer is frozen
    /// or not as a whole, by the name of its first weight.
    fn freeze(&mut self, is_frozen: &dyn Fn(&str) -> bool);

    /// Scores in evaluation mode: running statistics, no gradient.
    fn forward(&self, images: Tensor<4>) -> Tensor<2>;

    /// One step of Adam on the mean binary cross-entropy of images `[n, 3, side, side]` and targets `[n, 6]`.
    /// Returns the loss before the step.
    fn step(&mut self, images: Tensor<4>, targets: Tensor<2>, learning_rate: f64) -> f64;

    /// Loss and gradients in training mode without a step. BatchNorm's running statistics move, as they do in a step.
    fn gradients(&mut self, images: Tensor<4>, targets: Tensor<2>) -> Pass;
}
