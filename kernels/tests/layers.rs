//! Convolutions and BatchNorm: against finite differences in f64 and against PyTorch.
