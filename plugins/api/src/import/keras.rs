//! What Keras stores otherwise than PyTorch: names of variables, TensorFlow's layouts, BatchNorms without gamma, and biases
//! before a BatchNorm. Knows no network.
//!
//! A file holds `<layer>/<variable>` (`tools/keras_to_safetensors.py` writes such files). Layouts: a convolution's kernel
//! is `[height, width, in, out]`, a depthwise one `[height, width, channels, multiplier]`, a dense layer's `[in, out]`. A
//! SeparableConv2D is one layer there and two here, both of which the family's rename gives the same name.

use super::{Broken, Dropped, Form, Names, Target, Tensors, Used, Work};
use crate::weights::Weights;

/// Names of the variable that our tensor may have in its Keras layer.
pub(super) fn variables(target: &Target, prefix: &str, last: &str, shape: &[usize]) -> &'static [&'static str] {
    match last {
        "weight" if is_norm(target, prefix) => &["gamma"],
        "bias" if is_norm(target, prefix) => &["beta"],
        "running_mean" => &["moving_mean"],
        "running_var" => &["moving_variance"],
        "weight" if is_depthwise(shape) => &["depthwise_kernel", "kernel"],
        "weight" => &["kernel", "pointwise_kernel"],
        "bias" => &["bias"],
        _ => &[],
    }
}

fn is_norm(target: &Target, prefix: &str) -> bool {
    let mean = format!("{prefix}.running_mean");
    target.shapes.iter().any(|(name, _)| *name == mean)
}

/// Whether our kernel filters each channel by itself: `[channels, 1, height, width]`. A first convolution for one window has
/// this shape too, and then both ways of turning give the same.
fn is_depthwise(shape: &[usize]) -> bool {
    shape.len() == 4 && shape[1] == 1
}

/// How a tensor of a file lies, as against ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As ours.
    Ours,
    /// `[in, out]`.
    Dense,
    /// `[height, width, in, out]`.
    Conv,
    /// `[height, width, channels, multiplier]`.
    Depthwise,
}

/// The layout of a Keras variable that becomes a tensor of ours.
pub(super) fn layout(from: &str, ours: &[usize]) -> Layout {
    match ours.len() {
        2 => Layout::Dense,
        4 if is_depthwise(ours) && !from.ends_with("pointwise_kernel") => Layout::Depthwise,
        4 => Layout::Conv,
        _ => Layout::Ours,
    }
}

impl Layout {
    /// Our shape of a file's shape; none for a wrong number of dimensions.
    pub(super) fn shape(self, file: &[usize]) -> Option<Vec<usize>> {
        Some(match (self, file) {
            (Layout::Ours, file) => file.to_vec(),
            (Layout::Dense, &[inputs, outputs]) => vec![outputs, inputs],
            (Layout::Conv, &[height, width, inputs, outputs]) => vec![outputs, inputs, height, width],
            (Layout::Depthwise, &[height, width, channels, multiplier]) => {
                vec![channels.checked_mul(multiplier)?, 1, height, width]
            }
            _ => return None,
        })
    }

    /// The file's shape that would become our shape.
    pub(super) fn expected(self, ours: &[usize]) -> Vec<usize> {
        match (self, ours) {
            (Layout::Dense, &[outputs, inputs]) => vec![inputs, outputs],
            (Layout::Conv, &[outputs, inputs, height, width]) => vec![height, width, inputs, outputs],
            (Layout::Depthwise, &[channels, _, height, width]) => vec![height, width, channels, 1],
            _ => ours.to_vec(),
        }
    }

    /// Values in our order, from those in the file's order.
    pub(super) fn values(self, values: Vec<f32>, file: &[usize]) -> Vec<f32> {
        // Both turn the file's matrix of (what comes first) x (what comes last) around, the depthwise one within channels.
        match (self, file) {
            (Layout::Dense, &[inputs, outputs]) => turned(&values, inputs, outputs),
            // height x width x in, out: out first, then in, then height and width.
            (Layout::Conv, &[height, width, inputs, outputs]) => {
                let out_first = turned(&values, height * width * inputs, outputs);
                let each = (height * width * inputs).max(1);
                out_first.chunks(each).flat_map(|kernel| turned(kernel, height * width, inputs)).collect()
            }
            // height x width, channels x multiplier: output channel = channel * multiplier + which.
            (Layout::Depthwise, &[height, width, channels, multiplier]) => {
                turned(&values, height * width, channels * multiplier)
            }
            _ => values,
        }
    }

