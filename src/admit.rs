//! admit: sightings become admissions once a file is complete, quiet and not on record.
//! Knows paths and fingerprints, no content.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};

use crate::clock::{Clock, Tick};
use crate::config::{Inbox, Watch};
use crate::disk::{Disk, Fingerprint};
use crate::dispose::{Disposal, Disposer, Outcome};
use crate::error::Fatal;
use crate::identity::sha256;
use crate::ledger::{FileState, Ledger};
use crate::limits::{ADMITTED_QUEUE, SIGHTINGS_A_TURN, URGENT_IN_A_ROW};
use crate::parcel::{Admitted, Sighting};
use crate::patience::Patience;
use crate::profile::{Crew, Profile, Step};
use crate::recalled::Recalled;
use crate::room::RoomWatch;
use crate::route::Rules;
use crate::slice::folder_below;
use crate::stage::Stop;
use crate::tally::Tally;
use crate::telemetry;
use crate::upstream::Upstream;

/// A file that an event called open is waited for this long after its last change, if no event calls it closed.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);

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

/// Decides when a file is complete. A pure state machine: it is told what was seen and when.
#[derive(Debug)]
pub struct Settler {
    settle: Duration,
    poll: bool,
    waiting: HashMap<Arc<Path>, Waiting>,
    /// Those that wait, the longest quiet first: of very many nobody has to look at all.
    order: BTreeMap<Place, Arc<Path>>,
    taken: HashMap<Arc<Path>, Taken>,
    scan: u64,
    n_observed: u64,
}

/// Since when a file is quiet, and the number of the observation that says so.
type Place = (Tick, u64);

#[derive(Debug)]
struct Waiting {
    print: Fingerprint,
    place: Place,
    first_scan: u64,
    open: bool,
    /// It was open when events were lost: nothing says whether it still is.
    unsure: bool,
}

#[derive(Debug)]
struct Taken {
    print: Fingerprint,
    seen_in_scan: u64,
}

impl Settler {
    /// For the inbox's settings.
    pub fn new(inbox: &Inbox) -> Self {
        Settler {
            settle: Duration::from_millis(inbox.settle_ms),
            poll: inbox.watch == Watch::Poll,
            waiting: HashMap::new(),
            order: BTreeMap::new(),
            taken: HashMap::new(),
            scan: 0,
            n_observed: 0,
        }
    }

    /// A file was seen in this state. `open` is what an event said about it, if it was an event.
    pub fn observe(&mut self, now: Tick, path: &Path, print: Fingerprint, open: Option<bool>) {
        if let Some(taken) = self.taken.get_mut(path) {
            taken.seen_in_scan = self.scan;
            if taken.print == print {
                return;
            }
            self.taken.remove(path);
        }
        self.n_observed += 1;
        let place = (now, self.n_observed);
        let fresh = Waiting { print, place, first_scan: self.scan, open: open.unwrap_or(false), unsure: false };
        match self.waiting.get_mut(path) {
            None => {
                let path: Arc<Path> = path.into();
                self.order.insert(place, Arc::clone(&path));
                self.waiting.insert(path, fresh);
            }
            Some(waiting) if waiting.print != print => {
                if let Some(path) = self.order.remove(&waiting.place) {
                    self.order.insert(place, path);
                }
                let (open, unsure) = (open.unwrap_or(waiting.open), open.is_none() && waiting.unsure);
                *waiting = Waiting { open, unsure, ..fresh };
            }
            Some(waiting) => {
                waiting.open = open.unwrap_or(waiting.open);
                waiting.unsure &= open.is_none();
            }
        }
    }

    /// A file is gone.
    pub fn forget(&mut self, path: &Path) {
        self.stop_waiting(path);
        self.taken.remove(path);
    }

    fn stop_waiting(&mut self, path: &Path) {
        if let Some(waiting) = self.waiting.remove(path) {
            self.order.remove(&waiting.place);
        }
    }

    /// A file was seen that is on record in this state: it is not offered until it changes.
    pub fn recognize(&mut self, path: &Path, print: Fingerprint) {
        self.stop_waiting(path);
        self.taken.insert(path.into(), Taken { print, seen_in_scan: self.scan });
    }

    /// Whether a file is known to wait or to have been taken.
    pub fn knows(&self, path: &Path) -> bool {
        self.waiting.contains_key(path) || self.taken.contains_key(path)
    }

