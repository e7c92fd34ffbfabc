//! vgg16 against the reference, and against the contract of all backbones.

use ichd_vgg::VGG16;

const GOLDEN: &str = include_str!("golden/vgg16.json");

#[test]
fn logits_equal_the_reference() {
    ichd_testkit::check_eval(&VGG16, GOLDEN);
}

#[test]
fn loss_gradients_and_statistics_equal_the_reference() {
    ichd_testkit::check_train(&VGG16, GOLDEN);
}

#[test]
fn the_contract_is_kept() {
    ichd_plugin::contract::check(&VGG16, &burn::tensor::Device::flex()).unwrap();
}
