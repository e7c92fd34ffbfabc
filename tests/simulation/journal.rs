//! The ledger's files across crashes: SQLite itself, on a file system in memory. A kill leaves its files as they are; a
//! power cut takes a tail of the write-ahead log that was not synced, at any byte. Pages that a checkpoint wrote into the
//! main file are taken for safe: SQLite syncs them before it begins the log anew, and that it does is SQLite's own promise,
//! tested by its own crash tests and not here.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;

use super::chaos::{End, Rng};

pub struct Journal {
    folder: TempDir,
    number: Mutex<u32>,
    synced: AtomicU64,
    is_committing: AtomicBool,
}

impl Journal {
    pub fn new() -> Journal {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Journal {
            folder: folder.unwrap(),
            number: Mutex::new(0),
            synced: AtomicU64::new(0),
            is_committing: AtomicBool::new(false),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.sqlite", self.number.lock().unwrap()))
    }

    fn log(path: &Path) -> PathBuf {
        path.with_extension("sqlite-wal")
    }

    /// The ledger is open: what stands there is synced.
    pub fn opened(&self) {
        self.commit_begins();
        self.note_progress();
    }

    /// A durable commit begins; once the daemon makes another step, it is over.
    pub fn commit_begins(&self) {
        self.is_committing.store(true, Ordering::SeqCst);
    }

    /// The daemon makes a step.
    pub fn note_progress(&self) {
        if self.is_committing.swap(false, Ordering::SeqCst) {
            let len = fs::metadata(Self::log(&self.path())).map_or(0, |meta| meta.len());
            self.synced.store(len, Ordering::SeqCst);
        }
    }

    /// Keeps what a crash leaves. The old ledger may be closed after that; it does no harm.
    pub fn crash(&self, end: End, rng: &mut Rng) {
        self.note_progress();
        let before = self.path();
        *self.number.lock().unwrap() += 1;
        let after = self.path();
        if fs::copy(&before, &after).is_err() {
            return;
        }
        if let Ok(mut log) = fs::read(Self::log(&before)) {
            if end == End::PowerCut {
                let synced = self.synced.load(Ordering::SeqCst).min(log.len() as u64);
                let kept = match rng.below(3) {
                    0 => synced,
                    1 => log.len() as u64,
                    _ => synced + rng.below(log.len() as u64 - synced + 1),
                };
                log.truncate(usize::try_from(kept).unwrap());
            }
            fs::write(Self::log(&after), &log).unwrap();
            self.synced.store(log.len() as u64, Ordering::SeqCst);
        } else {
            self.synced.store(0, Ordering::SeqCst);
        }
    }

    /// The files of earlier crashes go once nobody has them open.
    pub fn tidy(&self) {
        let current = self.number.lock().unwrap().to_string();
        for entry in fs::read_dir(self.folder.path()).unwrap().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().split('.').next() != Some(current.as_str()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
