//! What an epoch sees: which slices, how often, in which order; and, as the alternative, weights in the loss. Works on the
//! training part alone, after the split: slices repeated before it would stand on both sides. Knows no file.

use ichd_plugin::label::{Label, N_LABELS};

use super::labels::LabelRow;
use super::random::{Purpose, rank, shuffle};
use super::settings::{BalanceSetting, PositiveWeights};
use super::split::{Counts, prevalence_text};

const EPIDURAL: usize = Label::Epidural as usize;

/// The slices of a training part, sorted by what they show. Items are indices into the list it was made from.
#[derive(Clone, Debug)]
pub struct Balance {
    setting: BalanceSetting,
    seed: u64,
    labels: Vec<LabelRow>,
    /// Items that show something, each as often as an epoch shows it.
    positives: Vec<u32>,
    negatives: Vec<u32>,
}

impl Balance {
    /// `labels` are those of the training part, in an order that is the same at every start.
    pub fn new(labels: &[LabelRow], setting: &BalanceSetting, seed: u64) -> Self {
        let (mut positives, mut negatives) = (Vec::new(), Vec::new());
        for (item, row) in (0u32..).zip(labels) {
            let times = match row {
                row if row[EPIDURAL] => setting.epidural_times,
                row if row.contains(&true) => 1,
                _ => 0,
            };
            match times {
                0 if !row.contains(&true) => negatives.push(item),
                times => positives.extend(std::iter::repeat_n(item, times)),
            }
        }
        Balance { setting: setting.clone(), seed, labels: labels.to_vec(), positives, negatives }
    }

    /// Negatives in an epoch.
    fn n_negatives(&self) -> usize {
        let ratio = self.setting.negatives_per_positive;
        // Without a positive there is nothing that negatives could be too many for.
        if ratio == 0.0 || self.positives.is_empty() {
            return self.negatives.len();
        }
        let wanted = (ratio * self.positives.len() as f64).round();
        if wanted >= self.negatives.len() as f64 { self.negatives.len() } else { wanted as usize }
    }

    /// Entries in an epoch.
    pub fn epoch_len(&self) -> usize {
        self.positives.len() + self.n_negatives()
    }

