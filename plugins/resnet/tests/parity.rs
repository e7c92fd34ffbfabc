//! resnet50 against the reference, and against the contract of all backbones.

use ichd_resnet::RESNET50;

const GOLDEN: &str = include_str!("golden/resnet50.json");

#[test]
fn logits_equal_the_reference() {
    ichd_testkit::check_eval(&RESNET50, GOLDEN);
}

#[test]
fn loss_gradients_and_statistics_equal_the_reference() {
    ichd_testkit::check_train(&RESNET50, GOLDEN);
}

#[test]
fn the_contract_is_kept() {
    ichd_plugin::contract::check(&RESNET50, &burn::tensor::Device::flex()).unwrap();
}
