//! Parts of equal kind: iterative multi-label stratification (Sechidis, Tsoumakas, Vlahavas 2011) over groups of slices. Knows
//! counts alone, neither slices nor patients.
//!
//! The rarest label goes first: each of its groups goes to the part that lacks most of that label, ties to the part that
//! lacks most slices, then to chance. Groups without any label fill up. Two things are added to the paper. A group weighs
//! as much as it has slices. And since a group that was placed for one label brings others along, groups then move or
//! change places as long as that makes the parts more alike, which brings deviations far below those of the greedy start.

use ichd_plugin::label::N_LABELS;

use super::random::{Draws, Purpose, rank};

/// Number of slices, then positives in label order.
pub const N_COUNTS: usize = 1 + N_LABELS;

/// A group that stays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which group it is; chance follows from it, so that the order of groups does not matter as long as tags differ.
    pub tag: u64,
    /// Slices, then positives in label order.
    pub counts: [u32; N_COUNTS],
}

/// A wish that cannot be met.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StratifyError {
    /// Fewer groups than parts.
    #[error(
        "{groups} patients cannot be split into {parts} parts. If there are more, their files all carry the same PatientID"
    )]
    TooFewGroups {
        /// Groups that there are.
        groups: usize,
        /// Parts that were asked for.
        parts: usize,
    },
    /// Shares that are not positive or do not add up to 1.
    #[error("shares of {0:?} make no split; shares above 0 that add up to 1 would be right")]
    Shares(Vec<f64>),
}

/// Passes over all groups in which they may move or change places.
const PASSES: u32 = 24;

/// Changes of places that are tried in a pass, for all groups together; and how many at least for each group.
const SWAPS_PER_PASS: usize = 2_000_000;
const SWAP_TRIES_MIN: usize = 16;

/// Smallest gain that is worth a move: below it a pass could move groups for ever on rounding alone.
const GAIN_MIN: f64 = 1e-12;

/// The part of each group. Shares are of slices and are kept to within the largest group, unless a part would be empty.
///
/// # Errors
/// Fewer groups than parts, or shares that make no sense.
pub fn stratify(groups: &[Group], shares: &[f64], seed: u64) -> Result<Vec<usize>, StratifyError> {
    let sum: f64 = shares.iter().sum();
    if shares.is_empty() || !shares.iter().all(|share| *share > 0.0) || (sum - 1.0).abs() > 1e-9 {
        return Err(StratifyError::Shares(shares.to_vec()));
    }
    if groups.len() < shares.len() {
        return Err(StratifyError::TooFewGroups { groups: groups.len(), parts: shares.len() });
    }
    let mut parts = Parts::new(groups, shares, seed);
    parts.place_by_label();
    parts.improve();
    parts.keep_shares();
    parts.fill_empty();
    Ok(parts.part_of)
}

const NOWHERE: usize = usize::MAX;

struct Parts<'g> {
    groups: &'g [Group],
    seed: u64,
    /// Groups in their order of chance.
    order: Vec<usize>,
    part_of: Vec<usize>,
    /// Of each part: what it has more than it should.
    excess: Vec<[f64; N_COUNTS]>,
    /// Of each part: 1 / wanted^2, so that an excess counts by its share of what is wanted.
    weights: Vec<[f64; N_COUNTS]>,
    n_groups: Vec<usize>,
}

impl<'g> Parts<'g> {
    fn new(groups: &'g [Group], shares: &[f64], seed: u64) -> Self {
        let mut totals = [0u64; N_COUNTS];
        for group in groups {
            for (total, count) in totals.iter_mut().zip(group.counts) {
                *total += u64::from(count);
            }
        }
        let wanted: Vec<[f64; N_COUNTS]> =
            shares.iter().map(|share| totals.map(|total| share * total as f64)).collect();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_cached_key(|idx| (rank(seed, Purpose::SplitOrder, 0, groups[*idx].tag), *idx));
        Parts {
            groups,
            seed,
            order,
            part_of: vec![NOWHERE; groups.len()],
            weights: wanted.iter().map(|wanted| wanted.map(|w| if w > 0.0 { 1.0 / (w * w) } else { 0.0 })).collect(),
            excess: wanted.iter().map(|wanted| wanted.map(|w| -w)).collect(),
            n_groups: vec![0; shares.len()],
        }
    }

    fn put(&mut self, group: usize, part: usize) {
        let from = std::mem::replace(&mut self.part_of[group], part);
        for (idx, count) in self.groups[group].counts.iter().enumerate() {
            if from != NOWHERE {
                self.excess[from][idx] -= f64::from(*count);
            }
            self.excess[part][idx] += f64::from(*count);
        }
        if from != NOWHERE {
            self.n_groups[from] -= 1;
        }
        self.n_groups[part] += 1;
    }

    /// The paper's algorithm, weighted by slices.
    fn place_by_label(&mut self) {
        let mut labels: Vec<usize> = (1..N_COUNTS).collect();
        while !labels.is_empty() {
            let remaining = |label: &usize| -> u64 {
                let open = self.groups.iter().zip(&self.part_of).filter(|(_, part)| **part == NOWHERE);
                open.map(|(group, _)| u64::from(group.counts[*label])).sum()
            };
            let Some(rarest) = (0..labels.len()).min_by_key(|idx| remaining(&labels[*idx])) else { break };
            let label = labels.remove(rarest);
            self.place(label);
        }
        // What is left shows nothing and is placed by its slices.
        self.place(0);
    }

