//! The time of the simulation: it passes only when somebody lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ichd::clock::{Clock, Tick};

use super::chaos::Chaos;

pub struct SimClock {
    micros: AtomicU64,
    jump_micros: AtomicI64,
    chaos: Arc<Chaos>,
}

impl SimClock {
    pub fn new(chaos: Arc<Chaos>) -> SimClock {
        let start = 1_800_000_000_000_000;
        SimClock { micros: AtomicU64::new(0), jump_micros: AtomicI64::new(start), chaos }
    }

    pub fn millis(&self) -> u64 {
        self.micros.load(Ordering::SeqCst) / 1000
    }

    pub fn advance(&self, millis: u64) {
        self.micros.fetch_add(millis * 1000, Ordering::SeqCst);
    }

    pub fn jump(&self, secs: i64) {
        self.jump_micros.fetch_add(secs * 1_000_000, Ordering::SeqCst);
    }

    /// A time for a file's change. No two changes come at the same time.
    pub fn mtime_ns(&self) -> i64 {
        let micros = self.micros.fetch_add(1, Ordering::SeqCst) as i64;
        (micros + self.jump_micros.load(Ordering::SeqCst)) * 1000
    }

    pub fn wall_now(&self) -> SystemTime {
        let micros = self.micros.load(Ordering::SeqCst).saturating_add_signed(self.jump_micros.load(Ordering::SeqCst));
        SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Tick {
        self.chaos.step();
        Duration::from_micros(self.micros.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        self.chaos.step();
        self.wall_now()
    }

    fn sleep(&self, how_long: Duration) {
        self.chaos.step();
        self.micros.fetch_add(u64::try_from(how_long.as_micros()).unwrap(), Ordering::SeqCst);
    }
}
