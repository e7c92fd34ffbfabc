//! The daemon as a process: what goes in comes out, once, whatever happens in between.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Site, assert_valid, data, files, phantoms, schema};

#[test]
fn files_become_results_summaries_and_log_lines() {
    let site = Site::new("move", "");
    let slices = phantoms(&site.path("heads"), 2, 5);
    // One lies there before the daemon starts, the others come later; one is no DICOM file.
    site.drop_file(&slices[0], "early.dcm");
    let daemon = site.start();
    for (idx, slice) in slices.iter().enumerate().skip(1) {
        site.drop_file(slice, &format!("{idx}.dcm"));
    }
    fs::write(site.path("inbox/notes.txt"), "no DICOM here").unwrap();
    site.wait_until("results", |site| site.results().len() == slices.len());
    let is_whole = |file: &std::path::PathBuf| {
        let summary: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        file.ends_with("study.json") && summary["n_slices"] == 5
    };
    site.wait_until("summaries", |site| {
        files(&site.path("results")).iter().filter(|f| f.ends_with("study.json")).filter(|f| is_whole(f)).count() == 2
    });
    site.wait_until("the rejection", |site| site.path("rejected/notes.txt").exists());
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("11 files: 10 done, 0 duplicates, 1 rejected"), "{log}");

    let slice_schema = schema(include_str!("../schemas/ichd.slice.v1.json"));
    for result in site.results() {
        assert_valid(&slice_schema, &result);
        assert_eq!((&result["model"]["trained"], &result["route"]), (&false.into(), &"default".into()));
    }
    let study_schema = schema(include_str!("../schemas/ichd.study.v1.json"));
    for file in files(&site.path("results")).iter().filter(|file| file.ends_with("study.json")) {
        let summary: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert_valid(&study_schema, &summary);
        let along: Vec<f64> = summary["series"][0]["slices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["along_normal_mm"].as_f64().unwrap())
            .collect();
        assert!(along.is_sorted() && along.len() == 5, "{along:?}");
    }
    let seqs: Vec<i64> = site.log_lines().iter().map(|line| line["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
    let reason: Value =
        serde_json::from_slice(&fs::read(site.path("rejected/notes.txt.reason.json")).unwrap()).unwrap();
    assert_eq!((reason["code"].as_str(), reason["schema"].as_str()), (Some("not-dicom"), Some("ichd.reason.v1")));
    assert_eq!(files(&site.path("done")).len(), 10);
    assert_eq!(files(&site.path("inbox")).len(), 0);
}

#[test]
fn the_metrics_tell_what_each_stage_did() {
    let site = Site::new("keep", "metrics: { path: figures/ichd.prom, every_secs: 1 }\n");
    let slices = phantoms(&site.path("heads"), 1, 5);
    let daemon = site.start();
    let metrics = |site: &Site| fs::read_to_string(site.path("figures/ichd.prom")).unwrap_or_default();
    site.wait_until("the first metrics", |site| metrics(site).contains("ichd_files_in_flight 0\n"));
    for (idx, slice) in slices.iter().enumerate() {
        site.drop_file(slice, &format!("{idx}.dcm"));
    }
    site.wait_until("metrics of the slices", |site| metrics(site).contains("ichd_slices_total 5\n"));
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    let found = metrics(&site);
    let value = |sample: &str| -> f64 {
        let line = found.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{sample} is missing in\n{found}")).parse().unwrap()
    };
    assert_eq!(value("ichd_files_total{outcome=\"done\"}"), 5.0);
    assert_eq!(value("ichd_stage_done_total{stage=\"admit\",unit=\"files\"}"), 5.0);
    for stage in ["decode", "batch", "device", "record"] {
        assert_eq!(value(&format!("ichd_stage_done_total{{stage=\"{stage}\",unit=\"slices\"}}")), 5.0, "{stage}");
    }
    for stage in ["admit", "decode", "batch", "device", "record"] {
        assert!(value(&format!("ichd_stage_busy_seconds_total{{stage=\"{stage}\"}}")) > 0.0, "{stage}");
        let (now, most) =
            ["length", "peak"].map(|what| value(&format!("ichd_stage_queue_{what}{{stage=\"{stage}\"}}"))).into();
        assert!(now == 0.0 && most >= now, "{stage}: {now} of {most} when all is done");
    }
    assert!(value("ichd_stage_queue_peak{stage=\"admit\"}") >= 1.0);
    assert!(!found.contains("0.dcm"), "no file is named");
}

#[test]
fn a_broken_schema_would_be_noticed() {
    let slice_schema = schema(include_str!("../schemas/ichd.slice.v1.json"));
    assert!(!slice_schema.is_valid(&serde_json::json!({"schema": "ichd.slice.v1"})));
}

#[test]
fn sigkill_repeats_nothing_that_was_finished() {
    let site = Site::new("move", "batch: { slices_max: 4, wait_ms_max: 5 }\n");
    let slices = phantoms(&site.path("heads"), 3, 20);
    for (idx, slice) in slices.iter().enumerate() {
        site.drop_file(slice, &format!("{idx}.dcm"));
    }
    let mut finished: Vec<(std::path::PathBuf, Vec<u8>)> = Vec::new();
    for kills in 1..=3 {
        let daemon = site.start();
        site.wait_until("some results", |site| site.results().len() >= kills * 10);
        daemon.signal("KILL");
        drop(daemon);
        // What lay there at the last kill has not changed by a byte.
        for (file, bytes) in &finished {
            assert_eq!(&fs::read(file).unwrap(), bytes, "{}", file.display());
        }
        let results = files(&site.path("results")).into_iter();
        let slices = results.filter(|f| f.extension().is_some_and(|e| e == "json") && !f.ends_with("study.json"));
        finished = slices.map(|file| (file.clone(), fs::read(&file).unwrap())).collect();
    }
    let daemon = site.start();
    site.wait_until("all results", |site| {
        site.results().len() == slices.len() && files(&site.path("inbox")).is_empty()
    });
    let (code, log) = daemon.stop("INT");
    assert_eq!(code, Some(0), "{log}");
    for (file, bytes) in &finished {
        assert_eq!(&fs::read(file).unwrap(), bytes, "{}", file.display());
    }
    let lines = site.log_lines();
    let instances: HashSet<&str> = lines.iter().map(|line| line["instance_uid"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), instances.len()), (60, 60), "one line for each slice");
    assert_eq!(files(&site.path("done")).len(), 60);
}

#[test]
fn the_same_picture_is_scored_once_and_another_one_is_a_conflict() {
    let site = Site::new("keep", "admission: { side_min: 1 }\n");
    let daemon = site.start();
    site.drop_file(&data("signed16_explicit_le.dcm"), "a.dcm");
    site.wait_until("the first result", |site| site.results().len() == 1);
    let first = site.results();
    site.drop_file(&data("signed16_rle.dcm"), "b.dcm");
    site.drop_file(&data("signed16_explicit_le.dcm"), "c.dcm");
    // The same UID over another picture.
    let mut other = fs::read(data("signed16_explicit_le.dcm")).unwrap();
    let end = other.len() - 1;
    other[end] ^= 1;
    fs::write(site.path("other.dcm"), other).unwrap();
    site.drop_file(&site.path("other.dcm"), "d.dcm");
    site.wait_until("the reason", |site| site.path("rejected/d.dcm.reason.json").exists());
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("4 files: 1 done, 2 duplicates, 1 rejected"), "{log}");
    assert_eq!(site.results(), first, "the first result stays");
    assert!(fs::read_to_string(site.path("rejected/d.dcm.reason.json")).unwrap().contains("uid-conflict"));
    assert_eq!(files(&site.path("inbox")).len(), 4, "kept");

    // A restart looks at the same files and does nothing.
    let daemon = site.start();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (code, log) = daemon.stop("TERM");
    assert!(code == Some(0) && log.contains("0 files: 0 done"), "{log}");
}

