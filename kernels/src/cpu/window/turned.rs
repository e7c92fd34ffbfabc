//! Windowing in f32, sixteen output rows at a time. The source rows that they need are windowed in blocks of columns that
//! stay in the first-level cache and blended down to the sixteen rows. These are turned, so that a vector holds one column
//! of all rows, resized across, and turned back into the output's order.

use std::cell::RefCell;

use pulp::Simd;

use super::{Band, Prepared};
use crate::cpu::wide;
use crate::resize::Taps;
use crate::window::{Line, Padding, StoredPixels};

/// Output rows of a group.
const ROWS: usize = 16;
/// Columns of a block.
const COLUMNS: usize = 32;
/// Side of the squares that are turned.
const SQUARE: usize = 8;

/// One value of every row of a group.
type Column = [f32; ROWS];

/// Buffers of one thread, reused from slice to slice.
#[derive(Default)]
struct Scratch {
    /// Windowed source rows of a block of columns: `[row, window, column]`.
    block: Vec<[f32; COLUMNS]>,
    /// Blended rows of a block: `[window, row, column]`.
    blended: Vec<[[f32; COLUMNS]; ROWS]>,
    /// Blended rows, turned: `[window, column]`.
    band: Vec<Column>,
    /// Output rows, turned: `[column, window]`.
    done: Vec<Column>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Windows a band.
pub(super) fn run(slice: &Prepared<'_>, across: &Taps, band: Band<'_>) {
    let group_len = ROWS * across.len() * slice.lines.len();
    SCRATCH.with_borrow_mut(|scratch| {
        for (at, out) in band.out.chunks_mut(group_len).enumerate() {
            wide(Group { slice, across, first_row: band.first_row + at * ROWS, scratch, out });
        }
    });
}

impl Prepared<'_> {
    /// Windows `count` neighboring columns of a row of the rectangle, mirrored as asked, into one plane a window.
    #[inline(always)]
    fn window(&self, row: usize, first: usize, count: usize, planes: &mut [[f32; COLUMNS]]) {
        let mirrored = self.view.flip.horizontal;
        let first = if mirrored { self.rect.columns - first - count } else { first };
        let from = self.begin(row) + first;
        let mut values = match self.view.pixels {
            StoredPixels::I16(stored) => convert(&stored[from..from + count]),
            StoredPixels::U16(stored) => convert(&stored[from..from + count]),
        };
        if let Some(Padding { bounds, instead }) = self.padding {
            let [first, last] = bounds.map(|bound| bound as f32);
            for value in &mut values {
                *value = if *value >= first && *value <= last { instead } else { *value };
            }
        }
        if mirrored {
            values[..count].reverse();
        }
        for (line, plane) in self.lines.iter().zip(planes) {
            for (slot, value) in plane.iter_mut().zip(&values) {
                let distance = *value - line.pivot;
                let raised = if distance > line.low { distance } else { line.low };
                *slot = if raised < line.high { raised } else { line.high };
            }
        }
    }
}

#[inline(always)]
fn convert<T: Copy + Default + Into<f32>>(stored: &[T]) -> [f32; COLUMNS] {
    // All blocks but the last are whole; a known length needs no scalar rest.
    let mut rest = [T::default(); COLUMNS];
    let stored: &[T; COLUMNS] = match stored.first_chunk() {
        Some(whole) => whole,
        None => {
            rest[..stored.len()].copy_from_slice(stored);
            &rest
        }
    };
    let mut values = [0.0; COLUMNS];
    for (value, stored) in values.iter_mut().zip(stored) {
        *value = (*stored).into();
    }
    values
}

