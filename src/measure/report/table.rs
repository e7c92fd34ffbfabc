//! A table and its three forms: plain text, Markdown, HTML. Knows nothing of what it holds.

use std::fmt::Write as _;

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its alignment.
    pub align: Align,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// The best value of its column: an asterisk in text, bold elsewhere.
    pub best: bool,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell { text: text.into(), best: false }
    }
}

/// Rows under heads, a caption above and notes below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Heads.
    pub columns: Vec<Column>,
    /// As many cells a row as there are heads; missing ones are empty, further ones left out.
    pub rows: Vec<Vec<Cell>>,
    /// Sentences.
    pub notes: Vec<String>,
}

/// Text for HTML and XML: markup and quotes escaped, characters that XML has no form for replaced.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(letter),
            '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            other if other.is_control() => out.push('\u{FFFD}'),
            other => out.push(other),
        }
    }
    out
}

/// Text for a cell or a line of Markdown: nothing in it is markup, and it stays on its line.
pub fn markdown_escaped(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    for (idx, letter) in letters.iter().enumerate() {
        let word = |at: Option<usize>| at.and_then(|at| letters.get(at)).is_some_and(|other| other.is_alphanumeric());
        match letter {
            '\\' | '|' | '<' | '>' | '*' | '`' | '[' | ']' | '&' | '~' | '#' => out.extend(['\\', *letter]),
            // As in mobilenet_v2, where it is no markup.
            '_' if word(idx.checked_sub(1)) && word(Some(idx + 1)) => out.push('_'),
            '_' => out.push_str("\\_"),
            other if other.is_control() => out.push(' '),
            other => out.push(*other),
        }
    }
    out
}

