//! Depthwise convolution and the gradient of its input on channels-last slices, `[n, height, width, channels]`.
//!
//! Forward pass and input gradient are one computation: every pixel gathers a few pixels of the other side. Weights are
//! `[kernel height * kernel width, channels]`, so that channels fill the vectors. Neighboring columns that read alike are
//! taken together, with all their sums in registers.

// A number of a register stands for several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::Simd;
use smallvec::SmallVec;

use super::direct::Target;
use super::pool::Buffer;
use super::threads::each;
use super::tile::{self, load};
use super::{BLOCK, Curve, Real, Silu, clamp, wide};
use crate::geometry::{Act, Plane, Span};

/// Shape of one side: images, height, width, channels.
pub(crate) type Dims = [usize; 4];

/// `[n, ho, wo, c]` from `[n, h, w, c]`, with bias (or zeros) and activation.
pub(crate) fn forward<T: Real>(
    plane: &Plane,
    input: &[T],
    dims: Dims,
    weight: &[T],
    bias: Option<&[T]>,
    act: Act,
) -> Buffer<T> {
    let [_, height, width, _] = dims;
    let [down, across] = plane.must_output([height, width]);
    let (rows, columns) = (plane.reads(0, height, down), plane.reads(1, width, across));
    gather(&rows, &columns, plane.kernel[1], Source { values: input, dims }, Filter { weight, bias, act })
}

/// Gradient of the input: `[n, h, w, c]` from the output's gradient `[n, ho, wo, c]`.
pub(crate) fn input_gradient<T: Real>(
    plane: &Plane,
    grad: &[T],
    dims: Dims,
    weight: &[T],
    size: [usize; 2],
) -> Buffer<T> {
    let [_, down, across, _] = dims;
    let (rows, columns) = (plane.readers(0, size[0], down), plane.readers(1, size[1], across));
    let filter = Filter { weight, bias: None, act: Act::Linear };
    gather(&rows, &columns, plane.kernel[1], Source { values: grad, dims }, filter)
}

#[derive(Clone, Copy)]
pub(crate) struct Source<'a, T> {
    pub values: &'a [T],
    pub dims: Dims,
}

impl<'a, T> Source<'a, T> {
    pub fn image(&self, at: usize) -> &'a [T] {
        let [_, height, width, channels] = self.dims;
        &self.values[at * height * width * channels..][..height * width * channels]
    }
}

#[derive(Clone, Copy)]
struct Filter<'a, T> {
    weight: &'a [T],
    bias: Option<&'a [T]>,
    act: Act,
}

/// Neighboring columns with the same taps, of which each reads `step` further than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: usize,
    len: usize,
    /// What the first one reads.
    span: Span,
    step: usize,
}

fn runs(columns: &[Span]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (x, column) in columns.iter().enumerate() {
        if let Some(run) = runs.last_mut() {
            let taps = |span: &Span| (span.count, span.tap, span.tap_down);
            let step = column.from.wrapping_sub(run.span.from + (run.len - 1) * run.step);
            if taps(&run.span) == taps(column) && (1..=2).contains(&step) && (run.len == 1 || step == run.step) {
                (run.len, run.step) = (run.len + 1, step);
                continue;
            }
        }
        // The step of one column alone means nothing; 0 lets the next one set it.
        runs.push(Run { first: x, len: 1, span: *column, step: 0 });
    }
    runs
}

/// Filters every image; `rows` and `columns` say what each pixel of the result reads.
fn gather<T: Real>(
    rows: &[Span],
    columns: &[Span],
    taps_across: usize,
    source: Source<'_, T>,
    filter: Filter<'_, T>,
) -> Buffer<T> {
    let [n, height, width, channels] = source.dims;
    assert!(filter.bias.is_none_or(|bias| bias.len() == channels), "bias of a depthwise convolution");
    let n_taps = filter.weight.len() / channels.max(1) / taps_across.max(1);
    let is_inside = |spans: &[Span], size: usize, taps: usize| spans.iter().all(|span| fits(span, size, taps));
    assert!(is_inside(rows, height, n_taps) && is_inside(columns, width, taps_across), "taps outside the image");
    let mut out = Buffer::new(n * rows.len() * columns.len() * channels);
    let parts = Parts::new(n, rows, width, channels);
    let job =
        Job { rows, runs: &runs(columns), n_columns: columns.len(), taps_across, source, filter, pitch: channels };
    let target = Target(out.as_mut_ptr());
    let work = |at: usize| {
        let target = &target;
        wide(Part { job: &job, at: parts.part(at), out: target.0 });
    };
    each(parts.count(), work);
    out
}