#[test]
fn unfinished_names_links_and_open_files_wait() {
    let site = Site::new("keep", "");
    let slices = phantoms(&site.path("heads"), 1, 3);
    let daemon = site.start();
    // Once this one is through, the daemon hears events.
    site.drop_file(&slices[2], "first.dcm");
    site.wait_until("the first one", |site| site.results().len() == 1);
    std::os::unix::fs::symlink(&slices[0], site.path("inbox/link.dcm")).unwrap();
    fs::copy(&slices[0], site.path("inbox/a.dcm.part")).unwrap();
    // Written in two halves with a pause that is longer than the settle time, and closed at the end.
    let bytes = fs::read(&slices[1]).unwrap();
    let mut file = fs::File::create(site.path("inbox/slow.dcm")).unwrap();
    use std::io::Write;
    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    file.sync_all().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(900));
    assert_eq!(site.results().len(), 1, "an open file was taken");
    file.write_all(&bytes[bytes.len() / 2..]).unwrap();
    drop(file);
    site.wait_until("the slow one", |site| site.results().len() == 2);
    fs::rename(site.path("inbox/a.dcm.part"), site.path("inbox/a.dcm")).unwrap();
    site.wait_until("the renamed one", |site| site.results().len() == 3);
    let (code, log) = daemon.stop("TERM");
    assert!(code == Some(0) && log.contains("3 files: 3 done, 0 duplicates, 0 rejected"), "{log}");
}

