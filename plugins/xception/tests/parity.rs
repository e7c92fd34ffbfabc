//! xception against the reference, and against the contract of all backbones.

use ichd_xception::XCEPTION;

const GOLDEN: &str = include_str!("golden/xception.json");

#[test]
fn logits_equal_the_reference() {
    ichd_testkit::check_eval(&XCEPTION, GOLDEN);
}

#[test]
fn loss_gradients_and_statistics_equal_the_reference() {
    ichd_testkit::check_train(&XCEPTION, GOLDEN);
}

#[test]
fn the_contract_is_kept() {
    ichd_plugin::contract::check(&XCEPTION, &burn::tensor::Device::flex()).unwrap();
}
