//! `gpu-check` without a GPU: its networks and training in small on the CPU, its file, and its ways to fail. What it times is
//! not looked at.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{stderr, stdout};

fn gpu_check(arguments: &str, json: &Path) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gpu-check"));
    command.args(arguments.split_whitespace()).arg("--json").arg(json).output().unwrap()
}

fn runs(json: &Path) -> Vec<Value> {
    let value: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    value["runs"].as_array().unwrap().clone()
}

/// One line for each time: from where, type of number, batch and devices.
fn times(run: &Value, part: &str) -> Vec<String> {
    let rows = run[part].as_array().unwrap().iter();
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
    let row = |row: &Value| {
        assert!(row["images_per_second"].as_f64().unwrap() > 0.0 && row["rounds"].as_u64().unwrap() > 0, "{row}");
        let (from, precision) = (row["from"].as_str().unwrap(), row["precision"].as_str().unwrap());
        format!("{from} {precision} {} on {}", number(row, "batch"), number(row, "devices"))
    };
    rows.map(row).collect()
}

#[test]
fn networks_and_training_go_through_on_the_cpu_and_runs_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("ichd.json");
    let small = "--device cpu --backbones mobilenet_v2 --side 64 --seconds 0 --commit 0123abc";
    let output = gpu_check(&format!("{small} --only networks --batches 3,1"), &json);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let devices = format!("{small} --only training --train-batch 2 --train-precisions bf16 --devices 2");
    let output = gpu_check(&devices, &json);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));

    let runs = runs(&json);
    let [networks, training] = runs.as_slice() else { panic!("{} runs", runs.len()) };
    for run in [networks, training] {
        assert_eq!((&run["commit"], &run["device"]), (&"0123abc".into(), &"cpu".into()));
        assert!(run["date"].as_str().unwrap().ends_with('Z') && run["not_done"].as_array().unwrap().is_empty());
    }
    let names = |run: &Value| -> Vec<String> {
        let findings = run["findings"].as_array().unwrap().iter();
        findings.map(|finding| finding["name"].as_str().unwrap().replace("mobilenet_v2 ", "")).collect()
    };
    let logits = |precision: &str| format!("logits, {precision}, 3 slices of side 64");
    assert_eq!(names(networks), ["f32", "bf16", "f16"].map(logits));
    // Equal arithmetic gives equal numbers, and rounding does not: the comparison does compare.
    let errors: Vec<f64> =
        networks["findings"].as_array().unwrap().iter().map(|finding| finding["error"].as_f64().unwrap()).collect();
    assert!(errors[0] < 1e-5 && errors[1] > 1e-5 && errors[2] > 1e-5, "{errors:?}");
    assert_eq!(
        times(networks, "networks"),
        [
            "pixels f32 3 on 1",
            "pixels ahead f32 3 on 1",
            "images f32 3 on 1",
            "pixels f32 1 on 1",
            "pixels ahead f32 1 on 1",
            "images f32 1 on 1",
            "pixels f32 3 on 1",
            "pixels filled up f32 3 on 1",
            "images graph f32 3 on 1",
            "images graph f32 1 on 1"
        ]
    );
    assert!(times(networks, "training").is_empty());

    let both = ["loss", "direction of the gradient"];
    assert_eq!(names(training), both.map(|what| format!("{what}, bf16, 8 images of side 64")));
    let steps = [("train_pixels", 1), ("train_images", 1), ("train_pixels", 2), ("train_images", 2)];
    let steps = steps.map(|(from, devices)| format!("{from} bf16 2 on {devices}"));
    assert_eq!(times(training, "training"), steps);
}

#[test]
fn what_was_not_done_is_told_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("ichd.json");
    let output = gpu_check("--device cpu --backbones vgg16,xception --limit 0", &json);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let runs = runs(&json);
    let not_done: Vec<&str> =
        runs[0]["not_done"].as_array().unwrap().iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(not_done, ["kernels", "vgg16", "xception", "training vgg16", "training xception"]);
    assert!(stdout(&output).contains("0 comparisons, 0 wrong; 0 of 0 bars met"), "{}", stdout(&output));
}

#[test]
fn wrong_use_and_a_missing_gpu_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("ichd.json");
    for (wrong, right) in
        [("--backbones resnet51", "resnet50"), ("--train-precisions f16", "bf16"), ("--device gpu", "cuda:0")]
    {
        let output = gpu_check(wrong, &json);
        assert_eq!(output.status.code(), Some(64), "{wrong}");
        assert!(stderr(&output).contains(right), "{wrong}: {}", stderr(&output));
    }
    let output = gpu_check("--device cuda:4096", &json);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(!json.exists(), "nothing was found");
    fs::write(&json, "{\"weights\": 1}").unwrap();
    let output = gpu_check("--device cpu --only networks", &json);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&json).unwrap(), "{\"weights\": 1}");
}
