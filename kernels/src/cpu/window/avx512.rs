//! Windowing in whole numbers with AVX-512 (Intel's servers since 2017, AMD since 2022). Of each source row, pairs of columns are
//! picked for 16 output columns at a time by permutes of two registers, clamped for every window and summed. The last few
//! summed rows stay in the first-level cache and are blended down in f32 to output rows, whose windows are woven together as
//! they are stored.

// Iterators are functions without these instructions, into which nothing that has them is built: loops over numbers keep
// all of it in one piece.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::Arc;

use smallvec::SmallVec;

use super::gather::{Gather, LANES, Pairs, STEP};
use super::whole::Whole;
use super::{Band, Prepared};
use crate::window::{StoredPixels, WindowPlan};

/// A number that is only known at run time.
const ANY: usize = 0;
/// Most windows whose registers fit the processor's.
const WINDOWS_MAX: usize = 4;

/// One register of f32.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Vector([f32; LANES]);

/// Buffers of one thread, reused from slice to slice.
#[derive(Default)]
struct Scratch {
    /// Source rows summed across, as many as an output row needs: `[row, slot, window]`.
    rows: Vec<Vector>,
    /// From sums to output units: `[slot, window]`.
    factors: Vec<Vector>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A slice that this way can take.
pub(super) struct Exact<'a> {
    slice: &'a Prepared<'a>,
    /// Stored values, bit by bit.
    stored: &'a [i16],
    gather: Arc<Gather>,
    whole: Whole,
}

