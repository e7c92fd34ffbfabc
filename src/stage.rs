//! Named threads that stop together. Knows nothing of what they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Exit, Fatal};

/// A wish to stop that any thread can voice and any thread can wait for.
#[derive(Clone, Debug)]
pub struct Stop {
    wished: Arc<AtomicBool>,
    // Nothing is ever sent: waiting threads wake when the sender is gone.
    keeper: Arc<std::sync::Mutex<Option<Sender<()>>>>,
    waker: Receiver<()>,
}

impl Stop {
    /// Not wished yet.
    pub fn new() -> Self {
        let (keeper, waker) = bounded(0);
        Stop { wished: Arc::new(AtomicBool::new(false)), keeper: Arc::new(std::sync::Mutex::new(Some(keeper))), waker }
    }

    /// Wishes it.
    pub fn wish(&self) {
        self.wished.store(true, Ordering::SeqCst);
        self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Whether it was wished.
    pub fn is_wished(&self) -> bool {
        self.wished.load(Ordering::SeqCst)
    }

    /// Becomes ready, with an error, when it is wished: for `select!`.
    pub fn waker(&self) -> &Receiver<()> {
        &self.waker
    }
}

impl Default for Stop {
    fn default() -> Self {
        Stop::new()
    }
}

/// A running stage.
#[derive(Debug)]
pub struct Stage {
    name: String,
    handle: JoinHandle<Result<(), Fatal>>,
}

/// Starts a named thread. If it fails or panics, the wish to stop is voiced, so that the whole pipeline ends.
///
/// # Errors
/// The system has no thread left.
pub fn spawn<F>(name: &str, stop: &Stop, work: F) -> Result<Stage, Fatal>
where
    F: FnOnce() -> Result<(), Fatal> + Send + 'static,
{
    let guard = WishOnFailure { stop: stop.clone(), armed: true };
    let body = move || {
        let mut guard = guard;
        let ended = work();
        guard.armed = ended.is_err();
        ended
    };
    let handle = thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| Fatal::io(format!("cannot start the thread {name}: {error}")))?;
    Ok(Stage { name: name.to_owned(), handle })
}

struct WishOnFailure {
    stop: Stop,
    armed: bool,
}

impl Drop for WishOnFailure {
    fn drop(&mut self) {
        if self.armed {
            self.stop.wish();
        }
    }
}

impl Stage {
    /// Waits for its end.
    ///
    /// # Errors
    /// Its own error, or that it panicked, which is a bug.
    pub fn join(self) -> Result<(), Fatal> {
        match self.handle.join() {
            Ok(ended) => ended,
            Err(_) => Err(Fatal::new(Exit::Bug, format!("the stage {} panicked; this is a bug", self.name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_stops_the_others_and_is_reported() {
        let stop = Stop::new();
        let waiting = stop.clone();
        let idle = spawn("idle", &stop, move || {
            let _ = waiting.waker().recv();
            Ok(())
        })
        .unwrap();
        let broken = spawn("broken", &stop, || panic!("on purpose")).unwrap();
        assert_eq!(broken.join().unwrap_err().exit, Exit::Bug);
        idle.join().unwrap();
        assert!(stop.is_wished());
    }
}
