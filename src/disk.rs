//! The only place that opens files for writing. Knows no DICOM and no results, only paths and bytes.
//!
//! Everything goes through the [`Disk`] trait: what must be whole, safe or unchanged is said here once, in terms of the
//! single steps of [`Files`]. Tests put a faulty file system below it, or a faulty disk in its place.

mod files;
mod leftovers;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

pub use files::{Files, Handle, Open, Stat};
pub use leftovers::Leftover;

/// Names of temporary files begin and end so.
const TEMPORARY: (&str, &str) = (".ichd-", ".tmp");

/// Files that are open at a time while several are written.
const SYNCED_TOGETHER: usize = 32;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Fingerprint {
    fn of(meta: &fs::Metadata) -> Self {
        let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        Fingerprint { inode: meta.ino(), bytes: meta.size(), mtime_ns }
    }
}

/// What is left on a file system for a program without privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Files that can still be made.
    pub files: u64,
}

/// The end of a file of lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Where the last complete line ends: the size of the file.
    pub end: u64,
    /// That line.
    pub line: Option<String>,
}

/// A file that is to appear.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// Where.
    pub path: &'a Path,
    /// Its content.
    pub bytes: &'a [u8],
    /// Where [`Disk::prepare`] put the same content, if it did.
    pub prepared: Option<&'a Path>,
}

/// The file operations that the daemon needs.
pub trait Disk: Send + Sync {
    /// The fingerprint of a regular file; `None` for anything else: links, folders, pipes, devices.
    fn fingerprint(&self, path: &Path) -> io::Result<Option<Fingerprint>>;

    /// Whether anything has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Reads a regular file of at most `bytes_max`, never following a link and never blocking on a pipe.
    /// Returns the fingerprint of what was read; of a file that changed meanwhile, that of its new state.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<(Fingerprint, Vec<u8>)>;

