//! Tests of the inventory, on phantoms.

use std::fs;

use super::super::labels;
use super::super::settings::DataSetting;
use super::*;
use crate::phantom::{PhantomOptions, write_dataset};

fn options() -> InventoryOptions {
    InventoryOptions { rules: AdmissionRules::default(), file_bytes_max: 64 << 20 }
}

/// Four studies of three patients, three slices each, and their labels.
fn heads(folder: &Path) -> LabelTable {
    let options = PhantomOptions { studies: 4, side: 64, slices: 3..=3, rsna_style: true, ..PhantomOptions::default() };
    write_dataset(folder, &options, &|_, _| {}).unwrap();
    let read = labels::read(&folder.join("labels.csv")).unwrap();
    assert!(read.violations.is_empty());
    read.table
}

fn take(folder: &Path, labels: &LabelTable) -> Inventory {
    Inventory::take(folder, labels, &options(), &|_, _| {}).unwrap()
}

#[test]
fn every_labelled_slice_is_found_with_its_patient_and_place() {
    let site = tempfile::tempdir().unwrap();
    let labels = heads(site.path());
    let inventory = take(site.path(), &labels);
    assert_eq!((inventory.items.len(), inventory.n_files), (12, 13));
    let problems = &inventory.problems;
    // The table itself lies there, too.
    assert_eq!(problems.rows.keys().collect::<Vec<_>>(), [&Problem::Unreadable(RejectCode::NotDicom)]);
    assert_eq!(problems.may_train(&DataSetting::default()), Ok(()));
    let patients: std::collections::HashSet<GroupKey> = inventory.items.iter().map(|item| item.group).collect();
    let studies: std::collections::HashSet<&str> = inventory.items.iter().map(|item| &*item.study).collect();
    assert_eq!((patients.len(), studies.len()), (3, 4));
    for item in &inventory.items {
        assert_eq!(labels.id(item.label_row), &*item.instance);
        assert_eq!((item.rows, item.columns, item.z_mm.is_some()), (64, 64, true));
    }
    assert!(inventory.items.is_sorted_by(|a, b| a.instance < b.instance));
    let truth = inventory.labels(&labels);
    assert!(inventory.members(&labels).iter().zip(truth).all(|(member, labels)| member.labels == labels));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let site = tempfile::tempdir().unwrap();
    let labels = heads(site.path());
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| take(site.path(), &labels))
    };
    assert_eq!(with(1), with(4));
}

#[test]
fn problems_are_told_by_kind_and_counted_by_label() {
    let site = tempfile::tempdir().unwrap();
    let folder = site.path();
    let labels = heads(folder);
    let paths: Vec<PathBuf> = take(folder, &labels).items.into_iter().map(|item| item.path).collect();
    // One cut, one gone, one twice, one hidden, one linked, one that is only called like an image.
    let bytes = fs::read(&paths[0]).unwrap();
    fs::write(&paths[0], &bytes[..bytes.len() - 100]).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    fs::copy(&paths[2], folder.join("zz-copy.dcm")).unwrap();
    fs::create_dir(folder.join(".hidden")).unwrap();
    fs::rename(&paths[3], folder.join(".hidden/a.dcm")).unwrap();
    fs::rename(&paths[4], folder.join("a.tmp")).unwrap();
    std::os::unix::fs::symlink(&paths[5], folder.join("link.dcm")).unwrap();
    let inventory = take(folder, &labels);
    assert_eq!(inventory.items.len(), 12 - 4);
    let problems = &inventory.problems;
    assert_eq!((problems.n_unusable, problems.n_without_file), (1, 3));
    assert_eq!(problems.count(Problem::Unreadable(RejectCode::Truncated)), 1);
    assert_eq!(problems.count(Problem::WithoutFile), 3);
    assert_eq!(problems.rows[&Problem::Duplicate].examples, [folder.join("zz-copy.dcm").display().to_string()]);
    assert!(problems.may_train(&DataSetting::default()).is_err());
    assert_eq!(problems.may_train(&DataSetting { problems_max: 0.4, ..DataSetting::default() }), Ok(()));
}

#[test]
fn names_match_where_identifiers_do_not_and_never_take_a_label_away() {
    let site = tempfile::tempdir().unwrap();
    let folder = site.path();
    let labels = heads(folder);
    let items = take(folder, &labels).items;
    // A table that knows the first image by its file's name, the second by its identifier, and nothing else.
    fs::rename(&items[0].path, folder.join("1.2.3")).unwrap();
    let third = folder.join(format!("{}.dcm", items[1].instance));
    fs::rename(&items[2].path, &third).unwrap();
    let row = labels.labels(0);
    let table = LabelTable::from_rows([("1.2.3".to_owned(), row), (items[1].instance.to_string(), row)]);
    let inventory = take(folder, &table);
    let found: Vec<&str> = inventory.items.iter().map(|item| &*item.instance).collect();
    assert_eq!(found, [&*items[0].instance, &*items[1].instance]);
    assert_eq!(inventory.problems.count(Problem::Unlabelled), 9);
    assert_eq!(inventory.problems.rows[&Problem::Duplicate].examples, [third.display().to_string()]);
}
