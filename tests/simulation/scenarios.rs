//! One fault at a time, told step by step: what the seeds of the simulation meet by chance, each by name.

use std::path::{Path, PathBuf};

use ichd::config::{After, Config};
use ichd::error::Exit;
use serde_json::Value;

use super::broken::Mutation;
use super::chaos::{End, Rng};
use super::machine::Daemon;
use super::sender::{Act, Content, Deed, Kind, refused};
use super::world::{Violation, World};

const DAY_SECS: i64 = 86_400;

fn world(after: After) -> World {
    let mut config = World::settings();
    config.inbox.after = after;
    World::of(7, config, false, None)
}

fn slice(world: &mut World) -> Content {
    world.author.slices(&mut world.rng, Some("1.2.3".into()), None, None)
}

fn place(world: &World, name: &str, content: &Content) {
    world.schedule(0, &Path::new("/site/inbox").join(name), Act::Place(content.clone()));
    world.parts.files.act();
}

/// Lets the file in and brings its slices to the door of the recorder.
fn to_the_recorder(world: &mut World) {
    for _ in 0..3 {
        world.parts.clock.advance(2_000);
        let step = |daemon: &mut Daemon| {
            daemon.scan();
            daemon.admit(9)?;
            Ok(())
        };
        world.with_daemon("let in", step).unwrap().unwrap();
    }
    for _ in 0..9 {
        world.parts.clock.advance(50);
        let step = |daemon: &mut Daemon| {
            daemon.decode(0)?;
            let _ = daemon.hand_on(0) | daemon.hold() | daemon.batch();
            daemon.score()
        };
        world.with_daemon("score", step).unwrap().unwrap();
    }
}

fn record(world: &mut World) -> Option<bool> {
    world.with_daemon("record", Daemon::record).unwrap()
}

fn healed(mut world: World) -> World {
    world.heal().unwrap();
    world
}

