//! Tests of the stratification.

use proptest::prelude::*;

use super::*;
use crate::trainer::random::Draws;

/// Groups of 20 to 60 slices, of which four in ten show something on a run of slices, as studies do.
fn groups(n: u64, seed: u64) -> Vec<Group> {
    let group = |tag: u64| {
        let mut draws = Draws::new(seed, Purpose::Augment, 0, tag);
        let slices = 20 + draws.below(41);
        let mut counts = [slices, 0, 0, 0, 0, 0, 0];
        if draws.chance(0.4) {
            for (label, chance) in [0.03, 0.3, 0.25, 0.35, 0.4].into_iter().enumerate() {
                counts[label + 2] = if draws.chance(chance) { 1 + draws.below(slices / 2) } else { 0 };
            }
            let most = counts[2..].iter().copied().max().unwrap_or(0);
            let sum: u32 = counts[2..].iter().sum();
            counts[1] = most + draws.below(sum.min(slices) - most + 1);
        }
        Group { tag, counts }
    };
    (0..n).map(group).collect()
}

fn sums(groups: &[Group], parts: &[usize], n_parts: usize) -> Vec<[u64; N_COUNTS]> {
    let mut sums = vec![[0; N_COUNTS]; n_parts];
    for (group, part) in groups.iter().zip(parts) {
        for (sum, count) in sums[*part].iter_mut().zip(group.counts) {
            *sum += u64::from(count);
        }
    }
    sums
}

/// Largest difference of a label's positives from what the prevalence of all would give, in slices and, where that is more
/// than a hundred slices, as a share.
fn worst_deviation(groups: &[Group], parts: &[usize], n_parts: usize) -> (f64, f64) {
    let all = sums(groups, &vec![0; groups.len()], 1)[0];
    let (mut worst, mut worst_share) = (0.0f64, 0.0f64);
    for part in sums(groups, parts, n_parts) {
        for label in 1..N_COUNTS {
            let wanted = part[0] as f64 * all[label] as f64 / all[0] as f64;
            let off = (part[label] as f64 - wanted).abs();
            worst = worst.max(off);
            worst_share = worst_share.max(if wanted > 100.0 { off / wanted } else { 0.0 });
        }
    }
    (worst, worst_share)
}

#[test]
fn every_labels_prevalence_is_kept() {
    let groups = groups(2000, 1);
    for shares in [&[0.85, 0.15][..], &[0.1, 0.9], &[0.2; 5], &[0.1; 10]] {
        let parts = stratify(&groups, shares, 7).unwrap();
        let worst = worst_deviation(&groups, &parts, shares.len());
        println!("{shares:?}: {worst:.3?}");
        assert!(worst.0 < 8.0 && worst.1 < 0.01, "{shares:?}: {worst:?}");
        for (sum, share) in sums(&groups, &parts, shares.len()).iter().zip(shares) {
            let all: u32 = groups.iter().map(|group| group.counts[0]).sum();
            assert!((sum[0] as f64 - share * f64::from(all)).abs() <= 60.0);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_parts_in_any_order_and_another_seed_others() {
    let groups = groups(300, 2);
    let parts = stratify(&groups, &[0.8, 0.2], 7).unwrap();
    assert_eq!(parts, stratify(&groups, &[0.8, 0.2], 7).unwrap());
    let reversed: Vec<Group> = groups.iter().rev().copied().collect();
    let turned: Vec<usize> = stratify(&reversed, &[0.8, 0.2], 7).unwrap().into_iter().rev().collect();
    assert_eq!(parts, turned);
    assert_ne!(parts, stratify(&groups, &[0.8, 0.2], 8).unwrap());
    // Written down: the same on every machine and in every version.
    let first: String = parts.iter().take(60).map(|part| part.to_string()).collect();
    assert_eq!(first, FIRST_PARTS);
}

const FIRST_PARTS: &str = "000111010000001000000010000100100100100010000000010100001100";

#[test]
fn wishes_that_cannot_be_met_are_refused() {
    let two = groups(2, 3);
    assert_eq!(stratify(&two, &[0.2; 5], 1), Err(StratifyError::TooFewGroups { groups: 2, parts: 5 }));
    for shares in [&[][..], &[0.5, 0.6], &[1.0, 0.0], &[f64::NAN, 1.0]] {
        assert!(matches!(stratify(&two, shares, 1), Err(StratifyError::Shares(_))), "{shares:?}");
    }
    assert_eq!(sums(&two, &stratify(&two, &[0.99, 0.01], 1).unwrap(), 2).iter().filter(|sum| sum[0] > 0).count(), 2);
}

proptest! {
    #[test]
    fn shares_are_kept_to_within_one_group(n in 2u64..80, seed: u64, share in 0.05f64..0.95, folds in 2usize..6) {
        let groups = groups(n, seed);
        let largest = groups.iter().map(|group| group.counts[0]).max().unwrap_or(0);
        let all: u32 = groups.iter().map(|group| group.counts[0]).sum();
        for shares in [vec![share, 1.0 - share], vec![1.0 / folds as f64; folds]] {
            if groups.len() < shares.len() {
                continue;
            }
            let parts = stratify(&groups, &shares, seed).unwrap();
            for (sum, share) in sums(&groups, &parts, shares.len()).iter().zip(&shares) {
                prop_assert!(sum[0] > 0, "an empty part");
                let off = (sum[0] as f64 - share * f64::from(all)).abs();
                prop_assert!(off <= f64::from(largest) + 1e-6, "{off} slices off, the largest group has {largest}");
            }
        }
    }
}
