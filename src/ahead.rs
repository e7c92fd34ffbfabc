//! Work on files that have not settled yet. While a file's settle time runs it is read, decoded and scored; nothing of it is
//! told or recorded before the verdict that it has settled, and nothing ever if it changed meanwhile. Two halves: the
//! admitting thread keeps a [`Book`] of such files, the recorder [`Hold`]s back what comes of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Tick;
use crate::disk::Fingerprint;
use crate::parcel::{Arrival, Origin, Scored, Verdict, Work};
use crate::reject::RejectCode;
use crate::slice::Pixels;

/// Which files are worked on ahead. Each gets one verdict.
#[derive(Debug, Default)]
pub struct Book {
    begun: HashMap<PathBuf, Begun>,
}

#[derive(Debug)]
struct Begun {
    ticket: u64,
    print: Fingerprint,
    /// It was said to have changed, and is on its way back.
    is_given_up: bool,
}

impl Book {
    /// How many files.
    pub fn len(&self) -> usize {
        self.begun.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Work on a file begins.
    pub fn begin(&mut self, path: &Path, ticket: u64, print: Fingerprint) {
        self.begun.insert(path.to_owned(), Begun { ticket, print, is_given_up: false });
    }

    /// Whether work on an earlier state of a file is on its way back: a file is on its way once.
    pub fn is_on_its_way_back(&self, path: &Path) -> bool {
        self.begun.get(path).is_some_and(|begun| begun.is_given_up)
    }

    /// How many are on their way back.
    pub fn n_on_their_way_back(&self) -> usize {
        self.begun.values().filter(|begun| begun.is_given_up).count()
    }

    /// A file was seen to wait in this state, or not at all. Gives the verdict if it is another one than work began with.
    pub fn look(&mut self, path: &Path, waits_in: Option<Fingerprint>) -> Option<Verdict> {
        let begun = self.begun.get_mut(path).filter(|begun| !begun.is_given_up && waits_in != Some(begun.print))?;
        begun.is_given_up = true;
        Some(Verdict::Changed { ticket: begun.ticket })
    }

    /// A file has settled in the state that work began with.
    pub fn settle(&mut self, path: &Path, at: Tick) -> Option<Verdict> {
        let begun = self.begun.remove(path)?;
        Some(Verdict::Settled { ticket: begun.ticket, at })
    }

    /// A file is back. Whether it was worked on ahead: then it still waits to settle.
    pub fn is_back(&mut self, path: &Path, ticket: u64) -> bool {
        let is_its = self.begun.get(path).is_some_and(|begun| begun.ticket == ticket);
        if is_its {
            self.begun.remove(path);
        }
        is_its
    }
}

/// Whether a file still has the content that was read of it, or, where it could not be read, still cannot be.
pub type IsSame<'a> = &'a dyn Fn(&Origin, Reading) -> bool;

/// What came of reading a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It was read, or deliberately not.
    Done,
    /// It could not be read.
    Failed,
}

/// What came of files that have no verdict yet, and verdicts on files of which not everything has come.
#[derive(Debug, Default)]
pub struct Hold {
    files: HashMap<u64, File>,
    held: Vec<Arrival>,
    is_over: bool,
}

#[derive(Debug, Default)]
struct File {
    word: Word,
    /// Slices that have not passed yet, once it is known.
    missing: Option<usize>,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default)]
enum Word {
    #[default]
    Nothing,
    /// It settled then. Whether what was read is what lies there has yet to be seen.
    Settled(Tick),
    /// So it is.
    Same(Tick),
    Changed,
}

/// What may happen with something that came of a file.
enum Way {
    Wait,
    Pass,
    /// From now on the file counts as admitted.
    PassSince(Tick),
    Drop,
    /// It was the last one.
    Return,
}

impl Hold {
    /// Something came. Gives what may be recorded now. `is_same` says whether what was read of a file is what lies there.
    pub fn arrive(&mut self, arrival: Arrival, is_same: IsSame<'_>) -> Vec<Arrival> {
        let mut passed = Vec::new();
        if let Some(rest) = self.sort(arrival, is_same, &mut passed) {
            self.held.push(rest);
        }
        passed
    }

