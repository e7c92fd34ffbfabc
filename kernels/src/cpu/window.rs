//! Windowing on the CPU. Eight output rows at a time: the source rows that they need are windowed in blocks of columns that
//! stay in the first-level cache, blended down to the eight rows, and these are resized across, four rows and four windows
//! in each vector.

use std::cell::RefCell;

use rayon::prelude::*;

use super::wide;
use crate::resize::Taps;
use crate::window::{Line, Padding, Rect, SliceView, StoredPixels, WindowPlan, whole_or};

/// Output rows of a group.
const ROWS: usize = 8;
/// Columns of a block.
const COLUMNS: usize = 64;
/// Windows that share a pass.
const LANES: usize = 4;
/// Output rows that share a vector.
const VECTOR_ROWS: usize = 4;

/// One column of a group of rows: `[row / 4][row % 4 * 4 + window]`.
type Column = [[f32; VECTOR_ROWS * LANES]; ROWS / VECTOR_ROWS];

const EMPTY: Column = [[0.0; VECTOR_ROWS * LANES]; ROWS / VECTOR_ROWS];

/// Buffers of one thread, reused from slice to slice.
#[derive(Default)]
struct Scratch {
    /// Windowed source rows of a block of columns: `[row, window, column]`.
    block: Vec<f32>,
    /// Output rows before they are resized across.
    band: Vec<Column>,
    /// Output rows, finished.
    done: Vec<Column>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Windows checked slices into `out`, `[n, side, side, channels]`.
pub(crate) fn run(plan: &WindowPlan, slices: &[SliceView<'_>], out: &mut [f32]) {
    let many = slices.len() >= rayon::current_num_threads();
    let group_len = ROWS * plan.side() * plan.channels();
    slices.par_iter().zip(out.par_chunks_exact_mut(plan.values_per_slice())).for_each(|(view, out)| {
        let lines = Line::all(plan, view);
        let rect = whole_or(view);
        let (across, down) = (plan.taps(rect.columns), plan.taps(rect.rows));
        let slice =
            Prepared { view, rect, padding: Padding::of(view, &lines), lines: &lines, across: &across, down: &down };
        let group = |(at, out): (usize, &mut [f32])| {
            SCRATCH.with_borrow_mut(|scratch| {
                for first_window in (0..lines.len()).step_by(LANES) {
                    wide(Group { slice: &slice, first_row: at * ROWS, first_window, scratch, out });
                }
            });
        };
        // A slice alone is shared by all threads; of many, each thread takes whole ones.
        if many {
            out.chunks_mut(group_len).enumerate().for_each(group);
        } else {
            out.par_chunks_mut(group_len).enumerate().for_each(group);
        }
    });
}

/// What the groups of a slice share.
struct Prepared<'a> {
    view: &'a SliceView<'a>,
    rect: Rect,
    padding: Option<Padding>,
    lines: &'a [Line],
    across: &'a Taps,
    down: &'a Taps,
}

impl Prepared<'_> {
    /// Windows `count` neighboring columns of a row of the rectangle, mirrored as asked: `planes` is `[window, column]`.
    #[inline(always)]
    fn window<const P: usize>(&self, row: usize, first: usize, count: usize, lines: &[Line; P], planes: &mut [f32]) {
        let Rect { top, left, rows, columns } = self.rect;
        let flip = self.view.flip;
        let row = top + if flip.vertical { rows - 1 - row } else { row };
        let first = if flip.horizontal { columns - first - count } else { first };
        let from = row * self.view.columns + left + first;
        match self.view.pixels {
            StoredPixels::I16(stored) => window_row(&stored[from..from + count], self.padding, lines, planes),
            StoredPixels::U16(stored) => window_row(&stored[from..from + count], self.padding, lines, planes),
        }
        if flip.horizontal {
            planes.chunks_exact_mut(COLUMNS).for_each(|plane| plane[..count].reverse());
        }
    }
}

