//! Counts the heap of this process, so that tests and fuzz targets can hold what a file costs against what it may
//! cost. A file of its own because both take it in.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The most memory that decoding a file of so many bytes may hold at once beside the file, as RELIABILITY.md states it.
pub const fn decoding_bytes_max(file_bytes: usize) -> usize {
    DECODING_BYTES_FREE + DECODING_BYTES_PER_BYTE * file_bytes
}

/// Each byte may become 100 of stored values (`admission.expansion_max`), and the JPEG 2000 decoder needs several
/// times that while it works.
pub const DECODING_BYTES_PER_BYTE: usize = 1000;

/// The same for the bytes that any file may become.
pub const DECODING_BYTES_FREE: usize = 40 << 20;

/// The system's allocator, counted.
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

fn less(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is handed on to the system's allocator as it came, and its answer is handed back as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        less(layout.size());
        // SAFETY: as above; the place came from the system's allocator.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new place may exist side by side.
        more(size);
        less(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Does some work; gives its result and the most bytes that it held at once beyond those held before. Counts the work
/// of all threads.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, PEAK.load(Relaxed).saturating_sub(before))
}
