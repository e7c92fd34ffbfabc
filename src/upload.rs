//! upload: the next batch comes to a GPU and is windowed there while the network is busy with the one before. A thread of its
//! own has a stream of its own on the device, and the tensor library orders the two. Where that gains nothing, on a CPU, there
//! is no such stage. Knows no file's content.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use crate::clock::Clock;
use crate::error::Fatal;
use crate::frugal::guarded;
use crate::infer::{Uploader, files_of, is_suspect};
use crate::parcel::Batch;
use crate::profile::{Crew, Profile, Step};
use crate::roster::Route;
use crate::slice::Slice;
use crate::watchdog::AtHand;

/// What the thread needs.
pub struct Upload {
    /// One for each model, in the order of [`Fleet::engines`](crate::infer::Fleet::engines).
    pub uploaders: Vec<Option<Box<dyn Uploader>>>,
    /// The routes.
    pub routes: Arc<[Route]>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What the watchdog sees, and who is to blame should the device fail.
    pub at_hand: Arc<AtHand>,
    /// Where the time goes.
    pub profile: Arc<Profile>,
    /// The batch before may have ended the program before.
    pub is_behind_a_suspect: bool,
    /// Whether there is no room on the device for more than what is scored.
    pub is_crowded: Arc<AtomicBool>,
}

impl Upload {
    /// The thread. Both channels have no room: one batch is ahead of the device, and it is in this thread's hands.
    ///
    /// # Errors
    /// None.
    pub fn run(mut self, batches: &Receiver<Batch>, to_device: &Sender<Batch>) -> Result<(), Fatal> {
        for batch in batches {
            let batch = self.handle(batch);
            self.profile.queue(Crew::Device, 1);
            let begun = self.clock.now();
            // A device's stage that has failed reports that itself.
            if to_device.send(batch).is_err() {
                return Ok(());
            }
            self.at_hand.hand_over();
            self.profile.queue(Crew::Device, 0);
            self.profile.held_up(Crew::Upload, begun, self.clock.now());
        }
        Ok(())
    }

