//! EfficientNets in Keras' arithmetic, imported by Keras' names, against keras.applications.

use ichd_efficientnet::{EFFICIENTNET_B0, EFFICIENTNET_B2, EFFICIENTNET_B3};
use ichd_testkit::keras::check_keras;

#[test]
fn logits_of_b0_equal_keras() {
    check_keras(&EFFICIENTNET_B0, include_str!("golden/keras_efficientnet_b0.json"));
}

#[test]
fn logits_of_b2_equal_keras() {
    check_keras(&EFFICIENTNET_B2, include_str!("golden/keras_efficientnet_b2.json"));
}

#[test]
fn logits_of_b3_equal_keras() {
    check_keras(&EFFICIENTNET_B3, include_str!("golden/keras_efficientnet_b3.json"));
}
