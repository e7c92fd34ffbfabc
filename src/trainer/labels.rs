//! The label table: which image shows what. Reads RSNA's long csv and a plain wide one; knows no file but the table.
//!
//! Long: `ID,Label`, six rows an image, where `ID` is the image, an underscore and the label. Wide: one row an image,
//! `id,any,epidural,...` in any order; further columns are ignored, and `any` may be missing.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use ichd_plugin::label::{Label, N_LABELS};
use sha2::{Digest, Sha256};

use super::table::{ID_NAMES, Table, TableError, TableReason, shown};
use crate::names::hex;

/// Truth of one image in label order.
pub type LabelRow = [bool; N_LABELS];

/// Index of `any`.
const ANY: usize = Label::Any as usize;

const ALL_SEEN: u8 = (1 << N_LABELS) - 1;

/// What each image shows. Rows are in the order of the identifiers, whatever the order in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelTable {
    ids: Vec<Box<str>>,
    bits: Vec<u8>,
}

impl LabelTable {
    /// A table from rows; of equal identifiers the first counts.
    pub fn from_rows(rows: impl IntoIterator<Item = (String, LabelRow)>) -> Self {
        let mut rows: Vec<(Box<str>, u8)> =
            rows.into_iter().map(|(id, row)| (id.into_boxed_str(), to_bits(row))).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows.dedup_by(|later, first| later.0 == first.0);
        let (ids, bits) = rows.into_iter().unzip();
        LabelTable { ids, bits }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The row of an image.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.ids.binary_search_by(|known| (**known).cmp(id)).ok()
    }

    /// Identifier of a row.
    pub fn id(&self, row: usize) -> &str {
        &self.ids[row]
    }

    /// Truth of a row.
    pub fn labels(&self, row: usize) -> LabelRow {
        let bits = self.bits[row];
        std::array::from_fn(|label| bits >> label & 1 == 1)
    }

    /// Positive images in label order.
    pub fn positives(&self) -> [u64; N_LABELS] {
        let mut counts = [0; N_LABELS];
        for row in 0..self.len() {
            for (count, label) in counts.iter_mut().zip(self.labels(row)) {
                *count += u64::from(label);
            }
        }
        counts
    }

    /// SHA-256 of what the table says, the same for both formats and any order of rows.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"ichd.labels.v1");
        for (id, bits) in self.ids.iter().zip(&self.bits) {
            // Lengths before texts: no two tables run together.
            hash.update((id.len() as u64).to_le_bytes());
            hash.update(id.as_bytes());
            hash.update([*bits]);
        }
        hex(&hash.finalize())
    }
}

fn to_bits(row: LabelRow) -> u8 {
    row.iter().enumerate().map(|(label, value)| u8::from(*value) << label).sum()
}

/// An image whose `any` is not what its subtypes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The image.
    pub id: String,
    /// Line of its `any`, from 1.
    pub line: u64,
}

/// A table and what was noticed while it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsRead {
    /// The table.
    pub table: LabelTable,
    /// Rows of the file.
    pub n_rows: u64,
    /// Rows that repeat what another row said.
    pub n_duplicate_rows: u64,
    /// Images whose `any` contradicts their subtypes, in the order of the identifiers. The table has what the file says.
    pub violations: Vec<Violation>,
}

impl LabelsRead {
    /// What people should know, as lines.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!("{} labelled images in {} rows", self.table.len(), self.n_rows)];
        if self.n_duplicate_rows > 0 {
            notes.push(format!("{} rows repeat others and were left out", self.n_duplicate_rows));
        }
        if !self.violations.is_empty() {
            let shown = self.violations.iter().take(3);
            let examples: Vec<String> = shown.map(|found| format!("{} (line {})", found.id, found.line)).collect();
            notes.push(format!(
                "{} images say something else under `any` than their subtypes do: {}",
                self.violations.len(),
                examples.join(", ")
            ));
        }
        notes
    }
}

/// Reads a table of either format.
///
/// # Errors
/// It cannot be read, is of neither format, has a value other than 0 and 1, contradicts itself, or lacks a row.
pub fn read(file: &Path) -> Result<LabelsRead, TableError> {
    parse(Table::open(file)?)
}

/// The same from anything that can be read; `file` is for messages.
///
/// # Errors
/// As [`read`].
pub fn read_from(file: &Path, source: impl Read) -> Result<LabelsRead, TableError> {
    parse(Table::new(file, source)?)
}

fn parse<R: Read>(mut table: Table<R>) -> Result<LabelsRead, TableError> {
    let mut gathered = Gathered::default();
    if table.columns == ["id", "label"] {
        while table.advance()? {
            long_row(&table, &mut gathered)?;
        }
    } else {
        let columns = wide_columns(&table)?;
        while table.advance()? {
            wide_row(&table, &columns, &mut gathered)?;
        }
    }
    gathered.finish(&table)
}

fn long_row<R: Read>(table: &Table<R>, gathered: &mut Gathered) -> Result<(), TableError> {
    let whole = table.id(0)?;
    let parts = whole.rsplit_once('_').filter(|(id, _)| !id.is_empty());
    let Some((id, label)) = parts.and_then(|(id, name)| Some((id, Label::from_name(name)?))) else {
        let sentence = format!("`{}` is not an image, an underscore and a label", shown(whole.as_bytes()));
        return Err(table.error_here(TableReason::Id(sentence)));
    };
    let value = value(table, 1, id, label)?;
    let known = gathered.note(id, label as usize, value, table.line());
    gathered.n_duplicate_rows += u64::from(known.map_err(|reason| table.error_here(reason))?);
    gathered.n_rows += 1;
    Ok(())
}

