//! The process is killed, asked to stop, or meets a damaged record.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tools::{
    Dice, Program, STUDY, Stamp, assert_all_done_once, change_settings, number, put_slices, results, site,
};
use crate::support::{Site, files};

/// Slices come all the time; the process is killed again and again, at any moment from its first on.
#[test]
fn kill_9_at_random_moments_loses_repeats_and_tears_nothing() {
    let (rounds, seed) = (number("ICHD_KILL_ROUNDS", 10), number("ICHD_KILL_SEED", 2026));
    println!("{rounds} rounds, ICHD_KILL_SEED={seed}");
    let site = site("move", "batch: { slices_max: 4, wait_ms_max: 5 }\n");
    let (stamp, mut dice) = (Stamp::new(), Dice(seed));
    let (is_over, n_slices) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut finished: HashMap<PathBuf, Vec<u8>> = HashMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let first = n_slices.load(Ordering::SeqCst);
                if files(&site.path("inbox")).len() < 100 {
                    put_slices(&site, &stamp, first..first + 5);
                    n_slices.store(first + 5, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(15));
            }
        });
        for round in 0..rounds {
            let mut program = Program::start(&site);
            // Mostly while it works, sometimes while it starts.
            std::thread::sleep(Duration::from_millis(20 + dice.below(1200)));
            program.signal("KILL");
            assert_eq!(program.ended().1, Some(9), "it ended before in round {round}: {}", program.log());
            let found = results(&site.path("results"));
            for (file, bytes) in &finished {
                assert_eq!(found.get(file), Some(bytes), "a finished result changed in round {round}");
            }
            for (file, bytes) in &found {
                let is_whole = finished.contains_key(file) || serde_json::from_slice::<Value>(bytes).is_ok();
                assert!(is_whole, "{} is torn in round {round}", file.display());
            }
            finished = found;
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let n_slices = n_slices.into_inner();
    let mut program = Program::start(&site);
    program.wait_until("the inbox is empty", || files(&site.path("inbox")).is_empty());
    let n_studies = n_slices.div_ceil(STUDY) as usize;
    program.wait_until("all summaries", || {
        files(&site.path("results")).iter().filter(|file| file.ends_with("study.json")).count() == n_studies
    });
    program.stop();
    assert_all_done_once(site.folder.path(), n_slices);
    let found = results(&site.path("results"));
    assert!(finished.iter().all(|(file, bytes)| found.get(file) == Some(bytes)), "a finished result changed");
    assert_eq!(files(&site.path("done")).len() as u64, n_slices);
    assert_eq!(files(&site.path("rejected")), Vec::<PathBuf>::new());
    assert!(finished.len() as u64 >= rounds, "the rounds were too short to get anything done");
    println!("{n_slices} slices, {} of them finished under fire, each once", finished.len());
}

/// Both signals: what was taken is finished, the rest stays; after the next start all is there once.
#[test]
fn sigterm_and_sigint_under_load_drain_in_time() {
    for signal in ["TERM", "INT"] {
        let site = site("move", "limits: { stop_secs_max: 30 }\n");
        let stamp = Stamp::new();
        put_slices(&site, &stamp, 0..1500);
        let mut program = Program::start(&site);
        program.wait_until("some results", || !files(&site.path("done")).is_empty());
        program.signal(signal);
        let begun = Instant::now();
        assert_eq!(program.ended(), (Some(0), None), "{}", program.log());
        assert!(begun.elapsed() < Duration::from_secs(30));
        let left = files(&site.path("inbox")).len();
        assert!(left > 0, "it was not under load");
        assert_eq!(files(&site.path("done")).len() + left, 1500);
        let mut program = Program::start(&site);
        program.wait_until("the rest", || files(&site.path("inbox")).is_empty());
        program.stop();
        assert_all_done_once(site.folder.path(), 1500);
    }
}

#[test]
fn a_second_signal_ends_at_once_and_costs_nothing() {
    // Many slices of one batch each at full side: draining takes a while.
    let site = Site::new("move", "batch: { slices_max: 1 }\n");
    let stamp = Stamp::new();
    put_slices(&site, &stamp, 0..60);
    let mut program = Program::start(&site);
    program.wait_until("some results", || results(&site.path("results")).len() > 2);
    program.signal("TERM");
    program.wait_for_log("A second signal ends at once.");
    program.signal("TERM");
    assert_eq!(program.ended(), (None, Some(15)), "{}", program.log());
    assert!(results(&site.path("results")).len() < 60, "it had finished by then");
    let mut program = Program::start(&site);
    program.wait_until("the rest", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 60);
}

