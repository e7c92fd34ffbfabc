//! Windowing and resizing of a batch of slices. Knows nothing of where they come from.
//!
//! For each pixel and window: HU = slope * stored + intercept, then the window's ramp clamped to 0..1. The windowed image
//! is resized with antialiased bilinear weights ([`Taps`]), then normalized. What every form of the kernel computes for a
//! pixel is in [`Line`]; how they go about it is in `cpu/window.rs` and `gpu/window.rs`.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use crate::cpu;
use crate::cpu::window::Gather;
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
    norms: Vec<(f64, f64)>,
    side: usize,
    taps: Kept<usize, Arc<Taps>>,
    /// By source columns and whether they are mirrored.
    gathers: Kept<(usize, bool), Option<Arc<Gather>>>,
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
        let norm = |(mean, std): (&f32, &f32)| (1.0 / f64::from(*std), -f64::from(*mean) / f64::from(*std));
        Ok(WindowPlan {
            lines: windows.iter().map(|window| ramp.line(*window)).collect(),
            norms: mean.iter().zip(std).map(norm).collect(),
            side,
            taps: Kept::default(),
            gathers: Kept::default(),
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

    pub(crate) fn taps(&self, source: usize) -> Arc<Taps> {
        self.taps.get(source, || Arc::new(Taps::new(source, self.side)))
    }

    /// How rows of `columns` whole numbers are summed across, or `None` where they cannot be.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for AVX-512"))]
    pub(crate) fn gather(&self, columns: usize, mirrored: bool) -> Option<Arc<Gather>> {
        self.gathers.get((columns, mirrored), || Gather::new(columns, self.side, mirrored).map(Arc::new))
    }
}

/// Tables that are made once.
#[derive(Debug)]
struct Kept<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Kept(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Odd crops of a trainer must not fill the memory.
        if kept.len() > 4096 {
            kept.clear();
        }
        kept.entry(key).or_insert_with(make).clone()
    }
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
    check_all(slices)?;
    cpu::window::run(plan, slices, out);
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

/// Refuses slices with numbers that make no sense.
pub(crate) fn check_all(slices: &[SliceView<'_>]) -> Result<(), KernelError> {
    for (slice, view) in slices.iter().enumerate() {
        check(view).map_err(|reason| KernelError::Slice { slice, reason: reason.to_owned() })?;
    }
    Ok(())
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

/// The part of the slice to use.
pub(crate) fn whole_or(view: &SliceView<'_>) -> Rect {
    view.rect.unwrap_or(Rect { top: 0, left: 0, rows: view.rows, columns: view.columns })
}

/// What happens to a stored value in one window, in one slice.
///
/// Resampling is linear, so only the clamp has to happen for each pixel: the output is
/// `scale * sum of weight * clamp(stored - pivot, low, high) + offset`, with ramp and normalization in scale and offset.
/// The pivot is the whole number in the middle of the window: the difference is exact in f32 and small where the window is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// Subtracted from the stored value.
    pub pivot: f32,
    /// Where the window begins, in stored values from the pivot.
    pub low: f32,
    /// Where it ends.
    pub high: f32,
    /// Output units for each stored value.
    pub scale: f32,
    /// Output at the pivot.
    pub offset: f32,
}

/// Lines of the usual number of windows, without an allocation for each slice.
pub(crate) type Lines = SmallVec<[Line; 8]>;

/// Farther from the pivot than any stored value or sensible window.
const FAR: f64 = 1e30;

impl Line {
    /// Lines of all windows for a slice.
    pub fn all(plan: &WindowPlan, view: &SliceView<'_>) -> Lines {
        // Inversion is stored -> top - stored; it joins the rescale in one line, computed in f64.
        let (sign, top) = match (view.inverted, view.pixels) {
            (false, _) => (1.0, 0.0),
            (true, StoredPixels::I16(_)) => (-1.0, -1.0),
            (true, StoredPixels::U16(_)) => (-1.0, f64::from((1u32 << view.bits_stored) - 1)),
        };
        let line = |((factor, offset), (norm_gain, norm_bias)): (&(f64, f64), &(f64, f64))| {
            let gain = factor * view.slope * sign;
            let shift = factor * (view.slope * top + view.intercept) + offset;
            if gain == 0.0 {
                // All pixels with data are alike: above a window that ends at their value.
                let high = shift.clamp(0.0, 1.0) as f32;
                let (scale, offset) = (*norm_gain as f32, *norm_bias as f32);
                return Line { pivot: -1e6, low: 0.0, high, scale, offset };
            }
            let pivot = ((0.5 - shift) / gain).round().clamp(-65_536.0, 65_536.0);
            let at_pivot = shift + gain * pivot;
            let [black, white] = [-at_pivot / gain, (1.0 - at_pivot) / gain].map(|edge| edge.clamp(-FAR, FAR) as f32);
            Line {
                pivot: pivot as f32,
                low: black.min(white),
                high: black.max(white),
                scale: (gain * norm_gain) as f32,
                offset: (at_pivot * norm_gain + norm_bias) as f32,
            }
        };
        plan.lines.iter().zip(&plan.norms).map(line).collect()
    }
}

/// Stored values without data, and what is put in their place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Padding {
    /// Lowest and highest of these values.
    pub bounds: [i32; 2],
    /// Far outside every window, on its dark side.
    pub instead: f32,
}

impl Padding {
    /// `None` where there is no padding, or where it is dark in every window anyway, as padding far below air is.
    pub fn of(view: &SliceView<'_>, lines: &[Line]) -> Option<Padding> {
        let padding = view.padding.as_ref().filter(|padding| !padding.is_empty())?;
        let rising = (view.slope >= 0.0) != view.inverted || view.slope == 0.0;
        let bounds = [*padding.start(), *padding.end()];
        let dark = |line: &Line| {
            let [first, last] = bounds.map(|bound| bound as f32 - line.pivot);
            if rising { last <= line.low } else { first >= line.high }
        };
        if lines.iter().all(dark) {
            return None;
        }
        Some(Padding { bounds, instead: if rising { -FAR as f32 } else { FAR as f32 } })
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
