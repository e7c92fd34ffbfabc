//! Time as a value that can be injected. Knows nothing of what waits for it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Time since some start that never runs backwards.
pub type Tick = Duration;

/// Where the daemon reads the time.
pub trait Clock: Send + Sync {
    /// Monotonic time, for waits and measurements.
    fn now(&self) -> Tick;
    /// Calendar time, for files that people read. It may jump; nothing is decided by it but which file is old, and that
    /// only while it keeps pace with `now` (see `retention`).
    fn wall(&self) -> SystemTime;
    /// Lets time pass.
    fn sleep(&self, how_long: Duration);
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts at zero.
    pub fn new() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        self.start.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }
}

/// A clock that stands still until it is moved, for tests of the state machines. Sleeping moves it.
#[derive(Debug, Default)]
pub struct ManualClock {
    millis: AtomicU64,
    jump_millis: AtomicI64,
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets calendar time forward or back, as somebody who corrects the machine's clock does.
    pub fn jump(&self, millis: i64) {
        self.jump_millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        let millis = self.millis.load(Ordering::SeqCst).saturating_add_signed(self.jump_millis.load(Ordering::SeqCst));
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn sleep(&self, how_long: Duration) {
        self.advance(how_long);
    }
}

/// `time` as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    timestamp(time).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Whole seconds since 1970.
pub fn secs(time: SystemTime) -> i64 {
    timestamp(time).as_second()
}

/// The UTC day of `time` as `YYYY-MM-DD`.
pub fn day(time: SystemTime) -> String {
    timestamp(time).strftime("%Y-%m-%d").to_string()
}

fn timestamp(time: SystemTime) -> jiff::Timestamp {
    // A clock beyond year 9999 is broken; the epoch marks it as such.
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_123);
        assert_eq!(rfc3339(time), "2001-09-09T01:46:40.123Z");
        assert_eq!(day(time), "2001-09-09");
    }
}
