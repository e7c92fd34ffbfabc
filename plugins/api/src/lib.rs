//! ichd-plugin
