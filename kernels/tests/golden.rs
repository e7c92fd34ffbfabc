//! The kernel against torchvision: `tools/golden_window.py` makes the file.

use ichd_kernels::{Ramp, SliceView, StoredPixels, Window, WindowPlan, ct_window_vec};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn worst(values: impl Iterator<Item = f64>, exact: &[f64]) -> f64 {
    values.zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn the_kernel_does_what_torchvision_does() {
    let golden: Value = serde_json::from_str(include_str!("golden/window.json")).unwrap();
    let windows: Vec<Window> = golden["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(numbers)
        .map(|w| Window { level: w[0] as f32, width: w[1] as f32 })
        .collect();
    let [mean, std] = ["mean", "std"].map(|key| numbers(&golden[key]).iter().map(|v| *v as f32).collect::<Vec<f32>>());
    for case in golden["cases"].as_array().unwrap() {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let plan = WindowPlan::new(&windows, Ramp::LinearExact, size("side"), &mean, &std).unwrap();
        let stored: Vec<i16> = numbers(&case["stored"]).iter().map(|v| *v as i16).collect();
        let view = SliceView {
            pixels: StoredPixels::I16(&stored),
            rows: size("rows"),
            columns: size("columns"),
            slope: case["slope"].as_f64().unwrap(),
            intercept: case["intercept"].as_f64().unwrap(),
            ..SliceView::default()
        };
        let found = ct_window_vec(&plan, &[view]).unwrap();
        let exact = numbers(&case["f64"]);
        assert_eq!(found.len(), exact.len());
        let ours = worst(found.iter().map(|v| f64::from(*v)), &exact);
        let theirs = case["f32_error"].as_f64().unwrap();
        println!(
            "{} x {} to {}: off by {ours:.1e}, torchvision in f32 by {theirs:.1e}",
            size("rows"),
            size("columns"),
            size("side")
        );
        // 1e-6 of the windowed value, which the deviation of 0.224 scales; torchvision windows in f64 here.
        assert!(ours <= 1e-6 / 0.224 && ours <= (4.0 * theirs).max(2e-6), "{ours:e}");
    }
}
