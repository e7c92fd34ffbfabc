//! Windowing and resizing of a batch of slices. Knows nothing of where they come from.
//!
//! For each pixel and window: HU = slope * stored + intercept, then the window's ramp clamped to 0..1. The windowed image
//! is resized with antialiased bilinear weights ([`Taps`]), then normalized. The two passes run row by row: every source
//! row is windowed and resized horizontally once, and added to the output rows that it counts for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::resize::Taps;

/// A gray-level window in HU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Center (0028,1050).
    pub level: f32,
    /// Width (0028,1051).
    pub width: f32,
}

/// How HU become 0..1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ramp {
    /// From level - width/2 to level + width/2 (PS3.3 C.11.2.1.3.2).
    LinearExact,
    /// (HU - (level - 0.5)) / (width - 1) + 0.5 (PS3.3 C.11.2.1.2).
    Linear,
}

impl Ramp {
    /// Factor and offset with 0..1 = factor * HU + offset, before clamping.
    fn line(self, window: Window) -> (f64, f64) {
        let (level, width) = (f64::from(window.level), f64::from(window.width));
        match self {
            Ramp::LinearExact => (1.0 / width, 0.5 - level / width),
            Ramp::Linear => (1.0 / (width - 1.0), 0.5 - (level - 0.5) / (width - 1.0)),
        }
    }
}

/// The window's answer to one HU value, 0..1.
pub fn window_hu(hu: f32, window: Window, ramp: Ramp) -> f32 {
    let (factor, offset) = ramp.line(window);
    (factor * f64::from(hu) + offset).clamp(0.0, 1.0) as f32
}

/// Stored values, row by row.
#[derive(Clone, Copy, Debug)]
pub enum StoredPixels<'a> {
    /// PixelRepresentation 1.
    I16(&'a [i16]),
    /// PixelRepresentation 0.
    U16(&'a [u16]),
}

impl StoredPixels<'_> {
    fn len(&self) -> usize {
        match self {
            StoredPixels::I16(values) => values.len(),
            StoredPixels::U16(values) => values.len(),
        }
    }
}

/// A part of a slice, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

/// Mirrors, applied to the part that was cut out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flip {
    /// Left becomes right.
    pub horizontal: bool,
    /// Top becomes bottom.
    pub vertical: bool,
}

/// One slice as the kernel takes it.
#[derive(Clone, Debug)]
pub struct SliceView<'a> {
    /// `rows * columns` stored values.
    pub pixels: StoredPixels<'a>,
    /// Height.
    pub rows: usize,
    /// Width.
    pub columns: usize,
    /// Rescale slope.
    pub slope: f64,
    /// Rescale intercept.
    pub intercept: f64,
    /// Bits stored, 1 to 16; only inversion of unsigned values uses it.
    pub bits_stored: u16,
    /// MONOCHROME1: values are mirrored within the stored bits.
    pub inverted: bool,
    /// Stored values without data; they give 0 in every window, as air does.
    pub padding: Option<RangeInclusive<i32>>,
    /// The part to use; the whole slice if `None`.
    pub rect: Option<Rect>,
    /// Mirrors.
    pub flip: Flip,
}

impl Default for SliceView<'_> {
    fn default() -> Self {
        SliceView {
            pixels: StoredPixels::I16(&[]),
            rows: 0,
            columns: 0,
            slope: 1.0,
            intercept: 0.0,
            bits_stored: 16,
            inverted: false,
            padding: None,
            rect: None,
            flip: Flip::default(),
        }
    }
}

/// A call that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum KernelError {
    /// A plan with impossible numbers.
    #[error("{0}")]
    Plan(String),
    /// A slice with impossible numbers.
    #[error("slice {slice}: {reason}")]
    Slice {
        /// Position in the batch.
        slice: usize,
        /// What is wrong.
        reason: String,
    },
    /// The output has another size than the batch asks for.
    #[error("the output holds {found} values, the batch needs {needed}")]
    Output {
        /// Values in the buffer.
        found: usize,
        /// Values of the batch.
        needed: usize,
    },
}

/// What all slices of a launch share. Filter taps are computed once for each source size and kept.
#[derive(Debug)]
pub struct WindowPlan {
    /// 0..1 = factor * HU + offset.
    lines: Vec<(f64, f64)>,
    /// Output = value * gain + bias, from mean and deviation.
    norms: Vec<(f32, f32)>,
    side: usize,
    taps: Mutex<HashMap<usize, Arc<Taps>>>,
}

