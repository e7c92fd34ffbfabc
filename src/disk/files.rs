//! The system calls on files that the daemon needs, and no more: the seam below which tests put a faulty file system.
//! Knows no rule about when what is safe; that is [`Disk`](super::Disk), which is written in terms of these.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::{Fingerprint, RealDisk, Room};

/// Threads that wait for the disk at the same time.
const SYNC_THREADS: usize = 8;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To be read: a regular file, never through a link, never blocking on a pipe.
    Read,
    /// To be written: it must not exist yet.
    New,
    /// To be read and written: it is made if it is missing.
    Edit,
}

/// What lies under a name, told without following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// A regular file.
    File(Fingerprint),
    /// A folder.
    Folder,
    /// A link, pipe, socket or device.
    Other,
}

/// An open file.
pub trait Handle: Read + Write + Seek + Send {
    /// Its state now.
    fn fingerprint(&self) -> io::Result<Fingerprint>;
    /// Cuts it to this size.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
    /// Returns once its content is safe from a power cut; its name may not be.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file system. Each method is one step of the system: a crash may come between any two.
pub trait Files: Send + Sync {
    /// What lies at `path`.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn Handle>>;
    /// Makes a folder in one that exists.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Returns once the names in a folder are safe from a power cut.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Returns once the contents of all these files are safe. Here one after the other.
    fn sync_files(&self, files: &mut [&mut Box<dyn Handle>]) -> io::Result<()> {
        files.iter_mut().try_for_each(|file| file.sync())
    }
    /// Gives a file another name; what had that name is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file another name, or [`ErrorKind::AlreadyExists`].
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, in no order, and whether each is a folder itself.
    fn list(&self, folder: &Path) -> io::Result<Vec<(OsString, bool)>>;
    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Room>;
    /// Letters that no other process has, for the names of temporary files.
    fn process(&self) -> String;
    /// A number that this process has not had before.
    fn number(&self) -> u64;
}

impl Handle for File {
    fn fingerprint(&self) -> io::Result<Fingerprint> {
        Ok(Fingerprint::of(&self.metadata()?))
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Files for RealDisk {
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        Ok(match (kind.is_file(), kind.is_dir()) {
            (true, _) => Stat::File(Fingerprint::of(&meta)),
            (_, true) => Stat::Folder,
            _ => Stat::Other,
        })
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn Handle>> {
        let mut options = OpenOptions::new();
        match how {
            Open::Read => return Ok(Box::new(super::open_regular(path)?.0)),
            Open::New => options.write(true).create_new(true).mode(0o644),
            Open::Edit => options.read(true).write(true).create(true).truncate(false).mode(0o644),
        };
        options.custom_flags((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits() as i32);
        Ok(Box::new(options.open(path)?))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Side by side: a disk takes hardly longer for several than for one, and a journal commits them together.
    fn sync_files(&self, files: &mut [&mut Box<dyn Handle>]) -> io::Result<()> {
        if let [file] = files {
            return file.sync();
        }
        let per_thread = files.len().div_ceil(SYNC_THREADS).max(1);
        std::thread::scope(|scope| {
            let sync = |files: &mut [&mut Box<dyn Handle>]| files.iter_mut().try_for_each(|file| file.sync());
            let mut threads = Vec::new();
            for files in files.chunks_mut(per_thread) {
                threads.push(std::thread::Builder::new().spawn_scoped(scope, move || sync(files))?);
            }
            let ended = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that syncs files panicked")))
            });
            // All are waited for before the first error is told.
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
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

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(OsString, bool)>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok((entry.file_name(), entry.file_type()?.is_dir()))
        };
        fs::read_dir(folder)?.map(entry).collect()
    }

    fn space(&self, path: &Path) -> io::Result<Room> {
        let stat = rustix::fs::statvfs(path)?;
        // File systems that make inodes as they need them say that there are none at all.
        let files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        Ok(Room { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), files })
    }

    fn process(&self) -> String {
        // A process's number alone comes again, in a container at each start.
        static PROCESS: LazyLock<String> = LazyLock::new(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("{}-{:x}", std::process::id(), since.as_nanos())
        });
        PROCESS.clone()
    }

    fn number(&self) -> u64 {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        NUMBER.fetch_add(1, Ordering::Relaxed)
    }
}
