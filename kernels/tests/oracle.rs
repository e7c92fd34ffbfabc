//! The kernel against a plain f64 computation with direct two-dimensional weights, on random slices.

use ichd_kernels::{Flip, Ramp, Rect, SliceView, StoredPixels, Window, WindowPlan, ct_window_vec};
use proptest::prelude::*;

/// A slice of random shape and meaning, with owned pixels.
#[derive(Clone, Debug)]
struct Case {
    stored: Vec<i32>,
    signed: bool,
    bits: u16,
    rows: usize,
    columns: usize,
    slope: f64,
    intercept: f64,
    inverted: bool,
    padding: Option<(i32, i32)>,
    rect: Rect,
    flip: Flip,
}

fn hu_windowed(case: &Case, row: usize, column: usize, window: Window, ramp: Ramp) -> f64 {
    let stored = case.stored[row * case.columns + column];
    if case.padding.is_some_and(|(low, high)| (low..=high).contains(&stored)) {
        return 0.0;
    }
    let upright = match (case.inverted, case.signed) {
        (false, _) => f64::from(stored),
        (true, true) => -1.0 - f64::from(stored),
        (true, false) => 2f64.powi(case.bits.into()) - 1.0 - f64::from(stored),
    };
    let hu = case.slope * upright + case.intercept;
    let (level, width) = (f64::from(window.level), f64::from(window.width));
    let value = match ramp {
        Ramp::LinearExact => (hu - (level - width / 2.0)) / width,
        Ramp::Linear => (hu - (level - 0.5)) / (width - 1.0) + 0.5,
    };
    value.clamp(0.0, 1.0)
}

/// Triangle weight of source position `at` for output position `out`, not yet normalized.
fn triangle(source: usize, side: usize, out: usize, at: usize) -> f64 {
    let scale = source as f64 / side as f64;
    let center = (out as f64 + 0.5) * scale - 0.5;
    (1.0 - (at as f64 - center).abs() / scale.max(1.0)).max(0.0)
}

fn oracle(case: &Case, windows: &[Window], ramp: Ramp, side: usize, mean: &[f32], std: &[f32]) -> Vec<f64> {
    let rect = case.rect;
    let mut out = Vec::new();
    for y in 0..side {
        for x in 0..side {
            for (channel, window) in windows.iter().enumerate() {
                let (mut sum, mut total) = (0.0, 0.0);
                for v in 0..rect.rows {
                    for u in 0..rect.columns {
                        let weight = triangle(rect.rows, side, y, v) * triangle(rect.columns, side, x, u);
                        if weight == 0.0 {
                            continue;
                        }
                        let v = if case.flip.vertical { rect.rows - 1 - v } else { v };
                        let u = if case.flip.horizontal { rect.columns - 1 - u } else { u };
                        sum += weight * hu_windowed(case, rect.top + v, rect.left + u, *window, ramp);
                        total += weight;
                    }
                }
                out.push((sum / total - f64::from(mean[channel])) / f64::from(std[channel]));
            }
        }
    }
    out
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..40, 1usize..100, any::<bool>(), 8u16..=16);
    // Most CTs have whole numbers, which the kernel takes another way.
    let intercept = prop_oneof![-2000.0..500.0f64, (-2000..500i32).prop_map(f64::from)];
    let slope = prop::sample::select(vec![1.0, 0.5, 2.0, 2.0002442]);
    let meaning = (slope, intercept, any::<bool>(), any::<bool>());
    let part = (0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64, any::<bool>(), any::<bool>());
    (shape, meaning, part, any::<u64>()).prop_map(|(shape, meaning, part, seed)| {
        let (rows, columns, signed, bits) = shape;
        let (slope, intercept, inverted, padded) = meaning;
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as i32
        };
        let (low, span) = if signed { (-(1 << (bits - 1)), 1 << bits) } else { (0, 1 << bits) };
        // Half of the values lie where windows are, the others anywhere.
        let stored: Vec<i32> = (0..rows * columns)
            .map(|n| if n % 2 == 0 { low + next() % span } else { ((1000 + next() % 300) as f64 / slope) as i32 })
            .map(|value| value.clamp(low, low + span - 1))
            .collect();
        let cut = |at: f64, len: f64, all: usize| {
            let from = (at * all as f64) as usize;
            (from, 1 + (len * (all - from - 1) as f64) as usize)
        };
        let (top, height) = cut(part.0, part.1, rows);
        let (left, width) = cut(part.2, part.3, columns);
        let padding = padded.then(|| (low, low + span / 8));
        let rect = Rect { top, left, rows: height, columns: width };
        let flip = Flip { horizontal: part.4, vertical: part.5 };
        Case { stored, signed, bits, rows, columns, slope, intercept, inverted, padding, rect, flip }
    })
}

fn windows_for(case: &Case) -> Vec<Window> {
    let middle = (case.slope * 1100.0 + case.intercept) as f32;
    vec![
        Window { level: middle, width: 80.0 },
        Window { level: middle + 30.0, width: 200.0 },
        Window { level: middle, width: 381.0 },
    ]
}

fn run(case: &Case, plan: &WindowPlan, copies: usize) -> Vec<f32> {
    let signed: Vec<i16> = case.stored.iter().map(|value| *value as i16).collect();
    let unsigned: Vec<u16> = case.stored.iter().map(|value| *value as u16).collect();
    let pixels = if case.signed { StoredPixels::I16(&signed) } else { StoredPixels::U16(&unsigned) };
    let view = SliceView {
        pixels,
        rows: case.rows,
        columns: case.columns,
        slope: case.slope,
        intercept: case.intercept,
        bits_stored: case.bits,
        inverted: case.inverted,
        padding: case.padding.map(|(low, high)| low..=high),
        rect: Some(case.rect),
        flip: case.flip,
    };
    ct_window_vec(plan, &vec![view; copies]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_kernel_follows_the_oracle(case in cases(), side in 1usize..40, exact in any::<bool>(), n_windows in 1usize..=3) {
        let ramp = if exact { Ramp::LinearExact } else { Ramp::Linear };
        let windows = &windows_for(&case)[..n_windows];
        let (mean, std) = (&[0.485, 0.456, 0.406][..n_windows], &[0.229, 0.224, 0.225][..n_windows]);
        let plan = WindowPlan::new(windows, ramp, side, mean, std).unwrap();
        let found = run(&case, &plan, 1);
        let expected = oracle(&case, windows, ramp, side, mean, std);
        prop_assert_eq!(found.len(), expected.len());
        for (n, (a, b)) in found.iter().zip(&expected).enumerate() {
            // 1e-5 on the windowed value, which the deviation scales.
            let error = (f64::from(*a) - b).abs() * f64::from(std[n % n_windows]);
            prop_assert!(error <= 1e-5, "value {n}: {a} instead of {b}");
        }
    }

    #[test]
    fn a_slice_does_not_depend_on_its_batch(case in cases(), side in 1usize..24) {
        let plan = WindowPlan::new(&windows_for(&case), Ramp::LinearExact, side, &[0.0; 3], &[1.0; 3]).unwrap();
        let (one, many) = (run(&case, &plan, 1), run(&case, &plan, 5));
        for part in many.chunks_exact(one.len()) {
            prop_assert_eq!(part, &one[..]);
        }
    }
}
