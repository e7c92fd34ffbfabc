//! Which source columns each vector of output columns is summed from, for registers of stored pixels. Knows no pixels.
//!
//! With source and side as a reduced fraction `p / q`, the triangle's weight of source column `i` in output column `o` is
//! `r - |(2i + 1) q - (2o + 1) p|` up to a factor, with `r = 2 max(p, q)`: a whole number. So sums of whole numbers stay exact
//! until they are divided by the sum of the weights.

/// Output columns of a vector.
pub(crate) const LANES: usize = 16;
/// Source columns of a register.
pub(crate) const STEP: usize = 32;
/// Weights may add up to this, so that sums of 16-bit values fit 32 bits.
const TOTAL_MAX: i64 = u16::MAX as i64;

/// Two neighboring source columns for each output column.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Pairs<T>(pub [[T; 2]; LANES]);

/// One step of a sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// Which columns of two neighboring registers.
    pub picks: Pairs<i16>,
    /// Their weights.
    pub weights: Pairs<i16>,
}

/// A vector of output columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// First of the `2 * STEP` source columns that it is summed from. They end in the row if it is that long.
    pub start: usize,
    /// Its place among the groups in the order of the output.
    pub slot: usize,
}

/// All output columns of a row.
#[derive(Debug)]
pub(crate) struct Gather {
    /// In the order of the source.
    pub groups: Vec<Group>,
    /// `[group, step]`.
    pub taps: Vec<Tap>,
    /// Steps of each group.
    pub n_steps: usize,
    /// First output column of each slot.
    pub firsts: Vec<usize>,
    /// What a sum is multiplied with to become a mean: `[slot, lane]`, 0 in lanes without a column.
    pub shares: Vec<[f32; LANES]>,
}

/// Positions and weights of one output column.
struct Column {
    start: usize,
    weights: Vec<i64>,
}

impl Column {
    fn end(&self) -> usize {
        self.start + self.weights.len()
    }
}

/// The whole-number weights of all output columns.
fn columns(source: usize, side: usize) -> Vec<Column> {
    let divisor = gcd(source, side);
    let (p, q) = ((source / divisor) as i64, (side / divisor) as i64);
    let reach = 2 * p.max(q);
    let column = |out: i64| {
        let center = (2 * out + 1) * p;
        let weight = |at: i64| reach - ((2 * at + 1) * q - center).abs();
        let around = |doubled: i64| doubled.div_euclid(2 * q);
        let from = (around(center - reach) - 1).max(0);
        let to = (around(center + reach) + 2).min(source as i64);
        let inside: Vec<i64> = (from..to).filter(|at| weight(*at) > 0).collect();
        Column { start: inside[0] as usize, weights: inside.into_iter().map(weight).collect() }
    };
    (0..side as i64).map(column).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Gather {
    /// From `source` columns to `side`, mirrored if asked. `None` where weights do not fit 16 bits or a filter is wider than
    /// a register.
    pub fn new(source: usize, side: usize, mirrored: bool) -> Option<Gather> {
        let columns = columns(source, side);
        let fits = |column: &Column| {
            column.weights.len() <= STEP
                && column.weights.iter().all(|weight| *weight <= i16::MAX.into())
                && column.weights.iter().sum::<i64>() <= TOTAL_MAX
        };
        if !columns.iter().all(fits) {
            return None;
        }
        let n_steps = columns.iter().map(|column| column.weights.len().div_ceil(2)).max().unwrap_or(0);
        let mut gather =
            Gather { groups: Vec::new(), taps: Vec::new(), n_steps, firsts: Vec::new(), shares: Vec::new() };
        let mut done = 0;
        while done < columns.len() {
            let start = columns[done].start.min(source.saturating_sub(2 * STEP));
            let end = start + 2 * STEP;
            let count = columns[done..].iter().take(LANES).take_while(|column| column.end() <= end).count();
            gather.push(&columns[done..done + count], start, mirrored);
            gather.firsts.push(if mirrored { side - done - count } else { done });
            done += count;
        }
        if mirrored {
            let last = gather.groups.len() - 1;
            gather.groups.iter_mut().for_each(|group| group.slot = last - group.slot);
            gather.firsts.reverse();
            gather.shares.reverse();
        }
        Some(gather)
    }

    fn push(&mut self, columns: &[Column], start: usize, mirrored: bool) {
        // The triangle is symmetric: a mirrored slice has the same columns in the opposite order.
        let lane = |at: usize| if mirrored { columns.len() - 1 - at } else { at };
        let first = self.taps.len();
        let nothing = Tap { picks: Pairs([[0; 2]; LANES]), weights: Pairs([[0; 2]; LANES]) };
        self.taps.resize(first + self.n_steps, nothing);
        let mut shares = [0.0; LANES];
        for (at, column) in columns.iter().enumerate() {
            for (k, weight) in column.weights.iter().enumerate() {
                let tap = &mut self.taps[first + k / 2];
                tap.picks.0[lane(at)][k % 2] = (column.start + k - start) as i16;
                tap.weights.0[lane(at)][k % 2] = *weight as i16;
            }
            shares[lane(at)] = (1.0 / column.weights.iter().sum::<i64>() as f64) as f32;
        }
        self.groups.push(Group { start, slot: self.groups.len() });
        self.shares.push(shares);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::Taps;

    #[test]
    fn whole_weights_are_those_of_the_filter() {
        for (source, side) in
            [(512, 224), (512, 299), (512, 300), (1, 9), (9, 1), (37, 224), (224, 223), (64, 64), (470, 224)]
        {
            let taps = Taps::new(source, side);
            for mirrored in [false, true] {
                let gather = Gather::new(source, side, mirrored).expect("small sizes fit");
                let mut seen = 0;
                for (at, group) in gather.groups.iter().enumerate() {
                    let first = gather.firsts[group.slot];
                    let count = gather.firsts.get(group.slot + 1).unwrap_or(&side) - first;
                    seen += count;
                    for lane in 0..count {
                        let mut weights = vec![0.0; source];
                        for tap in &gather.taps[at * gather.n_steps..][..gather.n_steps] {
                            for (pick, weight) in tap.picks.0[lane].into_iter().zip(tap.weights.0[lane]) {
                                if weight > 0 {
                                    assert!((0..2 * STEP as i16).contains(&pick));
                                    weights[group.start + pick as usize] +=
                                        f32::from(weight) * gather.shares[group.slot][lane];
                                }
                            }
                        }
                        let out = if mirrored { side - 1 - first - lane } else { first + lane };
                        let (start, expected) = taps.of(out);
                        for (column, weight) in weights.iter().enumerate() {
                            let expected = column.checked_sub(start).and_then(|k| expected.get(k)).unwrap_or(&0.0);
                            assert!((weight - expected).abs() < 2e-7, "{source} to {side}, {out}, {column}");
                        }
                    }
                }
                assert_eq!(seen, side);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Gather::new(4999, 224, false).is_none());
        assert!(Gather::new(40, 1, false).is_none());
        assert!(Gather::new(20_011, 20_000, false).is_none());
    }
}