impl<'a> Exact<'a> {
    /// `None` where the numbers or the processor do not allow it.
    pub fn of(plan: &WindowPlan, slice: &'a Prepared<'a>) -> Option<Exact<'a>> {
        let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        if !able || slice.lines.len() > WINDOWS_MAX {
            return None;
        }
        let whole = Whole::of(slice)?;
        let gather = plan.gather(slice.rect.columns, slice.view.flip.horizontal)?;
        let stored = match slice.view.pixels {
            StoredPixels::I16(stored) => stored,
            StoredPixels::U16(stored) => bytemuck::cast_slice(stored),
        };
        Some(Exact { slice, stored, gather, whole })
    }

    /// Windows a band.
    pub fn run(&self, band: Band<'_>) {
        SCRATCH.with_borrow_mut(|scratch| {
            // SAFETY: `of` has seen that the processor has these instructions.
            unsafe {
                match self.slice.lines.len() {
                    1 => self.windows::<1>(band, scratch),
                    2 => self.windows::<2>(band, scratch),
                    3 => self.windows::<3>(band, scratch),
                    _ => self.windows::<WINDOWS_MAX>(band, scratch),
                }
            }
        });
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn windows<const C: usize>(&self, band: Band<'_>, scratch: &mut Scratch) {
        let Scratch { rows, factors } = scratch;
        let down = self.slice.down;
        factors.clear();
        for shares in &self.gather.shares {
            factors.extend(self.whole.windows.iter().map(|window| Vector(shares.map(|share| share * window.scale))));
        }
        let row_len = factors.len();
        // Rows come in pairs, so one more than an output row needs.
        let n_kept = (down.count_max() + 1).next_multiple_of(2);
        rows.resize(n_kept * row_len, Vector::default());

        let mut summed = down.of(band.first_row).0 / 2 * 2;
        for (at, out) in band.out.chunks_exact_mut(down.len() * C).enumerate() {
            let (start, weights) = down.of(band.first_row + at);
            while summed < start + weights.len() {
                // Behind the last row the last one once more, for nothing.
                let sources = [self.source(summed), self.source((summed + 1).min(self.slice.rect.rows - 1))];
                let pair = &mut rows[summed % n_kept * row_len..][..2 * row_len];
                match self.gather.n_steps {
                    1 => self.across::<C, 1>(sources, pair),
                    2 => self.across::<C, 2>(sources, pair),
                    3 => self.across::<C, 3>(sources, pair),
                    _ => self.across::<C, ANY>(sources, pair),
                }
                summed += 2;
            }
            let blend = Blend { ring: rows, row_len, start, weights, factors };
            match weights.len() {
                1 => self.down::<C, 1>(&blend, out),
                2 => self.down::<C, 2>(&blend, out),
                3 => self.down::<C, 3>(&blend, out),
                4 => self.down::<C, 4>(&blend, out),
                5 => self.down::<C, 5>(&blend, out),
                _ => self.down_any::<C>(&blend, out),
            }
        }
    }

    /// Stored values of a row of the rectangle.
    fn source(&self, row: usize) -> &[i16] {
        &self.stored[self.slice.begin(row)..][..self.slice.rect.columns]
    }

    /// Windows two source rows and sums them across in `STEPS` steps.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn across<const C: usize, const STEPS: usize>(&self, sources: [&[i16]; 2], pair: &mut [Vector]) {
        let n_steps = if STEPS == ANY { self.gather.n_steps } else { STEPS };
        let (even, odd) = pair.split_at_mut(pair.len() / 2);
        let (even, odd) = (even.as_chunks_mut::<C>().0, odd.as_chunks_mut::<C>().0);
        let mut bounds = [[_mm512_setzero_si512(); 2]; C];
        for (bounds, window) in bounds.iter_mut().zip(&self.whole.windows) {
            let [low, high] = window.bounds;
            *bounds = [_mm512_set1_epi16(low), _mm512_set1_epi16(high)];
        }
        let groups = &self.gather.groups;
        let Some(first) = groups.first() else { return };
        let mut next = self.load_all(sources, first.start);
        for ((at, group), taps) in groups.iter().enumerate().zip(self.gather.taps.chunks_exact(n_steps)) {
            // Loaded one group ahead: the processor looks ahead too little to hide the way from memory to the sums.
            let loaded = next;
            next = self.load_all(sources, groups.get(at + 1).unwrap_or(group).start);
            let mut sums = [[_mm512_setzero_si512(); C]; 2];
            for (step, tap) in taps[..n_steps].iter().enumerate() {
                let (picks, weights) = (pairs(&tap.picks), pairs(&tap.weights));
                for row in 0..2 {
                    let picked = _mm512_permutex2var_epi16(loaded[row][0], picks, loaded[row][1]);
                    for window in 0..C {
                        let [low, high] = bounds[window];
                        let windowed = _mm512_min_epi16(_mm512_max_epi16(picked, low), high);
                        let product = _mm512_madd_epi16(windowed, weights);
                        let sum = &mut sums[row][window];
                        *sum = if step == 0 { product } else { _mm512_add_epi32(*sum, product) };
                    }
                }
            }
            let (even, odd) = (&mut even[group.slot], &mut odd[group.slot]);
            for window in 0..C {
                even[window].store(_mm512_cvtepi32_ps(sums[0][window]));
                odd[window].store(_mm512_cvtepi32_ps(sums[1][window]));
            }
        }
    }

    /// Two registers of both rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load_all(&self, [even, odd]: [&[i16]; 2], from: usize) -> [[__m512i; 2]; 2] {
        [[self.load(even, from), self.load(even, from + STEP)], [self.load(odd, from), self.load(odd, from + STEP)]]
    }

    /// The values of a register of source columns, before the windows clamp them. Columns behind the last are made up.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(&self, source: &[i16], from: usize) -> __m512i {
        let whole = &self.whole;
        let stored = match source.get(from..).and_then(|rest| rest.first_chunk::<STEP>()) {
            // SAFETY: the array is 64 bytes long.
            Some(columns) => unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) },
            None => {
                let n_left = source.len().saturating_sub(from);
                // SAFETY: only the columns that are left are read.
                unsafe { _mm512_maskz_loadu_epi16((1 << n_left) - 1, source.as_ptr().wrapping_add(from)) }
            }
        };
        let ordered = _mm512_xor_si512(stored, _mm512_set1_epi16(whole.sign));
        let mut values = _mm512_subs_epi16(ordered, _mm512_set1_epi16(whole.pivot));
        if whole.places > 0 {
            let [least, most] = whole.limits.map(|limit| _mm512_set1_epi16(limit));
            let limited = _mm512_min_epi16(_mm512_max_epi16(values, least), most);
            values = _mm512_sll_epi16(limited, _mm_cvtsi32_si128(whole.places as i32));
        }
        if let Some([first, last]) = whole.padding {
            let is_padding = _mm512_cmpge_epi16_mask(ordered, _mm512_set1_epi16(first))
                & _mm512_cmple_epi16_mask(ordered, _mm512_set1_epi16(last));
            values = _mm512_mask_mov_epi16(values, is_padding, _mm512_set1_epi16(whole.instead));
        }
        values
    }

    /// Blends `ROWS` summed rows down to an output row.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn down<const C: usize, const ROWS: usize>(&self, blend: &Blend<'_>, out: &mut [f32]) {
        let mut rows: [&[[Vector; C]]; ROWS] = [&[]; ROWS];
        let mut weights = [_mm512_setzero_ps(); ROWS];
        for k in 0..ROWS {
            rows[k] = blend.row(k);
            weights[k] = _mm512_set1_ps(blend.weights[k]);
        }
        let finish = self.finish::<C>(blend);
        for (slot, first) in self.gather.firsts.iter().enumerate() {
            let mut sums = [_mm512_setzero_ps(); C];
            for k in 0..ROWS {
                let values = &rows[k][slot];
                for window in 0..C {
                    sums[window] = _mm512_fmadd_ps(weights[k], values[window].load(), sums[window]);
                }
            }
            finish.store(slot, &sums, &mut out[first * C..]);
        }
    }

    /// As `down`, for any number of rows.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn down_any<const C: usize>(&self, blend: &Blend<'_>, out: &mut [f32]) {
        let rows: SmallVec<[&[[Vector; C]]; 16]> = (0..blend.weights.len()).map(|k| blend.row(k)).collect();
        let finish = self.finish::<C>(blend);
        for (slot, first) in self.gather.firsts.iter().enumerate() {
            let mut sums = [_mm512_setzero_ps(); C];
            for (row, weight) in rows.iter().zip(blend.weights) {
                let values = &row[slot];
                for window in 0..C {
                    sums[window] = _mm512_fmadd_ps(_mm512_set1_ps(*weight), values[window].load(), sums[window]);
                }
            }
            finish.store(slot, &sums, &mut out[first * C..]);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn finish<'b, const C: usize>(&self, blend: &Blend<'b>) -> Finish<'b, C> {
        let mut offsets = [_mm512_setzero_ps(); C];
        for (offset, window) in offsets.iter_mut().zip(&self.whole.windows) {
            *offset = _mm512_set1_ps(window.offset);
        }
        Finish { factors: blend.factors.as_chunks().0, offsets }
    }
}