/// A forward pass that gets its rows a few at a time.
pub(crate) struct Strip<'a, T> {
    runs: Vec<Run>,
    n_columns: usize,
    taps: [usize; 2],
    width: usize,
    channels: usize,
    filter: Filter<'a, T>,
}

impl<'a, T: Real> Strip<'a, T> {
    /// Channels that go through all rows before the next ones, so that rows stay in the first-level cache.
    const CHANNELS: usize = 128;

    /// For images of height and width `size`.
    pub fn new(
        plane: &Plane,
        size: [usize; 2],
        channels: usize,
        weight: &'a [T],
        bias: Option<&'a [T]>,
        act: Act,
    ) -> Self {
        let [_, across] = plane.must_output(size);
        let [down_taps, across_taps] = plane.kernel;
        assert_eq!(weight.len(), down_taps * across_taps * channels, "weights of a depthwise convolution");
        assert!(bias.is_none_or(|bias| bias.len() == channels), "bias of a depthwise convolution");
        let columns = plane.reads(1, size[1], across);
        assert!(columns.iter().all(|span| fits(span, size[1], across_taps)), "taps outside the image");
        let filter = Filter { weight, bias, act };
        Strip { runs: runs(&columns), n_columns: across, taps: plane.kernel, width: size[1], channels, filter }
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Columns of the result.
    pub fn columns(&self) -> usize {
        self.n_columns
    }

    /// As many rows as there are spans, which count rows of `values`; pixels of the result lie `pitch` apart.
    ///
    /// # Safety
    /// `out` has room for them, and nobody else uses it meanwhile.
    pub unsafe fn run(&self, rows: &[Span], values: &[T], out: *mut T, pitch: usize) {
        let line = self.width * self.channels;
        let height = values.len() / line.max(1);
        assert!(rows.iter().all(|span| fits(span, height, self.taps[0])) && pitch >= self.channels, "rows of a strip");
        let dims = [1, height, self.width, self.channels];
        let job = Job {
            rows,
            runs: &self.runs,
            n_columns: self.n_columns,
            taps_across: self.taps[1],
            source: Source { values, dims },
            filter: self.filter,
            pitch,
        };
        let mut first = 0;
        while first < self.channels {
            let end = if self.channels - first < 2 * Self::CHANNELS { self.channels } else { first + Self::CHANNELS };
            let at = Place { image: 0, rows: 0..rows.len(), channels: first..end };
            wide(Part { job: &job, at, out });
            first = end;
        }
    }
}

/// Whether what a span reads is inside a side of `size` and its taps among `taps`.
fn fits(span: &Span, size: usize, taps: usize) -> bool {
    span.count == 0 || (span.from + span.count <= size && span.pairs().all(|(_, tap)| tap < taps))
}

/// What all parts share.
struct Job<'a, T> {
    rows: &'a [Span],
    runs: &'a [Run],
    n_columns: usize,
    taps_across: usize,
    source: Source<'a, T>,
    filter: Filter<'a, T>,
    /// Step from pixel to pixel of the result.
    pitch: usize,
}

/// How the work is cut: images, strips of rows, groups of channels.
struct Parts {
    images: usize,
    rows: usize,
    strips: usize,
    channels: usize,
    groups: usize,
}

impl Parts {
    /// Parts for each thread.
    const PER_THREAD: usize = 6;

    /// Bytes of the rows that one row of the result reads, so that they stay in the first-level cache for the next one.
    const ROWS_BYTES: usize = 20 * 1024;

    /// Fewest channels of a group: two cache lines of f32.
    const CHANNELS: usize = 32;

    /// Images of more pixels are read as they lie in memory, all channels at a time.
    const PIXELS: usize = 32 * 32;

    fn new(images: usize, rows: &[Span], width: usize, channels: usize) -> Parts {
        let wanted = (Self::PER_THREAD * rayon::current_num_threads()).div_ceil(images.max(1));
        let reach = rows.iter().map(|row| row.count).max().unwrap_or(1).max(1);
        let fits = Self::ROWS_BYTES / size_of::<f32>() / (reach * width).max(1) / Self::CHANNELS * Self::CHANNELS;
        let is_small = rows.len() * width <= Self::PIXELS;
        let group = if is_small { fits.clamp(Self::CHANNELS, 4 * Self::CHANNELS) } else { channels.max(1) };
        let groups = channels.div_ceil(group).max(1);
        let strips = if is_small { wanted.div_ceil(groups) } else { rows.len() }.clamp(1, rows.len().max(1));
        Parts { images, rows: rows.len(), strips, channels, groups }
    }

