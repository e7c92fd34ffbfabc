//! mobilenet_v2 against the reference, and against the contract of all backbones.

use ichd_mobilenet::MOBILENET_V2;

const GOLDEN: &str = include_str!("golden/mobilenet_v2.json");

#[test]
fn logits_equal_the_reference() {
    ichd_testkit::check_eval(&MOBILENET_V2, GOLDEN);
}

#[test]
fn loss_gradients_and_statistics_equal_the_reference() {
    ichd_testkit::check_train(&MOBILENET_V2, GOLDEN);
}

#[test]
fn the_contract_is_kept() {
    ichd_plugin::contract::check(&MOBILENET_V2, &burn::tensor::Device::flex()).unwrap();
}