/// What an output row is made of.
struct Blend<'a> {
    /// The last summed rows, `row_len` each; a row's place is its number modulo theirs.
    ring: &'a [Vector],
    row_len: usize,
    start: usize,
    weights: &'a [f32],
    factors: &'a [Vector],
}

impl<'a> Blend<'a> {
    /// The `k`-th row, `[slot]`.
    fn row<const C: usize>(&self, k: usize) -> &'a [[Vector; C]] {
        let n_kept = self.ring.len() / self.row_len;
        self.ring[(self.start + k) % n_kept * self.row_len..][..self.row_len].as_chunks().0
    }
}

/// From sums to pixels.
struct Finish<'a, const C: usize> {
    factors: &'a [[Vector; C]],
    offsets: [__m512; C],
}

impl<const C: usize> Finish<'_, C> {
    /// Lanes without a column are stored where the next slot writes, or not at all behind the row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn store(&self, slot: usize, sums: &[__m512; C], out: &mut [f32]) {
        let mut finished = *sums;
        for window in 0..C {
            finished[window] = _mm512_fmadd_ps(sums[window], self.factors[slot][window].load(), self.offsets[window]);
        }
        weave(&finished, out);
    }
}

impl Vector {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(&self) -> __m512 {
        // SAFETY: a vector is 64 bytes long and as aligned.
        unsafe { _mm512_load_ps(self.0.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn store(&mut self, values: __m512) {
        // SAFETY: as in `load`.
        unsafe { _mm512_store_ps(self.0.as_mut_ptr(), values) }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs(pairs: &Pairs<i16>) -> __m512i {
    // SAFETY: 16 pairs of 16 bits are 64 bytes, and they are as aligned.
    unsafe { _mm512_load_si512(pairs.0.as_ptr().cast()) }
}

/// Writes 16 pixels of `C` channels, or as many as there is room for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn weave<const C: usize>(windows: &[__m512; C], out: &mut [f32]) {
    let mut woven = [windows[0]; C];
    for at in 0..C {
        for window in 1..C {
            // SAFETY: 16 numbers of 32 bits are 64 bytes.
            let lanes = unsafe { _mm512_loadu_si512(Weave::<C>::LANES[at][window].as_ptr().cast()) };
            woven[at] = _mm512_permutex2var_ps(woven[at], lanes, windows[window]);
        }
    }
    for at in 0..C {
        let vector = woven[at];
        let room = out.len().saturating_sub(at * LANES);
        match out.get_mut(at * LANES..).and_then(|out| out.first_chunk_mut::<LANES>()) {
            // SAFETY: the array is 64 bytes long.
            Some(out) => unsafe { _mm512_storeu_ps(out.as_mut_ptr(), vector) },
            // SAFETY: only the lanes that there is room for are written.
            None => unsafe {
                _mm512_mask_storeu_ps(out.as_mut_ptr().wrapping_add(at * LANES), ((1u32 << room) - 1) as u16, vector);
            },
        }
    }
}

/// How `C` vectors of one window each become pixels.
struct Weave<const C: usize>;

impl<const C: usize> Weave<C> {
    /// For each vector of pixels and each window that joins it, where each lane comes from: below 16 what was there, from 16 on the window.
    const LANES: [[[i32; LANES]; C]; C] = {
        let mut lanes = [[[0; LANES]; C]; C];
        let mut at = 0;
        while at < C * C * LANES {
            let (vector, window, lane) = (at / (C * LANES), at / LANES % C, at % LANES);
            let (pixel, channel) = ((vector * LANES + lane) / C, (vector * LANES + lane) % C);
            let kept = if window == 1 { pixel } else { lane };
            lanes[vector][window][lane] = (if channel == window { LANES + pixel } else { kept }) as i32;
            at += 1;
        }
        lanes
    };
}
