//! What lies on the simulated disk: folders and files with what is safe of them, and what a power cut leaves.
//!
//! Each folder holds the names that are safe, and the changes since its last sync in their order. A power cut keeps any of
//! those; only the old name of a file that was moved never goes before the new one is safe. Some disks do not rename in one
//! step: there the power may go when a file has both names. Each file holds its safe bytes and its present ones.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::chaos::Rng;
use super::sender::{Deed, Sent};

#[derive(Clone, Default)]
pub struct FileNode {
    pub data: Vec<u8>,
    pub safe: Vec<u8>,
    pub is_dirty: bool,
    pub mtime_ns: i64,
}

#[derive(Clone)]
pub enum Change {
    Link {
        name: OsString,
        inode: u64,
    },
    /// `needs`: the new name of a file that was moved into another folder.
    Unlink {
        name: OsString,
        inode: u64,
        needs: Option<u64>,
    },
    Move {
        from: OsString,
        to: OsString,
        inode: u64,
    },
}

impl Change {
    pub fn needs(&self) -> Option<u64> {
        match self {
            Change::Unlink { needs, .. } => *needs,
            Change::Link { .. } | Change::Move { .. } => None,
        }
    }
}

#[derive(Clone, Default)]
pub struct FolderNode {
    pub names: BTreeMap<OsString, u64>,
    pub safe: BTreeMap<OsString, u64>,
    pub changes: Vec<(u64, Change)>,
}

#[derive(Clone)]
pub enum Node {
    File(FileNode),
    Folder(FolderNode),
}

/// A result that got other bytes, or lost its name.
pub struct Replaced {
    pub path: PathBuf,
    pub before: Vec<u8>,
    pub after: Option<Vec<u8>>,
}

pub struct Platters {
    pub nodes: BTreeMap<u64, Node>,
    pub n_inodes: u64,
    pub n_changes: u64,
    pub numbers: u64,
    pub n_processes: u64,
    /// Renames that a power cut left with both names.
    pub n_torn: u64,
    pub capacity: u64,
    pub hog: u64,
    /// When the room that somebody else took is given back, in milliseconds.
    pub hog_until: u64,
    /// Deeds of senders, by time, that come even in the middle of a step of the daemon.
    pub deeds: VecDeque<Deed>,
    /// What senders sent.
    pub sent: Sent,
    /// What happened to names, if somebody wants to hear it.
    pub story: Option<Vec<String>>,
    /// What the daemon did to results since somebody looked.
    pub replaced: Vec<Replaced>,
}

pub const ROOT: u64 = 1;