    /// How many files wait.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Events were lost. Two scans from now on must agree on a file that was open; a minute would be long for one whose
    /// closing was lost.
    pub fn missed(&mut self) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.open) {
            (waiting.open, waiting.unsure, waiting.first_scan) = (false, true, self.scan);
        }
    }

    /// Events come, or do not come any more.
    pub fn hear(&mut self, hears: bool) {
        self.poll = !hears;
    }

    /// A scan came to its end. Taken files that it did not see are gone, but for those below folders that it could not look
    /// into.
    pub fn scan_end(&mut self, unread: &[PathBuf]) {
        let scan = self.scan;
        let may_be_there = |path: &Path| unread.iter().any(|folder| path.starts_with(folder));
        self.taken.retain(|path, taken| taken.seen_in_scan == scan || may_be_there(path));
        self.scan += 1;
    }

    /// At most `most` files of a kind that look complete now, the longest quiet first: urgent ones and others. The caller
    /// looks once more and answers with `observe` or `take`. Where nobody can be urgent no more files are looked at than
    /// are returned.
    pub fn due(&self, now: Tick, most: usize, is_urgent: Option<&dyn Fn(&Path) -> bool>) -> [Vec<PathBuf>; 2] {
        let [mut urgent, mut others]: [Vec<PathBuf>; 2] = Default::default();
        let Some(latest) = now.checked_sub(self.settle) else { return [urgent, others] };
        for path in self.order.range(..=(latest, u64::MAX)).map(|(_, path)| path) {
            if others.len() >= most && (is_urgent.is_none() || urgent.len() >= most) {
                break;
            }
            let kind = if is_urgent.is_some_and(|is_urgent| is_urgent(path)) { &mut urgent } else { &mut others };
            if kind.len() < most && self.waiting.get(path).is_some_and(|waiting| self.is_due(now, waiting)) {
                kind.push(path.to_path_buf());
            }
        }
        [urgent, others]
    }

    fn is_due(&self, now: Tick, waiting: &Waiting) -> bool {
        let quiet = now.saturating_sub(waiting.place.0);
        let scans = self.scan - waiting.first_scan;
        // Without events, and for a file that has no content yet, two whole scans must have seen the same.
        let two_scans = scans >= 2;
        if waiting.open {
            return quiet >= OPEN_PATIENCE.max(self.settle) && two_scans;
        }
        quiet >= self.settle && (two_scans || !self.needs_scans(waiting))
    }

    fn needs_scans(&self, waiting: &Waiting) -> bool {
        waiting.open || self.poll || waiting.unsure || waiting.print.bytes == 0
    }

    /// Takes a file: it is not offered again until it changes. `false` if it changed since it was seen.
    pub fn take(&mut self, path: &Path, print: Fingerprint) -> bool {
        let same = self.waiting.get(path).is_some_and(|waiting| waiting.print == print);
        if same {
            self.recognize(path, print);
        }
        same
    }

    /// When `due` next has an answer by time alone. What still waits for a scan is none of it: the scan's end brings it.
    pub fn deadline(&self) -> Option<Tick> {
        let is_timed = |waiting: &&Waiting| self.scan - waiting.first_scan >= 2 || !self.needs_scans(waiting);
        let mut timed = self.order.values().filter_map(|path| self.waiting.get(path)).filter(is_timed);
        let end = |waiting: &Waiting| {
            waiting.place.0 + if waiting.open { OPEN_PATIENCE.max(self.settle) } else { self.settle }
        };
        let first = timed.next()?;
        // Only after an open one may one that came later be due sooner.
        let sooner = if first.open { timed.map(end).min() } else { None };
        Some(sooner.map_or(end(first), |sooner| sooner.min(end(first))))
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
pub struct Returns(Mutex<Vec<PathBuf>>);

impl Returns {
    /// A file comes back.
    pub fn put(&self, path: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }

    fn take(&self) -> Vec<PathBuf> {
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
            let next = self.take_turns();
            let is_behind = next.len() == ADMITTED_QUEUE || !sightings.is_empty();
            self.profile.waiting(Crew::Admit, self.settler.n_waiting());
            for path in next {
                let begun = self.clock.now();
                let file = self.admit(path)?;
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
            self.profile.queue(Crew::Admit, self.settler.n_waiting());
            wait = if is_behind { Duration::ZERO } else { self.until_due(looked) };
        }
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
        match self.settler.deadline() {
            None => IDLE,
            Some(at) if at <= looked => OVERDUE_PAUSE,
            Some(at) => at.saturating_sub(self.clock.now()).min(IDLE),
        }
    }

    /// The files whose turn it is: a few at a time, so that an urgent file does not wait for all that was there before it.
    /// None while there is no room for results.
    pub fn take_turns(&mut self) -> Vec<PathBuf> {
        for path in self.returns.take() {
            self.settler.forget(&path);
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
        turns(self.settler.due(self.clock.now(), ADMITTED_QUEUE, is_urgent), ADMITTED_QUEUE)
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
    pub fn admit(&mut self, path: PathBuf) -> Result<Option<Admitted>, Fatal> {
        let fingerprint = match self.disk.fingerprint(&path) {
            Ok(Some(print)) => print,
            _ => {
                self.settler.forget(&path);
                return Ok(None);
            }
        };
        if !self.settler.take(&path, fingerprint) {
            self.settler.observe(self.clock.now(), &path, fingerprint, None);
            return Ok(None);
        }
        let key = path_key(&path);
        if let Some(record) = self.patience.insist("reading the ledger", || self.ledger.file(&key))?
            && record.fingerprint == fingerprint
            && record.state != FileState::Started
            && (self.disposer.keeps() || self.is_content(&path, fingerprint, record.sha256.as_deref()))
        {
            // The outcome was committed; a crash may have come before the file was moved.
            let outcome = if record.state == FileState::Rejected { Outcome::Rejected } else { Outcome::Done };
            self.disposer.dispose(&[Disposal { path: &path, print: fingerprint, outcome, tag: "again" }]);
            return Ok(None);
        }
        self.ticket += 1;
        self.tally.admit();
        Ok(Some(Admitted { ticket: self.ticket, path, fingerprint, at: self.clock.now() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inbox;

    fn print(bytes: u64) -> Fingerprint {
        Fingerprint { inode: 1, bytes, mtime_ns: bytes as i64 }
    }

    fn secs(secs: f64) -> Tick {
        Duration::from_secs_f64(secs)
    }

    fn due(settler: &Settler, now: Tick) -> Vec<PathBuf> {
        let [urgent, others] = settler.due(now, 9, None);
        assert_eq!(urgent, Vec::<PathBuf>::new());
        others
    }

    fn settler(watch: Watch) -> Settler {
        Settler::new(&Inbox { watch, ..Inbox::default() })
    }

    #[test]
    fn a_growing_file_is_taken_after_it_was_quiet() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        settler.observe(secs(0.0), path, print(1), None);
        settler.observe(secs(0.9), path, print(2), None);
        assert_eq!(due(&settler, secs(1.5)), Vec::<PathBuf>::new());
        assert_eq!((due(&settler, secs(1.9)), settler.deadline()), (vec![path.to_owned()], Some(secs(1.9))));
        assert!(!settler.take(path, print(3)), "changed since");
        assert!(settler.take(path, print(2)));
        settler.observe(secs(5.0), path, print(2), None);
        assert_eq!(due(&settler, secs(99.0)), Vec::<PathBuf>::new(), "not twice");
        settler.observe(secs(100.0), path, print(4), None);
        assert_eq!(due(&settler, secs(101.0)), [path], "but again with other content");
    }

    #[test]
    fn an_open_file_waits_for_its_close() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        settler.observe(secs(0.0), path, print(1), Some(true));
        settler.scan_end(&[]);
        settler.scan_end(&[]);
        assert_eq!(due(&settler, secs(30.0)), Vec::<PathBuf>::new());
        settler.observe(secs(31.0), path, print(1), Some(false));
        assert_eq!(due(&settler, secs(31.0)), [path]);
    }

    #[test]
    fn a_lost_close_event_does_not_hold_a_file_for_ever() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        settler.observe(secs(0.0), path, print(1), Some(true));
        for _ in 0..6 {
            settler.scan_end(&[]);
        }
        assert_eq!(due(&settler, secs(60.0)), [path]);
    }

    #[test]
    fn when_events_were_lost_two_scans_must_agree_on_what_was_open() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        settler.observe(secs(0.0), path, print(1), Some(true));
        settler.scan_end(&[]);
        settler.missed();
        settler.scan_end(&[]);
        assert_eq!(due(&settler, secs(9.0)), Vec::<PathBuf>::new());
        settler.observe(secs(9.0), path, print(1), None);
        settler.scan_end(&[]);
        assert_eq!(due(&settler, secs(9.0)), [path], "long before the minute of an open file");
        // An event that speaks of it again is believed.
        settler.observe(secs(9.0), path, print(1), Some(true));
        assert_eq!(due(&settler, secs(19.0)), Vec::<PathBuf>::new());
        settler.observe(secs(19.0), path, print(1), Some(false));
        assert_eq!(due(&settler, secs(19.0)), [path]);
    }

    #[test]
    fn without_events_two_scans_must_agree_and_so_for_empty_files() {
        for (watch, bytes) in [(Watch::Poll, 5), (Watch::Events, 0)] {
            let (mut settler, path) = (settler(watch), Path::new("a"));
            settler.observe(secs(0.0), path, print(bytes), None);
            settler.scan_end(&[]);
            settler.observe(secs(10.0), path, print(bytes), None);
            assert_eq!(due(&settler, secs(10.0)), Vec::<PathBuf>::new());
            settler.scan_end(&[]);
            assert_eq!(due(&settler, secs(20.0)), [path]);
        }
    }

    #[test]
    fn the_deadline_is_when_time_alone_makes_a_file_due() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        for (open, bytes, settled) in [(Some(false), 0, 1.0), (Some(true), 5, 60.0)] {
            settler.observe(secs(0.0), path, print(bytes), open);
            assert_eq!((settler.deadline(), due(&settler, secs(99.0))), (None, Vec::new()), "a scan is missing");
            settler.scan_end(&[]);
            settler.scan_end(&[]);
            assert_eq!(settler.deadline(), Some(secs(settled)));
            assert_eq!(due(&settler, secs(settled)), [path]);
            settler.forget(path);
        }
        settler.observe(secs(0.0), path, print(5), Some(false));
        settler.observe(secs(0.0), Path::new("b"), print(0), Some(false));
        assert_eq!(settler.deadline(), Some(secs(1.0)), "what waits for a scan does not hide what does not");
        settler.hear(false);
        assert_eq!(settler.deadline(), None);
    }

    #[test]
    fn any_path_is_found_again_by_its_key() {
        for bytes in [&b"/in/a.dcm"[..], b"/in/\xff\n.dcm", b"bytes"] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(key_path(&path_key(&path)), path);
        }
    }

    #[test]
    fn where_a_scan_could_not_look_nothing_is_gone() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a/1"));
        settler.observe(secs(0.0), path, print(1), None);
        assert!(settler.take(path, print(1)));
        settler.scan_end(&[]);
        settler.scan_end(&["b".into(), "a".into()]);
        settler.scan_end(&["a".into()]);
        settler.observe(secs(9.0), path, print(1), None);
        assert_eq!(due(&settler, secs(99.0)), Vec::<PathBuf>::new(), "not twice");
        settler.scan_end(&["b".into()]);
        assert_eq!(settler.taken.len(), 1, "it was seen");
        settler.scan_end(&["b".into()]);
        assert_eq!(settler.taken.len(), 0, "trouble elsewhere keeps nothing");
        settler.scan_end(&[]);
        settler.scan_end(&[]);
        settler.observe(secs(100.0), path, print(1), None);
        assert_eq!(due(&settler, secs(101.0)), [path], "gone, and back");
    }

    #[test]
    fn when_events_stop_coming_two_scans_must_agree() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        settler.hear(false);
        settler.observe(secs(0.0), path, print(1), None);
        assert_eq!(due(&settler, secs(9.0)), Vec::<PathBuf>::new());
        settler.hear(true);
        assert_eq!(due(&settler, secs(9.0)), [path]);
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

    #[test]
    fn of_many_that_wait_the_first_of_each_kind_come() {
        let mut settler = settler(Watch::Events);
        for number in (0..1000u64).rev() {
            let name = if number % 10 == 0 { format!("er/{number}") } else { number.to_string() };
            settler.observe(Tick::from_millis(number), Path::new(&name), print(1), None);
        }
        let [urgent, others] = settler.due(secs(99.0), 3, Some(&|path: &Path| path.starts_with("er")));
        assert_eq!(urgent, ["er/0", "er/10", "er/20"].map(PathBuf::from));
        assert_eq!(others, ["1", "2", "3"].map(PathBuf::from));
        // One that changes goes to the end, one that is gone leaves no place.
        settler.observe(secs(50.0), Path::new("1"), print(2), None);
        settler.forget(Path::new("2"));
        assert_eq!(due(&settler, secs(99.0))[..2], ["er/0", "3"].map(PathBuf::from));
        assert_eq!(settler.order.len(), settler.waiting.len());
        assert_eq!(settler.order.last_key_value().unwrap().1.as_ref(), Path::new("1"));
    }

    #[test]
    fn an_open_file_does_not_hide_that_a_later_one_is_due_sooner() {
        let mut settler = settler(Watch::Events);
        settler.observe(secs(0.0), Path::new("open"), print(1), Some(true));
        settler.scan_end(&[]);
        settler.scan_end(&[]);
        settler.observe(secs(5.0), Path::new("closed"), print(1), Some(false));
        assert_eq!(settler.deadline(), Some(secs(6.0)));
    }

    #[test]
    fn a_file_on_record_is_offered_only_once_it_changes() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        settler.recognize(path, print(1));
        settler.observe(secs(1.0), path, print(1), None);
        assert!(settler.knows(path) && due(&settler, secs(99.0)).is_empty());
        settler.observe(secs(100.0), path, print(2), None);
        assert_eq!(due(&settler, secs(101.0)), [path]);
    }

    #[test]
    fn files_that_are_gone_are_forgotten() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        settler.observe(secs(0.0), path, print(1), None);
        assert!(settler.take(path, print(1)));
        settler.scan_end(&[]);
        settler.scan_end(&[]);
        settler.observe(secs(9.0), path, print(1), None);
        assert_eq!(due(&settler, secs(10.0)), [path], "the same name and state after it was gone is a new file");
    }
}
