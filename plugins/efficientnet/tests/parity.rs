//! efficientnet_b0, efficientnet_b2, efficientnet_b3 against the reference, and against the contract of all backbones.

use ichd_efficientnet::{EFFICIENTNET_B0, EFFICIENTNET_B2, EFFICIENTNET_B3};
use ichd_plugin::spec::BackboneSpec;

const ALL: [(&BackboneSpec, &str); 3] = [
    (&EFFICIENTNET_B0, include_str!("golden/efficientnet_b0.json")),
    (&EFFICIENTNET_B2, include_str!("golden/efficientnet_b2.json")),
    (&EFFICIENTNET_B3, include_str!("golden/efficientnet_b3.json")),
];

#[test]
fn logits_equal_the_reference() {
    for (spec, golden) in ALL {
        ichd_testkit::check_eval(spec, golden);
    }
}

#[test]
fn loss_gradients_and_statistics_equal_the_reference() {
    for (spec, golden) in ALL {
        ichd_testkit::check_train(spec, golden);
    }
}

#[test]
fn the_contract_is_kept() {
    for (spec, _) in ALL {
        ichd_plugin::contract::check(spec, &burn::tensor::Device::flex()).unwrap();
    }
}
