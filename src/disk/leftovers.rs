//! Temporary files that a process left behind when it was cut off. Knows no folder of the daemon by name.

use std::path::Path;

use super::{Files, TEMPORARY};
use crate::limits::INBOX_DEPTH_MAX;
use crate::telemetry;

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// They are deleted: a result or a copy that did not get to its name is made again.
    Delete,
    /// They are named so that the watcher sees them: an input that was cut off on its way out may be one that came
    /// while it was dealt with.
    Show,
}

/// Deals with all that lie in a folder and below it. What cannot be dealt with now is there at the next start.
pub(super) fn clear<F: Files>(files: &F, folder: &Path, fate: Leftover, depth: usize) -> u64 {
    let Ok(listed) = files.list(folder) else { return 0 };
    let (before, after) = TEMPORARY;
    let own = format!("{before}{}-", files.process());
    let mut n_cleared = 0;
    for (name, is_folder) in listed {
        let path = folder.join(&name);
        let Some(text) = name.to_str() else { continue };
        if is_folder {
            if depth < INBOX_DEPTH_MAX && !text.starts_with('.') {
                n_cleared += clear(files, &path, fate, depth + 1);
            }
            continue;
        }
        if text.starts_with(&own) {
            continue;
        }
        let Some(letters) = text.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)) else { continue };
        let cleared = match fate {
            Leftover::Delete => files.unlink(&path),
            Leftover::Show => files.rename_new(&path, &folder.join(format!("left-{letters}"))),
        };
        match cleared {
            Ok(()) => n_cleared += 1,
            Err(error) => tracing::debug!(file = %telemetry::file(&path), %error, "A temporary file stays."),
        }
    }
    n_cleared
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::{Disk, RealDisk};

    #[test]
    fn leftovers_go_or_come_into_sight_and_others_stay() {
        let site = tempfile::tempdir().unwrap();
        let own = format!(".ichd-{}-7.tmp", RealDisk.process());
        fs::create_dir(site.path().join("study")).unwrap();
        for name in ["study/.ichd-1-2-3.tmp", "study/a.json", ".ichd-x.tmp", "study/.other.tmp", &own] {
            fs::write(site.path().join(name), name).unwrap();
        }
        let names = |folder: &str| RealDisk.names(&site.path().join(folder)).unwrap();
        assert_eq!(RealDisk.clear_leftovers(&site.path().join("study"), Leftover::Delete), 1);
        assert_eq!(names("study"), [".other.tmp", "a.json"]);
        assert_eq!(RealDisk.clear_leftovers(site.path(), Leftover::Show), 1);
        assert_eq!(names(""), [own.as_str(), "left-x", "study"]);
    }
}
