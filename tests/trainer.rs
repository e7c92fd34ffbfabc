//! Training: from a labelled folder to a served model, interrupted and not, by the real program.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ichd_plugin::label::Label;
use serde_json::Value;

use crate::support::{Site, files, ichd, model, run, stderr, stdout};

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
    let left = [
        "metrics.csv",
        "roc.png",
        "learning.svg",
        "card.md",
        "split.csv",
        "validation.json",
        "validation.html",
        "worst.png",
    ];
    for name in left {
        assert!(site.path("runs/whole").join(name).is_file(), "{name}");
    }
    let worst = fs::read_to_string(site.path("runs/whole/worst.csv")).unwrap();
    let losses: Vec<f64> = worst.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect();
    assert!(losses.len() > 30 && losses.is_sorted_by(|a, b| a >= b), "{worst}");
    let validation = fs::read_to_string(site.path("runs/whole/validation.md")).unwrap();
    assert!(validation.contains("sensitivity") && validation.contains("AUROC"), "{validation}");
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
    let path = |name: &str| site.path(name).display().to_string();
    let (config, heads, labels) = (path("daemon.yaml"), path("heads"), path("heads/labels.csv"));
    let compared = run(&["compare", "--config", &config, "--data", &heads, "--labels", &labels, "whole", "cut"]);
    assert!(compared.status.success(), "{}", stderr(&compared));
    assert!(stdout(&compared).contains("mobilenet_v2 (whole)"), "{}", stdout(&compared));
}

/// The daemon's code gives what `eval` gives for the same slices and the model `whole`.
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
        for label in Label::ALL.map(Label::name) {
            let prefix = format!("{instance}_{label},");
            let expected = table.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
            let expected = expected.parse::<f64>().unwrap();
            let found = result["probabilities"][label].as_f64().unwrap();
            assert!(
                (expected - found).abs() < 1e-6,
                "{instance} {label}: {expected} in training's code, {found} served"
            );
        }
        compared += 1;
    }
    assert!(compared > 100, "only {compared} slices were compared");
}

#[test]
fn a_network_for_one_window_is_trained_published_and_served() {
    let site = site();
    let settings = fs::read_to_string(site.path("daemon.yaml")).unwrap();
    fs::write(site.path("daemon.yaml"), format!("{settings}windows: [{{ level: 40, width: 80 }}]\n")).unwrap();
    train(&site, "whole", &["--epochs", "1"]);
    assert_eq!(windows_of(&site, "whole"), 1);
    same_probabilities_when_served(&site);
}

/// Windows of version 1 of a model, which its first convolution, means and deviations fit.
fn windows_of(site: &Site, name: &str) -> usize {
    let model = ichd::model::load_named(&site.path("models"), &format!("{name}/1")).unwrap();
    let count = model.card.preprocessing.windows.len();
    let stem = model.weights.get(model.spec.first_conv).unwrap();
    assert_eq!(
        (stem.shape[1], model.card.preprocessing.mean.len(), model.card.preprocessing.std.len()),
        (count, count, count)
    );
    count
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
    // Names, versions and numbers with which days of training would end in nothing.
    put_broken_model(&site);
    refused(&["--name", "phantom_only"], 64, "none of the models that come with the program");
    refused(&["--name", "untrained"], 64, "none of the models that come with the program");
    refused(&["--version-name", "a/b"], 64, "its version cannot be that of a folder");
    refused(&["--name", "broken", "--version-name", "1"], 64, "broken/1 exists already and is not overwritten");
    refused(&["--precision", "f16"], 64, "train.precision: f16 is not possible");
    refused(&["--precision", "bf16"], 78, "bf16 would only be imitated by the CPU");
    refused(&["--folds", "3", "--fold", "3"], 64, "train.split.fold: 3 is not possible");
    refused(&["--finish"], 64, "--resume");
    refused(&["--resume", "--finish"], 78, "holds no finished epoch");
    // A fifth of the labelled images has no file any more.
    let all = files(&site.path("heads"));
    for file in all.iter().filter(|file| file.extension().is_some_and(|e| e == "dcm")).step_by(5) {
        fs::remove_file(file).unwrap();
    }
    refused(&[], 78, "labelled images are unusable");
    fs::write(site.path("heads/labels.csv"), "ID,Label\nx_any,1\nx_any,0\n").unwrap();
    refused(&[], 78, "differs from line 2");
    assert!(!site.path("cache").exists(), "slices were decoded for nothing");
}

