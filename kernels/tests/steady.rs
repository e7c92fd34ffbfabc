//! What windowing on the CPU asks of the allocator once it has run before: nothing, however many slices there are.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ichd_kernels::{Flip, Ramp, SliceView, StoredPixels, Window, WindowPlan, ct_window};

/// The system's allocator, which counts what it is asked for.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it came, and its answer is handed back as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above; the place came from the system's allocator.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn windowing_takes_no_memory_once_it_has_run() {
    let values: Vec<i16> = (0..300 * 280u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 20) as i16).collect();
    let whole = SliceView {
        pixels: StoredPixels::I16(&values),
        rows: 300,
        columns: 280,
        intercept: -1024.0,
        ..SliceView::default()
    };
    let kinds = [
        whole.clone(),
        SliceView { slope: 0.37, flip: Flip { horizontal: true, vertical: true }, ..whole.clone() },
        SliceView { padding: Some(-20..=20), ..whole },
    ];
    // In whole numbers where the processor can, and by every other way.
    for n_windows in [1, 3, 4, 5, 8] {
        let windows: Vec<Window> =
            (0..n_windows).map(|at| Window { level: 40.0 + at as f32, width: 80.0 + 20.0 * at as f32 }).collect();
        let ones = vec![1.0; n_windows];
        let plan = WindowPlan::new(&windows, Ramp::LinearExact, 96, &ones, &ones).expect("a plan");
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            for n in [1, 5, 64] {
                let slices: Vec<SliceView<'_>> = kinds.iter().cycle().take(n).cloned().collect();
                let mut out = vec![0.0; n * plan.values_per_slice()];
                let asked = pool.install(|| {
                    let mut least = usize::MAX;
                    // A thread that had nothing to do so far begins with memory of its own; there are only a few.
                    for _ in 0..8 {
                        let before = ASKED.load(Relaxed);
                        ct_window(&plan, &slices, &mut out).expect("slices that can be windowed");
                        least = least.min(ASKED.load(Relaxed) - before);
                    }
                    least
                });
                assert_eq!(asked, 0, "{n} slices, {n_windows} windows, {threads} threads");
            }
        }
    }
}
