//! Reports: tables as text, Markdown and HTML, a self-contained page, the model card. Knows no file.

mod card;
mod comparison;
mod evaluation;
mod files;
mod page;
mod table;

pub use card::{Card, DataFacts, LIMITS};
pub use comparison::{By, ModelRow, comparison_table};
pub use evaluation::{confusion_table, label_table};
pub use files::Evaluation;
pub use page::Page;
pub use table::{Align, Cell, Column, Table, escaped, markdown_escaped};

/// What stands where a value is undefined.
const NOTHING: &str = "-";

/// A number with so many digits after the point; nothing for what is none.
fn decimal(value: Option<f64>, digits: usize) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return NOTHING.to_owned() };
    let text = format!("{value:.digits$}");
    // A negative number that rounds to 0 is 0.
    let is_zero = text.bytes().all(|letter| matches!(letter, b'-' | b'0' | b'.'));
    if is_zero { text.trim_start_matches('-').to_owned() } else { text }
}

/// A count in millions, as papers give parameters.
fn millions(count: u64) -> String {
    format!("{:.1} M", count as f64 / 1e6)
}

/// A whole number in groups of three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds a report against its golden file; `ICHD_BLESS=1 cargo test` rewrites it.
    pub(super) fn check(found: &str, name: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/measure/report/golden").join(name);
        if std::env::var_os("ICHD_BLESS").is_some() {
            std::fs::write(&path, found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(&path).unwrap(), "{name}");
    }

    #[test]
    fn numbers_look_like_this() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((millions(25_557_032), decimal(Some(f64::NAN), 4)), ("25.6 M".to_owned(), "-".to_owned()));
        assert_eq!([0.97125, -0.0004, -0.25].map(|value| decimal(Some(value), 3)), ["0.971", "0.000", "-0.250"]);
    }
}
