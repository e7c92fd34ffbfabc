//! Files of which the ledger knows the outcome, read from it once at the start. Knows digests of paths and fingerprints
//! only: a hundred thousand of them take a few megabytes.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::path::Path;

use crate::admit::path_key;
use crate::disk::Fingerprint;
use crate::ledger::{Ledger, LedgerError};

/// Each is taken out when it is recognized: after that whoever asks knows it himself.
#[derive(Debug, Default)]
pub struct Recalled {
    known: HashSet<[u64; 2]>,
    /// Two, each with a key of its own and unknown to whoever names files: that a file is taken for another one is as likely
    /// as that of two SHA-256 digests the first halves agree.
    hashers: [RandomState; 2],
}

impl Recalled {
    /// All files with an outcome.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn load(ledger: &Ledger) -> Result<Recalled, LedgerError> {
        let mut recalled = Recalled::default();
        ledger.each_finished_file(|key, print| {
            let digest = recalled.digest(key, print);
            recalled.known.insert(digest);
        })?;
        Ok(recalled)
    }

    /// Whether a file in this state is on record. It is so once.
    pub fn take(&mut self, path: &Path, print: Fingerprint) -> bool {
        !self.known.is_empty() && {
            let digest = self.digest(&path_key(path), print);
            self.known.remove(&digest)
        }
    }

    fn digest(&self, key: &str, print: Fingerprint) -> [u64; 2] {
        let digest = |hasher: &RandomState| hasher.hash_one(Whole { key, print });
        [digest(&self.hashers[0]), digest(&self.hashers[1])]
    }
}

#[derive(Hash)]
struct Whole<'a> {
    key: &'a str,
    print: Fingerprint,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{FileOutcome, FileState};

    #[test]
    fn files_with_an_outcome_are_recalled_once_and_in_their_state_only() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
        let print = |number: u64| Fingerprint { inode: number, bytes: 5, mtime_ns: -7 };
        // More than are read at a time, and names that are no UTF-8.
        let odd = std::os::unix::ffi::OsStrExt::from_bytes(&b"/in/\xff"[..]);
        let mut paths: Vec<std::path::PathBuf> = (0..12_000).map(|number| format!("/in/{number}").into()).collect();
        paths.push(Path::new::<std::ffi::OsStr>(odd).to_owned());
        let states = [FileState::Done, FileState::Duplicate, FileState::Rejected];
        let outcome = |(number, path): (usize, &std::path::PathBuf)| FileOutcome {
            path: path_key(path),
            fingerprint: print(number as u64),
            state: states[number % 3],
            sha256: None,
            code: None,
            sentence: None,
        };
        let outcomes: Vec<FileOutcome> = paths.iter().enumerate().map(outcome).collect();
        ledger.commit(&outcomes, &[], "now").unwrap();
        ledger.begin("/in/begun", print(1), "now").unwrap();
        let mut recalled = Recalled::load(&ledger).unwrap();
        assert_eq!(recalled.known.len(), paths.len());
        assert!(!recalled.take(Path::new("/in/begun"), print(1)), "it has no outcome");
        assert!(!recalled.take(Path::new("/in/7"), print(8)), "it changed");
        for (number, path) in paths.iter().enumerate() {
            assert!(recalled.take(path, print(number as u64)), "{number}");
            assert!(!recalled.take(path, print(number as u64)), "{number} twice");
        }
    }
}
