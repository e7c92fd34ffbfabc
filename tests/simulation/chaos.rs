//! What goes wrong, and when: all of it follows from the seed. Disk, clock and ledger ask here before every step.

use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True this often in a thousand.
    pub fn permille(&mut self, share: u64) -> bool {
        self.below(1000) < share
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }
}

/// How a process ends without having a say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL: what was written stays in the page cache.
    Kill,
    /// What was not synced may be lost, torn or kept.
    PowerCut,
}

/// Thrown through the daemon's code when it is ended.
pub struct Crash;

/// A step of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Stat,
    Open,
    Read,
    Write,
    Sync,
    Rename,
    Unlink,
    Other,
}

/// What may fail at present.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Steps of the disk in a thousand that fail with EIO.
    pub eio: u64,
    /// Renames in a thousand that happen and still report a failure.
    pub lost_replies: u64,
    /// Writes in a thousand that write only a part.
    pub short_writes: u64,
    /// Milliseconds that a step of the disk may take.
    pub slow_ms: u64,
    /// Steps of the ledger in a thousand that fail with an I/O error.
    pub ledger_eio: u64,
    /// The ledger's disk is full until this time in milliseconds.
    pub ledger_full_until: u64,
    /// Until this time in milliseconds no file in the inbox can be read.
    pub inbox_down_until: u64,
    /// Batches in a thousand at which the device fails.
    pub device: u64,
    /// Most slices that the device has memory for at a time; 0 is any number.
    pub device_slices: u64,
}

struct State {
    rng: Rng,
    crash_in: Option<(u32, End)>,
    dead: Option<End>,
    weather: Weather,
    decoding: Option<PathBuf>,
    faults: u64,
    steps: u64,
}

/// The source of all trouble.
pub struct Chaos(Mutex<State>);

impl Chaos {
    pub fn new(seed: u64) -> Chaos {
        Chaos(Mutex::new(State {
            rng: Rng::new(seed ^ 0x5EED),
            crash_in: None,
            dead: None,
            weather: Weather::default(),
            decoding: None,
            faults: 0,
            steps: 0,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step of the daemon. It may be its last one. `false` if it is dead: then nothing happens any more.
    pub fn step(&self) -> bool {
        let mut state = self.state();
        if state.dead.is_some() {
            return false;
        }
        state.steps += 1;
        match &mut state.crash_in {
            Some((0, end)) => {
                let end = *end;
                state.crash_in = None;
                state.dead = Some(end);
                drop(state);
                resume_unwind(Box::new(Crash))
            }
            Some((steps, _)) => *steps -= 1,
            None => {}
        }
        true
    }

    /// Whether this step of the disk fails, and how long it takes.
    pub fn disk(&self, op: Op) -> (u64, io::Result<()>) {
        let mut state = self.state();
        let weather = state.weather.clone();
        let slow = if weather.slow_ms > 0 { state.rng.below(weather.slow_ms + 1) } else { 0 };
        // A name that is looked up is in the cache; everything else reaches the disk.
        let fails = op != Op::Other && state.rng.permille(weather.eio);
        state.faults += u64::from(fails);
        (slow, if fails { Err(eio()) } else { Ok(()) })
    }

    /// How many of so many bytes a write takes.
    pub fn short(&self, len: usize) -> usize {
        let mut state = self.state();
        let share = state.weather.short_writes;
        if len > 1 && state.rng.permille(share) {
            state.faults += 1;
            1 + state.rng.index(len - 1)
        } else {
            len
        }
    }

    /// Whether a rename that happened reports a failure.
    pub fn loses_reply(&self) -> bool {
        let mut state = self.state();
        let share = state.weather.lost_replies;
        let lost = state.rng.permille(share);
        state.faults += u64::from(lost);
        lost
    }

    pub fn ledger(&self, now_ms: u64) -> Option<LedgerFault> {
        let mut state = self.state();
        let weather = state.weather.clone();
        let fault = if now_ms < weather.ledger_full_until {
            Some(LedgerFault::Full)
        } else {
            state.rng.permille(weather.ledger_eio).then_some(LedgerFault::Io)
        };
        state.faults += u64::from(fault.is_some());
        fault
    }

    pub fn device(&self) -> Option<u64> {
        let mut state = self.state();
        let share = state.weather.device;
        let fault = state.rng.permille(share).then(|| state.rng.next());
        state.faults += u64::from(fault.is_some());
        fault
    }

    pub fn set_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.state().weather);
    }

    pub fn weather(&self) -> Weather {
        self.state().weather.clone()
    }

    /// Faults and full disks so far.
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    pub fn count_fault(&self) {
        self.state().faults += 1;
    }

    /// Ends the daemon after so many more steps.
    pub fn crash_in(&self, steps: u32, end: End) {
        self.state().crash_in = Some((steps, end));
    }

    /// Takes that back.
    pub fn disarm(&self) -> Option<(u32, End)> {
        self.state().crash_in.take()
    }

    pub fn arm(&self, crash_in: Option<(u32, End)>) {
        self.state().crash_in = crash_in;
    }

    /// Steps of the daemon so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    pub fn set_decoding(&self, path: Option<PathBuf>) {
        self.state().decoding = path;
    }

    pub fn is_decoding(&self, path: &Path) -> bool {
        self.state().decoding.as_deref() == Some(path)
    }

    pub fn decoding(&self) -> Option<PathBuf> {
        self.state().decoding.clone()
    }

    pub fn dead(&self) -> Option<End> {
        self.state().dead
    }

    pub fn kill(&self, end: End) {
        self.state().dead = Some(end);
    }

    /// A new process begins.
    pub fn revive(&self) {
        let mut state = self.state();
        (state.dead, state.crash_in, state.decoding) = (None, None, None);
    }
}

/// What the ledger fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerFault {
    Full,
    Io,
}

pub fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}
