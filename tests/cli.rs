//! The command line: answers, exit codes and files of every command.

use std::fs;

use serde_json::Value;

use crate::support::{Site, data, files, phantoms, run, stderr, stdout};

#[test]
fn wrong_use_is_64_and_help_is_0() {
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    for wrong in [
        &["nonsense"][..],
        &["run", "--what"],
        &["score"],
        &["run", "--device", "gpu"],
        &["phantom", "--out", "x", "--subtypes", "blue"],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}: {}", stderr(&output));
    }
}

#[test]
fn a_wrong_configuration_is_78_with_file_line_and_key() {
    let site = Site::new("keep", "windows:\n  - { level: 40, width: 0 }\nbatch: { slices_max: many }\n");
    let file = site.path("daemon.yaml").display().to_string();
    for command in ["run", "check"] {
        let output = run(&[command, "--config", &file]);
        assert_eq!(output.status.code(), Some(78));
        assert!(stderr(&output).contains(&format!("{file}:8: batch.slices_max: is text")), "{}", stderr(&output));
    }
    let site = Site::new("keep", "");
    let output = run(&["run", "--device", "cuda:77", "--config", &site.path("daemon.yaml").display().to_string()]);
    assert!(
        output.status.code() == Some(78) && stderr(&output).contains("ichd: device cuda:77: "),
        "{}",
        stderr(&output)
    );
    let output = run(&["run", "--config", "/nowhere/daemon.yaml"]);
    assert!(
        output.status.code() == Some(78) && stderr(&output).contains("/nowhere/daemon.yaml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn warmup_tries_every_model_and_says_what_is_kept() {
    let routes =
        "routes:\n- { name: a, match: { folder: a }, models: [{ name: phantom_only }] }\ncache: { path: kernels }\n";
    let site = Site::new("keep", routes);
    let config = site.path("daemon.yaml").display().to_string();
    let output = run(&["warmup", "--config", &config, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let models: Vec<&str> =
        answer["models"].as_array().unwrap().iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert!(
        models.len() == 2 && models[0].starts_with("phantom_only/") && models[1].starts_with("untrained/"),
        "{answer}"
    );
    let is_time = |row: &Value, key: &str| row[key].as_f64().is_some_and(|secs| secs > 0.0);
    assert!(answer["models"].as_array().unwrap().iter().all(|row| is_time(row, "first_s") && is_time(row, "second_s")));
    assert_eq!((&answer["device"], &answer["cache"]), (&Value::from("cpu"), &Value::Null));
    assert!(answer["note"].as_str().unwrap().contains("nothing needs keeping"), "{answer}");
    assert!(!site.path("kernels").exists(), "a CPU leaves nothing");
    let text = stdout(&run(&["warmup", "--config", &config]));
    assert!(text.contains("device cpu, batches of 1") && text.contains("first s"), "{text}");
    // A folder that cannot be is no reason to fail, neither here nor at the daemon's start.
    fs::write(site.path("kernels"), "a file, no folder").unwrap();
    assert!(run(&["warmup", "--config", &config]).status.success());
    let checked = run(&["check", "--config", &config]);
    assert!(
        checked.status.success() && stdout(&checked).contains("compiled kernels are not kept"),
        "{}",
        stdout(&checked)
    );
}

#[test]
fn check_reports_all_problems_at_once() {
    let site = Site::new("keep", "");
    let text = fs::read_to_string(site.path("daemon.yaml")).unwrap();
    let text = text
        .replace("model: { path: models }", "model: { path: models, name: missing }")
        .replace("results: { path: results", "results: { path: blocked/results");
    fs::write(site.path("daemon.yaml"), text).unwrap();
    fs::write(site.path("blocked"), "a file, not a folder").unwrap();
    let output = run(&["check", "--config", &site.path("daemon.yaml").display().to_string(), "--device", "cuda:77"]);
    assert_eq!(output.status.code(), Some(78));
    let text = stderr(&output);
    assert!(text.contains("3 problem(s)"), "{text}");
    for part in ["results.path: ", "is no folder", "model.name: the model missing", "device: device cuda:77"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    fs::remove_file(site.path("blocked")).unwrap();
    let text = fs::read_to_string(site.path("daemon.yaml")).unwrap().replace(", name: missing", "");
    fs::write(site.path("daemon.yaml"), text).unwrap();
    let output = run(&["check", "--json", "--config", &site.path("daemon.yaml").display().to_string()]);
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(output.status.success() && answer["ok"] == true, "{answer}");
}

#[test]
fn score_has_a_line_for_every_path_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (inputs, out) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&inputs).unwrap();
    for name in ["signed16_explicit_le.dcm", "signed16_j2k_lossless.dcm", "enhanced_native.dcm"] {
        fs::copy(data(name), inputs.join(name)).unwrap();
    }
    fs::write(inputs.join("empty.dcm"), "").unwrap();
    fs::write(inputs.join("bad\nname.dcm"), "not DICOM").unwrap();
    let (inputs, out_text) = (inputs.display().to_string(), out.display().to_string());
    let first = run(&["score", &inputs, "--out", &out_text, "--json", "--device", "cpu"]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let lines: Vec<Value> = stdout(&first).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut fates: Vec<&str> = lines.iter().map(|line| line["fate"].as_str().unwrap()).collect();
    fates.sort_unstable();
    assert_eq!(fates, ["duplicate", "rejected", "rejected", "result", "result"]);
    let before: Vec<_> = files(&out)
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "json"))
        .map(|f| (f.clone(), fs::read(f).unwrap()))
        .collect();
    let again = run(&["score", &inputs, "--out", &out_text, "--json", "--device", "cpu"]);
    let lines: Vec<Value> = stdout(&again).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["fate"] == "duplicate").count(), 3, "{lines:?}");
    for (file, bytes) in before.iter().filter(|(file, _)| !file.ends_with("study.json")) {
        assert_eq!(&fs::read(file).unwrap(), bytes, "{}", file.display());
    }
    let missing = run(&["score", "/nowhere/at/all", "--out", &out_text]);
    assert!(missing.status.code() == Some(64) && stderr(&missing).contains("/nowhere/at/all"));
}

