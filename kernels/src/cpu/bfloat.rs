//! Dense convolution whose products are taken in bfloat16 and summed in f32, two to an instruction (AVX512-BF16: AMD since
//! Zen 4, Intel since Cooper Lake). Everything around the products stays f32: images between layers, biases, sums, activations.
//!
//! A block of the input is rounded to bfloat16 on its way in, with zeros around it, so that a row of taps is one run of
//! values; weights are rounded once. Pixels of a block by panels of weights, as in [`super::direct`], in one order of summing
//! whatever the cut.

// A number of a register or a row stands for several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

use half::bf16;

use super::conv::Shape;
use super::direct::{Before, CLASH, Product, Source, Target, has_one_tap};
use super::panels::Cut;
use super::threads::each;
use super::{Curve, Silu, alone, clamp};
use crate::geometry::{Act, Plane};

/// Values in a vector of sums.
const LANES: usize = 16;
/// Vectors of output channels in a tile.
const VECTORS: usize = 2;
/// Pixels of a full tile: with the sums, the weights and one more all registers are taken.
const PIXELS: usize = 14;
/// Rounded values of a block that leave room for weights in the second-level cache.
const BLOCK_VALUES: usize = 192 * 1024;
/// Parts of the work for each thread, where threads share a layer. Each rounds its own input.
const PARTS: usize = 2;
/// Channels from which on rounding pays; what has fewer, such as a squeeze, stays f32.
const LEAST_CHANNELS: usize = 8;

/// Whether this processor has the instructions.
pub(crate) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

/// Whether a convolution of so many input channels is for this module.
pub(crate) fn suits(channels: usize) -> bool {
    is_here() && channels >= LEAST_CHANNELS && channels.is_multiple_of(2)
}

/// How weights `[outputs, patch]` are cut.
pub(crate) fn cut(outputs: usize, patch: usize) -> Cut {
    Cut { outputs, patch, lanes: LANES }
}

/// Panels of `[outputs, patch]`: for each two values of a patch the weights of an output for both side by side, output after
/// output.
pub(crate) fn pack(cut: &Cut, weight: &[f32]) -> Vec<bf16> {
    let mut panels = vec![bf16::ZERO; cut.len()];
    for panel in 0..cut.panels() {
        let (first, width) = cut.span(panel);
        let panel = &mut panels[first * cut.patch..][..width * cut.patch];
        for (output, weights) in weight.chunks_exact(cut.patch).skip(first).take(width).enumerate() {
            for (row, pair) in panel.chunks_exact_mut(2 * width).zip(weights.chunks_exact(2)) {
                row[2 * output] = bf16::from_f32(pair[0]);
                row[2 * output + 1] = bf16::from_f32(pair[1]);
            }
        }
    }
    panels
}

/// Weights, and what is done to the sums.
struct Layer<'a> {
    cut: Cut,
    panels: &'a [bf16],
    /// With zeros up to a whole panel.
    bias: &'a [f32],
    act: Act,
}

impl<'a> Layer<'a> {
    fn new(cut: Cut, panels: &'a [bf16], bias: &'a [f32], act: Act) -> Self {
        assert_eq!((panels.len(), bias.len()), (cut.len(), cut.filled()), "packed weights");
        Layer { cut, panels, bias, act }
    }
}

thread_local! {
    /// A thread's own memory for rounded values.
    static ROUNDED: Cell<Vec<u16>> = const { Cell::new(Vec::new()) };
}

/// Runs `work` with `len` values of any content.
fn with_rounded<R>(len: usize, work: impl FnOnce(&mut [u16]) -> R) -> R {
    let mut memory = ROUNDED.take();
    if memory.len() < len {
        memory = vec![0; len];
    }
    let result = work(&mut memory[..len]);
    ROUNDED.set(memory);
    result
}

/// The step from pixel to pixel for rounded pixels of so many channels that do not fall on the same few lines of the
/// first-level cache.
fn spread(channels: usize) -> usize {
    let clashes = (channels * size_of::<u16>()).is_multiple_of(CLASH);
    if clashes { channels + 64 / size_of::<u16>() } else { channels }
}

/// Where rounded values of a block lie.
#[derive(Clone, Copy)]
struct Block {
    /// Runs of values that a patch consists of, and values of each.
    runs: usize,
    run: usize,
    /// Steps from run to run of a patch, from pixel to pixel, and from row to row of pixels.
    step: usize,
    pixel: usize,
    row: usize,
    /// Pixels of a row; the block ends with one.
    across: usize,
}

