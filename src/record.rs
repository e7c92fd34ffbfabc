//! record: outcomes become result files, then ledger rows, then the input's disposition. One thread, in this order,
//! so that a crash between any two steps repeats work but changes nothing that was finished.

mod content;
mod studies;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, never, select};
use serde_json::Value;

use crate::admit::{Returns, path_key};
use crate::ahead::{Hold, Reading};
use crate::clock::{Clock, Tick, day, rfc3339};
use crate::config::Results;
use crate::daily_log::DailyLog;
use crate::disk::{Disk, Whole};
use crate::dispose::{Disposal, Disposer, Outcome, tag_of};
use crate::ensemble::Answer;
use crate::error::Fatal;
use crate::identity::checksum;
use crate::ledger::{FileOutcome, FileState, Ledger, SliceRecord};
use crate::parcel::{Arrival, Fate, Origin, Report, Scored, Verdict, Work};
use crate::patience::Patience;
use crate::profile::{Crew, Profile, Step};
use crate::reject::{RejectCode, Rejection};
use crate::results::{Timings, log_line, slice_path};
use crate::roster::Route;
use crate::shelf::{Ready, Shelf};
use crate::tally::Tally;
use crate::telemetry;

/// What the recording thread needs.
pub struct Recorder {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// What is on record.
    pub ledger: Arc<Ledger>,
    /// Counts.
    pub tally: Arc<Tally>,
    /// What becomes of input files.
    pub disposer: Disposer,
    /// What becomes of failed writes.
    pub patience: Patience,
    /// Where files without an outcome go back to.
    pub returns: Arc<Returns>,
    /// Where results go.
    pub results: Results,
    /// Who scores what.
    pub routes: Arc<[Route]>,
    /// Where it is scored.
    pub device: String,
    /// Whether studies are summed up at the end without waiting for quiet: for one-shot work.
    pub finish_studies: bool,
    /// Who wants to hear about every file.
    pub reports: Option<Sender<Report>>,
    /// Files of which some slices are still on their way.
    pub open: HashMap<u64, Open>,
    /// Studies with news, and when it came.
    pub studies: HashMap<String, Tick>,
    /// One line for each slice.
    pub log: DailyLog,
    /// Where the time goes.
    pub profile: Arc<Profile>,
    /// What came of files that have not settled yet.
    pub hold: Hold,
    /// Their results, which lie ready.
    pub shelf: Shelf,
}

/// What lies where a result is to appear.
enum Lying {
    /// Nothing, or what is no result.
    Nothing,
    /// The result of this picture by this scorer.
    Same(Value),
    /// The result of this picture by another scorer, which gives way.
    OtherScorer,
    /// The result of another picture, which stays.
    OtherPicture,
}

/// A file of which some slices are still on their way.
#[derive(Debug, Default)]
pub struct Open {
    missing: usize,
    fresh: Vec<SliceRecord>,
    known: Vec<SliceRecord>,
    rejection: Option<Rejection>,
}

/// What one message or batch adds up to before it is committed.
#[derive(Default)]
struct Entry {
    /// Result files that are to appear.
    fresh: Vec<Fresh>,
    slices: Vec<SliceRecord>,
    results: Vec<Value>,
    files: Vec<(Arc<Origin>, Fate)>,
}

/// A result file that is to appear.
struct Fresh {
    path: PathBuf,
    text: String,
    /// Where it lies already.
    prepared: Option<PathBuf>,
}

impl Fresh {
    fn whole(&self) -> Whole<'_> {
        Whole { path: &self.path, bytes: self.text.as_bytes(), prepared: self.prepared.as_deref() }
    }
}

impl Recorder {
    /// The thread.
    ///
    /// # Errors
    /// A result, the ledger or the log could not be written in several tries.
    pub fn run(mut self, arrivals: &Receiver<Arrival>, verdicts: &Receiver<Verdict>) -> Result<(), Fatal> {
        self.recover()?;
        let (mut verdicts, nothing) = (verdicts, never());
        loop {
            select! {
                recv(arrivals) -> arrival => match arrival {
                    Ok(arrival) => {
                        self.profile.waiting(Crew::Record, arrivals.len());
                        self.arrive(arrival)?;
                    }
                    Err(_) => break,
                },
                recv(verdicts) -> verdict => match verdict {
                    // Several at once, so that what they set free is synced together.
                    Ok(first) => self.hear(std::iter::once(first).chain(verdicts.try_iter()))?,
                    Err(_) => {
                        self.no_more_verdicts()?;
                        verdicts = &nothing;
                    }
                },
                default(self.until_next_study()) => {}
            }
            self.write_quiet_studies(false)?;
        }
        // Nothing comes any more; what is held may have its verdict all the same.
        self.hear(verdicts.try_iter())?;
        self.no_more_verdicts()?;
        self.write_quiet_studies(self.finish_studies)
    }

