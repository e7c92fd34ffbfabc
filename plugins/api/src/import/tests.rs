//! The rules of importing on a network of three layers.

use super::*;
use crate::spec::HALF;

/// Convolution, BatchNorm, depthwise convolution, its BatchNorm, head.
fn target() -> Target {
    for_windows(3)
}

fn for_windows(windows: usize) -> Target {
    let norm = |name: &str, width: usize| {
        ["weight", "bias", "running_mean", "running_var"].map(|part| (format!("{name}.{part}"), vec![width])).to_vec()
    };
    let mut shapes = vec![("conv.weight".to_owned(), vec![4, windows, 2, 1])];
    shapes.extend(norm("bn", 4));
    shapes.push(("dw.weight".into(), vec![4, 1, 1, 2]));
    shapes.extend(norm("dwbn", 4));
    shapes.push(("fc.weight".into(), vec![6, 4]));
    shapes.push(("fc.bias".into(), vec![6]));
    Target {
        backbone: "tiny",
        shapes,
        first_conv: "conv.weight",
        classifier: "fc",
        left_out: &["Aux."],
        dialects: &[
            Dialect { program: Program::Timm, rename: timm },
            Dialect { program: Program::Keras, rename: keras },
        ],
        mean: HALF,
        std: [0.25, 0.5, 0.75],
    }
}

fn timm(ours: &str) -> Option<String> {
    (ours == "conv").then(|| "conv_stem".to_owned())
}

fn keras(ours: &str) -> Option<String> {
    let name = match ours {
        "conv" => "conv2d",
        "bn" => "batch_normalization",
        "dw" => "depthwise_conv2d",
        "dwbn" => "batch_normalization_1",
        "fc" => "predictions",
        _ => return None,
    };
    Some(name.to_owned())
}

fn put(bag: &mut Bag<'_>, name: &str, shape: &[usize], values: &[f32]) {
    bag.tensors.insert(name.to_owned(), RawTensor::of(shape.to_vec(), values).unwrap());
}

/// A file with our names, whose head has `units`.
fn ours(units: usize) -> Bag<'static> {
    let mut bag = Bag::default();
    for (name, shape) in target().shapes {
        let mut shape = shape;
        if name.starts_with("fc.") {
            shape[0] = units;
        }
        put(&mut bag, &name, &shape, &fill::golden(&name, &shape));
    }
    bag
}

fn options() -> Options {
    Options::default()
}

