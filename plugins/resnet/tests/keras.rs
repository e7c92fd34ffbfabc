//! resnet50 in Keras' arithmetic, imported by Keras' names, against keras.applications.

#[test]
fn logits_equal_keras() {
    ichd_testkit::keras::check_keras(&ichd_resnet::RESNET50, include_str!("golden/keras_resnet50.json"));
}
