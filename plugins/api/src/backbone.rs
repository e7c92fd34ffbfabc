//! What a backbone is asked to do: score, and learn. Both forms are object-safe.

use burn::tensor::Tensor;

use crate::spec::{BackboneSpec, Precision};
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

/// How a step of the optimizer (Adam with decoupled weight decay) moves the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay of kernels; biases and BatchNorms have none.
    pub weight_decay: f64,
    /// Share of the old value in the moving average of all weights; no average is kept if `None`.
    pub average_decay: Option<f64>,
}

impl Default for Rule {
    /// The report's: plain Adam at 1e-4.
    fn default() -> Self {
        Rule { learning_rate: 1e-4, weight_decay: 0.0, average_decay: None }
    }
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

    /// The moving average of all weights, BatchNorm statistics included, if one is kept.
    fn averaged(&mut self) -> Option<Weights>;

    /// Everything that the next steps depend on: weights, the optimizer's memory, moving averages.
    fn state(&mut self) -> Weights;

    /// Takes what [`Trainee::state`] gave: learning goes on as if it had not been interrupted.
    ///
    /// # Errors
    /// As [`Backbone::load`].
    fn restore(&mut self, state: &Weights) -> Result<(), WeightsError>;

    /// The type of number of the convolutions' products while it learns. Weights, BatchNorms, loss and all sums stay f32.
    fn mix(&mut self, precision: Precision);

    /// Adds `share` times the gradients of a batch: images `[n, windows, side, side]`, targets `[n, 6]`, and what each of
    /// them weighs, `[n, 6]` or `[1, 6]`. Returns the batch's loss, the mean of the weighted losses of all slices and
    /// labels, on the device: reading it waits for the device.
    fn accumulate(&mut self, images: Tensor<4>, targets: Tensor<2>, weights: Tensor<2>, share: f64) -> Tensor<1>;

    /// Moves the weights by the gradients that were added since the last time.
    fn apply(&mut self, rule: &Rule);

    /// Takes out the gradients that were added since the last step, by weight name, always in the same order.
    fn take_gradients(&mut self) -> Vec<(String, Tensor<1>)>;

    /// Adds gradients as [`Trainee::take_gradients`] gives them, from any device.
    fn add_gradients(&mut self, gradients: Vec<(String, Tensor<1>)>);

    /// One step of Adam on the mean binary cross-entropy of images `[n, 3, side, side]` and targets `[n, 6]`.
    /// Returns the loss before the step.
    fn step(&mut self, images: Tensor<4>, targets: Tensor<2>, learning_rate: f64) -> f64;

    /// Loss and gradients in training mode without a step. BatchNorm's running statistics move, as they do in a step.
    fn gradients(&mut self, images: Tensor<4>, targets: Tensor<2>) -> Pass;
}
