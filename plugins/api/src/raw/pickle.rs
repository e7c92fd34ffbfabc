//! Python's pickles, as far as a state dict needs them. Knows no file and no network.
//!
//! A pickle is a program for a small stack machine, and Python's own reader calls whatever the program names. This one calls
//! nothing. It knows a few names, of which it makes plain values; any other name ends the reading, whether it would be called
//! or not. Values lie in a list and point to each other by number, so that no nesting, however deep, costs stack, and nothing
//! is copied, so that a short pickle cannot grow large.

mod machine;

use super::Number;

pub(super) use machine::read;

/// Place of a value in [`Pickle::values`].
pub(super) type Id = usize;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// `None`, a boolean, a float, a class's content: nothing that a state dict is read for.
    Inert,
    /// An integer.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes, or an integer of more than 64 bits, least byte first.
    Bytes(&'a [u8]),
    /// A tuple or a list.
    List(Vec<Id>),
    /// A dictionary in the order of its insertions.
    Dict(Vec<(Id, Id)>),
    /// A known name.
    Global(Global),
    /// A storage: a run of numbers somewhere in the file.
    Storage(Storage<'a>),
    /// A tensor in a storage.
    Tensor(Box<View<'a>>),
}

/// A run of numbers in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    /// Its key in the file.
    pub(super) key: &'a str,
    /// Their type.
    pub(super) number: Number,
    /// How many.
    pub(super) count: usize,
}

/// A tensor's place in its storage.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    /// The storage.
    pub(super) storage: Storage<'a>,
    /// First value.
    pub(super) offset: usize,
    /// Dimensions.
    pub(super) shape: Vec<usize>,
    /// Distances.
    pub(super) strides: Vec<usize>,
}

/// Names that a pickle may mention.
#[derive(Clone, Copy, Debug)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
    /// `torch.FloatStorage` and its like.
    Storage(Number),
    /// A class whose values are looked over: settings of a training beside the weights.
    Inert,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    /// All its values.
    pub(super) values: Vec<Value<'a>>,
    /// The one that it is about.
    pub(super) root: Id,
}

impl<'a> Pickle<'a> {
    /// The value of a number.
    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::Inert)
    }
}

fn global(module: &str, name: &str) -> Result<Global, String> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
        ("torch", "FloatStorage") => Global::Storage(Number::F32),
        ("torch", "DoubleStorage") => Global::Storage(Number::F64),
        ("torch", "HalfStorage") => Global::Storage(Number::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Number::Bf16),
        ("torch", "LongStorage") => Global::Storage(Number::Other("int64", 8)),
        ("torch", "IntStorage") => Global::Storage(Number::Other("int32", 4)),
        ("torch", "ShortStorage") => Global::Storage(Number::Other("int16", 2)),
        ("torch", "CharStorage") => Global::Storage(Number::Other("int8", 1)),
        ("torch", "ByteStorage") => Global::Storage(Number::Other("uint8", 1)),
        ("torch", "BoolStorage") => Global::Storage(Number::Other("bool", 1)),
        ("argparse", "Namespace")
        | ("torch", "Size" | "device")
        | ("numpy", "dtype")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
        | ("_codecs", "encode") => Global::Inert,
        _ => {
            let hint = if module.starts_with("torch") || module.starts_with("__torch__") || module.starts_with("timm") {
                "; it seems to hold a whole network: save its state_dict() instead"
            } else {
                ""
            };
            return Err(format!(
                "its pickle asks for {}.{}, which no state dict needs; nothing was run{hint}",
                module.escape_debug(),
                name.escape_debug()
            ));
        }
    })
}
