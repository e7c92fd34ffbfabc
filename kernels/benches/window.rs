//! Slices a second from 512 x 512 stored pixels in memory to 3 windows of 224, 299 and 300 pixels on the CPU. Run with
//! `cargo bench --workspace --bench window`; `tools/peer_preprocess.py` runs it in turn with what Python has.
//!
//! Arguments `BATCH SIDE ROUNDS` measure one case and print JSON.

use std::process::ExitCode;
use std::time::Instant;

use ichd_kernels::{KernelError, Ramp, SliceView, StoredPixels, Window, WindowPlan, ct_window};

/// Slices of the stored pixels that `tools/peer_preprocess.py` makes too.
fn pixels(batch: usize) -> Vec<i16> {
    (0..(batch * 512 * 512) as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as i16).collect()
}

fn measure(batch: usize, side: usize, rounds: usize) -> Result<(), KernelError> {
    let windows = [(40.0, 80.0), (80.0, 200.0), (40.0, 380.0)].map(|(level, width)| Window { level, width });
    let plan = WindowPlan::new(&windows, Ramp::LinearExact, side, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225])?;
    let pixels = pixels(batch);
    let views: Vec<SliceView<'_>> = pixels
        .chunks_exact(512 * 512)
        .map(|pixels| SliceView {
            pixels: StoredPixels::I16(pixels),
            rows: 512,
            columns: 512,
            intercept: -1024.0,
            padding: Some(-2000..=-2000),
            ..SliceView::default()
        })
        .collect();
    let mut out = vec![0.0; batch * plan.values_per_slice()];
    ct_window(&plan, &views, &mut out)?;
    let repeats = (16 / batch).max(1);
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        for _ in 0..repeats {
            ct_window(&plan, &views, &mut out)?;
        }
        rates.push((repeats * batch) as f64 / begun.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let (median, best) = (rates[rounds / 2], rates[rounds - 1]);
    let bytes = (512 * 512 * 2 + side * side * 3 * 4) as f64;
    println!(
        "{{\"batch\": {batch}, \"side\": {side}, \"median\": {median:.0}, \"best\": {best:.0}, \"gigabytes_per_second\": {:.2}}}",
        median * bytes / 1e9
    );
    Ok(())
}

fn main() -> ExitCode {
    // Cargo passes --bench; everything else is ours.
    let args: Vec<usize> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).filter_map(|arg| arg.parse().ok()).collect();
    let cases: Vec<[usize; 3]> = match args.as_slice() {
        [batch, side, rounds] => vec![[(*batch).max(1), *side, (*rounds).max(1)]],
        _ => [224, 299, 300].into_iter().flat_map(|side| [[1, side, 25], [32, side, 9], [256, side, 3]]).collect(),
    };
    for [batch, side, rounds] in cases {
        if let Err(error) = measure(batch, side, rounds) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
