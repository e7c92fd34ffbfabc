//! decode: admitted files become slices, known pictures or reasons. Several threads run this stage.
//! Reads files, knows no device and writes nothing but the count of attempts.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::admit::path_key;
use crate::clock::{Clock, Tick, rfc3339};
use crate::dicom::{self, AdmissionRules};
use crate::disk::{Disk, Fingerprint};
use crate::error::Fatal;
use crate::identity::{picture_digest, sha256};
use crate::ledger::{Ledger, SliceRecord, WorkKey};
use crate::parcel::{Admitted, Arrival, Origin, Work};
use crate::reject::{RejectCode, Rejection};
use crate::roster::Routing;
use crate::slice::{Facts, Slice, folder_below};

/// Times that a file is tried to be read before it is refused as unreadable.
const READ_ATTEMPTS: u32 = 3;

/// What a decoding thread needs.
#[derive(Clone)]
pub struct Decoder {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// What is on record.
    pub ledger: Arc<Ledger>,
    /// Which files count as slices.
    pub rules: AdmissionRules,
    /// Largest file that is read.
    pub file_bytes_max: u64,
    /// Times that decoding a file may be begun.
    pub attempts_max: u32,
    /// Which slice goes to which models.
    pub routing: Routing,
    /// Folders below which a file's own folder is a fact that routes ask about.
    pub roots: Arc<[PathBuf]>,
    /// Where results lie: a known picture counts only while its result exists.
    pub results: PathBuf,
}

/// Nobody takes the outcome any more: a later stage has ended.
struct Ended;