    /// Makes a batch's images for every model of its route. What cannot be made here is left to the device's thread, which
    /// knows what to do about it.
    pub fn handle(&mut self, mut batch: Batch) -> Batch {
        // Who may have ended the program before is scored alone, and has the device for itself, too.
        let is_suspect = batch.works.iter().any(is_suspect);
        let is_behind_one = std::mem::replace(&mut self.is_behind_a_suspect, is_suspect);
        if is_suspect || is_behind_one || self.is_crowded.load(Ordering::Relaxed) {
            return batch;
        }
        let begun = self.clock.now();
        let busy = self.at_hand.begin(files_of(&batch));
        let slices: Vec<&Slice> = batch.works.iter().map(|work| &work.slice).collect();
        let mut images = Vec::new();
        for model in &self.routes[batch.route].models {
            let made = self.uploaders[*model].as_mut().map(|one| guarded(|| one.upload(&slices, self.clock.as_ref())));
            if let Some(Err(error)) = &made {
                tracing::debug!(%error, slices = slices.len(), "A batch is not brought to the device ahead of its turn.");
            }
            images.push(made.and_then(Result::ok));
        }
        busy.keep();
        if images.iter().any(Option::is_some) {
            self.profile.add(Step::Upload, begun, self.clock.now(), batch.works.len());
            batch.images = images;
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use crossbeam_channel::bounded;

    use super::*;
    use crate::clock::{ManualClock, Tick};
    use crate::config::Config;
    use crate::infer::{EngineError, Images};
    use crate::parcel::{Origin, Work, samples};
    use crate::roster::Roster;

    /// Makes an image of each slice, or fails as it was told.
    struct Painter(Option<&'static str>);

    impl Uploader for Painter {
        fn upload(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<Images, EngineError> {
            match self.0 {
                Some("panic") => panic!("out of device memory"),
                Some(text) => Err(EngineError::of_device(text)),
                None => Ok(Images {
                    tensor: Tensor::zeros([slices.len(), 1, 1, 1], &Device::flex()),
                    n_slices: slices.len(),
                    window_time: Tick::ZERO,
                }),
            }
        }
    }

    fn upload(uploaders: Vec<Option<Painter>>) -> Upload {
        let text =
            "routes:\n- { name: two, match: { folder: x }, models: [{ name: untrained }, { name: phantom_only }] }\n";
        let roster =
            Roster::load(&Config::from_text(text).unwrap()).map_err(|problems| problems[0].to_string()).unwrap();
        let boxed = |painter: Painter| Box::new(painter) as Box<dyn Uploader>;
        Upload {
            uploaders: uploaders.into_iter().map(|painter| painter.map(boxed)).collect(),
            routes: roster.routing.routes,
            clock: Arc::new(ManualClock::default()),
            at_hand: Arc::default(),
            profile: Arc::default(),
            is_behind_a_suspect: false,
            is_crowded: Arc::default(),
        }
    }

    fn batch(strikes: &[u32]) -> Batch {
        let work = |(ticket, strikes): (usize, &u32)| -> Work {
            samples::work(Origin { strikes: *strikes, ..samples::origin(ticket as u64) }, 4)
        };
        Batch::new(0, strikes.iter().enumerate().map(work).collect())
    }

    /// How many images there are for each model.
    fn n_images(batch: &Batch) -> Vec<usize> {
        batch.images.iter().map(|images| images.as_ref().map_or(0, |images| images.tensor.dims()[0])).collect()
    }

    #[test]
    fn every_model_of_the_route_has_its_images_and_who_has_none_does_without() {
        assert_eq!(n_images(&upload(vec![Some(Painter(None)), Some(Painter(None))]).handle(batch(&[0; 3]))), [3, 3]);
        assert_eq!(n_images(&upload(vec![None, Some(Painter(None))]).handle(batch(&[0; 3]))), [0, 3]);
        for fault in ["panic", "out of memory", "The device was poisoned"] {
            let mut upload = upload(vec![Some(Painter(Some(fault))), Some(Painter(None))]);
            assert_eq!(n_images(&upload.handle(batch(&[0; 2]))), [0, 2]);
            let mut upload = self::upload(vec![Some(Painter(Some(fault))), None]);
            let left = upload.handle(batch(&[0; 2]));
            assert_eq!((left.images.len(), left.works.len()), (0, 2), "the device's thread does it all");
        }
    }

    #[test]
    fn who_may_have_ended_the_program_has_the_device_for_itself() {
        let mut upload = upload(vec![Some(Painter(None)), Some(Painter(None))]);
        assert!(upload.handle(batch(&[0, 1, 0])).images.is_empty());
        assert!(upload.handle(batch(&[0])).images.is_empty(), "that is when the suspect is scored");
        assert!(upload.profile.report(1).is_none(), "nothing was done");
        assert_eq!(n_images(&upload.handle(batch(&[0]))), [1, 1]);
        assert!(upload.at_hand.has_kept());
        upload.is_crowded.store(true, Ordering::Relaxed);
        assert!(upload.handle(batch(&[0])).images.is_empty(), "there is no room");
    }

    #[test]
    fn one_batch_is_ahead_of_the_device_and_their_order_stays() {
        let upload = upload(vec![Some(Painter(None)), None]);
        let ((to_upload, for_upload), (to_device, for_device)) = (bounded(0), bounded(0));
        let stage = std::thread::spawn(move || upload.run(&for_upload, &to_device));
        to_upload.send(batch(&[0; 1])).unwrap();
        let wait = std::time::Duration::from_millis(50);
        assert!(to_upload.send_timeout(batch(&[0; 2]), wait).is_err(), "there is one in its hands");
        assert_eq!(n_images(&for_device.recv().unwrap()), [1, 0]);
        for n in [3, 4] {
            to_upload.send(batch(&vec![0; n])).unwrap();
            assert_eq!(n_images(&for_device.recv().unwrap()), [n, 0]);
        }
        drop(for_device);
        to_upload.send(batch(&[0])).unwrap();
        stage.join().unwrap().unwrap();
    }
}
