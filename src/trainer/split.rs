//! Which slices train and which validate: by patient and never by slice, unless the report's way is asked for. Knows no file.

use std::collections::BTreeMap;
use std::fmt;

use ichd_plugin::label::{Label, N_LABELS};
use sha2::{Digest, Sha256};

use super::groups::GroupKey;
use super::labels::LabelRow;
use super::settings::{SplitMode, SplitSetting};
use super::stratify::{Group, N_COUNTS, StratifyError, stratify};

/// A slice as a split sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'m> {
    /// SOPInstanceUID.
    pub instance: &'m str,
    /// Its patient.
    pub group: GroupKey,
    /// What it shows.
    pub labels: LabelRow,
}

/// A part and its share of all slices.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name in files: small letters, digits and dashes.
    pub name: String,
    /// 0 to 1.
    pub share: f64,
}

/// How to split.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What stays together.
    pub mode: SplitMode,
    /// Chance follows from it.
    pub seed: u64,
    /// The parts; their shares add up to 1.
    pub parts: Vec<Part>,
}

impl Plan {
    /// `first` gets `share` of the slices, `second` the rest.
    pub fn two(mode: SplitMode, seed: u64, first: &str, share: f64, second: &str) -> Self {
        let part = |name: &str, share| Part { name: name.to_owned(), share };
        Plan { mode, seed, parts: vec![part(first, share), part(second, 1.0 - share)] }
    }

    /// `validation` and `train`.
    pub fn validation(mode: SplitMode, seed: u64, share: f64) -> Self {
        Plan::two(mode, seed, "validation", share, "train")
    }

    /// `subset` and `rest`.
    pub fn subset(mode: SplitMode, seed: u64, share: f64) -> Self {
        Plan::two(mode, seed, "subset", share, "rest")
    }

    /// `fold-0`, `fold-1` and so on, of the same size.
    pub fn folds(mode: SplitMode, seed: u64, n_folds: usize) -> Self {
        let part = |idx| Part { name: format!("fold-{idx}"), share: 1.0 / n_folds as f64 };
        Plan { mode, seed, parts: (0..n_folds).map(part).collect() }
    }

    /// The subset that settings ask for; nothing if all slices are used.
    pub fn subset_of(setting: &SplitSetting) -> Option<Self> {
        (setting.subset < 1.0).then(|| Plan::subset(setting.mode, setting.seed, setting.subset))
    }

    /// Folds or validation, as settings ask for.
    pub fn of(setting: &SplitSetting) -> Self {
        match setting.folds {
            0 => Plan::validation(setting.mode, setting.seed, setting.validation),
            folds => Plan::folds(setting.mode, setting.seed, folds),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(|part| format!("{} {}", part.name, part.share)).collect();
        write!(f, "by {}, seed {}: {}", self.mode.word(), self.seed, parts.join(", "))
    }
}

/// A slice that cannot be split.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// Two slices with one identifier.
    #[error("{0} occurs twice")]
    Twice(String),
    /// No parts of that kind are possible.
    #[error(transparent)]
    Stratify(#[from] StratifyError),
}

/// A slice and its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// SOPInstanceUID.
    pub instance: Box<str>,
    /// Its patient.
    pub group: GroupKey,
    /// Index of its part in the plan.
    pub part: u16,
}

/// Slices and their parts, in the order of the identifiers.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// How it was made.
    pub plan: Plan,
    /// Digest of the label table it was made for.
    pub labels_sha256: String,
    /// Every slice.
    pub slices: Vec<Assigned>,
}

/// Slices and positives of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slices.
    pub slices: u64,
    /// Positive slices in label order.
    pub positives: [u64; N_LABELS],
}

impl Counts {
    /// Counts one slice, `times` times.
    pub fn add(&mut self, labels: LabelRow, times: u64) {
        self.slices += times;
        for (count, label) in self.positives.iter_mut().zip(labels) {
            *count += times * u64::from(label);
        }
    }

    /// Share of positives of each label, 0 to 1; 0 where there are no slices.
    pub fn prevalences(&self) -> [f64; N_LABELS] {
        self.positives.map(|count| if self.slices == 0 { 0.0 } else { count as f64 / self.slices as f64 })
    }
}

