//! Dense convolution over packed weights: every output pixel reads its patch where it lies in the image.
//!
//! A patch is a few segments of values that lie side by side: one for each tap of the kernel, or, where no patch reaches
//! over the left and right edge, one for each row of taps. What lies above, below or beside the image is read from a row of
//! zeros. The work is cut into blocks of pixels, whose inputs stay in the second-level cache, and, where there are few of
//! those, groups of panels; every sum runs over the whole patch in one order, so results do not depend on the cut.

// A number of a register or a row stands for several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::Simd;

use super::conv::Shape;
use super::panels::Cut;
use super::pool::with_scratch;
use super::threads::each;
use super::tile::{self, PIXELS, Reads, Tile};
use super::{Curve, Real, Silu, clamp, wide};
use crate::geometry::{Act, Plane};

/// Images, `[n, height, width, channels]`, whose pixels lie `pitch` values apart.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, T> {
    pub values: &'a [T],
    pub pitch: usize,
}

/// What is done to the input on its way in; for kernels of one tap only.
#[derive(Clone, Copy)]
pub(crate) enum Before<'a, T> {
    Nothing,
    /// `x * slope + level` of each channel, then a clamp.
    Line {
        slope: &'a [T],
        level: &'a [T],
        act: Act,
    },
    /// Factors of each image and channel.
    Scale(&'a [T]),
}

/// What is added to the sums before the activation.
#[derive(Clone, Copy)]
pub(crate) struct Extras<'a, T> {
    /// One value for each output channel.
    pub bias: Option<&'a [T]>,
    /// As large as the output.
    pub addend: Option<&'a [T]>,
    /// Activation.
    pub act: Act,
}

/// A convolution to be computed over weights of type `W`.
pub(crate) struct Product<'a, T, W = T> {
    pub shape: Shape,
    pub input: Source<'a, T>,
    pub before: Before<'a, T>,
    pub cut: Cut,
    /// Weights as [`Cut::pack`] makes them, or [`super::bfloat::pack`].
    pub panels: &'a [W],
    pub extras: Extras<'a, T>,
}

/// Whether a kernel has one tap and no padding, so that something can be done to the input on its way in.
pub(crate) fn has_one_tap(plane: &Plane) -> bool {
    plane.kernel == [1, 1] && plane.padding == [0; 4]
}

/// Images with fewer channels are copied with zeros at their left and right, so that a row of taps is one segment.
const FEW_CHANNELS: usize = 16;

/// Values of a block's input that leave room for weights in the second-level cache.
const BLOCK_VALUES: usize = 96 * 1024;

/// Parts of the work for each thread: enough that threads end at about the same time.
const PARTS: usize = 6;

/// Multiplications that are not worth waking another thread.
const SMALL: usize = 16 * 1024;

/// Where patches lie.
struct Layout<'a, T: Real> {
    values: &'a [T],
    pitch: usize,
    /// Segments of a patch down and across, and values of one.
    segments: [usize; 2],
    segment: usize,
    /// Output columns for which a segment lies inside of the image, for each segment of a row.
    inside: Vec<Range<usize>>,
    zeros: Vec<T>,
    shape: Shape,
    size_out: [usize; 2],
}

impl<'a, T: Real> Layout<'a, T> {
    fn new(product: &Product<'a, T>) -> Self {
        let shape = product.shape;
        let Plane { kernel: [down, across], padding: [_, left, _, right], .. } = shape.plane;
        let [_, _, width, channels] = shape.input;
        let Source { values, pitch } = product.input;
        // Taps of a row lie side by side; patches that reach over an edge are copied, which few channels make cheap.
        let merged = across > 1 && pitch == channels && ((left == 0 && right == 0) || channels < FEW_CHANNELS);
        let (segments, segment) = if merged { ([down, 1], across * channels) } else { ([down, across], channels) };
        let size_out = shape.size_out();
        let (taps, step) = (if merged { across } else { 1 }, shape.plane.stride[1]);
        let inside = |x: usize| {
            // From the first column whose place is not left of the image to the last one that ends in it.
            let end = (width + left).checked_sub(x + taps).map_or(0, |last| last / step + 1);
            let first = left.saturating_sub(x).div_ceil(step);
            first.min(size_out[1])..end.min(size_out[1]).max(first.min(size_out[1]))
        };
        let inside = (0..segments[1]).map(inside).collect();
        Layout { values, pitch, segments, segment, inside, zeros: vec![T::ZERO; segment], shape, size_out }
    }

    fn n_segments(&self) -> usize {
        self.segments[0] * self.segments[1]
    }

