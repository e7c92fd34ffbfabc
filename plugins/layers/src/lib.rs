//! ichd-layers
