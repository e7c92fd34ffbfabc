//! Reading ahead: the same batches in the same order from any number of threads, and what becomes of a damaged slice.

use std::fs;

use ichd_kernels::{Ramp, Window};

use super::super::dataset::tests::Heads;
use super::super::training::read;
use super::*;

fn plan() -> WindowPlan {
    WindowPlan::new(&[Window { level: 40.0, width: 80.0 }], Ramp::LinearExact, 16, &[0.5], &[0.25]).unwrap()
}

fn feed<'f>(dataset: &'f Dataset, plan: &'f WindowPlan, threads: usize) -> Feed<'f> {
    Feed { dataset, plan, device: Device::flex(), threads }
}

/// Batches of an epoch of all slices, some of them several times.
fn epoch(dataset: &Dataset) -> Vec<Batch> {
    let order: Vec<usize> = (0..3 * dataset.items.len()).map(|at| at * 7 % dataset.items.len()).collect();
    training_batches(dataset, &order, 5, &AugmentSetting { crop: 0.5, ..AugmentSetting::default() }, 3, 1)
}

/// What `work` is shown: slices and images.
type Shown = Vec<(Vec<usize>, Vec<f32>)>;

fn shown(feed: &Feed<'_>, batches: &[Batch]) -> (Shown, Result<Duration, FeedError>) {
    let mut all = Vec::new();
    let walked = feed.walk(batches, |batch, images| {
        all.push((batch.slices.clone(), read(images).unwrap()));
        Ok(Queue::Empty(Instant::now()))
    });
    (all, walked)
}

#[test]
fn any_number_of_threads_shows_the_same_batches_in_the_same_order() {
    let (heads, plan) = (Heads::new(), plan());
    let dataset = heads.open();
    let batches = epoch(&dataset);
    assert!(batches.len() > 20);
    let (one, walked) = shown(&feed(&dataset, &plan, 1), &batches);
    walked.unwrap();
    let order: Vec<&Vec<usize>> = batches.iter().map(|batch| &batch.slices).collect();
    assert_eq!(one.iter().map(|(slices, _)| slices).collect::<Vec<_>>(), order);
    for threads in [0, 2, 3, 7, 100] {
        let (many, walked) = shown(&feed(&dataset, &plan, threads), &batches);
        walked.unwrap();
        assert!(one == many, "{threads} threads showed something else");
    }
    let (none, walked) = shown(&feed(&dataset, &plan, 3), &[]);
    assert_eq!((none.len(), walked.unwrap()), (0, Duration::ZERO));
}

#[test]
fn a_batch_for_a_gpu_is_gathered_ahead_and_a_cpus_is_not() {
    let (heads, plan) = (Heads::new(), plan());
    let dataset = heads.open();
    let feed = feed(&dataset, &plan, 1);
    let batch = &epoch(&dataset)[0];
    assert!(feed.read(batch, None).unwrap().is_none());
    let gathered = feed.read(batch, Some(Transport::Words)).unwrap();
    let there = Gathered::new(&plan, &feed.views(batch).unwrap(), Transport::Words).unwrap();
    assert!(gathered.is_some_and(|gathered| gathered == there));
}

#[test]
fn a_damaged_slice_ends_the_walk_behind_the_batches_before_it() {
    let (heads, plan) = (Heads::new(), plan());
    drop(heads.open());
    let shard = heads.path("cache/full/shard-0000.raw");
    let mut bytes = fs::read(&shard).unwrap();
    let damaged = 20;
    bytes[damaged * 48 * 48 * 2 + 100] ^= 1;
    fs::write(&shard, &bytes).unwrap();
    for threads in [1, 2, 5] {
        let dataset = heads.open();
        let batches = plain_batches(&dataset.usable(), 3);
        let place = (0..dataset.items.len()).find(|at| dataset.cache.verify(*at).is_err()).unwrap();
        let (seen, walked) = shown(&feed(&dataset, &plan, threads), &batches);
        assert!(matches!(walked, Err(FeedError::Cache(CacheError::Damaged { .. }))), "{threads} threads");
        assert_eq!(seen.len(), place / 3, "{threads} threads");
        assert!(dataset.cache.verify_once(place).is_err(), "it was taken for sound");
        assert!(!dataset.cache.verify_once(0).unwrap(), "it was read twice");
    }
}

#[test]
fn work_that_fails_ends_the_threads() {
    let (heads, plan) = (Heads::new(), plan());
    let dataset = heads.open();
    let mut calls = 0;
    let walked = feed(&dataset, &plan, 4).walk(&epoch(&dataset), |_, _| {
        calls += 1;
        if calls == 3 { Err(FeedError::Window("enough".into())) } else { Ok(Queue::Unknown) }
    });
    assert!(walked.unwrap_err().to_string().contains("enough"));
    assert_eq!(calls, 3);
}
