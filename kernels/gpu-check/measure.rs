//! How long something takes, and what proves that it was done. Knows not what.

use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use ichd::engine::EngineError;
use ichd::frugal::guarded;
use serde::Serialize;

/// Runs of one measurement.
const LEAST_ROUNDS: usize = 3;
const MOST_ROUNDS: usize = 500;
/// Runs of one warm-up.
const LEAST_WARM_UPS: usize = 3;
const MOST_WARM_UPS: usize = 12;

/// The middle one; the list must hold one at least.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// What time there is.
#[derive(Debug)]
pub struct Budget {
    begun: Instant,
    each: Duration,
    limit: Option<Duration>,
}

/// Times of one case.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Median of the runs.
    pub milliseconds: f64,
    /// The shortest.
    pub best_milliseconds: f64,
    /// Runs that count.
    pub rounds: usize,
    /// The runs before those, in which kernels are compiled and chosen.
    pub warm_up_seconds: f64,
}

impl Times {
    /// With each run made of so many parts: times of a part.
    pub fn of_parts(self, parts: usize) -> Times {
        let parts = parts as f64;
        Times { milliseconds: self.milliseconds / parts, best_milliseconds: self.best_milliseconds / parts, ..self }
    }
}

impl Budget {
    /// `each` for a measurement, `limit` after which none begins.
    pub fn new(each: Duration, limit: Option<Duration>) -> Budget {
        Budget { begun: Instant::now(), each, limit }
    }

    /// Whether nothing new may begin.
    pub fn is_spent(&self) -> bool {
        self.limit.is_some_and(|limit| self.begun.elapsed() >= limit)
    }

    /// Times of `work`, which must not return before the device has answered.
    pub fn time(&self, mut work: impl FnMut() -> Result<(), EngineError>) -> Result<Times, EngineError> {
        let mut once = || -> Result<f64, EngineError> {
            let begun = Instant::now();
            guarded(&mut work)?;
            Ok(begun.elapsed().as_secs_f64())
        };
        let begun = Instant::now();
        let mut last = f64::INFINITY;
        // The choice among kernels may take several runs.
        for run in 1..=MOST_WARM_UPS {
            let before = std::mem::replace(&mut last, once()?);
            if run >= LEAST_WARM_UPS && last > before * 0.8 {
                break;
            }
        }
        let warm_up_seconds = begun.elapsed().as_secs_f64();
        let fits = self.each.as_secs_f64() / last.max(1e-6);
        let rounds = (fits as usize).clamp(LEAST_ROUNDS, MOST_ROUNDS);
        let mut samples = (0..rounds).map(|_| once()).collect::<Result<Vec<f64>, _>>()?;
        let milliseconds = median(&mut samples) * 1e3;
        // Sorted by now.
        Ok(Times { milliseconds, best_milliseconds: samples[0] * 1e3, rounds, warm_up_seconds })
    }
}

/// Values on the host: the device has computed them, or the error says why not.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, EngineError> {
    let fail = |error: String| EngineError::of_device(&error);
    let data = tensor.try_into_data().map_err(|error| fail(format!("{error:?}")))?;
    data.try_to_vec_as::<f32>().map_err(|error| fail(format!("{error:?}")))
}
