//! Blocks that the backbones share, and the two forms that every network takes: one that scores and one that learns.
//! A family describes its network once; both forms use that description.

mod forms;
mod unit;

pub use forms::{Layer, Network, inference, shapes, training};
pub use unit::{Act, ConvSpec, ConvUnit, Head, global_average};
