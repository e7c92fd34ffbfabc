//! A bound on the log: of lines from one place in the program a few pass in each period, the rest is counted and told
//! afterwards. Ten thousand refused files are one fact, not ten thousand lines. So are lines that nobody read. Knows no
//! message.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use crate::telemetry;

/// Lines from one place that pass in a period.
const LINES_MAX: u32 = 50;
/// Length of a period.
const PERIOD: Duration = Duration::from_secs(10);

/// A place in the source, as file and line.
type Place = (&'static str, u32);

/// What came from one place.
#[derive(Debug)]
struct Window {
    begun: Duration,
    passed: u32,
    left_out: u64,
}

/// The counts. Pure: it is told what time it is.
#[derive(Debug, Default)]
struct Counts(HashMap<Place, Window>);

impl Counts {
    fn passes(&mut self, now: Duration, place: Place) -> bool {
        let window = self.0.entry(place).or_insert(Window { begun: now, passed: 0, left_out: 0 });
        // A window with something to tell stays until that is told.
        if window.left_out == 0 && now.saturating_sub(window.begun) >= PERIOD {
            (window.begun, window.passed) = (now, 0);
        }
        let passes = window.passed < LINES_MAX;
        if passes {
            window.passed += 1;
        } else {
            window.left_out += 1;
        }
        passes
    }

    /// What was left out in periods that are over, or in all of them.
    fn take(&mut self, now: Duration, all: bool) -> Vec<(Place, u64)> {
        let mut told = Vec::new();
        self.0.retain(|place, window| {
            let is_over = all || now.saturating_sub(window.begun) >= PERIOD;
            if is_over && window.left_out > 0 {
                told.push((*place, window.left_out));
            }
            !is_over
        });
        told.sort_unstable();
        told
    }
}

static COUNTS: LazyLock<Mutex<Counts>> = LazyLock::new(Mutex::default);
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The filter. Lines that somebody asked for, `debug` and `trace`, all pass.
#[derive(Debug)]
pub struct FloodGate;

impl<S> Filter<S> for FloodGate {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let meta = event.metadata();
        let place = (meta.target(), meta.line().unwrap_or(0));
        *meta.level() > Level::INFO || place.0.ends_with("::flood") || counts().passes(BEGUN.elapsed(), place)
    }
}

fn counts() -> std::sync::MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells how many lines were left out: to be called now and then, and with `all` at the end.
pub fn tell(all: bool) {
    let lost = telemetry::lost();
    if lost > 0 {
        tracing::warn!(lines = lost, "Lines of the log are lost, because nobody read them for a while.");
    }
    let told = counts().take(BEGUN.elapsed(), all);
    for ((place, line), lines) in told {
        tracing::warn!(lines, place = %format!("{place}:{line}"), "More lines like those before were left out of the log.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = ("a", 1);

    #[test]
    fn a_flood_is_cut_off_and_counted() {
        let mut counts = Counts::default();
        let secs = Duration::from_secs;
        let passed = (0..1000).filter(|_| counts.passes(secs(1), A)).count();
        assert_eq!(passed, LINES_MAX as usize);
        assert!(counts.passes(secs(1), ("b", 2)), "other lines pass");
        assert_eq!(counts.take(secs(2), false), [], "not yet");
        assert_eq!(counts.take(secs(11), false), [(A, 950)]);
        assert!(counts.passes(secs(11), A), "a new period");
        assert_eq!(counts.take(secs(12), true), []);
    }

    #[test]
    fn slow_lines_all_pass() {
        let mut counts = Counts::default();
        assert!((0..1000).all(|second| counts.passes(Duration::from_secs(second), A)));
        assert_eq!(counts.take(Duration::from_secs(1000), true), []);
    }
}
