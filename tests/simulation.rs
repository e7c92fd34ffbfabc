//! The daemon's real state machines on a simulated disk, clock, ledger file and device, in one thread and in an order that
//! a seed gives: files come, grow, change and vanish, the disk fails and fills up, the process is killed or loses its
//! power between any two steps and starts again. What must hold is checked after each step.
//!
//! `ICHD_SEEDS=10000` sets how many seeds run. A seed that fails prints the command that shows its whole story.

mod broken;
mod chaos;
mod check;
mod clock;
mod files;
mod journal;
mod machine;
mod platters;
mod scenarios;
mod sender;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use broken::Mutation;
use world::{Coverage, run};

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 1000;

/// Seeds after which a mutation must have been found.
const MUTATION_SEEDS: u64 = 400;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs seeds on all cores until one fails. Gives the seed and the sentence, and what all runs covered.
fn search(n_seeds: u64, mutation: Option<Mutation>) -> (Option<(u64, String)>, Coverage) {
    machine::routing();
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None::<(u64, String)>));
    let coverage = Mutex::new(Coverage::new());
    let work = || {
        let mut own = Coverage::new();
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= n_seeds {
                break;
            }
            let outcome = run(seed, mutation, false);
            for (what, n) in outcome.coverage {
                *own.entry(what).or_default() += n;
            }
            if let Some(violation) = outcome.violation {
                failed.lock().unwrap().get_or_insert((seed, violation.0));
            }
        }
        for (what, n) in own {
            *coverage.lock().unwrap().entry(what).or_default() += n;
        }
    };
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(work);
        }
    });
    (failed.into_inner().unwrap(), coverage.into_inner().unwrap())
}

fn complain(seed: u64, sentence: &str) -> ! {
    panic!(
        "seed {seed}: {sentence}\nits whole story:\n\
         ICHD_SEED={seed} cargo test --workspace --test tests simulation::replay -- --nocapture"
    )
}

#[test]
fn seeds_are_clean() {
    let n_seeds = from_environment("ICHD_SEEDS").unwrap_or(SEEDS);
    let (failed, coverage) = search(n_seeds, None);
    if let Some((seed, sentence)) = failed {
        complain(seed, &sentence);
    }
    println!("{n_seeds} seeds: {coverage:?}");
    // What was never met was not tested.
    let expected = [
        "kills",
        "power cuts",
        "torn renames",
        "ends",
        "exits for the disk",
        "exits for the device",
        "full disks",
        "clock jumps",
        "uid-conflict",
        "non-finite-output",
        "poison",
        "not-dicom",
        "empty-file",
        "wrong-modality",
        "settled after work ahead",
        "changed under work ahead",
    ];
    let missing: Vec<&str> = expected.into_iter().filter(|what| !coverage.contains_key(what)).collect();
    assert!(n_seeds < SEEDS || missing.is_empty(), "never met: {missing:?}");
    assert_eq!(coverage.get("bugs"), None);
}

/// Tells the story of the seed in `ICHD_SEED`, or of seed 0: and the same story twice.
#[test]
fn replay() {
    let wanted = from_environment("ICHD_SEED");
    let seed = wanted.unwrap_or(0);
    let first = run(seed, None, true);
    if wanted.is_some() {
        println!("{}", first.trace.join("\n"));
    }
    if let Some(violation) = first.violation {
        panic!("seed {seed}: {}", violation.0);
    }
    assert_eq!(first.trace, run(seed, None, true).trace, "a seed must tell the same story every time");
}

#[test]
fn what_is_broken_on_purpose_is_found() {
    for mutation in Mutation::ALL {
        let (failed, _) = search(MUTATION_SEEDS, Some(mutation));
        let (seed, sentence) = failed.unwrap_or_else(|| panic!("{mutation:?} was not found in {MUTATION_SEEDS} seeds"));
        assert!(run(seed, None, false).violation.is_none(), "seed {seed} fails without {mutation:?} too");
        println!("{mutation:?}: seed {seed}: {}", sentence.lines().next().unwrap_or_default());
    }
}
