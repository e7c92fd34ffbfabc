//! Coding parameters and adaptive contexts of JPEG-LS (T.87 A.2, A.6, A.7, C.2.4.1). Knows no bits.

use crate::dicom::codec::CodecError;

/// What is fixed for a scan.
pub(super) struct Parameters {
    pub maxval: i32,
    pub near: i32,
    pub reset: i32,
    pub limit: u32,
    pub qbpp: u32,
    range: i32,
    thresholds: [i32; 3],
    /// The regions of all gradients from -T3 to T3; those beyond are as those at the ends.
    regions: Vec<i8>,
}

impl Parameters {
    /// From the frame's precision, the scan's NEAR and the presets MAXVAL, T1, T2, T3, RESET, of which zero means
    /// the default.
    pub fn new(precision: u16, near: i32, presets: [u16; 5]) -> Result<Self, CodecError> {
        let [maxval, t1, t2, t3, reset] = presets.map(i32::from);
        let largest = (1i32 << precision) - 1;
        let maxval = if maxval == 0 { largest } else { maxval };
        if maxval > largest || near > (maxval / 2).min(255) {
            return Err(CodecError::Damaged("MAXVAL or NEAR is out of range"));
        }
        let default = default_thresholds(maxval, near);
        let given = [t1, t2, t3];
        let thresholds = [0, 1, 2].map(|i| if given[i] == 0 { default[i] } else { given[i] });
        if thresholds[0] < near + 1 || !thresholds.is_sorted() || thresholds[2] > maxval {
            return Err(CodecError::Damaged("its thresholds are out of order"));
        }
        let range = if near == 0 { maxval + 1 } else { (maxval + 2 * near) / (2 * near + 1) + 1 };
        let bpp = bits_for(maxval + 1).max(2);
        let reset = if reset == 0 { 64 } else { reset };
        if reset < 3 {
            return Err(CodecError::Damaged("RESET is out of range"));
        }
        let reach = thresholds[2];
        let regions = (-reach..=reach).map(|gradient| region(gradient, near, thresholds)).collect();
        let limit = 2 * (bpp + bpp.max(8));
        Ok(Parameters { maxval, near, reset, limit, qbpp: bits_for(range), range, thresholds, regions })
    }

    /// Whether nothing is lost and the range is a power of two, as nearly always.
    pub fn is_plain(&self) -> bool {
        self.near == 0 && self.range.count_ones() == 1
    }

    /// The region of a gradient, -4 to 4 (A.3.3).
    #[inline(always)]
    pub fn quantize(&self, gradient: i32) -> i32 {
        let reach = self.thresholds[2];
        let index = gradient.clamp(-reach, reach) + reach;
        // The table covers all.
        self.regions.get(index as usize).copied().map_or(0, i32::from)
    }

    /// The sample from its prediction and the error, still in steps of 2 NEAR + 1. `PLAIN` if the scan is.
    #[inline(always)]
    pub fn reconstruct<const PLAIN: bool>(&self, px: i32, errval: i32) -> i32 {
        if PLAIN {
            return (px + errval) & self.maxval;
        }
        let step = 2 * self.near + 1;
        let span = self.range * step;
        let mut rx = px + errval * step;
        if rx < -self.near {
            rx += span;
        } else if rx > self.maxval + self.near {
            rx -= span;
        }
        rx.clamp(0, self.maxval)
    }

    /// Errors lie within the range, so their mapped values within twice that.
    #[inline(always)]
    pub fn check(&self, mapped: i32) -> Result<i32, CodecError> {
        if mapped <= 2 * self.range { Ok(mapped) } else { Err(CodecError::Damaged("an error is out of range")) }
    }

    fn first_a(&self) -> i32 {
        ((self.range + 32) / 64).max(2)
    }
}

/// Without a table.
fn region(gradient: i32, near: i32, thresholds: [i32; 3]) -> i8 {
    let size = gradient.abs();
    if size <= near {
        return 0;
    }
    let region = 1 + thresholds.iter().filter(|threshold| size >= **threshold).count() as i8;
    if gradient < 0 { -region } else { region }
}

