//! Windows that begin and end at whole stored values, or at halves, quarters and eighths: in 16-bit numbers they lose nothing.

use smallvec::SmallVec;

use super::Prepared;
use crate::window::{Line, StoredPixels};

/// Binary places that bounds may have.
const PLACES_MAX: u32 = 3;
/// Bounds may be this many widths away from the common pivot. Sums are then off by some 1e-6 of a window at most.
const FAR_WIDTHS: f64 = 8.0;

/// A stored value becomes `((stored ^ sign) - pivot) << places`, saturated, then is clamped to each window's bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Whole {
    /// The top bit, for unsigned values, so that they are ordered as signed ones.
    pub sign: i16,
    /// Subtracted; in the middle of the narrowest window, where differences matter most.
    pub pivot: i16,
    /// Shift to the left.
    pub places: u32,
    /// Bounds of all windows together before the shift, so that it overflows nowhere.
    pub limits: [i16; 2],
    /// First and last padding value after `sign`, if they matter.
    pub padding: Option<[i16; 2]>,
    /// What padding becomes.
    pub instead: i16,
    /// One a window.
    pub windows: SmallVec<[WholeWindow; 8]>,
}

/// One window of [`Whole`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WholeWindow {
    /// Least and greatest value.
    pub bounds: [i16; 2],
    /// Output units for each unit of the values.
    pub scale: f32,
    /// Output at 0.
    pub offset: f32,
}

impl Whole {
    /// `None` where 16 bits would lose something.
    pub fn of(slice: &Prepared<'_>) -> Option<Whole> {
        let (sign, shift, range) = match slice.view.pixels {
            StoredPixels::I16(_) => (0, 0.0, [i16::MIN, i16::MAX].map(f64::from)),
            StoredPixels::U16(_) => (i16::MIN, -32_768.0, [u16::MIN, u16::MAX].map(f64::from)),
        };
        let narrowest = slice.lines.iter().min_by(|a, b| (a.high - a.low).total_cmp(&(b.high - b.low)))?;
        let pivot = f64::from(narrowest.pivot);
        // Padding becomes the least value or the greatest.
        let rising = slice.padding.is_none_or(|padding| padding.instead < 0.0);
        // From the pivot. What no stored value reaches does not matter, unless padding stands for it.
        let edges = |line: &Line| {
            let edges = [line.low, line.high].map(|edge| f64::from(edge) + f64::from(line.pivot));
            let inside = edges.map(|edge| edge.clamp(range[0], range[1]));
            let stands_for = usize::from(!rising);
            let told_apart =
                inside[0] < inside[1] && (slice.padding.is_none() || inside[stands_for] == edges[stands_for]);
            told_apart.then(|| inside.map(|edge| edge - pivot))
        };
        let edges: SmallVec<[[f64; 2]; 8]> = slice.lines.iter().map(edges).collect::<Option<_>>()?;
        let places = (0..=PLACES_MAX)
            .find(|places| edges.as_flattened().iter().all(|edge| (edge * f64::from(1 << places)).fract() == 0.0))?;
        let unit = f64::from(1 << places);
        let mut windows = SmallVec::new();
        for (line, edges) in slice.lines.iter().zip(&edges) {
            let farthest = edges[0].abs().max(edges[1].abs());
            if farthest > FAR_WIDTHS * f64::from(line.high - line.low) {
                return None;
            }
            let [scale, offset] = [line.scale, line.offset].map(f64::from);
            windows.push(WholeWindow {
                bounds: [fitting(edges[0] * unit)?, fitting(edges[1] * unit)?],
                scale: (scale / unit) as f32,
                offset: (offset + scale * (pivot - f64::from(line.pivot))) as f32,
            });
        }
        let least = edges.iter().map(|edges| edges[0].floor()).min_by(f64::total_cmp)?;
        let most = edges.iter().map(|edges| edges[1].ceil()).max_by(f64::total_cmp)?;
        fitting(least * unit).and(fitting(most * unit))?;
        let padding = slice.padding.and_then(|padding| {
            let [first, last] = padding.bounds.map(f64::from);
            let [first, last] = [first.max(range[0]), last.min(range[1])].map(|bound| bound + shift);
            (first <= last).then_some([first as i16, last as i16])
        });
        Some(Whole {
            sign,
            pivot: fitting(pivot + shift)?,
            places,
            limits: [fitting(least)?, fitting(most)?],
            padding,
            instead: if rising { i16::MIN } else { i16::MAX },
            windows,
        })
    }
}

/// A whole number as 16 bits, if it fits.
fn fitting(value: f64) -> Option<i16> {
    (value.fract() == 0.0 && value.abs() <= f64::from(i16::MAX)).then_some(value as i16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::Taps;
    use crate::window::{Padding, Ramp, SliceView, Window, WindowPlan, whole_or};

    fn whole(windows: &[(f32, f32)], view: &SliceView<'_>) -> Option<Whole> {
        let windows: Vec<Window> =
            windows.iter().map(|(level, width)| Window { level: *level, width: *width }).collect();
        let ones = vec![1.0; windows.len()];
        let plan = WindowPlan::new(&windows, Ramp::LinearExact, 1, &ones, &ones).unwrap();
        let lines = Line::all(&plan, view);
        let (padding, down) = (Padding::of(view, &lines), Taps::new(1, 1));
        Whole::of(&Prepared { view, rect: whole_or(view), padding, lines: &lines, down: &down })
    }

    #[test]
    fn bounds_are_exact_or_refused() {
        let signed = SliceView {
            pixels: StoredPixels::I16(&[0]),
            rows: 1,
            columns: 1,
            intercept: -1024.0,
            ..SliceView::default()
        };
        let found = whole(&[(40.0, 80.0), (80.0, 200.0)], &signed).unwrap();
        assert_eq!((found.sign, found.pivot, found.places, found.limits), (0, 1064, 0, [-60, 140]));
        assert_eq!([found.windows[0].bounds, found.windows[1].bounds], [[-40, 40], [-60, 140]]);
        // Half values are doubled.
        let halves = whole(&[(40.0, 81.0)], &signed).unwrap();
        assert_eq!((halves.places, halves.windows[0].bounds, halves.limits), (1, [-81, 81], [-41, 41]));
        // Unsigned values are moved down by half their range.
        let unsigned = SliceView { pixels: StoredPixels::U16(&[0]), ..signed.clone() };
        let found = whole(&[(40.0, 80.0)], &unsigned).unwrap();
        assert_eq!((found.sign, found.pivot), (i16::MIN, i16::MIN + 1064));

        // Bounds at tenths, too far from each other, out of reach, or out of reach but told from padding.
        assert_eq!(whole(&[(40.1, 80.0)], &signed), None);
        assert_eq!(whole(&[(40.0, 80.0)], &SliceView { slope: 1.1, ..signed.clone() }), None);
        assert_eq!(whole(&[(0.0, 80.0), (2000.0, 90.0)], &signed), None);
        assert_eq!(whole(&[(40_000.0, 80.0)], &signed), None);
        let wide = [(0.0, 70_000.0)];
        let padded = SliceView { padding: Some(5..=5), intercept: 0.0, ..unsigned.clone() };
        assert_eq!(whole(&wide, &padded), None);
        // What no value reaches does not matter otherwise.
        let low = SliceView { intercept: 0.0, ..unsigned };
        assert_eq!(whole(&[(100.0, 400.0)], &low).unwrap().windows[0].bounds, [-100, 200]);
    }
}