/// Computes a convolution into `out`: pixel `p` begins at `p * outputs`.
pub(crate) fn run(product: &Product<'_, f32, bf16>, out: &mut [f32]) {
    let Product { shape, input, before, cut, panels, extras } = product;
    let (pixels, outputs, channels) = (shape.pixels(), shape.outputs, shape.input[3]);
    assert!(is_here() && channels.is_multiple_of(2), "products in bfloat16");
    if pixels == 0 || outputs == 0 {
        return;
    }
    assert_eq!(out.len(), pixels * outputs, "room for a convolution's results");
    assert!(extras.addend.is_none_or(|addend| addend.len() == out.len()), "addend of a convolution");
    let last = shape.input[..3].iter().product::<usize>() - 1;
    assert!(input.values.len() >= last * input.pitch + channels && input.pitch >= channels, "input of a convolution");
    let mut bias = vec![0.0; cut.filled()];
    if let Some(values) = extras.bias {
        bias[..outputs].copy_from_slice(values);
    }
    let layer = Layer::new(*cut, panels, &bias, extras.act);
    let parts = Parts::new(shape, cut);
    let target = Target(out.as_mut_ptr());
    each(parts.count(), |at| {
        let (rows, panels) = parts.part(at, layer.cut.panels());
        let target = &target;
        with_rounded(parts.values(&rows), |rounded| {
            // SAFETY: the processor has the instructions; sizes were checked above; no other part has these pixels and panels.
            unsafe {
                let (block, pixels) = parts.stage(shape, *input, *before, &rows, rounded);
                let first = parts.first_pixel(&rows);
                let to = target.0.add(first * outputs);
                let addend = extras.addend.map(|addend| &addend[first * outputs..][..pixels * outputs]);
                multiply(&layer, panels, rounded, block, pixels, to, addend);
            }
        });
    });
}

/// A convolution with one tap: the pixels in `values`, which lie `pitch` apart, to results side by side; `addend` is added
/// before the activation. `bias` has zeros up to a whole panel.
///
/// # Safety
/// `out` has room for as many pixels, and nobody else uses it meanwhile.
pub(crate) unsafe fn pointwise(
    cut: Cut,
    panels: &[bf16],
    bias: &[f32],
    act: Act,
    (values, pitch): (&[f32], usize),
    out: *mut f32,
    addend: Option<&[f32]>,
) {
    let channels = cut.patch;
    let pixels = (values.len() + pitch - channels) / pitch;
    assert!(is_here() && channels.is_multiple_of(2) && pitch >= channels, "products in bfloat16");
    assert!(addend.is_none_or(|addend| addend.len() == pixels * cut.outputs), "addend of a convolution");
    let layer = Layer::new(cut, panels, bias, act);
    let step = spread(channels);
    let block = Block { runs: 1, run: channels, step: 0, pixel: step, row: 0, across: pixels.max(1) };
    with_rounded(pixels * step, |rounded| {
        // SAFETY: the processor has the instructions; `out` is the caller's promise.
        unsafe {
            if pitch == channels && step == channels {
                round(&values[..pixels * channels], rounded);
            } else {
                for (values, rounded) in values.chunks(pitch).zip(rounded.chunks_exact_mut(step)) {
                    round(&values[..channels], rounded);
                }
            }
            multiply(&layer, 0..layer.cut.panels(), rounded, block, pixels, out, addend);
        }
    });
}

/// How a convolution is cut: into blocks of rows of output pixels, and groups of panels. For one tap all pixels of all images
/// are rows of one pixel.
struct Parts {
    has_one_tap: bool,
    shape: Shape,
    /// Rows of all images, pixels of each, and rows of an image.
    rows: usize,
    across: usize,
    down: usize,
    /// Rows of a block. A block has rows of one image.
    block: usize,
    /// Blocks of an image, and of all.
    per_image: usize,
    blocks: usize,
    groups: usize,
}

