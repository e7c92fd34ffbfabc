//! decode: admitted files become slices, known pictures or reasons. Several threads run this stage.
//! Reads files, knows no device and writes nothing but the count of attempts.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::admit::path_key;
use crate::clock::{Clock, Tick, rfc3339};
use crate::dicom::{self, AdmissionRules};
use crate::disk::{Disk, Fingerprint};
use crate::error::Fatal;
use crate::identity::{checksum, picture_digest, sha256};
use crate::ledger::{FileState, Ledger, LedgerError, SliceRecord, WorkKey};
use crate::parcel::{Admitted, Arrival, Origin, Work};
use crate::patience::{Patience, is_own_want};
use crate::profile::{self, Crew, Profile};
use crate::reject::{RejectCode, Rejection};
use crate::roster::Routing;
use crate::slice::{Facts, Slice, folder_below};
use crate::telemetry;
use crate::upstream::Upstream;
use crate::watchdog::AtHand;

/// Times that a file is tried to be read in one round.
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
    /// What becomes of a ledger that does not answer.
    pub patience: Patience,
    /// Which files count as slices.
    pub rules: AdmissionRules,
    /// Largest file that is read.
    pub file_bytes_max: u64,
    /// Times that decoding a file may be begun.
    pub attempts_max: u32,
    /// Files that could not be read, shared by all decoding threads.
    pub unread: Unread,
    /// Which slice goes to which models.
    pub routing: Routing,
    /// Folders below which a file's own folder is a fact that routes ask about.
    pub roots: Arc<[PathBuf]>,
    /// Shared by all decoding threads.
    pub turn: Turn,
    /// What the watchdog sees of this thread.
    pub at_hand: Arc<AtHand>,
    /// Where the time goes.
    pub profile: Arc<Profile>,
    /// Where results lie: a known picture counts only while its result exists.
    pub results: PathBuf,
}

/// Files that could not be read for a reason that may pass, as on a share that is out of breath: they go back to the
/// watcher, and only after several such rounds they are refused. There are never more than such files in the inbox.
#[derive(Clone, Debug)]
pub struct Unread {
    rounds_max: u32,
    rounds: Arc<Mutex<HashMap<PathBuf, (Fingerprint, u32)>>>,
}

impl Unread {
    /// Refuses a file in this round.
    pub fn new(rounds_max: u32) -> Self {
        Unread { rounds_max, rounds: Arc::default() }
    }

    /// A round failed. `true` if it was the last one.
    fn fail(&self, file: &Admitted) -> bool {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let (print, count) = rounds.entry(file.path.clone()).or_insert((file.fingerprint, 0));
        *count = if *print == file.fingerprint { *count + 1 } else { 1 };
        *print = file.fingerprint;
        let is_last = *count >= self.rounds_max;
        if is_last {
            rounds.remove(&file.path);
        }
        is_last
    }

    /// It was read, or is no longer there.
    fn forget(&self, path: &Path) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if !rounds.is_empty() {
            rounds.remove(path);
        }
    }
}

/// Decoding threads work side by side, except with a file that is suspected to end the program.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<RwLock<()>>);

