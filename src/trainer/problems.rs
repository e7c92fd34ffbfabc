//! What is wrong with a folder of labelled images, and whether training may start all the same. Knows no file.

use std::collections::BTreeMap;
use std::fmt;

use super::settings::DataSetting;
use crate::reject::RejectCode;

/// Most examples that are kept of each kind.
const EXAMPLES_MAX: usize = 5;

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// A file that is no usable slice. Also files that are no images at all, which only count if they are labelled.
    Unreadable(RejectCode),
    /// A slice that the table does not know.
    Unlabelled,
    /// A labelled image without a file.
    WithoutFile,
    /// A second file of an instance; the first one, by path, is used.
    Duplicate,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unreadable(code) => write!(f, "unusable file ({code})"),
            Problem::Unlabelled => f.write_str("file without a label"),
            Problem::WithoutFile => f.write_str("label without a file"),
            Problem::Duplicate => f.write_str("second file of an instance"),
        }
    }
}

/// How often a problem occurs, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occurrences {
    /// How often.
    pub count: usize,
    /// The first few: paths, or identifiers of images without a file.
    pub examples: Vec<String>,
}

/// All problems of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProblemTable {
    /// By kind.
    pub rows: BTreeMap<Problem, Occurrences>,
    /// Labelled images.
    pub n_labelled: usize,
    /// Labelled images that have a file, but no usable one.
    pub n_unusable: usize,
    /// Labelled images without a file.
    pub n_without_file: usize,
}

/// A folder with too many problems.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TooManyProblems {
    /// No image is left.
    #[error("no labelled image is usable")]
    NothingLeft,
    /// More than the settings allow.
    #[error(
        "{unusable} of {labelled} labelled images are unusable ({:.2} %), more than problems_max allows ({:.2} %){}",
        100.0 * share(*.unusable, *.labelled),
        100.0 * .max,
        if *.without_file > 0 { format!("; {without_file} of them have no file: if that is meant, set files_must_exist to false") } else { String::new() }
    )]
    Share {
        /// Unusable ones that count.
        unusable: usize,
        /// Labelled images that count.
        labelled: usize,
        /// Those of the unusable ones that have no file.
        without_file: usize,
        /// `problems_max`.
        max: f64,
    },
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl ProblemTable {
    /// Notes a problem.
    pub fn note(&mut self, problem: Problem, example: impl FnOnce() -> String) {
        let row = self.rows.entry(problem).or_default();
        row.count += 1;
        if row.examples.len() < EXAMPLES_MAX {
            row.examples.push(example());
        }
    }

    /// How often a problem occurs.
    pub fn count(&self, problem: Problem) -> usize {
        self.rows.get(&problem).map_or(0, |row| row.count)
    }

    /// Whether training may start: at most `problems_max` of the labelled images are unusable. Where files need not exist,
    /// images without one count neither as unusable nor as labelled.
    ///
    /// # Errors
    /// Too many are unusable, or none is usable.
    pub fn may_train(&self, setting: &DataSetting) -> Result<(), TooManyProblems> {
        let usable = self.n_labelled - self.n_unusable - self.n_without_file;
        if usable == 0 {
            return Err(TooManyProblems::NothingLeft);
        }
        let without_file = if setting.files_must_exist { self.n_without_file } else { 0 };
        let unusable = self.n_unusable + without_file;
        let labelled = usable + unusable;
        if share(unusable, labelled) > setting.problems_max {
            return Err(TooManyProblems::Share { unusable, labelled, without_file, max: setting.problems_max });
        }
        Ok(())
    }

    /// As lines, a kind each.
    pub fn lines(&self) -> Vec<String> {
        let line = |(problem, row): (&Problem, &Occurrences)| {
            let more = if row.count > row.examples.len() { ", ..." } else { "" };
            format!("{:>9} {problem}: {}{more}", row.count, row.examples.join(", "))
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(n_labelled: usize, n_unusable: usize, n_without_file: usize) -> ProblemTable {
        ProblemTable { n_labelled, n_unusable, n_without_file, ..ProblemTable::default() }
    }

    #[test]
    fn training_starts_up_to_the_share_and_not_beyond() {
        let setting = DataSetting::default();
        assert_eq!(table(1000, 10, 0).may_train(&setting), Ok(()));
        assert_eq!(table(752_803, 1, 0).may_train(&setting), Ok(()));
        let error = table(1000, 4, 7).may_train(&setting).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "11 of 1000 labelled images are unusable (1.10 %), more than problems_max allows (1.00 %)"
            )
        );
        assert!(error.contains("7 of them have no file"), "{error}");
        assert!(!table(1000, 11, 0).may_train(&setting).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn a_part_of_the_files_is_fine_if_that_is_meant() {
        let part = DataSetting { files_must_exist: false, ..DataSetting::default() };
        assert_eq!(table(1000, 1, 899).may_train(&part), Ok(()));
        assert!(matches!(
            table(1000, 2, 899).may_train(&part),
            Err(TooManyProblems::Share { unusable: 2, labelled: 101, without_file: 0, .. })
        ));
        assert_eq!(table(1000, 0, 1000).may_train(&part), Err(TooManyProblems::NothingLeft));
        assert_eq!(table(0, 0, 0).may_train(&part), Err(TooManyProblems::NothingLeft));
    }

    #[test]
    fn problems_are_counted_with_a_few_examples() {
        let mut problems = ProblemTable::default();
        (0..9).for_each(|n| problems.note(Problem::Unlabelled, || format!("f{n}")));
        problems.note(Problem::Unreadable(RejectCode::ShortPixels), || "g".into());
        assert_eq!(problems.count(Problem::Unlabelled), 9);
        assert_eq!(
            problems.lines(),
            ["        1 unusable file (short-pixels): g", "        9 file without a label: f0, f1, f2, f3, f4, ..."]
        );
    }
}
