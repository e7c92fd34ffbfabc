//! Text of DICOM values: trimming, and what of it may be shown to people. Knows no attribute.

/// Most characters of untrusted text in a sentence.
const SHOWN_MAX: usize = 40;

/// Without the padding that PS3.5 allows.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|letter: char| letter == '\0' || letter.is_ascii_whitespace())
}

/// A code string or UID from a file, made harmless for sentences and logs: anything else than letters, digits and a
/// few signs becomes `?`.
pub(super) fn shown(text: &str) -> String {
    let harmless = |letter: char| letter.is_ascii_alphanumeric() || " _.-+".contains(letter);
    text.chars().take(SHOWN_MAX).map(|letter| if harmless(letter) { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_trimmed_and_strange_letters_are_hidden() {
        assert_eq!(trimmed(" CT \0\0"), "CT");
        assert_eq!(shown("CT\n\u{1b}[31m;=1"), "CT???31m??1");
        assert_eq!(shown(&"a".repeat(1000)).len(), SHOWN_MAX);
    }
}