    /// Place in `values` of the input pixel of a kernel with one tap.
    #[inline(always)]
    fn place(&self, [image, row, column]: [usize; 3]) -> usize {
        let [_, height, width, _] = self.shape.input;
        let [down, across] = self.shape.plane.stride;
        ((image * height + row * down) * width + column * across) * self.pitch
    }

    /// Whether a row of taps is one segment.
    fn is_merged(&self) -> bool {
        self.segments[1] < self.shape.plane.kernel[1]
    }

    /// Values of the copies that `pixels` neighboring pixels need.
    fn copies(&self, pixels: usize) -> usize {
        if !self.is_merged() {
            return 0;
        }
        let [down, across] = self.size_out;
        let rows = (pixels.div_ceil(across.max(1)) + 1).min(self.shape.input[0] * down);
        (across - self.inside[0].len()) * rows * self.n_segments() * self.segment
    }

    /// Image, row and column of an output pixel.
    #[inline(always)]
    fn pixel(&self, at: usize) -> [usize; 3] {
        let [down, across] = self.size_out;
        [at / (down * across), at / across % down, at % across]
    }

    /// Writes where `count` pixels from `first` on read; one [`Reads`] for each segment. Patches that reach over an edge are
    /// put into `copies`, of which the rest is left.
    #[inline(always)]
    fn reads<'b>(&self, first: usize, count: usize, reads: &mut [Reads<T>], mut copies: &'b mut [T]) -> &'b mut [T] {
        if self.shape.plane.is_pointwise() {
            // Pixel by pixel, nothing to be worked out.
            let values = &self.values[first * self.pitch..][..(count - 1) * self.pitch + self.segment];
            for m in 0..PIXELS {
                reads[0][m] = values[m.min(count - 1) * self.pitch..].as_ptr();
            }
            return copies;
        }
        let [_, height, width, _] = self.shape.input;
        let Plane { stride, padding: [top, left, ..], .. } = self.shape.plane;
        let [down, across] = self.segments;
        let step = stride[1] * self.pitch;
        // Divisions cost more than all else here, so there is one for a tile.
        let [mut image, mut row, mut column] = self.pixel(first);
        let mut m = 0;
        while m < count {
            // Pixels of the same row, most of which read a constant step apart.
            let run = (count - m).min(self.size_out[1] - column);
            for y in 0..down {
                let line = (row * stride[0] + y).checked_sub(top).filter(|y| *y < height);
                for x in 0..across {
                    let to = &mut reads[y * across + x][m..m + run];
                    let Some(line) = line.map(|y| (image * height + y) * width) else {
                        to.fill(self.zeros.as_ptr());
                        continue;
                    };
                    let Range { start, end } = &self.inside[x];
                    let (start, end) =
                        (start.clamp(&column, &(column + run)) - column, end.clamp(&column, &(column + run)) - column);
                    if start < end {
                        let place = (line + (column + start) * stride[1] + x - left) * self.pitch;
                        let values = self.values[place..][..(end - start - 1) * step + self.segment].as_ptr();
                        for (at, to) in to[start..end].iter_mut().enumerate() {
                            *to = values.wrapping_add(at * step);
                        }
                    }
                    for at in (0..start).chain(end..run) {
                        (to[at], copies) = self.over_edge(line, (column + at) * stride[1] + x, copies);
                    }
                }
            }
            m += run;
            (row, column) = (row + 1, 0);
            if row == self.size_out[0] {
                (image, row) = (image + 1, 0);
            }
        }
        for m in count..PIXELS {
            for segment in 0..down * across {
                reads[segment][m] = reads[segment][count - 1];
            }
        }
        copies
    }

    /// Where a segment reads that begins `from` values right of the padding of the row of pixels at `line` and is not inside
    /// of the image; the rest of `copies`.
    #[inline(never)]
    fn over_edge<'b>(&self, line: usize, from: usize, copies: &'b mut [T]) -> (*const T, &'b mut [T]) {
        if !self.is_merged() {
            return (self.zeros.as_ptr(), copies);
        }
        let [_, _, width, channels] = self.shape.input;
        let Plane { kernel: [_, taps], padding: [_, left, ..], .. } = self.shape.plane;
        let (copy, rest) = copies.split_at_mut(self.segment);
        copy.fill(T::ZERO);
        // Taps that are inside.
        let inside = left.saturating_sub(from)..taps.min((width + left).saturating_sub(from));
        if !inside.is_empty() {
            let values = &self.values[(line + from + inside.start - left) * channels..][..inside.len() * channels];
            copy[inside.start * channels..][..values.len()].copy_from_slice(values);
        }
        (copy.as_ptr(), rest)
    }
}

