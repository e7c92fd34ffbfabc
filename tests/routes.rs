//! Routes of the real program: which slices go where, what an ensemble says, what a change of routes repeats.

use std::fs;
use std::path::{Path, PathBuf};

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use ichd_plugin::label::Label;
use serde_json::Value;

use crate::support::{Site, assert_valid, data, files, model, phantoms, run, schema, stderr, stdout};

const THICKNESS: (Tag, VR) = (Tag(0x0018, 0x0050), VR::DS);
const PRIORITY: (Tag, VR) = (Tag(0x0040, 0x1003), VR::SH);
const INSTANCE: (Tag, VR) = (Tag(0x0008, 0x0018), VR::UI);

/// A small model with weights and windows of its own.
fn put_model(site: &Site, name: &str, seed: u64, side: usize, width: f32) {
    let spec = ichd::registry::find("mobilenet_v2").unwrap();
    model::put_model(&site.path("models").join(name), &spec.untrained(seed), side, width);
}

/// Two small models of which no two numbers agree.
fn put_models(site: &Site) {
    put_model(site, "a/1", 1, 64, 80.0);
    put_model(site, "b/1", 2, 96, 120.0);
}

/// The file with one element changed.
fn changed(file: &Path, to: &Path, (tag, vr): (Tag, VR), value: &str) -> PathBuf {
    let mut object = dicom_object::open_file(file).unwrap();
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    object.write_to_file(to).unwrap();
    to.to_owned()
}

