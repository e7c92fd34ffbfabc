//! inception_v3 against the reference, and against the contract of all backbones.

use ichd_inception::INCEPTION_V3;

const GOLDEN: &str = include_str!("golden/inception_v3.json");

#[test]
fn logits_equal_the_reference() {
    ichd_testkit::check_eval(&INCEPTION_V3, GOLDEN);
}

#[test]
fn loss_gradients_and_statistics_equal_the_reference() {
    ichd_testkit::check_train(&INCEPTION_V3, GOLDEN);
}

#[test]
fn the_contract_is_kept() {
    ichd_plugin::contract::check(&INCEPTION_V3, &burn::tensor::Device::flex()).unwrap();
}
