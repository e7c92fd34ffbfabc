//! Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision",
//! 2015 (arXiv 1512.00567).
//!
//! The network of torchvision without its auxiliary classifier, its dropout and its change of the input's scale: its
//! weights come from TensorFlow and expect an input in -1..1. Keras does not count what lies outside the image in average
//! pools. The classifier is global average pooling and one layer of six units.

mod names;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ichd_layers::{
    ConvSpec, ConvUnit, Follow, Head, Layer, Network, Pad, average_pool, global_average, inference, join, max_pool,
    shapes, training,
};
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Convention, HALF, Variant};

/// Inception v3 with torchvision's names.
pub static INCEPTION_V3: BackboneSpec = BackboneSpec {
    name: "inception_v3",
    family: "inception",
    input_side: 299,
    side_min: 75,
    feature_width: FEATURES,
    parameters: 21_785_568,
    parameters_imagenet: 23_834_568,
    multiply_adds: 5_713_216_096,
    first_conv: "Conv2d_1a_3x3.conv.weight",
    classifier: "fc",
    mean: HALF,
    std: HALF,
    left_out: names::LEFT_OUT,
    dialects: names::DIALECTS,
    paper: "Szegedy et al. 2015, arXiv 1512.00567",
    shapes: shapes::<InceptionV3>,
    infer: |device, variant, precision| inference::<InceptionV3>(&INCEPTION_V3, device, variant, precision),
    train: |device, variant| training::<InceptionV3>(&INCEPTION_V3, device, variant),
};

const FEATURES: usize = 2048;
/// Both programs have it.
const EPSILON: f64 = 1e-3;

/// One convolution of a plan. One with a stride does not reach over the edge, the others keep the image's size.
#[derive(Clone, Copy)]
struct Step {
    name: &'static str,
    outputs: usize,
    kernel: [usize; 2],
    stride: usize,
}

const fn step(name: &'static str, outputs: usize, height: usize, width: usize) -> Step {
    Step { name, outputs, kernel: [height, width], stride: 1 }
}

const fn halving(name: &'static str, outputs: usize) -> Step {
    Step { name, outputs, kernel: [3, 3], stride: 2 }
}

/// One way through a block.
enum Plan {
    /// Convolutions in a row.
    Row(Vec<Step>),
    /// Convolutions in a row, then two side by side.
    Fork(Vec<Step>, [Step; 2]),
    /// Average over 3 x 3, then a convolution.
    Average(Step),
    /// Maximum over 3 x 3 with stride 2.
    Maximum,
}

use Plan::{Average, Fork, Maximum, Row};

impl Plan {
    /// Pool before the convolutions, those in a row, those side by side.
    fn parts(self) -> (Pool, Vec<Step>, Vec<Step>) {
        match self {
            Row(steps) => (Pool::None, steps, Vec::new()),
            Fork(steps, fork) => (Pool::None, steps, fork.to_vec()),
            Average(step) => (Pool::Average, vec![step], Vec::new()),
            Maximum => (Pool::Maximum, Vec::new(), Vec::new()),
        }
    }
}

/// Figure 5 of the paper, at 35 x 35.
fn block_a(pooled: usize) -> Vec<Plan> {
    vec![
        Row(vec![step("branch1x1", 64, 1, 1)]),
        Row(vec![step("branch5x5_1", 48, 1, 1), step("branch5x5_2", 64, 5, 5)]),
        Row(vec![step("branch3x3dbl_1", 64, 1, 1), step("branch3x3dbl_2", 96, 3, 3), step("branch3x3dbl_3", 96, 3, 3)]),
        Average(step("branch_pool", pooled, 1, 1)),
    ]
}

/// To 17 x 17.
fn block_b() -> Vec<Plan> {
    vec![
        Row(vec![halving("branch3x3", 384)]),
        Row(vec![step("branch3x3dbl_1", 64, 1, 1), step("branch3x3dbl_2", 96, 3, 3), halving("branch3x3dbl_3", 96)]),
        Maximum,
    ]
}

/// Figure 6, at 17 x 17, through `inner` channels.
fn block_c(inner: usize) -> Vec<Plan> {
    vec![
        Row(vec![step("branch1x1", 192, 1, 1)]),
        Row(vec![step("branch7x7_1", inner, 1, 1), step("branch7x7_2", inner, 1, 7), step("branch7x7_3", 192, 7, 1)]),
        Row(vec![
            step("branch7x7dbl_1", inner, 1, 1),
            step("branch7x7dbl_2", inner, 7, 1),
            step("branch7x7dbl_3", inner, 1, 7),
            step("branch7x7dbl_4", inner, 7, 1),
            step("branch7x7dbl_5", 192, 1, 7),
        ]),
        Average(step("branch_pool", 192, 1, 1)),
    ]
}

/// To 8 x 8.
fn block_d() -> Vec<Plan> {
    vec![
        Row(vec![step("branch3x3_1", 192, 1, 1), halving("branch3x3_2", 320)]),
        Row(vec![
            step("branch7x7x3_1", 192, 1, 1),
            step("branch7x7x3_2", 192, 1, 7),
            step("branch7x7x3_3", 192, 7, 1),
            halving("branch7x7x3_4", 192),
        ]),
        Maximum,
    ]
}

/// Figure 7, at 8 x 8.
fn block_e() -> Vec<Plan> {
    vec![
        Row(vec![step("branch1x1", 320, 1, 1)]),
        Fork(vec![step("branch3x3_1", 384, 1, 1)], [step("branch3x3_2a", 384, 1, 3), step("branch3x3_2b", 384, 3, 1)]),
        Fork(
            vec![step("branch3x3dbl_1", 448, 1, 1), step("branch3x3dbl_2", 384, 3, 3)],
            [step("branch3x3dbl_3a", 384, 1, 3), step("branch3x3dbl_3b", 384, 3, 1)],
        ),
        Average(step("branch_pool", 192, 1, 1)),
    ]
}