/// How the work is cut.
struct Parts {
    /// Pixels of a block.
    pixels: usize,
    blocks: usize,
    /// Groups of panels.
    groups: usize,
    panels: usize,
}

impl Parts {
    fn new<T>(product: &Product<'_, T>, staged: bool) -> Self {
        let Shape { plane, input: [.., channels], .. } = product.shape;
        let (pixels, panels) = (product.shape.pixels(), product.cut.panels());
        let threads = rayon::current_num_threads();
        let [down, across] = [0, 1].map(|axis| plane.stride[axis].min(plane.kernel[axis]));
        let fits = (BLOCK_VALUES / (channels * down * across)).clamp(2 * PIXELS, 32 * PIXELS) / PIXELS * PIXELS;
        // What is done to the input is done again for each group, so there are rather more blocks.
        let least = pixels.div_ceil(PARTS * threads).next_multiple_of(PIXELS).max(2 * PIXELS);
        let most = if staged { fits.min(least) } else { fits };
        let wanted = if pixels * product.shape.patch() * product.shape.outputs < SMALL { 1 } else { PARTS * threads };
        // Where panels are few, parts are made of pixels.
        let blocks = pixels.div_ceil(most).max(wanted.div_ceil(panels).min(pixels / (2 * PIXELS))).max(1);
        // Of whole tiles.
        let block = pixels.div_ceil(blocks).next_multiple_of(PIXELS);
        let blocks = pixels.div_ceil(block);
        Parts { pixels: block, blocks, groups: wanted.div_ceil(blocks).min(panels), panels }
    }

    fn count(&self) -> usize {
        self.blocks * self.groups
    }

    /// Pixels and panels of a part. Parts of a group come in a row: its panels stay in the cache.
    fn part(&self, at: usize, pixels: usize) -> (Range<usize>, Range<usize>) {
        let (group, block) = (at / self.blocks, at % self.blocks);
        let bound = |group: usize| group * self.panels / self.groups;
        (block * self.pixels..pixels.min((block + 1) * self.pixels), bound(group)..bound(group + 1))
    }
}

/// Where results go: parts write to different places of it.
pub(crate) struct Target<T>(pub *mut T);
// SAFETY: every part writes its own pixels and channels only, see `Work`.
unsafe impl<T: Send> Sync for Target<T> {}

/// Computes a convolution into `out`: pixel `p` begins at `p * pitch` and has the outputs' number of values.
pub(crate) fn run<T: Real>(product: &Product<'_, T>, out: &mut [T], pitch: usize) {
    let (pixels, outputs) = (product.shape.pixels(), product.shape.outputs);
    if pixels == 0 || outputs == 0 {
        return;
    }
    assert!(out.len() >= (pixels - 1) * pitch + outputs && pitch >= outputs, "room for a convolution's results");
    assert_eq!(product.panels.len(), product.cut.len(), "packed weights");
    assert!(product.extras.addend.is_none_or(|addend| addend.len() == pixels * outputs), "addend of a convolution");
    let mut bias = vec![T::ZERO; product.cut.filled()];
    if let Some(values) = product.extras.bias {
        bias[..outputs].copy_from_slice(values);
    }
    let layout = Layout::new(product);
    let staging = Staging::of(product);
    let parts = Parts::new(product, staging.is_some());
    let target = Target(out.as_mut_ptr());
    let work = |at: usize| {
        let (pixels, panels) = parts.part(at, pixels);
        let target = &target;
        let staged = staging.map_or_else(|| layout.copies(pixels.len()), |staging| staging.pitch * pixels.len());
        with_scratch(staged, |staged| {
            wide(Work { product, layout: &layout, staging, bias: &bias, pixels, panels, staged, out: target.0, pitch });
        });
    };
    each(parts.count(), work);
}

/// A copy of a block's input, one row of `pitch` values a pixel.
#[derive(Clone, Copy)]
struct Staging {
    pitch: usize,
}

/// Bytes; pixels that lie a multiple of half a page apart fall on the same few lines of the first-level cache.
pub(crate) const CLASH: usize = 2048;

impl Staging {
    fn of<T>(product: &Product<'_, T>) -> Option<Staging> {
        let [.., channels] = product.shape.input;
        let clashes = (product.input.pitch * size_of::<T>()).is_multiple_of(CLASH);
        let staged = has_one_tap(&product.shape.plane) && (clashes || !matches!(product.before, Before::Nothing));
        let line = 64 / size_of::<T>();
        staged.then(|| Staging { pitch: (channels.div_ceil(line) | 1) * line })
    }
}

