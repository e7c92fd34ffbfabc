//! The CubeCL forms: the same source for CUDA and Vulkan.

pub mod depthwise;
pub mod upload;
pub mod window;
