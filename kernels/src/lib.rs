//! From the stored pixels of CT slices to the input of a network: rescale, window, resize and normalize in one call.
//! Knows no file, no DICOM and no tensor library.
//!
//! This is the plain-Rust form for the CPU. Everything is checked before any pixel is touched, so a validated call cannot
//! fail half way.

mod resize;
mod window;

pub use resize::Taps;
pub use window::{
    Flip, KernelError, Ramp, Rect, SliceView, StoredPixels, Window, WindowPlan, ct_window, ct_window_vec, window_hu,
};