/// A part: some pixels by some panels.
struct Work<'a, T: Real> {
    product: &'a Product<'a, T>,
    layout: &'a Layout<'a, T>,
    staging: Option<Staging>,
    bias: &'a [T],
    pixels: Range<usize>,
    panels: Range<usize>,
    /// Memory for the copy, or for copies of patches.
    staged: &'a mut [T],
    out: *mut T,
    pitch: usize,
}

impl<T: Real> Work<'_, T> {
    /// Copies the block's input and does to it what is to be done.
    #[inline(always)]
    fn stage(&mut self, pitch: usize) {
        let [.., channels] = self.product.shape.input;
        for (at, out) in self.pixels.clone().zip(self.staged.chunks_exact_mut(pitch)) {
            let pixel = self.layout.pixel(at);
            let out = &mut out[..channels];
            let values = &self.layout.values[self.layout.place(pixel)..][..channels];
            match self.product.before {
                Before::Nothing => out.copy_from_slice(values),
                Before::Line { slope, level, act } => {
                    let bounds = act.bounds().map(T::of);
                    let (slope, level) = (&slope[..channels], &level[..channels]);
                    for c in 0..channels {
                        out[c] = clamp(values[c].fma(slope[c], level[c]), bounds);
                    }
                }
                Before::Scale(factors) => {
                    let factors = &factors[pixel[0] * channels..][..channels];
                    for c in 0..channels {
                        out[c] = values[c] * factors[c];
                    }
                }
            }
        }
    }
}

impl<T: Real> Work<'_, T> {
    /// First pixel of a tile and how many it has.
    #[inline(always)]
    fn tile<S: Simd>(&self, at: usize) -> (usize, usize) {
        let (first, count) = tile::tile_of::<S>(at, self.pixels.len());
        (self.pixels.start + first, count)
    }
}

impl<T: Real> pulp::WithSimd for Work<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let n_segments = self.layout.n_segments();
        if let Some(Staging { pitch }) = self.staging {
            self.stage(pitch);
        }
        let mut reads: Vec<Reads<T>> = Vec::new();
        let mut copies = if self.staging.is_none() { std::mem::take(&mut self.staged) } else { &mut [] };
        let tiles = tile::tiles::<S>(self.pixels.len());
        for at in 0..tiles {
            let (first, count) = self.tile::<S>(at);
            let begin = reads.len();
            reads.resize(begin + n_segments, [self.layout.zeros.as_ptr(); PIXELS]);
            match self.staging {
                None => copies = self.layout.reads(first, count, &mut reads[begin..], copies),
                Some(Staging { pitch }) => {
                    for m in 0..PIXELS {
                        let row = first - self.pixels.start + m.min(count - 1);
                        reads[begin][m] = self.staged[row * pitch..][..self.layout.segment].as_ptr();
                    }
                }
            }
        }
        let (outputs, extras) = (self.product.shape.outputs, &self.product.extras);
        let silu = extras.act == Act::Silu;
        for panel in self.panels.clone() {
            let (from, width) = self.product.cut.span(panel);
            let channels = width.min(outputs - from);
            for at in 0..tiles {
                let (first, count) = self.tile::<S>(at);
                let reads = &reads[at * n_segments..][..n_segments];
                let out = self.out.wrapping_add(first * self.pitch + from);
                let addend = extras.addend.map_or(std::ptr::null(), |addend| addend[first * outputs + from..].as_ptr());
                let tile = Tile {
                    reads,
                    segment: self.layout.segment,
                    panel: self.product.cut.panel(self.product.panels, panel),
                    bias: &self.bias[from..from + width],
                    count,
                    outputs: channels,
                    out,
                    out_pitch: self.pitch,
                    addend,
                    addend_pitch: outputs,
                    bounds: extras.act.bounds().map(T::of),
                };
                // SAFETY: `reads` point at whole segments, as their slices were checked; `run` checked the sizes of
                // output and addend, and no other part has these pixels and these panels.
                unsafe { tile.run(simd) };
                if silu {
                    for m in 0..count {
                        // SAFETY: the values that the tile just wrote, of which this part alone has a reference.
                        let row = unsafe { std::slice::from_raw_parts_mut(out.add(m * self.pitch), channels) };
                        for value in row {
                            *value = Silu.value(*value);
                        }
                    }
                }
            }
        }
    }
}
