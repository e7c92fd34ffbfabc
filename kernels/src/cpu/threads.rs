//! Who computes what: the threads of the global pool.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// What a thread was before, and is again whatever ends its work.
struct Before(bool);

impl Drop for Before {
    fn drop(&mut self) {
        ALONE.set(self.0);
    }
}

/// Whether the other threads have work of their own, so that cutting this thread's finely gains nothing.
pub(crate) fn alone() -> bool {
    ALONE.get()
}

/// Runs `work` on the threads that compute, so that handing out the work of each layer wakes nobody.
pub fn among_threads<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Results of `work` on `pieces` pieces, in order. Every thread takes a piece after the other, so that what one layer
/// leaves is in its own caches for the next and nobody waits at every layer for the slowest. Pieces that are left for fewer
/// threads than there are get help from the others.
pub fn shared_out<R: Send>(pieces: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let threads = rayon::current_num_threads();
    let rounds = pieces / threads * threads;
    let done: Vec<Mutex<Option<R>>> = (0..pieces).map(|_| Mutex::new(None)).collect();
    let share = |range: Range<usize>, alone: bool| {
        let next = AtomicUsize::new(range.start);
        let worker = || {
            let _before = Before(ALONE.replace(alone));
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= range.end {
                    break;
                }
                *done[piece].lock().unwrap_or_else(PoisonError::into_inner) = Some(work(piece));
            }
        };
        rayon::scope(|scope| {
            for _ in 0..range.len().min(threads) {
                scope.spawn(|_| worker());
            }
        });
    };
    share(0..rounds, threads > 1);
    share(rounds..pieces, false);
    done.into_iter().filter_map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}
