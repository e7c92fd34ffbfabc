//! Phantoms: the same for the same seed, labelled as they look, readable by others.

use std::fs;

use dicom_dictionary_std::tags;
use ichd::phantom::render::Study;
use ichd::phantom::{PhantomOptions, write_dataset};
use ichd_plugin::label::Label;

use crate::support::files;

fn options(subtype: Label) -> PhantomOptions {
    PhantomOptions {
        studies: 1,
        bleed_share: 1.0,
        subtypes: vec![subtype],
        side: 96,
        slices: 24..=24,
        ..PhantomOptions::default()
    }
}

#[test]
fn every_subtype_shows_where_it_is_asked_for() {
    for subtype in Label::SUBTYPES {
        let mut positive = 0;
        for seed in 0..3 {
            let study = Study::new(seed, 0, &options(subtype));
            for slice_idx in 0..study.n_slices {
                let slice = study.slice(slice_idx);
                let any = Label::SUBTYPES.iter().any(|label| slice.labels[*label as usize]);
                assert_eq!(slice.labels[Label::Any as usize], any);
                let others = Label::SUBTYPES.iter().filter(|label| **label != subtype);
                assert!(
                    others.into_iter().all(|label| !slice.labels[*label as usize]),
                    "{subtype} brought another subtype"
                );
                positive += usize::from(slice.labels[subtype as usize]);
                if let Some(hu) = slice.blood_hu {
                    assert!((48.0..=82.0).contains(&hu), "{subtype}: {hu} HU");
                }
            }
        }
        assert!(positive >= 3, "{subtype}: {positive} positive slices in 3 studies");
    }
}

#[test]
fn equal_seeds_give_equal_files_and_the_table_fits_them() {
    let folder = tempfile::tempdir().unwrap();
    let options = PhantomOptions { studies: 2, side: 48, slices: 3..=4, ..PhantomOptions::default() };
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let summary = write_dataset(&a, &options, &|_, _| {}).unwrap();
    write_dataset(&b, &options, &|_, _| {}).unwrap();
    write_dataset(&c, &PhantomOptions { seed: 2, rsna_style: true, ..options }, &|_, _| {}).unwrap();
    let contents = |root: &std::path::Path| -> Vec<(String, Vec<u8>)> {
        files(root)
            .iter()
            .map(|f| (f.strip_prefix(root).unwrap().display().to_string(), fs::read(f).unwrap()))
            .collect()
    };
    assert_eq!(contents(&a), contents(&b));
    assert_ne!(contents(&a), contents(&c));
    let table = fs::read_to_string(c.join("labels.csv")).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows[0], "ID,Label");
    let stems: Vec<String> = files(&c).iter().filter_map(|f| Some(f.file_stem()?.to_str()?.to_owned())).collect();
    assert_eq!((rows.len() - 1) / 6, stems.len() - 1);
    assert!(
        rows[1..].iter().all(|row| stems.iter().any(|stem| *stem == row[..12]) && row.starts_with("ID_")),
        "{}",
        rows[1]
    );
    assert!(rows[6].contains("_any,"));
    assert_eq!(summary.studies, 2);
}

#[test]
fn heads_have_the_density_of_heads() {
    let study =
        Study::new(5, 0, &PhantomOptions { bleed_share: 0.0, side: 128, slices: 30..=30, ..PhantomOptions::default() });
    let slice = study.slice(18);
    let middle: Vec<f64> = (54..74)
        .flat_map(|row| (44..84).map(move |column| row * 128 + column))
        .map(|at| f64::from(slice.hu[at]))
        .collect();
    let mean = middle.iter().sum::<f64>() / middle.len() as f64;
    assert!((15.0..45.0).contains(&mean), "brain at {mean} HU");
    assert!(slice.hu.iter().any(|hu| *hu > 600) && slice.hu.iter().any(|hu| *hu < -950), "bone and air");
}

#[test]
fn another_library_reads_the_header() {
    let folder = tempfile::tempdir().unwrap();
    write_dataset(
        folder.path(),
        &PhantomOptions { studies: 1, side: 48, slices: 1..=1, ..PhantomOptions::default() },
        &|_, _| {},
    )
    .unwrap();
    let file = files(folder.path()).into_iter().find(|f| f.extension().is_some_and(|e| e == "dcm")).unwrap();
    let object = dicom_object::open_file(&file).unwrap();
    assert_eq!(object.element(tags::MODALITY).unwrap().to_str().unwrap(), "CT");
    assert_eq!(object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), 48 * 48 * 2);
    assert_eq!(
        object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap(),
        file.file_stem().unwrap().to_str().unwrap()
    );
}

#[test]
fn nonsense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = PhantomOptions::default;
    let wrong = [
        PhantomOptions { studies: 0, ..base() },
        PhantomOptions { side: 8, ..base() },
        PhantomOptions { bleed_share: 1.5, ..base() },
        PhantomOptions { slices: 0..=0, ..base() },
        PhantomOptions { subtypes: vec![Label::Any], ..base() },
    ];
    for options in wrong {
        assert!(write_dataset(folder.path(), &options, &|_, _| {}).is_err(), "{options:?}");
    }
}
