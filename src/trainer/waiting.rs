//! How long a device waited for data, told from outside of it. Knows no device and no clock: moments are durations since any
//! beginning.
//!
//! A CPU is done with a batch when the call returns, so all time that the loop spends in asking for the next one is waiting. A
//! GPU works on after the call, and all that is known is when its results were read: then its queue is empty. Between two such
//! moments the loop's waiting is more than the device's, because the device may have had work, and asking the device at each
//! batch would make it slower. So the device's time for a batch is taken from these moments: batches of one form take the same
//! time `c`, each begins when it was handed over and those before it are done, and the last of `n` is done at the moment `r` of
//! reading. That gives `r = max over k of (handed[k] + (n - k) c)`, which holds for one `c` only: the least of
//! `(r - handed[k]) / (n - k)`. The device stood still in what `n c` leaves of the time, and it waited for data in as much of
//! that as the loop did. Batches take only nearly the same time, and some far more, as when kernels are compiled: so the
//! least `c` of all readings so far is taken. The waiting comes out rather too long than too short then, and never longer than
//! the loop waited.

use std::time::Duration;

/// What is known of the device's queue behind a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue<T> {
    /// It may hold work.
    Unknown,
    /// It was empty at this moment: results of all work were read.
    Empty(T),
}

/// Adds up what a device waited for data.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    settled: Duration,
    /// When the batches were handed over that came since the queue was empty.
    handed: Vec<Duration>,
    /// When the first of them was asked for.
    first_asked: Duration,
    /// When the last one was asked for.
    asked: Duration,
    /// What the loop waited for them.
    by_loop: Duration,
    /// The least time of a batch on the device, of all readings so far.
    of_one: Option<Duration>,
}

impl Waiting {
    /// The loop asks for a batch.
    pub fn asked(&mut self, at: Duration) {
        self.asked = at;
        if self.handed.is_empty() {
            self.first_asked = at;
        }
    }

    /// The batch that was asked for is handed to the device.
    pub fn handed(&mut self, at: Duration) {
        self.by_loop += at.saturating_sub(self.asked);
        self.handed.push(at);
    }

    /// The device is done with all that it was handed.
    pub fn emptied(&mut self, at: Duration) {
        let n = self.handed.len();
        let of_one = (1..=n as u32).rev().zip(&self.handed).map(|(left, handed)| at.saturating_sub(*handed) / left);
        let Some(of_one) = of_one.chain(self.of_one).min().filter(|_| n > 0) else { return };
        self.of_one = Some(of_one);
        let still = at.saturating_sub(self.first_asked).saturating_sub(of_one * n as u32);
        self.settled += still.min(self.by_loop);
        self.handed.clear();
        self.by_loop = Duration::ZERO;
    }

    /// All of it. What came since the queue was last empty counts as the loop's.
    pub fn sum(&self) -> Duration {
        self.settled + self.by_loop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A device that takes so long for each batch, and a loop that waits so long for each; its queue is looked at after
    /// every `read_every`. Returns what was told, and what the device truly waited.
    fn simulated(device: &[u64], data: &[u64], read_every: usize) -> (Duration, Duration) {
        let (mut waiting, mut truth) = (Waiting::default(), Duration::ZERO);
        let (mut now, mut free) = (ms(500), ms(500));
        for (at, (takes, waits)) in device.iter().zip(data).enumerate() {
            waiting.asked(now);
            now += ms(*waits);
            waiting.handed(now);
            truth += now.saturating_sub(free);
            free = free.max(now) + ms(*takes);
            if (at + 1).is_multiple_of(read_every) {
                now = now.max(free);
                waiting.emptied(now);
            }
        }
        (waiting.sum(), truth)
    }

    #[test]
    fn a_device_that_is_done_when_the_call_returns_waits_as_long_as_the_loop() {
        assert_eq!(simulated(&[7; 20], &[3; 20], 1), (ms(60), ms(60)));
        assert_eq!(simulated(&[1, 9, 2], &[4, 0, 5], 1), (ms(9), ms(9)));
    }

    #[test]
    fn a_loop_that_waits_while_the_device_works_is_no_waiting_device() {
        // The loop waits 8 of every 10 ms, the device only for the first batch behind every reading.
        assert_eq!(simulated(&[10; 32], &[8; 32], 16), (ms(16), ms(16)));
    }

    #[test]
    fn a_device_that_starves_is_told_in_full() {
        assert_eq!(simulated(&[2; 32], &[8; 32], 16), (ms(8 + 15 * 6) * 2, ms(8 + 15 * 6) * 2));
        // A gap in the middle, longer than the work that is left.
        let mut data = [0; 16];
        data[8] = 100;
        assert_eq!(simulated(&[5; 16], &data, 16), (ms(60), ms(60)));
    }

    #[test]
    fn of_unlike_batches_rather_too_much_is_told_and_never_more_than_the_loop_waited() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for [least, most] in [[1, 12], [10, 14], [4, 9], [0, 2]] {
            let device: Vec<u64> = (0..800).map(|_| 8 + random(3)).collect();
            let data: Vec<u64> = (0..800).map(|_| least + random(most + 1 - least)).collect();
            let (told, truth) = simulated(&device, &data, 16);
            assert!(told >= truth && told <= ms(data.iter().sum()), "{told:?} for {truth:?} with {least} to {most} ms");
        }
    }

    #[test]
    fn what_was_never_looked_at_counts_as_the_loop_waited() {
        assert_eq!(simulated(&[10; 3], &[4; 3], 16).0, ms(12));
    }
}
