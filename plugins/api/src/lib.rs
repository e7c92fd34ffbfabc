//! The boundary between the daemon and its backbones: what a backbone is, what it is asked to do, and how its weights
//! travel. Backbones never see files, DICOM or windows; the daemon never sees layers.

pub mod backbone;
pub mod contract;
pub mod export;
pub mod fill;
pub mod import;
pub mod label;
pub mod parallel;
pub mod raw;
pub mod spec;
pub mod weights;