#[test]
fn a_second_daemon_on_the_site_is_refused_while_the_first_is_under_load() {
    let site = site("move", "");
    let stamp = Stamp::new();
    put_slices(&site, &stamp, 0..200);
    let mut first = Program::start(&site);
    first.wait_until("a result", || !results(&site.path("results")).is_empty());
    for _ in 0..3 {
        let mut second = Program::start(&site);
        assert_eq!(second.ended(), (Some(78), None));
        assert!(second.log().contains("another ichd works on this site"), "{}", second.log());
    }
    first.wait_until("all", || files(&site.path("inbox")).is_empty());
    first.stop();
    assert_all_done_once(site.folder.path(), 200);
    // A killed one leaves no lock behind.
    let mut killed = Program::start(&site);
    killed.wait_for_log_times("Ready.", 2);
    killed.signal("KILL");
    killed.end();
    let mut third = Program::start(&site);
    third.wait_for_log_times("Ready.", 3);
    third.stop();
}

/// Another configuration with a ledger of its own, but the same inbox or the same results: it would take the first one's
/// files, or write over its results.
#[test]
fn a_daemon_that_shares_a_folder_with_another_is_refused_and_told_which() {
    let first_site = site("move", "");
    let mut first = Program::start(&first_site);
    first.wait_for_log("Ready.");
    for folder in ["inbox", "results"] {
        let second_site = site("move", "");
        let shared = first_site.path(folder);
        change_settings(&second_site, &format!("path: {folder},"), &format!("path: {},", shared.display()));
        let mut second = Program::start(&second_site);
        assert_eq!(second.ended(), (Some(78), None), "{}", second.log());
        let who = format!("process {} holds {folder}.path ({})", first.child.id(), shared.display());
        assert!(second.log().contains(&who), "{who} is not in {}", second.log());
        let names: Vec<_> = fs::read_dir(&shared).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.as_encoded_bytes().starts_with(b".")), "it left {names:?}");
    }
    put_slices(&first_site, &Stamp::new(), 0..5);
    first.wait_until("all", || files(&first_site.path("done")).len() == 5);
    first.stop();
    assert_all_done_once(first_site.folder.path(), 5);
    // Once the first one is gone, the other may have its folders.
    let other = site("move", "");
    change_settings(&other, "path: inbox,", &format!("path: {},", first_site.path("inbox").display()));
    let mut program = Program::start(&other);
    program.wait_for_log("Ready.");
    program.stop();
}

/// `auto` on a machine without a GPU, or with one that is hidden from the process.
#[test]
fn without_a_gpu_auto_takes_the_cpu_and_says_why() {
    let site = site("move", "");
    change_settings(&site, "device: cpu", "device: auto");
    put_slices(&site, &Stamp::new(), 0..1);
    let nothing = PathBuf::new();
    let mut program = Program::start_behind(&site, &[], &[("CUDA_VISIBLE_DEVICES", &nothing)]);
    program.wait_until("the result", || files(&site.path("done")).len() == 1);
    let log = program.stop();
    let why = log.lines().find(|line| line.contains("Computing on the CPU: ")).unwrap_or_else(|| panic!("{log}"));
    let reasons = ["no CUDA device was found", "built without the feature `cuda`"];
    assert!(reasons.iter().any(|reason| why.contains(reason)), "{why}");
    let result: Value = serde_json::from_slice(results(&site.path("results")).values().next().unwrap()).unwrap();
    assert_eq!(result["device"], "cpu");
}

/// The digest is right, so the file is the one that was meant; but it does not fit what `model.yaml` says of it.
#[test]
fn weights_of_another_shape_are_78_at_the_start() {
    let site = site("move", "");
    let path = site.path("models/small/1/model.yaml");
    let good = fs::read_to_string(&path).unwrap();
    let one_window_less = good
        .replace("- {level: 40, width: 380}\n", "")
        .replace("[0.5, 0.5, 0.5]", "[0.5, 0.5]")
        .replace("[0.25, 0.25, 0.25]", "[0.25, 0.25]");
    let other_network = good.replace("backbone: mobilenet_v2", "backbone: resnet18");
    for (what, text) in [("one window less", one_window_less), ("another network", other_network)] {
        assert_ne!(text, good, "{what}");
        fs::write(&path, text).unwrap();
        let mut program = Program::start(&site);
        assert_eq!(program.ended(), (Some(78), None), "{what}: {}", program.log());
        assert!(program.log().contains("small/1") || program.log().contains("small"), "{what}: {}", program.log());
        assert!(!program.log().contains("panicked"), "{what}: {}", program.log());
    }
    fs::write(&path, good).unwrap();
    let mut program = Program::start(&site);
    program.wait_for_log("Ready.");
    program.stop();
}

