//! Everything that an evaluation leaves to look at: curves, a page, the same in Markdown. Knows no file system.

use std::io;

use ichd_plugin::label::N_LABELS;

use super::{Page, confusion_table, label_table};
use crate::measure::Predictions;
use crate::measure::metrics::{Interval, Metrics};
use crate::measure::plot;

/// A model's answers on some slices, and their measures.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'e> {
    /// Which model on which slices.
    pub title: &'e str,
    /// Answers and truth.
    pub predictions: &'e Predictions,
    /// Their measures.
    pub metrics: &'e Metrics,
    /// 95 % intervals of the AUROCs.
    pub intervals: &'e [Option<Interval>; N_LABELS],
}

impl Evaluation<'_> {
    /// Names and contents: `roc`, `precision-recall` and `reliability` as PNG and SVG, and `<page>.html` and `<page>.md` with
    /// metrics by label and the confusion at the operating points.
    ///
    /// # Errors
    /// A picture cannot be encoded.
    pub fn files(&self, page: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
        let drawings = [
            ("roc", plot::roc(self.title, self.predictions, Some(self.intervals))),
            ("precision-recall", plot::precision_recall(self.title, self.predictions)),
            ("reliability", plot::reliability(self.title, self.predictions)),
        ];
        let mut files = Vec::new();
        let tables =
            [label_table(self.title, self.metrics, Some(self.intervals)), confusion_table(self.title, self.metrics)];
        let mut html = tables.iter().fold(Page::new(self.title), Page::table);
        for (name, drawing) in &drawings {
            files.push((format!("{name}.png"), drawing.png()?));
            files.push((format!("{name}.svg"), drawing.svg().into_bytes()));
            html = html.drawing(drawing);
        }
        let markdown = tables.each_ref().map(|table| table.markdown()).join("\n");
        files.push((format!("{page}.html"), html.html().into_bytes()));
        files.push((format!("{page}.md"), markdown.into_bytes()));
        Ok(files)
    }
}
