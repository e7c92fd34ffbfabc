//! The daily log: one line for each finished slice, in files by the UTC day. Knows what a line's number is, nothing else of
//! it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::disk::Disk;
use crate::error::Fatal;
use crate::patience::Patience;
use crate::results::{is_log_name, log_path};

/// Writes the log.
pub struct DailyLog {
    disk: Arc<dyn Disk>,
    patience: Patience,
    results: PathBuf,
    /// The file that was written to last, and its size.
    current: Option<(PathBuf, u64)>,
}

impl DailyLog {
    /// In the results folder.
    pub fn new(disk: Arc<dyn Disk>, patience: Patience, results: &Path) -> Self {
        DailyLog { disk, patience, results: results.to_owned(), current: None }
    }

    /// Appends whole lines to the file of a day.
    ///
    /// # Errors
    /// They could not be written in several tries.
    pub fn append(&mut self, day: &str, lines: &str) -> Result<(), Fatal> {
        let path = self.results.join(log_path(day));
        let end = match &self.current {
            Some((current, end)) if *current == path => *end,
            _ => self.patience.insist("reading the log", || self.disk.tail(&path))?.end,
        };
        // A try that failed half-way is written over, not continued.
        let append = || self.disk.append(&path, end, lines.as_bytes());
        let end = self.patience.insist("writing the log", append)?;
        self.current = Some((path, end));
        Ok(())
    }

    /// The highest number at the end of any file, 0 if there is none. Torn lines are cut off.
    ///
    /// # Errors
    /// A file could not be read in several tries.
    pub fn last_number(&self) -> Result<i64, Fatal> {
        let mut last = 0;
        let folder = self.results.join("log");
        let names = self.patience.insist("reading the log", || self.disk.names(&folder))?;
        // All of them: after a clock was set back the newest lines are not in the file of the latest day.
        for name in names.iter().filter(|name| is_log_name(name)) {
            let tail = self.patience.insist("reading the log", || self.disk.tail(&folder.join(name)))?;
            let number = tail.line.and_then(|line| serde_json::from_str::<Value>(&line).ok()?["seq"].as_i64());
            last = last.max(number.unwrap_or(0));
        }
        Ok(last)
    }
}
