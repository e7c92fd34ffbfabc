//! Which batch goes to the device next: a queue for each route, one bound on all of them, urgent routes first within a
//! bound. A pure state machine: it is told what came and when. Knows no thread and no device.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Tick;
use crate::config::BatchSetting;
use crate::limits::{HELD_BATCHES, URGENT_IN_A_ROW};

/// Slices that wait for the device, by route.
///
/// A route is *ready* when it holds a full batch, when its oldest slice has waited long enough, when no further slice is on
/// its way or the house is full so that none could come, or when the end is near. Of the ready routes the one whose oldest slice came
/// first goes, urgent routes before others; but after [`URGENT_IN_A_ROW`] urgent batches one other ready route has its
/// turn. So a ready route waits for no slice that came after its own, except in that many urgent batches for each
/// other one.
#[derive(Debug)]
pub struct Scheduler<T> {
    lanes: Vec<Lane<T>>,
    most: usize,
    wait: Duration,
    room: usize,
    n_held: usize,
    n_came: u64,
    urgent_in_a_row: usize,
    is_ending: bool,
    is_dry: bool,
}

#[derive(Debug)]
struct Lane<T> {
    urgent: bool,
    items: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    /// Number of the arrival, over all routes.
    number: u64,
    since: Tick,
    item: T,
}

impl<T> Scheduler<T> {
    /// A queue for each route, which is urgent or not.
    pub fn new(setting: &BatchSetting, urgent: &[bool]) -> Self {
        let most = setting.slices_max.max(1);
        Scheduler {
            lanes: urgent.iter().map(|urgent| Lane { urgent: *urgent, items: VecDeque::new() }).collect(),
            most,
            wait: Duration::from_millis(setting.wait_ms_max),
            room: most * HELD_BATCHES,
            n_held: 0,
            n_came: 0,
            urgent_in_a_row: 0,
            is_ending: false,
            is_dry: false,
        }
    }

    /// Whether another item may come.
    pub fn has_room(&self) -> bool {
        self.n_held < self.room
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.n_held == 0
    }

    /// How many items wait, of all routes.
    pub fn len(&self) -> usize {
        self.n_held
    }

    /// Adds an item of a route. The caller has asked for room.
    pub fn push(&mut self, now: Tick, route: usize, item: T) {
        self.lanes[route].items.push_back(Waiting { number: self.n_came, since: now, item });
        self.n_came += 1;
        self.n_held += 1;
    }

    /// Nothing more comes: what is held leaves without waiting.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Whether, as far as one can tell, nothing is on its way: then no batch waits to become fuller.
    pub fn set_dry(&mut self, is_dry: bool) {
        self.is_dry = is_dry;
    }

    /// The earliest time at which a route is ready, now or later, if nothing else happens.
    pub fn deadline(&self) -> Option<Tick> {
        self.lanes.iter().filter_map(|lane| self.ready_at(lane)).min()
    }

    /// Takes the batch whose turn it is: its route and at most `slices_max` items in the order in which they came.
    pub fn next(&mut self, now: Tick) -> Option<(usize, Vec<T>)> {
        let oldest = |urgent: bool| {
            let ready = self
                .lanes
                .iter()
                .enumerate()
                .filter(|(_, lane)| lane.urgent == urgent && self.ready_at(lane).is_some_and(|at| at <= now));
            ready.min_by_key(|(_, lane)| lane.items.front().map(|first| first.number)).map(|(route, _)| route)
        };
        let route = match (oldest(true), oldest(false)) {
            (Some(_), Some(other)) if self.urgent_in_a_row >= URGENT_IN_A_ROW => other,
            (Some(urgent), _) => urgent,
            (None, Some(other)) => other,
            (None, None) => return None,
        };
        let lane = &mut self.lanes[route];
        let n_items = lane.items.len().min(self.most);
        let items: Vec<T> = lane.items.drain(..n_items).map(|waiting| waiting.item).collect();
        self.urgent_in_a_row = if lane.urgent { self.urgent_in_a_row + 1 } else { 0 };
        self.n_held -= n_items;
        Some((route, items))
    }