impl Parts {
    fn new(shape: &Shape, cut: &Cut) -> Self {
        let [images, _, _, channels] = shape.input;
        let [down, across] = shape.size_out();
        let has_one_tap = has_one_tap(&shape.plane);
        // For one tap, images and rows make no difference.
        let (images, down, across) = if has_one_tap { (1, images * down * across, 1) } else { (images, down, across) };
        let Plane { stride, kernel, .. } = shape.plane;
        let threads = if alone() { 1 } else { rayon::current_num_threads() };
        let wanted = if threads == 1 { 1 } else { PARTS * threads };
        let row = if has_one_tap { spread(channels) } else { stride[0] * columns(shape) * channels };
        let over = if has_one_tap { 0 } else { kernel[0].saturating_sub(stride[0]) };
        let fits = (BLOCK_VALUES / row.max(1)).saturating_sub(over).max(1);
        // Whole tiles, where rows are single pixels.
        let unit = if has_one_tap { PIXELS } else { 1 };
        let least = (2 * PIXELS).div_ceil(across).max(1);
        let for_all = (images * down).div_ceil(wanted).max(least);
        let block = fits.min(for_all).next_multiple_of(unit).min(down);
        let per_image = down.div_ceil(block);
        // Blocks of about the same size.
        let block = down.div_ceil(per_image).next_multiple_of(unit).min(down);
        let per_image = down.div_ceil(block);
        let blocks = per_image * images;
        let groups = wanted.div_ceil(blocks).min(cut.panels());
        Parts { has_one_tap, shape: *shape, rows: images * down, across, down, block, per_image, blocks, groups }
    }

    fn count(&self) -> usize {
        self.blocks * self.groups
    }

    /// Rows and panels of a part.
    fn part(&self, at: usize, panels: usize) -> (Range<usize>, Range<usize>) {
        let (group, block) = (at / self.blocks, at % self.blocks);
        let first = block / self.per_image * self.down + block % self.per_image * self.block;
        let last = (first + self.block).min((block / self.per_image + 1) * self.down).min(self.rows);
        let bound = |group: usize| group * panels / self.groups;
        (first..last, bound(group)..bound(group + 1))
    }

    fn first_pixel(&self, rows: &Range<usize>) -> usize {
        rows.start * self.across
    }

    /// Input rows that output rows read, with those in the padding.
    fn reach(&self, rows: usize) -> usize {
        (rows - 1) * self.shape.plane.stride[0] + self.shape.plane.kernel[0]
    }

    /// Rounded values of a block.
    fn values(&self, rows: &Range<usize>) -> usize {
        let channels = self.shape.input[3];
        if self.has_one_tap {
            return rows.len() * spread(channels);
        }
        self.reach(rows.len()) * columns(&self.shape) * channels
    }

    /// Rounds what some rows read, and tells where it lies and how many pixels that makes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn stage(
        &self,
        shape: &Shape,
        input: Source<'_, f32>,
        before: Before<'_, f32>,
        rows: &Range<usize>,
        rounded: &mut [u16],
    ) -> (Block, usize) {
        let [_, height, width, channels] = shape.input;
        let Plane { stride, padding: [top, left, ..], kernel: [taps_down, taps_across] } = shape.plane;
        if self.has_one_tap {
            let step = spread(channels);
            let [down, across] = shape.size_out();
            let mut row = vec![0.0; if matches!(before, Before::Nothing) { 0 } else { channels }];
            for (at, rounded) in rows.clone().zip(rounded.chunks_exact_mut(step)) {
                let (image, y, x) = (at / (down * across), at / across % down, at % across);
                let place = ((image * height + y * stride[0]) * width + x * stride[1]) * input.pitch;
                let values = &input.values[place..][..channels];
                if row.is_empty() {
                    round(values, rounded);
                } else {
                    change(before, image, values, &mut row);
                    round(&row, rounded);
                }
            }
            let block = Block { runs: 1, run: channels, step: 0, pixel: step, row: 0, across: rows.len() };
            return (block, rows.len());
        }
        let (image, first) = (rows.start / self.down, rows.start % self.down);
        let (line, columns) = (columns(shape) * channels, columns(shape));
        let inside = width.min(columns.saturating_sub(left));
        for (y, rounded) in (first * stride[0]..).zip(rounded.chunks_exact_mut(line)) {
            let Some(y) = y.checked_sub(top).filter(|y| *y < height) else {
                rounded.fill(0);
                continue;
            };
            let place = (image * height + y) * width * input.pitch;
            let (zeros, rest) = rounded.split_at_mut(left.min(columns) * channels);
            zeros.fill(0);
            let (values, zeros) = rest.split_at_mut(inside * channels);
            zeros.fill(0);
            if input.pitch == channels {
                round(&input.values[place..][..inside * channels], values);
            } else {
                for (x, values) in values.chunks_exact_mut(channels).enumerate() {
                    round(&input.values[place + x * input.pitch..][..channels], values);
                }
            }
        }
        let block = Block {
            runs: taps_down,
            run: taps_across * channels,
            step: line,
            pixel: stride[1] * channels,
            row: stride[0] * line,
            across: self.across,
        };
        (block, rows.len() * self.across)
    }
}

