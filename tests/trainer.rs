//! Training: from a labelled folder to a served model, interrupted and not, by the real program.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Site, files, ichd, run, stderr, stdout};

const SETTINGS: &str = "train: { runs_path: runs, cache_path: cache, checkpoint_secs: 1, batch: 8, epochs: 2, \
                        split: { validation: 0.3 }, average_decay: 0.9 }\n";

/// A site with six small labelled heads in `heads`.
fn site() -> Site {
    let site = Site::new("keep", SETTINGS);
    let heads = site.path("heads").display().to_string();
    let made = run(&["phantom", "--out", &heads, "--studies", "6", "--seed", "5", "--side", "64", "--bleeds", "1"]);
    assert!(made.status.success(), "{}", stderr(&made));
    site
}

fn arguments(site: &Site, name: &str, more: &[&str]) -> Vec<String> {
    let path = |name: &str| site.path(name).display().to_string();
    let (config, data, labels) = (path("daemon.yaml"), path("heads"), path("heads/labels.csv"));
    let all = ["train", "--config", &config, "--data", &data, "--labels", &labels, "--backbone", "mobilenet_v2"];
    let usual = [["--side", "32"], ["--name", name]];
    let own = usual.iter().filter(|pair| !more.contains(&pair[0])).flatten();
    all.iter().chain(own).chain(&["--json"]).chain(more).map(|word| (*word).to_owned()).collect()
}

fn train(site: &Site, name: &str, more: &[&str]) -> Value {
    let output = ichd().args(arguments(site, name, more)).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn weights(site: &Site, name: &str) -> Vec<u8> {
    fs::read(site.path(&format!("models/{name}/1/weights.safetensors"))).unwrap()
}

#[test]
fn a_run_that_is_killed_ends_with_the_same_weights_and_the_model_is_served() {
    let site = site();
    let whole = train(&site, "whole", &[]);
    assert_eq!((whole["name"].as_str(), whole["version"].as_str()), (Some("whole"), Some("1")));
    for name in ["metrics.csv", "roc.png", "learning.svg", "card.md", "split.csv", "validation.json"] {
        assert!(site.path("runs/whole").join(name).is_file(), "{name}");
    }
    let card = fs::read_to_string(site.path("models/whole/1/README.md")).unwrap();
    assert!(card.contains("Research use only"), "{card}");

    // Killed as soon as there is a checkpoint, again and again, and taken up each time.
    let progress = site.path("runs/cut/checkpoint/progress.json");
    for round in 0..3 {
        let more: &[&str] = if progress.exists() { &["--resume"] } else { &[] };
        let before = fs::read(&progress).ok();
        let mut child =
            ichd().args(arguments(&site, "cut", more)).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        site.wait_until("a checkpoint", |_| fs::read(&progress).ok() != before || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        if site.path("models/cut/1").exists() {
            assert!(round > 0, "it was over before it could be killed");
            break;
        }
    }
    if !site.path("models/cut/1").exists() {
        train(&site, "cut", &["--resume"]);
    }
    assert!(weights(&site, "whole") == weights(&site, "cut"), "the run that was killed ended elsewhere");

    // Other settings are another run.
    let output = ichd().args(arguments(&site, "cut", &["--resume", "--epochs", "3"])).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("a run with other settings or data"), "{}", stderr(&output));

    same_probabilities_when_served(&site);
}

/// The daemon's code gives what `eval` gives for the same slices.
fn same_probabilities_when_served(site: &Site) {
    let path = |name: &str| site.path(name).display().to_string();
    let (config, heads, labels) = (path("daemon.yaml"), path("heads"), path("heads/labels.csv"));
    let (contest, scores) = (path("contest.csv"), path("scores"));
    let evaluated = run(&[
        "eval",
        "--config",
        &config,
        "--data",
        &heads,
        "--labels",
        &labels,
        "--model",
        "whole",
        "--contest",
        &contest,
        "--json",
    ]);
    assert!(evaluated.status.success(), "{}", stderr(&evaluated));
    let served = path("served.yaml");
    fs::write(&served, fs::read_to_string(&config).unwrap().replace("path: models }", "path: models, name: whole }"))
        .unwrap();
    let scored = run(&["score", "--config", &served, &heads, "--out", &scores]);
    assert!(scored.status.success(), "{}", stderr(&scored));
    let table = fs::read_to_string(&contest).unwrap();
    let mut compared = 0;
    for file in files(Path::new(&scores)).iter().filter(|file| file.extension().is_some_and(|e| e == "json")) {
        let result: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let Some(instance) = result["instance_uid"].as_str() else { continue };
        assert_eq!((&result["calibrated"], &result["model"]["name"]), (&Value::Bool(true), &Value::from("whole")));
        let prefix = format!("{instance}_any,");
        let expected = table.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
        let (expected, found) = (expected.parse::<f64>().unwrap(), result["probabilities"]["any"].as_f64().unwrap());
        assert!((expected - found).abs() < 1e-6, "{instance}: {expected} in training's code, {found} served");
        compared += 1;
    }
    assert!(compared > 100, "only {compared} slices were compared");

    let compared = run(&["compare", "--config", &config, "--data", &heads, "--labels", &labels, "whole", "cut"]);
    assert!(compared.status.success(), "{}", stderr(&compared));
    assert!(stdout(&compared).contains("mobilenet_v2 (whole)"), "{}", stdout(&compared));
}

#[test]
fn what_cannot_be_trained_is_told_before_anything_is_done() {
    let site = site();
    let refused = |more: &[&str], code: i32, sentence: &str| {
        let output = ichd().args(arguments(&site, "m", more)).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(sentence), "{more:?}: {}", stderr(&output));
    };
    refused(&["--epochs", "0"], 64, "train.epochs: 0 is not possible");
    refused(&["--side", "8"], 64, "--side: 32 to 2048 would be right");
    refused(&["--from", "nothing"], 78, "no version of it");
    refused(&["--name", "a/b"], 64, "cannot be the name of a folder");
    // A fifth of the labelled images has no file any more.
    let all = files(&site.path("heads"));
    for file in all.iter().filter(|file| file.extension().is_some_and(|e| e == "dcm")).step_by(5) {
        fs::remove_file(file).unwrap();
    }
    refused(&[], 78, "labelled images are unusable");
    fs::write(site.path("heads/labels.csv"), "ID,Label\nx_any,1\nx_any,0\n").unwrap();
    refused(&[], 78, "differs from line 2");
}