impl Split {
    /// Splits. The order of the members does not matter.
    ///
    /// # Errors
    /// An identifier occurs twice, or there are too few patients.
    pub fn make(members: &[Member<'_>], plan: Plan, labels_sha256: String) -> Result<Split, SplitError> {
        let mut sorted: Vec<&Member<'_>> = members.iter().collect();
        sorted.sort_unstable_by_key(|member| member.instance);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].instance == pair[1].instance) {
            return Err(SplitError::Twice(pair[0].instance.to_owned()));
        }
        let shares: Vec<f64> = plan.parts.iter().map(|part| part.share).collect();
        let parts = match plan.mode {
            SplitMode::Patient => by_patient(&sorted, &shares, plan.seed)?,
            SplitMode::Slice => by_slice(&sorted, &shares, plan.seed)?,
        };
        let assigned = |(member, part): (&&Member<'_>, usize)| Assigned {
            instance: member.instance.into(),
            group: member.group,
            // A plan has few parts; settings allow a hundred.
            part: u16::try_from(part).unwrap_or(u16::MAX),
        };
        let slices = sorted.iter().zip(parts).map(assigned).collect();
        Ok(Split { plan, labels_sha256, slices })
    }

    /// Index of the part that a slice is in.
    pub fn part_of(&self, instance: &str) -> Option<usize> {
        let found = self.slices.binary_search_by(|slice| (*slice.instance).cmp(instance)).ok()?;
        Some(self.slices[found].part.into())
    }

    /// Index of the part of that name.
    pub fn part_named(&self, name: &str) -> Option<usize> {
        self.plan.parts.iter().position(|part| part.name == name)
    }

    /// Slices and positives of each part. Members that are not in the split are left out.
    pub fn counts(&self, members: &[Member<'_>]) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.plan.parts.len()];
        for member in members {
            if let Some(counts) = self.part_of(member.instance).and_then(|part| counts.get_mut(part)) {
                counts.add(member.labels, 1);
            }
        }
        counts
    }

    /// Number of patients, and of those with slices in more than one part.
    pub fn patients(&self) -> (usize, usize) {
        let mut part_of: BTreeMap<GroupKey, (u16, bool)> = BTreeMap::new();
        for slice in &self.slices {
            let (part, leaks) = part_of.entry(slice.group).or_insert((slice.part, false));
            *leaks |= *part != slice.part;
        }
        (part_of.len(), part_of.values().filter(|(_, leaks)| *leaks).count())
    }

    /// What must be said about a split by slice; nothing about one by patient.
    pub fn warning(&self) -> Option<String> {
        if self.plan.mode == SplitMode::Patient {
            return None;
        }
        let (patients, leaking) = self.patients();
        Some(format!(
            "This split is by slice and leaks patients: {leaking} of {patients} patients have slices in more than one part. \
             Slices of a patient are almost alike, so figures from it are too good and say nothing about new patients. \
             It is there to repeat published figures; use mode `patient` for everything else."
        ))
    }
}

fn by_patient(sorted: &[&Member<'_>], shares: &[f64], seed: u64) -> Result<Vec<usize>, StratifyError> {
    let mut index: BTreeMap<GroupKey, usize> = BTreeMap::new();
    for member in sorted {
        index.insert(member.group, 0);
    }
    for (place, at) in index.values_mut().enumerate() {
        *at = place;
    }
    let mut groups: Vec<Group> = index.keys().map(|key| Group { tag: key.tag(), counts: [0; N_COUNTS] }).collect();
    for member in sorted {
        let counts = &mut groups[index[&member.group]].counts;
        counts[0] += 1;
        for (count, label) in counts[1..].iter_mut().zip(member.labels) {
            *count += u32::from(label);
        }
    }
    let parts = stratify(&groups, shares, seed)?;
    Ok(sorted.iter().map(|member| parts[index[&member.group]]).collect())
}

fn by_slice(sorted: &[&Member<'_>], shares: &[f64], seed: u64) -> Result<Vec<usize>, StratifyError> {
    let group = |member: &&Member<'_>| {
        let mut counts = [1; N_COUNTS];
        for (count, label) in counts[1..].iter_mut().zip(member.labels) {
            *count = u32::from(label);
        }
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(member.instance.as_bytes()).into();
        Group { tag: u64::from_le_bytes([a, b, c, d, e, f, g, h]), counts }
    };
    let groups: Vec<Group> = sorted.iter().map(group).collect();
    stratify(&groups, shares, seed)
}

/// Percent of each label as the report prints them: `any 14.34, epidural 0.42, ...`.
pub fn prevalence_text(counts: &Counts) -> String {
    let part = |(label, share): (Label, f64)| format!("{label} {:.2}", 100.0 * share);
    Label::ALL.into_iter().zip(counts.prevalences()).map(part).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "split_tests.rs"]
pub(super) mod tests;
