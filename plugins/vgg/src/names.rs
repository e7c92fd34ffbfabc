//! Names of VGG's layers in timm and Keras. Knows no weights.
//!
//! Our names are torchvision's, with one classifier in place of its three layers. Keras counts blocks and convolutions,
//! torchvision every module. Held against the programs' own lists in `plugins/api/tests/names.rs`.

use ichd_plugin::spec::{Dialect, Program};

/// Names in timm and Keras.
pub(crate) static DIALECTS: &[Dialect] =
    &[Dialect { program: Program::Timm, rename: timm }, Dialect { program: Program::Keras, rename: keras }];

/// The fully connected layers before the last one, in timm and in Keras; torchvision's stand under the classifier's prefix.
pub(crate) static LEFT_OUT: &[&str] = &["pre_logits.", "fc1/", "fc2/"];

/// Convolutions of each block.
const BLOCKS: [usize; 5] = [2, 2, 3, 3, 3];

fn timm(ours: &str) -> Option<String> {
    (ours == "classifier").then(|| "head.fc".to_owned())
}

fn keras(ours: &str) -> Option<String> {
    if ours == "classifier" {
        return Some("predictions".into());
    }
    let wanted: usize = ours.strip_prefix("features.")?.parse().ok()?;
    let mut module = 0;
    for (block, convolutions) in (1..).zip(BLOCKS) {
        for conv in 1..=convolutions {
            if module == wanted {
                return Some(format!("block{block}_conv{conv}"));
            }
            module += 2; // with its activation
        }
        module += 1; // the pooling after the block
    }
    None
}
