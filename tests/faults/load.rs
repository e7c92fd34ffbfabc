//! Bursts at twice the rate that can be kept up, and a soak: memory, descriptors, waits, accounts.

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::limits::memory_kib;
use super::tools::{Program, Stamp, assert_all_done_once, number, put_slices, results, site};
use crate::support::{Site, files};

/// What a daemon held at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rss_kib: u64,
    descriptors: usize,
}

fn sample(program: &Program) -> Sample {
    let pid = program.child.id();
    Sample { rss_kib: memory_kib(pid, "VmRSS"), descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() }
}

fn n_in(site: &Site, folder: &str) -> u64 {
    fs::read_dir(site.path(folder)).map_or(0, |entries| entries.count() as u64)
}

/// Slices a second while nothing but the daemon limits them.
fn sustainable(site: &Site, stamp: &Stamp, program: &mut Program, n: u64) -> f64 {
    put_slices(site, stamp, 0..n);
    program.wait_until("a fifth of the first", || n_in(site, "done") >= n / 5);
    let (begun, before) = (Instant::now(), n_in(site, "done"));
    program.wait_until("the first slices", || n_in(site, "done") >= n * 9 / 10);
    (n_in(site, "done") - before) as f64 / begun.elapsed().as_secs_f64()
}

/// Bursts of slices at twice the sustainable rate with pauses of the same length, so that all of it can be done in the
/// end: the backlog waits in the inbox and not in memory, nobody starves, all are accounted for.
#[test]
fn bursts_at_twice_the_sustainable_rate_cost_no_memory_and_no_slice() {
    let n_slices = number("ICHD_LOAD_SLICES", 2000);
    let site = site("move", "batch: { slices_max: 16, wait_ms_max: 20 }\n");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    program.wait_for_log("Ready.");
    let n_first = (n_slices / 10).min(1000);
    let rate = sustainable(&site, &stamp, &mut program, n_first);
    let settled = sample(&program);
    let burst = ((rate * 4.0) as u64).clamp(100, n_slices);
    let (mut next, mut peak, mut most_waiting) = (n_first, settled, 0);
    // When the oldest slices of a group were put there, to know the longest wait.
    let mut put: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    let mut looked = begun;
    while next < n_slices || !put.is_empty() {
        assert!(program.is_running(), "{}", program.log());
        // A machine that stood still as a whole starved nobody.
        let pause = looked.elapsed();
        if pause > Duration::from_secs(5) {
            put.iter_mut().for_each(|(_, at)| *at += pause);
        }
        looked = Instant::now();
        // On for two seconds at twice the rate, off for two.
        let is_on = begun.elapsed().as_secs() % 4 < 2;
        if is_on && next < n_slices {
            let pace = Duration::from_secs_f64(50.0 / (2.0 * rate));
            let last = (next + 50).min(n_slices);
            let at = Instant::now();
            put_slices(&site, &stamp, next..last);
            put.push_back((last - 1, at));
            next = last;
            std::thread::sleep(pace.saturating_sub(at.elapsed()));
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
        let now = sample(&program);
        peak.rss_kib = peak.rss_kib.max(now.rss_kib);
        peak.descriptors = peak.descriptors.max(now.descriptors);
        most_waiting = most_waiting.max(n_in(&site, "inbox"));
        while let Some((last, at)) = put.front() {
            if !site.path(&format!("done/{last}.dcm")).exists() {
                longest = longest.max(at.elapsed());
                break;
            }
            put.pop_front();
        }
    }
    program.wait_until("the last ones", || n_in(&site, "done") == n_slices);
    let secs = begun.elapsed().as_secs_f64();
    let log = program.stop();
    assert!(log.contains(&format!("{n_slices} files: {n_slices} done, 0 duplicates, 0 rejected")), "{log}");
    assert_all_done_once(site.folder.path(), n_slices);
    let in_process: Vec<f64> = {
        let found = results(&site.path("results"));
        let times = found.values().map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap());
        times.map(|result| result["timings_ms"]["admitted_to_result"].as_f64().unwrap() / 1000.0).collect()
    };
    let slowest = in_process.iter().copied().fold(0.0, f64::max);
    println!(
        "{n_slices} slices, {rate:.0} a second can be kept up, bursts at {:.0}; all done after {secs:.0} s; \
         at most {most_waiting} waited in the inbox; longest wait {:.1} s, of that in the daemon {slowest:.1} s; \
         memory {} KiB settled, {} KiB at most; descriptors {} settled, {} at most",
        2.0 * rate,
        longest.as_secs_f64(),
        settled.rss_kib,
        peak.rss_kib,
        settled.descriptors,
        peak.descriptors,
    );
    assert!(most_waiting > burst / 10, "the backlog was never visible");
    // What is in flight is bounded by queues, whatever waits outside.
    assert!(peak.rss_kib < settled.rss_kib + 64 * 1024, "{peak:?} after {settled:?}");
    // Up to 32 results are open at a time while they are written.
    assert!(peak.descriptors <= settled.descriptors + 48, "{peak:?} after {settled:?}");
    // First come, first served: nobody waits much longer than the backlog takes.
    let fair = 10.0 + 4.0 * most_waiting as f64 / rate;
    assert!(longest.as_secs_f64() < fair, "a slice starved: {longest:?}, {fair:.1} s would be fair");
}

