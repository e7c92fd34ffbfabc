//! A split on disk: csv with the instance, the key of its patient and its part, under a comment that says how it was made.
//! Written once, read back at every later start, and compared with the slices that are there then.

use std::fmt;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::groups::GroupKey;
use super::settings::{FOLDS_MAX, SplitMode};
use super::split::{Assigned, Member, Part, Plan, Split};
use super::table::{Table, TableError, TableReason, shown};
use crate::disk::Disk;
use crate::names::{csv_cell, of_csv_cell};

/// First line of the comment.
const MAGIC: &str = "# ichd.split.v1";

impl Split {
    /// The file.
    pub fn to_csv(&self) -> String {
        let Plan { mode, seed, parts } = &self.plan;
        let shares: Vec<String> = parts.iter().map(|part| format!("{} {}", part.name, part.share)).collect();
        let mut text = format!(
            "{MAGIC}\n# seed: {seed}\n# mode: {}\n# fractions: {}\n# labels_sha256: {}\ninstance,group,part\n",
            mode.word(),
            shares.join(", "),
            self.labels_sha256
        );
        for slice in &self.slices {
            let part = parts.get(usize::from(slice.part)).map_or("", |part| part.name.as_str());
            let _ = writeln!(text, "{},{},{part}", csv_cell(&slice.instance), slice.group);
        }
        text
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, disk: &dyn Disk, file: &Path) -> io::Result<()> {
        disk.write_whole(file, self.to_csv().as_bytes())
    }

    /// Reads a file back.
    ///
    /// # Errors
    /// It cannot be read, is no split, or contradicts itself, as one by patient with a patient in two parts does.
    pub fn read(file: &Path) -> Result<Split, TableError> {
        let opened = std::fs::File::open(file);
        let opened = opened.map_err(|error| TableError { file: file.to_owned(), line: None, reason: error.into() })?;
        Split::read_from(file, opened)
    }

    /// The same from anything that can be read; `file` is for messages.
    ///
    /// # Errors
    /// As [`Split::read`].
    pub fn read_from(file: &Path, source: impl Read) -> Result<Split, TableError> {
        let mut source = BufReader::new(source);
        let (plan, labels_sha256, n_comment_lines) = read_comment(file, &mut source)?;
        // Lines are counted from behind the comment from here on.
        let shift = |mut error: TableError| {
            error.line = error.line.map(|line| line + n_comment_lines);
            error
        };
        let slices = Table::new(file, source).and_then(|table| read_slices(table, &plan)).map_err(shift)?;
        let split = Split { plan, labels_sha256, slices };
        if split.plan.mode == SplitMode::Patient && split.patients().1 > 0 {
            let reason = TableReason::Other(format!("{} patients are in more than one part", split.patients().1));
            return Err(TableError { file: file.to_owned(), line: None, reason });
        }
        Ok(split)
    }

