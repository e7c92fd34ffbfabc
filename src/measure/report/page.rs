//! A self-contained HTML page: no script, nothing from elsewhere, light and dark. Knows no model.

use std::fmt::Write as _;

use super::table::{Table, escaped};
use crate::measure::plot::Drawing;
use crate::results::NOTICE;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#22262b;--paper:#fff;--faint:#5c646e;--line:#d5d9de;--best:#e8f2ec}
@media(prefers-color-scheme:dark){:root{--ink:#dee2e8;--paper:#101216;--faint:#98a1ad;--line:#343945;--best:#1d3329}}
body{margin:2rem auto;max-width:72rem;padding:0 1rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.wide{overflow-x:auto;margin:1.25rem 0 .5rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding-bottom:.4rem}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
th{font-weight:600}tbody th{font-weight:400}.number{text-align:right}
strong{background:var(--best);box-shadow:0 0 0 .2rem var(--best);border-radius:.1rem}
.note,footer{color:var(--faint);font-size:.9em}.note{margin:.25rem 0}
figure{margin:1.25rem 0}svg{max-width:100%;height:auto;border-radius:.3rem}
";

/// A page that grows from top to bottom.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// An empty page.
    pub fn new(title: impl Into<String>) -> Self {
        Page { title: title.into(), body: String::new() }
    }

    /// Adds a heading.
    #[must_use]
    pub fn heading(mut self, text: &str) -> Self {
        let _ = writeln!(self.body, "<h2>{}</h2>", escaped(text));
        self
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn paragraph(mut self, text: &str) -> Self {
        let _ = writeln!(self.body, "<p>{}</p>", escaped(text));
        self
    }

    /// Adds a table.
    #[must_use]
    pub fn table(mut self, table: &Table) -> Self {
        self.body.push_str(&table.html());
        self
    }

    /// Adds a plot.
    #[must_use]
    pub fn drawing(mut self, drawing: &Drawing) -> Self {
        let _ = write!(self.body, "<figure>\n{}</figure>\n", drawing.svg());
        self
    }

    /// The content of the file.
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}<footer>{NOTICE}</footer>\n</body>\n</html>\n",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Align;
    use super::*;

    #[test]
    fn pages_are_whole_and_need_nothing() {
        let mut table = Table::new("t", &[("a", Align::Left)]);
        table.rows.push(vec!["<script>alert(1)</script>".into()]);
        let drawing = Drawing::new(10, 10, "</title><script>");
        let html = Page::new("a < b").heading("h & h").paragraph("p").table(&table).drawing(&drawing).html();
        assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
        assert!(html.contains("<title>a &lt; b</title>") && html.contains("<h2>h &amp; h</h2>"));
        assert!(html.contains(NOTICE) && html.contains("prefers-color-scheme:dark"));
        assert!(
            !html.contains("<script") && !html.contains("<link") && !html.contains("src=") && !html.contains("url(")
        );
    }
}
