//! Where compiled kernels, and the choices among them that were measured on a GPU, are kept between starts. Knows no model.
//!
//! One SQLite file for each program version, device, driver and compiler: what another of them left is never looked at. The
//! tensor library writes it. It may be deleted at any time, and whatever is wrong with it costs time at the start and
//! nothing else.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::disk::{Files, Open, RealDisk};

/// What a file of kernels holds good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The device's name, as `NVIDIA H200`.
    pub device: String,
    /// The versions of its driver and of the compiler of its kernels, as `driver 13000 nvrtc 13.2`.
    pub driver: String,
}

impl Signature {
    /// The name of its file without the ending, for this version of the program.
    pub fn name(&self) -> String {
        let words = format!("ichd-{}-{}-{}", env!("CARGO_PKG_VERSION"), self.device, self.driver);
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
        words.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
    }
}

/// What becomes of the kernels of this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The device compiles none.
    NotNeeded,
    /// The file holds so many entries from earlier starts; it gets those that are missing.
    Yes {
        /// The file.
        file: PathBuf,
        /// Kernels and choices in it; 0 if it is yet to be made.
        entries: u64,
    },
    /// They are compiled at every start.
    No {
        /// Why, and what would help.
        reason: String,
    },
}

impl Kept {
    /// Says it in the log: that nothing is kept is a warning, as it costs every start minutes.
    pub fn tell(&self) {
        match self {
            Kept::NotNeeded => {}
            Kept::No { .. } => tracing::warn!("{self}"),
            Kept::Yes { .. } => tracing::info!("{self}"),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::NotNeeded => write!(f, "This device compiles no kernels: nothing needs keeping."),
            Kept::Yes { file, entries: 0 } => {
                write!(f, "Kernels are compiled and chosen at this start, and kept in {}.", file.display())
            }
            Kept::Yes { file, entries } => {
                write!(f, "Kernels of earlier starts are used: {entries} entries in {}.", file.display())
            }
            Kept::No { reason } => write!(f, "Kernels are compiled at every start: {reason}."),
        }
    }
}

/// Gets the file in `folder` ready: the folder is made, what is damaged is deleted. Nothing that goes wrong is an error.
pub fn open(folder: &Path, signature: &Signature) -> Kept {
    let file = folder.join(format!("{}.db", signature.name()));
    match make_usable(folder, &file) {
        Ok(entries) => Kept::Yes { file, entries },
        Err(error) => Kept::No { reason: format!("cache.path: {} cannot be used ({error})", folder.display()) },
    }
}

/// The number of entries in a file that can be used, or 0 if there is none yet.
fn make_usable(folder: &Path, file: &Path) -> io::Result<u64> {
    fs::create_dir_all(folder)?;
    let probe = folder.join(format!(".ichd-{}-probe.tmp", RealDisk.process()));
    RealDisk.open(&probe, Open::New).and_then(|_| RealDisk.unlink(&probe))?;
    if !file.try_exists()? {
        // What is left of a file that somebody deleted would be taken for the end of the new one.
        remove(file)?;
        return Ok(0);
    }
    match entries(file) {
        Ok(entries) => Ok(entries),
        // What is only locked by another process, or cannot be read now, is left alone.
        Err(error) if !is_damage(&error) => Err(io::Error::other(error)),
        Err(error) => {
            let file_name = file.display();
            tracing::warn!(file = %file_name, %error, "The file of compiled kernels is damaged; it is deleted and made anew.");
            remove(file)?;
            Ok(0)
        }
    }
}

/// Counts what a file holds, after a look at the whole of it: it has some megabytes.
///
/// # Errors
/// It is damaged, or no such file.
pub fn entries(file: &Path) -> rusqlite::Result<u64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
    }
    let has_table = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'entries'";
    if connection.query_row(has_table, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(0);
    }
    let count: i64 = connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn remove(file: &Path) -> io::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Gets ready for the device of this signature and tells the tensor library. To be called once, before anything is computed
/// on a GPU.
pub fn prepare(folder: &Path, signature: Option<&Signature>) -> Kept {
    let Some(signature) = signature else { return Kept::NotNeeded };
    if !cfg!(feature = "kernel-cache") {
        return Kept::No { reason: "this program was built without the feature `kernel-cache`".into() };
    }
    let kept = open(folder, signature);
    if !tell_library(folder, &signature.name()) {
        return Kept::No { reason: "the tensor library was at work before it was told where; this is a bug".into() };
    }
    kept
}

