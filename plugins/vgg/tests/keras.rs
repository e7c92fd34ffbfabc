//! vgg16 in Keras' arithmetic, imported by Keras' names, against keras.applications.

#[test]
fn logits_equal_keras() {
    ichd_testkit::keras::check_keras(&ichd_vgg::VGG16, include_str!("golden/keras_vgg16.json"));
}
