//! Where the time of a run goes: what the threads do and wait for, and how full the queues before them are, so that one can
//! see which of them is the limit. Always kept, as it costs a few additions a batch. Knows no stage.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::clock::Tick;

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Crew {
    /// The one that lets files in.
    Admit,
    /// The decoding threads.
    Decode,
    /// The one that gathers batches.
    Batch,
    /// The one that brings slices to a GPU.
    Upload,
    /// The one that owns the device.
    Device,
    /// The one that records.
    Record,
}

/// A step of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looking at files that were sighted. Counts sightings.
    Notice,
    /// Looking once more and asking the record. Counts files.
    Admit,
    /// Reading a file and its digest. Counts files.
    Read,
    /// The walk ahead, header and pixels. Counts files.
    Decode,
    /// Digests of pictures, routes, what is known of them. Counts slices.
    Identify,
    /// Gathering slices into batches. Counts slices.
    Gather,
    /// Upload, windows and resizing for a GPU that is busy with slices before them. Counts slices.
    Upload,
    /// Windows and resizing, with the upload if there is one. Counts slices.
    Window,
    /// The networks. Counts slices.
    Network,
    /// Result files, synced. Counts slices.
    Results,
    /// Synced commits to the ledger. Counts commits.
    Ledger,
    /// Lines of the daily log, synced. Counts commits.
    Log,
    /// Moving and deleting inputs. Counts files.
    Inputs,
}

/// An inbox is looked at for ever, whether there is something to do or not: that is no part of a run and never its limit.
const NOTICE: &str = "notice";

const STEPS: [(Step, Crew, &str); 13] = [
    (Step::Notice, Crew::Admit, NOTICE),
    (Step::Admit, Crew::Admit, "admit"),
    (Step::Read, Crew::Decode, "read"),
    (Step::Decode, Crew::Decode, "decode"),
    (Step::Identify, Crew::Decode, "identify"),
    (Step::Gather, Crew::Batch, "gather"),
    (Step::Upload, Crew::Upload, "upload"),
    (Step::Window, Crew::Device, "window"),
    (Step::Network, Crew::Device, "network"),
    (Step::Results, Crew::Record, "results"),
    (Step::Ledger, Crew::Record, "ledger"),
    (Step::Log, Crew::Record, "log"),
    (Step::Inputs, Crew::Record, "inputs"),
];

const CREWS: [Crew; 6] = [Crew::Admit, Crew::Decode, Crew::Batch, Crew::Upload, Crew::Device, Crew::Record];

impl Crew {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Crew::Admit => "admit",
            Crew::Decode => "decode",
            Crew::Batch => "batch",
            Crew::Upload => "upload",
            Crew::Device => "device",
            Crew::Record => "record",
        }
    }

    /// The step of which each item that leaves it has had one, and what that step counts.
    fn last_step(self) -> (Step, &'static str) {
        match self {
            Crew::Admit => (Step::Admit, "files"),
            Crew::Decode => (Step::Identify, "slices"),
            Crew::Batch => (Step::Gather, "slices"),
            Crew::Upload => (Step::Upload, "slices"),
            Crew::Device => (Step::Network, "slices"),
            Crew::Record => (Step::Results, "slices"),
        }
    }
}

#[derive(Debug, Default)]
struct Meter {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// What a crew waits for and what waits for it.
#[derive(Debug, Default)]
struct Door {
    /// Time in which it held something that the next crew had no room for.
    held_up: AtomicU64,
    looks: AtomicU64,
    waiting: AtomicU64,
    now: AtomicU64,
    most: AtomicU64,
}

/// The running figures. Shared by all stages.
#[derive(Debug)]
pub struct Profile {
    meters: [Meter; STEPS.len()],
    doors: [Door; CREWS.len()],
    first: AtomicU64,
    last: AtomicU64,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            meters: Default::default(),
            doors: Default::default(),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
        }
    }
}

fn nanos(tick: Tick) -> u64 {
    u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX)
}

