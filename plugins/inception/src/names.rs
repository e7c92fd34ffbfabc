//! Names of Inception v3's layers in Keras; timm uses torchvision's, as we do. Knows no weights.
//!
//! Keras gives these layers no names but numbers them as they are created: `conv2d` with `batch_normalization` first, then
//! `conv2d_1` with `batch_normalization_1`, and so on up to 93. `keras.applications` creates the branches of every block in
//! the order in which torchvision declares them, so the number of a unit is its place in [`UNITS`]. In a process that built
//! other models before, Keras goes on counting; `tools/keras_to_safetensors.py` counts within the model. The BatchNorms have
//! no gamma. Held against Keras' own list, shapes included, in `plugins/api/tests/names.rs`.

use ichd_plugin::spec::{Dialect, Program};

/// Names in Keras.
pub(crate) static DIALECTS: &[Dialect] = &[Dialect { program: Program::Keras, rename: keras }];

/// The auxiliary classifier, which only training used.
pub(crate) static LEFT_OUT: &[&str] = &["AuxLogits."];

const BLOCK_5: &[&str] =
    &["branch1x1", "branch5x5_1", "branch5x5_2", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", "branch_pool"];
const BLOCK_6A: &[&str] = &["branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"];
const BLOCK_6: &[&str] = &[
    "branch1x1",
    "branch7x7_1",
    "branch7x7_2",
    "branch7x7_3",
    "branch7x7dbl_1",
    "branch7x7dbl_2",
    "branch7x7dbl_3",
    "branch7x7dbl_4",
    "branch7x7dbl_5",
    "branch_pool",
];
const BLOCK_7A: &[&str] =
    &["branch3x3_1", "branch3x3_2", "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"];
const BLOCK_7: &[&str] = &[
    "branch1x1",
    "branch3x3_1",
    "branch3x3_2a",
    "branch3x3_2b",
    "branch3x3dbl_1",
    "branch3x3dbl_2",
    "branch3x3dbl_3a",
    "branch3x3dbl_3b",
    "branch_pool",
];

/// Blocks with their units in the order of creation; a unit of the stem is a block of its own.
const UNITS: &[(&str, &[&str])] = &[
    ("Conv2d_1a_3x3", &[""]),
    ("Conv2d_2a_3x3", &[""]),
    ("Conv2d_2b_3x3", &[""]),
    ("Conv2d_3b_1x1", &[""]),
    ("Conv2d_4a_3x3", &[""]),
    ("Mixed_5b", BLOCK_5),
    ("Mixed_5c", BLOCK_5),
    ("Mixed_5d", BLOCK_5),
    ("Mixed_6a", BLOCK_6A),
    ("Mixed_6b", BLOCK_6),
    ("Mixed_6c", BLOCK_6),
    ("Mixed_6d", BLOCK_6),
    ("Mixed_6e", BLOCK_6),
    ("Mixed_7a", BLOCK_7A),
    ("Mixed_7b", BLOCK_7),
    ("Mixed_7c", BLOCK_7),
];

fn keras(ours: &str) -> Option<String> {
    if ours == "fc" {
        return Some("predictions".into());
    }
    let (unit, part) = ours.rsplit_once('.')?;
    let word = match part {
        "conv" => "conv2d",
        "bn" => "batch_normalization",
        _ => return None,
    };
    let (block, branch) = unit.split_once('.').unwrap_or((unit, ""));
    let at = UNITS.iter().position(|(name, _)| *name == block)?;
    let within = UNITS[at].1.iter().position(|name| *name == branch)?;
    let before: usize = UNITS[..at].iter().map(|(_, units)| units.len()).sum();
    Some(match before + within {
        0 => word.to_owned(),
        number => format!("{word}_{number}"),
    })
}
