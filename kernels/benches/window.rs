//! Slices a second from 512 x 512 stored pixels to 3 x 224 x 224, batches of 1 and 32. Run with `cargo bench -p ichd-kernels`.

use std::time::Instant;

use ichd_kernels::{Ramp, SliceView, StoredPixels, Window, WindowPlan, ct_window};

fn main() {
    let windows = [(40.0, 80.0), (80.0, 200.0), (40.0, 380.0)].map(|(level, width)| Window { level, width });
    let plan = WindowPlan::new(&windows, Ramp::LinearExact, 224, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]);
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return eprintln!("{error}"),
    };
    let pixels: Vec<i16> = (0..512 * 512).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 21) as i16).collect();
    let view = SliceView {
        pixels: StoredPixels::I16(&pixels),
        rows: 512,
        columns: 512,
        intercept: -1024.0,
        ..SliceView::default()
    };
    for n_slices in [1usize, 32] {
        let views = vec![view.clone(); n_slices];
        let mut out = vec![0.0; n_slices * plan.values_per_slice()];
        let mut rates = Vec::new();
        for _ in 0..7 {
            let rounds = 160 / n_slices;
            let begun = Instant::now();
            for _ in 0..rounds {
                if let Err(error) = ct_window(&plan, &views, &mut out) {
                    return eprintln!("{error}");
                }
            }
            rates.push((rounds * n_slices) as f64 / begun.elapsed().as_secs_f64());
        }
        rates.sort_by(f64::total_cmp);
        println!("window 512 -> 224 x 3, batch {n_slices}: median {:.0}, best {:.0} slices/s", rates[3], rates[6]);
    }
}
