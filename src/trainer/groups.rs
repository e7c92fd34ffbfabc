//! Who belongs together: the key of a patient, and a table that gives one for each image. Never keeps who it is.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::table::{ID_NAMES, Table, TableError, TableReason};
use crate::names::hex;

/// Names of the column that holds the group, in small letters.
const GROUP_NAMES: &[&str] = &["group", "patient", "patient_id", "patientid", "study", "study_instance_uid"];

/// SHA-256 of what identifies a group: PatientID, else StudyInstanceUID. A pseudonym: it can be compared, and who knows
/// an identifier can look it up, but it cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(pub [u8; 32]);

impl GroupKey {
    /// The key of an identifier, without the blanks around it.
    pub fn of(identifier: &str) -> Self {
        GroupKey(Sha256::digest(identifier.trim().as_bytes()).into())
    }

    /// The key that its text stands for.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut key = [0; 32];
        if bytes.len() != 64 {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |letter: u8| char::from(letter).to_digit(16).map(|digit| digit as u8);
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(GroupKey(key))
    }

    /// 64 bits of it, for orders of chance.
    pub fn tag(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupKey({:.12})", hex(&self.0))
    }
}

/// The group of each image.
pub type GroupTable = HashMap<Box<str>, GroupKey>;

/// Reads a csv with the image (`id`, `image`, `instance` or `sop_instance_uid`) and its group (`group`, `patient`,
/// `patient_id` or `study`); further columns are ignored.
///
/// # Errors
/// It cannot be read, lacks a column or an identifier, or names two groups for an image.
pub fn read(file: &Path) -> Result<GroupTable, TableError> {
    parse(Table::open(file)?)
}

fn parse<R: Read>(mut table: Table<R>) -> Result<GroupTable, TableError> {
    let (Some(id), Some(group)) = (table.column(ID_NAMES)?, table.column(GROUP_NAMES)?) else {
        let sentence = "columns `id` and `group` would be right".to_owned();
        return Err(table.error(TableReason::Header(sentence)));
    };
    let mut groups: HashMap<Box<str>, (GroupKey, u64)> = HashMap::new();
    while table.advance()? {
        let (id, key) = (table.id(id)?, GroupKey::of(table.id(group)?));
        match groups.get(id) {
            Some((known, first_line)) if *known != key => {
                let (id, first_line) = (id.to_owned(), *first_line);
                return Err(table.error_here(TableReason::Conflict { id, what: "the group", first_line }));
            }
            Some(_) => {}
            None => drop(groups.insert(id.into(), (key, table.line()))),
        }
    }
    if groups.is_empty() {
        return Err(table.error(TableReason::Empty));
    }
    Ok(groups.into_iter().map(|(id, (key, _))| (id, key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<GroupTable, String> {
        parse(Table::new(Path::new("g.csv"), text.as_bytes()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn groups_are_read_and_never_kept_as_they_stand() {
        let groups = text("Patient_ID,Image\n P1 ,a\nP1,b\nP2,c\nP2,c\n").unwrap();
        assert_eq!((groups["a"], groups.len()), (groups["b"], 3));
        assert_ne!(groups["a"], groups["c"]);
        assert!(!format!("{groups:?}").contains("P1"));
        assert_eq!(groups["a"], GroupKey::of("P1"));
        assert_eq!(text("id,group\na,1\na,2\n").unwrap_err(), "g.csv:3: a: the group differs from line 2");
        assert_eq!(text("id,what\n").unwrap_err(), "g.csv: columns `id` and `group` would be right");
    }

    #[test]
    fn keys_survive_their_text() {
        let key = GroupKey::of("x");
        assert_eq!(GroupKey::from_hex(&key.to_string()), Some(key));
        for wrong in ["", "0", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(GroupKey::from_hex(wrong), None);
        }
    }
}
