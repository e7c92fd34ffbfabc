//! inception_v3 in Keras' arithmetic, imported by Keras' names, against keras.applications.

#[test]
fn logits_equal_keras() {
    ichd_testkit::keras::check_keras(&ichd_inception::INCEPTION_V3, include_str!("golden/keras_inception_v3.json"));
}
