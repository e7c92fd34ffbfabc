//! The CubeCL forms: the same source for CUDA and Vulkan.

#[cfg(test)]
mod cuda_source;
pub mod depthwise;
pub mod upload;
pub mod window;