    fn ready_at(&self, lane: &Lane<T>) -> Option<Tick> {
        let first = lane.items.front()?;
        let leaves_now = lane.items.len() >= self.most || self.is_ending || self.is_dry || !self.has_room();
        Some(if leaves_now { Tick::ZERO } else { first.since + self.wait })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scheduler<T>(slices_max: usize, urgent: &[bool]) -> Scheduler<T> {
        Scheduler::new(&BatchSetting { slices_max, wait_ms_max: 20 }, urgent)
    }

    const fn at(millis: u64) -> Tick {
        Duration::from_millis(millis)
    }

    #[test]
    fn full_batches_leave_at_once_and_others_after_the_wait() {
        let mut held = scheduler(2, &[false]);
        assert_eq!((held.deadline(), held.next(at(0))), (None, None));
        held.push(at(0), 0, 1);
        assert_eq!((held.next(at(0)), held.deadline()), (None, Some(at(20))));
        held.push(at(5), 0, 2);
        assert_eq!(held.next(at(5)), Some((0, vec![1, 2])));
        held.push(at(7), 0, 3);
        assert_eq!((held.next(at(26)), held.deadline()), (None, Some(at(27))));
        assert_eq!(held.next(at(27)), Some((0, vec![3])));
        held.push(at(30), 0, 4);
        held.end();
        assert_eq!((held.next(at(30)), held.is_empty()), (Some((0, vec![4])), true));
    }

    #[test]
    fn nobody_waits_for_companions_when_none_are_on_their_way() {
        let mut held = scheduler(4, &[false, false]);
        held.push(at(0), 0, 'a');
        held.push(at(0), 1, 'b');
        held.push(at(0), 0, 'c');
        assert_eq!((held.next(at(0)), held.deadline()), (None, Some(at(20))));
        held.set_dry(true);
        assert_eq!(held.deadline(), Some(Tick::ZERO));
        assert_eq!(held.next(at(0)), Some((0, vec!['a', 'c'])));
        held.set_dry(false);
        assert_eq!((held.next(at(1)), held.deadline()), (None, Some(at(20))), "and waits again when some are");
    }

    #[test]
    fn a_batch_holds_slices_of_one_route_and_the_longest_waiting_goes_first() {
        let mut held = scheduler(2, &[false, false, false]);
        for (route, item) in [(1, 'a'), (0, 'b'), (2, 'c'), (0, 'd'), (2, 'e')] {
            held.push(at(0), route, item);
        }
        assert_eq!(held.next(at(0)), Some((0, vec!['b', 'd'])), "the other one that came before is not full");
        assert_eq!(held.next(at(20)), Some((1, vec!['a'])));
        assert_eq!(held.next(at(20)), Some((2, vec!['c', 'e'])));
    }

    #[test]
    fn urgent_routes_go_first_but_not_for_ever() {
        let mut held = scheduler(1, &[false, true]);
        held.push(at(0), 0, 0);
        let mut taken = Vec::new();
        for item in 1..=URGENT_IN_A_ROW + 2 {
            held.push(at(1), 1, item);
            taken.push(held.next(at(1)).unwrap().0);
        }
        let mut expected = vec![1; URGENT_IN_A_ROW];
        expected.extend([0, 1]);
        assert_eq!(taken, expected);
    }

    #[test]
    fn the_shipped_file_tells_the_bounds() {
        let text = include_str!("../daemon.yaml").replace("\n#", "");
        assert!(text.contains(&format!("After {URGENT_IN_A_ROW} urgent batches in a row")));
        let queue = crate::limits::ADMITTED_QUEUE;
        assert!(text.contains(&format!("at most 2 x {queue} files and the slices of {HELD_BATCHES} batches")));
    }

    #[test]
    fn a_full_house_lets_batches_go_that_are_not_full() {
        let lanes = vec![false; HELD_BATCHES * 2];
        let mut held = scheduler(2, &lanes);
        let mut n_pushed = 0;
        while held.has_room() {
            assert_eq!(held.next(at(0)), None);
            held.push(at(0), n_pushed, n_pushed);
            n_pushed += 1;
        }
        assert_eq!((n_pushed, held.deadline()), (HELD_BATCHES * 2, Some(Tick::ZERO)));
        assert_eq!(held.next(at(0)), Some((0, vec![0])));
    }

    /// What happens to a scheduler.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Come(usize),
        Take,
        Wait(u64),
    }

    fn steps(n_routes: usize) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..n_routes).prop_map(Step::Come),
            1 => Just(Step::Take),
            1 => (0u64..30).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_reordered_oversized_or_starved(
            urgent in prop::collection::vec(any::<bool>(), 1..5),
            steps in steps(4),
            most in 1usize..5,
        ) {
            let mut held = scheduler(most, &urgent);
            let (mut now, mut came, mut left) = (Tick::ZERO, vec![Vec::new(); urgent.len()], vec![Vec::new(); urgent.len()]);
            // For each route: batches of others since it became ready, those of urgent routes among them in a row.
            let mut waited = vec![0usize; urgent.len()];
            let mut n_items = 0u32;
            let older = |held: &Scheduler<u32>, route: usize| {
                let first = held.lanes[route].items.front().map_or(u64::MAX, |first| first.number);
                let all = held.lanes.iter().flat_map(|lane| &lane.items);
                all.filter(|item| item.number < first).count()
            };
            let mut bound = vec![0usize; urgent.len()];
            let end = std::iter::repeat_n(Step::Take, held.room + 1);
            for (idx, step) in steps.iter().copied().chain(end).enumerate() {
                if idx == steps.len() {
                    held.end();
                }
                match step {
                    Step::Wait(millis) => now += at(millis),
                    Step::Come(route) => {
                        let route = route % urgent.len();
                        if held.has_room() {
                            held.push(now, route, n_items);
                            came[route].push(n_items);
                            n_items += 1;
                        }
                    }
                    Step::Take => {
                        let ready: Vec<bool> =
                            held.lanes.iter().map(|lane| held.ready_at(lane).is_some_and(|at| at <= now)).collect();
                        for route in 0..urgent.len() {
                            if ready[route] && waited[route] == 0 {
                                // Each older slice may cost a batch, and each of those and its own turn some urgent ones.
                                let turns = older(&held, route);
                                bound[route] = if urgent[route] { 2 * turns + 1 } else { (turns + 1) * (URGENT_IN_A_ROW + 1) };
                            }
                        }
                        let taken = held.next(now);
                        prop_assert_eq!(taken.is_some(), ready.contains(&true));
                        let Some((route, items)) = taken else { continue };
                        prop_assert!(ready[route] && !items.is_empty() && items.len() <= most);
                        left[route].extend(items);
                        for other in 0..urgent.len() {
                            let still = ready[other] && other != route;
                            waited[other] = if still { waited[other] + 1 } else { 0 };
                            prop_assert!(waited[other] <= bound[other], "route {} waited for {} batches", other, waited[other]);
                        }
                    }
                }
                let n_held: usize = held.lanes.iter().map(|lane| lane.items.len()).sum();
                prop_assert!(n_held == held.n_held && n_held <= held.room);
            }
            prop_assert!(held.is_empty());
            prop_assert_eq!(came, left);
        }
    }
}
