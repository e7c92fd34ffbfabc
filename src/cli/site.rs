//! What several commands do before their work: settings, models, device, folders, ledger.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Common;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::device::{self, Chosen, Want};
use crate::disk::{Files, Open, RealDisk, make_folders};
use crate::error::Fatal;
use crate::kernel_cache::{self, Kept};
use crate::ledger::Ledger;
use crate::patience::{Hope, Trouble};
use crate::pipeline::Site;
use crate::roster::Roster;
use crate::supervisor::Supervisor;

/// The settings that a command line asks for: its file, else ./daemon.yaml if there is one, else the defaults.
pub fn settings(common: &Common) -> Result<Config, Fatal> {
    let usual = Path::new("daemon.yaml");
    let mut config = match &common.config {
        Some(path) => Config::load(path).map_err(Fatal::config)?,
        None if usual.exists() => Config::load(usual).map_err(Fatal::config)?,
        None => Config::default(),
    };
    if let Some(device) = &common.device {
        Want::parse(device).map_err(|error| Fatal::new(crate::error::Exit::Usage, format!("--device: {error}")))?;
        config.device.clone_from(device);
    }
    Ok(config)
}

/// The device that the settings ask for.
pub fn device(config: &Config) -> Result<Chosen, Fatal> {
    device_and_cache(config).map(|(device, _)| device)
}

/// The same, and what becomes of its kernels.
pub fn device_and_cache(config: &Config) -> Result<(Chosen, Kept), Fatal> {
    let want = Want::parse(&config.device).map_err(Fatal::config)?;
    // Before the self-test, which compiles the first ones.
    let kept = kernel_cache::prepare(&config.cache.path, device::signature(want).as_ref());
    let chosen = device::choose(want).map_err(Fatal::config)?;
    tracing::info!("{}", chosen.reason);
    let kept = if chosen.is_cpu() { Kept::NotNeeded } else { kept };
    kept.tell();
    Ok((chosen, kept))
}

/// Holds the site: no other daemon may work on a part of it.
#[derive(Debug)]
pub struct Lock {
    _files: Vec<File>,
}

/// Takes the ledger, the inbox and the results for this process: two daemons with a ledger each would still take each
/// other's files, or write over each other's results.
pub fn lock(config: &Config) -> Result<Lock, Fatal> {
    let path: PathBuf = config.ledger.path.with_extension("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Fatal::config(format!("{}: {error}", path.display())))?;
    hold(&file, "ledger.path", &path)?.map_err(|error| Fatal::config(format!("{}: {error}", path.display())))?;
    let mut files = vec![file];
    for (key, folder) in [("inbox.path", &config.inbox.path), ("results.path", &config.results.path)] {
        // The folder itself is locked: that leaves nothing in it and asks for no right to write. A share may not know such
        // locks, and a folder that cannot be opened yet is waited for; neither is a reason not to start.
        let unlocked = match File::open(folder) {
            Ok(file) => hold(&file, key, folder)?.map(|()| files.push(file)).err().map(Into::into),
            Err(error) => Some(error),
        };
        if let Some(error) = unlocked {
            let folder = folder.display();
            tracing::info!(%folder, %error, "{key} cannot be locked: another daemon on it would not be noticed.");
        }
    }
    Ok(Lock { _files: files })
}

/// Locks a file or folder.
///
/// # Errors
/// Another process has it, which ends this one; within, that it cannot be locked at all.
fn hold(file: &File, key: &str, path: &Path) -> Result<Result<(), Errno>, Fatal> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let process = holder(file).map_or("it".into(), |pid| format!("process {pid}"));
            let path = path.display();
            Err(Fatal::config(format!(
                "another ichd works on this site: {process} holds {key} ({path}); a folder takes one daemon"
            )))
        }
        other => Ok(other),
    }
}

/// The process that has the lock. Nothing if it cannot be seen from here, as in another container.
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino();
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, inode)
}