/// Held while one file is decoded.
enum Held<'a> {
    Shared(#[allow(dead_code)] RwLockReadGuard<'a, ()>),
    Alone(#[allow(dead_code)] RwLockWriteGuard<'a, ()>),
}

impl Turn {
    fn take(&self, alone: bool) -> Held<'_> {
        if alone {
            return Held::Alone(self.0.write().unwrap_or_else(PoisonError::into_inner));
        }
        Held::Shared(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
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
        upstream: &Upstream,
    ) -> Result<(), Fatal> {
        for file in admitted {
            self.profile.waiting(Crew::Decode, admitted.len());
            let arrivals = self.handle(file)?;
            let begun = self.clock.now();
            if send_all(arrivals, batch, record).is_err() {
                return Ok(());
            }
            self.profile.queue(Crew::Record, record.len());
            self.profile.held_up(Crew::Decode, begun, self.clock.now());
            upstream.leave();
        }
        Ok(())
    }

    /// Does one file: what is to be done with its slices, in their order.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub fn handle(&self, file: Admitted) -> Result<Vec<Step>, Fatal> {
        let key = path_key(&file.path);
        // Alone, so that its neighbors are not at work should it end the program again: they would be blamed too.
        let is_suspect = self.insist(|| self.ledger.file(&key))?.is_some_and(|record| {
            record.state == FileState::Started && record.attempts > 0 && record.fingerprint == file.fingerprint
        });
        let _turn = self.turn.take(is_suspect);
        let now = rfc3339(self.clock.wall());
        let attempts = self.insist(|| self.ledger.begin(&key, file.fingerprint, &now))?;
        if attempts > self.attempts_max {
            let sentence = format!("work on it ended the program {} times", self.attempts_max);
            return Ok(reject(self.origin(&file), Rejection::new(RejectCode::Poison, sentence)));
        }
        let steps = self.examine(&file, &key, attempts.saturating_sub(1))?;
        self.insist(|| self.ledger.survived(&key))?;
        Ok(steps)
    }

    fn insist<T>(&self, work: impl FnMut() -> Result<T, LedgerError>) -> Result<T, Fatal> {
        self.patience.insist("using the ledger", work)
    }

    fn examine(&self, file: &Admitted, key: &str, strikes: u32) -> Result<Vec<Step>, Fatal> {
        let begun = self.clock.now();
        let (print, bytes) = match self.read(file) {
            Ok(read) => read,
            Err(error) => return self.read_failed(file, key, &error),
        };
        self.unread.forget(&file.path);
        if print != file.fingerprint {
            self.insist(|| self.ledger.forget(key))?;
            return Ok(vec![Step::Record(Arrival::Returned { origin: Arc::new(self.origin(file)) })]);
        }
        let read_time = self.clock.now().saturating_sub(begun);
        let digest = sha256(&bytes);
        let (sha256, checksum) = (Some(digest.clone()), Some(checksum(&bytes)));
        self.profile.add(profile::Step::Read, begun, self.clock.now(), 1);
        let origin = Origin { read_time, strikes, sha256, checksum, ..self.origin(file) };
        if let Some(records) = self.known_file(&file.path, &digest, &bytes)? {
            let origin = Arc::new(Origin { n_slices: records.len(), ..origin });
            return Ok(vec![Step::Record(Arrival::KnownFile { origin, records })]);
        }
        self.decode(origin, &bytes)
    }

    fn decode(&self, origin: Origin, bytes: &[u8]) -> Result<Vec<Step>, Fatal> {
        let begun = self.clock.now();
        let busy = self.at_hand.begin(vec![origin.path.clone()]);
        let decoded = catch_unwind(AssertUnwindSafe(|| dicom::decode(bytes, &self.rules)));
        drop(busy);
        let ended = self.clock.now();
        self.profile.add(profile::Step::Decode, begun, ended, 1);
        let slices = match decoded {
            Ok(Ok(slices)) => slices,
            Ok(Err(rejection)) => return Ok(reject(origin, rejection)),
            Err(_) => {
                tracing::error!(file = %telemetry::file(&origin.path), "The decoder panicked; this is a bug. The file is refused.");
                return Ok(reject(origin, Rejection::new(RejectCode::Corrupt, "the decoder failed on it")));
            }
        };
        let n_slices = slices.len();
        let origin = Arc::new(Origin { decode_time: ended.saturating_sub(begun), n_slices, ..origin });
        let steps = slices.into_iter().map(|slice| self.identify(&origin, slice)).collect();
        self.profile.add(profile::Step::Identify, ended, self.clock.now(), n_slices);
        steps
    }

    /// Known pictures need no network.
    fn identify(&self, origin: &Arc<Origin>, mut slice: Slice) -> Result<Step, Fatal> {
        slice.facts.folder = folder_below(&self.roots, &origin.path);
        let route = self.routing.rules.choose(&slice.facts);
        let shown = Facts { folder: None, ..slice.facts.clone() };
        let facts = if telemetry::names_files() { &slice.facts } else { &shown };
        tracing::debug!(file = %telemetry::file(&origin.path), route = self.routing.routes[route].name, ?facts, "A slice has its route.");
        let key = WorkKey { picture: picture_digest(&slice), scorer: self.scorer(route).to_owned() };
        let known = self.insist(|| self.ledger.slice_of_picture(&key))?;
        let work = Work { origin: Arc::clone(origin), slice, key, route, decoded_at: self.clock.now() };
        Ok(match known {
            Some(record) if self.has_result(&record) => {
                Step::Record(Arrival::Known { work: Box::new(work), record: Box::new(record) })
            }
            _ => Step::Batch(Box::new(work)),
        })
    }

    /// A disk that does not answer costs a second look: the recorder finds out.
    fn has_result(&self, record: &SliceRecord) -> bool {
        self.disk.exists(&self.results.join(&record.result)).unwrap_or(false)
    }

    fn scorer(&self, route: usize) -> &str {
        self.routing.routes[route].ensemble.scorer()
    }

    /// The slices of a file that was finished before, byte for byte, by the models that its slices would go to now, and
    /// whose results still exist.
    fn known_file(&self, path: &Path, digest: &str, bytes: &[u8]) -> Result<Option<Vec<SliceRecord>>, Fatal> {
        if !self.insist(|| self.ledger.is_file_finished(digest))? {
            return Ok(None);
        }
        let records = self.insist(|| self.ledger.slices_of_file(digest))?;
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
            scorers.get(frame) == Some(&record.key.scorer.as_str()) && self.has_result(record)
        };
        Ok((records.len() == scorers.len() && records.iter().all(is_current)).then_some(records))
    }

    fn read(&self, file: &Admitted) -> std::io::Result<(Fingerprint, Vec<u8>)> {
        let mut attempt = 1;
        loop {
            match self.disk.read(&file.path, self.file_bytes_max) {
                Err(error) if attempt < READ_ATTEMPTS && is_passing(error.kind()) => {
                    self.clock.sleep(Duration::from_millis(100 << attempt));
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn read_failed(&self, file: &Admitted, key: &str, error: &std::io::Error) -> Result<Vec<Step>, Fatal> {
        let origin = self.origin(file);
        let is_gone = error.kind() == ErrorKind::NotFound;
        if is_gone {
            self.unread.forget(&file.path);
        }
        if is_gone || is_own_want(error) || (is_passing(error.kind()) && !self.unread.fail(file)) {
            if !is_gone {
                tracing::warn!(file = %telemetry::file(&file.path), %error, "A file cannot be read now; it is tried again later.");
            }
            self.insist(|| self.ledger.forget(key))?;
            return Ok(vec![Step::Record(Arrival::Returned { origin: Arc::new(origin) })]);
        }
        let rejection = match error.kind() {
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
            strikes: 0,
            sha256: None,
            checksum: None,
            n_slices: 0,
            admitted_at: file.at,
            is_ahead: file.is_ahead,
            read_time: Tick::ZERO,
            decode_time: Tick::ZERO,
        }
    }
}

/// Where a decoded slice goes.
#[derive(Clone, Debug)]
pub enum Step {
    /// To be scored.
    Batch(Box<Work>),
    /// To be recorded.
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
