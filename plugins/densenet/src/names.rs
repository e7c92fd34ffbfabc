//! Names of DenseNet's layers in Keras and in torchvision's older files; timm uses torchvision's, as we do. Knows no weights.
//!
//! The file of densenet121 that torchvision offers for download was written by an older version of it, with a dot before the
//! numbers inside a layer (`denselayer1.norm.1`); those names are offered as one more PyTorch dialect. Held against the
//! programs' own lists in `plugins/api/tests/names.rs`.

use ichd_plugin::spec::{Dialect, Program};

/// Names in older PyTorch files and in Keras.
pub(crate) static DIALECTS: &[Dialect] =
    &[Dialect { program: Program::Timm, rename: older }, Dialect { program: Program::Keras, rename: keras }];

/// Block, layer and part of `features.denseblock<block>.denselayer<layer>.<part>`.
fn layer(ours: &str) -> Option<(usize, usize, &str)> {
    let (block, rest) = ours.strip_prefix("features.denseblock")?.split_once(".denselayer")?;
    let (layer, part) = rest.split_once('.')?;
    Some((block.parse().ok()?, layer.parse().ok()?, part))
}

fn older(ours: &str) -> Option<String> {
    let (block, layer, part) = layer(ours)?;
    let number = part.chars().last().filter(char::is_ascii_digit)?;
    let word = part.strip_suffix(number)?;
    Some(format!("features.denseblock{block}.denselayer{layer}.{word}.{number}"))
}

fn keras(ours: &str) -> Option<String> {
    match ours {
        "features.conv0" => return Some("conv1_conv".into()),
        "features.norm0" => return Some("conv1_bn".into()),
        "features.norm5" => return Some("bn".into()),
        "classifier" => return Some("predictions".into()),
        _ => {}
    }
    if let Some(rest) = ours.strip_prefix("features.transition") {
        let (number, part) = rest.split_once('.')?;
        let part = match part {
            "norm" => "bn",
            "conv" => "conv",
            _ => return None,
        };
        return Some(format!("pool{}_{part}", number.parse::<usize>().ok()? + 1));
    }
    let (block, layer, part) = layer(ours)?;
    let part = match part {
        "norm1" => "0_bn",
        "conv1" => "1_conv",
        "norm2" => "1_bn",
        "conv2" => "2_conv",
        _ => return None,
    };
    Some(format!("conv{}_block{layer}_{part}", block + 1))
}
