//! ichd