/// Rounds of all that happens in a day, one after the other without the pauses: bursts, refusals, duplicates, late slices,
/// idle moments. Memory and descriptors must not grow from round to round.
#[test]
fn a_soak_leaves_memory_and_descriptors_flat() {
    let rounds = number("ICHD_SOAK_ROUNDS", 8).max(6);
    let site = site("delete", "");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    program.wait_for_log("Ready.");
    let begun = Instant::now();
    let mut samples = Vec::new();
    for round in 0..rounds {
        let first = round * 60;
        put_slices(&site, &stamp, first..first + 60);
        for number in 0..10 {
            fs::write(site.path(&format!("inbox/bad-{round}-{number}.dcm")), format!("no DICOM {round} {number}"))
                .unwrap();
        }
        // The same again under other names.
        for number in first..first + 10 {
            fs::write(site.path(&format!("inbox/again-{number}.dcm")), stamp.slice(number)).unwrap();
        }
        program.wait_until("the round", || files(&site.path("inbox")).is_empty());
        samples.push(sample(&program));
    }
    let secs = begun.elapsed().as_secs_f64();
    let log = program.stop();
    let n_slices = rounds * 60;
    let account = format!("{n_slices} done, {} duplicates, {} rejected", rounds * 10, rounds * 10);
    assert!(log.contains(&account), "{log}");
    assert_all_done_once(site.folder.path(), n_slices);
    // The first third warms caches up; from then on the line must be flat.
    let third = samples.len() / 3;
    let mean = |part: &[Sample]| part.iter().map(|s| s.rss_kib as f64).sum::<f64>() / part.len() as f64;
    let (early, late) = (mean(&samples[third..2 * third]), mean(&samples[samples.len() - third..]));
    let most = samples.iter().map(|s| s.descriptors).max().unwrap_or(0);
    println!(
        "{rounds} rounds, {n_slices} slices, {secs:.0} s; memory {early:.0} KiB in the second third, {late:.0} KiB in the last ({:+.2} KiB a round); descriptors {} to {most}",
        (late - early) / (third as f64 * 1.5),
        samples.iter().map(|s| s.descriptors).min().unwrap_or(0),
    );
    assert!(late < early * 1.1 + 4096.0, "memory grows: {samples:?}");
    let settled = samples[third].descriptors;
    // Some results may be open just then.
    assert!(samples[third..].iter().all(|s| s.descriptors <= settled + 40), "descriptors grow: {samples:?}");
}
