//! What the tables of training have in common: a csv file with a header, columns by name, and errors that name file and
//! line. Knows no label.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use csv_core::ReadRecordResult;

/// Longest identifier that is believed: twice what DICOM allows.
pub const ID_BYTES_MAX: usize = 128;

/// Names of the column that holds the image's identifier, in small letters.
pub const ID_NAMES: &[&str] = &["id", "image", "instance", "sop_instance_uid"];

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {reason}", .file.display(), .line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct TableError {
    /// The file.
    pub file: PathBuf,
    /// The line from 1; nothing for what no line causes.
    pub line: Option<u64>,
    /// What is wrong with it.
    pub reason: TableReason,
}

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub enum TableReason {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no csv, or a row has another number of columns than the header.
    #[error("{0}")]
    Csv(String),
    /// The columns are not those of a known table.
    #[error("{0}")]
    Header(String),
    /// An identifier is missing, too long or unusable.
    #[error("{0}")]
    Id(String),
    /// A value that is no label.
    #[error("{id}: the value of {label} is `{value}`; 0 or 1 would be right")]
    Value {
        /// The image.
        id: String,
        /// The label.
        label: &'static str,
        /// What stands there, shortened.
        value: String,
    },
    /// Two rows that contradict each other.
    #[error("{id}: {what} differs from line {first_line}")]
    Conflict {
        /// The image.
        id: String,
        /// What differs.
        what: &'static str,
        /// The other row's line.
        first_line: u64,
    },
    /// An image without one of its rows.
    #[error("{id}: no row for {label}; each image needs six")]
    Incomplete {
        /// The image.
        id: String,
        /// The label that is missing.
        label: &'static str,
    },
    /// No row at all.
    #[error("it holds no rows")]
    Empty,
    /// A value other than it must be.
    #[error("{0}")]
    Other(String),
}

/// Most bytes of a row. Rows of labels take less than a hundred.
const ROW_BYTES_MAX: usize = 64 << 10;

/// Most columns.
const COLUMNS_MAX: usize = 1024;

/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// A table while it is read: one row in memory at a time, and a bounded one.
pub struct Table<R> {
    file: PathBuf,
    source: R,
    reader: csv_core::Reader,
    block: Vec<u8>,
    /// What is left of the block.
    left: Range<usize>,
    /// The row's fields, one behind the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    n_fields: usize,
    line: u64,
    /// Names of the columns, trimmed and in small letters.
    pub columns: Vec<String>,
}

impl Table<File> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// It cannot be read or has no header.
    pub fn open(file: &Path) -> Result<Self, TableError> {
        let opened = File::open(file);
        let opened = opened.map_err(|error| TableError { file: file.to_owned(), line: None, reason: error.into() })?;
        Table::new(file, opened)
    }
}

impl<R: Read> Table<R> {
    /// Reads the header. Lines that begin with `#` are comments. `file` is for messages.
    ///
    /// # Errors
    /// It cannot be read or has no header.
    pub fn new(file: &Path, source: R) -> Result<Self, TableError> {
        let mut table = Table {
            file: file.to_owned(),
            source,
            reader: csv_core::ReaderBuilder::new().comment(Some(b'#')).build(),
            block: vec![0; BLOCK_BYTES],
            left: 0..0,
            text: vec![0; ROW_BYTES_MAX],
            ends: vec![0; COLUMNS_MAX],
            n_fields: 0,
            line: 0,
            columns: Vec::new(),
        };
        if !table.read_row()? {
            return Err(table.error(TableReason::Header("it is empty".into())));
        }
        let name = |idx| String::from_utf8_lossy(table.field(idx)).to_ascii_lowercase();
        table.columns = (0..table.n_fields).map(name).collect();
        Ok(table)
    }

    /// The column of one of these names.
    ///
    /// # Errors
    /// Two columns have such a name.
    pub fn column(&self, names: &[&str]) -> Result<Option<usize>, TableError> {
        let mut found = (0..self.columns.len()).filter(|idx| names.contains(&self.columns[*idx].as_str()));
        let first = found.next();
        match found.next() {
            Some(second) => {
                let sentence = format!("column {} repeats column {}", second + 1, first.map_or(0, |idx| idx + 1));
                Err(self.error(TableReason::Header(sentence)))
            }
            None => Ok(first),
        }
    }

    /// Reads the next row; `false` at the end.
    ///
    /// # Errors
    /// It cannot be read or is no row.
    pub fn advance(&mut self) -> Result<bool, TableError> {
        let more = self.read_row()?;
        if more && self.n_fields != self.columns.len() {
            let sentence = format!("{} columns; the header has {}", self.n_fields, self.columns.len());
            return Err(self.error_here(TableReason::Csv(sentence)));
        }
        Ok(more)
    }