/// Up to [`ROWS`] output rows.
struct Group<'a> {
    slice: &'a Prepared<'a>,
    across: &'a Taps,
    first_row: usize,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl pulp::WithSimd for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Group { slice, across, first_row, scratch, out } = self;
        let channels = slice.lines.len();
        let row_len = across.len() * channels;
        let n_rows = out.len() / row_len;
        let width = slice.rect.columns.next_multiple_of(COLUMNS);
        let Scratch { block, blended, band, done } = scratch;
        blended.resize(channels, [[0.0; COLUMNS]; ROWS]);
        band.resize(channels * width, [0.0; ROWS]);
        done.resize(row_len.next_multiple_of(SQUARE), [0.0; ROWS]);

        let (first, last) = (slice.down.of(first_row), slice.down.of(first_row + n_rows - 1));
        let sources = first.0..last.0 + last.1.len();
        block.resize(sources.len() * channels, [0.0; COLUMNS]);
        for at in (0..width).step_by(COLUMNS) {
            let count = COLUMNS.min(slice.rect.columns - at);
            for (row, planes) in sources.clone().zip(block.chunks_exact_mut(channels)) {
                slice.window(row, at, count, planes);
            }
            for row in 0..n_rows {
                let (start, weights) = slice.down.of(first_row + row);
                blend(&block[(start - sources.start) * channels..], weights, row, blended);
            }
            for (rows, band) in blended.iter().zip(band.chunks_exact_mut(width)) {
                for from in (0..COLUMNS).step_by(SQUARE) {
                    for row in (0..ROWS).step_by(SQUARE) {
                        let square = std::array::from_fn(|k| *part(&rows[row + k], from));
                        for (column, turned) in band[at + from..].iter_mut().zip(turn::<S>(square)) {
                            column[row..row + SQUARE].copy_from_slice(&turned);
                        }
                    }
                }
            }
        }
        for (window, line) in slice.lines.iter().enumerate() {
            resize_across(&band[window * width..][..width], across, line, &mut done[window..], channels);
        }
        for (from, columns) in done.chunks_exact(SQUARE).enumerate() {
            let from = from * SQUARE;
            for first in (0..n_rows).step_by(SQUARE) {
                let turned = turn::<S>(std::array::from_fn(|k| *part(&columns[k], first)));
                for (row, values) in (first..n_rows).zip(turned) {
                    let line = &mut out[row * row_len + from..(row + 1) * row_len];
                    match line.first_chunk_mut::<SQUARE>() {
                        Some(room) => *room = values,
                        None => line.copy_from_slice(&values[..line.len()]),
                    }
                }
            }
        }
    }
}

/// [`SQUARE`] neighboring values.
#[inline(always)]
fn part(values: &[f32], from: usize) -> &[f32; SQUARE] {
    values[from..].first_chunk().expect("squares divide rows and blocks")
}

/// One output row of a block: weighted sums of its source rows.
#[inline(always)]
fn blend(block: &[[f32; COLUMNS]], weights: &[f32], row: usize, blended: &mut [[[f32; COLUMNS]; ROWS]]) {
    let channels = blended.len();
    for (window, rows) in blended.iter_mut().enumerate() {
        let mut sums = [0.0f32; COLUMNS];
        for (planes, weight) in block.chunks_exact(channels).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(&planes[window]) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
        rows[row] = sums;
    }
}

/// Resizes one window's band across and finishes it into every `step`-th column.
#[inline(always)]
fn resize_across(band: &[Column], taps: &Taps, line: &Line, done: &mut [Column], step: usize) {
    for (x, finished) in done.iter_mut().step_by(step).take(taps.len()).enumerate() {
        let (start, weights) = taps.of(x);
        let mut sums = [0.0f32; ROWS];
        for (column, weight) in band[start..].iter().zip(weights) {
            for (sum, value) in sums.iter_mut().zip(column) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
        for (finished, sum) in finished.iter_mut().zip(sums) {
            *finished = sum.mul_add(line.scale, line.offset);
        }
    }
}

/// Rows become columns.
#[inline(always)]
fn turn<S: Simd>(rows: [[f32; SQUARE]; SQUARE]) -> [[f32; SQUARE]; SQUARE] {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES >= SQUARE {
        // SAFETY: on x86_64, pulp offers eight lanes only where the processor has AVX2, which includes AVX.
        return unsafe { turn_avx(rows) };
    }
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
fn turn_avx(rows: [[f32; SQUARE]; SQUARE]) -> [[f32; SQUARE]; SQUARE] {
    use std::arch::x86_64::{
        __m256, _mm256_permute2f128_ps as halves, _mm256_shuffle_ps as shuffle, _mm256_unpackhi_ps as high,
        _mm256_unpacklo_ps as low,
    };
    let r: [__m256; SQUARE] = rows.map(bytemuck::cast);
    // Pairs, then fours within each half, then the halves.
    let p = [
        low(r[0], r[1]),
        high(r[0], r[1]),
        low(r[2], r[3]),
        high(r[2], r[3]),
        low(r[4], r[5]),
        high(r[4], r[5]),
        low(r[6], r[7]),
        high(r[6], r[7]),
    ];
    let f = [
        shuffle::<0x44>(p[0], p[2]),
        shuffle::<0xee>(p[0], p[2]),
        shuffle::<0x44>(p[1], p[3]),
        shuffle::<0xee>(p[1], p[3]),
        shuffle::<0x44>(p[4], p[6]),
        shuffle::<0xee>(p[4], p[6]),
        shuffle::<0x44>(p[5], p[7]),
        shuffle::<0xee>(p[5], p[7]),
    ];
    [
        halves::<0x20>(f[0], f[4]),
        halves::<0x20>(f[1], f[5]),
        halves::<0x20>(f[2], f[6]),
        halves::<0x20>(f[3], f[7]),
        halves::<0x31>(f[0], f[4]),
        halves::<0x31>(f[1], f[5]),
        halves::<0x31>(f[2], f[6]),
        halves::<0x31>(f[3], f[7]),
    ]
    .map(bytemuck::cast)
}