/// Columns that a row of output pixels reads, with those in the padding.
fn columns(shape: &Shape) -> usize {
    let Plane { stride, kernel, .. } = shape.plane;
    (shape.size_out()[1].max(1) - 1) * stride[1] + kernel[1]
}

/// What is done to a pixel on its way in.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn change(before: Before<'_, f32>, image: usize, values: &[f32], out: &mut [f32]) {
    let channels = values.len();
    let out = &mut out[..channels];
    match before {
        Before::Nothing => out.copy_from_slice(values),
        Before::Line { slope, level, act } => {
            let bounds = act.bounds().map(|bound| bound as f32);
            let (slope, level) = (&slope[..channels], &level[..channels]);
            for c in 0..channels {
                out[c] = clamp(values[c].mul_add(slope[c], level[c]), bounds);
            }
        }
        Before::Scale(factors) => {
            let factors = &factors[image * channels..][..channels];
            for c in 0..channels {
                out[c] = values[c] * factors[c];
            }
        }
    }
}

/// Rounds values to the nearest bfloat16, to the even one of two.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(values: &[f32], rounded: &mut [u16]) {
    let len = values.len();
    let rounded = &mut rounded[..len];
    let mut at = 0;
    // SAFETY: every load and store is inside of the slices, whose length is checked by the conditions and the masks.
    unsafe {
        while at + 2 * LANES <= len {
            let low = _mm512_loadu_ps(values.as_ptr().add(at));
            let high = _mm512_loadu_ps(values.as_ptr().add(at + LANES));
            let both: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(rounded.as_mut_ptr().add(at).cast(), both);
            at += 2 * LANES;
        }
        while at < len {
            let mask = first((len - at).min(LANES));
            let some: __m256i =
                std::mem::transmute(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, values.as_ptr().add(at))));
            _mm256_mask_storeu_epi16(rounded.as_mut_ptr().add(at).cast(), mask, some);
            at += LANES;
        }
    }
}

/// The first `count` lanes, 16 at most.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}

/// Where the pixels of a tile read one run of their patches.
type Reads = [*const u16; PIXELS];

/// Rounded pixels by some panels, and what follows.
///
/// # Safety
/// The processor has the instructions. `out` has room for `pixels` rows of the outputs, of which nobody else uses those of the
/// panels meanwhile; `addend` is as large.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn multiply(
    layer: &Layer<'_>,
    panels: Range<usize>,
    rounded: &[u16],
    block: Block,
    pixels: usize,
    out: *mut f32,
    addend: Option<&[f32]>,
) {
    let outputs = layer.cut.outputs;
    let tiles = pixels.div_ceil(PIXELS);
    let mut reads: Vec<Reads> = Vec::with_capacity(tiles * block.runs);
    for at in 0..tiles {
        let count = (pixels - at * PIXELS).min(PIXELS);
        for run in 0..block.runs {
            let mut from = [std::ptr::null(); PIXELS];
            for m in 0..PIXELS {
                let pixel = at * PIXELS + m.min(count - 1);
                let place = pixel / block.across * block.row + pixel % block.across * block.pixel + run * block.step;
                from[m] = rounded[place..][..block.run].as_ptr();
            }
            reads.push(from);
        }
    }
    for panel in panels {
        let (from, width) = layer.cut.span(panel);
        let channels = width.min(outputs - from);
        for at in 0..tiles {
            let first = at * PIXELS;
            let tile = Tile {
                reads: &reads[at * block.runs..][..block.runs],
                pairs: block.run / 2,
                panel: layer.cut.panel(layer.panels, panel),
                bias: &layer.bias[from..from + width],
                count: (pixels - first).min(PIXELS),
                outputs: channels,
                out: out.wrapping_add(first * outputs + from),
                addend: addend.map_or(std::ptr::null(), |addend| addend[first * outputs + from..].as_ptr()),
                pitch: outputs,
                bounds: layer.act.bounds().map(|bound| bound as f32),
            };
            // SAFETY: the slices above have all that is read, and the caller promised the room.
            unsafe { tile.run() };
            if layer.act == Act::Silu {
                for m in 0..tile.count {
                    // SAFETY: the values that the tile just wrote.
                    let row = unsafe { std::slice::from_raw_parts_mut(tile.out.wrapping_add(m * outputs), channels) };
                    for value in row {
                        *value = Silu.value(*value);
                    }
                }
            }
        }
    }
}

