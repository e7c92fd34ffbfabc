//! Names of MobileNetV2's layers in timm (`mobilenetv2_100`) and Keras. Knows no weights.
//!
//! torchvision, whose names are ours, counts all blocks through and numbers the parts that are there: the first block has no
//! expansion. timm counts stages and blocks within them. Held against the programs' own lists in
//! `plugins/api/tests/names.rs`.

use ichd_plugin::spec::{Dialect, Program};

/// Names in timm and Keras.
pub(crate) static DIALECTS: &[Dialect] =
    &[Dialect { program: Program::Timm, rename: timm }, Dialect { program: Program::Keras, rename: keras }];

/// Blocks of each stage: the repeats of table 2 of the paper.
const REPEATS: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];
/// Number of the layer after the last block.
const LAST: usize = 18;

/// A part of a block.
enum Part {
    Expand,
    ExpandNorm,
    Depthwise,
    DepthwiseNorm,
    Project,
    ProjectNorm,
}

/// Number of the block from 1, and its part, of `features.<block>.conv.<part>`.
fn block(ours: &str) -> Option<(usize, Part)> {
    let (number, part) = ours.strip_prefix("features.")?.split_once(".conv.")?;
    let number: usize = number.parse().ok()?;
    let part = match (number, part) {
        (1, "0.0") => Part::Depthwise,
        (1, "0.1") => Part::DepthwiseNorm,
        (1, "1") => Part::Project,
        (1, "2") => Part::ProjectNorm,
        (1, _) => return None,
        (_, "0.0") => Part::Expand,
        (_, "0.1") => Part::ExpandNorm,
        (_, "1.0") => Part::Depthwise,
        (_, "1.1") => Part::DepthwiseNorm,
        (_, "2") => Part::Project,
        (_, "3") => Part::ProjectNorm,
        _ => return None,
    };
    (1..LAST).contains(&number).then_some((number, part))
}

fn timm(ours: &str) -> Option<String> {
    match ours {
        "features.0.0" => return Some("conv_stem".into()),
        "features.0.1" => return Some("bn1".into()),
        "features.18.0" => return Some("conv_head".into()),
        "features.18.1" => return Some("bn2".into()),
        "classifier.1" => return Some("classifier".into()),
        _ => {}
    }
    let (number, part) = block(ours)?;
    let (mut stage, mut within) = (0, number - 1);
    while within >= *REPEATS.get(stage)? {
        within -= REPEATS[stage];
        stage += 1;
    }
    // The first block is timm's DepthwiseSeparable, whose parts are counted from the depthwise convolution on.
    let part = match (part, number == 1) {
        (Part::Expand, _) => "conv_pw",
        (Part::Depthwise, _) => "conv_dw",
        (Part::Project, false) => "conv_pwl",
        (Part::Project, true) => "conv_pw",
        (Part::ExpandNorm, _) | (Part::DepthwiseNorm, true) => "bn1",
        (Part::DepthwiseNorm, false) | (Part::ProjectNorm, true) => "bn2",
        (Part::ProjectNorm, false) => "bn3",
    };
    Some(format!("blocks.{stage}.{within}.{part}"))
}

fn keras(ours: &str) -> Option<String> {
    match ours {
        "features.0.0" => return Some("Conv1".into()),
        "features.0.1" => return Some("bn_Conv1".into()),
        "features.18.0" => return Some("Conv_1".into()),
        "features.18.1" => return Some("Conv_1_bn".into()),
        "classifier.1" => return Some("predictions".into()),
        _ => {}
    }
    let (number, part) = block(ours)?;
    let part = match part {
        Part::Expand => "expand",
        Part::ExpandNorm => "expand_BN",
        Part::Depthwise => "depthwise",
        Part::DepthwiseNorm => "depthwise_BN",
        Part::Project => "project",
        Part::ProjectNorm => "project_BN",
    };
    Some(match number {
        1 => format!("expanded_conv_{part}"),
        number => format!("block_{}_{part}", number - 1),
    })
}
