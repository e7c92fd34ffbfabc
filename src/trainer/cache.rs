//! The decoded cache: every slice of a data set decoded once, as stored values in memory-mapped files, so that epochs
//! read at the speed of the disk or the page cache. Knows no network and no label.
//!
//! `<cache>/<form>/{cache.json, index.jsonl, shard-0000.raw ...}`, where the form names the side. Values are appended to a
//! shard and synced, then their lines to the index; what the index does not speak of does not exist. A build that was cut
//! off goes on where it stopped, and runs share what is there. Files that gave no slice stand there with the reason, so that
//! they are not decoded again by every run. Memory stays bounded: files are decoded [`CHUNK`] at a
//! time, and mapped pages belong to the system.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ichd_kernels::{SliceView, StoredPixels, Taps};
use memmap2::Mmap;
use rayon::prelude::*;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::dicom::{self, AdmissionRules};
use crate::disk::{Disk, Fingerprint, RealDisk, make_folders};
use crate::identity::sha256;
use crate::reject::{RejectCode, Rejection};
use crate::slice::{Pixels, Slice};

/// Changes whenever the same file would give other cached values.
const FORM_VERSION: u32 = 1;
/// Files that are decoded before their values are written.
const CHUNK: usize = 64;
/// A shard takes no more slices once it is this large.
const SHARD_BYTES: u64 = 1 << 30;
/// HU of air, which takes the place of padding where slices are made smaller.
const AIR_HU: f64 = -1000.0;

/// A slice that is wanted in the cache.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// SOPInstanceUID.
    pub instance: &'a str,
    /// Its file.
    pub path: &'a Path,
}

/// How the cache is to be.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Where all forms lie.
    pub folder: PathBuf,
    /// Longest side of a cached slice in pixels; larger ones are made smaller. `None`: as they are.
    pub side: Option<usize>,
    /// Which files count as slices.
    pub rules: AdmissionRules,
    /// Larger files are refused.
    pub file_bytes_max: u64,
}

/// A cache that cannot be built or read.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The disk refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another run builds it.
    #[error("another run works on the cache {0}; wait for it, or give another folder")]
    Busy(PathBuf),
    /// It was made by another program or was changed.
    #[error("{path}: {reason}; delete the folder to build it anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The wish to stop was voiced.
    #[error("stopped while the cache was built; the next run goes on from here")]
    Stopped,
}

/// What stands in the index about a slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    instance: String,
    /// The source file, as it was when it was decoded.
    bytes: u64,
    mtime_ns: i64,
    shard: u32,
    offset: u64,
    rows: usize,
    columns: usize,
    signed: bool,
    bits_stored: u16,
    slope: f64,
    intercept: f64,
    inverted: bool,
    padding: Option<[i32; 2]>,
    /// Of the stored bytes.
    sha256: String,
}

/// What stands in the index about a file that gave no slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Refusal {
    instance: String,
    /// The source file, as it was when it was refused.
    bytes: u64,
    mtime_ns: i64,
    /// Code of the reason.
    refused: String,
    tag: Option<String>,
    sentence: String,
    /// By which rules of which program.
    by: String,
}

impl Refusal {
    /// None for a reason that another attempt may do away with: it does not belong into the index.
    fn new(wish: &Wanted<'_>, print: Fingerprint, rejection: &Rejection, by: &str) -> Option<Refusal> {
        (rejection.code != RejectCode::Unreadable).then(|| Refusal {
            instance: wish.instance.to_owned(),
            bytes: print.bytes,
            mtime_ns: print.mtime_ns,
            refused: rejection.code.word().to_owned(),
            tag: rejection.tag.clone(),
            sentence: rejection.sentence.clone(),
            by: by.to_owned(),
        })
    }

    /// The reason, if it still holds for the file in this state by these rules.
    fn rejection(&self, print: Fingerprint, by: &str) -> Option<Rejection> {
        let holds = self.bytes == print.bytes && self.mtime_ns == print.mtime_ns && self.by == by;
        let code = RejectCode::from_word(&self.refused).filter(|_| holds)?;
        Some(Rejection { code, tag: self.tag.clone(), sentence: self.sentence.clone() })
    }
}

