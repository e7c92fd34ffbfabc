//! When a file is complete: closed and unchanged for a time. A pure state machine, told what was seen and when.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Tick;
use crate::config::{Inbox, Watch};
use crate::disk::Fingerprint;

/// A file that an event called open is waited for this long after its last change, if no event calls it closed.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);

/// A file that was quiet for this part of its settle time may be worked on ahead. Of one that is written in several goes
/// most are over by then.
const AHEAD_PART: u32 = 16;

/// Work on a file that changes again and again is begun ahead this often, and then only when the file has settled.
const AHEAD_TRIES: u32 = 2;

/// Decides when a file is complete, and from when on it is worth a try.
#[derive(Debug)]
pub struct Settler {
    settle: Duration,
    poll: bool,
    waiting: HashMap<Arc<Path>, Waiting>,
    /// Those that wait and are not worked on, the longest quiet first: of very many nobody has to look at all.
    order: BTreeMap<Place, Arc<Path>>,
    /// Those that wait while they are worked on ahead.
    begun: BTreeMap<Place, Arc<Path>>,
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
    /// Whether it is worked on ahead in this state.
    is_begun: bool,
    /// How often it was, in earlier states too.
    tries: u32,
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
            begun: BTreeMap::new(),
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
        let fresh = Waiting {
            print,
            place,
            first_scan: self.scan,
            open: open.unwrap_or(false),
            unsure: false,
            is_begun: false,
            tries: 0,
        };
        match self.waiting.get_mut(path) {
            None => {
                let path: Arc<Path> = path.into();
                self.order.insert(place, Arc::clone(&path));
                self.waiting.insert(path, fresh);
            }
            Some(waiting) if waiting.print != print => {
                let before = if waiting.is_begun { &mut self.begun } else { &mut self.order };
                if let Some(path) = before.remove(&waiting.place) {
                    self.order.insert(place, path);
                }
                let (open, unsure) = (open.unwrap_or(waiting.open), open.is_none() && waiting.unsure);
                *waiting = Waiting { open, unsure, tries: waiting.tries, ..fresh };
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
            let place = if waiting.is_begun { &mut self.begun } else { &mut self.order };
            place.remove(&waiting.place);
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

    /// The state in which a file waits.
    pub fn waits_in(&self, path: &Path) -> Option<Fingerprint> {
        self.waiting.get(path).map(|waiting| waiting.print)
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
        let Some(latest) = now.checked_sub(self.settle) else { return Default::default() };
        let candidates = self.order.range(..=(latest, u64::MAX)).map(|(_, path)| path);
        self.pick(candidates, most, is_urgent, |waiting| self.is_due(now, waiting))
    }

    /// The same of files that do not look complete yet, but may well be: the caller answers with `observe` or `begin`.
    pub fn early(&self, now: Tick, most: usize, is_urgent: Option<&dyn Fn(&Path) -> bool>) -> [Vec<PathBuf>; 2] {
        let Some(latest) = now.checked_sub(self.settle / AHEAD_PART) else { return Default::default() };
        if self.poll {
            return Default::default();
        }
        let settled = now.checked_sub(self.settle).map_or(Bound::Unbounded, |at| Bound::Excluded((at, u64::MAX)));
        let candidates = self.order.range((settled, Bound::Included((latest, u64::MAX)))).map(|(_, path)| path);
        self.pick(candidates, most, is_urgent, |waiting| self.is_worth_a_try(waiting))
    }

    /// At most `most` of the files that are worked on ahead and look complete by now: the caller answers with `observe` or
    /// `take`.
    pub fn settled(&self, now: Tick, most: usize) -> Vec<PathBuf> {
        let Some(latest) = now.checked_sub(self.settle) else { return Vec::new() };
        let candidates = self.begun.range(..=(latest, u64::MAX)).map(|(_, path)| path);
        let [_, settled] = self.pick(candidates, most, None, |waiting| self.is_due(now, waiting));
        settled
    }

    fn pick<'a>(
        &self,
        candidates: impl Iterator<Item = &'a Arc<Path>>,
        most: usize,
        is_urgent: Option<&dyn Fn(&Path) -> bool>,
        may_come: impl Fn(&Waiting) -> bool,
    ) -> [Vec<PathBuf>; 2] {
        let [mut urgent, mut others]: [Vec<PathBuf>; 2] = Default::default();
        for path in candidates {
            if others.len() >= most && (is_urgent.is_none() || urgent.len() >= most) {
                break;
            }
            let kind = if is_urgent.is_some_and(|is_urgent| is_urgent(path)) { &mut urgent } else { &mut others };
            if kind.len() < most && self.waiting.get(path).is_some_and(&may_come) {
                kind.push(path.to_path_buf());
            }
        }
        [urgent, others]
    }

    fn is_worth_a_try(&self, waiting: &Waiting) -> bool {
        !waiting.is_begun && waiting.tries < AHEAD_TRIES && !self.needs_scans(waiting)
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

    /// Work on a file begins ahead. `false` if it changed since it was seen.
    pub fn begin(&mut self, path: &Path, print: Fingerprint) -> bool {
        let Some(waiting) = self.waiting.get_mut(path).filter(|waiting| waiting.print == print && !waiting.is_begun)
        else {
            return false;
        };
        (waiting.is_begun, waiting.tries) = (true, waiting.tries + 1);
        if let Some(path) = self.order.remove(&waiting.place) {
            self.begun.insert(waiting.place, path);
        }
        true
    }

    /// Work ahead of a file that was to begin is not worth it: it waits for its time.
    pub fn decline(&mut self, path: &Path) {
        let Some(waiting) = self.waiting.get_mut(path).filter(|waiting| waiting.is_begun) else { return };
        (waiting.is_begun, waiting.tries) = (false, AHEAD_TRIES);
        if let Some(path) = self.begun.remove(&waiting.place) {
            self.order.insert(waiting.place, path);
        }
    }

    /// When `due` or `settled` next has an answer by time alone. What still waits for a scan is none of it: the scan's end
    /// brings it.
    pub fn deadline(&self) -> Option<Tick> {
        [self.deadline_of(&self.order), self.deadline_of(&self.begun)].into_iter().flatten().min()
    }

    /// When `early` next has an answer by time alone.
    pub fn early_deadline(&self) -> Option<Tick> {
        if self.poll {
            return None;
        }
        let mut waiting = self.order.values().filter_map(|path| self.waiting.get(path));
        let first = waiting.find(|waiting| self.is_worth_a_try(waiting))?;
        Some(first.place.0 + self.settle / AHEAD_PART)
    }

    fn deadline_of(&self, order: &BTreeMap<Place, Arc<Path>>) -> Option<Tick> {
        let is_timed = |waiting: &&Waiting| self.scan - waiting.first_scan >= 2 || !self.needs_scans(waiting);
        let mut timed = order.values().filter_map(|path| self.waiting.get(path)).filter(is_timed);
        let end = |waiting: &Waiting| {
            waiting.place.0 + if waiting.open { OPEN_PATIENCE.max(self.settle) } else { self.settle }
        };
        let first = timed.next()?;
        // Only after an open one may one that came later be due sooner.
        let sooner = if first.open { timed.map(end).min() } else { None };
        Some(sooner.map_or(end(first), |sooner| sooner.min(end(first))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_quiet_file_is_begun_ahead_and_settles_all_the_same() {
        let (mut settler, path) = (settler(Watch::Events), Path::new("a"));
        let early = |settler: &Settler, at: f64| {
            let [_, others] = settler.early(secs(at), 9, None);
            others
        };
        settler.observe(secs(1.0), path, print(1), Some(true));
        assert_eq!((early(&settler, 1.5), settler.early_deadline()), (vec![], None), "it is open");
        settler.observe(secs(1.0), path, print(1), Some(false));
        assert_eq!((early(&settler, 1.06), settler.early_deadline()), (vec![], Some(secs(1.0625))));
        assert_eq!(early(&settler, 1.0625), [path]);
        assert_eq!(early(&settler, 2.0), Vec::<PathBuf>::new(), "it is due");
        assert!(!settler.begin(path, print(2)), "changed since");
        assert!(settler.begin(path, print(1)) && !settler.begin(path, print(1)));
        assert_eq!((early(&settler, 1.5), settler.early_deadline()), (vec![], None));
        assert_eq!((settler.settled(secs(1.9), 9), settler.deadline()), (vec![], Some(secs(2.0))));
        assert_eq!((settler.settled(secs(2.0), 9), due(&settler, secs(2.0))), (vec![path.to_owned()], vec![]));
        // It changes: a second try, and no third one.
        settler.observe(secs(3.0), path, print(2), None);
        assert_eq!((settler.settled(secs(3.9), 9), early(&settler, 3.5)), (vec![], vec![path.to_owned()]));
        assert!(settler.begin(path, print(2)));
        settler.observe(secs(4.0), path, print(3), None);
        assert_eq!((early(&settler, 4.5), settler.early_deadline()), (vec![], None));
        assert_eq!(due(&settler, secs(5.0)), [path]);
        assert!(settler.take(path, print(3)));
        assert!(settler.order.is_empty() && settler.begun.is_empty() && settler.waiting.is_empty());
        // What was begun and is gone leaves no place.
        settler.observe(secs(6.0), path, print(4), Some(false));
        assert!(settler.begin(path, print(4)));
        settler.forget(path);
        assert_eq!((settler.begun.len(), settler.deadline()), (0, None));
    }

    #[test]
    fn where_two_scans_must_agree_nothing_is_begun_ahead() {
        for (watch, bytes) in [(Watch::Poll, 5), (Watch::Events, 0)] {
            let (mut settler, path) = (settler(watch), Path::new("a"));
            settler.observe(secs(0.0), path, print(bytes), None);
            let [_, others] = settler.early(secs(0.5), 9, None);
            assert_eq!((others, settler.early_deadline()), (vec![], None));
        }
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
