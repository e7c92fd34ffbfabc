//! densenet121 against the reference, and against the contract of all backbones.

use ichd_densenet::DENSENET121;

const GOLDEN: &str = include_str!("golden/densenet121.json");

#[test]
fn logits_equal_the_reference() {
    ichd_testkit::check_eval(&DENSENET121, GOLDEN);
}

#[test]
fn loss_gradients_and_statistics_equal_the_reference() {
    ichd_testkit::check_train(&DENSENET121, GOLDEN);
}

#[test]
fn the_contract_is_kept() {
    ichd_plugin::contract::check(&DENSENET121, &burn::tensor::Device::flex()).unwrap();
}