    fn read_row(&mut self) -> Result<bool, TableError> {
        let (mut n_text, mut n_ends) = (0, 0);
        loop {
            if self.left.is_empty() {
                let n_read = self.fill().map_err(|error| self.error(error.into()))?;
                self.left = 0..n_read;
            }
            let input = &self.block[self.left.clone()];
            let (result, n_in, n_out, n_end) =
                self.reader.read_record(input, &mut self.text[n_text..], &mut self.ends[n_ends..]);
            let line_ended = n_in > 0 && input[n_in - 1] == b'\n';
            self.left.start += n_in;
            (n_text, n_ends) = (n_text + n_out, n_ends + n_end);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::End => return Ok(false),
                ReadRecordResult::Record => {
                    self.n_fields = n_ends;
                    // The parser is on the next line already, if it has seen the end of this one.
                    self.line = self.reader.line() - u64::from(line_ended);
                    return Ok(true);
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    self.line = self.reader.line();
                    let sentence =
                        format!("more than {COLUMNS_MAX} columns or {ROW_BYTES_MAX} bytes; a quote may be open");
                    return Err(self.error_here(TableReason::Csv(sentence)));
                }
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.source.read(&mut self.block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Line of the row, from 1; the last one of a row of several lines.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// A field of the row without the blanks around it; empty if there is none.
    pub fn field(&self, column: usize) -> &[u8] {
        if column >= self.n_fields {
            return &[];
        }
        let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..self.ends[column]).unwrap_or_default().trim_ascii()
    }

    /// A field that must be an identifier.
    ///
    /// # Errors
    /// It is empty, too long or no text.
    pub fn id(&self, column: usize) -> Result<&str, TableError> {
        let fail = |sentence: &str| Err(self.error_here(TableReason::Id(sentence.to_owned())));
        match std::str::from_utf8(self.field(column)) {
            Err(_) => fail("the identifier is not UTF-8"),
            Ok("") => fail("the identifier is empty"),
            Ok(id) if id.len() > ID_BYTES_MAX => fail(&format!("the identifier is longer than {ID_BYTES_MAX} bytes")),
            Ok(id) => Ok(id),
        }
    }

    /// An error of the whole file.
    pub fn error(&self, reason: TableReason) -> TableError {
        TableError { file: self.file.clone(), line: None, reason }
    }

    /// An error of the present row.
    pub fn error_here(&self, reason: TableReason) -> TableError {
        TableError { file: self.file.clone(), line: Some(self.line), reason }
    }
}

/// Untrusted text in a message: short and printable.
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(24).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Table<&[u8]>, TableError> {
        Table::new(Path::new("t.csv"), text.as_bytes())
    }

    #[test]
    fn rows_come_with_their_lines_and_without_blanks() {
        let mut table = table("# note\n ID , Group\na,1\n\n b , 2 \n").unwrap();
        assert_eq!(table.columns, ["id", "group"]);
        assert_eq!((table.column(ID_NAMES).unwrap(), table.column(&["nothing"]).unwrap()), (Some(0), None));
        let mut rows = Vec::new();
        while table.advance().unwrap() {
            rows.push((table.line(), table.id(0).unwrap().to_owned(), table.field(1).to_owned()));
        }
        assert_eq!(rows, [(3, "a".into(), b"1".to_vec()), (5, "b".into(), b"2".to_vec())]);
    }

    #[test]
    fn lines_are_counted_right_whatever_ends_them_and_however_they_are_read() {
        /// Gives a byte at a time.
        struct Drops<'a>(&'a [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(&mut buffer[..1])
            }
        }
        for text in ["id\na\n\n# c\nb", "id\r\na\r\n\r\n# c\r\nb\r\n", "\u{feff}id\na\n\n\n\"b\"\n"] {
            let lines = |mut table: Table<Box<dyn Read + '_>>| {
                let mut lines = Vec::new();
                while table.advance().unwrap() {
                    lines.push((table.line(), table.id(0).unwrap().to_owned()));
                }
                lines
            };
            let file = Path::new("t.csv");
            let expected = [(2, "a".to_owned()), (5, "b".to_owned())];
            assert_eq!(
                lines(Table::new(file, Box::new(text.as_bytes()) as Box<dyn Read>).unwrap()),
                expected,
                "{text:?}"
            );
            assert_eq!(
                lines(Table::new(file, Box::new(Drops(text.as_bytes())) as Box<dyn Read>).unwrap()),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_table_is_told_with_its_line() {
        assert_eq!(table("").err().unwrap().to_string(), "t.csv: it is empty");
        let mut ragged = table("a,b\n1,2\n1,2,3\n").unwrap();
        assert!(ragged.advance().unwrap());
        assert_eq!(ragged.advance().err().unwrap().to_string(), "t.csv:3: 3 columns; the header has 2");
        let twice = table("id,image\n").unwrap();
        assert_eq!(twice.column(ID_NAMES).err().unwrap().to_string(), "t.csv: column 2 repeats column 1");
        let mut empty_id = table("id,x\n ,1\n").unwrap();
        empty_id.advance().unwrap();
        assert_eq!(empty_id.id(0).err().unwrap().to_string(), "t.csv:2: the identifier is empty");
        let open = format!("id,x\na,\"{}", "b".repeat(ROW_BYTES_MAX));
        let error = table(&open).unwrap().advance().err().unwrap().to_string();
        assert!(error.starts_with("t.csv:2: more than"), "{error}");
        let wide = ",".repeat(COLUMNS_MAX);
        assert!(table(&wide).err().unwrap().to_string().starts_with("t.csv:1: more than"));
        let missing = Table::open(Path::new("/nowhere/t.csv")).err().unwrap();
        assert!(matches!(missing.reason, TableReason::Io(_)), "{missing}");
    }
}
