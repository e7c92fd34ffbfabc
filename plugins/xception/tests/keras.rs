//! xception in Keras' arithmetic, imported by Keras' names, against keras.applications.

#[test]
fn logits_equal_keras() {
    ichd_testkit::keras::check_keras(&ichd_xception::XCEPTION, include_str!("golden/keras_xception.json"));
}
