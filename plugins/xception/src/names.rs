//! Names of Xception's layers in Keras. Knows no weights.
//!
//! Our names are those of timm's `legacy_xception`, which counts blocks from the first one with a shortcut; Keras counts the
//! stem as block 1 and the exit as block 14. A separable convolution is two layers of ours and one of Keras', with a
//! `depthwise_kernel` and a `pointwise_kernel`. The four shortcuts have no names in Keras and are numbered in the order of
//! their creation: `conv2d`, `conv2d_1`, `conv2d_2`, `conv2d_3`, and their BatchNorms likewise (within the model;
//! `tools/keras_to_safetensors.py` counts that way whatever a process built before). Held against Keras' own list in
//! `plugins/api/tests/names.rs`.

use ichd_plugin::spec::{Dialect, Program};

/// Names in Keras.
pub(crate) static DIALECTS: &[Dialect] = &[Dialect { program: Program::Keras, rename: keras }];

/// Blocks with a convolution in their shortcut, in order.
const SHORTCUTS: [usize; 4] = [1, 2, 3, 12];

fn keras(ours: &str) -> Option<String> {
    match ours {
        "fc" => return Some("predictions".into()),
        "conv1" | "conv2" => return Some(format!("block1_{ours}")),
        "bn1" => return Some("block1_conv1_bn".into()),
        "bn2" => return Some("block1_conv2_bn".into()),
        "conv3.conv1" | "conv3.pointwise" => return Some("block14_sepconv1".into()),
        "bn3" => return Some("block14_sepconv1_bn".into()),
        "conv4.conv1" | "conv4.pointwise" => return Some("block14_sepconv2".into()),
        "bn4" => return Some("block14_sepconv2_bn".into()),
        _ => {}
    }
    let (block, part) = ours.strip_prefix("block")?.split_once('.')?;
    let block: usize = block.parse().ok()?;
    let shortcut = || SHORTCUTS.iter().position(|number| *number == block);
    match part {
        "skip" => return Some(numbered("conv2d", shortcut()?)),
        "skipbn" => return Some(numbered("batch_normalization", shortcut()?)),
        _ => {}
    }
    // `rep` is a list of activation, separable convolution and BatchNorm, over and over; the first block has no activation
    // in front.
    let (at, rest) = part.strip_prefix("rep.")?.split_once('.').unwrap_or((part.strip_prefix("rep.")?, ""));
    let at = at.parse::<usize>().ok()?.checked_add(usize::from(block == 1))?;
    let unit = at.div_ceil(3);
    match (at % 3, rest) {
        (1, "conv1" | "pointwise") => Some(format!("block{}_sepconv{unit}", block + 1)),
        (2, "") => Some(format!("block{}_sepconv{unit}_bn", block + 1)),
        _ => None,
    }
}

fn numbered(word: &str, number: usize) -> String {
    if number == 0 { word.to_owned() } else { format!("{word}_{number}") }
}
