//! Weights as tensors of whatever rank, and how values get in and out of them. Knows no layer.

use burn::module::Param;
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use ichd_kernels::{Products, has_half_products, on_cpu};
use ichd_plugin::spec::Precision;
use ichd_plugin::weights::Entry;

/// One tensor of a layer.
pub(crate) enum Part {
    /// Of a convolution: `[outputs, inputs / groups, height, width]`.
    Kernel(Tensor<4>),
    /// Of the head: `[outputs, features]`.
    Matrix(Tensor<2>),
    /// A bias, or of a BatchNorm.
    Vector(Tensor<1>),
}

impl Part {
    /// Shape and values. A failed device shows as values that are not numbers.
    pub fn entry(self) -> Entry {
        match self {
            Part::Kernel(tensor) => entry(tensor),
            Part::Matrix(tensor) => entry(tensor),
            Part::Vector(tensor) => entry(tensor),
        }
    }

    /// Its values in a row, without a past.
    pub fn flat(self) -> Tensor<1> {
        match self {
            Part::Kernel(tensor) => plain(tensor).flatten(0, 3),
            Part::Matrix(tensor) => plain(tensor).flatten(0, 1),
            Part::Vector(tensor) => plain(tensor),
        }
    }

    /// Its gradient, if it has one.
    pub fn gradient(&self, all: &Gradients) -> Option<Part> {
        match self {
            Part::Kernel(tensor) => tensor.grad(all).map(Part::Kernel),
            Part::Matrix(tensor) => tensor.grad(all).map(Part::Matrix),
            Part::Vector(tensor) => tensor.grad(all).map(Part::Vector),
        }
    }
}

/// Off the autodiff device.
fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.inner() } else { tensor }
}

fn entry<const D: usize>(tensor: Tensor<D>) -> Entry {
    Entry { shape: tensor.dims().to_vec(), values: values(tensor) }
}

/// Reads a tensor back; a failed device shows as values that are not numbers.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let count = tensor.shape().num_elements();
    let data = tensor.try_into_data().ok().and_then(|data| data.try_to_vec_as::<f32>().ok());
    data.unwrap_or_else(|| vec![f32::NAN; count])
}

/// A learned tensor, to be replaced by the optimizer.
pub(crate) enum Slot<'a> {
    Kernel(&'a mut Param<Tensor<4>>),
    Matrix(&'a mut Param<Tensor<2>>),
    Vector(&'a mut Param<Tensor<1>>),
}

impl Slot<'_> {
    /// Whether it mixes values: weight decay leaves biases and BatchNorms alone.
    pub fn is_kernel(&self) -> bool {
        !matches!(self, Slot::Vector(_))
    }

    /// Its values in a row.
    pub fn flat(&self) -> Tensor<1> {
        match self {
            Slot::Kernel(param) => param.val().inner().flatten(0, 3),
            Slot::Matrix(param) => param.val().inner().flatten(0, 1),
            Slot::Vector(param) => param.val().inner(),
        }
    }

    /// Its gradient in a row, if it has one.
    pub fn take_gradient(&self, all: &mut Gradients) -> Option<Tensor<1>> {
        match self {
            Slot::Kernel(param) => param.val().grad_remove(all).map(|grad| grad.flatten(0, 3)),
            Slot::Matrix(param) => param.val().grad_remove(all).map(|grad| grad.flatten(0, 1)),
            Slot::Vector(param) => param.val().grad_remove(all),
        }
    }

    /// Takes other values, in a row.
    pub fn replace(self, flat: Tensor<1>) {
        match self {
            Slot::Kernel(param) => *param = lifted(flat.reshape(param.val().dims())),
            Slot::Matrix(param) => *param = lifted(flat.reshape(param.val().dims())),
            Slot::Vector(param) => *param = lifted(flat),
        }
    }
}

/// A parameter that learns.
fn lifted<const D: usize>(values: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(values.autodiff())
}

/// The same values without a gradient: a detached parameter alone would still ask for one.
pub(crate) fn constant<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.detach().set_require_grad(false) } else { tensor }
}

/// Where and in what type weights are put.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub device: Device,
    pub precision: Precision,
    /// For the form that scores: BatchNorms are folded, and kernels lie in memory as the kernels read them.
    pub folded: bool,
    /// In what a CPU multiplies packed kernels.
    pub products: Products,
}

impl Place {
    /// For the form that scores. A CPU that multiplies in bfloat16 by itself does no more than that in half precision:
    /// weights are rounded as they are packed, and everything else is f32.
    pub fn of_scoring(device: Device, precision: Precision) -> Place {
        let is_half = precision == Precision::Bf16 && on_cpu(&device) && has_half_products();
        let (precision, products) =
            if is_half { (Precision::F32, Products::Half) } else { (precision, Products::Whole) };
        Place { device, precision, folded: true, products }
    }

    /// The same for the first layer: pictures have more digits than bfloat16.
    pub fn of_first_layer(&self) -> Place {
        Place { products: Products::Whole, ..self.clone() }
    }

    /// For the form that learns.
    pub fn of_learning(device: Device) -> Place {
        Place { device, precision: Precision::F32, folded: false, products: Products::Whole }
    }

    /// Whether dense kernels are packed: where the CPU scores in whole precision.
    pub fn packs(&self) -> bool {
        self.folded && self.precision == Precision::F32 && on_cpu(&self.device)
    }

    /// Values as a tensor.
    pub fn put<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        let data = TensorData::new(values, shape);
        match self.precision {
            Precision::F32 => Tensor::from_data(data, &self.device),
            Precision::F16 => Tensor::from_data(data.convert_dtype(DType::F16), (&self.device, DType::F16)),
            Precision::Bf16 => Tensor::from_data(data.convert_dtype(DType::BF16), (&self.device, DType::BF16)),
        }
    }

    /// A vector.
    pub fn vector(&self, values: &[f32]) -> Tensor<1> {
        self.put(values.to_vec(), [values.len()])
    }

    /// A kernel `[outputs, inputs / groups, height, width]`. For scoring its values are arranged once as the kernels
    /// read them: channels innermost, dense ones `[outputs, height, width, inputs]`, depthwise ones
    /// `[height, width, channels]`; the tensor is a view of that.
    pub fn kernel(&self, values: &[f32], shape: [usize; 4]) -> Tensor<4> {
        if !self.folded {
            return self.put(values.to_vec(), shape);
        }
        let [outputs, inputs, height, width] = shape;
        let taps = height * width;
        let mut arranged = Vec::with_capacity(values.len());
        if inputs == 1 {
            for tap in 0..taps {
                arranged.extend((0..outputs).map(|output| values[output * taps + tap]));
            }
            return self.put(arranged, [height, width, outputs, 1]).permute([2, 3, 0, 1]);
        }
        for kernel in values.chunks_exact(inputs * taps) {
            for tap in 0..taps {
                arranged.extend((0..inputs).map(|input| kernel[input * taps + tap]));
            }
        }
        self.put(arranged, [outputs, height, width, inputs]).permute([0, 3, 1, 2])
    }
}