    fn count(&self) -> usize {
        self.images * self.strips * self.groups
    }

    fn part(&self, at: usize) -> Place {
        let (image, at) = (at / (self.strips * self.groups), at % (self.strips * self.groups));
        let (group, strip) = (at / self.strips, at % self.strips);
        // Whole cache lines, so that two threads never write to one.
        let bound = |group: usize| (group * self.channels / self.groups / BLOCK * BLOCK).min(self.channels);
        let end = if group + 1 == self.groups { self.channels } else { bound(group + 1) };
        Place {
            image,
            rows: strip * self.rows / self.strips..(strip + 1) * self.rows / self.strips,
            channels: bound(group)..end,
        }
    }
}

/// One part.
struct Place {
    image: usize,
    rows: Range<usize>,
    channels: Range<usize>,
}

/// Several columns are taken together, so that a pixel that was read serves all of them.
struct Part<'a, T> {
    job: &'a Job<'a, T>,
    at: Place,
    out: *mut T,
}

/// What all columns of a row share: where each row of taps begins in the image and in the weights.
type Lines = SmallVec<[[usize; 2]; 8]>;

/// The most columns that are taken together: their sums, the weights of a row of taps and a value must fit the registers.
const TOGETHER: usize = 7;

impl<T: Real> Part<'_, T> {
    fn lines(&self, row: usize) -> Lines {
        let Job { rows, taps_across, source, .. } = self.job;
        let [_, _, width, channels] = source.dims;
        rows[row].pairs().map(|(y, tap)| [y * width * channels, tap * taps_across * channels]).collect()
    }

    /// `Q` columns of row `row` from `x` on, which read `C` columns each, `STEP` apart, the first one from `from` on.
    #[inline(always)]
    fn columns<S: Simd, const Q: usize, const C: usize, const STEP: usize>(
        &self,
        simd: S,
        row: usize,
        lines: &[[usize; 2]],
        taps: &[usize; C],
        [x, from]: [usize; 2],
    ) {
        if Q > 5 && S::REGISTER_COUNT < 32 {
            // Never asked for; this keeps the code from being made.
            return;
        }
        let Job { rows, n_columns, source, filter, pitch, .. } = self.job;
        let [_, _, width, channels] = source.dims;
        let (lanes, image) = (tile::lanes::<T, S>(), source.image(self.at.image));
        let Range { start: first, end } = self.at.channels;
        assert!(end - first >= lanes && end <= channels, "channels of a part");
        assert!((C == 0 || from + (Q - 1) * STEP + C <= width) && x + Q <= *n_columns, "columns of a part");
        let begin = ((self.at.image * rows.len() + row) * n_columns + x) * pitch;
        let is_clamped = !matches!(filter.act, Act::Linear | Act::Silu);
        let [low, high] = filter.act.bounds().map(|bound| T::splat(simd, T::of(bound)));
        let zero = T::splat(simd, T::ZERO);
        let mut channel = first;
        while channel < end {
            // The last vector may repeat some of the one before.
            let at = channel.min(end - lanes);
            // SAFETY: `at` has a whole vector of this part's channels behind it in every pixel, weight row, bias and result.
            // `gather` and `Strip` checked that rows, columns and taps are inside of image and weights; there is room for all
            // pixels of the result, of which no other part writes these rows and channels.
            unsafe {
                let start = match filter.bias {
                    Some(bias) => load::<T, S>(bias.as_ptr().add(at)),
                    None => zero,
                };
                let mut sums = [start; Q];
                for [pixel, weight] in lines {
                    let pixel = image.as_ptr().add(pixel + from * channels + at);
                    let weight = filter.weight.as_ptr().add(weight + at);
                    let mut weights = [zero; C];
                    for c in 0..C {
                        weights[c] = load::<T, S>(weight.add(taps[c]));
                    }
                    for read in 0..(Q - 1) * STEP + C {
                        let value = load::<T, S>(pixel.add(read * channels));
                        for q in 0..Q {
                            if read >= q * STEP && read - q * STEP < C {
                                sums[q] = T::fused(simd, value, weights[read - q * STEP], sums[q]);
                            }
                        }
                    }
                }
                let out = self.out.add(begin + at);
                if is_clamped {
                    for q in 0..Q {
                        sums[q] = T::clamp(simd, sums[q], low, high);
                    }
                }
                for q in 0..Q {
                    out.add(q * pitch).cast::<T::Vector<S>>().write_unaligned(sums[q]);
                }
            }
            channel += lanes;
        }
    }

    /// A run whose columns read `C` columns each.
    #[inline(always)]
    fn run<S: Simd, const C: usize>(&self, simd: S, row: usize, lines: &[[usize; 2]], run: &Run, together: bool) {
        let [.., channels] = self.job.source.dims;
        let mut taps = [0; C];
        assert!(run.span.count == C, "columns of a run");
        for (place, (_, tap)) in taps.iter_mut().zip(run.span.pairs()) {
            *place = tap * channels;
        }
        let many = S::REGISTER_COUNT >= 32;
        let mut done = 0;
        while done < run.len {
            let at = [run.first + done, run.span.from + done * run.step];
            done += match (run.step, run.len - done) {
                (1, TOGETHER..) if together && many => {
                    self.columns::<S, TOGETHER, C, 1>(simd, row, lines, &taps, at);
                    TOGETHER
                }
                (1, 5..) if together => {
                    self.columns::<S, 5, C, 1>(simd, row, lines, &taps, at);
                    5
                }
                (1, 2..) if together => {
                    self.columns::<S, 2, C, 1>(simd, row, lines, &taps, at);
                    2
                }
                (2, 5..) if together => {
                    self.columns::<S, 5, C, 2>(simd, row, lines, &taps, at);
                    5
                }
                (2, 2..) if together => {
                    self.columns::<S, 2, C, 2>(simd, row, lines, &taps, at);
                    2
                }
                _ => {
                    self.columns::<S, 1, C, 1>(simd, row, lines, &taps, at);
                    1
                }
            };
        }
    }

    /// What follows the sums of a row and is no clamp.
    #[inline(always)]
    fn silu(&self, row: usize) {
        let Job { rows, n_columns, pitch, .. } = self.job;
        for x in 0..*n_columns {
            let begin = ((self.at.image * rows.len() + row) * n_columns + x) * pitch + self.at.channels.start;
            // SAFETY: values of this part's own row and channels, which were just written.
            let values = unsafe { std::slice::from_raw_parts_mut(self.out.add(begin), self.at.channels.len()) };
            for value in values {
                *value = Silu.value(*value);
            }
        }
    }

    /// Any number of taps, one value at a time.
    fn any(&self, row: usize, run: &Run) {
        let Job { rows, n_columns, taps_across, source, filter, pitch, .. } = self.job;
        let [_, _, width, channels] = source.dims;
        let image = source.image(self.at.image);
        let bounds = filter.act.bounds().map(T::of);
        for at in 0..run.len {
            let pixel_out = (self.at.image * rows.len() + row) * n_columns + run.first + at;
            for channel in self.at.channels.clone() {
                let mut sum = filter.bias.map_or(T::ZERO, |bias| bias[channel]);
                for (y, tap_y) in rows[row].pairs() {
                    for (x, tap_x) in run.span.pairs() {
                        let pixel = (y * width + x + at * run.step) * channels + channel;
                        let tap = (tap_y * taps_across + tap_x) * channels + channel;
                        sum = image[pixel].fma(filter.weight[tap], sum);
                    }
                }
                let value = if filter.act == Act::Silu { sum } else { clamp(sum, bounds) };
                // SAFETY: a value of this part's own rows and channels, inside of the result that `gather` made.
                unsafe { *self.out.add(pixel_out * pitch + channel) = value };
            }
        }
    }
}

impl<T: Real> pulp::WithSimd for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let is_narrow = self.at.channels.len() < tile::lanes::<T, S>();
        for row in self.at.rows.clone() {
            let lines = self.lines(row);
            for run in self.job.runs {
                match run.span.count {
                    _ if is_narrow => self.any(row, run),
                    0 => self.run::<S, 0>(simd, row, &lines, run, false),
                    1 => self.run::<S, 1>(simd, row, &lines, run, false),
                    2 => self.run::<S, 2>(simd, row, &lines, run, false),
                    3 => self.run::<S, 3>(simd, row, &lines, run, true),
                    4 => self.run::<S, 4>(simd, row, &lines, run, false),
                    5 => self.run::<S, 5>(simd, row, &lines, run, true),
                    _ => self.any(row, run),
                }
            }
            if self.job.filter.act == Act::Silu {
                self.silu(row);
            }
        }
    }
}
