//! The entries of a ZIP archive whose content is stored as it is, which is how PyTorch writes them. Knows no PyTorch.
//!
//! Nothing is unpacked, so nothing can grow: every entry is a part of the file's own bytes. Checksums are not looked at:
//! PyTorch can be told to leave them out.

use std::collections::BTreeMap;

/// Where the entries of an archive lie.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<&'a str, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    header: usize,
    size: usize,
    stored: bool,
}

/// A comment after the directory's end can be this long.
const COMMENT_MAX: usize = u16::MAX as usize;
const END_LEN: usize = 22;

impl<'a> Archive<'a> {
    /// Reads the directory at the end of the archive.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let (start, size, count) = directory(bytes)?;
        let mut rest = start
            .checked_add(size)
            .and_then(|end| bytes.get(start..end))
            .ok_or("the archive's directory lies beyond the end of the file")?;
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            if !rest.starts_with(b"PK\x01\x02") {
                return Err("the archive's directory is damaged".into());
            }
            let (name_len, extra_len, comment_len) = (u16_at(rest, 28)?, u16_at(rest, 30)?, u16_at(rest, 32)?);
            let name = part(rest, 46, name_len)?;
            let name = std::str::from_utf8(name).map_err(|_| "an entry's name is no text")?;
            let extra = part(rest, 46 + name_len, extra_len)?;
            let flags = u16_at(rest, 8)?;
            let mut sizes = [u32_at(rest, 24)?, u32_at(rest, 20)?, u32_at(rest, 42)?];
            widen(&mut sizes, extra)?;
            let [plain, packed, header] = sizes;
            let stored = u16_at(rest, 10)? == 0 && flags & 1 == 0 && plain == packed;
            if entries.insert(name, Place { header, size: plain, stored }).is_some() {
                return Err(format!("entry {name} stands twice in the archive"));
            }
            rest = rest.get(46 + name_len + extra_len + comment_len..).ok_or("the archive's directory is cut short")?;
        }
        Ok(Archive { bytes, entries })
    }

    /// Names of all entries.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// The content of an entry.
    pub(super) fn get(&self, name: &str) -> Result<&'a [u8], String> {
        let place = self.entries.get(name).ok_or_else(|| format!("the archive has no entry {name}"))?;
        if !place.stored {
            return Err(format!("entry {name} is packed or locked; PyTorch stores entries as they are"));
        }
        let header = self.bytes.get(place.header..).filter(|header| header.starts_with(b"PK\x03\x04"));
        let header = header.ok_or_else(|| format!("entry {name} is not where the archive's directory says"))?;
        let start = 30 + u16_at(header, 26)? + u16_at(header, 28)?;
        part(header, start, place.size).map_err(|_| format!("entry {name} is cut short"))
    }
}

/// Start, size and number of entries of the directory.
fn directory(bytes: &[u8]) -> Result<(usize, usize, usize), String> {
    let first = bytes.len().saturating_sub(END_LEN + COMMENT_MAX);
    let tail = &bytes[first..];
    let found = tail.windows(4).rposition(|window| window == b"PK\x05\x06");
    let at = first + found.ok_or("the archive has no end; was the file cut short?")?;
    let end = &bytes[at..];
    let (count, size, start) = (u16_at(end, 10)?, u32_at(end, 12)?, u32_at(end, 16)?);
    if count != usize::from(u16::MAX) && size != u32::MAX as usize && start != u32::MAX as usize {
        return Ok((start, size, count));
    }
    // Larger numbers stand in a record of their own, whose place a locator before the end gives.
    let locator = at.checked_sub(20).and_then(|at| bytes.get(at..)).filter(|place| place.starts_with(b"PK\x06\x07"));
    let place = u64_at(locator.ok_or("the archive lacks the locator of its 64-bit end")?, 8)?;
    let record = bytes.get(place..).filter(|record| record.starts_with(b"PK\x06\x06"));
    let record = record.ok_or("the archive lacks its 64-bit end")?;
    Ok((u64_at(record, 48)?, u64_at(record, 40)?, u64_at(record, 32)?))
}

/// Replaces sizes that do not fit 32 bits by those of the entry's 64-bit field, which holds just these, in this order.
fn widen(sizes: &mut [usize; 3], mut extra: &[u8]) -> Result<(), String> {
    if sizes.iter().all(|size| *size != u32::MAX as usize) {
        return Ok(());
    }
    while extra.len() >= 4 {
        let (kind, len) = (u16_at(extra, 0)?, u16_at(extra, 2)?);
        let field = part(extra, 4, len)?;
        if kind == 1 {
            let mut at = 0;
            for size in sizes.iter_mut().filter(|size| **size == u32::MAX as usize) {
                *size = u64_at(field, at)?;
                at += 8;
            }
            return Ok(());
        }
        extra = &extra[4 + len..];
    }
    Err("an entry lacks its 64-bit sizes".into())
}

fn part(bytes: &[u8], start: usize, len: usize) -> Result<&[u8], String> {
    let end = start.checked_add(len);
    end.and_then(|end| bytes.get(start..end)).ok_or_else(|| "the archive is cut short".into())
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    part(bytes, at, N)?.try_into().map_err(|_| "the archive is cut short".into())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize, String> {
    Ok(usize::from(u16::from_le_bytes(number(bytes, at)?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize, String> {
    usize::try_from(u32::from_le_bytes(number(bytes, at)?)).map_err(|error| error.to_string())
}

fn u64_at(bytes: &[u8], at: usize) -> Result<usize, String> {
    usize::try_from(u64::from_le_bytes(number(bytes, at)?)).map_err(|error| error.to_string())
}
