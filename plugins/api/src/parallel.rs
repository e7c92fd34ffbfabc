//! Several devices that share every batch: each holds a replica, learns from its part, and all move alike. Knows no layer.
//!
//! As in PyTorch's DistributedDataParallel gradients are summed over the parts, so the step is that of the whole batch, but for
//! BatchNorms: each replica normalizes by its own part, and the first one's running statistics are those that count.

use burn::tensor::{Device, Tensor};

use crate::backbone::{Pass, Rule, Trainee};
use crate::spec::{BackboneSpec, Precision, Variant};
use crate::weights::{Weights, WeightsError};

/// The form that learns, on these devices; on one it is the backbone's own. Without a device there is nothing to learn
/// on, so the default one is taken.
pub fn trainee(spec: &'static BackboneSpec, devices: &[Device], variant: Variant) -> Box<dyn Trainee> {
    let mut replicas: Vec<_> = devices.iter().map(|device| (spec.train)(device, variant)).collect();
    match replicas.len() {
        0 => (spec.train)(&Device::default(), variant),
        1 => replicas.remove(0),
        _ => Box::new(Replicas { spec, all: replicas }),
    }
}

struct Replicas {
    spec: &'static BackboneSpec,
    /// At least two.
    all: Vec<Box<dyn Trainee>>,
}

impl Replicas {
    fn first(&mut self) -> &mut dyn Trainee {
        self.all[0].as_mut()
    }

    /// Where the parts of a batch of `n` begin and end, none of them empty.
    fn parts(&self, n: usize) -> Vec<std::ops::Range<usize>> {
        let count = self.all.len().min(n).max(1);
        (0..count).map(|at| at * n / count..(at + 1) * n / count).collect()
    }
}

/// Rows of a tensor; one that holds for all rows stays whole.
fn rows<const D: usize>(tensor: &Tensor<D>, part: &std::ops::Range<usize>) -> Tensor<D> {
    if tensor.dims()[0] == 1 { tensor.clone() } else { tensor.clone().narrow(0, part.start, part.len()) }
}

impl Trainee for Replicas {
    fn spec(&self) -> &'static BackboneSpec {
        self.spec
    }

    fn load(&mut self, weights: &Weights) -> Result<(), WeightsError> {
        self.all.iter_mut().try_for_each(|replica| replica.load(weights))
    }

    fn weights(&mut self) -> Weights {
        self.first().weights()
    }

    fn freeze(&mut self, is_frozen: &dyn Fn(&str) -> bool) {
        self.all.iter_mut().for_each(|replica| replica.freeze(is_frozen));
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.all[0].forward(images)
    }

    fn averaged(&mut self) -> Option<Weights> {
        self.first().averaged()
    }

    fn state(&mut self) -> Weights {
        self.first().state()
    }

    fn restore(&mut self, state: &Weights) -> Result<(), WeightsError> {
        self.all.iter_mut().try_for_each(|replica| replica.restore(state))
    }

    fn mix(&mut self, precision: Precision) {
        self.all.iter_mut().for_each(|replica| replica.mix(precision));
    }

    /// Devices compute at their own pace: work is handed to one after the other without waiting for any.
    fn accumulate(&mut self, images: Tensor<4>, targets: Tensor<2>, weights: Tensor<2>, share: f64) -> Tensor<1> {
        let n = images.dims()[0];
        let home = targets.device();
        let mut loss: Option<Tensor<1>> = None;
        for (part, replica) in self.parts(n).into_iter().zip(&mut self.all) {
            let of_all = part.len() as f64 / n.max(1) as f64;
            let (images, targets, weights) = (rows(&images, &part), rows(&targets, &part), rows(&weights, &part));
            let own = replica.accumulate(images, targets, weights, share * of_all).to_device(&home) * of_all;
            loss = Some(match loss {
                Some(loss) => loss + own,
                None => own,
            });
        }
        loss.unwrap_or_else(|| Tensor::zeros([1], &home))
    }

    fn apply(&mut self, rule: &Rule) {
        let mut taken: Vec<_> = self.all.iter_mut().map(|replica| replica.take_gradients()).collect();
        // A device that had no part of the batch, because the batch was smaller than their number, has no gradients.
        let mut sums = taken.remove(0);
        for other in taken.into_iter().filter(|own| !own.is_empty()) {
            for ((_, sum), (_, gradient)) in sums.iter_mut().zip(other) {
                let device = sum.device();
                *sum = sum.clone() + gradient.to_device(&device);
            }
        }
        for replica in &mut self.all {
            replica.add_gradients(sums.clone());
            replica.apply(rule);
        }
    }

    fn take_gradients(&mut self) -> Vec<(String, Tensor<1>)> {
        // What is added up is asked for by `apply` alone.
        self.first().take_gradients()
    }

    fn add_gradients(&mut self, gradients: Vec<(String, Tensor<1>)>) {
        self.first().add_gradients(gradients);
    }

    fn step(&mut self, images: Tensor<4>, targets: Tensor<2>, learning_rate: f64) -> f64 {
        let weights = Tensor::<2>::ones([1, targets.dims()[1]], &targets.device());
        let loss = self.accumulate(images, targets, weights, 1.0);
        self.apply(&Rule { learning_rate, ..Rule::default() });
        loss.into_data().iter::<f64>().next().unwrap_or(f64::NAN)
    }

    fn gradients(&mut self, images: Tensor<4>, targets: Tensor<2>) -> Pass {
        self.first().gradients(images, targets)
    }
}
