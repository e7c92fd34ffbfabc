//! A scorer that gets by with little memory: what does not fit the device is scored in halves. Knows no device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::{Clock, Tick};
use crate::engine::{EngineError, EngineOutput, Images, Scorer, Uploader};
use crate::slice::Slice;

/// Scores in pieces that fit. What did not fit once is not tried again: the pieces stay small until the next start.
pub struct Frugal {
    scorer: Box<dyn Scorer>,
    most: Most,
    /// Beside what is scored.
    most_ahead: Most,
}

/// How many slices go together, as far as is known.
#[derive(Clone)]
struct Most(Arc<AtomicUsize>);

impl Default for Most {
    fn default() -> Self {
        Most(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Most {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// So many were too many, which is an error if it was one.
    fn learn(&self, n_slices: usize, cause: String) -> Result<(), EngineError> {
        if n_slices <= 1 {
            return Err(EngineError::Memory(cause));
        }
        let most = n_slices / 2;
        self.0.store(most, Ordering::Relaxed);
        tracing::warn!(slices = n_slices, most, %cause, "The device has no memory for so many slices at once; from now on fewer go together.");
        Ok(())
    }
}

impl Frugal {
    /// Around another scorer.
    pub fn new(scorer: Box<dyn Scorer>) -> Self {
        Frugal { scorer, most: Most::default(), most_ahead: Most::default() }
    }
}

/// Brings no more than fits.
struct FrugalUploader {
    uploader: Box<dyn Uploader>,
    most: [Most; 2],
}

impl Uploader for FrugalUploader {
    fn upload(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<Images, EngineError> {
        if self.most.iter().any(|most| slices.len() > most.get()) {
            return Err(EngineError::Memory("so many slices did not fit before".into()));
        }
        guarded(|| self.uploader.upload(slices, clock))
    }
}

impl Scorer for Frugal {
    fn uploader(&self) -> Option<Box<dyn Uploader>> {
        let uploader = self.scorer.uploader()?;
        Some(Box::new(FrugalUploader { uploader, most: [self.most.clone(), self.most_ahead.clone()] }))
    }

    fn score_images(
        &mut self,
        slices: &[&Slice],
        images: Images,
        clock: &dyn Clock,
    ) -> Result<EngineOutput, EngineError> {
        if slices.len() <= self.most.get() {
            match guarded(|| self.scorer.score_images(slices, images, clock)) {
                // How many slices fit by themselves is another question, which shows below.
                Err(EngineError::Memory(cause)) => {
                    let (n_slices, most) = (slices.len(), slices.len() / 2);
                    self.most_ahead.0.store(most, Ordering::Relaxed);
                    tracing::warn!(slices = n_slices, most, %cause, "The device has no memory for so many slices beside the batch before; from now on fewer are brought ahead.");
                }
                scored => return complete(scored?, slices.len()),
            }
        }
        self.score(slices, clock)
    }

    fn score(&mut self, slices: &[&Slice], clock: &dyn Clock) -> Result<EngineOutput, EngineError> {
        let (mut logits, mut window_time, mut infer_time) = (Vec::with_capacity(slices.len()), Tick::ZERO, Tick::ZERO);
        while logits.len() < slices.len() {
            let rest = &slices[logits.len()..];
            let piece = &rest[..rest.len().min(self.most.get())];
            match guarded(|| self.scorer.score(piece, clock)).and_then(|output| complete(output, piece.len())) {
                Ok(output) => {
                    logits.extend(output.logits);
                    window_time += output.window_time;
                    infer_time += output.infer_time;
                }
                Err(EngineError::Memory(cause)) => self.most.learn(piece.len(), cause)?,
                Err(error) => return Err(error),
            }
        }
        Ok(EngineOutput { logits, window_time, infer_time })
    }
}

fn complete(output: EngineOutput, n_slices: usize) -> Result<EngineOutput, EngineError> {
    if output.logits.len() == n_slices {
        return Ok(output);
    }
    Err(EngineError::Device(format!("logits of {} slices for {n_slices}", output.logits.len())))
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
    use burn::tensor::{Device, Tensor};

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

    /// Has memory for so many images that were made ahead, and for so many slices.
    struct SmallForImages(usize, usize);

    impl Scorer for SmallForImages {
        fn score(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<EngineOutput, EngineError> {
            assert!(slices.len() <= self.1, "out of device memory");
            let logits = vec![[1.0; 6]; slices.len()];
            Ok(EngineOutput { logits, window_time: Tick::ZERO, infer_time: Tick::ZERO })
        }

        fn uploader(&self) -> Option<Box<dyn Uploader>> {
            Some(Box::new(SmallForImages(self.0, self.1)))
        }

        fn score_images(&mut self, slices: &[&Slice], _: Images, _: &dyn Clock) -> Result<EngineOutput, EngineError> {
            assert!(slices.len() <= self.0, "out of device memory");
            let logits = vec![[2.0; 6]; slices.len()];
            Ok(EngineOutput { logits, window_time: Tick::ZERO, infer_time: Tick::ZERO })
        }
    }

    impl Uploader for SmallForImages {
        fn upload(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<Images, EngineError> {
            let tensor = Tensor::zeros([slices.len(), 1, 1, 1], &Device::flex());
            Ok(Images { tensor, n_slices: slices.len(), window_time: Tick::ZERO })
        }
    }

    #[test]
    fn images_that_do_not_fit_are_made_again_and_slices_that_do_not_are_brought_no_more() {
        let mut scorer = Frugal::new(Box::new(SmallForImages(3, 5)));
        let mut uploader = scorer.uploader().unwrap();
        let (air, clock) = (blank(8), ManualClock::default());
        let mut go = |n: usize| {
            let images = uploader.upload(&vec![&air; n], &clock);
            images.map(|images| scorer.score_images(&vec![&air; n], images, &clock).unwrap().logits)
        };
        assert_eq!(go(3).unwrap(), [[2.0; 6]; 3]);
        assert_eq!(go(8).unwrap(), [[1.0; 6]; 8], "the images did not fit, the slices do in pieces");
        assert!(matches!(go(5), Err(EngineError::Memory(_))), "they are not brought ahead again");
        assert_eq!(go(3).unwrap(), [[2.0; 6]; 3]);
        let mut beside = Frugal::new(Box::new(SmallForImages(3, 99)));
        let (mut uploader, slices) = (beside.uploader().unwrap(), vec![&air; 6]);
        let images = uploader.upload(&slices, &clock).unwrap();
        assert_eq!(beside.score_images(&slices, images, &clock).unwrap().logits, [[1.0; 6]; 6]);
        assert!(uploader.upload(&slices[..4], &clock).is_err(), "half of them may fit beside another batch");
        assert!(uploader.upload(&slices[..3], &clock).is_ok() && beside.most.get() == usize::MAX);
        let mut none = Frugal::new(Box::new(SmallForImages(0, 1)));
        let images = none.uploader().unwrap().upload(&[&air], &clock).unwrap();
        assert_eq!(none.score_images(&[&air], images, &clock).unwrap().logits, [[1.0; 6]], "a lone one as well");
    }

    #[test]
    fn one_slice_that_does_not_fit_is_an_error() {
        let mut scorer = Frugal::new(Box::new(Small { fits: 0, panics: false, calls: Default::default() }));
        let error = scorer.score(&[&blank(8), &blank(8)], &ManualClock::default()).unwrap_err();
        assert!(matches!(error, EngineError::Memory(_)), "{error}");
    }
}
