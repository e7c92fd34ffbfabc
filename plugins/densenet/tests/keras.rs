//! densenet121 in Keras' arithmetic, imported by Keras' names, against keras.applications.

#[test]
fn logits_equal_keras() {
    ichd_testkit::keras::check_keras(&ichd_densenet::DENSENET121, include_str!("golden/keras_densenet121.json"));
}