#[test]
fn inspect_shows_facts_and_a_picture_but_no_patient() {
    let folder = tempfile::tempdir().unwrap();
    let slice = phantoms(folder.path(), 1, 1).remove(0).display().to_string();
    let png = folder.path().join("x.png");
    let output = run(&["inspect", &slice, "--png", &png.display().to_string()]);
    let text = stdout(&output);
    assert!(output.status.success() && text.contains("accepted") && text.contains("HU = stored * 1 + -1024"), "{text}");
    assert!(!text.contains("PHANTOM"), "{text}");
    assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    let output = run(&["check", "--explain", "short-pixels"]);
    assert!(stdout(&output).contains("Fewer pixels"), "{}", stdout(&output));
}

#[test]
fn a_trained_model_is_taken_and_a_changed_one_is_refused() {
    let site = Site::new("keep", "");
    let folder = site.path("models/test/2");
    fs::create_dir_all(&folder).unwrap();
    let spec = ichd::registry::find("mobilenet_v2").unwrap();
    let bytes = spec.untrained(5).to_safetensors().unwrap();
    fs::write(folder.join("weights.safetensors"), &bytes).unwrap();
    let manifest = format!(
        "schema: ichd.model.v1\nbackbone: mobilenet_v2\ntrained: true\ninput_side: 96\nwindows:\n- {{level: 40, width: 80}}\n- {{level: 80, width: 200}}\n- {{level: 40, width: 380}}\nramp: linear_exact\nresampling: bilinear_antialias\nmean: [0.5, 0.5, 0.5]\nstd: [0.25, 0.25, 0.25]\nlabels: [any, epidural, intraparenchymal, intraventricular, subarachnoid, subdural]\npreprocessing_version: 1\nweights_sha256: {}\noperating_points: [0, 0, 1, 1, 1, 1]\ncalibration: {{ scale: [0, 1, 1, 1, 1, 1], shift: [2, 0, 0, 0, 0, 0] }}\n",
        ichd::identity::sha256(&bytes)
    );
    fs::write(folder.join("model.yaml"), &manifest).unwrap();
    let text =
        fs::read_to_string(site.path("daemon.yaml")).unwrap().replace("path: models", "path: models, name: test");
    fs::write(site.path("daemon.yaml"), text).unwrap();
    let (config, out) = (site.path("daemon.yaml").display().to_string(), site.path("out"));
    let file = data("signed16_explicit_le.dcm").display().to_string();
    let output = run(&["score", &file, "--config", &config, "--out", &out.display().to_string()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let result = files(&out)
        .into_iter()
        .find(|f| f.extension().is_some_and(|e| e == "json") && !f.ends_with("study.json"))
        .unwrap();
    let result: Value = serde_json::from_slice(&fs::read(result).unwrap()).unwrap();
    assert_eq!(result["model"]["name"], "test");
    assert_eq!((result["model"]["trained"].clone(), result["calibrated"].clone()), (true.into(), true.into()));
    assert_eq!(result["labels"], serde_json::json!(["any", "epidural"]));
    assert!((result["probabilities"]["any"].as_f64().unwrap() - 0.880797).abs() < 1e-6, "{result}");
    assert_eq!(result["preprocessing"]["side"], 96);

    let mut changed = bytes.clone();
    let end = changed.len() - 1;
    changed[end] ^= 1;
    fs::write(folder.join("weights.safetensors"), changed).unwrap();
    let output = run(&["run", "--config", &config]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("the weights were changed or cut short"), "{}", stderr(&output));
    fs::write(folder.join("model.yaml"), manifest.replace("mobilenet_v2", "alexnet")).unwrap();
    let output = run(&["run", "--config", &config]);
    assert!(stderr(&output).contains("the backbone `alexnet` is not known"), "{}", stderr(&output));
}

#[test]
fn models_and_completions_are_listed() {
    let text = stdout(&run(&["models", "list", "--backbones"]));
    assert!(text.contains("resnet50") && text.contains("23.51 M") && text.contains("mobilenet_v2"), "{text}");
    let found: Value = serde_json::from_str(&stdout(&run(&["models", "list", "--backbones", "--json"]))).unwrap();
    let backbones = found["backbones"].as_array().unwrap();
    let mobilenet = backbones.iter().find(|backbone| backbone["name"] == "mobilenet_v2").unwrap();
    assert_eq!(mobilenet["parameters"], 2_223_872);
    assert!(stdout(&run(&["completions", "bash"])).contains("ichd"));
}

#[test]
fn the_demo_ends_with_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let output = run(&["demo", "--studies", "1", "--json", "--device", "cpu", "--out", &out.display().to_string()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let slices = files(&out.join("done")).len();
    assert!(slices >= 30 && summary["slices"] == slices, "{summary}");
    // The model that comes along is asked, and it finds what was planted.
    assert_eq!((summary["model"].as_str(), summary["trained"].as_bool()), (Some("phantom_only"), Some(true)));
    let count = |name: &str| summary["finds"][name].as_f64().unwrap();
    assert!(count("found") >= 0.8 * count("bleeding") && count("bleeding") > 0.0, "{summary}");
    assert!(count("false_alarms") <= 0.2 * count("clean"), "{summary}");
    assert!(fs::read(out.join("demo.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(files(&out.join("results")).iter().any(|file| file.ends_with("study.json")));
}

#[test]
fn split_keeps_patients_together_and_says_how_alike_the_parts_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (heads, labels) = (path("heads"), path("heads/labels.csv"));
    let make = run(&["phantom", "--out", &heads, "--studies", "8", "--side", "32", "--rsna"]);
    assert_eq!(make.status.code(), Some(0), "{}", stderr(&make));
    let out = path("parts/split.csv");
    let split = run(&[
        "split",
        "--labels",
        &labels,
        "--data",
        &heads,
        "--fraction",
        "0.3",
        "--names",
        "subset,rest",
        "--out",
        &out,
        "--json",
    ]);
    assert_eq!(split.status.code(), Some(0), "{}", stderr(&split));
    let answer: Value = serde_json::from_str(&stdout(&split)).unwrap();
    assert_eq!((answer["patients"].as_u64(), answer["leaking_patients"].as_u64()), (Some(6), Some(0)));
    assert_eq!((answer["parts"][0]["name"].as_str(), answer["mode"].as_str()), (Some("subset"), Some("patient")));
    let text = fs::read_to_string(&out).unwrap();
    assert!(
        text.starts_with("# ichd.split.v1\n# seed: 1\n# mode: patient\n# fractions: subset 0.3, rest 0.7\n"),
        "{text:.200}"
    );

    // The same patients from a table give the same file.
    let rows = text.lines().skip(6).map(|row| row.split(',').take(2).collect::<Vec<_>>().join(","));
    let groups = std::iter::once("id,group".to_owned()).chain(rows).collect::<Vec<_>>().join("\n");
    fs::write(path("groups.csv"), groups).unwrap();
    let by_slice = run(&[
        "split",
        "--labels",
        &labels,
        "--groups",
        &path("groups.csv"),
        "--folds",
        "2",
        "--mode",
        "slice",
        "--out",
        &out,
    ]);
    assert_eq!(by_slice.status.code(), Some(0), "{}", stderr(&by_slice));
    assert!(stdout(&by_slice).contains("6 patients have slices in more than one part"), "{}", stdout(&by_slice));
    assert!(stderr(&by_slice).contains("leaks patients"), "{}", stderr(&by_slice));

    for wrong in
        [&["--fraction", "1.5"][..], &["--names", "a,a"], &["--folds", "1"], &["--folds", "50"], &["--mode", "study"]]
    {
        let common = ["split", "--labels", &labels, "--data", &heads, "--out", &out];
        let output = run(&[&common[..], wrong].concat());
        assert_eq!(output.status.code(), Some(64), "{wrong:?}: {}", stderr(&output));
    }
    let no_groups = run(&["split", "--labels", &labels, "--out", &out]);
    assert_eq!(no_groups.status.code(), Some(64));
}
