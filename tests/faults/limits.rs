//! The system's limits: file descriptors, watches, events, files in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::tools::{Program, Stamp, assert_all_done_once, change_settings, number, put, put_slices, results, site};
use crate::support::files;

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
            fs::create_dir(site.path(&format!("inbox/{folder}"))).unwrap();
        }
        let stamp = Stamp::new();
        let mut program = Program::start_behind(&site, &words, &[]);
        program.wait_for_log("No file events for the inbox");
        for number in 0..20 {
            put(&site.path(&format!("inbox/{}", number % 5)), &format!("{number}.dcm"), &stamp.slice(number));
        }
        program.wait_until("all", || files(&site.path("inbox")).is_empty());
        std::thread::sleep(Duration::from_millis(2500));
        let log = program.stop();
        assert_eq!(log.matches("No file events for the inbox").count(), 1, "{key}: {log}");
        assert_all_done_once(site.folder.path(), 20);
    }
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

/// Value of a field of /proc/PID/status in KiB.
pub fn memory_kib(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Files that are known already: what it costs to look at them again, in one folder.
#[test]
fn a_folder_with_very_many_files_is_scanned_in_little_time_and_memory() {
    let n_files = number("ICHD_FOLDER_FILES", 2000);
    let site = site("keep", "");
    // Copies of one slice: the first is scored, all others are found to be the same, byte for byte.
    let bytes = Stamp::new().slice(0);
    let mut base = site.path("inbox/0.dcm");
    put(&site.path("inbox"), "0.dcm", &bytes);
    for number in 1..n_files {
        // One file under many names costs no room; a file system takes some ten thousand of them.
        let name = site.path(&format!("inbox/{number}.dcm"));
        if number % 1000 == 0 {
            fs::write(&name, &bytes).unwrap();
            base = name;
        } else {
            fs::hard_link(&base, &name).unwrap();
        }
    }
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
    let per_file = (peak - at_start) as f64 / n_files as f64;
    assert!(n_files < 50_000 || per_file < 2.0, "{per_file} KiB for each file");
}
