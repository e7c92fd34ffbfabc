//! The kernels of ichd: from the stored pixels of CT slices to the input of a network in one launch, and the convolutions
//! that Burn does not have or has too slow. Knows no file, no DICOM and no network.
//!
//! Every kernel has a CPU form in plain Rust and, where GPUs need one, a CubeCL form of the same arithmetic.

mod cpu;
mod geometry;
#[cfg(feature = "cube")]
mod gpu;
mod layer;
mod ops;
pub mod parity;
mod resize;
mod scoring;
mod window;

pub use cpu::adam::AdamStep;
pub use cpu::pool::release_memory;
pub use cpu::pools::Pool;
pub use cpu::threads::{among_threads, shared_out};
pub use geometry::{Act, Plane};
#[cfg(feature = "cube")]
pub use gpu::upload::{Gathered, Launch, Uploaded, WindowOps};
pub use layer::{
    After, Normed, Transport, activate, adam, batch_norm, conv2d, depthwise_conv2d, on_cpu, window_tensor,
};
#[cfg(not(feature = "cube"))]
pub use layer::{Gathered, Uploaded};
pub use ops::{CpuOps, DepthwiseOps};
pub use resize::Taps;
pub use scoring::{
    Dense, Filter, Growing, Products, Way, chain, conv2d_packed, has_half_products, join_channels, line,
    mean_of_pixels, pack, pool2d, scores_here,
};
pub use window::{
    Flip, KernelError, Ramp, Rect, SliceView, StoredPixels, Window, WindowPlan, ct_window, ct_window_vec, window_hu,
};