#[test]
fn nothing_is_told_of_a_file_that_changes_while_it_settles() {
    let site = Site::new("move", "metrics: { path: ichd.prom, every_secs: 1 }\n");
    let text = fs::read_to_string(site.path("daemon.yaml")).unwrap().replace("settle_ms: 100", "settle_ms: 6000");
    fs::write(site.path("daemon.yaml"), text).unwrap();
    let slices = phantoms(&site.path("heads"), 1, 3);
    let daemon = site.start();
    let scored = |site: &Site, wanted: &str| {
        let metrics = fs::read_to_string(site.path("ichd.prom")).unwrap_or_default();
        metrics.contains(&format!("ichd_slices_total {wanted}\n"))
    };
    site.wait_until("the first metrics", |site| scored(site, "0"));
    // It is scored while it settles; then another one takes its place.
    let first_at = Instant::now();
    site.drop_file(&slices[0], "a.dcm");
    site.wait_until("the first score", |site| scored(site, "1"));
    let n_results = site.results().len();
    assert!(n_results == 0 || first_at.elapsed() >= Duration::from_secs(6), "told before it had settled");
    site.drop_file(&slices[1], "a.dcm");
    // A third one is not worth a try any more, and waits as every file did once.
    site.wait_until("the second score", |site| scored(site, "2"));
    site.drop_file(&slices[2], "a.dcm");
    site.wait_until("the result", |site| !site.results().is_empty());
    let (code, log) = daemon.stop("TERM");
    assert!(code == Some(0) && log.contains("1 done, 0 duplicates, 0 rejected, 2 returned"), "{log}");
    let results = site.results();
    let digest = ichd::identity::sha256(&fs::read(&slices[2]).unwrap());
    assert_eq!((results.len(), results[0]["source"]["sha256"].as_str()), (1, Some(digest.as_str())));
    assert!(files(&site.path("done")).len() == 1 && site.log_lines().len() == 1);
}

#[test]
fn polling_alone_is_enough_and_two_daemons_are_too_many() {
    let site = Site::new("delete", "");
    let text = fs::read_to_string(site.path("daemon.yaml")).unwrap().replace("settle_ms", "watch: poll, settle_ms");
    fs::write(site.path("daemon.yaml"), text).unwrap();
    let slices = phantoms(&site.path("heads"), 1, 3);
    let daemon = site.start();
    for (idx, slice) in slices.iter().enumerate() {
        site.drop_file(slice, &format!("{idx}.dcm"));
    }
    site.wait_until("results", |site| site.results().len() == 3 && files(&site.path("inbox")).is_empty());
    let (code, log) = site.start().stop_by_itself();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("another ichd works on this site"), "{log}");
    assert_eq!(daemon.stop("TERM").0, Some(0));
}

#[test]
fn no_name_of_a_patient_leaves_the_file() {
    let site = Site::new("move", "log: { filter: \"trace\" }\n");
    let slices = phantoms(&site.path("heads"), 1, 2);
    let daemon = site.start();
    for (idx, slice) in slices.iter().enumerate() {
        site.drop_file(slice, &format!("{idx}.dcm"));
    }
    site.wait_until("results", |site| site.results().len() == 2);
    site.wait_until("the summary", |site| files(&site.path("results")).iter().any(|file| file.ends_with("study.json")));
    let (_, mut text) = daemon.stop("TERM");
    for file in files(&site.path("results")) {
        text.push_str(&fs::read_to_string(&file).unwrap());
    }
    text.push_str(&String::from_utf8_lossy(&fs::read(site.path("ledger.sqlite")).unwrap()));
    assert!(!text.contains("PHANTOM-00000"), "PatientID or PatientName came out");
}
