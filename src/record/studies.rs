//! Summaries of studies that had no news for long enough.

use std::time::Duration;

use super::Recorder;
use crate::clock::{Tick, rfc3339};
use crate::error::Fatal;
use crate::results::study_path;
use crate::study::{StudySlice, summary};

impl Recorder {
    fn quiet(&self) -> Duration {
        Duration::from_secs(self.results.study_quiet_secs)
    }

    /// How long until `write_quiet_studies` may have something to do.
    pub fn until_next_study(&self) -> Duration {
        let now = self.clock.now();
        let waits = self.studies.values().map(|since| (*since + self.quiet()).saturating_sub(now));
        waits.min().unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(1))
    }

    /// Sums up the studies that had no news for long enough, or all that had any.
    ///
    /// # Errors
    /// A summary or the ledger could not be written in several tries.
    pub fn write_quiet_studies(&mut self, all: bool) -> Result<(), Fatal> {
        let (now, quiet) = (self.clock.now(), self.quiet());
        let due = |since: &Tick| all || *since + quiet <= now;
        let mut studies: Vec<String> =
            self.studies.iter().filter(|(_, since)| due(since)).map(|(s, _)| s.clone()).collect();
        studies.sort();
        for study in studies {
            self.write_study(&study)?;
            self.studies.remove(&study);
        }
        Ok(())
    }

    fn write_study(&self, study: &str) -> Result<(), Fatal> {
        let records = self.patience.insist("reading the ledger", || self.ledger.slices_of_study(study))?;
        let mut slices = Vec::new();
        for record in &records {
            let result = self.read_result(&self.results.path.join(&record.result))?;
            slices.extend(result.and_then(|result| StudySlice::from_result(&result)));
        }
        let revision = self.patience.insist("reading the ledger", || self.ledger.revision(study))? + 1;
        let created = rfc3339(self.clock.wall());
        let n_slices = slices.len();
        let json = summary(study, slices, self.results.smoothing, revision, &created);
        let path = self.results.path.join(study_path(study));
        let text = format!("{json:#}\n");
        self.patience.insist("writing a study's summary", || self.disk.write_whole(&path, text.as_bytes()))?;
        self.patience.insist("writing the ledger", || self.ledger.study_written(study, revision))?;
        tracing::info!(study = %path.parent().unwrap_or(&path).display(), slices = n_slices, revision, "A study is summed up.");
        Ok(())
    }
}