fn set_routes(site: &Site, routes: &str) -> String {
    let path = site.path("daemon.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.split("routes:").next().unwrap().to_owned() + routes;
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Scores files; the fate of each, and all slice results.
fn score(site: &Site, out: &str, inputs: &[&Path]) -> (Vec<String>, Vec<Value>) {
    let (config, folder) = (site.path("daemon.yaml").display().to_string(), site.path(out));
    let out = folder.display().to_string();
    let inputs: Vec<String> = inputs.iter().map(|path| path.display().to_string()).collect();
    let mut arguments = vec!["score", "--config", &config, "--out", &out, "--json"];
    arguments.extend(inputs.iter().map(String::as_str));
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["fate"].as_str().unwrap().to_owned();
    let mut fates: Vec<String> = stdout(&output).lines().map(line).collect();
    fates.sort();
    let results = files(&folder).into_iter().filter(|file| is_slice(file));
    (fates, results.map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect())
}

fn is_slice(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "json") && !file.ends_with("study.json")
}

fn numbers(part: &Value) -> Vec<f64> {
    Label::ALL.iter().map(|label| part[label.name()].as_f64().unwrap()).collect()
}

#[test]
fn slices_take_their_routes_by_folder_thickness_and_priority() {
    let site = Site::new(
        "move",
        "routes:\n- { name: stat, match: { priority: STAT }, models: [{ name: untrained }], urgent: true }\n- { name: er, match: { folder: er, modality: ct }, models: [{ name: a }] }\n- { name: thin, match: { thickness_max: 1, manufacturer: 'ichd*' }, models: [{ name: b/1 }, { name: a, weight: 0.5 }] }\n",
    );
    put_models(&site);
    let slices = phantoms(&site.path("heads"), 1, 5);
    fs::create_dir_all(site.path("inbox/ER/monday")).unwrap();
    let daemon = site.start();
    let thin = changed(&slices[1], &site.path("thin.dcm"), THICKNESS, "0.75");
    let stat = changed(&slices[2], &site.path("stat.dcm"), PRIORITY, "STAT");
    let both = changed(&slices[3], &site.path("both.dcm"), THICKNESS, "1");
    site.drop_file(&thin, "thin.dcm");
    site.drop_file(&stat, "stat.dcm");
    site.drop_file(&slices[4], "other.dcm");
    for (file, name) in [(&slices[0], "er.dcm"), (&both, "both.dcm")] {
        let place = site.path("inbox/ER/monday");
        fs::copy(file, place.join(format!(".{name}"))).unwrap();
        fs::rename(place.join(format!(".{name}")), place.join(name)).unwrap();
    }
    site.wait_until("results", |site| site.results().len() == 5);
    site.wait_until("the summary", |site| files(&site.path("results")).iter().any(|file| file.ends_with("study.json")));
    let (code, log) = daemon.stop("TERM");
    assert!(code == Some(0) && log.contains("5 files: 5 done"), "{log}");
    for line in ["route=\"stat\"", "route=\"er\"", "route=\"thin\"", "route=\"default\""] {
        assert!(log.lines().any(|l| l.contains("A route is open") && l.contains(line)), "{line} in {log}");
    }

    let validator = schema(include_str!("../schemas/ichd.slice.v1.json"));
    let results = site.results();
    let of = |file: &Path| {
        let object = dicom_object::open_file(file).unwrap();
        let instance = object.element(INSTANCE.0).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned();
        results.iter().find(|result| result["instance_uid"] == instance.as_str()).unwrap()
    };
    let expected = [
        (&slices[0], "er", "a", 64, true),
        (&thin, "thin", "thin", 96, true),
        (&stat, "stat", "untrained", 224, false),
        (&both, "er", "a", 64, true),
        (&slices[4], "default", "untrained", 224, false),
    ];
    for (file, route, model, side, trained) in expected {
        let result = of(file);
        assert_valid(&validator, result);
        assert_eq!(result["route"], route);
        assert_eq!(result["model"]["name"], model);
        assert_eq!(result["preprocessing"]["side"], side);
        assert_eq!(result["model"]["trained"], trained);
        assert_eq!(result["members"].is_array(), route == "thin");
    }
    let mut routes: Vec<String> =
        site.log_lines().iter().map(|line| line["route"].as_str().unwrap().to_owned()).collect();
    routes.sort();
    assert_eq!(routes, ["default", "er", "er", "stat", "thin"]);
    let summary = files(&site.path("results")).into_iter().find(|file| file.ends_with("study.json")).unwrap();
    assert_valid(
        &schema(include_str!("../schemas/ichd.study.v1.json")),
        &serde_json::from_slice(&fs::read(summary).unwrap()).unwrap(),
    );
}

#[test]
fn an_ensemble_is_the_weighted_mean_of_what_its_members_say_alone() {
    let site = Site::new("keep", "routes: []\n");
    put_models(&site);
    let slice = phantoms(&site.path("heads"), 1, 1).remove(0);
    let twin = changed(&slice, &site.path("twin.dcm"), INSTANCE, "1.2.3.4");
    set_routes(&site, "routes: [{ name: one, models: [{ name: a }] }]\n");
    let (_, a) = score(&site, "out-a", &[&slice]);
    set_routes(&site, "routes: [{ name: two, models: [{ name: b, weight: 9 }] }]\n");
    let (_, b) = score(&site, "out-b", &[&slice]);
    assert!(a[0]["members"].is_null() && b[0]["model"]["name"] == "b" && b[0]["route"] == "two");
    set_routes(&site, "routes: [{ name: pair, models: [{ name: a, weight: 3 }, { name: b/1 }] }]\n");
    let (_, pair) = score(&site, "out-pair", &[&slice]);
    let (fates, pairs) = score(&site, "out-pair", &[&slice, &twin]);
    assert_eq!((fates, pairs.len()), (vec!["duplicate".to_owned(), "duplicate".to_owned()], 2));

    let validator = schema(include_str!("../schemas/ichd.slice.v1.json"));
    let (alone_a, alone_b) = (numbers(&a[0]["logits"]), numbers(&b[0]["logits"]));
    assert!(alone_a.iter().zip(&alone_b).all(|(a, b)| (a - b).abs() > 1e-4), "{alone_a:?} {alone_b:?}");
    for result in pair.iter().chain(&pairs) {
        assert_valid(&validator, result);
        assert_eq!(result["members"][0]["logits"], a[0]["logits"]);
        assert_eq!(result["members"][1]["probabilities"], b[0]["probabilities"]);
        assert_eq!(result["members"][1]["preprocessing"], b[0]["preprocessing"]);
        assert_eq!((&result["members"][0]["weight"], &result["members"][1]["weight"]), (&3.0.into(), &1.0.into()));
        let (logits, probabilities) = (numbers(&result["logits"]), numbers(&result["probabilities"]));
        for label in 0..Label::ALL.len() {
            let mean = (3.0 * alone_a[label] + alone_b[label]) / 4.0;
            assert!((logits[label] - mean).abs() < 1e-6, "{result:#}");
            assert!((probabilities[label] - 1.0 / (1.0 + (-mean).exp())).abs() < 1e-6, "{result:#}");
        }
        assert_eq!(result["model"]["name"], "pair");
        assert!(result["model"]["sha256"].as_str().unwrap().starts_with(result["model"]["version"].as_str().unwrap()));
    }
    let duplicate = pairs.iter().find(|result| result["instance_uid"] == "1.2.3.4").unwrap();
    assert_eq!(duplicate["duplicate_of"], pair[0]["instance_uid"]);
}

#[test]
fn only_a_change_of_what_scores_repeats_work() {
    let site = Site::new("keep", "routes: []\n");
    put_models(&site);
    let inputs = site.path("in");
    fs::create_dir_all(inputs.join("er")).unwrap();
    let slices = phantoms(&site.path("heads"), 1, 2);
    fs::copy(&slices[0], inputs.join("er/0.dcm")).unwrap();
    fs::copy(&slices[1], inputs.join("1.dcm")).unwrap();
    let fates = |routes: &str| {
        set_routes(&site, routes);
        score(&site, "out", &[&inputs]).0
    };
    let route = |name: &str, models: &str| {
        format!("routes: [{{ name: {name}, match: {{ folder: er }}, models: [{models}], urgent: true }}]\n")
    };
    assert_eq!(fates("routes: []\n"), ["result", "result"]);
    let pair = "{ name: a }, { name: b }";
    assert_eq!(fates(&route("er", pair)), ["duplicate", "result"], "the other slice still takes the default");
    assert_eq!(fates(&route("er", pair)), ["duplicate", "duplicate"]);
    assert_eq!(fates(&route("renamed", "{ name: a/1 }, { name: b, weight: 1 }")), ["duplicate", "duplicate"]);
    assert_eq!(fates(&route("er", "{ name: a }, { name: b, weight: 2 }")), ["duplicate", "result"]);
    assert_eq!(fates(&route("er", "{ name: a, weight: 2 }")), ["duplicate", "result"]);
    assert_eq!(fates(&route("er", "{ name: a }")), ["duplicate", "duplicate"]);
    assert_eq!(fates(&route("er", "{ name: untrained }")), ["duplicate", "result"]);
    assert_eq!(fates("routes: []\n"), ["duplicate", "duplicate"], "the same model by another way");
}

#[test]
fn models_that_do_not_exist_are_78_and_all_of_them_are_told() {
    let site = Site::new(
        "keep",
        "routes:\n- name: er\n  match: { folder: er }\n  models:\n  - name: a\n  - name: ghost\n- { name: thin, models: [{ name: a/7 }, { name: ghost }] }\n",
    );
    put_models(&site);
    let config = site.path("daemon.yaml").display().to_string();
    let missing = "routes[0].models[1].name: the model ghost: no version of it lies in";
    let output = run(&["run", "--config", &config]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains(missing), "{}", stderr(&output));
    let output = run(&["check", "--config", &config]);
    assert_eq!(output.status.code(), Some(78));
    let text = stderr(&output);
    assert!(text.contains("2 problem(s)"), "{text}");
    assert!(text.contains(&format!("{config}:11: {missing}")), "{text}");
    assert!(text.contains(":12: routes[1].models[0].name: the model a/7: has no version 7 in"), "{text}");
    set_routes(
        &site,
        "routes: [{ name: er, match: { folder: er }, models: [{ name: a }, { name: b/1 }], urgent: true }]\n",
    );
    let output = run(&["check", "--config", &config]);
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains("route er: a/1 x 1 + b/1 x 1 on mobilenet_v2, mobilenet_v2, trained, urgent"), "{text}");
    assert!(text.contains("route default: untrained/1 on mobilenet_v2, UNTRAINED"), "{text}");
}

