//! Who computes what: the threads of the global pool.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
    /// The team that this thread leads.
    static TEAM: Cell<*const Team> = const { Cell::new(ptr::null()) };
    /// Whether this thread does a part for a team.
    static PART: Cell<bool> = const { Cell::new(false) };
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
    if pieces - rounds == 1 {
        *done[rounds].lock().unwrap_or_else(PoisonError::into_inner) = Some(as_a_team(|| work(rounds)));
    } else {
        share(rounds..pieces, false);
    }
    done.into_iter().filter_map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Runs `work` for each of `parts` numbers, by whichever threads there are for it. Parts are told apart by their number alone.
pub(crate) fn each(parts: usize, work: impl Fn(usize) + Sync) {
    let team = TEAM.get();
    if parts == 1 || PART.get() {
        // A part that waited for others might be given a helper's work meanwhile, which ends only with its team.
        (0..parts).for_each(work);
    } else if team.is_null() || parts > Team::PARTS_MAX {
        (0..parts).into_par_iter().with_max_len(1).for_each(&work);
    } else {
        // SAFETY: the pointer is set by the team that this thread leads, for as long as it does.
        unsafe { &*team }.each(parts, &work);
    }
}

/// The same for the pieces of `len` values that `values` consists of; the last one may be shorter.
pub(crate) fn each_piece<T: Send>(values: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    struct Start<T>(*mut T);
    // SAFETY: every thread makes a reference to its own piece only.
    unsafe impl<T: Send> Sync for Start<T> {}
    let (len, total, start) = (len.max(1), values.len(), Start(values.as_mut_ptr()));
    let start = &start;
    each(total.div_ceil(len), |at| {
        let first = at * len;
        // SAFETY: the pieces of different numbers do not overlap, and each number is run once.
        let piece = unsafe { std::slice::from_raw_parts_mut(start.0.add(first), len.min(total - first)) };
        work(at, piece);
    });
}

/// Runs `work`, whose layers all threads compute together. They stay awake between layers: a thread that slept comes tens of
/// microseconds late, which is as long as a layer of a small network takes.
fn as_a_team<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    struct Lead<'a>(&'a Team);

    impl Drop for Lead<'_> {
        fn drop(&mut self) {
            TEAM.set(ptr::null());
            self.0.is_over.store(true, Ordering::Release);
        }
    }

    let team = Team::default();
    rayon::scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| team.help());
        }
        let _lead = Lead(&team);
        TEAM.set(&team);
        work()
    })
}

/// A thread that leads and others that help it, one job at a time.
#[derive(Default)]
struct Team {
    /// From the highest bits on: number of the job (32), its parts (16), its next part (16).
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// Parts of the job that are finished.
    done: AtomicUsize,
    is_over: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

type Job = *const (dyn Fn(usize) + Sync);

// SAFETY: `job` is written by the leader alone, and only while no part of a job is being done; whoever reads it has taken a
// part that was published after that.
unsafe impl Sync for Team {}

impl Team {
    const PARTS_MAX: usize = u16::MAX as usize;

    /// Looks at the state before a thread lets others run: some tens of microseconds.
    const LOOKS: u32 = 2000;

    /// Called by the leader.
    fn each(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        let job: *const (dyn Fn(usize) + Sync + '_) = work;
        // SAFETY: only the lifetime changes; nobody uses the job after this function, which waits for all parts. No part of
        // an earlier job is being done, as the leader waited for them too.
        unsafe { *self.job.get() = Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job)) };
        self.done.store(0, Ordering::Relaxed);
        let number = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.state.store(number << 32 | (parts as u64) << 16, Ordering::Release);
        while self.take_part() {}
        self.wait_until(|| self.done.load(Ordering::Acquire) == parts);
        if let Some(panic) = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(panic);
        }
    }

    /// Does one part of the job that is out. `false` if there is none left.
    fn take_part(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        let part = loop {
            let (parts, next) = (state >> 16 & 0xFFFF, state & 0xFFFF);
            if next >= parts {
                return false;
            }
            match self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break next as usize,
                Err(now) => state = now,
            }
        };
        // SAFETY: this part belongs to the job that is out and is not finished, so the job stays until it is, and so does
        // what it points to.
        PART.set(true);
        let done = catch_unwind(AssertUnwindSafe(|| unsafe {
            if let Some(job) = *self.job.get() {
                (*job)(part);
            }
        }));
        PART.set(false);
        if let Err(panic) = done {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    /// Does parts until the leader ends.
    fn help(&self) {
        if !TEAM.get().is_null() {
            // A leader that waits for other work of the pool is not to wait for the end of a team.
            return;
        }
        while !self.is_over.load(Ordering::Acquire) {
            while self.take_part() {}
            let state = self.state.load(Ordering::Acquire);
            self.wait_until(|| self.state.load(Ordering::Acquire) != state || self.is_over.load(Ordering::Acquire));
        }
    }

    fn wait_until(&self, holds: impl Fn() -> bool) {
        let mut looks = 0;
        while !holds() {
            looks += 1;
            if looks < Team::LOOKS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn a_team_does_every_part_once_and_ends_each_job_before_the_next() {
        for threads in [1, 2, 5] {
            let counts: Vec<AtomicUsize> = (0..200).map(|_| AtomicUsize::new(0)).collect();
            on_threads(threads, || {
                as_a_team(|| {
                    assert!(!TEAM.get().is_null());
                    for job in 1..=2000 {
                        let parts = job % 200 + 1;
                        let before: Vec<usize> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
                        each(parts, |part| {
                            counts[part].fetch_add(1, Ordering::Relaxed);
                        });
                        for (part, before) in before.into_iter().enumerate() {
                            let expected = before + usize::from(part < parts);
                            assert_eq!(counts[part].load(Ordering::Relaxed), expected, "part {part} of job {job}");
                        }
                    }
                });
            });
            assert!(TEAM.get().is_null());
        }
    }

    #[test]
    fn parts_of_parts_are_done_and_a_panic_in_one_comes_out_after_all_are_done() {
        let done = AtomicUsize::new(0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            on_threads(3, || {
                as_a_team(|| {
                    each(8, |_| {
                        each(5, |_| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                    assert_eq!(done.load(Ordering::Relaxed), 40);
                    each(100, |part| {
                        done.fetch_add(1, Ordering::Relaxed);
                        if part == 7 {
                            resume_unwind(Box::new("on purpose"));
                        }
                    });
                });
            });
        }));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
        assert_eq!(done.load(Ordering::Relaxed), 140, "nobody works on after the panic came out");
        assert!(TEAM.get().is_null());
    }

    #[test]
    fn pieces_cover_everything_and_the_last_may_be_short() {
        for (total, len) in [(0, 3), (1, 3), (7, 3), (9, 3), (5, 0)] {
            let mut values = vec![0; total];
            each_piece(&mut values, len, |at, piece| {
                assert!(piece.len() == len.max(1) || (at + 1) * len > total);
                piece.iter_mut().for_each(|value| *value += at + 1);
            });
            let expected: Vec<usize> = (0..total).map(|at| at / len.max(1) + 1).collect();
            assert_eq!(values, expected);
        }
    }
}
