//! Keras' arithmetic with every number in f64. Alone in its program: the number type holds for the process.

#[test]
fn logits_equal_keras_in_f64() {
    ichd_testkit::set_exact();
    ichd_testkit::keras::check_keras_exact(
        &ichd_inception::INCEPTION_V3,
        include_str!("golden/keras_inception_v3.json"),
    );
}
