//! The only place that opens files for writing. Knows no DICOM and no results, only paths and bytes.
//!
//! Everything goes through the [`Disk`] trait, so that tests can put a faulty disk in its place.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

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

/// The file operations that the daemon needs.
pub trait Disk: Send + Sync {
    /// The fingerprint of a regular file; `None` for anything else: links, folders, pipes, devices.
    fn fingerprint(&self, path: &Path) -> io::Result<Option<Fingerprint>>;

    /// Reads a regular file of at most `bytes_max`, never following a link and never blocking on a pipe.
    /// Returns the fingerprint of what was read.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<(Fingerprint, Vec<u8>)>;

    /// Makes `path` appear with these bytes, complete and synced, or not at all. Missing folders are made.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Appends bytes to a file, which is made if it is missing, and syncs it.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Moves a file into `folder`, under its own name or, if that is taken, one with `tag` in it. Nothing is
    /// overwritten. Works across file systems. Returns the new path.
    fn move_into(&self, path: &Path, folder: &Path, tag: &str) -> io::Result<PathBuf>;

    /// Deletes a file. One that is gone already is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Cuts a file to its last complete line and returns that line; `None` if there is no file or no line.
    fn last_line(&self, path: &Path) -> io::Result<Option<String>>;
}

/// The machine's file systems.
#[derive(Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn fingerprint(&self, path: &Path) -> io::Result<Option<Fingerprint>> {
        let meta = fs::symlink_metadata(path)?;
        Ok(meta.file_type().is_file().then(|| Fingerprint::of(&meta)))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<(Fingerprint, Vec<u8>)> {
        let (file, meta) = open_regular(path)?;
        if meta.size() > bytes_max {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("{} bytes", meta.size())));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.size()).unwrap_or(0));
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "grew beyond the limit while it was read"));
        }
        Ok((Fingerprint::of(&meta), bytes))
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = parent(path)?;
        make_folders(folder)?;
        let mut temporary = tempfile::Builder::new().prefix(".ichd-").suffix(".tmp").tempfile_in(folder)?;
        temporary.write_all(bytes)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temporary.as_file().set_permissions(mode)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|failure| failure.error)?;
        sync_folder(folder)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = parent(path)?;
        make_folders(folder)?;
        let is_new = !path.exists();
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        if is_new { sync_folder(folder) } else { Ok(()) }
    }

    fn move_into(&self, path: &Path, folder: &Path, tag: &str) -> io::Result<PathBuf> {
        make_folders(folder)?;
        let from = parent(path)?;
        let target = move_without_overwriting(path, folder, tag)?;
        sync_folder(folder)?;
        sync_folder(from)?;
        Ok(target)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_folder(parent(path)?),
        }
    }

    fn last_line(&self, path: &Path) -> io::Result<Option<String>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = file.seek(SeekFrom::End(0))?;
        // Lines are far shorter than this; a longer tail cannot be a line of ours.
        let tail_len = len.min(1 << 16);
        file.seek(SeekFrom::Start(len - tail_len))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
            file.set_len(len - tail_len)?;
            return Ok(None);
        };
        file.set_len(len - tail_len + end as u64 + 1)?;
        let start = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(Some(String::from_utf8_lossy(&tail[start..end]).into_owned()))
    }
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
pub fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folders(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
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
    sync_folder(temporary.path())?;
    rename_no_replace(temporary.path(), path)?;
    // It has another name now: nothing is left to be cleared away.
    let _ = temporary.keep();
    sync_folder(above)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

fn move_without_overwriting(path: &Path, folder: &Path, tag: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a path without a name"))?;
    for attempt in 0..1000 {
        let target = folder.join(free_name(name, tag, attempt));
        match rename_no_replace(path, &target) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                copy_across(path, &target)?;
                return Ok(target);
            }
            Err(error) => return Err(error),
            Ok(()) => return Ok(target),
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "no free name in the folder"))
}

/// The name itself, then `name.tag`, then `name.tag.1` and so on.
fn free_name(name: &std::ffi::OsStr, tag: &str, attempt: u32) -> OsString {
    let mut free = name.to_owned();
    match attempt {
        0 => {}
        1 => free.push(format!(".{tag}")),
        n => free.push(format!(".{tag}.{}", n - 1)),
    }
    free
}

fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems do not know the flag.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

fn copy_across(from: &Path, to: &Path) -> io::Result<()> {
    let folder = parent(to)?;
    let mut temporary = tempfile::Builder::new().prefix(".ichd-").suffix(".tmp").tempfile_in(folder)?;
    io::copy(&mut File::open(from)?, temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    temporary.persist_noclobber(to).map_err(|failure| failure.error)?;
    sync_folder(folder)?;
    fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_never_overwrites() {
        let site = tempfile::tempdir().unwrap();
        let done = site.path().join("done");
        for text in ["first", "second", "third"] {
            let path = site.path().join("a.dcm");
            fs::write(&path, text).unwrap();
            RealDisk.move_into(&path, &done, "x").unwrap();
            assert!(!path.exists());
        }
        let read = |name: &str| fs::read_to_string(done.join(name)).unwrap();
        assert_eq!(
            (read("a.dcm"), read("a.dcm.x"), read("a.dcm.x.1")),
            ("first".into(), "second".into(), "third".into())
        );
    }

    #[test]
    fn links_pipes_and_large_files_are_not_read() {
        let site = tempfile::tempdir().unwrap();
        let file = site.path().join("file");
        fs::write(&file, "12345").unwrap();
        let link = site.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let pipe = site.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(RealDisk.fingerprint(&link).unwrap(), None);
        assert_eq!(RealDisk.fingerprint(&pipe).unwrap(), None);
        assert!(RealDisk.read(&link, 10).is_err());
        assert!(RealDisk.read(&pipe, 10).is_err());
        assert!(RealDisk.read(site.path(), 10).is_err());
        assert_eq!(RealDisk.read(&file, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(RealDisk.read(&file, 5).unwrap().1, b"12345");
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let site = tempfile::tempdir().unwrap();
        let log = site.path().join("deep/er/log.jsonl");
        assert_eq!(RealDisk.last_line(&log).unwrap(), None);
        RealDisk.append(&log, b"one\ntwo\nthr").unwrap();
        assert_eq!(RealDisk.last_line(&log).unwrap().as_deref(), Some("two"));
        RealDisk.append(&log, b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_folder_appears_whole_and_is_never_replaced() {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().join("model/1");
        write_folder(&path, &[("a", b"1"), ("b", b"2")]).unwrap();
        assert_eq!(
            (fs::read(path.join("a")).unwrap(), fs::read(path.join("b")).unwrap()),
            (b"1".to_vec(), b"2".to_vec())
        );
        let error = write_folder(&path, &[("a", b"3")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
        assert!(write_folder(&site.path().join("model/2"), &[("no/such", b"")]).is_err());
        assert_eq!(fs::read_dir(site.path().join("model")).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn whole_files_replace_and_leave_nothing_behind() {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().join("study/a.json");
        RealDisk.write_whole(&path, b"1").unwrap();
        RealDisk.write_whole(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        assert_eq!(fs::read_dir(site.path().join("study")).unwrap().count(), 1);
    }
}
