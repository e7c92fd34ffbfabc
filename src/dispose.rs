//! What becomes of an input file once its outcome is on record. Knows no ledger.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::config::{After, Inbox};
use crate::disk::Disk;
use crate::reject::Rejection;

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
    after: After,
    done: PathBuf,
    rejected: PathBuf,
}

impl Disposer {
    /// By the inbox's settings.
    pub fn new(disk: Arc<dyn Disk>, inbox: &Inbox) -> Self {
        Disposer { disk, after: inbox.after, done: inbox.done_path.clone(), rejected: inbox.rejected_path.clone() }
    }

    /// Disposes of `path`; `tag` makes its name unique where it is taken. A failure is logged and the file stays:
    /// its outcome is on record, so nothing is lost.
    pub fn dispose(&self, path: &Path, outcome: Outcome, tag: &str) {
        let result = match (self.after, outcome) {
            (After::Keep, _) => return,
            (After::Delete, Outcome::Done) => self.disk.remove(path),
            (After::Move, Outcome::Done) => self.disk.move_into(path, &self.done, tag).map(drop),
            (_, Outcome::Rejected) => self.disk.move_into(path, &self.rejected, tag).map(drop),
        };
        match result {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "An input file could not be moved away; its outcome is on record.");
            }
            Ok(()) => {}
        }
    }

    /// Writes the reason of a refusal to `<name>.reason.json` in the folder of rejected files and disposes of the file.
    ///
    /// # Errors
    /// The reason could not be written.
    pub fn write_reason(&self, path: &Path, rejection: &Rejection, sha256: Option<&str>) -> std::io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".reason.json");
        let mut target = self.rejected.join(&name);
        if target.exists() && !self.is_same_reason(&target, sha256) {
            let mut other = path.file_name().unwrap_or_default().to_owned();
            other.push(format!(".{}.reason.json", tag_of(sha256)));
            target = self.rejected.join(other);
        }
        let reason = json!({
            "schema": "ichd.reason.v1",
            "file": path.file_name().unwrap_or_default().to_string_lossy(),
            "sha256": sha256,
            "code": rejection.code.word(),
            "tag": rejection.tag,
            "sentence": rejection.sentence,
        });
        self.disk.write_whole(&target, format!("{reason:#}\n").as_bytes())
    }

    fn is_same_reason(&self, target: &Path, sha256: Option<&str>) -> bool {
        let Ok((_, bytes)) = self.disk.read(target, 1 << 20) else { return false };
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        value.get("sha256").and_then(|v| v.as_str()) == sha256
    }
}

/// A short tag that tells one content from another.
pub fn tag_of(sha256: Option<&str>) -> &str {
    sha256.and_then(|digest| digest.get(..8)).unwrap_or("unread")
}
