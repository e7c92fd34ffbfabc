//! Weights in and out: `ichd models import`, `inspect` and `export` on made-up state dicts, and every backbone against the
//! committed lists of the reference's names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ichd::model;
use ichd::registry::{self, BACKBONES};
use ichd_plugin::fill;
use ichd_plugin::spec::BackboneSpec;
use ichd_plugin::weights::Weights;
use serde_json::Value;

use crate::support::pth::pth;
use crate::support::{Site, data, files, run, stderr, stdout};

/// Name to shape and type.
type List = BTreeMap<String, (String, String)>;

/// The reference's list for a backbone.
fn reference(backbone: &str) -> List {
    let path = format!("{}/plugins/api/tests/reference/{backbone}.torch.tsv", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        (parts[0].to_owned(), (parts[1].to_owned(), parts[2].to_owned()))
    };
    text.lines().map(row).collect()
}

/// What an export must hold: the reference's list with a head of six units and without what is left out.
fn expected(spec: &BackboneSpec) -> List {
    let mut list = reference(spec.name);
    list.retain(|name, _| !spec.is_classifier(name) && !spec.left_out.iter().any(|prefix| name.starts_with(prefix)));
    list.insert(format!("{}.weight", spec.classifier), (format!("6,{}", spec.feature_width), "F32".into()));
    list.insert(format!("{}.bias", spec.classifier), ("6".into(), "F32".into()));
    list
}

