//! ichd-kernels