    /// For the report.
    pub(super) const fn done(self) -> &'static str {
        match self {
            Layout::Ours => "",
            Layout::Dense | Layout::Conv | Layout::Depthwise => "turned to PyTorch's layout",
        }
    }
}

/// The transpose of a matrix of `rows` rows.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).filter_map(|row| values.get(row * columns + column)));
    }
    out
}

/// Whether a tensor may be absent: the gamma of a BatchNorm made with `scale=False`, which has a beta.
pub(super) fn may_lack(target: &Target, tensors: &Tensors<'_, '_>, form: &Form, name: &str) -> bool {
    let Some(prefix) = name.strip_suffix(".weight").filter(|prefix| is_norm(target, prefix)) else { return false };
    form.layer(prefix).is_some_and(|layer| tensors.contains_key(format!("{layer}/beta").as_str()))
}

/// A head under a name of the user's own: the only dense layer of the file that could be one.
pub(super) fn lone_head(form: &Form, target: &Target, tensors: &Tensors<'_, '_>, name: &str) -> Option<String> {
    if form.names != Names::Keras {
        return None;
    }
    let features = target.shapes.iter().find(|(name, _)| *name == format!("{}.weight", target.classifier))?.1.get(1)?;
    let mut heads = tensors.iter().filter(|(name, tensor)| {
        name.ends_with("/kernel") && tensor.shape().len() == 2 && tensor.shape().first() == Some(features)
    });
    let (only, _) = heads.next().filter(|_| heads.next().is_none())?;
    let layer = only.strip_suffix("/kernel")?;
    let wanted = format!("{layer}/{}", if name.ends_with(".weight") { "kernel" } else { "bias" });
    tensors.contains_key(wanted.as_str()).then_some(wanted)
}

/// Why a variable of a Keras file is no weight of a network.
pub(super) fn explain(name: &str) -> Option<Dropped> {
    let (layer, variable) = name.split_once('/').unwrap_or((name, ""));
    let is = |word: &str| layer == word || layer.strip_prefix(word).is_some_and(is_number);
    if is("normalization") && matches!(variable, "mean" | "variance" | "count") {
        return Some(Dropped::InputNormalization);
    }
    let training = layer.starts_with("optimizer") || is("adam") || is("sgd") || is("rmsprop");
    (training || name.ends_with("seed_generator_state")).then_some(Dropped::Training)
}

fn is_number(rest: &str) -> bool {
    rest.strip_prefix('_').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Takes the bias of a convolution into the BatchNorm right after it. BatchNorm subtracts the mean: `(x + b) - m` is
/// `x - (m - b)`, so the mean becomes `m - b` and nothing else changes.
pub(super) fn absorb_biases(work: &mut Work<'_>, form: &Form, tensors: &Tensors<'_, '_>, weights: &mut Weights) {
    if form.names != Names::Keras {
        return;
    }
    let shapes = &work.target.shapes;
    for (at, (name, shape)) in shapes.iter().enumerate().filter(|(_, (_, shape))| shape.len() == 4) {
        let Some(prefix) = name.strip_suffix(".weight") else { continue };
        let Some(from) = form.layer(prefix).map(|layer| format!("{layer}/bias")) else { continue };
        let Some(tensor) = tensors.get(from.as_str()) else { continue };
        // A bias of our own was taken already. The next tensor in the order of the network must be the BatchNorm's.
        let norm = shapes.get(at + 1).and_then(|(next, _)| next.strip_suffix(".weight"));
        let Some(norm) = norm.filter(|norm| is_norm(work.target, norm)) else { continue };
        let mean_name = format!("{norm}.running_mean");
        let Some(mean) =
            weights.get(&mean_name).filter(|mean| tensor.shape() == mean.shape && mean.shape[..] == shape[..1])
        else {
            continue;
        };
        work.taken.insert(from.clone());
        match tensor.values() {
            Ok(bias) => {
                let moved = |(mean, bias): (&f32, f32)| (f64::from(*mean) - f64::from(bias)) as f32;
                let (shape, values) = (mean.shape.clone(), mean.values.iter().zip(bias).map(moved).collect());
                weights.insert(mean_name.clone(), shape, values);
                work.report.used.push(Used { name: mean_name, from, done: "a bias, subtracted from the mean" });
            }
            Err(reason) => work.unfit.broken.push(Broken { from, reason }),
        }
    }
}
