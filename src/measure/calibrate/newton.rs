//! Newton's method for a logistic line through logits. Knows no label and no model.
//!
//! Minimizes over scale a and shift b, with z = a x + b for a slice's logit x,
//!
//! ```text
//! F(a, b) = 1/n sum [ln(1 + exp(z)) - y z]  +  w / (2 n) [(a - 1)^2 + b^2]
//! ```
//!
//! the mean log loss and a normal prior of precision w around the identity. F is convex, and the identity costs no prior, so a
//! minimum is never worse than the identity, in F and in log loss. With w > 0 it is finite whatever the data, separable ones too.

/// z = scale x + shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// a.
    pub scale: f64,
    /// b.
    pub shift: f64,
}

/// The line that changes nothing.
pub const IDENTITY: Line = Line { scale: 1.0, shift: 0.0 };

/// What may be moved; the rest stays as the start has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Free {
    /// Scale and shift.
    Both,
    /// The scale.
    Scale,
    /// The shift.
    Shift,
}

/// Where the search ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solution {
    /// The line.
    pub line: Line,
    /// Newton steps taken.
    pub steps: usize,
    /// Whether the test of convergence was met.
    pub converged: bool,
}

/// The search has converged when the squared Newton decrement g' H^-1 g, twice what a quadratic model still hopes to gain in
/// F, is at most this: then a and b are right to about 1e-11 of their standard errors times sqrt(n).
const DECREMENT: f64 = 1e-22;
/// Below this decrement F no longer resolves a step, and Newton's steps are safe without looking.
const TRUSTED: f64 = 1e-10;
/// Newton needs five to fifteen steps.
const STEPS_MAX: usize = 200;
const HALVINGS_MAX: usize = 60;

/// ln(1 + exp(z)), without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// F.
fn objective(samples: &[(f64, bool)], line: Line, prior: f64) -> f64 {
    let loss = |(x, target): &(f64, bool)| {
        let z = line.scale * x + line.shift;
        softplus(if *target { -z } else { z })
    };
    let n = samples.len() as f64;
    let pull = (line.scale - 1.0).powi(2) + line.shift.powi(2);
    samples.iter().map(loss).sum::<f64>() / n + prior / (2.0 * n) * pull
}

/// Gradient, and the Hessian's three different numbers.
struct Slopes {
    g: [f64; 2],
    h: [f64; 3],
}

fn slopes(samples: &[(f64, bool)], line: Line, prior: f64) -> Slopes {
    let (mut g, mut h) = ([0.0; 2], [0.0; 3]);
    for (x, target) in samples {
        let z = line.scale * x + line.shift;
        // p and 1 - p without cancellation.
        let small = (-z.abs()).exp();
        let (p, q) = if z >= 0.0 { (1.0, small) } else { (small, 1.0) };
        let (p, q) = (p / (1.0 + small), q / (1.0 + small));
        let error = if *target { -q } else { p };
        let weight = p * q;
        g[0] += error * x;
        g[1] += error;
        h[0] += weight * x * x;
        h[1] += weight * x;
        h[2] += weight;
    }
    let n = samples.len() as f64;
    g[0] += prior * (line.scale - 1.0);
    g[1] += prior * line.shift;
    h[0] += prior;
    h[2] += prior;
    Slopes { g: g.map(|sum| sum / n), h: h.map(|sum| sum / n) }
}

/// Newton's step, downhill.
fn newton_step(slopes: &Slopes, free: Free) -> [f64; 2] {
    let ([ga, gb], [haa, hab, hbb]) = (slopes.g, slopes.h);
    // A flat direction is possible only without a prior; damping then keeps the step downhill.
    let damped = |h: f64| if h > 0.0 { h } else { f64::MIN_POSITIVE };
    match free {
        Free::Scale => [-ga / damped(haa), 0.0],
        Free::Shift => [0.0, -gb / damped(hbb)],
        Free::Both => {
            let tilt = if haa * hbb - hab * hab > 1e-13 * haa * hbb { 0.0 } else { 1e-7 * (haa + hbb) + 1e-300 };
            let (haa, hbb) = (haa + tilt, hbb + tilt);
            let det = haa * hbb - hab * hab;
            [-(hbb * ga - hab * gb) / det, -(haa * gb - hab * ga) / det]
        }
    }
}

/// The line of least F, from a start. Samples are logits and targets; without samples the start comes back.
pub fn minimize(samples: &[(f64, bool)], start: Line, free: Free, prior: f64) -> Solution {
    let mut line = start;
    let mut value = objective(samples, line, prior);
    for steps in 0..STEPS_MAX {
        if samples.is_empty() || !value.is_finite() {
            return Solution { line, steps, converged: samples.is_empty() };
        }
        let slopes = slopes(samples, line, prior);
        let step = newton_step(&slopes, free);
        let decrement = -(slopes.g[0] * step[0] + slopes.g[1] * step[1]);
        if !decrement.is_finite() {
            return Solution { line, steps, converged: false };
        }
        if decrement <= DECREMENT {
            return Solution { line, steps, converged: true };
        }
        let Some(next) = descend(samples, prior, (line, value), step, decrement) else {
            return Solution { line, steps, converged: false };
        };
        (line, value) = next;
    }
    Solution { line, steps: STEPS_MAX, converged: false }
}

/// Halves the step until F falls by a fair part of what the slope promises (Armijo).
fn descend(
    samples: &[(f64, bool)],
    prior: f64,
    (line, value): (Line, f64),
    step: [f64; 2],
    decrement: f64,
) -> Option<(Line, f64)> {
    let mut length = 1.0;
    for _ in 0..HALVINGS_MAX {
        let next = Line { scale: line.scale + length * step[0], shift: line.shift + length * step[1] };
        let found = objective(samples, next, prior);
        if found <= value - 1e-4 * length * decrement || (decrement < TRUSTED && found.is_finite()) {
            return Some((next, found));
        }
        length /= 2.0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_alone_meets_the_prevalence() {
        // Equal logits: the best probability is the share of positives, here 1/4.
        let samples = [(0.5, true), (0.5, false), (0.5, false), (0.5, false)];
        let found = minimize(&samples, IDENTITY, Free::Shift, 0.0);
        assert!(found.converged && (found.line.shift + 0.5 - (1.0f64 / 3.0).ln()).abs() < 1e-10, "{found:?}");
        assert_eq!(found.line.scale, 1.0);
    }

    #[test]
    fn separable_data_end_at_a_finite_line_by_the_prior() {
        let samples = [(-2.0, false), (-1.0, false), (1.0, true), (3.0, true)];
        let found = minimize(&samples, IDENTITY, Free::Both, 0.04);
        assert!(found.converged && (1.0..20.0).contains(&found.line.scale), "{found:?}");
    }

    #[test]
    fn extreme_logits_end_without_nan() {
        let samples = [(1e30, true), (-1e30, false), (1e30, false), (0.0, true), (-1000.0, true)];
        let found = minimize(&samples, IDENTITY, Free::Both, 0.04);
        assert!(found.line.scale.is_finite() && found.line.shift.is_finite(), "{found:?}");
        assert!(minimize(&[], IDENTITY, Free::Both, 0.04).converged);
    }
}
