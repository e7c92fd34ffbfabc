//! admit: sightings become admissions once a file is complete, quiet and not on record; one that may be complete is let in
//! ahead, and gets a verdict when it is. Knows paths and fingerprints, no content.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, select};

use crate::ahead::Book;
use crate::clock::{Clock, Tick};
use crate::disk::{Disk, Fingerprint};
use crate::dispose::{Disposal, Disposer, Outcome};
use crate::error::Fatal;
use crate::identity::sha256;
use crate::ledger::{FileRecord, FileState, Ledger};
use crate::limits::{ADMITTED_QUEUE, AHEAD_MAX, SIGHTINGS_A_TURN, URGENT_IN_A_ROW};
use crate::parcel::{Admitted, Sighting, Verdict};
use crate::patience::Patience;
use crate::profile::{Crew, Profile, Step};
use crate::recalled::Recalled;
use crate::room::RoomWatch;
use crate::route::Rules;
use crate::settle::Settler;
use crate::slice::folder_below;
use crate::stage::Stop;
use crate::tally::Tally;
use crate::telemetry;
use crate::upstream::Upstream;

/// How often files are looked at that are due and may not come in, for lack of room.
const OVERDUE_PAUSE: Duration = Duration::from_millis(20);

/// Longest sleep without news.
const IDLE: Duration = Duration::from_secs(1);

/// A path as the ledger's key.
pub fn path_key(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => format!("bytes:{}", crate::names::hex(path.as_os_str().as_encoded_bytes())),
    }
}

/// The path of such a key.
pub fn key_path(key: &str) -> PathBuf {
    let digits = key.strip_prefix("bytes:").filter(|digits| digits.len() % 2 == 0);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.and_then(|digits| digits.as_bytes().chunks(2).map(byte).collect());
    match bytes {
        Some(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        None => PathBuf::from(key),
    }
}

/// The next `most` files in the order in which they are let in: urgent ones first, but after [`URGENT_IN_A_ROW`] of
/// them one other that waits.
fn turns(due: [Vec<PathBuf>; 2], most: usize) -> Vec<PathBuf> {
    let [mut urgent, mut others] = due.map(Vec::into_iter);
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(urgent.by_ref().take(URGENT_IN_A_ROW));
        turns.extend(if urgent.len() > 0 { others.by_ref().take(1) } else { others.by_ref().take(most) });
        if turns.len() == before || turns.len() >= most {
            turns.truncate(most);
            return turns;
        }
    }
}

/// Files that left the pipeline without an outcome, on their way back: they are offered again even if they look the same.
/// There are never more than files in flight.
#[derive(Debug, Default)]
pub struct Returns(Mutex<Vec<(PathBuf, u64)>>);

impl Returns {
    /// A file comes back from this admission.
    pub fn put(&self, path: PathBuf, ticket: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((path, ticket));
    }

    fn take(&self) -> Vec<(PathBuf, u64)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the admitting thread needs.
pub struct Admission {
    /// When files are complete.
    pub settler: Settler,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// What is on record.
    pub ledger: Arc<Ledger>,
    /// Counts.
    pub tally: Arc<Tally>,
    /// Which folders are urgent.
    pub rules: Arc<Rules>,
    /// The inbox.
    pub inbox: PathBuf,
    /// Whether there is room for more results.
    pub room: RoomWatch,
    /// What becomes of a ledger that does not answer.
    pub patience: Patience,
    /// Files that come back.
    pub returns: Arc<Returns>,
    /// Number of the last admission.
    pub ticket: u64,
    /// For files whose outcome is on record but which were not moved yet.
    pub disposer: Disposer,
    /// Files with an outcome that lay in the inbox when the program ended, and may still.
    pub recalled: Recalled,
    /// Where the time goes.
    pub profile: Arc<Profile>,
    /// Files that are worked on ahead.
    pub book: Book,
    /// Verdicts on them that are still to be told.
    pub verdicts: Vec<Verdict>,
}

/// A file whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has settled.
    Settled(PathBuf),
    /// It has not, and may be worked on ahead.
    Ahead(PathBuf),
}