fn seen(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

/// How many steps a site takes until it rests, and what is left if something happens at each of them.
fn at_every_step(make: impl Fn() -> World, happen: impl Fn(&World, u64)) -> u64 {
    let mut calm = make();
    calm.rest().unwrap();
    let n_steps = calm.parts.chaos.steps();
    for step in 0..n_steps {
        let mut world = make();
        happen(&world, step);
        let ended = world.rest().and_then(|()| world.heal());
        if let Err(Violation(sentence)) = ended {
            panic!("at step {step} of {n_steps}: {sentence}\n{}", world.trace.join("\n"));
        }
    }
    n_steps
}

/// Two frames and a file to be refused.
fn two_files(config: &Config, is_split: bool, seed: u64) -> World {
    let mut world = World::of(seed, config.clone(), is_split, None);
    let frames = world.author.slices(&mut world.rng, None, None, None);
    let other = refused(&mut world.rng, b"no DICOM".to_vec());
    place(&world, "a.dcm", &frames);
    place(&world, "b.dcm", &other);
    world
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing() {
    for (after, is_split) in [(After::Move, false), (After::Move, true), (After::Delete, false), (After::Keep, false)] {
        let mut config = World::settings();
        config.inbox.after = after;
        // Different seeds keep different parts of what was not synced.
        for (seed, end) in [(1, End::Kill), (2, End::PowerCut), (3, End::PowerCut), (4, End::PowerCut)] {
            let n_steps = at_every_step(
                || two_files(&config, is_split, seed),
                |world, step| world.parts.chaos.crash_in(step as u32, end),
            );
            assert!(n_steps > 100, "{n_steps} steps");
        }
    }
}

/// The process is killed at each step of recording, the next one takes over what it left, and then the power goes.
fn killed_then_cut(mutation: Option<Mutation>) -> Result<(), String> {
    let make = |seed| {
        let mut world = World::of(7, World::settings(), false, mutation);
        world.rng = Rng::new(seed);
        let content = slice(&mut world);
        world.start().unwrap();
        place(&world, "a.dcm", &content);
        to_the_recorder(&mut world);
        world
    };
    let mut calm = make(0);
    let before = calm.parts.chaos.steps();
    record(&mut calm);
    let n_steps = calm.parts.chaos.steps() - before;
    assert!(n_steps > 20, "{n_steps} steps");
    for (step, seed) in (0..n_steps).flat_map(|step| (0..4).map(move |seed| (step, seed))) {
        let mut world = make(seed);
        world.parts.chaos.crash_in(step as u32, End::Kill);
        assert_eq!(record(&mut world), None);
        let mut go_on = || {
            world.start()?;
            to_the_recorder(&mut world);
            record(&mut world);
            world.parts.chaos.kill(End::PowerCut);
            world.with_daemon("power cut", |_| Ok(()))?;
            world.heal()
        };
        go_on().map_err(|Violation(sentence)| format!("at step {step} of {n_steps}: {sentence}"))?;
    }
    Ok(())
}

#[test]
fn a_kill_at_any_step_of_recording_and_a_power_cut_after_the_next_start_lose_nothing() {
    killed_then_cut(None).unwrap();
    let found = killed_then_cut(Some(Mutation::AdoptUnsynced)).unwrap_err();
    assert!(found.contains(".json is missing"), "{found}");
}

#[test]
fn a_file_that_changes_at_any_step_is_accounted_for() {
    for after in [After::Move, After::Delete, After::Keep] {
        let mut config = World::settings();
        config.inbox.after = after;
        for kind in 0..5 {
            at_every_step(
                || two_files(&config, false, 5),
                |world, step| {
                    let path = Path::new("/site/inbox/a.dcm");
                    let Kind::Slices { study, instance, .. } =
                        world.parts.files.platters().sent.stands[path].kind.clone()
                    else {
                        unreachable!()
                    };
                    // Another slice, or other pixels at the same place of the file.
                    let (study, instance) = if kind == 4 { (study, instance) } else { ("9".into(), "9.9".into()) };
                    let mut other = World::of(99, World::settings(), false, None);
                    let content = other.author.slices(&mut other.rng, Some(study), Some(instance), None);
                    let acts = match kind {
                        0 => vec![Act::Place(content)],
                        1 | 4 => vec![Act::Rewrite(content)],
                        2 => vec![Act::Withdraw],
                        _ => vec![Act::Hide, Act::Unhide],
                    };
                    let mut platters = world.parts.files.platters();
                    for (idx, act) in acts.into_iter().enumerate() {
                        let path = path.to_owned();
                        platters.deeds.push_back(Deed { at: 0, at_step: step + 2 * idx as u64, path, act });
                    }
                },
            );
        }
    }
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let mut world = world(After::Move);
    let content = slice(&mut world);
    world.start().unwrap();
    place(&world, "a.dcm", &content);
    to_the_recorder(&mut world);
    let until = world.parts.clock.millis() + 3_600_000;
    world.parts.files.set_hog(Some(0));
    world.parts.files.platters().hog_until = until;
    assert_eq!(record(&mut world), Some(true), "it neither ends nor gives up");
    let waited_ms = world.parts.clock.millis();
    assert!((until..until + 11_000).contains(&waited_ms), "it goes on within a pause");
    let world = healed(world);
    assert_eq!((seen(&world, "inputs"), seen(&world, "exits for the disk")), (1, 0));
}

#[test]
fn a_full_ledger_is_waited_for_and_nothing_is_lost() {
    let mut world = world(After::Move);
    let content = slice(&mut world);
    world.start().unwrap();
    place(&world, "a.dcm", &content);
    to_the_recorder(&mut world);
    let until = world.parts.clock.millis() + 3_600_000;
    world.parts.chaos.set_weather(|weather| weather.ledger_full_until = until);
    assert_eq!(record(&mut world), Some(true));
    assert!(world.parts.clock.millis() >= until);
    assert_eq!(seen(&healed(world), "exits for the disk"), 0);
}

#[test]
fn sigterm_ends_it_on_a_full_disk_and_the_next_start_finishes_the_work() {
    let mut world = world(After::Delete);
    let content = slice(&mut world);
    world.start().unwrap();
    place(&world, "a.dcm", &content);
    to_the_recorder(&mut world);
    world.parts.files.set_hog(Some(0));
    world.parts.files.platters().hog_until = u64::MAX;
    let begun = world.parts.clock.millis();
    world.terminate().unwrap();
    assert_eq!(seen(&world, "exits for the disk"), 1);
    assert!(world.parts.clock.millis() - begun < 5_000, "in time");
    assert!(world.parts.files.bytes(Path::new("/site/inbox/a.dcm")).is_some(), "the input still lies there");
    world.parts.files.platters().hog_until = 0;
    healed(world);
}

#[test]
fn admission_pauses_before_the_disk_is_full_and_goes_on_by_itself() {
    let mut world = world(After::Move);
    let (first, second) = (slice(&mut world), slice(&mut world));
    world.start().unwrap();
    place(&world, "first.dcm", &first);
    to_the_recorder(&mut world);
    world.parts.files.platters().hog_until = u64::MAX;
    world.parts.files.set_hog(Some(39_000));
    place(&world, "second.dcm", &second);
    let count = |world: &mut World| {
        to_the_recorder(world);
        record(world);
        world.daemon.as_ref().unwrap().tally.count()
    };
    let short = count(&mut world);
    assert_eq!((short.admitted, short.done, short.is_paused), (1, 1, true), "what is in flight has its room");
    world.parts.files.set_hog(Some(60_000));
    assert_eq!(count(&mut world).admitted, 1, "a little more is not enough");
    world.parts.files.set_hog(Some(100_000));
    let ample = count(&mut world);
    assert_eq!((ample.admitted, ample.done, ample.pauses, ample.is_paused), (2, 2, 1, false));
    healed(world);
}

#[test]
fn a_share_that_is_away_for_a_minute_costs_no_file() {
    let mut world = world(After::Move);
    let content = slice(&mut world);
    place(&world, "a.dcm", &content);
    world.parts.chaos.set_weather(|weather| weather.inbox_down_until = 40_000);
    world.rest().unwrap();
    let count = world.daemon.as_ref().unwrap().tally.count();
    assert_eq!((count.done, count.rejected), (1, 0));
    assert!(count.returned > 0, "it was tried meanwhile");
    healed(world);
}

#[test]
fn a_file_that_is_taken_back_while_it_settles_leaves_nothing_behind() {
    let mut world = world(After::Move);
    let content = slice(&mut world);
    place(&world, "a.dcm", &content);
    world.start().unwrap();
    // It is seen, and worked on before its second is over.
    for wait in [0, 100, 50, 50, 50] {
        world.parts.clock.advance(wait);
        let step = |daemon: &mut Daemon| {
            daemon.scan();
            daemon.admit(9)?;
            while daemon.flow()? {}
            Ok(())
        };
        world.with_daemon("work", step).unwrap().unwrap();
    }
    let path = Path::new("/site/inbox/a.dcm");
    let record = |world: &World| world.daemon.as_ref().unwrap().ledger.file(&ichd::admit::path_key(path)).unwrap();
    let count = world.daemon.as_ref().unwrap().tally.count();
    assert_eq!(
        (count.admitted, count.done, count.in_flight()),
        (1, 0, Some(1)),
        "it is worked on, and nothing is told"
    );
    let results = |world: &World| world.parts.files.tree(Path::new("/site/results"));
    let is_nameless = |path: &PathBuf| ichd::watch::is_unfinished_name(path);
    assert!(record(&world).is_some());
    assert!(matches!(&results(&world)[..], [ready] if is_nameless(ready)), "{:?}", results(&world));
    world.schedule(0, path, Act::Withdraw);
    world.parts.files.act();
    world.rest().unwrap();
    let count = world.daemon.as_ref().unwrap().tally.count();
    assert_eq!((count.done, count.returned, count.in_flight()), (0, 1, Some(0)));
    assert!(record(&world).is_none() && results(&world).is_empty());
    healed(world);
}

#[test]
fn a_file_that_can_never_be_read_is_refused_in_the_end() {
    let mut world = world(After::Keep);
    let content = slice(&mut world);
    place(&world, "a.dcm", &content);
    world.parts.chaos.set_weather(|weather| weather.inbox_down_until = u64::MAX);
    world.rest().unwrap();
    let count = world.daemon.as_ref().unwrap().tally.count();
    assert_eq!((count.rejected, count.returned), (1, u64::from(ichd::limits::READ_ROUNDS) - 1));
    assert_eq!(seen(&healed(world), "unreadable"), 1);
}

#[test]
fn poison_is_refused_after_its_attempts_and_its_neighbors_are_not() {
    let mut world = world(After::Move);
    let mut bytes = super::sender::POISON.to_vec();
    bytes.push(1);
    let poison = Content { bytes: bytes.into(), kind: Kind::Poison };
    for name in ["a.dcm", "c.dcm"] {
        let content = slice(&mut world);
        place(&world, name, &content);
    }
    place(&world, "b.dcm", &poison);
    let world = healed(world);
    assert_eq!((seen(&world, "kills"), seen(&world, "poison")), (world.config.inbox.attempts_max.into(), 1));
}

#[test]
fn a_clock_that_jumps_writes_every_line_once() {
    let mut world = world(After::Move);
    for (number, jump) in [3 * DAY_SECS, -5 * DAY_SECS, 400 * DAY_SECS, -DAY_SECS, 0].into_iter().enumerate() {
        let content = slice(&mut world);
        place(&world, &format!("{number}.dcm"), &content);
        world.rest().unwrap();
        world.parts.clock.jump(jump);
        // The next start looks for lines that are missing.
        if number % 2 == 0 {
            world.parts.chaos.kill(End::PowerCut);
            world.with_daemon("power cut", |_| Ok(())).unwrap();
        }
    }
    assert!(seen(&healed(world), "power cuts") == 3);
}

#[test]
fn a_clock_set_back_and_a_crash_at_any_step_of_recording_write_every_line_once() {
    let make = || {
        let mut world = world(After::Move);
        let (first, second) = (slice(&mut world), slice(&mut world));
        place(&world, "1.dcm", &first);
        world.rest().unwrap();
        world.parts.clock.jump(-5 * DAY_SECS);
        place(&world, "2.dcm", &second);
        to_the_recorder(&mut world);
        world
    };
    let mut calm = make();
    let before = calm.parts.chaos.steps();
    record(&mut calm);
    let n_steps = calm.parts.chaos.steps() - before;
    assert!(n_steps > 20, "{n_steps} steps");
    for step in 0..n_steps {
        for seed in 0..3 {
            let mut world = make();
            world.rng = Rng::new(seed);
            world.parts.chaos.crash_in(step as u32, End::PowerCut);
            assert_eq!(record(&mut world), None);
            if let Err(Violation(sentence)) = world.heal() {
                panic!("at step {step} of {n_steps}: {sentence}");
            }
        }
    }
}

#[test]
fn a_lost_device_ends_the_process_and_loses_nothing() {
    for strength in [300, 1000] {
        let mut world = world(After::Move);
        world.config.batch.slices_max = 1;
        for number in 0..9 {
            let content = slice(&mut world);
            place(&world, &format!("{number}.dcm"), &content);
        }
        world.start().unwrap();
        world.parts.chaos.set_weather(|weather| weather.device = strength);
        to_the_recorder_or_its_end(&mut world);
        assert!(seen(&world, "exits for the device") > 0);
        assert_eq!(seen(&healed(world), "inputs"), 9);
    }
}

#[test]
fn a_device_short_of_memory_takes_slices_in_pieces_and_loses_none() {
    let mut world = world(After::Move);
    world.config.batch.slices_max = 8;
    for number in 0..9 {
        let content = slice(&mut world);
        place(&world, &format!("{number}.dcm"), &content);
    }
    world.start().unwrap();
    world.parts.chaos.set_weather(|weather| weather.device_slices = 1);
    to_the_recorder_or_its_end(&mut world);
    let count = world.daemon.as_ref().expect("it goes on").tally.count();
    assert_eq!((count.done, count.rejected), (9, 0));
    assert_eq!(seen(&healed(world), "exits for the device"), 0);
}

/// Until the device fails.
fn to_the_recorder_or_its_end(world: &mut World) {
    for _ in 0..100 {
        if world.daemon.is_none() {
            return;
        }
        world.parts.clock.advance(2_000);
        let step = |daemon: &mut Daemon| {
            daemon.scan();
            daemon.admit(9)?;
            daemon.flow()
        };
        world.with_daemon("work", step).unwrap();
    }
}

#[test]
fn a_slice_that_comes_late_opens_its_study_again() {
    let mut world = world(After::Move);
    let summary = |world: &World| -> Value {
        serde_json::from_slice(&world.parts.files.bytes(Path::new("/site/results/1.2.3/study.json")).unwrap()).unwrap()
    };
    for n_slices in 1..=2u64 {
        let content = slice(&mut world);
        place(&world, &format!("{n_slices}.dcm"), &content);
        for _ in 0..3 {
            world.rest().unwrap();
        }
        let study = summary(&world);
        assert_eq!((&study["n_slices"], &study["revision"]), (&n_slices.into(), &n_slices.into()));
    }
    healed(world);
}

#[test]
fn a_ledger_cut_at_any_place_opens_with_a_true_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    let ledger = ichd::ledger::Ledger::open(&path).unwrap();
    let record = |number: i64| ichd::ledger::SliceRecord {
        study: "s".into(),
        series: "r".into(),
        instance: number.to_string(),
        frame: 0,
        key: ichd::ledger::WorkKey { picture: number.to_string(), scorer: "m".into() },
        logits: vec![0.5],
        file_sha256: "f".into(),
        result: format!("s/{number}.json"),
    };
    for number in 1..=5 {
        ledger.commit(&[], &[record(number)], "t").unwrap();
    }
    let read = |path: &Path| std::fs::read(path).unwrap();
    let (main, log) = (read(&path), read(&path.with_extension("sqlite-wal")));
    drop(ledger);
    let mut counts = Vec::new();
    for kept in (0..=log.len()).step_by(509) {
        let copy = folder.path().join(format!("{kept}.sqlite"));
        std::fs::write(&copy, &main).unwrap();
        std::fs::write(copy.with_extension("sqlite-wal"), &log[..kept]).unwrap();
        let rows = ichd::ledger::Ledger::open(&copy).unwrap().slices_after(0).unwrap();
        let instances: Vec<String> = rows.iter().map(|(_, row)| row.instance.clone()).collect();
        let beginning: Vec<String> = (1..=rows.len()).map(|number| number.to_string()).collect();
        assert_eq!(instances, beginning, "{kept} bytes");
        counts.push(rows.len());
    }
    assert!(counts.is_sorted() && counts.contains(&0) && counts.contains(&4), "{counts:?}");
}

#[test]
fn a_ledger_that_is_none_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let damaged = vec![0x5A; 9000];
    std::fs::write(&path, &damaged).unwrap();
    let error = ichd::error::Fatal::from(ichd::ledger::Ledger::open(&path).unwrap_err());
    assert_eq!(error.exit, Exit::Config);
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
}
