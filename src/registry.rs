//! The list of backbones: the only file that names plugin crates.

use ichd_plugin::spec::BackboneSpec;

/// Every backbone that is compiled in.
pub static BACKBONES: &[&BackboneSpec] = &[
    &ichd_vgg::VGG16,
    &ichd_resnet::RESNET50,
    &ichd_inception::INCEPTION_V3,
    &ichd_mobilenet::MOBILENET_V2,
    &ichd_xception::XCEPTION,
    &ichd_efficientnet::EFFICIENTNET_B0,
    &ichd_efficientnet::EFFICIENTNET_B2,
    &ichd_efficientnet::EFFICIENTNET_B3,
    &ichd_densenet::DENSENET121,
];

/// The backbone of that name.
pub fn find(name: &str) -> Option<&'static BackboneSpec> {
    BACKBONES.iter().copied().find(|spec| spec.name == name)
}
