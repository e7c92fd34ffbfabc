//! Blocks that the backbones share, and the two forms that every network takes: one that scores and one that learns.
//! A family describes its network once; both forms use that description. Between layers images are channels-last,
//! `[n, height, width, channels]`.

mod adam;
mod conv;
mod forms;
mod head;
mod layer;
mod learn;
mod norm;
mod part;
mod pool;
mod squeeze;

pub use conv::{ConvSpec, ConvUnit, Follow, Pad};
pub use forms::{Network, inference, shapes};
pub use head::Head;
pub use ichd_kernels::Act;
pub use layer::Layer;
pub use learn::training;
pub use norm::{EPSILON, KERAS_EPSILON, NormUnit};
pub use pool::{Grown, activate, average_pool, global_average, join, max_pool};
pub use squeeze::Squeeze;
