//! mobilenet_v2 in Keras' arithmetic, imported by Keras' names, against keras.applications.

#[test]
fn logits_equal_keras() {
    ichd_testkit::keras::check_keras(&ichd_mobilenet::MOBILENET_V2, include_str!("golden/keras_mobilenet_v2.json"));
}