    /// Takes a message in; what may be recorded is.
    ///
    /// # Errors
    /// As [`Recorder::handle`].
    pub fn arrive(&mut self, arrival: Arrival) -> Result<(), Fatal> {
        if let Arrival::Scored(scored) = &arrival {
            self.make_ready(scored);
        }
        let disk = Arc::clone(&self.disk);
        let free = self.hold.arrive(arrival, &|origin, reading| is_same(disk.as_ref(), origin, reading));
        free.into_iter().try_for_each(|arrival| self.handle(arrival))
    }

    /// Takes verdicts in; what they set free is recorded.
    ///
    /// # Errors
    /// As [`Recorder::handle`].
    pub fn hear(&mut self, verdicts: impl Iterator<Item = Verdict>) -> Result<(), Fatal> {
        verdicts.for_each(|verdict| self.hold.hear(verdict));
        self.release()
    }

    /// What waits for a verdict goes back to the inbox: the admitting thread has ended.
    ///
    /// # Errors
    /// As [`Recorder::handle`].
    pub fn no_more_verdicts(&mut self) -> Result<(), Fatal> {
        self.hold.end();
        self.release()
    }

    fn release(&mut self) -> Result<(), Fatal> {
        let disk = Arc::clone(&self.disk);
        let free = self.hold.release(&|origin, reading| is_same(disk.as_ref(), origin, reading));
        free.into_iter().try_for_each(|arrival| self.handle(arrival))
    }

    /// Makes good what the end of an earlier process left undone.
    ///
    /// # Errors
    /// The ledger or the log could not be read or written.
    pub fn recover(&mut self) -> Result<(), Fatal> {
        self.catch_up_log()?;
        let now = self.clock.now();
        let dirty = self.patience.insist("reading the ledger", || self.ledger.dirty_studies())?;
        self.studies.extend(dirty.into_iter().map(|study| (study, now)));
        Ok(())
    }

    /// Records one message.
    ///
    /// # Errors
    /// A result, the ledger or the log could not be written in several tries.
    pub fn handle(&mut self, arrival: Arrival) -> Result<(), Fatal> {
        let mut entry = Entry::default();
        match arrival {
            Arrival::Scored(scored) => self.scored(scored, &mut entry)?,
            Arrival::Known { work, record } => self.known(&work, &record, &mut entry)?,
            Arrival::KnownFile { origin, records } => {
                entry.files.push((origin, Fate::Duplicate(records)));
            }
            Arrival::Rejected { origin, rejection } => entry.files.push((origin, Fate::Rejected(rejection))),
            Arrival::Returned { origin } => entry.files.push((origin, Fate::Returned)),
        }
        self.commit(entry)
    }

    fn scored(&mut self, scored: Scored, entry: &mut Entry) -> Result<(), Fatal> {
        for (work, answer) in scored.works.iter().zip(&scored.answers) {
            if !answer.is_finite() {
                let rejection = Rejection::new(RejectCode::BadOutput, "the network gave a number that is not finite");
                self.settle(&work.origin, Part::Rejected(rejection), entry);
                continue;
            }
            self.place(work, answer, self.timings(&scored, work), None, entry)?;
        }
        Ok(())
    }

    fn known(&mut self, work: &Work, record: &SliceRecord, entry: &mut Entry) -> Result<(), Fatal> {
        let n_models = self.routes[work.route].ensemble.members().len();
        let Some(answer) = Answer::from_row(&record.logits, n_models) else {
            return Err(Fatal::io(format!("the ledger holds {} logits for a slice", record.logits.len())));
        };
        self.place(work, &answer, self.timings_of_file(work), Some(record.instance.clone()), entry)
    }

