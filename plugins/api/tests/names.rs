//! The families' tables of names against the lists that `tools/reference_names.py` writes: a file of every program with the
//! published names, shapes and types must import, every tensor of it used or explained. The tables are included by path, so
//! that one test holds them all.

#![allow(dead_code)]

use std::borrow::Cow;
use std::collections::BTreeSet;

use ichd_plugin::import::{Dropped, Imported, Names, Normalization, Options, Target, import};
use ichd_plugin::raw::{Bag, Number, RawTensor};
use ichd_plugin::spec::{Dialect, IMAGENET_MEAN, IMAGENET_STD};

#[path = "../../densenet/src/names.rs"]
mod densenet;
#[path = "../../efficientnet/src/names.rs"]
mod efficientnet;
#[path = "../../inception/src/names.rs"]
mod inception;
#[path = "../../mobilenet/src/names.rs"]
mod mobilenet;
#[path = "../../resnet/src/names.rs"]
mod resnet;
#[path = "../../vgg/src/names.rs"]
mod vgg;
#[path = "../../xception/src/names.rs"]
mod xception;

type Row = (String, Vec<usize>, String);

fn list(backbone: &str, program: &str) -> Vec<Row> {
    let path = format!("{}/tests/reference/{backbone}.{program}.tsv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let row = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let shape = parts[1].split(',').filter(|side| !side.is_empty()).map(|side| side.parse().unwrap()).collect();
        (parts[0].to_owned(), shape, parts[2].to_owned())
    };
    text.lines().map(row).collect()
}

/// Our network as it is known from the reference: its floats without what is left out, with a head of six units.
fn target(
    backbone: &'static str,
    first_conv: &'static str,
    classifier: &'static str,
    left_out: &'static [&'static str],
    dialects: &'static [Dialect],
) -> Target {
    let head = format!("{classifier}.");
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let (mut features, mut last) = (0, 0);
    for (name, shape, kind) in list(backbone, "torch") {
        if name.starts_with(&head) {
            // VGG's published classifier is no layer of ours: there the last convolution tells the width.
            if name == format!("{classifier}.weight") {
                features = shape[1];
            }
            continue;
        }
        if kind == "F32" && !left_out.iter().any(|prefix| name.starts_with(prefix)) {
            last = shape[0];
            shapes.push((name, shape));
        }
    }
    let features = if features == 0 { last } else { features };
    shapes.push((format!("{classifier}.weight"), vec![6, features]));
    shapes.push((format!("{classifier}.bias"), vec![6]));
    Target { backbone, shapes, first_conv, classifier, left_out, dialects, mean: IMAGENET_MEAN, std: IMAGENET_STD }
}

/// A file with those tensors; values tell the tensors apart.
fn bag(rows: &[Row]) -> Bag<'static> {
    let mut bag = Bag::default();
    for (idx, (name, shape, kind)) in rows.iter().enumerate() {
        let count: usize = shape.iter().product();
        let tensor = if kind == "I64" {
            RawTensor::new(shape.clone(), None, Number::Other("int64", 8), Cow::Owned(vec![0; 8 * count]))
        } else {
            RawTensor::of(shape.clone(), &vec![1.0 + idx as f32; count])
        };
        assert!(bag.tensors.insert(name.clone(), tensor.unwrap()).is_none(), "{name} stands twice");
    }
    bag
}

fn imported(target: &Target, program: &str, names: Names) -> Imported {
    let rows = list(target.backbone, program);
    let options = Options::default();
    let found = import(target, &bag(&rows), program, &options).unwrap_or_else(|error| panic!("{program}: {error}"));
    assert_eq!(found.names, names, "{} {program}", target.backbone);
    let with = Options { names: Some(names), ..options };
    import(target, &bag(&rows), program, &with).unwrap_or_else(|error| panic!("{program} forced: {error}"));
    found.weights.check(target.backbone, &target.shapes).unwrap();
    // Every tensor of the file is used once, or dropped for a reason.
    let used: Vec<&str> = found.report.used.iter().map(|used| used.from.as_str()).collect();
    let distinct: BTreeSet<&str> = used.iter().copied().collect();
    assert_eq!(used.len(), distinct.len(), "{} {program}: a tensor is used twice", target.backbone);
    assert_eq!(used.len() + found.report.dropped.len(), rows.len(), "{} {program}", target.backbone);
    found
}