impl Table {
    /// A table without rows yet; columns are names with alignments.
    pub fn new(caption: impl Into<String>, columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(name, align)| Column { name: (*name).to_owned(), align: *align }).collect();
        Table { caption: caption.into(), columns, ..Table::default() }
    }

    /// A row's cells, one for each column.
    fn cells<'a>(&'a self, row: &'a [Cell]) -> impl Iterator<Item = (&'a Column, &'a str, bool)> {
        let cell = |idx: usize| row.get(idx).map_or(("", false), |cell| (cell.text.as_str(), cell.best));
        self.columns.iter().enumerate().map(move |(idx, column)| (column, cell(idx).0, cell(idx).1))
    }

    /// For a terminal: columns in line, the best values with an asterisk. Ends with a line end.
    pub fn text(&self) -> String {
        let starred = |idx: usize| self.rows.iter().any(|row| row.get(idx).is_some_and(|cell| cell.best));
        let n_columns = self.columns.len();
        // Asterisks get a place of their own, so that digits stay in line.
        let stars: Vec<bool> = (0..n_columns).map(starred).collect();
        let mut lines: Vec<Vec<String>> = vec![self.columns.iter().map(|column| column.name.clone()).collect()];
        for row in &self.rows {
            let mark = |idx: usize, best: bool| {
                if !stars[idx] {
                    ""
                } else if best {
                    "*"
                } else {
                    " "
                }
            };
            let cells = self.cells(row).enumerate().map(|(idx, (_, text, best))| {
                let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
                format!("{text}{}", mark(idx, best))
            });
            lines.push(cells.collect());
        }
        let width = |idx: usize| lines.iter().map(|line| line[idx].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..n_columns).map(width).collect();
        let mut out = format!("{}\n", self.caption);
        for (at, line) in lines.iter().enumerate() {
            let padded =
                line.iter().zip(&self.columns).zip(&widths).map(|((text, column), width)| match column.align {
                    Align::Left => format!("{text:<width$}"),
                    Align::Right => format!("{text:>width$}"),
                });
            let joined = padded.collect::<Vec<String>>().join("  ");
            out.push_str(joined.trim_end());
            out.push('\n');
            if at == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                out.push_str(&rule.join("  "));
                out.push('\n');
            }
        }
        if stars.contains(&true) {
            out.push_str("* the best of its column\n");
        }
        for note in &self.notes {
            out.push_str(note);
            out.push('\n');
        }
        out
    }

    /// GitHub's Markdown, the best values bold. Ends with a line end.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = format!("**{}**\n\n", markdown_escaped(&self.caption));
        out.push_str(&line(self.columns.iter().map(|column| markdown_escaped(&column.name)).collect()));
        let rule = |column: &Column| if column.align == Align::Right { "---:" } else { ":---" }.to_owned();
        out.push_str(&line(self.columns.iter().map(rule).collect()));
        for row in &self.rows {
            let cell = |(_, text, best): (&Column, &str, bool)| {
                let text = markdown_escaped(text);
                if best { format!("**{text}**") } else { text }
            };
            out.push_str(&line(self.cells(row).map(cell).collect()));
        }
        for note in &self.notes {
            let _ = write!(out, "\n{}\n", markdown_escaped(note));
        }
        out
    }

    /// A `table` element for [`super::Page`], the best values `strong`, with notes after it.
    pub fn html(&self) -> String {
        let class = |column: &Column| if column.align == Align::Right { " class=\"number\"" } else { "" };
        let mut out =
            format!("<div class=\"wide\"><table>\n<caption>{}</caption>\n<thead><tr>", escaped(&self.caption));
        for column in &self.columns {
            let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(column), escaped(&column.name));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (idx, (column, text, best)) in self.cells(row).enumerate() {
                let text = escaped(text);
                let text = if best { format!("<strong>{text}</strong>") } else { text };
                // The first column names the row.
                let (open, close) = if idx == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
                let _ = write!(out, "<{open}{}>{text}</{close}>", class(column));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>\n");
        for note in &self.notes {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escaped(note));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> Table {
        let mut table = Table::new("A & B", &[("name", Align::Left), ("value", Align::Right)]);
        table.rows.push(vec!["mobilenet_v2".into(), Cell { text: "12.5".into(), best: true }]);
        table.rows.push(vec!["<x|y>".into(), "3".into()]);
        table.rows.push(vec!["short".into()]);
        table.notes.push("A *note*.".into());
        table
    }

    #[test]
    fn as_text() {
        let expected = "\
A & B
name          value
------------  -----
mobilenet_v2  12.5*
<x|y>            3
short
* the best of its column
A *note*.
";
        assert_eq!(table().text(), expected);
    }

    #[test]
    fn as_markdown() {
        let expected = r"**A \& B**

| name | value |
| :--- | ---: |
| mobilenet_v2 | **12.5** |
| \<x\|y\> | 3 |
| short |  |

A \*note\*.
";
        assert_eq!(table().markdown(), expected);
        assert_eq!(markdown_escaped("_a_ b\nc_"), "\\_a\\_ b c\\_");
    }

    #[test]
    fn as_html() {
        let expected = r#"<div class="wide"><table>
<caption>A &amp; B</caption>
<thead><tr><th scope="col">name</th><th scope="col" class="number">value</th></tr></thead>
<tbody>
<tr><th scope="row">mobilenet_v2</th><td class="number"><strong>12.5</strong></td></tr>
<tr><th scope="row">&lt;x|y&gt;</th><td class="number">3</td></tr>
<tr><th scope="row">short</th><td class="number"></td></tr>
</tbody></table></div>
<p class="note">A *note*.</p>
"#;
        assert_eq!(table().html(), expected);
    }

    proptest! {
        #[test]
        fn no_text_becomes_markup(text in "\\PC*|[<>&\"'|\\\\*_`\n\u{0}\u{7f}]*") {
            let html = escaped(&text);
            prop_assert!(!html.contains(['<', '>', '"', '\'', '\u{0}']), "{}", html);
            let mut table = Table::new("t", &[("a", Align::Left), ("b", Align::Right)]);
            table.rows.push(vec![Cell::from(text.as_str()), Cell::from(text.as_str())]);
            // Three lines of Markdown and the caption's two; five of text at most.
            prop_assert_eq!(table.markdown().lines().count(), 5);
            prop_assert_eq!(table.text().lines().count(), 4);
            let bars = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
            prop_assert_eq!(table.markdown().lines().last().map(bars), Some(3));
        }
    }
}