    /// Finds out what a scored slice means in the light of what is on record and before it in the entry; its result is to
    /// be written if it is news.
    fn place(
        &mut self,
        work: &Work,
        answer: &Answer,
        timings: Timings,
        duplicate_of: Option<String>,
        entry: &mut Entry,
    ) -> Result<(), Fatal> {
        let record = self.slice_record(work, answer);
        let look_up = || self.ledger.slices_of_instance(&record.instance, record.frame);
        let mut same_instance = self.patience.insist("reading the ledger", look_up)?;
        let is_same = |other: &&SliceRecord| other.instance == record.instance && other.frame == record.frame;
        same_instance.extend(entry.slices.iter().filter(is_same).cloned());
        let path = self.results.path.join(&record.result);
        // A batch has one scorer, so another key is another picture.
        let lying = match entry.slices.iter().position(|other| other.result == record.result) {
            Some(at) if entry.slices[at].key == record.key => Lying::Same(entry.results[at].clone()),
            Some(_) => Lying::OtherPicture,
            None => self.look(&path, work)?,
        };
        let is_on_record = same_instance.iter().any(|other| other.study == record.study && other.key == record.key);
        let is_conflict = matches!(lying, Lying::OtherPicture)
            || same_instance.iter().any(|other| other.key.picture != record.key.picture);
        let is_new_work = duplicate_of.is_none();
        let result = match lying {
            Lying::Same(_) if is_on_record => {
                self.settle(&work.origin, Part::Known(record), entry);
                return Ok(());
            }
            // Written before a crash that came between the file and the ledger: a finished result never changes.
            Lying::Same(found) => {
                self.patience.insist("syncing a result", || self.disk.secure(&path))?;
                found
            }
            _ if is_conflict => {
                let sentence = "another picture came before under the same SOPInstanceUID; its result stays";
                let rejection = Rejection::of_tag(RejectCode::UidConflict, "(0008,0018) SOPInstanceUID", sentence);
                self.settle(&work.origin, Part::Rejected(rejection), entry);
                return Ok(());
            }
            Lying::Nothing | Lying::OtherScorer | Lying::OtherPicture => {
                let ready = if is_new_work { self.shelf.take(work.origin.ticket, &record.result) } else { None };
                let (json, text, prepared) = match ready {
                    Some(Ready { json, text, prepared }) => (json, text, Some(prepared)),
                    None => {
                        let json = self.result(work, answer, timings, duplicate_of);
                        let text = content::text(&json);
                        (json, text, None)
                    }
                };
                entry.fresh.push(Fresh { path, text, prepared });
                json
            }
        };
        entry.results.push(result);
        entry.slices.push(record.clone());
        let part = if is_new_work { Part::Fresh(record) } else { Part::Known(record) };
        self.settle(&work.origin, part, entry);
        Ok(())
    }

    /// Finds out what lies at the place of a result.
    fn look(&self, path: &Path, work: &Work) -> Result<Lying, Fatal> {
        let Some(found) = self.read_result(path)? else { return Ok(Lying::Nothing) };
        let scorer = &self.routes[work.route].ensemble;
        let Some(picture) = found["source"]["picture_sha256"].as_str() else { return Ok(Lying::Nothing) };
        if picture != work.key.picture {
            return Ok(Lying::OtherPicture);
        }
        let is_same_scorer = match found["scorer"].as_str() {
            Some(digest) => digest == work.key.scorer,
            // Written before results named their scorer.
            None => {
                let model = scorer.to_json();
                let is_same = |key: &str| found["model"][key] == model[key];
                is_same("sha256") && is_same("precision") && found["preprocessing"] == scorer.preprocessing_json()
            }
        };
        Ok(if is_same_scorer { Lying::Same(found) } else { Lying::OtherScorer })
    }