/// Names what a refusal depends on beside the file: rules, the largest file, and the program, which may read more one day.
fn refused_by(options: &CacheOptions) -> String {
    let rules = json!([options.rules, options.file_bytes_max, env!("CARGO_PKG_VERSION")]);
    sha256(rules.to_string().as_bytes())
}

impl Entry {
    fn len(&self) -> u64 {
        (self.rows * self.columns * 2) as u64
    }
}

/// First file of a form: what it is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Form {
    version: u32,
    side: Option<usize>,
    repair_wrap_12bit: bool,
}

/// What building did.
#[derive(Debug, Default)]
pub struct Built {
    /// Slices that were there.
    pub kept: usize,
    /// Slices that were decoded now.
    pub decoded: usize,
    /// Files that gave no slice, now or at an earlier time.
    pub refused: Vec<(String, Rejection)>,
    /// How many of them were refused at an earlier time and not read again.
    pub refused_before: usize,
}

/// Decoded slices by number, in the order in which they were wanted.
pub struct Cache {
    folder: PathBuf,
    shards: Vec<Mmap>,
    entries: Vec<Option<Entry>>,
    /// Which of them were held against their digests since the cache was opened.
    verified: Vec<AtomicBool>,
    _lock: File,
}

/// Builds what is missing of the cache and opens it. `progress` is told how many of the wanted slices are there.
///
/// # Errors
/// The disk, a damaged cache, another run that builds it, or the wish to stop. Files that give no slice are no error.
pub fn open(
    options: &CacheOptions,
    wanted: &[Wanted<'_>],
    progress: &dyn Fn(usize),
    is_stopped: &dyn Fn() -> bool,
) -> Result<(Cache, Built), CacheError> {
    let form = match options.side {
        Some(side) => format!("side-{side}"),
        None => "full".to_owned(),
    };
    let folder = options.folder.join(form);
    make_folders(&folder).map_err(|source| CacheError::Io { path: folder.clone(), source })?;
    let (lock, is_alone) = lock(&folder)?;
    check_form(&folder, options)?;
    let mut index = Index::read(&folder)?;
    let (mut built, mut missing) = (Built::default(), Vec::new());
    let by = refused_by(options);
    for wish in wanted {
        let print = RealDisk.fingerprint(wish.path).ok().flatten().unwrap_or_default();
        let known = index.entries.get(wish.instance);
        if known.is_some_and(|entry| entry.bytes == print.bytes && entry.mtime_ns == print.mtime_ns) {
            built.kept += 1;
        } else if let Some(rejection) =
            index.refusals.get(wish.instance).and_then(|refusal| refusal.rejection(print, &by))
        {
            built.refused.push((wish.instance.to_owned(), rejection));
        } else {
            missing.push((wish, print));
        }
    }
    built.refused_before = built.refused.len();
    progress(built.kept + built.refused_before);
    if !missing.is_empty() && !is_alone {
        return Err(CacheError::Busy(folder));
    }
    for chunk in missing.chunks(CHUNK) {
        if is_stopped() {
            return Err(CacheError::Stopped);
        }
        let decoded: Vec<Result<Stored, Rejection>> =
            chunk.par_iter().map(|(wish, print)| decode(wish, *print, options)).collect();
        let (mut stored, mut refusals) = (Vec::with_capacity(decoded.len()), Vec::new());
        for ((wish, print), result) in chunk.iter().zip(decoded) {
            match result {
                Ok(slice) => stored.push(slice),
                Err(rejection) => {
                    refusals.extend(Refusal::new(wish, *print, &rejection, &by));
                    built.refused.push((wish.instance.to_owned(), rejection));
                }
            }
        }
        built.decoded += stored.len();
        index.append(stored, refusals)?;
        progress(built.kept + built.decoded + built.refused.len());
    }
    for (instance, _) in &built.refused {
        // What stood there before was another file.
        index.entries.remove(instance);
    }
    let entries = wanted.iter().map(|wish| index.entries.remove(wish.instance)).collect();
    let verified = wanted.iter().map(|_| AtomicBool::new(false)).collect();
    let shards = index.map()?;
    // Others may read from now on.
    flock(&lock, FlockOperation::NonBlockingLockShared)
        .map_err(|source| CacheError::Io { path: folder.join("lock"), source: source.into() })?;
    Ok((Cache { folder, shards, entries, verified, _lock: lock }, built))
}

/// Takes the cache for building, or for reading if others read it; says whether it may be built.
fn lock(folder: &Path) -> Result<(File, bool), CacheError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| CacheError::Io { path, source })?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok((file, true));
    }
    flock(&file, FlockOperation::NonBlockingLockShared).map_err(|_| CacheError::Busy(folder.to_owned()))?;
    Ok((file, false))
}