    fn place(&mut self, count: usize) {
        for at in 0..self.order.len() {
            let group = self.order[at];
            if self.part_of[group] == NOWHERE && self.groups[group].counts[count] > 0 {
                let part = self.neediest(group, count);
                self.put(group, part);
            }
        }
    }

    /// The part that lacks most of `count`, then most slices; then chance decides.
    fn neediest(&self, group: usize, count: usize) -> usize {
        let chance = |part: usize| rank(self.seed, Purpose::SplitTie, part as u32, self.groups[group].tag);
        let better = |a: usize, b: usize| {
            let (left, right) = (&self.excess[a], &self.excess[b]);
            let by_need = left[count].total_cmp(&right[count]).then(left[0].total_cmp(&right[0]));
            by_need.then_with(|| chance(a).cmp(&chance(b)))
        };
        (0..self.excess.len()).min_by(|a, b| better(*a, *b)).unwrap_or(0)
    }

    /// Change of the sum of squared relative excesses if a group moved.
    fn change(&self, group: usize, to: usize) -> f64 {
        self.change_by(self.part_of[group], to, self.groups[group].counts.map(f64::from))
    }

    /// The same if two groups changed places.
    fn change_of_swap(&self, group: usize, other: usize) -> f64 {
        let (own, theirs) = (&self.groups[group].counts, &self.groups[other].counts);
        let moved = std::array::from_fn(|idx| f64::from(own[idx]) - f64::from(theirs[idx]));
        self.change_by(self.part_of[group], self.part_of[other], moved)
    }

    fn change_by(&self, from: usize, to: usize, moved: [f64; N_COUNTS]) -> f64 {
        let mut change = 0.0;
        for (idx, count) in moved.into_iter().enumerate() {
            change += self.weights[from][idx] * count * (count - 2.0 * self.excess[from][idx]);
            change += self.weights[to][idx] * count * (count + 2.0 * self.excess[to][idx]);
        }
        change
    }

    /// Moves groups and lets them change places while that brings the sum of squared relative excesses down.
    fn improve(&mut self) {
        for pass in 0..PASSES {
            let mut improved = false;
            for at in 0..self.order.len() {
                // Nothing is better than whole numbers allow.
                if self.excess.iter().flatten().all(|excess| excess.abs() < 1.0) {
                    return;
                }
                improved |= self.try_moves(self.order[at]) || self.try_swaps(self.order[at], pass);
            }
            if !improved {
                break;
            }
        }
    }

    fn try_moves(&mut self, group: usize) -> bool {
        let from = self.part_of[group];
        let others = (0..self.excess.len()).filter(|part| *part != from);
        let best = others.map(|to| (self.change(group, to), to)).min_by(|a, b| a.0.total_cmp(&b.0));
        match best {
            Some((change, to)) if change < -GAIN_MIN && self.n_groups[from] > 1 => {
                self.put(group, to);
                true
            }
            _ => false,
        }
    }

    fn try_swaps(&mut self, group: usize, pass: u32) -> bool {
        let mut draws = Draws::new(self.seed, Purpose::SplitSwap, pass, self.groups[group].tag);
        let n_groups = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        let mut best: Option<(f64, usize)> = None;
        let n_tries = (SWAPS_PER_PASS / self.order.len()).clamp(SWAP_TRIES_MIN, SWAP_TRIES_MIN.max(self.order.len()));
        for _ in 0..n_tries {
            let other = self.order[draws.below(n_groups) as usize];
            if self.part_of[other] != self.part_of[group] {
                let change = self.change_of_swap(group, other);
                if change < best.map_or(-GAIN_MIN, |(change, _)| change) {
                    best = Some((change, other));
                }
            }
        }
        let Some((_, other)) = best else { return false };
        let (own, theirs) = (self.part_of[group], self.part_of[other]);
        self.put(group, theirs);
        self.put(other, own);
        true
    }

    /// Labels may pull slices after them; this keeps the shares of slices to within the largest group.
    fn keep_shares(&mut self) {
        let largest = self.groups.iter().map(|group| group.counts[0]).max().map_or(0.0, f64::from);
        // Each move brings the sum of absolute excesses down, so this ends; the bound is for the eye.
        for _ in 0..self.groups.len() * self.excess.len() {
            let slices = |part: &usize| self.excess[*part][0];
            let all = || 0..self.excess.len();
            let (Some(over), Some(under)) = (
                all().max_by(|a, b| slices(a).total_cmp(&slices(b))),
                all().min_by(|a, b| slices(a).total_cmp(&slices(b))),
            ) else {
                return;
            };
            if slices(&over) <= largest && slices(&under) >= -largest {
                return;
            }
            let candidates = self.order.iter().copied().filter(|group| self.part_of[*group] == over);
            let best = candidates.map(|group| (self.change(group, under), group)).min_by(|a, b| a.0.total_cmp(&b.0));
            let Some((_, group)) = best else { return };
            self.put(group, under);
        }
    }

    /// A part without any group gets the smallest one of the part with the most.
    fn fill_empty(&mut self) {
        for empty in 0..self.n_groups.len() {
            if self.n_groups[empty] > 0 {
                continue;
            }
            let Some(donor) = (0..self.n_groups.len()).max_by_key(|part| self.n_groups[*part]) else { return };
            let own = self.order.iter().copied().filter(|group| self.part_of[*group] == donor);
            let Some(smallest) = own.min_by_key(|group| self.groups[*group].counts[0]) else { return };
            self.put(smallest, empty);
        }
    }
}

#[cfg(test)]
#[path = "stratify_tests.rs"]
mod tests;