    /// The result at `path`; `None` if there is none or it is not whole. A disk that does not answer is no proof that
    /// there is none.
    fn read_result(&self, path: &Path) -> Result<Option<Value>, Fatal> {
        let read = || match self.disk.read(path, 1 << 20) {
            Ok((_, bytes)) => Ok(Some(bytes)),
            Err(error) if is_no_result(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let bytes = self.patience.insist("reading a result", read)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn slice_record(&self, work: &Work, answer: &Answer) -> SliceRecord {
        let ids = &work.slice.ids;
        SliceRecord {
            study: ids.study.clone(),
            series: ids.series.clone(),
            instance: ids.instance.clone(),
            frame: ids.frame.unwrap_or(0),
            key: work.key.clone(),
            logits: answer.to_row(),
            file_sha256: work.origin.sha256.clone().unwrap_or_default(),
            result: slice_path(&work.slice),
        }
    }

    /// One slice of a file has its outcome; with the last one the file has.
    fn settle(&mut self, origin: &Arc<Origin>, part: Part, entry: &mut Entry) {
        let open =
            self.open.entry(origin.ticket).or_insert_with(|| Open { missing: origin.n_slices, ..Open::default() });
        match part {
            Part::Fresh(record) => open.fresh.push(record),
            Part::Known(record) => open.known.push(record),
            Part::Rejected(rejection) => open.rejection = Some(rejection),
        }
        open.missing = open.missing.saturating_sub(1);
        if open.missing > 0 {
            return;
        }
        let open = self.open.remove(&origin.ticket).unwrap_or_default();
        let fate = match open.rejection {
            Some(rejection) => Fate::Rejected(rejection),
            None if open.fresh.is_empty() => Fate::Duplicate(open.known),
            None => Fate::Done(open.fresh.into_iter().chain(open.known).collect()),
        };
        entry.files.push((Arc::clone(origin), fate));
    }

    /// Results come to the disk; then the ledger, the log, the inputs and the listeners.
    fn commit(&mut self, entry: Entry) -> Result<(), Fatal> {
        self.write_results(&entry.fresh)?;
        for (origin, fate) in &entry.files {
            if let Fate::Rejected(rejection) = fate {
                let write = || self.disposer.write_reason(&origin.path, rejection, origin.sha256.as_deref());
                self.patience.insist("writing a reason", write)?;
            }
        }
        let outcomes: Vec<FileOutcome> =
            entry.files.iter().filter_map(|(origin, fate)| outcome(origin, fate)).collect();
        if !outcomes.is_empty() || !entry.slices.is_empty() {
            let now = rfc3339(self.clock.wall());
            let commit = || self.ledger.commit(&outcomes, &entry.slices, &now);
            let begun = self.clock.now();
            let seqs = self.patience.insist("writing the ledger", commit)?;
            let committed = self.clock.now();
            self.append_log(&seqs, &entry.results)?;
            self.profile.add(Step::Ledger, begun, committed, 1);
            self.profile.add(Step::Log, committed, self.clock.now(), 1);
        }
        let now = self.clock.now();
        self.studies.extend(entry.slices.iter().map(|slice| (slice.study.clone(), now)));
        let disposals: Vec<Disposal<'_>> =
            entry.files.iter().filter_map(|(origin, fate)| disposal(origin, fate)).collect();
        self.disposer.dispose(&disposals);
        self.profile.add(Step::Inputs, now, self.clock.now(), disposals.len());
        for (origin, fate) in &entry.files {
            if origin.is_ahead && matches!(fate, Fate::Returned) && !self.hold.is_over() {
                // It may never come again in this state. What is only put off by a stop keeps the count of its attempts.
                let key = path_key(&origin.path);
                self.patience.insist("writing the ledger", || self.ledger.forget(&key))?;
            }
        }
        for (origin, fate) in entry.files {
            self.shelf.clear(origin.ticket).iter().for_each(|ready| self.disk.discard(&ready.prepared));
            self.tell(&origin, fate);
        }
        Ok(())
    }

    fn write_results(&self, fresh: &[Fresh]) -> Result<(), Fatal> {
        if fresh.is_empty() {
            return Ok(());
        }
        let files: Vec<Whole<'_>> = fresh.iter().map(Fresh::whole).collect();
        let begun = self.clock.now();
        self.patience.insist("writing results", || self.disk.write_all_whole(&files))?;
        let n_unprepared = fresh.iter().filter(|file| file.prepared.is_none()).count();
        self.profile.add(Step::Results, begun, self.clock.now(), n_unprepared);
        Ok(())
    }

    /// Counts a file's fate and tells it to whoever listens.
    fn tell(&self, origin: &Origin, fate: Fate) {
        let file = telemetry::file(&origin.path);
        match &fate {
            Fate::Done(slices) => {
                self.tally.done();
                tracing::debug!(%file, slices = slices.len(), "A file is done.");
            }
            Fate::Duplicate(_) => {
                self.tally.duplicate();
                tracing::debug!(%file, "A file is a duplicate.");
            }
            Fate::Rejected(rejection) => {
                self.tally.reject();
                let tag = rejection.tag.as_deref().unwrap_or("-");
                tracing::warn!(%file, code = rejection.code.word(), tag, "A file is rejected: {}.", rejection.sentence);
            }
            Fate::Returned => {
                self.returns.put(origin.path.clone(), origin.ticket);
                self.tally.give_back();
                tracing::info!(%file, "A file changed or could not be read; it is taken when it is quiet.");
            }
        }
        if let Some(reports) = &self.reports {
            // Whoever listened may have left; the work goes on.
            let _ = reports.send(Report { path: origin.path.clone(), fate });
        }
    }

    fn append_log(&mut self, seqs: &[i64], results: &[Value]) -> Result<(), Fatal> {
        let Some(last) = seqs.last() else { return Ok(()) };
        let lines: String = seqs.iter().zip(results).map(|(seq, result)| log_line(*seq, result)).collect();
        self.log.append(&day(self.clock.wall()), &lines)?;
        self.patience.insist("writing the ledger", || self.ledger.set_logged(*last))
    }

    /// Appends lines that a crash kept from the log, and cuts off one that it tore.
    fn catch_up_log(&mut self) -> Result<(), Fatal> {
        let on_record = self.patience.insist("reading the ledger", || self.ledger.logged())?;
        let logged = on_record.max(self.log.last_number()?);
        let (mut seqs, mut results) = (Vec::new(), Vec::new());
        for (seq, record) in self.patience.insist("reading the ledger", || self.ledger.slices_after(logged))? {
            // A result that was deleted since has nothing to be logged.
            if let Some(result) = self.read_result(&self.results.path.join(&record.result))? {
                seqs.push(seq);
                results.push(result);
            }
        }
        self.append_log(&seqs, &results)
    }
}

/// Whether a file that has settled by now is what was read before. Its content is looked at, not only its size and time:
/// some shares know times to a second or two.
fn is_same(disk: &dyn Disk, origin: &Origin, reading: Reading) -> bool {
    match (origin.checksum, reading) {
        (None, Reading::Done) => {
            matches!(disk.fingerprint(&origin.path), Ok(Some(print)) if print == origin.fingerprint)
        }
        (known, _) => match disk.read(&origin.path, origin.fingerprint.bytes) {
            Ok((print, bytes)) => print == origin.fingerprint && known == Some(checksum(&bytes)),
            Err(_) => reading == Reading::Failed,
        },
    }
}

/// What became of one slice.
enum Part {
    Fresh(SliceRecord),
    Known(SliceRecord),
    Rejected(Rejection),
}

/// How an input is disposed of. `None` if it stays for another try.
fn disposal<'a>(origin: &'a Origin, fate: &Fate) -> Option<Disposal<'a>> {
    let outcome = match fate {
        Fate::Done(_) | Fate::Duplicate(_) => Outcome::Done,
        Fate::Rejected(_) => Outcome::Rejected,
        Fate::Returned => return None,
    };
    let tag = tag_of(origin.sha256.as_deref());
    Some(Disposal { path: &origin.path, print: origin.fingerprint, outcome, tag })
}

fn outcome(origin: &Origin, fate: &Fate) -> Option<FileOutcome> {
    let (state, rejection) = match fate {
        Fate::Done(_) => (FileState::Done, None),
        Fate::Duplicate(_) => (FileState::Duplicate, None),
        Fate::Rejected(rejection) => (FileState::Rejected, Some(rejection)),
        Fate::Returned => return None,
    };
    Some(FileOutcome {
        path: path_key(&origin.path),
        fingerprint: origin.fingerprint,
        state,
        sha256: origin.sha256.clone(),
        code: rejection.map(|rejection| rejection.code.word().to_owned()),
        sentence: rejection.map(Rejection::to_string),
    })
}

/// What says for certain that no result can be read there: nothing, or something that a result replaces.
fn is_no_result(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FileTooLarge | ErrorKind::InvalidInput)
}