/// The logarithm to base 2, rounded up.
fn bits_for(n: i32) -> u32 {
    n.unsigned_abs().next_power_of_two().trailing_zeros()
}

/// C.2.4.1.1.1.
fn default_thresholds(maxval: i32, near: i32) -> [i32; 3] {
    let clamp = |value: i32, low: i32| if value > maxval || value < low { low } else { value };
    let raw = if maxval >= 128 {
        let factor = (maxval.min(4095) + 128) / 256;
        [factor + 2 + 3 * near, factor * 4 + 3 + 5 * near, factor * 17 + 4 + 7 * near]
    } else {
        let factor = 256 / (maxval + 1);
        [(3 / factor + 3 * near).max(2), (7 / factor + 5 * near).max(3), (21 / factor + 7 * near).max(4)]
    };
    let t1 = clamp(raw[0], near + 1);
    let t2 = clamp(raw[1], t1);
    [t1, t2, clamp(raw[2], t2)]
}

/// Largest k for which codes still fit; damaged streams would otherwise let A grow without end.
const K_MAX: u32 = 24;

/// The smallest k with n 2^k >= a (A.5.1).
#[inline(always)]
fn golomb(n: i32, a: i32) -> u32 {
    let (n, a) = (n as u32, a as u32);
    // So far that both have their highest bit at the same place.
    let k = n.leading_zeros().saturating_sub(a.leading_zeros());
    (k + u32::from(n << k < a)).min(K_MAX)
}

/// A context of regular mode.
#[derive(Clone, Copy)]
pub(super) struct Regular {
    a: i32,
    b: i32,
    n: i32,
    /// The correction of the prediction.
    pub c: i16,
    /// Of the next code.
    pub k: u8,
    /// Minus one if the next error is mapped the other way round, else nought.
    turned: i8,
}

impl Regular {
    pub fn new(parameters: &Parameters) -> Self {
        let mut new = Regular { a: parameters.first_a(), b: 0, c: 0, n: 1, k: 0, turned: 0 };
        new.prepare(parameters.near == 0);
        new
    }

    /// What the next code needs, ahead of time: it is waited for there.
    #[inline(always)]
    fn prepare(&mut self, lossless: bool) {
        self.k = golomb(self.n, self.a) as u8;
        self.turned = -i8::from(lossless && self.k == 0 && 2 * self.b <= -self.n);
    }

    /// The error from its mapped value (A.5.2).
    #[inline(always)]
    pub fn unmap(&self, mapped: i32) -> i32 {
        (mapped >> 1) ^ -(mapped & 1) ^ i32::from(self.turned)
    }

    /// A.6.
    #[inline(always)]
    pub fn update<const PLAIN: bool>(&mut self, errval: i32, parameters: &Parameters) {
        let step = if PLAIN { 1 } else { 2 * parameters.near + 1 };
        self.b += errval * step;
        self.a = self.a.saturating_add(errval.abs());
        if self.n == parameters.reset {
            self.a >>= 1;
            self.b >>= 1;
            self.n >>= 1;
        }
        self.n += 1;
        // Errors are noise, so no branch on them is foreseen.
        let (low, high) = (i32::from(self.b <= -self.n), i32::from(self.b > 0));
        self.c = (self.c + (high - low) as i16).clamp(-128, 127);
        self.b = (self.b + (low - high) * self.n).clamp(1 - self.n, 0);
        self.prepare(PLAIN || parameters.near == 0);
    }
}

/// A context of run interruption, of samples that differ from both neighbors (0) or lie in a flat place (1).
#[derive(Clone, Copy)]
pub(super) struct RunInterruption {
    a: i32,
    n: i32,
    n_negative: i32,
}

impl RunInterruption {
    pub fn new(parameters: &Parameters) -> Self {
        RunInterruption { a: parameters.first_a(), n: 1, n_negative: 0 }
    }

    pub fn golomb(&self, ritype: usize) -> u32 {
        golomb(self.n, if ritype == 1 { self.a.saturating_add(self.n >> 1) } else { self.a })
    }

