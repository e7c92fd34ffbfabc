//! The inverse wavelet transform (T.800 annex F): in whole numbers (5-3, reversible) and in floats (9-7). Knows no bits.

use super::headers::Area;

/// A band, or a resolution put together from bands, row by row.
#[derive(Clone, Debug, Default)]
pub(super) struct Plane<T> {
    pub width: usize,
    pub values: Vec<T>,
}

impl<T: Copy + Default> Plane<T> {
    /// Nothing but zeros.
    pub fn new(area: Area) -> Self {
        Plane { width: area.width(), values: vec![T::default(); area.width() * area.height()] }
    }

    /// One row.
    fn row(&self, y: usize) -> &[T] {
        self.values.get(y * self.width..(y + 1) * self.width).unwrap_or_default()
    }
}

/// One of the two transforms.
pub(super) trait Coefficient: Copy + Default {
    /// From twice a magnitude with the sign in the highest bit, and what one stands for.
    fn new(bits: u32, step: f32) -> Self;
    /// Number of lifting steps. Even ones change low-pass values by their neighbors, odd ones high-pass values.
    const STEPS: usize;
    /// Changes `value` by step number `step`.
    fn lift(step: usize, value: Self, before: Self, behind: Self) -> Self;
    /// Before the steps: what low-pass and high-pass values are scaled by.
    fn scaled(self, high: bool) -> Self;
    /// The only value of a row or column, if it is high-pass.
    fn halved(self) -> Self;
    /// Rounded, for a sample.
    fn whole(self) -> i32;
}

impl Coefficient for i32 {
    #[inline(always)]
    fn new(bits: u32, _: f32) -> i32 {
        let magnitude = (bits << 1 >> 2) as i32;
        let sign = bits as i32 >> 31;
        (magnitude ^ sign) - sign
    }

    const STEPS: usize = 2;

    #[inline(always)]
    fn lift(step: usize, value: i32, before: i32, behind: i32) -> i32 {
        let sum = before.wrapping_add(behind);
        if step == 0 { value.wrapping_sub(sum.wrapping_add(2) >> 2) } else { value.wrapping_add(sum >> 1) }
    }

    #[inline(always)]
    fn scaled(self, _: bool) -> i32 {
        self
    }

    #[inline(always)]
    fn halved(self) -> i32 {
        self / 2
    }

    #[inline(always)]
    fn whole(self) -> i32 {
        self
    }
}

/// Table F.4, in the order of their use: delta, gamma, beta, alpha.
const LIFTS: [f32; 4] = [0.443_506_85, 0.882_911_1, -0.052_980_12, -1.586_134_3];
/// Table F.4, K.
const SCALE: f32 = 1.230_174_1;

impl Coefficient for f32 {
    #[inline(always)]
    fn new(bits: u32, step: f32) -> f32 {
        let magnitude = (bits & 0x7FFF_FFFF) as f32 * 0.5 * step;
        f32::from_bits(magnitude.to_bits() | bits & 0x8000_0000)
    }

    const STEPS: usize = 4;

    #[inline(always)]
    fn lift(step: usize, value: f32, before: f32, behind: f32) -> f32 {
        value - LIFTS[step] * (before + behind)
    }

    #[inline(always)]
    fn scaled(self, high: bool) -> f32 {
        if high { self / SCALE } else { self * SCALE }
    }

    #[inline(always)]
    fn halved(self) -> f32 {
        self * 0.5
    }

    #[inline(always)]
    fn whole(self) -> i32 {
        self.round_ties_even() as i32
    }
}