    /// The items of an epoch in the order in which they are seen: a pure function of seed and epoch. All positives, and
    /// other negatives than the epochs before, until all have had their turn.
    pub fn epoch(&self, epoch: u32) -> Vec<usize> {
        let n_negatives = self.n_negatives();
        let mut items = self.positives.clone();
        if n_negatives == self.negatives.len() {
            items.extend(&self.negatives);
        } else if let Some(n_epochs) = self.negatives.len().checked_div(n_negatives) {
            // The negatives in an order of chance make up a round of as many epochs as it fills whole. The next
            // round has another order, so those left over come later.
            let per_round = u32::try_from(n_epochs).unwrap_or(u32::MAX);
            let (round, turn) = (epoch / per_round, (epoch % per_round) as usize);
            let mut order = self.negatives.clone();
            shuffle(&mut order, self.seed, Purpose::Negatives, round, |item| u64::from(*item));
            items.extend(order.into_iter().skip(turn * n_negatives).take(n_negatives));
        }
        // Repeats of an item get ranks of their own, else they would stand side by side.
        let mut ranked: Vec<(u64, u32)> = Vec::with_capacity(items.len());
        for (place, item) in (0u64..).zip(items) {
            ranked.push((rank(self.seed, Purpose::Shuffle, epoch, place), item));
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, item)| item as usize).collect()
    }

    /// Slices and positives of the training part.
    pub fn before(&self) -> Counts {
        let mut counts = Counts::default();
        self.labels.iter().for_each(|row| counts.add(*row, 1));
        counts
    }

    /// Entries and positives of an epoch, the same for every epoch.
    pub fn after(&self) -> Counts {
        let mut counts = Counts::default();
        self.positives.iter().for_each(|item| counts.add(self.labels[*item as usize], 1));
        counts.slices += self.n_negatives() as u64;
        counts
    }

    /// Both in percent, as the report prints them.
    pub fn report(&self) -> String {
        let (before, after) = (self.before(), self.after());
        let line =
            |name: &str, counts: &Counts| format!("{name}{:>9} slices, %: {}", counts.slices, prevalence_text(counts));
        format!("{}\n{}", line("training part", &before), line("in an epoch  ", &after))
    }

    /// Weight of a positive of each label in the loss, a negative's being 1, for what an epoch shows.
    pub fn positive_weights(&self) -> [f32; N_LABELS] {
        let after = self.after();
        after.positives.map(|positives| {
            let ratio = (after.slices - positives) as f64 / positives as f64;
            let weight = match self.setting.positive_weights {
                PositiveWeights::None => 1.0,
                // A label that never occurs has no positive to weigh.
                _ if positives == 0 => 1.0,
                PositiveWeights::SquareRoot => ratio.sqrt(),
                PositiveWeights::Balanced => ratio,
            };
            weight.clamp(1.0 / self.setting.positive_weight_max, self.setting.positive_weight_max) as f32
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const NOTHING: LabelRow = [false; N_LABELS];

    fn showing(labels: &[Label]) -> LabelRow {
        let mut row = NOTHING;
        row[0] = true;
        labels.iter().for_each(|label| row[*label as usize] = true);
        row
    }

    /// 2 epidural, 8 other positives, 90 negatives.
    fn labels() -> Vec<LabelRow> {
        let mut labels = vec![NOTHING; 100];
        labels[..2].fill(showing(&[Label::Epidural]));
        labels[2..10].fill(showing(&[Label::Subdural]));
        labels
    }

    fn times(epoch: &[usize]) -> BTreeMap<usize, usize> {
        let mut times = BTreeMap::new();
        epoch.iter().for_each(|item| *times.entry(*item).or_insert(0) += 1);
        times
    }

    #[test]
    fn epidurals_are_repeated_and_everything_else_is_seen_once() {
        let balance = Balance::new(&labels(), &BalanceSetting::default(), 1);
        let epoch = balance.epoch(0);
        assert_eq!((epoch.len(), balance.epoch_len()), (114, 114));
        let times = times(&epoch);
        assert!((0..2).all(|item| times[&item] == 8) && (2..100).all(|item| times[&item] == 1));
        assert_eq!(balance.before().positives, [10, 2, 0, 0, 0, 8]);
        assert_eq!((balance.after().slices, balance.after().positives), (114, [24, 16, 0, 0, 0, 8]));
        let report = balance.report();
        assert!(report.contains("100 slices, %: any 10.00, epidural 2.00,"), "{report}");
        assert!(report.contains("114 slices, %: any 21.05, epidural 14.04,"), "{report}");
    }

    #[test]
    fn the_reports_table_comes_out_of_rsnas_prevalences() {
        // A tenth of RSNA's counts, subtypes apart: any 14.34 %, epidural 0.42 %.
        let mut labels = vec![NOTHING; 75_280];
        labels[..314].fill(showing(&[Label::Epidural]));
        labels[314..10_793].fill(showing(&[]));
        let share = Balance::new(&labels, &BalanceSetting::default(), 1).after().prevalences();
        assert!((share[0] - 0.1678).abs() < 0.0005 && (share[EPIDURAL] - 0.0324).abs() < 0.0005, "{share:?}");
    }

    #[test]
    fn each_epoch_draws_other_negatives_and_none_is_forgotten() {
        let setting = BalanceSetting { epidural_times: 1, negatives_per_positive: 2.0, ..BalanceSetting::default() };
        let balance = Balance::new(&labels(), &setting, 1);
        let negatives =
            |epoch| -> BTreeSet<usize> { balance.epoch(epoch).into_iter().filter(|item| *item >= 10).collect() };
        let mut round = BTreeSet::new();
        for epoch in 0..4 {
            let epoch = balance.epoch(epoch);
            assert_eq!(epoch.len(), 30);
            assert!((0..10).all(|item| epoch.contains(&item)));
        }
        for epoch in 0..4 {
            let drawn = negatives(epoch);
            assert!(drawn.len() == 20 && round.is_disjoint(&drawn));
            round.extend(drawn);
        }
        let seen: BTreeSet<usize> = (0..40).flat_map(negatives).collect();
        assert_eq!(seen.len(), 90, "later rounds bring what the first left over");
    }

    #[test]
    fn an_epoch_follows_from_seed_and_number_alone() {
        let setting = BalanceSetting { negatives_per_positive: 1.0, ..BalanceSetting::default() };
        let balance = Balance::new(&labels(), &setting, 9);
        assert_eq!(balance.epoch(5), Balance::new(&labels(), &setting, 9).epoch(5));
        assert_ne!(balance.epoch(5), balance.epoch(6));
        assert_ne!(balance.epoch(5), Balance::new(&labels(), &setting, 10).epoch(5));
        // Repeats do not stand side by side.
        let epoch = balance.epoch(0);
        let pairs = epoch.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(pairs < 8, "{epoch:?}");
    }

    #[test]
    fn odd_parts_and_settings_are_fine() {
        let all = |labels: &[LabelRow], ratio| {
            let setting = BalanceSetting { negatives_per_positive: ratio, ..BalanceSetting::default() };
            let balance = Balance::new(labels, &setting, 1);
            assert_eq!(balance.epoch(3).len(), balance.epoch_len());
            balance.epoch_len()
        };
        assert_eq!(all(&[], 2.0), 0);
        assert_eq!(all(&[NOTHING; 5], 2.0), 5);
        assert_eq!(all(&labels(), 1e-9), 24);
        assert_eq!(all(&labels(), 1e300), 114);
    }

    #[test]
    fn weights_are_the_alternative_to_repeats() {
        let weights = |positive_weights| {
            let setting = BalanceSetting { epidural_times: 1, positive_weights, ..BalanceSetting::default() };
            Balance::new(&labels(), &setting, 1).positive_weights()
        };
        assert_eq!(weights(PositiveWeights::None), [1.0; 6]);
        assert_eq!(weights(PositiveWeights::Balanced), [9.0, 20.0, 1.0, 1.0, 1.0, 11.5]);
        assert_eq!(weights(PositiveWeights::SquareRoot), [3.0, 7.0, 1.0, 1.0, 1.0, 11.5f64.sqrt() as f32]);
    }
}
