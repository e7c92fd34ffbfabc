//! The list of backbones: the only file that names plugin crates.

use ichd_plugin::spec::BackboneSpec;

/// Every backbone that is compiled in.
pub static BACKBONES: &[&BackboneSpec] = &[&ichd_resnet::RESNET50, &ichd_mobilenet::MOBILENET_V2];

/// The backbone of that name.
pub fn find(name: &str) -> Option<&'static BackboneSpec> {
    BACKBONES.iter().copied().find(|spec| spec.name == name)
}