fn secs(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Profile {
    /// A step was done `count` times from `begun` to `ended`.
    pub fn add(&self, step: Step, begun: Tick, ended: Tick, count: usize) {
        let meter = &self.meters[step as usize];
        meter.count.fetch_add(count as u64, Ordering::Relaxed);
        meter.nanos.fetch_add(nanos(ended.saturating_sub(begun)), Ordering::Relaxed);
        // A run lasts as long as there is something to do.
        if step != Step::Notice {
            self.first.fetch_min(nanos(begun), Ordering::Relaxed);
            self.last.fetch_max(nanos(ended), Ordering::Relaxed);
        }
    }

    /// A thread of this crew found so much waiting for it when it took something.
    pub fn waiting(&self, crew: Crew, len: usize) {
        let door = &self.doors[crew as usize];
        door.looks.fetch_add(1, Ordering::Relaxed);
        door.waiting.fetch_add(len as u64, Ordering::Relaxed);
        self.queue(crew, len);
    }

    /// So much waits for this crew now, as who puts it there sees it.
    pub fn queue(&self, crew: Crew, len: usize) {
        let door = &self.doors[crew as usize];
        door.now.store(len as u64, Ordering::Relaxed);
        door.most.fetch_max(len as u64, Ordering::Relaxed);
    }

    /// A thread of this crew had to wait to hand something on.
    pub fn held_up(&self, crew: Crew, begun: Tick, ended: Tick) {
        self.doors[crew as usize].held_up.fetch_add(nanos(ended.saturating_sub(begun)), Ordering::Relaxed);
    }

    /// The figures so far, of `decode_threads` decoding threads. `None` if nothing was done yet.
    pub fn report(&self, decode_threads: usize) -> Option<ProfileReport> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (first, last) = (read(&self.first), read(&self.last));
        let elapsed_s = secs(last.checked_sub(first)?).max(1e-9);
        let mut crews: Vec<CrewReport> = Vec::new();
        for (crew, door) in CREWS.into_iter().zip(&self.doors) {
            // A CPU has no such thread.
            if crew == Crew::Upload && read(&self.meters[Step::Upload as usize].count) == 0 {
                continue;
            }
            let threads = if crew == Crew::Decode { decode_threads.max(1) } else { 1 };
            let of_crew = STEPS.iter().zip(&self.meters).filter(|((_, of, _), _)| *of == crew);
            let steps: Vec<StepReport> = of_crew
                .map(|((_, _, name), meter)| {
                    let (count, busy_s) = (read(&meter.count), secs(read(&meter.nanos)));
                    let share = busy_s / (elapsed_s * threads as f64);
                    let share = if *name == NOTICE { share.min(1.0) } else { share };
                    StepReport { step: name, count, busy_s, share, ms_each: busy_s * 1e3 / count.max(1) as f64 }
                })
                .collect();
            let looks = read(&door.looks).max(1) as f64;
            crews.push(CrewReport {
                crew,
                threads,
                busy: steps.iter().filter(|step| step.step != NOTICE).map(|step| step.share).sum(),
                held_up: secs(read(&door.held_up)) / (elapsed_s * threads as f64),
                done: read(&self.meters[crew.last_step().0 as usize].count),
                unit: crew.last_step().1,
                held_up_s: secs(read(&door.held_up)),
                queue_mean: read(&door.waiting) as f64 / looks,
                queue_now: read(&door.now),
                queue_most: read(&door.most),
                steps,
            });
        }
        let busiest = crews.iter().max_by(|a, b| a.busy.total_cmp(&b.busy))?;
        let steps = busiest.steps.iter().filter(|step| step.step != NOTICE);
        let limit = steps.max_by(|a, b| a.share.total_cmp(&b.share))?.step;
        Some(ProfileReport { elapsed_s, limit, crews })
    }
}

/// Where the time went.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileReport {
    /// Seconds from the first step to the end of the last one.
    pub elapsed_s: f64,
    /// The step that takes most of the busiest crew's time.
    pub limit: &'static str,
    /// What the crews did.
    pub crews: Vec<CrewReport>,
}

/// What one crew did.
#[derive(Clone, Debug, Serialize)]
pub struct CrewReport {
    /// Which one.
    pub crew: Crew,
    /// Its threads.
    pub threads: usize,
    /// Share of its threads' time in which they worked; looking at the inbox is not counted.
    pub busy: f64,
    /// Share in which they waited to hand something on; the rest they waited for something to do.
    pub held_up: f64,
    /// The same in seconds of all its threads.
    pub held_up_s: f64,
    /// What it has handed on.
    pub done: u64,
    /// Of what.
    pub unit: &'static str,
    /// What waits for it now, as far as was seen last.
    pub queue_now: u64,
    /// What waited for it when it took something, on average.
    pub queue_mean: f64,
    /// And at most.
    pub queue_most: u64,
    /// Its steps.
    pub steps: Vec<StepReport>,
}

