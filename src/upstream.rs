//! How many files are on their way to the batches: admitted, and not yet handed on by the decoder. While there are none
//! no companion can come, and a batch that waits for one waits in vain. Knows no stage.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Shared by those who let files in, those who decode them, and the one who waits for what comes of them.
#[derive(Debug)]
pub struct Upstream {
    n_files: AtomicUsize,
    dried: Sender<()>,
    waker: Receiver<()>,
}

impl Upstream {
    /// Nothing is on its way.
    pub fn new() -> Self {
        // One word that nobody has heard yet says as much as many.
        let (dried, waker) = bounded(1);
        Upstream { n_files: AtomicUsize::new(0), dried, waker }
    }

    /// A file sets out. To be said before it is sent.
    pub fn enter(&self) {
        self.n_files.fetch_add(1, Ordering::SeqCst);
    }

    /// All that came of a file has been handed on. To be said after it was.
    pub fn leave(&self) {
        let before = self.n_files.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a file left that never set out; this is a bug");
        if before == 1 {
            // Full: the word is out already.
            let _ = self.dried.try_send(());
        }
    }

    /// Whether nothing is on its way. What was handed on before lies with its receiver by then.
    pub fn is_dry(&self) -> bool {
        self.n_files.load(Ordering::SeqCst) == 0
    }

    /// Becomes ready when the last file has been handed on: for `select!`. It may be out of date; [`Upstream::is_dry`] is
    /// the truth.
    pub fn waker(&self) -> &Receiver<()> {
        &self.waker
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_file_wakes_who_waits() {
        let upstream = Upstream::new();
        assert!(upstream.is_dry() && upstream.waker().try_recv().is_err());
        upstream.enter();
        upstream.enter();
        upstream.leave();
        assert!(!upstream.is_dry() && upstream.waker().try_recv().is_err());
        upstream.leave();
        assert!(upstream.is_dry());
        upstream.enter();
        upstream.leave();
        assert!(upstream.waker().try_recv().is_ok(), "said once, however often it dried");
        assert!(upstream.waker().try_recv().is_err());
    }
}