#[inline(always)]
fn window_row<T: Copy + Default + Into<f32>, const P: usize>(
    stored: &[T],
    padding: Option<Padding>,
    lines: &[Line; P],
    planes: &mut [f32],
) {
    // All blocks but the last are whole; a known length needs no scalar rest.
    let mut rest = [T::default(); COLUMNS];
    let stored: &[T; COLUMNS] = match stored.first_chunk() {
        Some(whole) => whole,
        None => {
            rest[..stored.len()].copy_from_slice(stored);
            &rest
        }
    };
    match padding {
        None => window_values(stored, |value| value, lines, planes),
        Some(Padding { bounds, instead }) => {
            let [first, last] = bounds.map(|bound| bound as f32);
            let fill = |value| if value >= first && value <= last { instead } else { value };
            window_values(stored, fill, lines, planes);
        }
    }
}

#[inline(always)]
fn window_values<T: Copy + Into<f32>, const P: usize>(
    stored: &[T; COLUMNS],
    fill: impl Fn(f32) -> f32,
    lines: &[Line; P],
    planes: &mut [f32],
) {
    let mut values = [0.0f32; COLUMNS];
    for (value, stored) in values.iter_mut().zip(stored) {
        *value = fill((*stored).into());
    }
    for (line, plane) in lines.iter().zip(planes.as_chunks_mut::<COLUMNS>().0) {
        for (slot, value) in plane.iter_mut().zip(&values) {
            let distance = *value - line.pivot;
            let raised = if distance > line.low { distance } else { line.low };
            *slot = if raised < line.high { raised } else { line.high };
        }
    }
}

/// Up to [`ROWS`] output rows in up to [`LANES`] windows.
struct Group<'a> {
    slice: &'a Prepared<'a>,
    first_row: usize,
    first_window: usize,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl pulp::WithSimd for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        match self.slice.lines.len() - self.first_window {
            1 => self.run::<1>(),
            2 => self.run::<2>(),
            3 => self.run::<3>(),
            _ => self.run::<4>(),
        }
    }
}

impl Group<'_> {
    #[inline(always)]
    fn run<const P: usize>(self) {
        let Group { slice, first_row, first_window, scratch, out } = self;
        let lines: &[Line; P] = slice.lines[first_window..].first_chunk().expect("as many lines as were counted");
        let channels = slice.lines.len();
        let n_rows = out.len() / (slice.across.len() * channels);
        let Scratch { block, band, done } = scratch;
        band.resize(slice.rect.columns.next_multiple_of(COLUMNS), EMPTY);
        done.resize(slice.across.len(), EMPTY);

        let (first, last) = (slice.down.of(first_row), slice.down.of(first_row + n_rows - 1));
        let sources = first.0..last.0 + last.1.len();
        block.resize(sources.len() * P * COLUMNS, 0.0);
        for (at, band) in band.as_chunks_mut::<COLUMNS>().0.iter_mut().enumerate() {
            let count = COLUMNS.min(slice.rect.columns - at * COLUMNS);
            for (row, planes) in sources.clone().zip(block.chunks_exact_mut(P * COLUMNS)) {
                slice.window(row, at * COLUMNS, count, lines, planes);
            }
            for row in 0..n_rows {
                let (start, weights) = slice.down.of(first_row + row);
                blend::<P>(&block[(start - sources.start) * P * COLUMNS..], weights, row, band);
            }
        }
        resize_across(band, slice.across, lines, done);
        for (row, line) in out.chunks_exact_mut(slice.across.len() * channels).enumerate() {
            if P == channels {
                write_alone::<P>(done, row, line);
            } else {
                write_among::<P>(done, row, channels, first_window, line);
            }
        }
    }
}

