//! batch: slices become batches, full or overdue. Knows no device.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::clock::{Clock, Tick};
use crate::config::BatchSetting;
use crate::error::Fatal;
use crate::parcel::{Batch, Work};

/// Collects items until there are enough of them or the first has waited long enough. A pure state machine.
#[derive(Debug)]
pub struct Batcher<T> {
    items: Vec<T>,
    since: Tick,
    most: usize,
    wait: Duration,
}

impl<T> Batcher<T> {
    /// Batches of at most `slices_max`, kept for at most `wait_ms_max`.
    pub fn new(setting: &BatchSetting) -> Self {
        let wait = Duration::from_millis(setting.wait_ms_max);
        Batcher { items: Vec::new(), since: Tick::ZERO, most: setting.slices_max.max(1), wait }
    }

    /// Adds an item; answers with a batch if it is full now.
    pub fn push(&mut self, now: Tick, item: T) -> Option<Vec<T>> {
        if self.items.is_empty() {
            self.since = now;
        }
        self.items.push(item);
        (self.items.len() >= self.most).then(|| std::mem::take(&mut self.items))
    }

    /// The time at which what is held must leave.
    pub fn deadline(&self) -> Option<Tick> {
        (!self.items.is_empty()).then(|| self.since + self.wait)
    }

    /// What is held, if it is overdue.
    pub fn overdue(&mut self, now: Tick) -> Option<Vec<T>> {
        self.deadline().filter(|deadline| *deadline <= now).map(|_| std::mem::take(&mut self.items))
    }

    /// What is held, if anything.
    pub fn rest(&mut self) -> Option<Vec<T>> {
        (!self.items.is_empty()).then(|| std::mem::take(&mut self.items))
    }
}

/// The thread.
///
/// # Errors
/// None.
pub fn run(
    setting: &BatchSetting,
    clock: &dyn Clock,
    works: &Receiver<Work>,
    batches: &Sender<Batch>,
) -> Result<(), Fatal> {
    let mut batcher = Batcher::new(setting);
    loop {
        let received = match batcher.deadline() {
            None => works.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => works.recv_timeout(deadline.saturating_sub(clock.now())),
        };
        let full = match received {
            Ok(work) => batcher.push(clock.now(), work),
            Err(RecvTimeoutError::Timeout) => batcher.overdue(clock.now()),
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(works) = batcher.rest() {
                    // A closed channel means that the device's stage has failed; it reports that itself.
                    let _ = batches.send(Batch { works });
                }
                return Ok(());
            }
        };
        if let Some(works) = full
            && batches.send(Batch { works }).is_err()
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batcher(slices_max: usize) -> Batcher<u32> {
        Batcher::new(&BatchSetting { slices_max, wait_ms_max: 20 })
    }

    #[test]
    fn full_batches_leave_at_once_and_others_after_the_wait() {
        let at = Duration::from_millis;
        let mut batcher = batcher(2);
        assert_eq!(batcher.deadline(), None);
        assert_eq!(batcher.push(at(0), 1), None);
        assert_eq!(batcher.push(at(5), 2), Some(vec![1, 2]));
        assert_eq!(batcher.push(at(7), 3), None);
        assert_eq!(batcher.deadline(), Some(at(27)));
        assert_eq!(batcher.overdue(at(26)), None);
        assert_eq!(batcher.overdue(at(27)), Some(vec![3]));
        assert_eq!(batcher.rest(), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_reordered_or_late(gaps in prop::collection::vec(0u64..30, 0..60), most in 1usize..9) {
            let mut batcher = batcher(most);
            let (mut now, mut out) = (Duration::ZERO, Vec::new());
            let mut entered = Vec::new();
            for (item, gap) in (0u32..).zip(&gaps) {
                now += Duration::from_millis(*gap);
                while let Some(deadline) = batcher.deadline().filter(|deadline| *deadline <= now) {
                    let batch = batcher.overdue(deadline).expect("overdue");
                    out.push((deadline, batch));
                }
                entered.push(now);
                if let Some(batch) = batcher.push(now, item) {
                    out.push((now, batch));
                }
            }
            out.extend(batcher.rest().map(|batch| (now, batch)));
            let items: Vec<u32> = out.iter().flat_map(|(_, batch)| batch.clone()).collect();
            prop_assert_eq!(items, (0..gaps.len() as u32).collect::<Vec<_>>());
            for (left, batch) in &out {
                prop_assert!(!batch.is_empty() && batch.len() <= most);
                prop_assert!(*left - entered[batch[0] as usize] <= Duration::from_millis(20));
            }
        }
    }
}
