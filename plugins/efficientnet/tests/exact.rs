//! efficientnet_b0, efficientnet_b2, efficientnet_b3 against the reference with every number in f64. Alone in its program: the number type holds for the process.

#[test]
fn everything_equals_the_reference_in_f64() {
    ichd_testkit::set_exact();
    ichd_testkit::check_exact(&ichd_efficientnet::EFFICIENTNET_B0, include_str!("golden/efficientnet_b0.json"));
    ichd_testkit::check_exact(&ichd_efficientnet::EFFICIENTNET_B2, include_str!("golden/efficientnet_b2.json"));
    ichd_testkit::check_exact(&ichd_efficientnet::EFFICIENTNET_B3, include_str!("golden/efficientnet_b3.json"));
}