/// One output row of a block: weighted sums of its source rows, written in the order of [`Column`].
#[inline(always)]
fn blend<const P: usize>(block: &[f32], weights: &[f32], row: usize, band: &mut [Column; COLUMNS]) {
    // The sums of all columns stay in registers while the source rows go by.
    let mut sums = [[0.0f32; COLUMNS]; P];
    for (at, weight) in weights.iter().enumerate() {
        let planes = &block[at * P * COLUMNS..][..P * COLUMNS];
        for (sum, plane) in sums.iter_mut().zip(planes.as_chunks::<COLUMNS>().0) {
            for (sum, value) in sum.iter_mut().zip(plane) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
    }
    let (half, at) = (row / VECTOR_ROWS, row % VECTOR_ROWS * LANES);
    for (four, columns) in band.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let quarter = |window: usize| match sums.get(window) {
            Some(sum) => sum.as_chunks::<4>().0[four],
            None => [0.0; 4],
        };
        let turned = transpose([quarter(0), quarter(1), quarter(2), quarter(3)]);
        for (column, lanes) in columns.iter_mut().zip(turned) {
            column[half][at..at + LANES].copy_from_slice(&lanes);
        }
    }
}

/// Rows become columns.
#[inline(always)]
fn transpose(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        let [a, b, c, d]: [__m128; 4] = rows.map(|row| bytemuck::cast(row));
        // SAFETY: SSE is part of every x86_64 processor.
        let columns = unsafe {
            let (ab_low, ab_high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
            [
                _mm_movelh_ps(ab_low, cd_low),
                _mm_movehl_ps(cd_low, ab_low),
                _mm_movelh_ps(ab_high, cd_high),
                _mm_movehl_ps(cd_high, ab_high),
            ]
        };
        columns.map(|column| bytemuck::cast(column))
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

/// Resizes a band across and finishes it.
#[inline(always)]
fn resize_across(band: &[Column], taps: &Taps, lines: &[Line], done: &mut [Column]) {
    let lane = |of: fn(&Line) -> f32| -> [f32; VECTOR_ROWS * LANES] {
        std::array::from_fn(|lane| lines.get(lane % LANES).map_or(0.0, of))
    };
    let (scale, offset) = (lane(|line| line.scale), lane(|line| line.offset));
    for (x, finished) in done.iter_mut().enumerate() {
        let (start, weights) = taps.of(x);
        let mut sums = EMPTY;
        for (column, weight) in band[start..].iter().zip(weights) {
            for (sum, values) in sums.iter_mut().zip(column) {
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum = weight.mul_add(*value, *sum);
                }
            }
        }
        for (finished, sum) in finished.iter_mut().zip(sums) {
            for (lane, finished) in finished.iter_mut().enumerate() {
                *finished = sum[lane].mul_add(scale[lane], offset[lane]);
            }
        }
    }
}

/// Writes a row whose `P` windows are all there are. Four lanes are stored at once where there is room: the next pixel
/// overwrites what was too much.
#[inline(always)]
fn write_alone<const P: usize>(done: &[Column], row: usize, line: &mut [f32]) {
    let (half, at) = (row / VECTOR_ROWS, row % VECTOR_ROWS * LANES);
    let Some((last, others)) = done.split_last() else { return };
    for (x, column) in others.iter().enumerate() {
        let lanes = &column[half][at..at + LANES];
        match line.get_mut(x * P..x * P + LANES) {
            Some(room) => room.copy_from_slice(lanes),
            None => line[x * P..(x + 1) * P].copy_from_slice(&lanes[..P]),
        }
    }
    let x = others.len();
    line[x * P..(x + 1) * P].copy_from_slice(&last[half][at..at + P]);
}

/// Writes `P` windows of a row from window `first` on among all `channels`.
#[inline(always)]
fn write_among<const P: usize>(done: &[Column], row: usize, channels: usize, first: usize, line: &mut [f32]) {
    let (half, at) = (row / VECTOR_ROWS, row % VECTOR_ROWS * LANES);
    for (column, pixel) in done.iter().zip(line.chunks_exact_mut(channels)) {
        pixel[first..first + P].copy_from_slice(&column[half][at..at + P]);
    }
}