    /// Makes `path` appear with these bytes, complete and synced, or not at all. Missing folders are made.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_all_whole(&[Whole { path, bytes, prepared: None }])
    }

    /// The same of several files, each of which appears complete and synced or not at all, with fewer syncs than one by one.
    /// No two of them have the same path. After an error some may have appeared.
    fn write_all_whole(&self, files: &[Whole<'_>]) -> io::Result<()>;

    /// Writes contents to a disk before it is known whether they are to appear: into files with temporary names in `folder`,
    /// all synced. Each is to be handed to [`Disk::write_all_whole`], which then needs no sync before it appears, or to
    /// [`Disk::discard`]. After an error nothing is left.
    fn prepare(&self, folder: &Path, contents: &[&[u8]]) -> io::Result<Vec<PathBuf>>;

    /// Deletes what was prepared in vain. What cannot be deleted now is cleared away after the next start.
    fn discard(&self, prepared: &Path);

    /// Makes sure that a file which [`Disk::write_whole`] of an earlier process made appear survives a power cut: that
    /// process may have ended before it synced the name.
    fn secure(&self, path: &Path) -> io::Result<()>;

    /// Writes bytes at `end` of a file, which is made if it is missing, and syncs it. What lies beyond `end` comes from
    /// an earlier try that failed, and goes. Returns the new end.
    fn append(&self, path: &Path, end: u64, bytes: &[u8]) -> io::Result<u64>;

    /// Cuts a file to its last complete line and returns that line; nothing if there is no file.
    fn tail(&self, path: &Path) -> io::Result<Tail>;

    /// Moves a file into `folder`, under its own name or, if that is taken, one with `tag` in it. Nothing is
    /// overwritten. Works across file systems. Returns the new path; `None`, and nothing is moved, if the file is gone
    /// or no longer in the state `print`. A power cut may undo the move, but never lose the file, until both folders
    /// are synced.
    fn move_into(&self, path: &Path, print: Fingerprint, folder: &Path, tag: &str) -> io::Result<Option<PathBuf>>;

    /// Deletes a file that is in the state `print`. `false`, and nothing is deleted, if it is gone or changed. A power cut
    /// may undo it until the folder is synced.
    fn remove_unchanged(&self, path: &Path, print: Fingerprint) -> io::Result<bool>;

    /// Makes the names in a folder safe from a power cut.
    fn sync_names(&self, folder: &Path) -> io::Result<()>;

    /// Deletes a file. One that is gone already is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, sorted; none if there is no such folder.
    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Deals with the temporary files that an earlier process left in a folder and in those below it. Returns how many.
    fn clear_leftovers(&self, folder: &Path, fate: Leftover) -> u64;

    /// Room on the file system that holds `path`.
    fn room(&self, path: &Path) -> io::Result<Room>;
}

/// The machine's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl<F: Files> Disk for F {
    fn fingerprint(&self, path: &Path) -> io::Result<Option<Fingerprint>> {
        Ok(match self.stat(path)? {
            Stat::File(print) => Some(print),
            Stat::Folder | Stat::Other => None,
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.stat(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true),
        }
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<(Fingerprint, Vec<u8>)> {
        let mut file = self.open(path, Open::Read)?;
        let before = file.fingerprint()?;
        if before.bytes > bytes_max {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("{} bytes", before.bytes)));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(before.bytes).unwrap_or(0));
        (&mut file).take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "grew beyond the limit while it was read"));
        }
        Ok((file.fingerprint()?, bytes))
    }

    fn write_all_whole(&self, files: &[Whole<'_>]) -> io::Result<()> {
        let mut folders = files.iter().map(|file| parent(file.path)).collect::<io::Result<Vec<_>>>()?;
        folders.sort_unstable();
        folders.dedup();
        // Their names are synced last, with those of the files: whoever waits for a result sees it a sync sooner.
        let mut above = Vec::new();
        folders.iter().try_for_each(|folder| make_unsynced(self, folder, &mut above))?;
        let unwritten: Vec<_> = files.iter().filter(|file| !takes_its_name(self, file)).collect();
        for files in unwritten.chunks(SYNCED_TOGETHER) {
            let placed = files.iter().map(|file| Ok((parent(file.path)?, file.bytes)));
            let mut temporaries = written(self, placed)?;
            for (temporary, file) in temporaries.iter_mut().zip(files) {
                self.rename(&temporary.path, file.path)?;
                temporary.is_kept = true;
            }
        }
        folders.iter().try_for_each(|folder| self.sync_names(folder))?;
        above.sort_unstable();
        above.dedup();
        above.iter().try_for_each(|folder| self.sync_names(folder))
    }

    fn prepare(&self, folder: &Path, contents: &[&[u8]]) -> io::Result<Vec<PathBuf>> {
        let mut prepared = Vec::with_capacity(contents.len());
        let keep = |mut temporary: Temporary<'_>| {
            temporary.is_kept = true;
            temporary.path.clone()
        };
        for contents in contents.chunks(SYNCED_TOGETHER) {
            match written(self, contents.iter().map(|bytes| Ok((folder, *bytes)))) {
                Ok(temporaries) => prepared.extend(temporaries.into_iter().map(keep)),
                Err(error) => {
                    prepared.iter().for_each(|path: &PathBuf| self.discard(path));
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    fn discard(&self, prepared: &Path) {
        // Cleared away after the next start otherwise.
        let _ = self.unlink(prepared);
    }

    fn secure(&self, path: &Path) -> io::Result<()> {
        let folder = parent(path)?;
        // Syncs the folder's own name, too.
        make_folders_on(self, folder)?;
        self.sync_names(folder)
    }

    fn append(&self, path: &Path, end: u64, bytes: &[u8]) -> io::Result<u64> {
        let folder = parent(path)?;
        make_folders_on(self, folder)?;
        let mut file = self.open(path, Open::Edit)?;
        // Somebody else may have cut it, as a rotation of logs does.
        let len = file.fingerprint()?.bytes;
        let end = end.min(len);
        if end < len {
            // Written anew rather than synced again: after a failed sync the system may hold for clean what it never wrote.
            file.cut(end)?;
        }
        file.seek(SeekFrom::Start(end))?;
        file.write_all(bytes)?;
        file.sync()?;
        self.sync_names(folder)?;
        Ok(end + bytes.len() as u64)
    }

    fn tail(&self, path: &Path) -> io::Result<Tail> {
        if !self.exists(path)? {
            return Ok(Tail::default());
        }
        let mut file = self.open(path, Open::Edit)?;
        let len = file.seek(SeekFrom::End(0))?;
        // Lines are far shorter than this; a longer tail cannot be a line of ours.
        let tail_len = len.min(1 << 16);
        file.seek(SeekFrom::Start(len - tail_len))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let complete = tail.iter().rposition(|byte| *byte == b'\n');
        let end = len - tail_len + complete.map_or(0, |at| at as u64 + 1);
        if end < len {
            file.cut(end)?;
        }
        let line = complete.map(|complete| {
            let start = tail[..complete].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            String::from_utf8_lossy(&tail[start..complete]).into_owned()
        });
        Ok(Tail { end, line })
    }

    fn move_into(&self, path: &Path, print: Fingerprint, folder: &Path, tag: &str) -> io::Result<Option<PathBuf>> {
        if !self.exists(folder)? {
            make_folders_on(self, folder)?;
        }
        let Some(aside) = take_aside(self, path, print)? else { return Ok(None) };
        let moved = move_without_overwriting(self, &aside, path, folder, tag);
        if moved.is_err() {
            put_back(self, &aside, path)?;
        }
        moved.map(Some)
    }

    fn remove_unchanged(&self, path: &Path, print: Fingerprint) -> io::Result<bool> {
        let Some(aside) = take_aside(self, path, print)? else { return Ok(false) };
        if let Err(error) = self.unlink(&aside) {
            put_back(self, &aside, path)?;
            return Err(error);
        }
        Ok(true)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.unlink(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_names(parent(path)?),
        }
    }

    fn sync_names(&self, folder: &Path) -> io::Result<()> {
        self.sync_folder(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let listed = match self.list(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let mut names: Vec<OsString> = listed.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn clear_leftovers(&self, folder: &Path, fate: Leftover) -> u64 {
        leftovers::clear(self, folder, fate, 0)
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        self.space(path)
    }
}

/// A file that is on its way to its name, and goes if it does not get there.
struct Temporary<'a> {
    files: &'a dyn Files,
    path: PathBuf,
    file: Box<dyn Handle>,
    /// It has its name, or somebody who will see to it.
    is_kept: bool,
}

impl<'a> Temporary<'a> {
    fn new<F: Files>(files: &'a F, folder: &Path) -> io::Result<Self> {
        loop {
            let path = temporary_path(files, folder);
            match files.open(&path, Open::New) {
                // Left behind by a process of the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
                Ok(file) => return Ok(Temporary { files, path, file, is_kept: false }),
            }
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now is removed after the next start.
            let _ = self.files.unlink(&self.path);
        }
    }
}

/// Synced files with temporary names in these folders, with these contents.
fn written<'a, 'b, F: Files>(
    files: &'a F,
    contents: impl Iterator<Item = io::Result<(&'b Path, &'b [u8])>>,
) -> io::Result<Vec<Temporary<'a>>> {
    let mut temporaries = Vec::new();
    for content in contents {
        let (folder, bytes) = content?;
        let mut temporary = Temporary::new(files, folder)?;
        temporary.file.write_all(bytes)?;
        temporaries.push(temporary);
    }
    let mut handles: Vec<_> = temporaries.iter_mut().map(|temporary| &mut temporary.file).collect();
    files.sync_files(&mut handles)?;
    Ok(temporaries)
}

/// Gives a prepared file its name. Where that cannot be, for whatever reason, the file is written like any other.
fn takes_its_name<F: Files>(files: &F, file: &Whole<'_>) -> bool {
    let Some(prepared) = file.prepared else { return false };
    let is_named = files.rename(prepared, file.path).is_ok();
    if !is_named {
        files.discard(prepared);
    }
    is_named
}

fn temporary_path(files: &dyn Files, folder: &Path) -> PathBuf {
    let (before, after) = TEMPORARY;
    folder.join(format!("{before}{}-{}{after}", files.process(), files.number()))
}

/// Opens a regular file for reading, never following a link and never blocking on a pipe.
fn open_regular(path: &Path) -> io::Result<(File, fs::Metadata)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.file_type().is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, meta))
}

/// A regular file that is read from its beginning, piece by piece, as far as it turns out to be needed.
#[derive(Debug)]
pub struct Beginning {
    file: File,
    /// Size of the whole file.
    pub file_bytes: u64,
    /// What was read so far.
    pub bytes: Vec<u8>,
}

impl Beginning {
    /// Opens a file and reads nothing yet. Links are not followed, pipes do not block.
    ///
    /// # Errors
    /// It cannot be opened or is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, meta) = open_regular(path)?;
        Ok(Beginning { file, file_bytes: meta.size(), bytes: Vec::new() })
    }

    /// Reads on until `n_bytes` are there, or all of the file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn extend_to(&mut self, n_bytes: u64) -> io::Result<()> {
        let missing = n_bytes.min(self.file_bytes).saturating_sub(self.bytes.len() as u64);
        (&mut self.file).take(missing).read_to_end(&mut self.bytes).map(drop)
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a path without a folder"))
}