/// A tile of the product and what follows it.
struct Tile<'a> {
    /// For each run, where it begins for each pixel. Places behind `count` repeat the last pixel.
    reads: &'a [Reads],
    /// Pairs of values of a run.
    pairs: usize,
    panel: &'a [bf16],
    /// Starting values of the sums, as many as the panel has outputs.
    bias: &'a [f32],
    count: usize,
    /// Output channels, no more than the panel has.
    outputs: usize,
    out: *mut f32,
    /// What is added, or null.
    addend: *const f32,
    /// Step from pixel to pixel of both.
    pitch: usize,
    bounds: [f32; 2],
}

impl Tile<'_> {
    /// Computes the tile.
    ///
    /// # Safety
    /// Every pointer of `reads` has `2 * pairs` readable values; `out` and `addend` (if not null) have `count` rows of
    /// `outputs` values at their pitch.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn run(&self) {
        assert!(self.panel.len() >= self.reads.len() * self.pairs * 2 * self.bias.len(), "panel of a tile");
        assert!(self.outputs <= self.bias.len() && self.count <= PIXELS, "size of a tile");
        let is_narrow = self.bias.len() == LANES;
        assert!(is_narrow || self.bias.len() == VECTORS * LANES, "width of a panel");
        // SAFETY: sizes were checked here, pointers are the caller's promise.
        unsafe {
            match (self.count, is_narrow) {
                (..=1, false) => self.sized::<1, VECTORS>(),
                (2, false) => self.sized::<2, VECTORS>(),
                (3..=4, false) => self.sized::<4, VECTORS>(),
                (5..=7, false) => self.sized::<7, VECTORS>(),
                (8..=10, false) => self.sized::<10, VECTORS>(),
                (11..=12, false) => self.sized::<12, VECTORS>(),
                (_, false) => self.sized::<PIXELS, VECTORS>(),
                (..=4, true) => self.sized::<4, 1>(),
                (5..=8, true) => self.sized::<8, 1>(),
                (_, true) => self.sized::<PIXELS, 1>(),
            }
        }
    }

    /// For `M` pixels and `V` vectors of output channels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn sized<const M: usize, const V: usize>(&self) {
        // SAFETY: `run` checked panel and bias, its caller promises the rest; masks keep to the outputs that there are.
        unsafe {
            let mut start = [_mm512_setzero_ps(); V];
            for v in 0..V {
                start[v] = _mm512_loadu_ps(self.bias.as_ptr().add(v * LANES));
            }
            let mut sums = [start; M];
            let mut panel = self.panel.as_ptr();
            for reads in self.reads {
                let mut from = [reads[0]; M];
                from.copy_from_slice(&reads[..M]);
                for pair in 0..self.pairs {
                    let mut weights = [_mm512_setzero_si512(); V];
                    for v in 0..V {
                        weights[v] = _mm512_loadu_si512(panel.add(v * 2 * LANES).cast());
                    }
                    panel = panel.add(V * 2 * LANES);
                    for m in 0..M {
                        let two = _mm512_set1_epi32(from[m].cast::<i32>().add(pair).read_unaligned());
                        let two: __m512bh = std::mem::transmute(two);
                        for v in 0..V {
                            let weights: __m512bh = std::mem::transmute(weights[v]);
                            sums[m][v] = _mm512_dpbf16_ps(sums[m][v], weights, two);
                        }
                    }
                }
            }
            let mut masks = [0; V];
            for v in 0..V {
                masks[v] = first(self.outputs.saturating_sub(v * LANES));
            }
            let [low, high] = self.bounds.map(|bound| _mm512_set1_ps(bound));
            for m in 0..M {
                if m < self.count {
                    for v in 0..V {
                        let mut sum = sums[m][v];
                        if !self.addend.is_null() {
                            let addend = self.addend.wrapping_add(m * self.pitch + v * LANES);
                            sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(masks[v], addend));
                        }
                        // These take the second of the two where one is not a number (Intel's manual, MAXPS and MINPS).
                        let value = _mm512_min_ps(high, _mm512_max_ps(low, sum));
                        _mm512_mask_storeu_ps(self.out.wrapping_add(m * self.pitch + v * LANES), masks[v], value);
                    }
                }
            }
        }
    }
}
