//! A file system in memory with a page cache, below the daemon's own disk: what was not synced may be lost, torn or kept
//! at a power cut. After a failed sync the system holds the bytes for clean: a second sync does nothing.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ichd::disk::{Files, Fingerprint, Handle, Open, Room, Stat};

use super::chaos::{Chaos, End, Op, Rng, eio};
use super::clock::SimClock;
use super::platters::{Change, FileNode, FolderNode, Node, Platters, Replaced};

/// The file system; clones are the same one.
#[derive(Clone)]
pub struct SimFiles {
    pub chaos: Arc<Chaos>,
    pub clock: Arc<SimClock>,
    platters: Arc<Mutex<Platters>>,
    /// Whether the folders for inputs that are done with lie on another file system.
    is_split: bool,
    /// Mutation: syncing a file or a folder does nothing.
    pub skip_file_sync: bool,
    pub skip_folder_sync: bool,
}

impl SimFiles {
    pub fn new(chaos: Arc<Chaos>, clock: Arc<SimClock>, capacity: u64, is_split: bool) -> SimFiles {
        let platters = Platters::new(capacity);
        let platters = Arc::new(Mutex::new(platters));
        SimFiles { chaos, clock, platters, is_split, skip_file_sync: false, skip_folder_sync: false }
    }

    pub fn platters(&self) -> MutexGuard<'_, Platters> {
        self.platters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before each step of the daemon: it may die here, senders may act, the disk may fail.
    fn step(&self, op: Op) -> io::Result<MutexGuard<'_, Platters>> {
        if !self.chaos.step() {
            return Err(io::Error::other("the process is dead"));
        }
        let (slow, result) = self.chaos.disk(op);
        self.clock.advance(slow);
        self.act();
        result?;
        Ok(self.platters())
    }

    /// Lets senders do what is due.
    pub fn act(&self) {
        loop {
            let (now, steps) = (self.clock.millis(), self.chaos.steps());
            let due = {
                let mut platters = self.platters();
                if platters.hog_until <= now {
                    platters.hog = 0;
                }
                let due = platters.deeds.iter().enumerate().filter(|(_, deed)| deed.at <= now && deed.at_step <= steps);
                let first = due.min_by_key(|(_, deed)| deed.at).map(|(at, _)| at);
                first.and_then(|at| platters.deeds.remove(at))
            };
            let Some(deed) = due else { return };
            deed.act(self);
        }
    }

    pub fn power_cut(&self, rng: &mut Rng) {
        self.platters().power_cut(rng);
    }

    pub fn new_process(&self) {
        self.platters().n_processes += 1;
    }

    /// Takes room away, or gives it back.
    pub fn set_hog(&self, free: Option<u64>) {
        let mut platters = self.platters();
        platters.hog = 0;
        if let Some(free) = free {
            platters.hog = platters.free().saturating_sub(free);
        }
    }

    // What follows is not the daemon's doing: it cannot fail.

    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let mut platters = self.platters();
        let inode = platters.inode(path).ok()?;
        platters.file(inode).ok().map(|file| file.data.clone())
    }

    pub fn print(&self, path: &Path) -> Option<Fingerprint> {
        let mut platters = self.platters();
        let inode = platters.inode(path).ok()?;
        let file = platters.file(inode).ok()?;
        Some(Fingerprint { inode, bytes: file.data.len() as u64, mtime_ns: file.mtime_ns })
    }

    /// A sender makes or replaces a file, and syncs it.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mtime_ns = self.clock.mtime_ns();
        let file = FileNode { data: bytes.to_vec(), safe: bytes.to_vec(), is_dirty: false, mtime_ns };
        let mut platters = self.platters();
        let (folder, name) = platters.place(path).unwrap();
        platters.n_inodes += 1;
        let inode = platters.n_inodes;
        platters.nodes.insert(inode, Node::File(file));
        platters.change(folder, Change::Link { name, inode }).unwrap();
        platters.sync_folder(folder).unwrap();
    }

    /// A sender writes into a file that is there, and syncs it.
    pub fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mtime_ns = self.clock.mtime_ns();
        let mut platters = self.platters();
        let Ok(inode) = platters.inode(path) else { return false };
        let Ok(file) = platters.file(inode) else { return false };
        edit(&mut file.data);
        file.safe = file.data.clone();
        file.mtime_ns = mtime_ns;
        true
    }

    pub fn sender_rename(&self, from: &Path, to: &Path) -> bool {
        let mut platters = self.platters();
        let done = platters.rename(from, to).is_ok();
        for path in [from, to] {
            let folder = platters.inode(path.parent().unwrap()).unwrap();
            platters.sync_folder(folder).unwrap();
        }
        done
    }

    pub fn sender_unlink(&self, path: &Path) -> bool {
        let mut platters = self.platters();
        let Ok(inode) = platters.inode(path) else { return false };
        let (folder, name) = platters.place(path).unwrap();
        platters.change(folder, Change::Unlink { name, inode, needs: None }).unwrap();
        platters.sync_folder(folder).unwrap();
        true
    }

    /// All files below a folder.
    pub fn tree(&self, folder: &Path) -> Vec<PathBuf> {
        fn walk(platters: &mut Platters, inode: u64, path: &Path, found: &mut Vec<PathBuf>) {
            let Ok(folder) = platters.folder(inode) else { return };
            for (name, inode) in folder.names.clone() {
                let path = path.join(name);
                match platters.nodes.get(&inode) {
                    Some(Node::Folder(_)) => walk(platters, inode, &path, found),
                    Some(Node::File(_)) => found.push(path),
                    None => {}
                }
            }
        }
        let mut platters = self.platters();
        let mut found = Vec::new();
        if let Ok(inode) = platters.inode(folder) {
            walk(&mut platters, inode, folder, &mut found);
        }
        found
    }

    fn device(&self, path: &Path) -> bool {
        self.is_split && ["/site/done", "/site/rejected"].iter().any(|root| path.starts_with(root))
    }

    fn note_result(&self, platters: &mut Platters, path: &Path, after: Option<&Path>) {
        let is_result = path.starts_with("/site/results")
            && path.extension() == Some(OsStr::new("json"))
            && path.file_name() != Some(OsStr::new("study.json"));
        let Ok(inode) = platters.inode(path) else { return };
        if is_result && let Ok(before) = platters.file(inode).map(|file| file.data.clone()) {
            let after = after.and_then(|after| {
                let inode = platters.inode(after).ok()?;
                platters.file(inode).ok().map(|file| file.data.clone())
            });
            platters.replaced.push(Replaced { path: path.to_owned(), before, after });
        }
    }

    fn do_rename(&self, from: &Path, to: &Path, may_replace: bool) -> io::Result<()> {
        let mut platters = self.step(Op::Rename)?;
        platters.inode(from)?;
        if self.device(from) != self.device(to) {
            return Err(ErrorKind::CrossesDevices.into());
        }
        if !may_replace && platters.inode(to).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.note_result(&mut platters, to, Some(from));
        platters.rename(from, to)?;
        platters.tell(|| format!("{} becomes {}", from.display(), to.display()));
        if self.chaos.loses_reply() { Err(eio()) } else { Ok(()) }
    }
}