fn check_form(folder: &Path, options: &CacheOptions) -> Result<(), CacheError> {
    let path = folder.join("cache.json");
    let form = Form { version: FORM_VERSION, side: options.side, repair_wrap_12bit: options.rules.repair_wrap_12bit };
    let io = |source| CacheError::Io { path: path.clone(), source };
    if !path.exists() {
        let text = serde_json::to_string(&form).map_err(|error| io(io::Error::other(error)))?;
        return RealDisk.write_whole(&path, text.as_bytes()).map_err(io);
    }
    let text = std::fs::read_to_string(&path).map_err(io)?;
    match serde_json::from_str::<Form>(&text) {
        Ok(found) if found == form => Ok(()),
        Ok(found) => Err(CacheError::Damaged { path, reason: format!("it was made as {found:?}, {form:?} is wanted") }),
        Err(error) => Err(CacheError::Damaged { path, reason: error.to_string() }),
    }
}

/// A decoded slice on its way to a shard.
struct Stored {
    entry: Entry,
    values: Vec<u8>,
}

fn decode(wish: &Wanted<'_>, print: Fingerprint, options: &CacheOptions) -> Result<Stored, Rejection> {
    let unreadable = |sentence: String| Rejection::new(RejectCode::Unreadable, sentence);
    let (_, bytes) = RealDisk
        .read(wish.path, options.file_bytes_max)
        .map_err(|error| unreadable(format!("could not be read: {error}")))?;
    let slices = dicom::decode(&bytes, &options.rules)?;
    let [slice] = <[Slice; 1]>::try_from(slices).map_err(|slices| {
        let sentence = format!("it holds {} frames; labels are for files of one", slices.len());
        Rejection::new(RejectCode::TooManyFrames, sentence)
    })?;
    let slice = match options.side {
        Some(side) if slice.rows.max(slice.columns) > side => smaller(&slice, side),
        _ => slice,
    };
    let values: Vec<u8> = match &slice.pixels {
        Pixels::I16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Pixels::U16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    let entry = Entry {
        instance: wish.instance.to_owned(),
        bytes: print.bytes,
        mtime_ns: print.mtime_ns,
        shard: 0,
        offset: 0,
        rows: slice.rows,
        columns: slice.columns,
        signed: matches!(slice.pixels, Pixels::I16(_)),
        bits_stored: slice.bits_stored,
        slope: slice.rescale.slope,
        intercept: slice.rescale.intercept,
        inverted: slice.inverted,
        padding: slice.padding.as_ref().map(|range| [*range.start(), *range.end()]),
        sha256: sha256(&values),
    };
    Ok(Stored { entry, values })
}

/// The slice with its longest side at `side`, resampled as windowing does it, in stored values. Padding becomes air first:
/// it must not bleed into its neighbors.
fn smaller(slice: &Slice, side: usize) -> Slice {
    let longest = slice.rows.max(slice.columns);
    let scaled = |length: usize| (length * side).div_ceil(longest).max(1);
    let (rows, columns) = (scaled(slice.rows), scaled(slice.columns));
    let air = if slice.rescale.slope == 0.0 { 0.0 } else { (AIR_HU - slice.rescale.intercept) / slice.rescale.slope };
    let is_padding = |value: i32| slice.padding.as_ref().is_some_and(|range| range.contains(&value));
    let value = |at: usize| match slice.pixels.get(at) {
        value if is_padding(value) => air,
        value => f64::from(value),
    };
    let (across, down) = (Taps::new(slice.columns, columns), Taps::new(slice.rows, rows));
    let mut narrow = vec![0.0; slice.rows * columns];
    for row in 0..slice.rows {
        for column in 0..columns {
            let (first, weights) = across.of(column);
            let sum: f64 = (first..).zip(weights).map(|(x, w)| f64::from(*w) * value(row * slice.columns + x)).sum();
            narrow[row * columns + column] = sum;
        }
    }
    let mut values = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let (first, weights) = down.of(row);
        for column in 0..columns {
            values.push((first..).zip(weights).map(|(y, w)| f64::from(*w) * narrow[y * columns + column]).sum::<f64>());
        }
    }
    let pixels = match slice.pixels {
        Pixels::I16(_) => Pixels::I16(values.iter().map(|value| value.round() as i16).collect()),
        Pixels::U16(_) => Pixels::U16(values.iter().map(|value| value.round() as u16).collect()),
    };
    Slice { pixels, rows, columns, padding: None, ..slice.clone() }
}