#[test]
fn explain_says_which_route_a_file_takes_and_why() {
    let site = Site::new(
        "keep",
        "routes:\n- { name: stat, match: { priority: [STAT, HIGH] }, models: [{ name: a }], urgent: true }\n- { name: er, match: { folder: er, thickness_min: 2 }, models: [{ name: a, weight: 2 }, { name: b }] }\n- { name: head, match: { body_part: head }, models: [{ name: ghost }] }\n",
    );
    fs::create_dir(site.path("inbox/er")).unwrap();
    let slice = phantoms(&site.path("heads"), 1, 1).remove(0);
    let thick = changed(&slice, &site.path("inbox/er/thick.dcm"), THICKNESS, "5");
    let config = site.path("daemon.yaml").display().to_string();
    let explain = |file: &Path, more: &[&str]| {
        let file = file.display().to_string();
        let output = run(&[&["check", "--explain", &file, "--config", &config], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let text = explain(&thick, &[]);
    assert!(text.starts_with("accepted   1 slice(s)"), "{text}");
    for line in [
        "no match   stat: priority is not known, `STAT` or `HIGH` is asked for",
        "matches    er: folder \"er\" fits `er`; thickness 5 mm fits at least 2 mm",
        "matches    head: body_part \"HEAD\" fits `head`; but a route above was first",
        "no match   default: a route above matches",
        "route      er to a x 2 + b x 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(text.contains("manufacturer ichd phantom") && !text.contains("PHANTOM-"), "{text}");
    let answer: Value = serde_json::from_str(&explain(&slice, &["--json"])).unwrap();
    assert_eq!((&answer["verdict"], &answer["routing"][0]["route"]), (&"accepted".into(), &"head".into()));
    assert!(answer["routing"][0]["facts"]["folder"].is_null(), "it does not lie in the inbox");
    assert_eq!(answer["routing"][0]["models"][0]["name"], "ghost");

    // A rejected file has its verdict first, and still says where it would go.
    let scout = changed(&slice, &site.path("scout.dcm"), (Tag(8, 8), VR::CS), "ORIGINAL\\PRIMARY\\LOCALIZER");
    let text = explain(&scout, &[]);
    assert!(text.starts_with("rejected   localizer: "), "{text}");
    assert!(text.contains("A rejected file takes no route") && text.contains("route      head to ghost"), "{text}");
    let answer: Value = serde_json::from_str(&explain(&scout, &["--json"])).unwrap();
    assert_eq!((&answer["verdict"], &answer["routing"][0]["route"]), (&"rejected".into(), &"head".into()));
    fs::write(site.path("notes.txt"), "no DICOM").unwrap();
    let text = explain(&site.path("notes.txt"), &[]);
    assert!(text.starts_with("rejected   not-dicom") && text.lines().count() == 1, "{text}");

    // Frames of one file whose facts agree are told together.
    let answer: Value = serde_json::from_str(&explain(&data("enhanced_native.dcm"), &["--json"])).unwrap();
    let groups = answer["routing"].as_array().unwrap();
    let n_slices: u64 = groups.iter().map(|group| group["slices"]["count"].as_u64().unwrap()).sum();
    assert_eq!(n_slices as usize, answer["slices"].as_array().unwrap().len());
}

#[test]
fn sigkill_in_the_middle_of_routes_repeats_nothing_that_was_finished() {
    let site = Site::new(
        "move",
        "batch: { slices_max: 2, wait_ms_max: 5 }\nroutes:\n- { name: er, match: { folder: er }, models: [{ name: a }, { name: b }], urgent: true }\n- { name: ward, match: { folder: ward }, models: [{ name: b }] }\n",
    );
    put_models(&site);
    let slices = phantoms(&site.path("heads"), 2, 12);
    for folder in ["er", "ward"] {
        fs::create_dir(site.path("inbox").join(folder)).unwrap();
    }
    for (idx, slice) in slices.iter().enumerate() {
        let folder = ["er", "ward", "."][idx % 3];
        fs::copy(slice, site.path("inbox").join(folder).join(format!("{idx}.dcm"))).unwrap();
    }
    let daemon = site.start();
    site.wait_until("some results", |site| site.results().len() >= 5);
    daemon.signal("KILL");
    drop(daemon);
    let before: Vec<(PathBuf, Vec<u8>)> = files(&site.path("results"))
        .into_iter()
        .filter(|file| is_slice(file))
        .map(|f| (f.clone(), fs::read(f).unwrap()))
        .collect();
    let daemon = site.start();
    site.wait_until("all results", |site| {
        site.results().len() == slices.len() && files(&site.path("inbox")).is_empty()
    });
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    for (file, bytes) in &before {
        assert_eq!(&fs::read(file).unwrap(), bytes, "{}", file.display());
    }
    let mut routes: Vec<String> =
        site.log_lines().iter().map(|line| line["route"].as_str().unwrap().to_owned()).collect();
    routes.sort();
    routes.dedup();
    assert_eq!((site.log_lines().len(), routes), (slices.len(), ["default", "er", "ward"].map(String::from).to_vec()));
}