impl Decoder {
    /// The thread.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub fn run(
        self,
        admitted: &Receiver<Admitted>,
        batch: &Sender<Work>,
        record: &Sender<Arrival>,
    ) -> Result<(), Fatal> {
        for file in admitted {
            let arrivals = self.handle(file)?;
            if send_all(arrivals, batch, record).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn handle(&self, file: Admitted) -> Result<Vec<Step>, Fatal> {
        let key = path_key(&file.path);
        let attempts = self.ledger.begin(&key, file.fingerprint, &rfc3339(self.clock.wall()))?;
        if attempts > self.attempts_max {
            let sentence = format!("reading it ended the program {} times", self.attempts_max);
            return Ok(reject(self.origin(&file), Rejection::new(RejectCode::Poison, sentence)));
        }
        let begun = self.clock.now();
        let (print, bytes) = match self.read(&file) {
            Ok(read) => read,
            Err(error) => return self.read_failed(&file, &key, &error),
        };
        if print != file.fingerprint {
            self.ledger.forget(&key)?;
            return Ok(vec![Step::Record(Arrival::Returned { origin: Arc::new(self.origin(&file)) })]);
        }
        let read_time = self.clock.now().saturating_sub(begun);
        let digest = sha256(&bytes);
        let origin = Origin { read_time, sha256: Some(digest.clone()), ..self.origin(&file) };
        if let Some(records) = self.known_file(&file.path, &digest, &bytes)? {
            let origin = Arc::new(Origin { n_slices: records.len(), ..origin });
            return Ok(vec![Step::Record(Arrival::KnownFile { origin, records })]);
        }
        let steps = self.decode(origin, &bytes);
        self.ledger.survived(&key)?;
        steps
    }

    fn decode(&self, origin: Origin, bytes: &[u8]) -> Result<Vec<Step>, Fatal> {
        let begun = self.clock.now();
        let decoded = catch_unwind(AssertUnwindSafe(|| dicom::decode(bytes, &self.rules)));
        let slices = match decoded {
            Ok(Ok(slices)) => slices,
            Ok(Err(rejection)) => return Ok(reject(origin, rejection)),
            Err(_) => {
                tracing::error!(file = %origin.path.display(), "The decoder panicked; this is a bug. The file is refused.");
                return Ok(reject(origin, Rejection::new(RejectCode::Corrupt, "the decoder failed on it")));
            }
        };
        let decode_time = self.clock.now().saturating_sub(begun);
        let origin = Arc::new(Origin { decode_time, n_slices: slices.len(), ..origin });
        slices.into_iter().map(|slice| self.identify(&origin, slice)).collect()
    }

    /// Known pictures need no network.
    fn identify(&self, origin: &Arc<Origin>, mut slice: Slice) -> Result<Step, Fatal> {
        slice.facts.folder = folder_below(&self.roots, &origin.path);
        let route = self.routing.rules.choose(&slice.facts);
        tracing::debug!(file = %origin.path.display(), route = self.routing.routes[route].name, facts = ?slice.facts, "A slice has its route.");
        let key = WorkKey { picture: picture_digest(&slice), scorer: self.scorer(route).to_owned() };
        let known = self.ledger.slice_of_picture(&key)?;
        let work = Work { origin: Arc::clone(origin), slice, key, route, decoded_at: self.clock.now() };
        Ok(match known {
            Some(record) if self.results.join(&record.result).exists() => {
                Step::Record(Arrival::Known { work: Box::new(work), record: Box::new(record) })
            }
            _ => Step::Batch(Box::new(work)),
        })
    }

    fn scorer(&self, route: usize) -> &str {
        self.routing.routes[route].ensemble.scorer()
    }

    /// The slices of a file that was finished before, byte for byte, by the models that its slices would go to now, and
    /// whose results still exist.
    fn known_file(&self, path: &Path, digest: &str, bytes: &[u8]) -> Result<Option<Vec<SliceRecord>>, Fatal> {
        if !self.ledger.is_file_finished(digest)? {
            return Ok(None);
        }
        let records = self.ledger.slices_of_file(digest)?;
        if records.is_empty() {
            return Ok(None);
        }
        // A header that cannot be read finds its reason where the file is decoded.
        let read = catch_unwind(AssertUnwindSafe(|| dicom::read_facts(bytes, &self.rules)));
        let Ok(Ok(frames)) = read else { return Ok(None) };
        let folder = folder_below(&self.roots, path);
        let scorers: Vec<&str> = frames
            .into_iter()
            .map(|facts| self.scorer(self.routing.rules.choose(&Facts { folder: folder.clone(), ..facts })))
            .collect();
        let is_current = |record: &SliceRecord| {
            let frame = usize::try_from(record.frame.saturating_sub(1)).unwrap_or(usize::MAX);
            scorers.get(frame) == Some(&record.key.scorer.as_str()) && self.results.join(&record.result).exists()
        };
        Ok((records.len() == scorers.len() && records.iter().all(is_current)).then_some(records))
    }

    fn read(&self, file: &Admitted) -> std::io::Result<(Fingerprint, Vec<u8>)> {
        let mut attempt = 1;
        loop {
            match self.disk.read(&file.path, self.file_bytes_max) {
                Err(error) if attempt < READ_ATTEMPTS && is_passing(error.kind()) => {
                    std::thread::sleep(Duration::from_millis(100 << attempt));
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn read_failed(&self, file: &Admitted, key: &str, error: &std::io::Error) -> Result<Vec<Step>, Fatal> {
        let origin = self.origin(file);
        let rejection = match error.kind() {
            ErrorKind::NotFound => {
                self.ledger.forget(key)?;
                return Ok(vec![Step::Record(Arrival::Returned { origin: Arc::new(origin) })]);
            }
            ErrorKind::FileTooLarge => {
                let sentence = format!("{} bytes; at most {} are read", file.fingerprint.bytes, self.file_bytes_max);
                Rejection::new(RejectCode::TooLarge, sentence)
            }
            _ => Rejection::new(RejectCode::Unreadable, format!("could not be read: {error}")),
        };
        Ok(reject(origin, rejection))
    }

    fn origin(&self, file: &Admitted) -> Origin {
        Origin {
            ticket: file.ticket,
            path: file.path.clone(),
            fingerprint: file.fingerprint,
            sha256: None,
            n_slices: 0,
            admitted_at: file.at,
            read_time: Tick::ZERO,
            decode_time: Tick::ZERO,
        }
    }
}

/// Where a decoded slice goes.
enum Step {
    Batch(Box<Work>),
    Record(Arrival),
}

fn reject(origin: Origin, rejection: Rejection) -> Vec<Step> {
    vec![Step::Record(Arrival::Rejected { origin: Arc::new(origin), rejection })]
}

fn send_all(steps: Vec<Step>, batch: &Sender<Work>, record: &Sender<Arrival>) -> Result<(), Ended> {
    for step in steps {
        match step {
            Step::Batch(work) => batch.send(*work).map_err(|_| Ended)?,
            Step::Record(arrival) => record.send(arrival).map_err(|_| Ended)?,
        }
    }
    Ok(())
}

/// Errors that another try may get over, as on a share that is short of breath.
fn is_passing(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::FileTooLarge | ErrorKind::InvalidInput
    )
}
