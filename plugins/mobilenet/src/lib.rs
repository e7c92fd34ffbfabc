//! ichd-mobilenet