/// Lines are as `2: FLOCK ADVISORY WRITE 1234 fe:00:131074 0 EOF`. Numbers of devices differ from what files say on some
/// file systems, so only the inode counts; if two processes have locked such ones, neither is named.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    let end = format!(":{inode}");
    let mut pids = locks.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words.as_slice() else { return None };
        pid.parse().ok().filter(|pid| *pid > 0 && file.ends_with(&end))
    });
    let first = pids.next()?;
    pids.all(|pid| pid == first).then_some(first)
}

/// Finds out at the start what would otherwise come out with the first result or refusal. Done inputs are not asked about:
/// one that cannot be moved stays where it is.
fn must_be_writable(key: &str, folder: &Path) -> Result<(), Fatal> {
    let probe = folder.join(format!(".ichd-{}-probe.tmp", RealDisk.process()));
    let tried = RealDisk.open(&probe, Open::New).and_then(|_| RealDisk.unlink(&probe));
    let Err(error) = tried else { return Ok(()) };
    let sentence = format!("{key}: {}: cannot be written to: {error}", folder.display());
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Err(Fatal::config(sentence)),
        // A full disk is waited for.
        _ if error.hope() == Hope::Room => Ok(()),
        _ => Err(Fatal::io(sentence)),
    }
}

/// Makes the folders, takes the site, opens the ledger, loads the models and chooses the device.
pub fn open(config: Config) -> Result<(Site, Lock), Fatal> {
    for (key, folder) in folders(&config) {
        make_folders(&folder).map_err(|error| Fatal::config(format!("{key}: {}: {error}", folder.display())))?;
        if matches!(key, "inbox.rejected_path" | "results.path" | "ledger.path") {
            must_be_writable(key, &folder)?;
        }
    }
    let lock = lock(&config)?;
    let ledger = Ledger::open(&config.ledger.path).map_err(|error| {
        let sentence = format!("{}: {error}", config.ledger.path.display());
        Fatal { sentence, ..Fatal::from(error) }
    })?;
    let roster = roster(&config)?;
    tracing::info!(sha256 = config.digest(), "Settings are read.");
    for route in roster.routing.routes.iter() {
        for member in route.ensemble.members() {
            let (model, sha256) = (format!("{}/{}", member.card.name, member.card.version), &member.card.sha256);
            tracing::info!(route = route.name, model, sha256, "A model is loaded.");
        }
    }
    for route in roster.routing.routes.iter().filter(|route| !route.ensemble.is_trained()) {
        let (route, model) = (&route.name, route.ensemble.label());
        tracing::warn!(route, model, "The model is untrained: its probabilities mean nothing. Every result says so.");
    }
    for route in roster.routing.routes.iter() {
        if route.ensemble.members().iter().any(|member| member.card.is_phantom_only()) {
            let route = &route.name;
            tracing::warn!(
                route,
                "phantom_only knows synthetic heads only: on patients its probabilities mean nothing."
            );
        }
    }
    let device = device(&config)?;
    let site = Site {
        config,
        clock: Arc::new(SystemClock::new()),
        disk: Arc::new(RealDisk),
        ledger: Arc::new(ledger),
        roster,
        device,
        supervisor: Arc::new(Supervisor::of_environment()),
    };
    Ok((site, lock))
}

/// Every model that the settings name.
pub fn roster(config: &Config) -> Result<Roster, Fatal> {
    Roster::load(config).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Fatal::config(lines.join("\n"))
    })
}

/// Folders that the daemon writes to, by key.
pub fn folders(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let ledger = config.ledger.path.parent().map(Path::to_owned).unwrap_or_default();
    vec![
        ("inbox.path", config.inbox.path.clone()),
        ("inbox.done_path", config.inbox.done_path.clone()),
        ("inbox.rejected_path", config.inbox.rejected_path.clone()),
        ("results.path", config.results.path.clone()),
        ("ledger.path", ledger),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_told_if_there_is_no_doubt() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:42 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 fe:00:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 14 fe:00:142 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 15 00:1f:142 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 0 00:1f:7 0 EOF\n";
        assert_eq!(holder_in(locks, 42), Some(12));
        assert_eq!(holder_in(locks, 142), None, "two file systems, the same inode");
        assert_eq!((holder_in(locks, 7), holder_in(locks, 2)), (None, None));
    }
}