/// The index while the cache is built.
struct Index {
    folder: PathBuf,
    file: File,
    entries: HashMap<String, Entry>,
    /// Files that gave no slice, none of which is among the entries.
    refusals: HashMap<String, Refusal>,
    /// Bytes of each shard that the index speaks of.
    shards: Vec<u64>,
}

impl Index {
    fn read(folder: &Path) -> Result<Index, CacheError> {
        let path = folder.join("index.jsonl");
        let io = |source| CacheError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        let text = std::fs::read(&path).map_err(io)?;
        // A line without its end was torn by a crash, and its slice is decoded again.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let (entries, refusals) = (HashMap::new(), HashMap::new());
        let mut index = Index { folder: folder.to_owned(), file, entries, refusals, shards: Vec::new() };
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // Nearly all lines are of slices, so they are tried first; what is wrong with a line is told of a slice's, too.
            let entry = serde_json::from_slice(line).map(|entry| index.note(entry));
            entry.or_else(|error| {
                let refusal = serde_json::from_slice(line).map(|refusal| index.note_refusal(refusal));
                refusal.map_err(|_| CacheError::Damaged { path: path.clone(), reason: error.to_string() })
            })?;
        }
        for (at, bytes) in index.shards.iter().enumerate() {
            let path = index.shard_path(at);
            let found = std::fs::metadata(&path).map(|meta| meta.len()).unwrap_or(0);
            if found < *bytes {
                let reason = format!("it has {found} bytes, the index speaks of {bytes}");
                return Err(CacheError::Damaged { path, reason });
            }
        }
        Ok(index)
    }

    fn note(&mut self, entry: Entry) {
        let shard = entry.shard as usize;
        if self.shards.len() <= shard {
            self.shards.resize(shard + 1, 0);
        }
        self.shards[shard] = self.shards[shard].max(entry.offset + entry.len());
        self.refusals.remove(&entry.instance);
        self.entries.insert(entry.instance.clone(), entry);
    }

    fn note_refusal(&mut self, refusal: Refusal) {
        // What stood there before was another file.
        self.entries.remove(&refusal.instance);
        self.refusals.insert(refusal.instance.clone(), refusal);
    }

    fn shard_path(&self, shard: usize) -> PathBuf {
        self.folder.join(format!("shard-{shard:04}.raw"))
    }

    /// Values first, then the lines that speak of them and of what gave none, both synced.
    fn append(&mut self, slices: Vec<Stored>, refusals: Vec<Refusal>) -> Result<(), CacheError> {
        let entries = self.append_values(slices)?;
        let index_path = self.folder.join("index.jsonl");
        let io = |source| CacheError::Io { path: index_path.clone(), source };
        let texts = entries.iter().map(serde_json::to_string).chain(refusals.iter().map(serde_json::to_string));
        let mut lines = String::new();
        for text in texts {
            lines.push_str(&text.map_err(|error| io(error.into()))?);
            lines.push('\n');
        }
        if !lines.is_empty() {
            self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data()).map_err(io)?;
        }
        entries.into_iter().for_each(|entry| self.note(entry));
        refusals.into_iter().for_each(|refusal| self.note_refusal(refusal));
        Ok(())
    }

    /// Writes values to the last shard and says where they lie.
    fn append_values(&mut self, slices: Vec<Stored>) -> Result<Vec<Entry>, CacheError> {
        if slices.is_empty() {
            return Ok(Vec::new());
        }
        if self.shards.last().is_none_or(|bytes| *bytes >= SHARD_BYTES) {
            self.shards.push(0);
        }
        let shard = self.shards.len() - 1;
        let path = self.shard_path(shard);
        let mut offset = self.shards[shard];
        let write = || -> io::Result<Vec<Entry>> {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut entries = Vec::with_capacity(slices.len());
            for Stored { entry, values } in slices {
                file.write_all(&values)?;
                let bytes = values.len() as u64;
                entries.push(Entry { shard: shard as u32, offset, ..entry });
                offset += bytes;
            }
            file.sync_data()?;
            Ok(entries)
        };
        write().map_err(|source| CacheError::Io { path: path.clone(), source })
    }

    fn map(&self) -> Result<Vec<Mmap>, CacheError> {
        let map = |at: usize| {
            let path = self.shard_path(at);
            let io = |source| CacheError::Io { path: path.clone(), source };
            let file = File::open(&path).map_err(io)?;
            // SAFETY: the lock keeps other runs from writing, and nobody writes where the index speaks of values. Whoever cuts a shard short by hand ends the process, as with any mapped file.
            unsafe { Mmap::map(&file) }.map_err(io)
        };
        (0..self.shards.len()).map(map).collect()
    }
}

