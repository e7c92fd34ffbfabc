//! What becomes of an input file once its outcome is on record. Of the ledger it knows only where to note what it put
//! where.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::admit::path_key;
use crate::clock::{Clock, secs};
use crate::config::{After, Inbox};
use crate::disk::{Disk, Fingerprint};
use crate::ledger::{Ledger, Place};
use crate::names::beside;
use crate::reject::Rejection;
use crate::telemetry;

const REASON_SCHEMA: &str = "ichd.reason.v1";

/// The two kinds of outcome that matter to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Results exist.
    Done,
    /// Refused.
    Rejected,
}

/// A file to be disposed of.
#[derive(Clone, Copy, Debug)]
pub struct Disposal<'a> {
    /// Where it lies.
    pub path: &'a Path,
    /// The state that the outcome speaks of.
    pub print: Fingerprint,
    /// The outcome.
    pub outcome: Outcome,
    /// Makes its name unique where that is taken.
    pub tag: &'a str,
}

/// Keeps, moves or deletes input files.
#[derive(Clone)]
pub struct Disposer {
    disk: Arc<dyn Disk>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    after: After,
    done: PathBuf,
    rejected: PathBuf,
}

impl Disposer {
    /// By the inbox's settings.
    pub fn new(disk: Arc<dyn Disk>, ledger: Arc<Ledger>, clock: Arc<dyn Clock>, inbox: &Inbox) -> Self {
        let (done, rejected) = (inbox.done_path.clone(), inbox.rejected_path.clone());
        Disposer { disk, ledger, clock, after: inbox.after, done, rejected }
    }

    /// Disposes of files. Failures are logged and the file stays: its outcome is on record, so nothing is lost. Neither is
    /// it if a power cut undoes a move: the next start finds the outcome and moves again. So the folders are synced once
    /// for all.
    pub fn dispose(&self, files: &[Disposal<'_>]) {
        let mut folders: Vec<&Path> = files.iter().flat_map(|file| self.put(file)).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            if let Err(error) = self.disk.sync_names(folder) {
                tracing::warn!(error = %error.kind(), "Inputs were put away, and a power cut may bring them back.");
            }
        }
    }

    /// Puts one file where it belongs, if it is still in the state that the outcome speaks of. Returns the folders whose
    /// names changed.
    fn put<'a>(&'a self, file: &Disposal<'a>) -> Vec<&'a Path> {
        let Disposal { path, print, outcome, tag } = *file;
        let (folder, place) = match (self.after, outcome) {
            (After::Keep, _) => return Vec::new(),
            (After::Delete, Outcome::Done) => (None, Place::Done),
            (After::Move, Outcome::Done) => (Some(&self.done), Place::Done),
            (_, Outcome::Rejected) => (Some(&self.rejected), Place::Rejected),
        };
        let result = match folder {
            None => self.disk.remove_unchanged(path, print),
            Some(folder) => self.disk.move_into(path, print, folder, tag).map(|moved| {
                moved.is_some_and(|target| {
                    self.put_away(place, &target);
                    true
                })
            }),
        };
        match result {
            Ok(true) => return path.parent().into_iter().chain(folder.map(PathBuf::as_path)).collect(),
            Ok(false) => {
                tracing::debug!(file = %telemetry::file(path), "An input file is gone or changed after it was read; what lies there is looked at anew.");
            }
            Err(error) => {
                tracing::warn!(file = %telemetry::file(path), error = %error.kind(), "An input file could not be moved away; its outcome is on record.");
            }
        }
        Vec::new()
    }

    /// Notes that a file is the daemon's own, so that retention may delete it. One that is not noted is never deleted.
    fn put_away(&self, place: Place, path: &Path) {
        let noted = self.disk.fingerprint(path).map_err(|error| error.to_string()).and_then(|print| {
            let print = print.unwrap_or_default();
            let since = secs(self.clock.wall());
            self.ledger.put_away(place, &path_key(path), print, since).map_err(|error| error.to_string())
        });
        if let Err(error) = noted {
            tracing::warn!(file = %telemetry::file(path), error, "Retention will not know of a file.");
        }
    }

    /// Writes the reason of a refusal to `<name>.reason.json` in the folder of rejected files and disposes of the file.
    ///
    /// # Errors
    /// The reason could not be written.
    pub fn write_reason(&self, path: &Path, rejection: &Rejection, sha256: Option<&str>) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        let code = rejection.code.word();
        let tag = tag_of(sha256);
        // What lies there may be a refused file that had this name, or the reason of another file.
        let endings = [".reason.json".to_owned(), format!(".{tag}.reason.json")].into_iter();
        let mut endings = endings.chain((1..1000).map(|number| format!(".{tag}.{number}.reason.json")));
        let target = loop {
            let Some(ending) = endings.next() else {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "no free name for a reason"));
            };
            let target = self.rejected.join(beside(name, &ending));
            if !self.disk.exists(&target)? || self.is_same_reason(&target, sha256, code) {
                break target;
            }
        };
        let reason = json!({
            "schema": REASON_SCHEMA,
            "file": name.to_string_lossy(),
            "sha256": sha256,
            "code": code,
            "tag": rejection.tag,
            "sentence": rejection.sentence,
        });
        self.disk.write_whole(&target, format!("{reason:#}\n").as_bytes())?;
        self.put_away(Place::Rejected, &target);
        Ok(())
    }

    /// Whether the reason of the same content lies there. What cannot be read is none of ours.
    fn is_same_reason(&self, target: &Path, sha256: Option<&str>, code: &str) -> bool {
        let Ok((_, bytes)) = self.disk.read(target, 1 << 20) else { return false };
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        // Of content that nobody could read only the code is known.
        value["schema"] == REASON_SCHEMA && value["sha256"].as_str() == sha256 && value["code"] == code
    }

    /// Whether inputs stay where they are, whatever became of them.
    pub fn keeps(&self) -> bool {
        self.after == After::Keep
    }
}

/// A short tag that tells one content from another.
pub fn tag_of(sha256: Option<&str>) -> &str {
    sha256.and_then(|digest| digest.get(..8)).unwrap_or("unread")
}