impl Admission {
    /// The thread.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn run(
        mut self,
        sightings: &Receiver<Sighting>,
        admitted: &Sender<Admitted>,
        verdicts: &Sender<Verdict>,
        upstream: &Upstream,
        stop: &Stop,
    ) -> Result<(), Fatal> {
        self.recall()?;
        let mut wait = Duration::ZERO;
        loop {
            let first = select! {
                recv(sightings) -> sighting => match sighting {
                    Ok(sighting) => Some(sighting),
                    Err(_) => return Ok(()),
                },
                recv(stop.waker()) -> _ => return Ok(()),
                default(wait) => None,
            };
            let (begun, mut n_sightings) = (self.clock.now(), 0);
            // Not all: a scan of very many files must not keep those before it waiting.
            for sighting in first.into_iter().chain(sightings.try_iter().take(SIGHTINGS_A_TURN)) {
                self.note(&sighting);
                n_sightings += 1;
            }
            let looked = self.clock.now();
            self.profile.add(Step::Notice, begun, looked, n_sightings);
            self.settle_ahead();
            if self.tell(verdicts).is_err() {
                return Ok(());
            }
            // No more than there is room for: behind a full queue nothing would be noticed. One may wait for its place.
            let free = ADMITTED_QUEUE.saturating_sub(admitted.len());
            let most = free.max(1);
            let next = self.take_turns(most, free);
            let is_behind = next.len() == most || !sightings.is_empty();
            self.profile.waiting(Crew::Admit, self.settler.n_waiting());
            for turn in next {
                let begun = self.clock.now();
                let file = self.admit(turn)?;
                let looked_at = self.clock.now();
                self.profile.add(Step::Admit, begun, looked_at, 1);
                let Some(file) = file else { continue };
                upstream.enter();
                if admitted.send(file).is_err() {
                    // The decoders ended; the file stays where it is and is found at the next start.
                    self.tally.give_back();
                    return Ok(());
                }
                self.profile.held_up(Crew::Admit, looked_at, self.clock.now());
                self.profile.queue(Crew::Decode, admitted.len());
                if stop.is_wished() {
                    return Ok(());
                }
            }
            if self.tell(verdicts).is_err() {
                return Ok(());
            }
            self.profile.queue(Crew::Admit, self.settler.n_waiting());
            wait = if is_behind { Duration::ZERO } else { self.until_due(looked) };
        }
    }

    /// Tells the verdicts. An error means that the recorder has ended; what it held is done at the next start.
    fn tell(&mut self, verdicts: &Sender<Verdict>) -> Result<(), SendError<Verdict>> {
        self.verdicts.drain(..).try_for_each(|verdict| verdicts.send(verdict))
    }

    /// Learns at once which files are on record, so that a scan of very many of them asks for none. Where inputs do not stay
    /// there are few, and each is to be disposed of again.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn recall(&mut self) -> Result<(), Fatal> {
        if self.disposer.keeps() {
            self.recalled = self.patience.insist("reading the ledger", || Recalled::load(&self.ledger))?;
        }
        Ok(())
    }

    /// How long until a file is due, as seen after the look at `looked`: to the very moment, as somebody waits for its
    /// result. What was due then and did not come in is never waited for in a busy loop.
    fn until_due(&self, looked: Tick) -> Duration {
        let early = if self.book.len() < AHEAD_MAX { self.settler.early_deadline() } else { None };
        match [self.settler.deadline(), early].into_iter().flatten().min() {
            None => IDLE,
            Some(at) if at <= looked => OVERDUE_PAUSE,
            Some(at) => at.saturating_sub(self.clock.now()).min(IDLE),
        }
    }

    /// The files whose turn it is: a few at a time, so that an urgent file does not wait for all that was there before it.
    /// At most `most` that have settled, and what may have as far as `free` places are left. None while there is no room for
    /// results.
    pub fn take_turns(&mut self, most: usize, free: usize) -> Vec<Turn> {
        for (path, ticket) in self.returns.take() {
            if !self.book.is_back(&path, ticket) {
                self.settler.forget(&path);
                self.judge(&path);
            }
        }
        if !self.room.has_room(self.clock.now()) {
            return Vec::new();
        }
        let is_urgent = |path: &Path| {
            folder_below(std::slice::from_ref(&self.inbox), path)
                .is_some_and(|folder| self.rules.is_urgent_folder(&folder))
        };
        let is_urgent: Option<&dyn Fn(&Path) -> bool> =
            if self.rules.has_urgent_folders() { Some(&is_urgent) } else { None };
        let now = self.clock.now();
        // What came of an earlier state of a file must be back first.
        let n_away = self.book.n_on_their_way_back();
        let is_here = |path: &PathBuf| !self.book.is_on_its_way_back(path);
        let settled = turns(self.settler.due(now, most + n_away, is_urgent), most + n_away);
        let settled: Vec<PathBuf> = settled.into_iter().filter(is_here).take(most).collect();
        let left = free.saturating_sub(settled.len()).min(AHEAD_MAX.saturating_sub(self.book.len()));
        let early = if left > 0 { turns(self.settler.early(now, left, is_urgent), left) } else { Vec::new() };
        let early = early.into_iter().filter(is_here);
        settled.into_iter().map(Turn::Settled).chain(early.map(Turn::Ahead)).collect()
    }

    /// Gives the verdict on files that were worked on ahead and have settled by now.
    pub fn settle_ahead(&mut self) {
        let now = self.clock.now();
        for path in self.settler.settled(now, AHEAD_MAX) {
            match self.disk.fingerprint(&path) {
                Ok(Some(print)) if self.settler.take(&path, print) => {
                    self.verdicts.extend(self.book.settle(&path, now));
                }
                Ok(Some(print)) => self.settler.observe(now, &path, print, None),
                _ => self.settler.forget(&path),
            }
            self.judge(&path);
        }
    }

    /// Work on a file that waits no more, or in another state, is given up.
    fn judge(&mut self, path: &Path) {
        self.verdicts.extend(self.book.look(path, self.settler.waits_in(path)));
    }

    /// Takes note of what the watcher saw.
    pub fn note(&mut self, sighting: &Sighting) {
        let (path, open) = match sighting {
            Sighting::ScanEnd => return self.settler.scan_end(&[]),
            Sighting::ScanPart(unread) => return self.settler.scan_end(unread),
            Sighting::Missed => return self.settler.missed(),
            Sighting::Hearing(hears) => return self.settler.hear(*hears),
            Sighting::Touched(path) => (path, Some(true)),
            Sighting::Closed(path) => (path, Some(false)),
            Sighting::Scanned(path) => (path, None),
        };
        match self.disk.fingerprint(path) {
            // An event means that something happened to it; then the record is asked once it is quiet.
            Ok(Some(print)) if open.is_none() && !self.settler.knows(path) && self.recalled.take(path, print) => {
                self.settler.recognize(path, print);
            }
            Ok(Some(print)) => self.settler.observe(self.clock.now(), path, print, open),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => self.settler.forget(path),
            Err(error) => tracing::debug!(file = %telemetry::file(path), %error, "A file cannot be looked at yet."),
        }
        self.judge(path);
    }

    /// Whether a file that is about to be put away unread has the content that the record speaks of. Names, sizes and times
    /// of two files may agree, and inodes come again.
    fn is_content(&self, path: &Path, print: Fingerprint, digest: Option<&str>) -> bool {
        // Nobody could read it then either; such files are moved, never deleted.
        let Some(digest) = digest else { return true };
        self.disk.read(path, print.bytes).is_ok_and(|(_, bytes)| sha256(&bytes) == digest)
    }

    /// Looks once more and lets the file in, unless it changed or its outcome is on record.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn admit(&mut self, turn: Turn) -> Result<Option<Admitted>, Fatal> {
        let (path, is_ahead) = match turn {
            Turn::Settled(path) => (path, false),
            Turn::Ahead(path) => (path, true),
        };
        let Ok(Some(fingerprint)) = self.disk.fingerprint(&path) else {
            self.settler.forget(&path);
            return Ok(None);
        };
        let is_as_seen = match is_ahead {
            true => self.settler.begin(&path, fingerprint),
            false => self.settler.take(&path, fingerprint),
        };
        if !is_as_seen {
            self.settler.observe(self.clock.now(), &path, fingerprint, None);
            return Ok(None);
        }
        let record = self.patience.insist("reading the ledger", || self.ledger.file(&path_key(&path)))?;
        let is_on_record =
            |record: &FileRecord| record.fingerprint == fingerprint && record.state != FileState::Started;
        if let Some(record) = record.filter(is_on_record) {
            if is_ahead {
                // What is to become of it is seen to when it has settled.
                self.settler.decline(&path);
                return Ok(None);
            }
            if self.disposer.keeps() || self.is_content(&path, fingerprint, record.sha256.as_deref()) {
                // The outcome was committed; a crash may have come before the file was moved.
                let outcome = if record.state == FileState::Rejected { Outcome::Rejected } else { Outcome::Done };
                self.disposer.dispose(&[Disposal { path: &path, print: fingerprint, outcome, tag: "again" }]);
                return Ok(None);
            }
        }
        self.ticket += 1;
        self.tally.admit();
        if is_ahead {
            self.book.begin(&path, self.ticket, fingerprint);
        }
        Ok(Some(Admitted { ticket: self.ticket, path, fingerprint, at: self.clock.now(), is_ahead }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_found_again_by_its_key() {
        for bytes in [&b"/in/a.dcm"[..], b"/in/\xff\n.dcm", b"bytes"] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(key_path(&path_key(&path)), path);
        }
    }

    #[test]
    fn urgent_files_are_let_in_first_but_not_for_ever() {
        let due = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let take = |names: &[&str], most: usize| {
            let (urgent, others) = due(names).into_iter().partition(|path| path.starts_with("er"));
            turns([urgent, others], most)
        };
        let mixed = ["1", "er/1", "2", "er/2", "er/3", "er/4", "3", "er/5"];
        let order = ["er/1", "er/2", "er/3", "1", "er/4", "er/5", "2", "3"];
        assert_eq!(take(&mixed, 9), due(&order));
        assert_eq!(take(&mixed, 5), due(&order[..5]));
        assert_eq!(take(&["2", "1"], 9), due(&["2", "1"]));
        assert_eq!(take(&[], 9), Vec::<PathBuf>::new());
    }
}