/// A program that opens every result as soon as it appears, locks it, reads it byte by byte and never lets go of it.
#[test]
fn whoever_reads_results_slowly_holds_nobody_up() {
    use std::io::Read;
    let site = site("move", "");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    let is_over = AtomicBool::new(false);
    let held = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut held: HashMap<PathBuf, (fs::File, Vec<u8>)> = HashMap::new();
            while !is_over.load(Ordering::SeqCst) {
                for file in files(&site.path("results")) {
                    held.entry(file).or_insert_with_key(|file| {
                        let open = fs::File::open(file).unwrap();
                        open.lock_shared().unwrap();
                        (open, Vec::new())
                    });
                }
                for (file, read) in held.values_mut() {
                    let mut byte = [0];
                    if file.read(&mut byte).unwrap() == 1 {
                        read.push(byte[0]);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            held
        });
        put_slices(&site, &stamp, 0..100);
        program.wait_until("all", || files(&site.path("done")).len() == 100);
        // A summary that is being read is replaced, not written into.
        let revision = |revision: u64| {
            files(&site.path("results")).iter().filter(|file| file.ends_with("study.json")).any(|file| {
                let summary: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
                summary["revision"] == revision && summary["n_slices"] == 19 + revision
            })
        };
        program.wait_until("summaries", || revision(1));
        std::thread::sleep(Duration::from_millis(50));
        // It belongs to the first study, of which 20 were there.
        let mut late = stamp.slice(0);
        let (old, new) = (super::tools::instance_uid(0), super::tools::instance_uid(900));
        let places: Vec<usize> =
            (0..late.len() - old.len()).filter(|at| late[*at..].starts_with(old.as_bytes())).collect();
        assert_eq!(places.len(), 2);
        for at in places {
            late[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
        let end = late.len();
        late[end - 8..].copy_from_slice(&900u64.to_le_bytes());
        super::tools::put(&site.path("inbox"), "late.dcm", &late);
        program.wait_until("the second revision", || revision(2));
        is_over.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    let log = program.stop();
    assert!(log.contains("101 files: 101 done, 0 duplicates, 0 rejected"), "{log}");
    assert!(held.len() > 100, "{} files were held", held.len());
    let mut n_replaced = 0;
    for (path, (mut file, mut read)) in held {
        file.read_to_end(&mut read).unwrap();
        let is_log = path.extension().is_some_and(|extension| extension == "jsonl");
        let value: Result<Value, _> = serde_json::from_slice(&read);
        assert!(is_log || value.is_ok(), "{} was torn under its reader", path.display());
        n_replaced += usize::from(!is_log && fs::read(&path).unwrap() != read);
    }
    assert_eq!(n_replaced, 1, "only the summary has another revision by now");
}

/// The log goes to a pipe that nobody reads: the system keeps some lines, the daemon some more, the rest is lost and told
/// of. The work goes on meanwhile.
#[test]
fn a_log_that_nobody_reads_costs_lines_and_no_slice() {
    use std::io::Read;
    let site = site("move", "log: { filter: trace }\n");
    let stamp = Stamp::new();
    let n_slices = 1200;
    put_slices(&site, &stamp, 0..n_slices);
    let mut daemon = site.start();
    site.wait_until("all", |site| files(&site.path("done")).len() as u64 == n_slices);
    let mut pipe = daemon.child.stderr.take().unwrap();
    let read = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let reader = {
        let read = std::sync::Arc::clone(&read);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = pipe.read(&mut piece) {
                read.lock().unwrap().extend_from_slice(&piece[..bytes]);
            }
        })
    };
    let log = || String::from_utf8_lossy(&read.lock().unwrap()).into_owned();
    site.wait_until("it says what is lost", |_| log().contains("Lines of the log are lost"));
    daemon.signal("TERM");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0), "{}", log());
    reader.join().unwrap();
    let log = log();
    assert!(log.contains(&format!("{n_slices} files: {n_slices} done")), "{log}");
    assert_all_done_once(site.folder.path(), n_slices);
}

