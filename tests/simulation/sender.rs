//! Who sends: contents with what is expected of them, and deeds that come at any time, even while the daemon is in the
//! middle of a step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chaos::Rng;
use super::files::SimFiles;

/// Begins a file that ends the process while it is decoded.
pub const POISON: &[u8] = b"POISON";

/// First pixel of a slice for which the network gives no number.
pub const NAN_PIXEL: i16 = -30_000;

pub const SIDE: usize = 16;

/// What the daemon has to make of a file.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Slices of an instance: their pixels.
    Slices { study: String, instance: String, frames: Vec<Vec<i16>> },
    /// To be refused.
    Refused,
    /// Ends the process.
    Poison,
}

/// What lies in a file.
#[derive(Clone, Debug)]
pub struct Content {
    pub bytes: Arc<Vec<u8>>,
    pub kind: Kind,
}

/// What senders sent and what became of it as they see it.
#[derive(Default)]
pub struct Sent {
    /// What lies in the inbox as far as senders know.
    pub stands: BTreeMap<PathBuf, Content>,
    /// Everything that was ever complete.
    pub all: Vec<Content>,
    /// What somebody took away.
    pub taken: Vec<(PathBuf, Content)>,
    /// What a sender took away or wrote over itself.
    pub withdrawn: Vec<Content>,
    /// Those that are hidden, by the name that hides them.
    pub away: BTreeMap<PathBuf, Content>,
    /// Files that were taken while they were still growing.
    pub torn_away: Vec<PathBuf>,
}

pub enum Act {
    /// A file comes in by a rename, and replaces what has its name.
    Place(Content),
    /// A file is written over where it lies.
    Rewrite(Content),
    /// A file begins to grow, or grows; with the last piece it is complete.
    Grow { piece: Vec<u8>, is_first: bool, complete: Option<Content> },
    /// A sender takes its file back.
    Withdraw,
    /// A file is gone for a while, as on a share that is out of breath.
    Hide,
    /// It is there again, unchanged.
    Unhide,
}

pub struct Deed {
    /// Milliseconds.
    pub at: u64,
    /// Step of the daemon: both must have come.
    pub at_step: u64,
    pub path: PathBuf,
    pub act: Act,
}

