//! What can be chosen about the data of training, with the report's values as defaults, and what makes no sense. Knows no
//! file; who holds these structures names the keys.

use serde::{Deserialize, Serialize};

/// How [`check`](DataSetting::check) and its like report: key and sentence.
pub type Report<'r> = &'r mut dyn FnMut(&str, String);

/// Which data may be trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSetting {
    /// Largest share, 0 to 1, of labelled images that may be unusable before training refuses to start.
    pub problems_max: f64,
    /// Whether a labelled image without a file counts as unusable. Off if the folder holds a part of what the table labels.
    pub files_must_exist: bool,
}

impl Default for DataSetting {
    fn default() -> Self {
        DataSetting { problems_max: 0.01, files_must_exist: true }
    }
}

/// What a split keeps together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitMode {
    /// All slices of a patient.
    Patient,
    /// Nothing, as the report did: slices of one patient stand on both sides, and figures come out too good.
    Slice,
}

impl SplitMode {
    /// The word in files.
    pub const fn word(self) -> &'static str {
        match self {
            SplitMode::Patient => "patient",
            SplitMode::Slice => "slice",
        }
    }

    /// The mode of that word.
    pub fn from_word(word: &str) -> Option<SplitMode> {
        [SplitMode::Patient, SplitMode::Slice].into_iter().find(|mode| mode.word() == word)
    }
}

/// Training and validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSetting {
    /// What stays together.
    pub mode: SplitMode,
    /// The same seed and data give the same split on every machine.
    pub seed: u64,
    /// Share of all slices, 0 to 1, that is used at all; 1 for all. The report used 0.1.
    pub subset: f64,
    /// Share of the used slices that validates. The report's 11,623 of 77,482 are 0.15.
    pub validation: f64,
    /// Number of folds for cross-validation; 0 for one split by `validation`.
    pub folds: usize,
    /// The fold that validates, from 0; the others train.
    pub fold: usize,
}

impl Default for SplitSetting {
    fn default() -> Self {
        SplitSetting { mode: SplitMode::Patient, seed: 1, subset: 1.0, validation: 0.15, folds: 0, fold: 0 }
    }
}

/// What the loss does about rare labels, instead of showing them more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositiveWeights {
    /// Positives and negatives weigh the same.
    None,
    /// A positive weighs the square root of negatives / positives.
    SquareRoot,
    /// A positive weighs negatives / positives: both classes weigh the same in sum.
    Balanced,
}

/// How often slices are seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceSetting {
    /// Times that a slice with an epidural hemorrhage stands in an epoch; 1 for no change. The report's 8.
    pub epidural_times: usize,
    /// Negatives drawn for each entry with a hemorrhage; 0 for all of them. The report wished in hindsight for 2.
    pub negatives_per_positive: f64,
    /// The alternative: weights in the loss.
    pub positive_weights: PositiveWeights,
    /// Largest weight of a positive; rare labels would let single slices rule the gradient.
    pub positive_weight_max: f64,
}

impl Default for BalanceSetting {
    fn default() -> Self {
        BalanceSetting {
            epidural_times: 8,
            negatives_per_positive: 0.0,
            positive_weights: PositiveWeights::None,
            positive_weight_max: 20.0,
        }
    }
}

/// Chances of crops and mirrors, for each slice and epoch anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentSetting {
    /// Probability of left becoming right.
    pub horizontal: f64,
    /// Probability of top becoming bottom.
    pub vertical: f64,
    /// Probability of a crop.
    pub crop: f64,
    /// Shortest side of a crop as a share of the slice's shorter side.
    pub crop_scale_min: f64,
    /// Longest side of a crop as a share of the slice's shorter side.
    pub crop_scale_max: f64,
}

impl Default for AugmentSetting {
    fn default() -> Self {
        AugmentSetting { horizontal: 0.25, vertical: 0.10, crop: 0.25, crop_scale_min: 0.8, crop_scale_max: 1.0 }
    }
}

impl AugmentSetting {
    /// Every slice whole and upright, as for validation.
    pub fn none() -> Self {
        AugmentSetting { horizontal: 0.0, vertical: 0.0, crop: 0.0, ..AugmentSetting::default() }
    }

    /// Reports values that make no sense; `key` is what stands before a field's name, such as `train.augment.`.
    pub fn check(&self, key: &str, report: Report<'_>) {
        for (name, value) in [("horizontal", self.horizontal), ("vertical", self.vertical), ("crop", self.crop)] {
            share(&format!("{key}{name}"), value, 0.0, report);
        }
        let (min, max) = (self.crop_scale_min, self.crop_scale_max);
        if !(min > 0.0 && min <= max && max <= 1.0) {
            let sentence = format!("{min} to {max} is not possible; above 0, at most 1 and in order would be right");
            report(&format!("{key}crop_scale_min"), sentence);
        }
    }
}