/// The supervisor hears that the daemon is ready, alive while it idles and while it works, and stopping.
#[test]
fn systemd_is_told_ready_alive_and_stopping() {
    let site = site("move", "");
    let path = site.path("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut buffer = [0; 64];
        let bytes = listener.recv(&mut buffer).expect("a sign of life");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    };
    let period = PathBuf::from("400000");
    let mut program = Program::start_behind(&site, &[], &[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", &period)]);
    let mut heard = vec![hear(), hear()];
    heard.sort();
    // The work loop may be quicker than the one that says that all is ready.
    assert_eq!(heard, ["READY=1", "WATCHDOG=1"]);
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(hear(), "WATCHDOG=1");
        assert!(begun.elapsed() < Duration::from_secs(10), "a sign came late");
    }
    put_slices(&site, &Stamp::new(), 0..50);
    while !files(&site.path("inbox")).is_empty() {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    program.signal("TERM");
    while hear() != "STOPPING=1" {}
    assert_eq!(program.ended(), (Some(0), None), "{}", program.log());
}

#[test]
fn a_damaged_ledger_is_refused_with_what_to_do_and_results_stay() {
    let site = site("keep", "");
    let stamp = Stamp::new();
    put_slices(&site, &stamp, 0..30);
    let mut program = Program::start(&site);
    program.wait_until("results", || results(&site.path("results")).len() == 30);
    program.stop();
    let finished = results(&site.path("results"));
    let path = site.path("ledger.sqlite");
    let whole = fs::read(&path).unwrap();
    let mut garbage_header = whole.clone();
    garbage_header[..16].copy_from_slice(b"no database here");
    let mut garbage_inside = whole.clone();
    let middle = whole.len() / 2 / 4096 * 4096;
    garbage_inside[middle..middle + 4096].fill(0xff);
    assert!(whole.len() > 5 * 4096 && !site.path("ledger.sqlite-wal").exists(), "a clean stop leaves one whole file");
    let damaged = [
        ("header", garbage_header),
        ("page", garbage_inside),
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("almost nothing left", whole[..2048].to_vec()),
    ];
    for (what, bytes) in damaged {
        let _ = fs::remove_file(site.path("ledger.sqlite-wal"));
        let _ = fs::remove_file(site.path("ledger.sqlite-shm"));
        fs::write(&path, &bytes).unwrap();
        let mut program = Program::start(&site);
        assert_eq!(program.ended(), (Some(78), None), "{what}: {}", program.log());
        assert!(program.log().contains("the ledger is damaged"), "{what}: {}", program.log());
        assert!(program.log().contains("Move it away"), "{what}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: what is left of it was changed");
    }
    // What the sentence says: move it away and start again. Results are adopted, none is changed.
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = fs::rename(site.path(name), site.path(&format!("{name}.old")));
    }
    let mut program = Program::start(&site);
    program.wait_until("the ledger is made anew", || {
        let log = files(&site.path("results/log"));
        log.iter().map(|file| fs::read_to_string(file).unwrap().lines().count()).sum::<usize>() == 60
    });
    program.stop();
    assert_eq!(results(&site.path("results")), finished);
}

/// Somebody writes over the ledger while it is open: what is read next is no page of it. A restart would meet the same.
#[test]
fn a_ledger_that_is_damaged_while_it_runs_ends_it_with_78() {
    use std::io::{Seek, SeekFrom, Write};
    let site = site("keep", "");
    let stamp = Stamp::new();
    put_slices(&site, &stamp, 0..200);
    let mut program = Program::start(&site);
    program.wait_until("results", || results(&site.path("results")).len() == 200);
    program.stop();
    // Nothing of it is in this one's cache yet, but for what the start looks through: so the start must be over.
    let mut program = Program::start(&site);
    program.wait_for_log_times("Ready.", 2);
    let mut file = fs::OpenOptions::new().write(true).open(site.path("ledger.sqlite")).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xA5; bytes as usize - 4096]).unwrap();
    drop(file);
    // The log and its index have what was not yet put into the file.
    put_slices(&site, &stamp, 1000..1200);
    assert_eq!(program.ended(), (Some(78), None), "{}", program.log());
    assert!(program.log().contains("the ledger is damaged"), "{}", program.log());
    assert_eq!(Program::start(&site).ended().0, Some(78));
    assert_eq!(results(&site.path("results")).len(), 200, "what was scored before stays");
}

