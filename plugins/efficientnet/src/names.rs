//! Names of EfficientNet's layers in timm and Keras, for all sizes. Knows no weights.
//!
//! torchvision, whose names are ours, numbers the parts of a block that are there: those of the first stage have no
//! expansion. timm counts stages from 0, Keras from 1 and letters the blocks. Held against the programs' own lists in
//! `plugins/api/tests/names.rs`.

use ichd_plugin::spec::{Dialect, Program};

/// Names in timm and Keras.
pub(crate) static DIALECTS: &[Dialect] =
    &[Dialect { program: Program::Timm, rename: timm }, Dialect { program: Program::Keras, rename: keras }];

/// A part of a block.
enum Part {
    Expand,
    ExpandNorm,
    Depthwise,
    DepthwiseNorm,
    Reduce,
    Widen,
    Project,
    ProjectNorm,
}

/// Stage from 1, block from 0, and part, of `features.<stage>.<block>.block.<part>`.
fn block(ours: &str) -> Option<(usize, u8, Part)> {
    let (place, part) = ours.strip_prefix("features.")?.split_once(".block.")?;
    let (stage, number) = place.split_once('.')?;
    let (stage, number): (usize, u8) = (stage.parse().ok()?, number.parse().ok()?);
    let (at, rest) = part.split_once('.')?;
    // The first stage lacks the expansion, so that its parts are one number lower.
    let at = at.parse::<usize>().ok()?.checked_add(usize::from(stage == 1))?;
    let part = match (at, rest) {
        (0, "0") => Part::Expand,
        (0, "1") => Part::ExpandNorm,
        (1, "0") => Part::Depthwise,
        (1, "1") => Part::DepthwiseNorm,
        (2, "fc1") => Part::Reduce,
        (2, "fc2") => Part::Widen,
        (3, "0") => Part::Project,
        (3, "1") => Part::ProjectNorm,
        _ => return None,
    };
    ((1..=7).contains(&stage) && number < 26).then_some((stage, number, part))
}

fn timm(ours: &str) -> Option<String> {
    match ours {
        "features.0.0" => return Some("conv_stem".into()),
        "features.0.1" => return Some("bn1".into()),
        "features.8.0" => return Some("conv_head".into()),
        "features.8.1" => return Some("bn2".into()),
        "classifier.1" => return Some("classifier".into()),
        _ => {}
    }
    let (stage, number, part) = block(ours)?;
    let first = stage == 1;
    let part = match (part, first) {
        (Part::Expand, _) => "conv_pw",
        (Part::Depthwise, _) => "conv_dw",
        (Part::Reduce, _) => "se.conv_reduce",
        (Part::Widen, _) => "se.conv_expand",
        (Part::Project, true) => "conv_pw",
        (Part::Project, false) => "conv_pwl",
        (Part::ExpandNorm, _) | (Part::DepthwiseNorm, true) => "bn1",
        (Part::DepthwiseNorm, false) | (Part::ProjectNorm, true) => "bn2",
        (Part::ProjectNorm, false) => "bn3",
    };
    Some(format!("blocks.{}.{number}.{part}", stage - 1))
}

fn keras(ours: &str) -> Option<String> {
    match ours {
        "features.0.0" => return Some("stem_conv".into()),
        "features.0.1" => return Some("stem_bn".into()),
        "features.8.0" => return Some("top_conv".into()),
        "features.8.1" => return Some("top_bn".into()),
        "classifier.1" => return Some("predictions".into()),
        _ => {}
    }
    let (stage, number, part) = block(ours)?;
    let part = match part {
        Part::Expand => "expand_conv",
        Part::ExpandNorm => "expand_bn",
        Part::Depthwise => "dwconv",
        Part::DepthwiseNorm => "bn",
        Part::Reduce => "se_reduce",
        Part::Widen => "se_expand",
        Part::Project => "project_conv",
        Part::ProjectNorm => "project_bn",
    };
    Some(format!("block{stage}{}_{part}", char::from(b'a' + number)))
}