impl Deed {
    pub fn act(self, files: &SimFiles) {
        let path = &self.path;
        let is_there = files.print(path).is_some();
        match self.act {
            Act::Place(content) => {
                note(files, path, is_there, Some(content.clone()));
                let hidden = path.with_file_name(".sending");
                files.put(&hidden, &content.bytes);
                files.sender_rename(&hidden, path);
            }
            Act::Rewrite(content) => {
                note(files, path, is_there, Some(content.clone()));
                let bytes = content.bytes.to_vec();
                if !files.edit(path, |data| *data = bytes.clone()) {
                    files.put(path, &bytes);
                }
            }
            Act::Grow { piece, is_first, complete } => {
                if is_first {
                    note(files, path, is_there, None);
                    files.put(path, &piece);
                } else if !files.edit(path, |data| data.extend_from_slice(&piece)) {
                    files.platters().sent.torn_away.push(path.clone());
                    return;
                }
                if let Some(content) = complete {
                    let mut platters = files.platters();
                    platters.sent.all.push(content.clone());
                    platters.sent.stands.insert(path.clone(), content);
                }
            }
            Act::Hide => {
                let hidden = path.with_file_name(format!(".away-{}", name_of(path)));
                if is_there && files.print(&hidden).is_none() {
                    files.sender_rename(path, &hidden);
                    let mut platters = files.platters();
                    let content = platters.sent.stands.remove(path);
                    platters.sent.away.extend(content.map(|content| (hidden, content)));
                }
            }
            Act::Unhide => {
                let hidden = path.with_file_name(format!(".away-{}", name_of(path)));
                let content = files.platters().sent.away.remove(&hidden);
                if files.print(&hidden).is_none() {
                    return;
                }
                if is_there {
                    files.sender_unlink(&hidden);
                    files.platters().sent.withdrawn.extend(content);
                    return;
                }
                note(files, path, is_there, content);
                files.sender_rename(&hidden, path);
            }
            Act::Withdraw => {
                note(files, path, is_there, None);
                if is_there {
                    files.sender_unlink(path);
                }
            }
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What lay there is withdrawn, or was taken by the daemon.
fn note(files: &SimFiles, path: &Path, is_there: bool, content: Option<Content>) {
    let mut platters = files.platters();
    let sent = &mut platters.sent;
    match sent.stands.remove(path) {
        Some(before) if is_there => sent.withdrawn.push(before),
        Some(before) => sent.taken.push((path.to_owned(), before)),
        None => {}
    }
    if let Some(content) = content {
        sent.all.push(content.clone());
        sent.stands.insert(path.to_owned(), content);
    }
}

/// What the network of the simulation says about a slice: its first logit, from which the others follow.
pub fn logits(pixels: &[i16]) -> [f32; 6] {
    let sum = pixels.iter().enumerate().fold(0i64, |sum, (idx, value)| sum + (idx as i64 + 1) * i64::from(*value));
    let base = (sum.rem_euclid(1000) as f32) / 128.0 - 4.0;
    let poisoned = pixels.first() == Some(&NAN_PIXEL);
    std::array::from_fn(|label| if poisoned && label == 2 { f32::NAN } else { base + label as f32 * 0.125 })
}

/// Makes contents: new ones, and ones that look like earlier ones.
#[derive(Default)]
pub struct Author {
    earlier: Vec<Content>,
    n_instances: u64,
}

impl Author {
    pub fn write(&mut self, rng: &mut Rng) -> (Content, &'static str) {
        let twin_of = (!self.earlier.is_empty()).then(|| rng.pick(&self.earlier).clone());
        let (content, what) = match (rng.below(20), twin_of) {
            (0, _) => (refused(rng, b"no DICOM at all ".to_vec()), "no DICOM"),
            (1, _) => {
                let mut bytes = slice_bytes("1.2.1", "1.2.9", &[pixels(rng)], "CT");
                bytes.truncate(200 + rng.index(bytes.len() - 500));
                (refused(rng, bytes), "cut short")
            }
            (2, _) => {
                let bytes = slice_bytes("1.2.1", "1.2.8", &[pixels(rng)], "MR");
                (Content { bytes: bytes.into(), kind: Kind::Refused }, "another modality")
            }
            (3, _) => {
                let mut bytes = POISON.to_vec();
                bytes.extend(rng.next().to_le_bytes());
                (Content { bytes: bytes.into(), kind: Kind::Poison }, "poison")
            }
            (4, _) => (Content { bytes: Arc::default(), kind: Kind::Refused }, "empty"),
            (5 | 6, Some(content)) => (content, "the same bytes"),
            (7, Some(Content { kind: Kind::Slices { study, instance, .. }, .. })) => {
                (self.slices(rng, Some(study), Some(instance), None), "another picture under the same UIDs")
            }
            (8, Some(Content { kind: Kind::Slices { instance, .. }, .. })) => {
                (self.slices(rng, None, Some(instance), None), "another picture under the same instance UID")
            }
            (9 | 10, Some(Content { kind: Kind::Slices { study, frames, .. }, .. })) => {
                (self.slices(rng, Some(study), None, Some(frames)), "the same picture under another UID")
            }
            (11, _) => {
                let mut first = pixels(rng);
                first[0] = NAN_PIXEL;
                (self.slices(rng, None, None, Some(vec![first])), "no number")
            }
            (12 | 13, _) => {
                let frames = (0..2 + rng.below(3)).map(|_| pixels(rng)).collect();
                (self.slices(rng, None, None, Some(frames)), "several frames")
            }
            _ => (self.slices(rng, None, None, None), "a slice"),
        };
        self.earlier.push(content.clone());
        (content, what)
    }

    /// Slices of one instance; what is left out is new.
    pub fn slices(
        &mut self,
        rng: &mut Rng,
        study: Option<String>,
        instance: Option<String>,
        frames: Option<Vec<Vec<i16>>>,
    ) -> Content {
        self.n_instances += 1;
        let study = study.unwrap_or_else(|| format!("1.2.3.{}", rng.below(3)));
        let instance = instance.unwrap_or_else(|| format!("1.2.3.4.{}", self.n_instances));
        let frames = frames.unwrap_or_else(|| vec![pixels(rng)]);
        let bytes = slice_bytes(&study, &instance, &frames, "CT").into();
        Content { bytes, kind: Kind::Slices { study, instance, frames } }
    }
}

/// Something that is no DICOM file.
pub fn refused(rng: &mut Rng, mut bytes: Vec<u8>) -> Content {
    bytes.extend(rng.next().to_le_bytes());
    Content { bytes: bytes.into(), kind: Kind::Refused }
}

fn pixels(rng: &mut Rng) -> Vec<i16> {
    (0..SIDE * SIDE).map(|_| rng.below(2000) as i16 - 1000).collect()
}

/// A CT slice, or several frames, as a file: Explicit VR Little Endian, 16 bits signed.
fn slice_bytes(study: &str, instance: &str, frames: &[Vec<i16>], modality: &str) -> Vec<u8> {
    let mut meta = Vec::new();
    element(&mut meta, (2, 0x02), b"UI", b"1.2.840.10008.5.1.4.1.1.2");
    element(&mut meta, (2, 0x03), b"UI", instance.as_bytes());
    element(&mut meta, (2, 0x10), b"UI", b"1.2.840.10008.1.2.1");
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    element(&mut bytes, (2, 0x00), b"UL", &(meta.len() as u32).to_le_bytes());
    bytes.extend(meta);
    let number = |value: u16| value.to_le_bytes();
    let mut put = |tag, vr: &[u8; 2], value: &[u8]| element(&mut bytes, tag, vr, value);
    put((0x0008, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.2");
    put((0x0008, 0x18), b"UI", instance.as_bytes());
    put((0x0008, 0x60), b"CS", modality.as_bytes());
    put((0x0020, 0x0D), b"UI", study.as_bytes());
    put((0x0020, 0x0E), b"UI", format!("{study}.1").as_bytes());
    put((0x0028, 0x02), b"US", &number(1));
    put((0x0028, 0x04), b"CS", b"MONOCHROME2");
    if frames.len() > 1 {
        put((0x0028, 0x08), b"IS", frames.len().to_string().as_bytes());
    }
    put((0x0028, 0x10), b"US", &number(SIDE as u16));
    put((0x0028, 0x11), b"US", &number(SIDE as u16));
    put((0x0028, 0x100), b"US", &number(16));
    put((0x0028, 0x101), b"US", &number(16));
    put((0x0028, 0x102), b"US", &number(15));
    put((0x0028, 0x103), b"US", &number(1));
    put((0x0028, 0x1052), b"DS", b"0");
    put((0x0028, 0x1053), b"DS", b"1");
    let pixels: Vec<u8> = frames.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    put((0x7FE0, 0x10), b"OW", &pixels);
    bytes
}

fn element(bytes: &mut Vec<u8>, (group, element): (u16, u16), vr: &[u8; 2], value: &[u8]) {
    bytes.extend(group.to_le_bytes());
    bytes.extend(element.to_le_bytes());
    bytes.extend(vr);
    let padded = value.len().next_multiple_of(2);
    if vr == b"OW" {
        bytes.extend([0, 0]);
        bytes.extend((padded as u32).to_le_bytes());
    } else {
        bytes.extend((padded as u16).to_le_bytes());
    }
    bytes.extend(value);
    if padded > value.len() {
        bytes.push(if vr == b"UI" { 0 } else { b' ' });
    }
}
