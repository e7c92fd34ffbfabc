//! Layers by the names that PyTorch gives their weights. Knows no particular network.

use burn::tensor::FloatDType;
use ichd_plugin::weights::Entry;

use crate::conv::{ConvUnit, Follow};
use crate::head::Head;
use crate::norm::{NORM_LEARNED, NORM_VECTORS, NormUnit};
use crate::part::{Part, Place, Slot};

/// One layer of a network with its names.
pub enum Layer<'a> {
    /// A convolution with what follows it.
    Conv {
        /// Prefix of kernel and bias.
        conv: String,
        /// Prefix of the BatchNorm, if there is one.
        norm: String,
        /// The unit.
        unit: &'a mut ConvUnit,
    },
    /// A BatchNorm alone.
    Norm {
        /// Its prefix.
        norm: String,
        /// The unit.
        unit: &'a mut NormUnit,
    },
    /// The head.
    Head {
        /// Prefix of its weight and bias.
        name: &'static str,
        /// The head.
        head: &'a mut Head,
    },
}

impl<'a> Layer<'a> {
    /// A convolution and its BatchNorm.
    pub fn conv(conv: impl Into<String>, norm: impl Into<String>, unit: &'a mut ConvUnit) -> Self {
        Layer::Conv { conv: conv.into(), norm: norm.into(), unit }
    }

    /// A convolution without a BatchNorm.
    pub fn plain(conv: impl Into<String>, unit: &'a mut ConvUnit) -> Self {
        Layer::Conv { conv: conv.into(), norm: String::new(), unit }
    }

    /// A BatchNorm alone.
    pub fn norm(norm: impl Into<String>, unit: &'a mut NormUnit) -> Self {
        Layer::Norm { norm: norm.into(), unit }
    }

    /// Names and shapes of its weights, and whether they are learned; the order of everything else here.
    pub(crate) fn names(&self) -> Vec<Name> {
        let named = |prefix: &str, word: &str, shape: Vec<usize>, learned: bool| Name {
            name: format!("{prefix}.{word}"),
            shape,
            learned,
        };
        let vectors = |prefix: &str, channels: usize| -> Vec<Name> {
            let all = NORM_VECTORS.iter().enumerate();
            all.map(|(at, word)| named(prefix, word, vec![channels], at < NORM_LEARNED)).collect()
        };
        match self {
            Layer::Conv { conv, norm, unit } => {
                let spec = unit.spec();
                let mut names = vec![named(conv, "weight", spec.kernel_shape().to_vec(), true)];
                match spec.follow {
                    Follow::Norm(_) => names.extend(vectors(norm, spec.outputs)),
                    Follow::Bias => names.push(named(conv, "bias", vec![spec.outputs], true)),
                    Follow::Nothing => {}
                }
                names
            }
            Layer::Norm { norm, unit } => vectors(norm, unit.channels()),
            Layer::Head { name, head } => {
                let [outputs, features] = head.shape();
                vec![named(name, "weight", vec![outputs, features], true), named(name, "bias", vec![outputs], true)]
            }
        }
    }

    /// Takes weights.
    pub(crate) fn set(&mut self, entries: &[&Entry], place: &Place) {
        match (self, entries) {
            (Layer::Conv { unit, .. }, entries) => unit.set(entries, place),
            (Layer::Norm { unit, .. }, [a, b, c, d]) => unit.set([a, b, c, d], place),
            (Layer::Head { head, .. }, [weight, bias]) => head.set(weight, bias, place),
            // `names` gives four for a BatchNorm and two for a head.
            _ => {}
        }
    }

    /// Gives weights, of the form that learns.
    pub(crate) fn parts(&self) -> Vec<Part> {
        match self {
            Layer::Conv { unit, .. } => unit.parts(),
            Layer::Norm { unit, .. } => unit.parts(),
            Layer::Head { head, .. } => head.parts(),
        }
    }

    /// What learns, with names.
    pub(crate) fn slots(&mut self) -> Vec<(String, Slot<'_>)> {
        let names = self.names().into_iter().filter(|name| name.learned).map(|name| name.name);
        let slots = match self {
            Layer::Conv { unit, .. } => unit.slots(),
            Layer::Norm { unit, .. } => unit.slots(),
            Layer::Head { head, .. } => head.slots(),
        };
        names.zip(slots).collect()
    }

    /// The type of number of its convolution while it learns.
    pub(crate) fn mix(&mut self, half: Option<FloatDType>) {
        if let Layer::Conv { unit, .. } = self {
            unit.mix(half);
        }
    }

    /// Whether it learns no more: then its BatchNorm keeps its statistics too.
    pub(crate) fn freeze(&mut self, frozen: bool) {
        match self {
            Layer::Conv { unit, .. } => unit.freeze(frozen),
            Layer::Norm { unit, .. } => unit.freeze(frozen),
            Layer::Head { head, .. } => head.freeze(frozen),
        }
    }
}

/// Name and shape of one tensor.
pub(crate) struct Name {
    pub name: String,
    pub shape: Vec<usize>,
    /// Whether the optimizer moves it; running statistics are measured instead.
    pub learned: bool,
}
