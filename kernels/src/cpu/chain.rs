//! A depthwise convolution with the one-tap convolutions around it, a few rows at a time.
//!
//! Between the two, images are several times as wide as before and behind. Computed layer by layer they go to memory and
//! back; here the rows that a few output rows need are widened, filtered and narrowed while they are in the second-level
//! cache. Every sum is the one that the layers by themselves compute, in the same order.

use std::ops::Range;

use super::depthwise::Strip;
use super::direct::Target;
use super::pointwise::Pointwise;
use super::pool::{Buffer, with_scratch};
use super::threads::each;
use super::{Real, alone};
use crate::geometry::Span;

/// What is computed, in this order.
pub(crate) struct Chain<'a, T> {
    /// Images, height, width, channels.
    pub dims: [usize; 4],
    pub input: &'a [T],
    pub expand: Option<Pointwise<'a, T>>,
    /// Rows that each output row reads.
    pub rows: Vec<Span>,
    pub filter: Strip<'a, T>,
    pub project: Option<Pointwise<'a, T>>,
    /// As large as the output; with `project` only.
    pub addend: Option<&'a [T]>,
}

/// Bytes of rows at work, so that they, what they are made of and some weights stay in the second-level cache.
const BYTES: usize = 384 * 1024;

/// Rows of a part that make up for the ones at its edges, which its neighbors compute too: where every thread has one part
/// only, and where it has more.
const FEWEST: [usize; 2] = [7, 14];

/// The first of them where nothing is narrowed: with a layer less to wait for, less is saved.
const FEWEST_WIDE: usize = 14;

impl<T: Real> Chain<'_, T> {
    /// Parts that each image is cut into.
    fn strips(&self) -> usize {
        let threads = if alone() { 1 } else { rayon::current_num_threads() };
        match self.rows.len() {
            _ if threads == 1 => 1,
            rows if rows >= 2 * threads * FEWEST[1] => 2 * threads,
            rows if rows >= threads * if self.project.is_some() { FEWEST[0] } else { FEWEST_WIDE } => threads,
            _ => 1,
        }
    }

    /// Whether there is a part for each thread.
    pub fn keeps_all_busy(&self) -> bool {
        alone() || self.dims[0] * self.strips() >= rayon::current_num_threads()
    }

    fn outputs(&self) -> usize {
        self.project.as_ref().map_or(self.filter.channels(), Pointwise::outputs)
    }

    /// `[n, ho, wo, outputs]`.
    pub fn run(&self) -> Buffer<T> {
        let [n, height, width, channels] = self.dims;
        let (down, strips) = (self.rows.len(), self.strips());
        assert_eq!(self.input.len(), n * height * width * channels, "input of a chain");
        assert!(self.expand.as_ref().is_none_or(|dense| dense.inputs() == channels), "channels of a chain");
        assert!(
            self.project.as_ref().is_none_or(|dense| dense.inputs() == self.filter.channels()),
            "channels of a chain"
        );
        let row = self.filter.columns() * self.outputs();
        let mut out = Buffer::<T>::new(n * down * row);
        assert!(
            self.addend.is_none_or(|addend| addend.len() == out.len() && self.project.is_some()),
            "addend of a chain"
        );
        let target = Target(out.as_mut_ptr());
        let work = |at: usize| {
            let (image, strip, target) = (at / strips, at % strips, &target);
            let rows = strip * down / strips..(strip + 1) * down / strips;
            // SAFETY: rows of the result that no other part has.
            unsafe { self.part(image, rows, target.0.add(image * down * row)) };
        };
        each(n * strips, work);
        out
    }

    /// Source rows that some output rows read.
    fn reach(&self, rows: Range<usize>) -> Range<usize> {
        let read = || self.rows[rows.clone()].iter().filter(|span| span.count > 0);
        let from = read().map(|span| span.from).min().unwrap_or(0);
        from..read().map(|span| span.from + span.count).max().unwrap_or(from)
    }

    /// Output rows that are computed together, and the most source rows that they read.
    fn block(&self, rows: &Range<usize>) -> [usize; 2] {
        let (width, wide) = (self.dims[2], self.filter.channels());
        let most = |block: usize| {
            let starts = rows.clone().step_by(block);
            starts.map(|first| self.reach(first..(first + block).min(rows.end)).len()).max().unwrap_or(0)
        };
        let bytes = |block: usize| {
            let read = if self.expand.is_some() { most(block) * width } else { 0 };
            let filtered = if self.project.is_some() { block * self.filter.columns() } else { 0 };
            (read + filtered) * wide * size_of::<T>()
        };
        let block = (2..=rows.len()).take_while(|block| bytes(*block) <= BYTES).last().unwrap_or(1);
        // Blocks of about the same size.
        let block = rows.len().div_ceil(rows.len().div_ceil(block).max(1)).max(1);
        [block, most(block)]
    }

    /// Some output rows of an image.
    ///
    /// # Safety
    /// `out` is the image's result, of whose rows `rows` nobody else has a reference.
    unsafe fn part(&self, image: usize, rows: Range<usize>, out: *mut T) {
        let [_, height, width, channels] = self.dims;
        let input = &self.input[image * height * width * channels..][..height * width * channels];
        let [block, most] = self.block(&rows);
        let wide = self.filter.channels();
        let (line, row) = (width * wide, self.filter.columns() * self.outputs());
        let widened = if self.expand.is_some() { most * line } else { 0 };
        let pitch = self.project.as_ref().map_or(wide, |_| Pointwise::<T>::pitch(wide));
        let filtered = if self.project.is_some() { block * self.filter.columns() * pitch } else { 0 };
        let base = image * self.rows.len() * row;
        with_scratch(widened + filtered, |scratch| {
            let (widened, filtered) = scratch.split_at_mut(widened);
            let mut have = 0..0;
            for first in rows.clone().step_by(block) {
                let last = (first + block).min(rows.end);
                let reach = self.reach(first..last);
                let source = match &self.expand {
                    None => &input[reach.start * width * channels..reach.end * width * channels],
                    Some(expand) => {
                        // Rows that the block before read too.
                        let kept =
                            reach.start.max(have.start)..reach.end.min(have.end).max(reach.start.max(have.start));
                        if !kept.is_empty() {
                            widened.copy_within((kept.start - have.start) * line..(kept.end - have.start) * line, 0);
                        }
                        let new = if kept.is_empty() { reach.clone() } else { kept.end..reach.end };
                        let values = &input[new.start * width * channels..new.end * width * channels];
                        let to = &mut widened[(new.start - reach.start) * line..(new.end - reach.start) * line];
                        // SAFETY: as many rows as are read.
                        unsafe { expand.run(values, channels, to.as_mut_ptr(), None) };
                        have = reach.clone();
                        &widened[..reach.len() * line]
                    }
                };
                let spans: Vec<Span> = self.rows[first..last]
                    .iter()
                    .map(|span| Span { from: span.from.saturating_sub(reach.start), ..*span })
                    .collect();
                // SAFETY: rows of this part, and pixels of `filtered`, which has room for a block.
                unsafe {
                    let to = out.add(first * row);
                    let Some(project) = &self.project else {
                        self.filter.run(&spans, source, to, pitch);
                        continue;
                    };
                    self.filter.run(&spans, source, filtered.as_mut_ptr(), pitch);
                    let pixels = (last - first) * self.filter.columns();
                    let addend = self.addend.map(|addend| &addend[base + first * row..base + last * row]);
                    project.run(&filtered[..pixels * pitch], pitch, to, addend);
                }
            }
        });
    }
}