    /// A verdict came. What it sets free is given by [`Hold::release`].
    pub fn hear(&mut self, verdict: Verdict) {
        let (ticket, word) = match verdict {
            Verdict::Settled { ticket, at } => (ticket, Word::Settled(at)),
            Verdict::Changed { ticket } => (ticket, Word::Changed),
        };
        self.files.entry(ticket).or_default().word = word;
    }

    /// No more verdicts will come: files without one go back.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether no more verdicts will come.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether what comes of this file now has to wait.
    pub fn waits(&self, origin: &Origin) -> bool {
        let word = self.files.get(&origin.ticket).map(|file| file.word).unwrap_or_default();
        origin.is_ahead && !self.is_over && matches!(word, Word::Nothing)
    }

    /// What may be recorded now of what was held.
    pub fn release(&mut self, is_same: IsSame<'_>) -> Vec<Arrival> {
        let mut passed = Vec::new();
        for arrival in std::mem::take(&mut self.held) {
            if let Some(rest) = self.sort(arrival, is_same, &mut passed) {
                self.held.push(rest);
            }
        }
        passed
    }

    /// What is held.
    pub fn held(&self) -> &[Arrival] {
        &self.held
    }

    /// What may pass goes to `passed`; gives what must wait.
    fn sort(&mut self, arrival: Arrival, is_same: IsSame<'_>, passed: &mut Vec<Arrival>) -> Option<Arrival> {
        let mut arrival = arrival;
        let (origin, n_parts, reading) = match arrival {
            Arrival::Scored(scored) => return self.sort_scored(scored, is_same, passed).map(Arrival::Scored),
            Arrival::Known { ref work, .. } => (Arc::clone(&work.origin), work.origin.n_slices, Reading::Done),
            Arrival::Rejected { ref origin, ref rejection } if rejection.code == RejectCode::Unreadable => {
                (Arc::clone(origin), 1, Reading::Failed)
            }
            Arrival::KnownFile { ref origin, .. }
            | Arrival::Rejected { ref origin, .. }
            | Arrival::Returned { ref origin } => (Arc::clone(origin), 1, Reading::Done),
        };
        let way = self.way(&origin, n_parts, &|| is_same(&origin, reading));
        if let Arrival::Known { work, .. } = &mut arrival {
            match way {
                Way::Wait => work.slice.pixels = Pixels::I16(Vec::new()),
                Way::PassSince(at) => since(work, at),
                _ => {}
            }
        }
        match way {
            Way::Wait => return Some(arrival),
            Way::Pass | Way::PassSince(_) => passed.push(arrival),
            Way::Drop => {}
            Way::Return => passed.push(Arrival::Returned { origin }),
        }
        None
    }

    /// Slices of a batch each go their own way; those that pass do so together.
    fn sort_scored(&mut self, scored: Scored, is_same: IsSame<'_>, passed: &mut Vec<Arrival>) -> Option<Scored> {
        if scored.works.iter().all(|work| !work.origin.is_ahead) {
            passed.push(Arrival::Scored(scored));
            return None;
        }
        let part = Scored { works: Vec::new(), answers: Vec::new(), ..scored };
        let (mut free, mut rest, mut returned) = (part.clone(), part, Vec::new());
        for (mut work, answer) in scored.works.into_iter().zip(scored.answers) {
            let origin = Arc::clone(&work.origin);
            let way = self.way(&origin, origin.n_slices, &|| is_same(&origin, Reading::Done));
            let to = match way {
                Way::Wait => &mut rest,
                Way::Pass => &mut free,
                Way::PassSince(at) => {
                    since(&mut work, at);
                    &mut free
                }
                Way::Drop => continue,
                Way::Return => {
                    returned.push(Arrival::Returned { origin });
                    continue;
                }
            };
            to.works.push(work);
            to.answers.push(answer);
        }
        if !free.works.is_empty() {
            passed.push(Arrival::Scored(free));
        }
        passed.append(&mut returned);
        (!rest.works.is_empty()).then_some(rest)
    }

