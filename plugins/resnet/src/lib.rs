//! ichd-resnet
