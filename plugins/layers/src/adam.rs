//! What Adam remembers of every weight, by name. Knows no layer.
//!
//! The tensor library has an Adam; it keeps its state by numbers that change from process to process, reads it back onto a
//! device that nobody chose, and has another epsilon. Training that goes on after a crash exactly as if nothing had
//! happened needs names.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use ichd_kernels::{AdamStep, adam};
use ichd_plugin::backbone::Rule;
use ichd_plugin::weights::{Entry, Weights};

use crate::part::{Place, values};

/// As in the paper and in PyTorch.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// Names of what is remembered, in a file of the state.
const MEAN: &str = "mean";
const SQUARE: &str = "square";
const AVERAGE: &str = "average";
const STEPS: &str = "steps";
/// The number of steps is kept in two parts that f32 holds exactly.
const STEPS_PART: u64 = 1 << 20;

/// The optimizer.
#[derive(Default)]
pub(crate) struct Adam {
    steps: u64,
    /// Mean and mean square of the gradients of each weight.
    moments: BTreeMap<String, [Tensor<1>; 2]>,
    /// Gradients since the last step.
    sums: BTreeMap<String, Tensor<1>>,
    /// Moving averages of weights and running statistics.
    averages: BTreeMap<String, Tensor<1>>,
}

impl Adam {
    /// Adds a gradient.
    pub fn add(&mut self, name: &str, grad: Tensor<1>) {
        let sum = match self.sums.remove(name) {
            Some(sum) => sum + grad,
            None => grad,
        };
        self.sums.insert(name.to_owned(), sum);
    }

    /// Takes out the gradients since the last step, in the order of their names.
    pub fn take(&mut self) -> Vec<(String, Tensor<1>)> {
        std::mem::take(&mut self.sums).into_iter().collect()
    }

    /// Begins a step.
    pub fn begin(&mut self) {
        self.steps += 1;
    }

    /// The new values of a weight, or `None` if it had no gradient.
    pub fn update(&mut self, name: &str, weight: Tensor<1>, is_kernel: bool, rule: &Rule) -> Option<Tensor<1>> {
        let grad = self.sums.remove(name)?;
        let [mean, square] =
            self.moments.remove(name).unwrap_or_else(|| [(); 2].map(|()| Tensor::zeros(grad.dims(), &grad.device())));
        let decay = if is_kernel { rule.weight_decay } else { 0.0 };
        let step = AdamStep::new(self.steps, rule.learning_rate, decay, BETAS, EPSILON);
        let [weight, mean, square] = adam(weight, grad, mean, square, &step);
        self.moments.insert(name.to_owned(), [mean, square]);
        Some(weight)
    }

    /// Follows a value with its moving average.
    pub fn follow(&mut self, name: &str, value: Tensor<1>, decay: f64) {
        // At first the average forgets faster: it would remember the beginning for too long.
        let steps = self.steps as f64;
        let decay = decay.min((1.0 + steps) / (10.0 + steps));
        let average = match self.averages.remove(name) {
            Some(average) => average * decay + value * (1.0 - decay),
            None => value,
        };
        self.averages.insert(name.to_owned(), average);
    }

    /// The moving average of a value, if it is followed.
    pub fn average(&self, name: &str) -> Option<Vec<f32>> {
        self.averages.get(name).map(|average| values(average.clone()))
    }

    /// Adds all that is remembered to a file of the state. Gradients since the last step are not.
    pub fn save(&self, state: &mut Weights) {
        let mut put = |word: &str, name: &str, tensor: &Tensor<1>| {
            let values = values(tensor.clone());
            state.insert(format!("{word}/{name}"), vec![values.len()], values);
        };
        for (name, [mean, square]) in &self.moments {
            put(MEAN, name, mean);
            put(SQUARE, name, square);
        }
        for (name, average) in &self.averages {
            put(AVERAGE, name, average);
        }
        let parts = [self.steps / STEPS_PART, self.steps % STEPS_PART].map(|part| part as f32);
        state.insert(STEPS, vec![2], parts.to_vec());
    }

    /// Takes out of a file of the state what [`Adam::save`] put there.
    pub fn restore(state: &mut Weights, place: &Place) -> Adam {
        let names: Vec<String> = state.iter().map(|(name, _)| name.to_owned()).collect();
        let mut take = |word: &str| -> BTreeMap<String, Tensor<1>> {
            let prefix = format!("{word}/");
            let named = names.iter().filter_map(|name| name.strip_prefix(&prefix).map(|rest| (name, rest)));
            let taken = named.filter_map(|(name, rest)| Some((rest.to_owned(), state.remove(name)?)));
            taken.map(|(name, entry)| (name, place.vector(&entry.values).inner())).collect()
        };
        let (means, mut squares, averages) = (take(MEAN), take(SQUARE), take(AVERAGE));
        let pairs = means.into_iter().filter_map(|(name, mean)| Some((name.clone(), [mean, squares.remove(&name)?])));
        let moments = pairs.collect();
        let steps = match state.remove(STEPS) {
            Some(Entry { values, .. }) => match values.as_slice() {
                [high, low] => *high as u64 * STEPS_PART + *low as u64,
                _ => 0,
            },
            None => 0,
        };
        Adam { steps, moments, sums: BTreeMap::new(), averages }
    }
}