impl Files for SimFiles {
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let mut platters = self.step(Op::Stat)?;
        let inode = platters.inode(path)?;
        Ok(match platters.nodes.get(&inode) {
            Some(Node::File(file)) => {
                Stat::File(Fingerprint { inode, bytes: file.data.len() as u64, mtime_ns: file.mtime_ns })
            }
            _ => Stat::Folder,
        })
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn Handle>> {
        let mut platters = self.step(Op::Open)?;
        let found = platters.inode(path);
        let is_new = how == Open::New || (how == Open::Edit && found.is_err());
        if is_new && platters.free() == 0 {
            self.chaos.count_fault();
            return Err(ErrorKind::StorageFull.into());
        }
        let inode = if is_new {
            let mtime_ns = self.clock.mtime_ns();
            platters.make(path, Node::File(FileNode { mtime_ns, ..FileNode::default() }))?
        } else {
            found?
        };
        let is_away = self.clock.millis() < self.chaos.weather().inbox_down_until;
        if how == Open::Read && is_away && path.starts_with("/site/inbox") {
            self.chaos.count_fault();
            return Err(rustix::io::Errno::STALE.into());
        }
        let file = platters.file(inode)?;
        // It ends the process while it is decoded.
        if how == Open::Read && file.data.starts_with(super::sender::POISON) && self.chaos.is_decoding(path) {
            self.chaos.crash_in(1, End::Kill);
        }
        Ok(Box::new(SimHandle { files: self.clone(), inode, at: 0 }))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut platters = self.step(Op::Other)?;
        platters.make(path, Node::Folder(FolderNode::default())).map(drop)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut platters = self.step(Op::Sync)?;
        let inode = platters.inode(path)?;
        if self.skip_folder_sync { Ok(()) } else { platters.sync_folder(inode) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.do_rename(from, to, true)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.do_rename(from, to, false)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut platters = self.step(Op::Unlink)?;
        let inode = platters.inode(path)?;
        self.note_result(&mut platters, path, None);
        platters.tell(|| format!("{} is deleted", path.display()));
        let (folder, name) = platters.place(path)?;
        platters.change(folder, Change::Unlink { name, inode, needs: None }).map(drop)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(OsString, bool)>> {
        let mut platters = self.step(Op::Other)?;
        let inode = platters.inode(folder)?;
        let names = platters.folder(inode)?.names.clone();
        let is_folder = |inode: &u64| matches!(platters.nodes.get(inode), Some(Node::Folder(_)));
        Ok(names.into_iter().map(|(name, inode)| (name, is_folder(&inode))).collect())
    }

    fn space(&self, path: &Path) -> io::Result<Room> {
        let mut platters = self.step(Op::Other)?;
        platters.inode(path)?;
        Ok(Room { bytes: platters.free(), files: u64::MAX })
    }

    fn process(&self) -> String {
        format!("p{}", self.platters().n_processes)
    }

    fn number(&self) -> u64 {
        let mut platters = self.platters();
        platters.numbers += 1;
        platters.numbers
    }
}

struct SimHandle {
    files: SimFiles,
    inode: u64,
    at: u64,
}

impl Read for SimHandle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut platters = self.files.step(Op::Read)?;
        let data = &platters.file(self.inode)?.data;
        let rest = &data[usize::try_from(self.at).unwrap().min(data.len())..];
        // In pieces, so that a sender may come in between.
        let len = rest.len().min(buffer.len()).min(400);
        buffer[..len].copy_from_slice(&rest[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for SimHandle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut platters = self.files.step(Op::Write)?;
        let room = usize::try_from(platters.free()).unwrap_or(usize::MAX);
        if room == 0 {
            self.files.chaos.count_fault();
            return Err(ErrorKind::StorageFull.into());
        }
        let len = self.files.chaos.short(bytes.len().min(room));
        let mtime_ns = self.files.clock.mtime_ns();
        let file = platters.file(self.inode)?;
        let start = usize::try_from(self.at).unwrap();
        if file.data.len() < start + len {
            file.data.resize(start + len, 0);
        }
        file.data[start..start + len].copy_from_slice(&bytes[..len]);
        (file.is_dirty, file.mtime_ns) = (true, mtime_ns);
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimHandle {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut platters = self.files.platters();
        let len = platters.file(self.inode)?.data.len() as i64;
        let at = match to {
            SeekFrom::Start(at) => at as i64,
            SeekFrom::End(by) => len + by,
            SeekFrom::Current(by) => self.at as i64 + by,
        };
        self.at = u64::try_from(at).unwrap();
        Ok(self.at)
    }
}

impl Handle for SimHandle {
    fn fingerprint(&self) -> io::Result<Fingerprint> {
        let mut platters = self.files.step(Op::Stat)?;
        let file = platters.file(self.inode)?;
        Ok(Fingerprint { inode: self.inode, bytes: file.data.len() as u64, mtime_ns: file.mtime_ns })
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        let mut platters = self.files.step(Op::Write)?;
        let mtime_ns = self.files.clock.mtime_ns();
        let file = platters.file(self.inode)?;
        file.data.resize(usize::try_from(bytes).unwrap(), 0);
        (file.is_dirty, file.mtime_ns) = (true, mtime_ns);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.files.step(Op::Sync) {
            Ok(mut platters) => {
                let file = platters.file(self.inode)?;
                if file.is_dirty && !self.files.skip_file_sync {
                    file.safe = file.data.clone();
                }
                file.is_dirty = false;
                Ok(())
            }
            Err(error) => {
                if self.files.chaos.dead().is_none()
                    && let Ok(file) = self.files.platters().file(self.inode)
                {
                    file.is_dirty = false;
                }
                Err(error)
            }
        }
    }
}