/// Asks the process to stop, as Ctrl-C does.
fn interrupt(child: &Child) {
    let status = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

#[test]
fn ctrl_c_ends_with_a_checkpoint_and_whatever_is_finished_is_published_once() {
    let site = site();
    let epochs = ["--epochs", "4"];
    train(&site, "whole", &epochs);
    let child =
        ichd().args(arguments(&site, "cut", &epochs)).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    site.wait_until("a finished epoch", |site| site.path("runs/cut/best.safetensors").exists());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("Stopped. Go on with the same command and --resume"), "{}", stderr(&output));
    assert!(site.path("runs/cut/checkpoint/progress.json").exists() && !site.path("models/cut").exists());

    // What there is, without training on; the same weights are not published twice.
    let more = |word: &'static str| -> Vec<&str> { epochs.into_iter().chain(["--resume", word]).collect() };
    let finished = train(&site, "cut", &more("--finish"));
    assert_eq!((&finished["version"], &finished["new"]), (&Value::from("1"), &Value::from(true)));
    let card = fs::read_to_string(site.path("models/cut/1/README.md")).unwrap();
    assert!(card.contains("Training was ended (--finish) after"), "{card}");
    let again = train(&site, "cut", &more("--finish"));
    assert_eq!((&again["version"], &again["new"]), (&Value::from("1"), &Value::from(false)));
    assert_eq!(again["metrics"], finished["metrics"]);

    // On to the end, which is that of a run that nobody interrupted, and a finished run says so.
    let done = train(&site, "cut", &more("")[..3]);
    let version = done["version"].as_str().unwrap();
    let of = |model: &str| fs::read(site.path(&format!("models/{model}/weights.safetensors"))).unwrap();
    assert!(of("whole/1") == of(&format!("cut/{version}")), "the run that was interrupted ended elsewhere");
    let words = arguments(&site, "cut", &more("")[..3]).into_iter().filter(|word| word != "--json");
    let output = ichd().args(words).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let sentence = format!("The run published its weights before, as cut/{version}; nothing is published again.");
    assert!(stdout(&output).contains(&sentence), "{}", stdout(&output));
    let versions = fs::read_dir(site.path("models/cut")).unwrap().count();
    assert_eq!(versions.to_string(), version, "one version for each set of weights");
}

#[test]
fn what_a_run_does_otherwise_than_one_might_think_stands_on_screen_and_in_the_card() {
    let site = site();
    let settings = fs::read_to_string(site.path("daemon.yaml")).unwrap();
    fs::write(site.path("daemon.yaml"), settings.replace("cache_path: cache", "cache_path: cache, cache_side: 48"))
        .unwrap();
    let more = ["--recipe", "report", "--epochs", "1", "--batch", "8", "--split", "slice", "--validation", "0.4"];
    let more: Vec<&str> = more
        .into_iter()
        .chain(["--patience", "3", "--epidural-times", "2", "--negatives", "2", "--devices", "1"])
        .collect();
    let output = ichd().args(arguments(&site, "m", &more)).output().unwrap();
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    for sentence in [
        "Recipe (the report's): Adam, learning rate 0.0001 throughout; 1 epochs of batches of 8;",
        "this run begins with random ones",
        "were made smaller, to 48 pixels, before they were windowed",
        "Split by slice, seed 1: validation 0.4, train 0.6, of which validation validates.",
    ] {
        assert!(told.contains(sentence), "{sentence}: {told}");
    }
    let card = fs::read_to_string(site.path("models/m/1/README.md")).unwrap();
    assert_eq!(card, fs::read_to_string(site.path("runs/m/card.md")).unwrap());
    for sentence in [
        "This split leaks: ",
        "| Patients in both parts | ",
        "were made smaller, to 48 pixels, before they were windowed",
        "| Split | by slice, seed 1: validation 0.4, train 0.6, of which validation validates |",
        "| patience | 3 |",
        "\"epidural_times\":2,\"negatives_per_positive\":2.0",
    ] {
        assert!(card.contains(sentence), "{sentence}: {card}");
    }
    assert!(!card.contains("of other patients"), "{card}");

    let more: Vec<&str> = more.into_iter().filter(|word| !["--split", "slice"].contains(word)).collect();
    let output = ichd().args(arguments(&site, "m", &more)).arg("--resume").output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("holds a split by slice, seed 1"), "{}", stderr(&output));
    assert!(stderr(&output).contains("the settings ask for one by patient, seed 1"), "{}", stderr(&output));
}

