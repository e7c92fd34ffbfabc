//! A scorer that gets by with little memory: what does not fit the device is scored in halves. Knows no device.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::clock::{Clock, Tick};
use crate::engine::{EngineError, EngineOutput, Scorer};
use crate::slice::Slice;

/// Scores in pieces that fit. What did not fit once is not tried again: the pieces stay small until the next start.
pub struct Frugal {
    scorer: Box<dyn Scorer>,
    most: usize,
}

impl Frugal {
    /// Around another scorer.
    pub fn new(scorer: Box<dyn Scorer>) -> Self {
        Frugal { scorer, most: usize::MAX }
    }
}

impl Scorer for Frugal {
    fn score(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<EngineOutput, EngineError> {
        let (mut logits, mut window_time, mut infer_time) = (Vec::with_capacity(slices.len()), Tick::ZERO, Tick::ZERO);
        while logits.len() < slices.len() {
            let rest = &slices[logits.len()..];
            let piece = &rest[..rest.len().min(self.most)];
            match guarded(|| self.scorer.score(piece, clock)) {
                Ok(output) if output.logits.len() == piece.len() => {
                    logits.extend(output.logits);
                    window_time += output.window_time;
                    infer_time += output.infer_time;
                }
                Ok(output) => {
                    let sentence = format!("logits of {} slices for {}", output.logits.len(), piece.len());
                    return Err(EngineError::Device(sentence));
                }
                Err(EngineError::Memory(cause)) if piece.len() > 1 => {
                    self.most = piece.len() / 2;
                    let (slices, most) = (piece.len(), self.most);
                    tracing::warn!(slices, most, %cause, "The device has no memory for so many slices at once; from now on fewer go together.");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(EngineOutput { logits, window_time, infer_time })
    }
}

/// A device that fails makes the tensor library panic; what it said tells which failure it was.
///
/// # Errors
/// Those of `work`, and a panic as what it is on a device.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(EngineError::of_device(text.unwrap_or("it panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::engine::blank;

    /// Has memory for so many slices, and says how many came each time.
    struct Small {
        fits: usize,
        panics: bool,
        calls: std::sync::Arc<std::sync::Mutex<Vec<usize>>>,
    }

    impl Scorer for Small {
        fn score(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<EngineOutput, EngineError> {
            self.calls.lock().unwrap().push(slices.len());
            if slices.len() > self.fits {
                let text = "An error happened during execution\nCaused by:\n  out of device memory allocating 7 bytes";
                assert!(!self.panics, "{text}");
                return Err(EngineError::of_device(text));
            }
            let logits = slices.iter().map(|slice| [slice.rows as f32; 6]).collect();
            Ok(EngineOutput { logits, window_time: Tick::ZERO, infer_time: Tick::from_millis(1) })
        }
    }

    #[test]
    fn out_of_memory_halves_the_batch_and_keeps_the_order() {
        for panics in [false, true] {
            let calls = std::sync::Arc::default();
            let small = Small { fits: 3, panics, calls: std::sync::Arc::clone(&calls) };
            let mut scorer = Frugal::new(Box::new(small));
            let slices: Vec<Slice> = (1..=13).map(blank).collect();
            let slices: Vec<&Slice> = slices.iter().collect();
            let output = scorer.score(&slices, &ManualClock::default()).unwrap();
            let order: Vec<f32> = output.logits.iter().map(|row| row[0]).collect();
            assert_eq!(order, (1..=13).map(|n| n as f32).collect::<Vec<_>>());
            assert_eq!(*calls.lock().unwrap(), [13, 6, 3, 3, 3, 3, 1]);
            assert_eq!(output.infer_time, Tick::from_millis(5));
            // What did not fit is not tried again.
            scorer.score(&slices[..4], &ManualClock::default()).unwrap();
            assert_eq!(calls.lock().unwrap()[7..], [3, 1]);
        }
    }

    #[test]
    fn one_slice_that_does_not_fit_is_an_error() {
        let mut scorer = Frugal::new(Box::new(Small { fits: 0, panics: false, calls: Default::default() }));
        let error = scorer.score(&[&blank(8), &blank(8)], &ManualClock::default()).unwrap_err();
        assert!(matches!(error, EngineError::Memory(_)), "{error}");
    }
}