/// Changes values by their neighbors: number `i` lies between `others` number `i - 1` and `i` if `lags`, else between `i` and
/// `i + 1`. At the ends the one there is counts twice, as in the standard's mirrored extension.
#[inline(always)]
fn lift_row<T: Coefficient>(step: usize, values: &mut [T], others: &[T], lags: bool) {
    let (n, m) = (values.len(), others.len());
    if n == 0 || m == 0 {
        return;
    }
    let at = |place: isize| others[place.clamp(0, m as isize - 1) as usize];
    let first = if lags { -1 } else { 0 };
    // Those in the middle have both neighbors, next to each other.
    let begin = usize::from(lags).min(n);
    let end = if lags { n.min(m) } else { n.min(m - 1) };
    for i in (0..begin).chain(end.max(begin)..n) {
        let place = i as isize + first;
        values[i] = T::lift(step, values[i], at(place), at(place + 1));
    }
    if end > begin {
        let values = &mut values[begin..end];
        let (before, behind) = (&others[..values.len()], &others[1..values.len() + 1]);
        for i in 0..values.len() {
            values[i] = T::lift(step, values[i], before[i], behind[i]);
        }
    }
}

/// A resolution from the next smaller one and its three bands: high-pass across, down and both ways.
#[inline(always)]
pub(super) fn joined<T: Coefficient>(area: Area, low: &Plane<T>, [across, down, both]: [&Plane<T>; 3]) -> Plane<T> {
    let (width, height) = (area.width(), area.height());
    let mut plane = Plane::new(area);
    if width == 0 || height == 0 {
        return plane;
    }
    let first_is_high = [area.left % 2 == 1, area.top % 2 == 1];
    let mut row = Row { lows: vec![T::default(); width], highs: vec![T::default(); width] };
    // Rows first, each where it stands between the others.
    for y in 0..height {
        let is_high = (y % 2 == 1) != first_is_high[1];
        let source = y / 2;
        let (lows, highs) =
            if is_high { (down.row(source), both.row(source)) } else { (low.row(source), across.row(source)) };
        let target = &mut plane.values[y * width..(y + 1) * width];
        row.join(lows, highs, first_is_high[0], target);
    }
    columns(&mut plane.values, width, height, first_is_high[1]);
    plane
}

/// Memory for one row.
struct Row<T> {
    lows: Vec<T>,
    highs: Vec<T>,
}

impl<T: Coefficient> Row<T> {
    #[inline(always)]
    fn join(&mut self, lows: &[T], highs: &[T], first_is_high: bool, target: &mut [T]) {
        if target.len() == 1 {
            target[0] = if first_is_high { highs[0].halved() } else { lows[0] };
            return;
        }
        let (l, h) = (&mut self.lows[..lows.len()], &mut self.highs[..highs.len()]);
        for i in 0..l.len() {
            l[i] = lows[i].scaled(false);
        }
        for i in 0..h.len() {
            h[i] = highs[i].scaled(true);
        }
        for step in 0..T::STEPS {
            if step % 2 == 0 {
                lift_row(step, l, h, !first_is_high);
            } else {
                lift_row(step, h, l, first_is_high);
            }
        }
        let (even, odd): (&[T], &[T]) = if first_is_high { (h, l) } else { (l, h) };
        let n_pairs = target.len() / 2;
        let (even_pairs, odd_pairs) = (&even[..n_pairs], &odd[..n_pairs]);
        let pairs = &mut target.as_chunks_mut::<2>().0[..n_pairs];
        for i in 0..n_pairs {
            pairs[i] = [even_pairs[i], odd_pairs[i]];
        }
        if target.len() % 2 == 1 {
            target[2 * n_pairs] = even[n_pairs];
        }
    }
}

/// All columns at once: a row is changed by those above and below it. Each step follows the one before at a distance of a row,
/// so that rows are changed while they are in the cache.
#[inline(always)]
fn columns<T: Coefficient>(values: &mut [T], width: usize, height: usize, first_is_high: bool) {
    if height == 1 {
        if first_is_high {
            for value in values.iter_mut() {
                *value = value.halved();
            }
        }
        return;
    }
    let is_high = |y: usize| (y % 2 == 1) != first_is_high;
    for y in 0..height + T::STEPS {
        if y < height && T::STEPS == 4 {
            for value in &mut values[y * width..(y + 1) * width] {
                *value = value.scaled(is_high(y));
            }
        }
        for step in 0..T::STEPS {
            // Row `y - 1 - step` has both its neighbors of the step before, one above and one below.
            let Some(at) = y.checked_sub(1 + step) else { break };
            if at < height && is_high(at) == (step % 2 == 1) {
                change_row(values, width, height, at, step);
            }
        }
    }
}

