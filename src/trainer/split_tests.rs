//! Tests of splits.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::trainer::random::{Draws, Purpose};

pub(in crate::trainer) struct World {
    names: Vec<String>,
    groups: Vec<GroupKey>,
    labels: Vec<LabelRow>,
}

impl World {
    /// Patients with one or two studies of 20 to 40 slices, four in ten with blood on a run of slices.
    pub(in crate::trainer) fn new(n_patients: u64, seed: u64) -> World {
        let mut world = World { names: vec![], groups: vec![], labels: vec![] };
        for patient in 0..n_patients {
            let mut draws = Draws::new(seed, Purpose::Augment, 0, patient);
            let slices = 20 + draws.below(41);
            let subtypes = [0.03, 0.3, 0.25, 0.35, 0.4].map(|chance| draws.chance(0.4 * chance));
            let (from, n) = (draws.below(slices / 2), 1 + draws.below(slices / 2));
            for slice in 0..slices {
                let mut row = [false; N_LABELS];
                for (label, has) in subtypes.into_iter().enumerate() {
                    row[label + 1] = has && (from..from + n).contains(&slice);
                }
                row[0] = row.contains(&true);
                world.names.push(format!("ID_{:08x}", seed as u32 as u64 ^ (patient << 8) ^ u64::from(slice)));
                world.groups.push(GroupKey::of(&patient.to_string()));
                world.labels.push(row);
            }
        }
        world
    }

    pub(in crate::trainer) fn members(&self) -> Vec<Member<'_>> {
        let rows = self.names.iter().zip(&self.groups).zip(&self.labels);
        rows.map(|((instance, group), labels)| Member { instance, group: *group, labels: *labels }).collect()
    }
}

#[test]
fn a_split_by_patient_keeps_shares_and_prevalences_and_does_not_depend_on_the_order() {
    let world = World::new(800, 1);
    let mut members = world.members();
    let plan = Plan::validation(SplitMode::Patient, 3, 0.15);
    let split = Split::make(&members, plan.clone(), "d".into()).unwrap();
    assert_eq!((split.patients(), split.warning()), ((800, 0), None));
    let counts = split.counts(&members);
    let all = counts[0].slices + counts[1].slices;
    assert_eq!(all, members.len() as u64);
    assert!((counts[0].slices as f64 - 0.15 * all as f64).abs() <= 60.0);
    for label in 0..N_LABELS {
        let positives = counts[0].positives[label] + counts[1].positives[label];
        let off = counts[0].positives[label] as f64 - counts[0].slices as f64 * positives as f64 / all as f64;
        // A patient with blood has ten slices of it on average.
        assert!(off.abs() < 12.0, "{label}: {off} slices");
    }
    members.reverse();
    assert_eq!(split, Split::make(&members, plan, "d".into()).unwrap());
    members.push(members[0]);
    let twice = Split::make(&members, Plan::folds(SplitMode::Patient, 1, 5), "d".into());
    assert_eq!(twice, Err(SplitError::Twice(members[0].instance.to_owned())));
}

#[test]
fn a_split_by_slice_leaks_patients_and_says_so() {
    let world = World::new(50, 2);
    let members = world.members();
    let split = Split::make(&members, Plan::validation(SplitMode::Slice, 3, 0.15), "d".into()).unwrap();
    let (patients, leaking) = split.patients();
    assert!(patients == 50 && leaking > 40, "{leaking}");
    let counts = split.counts(&members);
    assert_eq!(counts[0].slices, (0.15 * members.len() as f64).round() as u64);
    for label in 0..N_LABELS {
        let wanted = 0.15 * (counts[0].positives[label] + counts[1].positives[label]) as f64;
        assert!((counts[0].positives[label] as f64 - wanted).abs() <= 1.0);
    }
    let warning = split.warning().unwrap();
    assert!(warning.contains(&format!("leaks patients: {leaking} of 50 patients")), "{warning}");
}

#[test]
fn settings_say_what_is_split() {
    let setting = SplitSetting { subset: 0.1, ..SplitSetting::default() };
    assert_eq!(Plan::subset_of(&setting).unwrap().parts[0], Part { name: "subset".into(), share: 0.1 });
    assert_eq!(Plan::subset_of(&SplitSetting::default()), None);
    assert_eq!(Plan::of(&setting).parts[0], Part { name: "validation".into(), share: 0.15 });
    let folds = Plan::of(&SplitSetting { folds: 5, ..setting });
    assert_eq!((folds.parts.len(), folds.parts[4].name.as_str()), (5, "fold-4"));
}

#[test]
fn prevalences_are_printed_as_percent() {
    let counts = Counts { slices: 752_802, positives: [107_933, 3_145, 36_118, 26_205, 35_675, 47_166] };
    let expected =
        "any 14.34, epidural 0.42, intraparenchymal 4.80, intraventricular 3.48, subarachnoid 4.74, subdural 6.27";
    assert_eq!(prevalence_text(&counts), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_patient_is_on_both_sides(patients in 2u64..60, seed: u64, share in 0.02f64..0.98, folds in 2usize..8) {
        let world = World::new(patients, seed);
        let members = world.members();
        for plan in [Plan::validation(SplitMode::Patient, seed, share), Plan::folds(SplitMode::Patient, seed, folds)] {
            let n_parts = plan.parts.len();
            let split = match Split::make(&members, plan, String::new()) {
                Err(SplitError::Stratify(_)) if n_parts > patients as usize => continue,
                split => split.unwrap(),
            };
            let mut part_of = HashMap::new();
            for member in &members {
                let part = split.part_of(member.instance).unwrap();
                prop_assert_eq!(*part_of.entry(member.group).or_insert(part), part);
            }
            prop_assert_eq!(split.patients(), (patients as usize, 0));
        }
    }
}
