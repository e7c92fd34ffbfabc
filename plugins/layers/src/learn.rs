//! The form that learns. Knows no particular network.

use burn::tensor::activation::relu;
use burn::tensor::{Device, FloatDType, Tensor};
use ichd_plugin::backbone::{Pass, Rule, Trainee};
use ichd_plugin::spec::{BackboneSpec, Precision, Variant};
use ichd_plugin::weights::{Entry, Weights, WeightsError};

use crate::adam::Adam;
use crate::forms::{Network, channels_last, load};
use crate::part::{Part, Place, values};

/// Makes it.
pub fn training<N: Network>(spec: &'static BackboneSpec, device: &Device, variant: Variant) -> Box<dyn Trainee> {
    let device = device.clone().autodiff();
    let place = Place::of_learning(device.clone());
    Box::new(Training { network: N::new(&device, variant), spec, variant, place, adam: Adam::default() })
}

struct Training<N> {
    network: N,
    spec: &'static BackboneSpec,
    variant: Variant,
    place: Place,
    adam: Adam,
}

impl<N: Network> Training<N> {
    /// Weighted mean of the binary cross-entropy on logits, in the form that cannot overflow:
    /// max(x, 0) - x y + log(1 + exp(-|x|)).
    fn loss(&self, images: Tensor<4>, targets: Tensor<2>, weights: Option<Tensor<2>>) -> Tensor<1> {
        let logits = self.network.forward(channels_last(images.to_device(&self.place.device)));
        let targets = targets.to_device(&self.place.device);
        let softplus = (logits.clone().abs().neg().exp() + 1.0).log();
        let losses = relu(logits.clone()) - logits * targets + softplus;
        match weights {
            Some(weights) => (losses * weights.to_device(&self.place.device)).mean(),
            None => losses.mean(),
        }
    }

    /// Adds `share` times the gradients of a loss to those of the step.
    fn add_loss(&mut self, loss: &Tensor<1>, share: f64) {
        let mut all = (loss.clone() * share).backward();
        for mut layer in self.network.layers() {
            for (name, slot) in layer.slots() {
                if let Some(grad) = slot.take_gradient(&mut all) {
                    self.adam.add(&name, grad);
                }
            }
        }
    }
}

fn scalar(loss: &Tensor<1>) -> f64 {
    values(loss.clone()).first().map_or(f64::NAN, |value| f64::from(*value))
}

/// Prefix of weights in a file of the state.
const WEIGHT: &str = "weight/";

impl<N: Network> Trainee for Training<N> {
    fn spec(&self) -> &'static BackboneSpec {
        self.spec
    }

    fn load(&mut self, weights: &Weights) -> Result<(), WeightsError> {
        self.adam = Adam::default();
        load(&mut self.network, self.spec, weights, &self.place, self.variant)
    }

    fn weights(&mut self) -> Weights {
        let mut weights = Weights::new();
        for layer in self.network.layers() {
            for (name, part) in layer.names().into_iter().zip(layer.parts()) {
                let Entry { shape, values } = part.entry();
                weights.insert(name.name, shape, values);
            }
        }
        weights
    }

    fn averaged(&mut self) -> Option<Weights> {
        let mut averaged = Weights::new();
        for (name, entry) in self.weights().iter() {
            averaged.insert(name, entry.shape.clone(), self.adam.average(name)?);
        }
        Some(averaged)
    }

    fn state(&mut self) -> Weights {
        let mut state = Weights::new();
        for (name, entry) in self.weights().iter() {
            state.insert(format!("{WEIGHT}{name}"), entry.shape.clone(), entry.values.clone());
        }
        self.adam.save(&mut state);
        state
    }

    fn restore(&mut self, state: &Weights) -> Result<(), WeightsError> {
        let mut state = state.clone();
        let adam = Adam::restore(&mut state, &self.place);
        let mut weights = Weights::new();
        for (name, entry) in state.iter() {
            weights.insert(name.strip_prefix(WEIGHT).unwrap_or(name), entry.shape.clone(), entry.values.clone());
        }
        self.load(&weights)?;
        self.adam = adam;
        Ok(())
    }

    fn freeze(&mut self, is_frozen: &dyn Fn(&str) -> bool) {
        for mut layer in self.network.layers() {
            let frozen = layer.names().first().is_some_and(|first| is_frozen(&first.name));
            layer.freeze(frozen);
        }
    }

    fn mix(&mut self, precision: Precision) {
        let half = match precision {
            Precision::F32 => None,
            Precision::F16 => Some(FloatDType::F16),
            Precision::Bf16 => Some(FloatDType::BF16),
        };
        for mut layer in self.network.layers() {
            layer.mix(half);
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.network.valid().forward(channels_last(images.to_device(&self.place.device.clone().inner())))
    }

    fn accumulate(&mut self, images: Tensor<4>, targets: Tensor<2>, weights: Tensor<2>, share: f64) -> Tensor<1> {
        let loss = self.loss(images, targets, Some(weights));
        self.add_loss(&loss, share);
        loss.inner()
    }

    fn take_gradients(&mut self) -> Vec<(String, Tensor<1>)> {
        self.adam.take()
    }

    fn add_gradients(&mut self, gradients: Vec<(String, Tensor<1>)>) {
        let device = self.place.device.clone().inner();
        for (name, gradient) in gradients {
            self.adam.add(&name, gradient.to_device(&device));
        }
    }

    fn apply(&mut self, rule: &Rule) {
        self.adam.begin();
        for mut layer in self.network.layers() {
            for (name, slot) in layer.slots() {
                if let Some(weight) = self.adam.update(&name, slot.flat(), slot.is_kernel(), rule) {
                    slot.replace(weight);
                }
            }
            let Some(decay) = rule.average_decay else { continue };
            for (name, part) in layer.names().into_iter().zip(layer.parts()) {
                self.adam.follow(&name.name, part.flat(), decay);
            }
        }
    }

    fn step(&mut self, images: Tensor<4>, targets: Tensor<2>, learning_rate: f64) -> f64 {
        let loss = self.loss(images, targets, None);
        self.add_loss(&loss, 1.0);
        self.apply(&Rule { learning_rate, ..Rule::default() });
        scalar(&loss)
    }

    fn gradients(&mut self, images: Tensor<4>, targets: Tensor<2>) -> Pass {
        let loss = self.loss(images, targets, None);
        let value = scalar(&loss);
        let all = loss.backward();
        let mut gradients = Weights::new();
        for layer in self.network.layers() {
            for (name, part) in layer.names().into_iter().zip(layer.parts()).filter(|(name, _)| name.learned) {
                if let Some(gradient) = Part::gradient(&part, &all) {
                    let Entry { shape, values } = gradient.entry();
                    gradients.insert(name.name, shape, values);
                }
            }
        }
        Pass { loss: value, gradients }
    }
}