pub fn not_found() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Platters {
    /// An empty disk.
    pub fn new(capacity: u64) -> Platters {
        Platters {
            nodes: BTreeMap::from([(ROOT, Node::Folder(FolderNode::default()))]),
            n_inodes: ROOT,
            n_changes: 0,
            numbers: 0,
            n_processes: 0,
            n_torn: 0,
            sent: Sent::default(),
            story: None,
            capacity,
            hog: 0,
            hog_until: 0,
            deeds: VecDeque::new(),
            replaced: Vec::new(),
        }
    }

    pub fn folder(&mut self, inode: u64) -> io::Result<&mut FolderNode> {
        match self.nodes.get_mut(&inode) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub fn file(&mut self, inode: u64) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(not_found()),
        }
    }

    pub fn inode(&mut self, path: &Path) -> io::Result<u64> {
        let mut inode = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                inode = *self.folder(inode)?.names.get(name).ok_or_else(not_found)?;
            }
        }
        Ok(inode)
    }

    pub fn place(&mut self, path: &Path) -> io::Result<(u64, OsString)> {
        let parent = self.inode(path.parent().ok_or_else(not_found)?)?;
        Ok((parent, path.file_name().ok_or_else(not_found)?.to_owned()))
    }

    pub fn change(&mut self, folder: u64, change: Change) -> io::Result<u64> {
        self.n_changes += 1;
        let number = self.n_changes;
        let folder = self.folder(folder)?;
        match &change {
            Change::Link { name, inode } => {
                folder.names.insert(name.clone(), *inode);
            }
            Change::Unlink { name, .. } => {
                folder.names.remove(name);
            }
            Change::Move { from, to, inode } => {
                folder.names.remove(from);
                folder.names.insert(to.clone(), *inode);
            }
        }
        folder.changes.push((number, change));
        Ok(number)
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }

    pub fn used(&self) -> u64 {
        let bytes = |node: &Node| if let Node::File(file) = node { file.data.len() as u64 } else { 0 };
        self.nodes.values().map(bytes).sum::<u64>() + self.hog
    }

    pub fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used())
    }

    pub fn make(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        let (folder, name) = self.place(path)?;
        if self.folder(folder)?.names.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.n_inodes += 1;
        let inode = self.n_inodes;
        self.nodes.insert(inode, node);
        self.change(folder, Change::Link { name, inode })?;
        Ok(inode)
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode(from)?;
        let ((from_folder, from_name), (to_folder, to_name)) = (self.place(from)?, self.place(to)?);
        if from_folder == to_folder {
            self.change(from_folder, Change::Move { from: from_name, to: to_name, inode })?;
        } else {
            let needs = Some(self.change(to_folder, Change::Link { name: to_name, inode })?);
            self.change(from_folder, Change::Unlink { name: from_name, inode, needs })?;
        }
        Ok(())
    }

    pub fn sync_folder(&mut self, inode: u64) -> io::Result<()> {
        let folder = self.folder(inode)?;
        folder.safe = folder.names.clone();
        let needed: Vec<u64> = folder.changes.drain(..).filter_map(|(_, change)| change.needs()).collect();
        // A move between folders is one entry of the journal: the new name becomes safe with the loss of the old one.
        for node in self.nodes.values_mut().filter(|_| !needed.is_empty()) {
            let Node::Folder(folder) = node else { continue };
            let changes = std::mem::take(&mut folder.changes).into_iter();
            let (safe, rest): (Vec<_>, Vec<_>) = changes.partition(|(number, _)| needed.contains(number));
            folder.changes = rest;
            for (_, change) in safe {
                apply(&mut folder.safe, change, &[]);
            }
        }
        Ok(())
    }

    pub fn power_cut(&mut self, rng: &mut Rng) {
        let mood = rng.below(3);
        let keeps = |rng: &mut Rng| match mood {
            0 => false,
            1 => true,
            _ => rng.permille(500),
        };
        let mut lost = Vec::new();
        for node in self.nodes.values() {
            let Node::Folder(folder) = node else { continue };
            lost.extend(folder.changes.iter().map(|(number, _)| *number).filter(|_| !keeps(rng)));
        }
        let tears = if rng.permille(500) { 1000 } else { 0 };
        for node in self.nodes.values_mut() {
            match node {
                Node::Folder(folder) => {
                    for (number, change) in std::mem::take(&mut folder.changes) {
                        match change {
                            _ if lost.contains(&number) => {}
                            Change::Move { to, inode, .. } if rng.permille(tears) => {
                                folder.safe.insert(to, inode);
                                self.n_torn += 1;
                            }
                            change => apply(&mut folder.safe, change, &lost),
                        }
                    }
                    folder.names = folder.safe.clone();
                }
                Node::File(file) if file.data != file.safe => {
                    file.data = if keeps(rng) { file.data.clone() } else { torn(file, rng) };
                    file.safe = file.data.clone();
                    file.is_dirty = false;
                }
                Node::File(_) => {}
            }
        }
    }
}

fn apply(safe: &mut BTreeMap<OsString, u64>, change: Change, lost: &[u64]) {
    match change {
        Change::Link { name, inode } => {
            safe.insert(name, inode);
        }
        Change::Unlink { name, inode, needs } => {
            let may_go = needs.is_none_or(|needs| !lost.contains(&needs));
            if may_go && safe.get(&name) == Some(&inode) {
                safe.remove(&name);
            }
        }
        Change::Move { from, to, inode } => {
            if safe.get(&from) == Some(&inode) {
                safe.remove(&from);
            }
            safe.insert(to, inode);
        }
    }
}

/// What is left of a file that was not synced.
fn torn(file: &FileNode, rng: &mut Rng) -> Vec<u8> {
    let mut data = match rng.below(3) {
        0 => return file.safe.clone(),
        // The size came through, some of the bytes did not.
        1 => vec![0; file.data.len()],
        _ => file.safe.clone(),
    };
    let kept = rng.index(file.data.len() + 1);
    if data.len() < kept {
        data.resize(kept, 0);
    }
    data[..kept].copy_from_slice(&file.data[..kept]);
    data
}
