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

/// Puts what `<<` names under the keys of the mapping that it stands in, at any depth; the mapping's own keys win.
///
/// # Errors
/// The library's sentence: `<<` names something that is no mapping.
pub fn merge_keys(value: &mut Value) -> Result<(), String> {
    value.apply_merge().map_err(|error| error.to_string())
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
            // Deeper blocks may hold a key of the same name.
            Step::Key(key) => within
                .filter_map(|at| Some((key_column(lines[at], key)?, at)))
                .min_by_key(|(column, _)| *column)
                .map(|(_, at)| at),
            Step::Item(item) => nth_item(&lines, within, *item),
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

/// The line of an item of the list that begins first in these lines; lists inside its items do not count.
fn nth_item(lines: &[&str], within: std::ops::Range<usize>, item: usize) -> Option<usize> {
    let items = || within.clone().filter(|&at| starts_item(lines[at]));
    let indent = indent_of(lines[items().next()?]);
    items().filter(|&at| indent_of(lines[at]) == indent).nth(item)
}

fn starts_item(line: &str) -> bool {
    line.trim_start().starts_with("- ")
}

fn holds_flow(line: &str) -> bool {
    line.split('#').next().unwrap_or("").contains(['{', '['])
}

/// Where `key:` stands in the line: at its start, or after `{`, `,` or `- `.
fn key_column(line: &str, key: &str) -> Option<usize> {
    let code = line.split(" #").next().unwrap_or("");
    if code.trim_start().starts_with('#') {
        return None;
    }
    let mut found = code.match_indices(key).filter(|(at, _)| {
        let before = code[..*at].trim_end_matches([' ', '"', '\'']);
        let after = code[at + key.len()..].trim_start_matches(['"', '\'']);
        after.starts_with(':') && (before.is_empty() || before.ends_with(['{', ',', '-']))
    });
    found.next().map(|(at, _)| at)
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

/// Marks, in a tree of what is known, a value that may be written alone or as a list of such values.
const OR_LIST: &str = "or_list";

/// Walks what was written beside what is known and reports unknown keys and wrong kinds, all of them. A known value
/// tagged `!or_list` stands for itself or a list of its kind.
pub fn compare(given: &Value, known: &Value, path: &mut Vec<Step>, report: &mut dyn FnMut(&[Step], String)) {
    match (given, known) {
        (Value::Mapping(given), Value::Mapping(known)) => {
            for (key, value) in given {
                let Some(name) = key.as_str() else {
                    report(path, "a key that is no word".into());
                    continue;
                };
                path.push(Step::Key(name.to_owned()));
                match known.get(name) {
                    Some(known) => compare(value, known, path, report),
                    None => report(path, unknown_key(name, known)),
                }
                path.pop();
            }
        }
        (Value::Sequence(given), Value::Sequence(known)) => {
            let Some(pattern) = known.first() else { return };
            for (item, value) in given.iter().enumerate() {
                path.push(Step::Item(item));
                compare(value, pattern, path, report);
                path.pop();
            }
        }
        (given, Value::Tagged(known)) if known.tag == OR_LIST => match given {
            Value::Sequence(_) => compare(given, &Value::Sequence(vec![known.value.clone()]), path, report),
            _ if kind(given) == kind(&known.value) => {}
            _ => report(path, format!("is {}; {}, or a list, would be right", kind(given), example(&known.value))),
        },
        (given, known) if kind(given) == kind(known) => {}
        (given, known) => report(path, format!("is {}; {} would be right", kind(given), example(known))),
    }
}

fn unknown_key(name: &str, known: &Mapping) -> String {
    let names: Vec<&str> = known.keys().filter_map(Value::as_str).collect();
    let near = names.iter().min_by_key(|known| edits(name, known)).filter(|known| edits(name, known) <= 3);
    match near {
        Some(near) => format!("is unknown; did you mean `{near}`?"),
        None => format!("is unknown; here stand {}", names.join(", ")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

fn example(known: &Value) -> String {
    let text = to_text(known).unwrap_or_default().replace(&format!("!{OR_LIST} "), "");
    let text = text.trim().lines().map(str::trim).collect::<Vec<_>>().join(", ");
    format!("{} such as `{text}`", kind(known))
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
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

    #[test]
    fn lists_in_items_and_keys_of_the_same_name_are_told_apart() {
        let text = "routes:\n- models:\n  - name: a\n  - name: b\n  name: x\n# - name: c\n- name: y\n  models: [{ name: d }]\n";
        let at = |path: &[Step]| line_of(text, path);
        let route = |item: usize| vec![key("routes"), Step::Item(item)];
        assert_eq!(at(&[route(0), vec![key("name")]].concat()), 5);
        assert_eq!(at(&[route(0), vec![key("models"), Step::Item(1), key("name")]].concat()), 4);
        assert_eq!(at(&[route(1), vec![key("name")]].concat()), 7);
        assert_eq!(at(&[route(1), vec![key("models"), Step::Item(0), key("name")]].concat()), 8);
    }

    #[test]
    fn a_value_or_a_list_of_such_values() {
        let known = parse("a: !or_list CT\nb: 1").unwrap();
        let problems = |text: &str| {
            let mut found = Vec::new();
            compare(&parse(text).unwrap(), &known, &mut Vec::new(), &mut |path, sentence| {
                found.push(format!("{}: {sentence}", path_text(path)));
            });
            found
        };
        assert_eq!(problems("a: MR"), Vec::<String>::new());
        assert_eq!(problems("a: [MR, CT]"), Vec::<String>::new());
        assert_eq!(problems("a: 7"), ["a: is a number; text such as `CT`, or a list, would be right"]);
        assert_eq!(problems("a: [CT, 7]"), ["a[1]: is a number; text such as `CT` would be right"]);
    }
}