/// For programs that look and measure: the tensor library compiles and chooses all kernels anew, and leaves nothing behind.
/// To be called once, before anything is computed on a GPU; afterwards it changes nothing.
pub fn keep_nothing() {
    #[cfg(feature = "kernel-cache")]
    library::configure(|config| {
        config.compilation.cache = false;
        config.autotune.disable_cache = true;
        config.throughput.disable_cache = true;
    });
}

/// A folder that cannot be written makes the library keep its kernels in memory.
#[cfg(feature = "kernel-cache")]
fn tell_library(folder: &Path, name: &str) -> bool {
    use cubecl::config::cache::CacheConfig;

    library::configure(|config| {
        config.environment.name = name.to_owned();
        config.environment.path = CacheConfig::Directory(folder.to_owned());
        config.compilation.cache = true;
        config.autotune.disable_cache = false;
    })
}

#[cfg(not(feature = "kernel-cache"))]
fn tell_library(_folder: &Path, _name: &str) -> bool {
    false
}

/// The library's settings. Its own defaults would be a folder beside the sources, or in somebody's home.
#[cfg(feature = "kernel-cache")]
mod library {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    /// Whether they could still be changed.
    pub fn configure(change: impl FnOnce(&mut CubeClRuntimeConfig)) -> bool {
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        change(&mut config);
        CubeClRuntimeConfig::try_set(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(device: &str, driver: &str) -> Signature {
        Signature { device: device.into(), driver: driver.into() }
    }

    fn write_entries(file: &Path, count: usize) {
        let connection = Connection::open(file).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE entries (key BLOB, value BLOB)").unwrap();
        for _ in 0..count {
            connection.execute("INSERT INTO entries VALUES (randomblob(9), randomblob(3000))", []).unwrap();
        }
    }

    #[test]
    fn what_another_device_driver_or_version_left_is_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let ours = signature("NVIDIA H200", "driver 13000 nvrtc 13.2");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(ours.name(), format!("ichd-{version}-NVIDIA_H200-driver_13000_nvrtc_13.2"));
        let Kept::Yes { file, entries: 0 } = open(folder.path(), &ours) else { panic!("it can be used") };
        write_entries(&file, 3);
        assert_eq!(open(folder.path(), &ours), Kept::Yes { file: file.clone(), entries: 3 });
        for other in [signature("NVIDIA H100", &ours.driver), signature(&ours.device, "driver 13010 nvrtc 13.2")] {
            let Kept::Yes { file: found, entries } = open(folder.path(), &other) else { panic!("it can be used") };
            assert!(entries == 0 && found != file);
        }
        // A name that tries to leave the folder stays in it.
        let Kept::Yes { file, .. } = open(folder.path(), &signature("../../x", "/")) else { panic!("it can be used") };
        assert_eq!(file.parent(), Some(folder.path()));
    }

    #[test]
    fn a_damaged_file_is_made_anew_and_a_folder_that_cannot_be_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let ours = signature("x", "y");
        let file = folder.path().join(format!("{}.db", ours.name()));
        write_entries(&file, 30);
        let whole = fs::read(&file).unwrap();
        let broken = [whole[..whole.len() / 2].to_vec(), vec![0xa5; 9000], {
            let mut bytes = whole.clone();
            bytes[4096..5000].fill(0xff);
            bytes
        }];
        for bytes in broken {
            fs::write(&file, bytes).unwrap();
            assert_eq!(open(folder.path(), &ours), Kept::Yes { file: file.clone(), entries: 0 });
            assert!(!file.exists());
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(open(folder.path(), &ours), Kept::Yes { file: file.clone(), entries: 30 });
        // What cannot be opened is not damaged for that.
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(open(folder.path(), &ours), Kept::No { .. }) && file.is_dir());

        let blocked = folder.path().join("blocked");
        fs::write(&blocked, "a file, no folder").unwrap();
        let kept = open(&blocked.join("kernels"), &ours);
        assert!(matches!(&kept, Kept::No { reason } if reason.contains("cache.path") && reason.contains("blocked")));
        assert!(kept.to_string().starts_with("Kernels are compiled at every start: "), "{kept}");
    }

    #[test]
    fn a_cpu_keeps_nothing_and_makes_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels");
        assert_eq!(prepare(&path, None), Kept::NotNeeded);
        assert!(!path.exists());
    }
}
