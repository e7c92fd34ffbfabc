//! Axes: a range, where its ticks are and what stands at them. Knows no drawing.

/// How numbers become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; numbers up to 0 have no place.
    Log,
}

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it measures.
    pub name: String,
    /// How.
    pub scale: Scale,
    /// First number.
    pub low: f64,
    /// Last number.
    pub high: f64,
    /// Where ticks are, and their texts.
    pub ticks: Vec<(f64, String)>,
}

/// The least and greatest of those numbers that are numbers.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
    })
}

/// The first of 1, 2 or 5 times a power of ten that divides the span into at most so many parts.
fn tick_step(span: f64, parts_max: usize) -> f64 {
    let rough = span / parts_max.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    // A hair of tolerance: 0.1 / 0.1 may be a little above 1.
    steps.into_iter().find(|step| *step >= rough * (1.0 - 1e-9)).unwrap_or(steps[3])
}

/// A number in the digits that its neighbors need.
fn tick_text(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).max(0.0) as usize;
    if digits > 6 || value.abs() >= 1e7 { format!("{value:.1e}") } else { format!("{value:.digits$}") }
}

impl Axis {
    /// From `low` to `high` with ticks at round numbers between.
    pub fn between(name: impl Into<String>, low: f64, high: f64, parts_max: usize) -> Self {
        let step = tick_step(high - low, parts_max);
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let tick = |k: i64| (k as f64 * step, tick_text(k as f64 * step, step));
        Axis { name: name.into(), scale: Scale::Linear, low, high, ticks: (first..=last).map(tick).collect() }
    }

    /// Around numbers, out to ticks; 0 to 1 without any.
    pub fn around(name: impl Into<String>, values: impl Iterator<Item = f64>, parts_max: usize) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 1.0));
        // One number alone still needs some room.
        let room = (high - low).max(high.abs().max(low.abs()) * 1e-3).max(1e-9);
        let step = tick_step(room, parts_max);
        let (mut below, mut above) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        if below >= above {
            (below, above) = (below - step, above + step);
        }
        Axis::between(name, below, above, parts_max + 2)
    }

    /// Whole numbers from `first` to `last`, such as epochs, with half a unit of room.
    pub fn counting(name: impl Into<String>, first: u32, last: u32, parts_max: usize) -> Self {
        let last = last.max(first);
        let step = tick_step(f64::from(last - first).max(1.0), parts_max).max(1.0).ceil() as u32;
        let ticks = (first..=last).filter(|at| at.is_multiple_of(step)).map(|at| (f64::from(at), at.to_string()));
        let mut ticks: Vec<(f64, String)> = ticks.collect();
        if ticks.is_empty() {
            ticks.push((f64::from(first), first.to_string()));
        }
        Axis {
            name: name.into(),
            scale: Scale::Linear,
            low: f64::from(first) - 0.5,
            high: f64::from(last) + 0.5,
            ticks,
        }
    }

    /// Around positive numbers in powers of ten, with ticks at 1, 2 and 5 where those are few.
    pub fn decades(name: impl Into<String>, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let last = last.max(first + 1);
        let factors: &[f64] = if last - first == 1 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let stride = ((last - first) as usize).div_ceil(6);
        let powers = (first..=last).step_by(stride);
        let ticks = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
        let (low, high) = (10f64.powi(first), 10f64.powi(last));
        let text = |value: f64| {
            if (1e-3..1e5).contains(&value) {
                format!("{}", (value * 1e4).round() / 1e4)
            } else {
                format!("{value:.0e}")
            }
        };
        let ticks = ticks.filter(|value| *value <= high * (1.0 + 1e-9)).map(|value| (value, text(value)));
        Axis { name: name.into(), scale: Scale::Log, low, high, ticks: ticks.collect() }
    }

    /// 0 to 1 in fifths.
    pub fn unit(name: impl Into<String>) -> Self {
        Axis::between(name, 0.0, 1.0, 5)
    }

    /// Where a number is: 0 at the axis' first number, 1 at its last; None if it has no place.
    pub fn place(&self, value: f64) -> Option<f64> {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        share.is_finite().then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|tick| tick.1.clone()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(texts(&Axis::unit("p")), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let losses = Axis::around("loss", [0.083, 0.21, f64::NAN].into_iter(), 5);
        assert_eq!(texts(&losses), ["0.05", "0.10", "0.15", "0.20", "0.25"]);
        assert_eq!(texts(&Axis::around("none", std::iter::empty(), 5)).len(), 6);
        assert_eq!(
            texts(&Axis::around("one", [0.25].into_iter(), 2)),
            ["0.2498", "0.2499", "0.2500", "0.2501", "0.2502"]
        );
        assert_eq!(texts(&Axis::counting("epoch", 1, 3, 8)), ["1", "2", "3"]);
        assert_eq!(texts(&Axis::counting("epoch", 1, 40, 8)), ["5", "10", "15", "20", "25", "30", "35", "40"]);
        assert_eq!(texts(&Axis::counting("epoch", 7, 7, 8)), ["7"]);
        let decades = |low: f64, high: f64| texts(&Axis::decades("any", [low, high].into_iter())).join(" ");
        assert_eq!(decades(2e-6, 1e-4), "1e-6 1e-5 1e-4");
        assert_eq!(decades(3e-3, 3e-3), "0.001 0.002 0.005 0.01");
        assert_eq!(decades(1.0, 3e5), "1 10 100 1000 10000 1e5 1e6");
    }

    #[test]
    fn places_run_from_zero_to_one() {
        let axis = Axis::decades("rate", [0.01, 1.0].into_iter());
        assert_eq!(
            [0.01, 0.1, 1.0, 0.0, -1.0].map(|rate| axis.place(rate)),
            [Some(0.0), Some(0.5), Some(1.0), None, None]
        );
        assert_eq!(Axis::unit("p").place(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn ranges_hold_their_numbers(values in proptest::collection::vec(-1e12f64..1e12, 0..9), parts in 1usize..9) {
            let axis = Axis::around("any", values.iter().copied(), parts);
            prop_assert!(axis.low < axis.high && (1..=parts + 4).contains(&axis.ticks.len()), "{:?}", axis);
            prop_assert!(values.iter().all(|value| axis.place(*value).is_some_and(|at| (-1e-6..=1.0 + 1e-6).contains(&at))));
        }
    }
}
