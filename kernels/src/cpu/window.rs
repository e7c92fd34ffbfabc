//! Windowing on the CPU: which way a slice takes, and how threads share the work.
//!
//! Where windows begin and end at whole stored values, as those of nearly all CTs do, and the processor has AVX-512, everything
//! up to the sum across is done in whole numbers, exactly (`avx512`). All else goes through f32 (`turned`).

#[cfg(target_arch = "x86_64")]
mod avx512;
mod gather;
mod turned;
mod whole;

use rayon::prelude::*;

pub(crate) use gather::Gather;

use crate::resize::Taps;
use crate::window::{Line, Padding, Rect, SliceView, WindowPlan, whole_or};

/// Least output rows of a band: each band sums some source rows across that its neighbor sums too.
const BAND_ROWS: usize = 16;

/// Windows checked slices into `out`, `[n, side, side, channels]`.
pub(crate) fn run(plan: &WindowPlan, slices: &[SliceView<'_>], out: &mut [f32]) {
    let threads = rayon::current_num_threads();
    // Of many slices each thread takes whole ones; few are cut into bands, so that all threads have work.
    let bands = if slices.len() >= 2 * threads { 1 } else { (2 * threads).div_ceil(slices.len().max(1)) };
    let band_rows = plan.side().div_ceil(bands).max(BAND_ROWS);
    let band_len = band_rows * plan.side() * plan.channels();
    slices.par_iter().zip(out.par_chunks_exact_mut(plan.values_per_slice())).for_each(|(view, out)| {
        let lines = Line::all(plan, view);
        let padding = Padding::of(view, &lines);
        let rect = whole_or(view);
        let down = plan.taps(rect.rows);
        let slice = Prepared { view, rect, padding, lines: &lines, down: &down };
        let mut all_bands = |way: &(dyn Fn(Band<'_>) + Sync)| {
            let band = |(at, out)| way(Band { first_row: at * band_rows, out });
            if band_len >= out.len() {
                band((0, out));
            } else {
                out.par_chunks_mut(band_len).enumerate().for_each(band);
            }
        };
        #[cfg(target_arch = "x86_64")]
        if let Some(exact) = avx512::Exact::of(plan, &slice) {
            return all_bands(&|band| exact.run(band));
        }
        let across = plan.taps(rect.columns);
        all_bands(&|band| turned::run(&slice, &across, band));
    });
}

/// What the bands of a slice share.
struct Prepared<'a> {
    view: &'a SliceView<'a>,
    rect: Rect,
    padding: Option<Padding>,
    lines: &'a [Line],
    down: &'a Taps,
}

impl Prepared<'_> {
    /// Where a row of the rectangle begins in the stored values, turned upside down if asked.
    #[inline(always)]
    fn begin(&self, row: usize) -> usize {
        let row = if self.view.flip.vertical { self.rect.rows - 1 - row } else { row };
        (self.rect.top + row) * self.view.columns + self.rect.left
    }
}

/// Neighboring output rows.
struct Band<'a> {
    first_row: usize,
    /// `[rows, side, channels]`.
    out: &'a mut [f32],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Flip, Ramp, StoredPixels, Window};

    /// Values around the windows, the same in every run.
    fn noise(count: usize) -> Vec<i16> {
        (0..count as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as i16 - 100).collect()
    }

    fn plan(side: usize, n_windows: usize) -> WindowPlan {
        let all = [(40.0, 80.0), (80.0, 200.0), (40.0, 375.0), (600.0, 2800.0), (35.0, 71.0)];
        let windows: Vec<Window> =
            all[..n_windows].iter().map(|(level, width)| Window { level: *level, width: *width }).collect();
        WindowPlan::new(&windows, Ramp::LinearExact, side, &vec![0.4; n_windows], &vec![0.25; n_windows]).unwrap()
    }

    fn windowed(plan: &WindowPlan, views: &[SliceView<'_>]) -> Vec<f32> {
        let mut out = vec![f32::NAN; views.len() * plan.values_per_slice()];
        run(plan, views, &mut out);
        out
    }

    /// Slices that differ in what their values mean.
    fn kinds<'a>(signed: &'a [i16], unsigned: &'a [u16], rows: usize, columns: usize) -> Vec<SliceView<'a>> {
        let plain =
            SliceView { pixels: StoredPixels::I16(signed), rows, columns, intercept: -1024.0, ..SliceView::default() };
        let flip = Flip { horizontal: true, vertical: true };
        let inside = Rect { top: rows / 5, left: columns / 3, rows: rows - rows / 4, columns: columns - columns / 3 };
        let unsigned = SliceView { pixels: StoredPixels::U16(unsigned), ..plain.clone() };
        vec![
            plain.clone(),
            SliceView { flip, rect: Some(inside), ..plain.clone() },
            SliceView { padding: Some(1070..=1100), flip, ..plain.clone() },
            SliceView { slope: 0.5, intercept: -500.5, ..plain },
            unsigned.clone(),
            SliceView { inverted: true, bits_stored: 11, padding: Some(0..=1000), ..unsigned },
        ]
    }

    #[test]
    fn both_ways_agree() {
        for (rows, columns, side) in
            [(512, 512, 224), (90, 512, 299), (64, 63, 65), (31, 700, 100), (40, 5, 33), (600, 560, 40)]
        {
            let signed = noise(rows * columns);
            let unsigned: Vec<u16> = signed.iter().map(|value| value.unsigned_abs()).collect();
            for n_windows in 1..=5 {
                let plan = plan(side, n_windows);
                for (kind, view) in kinds(&signed, &unsigned, rows, columns).iter().enumerate() {
                    let lines = Line::all(&plan, view);
                    let (rect, padding) = (whole_or(view), Padding::of(view, &lines));
                    let (across, down) = (plan.taps(rect.columns), plan.taps(rect.rows));
                    let slice = Prepared { view, rect, padding, lines: &lines, down: &down };
                    #[cfg(target_arch = "x86_64")]
                    if n_windows <= 4 && std::arch::is_x86_feature_detected!("avx512bw") {
                        assert!(avx512::Exact::of(&plan, &slice).is_some(), "kind {kind} in whole numbers");
                    }
                    let mut expected = vec![f32::NAN; plan.values_per_slice()];
                    turned::run(&slice, &across, Band { first_row: 0, out: &mut expected });
                    for (at, (found, expected)) in
                        windowed(&plan, std::slice::from_ref(view)).iter().zip(expected).enumerate()
                    {
                        // The windowed value is off by at most a tenth of what the oracle allows.
                        assert!(
                            (found - expected).abs() < 4e-6,
                            "{rows} x {columns} to {side}, {kind}, {at}: {found}, {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_results() {
        let signed = noise(300 * 333);
        let unsigned: Vec<u16> = signed.iter().map(|value| value.unsigned_abs()).collect();
        for n_windows in [3, 5] {
            let plan = plan(121, n_windows);
            let views = kinds(&signed, &unsigned, 300, 333);
            let with = |threads: usize, views: &[SliceView<'_>]| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| windowed(&plan, views)).into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let alone = with(1, &views);
            for threads in [2, 3, 8] {
                assert_eq!(with(threads, &views), alone);
                assert_eq!(with(threads, &views[..1]), alone[..plan.values_per_slice()]);
            }
        }
    }
}