impl DataSetting {
    /// Reports values that make no sense.
    pub fn check(&self, key: &str, report: Report<'_>) {
        share(&format!("{key}problems_max"), self.problems_max, 0.0, report);
    }
}

impl SplitSetting {
    /// Reports values that make no sense.
    pub fn check(&self, key: &str, report: Report<'_>) {
        share(&format!("{key}subset"), self.subset, f64::MIN_POSITIVE, report);
        if !(self.validation > 0.0 && self.validation < 1.0) {
            report(
                &format!("{key}validation"),
                format!("{} is not possible; a share between 0 and 1 would be right", self.validation),
            );
        }
        if self.folds == 1 || self.folds > FOLDS_MAX {
            report(
                &format!("{key}folds"),
                format!("{} is not possible; 0 or 2 to {FOLDS_MAX} would be right", self.folds),
            );
        } else if self.folds > 0 && self.fold >= self.folds {
            report(
                &format!("{key}fold"),
                format!("{} is not possible; 0 to {} would be right", self.fold, self.folds - 1),
            );
        }
    }
}

impl BalanceSetting {
    /// Reports values that make no sense.
    pub fn check(&self, key: &str, report: Report<'_>) {
        if !(1..=TIMES_MAX).contains(&self.epidural_times) {
            report(
                &format!("{key}epidural_times"),
                format!("{} is not possible; 1 to {TIMES_MAX} would be right", self.epidural_times),
            );
        }
        let ratio = self.negatives_per_positive;
        if !(ratio.is_finite() && ratio >= 0.0) {
            let sentence = format!("{ratio} is not possible; a number from 0 on would be right");
            report(&format!("{key}negatives_per_positive"), sentence);
        }
        if !(self.positive_weight_max.is_finite() && self.positive_weight_max >= 1.0) {
            let sentence = format!("{} is not possible; a number from 1 on would be right", self.positive_weight_max);
            report(&format!("{key}positive_weight_max"), sentence);
        }
    }
}

/// Most folds.
pub const FOLDS_MAX: usize = 100;

/// Most times that a slice stands in an epoch.
pub const TIMES_MAX: usize = 1000;

fn share(key: &str, value: f64, least: f64, report: Report<'_>) {
    if !(least..=1.0).contains(&value) {
        report(key, format!("{value} is not possible; a share from 0 to 1 would be right"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(check: impl Fn(Report<'_>)) -> Vec<String> {
        let mut keys = Vec::new();
        check(&mut |key, _| keys.push(key.to_owned()));
        keys
    }

    #[test]
    fn defaults_are_right_and_are_the_reports() {
        let all = problems(|report| {
            DataSetting::default().check("data.", report);
            SplitSetting::default().check("split.", report);
            BalanceSetting::default().check("balance.", report);
            AugmentSetting::default().check("augment.", report);
            AugmentSetting::none().check("none.", report);
        });
        assert_eq!(all, [""; 0]);
        assert_eq!(serde_json::from_str::<BalanceSetting>("{}").unwrap().epidural_times, 8);
        let text = serde_json::to_string(&SplitSetting::default()).unwrap();
        assert_eq!(serde_json::from_str::<SplitSetting>(&text).unwrap(), SplitSetting::default());
    }

    #[test]
    fn impossible_values_are_named() {
        let split = SplitSetting { subset: 0.0, validation: 1.0, folds: 5, fold: 5, ..SplitSetting::default() };
        assert_eq!(problems(|report| split.check("s.", report)), ["s.subset", "s.validation", "s.fold"]);
        let balance = BalanceSetting {
            epidural_times: 0,
            negatives_per_positive: f64::NAN,
            positive_weight_max: 0.5,
            ..BalanceSetting::default()
        };
        assert_eq!(
            problems(|report| balance.check("", report)),
            ["epidural_times", "negatives_per_positive", "positive_weight_max"]
        );
        let augment = AugmentSetting { horizontal: 1.5, crop_scale_min: 0.0, ..AugmentSetting::default() };
        assert_eq!(problems(|report| augment.check("a.", report)), ["a.horizontal", "a.crop_scale_min"]);
        let data = DataSetting { problems_max: f64::NAN, ..DataSetting::default() };
        assert_eq!(problems(|report| data.check("", report)), ["problems_max"]);
        assert_eq!(
            problems(|report| SplitSetting { folds: 1, ..SplitSetting::default() }.check("", report)),
            ["folds"]
        );
    }
}
