//! The only file that knows the YAML library: text to values, and where in the text a key stands.
//! Knows no setting.

use serde::Serialize;
use serde::de::DeserializeOwned;
pub use serde_yaml::{Mapping, Value};

/// Parses a document.
///
/// # Errors
/// The library's sentence, which names line and column.
pub fn parse(text: &str) -> Result<Value, String> {
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

/// Reads a typed value from text.
///
/// # Errors
/// The library's sentence, which names the key, line and column.
pub fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

/// The value tree of a typed value.
///
/// # Errors
/// The library's sentence.
pub fn to_value<T: Serialize>(value: &T) -> Result<Value, String> {
    serde_yaml::to_value(value).map_err(|error| error.to_string())
}

/// A typed value as text.
///
/// # Errors
/// The library's sentence.
pub fn to_text<T: Serialize>(value: &T) -> Result<String, String> {
    serde_yaml::to_string(value).map_err(|error| error.to_string())
}

/// One step down from the root of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Item(usize),
}

/// A path as people write it: `windows[1].width`.
pub fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Item(item) => text.push_str(&format!("[{item}]")),
        }
    }
    text
}

/// The line, from 1, where the value at `path` stands, as near as block style tells: a key inside `{}` or `[]`
/// is found on the line where it is written, else on that of what encloses it.
pub fn line_of(text: &str, path: &[Step]) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let (mut first, mut end, mut found) = (0, lines.len(), 0);
    for step in path {
        let within = first..end;
        let hit = match step {
            Step::Key(key) => within.clone().find(|&at| holds_key(lines[at], key)),
            Step::Item(item) => within.clone().filter(|&at| starts_item(lines[at])).nth(*item),
        };
        let Some(at) = hit else { break };
        found = at;
        let indent = indent_of(lines[at]);
        first = at;
        let is_item = matches!(step, Step::Item(_));
        end = (at + 1..end).find(|&next| ends_block(lines[next], indent, is_item)).unwrap_or(end);
        if !is_item && !holds_flow(lines[at]) {
            first = at + 1;
        }
    }
    found + 1
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn starts_item(line: &str) -> bool {
    line.trim_start().starts_with("- ")
}

fn holds_flow(line: &str) -> bool {
    line.split('#').next().unwrap_or("").contains(['{', '['])
}

/// Whether `key:` stands at the start of the line, or after `{`, `,` or `- ` in it.
fn holds_key(line: &str, key: &str) -> bool {
    let code = line.split(" #").next().unwrap_or("");
    if code.trim_start().starts_with('#') {
        return false;
    }
    code.match_indices(key).any(|(at, _)| {
        let before = code[..at].trim_end_matches([' ', '"', '\'']);
        let after = code[at + key.len()..].trim_start_matches(['"', '\'']);
        after.starts_with(':') && (before.is_empty() || before.ends_with(['{', ',', '-']))
    })
}

fn ends_block(line: &str, indent: usize, is_item: bool) -> bool {
    let code = line.trim_start();
    if code.is_empty() || code.starts_with('#') {
        return false;
    }
    let deeper = indent_of(line) > indent;
    // The items of a list may stand as deep as the key that holds them.
    let same_level_item = !is_item && indent_of(line) == indent && starts_item(line);
    !deeper && !same_level_item
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# width: 9\ninbox:\n  path: a # path: b\n  settle_ms: 1\nwindows:\n  - { level: 40, width: 80 }\n  - level: 80\n    width: 0\nbatch: { slices_max: 0 }\n";

    fn line(path: &[Step]) -> usize {
        line_of(TEXT, path)
    }

    fn key(name: &str) -> Step {
        Step::Key(name.into())
    }

    #[test]
    fn keys_are_found_in_block_and_flow_style() {
        assert_eq!(line(&[key("inbox"), key("settle_ms")]), 4);
        assert_eq!(line(&[key("windows"), Step::Item(0), key("width")]), 6);
        assert_eq!(line(&[key("windows"), Step::Item(1), key("width")]), 8);
        assert_eq!(line(&[key("batch"), key("slices_max")]), 9);
        assert_eq!(line(&[key("windows"), Step::Item(7), key("width")]), 5, "what is missing is where it would be");
        assert_eq!(path_text(&[key("windows"), Step::Item(1), key("width")]), "windows[1].width");
    }
}
