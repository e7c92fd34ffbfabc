//! Names of ResNet's layers in Keras; timm uses torchvision's, as we do. Knows no weights.
//!
//! Keras calls the four groups `conv2` to `conv5`, counts blocks from 1, and gives the shortcut the number 0. Held against
//! Keras' own list in `plugins/api/tests/names.rs`.

use ichd_plugin::spec::{Dialect, Program};

/// Names in Keras.
pub(crate) static DIALECTS: &[Dialect] = &[Dialect { program: Program::Keras, rename: keras }];

fn keras(ours: &str) -> Option<String> {
    match ours {
        "conv1" => return Some("conv1_conv".into()),
        "bn1" => return Some("conv1_bn".into()),
        "fc" => return Some("predictions".into()),
        _ => {}
    }
    let mut parts = ours.strip_prefix("layer")?.splitn(3, '.');
    let group: usize = parts.next()?.parse().ok()?;
    let block: usize = parts.next()?.parse().ok()?;
    let part = match parts.next()? {
        "downsample.0" => "0_conv".to_owned(),
        "downsample.1" => "0_bn".to_owned(),
        part => match (part.strip_prefix("conv"), part.strip_prefix("bn")) {
            (Some(number), _) => format!("{number}_conv"),
            (_, Some(number)) => format!("{number}_bn"),
            _ => return None,
        },
    };
    Some(format!("conv{}_block{}_{part}", group + 1, block + 1))
}
