//! The two forms of a network: one that scores, with folded BatchNorms, and one that learns. Knows no particular network.

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use ichd_plugin::backbone::{Backbone, Pass, Trainee};
use ichd_plugin::spec::{BackboneSpec, Convention, Precision};
use ichd_plugin::weights::{Entry, Weights, WeightsError};

use crate::unit::{ConvUnit, Head, NORM_VECTORS};

/// One layer with the names that PyTorch gives its weights.
pub enum Layer<'a> {
    /// Convolution and BatchNorm.
    Conv {
        /// Prefix of the kernel.
        conv: String,
        /// Prefix of the BatchNorm.
        norm: String,
        /// The unit.
        unit: &'a mut ConvUnit,
    },
    /// The head.
    Head {
        /// Prefix of its weight and bias.
        name: &'static str,
        /// The head.
        head: &'a mut Head,
    },
}

/// What a family writes: the network and the names of its layers, once.
pub trait Network: Module + Clone + Send + 'static {
    /// The network with all weights 0.
    fn new(device: &Device) -> Self;

    /// Images `[n, h, w, 3]` to logits `[n, 6]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2>;

    /// All layers in the order of the network.
    fn layers(&mut self) -> Vec<Layer<'_>>;
}

/// From the order of the plugins' interface to that of the layers. Windowed images lie channels-last in memory already, so
/// nothing moves.
fn channels_last(images: Tensor<4>) -> Tensor<4> {
    images.permute([0, 2, 3, 1])
}

/// Names and shapes of all weights.
pub fn shapes<N: Network>() -> Vec<(String, Vec<usize>)> {
    let mut network = N::new(&Device::flex());
    let mut shapes = Vec::new();
    for layer in network.layers() {
        match layer {
            Layer::Conv { conv, norm, unit } => {
                shapes.push((format!("{conv}.weight"), unit.spec().kernel_shape().to_vec()));
                for vector in NORM_VECTORS {
                    shapes.push((format!("{norm}.{vector}"), vec![unit.spec().outputs]));
                }
            }
            Layer::Head { name, head } => {
                let [outputs, features] = head.shape();
                shapes.push((format!("{name}.weight"), vec![outputs, features]));
                shapes.push((format!("{name}.bias"), vec![outputs]));
            }
        }
    }
    shapes
}

/// How a unit takes its weights.
type SetUnit = fn(&mut ConvUnit, &Entry, [&Entry; 4], &Device);

fn load<N: Network>(
    network: &mut N,
    spec: &BackboneSpec,
    weights: &Weights,
    device: &Device,
    set: SetUnit,
) -> Result<(), WeightsError> {
    weights.check(spec.name, &(spec.shapes)())?;
    // After the check every name is there; the error says so if a family names a layer that its spec lacks.
    let get = |name: String| {
        weights.get(&name).ok_or_else(|| WeightsError::Mismatch {
            backbone: spec.name.to_owned(),
            missing: vec![name.clone()],
            unexpected: Vec::new(),
            misshapen: Vec::new(),
        })
    };
    for layer in network.layers() {
        match layer {
            Layer::Conv { conv, norm, unit } => {
                let [a, b, c, d] = NORM_VECTORS.map(|vector| get(format!("{norm}.{vector}")));
                set(unit, get(format!("{conv}.weight"))?, [a?, b?, c?, d?], device);
            }
            Layer::Head { name, head } => {
                head.set(get(format!("{name}.weight"))?, get(format!("{name}.bias"))?, device)
            }
        }
    }
    Ok(())
}

/// The form that scores.
pub fn inference<N: Network>(
    spec: &'static BackboneSpec,
    device: &Device,
    _convention: Convention,
    _precision: Precision,
) -> Box<dyn Backbone> {
    Box::new(Inference { network: N::new(device), spec, device: device.clone() })
}

struct Inference<N> {
    network: N,
    spec: &'static BackboneSpec,
    device: Device,
}

impl<N: Network> Backbone for Inference<N> {
    fn spec(&self) -> &'static BackboneSpec {
        self.spec
    }

    fn load(&mut self, weights: &Weights) -> Result<(), WeightsError> {
        load(&mut self.network, self.spec, weights, &self.device, ConvUnit::set_folded)
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.network.forward(channels_last(images))
    }
}

