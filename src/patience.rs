//! Trying again: what to do about a write that failed. Knows no file and no record.
//!
//! A full disk, and a lack of descriptors or memory, is waited for, without end while nobody wishes to stop: what is held is not lost, and the stages before
//! stall. Any other failure is tried a few times, then the daemon ends with exit code 74.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::clock::Clock;
use crate::error::{Exit, Fatal};
use crate::limits::{WRITE_ATTEMPTS, WRITE_PAUSE_MS, WRITE_PAUSE_MS_MAX};
use crate::stage::Stop;

/// How often the wish to stop is looked at.
const STEP: Duration = Duration::from_millis(50);

/// Whether another try may do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hope {
    /// Once somebody makes room.
    Room,
    /// Perhaps.
    Some,
    /// No.
    None,
}

/// A failure that says whether it may pass.
pub trait Trouble: fmt::Display {
    /// What may be hoped for.
    fn hope(&self) -> Hope;

    /// How the program ends of it.
    fn exit(&self) -> Exit {
        Exit::Io
    }
}

impl Trouble for io::Error {
    fn hope(&self) -> Hope {
        match self.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Hope::Room,
            _ if is_own_want(self) => Hope::Room,
            _ => Hope::Some,
        }
    }
}

/// Whether the program or the machine lacks descriptors or memory. That says nothing about a file, and it passes.
pub fn is_own_want(error: &io::Error) -> bool {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    is(Errno::MFILE) || is(Errno::NFILE) || is(Errno::NOMEM)
}

/// Tries again.
#[derive(Clone)]
pub struct Patience {
    clock: Arc<dyn Clock>,
    stop: Stop,
    is_endless: bool,
}

impl Patience {
    /// `is_endless` waits for room as long as it takes; without it a full disk is a failure like others, as for a
    /// command that somebody waits for.
    pub fn new(clock: Arc<dyn Clock>, stop: Stop, is_endless: bool) -> Self {
        Patience { clock, stop, is_endless }
    }

    /// Does the work until it succeeds.
    ///
    /// # Errors
    /// There is no hope, or it failed [`WRITE_ATTEMPTS`] times.
    pub fn insist<T, E: Trouble>(&self, what: &str, mut work: impl FnMut() -> Result<T, E>) -> Result<T, Fatal> {
        let mut attempt = 1u32;
        loop {
            let error = match work() {
                Ok(value) => {
                    if attempt > 1 {
                        tracing::info!(attempt, "Went well after all: {what}.");
                    }
                    return Ok(value);
                }
                Err(error) => error,
            };
            let hope = error.hope();
            let waits_for_room = hope == Hope::Room && self.is_endless && !self.stop.is_wished();
            if hope == Hope::None || (attempt >= WRITE_ATTEMPTS && !waits_for_room) {
                return Err(Fatal::new(error.exit(), format!("{what} failed in {attempt} tries: {error}")));
            }
            // A disk that is full for days must not fill the log too.
            if attempt.is_power_of_two() {
                tracing::warn!(%error, attempt, "Failed, and is tried again: {what}.");
            }
            self.pause(Duration::from_millis((WRITE_PAUSE_MS << (attempt - 1).min(16)).min(WRITE_PAUSE_MS_MAX)));
            attempt = attempt.saturating_add(1);
        }
    }

    /// Sleeps, but not through the wish to stop.
    fn pause(&self, how_long: Duration) {
        let was_wished = self.stop.is_wished();
        let mut left = how_long;
        while !left.is_zero() && self.stop.is_wished() == was_wished {
            let step = left.min(STEP);
            self.clock.sleep(step);
            left -= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn patience(is_endless: bool) -> (Arc<ManualClock>, Stop, Patience) {
        let (clock, stop) = (Arc::new(ManualClock::default()), Stop::new());
        (Arc::clone(&clock), stop.clone(), Patience::new(clock, stop, is_endless))
    }

    #[test]
    fn a_full_disk_is_waited_for_until_there_is_room() {
        let (clock, _, patience) = patience(true);
        let day = Duration::from_secs(86_400);
        let (mut tries, mut error) = (0u64, 0u64);
        let written = patience.insist("it", || {
            tries += 1;
            error += u64::from(clock.now() < day);
            if clock.now() < day { Err(io::Error::from(ErrorKind::StorageFull)) } else { Ok(tries) }
        });
        assert_eq!(written.unwrap(), error + 1);
        assert!(clock.now() < day + Duration::from_secs(11), "it comes back soon after there is room");
    }

    #[test]
    fn the_wish_to_stop_ends_the_wait_for_room() {
        let (clock, stop, patience) = patience(true);
        let ended = patience.insist("it", || {
            if clock.now() > Duration::from_secs(100) {
                stop.wish();
            }
            Err::<(), _>(io::Error::from(ErrorKind::StorageFull))
        });
        assert_eq!(ended.unwrap_err().exit, Exit::Io);
        assert!(clock.now() < Duration::from_secs(111));
        let begun = clock.now();
        assert!(patience.insist("it", || Err::<(), _>(io::Error::from(ErrorKind::StorageFull))).is_err());
        assert!(clock.now() - begun < Duration::from_secs(2), "and no other wait begins");
    }

    #[test]
    fn other_failures_are_tried_a_few_times() {
        for (is_endless, kind) in [(true, ErrorKind::PermissionDenied), (false, ErrorKind::StorageFull)] {
            let (_, _, patience) = patience(is_endless);
            let mut tries = 0;
            let ended = patience.insist("it", || {
                tries += 1;
                Err::<(), _>(io::Error::from(kind))
            });
            assert_eq!((ended.unwrap_err().exit, tries), (Exit::Io, WRITE_ATTEMPTS));
        }
    }
}