/// What one step took.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: &'static str,
    /// How often it was done.
    pub count: u64,
    /// Seconds of all threads.
    pub busy_s: f64,
    /// Share of its crew's time.
    pub share: f64,
    /// Milliseconds each time.
    pub ms_each: f64,
}

impl fmt::Display for ProfileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{:>8}{:>10}{:>11}{:>10}{:>8}", "step", "threads", "count", "busy s", "ms each", "busy")?;
        for crew in &self.crews {
            for step in &crew.steps {
                let StepReport { step, count, busy_s, share, ms_each } = step;
                let share = share * 100.0;
                writeln!(f, "{step:<10}{:>8}{count:>10}{busy_s:>11.3}{ms_each:>10.3}{share:>6.1} %", crew.threads)?;
            }
        }
        writeln!(
            f,
            "\n{:<10}{:>8}{:>10}{:>9}{:>12}{:>12}",
            "threads", "busy", "held up", "idle", "queue mean", "queue most"
        )?;
        for CrewReport { crew, busy, held_up, queue_mean, queue_most, .. } in &self.crews {
            let name = crew.name();
            let idle = (1.0 - busy - held_up).max(0.0);
            let [busy, held_up, idle] = [busy, held_up, &idle].map(|share| share * 100.0);
            writeln!(f, "{name:<10}{busy:>6.1} %{held_up:>8.1} %{idle:>7.1} %{queue_mean:>12.1}{queue_most:>12}")?;
        }
        write!(f, "\nThe limit is: {} ({:.1} s in all).", self.limit, self.elapsed_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    #[test]
    fn names_and_places_agree() {
        for (place, (step, ..)) in STEPS.iter().enumerate() {
            assert_eq!(*step as usize, place);
        }
        for (place, crew) in CREWS.iter().enumerate() {
            assert_eq!(*crew as usize, place);
        }
    }

    #[test]
    fn the_busiest_thread_is_the_limit_and_shares_are_of_its_crew() {
        let profile = Profile::default();
        assert!(profile.report(2).is_none(), "nothing was done yet");
        // Two decoding threads work 600 ms of 1000 each; the one device 900 ms.
        for begun in [0, 100] {
            profile.add(Step::Read, at(begun), at(begun + 100), 1);
            profile.add(Step::Decode, at(begun + 100), at(begun + 600), 1);
        }
        profile.held_up(Crew::Decode, at(700), at(900));
        profile.add(Step::Window, at(100), at(200), 2);
        profile.add(Step::Network, at(200), at(1000), 2);
        profile.add(Step::Notice, at(0), at(5000), 7);
        profile.waiting(Crew::Record, 3);
        profile.waiting(Crew::Record, 0);
        profile.queue(Crew::Record, 2);
        profile.queue(Crew::Device, 1);
        let report = profile.report(2).unwrap();
        assert_eq!((report.elapsed_s, report.limit), (1.0, "network"));
        let shares: Vec<(f64, f64)> = report.crews.iter().map(|crew| (crew.busy, crew.held_up)).collect();
        let expected = [(0.0, 0.0), (0.6, 0.1), (0.0, 0.0), (0.9, 0.0), (0.0, 0.0)];
        for ((busy, held_up), (a, b)) in shares.iter().zip(expected) {
            assert!((busy - a).abs() < 1e-9 && (held_up - b).abs() < 1e-9, "{shares:?}");
        }
        let record = &report.crews[4];
        assert_eq!((record.queue_mean, record.queue_now, record.queue_most), (1.5, 2, 3));
        let device = &report.crews[3];
        assert_eq!((device.done, device.unit, device.queue_now), (2, "slices", 1));
        let network = &device.steps[1];
        assert_eq!((network.count, network.ms_each), (2, 400.0));
        let text = report.to_string();
        assert!(!text.contains("upload"), "{text}");
        assert!(text.contains("The limit is: network (1.0 s in all)."), "{text}");
        assert!(text.contains("decode      60.0 %    10.0 %   30.0 %"), "{text}");
        profile.add(Step::Upload, at(100), at(350), 2);
        let text = profile.report(2).unwrap().to_string();
        assert!(text.contains("upload      25.0 %     0.0 %   75.0 %"), "{text}");
    }
}