impl WindowPlan {
    /// `windows`, `mean` and `std` have one item per channel.
    ///
    /// # Errors
    /// No window, a width or deviation that is not above 0 (above 1 for [`Ramp::Linear`]), a side of 0, numbers that are not finite.
    pub fn new(
        windows: &[Window],
        ramp: Ramp,
        side: usize,
        mean: &[f32],
        std: &[f32],
    ) -> Result<WindowPlan, KernelError> {
        let fail = |reason: &str| Err(KernelError::Plan(reason.to_owned()));
        if windows.is_empty() || windows.len() != mean.len() || windows.len() != std.len() {
            return fail("windows, mean and std must have the same number of items, at least one");
        }
        if side == 0 {
            return fail("the output side must be above 0");
        }
        let least = if ramp == Ramp::Linear { 1.0 } else { 0.0 };
        if !windows.iter().all(|w| w.level.is_finite() && w.width.is_finite() && w.width > least) {
            return fail("levels must be finite and widths above 0 (above 1 for the linear ramp)");
        }
        if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return fail("means must be finite and deviations above 0");
        }
        let norm =
            |(mean, std): (&f32, &f32)| ((1.0 / f64::from(*std)) as f32, (-f64::from(*mean) / f64::from(*std)) as f32);
        Ok(WindowPlan {
            lines: windows.iter().map(|window| ramp.line(*window)).collect(),
            norms: mean.iter().zip(std).map(norm).collect(),
            side,
            taps: Mutex::new(HashMap::new()),
        })
    }

    /// Side of the square output in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Number of windows.
    pub fn channels(&self) -> usize {
        self.lines.len()
    }

    /// Values of one slice's output.
    pub fn values_per_slice(&self) -> usize {
        self.side * self.side * self.channels()
    }

    fn taps(&self, source: usize) -> Arc<Taps> {
        let mut kept = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        // Odd crops of a trainer must not fill the memory.
        if kept.len() > 4096 {
            kept.clear();
        }
        Arc::clone(kept.entry(source).or_insert_with(|| Arc::new(Taps::new(source, self.side))))
    }
}