    /// The error from its mapped value, and the context after it (A.7.2).
    pub fn unmap_and_update(&mut self, mapped: i32, k: u32, ritype: usize, reset: i32) -> i32 {
        let ritype = ritype as i32;
        let folded = mapped.saturating_add(ritype);
        let map = folded & 1;
        let size = folded / 2 + map;
        let negative = (k != 0 || 2 * self.n_negative >= self.n) == (map == 1);
        let errval = if negative { -size } else { size };
        if errval < 0 {
            self.n_negative += 1;
        }
        self.a = self.a.saturating_add(mapped.saturating_add(1 - ritype) >> 1);
        if self.n == reset {
            self.a >>= 1;
            self.n >>= 1;
            self.n_negative >>= 1;
        }
        self.n += 1;
        errval
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn default_thresholds_are_those_of_the_recommendation() {
        let parameters =
            |precision, near| Parameters::new(precision, near, [0; 5]).map(|p| (p.thresholds, p.limit, p.qbpp));
        assert_eq!(parameters(8, 0), Ok(([3, 7, 21], 32, 8)));
        assert_eq!(parameters(12, 0), Ok(([18, 67, 276], 48, 12)));
        assert_eq!(parameters(16, 0), Ok(([18, 67, 276], 64, 16)));
        assert_eq!(parameters(8, 3).map(|(thresholds, ..)| thresholds), Ok([12, 22, 42]));
    }

    #[test]
    fn the_table_holds_the_region_of_every_gradient() {
        for (precision, near, presets) in
            [(8, 0, [0; 5]), (12, 3, [0; 5]), (16, 0, [0; 5]), (16, 2, [0, 9, 9, 65_535, 0]), (2, 0, [0, 1, 1, 1, 0])]
        {
            let p = Parameters::new(precision, near, presets).unwrap();
            for gradient in -p.maxval..=p.maxval {
                assert_eq!(p.quantize(gradient), i32::from(region(gradient, near, p.thresholds)), "{gradient}");
            }
        }
    }

    /// A.6 word for word.
    fn update(mut state: Regular, errval: i32, p: &Parameters) -> (i32, i32, i16, i32) {
        state.b += errval * (2 * p.near + 1);
        state.a += errval.abs();
        if state.n == p.reset {
            state.a >>= 1;
            state.b >>= 1;
            state.n >>= 1;
        }
        state.n += 1;
        if state.b <= -state.n {
            state.b += state.n;
            if state.c > -128 {
                state.c -= 1;
            }
            if state.b <= -state.n {
                state.b = -state.n + 1;
            }
        } else if state.b > 0 {
            state.b -= state.n;
            if state.c < 127 {
                state.c += 1;
            }
            if state.b > 0 {
                state.b = 0;
            }
        }
        (state.a, state.b, state.c, state.n)
    }

    proptest! {
        #[test]
        fn contexts_follow_the_recommendation(
            near in prop_oneof![Just(0), 1i32..=9],
            errors in prop::collection::vec(prop_oneof![-3i32..=3, -2048i32..=2048], 1..400),
        ) {
            let p = Parameters::new(12, near, [0; 5]).unwrap();
            let mut state = Regular::new(&p);
            for errval in errors {
                let after = update(state, errval, &p);
                if near == 0 { state.update::<true>(errval, &p) } else { state.update::<false>(errval, &p) }
                prop_assert_eq!((state.a, state.b, state.c, state.n), after);
                let k = (0..).find(|k| i64::from(state.n) << k >= i64::from(state.a)).unwrap();
                prop_assert_eq!(u32::from(state.k), k);
                // A.5.2: which of two neighbors is the even one.
                let turned = near == 0 && k == 0 && 2 * state.b <= -state.n;
                prop_assert_eq!([0, 1, 2].map(|mapped| state.unmap(mapped)), if turned { [-1, 0, -2] } else { [0, -1, 1] });
            }
        }
    }

    #[test]
    fn impossible_parameters_are_refused() {
        assert!(Parameters::new(8, 128, [0; 5]).is_err());
        assert!(Parameters::new(8, 0, [256, 0, 0, 0, 0]).is_err());
        assert!(Parameters::new(8, 0, [0, 9, 8, 7, 0]).is_err());
        assert!(Parameters::new(8, 0, [0, 0, 0, 0, 1]).is_err());
    }
}