    /// The way of one of `n_parts` parts of what comes of a file.
    fn way(&mut self, origin: &Origin, n_parts: usize, is_same: &dyn Fn() -> bool) -> Way {
        if !origin.is_ahead {
            return Way::Pass;
        }
        let file = self.files.entry(origin.ticket).or_default();
        file.word = match file.word {
            Word::Nothing if self.is_over => Word::Changed,
            Word::Settled(at) if is_same() => Word::Same(at),
            Word::Settled(_) => Word::Changed,
            word => word,
        };
        let missing = file.missing.get_or_insert(n_parts);
        if matches!(file.word, Word::Nothing) {
            return Way::Wait;
        }
        *missing = missing.saturating_sub(1);
        let (word, is_last) = (file.word, *missing == 0);
        if is_last {
            self.files.remove(&origin.ticket);
        }
        match word {
            Word::Same(at) => Way::PassSince(at),
            _ if is_last => Way::Return,
            _ => Way::Drop,
        }
    }
}

fn since(work: &mut Work, at: Tick) {
    Arc::make_mut(&mut work.origin).admitted_at = at;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::Answer;
    use crate::ledger::SliceRecord;
    use crate::parcel::samples;
    use crate::reject::Rejection;

    const AT: Tick = Tick::from_secs(5);

    fn ahead(ticket: u64, n_slices: usize) -> Origin {
        Origin { is_ahead: true, n_slices, ..samples::origin(ticket) }
    }

    /// A batch with a slice of each of these files.
    fn batch(origins: &[Origin]) -> Arrival {
        Arrival::Scored(Scored {
            route: 0,
            works: origins.iter().map(|origin| samples::work(origin.clone(), 4)).collect(),
            answers: origins
                .iter()
                .map(|origin| Answer { logits: [origin.ticket as f32; 6], members: Vec::new() })
                .collect(),
            begun_at: Tick::ZERO,
            window_time: Tick::ZERO,
            infer_time: Tick::ZERO,
        })
    }

    fn always(_: &Origin, _: Reading) -> bool {
        true
    }

    fn never(_: &Origin, _: Reading) -> bool {
        false
    }

    /// Tickets of what came out: of slices, with their logits, and of files that go back.
    fn tell(passed: &[Arrival]) -> Vec<String> {
        let tell = |arrival: &Arrival| match arrival {
            Arrival::Scored(scored) => {
                let slices = scored.works.iter().zip(&scored.answers);
                let slices: Vec<String> = slices
                    .map(|(work, answer)| {
                        let since = work.origin.admitted_at.as_secs();
                        format!("{}={}@{since}", work.origin.ticket, answer.logits[0])
                    })
                    .collect();
                slices.join(" ")
            }
            Arrival::Returned { origin } => format!("{} back", origin.ticket),
            Arrival::Rejected { origin, .. } => format!("{} refused", origin.ticket),
            Arrival::Known { work, .. } => {
                format!("{} known@{}", work.origin.ticket, work.origin.admitted_at.as_secs())
            }
            Arrival::KnownFile { origin, .. } => format!("{} known file", origin.ticket),
        };
        passed.iter().map(tell).collect()
    }

    #[test]
    fn of_a_batch_each_slice_goes_when_its_file_has_settled() {
        let mut hold = Hold::default();
        assert!(hold.waits(&ahead(1, 1)) && !hold.waits(&samples::origin(1)));
        let came = hold.arrive(batch(&[ahead(1, 1), samples::origin(2), ahead(3, 1), ahead(4, 1)]), &always);
        assert_eq!(tell(&came), ["2=2@0"], "who is not ahead waits for nobody");
        hold.hear(Verdict::Settled { ticket: 4, at: AT });
        hold.hear(Verdict::Changed { ticket: 1 });
        hold.hear(Verdict::Settled { ticket: 9, at: AT });
        assert!(hold.waits(&ahead(3, 1)) && !hold.waits(&ahead(9, 1)), "that one has its verdict");
        assert_eq!(tell(&hold.release(&always)), ["4=4@5", "1 back"]);
        assert_eq!(tell(hold.held()), ["3=3@0"]);
        // A verdict that was there first.
        assert_eq!(tell(&hold.arrive(batch(&[ahead(9, 1)]), &always)), ["9=9@5"]);
        hold.hear(Verdict::Settled { ticket: 3, at: AT });
        assert_eq!(tell(&hold.release(&always)), ["3=3@5"]);
        assert!(hold.files.is_empty() && hold.held.is_empty(), "{hold:?}");
    }

    #[test]
    fn a_file_of_several_slices_goes_back_once_and_after_its_last() {
        let mut hold = Hold::default();
        assert!(hold.arrive(batch(&[ahead(1, 3), ahead(1, 3)]), &always).is_empty());
        hold.hear(Verdict::Changed { ticket: 1 });
        assert!(hold.release(&always).is_empty() && hold.held.is_empty());
        assert_eq!(tell(&hold.arrive(batch(&[ahead(1, 3)]), &always)), ["1 back"]);
        assert!(hold.files.is_empty());
    }

    #[test]
    fn what_was_read_must_be_what_lies_there_once_it_has_settled() {
        let mut hold = Hold::default();
        hold.hear(Verdict::Settled { ticket: 1, at: AT });
        assert_eq!(tell(&hold.arrive(batch(&[ahead(1, 1)]), &never)), ["1 back"]);
        // Looked at once a file, not once a slice.
        let looks = std::cell::Cell::new(0);
        let look = |_: &Origin, reading: Reading| {
            looks.set(looks.get() + 1);
            reading == Reading::Done
        };
        hold.hear(Verdict::Settled { ticket: 2, at: AT });
        assert_eq!(tell(&hold.arrive(batch(&[ahead(2, 2), ahead(2, 2)]), &look)), ["2=2@5 2=2@5"]);
        assert_eq!(looks.get(), 1);
        // What could not be read is asked about as such.
        let rejection = Rejection::new(RejectCode::Unreadable, "no permission");
        hold.hear(Verdict::Settled { ticket: 3, at: AT });
        let refused = Arrival::Rejected { origin: Arc::new(ahead(3, 0)), rejection: rejection.clone() };
        assert_eq!(tell(&hold.arrive(refused, &look)), ["3 back"]);
        let refused = Arrival::Rejected { origin: Arc::new(samples::origin(4)), rejection };
        assert_eq!(tell(&hold.arrive(refused, &never)), ["4 refused"]);
    }

    #[test]
    fn known_slices_are_held_without_their_pixels() {
        let mut hold = Hold::default();
        let record = SliceRecord {
            study: String::new(),
            series: String::new(),
            instance: String::new(),
            frame: 0,
            key: samples::work(samples::origin(0), 0).key,
            logits: Vec::new(),
            file_sha256: String::new(),
            result: String::new(),
        };
        let known = Arrival::Known { work: Box::new(samples::work(ahead(1, 1), 4)), record: Box::new(record) };
        assert!(hold.arrive(known, &always).is_empty());
        let Arrival::Known { work, .. } = &hold.held()[0] else { panic!("it is held") };
        assert!(matches!(&work.slice.pixels, Pixels::I16(values) if values.is_empty()));
        hold.hear(Verdict::Settled { ticket: 1, at: AT });
        assert_eq!(tell(&hold.release(&always)), ["1 known@5"]);
        let file = |ticket| Arrival::KnownFile { origin: Arc::new(ahead(ticket, 7)), records: Vec::new() };
        assert!(hold.arrive(file(2), &always).is_empty());
        hold.end();
        assert!(!hold.waits(&ahead(2, 7)));
        assert_eq!(tell(&hold.release(&always)), ["2 back"], "no verdict will come");
        assert_eq!(tell(&hold.arrive(file(3), &always)), ["3 back"]);
        assert!(hold.files.is_empty());
    }

    #[test]
    fn every_file_in_the_book_gets_one_verdict() {
        let (mut book, path) = (Book::default(), Path::new("a"));
        let print = |bytes| Fingerprint { bytes, ..Fingerprint::default() };
        book.begin(path, 1, print(1));
        assert_eq!((book.len(), book.look(path, Some(print(1)))), (1, None));
        assert_eq!(book.look(Path::new("b"), None), None);
        assert_eq!(book.settle(path, AT), Some(Verdict::Settled { ticket: 1, at: AT }));
        assert_eq!((book.settle(path, AT), book.look(path, None), book.is_back(path, 1)), (None, None, false));
        book.begin(path, 2, print(1));
        assert_eq!(book.look(path, Some(print(2))), Some(Verdict::Changed { ticket: 2 }));
        assert_eq!((book.look(path, None), book.is_on_its_way_back(path), book.n_on_their_way_back()), (None, true, 1));
        assert!(!book.is_back(path, 1), "that was another one");
        assert!(book.is_back(path, 2) && book.is_empty());
    }
}