/// Columns of the identifier and of each label.
struct Wide {
    id: usize,
    labels: [Option<usize>; N_LABELS],
}

fn wide_columns<R: Read>(table: &Table<R>) -> Result<Wide, TableError> {
    let mut labels = [None; N_LABELS];
    for label in Label::ALL {
        labels[label as usize] = table.column(&[label.name()])?;
    }
    let missing = Label::SUBTYPES.into_iter().find(|label| labels[*label as usize].is_none());
    match (table.column(ID_NAMES)?, missing) {
        (Some(id), None) => Ok(Wide { id, labels }),
        (id, missing) => {
            let column = if id.is_none() { "id" } else { missing.map_or("id", Label::name) };
            Err(table.error(TableReason::Header(format!(
                "no column `{column}`; `ID,Label`, or `id` and a column for each label, would be right"
            ))))
        }
    }
}

fn wide_row<R: Read>(table: &Table<R>, columns: &Wide, gathered: &mut Gathered) -> Result<(), TableError> {
    let id = table.id(columns.id)?;
    let mut row = [false; N_LABELS];
    for label in Label::ALL {
        if let Some(column) = columns.labels[label as usize] {
            row[label as usize] = value(table, column, id, label)?;
        }
    }
    if columns.labels[ANY].is_none() {
        row[ANY] = row.contains(&true);
    }
    let mut all_known = true;
    for (label, value) in row.into_iter().enumerate() {
        let known = gathered.note(id, label, value, table.line());
        all_known &= known.map_err(|reason| table.error_here(reason))?;
    }
    gathered.n_duplicate_rows += u64::from(all_known);
    gathered.n_rows += 1;
    Ok(())
}

fn value<R: Read>(table: &Table<R>, column: usize, id: &str, label: Label) -> Result<bool, TableError> {
    match table.field(column) {
        b"0" => Ok(false),
        b"1" => Ok(true),
        other => {
            let (id, value) = (id.to_owned(), shown(other));
            Err(table.error_here(TableReason::Value { id, label: label.name(), value }))
        }
    }
}

/// What is known of an image so far.
struct Entry {
    bits: u8,
    seen: u8,
    /// Where each label was first said.
    lines: [u32; N_LABELS],
}

#[derive(Default)]
struct Gathered {
    index: HashMap<Box<str>, u32>,
    entries: Vec<Entry>,
    /// Rows of an image stand together, so most look-ups end here.
    last: Option<(String, u32)>,
    n_rows: u64,
    n_duplicate_rows: u64,
}

impl Gathered {
    /// Notes one value; `true` if it was known.
    fn note(&mut self, id: &str, label: usize, value: bool, line: u64) -> Result<bool, TableReason> {
        let at = self.entry(id)?;
        let entry = &mut self.entries[at as usize];
        let bit = 1u8 << label;
        if entry.seen & bit != 0 {
            if (entry.bits & bit != 0) == value {
                return Ok(true);
            }
            let (id, what) = (id.to_owned(), Label::ALL[label].name());
            return Err(TableReason::Conflict { id, what, first_line: entry.lines[label].into() });
        }
        entry.seen |= bit;
        entry.bits |= if value { bit } else { 0 };
        entry.lines[label] = u32::try_from(line).unwrap_or(u32::MAX);
        Ok(false)
    }

    fn entry(&mut self, id: &str) -> Result<u32, TableReason> {
        if let Some((last, at)) = &self.last
            && last == id
        {
            return Ok(*at);
        }
        let at = match self.index.get(id) {
            Some(at) => *at,
            None => {
                let at = u32::try_from(self.entries.len())
                    .map_err(|_| TableReason::Other("it holds more than 4 billion images".into()))?;
                self.index.insert(id.into(), at);
                self.entries.push(Entry { bits: 0, seen: 0, lines: [0; N_LABELS] });
                at
            }
        };
        self.last = Some((id.to_owned(), at));
        Ok(at)
    }

    fn finish<R: Read>(self, table: &Table<R>) -> Result<LabelsRead, TableError> {
        let Gathered { index, entries, n_rows, n_duplicate_rows, .. } = self;
        if entries.is_empty() {
            return Err(table.error(TableReason::Empty));
        }
        let mut order: Vec<(Box<str>, u32)> = index.into_iter().collect();
        if let Some(at) = entries.iter().position(|entry| entry.seen != ALL_SEEN) {
            let id =
                order.into_iter().find(|(_, idx)| *idx as usize == at).map(|(id, _)| id.into()).unwrap_or_default();
            let entry = &entries[at];
            let label = Label::ALL.into_iter().find(|label| entry.seen >> (*label as u8) & 1 == 0);
            let line = entry.lines.iter().copied().filter(|line| *line > 0).min().map(u64::from);
            let reason = TableReason::Incomplete { id, label: label.map_or("", Label::name) };
            return Err(TableError { line, ..table.error(reason) });
        }
        order.sort_unstable();
        let (mut ids, mut bits) = (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
        let mut violations = Vec::new();
        for (id, at) in order {
            let entry = &entries[at as usize];
            let any_subtype = entry.bits & !(1 << ANY) != 0;
            if any_subtype != (entry.bits >> ANY & 1 == 1) {
                violations.push(Violation { id: id.to_string(), line: entry.lines[ANY].into() });
            }
            ids.push(id);
            bits.push(entry.bits);
        }
        Ok(LabelsRead { table: LabelTable { ids, bits }, n_rows, n_duplicate_rows, violations })
    }
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