/// A model whose first loss is no number: its logits are beyond what f32 holds.
fn put_broken_model(site: &Site) {
    let spec = ichd::registry::find("mobilenet_v2").unwrap();
    let mut weights = spec.untrained(1);
    let entry = weights.get("classifier.1.weight").unwrap().clone();
    weights.insert("classifier.1.weight", entry.shape, vec![3e38; entry.values.len()]);
    model::put_model(&site.path("models/broken/1"), &weights, 32, 80.0);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_says_what_may_help() {
    let site = site();
    put_broken_model(&site);
    let output = ichd().args(arguments(&site, "m", &["--from", "broken"])).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    let complaint = stderr(&output);
    assert!(complaint.contains("in epoch 1") && complaint.contains("a smaller learning rate"), "{complaint}");
    assert!(!site.path("models/m").exists());
}

#[test]
fn a_list_of_runs_ends_in_one_comparison_and_goes_on_where_it_stopped() {
    let site = site();
    put_broken_model(&site);
    let list = site.path("list.yaml");
    let text = "backbones: [{ backbone: mobilenet_v2, from: broken, side: 32 }]\nrecipes:\n- { name: broken }\n- { name:                 sound, pretrained: false, train: { epochs: 1, average_decay: 0 } }\n- { name: half, pretrained: false,                 train: { epochs: 1, stored: f16 } }\n";
    fs::write(&list, text).unwrap();
    let path = |name: &str| site.path(name).display().to_string();
    let (config, heads, labels, list) =
        (path("daemon.yaml"), path("heads"), path("heads/labels.csv"), path("list.yaml"));
    let arguments = ["train", "--config", &config, "--data", &heads, "--labels", &labels, "--matrix", &list, "--json"];

    // Killed within the second run.
    let mut child = ichd().args(arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    site.wait_until("the second run", |site| {
        site.path("runs/list/mobilenet_v2-sound/checkpoint/progress.json").exists()
    });
    child.kill().unwrap();
    child.wait().unwrap();

    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("Going on in epoch "), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 of 3 runs failed: mobilenet_v2-broken"), "{}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let models: Vec<&str> = answer["runs"].as_array().unwrap().iter().map(|r| r["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["mobilenet_v2-sound/1", "mobilenet_v2-half/1"]);
    assert_eq!(answer["failed"], serde_json::json!(["mobilenet_v2-broken"]));
    assert!(answer["runs"][0]["measures"]["epoch_seconds"].as_f64().unwrap() > 0.0, "{answer}");
    let table = fs::read_to_string(site.path("runs/list/comparison.md")).unwrap();
    assert!(table.contains("mobilenet_v2-sound") && table.contains("mobilenet_v2-half"), "{table}");

    // A model in half precision is half as large, and what was measured is what is served.
    let size = |name: &str| fs::metadata(site.path(&format!("models/{name}/1/weights.safetensors"))).unwrap().len();
    assert!(size("mobilenet_v2-half") * 2 < size("mobilenet_v2-sound") + 100_000);

    // What is done is not done again.
    let before = fs::read(site.path("runs/list/mobilenet_v2-sound/done.json")).unwrap();
    let output = run(&arguments);
    assert!(
        stderr(&output).contains("mobilenet_v2-sound: done before, as mobilenet_v2-sound/1"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read(site.path("runs/list/mobilenet_v2-sound/done.json")).unwrap(), before);
    assert!(!site.path("models/mobilenet_v2-sound/2").exists());
}

#[test]
fn a_run_of_a_list_can_be_ended_with_its_best_weights_and_starts_are_looked_at_before_anything_is_done() {
    let site = site();
    let spec = ichd::registry::find("mobilenet_v2").unwrap();
    model::put_model(&site.path("models/three/1"), &spec.untrained(3), 32, 80.0);
    let path = |name: &str| site.path(name).display().to_string();
    let (config, heads, labels, list) =
        (path("daemon.yaml"), path("heads"), path("heads/labels.csv"), path("list.yaml"));
    let arguments = ["train", "--config", &config, "--data", &heads, "--labels", &labels, "--matrix", &list, "--json"];
    let with = |more: &[&str]| run(&arguments.iter().chain(more).copied().collect::<Vec<_>>());
    let refused = |text: &str, sentence: &str| {
        fs::write(&list, text).unwrap();
        let output = with(&[]);
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        assert!(stderr(&output).contains(sentence), "{}", stderr(&output));
        assert!(!site.path("runs").exists() && !site.path("cache").exists(), "something was done");
    };
    // The second start is missing, was changed, or fits no window of that width.
    let sound = "{ backbone: mobilenet_v2, from: three, side: 32 }";
    refused(
        &format!("backbones: [{sound}, {{ backbone: vgg16, from: nothing }}]\nrecipes: [{{ name: a }}]"),
        "vgg16-a: the model nothing: ",
    );
    refused(
        &format!("backbones: [{sound}]\nrecipes: [{{ name: a }}, {{ name: b, windows: [{{ level: 40, width: 0 }}] }}]"),
        "mobilenet_v2-b: three/1, its first convolution made for 1 windows",
    );
    refused(
        &format!("backbones: [{sound}, {{ backbone: resnet51 }}]\nrecipes: [{{ name: a }}]"),
        "the backbone `resnet51` is not known",
    );
    model::put_model(&site.path("models/cut/1"), &spec.untrained(3), 32, 80.0);
    let cut = fs::OpenOptions::new().write(true).open(site.path("models/cut/1/weights.safetensors")).unwrap();
    cut.set_len(1000).unwrap();
    refused("backbones: [{ backbone: mobilenet_v2, from: cut }]\nrecipes: [{ name: a }]", "were changed or cut short");

    // Windows of another number than the model's, and random weights for yet another.
    let text = format!(
        "backbones: [{sound}]\nrecipes:\n- {{ name: one, windows: [{{ level: 40, width: 80 }}], train: {{ epochs: 50, patience: 0 }} }}\n\
         - {{ name: two, pretrained: false, windows: [{{ level: 40, width: 80 }}, {{ level: 80, width: 200 }}], train: {{ epochs: 1 }} }}\n"
    );
    fs::write(&list, text).unwrap();
    let child = ichd().args(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    site.wait_until("a finished epoch", |site| site.path("runs/list/mobilenet_v2-one/best.safetensors").exists());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("Stopped. The same command goes on from here."), "{}", stderr(&output));

    let output = with(&["--resume", "--finish"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("epoch   "), "it went on: {}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer["runs"][0]["model"], "mobilenet_v2-one/1");
    assert_eq!(answer["runs"][0]["measures"]["backbone"], "mobilenet_v2-one (ended early)");
    assert_eq!(
        (&answer["left"], answer["runs"].as_array().unwrap().len()),
        (&serde_json::json!(["mobilenet_v2-two"]), 1)
    );
    let card = fs::read_to_string(site.path("models/mobilenet_v2-one/1/README.md")).unwrap();
    assert!(card.contains("Training was ended (--finish) after"), "{card}");
    assert!(card.contains("three/1, its first convolution made for 1 windows"), "{card}");

    // The rest of the list.
    let output = with(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("mobilenet_v2-one: done before, as mobilenet_v2-one/1"), "{}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&answer["left"], answer["runs"].as_array().unwrap().len()), (&serde_json::json!([]), 2));
    assert_eq!((windows_of(&site, "mobilenet_v2-one"), windows_of(&site, "mobilenet_v2-two")), (1, 2));
}

/// Where file systems may be mounted: by root, or in a user namespace.
fn may_mount() -> bool {
    let probe = ["-rm", "sh", "-c", "mount -t tmpfs none /mnt"];
    let may = Command::new("unshare").args(probe).output().is_ok_and(|output| output.status.success());
    assert!(
        may || std::env::var_os("ICHD_REQUIRE_MOUNTS").is_none(),
        "ICHD_REQUIRE_MOUNTS is set, but nothing can be mounted"
    );
    may
}

#[test]
fn a_full_disk_ends_the_run_with_the_file_and_the_run_goes_on_once_there_is_room() {
    if !may_mount() {
        eprintln!("not run: nothing can be mounted here");
        return;
    }
    let site = site();
    fs::create_dir_all(site.path("runs")).unwrap();
    // Room for the best weights and one checkpoint, then for all.
    let words: Vec<String> = arguments(&site, "m", &[]).iter().map(|word| format!("'{word}'")).collect();
    let (train, runs) = (format!("{} {}", env!("CARGO_BIN_EXE_ichd"), words.join(" ")), site.path("runs"));
    let runs = runs.display();
    let script = format!(
        "mount -t tmpfs -o size=60m none {runs} || exit 99\n{train}\n[ $? = 74 ] || exit 98\nls {runs}/m/checkpoint/progress.json          || exit 97\nmount -o remount,size=400m {runs} || exit 96\n{train} --resume || exit 95\n"
    );
    let output = Command::new("unshare").args(["-rm", "sh", "-c", &script]).output().unwrap();
    let complaint = stderr(&output);
    assert!(output.status.success(), "{:?}: {complaint}", output.status);
    assert!(complaint.contains("No space left") && complaint.contains("runs/m/checkpoint/"), "{complaint}");
    assert!(weights(&site, "m").len() > 8_000_000);
}

/// The model that comes along reads heads that it never saw.
#[test]
fn the_model_that_comes_along_finds_blood_in_new_phantoms() {
    let site = Site::new("keep", "train: { cache_path: cache }\n");
    let path = |name: &str| site.path(name).display().to_string();
    let (config, heads, labels) = (path("daemon.yaml"), path("heads"), path("heads/labels.csv"));
    let made = run(&["phantom", "--out", &heads, "--studies", "24", "--seed", "60913", "--bleeds", "1"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let eval =
        ["eval", "--config", &config, "--data", &heads, "--labels", &labels, "--model", "phantom_only", "--json"];
    let output = run(&eval);
    assert!(output.status.success(), "{}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    for (at, label) in answer["metrics"]["labels"].as_array().unwrap().iter().enumerate() {
        let (auroc, least) = (label["auroc"].as_f64().unwrap(), if at == 0 { 0.97 } else { 0.93 });
        assert!(auroc >= least, "label {at}: AUROC {auroc}");
    }
}