/// The blocks by torchvision's names.
fn plans() -> Vec<(&'static str, Vec<Plan>)> {
    vec![
        ("Mixed_5b", block_a(32)),
        ("Mixed_5c", block_a(64)),
        ("Mixed_5d", block_a(64)),
        ("Mixed_6a", block_b()),
        ("Mixed_6b", block_c(128)),
        ("Mixed_6c", block_c(160)),
        ("Mixed_6d", block_c(160)),
        ("Mixed_6e", block_c(192)),
        ("Mixed_7a", block_d()),
        ("Mixed_7b", block_e()),
        ("Mixed_7c", block_e()),
    ]
}

/// Convolutions before the blocks, and whether each keeps the image's size.
const STEM: [(Step, bool); 5] = [
    (halving("Conv2d_1a_3x3", 32), false),
    (step("Conv2d_2a_3x3", 32, 3, 3), false),
    (step("Conv2d_2b_3x3", 64, 3, 3), true),
    (step("Conv2d_3b_1x1", 80, 1, 1), true),
    (step("Conv2d_4a_3x3", 192, 3, 3), false),
];
/// Convolutions of the stem before its first pool; the second pool ends it.
const STEM_FIRST: usize = 3;

/// The network.
#[derive(Module, Debug)]
pub struct InceptionV3 {
    stem: Vec<ConvUnit>,
    blocks: Vec<Vec<Branch>>,
    fc: Head,
    count_outside: bool,
}

/// A plan that was carried out.
#[derive(Module, Debug)]
struct Branch {
    convs: Vec<ConvUnit>,
    /// Two that run side by side at the end, or none.
    fork: Vec<ConvUnit>,
    #[module(skip)]
    pool: Pool,
}

#[derive(Clone, Copy, Debug)]
enum Pool {
    None,
    Average,
    Maximum,
}

fn unit(inputs: usize, step: Step, keeps_size: bool, device: &Device) -> ConvUnit {
    let pad = if keeps_size { Pad::Half } else { Pad::None };
    let spec = ConvSpec::new(inputs, step.outputs, 1).kernel(step.kernel).stride(step.stride);
    ConvUnit::new(spec.pad(pad).follow(Follow::Norm(EPSILON)), device)
}

impl Branch {
    /// The branch and its output channels.
    fn new(inputs: usize, plan: Plan, device: &Device) -> (Self, usize) {
        let (pool, steps, fork) = plan.parts();
        let mut channels = inputs;
        let mut convs = Vec::new();
        for step in steps {
            convs.push(unit(channels, step, step.stride == 1, device));
            channels = step.outputs;
        }
        let outputs = if fork.is_empty() { channels } else { fork.iter().map(|step| step.outputs).sum() };
        let fork = fork.into_iter().map(|step| unit(channels, step, true, device)).collect();
        (Branch { convs, fork, pool }, outputs)
    }

    fn forward(&self, x: Tensor<4>, count_outside: bool) -> Tensor<4> {
        let x = match self.pool {
            Pool::None => x,
            Pool::Average => average_pool(x, 3, 1, Pad::Half, count_outside),
            Pool::Maximum => max_pool(x, 3, 2, Pad::None),
        };
        let x = self.convs.iter().fold(x, |x, conv| conv.forward(x));
        if self.fork.is_empty() { x } else { join(self.fork.iter().map(|conv| conv.forward(x.clone())).collect()) }
    }
}

impl Network for InceptionV3 {
    fn new(device: &Device, variant: Variant) -> Self {
        let mut channels = variant.windows;
        let mut stem = Vec::new();
        for (step, keeps_size) in STEM {
            stem.push(unit(channels, step, keeps_size, device));
            channels = step.outputs;
        }
        let mut blocks = Vec::new();
        for (_, plan) in plans() {
            let (branches, outputs): (Vec<Branch>, Vec<usize>) =
                plan.into_iter().map(|plan| Branch::new(channels, plan, device)).unzip();
            channels = outputs.iter().sum();
            blocks.push(branches);
        }
        let count_outside = variant.convention == Convention::Torch;
        InceptionV3 { stem, blocks, fc: Head::new(channels, N_LABELS, device), count_outside }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let (first, second) = self.stem.split_at(STEM_FIRST);
        let x = max_pool(first.iter().fold(images, |x, conv| conv.forward(x)), 3, 2, Pad::None);
        let mut x = max_pool(second.iter().fold(x, |x, conv| conv.forward(x)), 3, 2, Pad::None);
        for branches in &self.blocks {
            x = join(branches.iter().map(|branch| branch.forward(x.clone(), self.count_outside)).collect());
        }
        self.fc.forward(global_average(x))
    }

    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut all = Vec::new();
        for ((step, _), unit) in STEM.iter().zip(&mut self.stem) {
            all.push(conv(step.name, unit));
        }
        for ((block, plan), branches) in plans().into_iter().zip(&mut self.blocks) {
            for (plan, branch) in plan.into_iter().zip(branches) {
                let (_, steps, fork) = plan.parts();
                for (step, unit) in steps.into_iter().chain(fork).zip(branch.convs.iter_mut().chain(&mut branch.fork)) {
                    all.push(conv(&format!("{block}.{}", step.name), unit));
                }
            }
        }
        all.push(Layer::Head { name: "fc", head: &mut self.fc });
        all
    }
}

fn conv<'a>(prefix: &str, unit: &'a mut ConvUnit) -> Layer<'a> {
    Layer::conv(format!("{prefix}.conv"), format!("{prefix}.bn"), unit)
}