    /// What is other now than when the split was made.
    pub fn differences(&self, members: &[Member<'_>], labels_sha256: &str) -> Differences {
        let mut found = Differences { labels_changed: labels_sha256 != self.labels_sha256, ..Differences::default() };
        let mut seen = vec![false; self.slices.len()];
        for member in members {
            match self.slices.binary_search_by(|slice| (*slice.instance).cmp(member.instance)) {
                Err(_) => found.new.push(member.instance.to_owned()),
                Ok(at) => {
                    seen[at] = true;
                    if self.slices[at].group != member.group {
                        found.regrouped.push(member.instance.to_owned());
                    }
                }
            }
        }
        let missing = self.slices.iter().zip(seen).filter(|(_, seen)| !seen);
        found.missing = missing.map(|(slice, _)| slice.instance.to_string()).collect();
        found
    }
}

/// Reads the comment and nothing behind it: plan, digest of the labels, number of lines.
fn read_comment(file: &Path, source: &mut impl BufRead) -> Result<(Plan, String, u64), TableError> {
    let mut line_number = 0;
    let mut next = |prefix: &str| -> Result<String, TableError> {
        line_number += 1;
        let fail = |reason| TableError { file: file.to_owned(), line: Some(line_number), reason };
        let mut line = Vec::new();
        // A file that is no split may be one endless line.
        source.take(1 << 16).read_until(b'\n', &mut line).map_err(|error| fail(error.into()))?;
        let text = String::from_utf8_lossy(&line);
        match text.trim_end().strip_prefix(prefix) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => Err(fail(TableReason::Other(format!("`{prefix}` must stand here; it is no split of ichd")))),
        }
    };
    next(MAGIC)?;
    let seed = next("# seed:")?;
    let mode = next("# mode:")?;
    let fractions = next("# fractions:")?;
    let labels_sha256 = next("# labels_sha256:")?;
    let fail = |line, sentence: String| TableError {
        file: file.to_owned(),
        line: Some(line),
        reason: TableReason::Other(sentence),
    };
    let seed = seed.parse().map_err(|_| fail(2, format!("`{}` is no seed", shown(seed.as_bytes()))))?;
    let mode =
        SplitMode::from_word(&mode).ok_or_else(|| fail(3, format!("`{}` is no mode", shown(mode.as_bytes()))))?;
    let parts: Option<Vec<Part>> = fractions.split(", ").map(part).collect();
    let parts = parts.filter(|parts| parts.len() <= FOLDS_MAX && !has_twins(parts));
    let parts = parts.ok_or_else(|| fail(4, "names and fractions of parts must stand here".into()))?;
    Ok((Plan { mode, seed, parts }, labels_sha256, 5))
}

fn part(text: &str) -> Option<Part> {
    let (name, share) = text.split_once(' ')?;
    let share = share.parse().ok().filter(|share| (0.0..=1.0).contains(share))?;
    is_part_name(name).then(|| Part { name: name.to_owned(), share })
}

/// Whether a part may have that name: small letters, digits, dashes.
pub fn is_part_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&name.len()) && name.bytes().all(fine)
}

fn has_twins(parts: &[Part]) -> bool {
    parts.iter().enumerate().any(|(idx, part)| parts[..idx].iter().any(|other| other.name == part.name))
}

fn read_slices<R: Read>(mut table: Table<R>, plan: &Plan) -> Result<Vec<Assigned>, TableError> {
    if table.columns != ["instance", "group", "part"] {
        return Err(table.error_here(TableReason::Header("`instance,group,part` must stand here".into())));
    }
    let mut slices: Vec<Assigned> = Vec::new();
    while table.advance()? {
        let other = |sentence: String| table.error_here(TableReason::Other(sentence));
        let instance: Box<str> = of_csv_cell(table.id(0)?).into();
        let group = std::str::from_utf8(table.field(1)).ok().and_then(GroupKey::from_hex);
        let group = group.ok_or_else(|| other(format!("`{}` is no key of a group", shown(table.field(1)))))?;
        let part = plan.parts.iter().position(|part| part.name.as_bytes() == table.field(2));
        let part = part.and_then(|part| u16::try_from(part).ok());
        let part = part.ok_or_else(|| other(format!("`{}` is no part of this split", shown(table.field(2)))))?;
        if slices.last().is_some_and(|last| last.instance >= instance) {
            return Err(other("instances must stand in order, each once".into()));
        }
        slices.push(Assigned { instance, group, part });
    }
    Ok(slices)
}

/// What is other than when a split was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Slices of the split that are not there any more.
    pub missing: Vec<String>,
    /// Slices that are in no part.
    pub new: Vec<String>,
    /// Slices that belong to another patient now.
    pub regrouped: Vec<String>,
    /// The label table says something else.
    pub labels_changed: bool,
}

impl Differences {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Differences::default()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sentences = Vec::new();
        for (slices, what) in [
            (&self.missing, "slices of the split are not there any more"),
            (&self.new, "slices are in no part of the split"),
            (&self.regrouped, "slices belong to another patient than in the split"),
        ] {
            if !slices.is_empty() {
                let examples: Vec<&str> = slices.iter().take(3).map(String::as_str).collect();
                sentences.push(format!("{} {what} ({})", slices.len(), examples.join(", ")));
            }
        }
        if self.labels_changed {
            sentences.push("the label table is another one than the split was made for".into());
        }
        f.write_str(&sentences.join("; "))
    }
}

#[cfg(test)]
#[path = "split_file_tests.rs"]
mod tests;
