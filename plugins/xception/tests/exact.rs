//! xception against the reference with every number in f64. Alone in its program: the number type holds for the process.

#[test]
fn everything_equals_the_reference_in_f64() {
    ichd_testkit::set_exact();
    ichd_testkit::check_exact(&ichd_xception::XCEPTION, include_str!("golden/xception.json"));
}