/// The form that learns.
pub fn training<N: Network>(
    spec: &'static BackboneSpec,
    device: &Device,
    _convention: Convention,
) -> Box<dyn Trainee> {
    let device = device.clone().autodiff();
    let optimizer = AdamConfig::new().init();
    Box::new(Training { network: N::new(&device), spec, device, optimizer })
}

struct Training<N> {
    network: N,
    spec: &'static BackboneSpec,
    device: Device,
    optimizer: ModuleOptimizer,
}

impl<N: Network> Training<N> {
    /// Mean binary cross-entropy on logits, in the form that cannot overflow: max(x, 0) - x y + log(1 + exp(-|x|)).
    fn loss(&self, images: Tensor<4>, targets: Tensor<2>) -> Tensor<1> {
        let logits = self.network.forward(channels_last(images.to_device(&self.device)));
        let targets = targets.to_device(&self.device);
        let softplus = (logits.clone().abs().neg().exp() + 1.0).log();
        (relu(logits.clone()) - logits * targets + softplus).mean()
    }
}

fn scalar(loss: &Tensor<1>) -> f64 {
    values(loss.clone()).first().map_or(f64::NAN, |value| f64::from(*value))
}

/// Reads a tensor back; a failed device shows as values that are not numbers.
fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let count = tensor.shape().num_elements();
    let data = tensor.try_into_data().ok().and_then(|data| data.try_to_vec_as::<f32>().ok());
    data.unwrap_or_else(|| vec![f32::NAN; count])
}

impl<N: Network> Trainee for Training<N> {
    fn spec(&self) -> &'static BackboneSpec {
        self.spec
    }

    fn load(&mut self, weights: &Weights) -> Result<(), WeightsError> {
        load(&mut self.network, self.spec, weights, &self.device, ConvUnit::set)
    }

    fn weights(&mut self) -> Weights {
        let mut weights = Weights::new();
        let mut put = |name: String, shape: Vec<usize>, values: Vec<f32>| weights.insert(name, shape, values);
        for layer in self.network.layers() {
            match layer {
                Layer::Conv { conv, norm, unit } => {
                    put(format!("{conv}.weight"), unit.spec().kernel_shape().to_vec(), values(unit.kernel()));
                    for (vector, tensor) in NORM_VECTORS.iter().zip(unit.norm_vectors().into_iter().flatten()) {
                        put(format!("{norm}.{vector}"), vec![unit.spec().outputs], values(tensor));
                    }
                }
                Layer::Head { name, head } => {
                    let (weight, bias) = head.parts();
                    put(format!("{name}.weight"), head.shape().to_vec(), values(weight));
                    put(format!("{name}.bias"), vec![head.shape()[0]], values(bias));
                }
            }
        }
        weights
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.network.valid().forward(channels_last(images.to_device(&self.device.clone().inner())))
    }

    fn step(&mut self, images: Tensor<4>, targets: Tensor<2>, learning_rate: f64) -> f64 {
        let loss = self.loss(images, targets);
        let value = scalar(&loss);
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        self.network = self.optimizer.step(learning_rate, self.network.clone(), gradients);
        value
    }

    fn gradients(&mut self, images: Tensor<4>, targets: Tensor<2>) -> Pass {
        let loss = self.loss(images, targets);
        let value = scalar(&loss);
        let all = loss.backward();
        let mut gradients = Weights::new();
        for layer in self.network.layers() {
            match layer {
                Layer::Conv { conv, norm, unit } => {
                    if let Some(gradient) = unit.kernel().grad(&all) {
                        gradients.insert(format!("{conv}.weight"), gradient.dims().to_vec(), values(gradient));
                    }
                    for (vector, tensor) in NORM_VECTORS.iter().zip(unit.norm_vectors().into_iter().flatten()).take(2) {
                        if let Some(gradient) = tensor.grad(&all) {
                            gradients.insert(format!("{norm}.{vector}"), gradient.dims().to_vec(), values(gradient));
                        }
                    }
                }
                Layer::Head { name, head } => {
                    let (weight, bias) = head.parts();
                    if let (Some(weight), Some(bias)) = (weight.grad(&all), bias.grad(&all)) {
                        gradients.insert(format!("{name}.weight"), weight.dims().to_vec(), values(weight));
                        gradients.insert(format!("{name}.bias"), bias.dims().to_vec(), values(bias));
                    }
                }
            }
        }
        Pass { loss: value, gradients }
    }
}
