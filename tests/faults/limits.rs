//! The system's limits: file descriptors, watches, events, files in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ichd::admit::path_key;
use ichd::disk::{Disk, RealDisk};
use ichd::ledger::{FileOutcome, FileState, Ledger};

use super::tools::{Program, Stamp, assert_all_done_once, change_settings, number, put, put_slices, results, site};
use crate::support::{Site, files};

fn n_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn limit_descriptors(pid: u32, most: usize) {
    let status = Command::new("prlimit").arg(format!("--nofile={most}:")).args(["--pid", &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// With not one descriptor more than it holds at rest nothing can be read; once there are some, all is done and none of
/// the files was refused for it.
#[test]
fn without_file_descriptors_files_wait_and_none_is_refused() {
    let site = site("move", "");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    put_slices(&site, &stamp, 0..5);
    program.wait_until("the first results", || files(&site.path("done")).len() == 5);
    let pid = program.child.id();
    std::thread::sleep(Duration::from_millis(300));
    let at_rest = n_descriptors(pid);
    limit_descriptors(pid, at_rest.min(lowest_free(pid)));
    put_slices(&site, &stamp, 5..40);
    std::thread::sleep(Duration::from_secs(3));
    assert!(program.is_running(), "{}", program.log());
    assert_eq!(results(&site.path("results")).len(), 5, "it read without a descriptor");
    limit_descriptors(pid, 1024);
    program.wait_until("all results", || files(&site.path("done")).len() == 40);
    program.stop();
    assert_eq!(files(&site.path("rejected")), Vec::<PathBuf>::new());
    assert_all_done_once(site.folder.path(), 40);
}

/// The lowest number that is free: below it no descriptor can be opened.
fn lowest_free(pid: u32) -> usize {
    (0..).find(|number| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists()).unwrap()
}

/// Limits of a user namespace of its own, so that nobody else is touched.
fn with_inotify_limit(key: &str, most: u32) -> Option<Vec<String>> {
    let script = format!("echo {most} > /proc/sys/user/{key} && exec \"$@\"");
    let words = ["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"];
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let works = Command::new(&words[0]).args(&words[1..]).arg("true").status().is_ok_and(|status| status.success());
    if !works {
        assert!(std::env::var_os("ICHD_REQUIRE_MOUNTS").is_none(), "no user namespaces here");
        println!("skipped: no user namespaces here");
    }
    works.then_some(words)
}

#[test]
fn without_inotify_watches_or_instances_scans_alone_serve_and_it_says_so_once() {
    for (key, most) in [("max_inotify_watches", 2), ("max_inotify_instances", 0)] {
        let Some(words) = with_inotify_limit(key, most) else { return };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let site = site("move", "");
        for folder in 0..5 {
            fs::create_dir(site.path(&format!("inbox/{PATIENT}{folder}"))).unwrap();
        }
        let stamp = Stamp::new();
        let mut program = Program::start_behind(&site, &words, &[]);
        program.wait_for_log("No file events for the inbox");
        for number in 0..20 {
            put(&site.path(&format!("inbox/{PATIENT}{}", number % 5)), &format!("{number}.dcm"), &stamp.slice(number));
        }
        program.wait_until("all", || files(&site.path("inbox")).is_empty());
        std::thread::sleep(Duration::from_millis(2500));
        let log = program.stop();
        assert_eq!(log.matches("No file events for the inbox").count(), 1, "{key}: {log}");
        assert!(!log.contains(PATIENT), "{key}: {log}");
        assert_all_done_once(site.folder.path(), 20);
    }
}

/// Folders that come while it runs, until the system has no watch left: files in them are found by scans from then on,
/// which is said once, and without the name of a folder.
#[test]
fn a_new_folder_beyond_the_limit_of_watches_is_scanned_and_not_named() {
    let Some(words) = with_inotify_limit("max_inotify_watches", 3) else { return };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let site = site("move", "log: { filter: trace }\n");
    let stamp = Stamp::new();
    let mut program = Program::start_behind(&site, &words, &[]);
    put_slices(&site, &stamp, 0..1);
    program.wait_until("events are heard", || files(&site.path("done")).len() == 1);
    assert!(!program.log().contains("No file events"), "{}", program.log());
    for folder in 0..5 {
        fs::create_dir(site.path(&format!("inbox/{PATIENT}{folder}"))).unwrap();
    }
    program.wait_for_log("No file events for the inbox");
    for number in 1..21 {
        put(&site.path(&format!("inbox/{PATIENT}{}", number % 5)), &format!("{number}.dcm"), &stamp.slice(number));
    }
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    std::thread::sleep(Duration::from_millis(2500));
    let log = program.stop();
    assert!(log.contains("the system has no watch left"), "{log}");
    assert_eq!(log.matches("No file events for the inbox").count(), 1, "{log}");
    assert!(!log.contains(PATIENT), "{log}");
    assert_all_done_once(site.folder.path(), 21);
}

/// A slow writer without events: two scans must agree.
#[test]
fn a_growing_file_is_not_taken_too_early_without_events() {
    let Some(words) = with_inotify_limit("max_inotify_instances", 0) else { return };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let site = site("move", "");
    let stamp = Stamp::new();
    let mut program = Program::start_behind(&site, &words, &[]);
    program.wait_for_log("No file events for the inbox");
    // Longer than the settle time of a tenth of a second, shorter than two scans.
    super::tools::write_slowly(&site.path("inbox/0.dcm"), &stamp.slice(0), Duration::from_millis(700));
    program.wait_until("the result", || files(&site.path("done")).len() == 1);
    let log = program.stop();
    assert!(log.contains("1 files: 1 done, 0 duplicates, 0 rejected"), "{log}");
}

/// The process stands still while more events come than the system keeps: a scan finds what was lost, long before the next
/// one is due.
#[test]
fn an_overflow_of_events_is_made_good_by_a_scan() {
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    if most > 100_000 {
        println!("skipped: {most} events are kept here");
        return;
    }
    let site = site("move", "");
    change_settings(&site, "scan_secs: 1", "scan_secs: 3600");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    put_slices(&site, &stamp, 0..1);
    program.wait_until("the first one", || files(&site.path("done")).len() == 1);
    program.signal("STOP");
    let names = [site.path("inbox/.a"), site.path("inbox/.b")];
    let mut n_events = 0;
    // Created, written, closed, removed: in turns, so that the system cannot merge them.
    while n_events < most + 4000 {
        for name in &names {
            fs::write(name, "x").unwrap();
        }
        for name in &names {
            fs::remove_file(name).unwrap();
        }
        n_events += 8;
    }
    put_slices(&site, &stamp, 1..41);
    program.signal("CONT");
    let begun = Instant::now();
    program.wait_until("all", || files(&site.path("done")).len() == 41);
    println!("{n_events} events of {most}; all there after {:.1} s", begun.elapsed().as_secs_f64());
    let log = program.stop();
    assert!(log.contains("More file events came than could be kept"), "{log}");
    assert_all_done_once(site.folder.path(), 41);
}

/// What a folder may be called, and what no log may hold.
const PATIENT: &str = "ZQDOE^JOHNZQ";

/// Value of a field of /proc/PID/status in KiB.
pub fn memory_kib(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Puts `n_files` files with these bytes into the inbox. One file under many names costs no room; a file system takes
/// some ten thousand of them.
fn fill_inbox(site: &Site, bytes: &[u8], n_files: u64) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut base = site.path("inbox/0.dcm");
    for number in 0..n_files {
        let path = site.path(&format!("inbox/{number}.dcm"));
        if number % 1000 == 0 {
            fs::write(&path, bytes).unwrap();
            base.clone_from(&path);
        } else {
            fs::hard_link(&base, &path).unwrap();
        }
        paths.push(path);
    }
    paths
}

/// A folder of files that are on record, as under `after: keep` after years: each start looks at all of them, opens none,
/// holds no more than their paths, and finds the new one among them.
#[test]
fn a_folder_of_files_on_record_costs_memory_for_their_paths_only() {
    let n_files = number("ICHD_FOLDER_FILES", 20_000).max(20_000);
    let site = site("keep", "");
    let paths = fill_inbox(&site, b"what is on record is not read", n_files);
    let ledger = Ledger::open(&site.path("ledger.sqlite")).unwrap();
    let outcome = |path: &PathBuf| FileOutcome {
        path: path_key(path),
        fingerprint: RealDisk.fingerprint(path).unwrap().unwrap(),
        state: FileState::Done,
        sha256: None,
        code: None,
        sentence: None,
    };
    ledger.commit(&paths.iter().map(outcome).collect::<Vec<_>>(), &[], "2026-01-01T00:00:00Z").unwrap();
    drop(ledger);
    // What the daemon takes for work with a few files.
    let peak_with = |n_done: u64, new: u64| {
        put(&site.path("inbox"), &format!("new-{new}.dcm"), &Stamp::new().slice(new));
        let begun = Instant::now();
        let mut program = Program::start(&site);
        program.wait_until("the new one", || results(&site.path("results")).len() as u64 == n_done);
        // Every file is looked at by then, and once more.
        std::thread::sleep(Duration::from_millis(2500));
        let peak = memory_kib(program.child.id(), "VmHWM");
        let log = program.stop();
        assert!(log.contains("1 files: 1 done, 0 duplicates, 0 rejected"), "{log}");
        (begun.elapsed().as_secs_f64(), peak)
    };
    let (secs, peak) = peak_with(1, 1);
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    let (_, base) = peak_with(2, 2);
    let per_file = peak.saturating_sub(base) as f64 / n_files as f64;
    println!(
        "{n_files} files on record: the new one among them after {secs:.1} s, {peak} KiB at most, {base} KiB without them"
    );
    assert!(per_file < 2.0, "{per_file} KiB for each file");
}

/// Files that were never seen and hold what is known: what it costs to find that out, in one folder.
#[test]
fn a_folder_with_very_many_files_is_scanned_in_little_time_and_memory() {
    let n_files = number("ICHD_FOLDER_FILES", 2000);
    let site = site("keep", "");
    // Copies of one slice: the first is scored, all others are found to be the same, byte for byte.
    fill_inbox(&site, &Stamp::new().slice(0), n_files);
    let mut program = Program::start(&site);
    program.wait_for_log("Ready.");
    let (pid, begun) = (program.child.id(), Instant::now());
    let at_start = memory_kib(pid, "VmRSS");
    let known = || -> u64 {
        let ledger = rusqlite::Connection::open(site.path("ledger.sqlite")).unwrap();
        let count = "SELECT count(*) FROM files WHERE state IN ('done', 'duplicate')";
        ledger.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap() as u64
    };
    let deadline = Duration::from_secs(3600);
    while known() < n_files {
        assert!(program.is_running() && begun.elapsed() < deadline, "{} of {n_files}: {}", known(), program.log());
        std::thread::sleep(Duration::from_millis(500));
    }
    let (secs, peak) = (begun.elapsed().as_secs_f64(), memory_kib(pid, "VmHWM"));
    let log = program.stop();
    assert!(log.contains(&format!("{n_files} files: 1 done, {} duplicates", n_files - 1)), "{log}");
    // A restart: all are on record, none is read again; one more is found among them.
    let (begun, stamp) = (Instant::now(), Stamp::new());
    put(&site.path("inbox"), "new.dcm", &stamp.slice(7));
    let mut program = Program::start(&site);
    program.wait_until("the new one", || results(&site.path("results")).len() == 2);
    let (again_secs, again_peak) = (begun.elapsed().as_secs_f64(), memory_kib(program.child.id(), "VmHWM"));
    let log = program.stop();
    assert!(log.contains("1 files: 1 done"), "{log}");
    println!(
        "{n_files} files in one folder: all known after {secs:.1} s ({:.0} a second), {at_start} KiB at start, {peak} KiB at most; after a restart the new one among them after {again_secs:.1} s, {again_peak} KiB at most",
        n_files as f64 / secs
    );
    // What scoring takes at all is spread over few files here; the test above has enough of them to say more.
    let per_file = peak.saturating_sub(at_start).saturating_sub(64 * 1024) as f64 / n_files as f64;
    assert!(per_file < 2.0, "{per_file} KiB for each file");
}
