//! What a family describes, and the form that scores. Knows no particular network.

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};
use ichd_kernels::{among_threads, on_cpu, shared_out};
use ichd_plugin::backbone::Backbone;
use ichd_plugin::spec::{BackboneSpec, Precision, Variant};
use ichd_plugin::weights::{Entry, Weights, WeightsError};

use crate::layer::{Layer, Name};
use crate::part::Place;

/// What a family writes: the network and the names of its layers, once.
pub trait Network: Module + Clone + Send + Sync + 'static {
    /// The network with all weights 0.
    fn new(device: &Device, variant: Variant) -> Self;

    /// Images `[n, h, w, windows]` to logits `[n, 6]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2>;

    /// All layers in the order of the network.
    fn layers(&mut self) -> Vec<Layer<'_>>;
}

/// From the order of the plugins' interface to that of the layers. Windowed images lie channels-last in memory already, so
/// nothing moves.
pub(crate) fn channels_last(images: Tensor<4>) -> Tensor<4> {
    images.permute([0, 2, 3, 1])
}

/// Names and shapes of all weights. They do not depend on the convention.
pub fn shapes<N: Network>(windows: usize) -> Vec<(String, Vec<usize>)> {
    let variant = Variant { windows, ..Variant::default() };
    let mut network = N::new(&Device::flex(), variant);
    let names: Vec<Name> = network.layers().iter().flat_map(Layer::names).collect();
    names.into_iter().map(|name| (name.name, name.shape)).collect()
}

pub(crate) fn load<N: Network>(
    network: &mut N,
    spec: &BackboneSpec,
    weights: &Weights,
    place: &Place,
    variant: Variant,
) -> Result<(), WeightsError> {
    weights.check(spec.name, &(spec.shapes)(variant.windows))?;
    for mut layer in network.layers() {
        let names = layer.names();
        let entries: Vec<&Entry> = names.iter().filter_map(|name| weights.get(&name.name)).collect();
        if entries.len() < names.len() {
            // The check above lets this happen only to a family that names a layer its spec lacks.
            return Err(WeightsError::Mismatch {
                backbone: spec.name.to_owned(),
                missing: names.into_iter().map(|name| name.name).collect(),
                unexpected: Vec::new(),
                misshapen: Vec::new(),
            });
        }
        let is_first = names.iter().any(|name| name.name == spec.first_conv);
        layer.set(&entries, &if is_first { place.of_first_layer() } else { place.clone() });
    }
    Ok(())
}

/// The form that scores.
pub fn inference<N: Network>(
    spec: &'static BackboneSpec,
    device: &Device,
    variant: Variant,
    precision: Precision,
) -> Box<dyn Backbone> {
    let place = Place::of_scoring(device.clone(), precision);
    Box::new(Inference { network: N::new(device, variant), spec, variant, place })
}

struct Inference<N> {
    network: N,
    spec: &'static BackboneSpec,
    variant: Variant,
    place: Place,
}

impl<N: Network> Inference<N> {
    /// Logits of a batch on a CPU: every thread takes an image after the other, whose activations stay in its own caches.
    fn one_by_one(&self, images: Tensor<4>) -> Tensor<2> {
        let [n, ..] = images.dims();
        if n <= 1 {
            return self.network.forward(images);
        }
        Tensor::cat(shared_out(n, |image| self.network.forward(images.clone().narrow(0, image, 1))), 0)
    }
}

impl<N: Network> Backbone for Inference<N> {
    fn spec(&self) -> &'static BackboneSpec {
        self.spec
    }

    fn load(&mut self, weights: &Weights) -> Result<(), WeightsError> {
        // Folding leaves a network without BatchNorms, so weights go into a new one.
        self.network = N::new(&self.place.device, self.variant);
        load(&mut self.network, self.spec, weights, &self.place, self.variant)
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let images = channels_last(images);
        let half = match self.place.precision {
            Precision::F32 if on_cpu(&self.place.device) => return among_threads(|| self.one_by_one(images)),
            Precision::F32 => return self.network.forward(images),
            Precision::F16 => FloatDType::F16,
            Precision::Bf16 => FloatDType::BF16,
        };
        self.network.forward(images.cast(half)).cast(FloatDType::F32)
    }
}
