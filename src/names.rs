//! File names from untrusted identifiers. Knows no folder.

use std::ffi::{OsStr, OsString};

use sha2::{Digest, Sha256};

use crate::limits::NAME_LEN_MAX;

/// Names that the results folder uses itself.
const RESERVED: [&str; 2] = ["log", "study"];

/// A name that is safe as one path component: the identifier itself where it matches
/// `[A-Za-z0-9._-]{1,64}`, does not start with a dot and is not reserved, else a digest of it.
pub fn component(identifier: &str) -> String {
    let plain = !identifier.is_empty()
        && identifier.len() <= NAME_LEN_MAX
        && !identifier.starts_with('.')
        && !identifier.contains("..")
        && identifier.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let reserved = RESERVED.iter().any(|word| identifier.eq_ignore_ascii_case(word));
    if plain && !reserved { identifier.to_owned() } else { digest_name(identifier) }
}

/// A digest of an identifier that cannot serve as a name.
fn digest_name(identifier: &str) -> String {
    let digest = hex(&Sha256::digest(identifier.as_bytes()));
    format!("sha256-{}", &digest[..32])
}

/// Name of a result: the instance, with its frame where it has several.
pub fn instance_component(instance: &str, frame: Option<u32>) -> String {
    let name = component(instance);
    match frame {
        Some(frame) => format!("{name}-frame{frame:04}"),
        None => name,
    }
}

/// Longest name in bytes that common file systems take.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Name of a file that accompanies another: its name with `suffix` behind it, or a digest of its name where both together
/// are too long for a file system.
pub fn beside(name: &OsStr, suffix: &str) -> OsString {
    let fits = name.len() + suffix.len() <= FILE_NAME_BYTES_MAX;
    let mut beside = if fits { name.to_owned() } else { digest_name(&name.to_string_lossy()).into() };
    beside.push(suffix);
    beside
}

/// Letters that make a spreadsheet take a cell for a formula, and the sign that stops it.
const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

/// Untrusted text as a cell of a csv file: no spreadsheet takes it for a formula, and quotes stand where they must.
pub fn csv_cell(text: &str) -> String {
    let text = if text.starts_with(FORMULA) { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '#', '\n', '\r', ' ']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// The text that [`csv_cell`] was given, from the cell without its quotes.
pub fn of_csv_cell(cell: &str) -> &str {
    cell.strip_prefix('\'').unwrap_or(cell)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_identifiers_stay() {
        for name in ["1.2.840.113619.2.5", "ID_6431af929", "a-b_c.d"] {
            assert_eq!(component(name), name);
        }
        assert_eq!(instance_component("1.2.3", Some(7)), "1.2.3-frame0007");
    }

    #[test]
    fn companions_of_long_names_stay_within_the_file_system() {
        assert_eq!(beside(OsStr::new("a.dcm"), ".reason.json"), "a.dcm.reason.json");
        let longest = "x".repeat(FILE_NAME_BYTES_MAX);
        let name = beside(OsStr::new(&longest), ".reason.json");
        assert!(name.len() < 64 && name.to_string_lossy().starts_with("sha256-"), "{name:?}");
        assert_ne!(name, beside(OsStr::new(&format!("{}y", &longest[1..])), ".reason.json"));
    }

    #[test]
    fn cells_are_no_formulas() {
        assert_eq!(csv_cell("1.2.840"), "1.2.840");
        assert_eq!(csv_cell("=cmd|' /C calc'!A0"), "\"'=cmd|' /C calc'!A0\"");
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "=\"a\",b"] {
            let cell = csv_cell(text);
            let bare = cell.trim_matches('"').replace("\"\"", "\"");
            assert!(bare.starts_with('\''), "{text:?} became {cell:?}");
            if !text.contains('"') {
                assert_eq!(of_csv_cell(&bare), text);
            }
        }
    }

    #[test]
    fn hostile_and_reserved_identifiers_become_digests() {
        let long = "1".repeat(65);
        let hostile =
            ["", ".", "..", "../../etc/passwd", "a/b", "a..b", ".hidden", "log", "Study", "é", "a b", "a\nb", &long];
        let mut seen = std::collections::HashSet::new();
        for name in hostile {
            let safe = component(name);
            assert!(safe.starts_with("sha256-") && safe.len() == 39, "{name:?} became {safe}");
            assert!(seen.insert(safe), "{name:?} collides");
        }
    }
}
