//! watch: file events and scans become sightings. Knows no content and decides nothing.
//!
//! Events are hints: they may be lost, repeated or wrong. The scan is the truth and alone suffices.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::config::{Inbox, Watch};
use crate::error::Fatal;
use crate::limits::INBOX_DEPTH_MAX;
use crate::parcel::Sighting;
use crate::stage::Stop;

/// How often the wish to stop and a call for a scan are looked at.
const STEP: Duration = Duration::from_millis(50);

/// Whether a name says that the file waits for its rename.
pub fn is_unfinished_name(path: &Path) -> bool {
    let Some(name) = path.file_name() else { return true };
    let name = name.as_encoded_bytes();
    name.starts_with(b".") || [&b".tmp"[..], b".part", b".partial", b"~"].iter().any(|end| name.ends_with(end))
}

/// The thread: scans now and every `scan_secs`, and forwards events in between.
///
/// # Errors
/// None at present: an inbox that cannot be read is reported and tried again.
pub fn run(inbox: &Inbox, sightings: &Sender<Sighting>, stop: &Stop) -> Result<(), Fatal> {
    let (alarm, mut complaints) = (Arc::new(Alarm::default()), Complaints::default());
    let mut events = None;
    while !stop.is_wished() {
        if alarm.deaf.swap(false, Ordering::SeqCst) {
            // Made anew it hears all folders or says that it cannot.
            events = None;
        }
        if inbox.watch == Watch::Events && needs_watcher(&events, &inbox.path) {
            let (made, trouble) = start_events(&inbox.path, sightings, &alarm);
            events = made;
            complaints.about_events(&inbox.path, trouble.as_ref());
            if sightings.send(Sighting::Hearing(events.is_some())).is_err() {
                return Ok(());
            }
        }
        if alarm.overflow.swap(false, Ordering::SeqCst) {
            tracing::info!("More file events came than could be kept; a scan makes up for it.");
            if sightings.send(Sighting::Missed).is_err() {
                return Ok(());
            }
        }
        let mut walk = Walk { sightings, stop, trouble: None, unread: Vec::new() };
        let was_read = match walk.folder(&inbox.path, 0) {
            Err(Ended) => return Ok(()),
            Ok(was_read) => was_read,
        };
        complaints.about_scan(&inbox.path, walk.trouble.as_ref());
        if was_read {
            let end = if walk.unread.is_empty() { Sighting::ScanEnd } else { Sighting::ScanPart(walk.unread) };
            if sightings.send(end).is_err() {
                return Ok(());
            }
        }
        let mut waited = Duration::ZERO;
        while waited < Duration::from_secs(inbox.scan_secs) && !stop.is_wished() && !alarm.is_raised() {
            std::thread::sleep(STEP);
            waited += STEP;
        }
    }
    Ok(())
}

/// What the thread of the events has to tell.
#[derive(Debug, Default)]
struct Alarm {
    /// Events were lost.
    overflow: AtomicBool,
    /// A folder came for which the system has no watch left: nothing will be heard of it.
    deaf: AtomicBool,
}

impl Alarm {
    fn is_raised(&self) -> bool {
        self.overflow.load(Ordering::SeqCst) || self.deaf.load(Ordering::SeqCst)
    }
}

/// What was complained about already: the same trouble at every scan is told once, and its end.
#[derive(Default)]
struct Complaints {
    no_events: bool,
    no_scan: Option<PathBuf>,
}

impl Complaints {
    fn about_events(&mut self, inbox: &Path, trouble: Option<&notify::Error>) {
        let inbox = inbox.display();
        match trouble {
            Some(error) if !self.no_events => {
                let error = cause(error);
                tracing::warn!(%inbox, %error, "No file events for the inbox; scans alone serve. For many folders raise fs.inotify.max_user_watches.");
            }
            None if self.no_events => tracing::info!(%inbox, "File events come again."),
            _ => {}
        }
        self.no_events = trouble.is_some();
    }

    fn about_scan(&mut self, inbox: &Path, trouble: Option<&(PathBuf, std::io::Error)>) {
        let folder = trouble.map(|(folder, _)| folder.clone());
        if folder == self.no_scan {
            return;
        }
        match trouble {
            Some((folder, error)) if folder == inbox => {
                tracing::warn!(inbox = %inbox.display(), %error, "The inbox cannot be read; it is tried again at every scan.");
            }
            // Without its name, which may be a patient's.
            Some((_, error)) => {
                tracing::warn!(inbox = %inbox.display(), %error, "A folder in the inbox cannot be read; it is tried again at every scan.");
            }
            None => tracing::info!(inbox = %inbox.display(), "The whole inbox can be read again."),
        }
        self.no_scan = folder;
    }
}

/// Why there are no events. Not where: that is a folder in the inbox, whose name may be a patient's.
fn cause(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => "the system has no watch left".into(),
        notify::ErrorKind::PathNotFound => "a folder is gone".into(),
        notify::ErrorKind::Io(error) => match error.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code).to_string(),
            None => error.kind().to_string(),
        },
        // Whatever else it says was made at run time and may quote a path.
        _ => "the watcher failed".into(),
    }
}