fn shape_text(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// A published file: the body of the golden weights, and a classifier of a thousand units.
fn published(spec: &BackboneSpec) -> Weights {
    let mut weights = spec.golden();
    for (name, shape) in [("weight", vec![1000, spec.feature_width]), ("bias", vec![1000])] {
        let name = format!("{}.{name}", spec.classifier);
        let values = fill::golden(&name, &shape);
        weights.insert(name, shape, values);
    }
    weights
}

/// Runs `ichd models ... --config`, and gives exit code, answer and complaint.
fn models(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = site.path("daemon.yaml").display().to_string();
    let mut all = vec!["models"];
    all.extend(arguments);
    all.extend(["--config", &config]);
    let output = run(&all);
    (output.status.code(), stdout(&output), stderr(&output))
}

/// Imports a file into the site's model folder; the answer in JSON.
fn imported(site: &Site, backbone: &str, file: &Path, more: &[&str]) -> Value {
    let file = file.display().to_string();
    let mut arguments = vec!["import", "--backbone", backbone, "--weights", &file, "--json"];
    arguments.extend(more);
    let (code, answer, complaint) = models(site, &arguments);
    assert_eq!(code, Some(0), "{complaint}");
    serde_json::from_str(&answer).unwrap()
}

fn refused(site: &Site, file: &Path, more: &[&str]) -> String {
    let file = file.display().to_string();
    let mut arguments = vec!["import", "--backbone", "mobilenet_v2", "--weights", &file];
    arguments.extend(more);
    let (code, _, complaint) = models(site, &arguments);
    assert_eq!(code, Some(78), "{complaint}");
    assert!(complaint.contains(&file), "{complaint}");
    complaint
}

#[test]
fn every_backbone_has_the_names_of_its_reference() {
    for spec in BACKBONES {
        let ours: List =
            (spec.shapes)(3).into_iter().map(|(name, shape)| (name, (shape_text(&shape), "F32".into()))).collect();
        let mut list = expected(spec);
        list.retain(|name, _| !name.ends_with("num_batches_tracked"));
        assert_eq!(ours, list, "{}", spec.name);
    }
}

#[test]
fn weights_come_in_go_out_and_come_in_again() {
    let spec = registry::find("resnet50").unwrap();
    let site = Site::new("keep", "");
    let file = site.path("published.safetensors");
    fs::write(&file, ichd_plugin::export::to_pytorch(&published(spec)).unwrap()).unwrap();
    let answer = imported(&site, "resnet50", &file, &["--seed", "7"]);
    assert_eq!((answer["trained"].clone(), answer["version"].clone()), (false.into(), "1".into()));
    assert_eq!((answer["names"].clone(), answer["convention"].clone()), ("torch".into(), "torch".into()));
    assert_eq!(answer["used"].as_array().unwrap().len(), 265);
    assert_eq!(answer["fresh"].as_array().unwrap().len(), 2);
    assert_eq!(answer["dropped"].as_array().unwrap().len(), 55, "counters and the classifier");
    let folder = site.path("models");
    let found = model::load_named(&folder, "resnet50").unwrap();
    for (name, entry) in spec.golden().iter() {
        let same = found.weights.get(name) == Some(entry);
        assert_eq!(same, !spec.is_classifier(name), "{name}");
    }
    assert_eq!(found.weights.get("fc.weight").unwrap().values, fill::untrained("fc.weight", &[6, 2048], 7));

    // PyTorch's own format, with the prefix of DataParallel: the same model.
    let other = site.path("published.pth");
    fs::write(&other, pth(&published(spec), "module.")).unwrap();
    let answer = imported(&site, "resnet50", &other, &["--seed", "7", "--name", "pth", "--version", "v1"]);
    assert_eq!(answer["notes"][0], "all names began with `module.`, which was taken off");
    assert_eq!(model::load_named(&folder, "pth/v1").unwrap().card.sha256, found.card.sha256);

    // Out, by the reference's names, and in again with the head.
    let out = site.path("out.safetensors");
    let out_text = out.display().to_string();
    let (code, text, complaint) = models(&site, &["export", "resnet50/1", "--out", &out_text]);
    assert!(code == Some(0) && text.contains("less [0.485, 0.456, 0.406]"), "{text}{complaint}");
    let bytes = fs::read(&out).unwrap();
    assert_eq!(listed(&bytes), expected(spec));
    let answer = imported(&site, "resnet50", &out, &["--keep-head"]);
    assert_eq!((answer["version"].clone(), answer["trained"].clone()), ("2".into(), true.into()));
    assert_eq!(model::load_named(&folder, "resnet50/2").unwrap().card.sha256, found.card.sha256, "the same bits");
    let (code, _, complaint) = models(&site, &["export", "resnet50", "--out", &out_text]);
    assert!(code == Some(64) && complaint.contains("exists already"), "{complaint}");

    let (_, text, _) = models(&site, &["inspect", "resnet50/1", "--json"]);
    let facts: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(facts["parameters"], spec.parameters + 6 * 2048 + 6);
    assert_eq!((facts["parameters_head"].clone(), facts["convention"].clone()), (12294.into(), "torch".into()));
    assert_eq!(facts["training"]["imported"]["head"], "fresh, seed 7");
    assert_eq!(facts["training"]["imported"]["file"], "published.safetensors");
    let (_, text, _) = models(&site, &["list"]);
    assert!(text.contains("resnet50/2") && text.contains("pth/v1"), "{text}");
}

/// Names, shapes and types of a safetensors file, from its header.
fn listed(file: &[u8]) -> List {
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&file[8..8 + len]).unwrap();
    assert_eq!(header["__metadata__"]["format"], "pt");
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let row = |(name, facts): (String, Value)| {
        let shape: Vec<usize> = serde_json::from_value(facts["shape"].clone()).unwrap();
        (name, (shape_text(&shape), facts["dtype"].as_str().unwrap().to_owned()))
    };
    tensors.map(row).collect()
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let spec = registry::find("mobilenet_v2").unwrap();
    let site = Site::new("keep", "");
    let file = site.path("wrong.safetensors");
    let mut weights = published(spec);
    weights.insert("features.1.conv.1.weight", vec![16, 32, 3, 3], vec![0.0; 16 * 32 * 9]);
    weights.insert("stray.weight", vec![1], vec![0.0]);
    weights.remove("features.0.1.bias");
    let mut broken = weights.get("features.0.1.weight").unwrap().clone();
    broken.values[3] = f32::NAN;
    weights.insert("features.0.1.weight", broken.shape, broken.values);
    fs::write(&file, weights.to_safetensors().unwrap()).unwrap();
    let text = refused(&site, &file, &[]);
    for part in [
        "does not fit mobilenet_v2, of which it has 261 of 262 tensors by torch names",
        "; missing features.0.1.bias;",
        "unexplained stray.weight;",
        "features.1.conv.1.weight has shape [16, 32, 3, 3], [16, 32, 1, 1] would be right",
        "features.0.1.weight: value 3 is NaN",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    fs::write(&file, published(spec).to_safetensors().unwrap()).unwrap();
    assert!(refused(&site, &file, &["--keep-head"]).contains("[6, 1280] would be right for classifier.1.weight"));
    let hostile = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/api/tests/pth/hostile.pth");
    assert!(
        refused(&site, &hostile, &[]).contains("asks for posix.system, which no state dict needs; nothing was run")
    );
    fs::write(&file, "no weights at all").unwrap();
    assert!(refused(&site, &file, &[]).contains("not a whole safetensors or PyTorch file"));
    let (code, _, complaint) = models(&site, &["import", "--backbone", "alexnet", "--weights", "x"]);
    assert!(code == Some(64) && complaint.contains("known are vgg16, resnet50"), "{complaint}");
    let (code, _, complaint) = models(&site, &["import", "--backbone", "vgg16", "--weights", "/nowhere/x"]);
    assert!(code == Some(64) && complaint.contains("/nowhere/x"), "{complaint}");
    assert!(!site.path("models").exists());
}

#[test]
fn versions_are_never_overwritten_and_a_dry_run_writes_nothing() {
    let spec = registry::find("mobilenet_v2").unwrap();
    let site = Site::new("keep", "");
    let file = site.path("w.safetensors");
    fs::write(&file, published(spec).to_safetensors().unwrap()).unwrap();
    let text = file.display().to_string();
    let arguments = ["import", "--backbone", "mobilenet_v2", "--weights", &text, "--name", "m", "--version", "1"];
    let dry = [&arguments[..], &["--dry-run"]].concat();
    let (code, answer, _) = models(&site, &dry);
    assert_eq!(code, Some(0));
    for part in
        ["   260 used", "     2 fresh", "     2 dropped", "     0 missing", "     0 left over", "would become m/1"]
    {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    assert!(!site.path("models").exists());
    assert_eq!(models(&site, &arguments).0, Some(0));
    let before = fs::read(site.path("models/m/1/weights.safetensors")).unwrap();
    let (code, _, complaint) = models(&site, &[&arguments[..], &["--seed", "3"]].concat());
    assert!(code == Some(78) && complaint.contains("exists already and is not overwritten"), "{complaint}");
    assert_eq!(fs::read(site.path("models/m/1/weights.safetensors")).unwrap(), before);
    assert_eq!(fs::read_dir(site.path("models/m")).unwrap().count(), 1, "nothing is left behind");
    for name in ["../m", ".m", "untrained", "a/b"] {
        let mut other = arguments;
        other[6] = name;
        let (code, _, complaint) = models(&site, &other);
        assert!(code == Some(78) && complaint.contains("cannot be that of a folder"), "{name}: {complaint}");
    }
}

#[test]
fn other_numbers_of_windows_change_the_first_convolution() {
    let spec = registry::find("mobilenet_v2").unwrap();
    let more = "windows: [{ level: 40, width: 80 }, { level: 80, width: 200 }, { level: 40, width: 380 }, { level: 600, width: 2800 }]\n";
    let site = Site::new("keep", more);
    let file = site.path("w.safetensors");
    fs::write(&file, published(spec).to_safetensors().unwrap()).unwrap();
    let answer = imported(&site, "mobilenet_v2", &file, &["--convention", "keras", "--normalization", "half"]);
    assert_eq!(answer["mean"], serde_json::json!([0.5, 0.5, 0.5, 0.5]));
    assert!(answer["notes"][0].as_str().unwrap().contains("was made for 4 windows"), "{answer}");
    let found = model::load_named(&site.path("models"), "mobilenet_v2").unwrap();
    assert_eq!(found.weights.get(spec.first_conv).unwrap().shape, [32, 4, 3, 3]);
    assert_eq!((found.card.variant().windows, found.card.variant().convention.name()), (4, "keras"));
    // The convention tells scorers apart.
    let mut other = found.card.clone();
    other.convention = ichd_plugin::spec::Convention::Torch;
    assert_ne!(other.scorer(), found.card.scorer());
}

#[test]
fn keras_files_become_models_in_keras_arithmetic() {
    let spec = registry::find("resnet50").unwrap();
    let list = format!("{}/plugins/api/tests/reference/resnet50.keras.tsv", env!("CARGO_MANIFEST_DIR"));
    let mut weights = Weights::new();
    for line in fs::read_to_string(list).unwrap().lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let shape: Vec<usize> = parts[1].split(',').filter_map(|side| side.parse().ok()).collect();
        weights.insert(parts[0], shape.clone(), fill::golden(parts[0], &shape));
    }
    let site = Site::new("keep", "");
    let file = site.path("keras.safetensors");
    fs::write(&file, weights.to_safetensors().unwrap()).unwrap();
    let answer = imported(&site, "resnet50", &file, &[]);
    assert_eq!((answer["names"].clone(), answer["convention"].clone()), ("keras".into(), "keras".into()));
    assert_eq!(answer["normalization"], "caffe");
    let found = model::load_named(&site.path("models"), "resnet50").unwrap();
    assert_eq!(found.card.variant().convention, ichd_plugin::spec::Convention::Keras);
    assert_eq!(found.card.preprocessing.std, [1.0 / 255.0; 3]);
    found.weights.check(spec.name, &(spec.shapes)(3)).unwrap();
    let text = fs::read_to_string(site.path("models/resnet50/1/model.yaml")).unwrap();
    assert!(text.contains("convention: keras"), "{text}");
}

#[test]
fn half_precision_is_measured_and_f16_not_served_by_the_cpu() {
    let site = Site::new("keep", "precision: f16\n");
    let (code, answer, complaint) = models(&site, &["inspect", "untrained", "--check", "--json"]);
    assert_eq!(code, Some(0), "{complaint}");
    let check = &serde_json::from_str::<Value>(&answer).unwrap()["check"];
    let off = |value: &Value| value["probabilities_max_difference"].as_f64().unwrap();
    assert!(check["slices"].as_u64().unwrap() >= 5, "{check}");
    assert!(off(&check["unfolded"]) < 1e-5, "{check}");
    let [half, brain] = ["f16", "bf16"].map(|name| off(&check["precision"][name]));
    assert!(half > 0.0 && half < brain && brain < 0.05, "{check}");

    let output = run(&["run", "--config", &site.path("daemon.yaml").display().to_string()]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("precision f16 is not served by cpu"), "{}", stderr(&output));
}

/// Products in bfloat16 where the processor has them, and a refusal that says what is missing where not.
#[test]
fn bf16_is_served_by_processors_that_multiply_in_it() {
    let score = |precision: &str| {
        let site = Site::new("keep", &format!("precision: {precision}\n"));
        let (config, out) = (site.path("daemon.yaml").display().to_string(), site.path("out"));
        let slice = data("signed16_explicit_le.dcm").display().to_string();
        let output = run(&["score", &slice, "--config", &config, "--out", &out.display().to_string()]);
        let is_result = |file: &PathBuf| file.extension().is_some_and(|e| e == "json") && !file.ends_with("study.json");
        let result = files(&out).into_iter().find(is_result);
        let result = result.map(|file| serde_json::from_slice::<Value>(&fs::read(file).unwrap()).unwrap());
        (output.status.code(), stderr(&output), result)
    };
    let (code, complaint, result) = score("bf16");
    if !ichd_kernels::has_half_products() {
        assert_eq!(code, Some(78));
        assert!(complaint.contains("precision bf16 is not served by cpu without AVX512-BF16"), "{complaint}");
        return;
    }
    let (half, whole) = (result.unwrap(), score("f32").2.unwrap());
    assert_eq!((&half["model"]["precision"], &whole["model"]["precision"]), (&"bf16".into(), &"f32".into()));
    assert_ne!(half["scorer"], whole["scorer"], "other numbers, another scorer");
    let logit = |result: &Value| result["logits"]["any"].as_f64().unwrap();
    let off = (logit(&half) - logit(&whole)).abs();
    assert!(off > 0.0 && off < 0.05, "{half}\n{whole}");
}
