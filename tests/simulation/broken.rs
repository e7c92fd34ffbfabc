//! Disks that are wrong on purpose: the simulation must find out about each of them.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ichd::disk::{Disk, Files, Fingerprint, Leftover, Open, Room, Tail, Whole};

use super::files::SimFiles;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Files are renamed into place before they are safe.
    NoFileSync,
    /// Names are not made safe.
    NoFolderSync,
    /// Files are written where they belong, not renamed.
    WriteInPlace,
    /// Results come after the ledger's rows.
    RowsFirst,
    /// A failed append is done again behind what it left.
    AppendBlindly,
    /// Inputs are moved and deleted without a look at what lies there by now.
    MoveBlindly,
    /// A result that cannot be read at the moment is taken for none.
    ErrorsAreAbsence,
    /// What comes of a file is recorded though it has not settled.
    NoVerdict,
    /// What is prepared is not made safe.
    NoPreparedSync,
    /// A result of an earlier process is taken over though its name may not be safe. Seeds find it too rarely, a scenario
    /// does.
    AdoptUnsynced,
}

impl Mutation {
    /// Those that a few hundred seeds must find.
    pub const ALL: [Mutation; 9] = [
        Mutation::NoFileSync,
        Mutation::NoFolderSync,
        Mutation::WriteInPlace,
        Mutation::RowsFirst,
        Mutation::AppendBlindly,
        Mutation::MoveBlindly,
        Mutation::ErrorsAreAbsence,
        Mutation::NoVerdict,
        Mutation::NoPreparedSync,
    ];
}

pub struct Broken {
    files: SimFiles,
    mutation: Mutation,
    late: Mutex<Vec<(PathBuf, Vec<u8>)>>,
}

impl Broken {
    pub fn new(files: SimFiles, mutation: Mutation) -> Broken {
        Broken { files, mutation, late: Mutex::default() }
    }
}

impl Disk for Broken {
    fn fingerprint(&self, path: &Path) -> io::Result<Option<Fingerprint>> {
        self.files.fingerprint(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.files.exists(path)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<(Fingerprint, Vec<u8>)> {
        match self.files.read(path, bytes_max) {
            Err(_) if self.mutation == Mutation::ErrorsAreAbsence && path.starts_with("/site/results") => {
                Err(ErrorKind::NotFound.into())
            }
            read => read,
        }
    }

    fn write_all_whole(&self, files: &[Whole<'_>]) -> io::Result<()> {
        let is_slice = |path: &Path| path.starts_with("/site/results") && !path.ends_with("study.json");
        match self.mutation {
            Mutation::RowsFirst if files.iter().all(|file| is_slice(file.path)) => {
                let files = files.iter().map(|file| (file.path.to_path_buf(), file.bytes.to_vec()));
                self.late.lock().unwrap().extend(files);
                Ok(())
            }
            Mutation::WriteInPlace => files.iter().try_for_each(|Whole { path, bytes, .. }| {
                ichd::disk::make_folders_on(&self.files, path.parent().unwrap())?;
                let mut file = self.files.open(path, Open::Edit)?;
                file.cut(0)?;
                file.write_all(bytes)?;
                file.sync()?;
                self.files.sync_folder(path.parent().unwrap())
            }),
            _ => self.files.write_all_whole(files),
        }
    }

    fn prepare(&self, folder: &Path, contents: &[&[u8]]) -> io::Result<Vec<PathBuf>> {
        if self.mutation != Mutation::NoPreparedSync {
            return self.files.prepare(folder, contents);
        }
        let write = |bytes: &&[u8]| {
            let path = folder.join(format!(".ichd-{}-unsynced-{}.tmp", self.files.process(), self.files.number()));
            self.files.open(&path, Open::New)?.write_all(bytes)?;
            Ok(path)
        };
        contents.iter().map(write).collect()
    }

    fn discard(&self, prepared: &Path) {
        self.files.discard(prepared);
    }

    fn secure(&self, path: &Path) -> io::Result<()> {
        match self.mutation {
            Mutation::AdoptUnsynced => Ok(()),
            _ => self.files.secure(path),
        }
    }

    fn append(&self, path: &Path, end: u64, bytes: &[u8]) -> io::Result<u64> {
        for (path, bytes) in self.late.lock().unwrap().drain(..) {
            self.files.write_whole(&path, &bytes)?;
        }
        if self.mutation != Mutation::AppendBlindly {
            return self.files.append(path, end, bytes);
        }
        ichd::disk::make_folders_on(&self.files, path.parent().unwrap())?;
        let mut file = self.files.open(path, Open::Edit)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(bytes)?;
        file.sync()?;
        self.files.sync_folder(path.parent().unwrap())?;
        Ok(end + bytes.len() as u64)
    }

    fn tail(&self, path: &Path) -> io::Result<Tail> {
        self.files.tail(path)
    }

    fn move_into(&self, path: &Path, print: Fingerprint, folder: &Path, tag: &str) -> io::Result<Option<PathBuf>> {
        if self.mutation != Mutation::MoveBlindly {
            return self.files.move_into(path, print, folder, tag);
        }
        match self.files.fingerprint(path)? {
            Some(now) => self.files.move_into(path, now, folder, tag),
            None => Ok(None),
        }
    }

    fn remove_unchanged(&self, path: &Path, print: Fingerprint) -> io::Result<bool> {
        if self.mutation != Mutation::MoveBlindly {
            return self.files.remove_unchanged(path, print);
        }
        match self.files.fingerprint(path)? {
            Some(now) => self.files.remove_unchanged(path, now),
            None => Ok(false),
        }
    }

    fn sync_names(&self, folder: &Path) -> io::Result<()> {
        self.files.sync_names(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.files.names(folder)
    }

    fn clear_leftovers(&self, folder: &Path, fate: Leftover) -> u64 {
        self.files.clear_leftovers(folder, fate)
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        self.files.room(path)
    }
}