/// Makes a folder and those above it, each synced into its parent, so that a finished file cannot vanish with its folder.
///
/// # Errors
/// One of them cannot be made or synced.
pub fn make_folders(folder: &Path) -> io::Result<()> {
    make_folders_on(&RealDisk, folder)
}

/// The same on any file system. A folder that is there already is synced all the same: whoever made it may have been
/// cut off before its own sync.
///
/// # Errors
/// One of them cannot be made or synced.
pub fn make_folders_on<F: Files>(files: &F, folder: &Path) -> io::Result<()> {
    let mut above = Vec::new();
    make_unsynced(files, folder, &mut above)?;
    above.iter().try_for_each(|folder| files.sync_names(folder))
}

/// Makes a folder and those above it. The folders that hold their names are added to `above`, outer ones first: the caller
/// syncs them.
fn make_unsynced<F: Files>(files: &F, folder: &Path, above: &mut Vec<PathBuf>) -> io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    match files.make_folder(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_unsynced(files, parent(folder)?, above)?;
            make_one(files.make_folder(folder))?;
        }
        made => make_one(made)?,
    }
    above.extend(folder.parent().map(Path::to_owned));
    Ok(())
}

fn make_one(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes the folder `path` appear with these files, complete and synced, or not at all. One that is there already is
/// [`ErrorKind::AlreadyExists`], and nothing changes.
pub fn write_folder(path: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let above = parent(path)?;
    make_folders(above)?;
    if fs::symlink_metadata(path).is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let temporary = tempfile::Builder::new().prefix(".ichd-").suffix(".tmp").tempdir_in(above)?;
    fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for (name, bytes) in files {
        let mut file = OpenOptions::new().write(true).create_new(true).open(temporary.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    RealDisk.sync_names(temporary.path())?;
    RealDisk.rename_new(temporary.path(), path)?;
    // It has another name now: nothing is left to be cleared away.
    let _ = temporary.keep();
    RealDisk.sync_names(above)
}

/// Takes a file out of everybody's way, under a temporary name beside its own, if it is in the state `print`. Whoever
/// replaces it in this moment keeps what he wrote: the state is looked at again once nobody else knows the name.
fn take_aside<F: Files>(files: &F, path: &Path, print: Fingerprint) -> io::Result<Option<PathBuf>> {
    let is_unchanged = |path: &Path| match files.fingerprint(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        found => Ok::<bool, io::Error>(found? == Some(print)),
    };
    if !is_unchanged(path)? {
        return Ok(None);
    }
    let aside = temporary_path(files, parent(path)?);
    match files.rename_new(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        renamed => renamed?,
    }
    let is_ours = is_unchanged(&aside);
    if !matches!(is_ours, Ok(true)) {
        put_back(files, &aside, path)?;
    }
    Ok(is_ours?.then_some(aside))
}

/// Gives a file its name back. If another one has it by now it stays aside, and is found at the next start.
fn put_back<F: Files>(files: &F, aside: &Path, path: &Path) -> io::Result<()> {
    match files.rename_new(aside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        renamed => renamed,
    }
}

/// Moves what was taken aside into a folder, under the name that it had.
fn move_without_overwriting<F: Files>(
    files: &F,
    aside: &Path,
    path: &Path,
    folder: &Path,
    tag: &str,
) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a path without a name"))?;
    for attempt in 0..1000 {
        let target = folder.join(free_name(name, tag, attempt));
        let moved = match files.rename_new(aside, &target) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => copy_across(files, aside, &target),
            renamed => renamed,
        };
        match moved {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            moved => return moved.map(|()| target),
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "no free name in the folder"))
}

/// The name itself, then `name.tag`, then `name.tag.1` and so on.
fn free_name(name: &OsStr, tag: &str, attempt: u32) -> OsString {
    let mut free = name.to_owned();
    match attempt {
        0 => {}
        1 => free.push(format!(".{tag}")),
        n => free.push(format!(".{tag}.{}", n - 1)),
    }
    free
}

/// Copies a file to another file system and deletes it.
fn copy_across<F: Files>(files: &F, from: &Path, to: &Path) -> io::Result<()> {
    let folder = parent(to)?;
    let mut source = files.open(from, Open::Read)?;
    if is_same_content(files, source.as_mut(), to)? {
        // The copy of an earlier try that was cut off before the deletion, perhaps even before its name was safe.
        files.sync_names(folder)?;
        return files.unlink(from);
    }
    let mut temporary = Temporary::new(files, folder)?;
    source.seek(SeekFrom::Start(0))?;
    io::copy(&mut source, &mut temporary.file)?;
    temporary.file.sync()?;
    files.rename_new(&temporary.path, to)?;
    temporary.is_kept = true;
    files.sync_names(folder)?;
    files.unlink(from)
}

/// Whether a regular file lies at `path` that has the same bytes.
fn is_same_content<F: Files>(files: &F, source: &mut dyn Handle, path: &Path) -> io::Result<bool> {
    if !matches!(files.stat(path), Ok(Stat::File(print)) if print.bytes == source.fingerprint()?.bytes) {
        return Ok(false);
    }
    let mut other = files.open(path, Open::Read)?;
    let (mut ours, mut theirs) = ([0; 1 << 13], [0; 1 << 13]);
    loop {
        let n_ours = source.read(&mut ours)?;
        if n_ours == 0 {
            return Ok(other.read(&mut theirs)? == 0);
        }
        match other.read_exact(&mut theirs[..n_ours]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if ours[..n_ours] != theirs[..n_ours] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests;