/// A watcher and the folder it was made for.
struct Events {
    _watcher: RecommendedWatcher,
    folder: (u64, u64),
}

/// Device and inode: another file system mounted in the inbox's place may have the same inode.
fn identity(folder: &Path) -> Option<(u64, u64)> {
    fs::metadata(folder).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A replaced inbox needs a new watcher: the old one looks at the old folder.
fn needs_watcher(events: &Option<Events>, inbox: &Path) -> bool {
    let Some(folder) = identity(inbox) else { return false };
    events.as_ref().is_none_or(|events| events.folder != folder)
}

fn start_events(
    inbox: &Path,
    sightings: &Sender<Sighting>,
    alarm: &Arc<Alarm>,
) -> (Option<Events>, Option<notify::Error>) {
    let Some(folder) = identity(inbox) else { return (None, None) };
    let (sightings, alarm) = (sightings.clone(), Arc::clone(alarm));
    let forward = move |event: Result<Event, notify::Error>| match event {
        Ok(event) => forward_event(event, &sightings, &alarm.overflow),
        Err(error) if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) => {
            alarm.deaf.store(true, Ordering::SeqCst)
        }
        Err(_) => alarm.overflow.store(true, Ordering::SeqCst),
    };
    let watcher = notify::recommended_watcher(forward)
        .and_then(|mut watcher| watcher.watch(inbox, RecursiveMode::Recursive).map(|()| watcher));
    match watcher {
        Ok(watcher) => (Some(Events { _watcher: watcher, folder }), None),
        Err(error) => (None, Some(error)),
    }
}

fn forward_event(event: Event, sightings: &Sender<Sighting>, overflow: &AtomicBool) {
    if event.need_rescan() {
        overflow.store(true, Ordering::SeqCst);
    }
    let make: fn(PathBuf) -> Sighting = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Name(_)) => {
            Sighting::Closed
        }
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => Sighting::Touched,
        _ => return,
    };
    for path in event.paths {
        if is_unfinished_name(&path) {
            continue;
        }
        // The event thread must not wait: a full channel is made good by a scan.
        if let Err(TrySendError::Full(_)) = sightings.try_send(make(path)) {
            overflow.store(true, Ordering::SeqCst);
        }
    }
}

/// The receiver is gone or the daemon stops.
struct Ended;

struct Walk<'a> {
    sightings: &'a Sender<Sighting>,
    stop: &'a Stop,
    /// The first folder that could not be read.
    trouble: Option<(PathBuf, std::io::Error)>,
    /// All of them.
    unread: Vec<PathBuf>,
}

impl Walk<'_> {
    fn cannot_read(&mut self, folder: &Path, error: std::io::Error) {
        self.unread.push(folder.to_owned());
        self.trouble.get_or_insert((folder.to_owned(), error));
    }

    /// Sends every candidate below `folder`. `Ok(false)` if the folder itself could not be read.
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<bool, Ended> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                // A folder below that went away in between is no trouble.
                if depth == 0 || error.kind() != ErrorKind::NotFound {
                    self.cannot_read(folder, error);
                }
                return Ok(false);
            }
        };
        for entry in entries {
            if self.stop.is_wished() {
                return Err(Ended);
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.cannot_read(folder, error);
                    return Ok(true);
                }
            };
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                if !is_hidden(&entry) && depth < INBOX_DEPTH_MAX {
                    self.folder(&path, depth + 1)?;
                }
            } else if kind.is_file() && !is_unfinished_name(&path) {
                self.sightings.send(Sighting::Scanned(path)).map_err(|_| Ended)?;
            }
        }
        Ok(true)
    }
}

fn is_hidden(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// All regular files at or below `path` in a stable order, for one-shot work. Links are not followed, hidden folders and
/// files with unfinished names are left out, as in the inbox.
///
/// # Errors
/// `path` itself or a folder below it cannot be read.
pub fn list_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![(path.to_owned(), 0)];
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !is_hidden(&entry) && depth < INBOX_DEPTH_MAX {
                    folders.push((entry.path(), depth + 1));
                }
            } else if kind.is_file() && !is_unfinished_name(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_names_wait_for_their_rename() {
        for name in [".hidden.dcm", "a.tmp", "a.part", "a.partial", "a.dcm~", "/x/.ichd-1.tmp"] {
            assert!(is_unfinished_name(Path::new(name)), "{name}");
        }
        for name in ["a.dcm", "IM0001", "a.parts", "tmp", "x.tmp/a"] {
            assert!(!is_unfinished_name(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn why_there_are_no_events_is_told_without_a_path() {
        let quoting = std::io::Error::other("cannot watch /in/DOE^JOHN");
        let errors = [
            notify::Error::new(notify::ErrorKind::MaxFilesWatch),
            notify::Error::path_not_found(),
            notify::Error::io(rustix::io::Errno::ACCESS.into()),
            notify::Error::io(quoting),
            notify::Error::generic("inotify: /in/DOE^JOHN"),
        ];
        let said = errors.map(|error| cause(&error.add_path("/in/DOE^JOHN".into())));
        assert!(said.iter().all(|cause| !cause.is_empty() && !cause.contains("DOE")), "{said:?}");
        assert!(said[2].contains("Permission denied"), "{said:?}");
    }
}
