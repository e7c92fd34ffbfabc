//! File names from untrusted identifiers. Knows no folder.

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
