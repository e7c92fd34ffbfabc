//! What becomes of an input file once its outcome is on record. Of the ledger it knows only where to note what it put
//! where.

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

/// The two kinds of outcome that matter to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Results exist.
    Done,
    /// Refused.
    Rejected,
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

    /// Disposes of `path` if it is still in the state that the outcome speaks of; `tag` makes its name unique where it
    /// is taken. A failure is logged and the file stays: its outcome is on record, so nothing is lost.
    pub fn dispose(&self, path: &Path, print: Fingerprint, outcome: Outcome, tag: &str) {
        let (folder, place) = match (self.after, outcome) {
            (After::Keep, _) => return,
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
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(file = %telemetry::file(path), "An input file is gone or changed after it was read; what lies there is looked at anew.");
            }
            Err(error) => {
                tracing::warn!(file = %telemetry::file(path), error = %error.kind(), "An input file could not be moved away; its outcome is on record.");
            }
        }
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
    pub fn write_reason(&self, path: &Path, rejection: &Rejection, sha256: Option<&str>) -> std::io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        let mut target = self.rejected.join(beside(name, ".reason.json"));
        if self.disk.exists(&target)? && !self.is_same_reason(&target, sha256)? {
            target = self.rejected.join(beside(name, &format!(".{}.reason.json", tag_of(sha256))));
        }
        let reason = json!({
            "schema": "ichd.reason.v1",
            "file": name.to_string_lossy(),
            "sha256": sha256,
            "code": rejection.code.word(),
            "tag": rejection.tag,
            "sentence": rejection.sentence,
        });
        self.disk.write_whole(&target, format!("{reason:#}\n").as_bytes())?;
        self.put_away(Place::Rejected, &target);
        Ok(())
    }

    fn is_same_reason(&self, target: &Path, sha256: Option<&str>) -> std::io::Result<bool> {
        let (_, bytes) = self.disk.read(target, 1 << 20)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(value.get("sha256").and_then(|v| v.as_str()) == sha256)
    }
}

/// A short tag that tells one content from another.
pub fn tag_of(sha256: Option<&str>) -> &str {
    sha256.and_then(|digest| digest.get(..8)).unwrap_or("unread")
}