/// A slice that comes after its study was summed up: the summary is written again, as the next revision.
#[test]
fn a_late_slice_opens_its_study_again_as_a_revision() {
    let site = site("move", "");
    let stamp = Stamp::new();
    let summary = || -> Option<Value> {
        let file = files(&site.path("results")).into_iter().find(|file| file.ends_with("study.json"))?;
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    };
    let is = |revision: u64, n_slices: u64| {
        summary().is_some_and(|json| json["revision"] == revision && json["n_slices"] == n_slices)
    };
    put_slices(&site, &stamp, 0..4);
    let mut program = Program::start(&site);
    program.wait_until("the first summary", || is(1, 4));
    put_slices(&site, &stamp, 4..5);
    program.wait_until("the second summary", || is(2, 5));
    program.stop();
    // After a restart as well.
    put_slices(&site, &stamp, 5..6);
    let mut program = Program::start(&site);
    program.wait_until("the third summary", || is(3, 6));
    program.stop();
    assert_all_done_once(site.folder.path(), 6);
}

/// Ten thousand lines that say the same would hide the one that matters.
#[test]
fn a_burst_of_refused_files_does_not_flood_the_log() {
    let site = site("move", "");
    for number in 0..400 {
        fs::write(site.path(&format!("inbox/{number}.dcm")), format!("no DICOM {number}")).unwrap();
    }
    let mut program = Program::start(&site);
    program.wait_until("all are refused", || files(&site.path("inbox")).is_empty());
    let log = program.stop();
    let lines = log.lines().filter(|line| line.contains("A file is rejected")).count();
    assert!((50..400).contains(&lines), "{lines} lines");
    let told: u64 = log
        .lines()
        .filter(|line| line.contains("More lines like those before were left out"))
        .filter_map(|line| line.split("lines=").nth(1)?.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(lines as u64 + told, 400, "all are told of: {log}");
    assert!(log.contains("400 files: 0 done, 0 duplicates, 400 rejected"), "{log}");
}

/// There is no reload: nothing that is put into files touches the running daemon, and a start with them is refused.
#[test]
fn a_bad_model_or_configuration_does_not_touch_the_running_daemon() {
    let site = site("move", "");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    program.wait_for_log("Ready.");
    let good = fs::read_to_string(site.path("daemon.yaml")).unwrap();
    let weights = fs::read(site.path("models/small/1/weights.safetensors")).unwrap();
    fs::write(site.path("models/small/1/weights.safetensors"), &weights[..weights.len() - 1]).unwrap();
    fs::write(site.path("daemon.yaml"), "inbox: { pth: x }\n").unwrap();
    put_slices(&site, &stamp, 0..20);
    program.wait_until("results", || files(&site.path("inbox")).is_empty());
    program.stop();
    let mut program = Program::start(&site);
    assert_eq!(program.ended().0, Some(78));
    assert!(program.log().contains("daemon.yaml:1: inbox.pth: is unknown"), "{}", program.log());
    fs::write(site.path("daemon.yaml"), good).unwrap();
    let mut program = Program::start(&site);
    assert_eq!(program.ended().0, Some(78));
    assert!(program.log().contains("the weights were changed or cut short"), "{}", program.log());
    fs::write(site.path("models/small/1/model.yaml"), "schema: ichd.model.v1\n").unwrap();
    let mut program = Program::start(&site);
    assert_eq!(program.ended().0, Some(78));
    change_settings(&site, "device: cpu", "device: cuda:77");
    let mut program = Program::start(&site);
    assert_eq!(program.ended().0, Some(78), "{}", program.log());
    assert_all_done_once(site.folder.path(), 20);
}

/// Times of files say nothing about when they came.
#[test]
fn files_from_the_future_and_the_past_are_taken() {
    let site = site("keep", "");
    let stamp = Stamp::new();
    for (number, year) in [(0, "2150-01-01"), (1, "1971-01-01"), (2, "1901-12-31")] {
        let path = site.path(&format!("inbox/.{number}.dcm"));
        fs::write(&path, stamp.slice(number)).unwrap();
        let status = std::process::Command::new("touch").arg("-d").arg(year).arg(&path).status().unwrap();
        assert!(status.success());
        fs::rename(&path, site.path(&format!("inbox/{number}.dcm"))).unwrap();
    }
    let mut program = Program::start(&site);
    program.wait_until("results", || results(&site.path("results")).len() == 3);
    program.stop();
    // Known after a restart.
    let log = {
        let mut program = Program::start(&site);
        program.wait_for_log_times("Ready.", 2);
        std::thread::sleep(Duration::from_millis(1500));
        program.stop()
    };
    assert!(log.contains("0 files: 0 done"), "{log}");
}
