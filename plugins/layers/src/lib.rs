//! Blocks that the backbones share, and the two forms that every network takes: one that scores and one that learns.
//! A family describes its network once; both forms use that description. Between layers images are channels-last,
//! `[n, height, width, channels]`.

mod forms;
mod unit;

pub use forms::{Layer, Network, inference, shapes, training};
pub use ichd_kernels::Act;
pub use unit::{ConvSpec, ConvUnit, Head, global_average, max_pool};