/// Step `step` for a row.
#[inline(always)]
fn change_row<T: Coefficient>(values: &mut [T], width: usize, height: usize, y: usize, step: usize) {
    let (above, rest) = values.split_at_mut(y * width);
    let (row, below) = rest.split_at_mut(width);
    let above = y.checked_sub(1).map(|y| &above[y * width..(y + 1) * width]);
    let below = if y + 1 < height { Some(&below[..width]) } else { None };
    let (Some(before), Some(behind)) = (above.or(below), below.or(above)) else { return };
    let (before, behind) = (&before[..width], &behind[..width]);
    let row = &mut row[..width];
    for i in 0..width {
        row[i] = T::lift(step, row[i], before[i], behind[i]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reversible transform of annex F.4, one sample after the other: low-pass and high-pass values.
    fn split(samples: &[i32], begin: u32) -> (Vec<i32>, Vec<i32>) {
        let is_high = |i: usize| (i + begin as usize) % 2 == 1;
        if samples.len() == 1 {
            return if is_high(0) { (vec![], vec![2 * samples[0]]) } else { (samples.to_vec(), vec![]) };
        }
        let last = samples.len() as isize - 1;
        let mirrored = |i: isize| {
            (if i < 0 {
                -i
            } else if i > last {
                2 * last - i
            } else {
                i
            }) as usize
        };
        let mut values = samples.to_vec();
        for high in [true, false] {
            for i in (0..samples.len()).filter(|i| is_high(*i) == high) {
                let sum = values[mirrored(i as isize - 1)] + values[mirrored(i as isize + 1)];
                values[i] += if high { -(sum >> 1) } else { (sum + 2) >> 2 };
            }
        }
        let of =
            |high| values.iter().enumerate().filter(|(i, _)| is_high(*i) == high).map(|(_, value)| *value).collect();
        (of(false), of(true))
    }

    /// Both ways; the low-pass band and the three others.
    fn bands(samples: &[i32], area: Area) -> [Plane<i32>; 4] {
        let width = area.width();
        let columns: Vec<_> = (0..width)
            .map(|x| split(&samples.iter().skip(x).step_by(width).copied().collect::<Vec<_>>(), area.top))
            .collect();
        let plane = |high_rows: bool, high_columns: bool| {
            let half: Vec<&Vec<i32>> = columns.iter().map(|(low, high)| if high_rows { high } else { low }).collect();
            let rows = (0..half[0].len()).map(|y| half.iter().map(|column| column[y]).collect::<Vec<_>>());
            let rows: Vec<Vec<i32>> = rows
                .map(|row| split(&row, area.left))
                .map(|(low, high)| if high_columns { high } else { low })
                .collect();
            Plane { width: rows.first().map_or(0, Vec::len), values: rows.concat() }
        };
        [plane(false, false), plane(false, true), plane(true, false), plane(true, true)]
    }

    proptest! {
        #[test]
        fn what_was_split_is_joined(
            left in 0..3u32, top in 0..3u32, width in 1..9u32, height in 1..9u32,
            samples in prop::collection::vec(-40_000..40_000i32, 64),
        ) {
            let area = Area { left, top, right: left + width, bottom: top + height };
            let samples = &samples[..(width * height) as usize];
            let [low, across, down, both] = bands(samples, area);
            prop_assert_eq!(&joined(area, &low, [&across, &down, &both]).values[..], samples);
        }
    }

    #[test]
    fn a_constant_stays_one_in_floats() {
        let area = Area { left: 3, top: 4, right: 12, bottom: 11 };
        let low = Plane { width: 4, values: vec![1000.0f32; 16] };
        let zeros = |width: usize, height: usize| Plane { width, values: vec![0.0; width * height] };
        let plane = joined(area, &low, [&zeros(5, 4), &zeros(4, 3), &zeros(5, 3)]);
        assert_eq!(plane.values.len(), 63);
        for value in plane.values {
            assert!((value - 1000.0).abs() < 1e-3, "{value}");
        }
    }
}