fn check(target: &Target, timm: Option<Names>, keras: Normalization) -> Imported {
    imported(target, "torch", Names::Torch);
    if let Some(names) = timm {
        imported(target, "timm", names);
    }
    let found = imported(target, "keras", Names::Keras);
    assert_eq!(found.normalization, keras.name(), "{}", target.backbone);
    found
}

#[test]
fn vgg16() {
    let target = target("vgg16", "features.0.weight", "classifier", vgg::LEFT_OUT, vgg::DIALECTS);
    check(&target, Some(Names::Timm), Normalization::Caffe);
}

#[test]
fn resnet50() {
    let target = target("resnet50", "conv1.weight", "fc", &[], resnet::DIALECTS);
    let found = check(&target, Some(Names::Torch), Normalization::Caffe);
    let biases = found.report.used.iter().filter(|used| used.from.ends_with("_conv/bias")).count();
    assert_eq!(biases, 53, "every convolution's bias goes into its BatchNorm");
}

#[test]
fn inception_v3() {
    let target = target("inception_v3", "Conv2d_1a_3x3.conv.weight", "fc", inception::LEFT_OUT, inception::DIALECTS);
    let found = check(&target, Some(Names::Torch), Normalization::Half);
    assert_eq!(found.report.fresh.iter().filter(|(_, how)| how.starts_with("ones")).count(), 94);
}

#[test]
fn mobilenet_v2() {
    let target = target("mobilenet_v2", "features.0.0.weight", "classifier.1", &[], mobilenet::DIALECTS);
    check(&target, Some(Names::Timm), Normalization::Half);
}

#[test]
fn xception() {
    let target = target("xception", "conv1.weight", "fc", &[], xception::DIALECTS);
    check(&target, None, Normalization::Half);
}

#[test]
fn efficientnets() {
    for backbone in ["efficientnet_b0", "efficientnet_b2", "efficientnet_b3"] {
        let target = target(backbone, "features.0.0.weight", "classifier.1", &[], efficientnet::DIALECTS);
        let found = check(&target, Some(Names::Timm), Normalization::Imagenet);
        let normalization = found.report.dropped.iter().filter(|(_, why)| *why == Dropped::InputNormalization).count();
        assert_eq!(normalization, 3);
        // A network made without ImageNet's weights does nothing to its input but divide it by 255.
        let mut idle = bag(&list(backbone, "keras"));
        for (name, value) in [("normalization/mean", 0.0), ("normalization/variance", 1.0)] {
            idle.tensors.insert(name.into(), RawTensor::of(vec![3], &[value; 3]).unwrap());
        }
        let found = import(&target, &idle, "f", &Options::default()).unwrap();
        assert_eq!((found.normalization, found.std), ("none", vec![1.0; 3]));
    }
}

#[test]
fn densenet121() {
    let target = target("densenet121", "features.conv0.weight", "classifier", &[], densenet::DIALECTS);
    check(&target, Some(Names::Torch), Normalization::Imagenet);
    // The file that torchvision offers for download has the older names.
    let mut older = list("densenet121", "torch");
    older.retain(|(name, ..)| !name.ends_with("num_batches_tracked"));
    for (name, ..) in &mut older {
        for part in ["norm1", "norm2", "conv1", "conv2"] {
            let (word, number) = part.split_at(4);
            *name = name.replace(&format!(".{part}."), &format!(".{word}.{number}."));
        }
    }
    let found = import(&target, &bag(&older), "older", &Options::default()).unwrap();
    assert_eq!(found.names, Names::Timm);
}