fn unfit(result: Result<Imported, ImportError>) -> Unfit {
    match result {
        Err(ImportError::Unfit { unfit, file }) => {
            assert_eq!(file, "f");
            *unfit
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_imagenet_head_is_replaced_and_ours_can_be_kept() {
    let mut bag = ours(1000);
    put(&mut bag, "bn.num_batches_tracked", &[], &[0.0]);
    put(&mut bag, "Aux.weight", &[1], &[0.0]);
    let found = import(&target(), &bag, "f", &options()).unwrap();
    assert_eq!((found.names, found.convention), (Names::Torch, Convention::Torch));
    found.weights.check("tiny", &target().shapes).unwrap();
    assert_eq!(found.weights.get("fc.weight").unwrap().values, fill::untrained("fc.weight", &[6, 4], 0));
    assert_eq!(found.weights.get("conv.weight").unwrap().values, fill::golden("conv.weight", &[4, 3, 2, 1]));
    assert_eq!((found.mean, found.std), (vec![0.5; 3], vec![0.25, 0.5, 0.75]));
    let report = found.report;
    assert_eq!((report.used.len(), report.fresh.len()), (10, 2));
    let dropped: Vec<(&str, Dropped)> = report.dropped.iter().map(|(name, why)| (name.as_str(), *why)).collect();
    assert_eq!(
        dropped,
        [
            ("Aux.weight", Dropped::LeftOut),
            ("bn.num_batches_tracked", Dropped::Counter),
            ("fc.bias", Dropped::Classifier),
            ("fc.weight", Dropped::Classifier)
        ]
    );
    let keep = Options { keep_head: true, ..options() };
    let kept = import(&target(), &ours(6), "f", &keep).unwrap();
    assert_eq!(kept.weights.get("fc.weight").unwrap().values, fill::golden("fc.weight", &[6, 4]));
    assert!(kept.report.fresh.is_empty());
    let wrong = unfit(import(&target(), &bag, "f", &keep));
    assert_eq!(wrong.misshapen.len(), 2);
    assert!(
        wrong.to_string().contains("fc.weight has shape [1000, 4], [6, 4] would be right for fc.weight"),
        "{wrong}"
    );
}

#[test]
fn everything_wrong_is_told_at_once() {
    let mut bag = ours(1000);
    bag.tensors.remove("bn.bias");
    put(&mut bag, "stray", &[1], &[0.0]);
    put(&mut bag, "dw.weight", &[4, 1, 2, 2], &[0.0; 16]);
    put(&mut bag, "bn.weight", &[4], &[0.0, 1.0, f32::NAN, 0.0]);
    let wrong = unfit(import(&target(), &bag, "f", &options()));
    let text = wrong.to_string();
    assert_eq!(wrong.missing, ["bn.bias"]);
    assert_eq!(wrong.unexplained, ["stray"]);
    for part in
        ["dw.weight has shape [4, 1, 2, 2], [4, 1, 1, 2] would be right", "bn.weight: value 2 is NaN", "11 of 12"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn prefixes_that_all_names_carry_are_taken_off() {
    let mut bag = Bag::default();
    for (name, tensor) in ours(1000).tensors {
        bag.tensors.insert(format!("module.model.{name}"), tensor);
    }
    let found = import(&target(), &bag, "f", &options()).unwrap();
    assert_eq!(found.report.notes.len(), 2, "{:?}", found.report.notes);
    put(&mut bag, "other", &[1], &[0.0]);
    assert_eq!(unfit(import(&target(), &bag, "f", &options())).fitting.0, 0);
}

#[test]
fn names_are_recognized_or_forced() {
    let mut bag = ours(1000);
    let stem = bag.tensors.remove("conv.weight").unwrap();
    bag.tensors.insert("conv_stem.weight".into(), stem);
    assert_eq!(import(&target(), &bag, "f", &options()).unwrap().names, Names::Timm);
    let forced = Options { names: Some(Names::Torch), ..options() };
    let wrong = unfit(import(&target(), &bag, "f", &forced));
    assert_eq!(
        (wrong.missing, wrong.unexplained),
        (vec!["conv.weight".to_owned()], vec!["conv_stem.weight".to_owned()])
    );
    let plain = Target { dialects: &[], ..target() };
    let forced = Options { names: Some(Names::Keras), ..options() };
    let text = import(&plain, &bag, "f", &forced).unwrap_err().to_string();
    assert_eq!(text, "f: keras names of tiny are not known");
}

/// A file as Keras would write it: no gamma in the first BatchNorm, a bias before it, a head of its own name.
fn keras_file() -> Bag<'static> {
    let mut bag = Bag::default();
    // height 2, width 1, in 3, out 4: value = 100 h + 10 in + out.
    let conv: Vec<f32> = (0..24).map(|at| (at / 12 * 100 + at % 12 / 4 * 10 + at % 4) as f32).collect();
    put(&mut bag, "conv2d/kernel", &[2, 1, 3, 4], &conv);
    put(&mut bag, "conv2d/bias", &[4], &[1.0, 2.0, 3.0, 4.0]);
    put(&mut bag, "batch_normalization/beta", &[4], &[0.5; 4]);
    put(&mut bag, "batch_normalization/moving_mean", &[4], &[10.0; 4]);
    put(&mut bag, "batch_normalization/moving_variance", &[4], &[2.0; 4]);
    // height 1, width 2, channels 2, multiplier 2: value = 10 w + 2 channel + multiplier.
    let depthwise: Vec<f32> = (0..8).map(|at| (at / 4 * 10 + at % 4) as f32).collect();
    put(&mut bag, "depthwise_conv2d/depthwise_kernel", &[1, 2, 2, 2], &depthwise);
    for (part, value) in [("gamma", 3.0), ("beta", 0.0), ("moving_mean", 0.0), ("moving_variance", 1.0)] {
        put(&mut bag, &format!("batch_normalization_1/{part}"), &[4], &[value; 4]);
    }
    put(&mut bag, "my_head/kernel", &[4, 6], &(0..24).map(|at| at as f32).collect::<Vec<_>>());
    put(&mut bag, "my_head/bias", &[6], &[0.25; 6]);
    put(&mut bag, "normalization_3/mean", &[3], &[0.0; 3]);
    put(&mut bag, "optimizer/learning_rate", &[], &[0.1]);
    bag
}

#[test]
fn keras_files_are_turned() {
    let keep = Options { keep_head: true, ..options() };
    let found = import(&target(), &keras_file(), "f", &keep).unwrap();
    assert_eq!((found.names, found.convention), (Names::Keras, Convention::Keras));
    let get = |name: &str| found.weights.get(name).unwrap().clone();
    let conv = get("conv.weight");
    assert_eq!(conv.shape, [4, 3, 2, 1]);
    let expected: Vec<f32> =
        (0..4).flat_map(|out| (0..3).flat_map(move |i| [i * 10 + out, 100 + i * 10 + out])).map(|v| v as f32).collect();
    assert_eq!(conv.values, expected);
    assert_eq!(get("bn.weight").values, [1.0; 4], "no gamma means ones");
    assert_eq!(get("bn.running_mean").values, [9.0, 8.0, 7.0, 6.0], "the bias went into the mean");
    assert_eq!(get("dw.weight").shape, [4, 1, 1, 2]);
    assert_eq!(get("dw.weight").values, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0]);
    assert_eq!(get("dwbn.weight").values, [3.0; 4]);
    assert_eq!(get("fc.weight").values[..5], [0.0, 6.0, 12.0, 18.0, 1.0]);
    let dropped: Vec<Dropped> = found.report.dropped.iter().map(|(_, why)| *why).collect();
    assert_eq!(dropped, [Dropped::InputNormalization, Dropped::Training]);
    let fresh = import(&target(), &keras_file(), "f", &options()).unwrap();
    assert_eq!(fresh.report.dropped.iter().filter(|(_, why)| *why == Dropped::Classifier).count(), 2);

    let mut short = keras_file();
    short.tensors.remove("batch_normalization/beta");
    assert_eq!(unfit(import(&target(), &short, "f", &options())).missing, ["bn.weight", "bn.bias"]);
    let mut wrong = keras_file();
    put(&mut wrong, "conv2d/kernel", &[3, 1, 3, 4], &[0.0; 36]);
    let wrong = unfit(import(&target(), &wrong, "f", &options()));
    assert_eq!(wrong.misshapen[0].expected, [2, 1, 3, 4], "told in the file's layout");
}

#[test]
fn caffe_turns_the_channels_and_other_windows_share_them() {
    let conv = |options: Options| {
        let found = import(&target(), &keras_file(), "f", &options).unwrap();
        (found.weights.get("conv.weight").unwrap().clone(), found.mean, found.std, found.normalization)
    };
    let (stem, mean, std, word) = conv(Options { normalization: Some(Normalization::Caffe), ..options() });
    assert_eq!(stem.values[..6], [20.0, 120.0, 10.0, 110.0, 0.0, 100.0]);
    assert_eq!((mean[0], std[0], word), (123.68 / 255.0, 1.0 / 255.0, "caffe"));
    let caffe = Options { normalization: Some(Normalization::Caffe), ..options() };
    let found = import(&for_windows(2), &keras_file(), "f", &caffe).unwrap();
    let stem = found.weights.get("conv.weight").unwrap();
    assert_eq!(stem.shape, [4, 2, 2, 1]);
    assert_eq!(stem.values[..4], [15.0, 165.0, 15.0, 165.0]);
    assert_eq!(found.mean.len(), 2);
    // A file that was made for as many windows is taken as it is; one for yet another number is not.
    let mut bag = ours(1000);
    put(&mut bag, "conv.weight", &[4, 2, 2, 1], &[0.5; 16]);
    let found = import(&for_windows(2), &bag, "f", &options()).unwrap();
    assert_eq!(found.weights.get("conv.weight").unwrap().values, [0.5; 16]);
    assert_eq!(unfit(import(&for_windows(5), &bag, "f", &options())).misshapen.len(), 1);
}