impl Cache {
    /// Whether the wanted slice `at` is there.
    pub fn has(&self, at: usize) -> bool {
        self.entries.get(at).is_some_and(Option::is_some)
    }

    /// Bytes of all slices that were wanted.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().flatten().map(Entry::len).sum()
    }

    fn stored(&self, at: usize) -> Option<(&Entry, &[u8])> {
        let entry = self.entries.get(at)?.as_ref()?;
        let shard = self.shards.get(entry.shard as usize)?;
        let (from, len) = (usize::try_from(entry.offset).ok()?, usize::try_from(entry.len()).ok()?);
        Some((entry, shard.get(from..from + len)?))
    }

    /// The wanted slice `at` as the kernels take it: the whole of it.
    pub fn view(&self, at: usize) -> Option<SliceView<'_>> {
        let (entry, bytes) = self.stored(at)?;
        let pixels = if entry.signed {
            StoredPixels::I16(bytemuck::try_cast_slice(bytes).ok()?)
        } else {
            StoredPixels::U16(bytemuck::try_cast_slice(bytes).ok()?)
        };
        let padding: Option<RangeInclusive<i32>> = entry.padding.map(|[low, high]| low..=high);
        Some(SliceView {
            pixels,
            rows: entry.rows,
            columns: entry.columns,
            slope: entry.slope,
            intercept: entry.intercept,
            bits_stored: entry.bits_stored,
            inverted: entry.inverted,
            padding,
            ..SliceView::default()
        })
    }

    /// Reads the wanted slice `at` and holds it against its digest.
    ///
    /// # Errors
    /// It was changed since it was written.
    pub fn verify(&self, at: usize) -> Result<(), CacheError> {
        let Some((entry, bytes)) = self.stored(at) else { return Ok(()) };
        if sha256(bytes) == entry.sha256 {
            return Ok(());
        }
        let path = self.folder.join(format!("shard-{:04}.raw", entry.shard));
        let reason = format!("the values of {} at byte {} are not what was written", entry.instance, entry.offset);
        Err(CacheError::Damaged { path, reason })
    }

    /// As [`Cache::verify`], but once for all threads that read this cache: afterwards it answers at once. Says whether
    /// it read the slice now.
    ///
    /// # Errors
    /// As [`Cache::verify`], each time.
    pub fn verify_once(&self, at: usize) -> Result<bool, CacheError> {
        let Some(verified) = self.verified.get(at) else { return Ok(false) };
        if verified.load(Ordering::Acquire) {
            return Ok(false);
        }
        // Set behind the work: nobody takes a slice for sound that another thread still looks at. Two may look at once.
        self.verify(at)?;
        verified.store(true, Ordering::Release);
        Ok(true)
    }

    /// Reads the wanted slice `at` so that it lies in memory. Returns a sum, so that reading is not optimized away.
    pub fn touch(&self, at: usize) -> u64 {
        const PAGE: usize = 4096;
        let Some((_, bytes)) = self.stored(at) else { return 0 };
        bytes.iter().step_by(PAGE).map(|byte| u64::from(*byte)).sum()
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
