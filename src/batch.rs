//! batch: slices become batches of one route each, chosen when the device can take one. A batch that is not full waits for
//! companions only while there may be some. Knows no device; which batch goes is decided in `schedule`.

use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, TrySendError};

use crate::clock::Clock;
use crate::error::Fatal;
use crate::parcel::{Batch, Work};
use crate::profile::{Crew, Profile, Step};
use crate::schedule::Scheduler;
use crate::upstream::Upstream;

/// Longest sleep without news: no event is missed by it, a clock that was set may be.
const IDLE: Duration = Duration::from_secs(3600);

/// The thread. `next` is who takes the batches.
///
/// # Errors
/// None.
pub fn run(
    mut held: Scheduler<Work>,
    clock: &dyn Clock,
    works: &Receiver<Work>,
    upstream: &Upstream,
    (batches, next): (&Sender<Batch>, Crew),
    profile: &Profile,
) -> Result<(), Fatal> {
    let mut is_open = true;
    while is_open || !held.is_empty() {
        // A batch is chosen no sooner than it can be handed over, so that an urgent slice that comes meanwhile is in time.
        // In this order: once it is dry, all that came of it lies in the channel.
        held.set_dry(upstream.is_dry() && works.is_empty());
        let wait = held.deadline().map(|deadline| deadline.saturating_sub(clock.now()));
        let is_due = wait.is_some_and(|wait| wait.is_zero());
        let mut select = Select::new();
        let receiving = (is_open && held.has_room()).then(|| select.recv(works));
        let drying = (!is_due && !held.is_empty()).then(|| select.recv(upstream.waker()));
        if is_due {
            select.send(batches);
        }
        // While a batch is due, only its hand-over or another slice matters.
        let news = match wait.filter(|_| !is_due) {
            Some(wait) => select.ready_timeout(wait),
            None => select.ready_timeout(IDLE),
        };
        match news {
            Err(_) => {}
            // Whether it is so is looked at above. Somebody else's word may have been taken: then there is none, which is fine.
            Ok(ready) if Some(ready) == drying => drop(upstream.waker().try_recv()),
            Ok(ready) if Some(ready) == receiving => match works.try_recv() {
                Ok(work) => {
                    held.push(clock.now(), work.route, work);
                    profile.waiting(Crew::Batch, held.len());
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    is_open = false;
                    held.end();
                }
            },
            Ok(_) => {
                let begun = clock.now();
                let Some((route, works)) = held.next(begun) else { continue };
                profile.queue(Crew::Batch, held.len());
                profile.add(Step::Gather, begun, clock.now(), works.len());
                match batches.try_send(Batch::new(route, works)) {
                    Ok(()) => profile.queue(next, batches.len()),
                    // Nobody else sends, so there is room; were there none, the batch would still not be lost.
                    Err(TrySendError::Full(batch)) => {
                        if batches.send(batch).is_err() {
                            return Ok(());
                        }
                    }
                    // The device's stage has failed; it reports that itself.
                    Err(TrySendError::Disconnected(_)) => return Ok(()),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::config::BatchSetting;
    use crate::limits::{BATCH_QUEUE, DEVICE_QUEUE, HELD_BATCHES};
    use crate::parcel::samples;

    fn work(route: usize, ticket: u64) -> Work {
        Work { route, ..samples::work(samples::origin(ticket), 0) }
    }

    #[test]
    fn a_slice_leaves_at_once_when_no_other_is_on_its_way() {
        let patience = Duration::from_secs(60);
        let held = Scheduler::new(&BatchSetting { slices_max: 4, wait_ms_max: 20 }, &[false]);
        let ((to_batch, for_batch), (to_device, for_device)) = (bounded(BATCH_QUEUE), bounded(DEVICE_QUEUE));
        let upstream = Arc::new(Upstream::new());
        let watched = Arc::clone(&upstream);
        // The clock stands still: nothing leaves because it waited for long.
        let stage = thread::spawn(move || {
            run(held, &ManualClock::default(), &for_batch, &watched, (&to_device, Crew::Device), &Profile::default())
        });
        to_batch.send(work(0, 0)).unwrap();
        assert_eq!(for_device.recv_timeout(patience).unwrap().works.len(), 1);
        // Two files are on their way; the second one is refused.
        upstream.enter();
        upstream.enter();
        to_batch.send(work(0, 1)).unwrap();
        upstream.leave();
        while !to_batch.is_empty() {
            thread::yield_now();
        }
        assert!(for_device.is_empty(), "the other one may be a companion");
        upstream.leave();
        assert_eq!(for_device.recv_timeout(patience).unwrap().works.len(), 1);
        drop(to_batch);
        stage.join().unwrap().unwrap();
    }

    #[test]
    fn an_urgent_slice_waits_for_one_batch_behind_the_running_one() {
        let setting = BatchSetting { slices_max: 1, wait_ms_max: 0 };
        let held = Scheduler::new(&setting, &[false, true]);
        let (to_batch, for_batch) = bounded(BATCH_QUEUE);
        let (to_device, for_device) = bounded(DEVICE_QUEUE);
        let upstream = Upstream::new();
        // Others are on their way, as behind a busy device.
        upstream.enter();
        let stage = thread::spawn(move || {
            run(held, &SystemClock::new(), &for_batch, &upstream, (&to_device, Crew::Device), &Profile::default())
        });
        // The device is busy: one batch is prefetched, all but one place in the queues are taken, then the urgent one comes.
        to_batch.send(work(0, 0)).unwrap();
        while for_device.is_empty() {
            thread::yield_now();
        }
        for ticket in 1..HELD_BATCHES as u64 {
            to_batch.send(work(0, ticket)).unwrap();
        }
        to_batch.send(work(1, 99)).unwrap();
        while !to_batch.is_empty() {
            thread::yield_now();
        }
        let mut tickets: Vec<(usize, u64)> = Vec::new();
        drop(to_batch);
        for batch in for_device {
            tickets.extend(batch.works.iter().map(|work| (batch.route, work.origin.ticket)));
        }
        assert_eq!(tickets, [(0, 0), (1, 99), (0, 1), (0, 2), (0, 3)]);
        stage.join().unwrap().unwrap();
    }
}