/// Buffers of one thread, reused from slice to slice.
#[derive(Default)]
struct Scratch {
    /// One windowed source row, channels-last.
    row: Vec<f32>,
    /// Horizontally resized source rows that some output row still needs, as a ring.
    ring: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Windows, resizes and normalizes a batch into `out`, `[n, side, side, channels]` in row-major order.
/// Slices are spread over rayon's threads.
///
/// # Errors
/// Numbers that make no sense, before anything is written.
pub fn ct_window(plan: &WindowPlan, slices: &[SliceView<'_>], out: &mut [f32]) -> Result<(), KernelError> {
    let needed = slices.len() * plan.values_per_slice();
    if out.len() != needed {
        return Err(KernelError::Output { found: out.len(), needed });
    }
    for (slice, view) in slices.iter().enumerate() {
        check(view).map_err(|reason| KernelError::Slice { slice, reason: reason.to_owned() })?;
    }
    slices.par_iter().zip(out.par_chunks_exact_mut(plan.values_per_slice())).for_each(|(view, out)| {
        SCRATCH.with_borrow_mut(|scratch| window_slice(plan, view, scratch, out));
    });
    Ok(())
}

/// As [`ct_window`], into a new vector.
///
/// # Errors
/// As [`ct_window`].
pub fn ct_window_vec(plan: &WindowPlan, slices: &[SliceView<'_>]) -> Result<Vec<f32>, KernelError> {
    let mut out = vec![0.0; slices.len() * plan.values_per_slice()];
    ct_window(plan, slices, &mut out)?;
    Ok(out)
}

fn check(view: &SliceView<'_>) -> Result<(), &'static str> {
    let n_pixels = view.rows.checked_mul(view.columns).ok_or("more pixels than can be counted")?;
    if n_pixels == 0 || view.pixels.len() != n_pixels {
        return Err("the number of pixels is not rows * columns, or is 0");
    }
    if !(view.slope.is_finite() && view.intercept.is_finite()) {
        return Err("slope and intercept must be finite");
    }
    if !(1..=16).contains(&view.bits_stored) {
        return Err("bits stored must be 1 to 16");
    }
    let rect = whole_or(view);
    let inside = |from: usize, len: usize, all: usize| len > 0 && from.checked_add(len).is_some_and(|end| end <= all);
    if inside(rect.top, rect.rows, view.rows) && inside(rect.left, rect.columns, view.columns) {
        Ok(())
    } else {
        Err("the rectangle is empty or not inside the slice")
    }
}

fn whole_or(view: &SliceView<'_>) -> Rect {
    view.rect.unwrap_or(Rect { top: 0, left: 0, rows: view.rows, columns: view.columns })
}

/// From a stored value to each window's 0..1 before clamping.
struct Transfer {
    /// Per channel: gain * (stored - pivot) + shift. The pivot is the whole number in the middle of the window, so that
    /// the difference is exact in f32 and small where the window is; a plain line would lose the last digits.
    lines: Vec<Line>,
    padding: Option<RangeInclusive<i32>>,
}

#[derive(Clone, Copy)]
struct Line {
    gain: f32,
    pivot: f32,
    shift: f32,
}

impl Transfer {
    fn new(plan: &WindowPlan, view: &SliceView<'_>) -> Transfer {
        // Inversion is stored -> top - stored; it joins the rescale in one line, computed in f64.
        let (sign, top) = match (view.inverted, view.pixels) {
            (false, _) => (1.0, 0.0),
            (true, StoredPixels::I16(_)) => (-1.0, -1.0),
            (true, StoredPixels::U16(_)) => (-1.0, f64::from((1u32 << view.bits_stored) - 1)),
        };
        let line = |(factor, offset): &(f64, f64)| {
            let gain = factor * view.slope * sign;
            let shift = factor * (view.slope * top + view.intercept) + offset;
            let pivot = if gain == 0.0 { 0.0 } else { ((0.5 - shift) / gain).round().clamp(-65_536.0, 65_536.0) };
            Line { gain: gain as f32, pivot: pivot as f32, shift: (shift + gain * pivot) as f32 }
        };
        Transfer { lines: plan.lines.iter().map(line).collect(), padding: view.padding.clone() }
    }

    /// Windows one row of stored values into channels-last `out`.
    fn row<T: Copy + Into<i32>>(&self, stored: &[T], out: &mut [f32]) {
        let channels = self.lines.len();
        for (pixel, values) in stored.iter().zip(out.chunks_exact_mut(channels)) {
            let value = (*pixel).into() as f32;
            for (slot, line) in values.iter_mut().zip(&self.lines) {
                *slot = (line.gain * (value - line.pivot) + line.shift).clamp(0.0, 1.0);
            }
        }
        let Some(padding) = &self.padding else { return };
        for (pixel, values) in stored.iter().zip(out.chunks_exact_mut(channels)) {
            if padding.contains(&(*pixel).into()) {
                values.fill(0.0);
            }
        }
    }
}

fn window_slice(plan: &WindowPlan, view: &SliceView<'_>, scratch: &mut Scratch, out: &mut [f32]) {
    let (rect, channels, side) = (whole_or(view), plan.channels(), plan.side);
    let (across, down) = (plan.taps(rect.columns), plan.taps(rect.rows));
    let transfer = Transfer::new(plan, view);
    let out_row = side * channels;
    let depth = (0..side).map(|y| down.of(y).1.len()).max().unwrap_or(1);
    scratch.row.resize(rect.columns * channels, 0.0);
    scratch.ring.resize(depth * out_row, 0.0);
    let Scratch { row, ring } = scratch;
    let mut next = 0;
    for (y, line) in out.chunks_exact_mut(out_row).enumerate() {
        let (start, weights) = down.of(y);
        // Rows are needed in order, so each is made once and kept while the ring holds it.
        next = next.max(start);
        while next < start + weights.len() {
            source_row(view, rect, next, &transfer, row);
            let slot = (next % depth) * out_row;
            resize_row(row, &across, channels, &mut ring[slot..slot + out_row]);
            next += 1;
        }
        line.fill(0.0);
        for (k, weight) in weights.iter().enumerate() {
            let slot = ((start + k) % depth) * out_row;
            for (sum, value) in line.iter_mut().zip(&ring[slot..slot + out_row]) {
                *sum += weight * value;
            }
        }
        for values in line.chunks_exact_mut(channels) {
            for (value, (gain, bias)) in values.iter_mut().zip(&plan.norms) {
                *value = *value * gain + bias;
            }
        }
    }
}

/// Windows row `y` of the rectangle, mirrored as asked.
fn source_row(view: &SliceView<'_>, rect: Rect, y: usize, transfer: &Transfer, row: &mut [f32]) {
    let y = if view.flip.vertical { rect.rows - 1 - y } else { y };
    let from = (rect.top + y) * view.columns + rect.left;
    match view.pixels {
        StoredPixels::I16(values) => transfer.row(&values[from..from + rect.columns], row),
        StoredPixels::U16(values) => transfer.row(&values[from..from + rect.columns], row),
    }
    if view.flip.horizontal {
        let channels = transfer.lines.len();
        for x in 0..rect.columns / 2 {
            let (left, right) = row.split_at_mut((rect.columns - 1 - x) * channels);
            left[x * channels..(x + 1) * channels].swap_with_slice(&mut right[..channels]);
        }
    }
}

fn resize_row(row: &[f32], taps: &Taps, channels: usize, out: &mut [f32]) {
    // Three windows are the rule; a known count lets the compiler unroll.
    if channels == 3 {
        for (x, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (start, weights) = taps.of(x);
            let mut sum = [0.0f32; 3];
            for (value, weight) in row[start * 3..].as_chunks::<3>().0.iter().zip(weights) {
                sum[0] += weight * value[0];
                sum[1] += weight * value[1];
                sum[2] += weight * value[2];
            }
            *pixel = sum;
        }
        return;
    }
    for (x, pixel) in out.chunks_exact_mut(channels).enumerate() {
        let (start, weights) = taps.of(x);
        pixel.fill(0.0);
        for (values, weight) in row[start * channels..].chunks_exact(channels).zip(weights) {
            for (sum, value) in pixel.iter_mut().zip(values) {
                *sum += weight * value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRAIN: Window = Window { level: 40.0, width: 80.0 };

    #[test]
    fn ramps_follow_the_standard() {
        assert_eq!(window_hu(0.0, BRAIN, Ramp::LinearExact), 0.0);
        assert_eq!(window_hu(40.0, BRAIN, Ramp::LinearExact), 0.5);
        assert_eq!(window_hu(80.0, BRAIN, Ramp::LinearExact), 1.0);
        // PS3.3 C.11.2.1.2: x <= c - 0.5 - (w-1)/2 is black, x > c - 0.5 + (w-1)/2 is white.
        assert_eq!(window_hu(0.0, BRAIN, Ramp::Linear), 0.0);
        assert_eq!(window_hu(79.0, BRAIN, Ramp::Linear), 1.0);
        assert_eq!(window_hu(39.5, BRAIN, Ramp::Linear), 0.5);
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_written() {
        let plan = |windows: &[Window], side, mean: &[f32], std: &[f32]| {
            WindowPlan::new(windows, Ramp::LinearExact, side, mean, std).is_err()
        };
        assert!(plan(&[], 8, &[], &[]));
        assert!(plan(&[Window { width: 0.0, ..BRAIN }], 8, &[0.0], &[1.0]));
        assert!(plan(&[Window { level: f32::NAN, ..BRAIN }], 8, &[0.0], &[1.0]));
        assert!(plan(&[BRAIN], 0, &[0.0], &[1.0]));
        assert!(plan(&[BRAIN], 8, &[0.0], &[0.0]));
        assert!(plan(&[BRAIN], 8, &[0.0, 0.0], &[1.0]));
        assert!(WindowPlan::new(&[Window { width: 1.0, ..BRAIN }], Ramp::Linear, 8, &[0.0], &[1.0]).is_err());

        let plan = WindowPlan::new(&[BRAIN], Ramp::LinearExact, 2, &[0.0], &[1.0]).unwrap();
        let pixels = [0i16; 6];
        let good = SliceView { pixels: StoredPixels::I16(&pixels), rows: 2, columns: 3, ..SliceView::default() };
        let refused = |view: SliceView<'_>| ct_window_vec(&plan, &[good.clone(), view]).is_err();
        assert!(!refused(good.clone()));
        assert!(refused(SliceView { rows: 3, ..good.clone() }));
        assert!(refused(SliceView { slope: f64::NAN, ..good.clone() }));
        assert!(refused(SliceView { rect: Some(Rect { top: 1, left: 0, rows: 2, columns: 3 }), ..good.clone() }));
        assert!(refused(SliceView { rect: Some(Rect { top: 0, left: 0, rows: 0, columns: 3 }), ..good.clone() }));
        assert!(refused(SliceView { bits_stored: 17, ..good.clone() }));
        assert!(ct_window(&plan, &[good], &mut [0.0; 3]).is_err());
    }

    #[test]
    fn equal_sizes_are_passed_through_exactly() {
        let plan = WindowPlan::new(&[BRAIN], Ramp::LinearExact, 4, &[0.0], &[1.0]).unwrap();
        let pixels: Vec<u16> = (0..16).map(|n| n * 5).collect();
        let view = SliceView { pixels: StoredPixels::U16(&pixels), rows: 4, columns: 4, ..SliceView::default() };
        let expected: Vec<f32> = pixels.iter().map(|p| window_hu(f32::from(*p), BRAIN, Ramp::LinearExact)).collect();
        for (found, expected) in ct_window_vec(&plan, &[view]).unwrap().iter().zip(expected) {
            assert!((found - expected).abs() <= f32::EPSILON / 2.0, "{found} instead of {expected}");
        }
    }
}
