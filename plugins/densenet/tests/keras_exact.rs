//! Keras' arithmetic with every number in f64. Alone in its program: the number type holds for the process.

#[test]
fn logits_equal_keras_in_f64() {
    ichd_testkit::set_exact();
    ichd_testkit::keras::check_keras_exact(&ichd_densenet::DENSENET121, include_str!("golden/keras_densenet121.json"));
}
