//! Folders that are full, read-only, gone, replaced or elsewhere, and files that change under the reader's hands.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tools::{
    Mounts, Program, Stamp, assert_all_done_once, change_settings, instance_uid, leftovers, put, put_slices, results,
    site, write_slowly,
};
use crate::support::{Site, files};

/// A site of which some folders are small file systems of their own.
fn mount_small(mounts: &Mounts, site: &Site, folder: &str, kib: u32) {
    fs::create_dir_all(site.path(folder)).unwrap();
    mounts.run(&format!("mount -t tmpfs -o size={kib}k none '{}'", site.path(folder).display()));
}

fn make_room(mounts: &Mounts, site: &Site, folder: &str) {
    mounts.run(&format!("mount -o remount,size=64m '{}'", site.path(folder).display()));
}

/// Results on a disk of 300 KiB: it fills up, the daemon waits, and goes on by itself once there is room.
#[test]
fn a_full_disk_under_results_is_waited_for() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "disk: { free_bytes_min: 0 }\n");
    mount_small(&mounts, &site, "results", 300);
    let stamp = Stamp::new();
    put_slices(&site, &stamp, 0..200);
    let mut program = mounts.start(&site);
    program.wait_for_log("Failed, and is tried again");
    std::thread::sleep(Duration::from_secs(3));
    assert!(program.is_running(), "{}", program.log());
    let seen = mounts.seen(site.folder.path());
    let before = results(&seen.join("results"));
    assert!(!before.is_empty() && before.len() < 200, "{}", before.len());
    assert!(files(&site.path("inbox")).len() > 30, "it went on taking files");
    make_room(&mounts, &site, "results");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    let after = results(&seen.join("results"));
    assert!(before.iter().all(|(file, bytes)| after.get(file) == Some(bytes)));
    program.stop();
    assert_all_done_once(&seen, 200);
}

/// The same with the ledger, and SIGTERM while it is full ends the daemon.
#[test]
fn a_full_disk_under_the_ledger_is_waited_for_and_sigterm_ends_the_wait() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "disk: { free_bytes_min: 0 }\nlimits: { stop_secs_max: 20 }\n");
    change_settings(&site, "path: ledger.sqlite", "path: record/ledger.sqlite");
    mount_small(&mounts, &site, "record", 400);
    let stamp = Stamp::new();
    put_slices(&site, &stamp, 0..600);
    let mut program = mounts.start(&site);
    program.wait_for_log("Failed, and is tried again");
    std::thread::sleep(Duration::from_secs(2));
    assert!(program.is_running(), "{}", program.log());
    let begun = Instant::now();
    program.signal("TERM");
    let (code, _) = program.ended();
    assert!(matches!(code, Some(0 | 74 | 75)), "{code:?}: {}", program.log());
    assert!(begun.elapsed() < Duration::from_secs(25));
    let mut program = mounts.start(&site);
    std::thread::sleep(Duration::from_secs(2));
    // It may not even start without room for the ledger; with room all is done, once.
    make_room(&mounts, &site, "record");
    if !program.is_running() {
        program = mounts.start(&site);
    }
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 600);
}

/// The watermark: admission pauses before the disk is full.
#[test]
fn little_room_pauses_admission_before_the_disk_is_full() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "disk: { free_bytes_min: 1048576, free_bytes_resume: 2097152 }\n");
    mount_small(&mounts, &site, "results", 800);
    put_slices(&site, &Stamp::new(), 0..20);
    let mut program = mounts.start(&site);
    program.wait_for_log("Little room is left");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(files(&site.path("inbox")).len(), 20, "{}", program.log());
    make_room(&mounts, &site, "results");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    assert!(program.stop().contains("admission paused 1 times"));
    assert_all_done_once(&mounts.seen(site.folder.path()), 20);
}

/// Done and rejected folders on other file systems: moved by copy, nothing is lost.
#[test]
fn folders_on_other_file_systems_are_moved_to() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "");
    for folder in ["done", "rejected"] {
        mount_small(&mounts, &site, folder, 32_000);
    }
    change_settings(&site, "device: cpu", "device: cpu\ndisk: { free_bytes_min: 0 }");
    put_slices(&site, &Stamp::new(), 0..30);
    put(&site.path("inbox"), "x.dcm", b"no DICOM");
    let mut program = mounts.start(&site);
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    let seen = mounts.seen(site.folder.path());
    assert_all_done_once(&seen, 30);
    assert_eq!((files(&seen.join("done")).len(), files(&seen.join("rejected")).len()), (30, 2));
    assert_eq!(fs::read(seen.join("done/7.dcm")).unwrap(), Stamp::new().slice(7));
}

/// Results that cannot be written: exit code 74 after several tries, for the supervisor to try again; nothing is lost.
#[test]
fn read_only_results_end_it_with_74_and_the_next_start_goes_on() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "");
    let stamp = Stamp::new();
    let results_path = site.path("results");
    fs::create_dir_all(&results_path).unwrap();
    let path = results_path.display();
    mounts.run(&format!("mount --bind '{path}' '{path}'"));
    put_slices(&site, &stamp, 0..10);
    let mut program = mounts.start(&site);
    program.wait_until("some", || files(&site.path("done")).len() == 10);
    mounts.run(&format!("mount -o remount,ro,bind '{path}'"));
    put_slices(&site, &stamp, 10..30);
    assert_eq!(program.ended(), (Some(74), None), "{}", program.log());
    // Still read-only: as before, not worse.
    assert_eq!(mounts.start(&site).ended().0, Some(74));
    assert_eq!(files(&site.path("inbox")).len(), 20);
    mounts.run(&format!("mount -o remount,rw,bind '{path}'"));
    let mut program = mounts.start(&site);
    program.wait_until("the rest", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 30);
}

/// A done folder that cannot be written to: results come, inputs stay and are moved at the next start.
#[test]
fn a_read_only_done_folder_keeps_inputs_where_they_are() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "");
    let done = site.path("done");
    fs::create_dir_all(&done).unwrap();
    let path = done.display();
    mounts.run(&format!("mount --bind '{path}' '{path}' && mount -o remount,ro,bind '{path}'"));
    put_slices(&site, &Stamp::new(), 0..20);
    let mut program = mounts.start(&site);
    program.wait_until("results", || results(&site.path("results")).len() == 20);
    let log = program.stop();
    assert!(log.contains("An input file could not be moved away; its outcome is on record."), "{log}");
    assert_eq!(files(&site.path("inbox")).len(), 20);
    mounts.run(&format!("mount -o remount,rw,bind '{path}'"));
    let mut program = mounts.start(&site);
    program.wait_until("they are moved", || files(&site.path("inbox")).is_empty());
    assert!(program.stop().contains("0 files: 0 done"), "nothing was scored again");
    assert_all_done_once(site.folder.path(), 20);
}

/// A rejected folder that cannot be written to: the reason cannot be given, so 74; healthy files before it are done.
#[test]
fn a_read_only_rejected_folder_ends_it_with_74_and_loses_nothing() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "");
    let path = site.path("rejected");
    fs::create_dir_all(&path).unwrap();
    let path = path.display();
    mounts.run(&format!("mount --bind '{path}' '{path}' && mount -o remount,ro,bind '{path}'"));
    put(&site.path("inbox"), "x.dcm", b"no DICOM");
    let mut program = mounts.start(&site);
    assert_eq!(program.ended().0, Some(74), "{}", program.log());
    assert!(site.path("inbox/x.dcm").exists());
    mounts.run(&format!("mount -o remount,rw,bind '{path}'"));
    let mut program = mounts.start(&site);
    program.wait_until("the reason", || site.path("rejected/x.dcm.reason.json").exists());
    program.wait_until("the file", || site.path("rejected/x.dcm").exists());
    program.stop();
}

/// Rights that are taken away while it runs, and given back: as a user without privileges.
#[test]
fn rights_that_come_and_go_cost_no_file() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to become somebody else");
        return;
    }
    let site = site("move", "");
    for folder in ["", "inbox", "results", "done", "rejected", "models"] {
        let path = site.path(folder);
        fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
    }
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(site.path(path), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let binary = assert_cmd::cargo::cargo_bin!("ichd");
    let can_run = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(binary)
        .arg("--version")
        .stdout(std::process::Stdio::null())
        .status();
    if !can_run.is_ok_and(|status| status.success()) {
        println!("skipped: setpriv is missing, or others may not read the program");
        return;
    }
    let stamp = Stamp::new();
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut program = Program::start_behind(&site, &words, &[]);
    put_slices(&site, &stamp, 0..5);
    program.wait_until("the first", || files(&site.path("done")).len() == 5);
    // The inbox cannot be read.
    mode("inbox", 0o000);
    put_slices(&site, &stamp, 5..10);
    program.wait_for_log("The inbox cannot be read");
    mode("inbox", 0o755);
    program.wait_until("the second", || files(&site.path("done")).len() == 10);
    program.wait_for_log("The whole inbox can be read again");
    // A folder in it cannot be read, the others are.
    fs::create_dir(site.path("inbox/closed")).unwrap();
    mode("inbox/closed", 0o000);
    put_slices(&site, &stamp, 10..15);
    program.wait_until("the third", || files(&site.path("done")).len() == 15);
    program.wait_for_log("A folder in the inbox cannot be read");
    // A file that nobody may read is refused with the reason, and stays whole.
    fs::remove_dir(site.path("inbox/closed")).unwrap();
    put(&site.path("inbox"), "secret.dcm", &stamp.slice(99));
    mode("inbox/secret.dcm", 0o000);
    program.wait_until("the reason", || site.path("rejected/secret.dcm.reason.json").exists());
    let reason = fs::read_to_string(site.path("rejected/secret.dcm.reason.json")).unwrap();
    assert!(reason.contains("unreadable"), "{reason}");
    program.stop();
    assert_all_done_once(site.folder.path(), 15);
}

/// The inbox goes away and comes back, the same one, another one, and another file system.
#[test]
fn an_inbox_that_vanishes_and_comes_back_is_watched_again() {
    let site = site("move", "");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    put_slices(&site, &stamp, 0..5);
    program.wait_until("the first", || files(&site.path("done")).len() == 5);
    fs::rename(site.path("inbox"), site.path("elsewhere")).unwrap();
    program.wait_for_log("The inbox cannot be read");
    put(&site.path("elsewhere"), "5.dcm", &stamp.slice(5));
    fs::rename(site.path("elsewhere"), site.path("inbox")).unwrap();
    program.wait_until("what came meanwhile", || files(&site.path("done")).len() == 6);
    // Another folder in its place: events of the old one mean nothing.
    fs::rename(site.path("inbox"), site.path("old")).unwrap();
    fs::create_dir(site.path("inbox")).unwrap();
    put_slices(&site, &stamp, 6..10);
    program.wait_until("the new folder's", || files(&site.path("done")).len() == 10);
    put(&site.path("old"), "x.dcm", &stamp.slice(77));
    put_slices(&site, &stamp, 10..12);
    program.wait_until("more", || files(&site.path("done")).len() == 12);
    let log = program.stop();
    assert!(site.path("old/x.dcm").exists());
    assert_eq!(log.matches("The inbox cannot be read").count(), 1, "{log}");
    assert_all_done_once(site.folder.path(), 12);
}

#[test]
fn another_file_system_under_the_inbox_is_noticed() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "disk: { free_bytes_min: 0 }\n");
    let stamp = Stamp::new();
    let mut program = mounts.start(&site);
    put_slices(&site, &stamp, 0..3);
    program.wait_until("the first", || files(&site.path("done")).len() == 3);
    let inbox = site.path("inbox");
    mount_small(&mounts, &site, "inbox", 8000);
    let seen = mounts.seen(&inbox);
    for number in 3..8 {
        put(&seen, &format!("{number}.dcm"), &stamp.slice(number));
    }
    program.wait_until("the mounted ones", || files(&site.path("done")).len() == 8);
    // A second one over it, whose root has the same inode.
    mount_small(&mounts, &site, "inbox", 9000);
    for number in 8..12 {
        put(&seen, &format!("{number}.dcm"), &stamp.slice(number));
    }
    program.wait_until("those above", || files(&site.path("done")).len() == 12);
    mounts.run(&format!("umount -l '{0}' && umount -l '{0}'", inbox.display()));
    put_slices(&site, &stamp, 12..15);
    program.wait_until("the old ones", || files(&site.path("done")).len() == 15);
    program.stop();
    assert_all_done_once(site.folder.path(), 15);
}

/// Pre-allocated at full size and filled slowly, grown in pieces, under names that say unfinished: taken when they are
/// whole.
#[test]
fn unfinished_files_are_taken_when_they_are_whole() {
    let site = site("move", "");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    put_slices(&site, &stamp, 0..1);
    program.wait_until("events are heard", || files(&site.path("done")).len() == 1);
    let bytes = stamp.slice(1);
    let mut file = fs::File::create(site.path("inbox/1.dcm")).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for piece in bytes.chunks(bytes.len().div_ceil(4)) {
        std::thread::sleep(Duration::from_millis(300));
        file.write_all(piece).unwrap();
        assert_eq!(results(&site.path("results")).len(), 1, "it was taken before it was closed");
    }
    drop(file);
    write_slowly(&site.path("inbox/2.dcm"), &stamp.slice(2), Duration::from_millis(900));
    for (number, name) in [(3, "3.dcm.part"), (4, "4.tmp"), (5, "5.dcm~"), (6, ".6.dcm"), (7, "7.partial")] {
        fs::write(site.path("inbox").join(name), stamp.slice(number)).unwrap();
    }
    program.wait_until("the slow ones", || files(&site.path("done")).len() == 3);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(results(&site.path("results")).len(), 3, "an unfinished name was taken");
    for (number, name) in [(3, "3.dcm.part"), (4, "4.tmp"), (5, "5.dcm~"), (6, ".6.dcm"), (7, "7.partial")] {
        fs::rename(site.path("inbox").join(name), site.path(&format!("inbox/{number}.dcm"))).unwrap();
    }
    program.wait_until("the renamed ones", || files(&site.path("done")).len() == 8);
    let log = program.stop();
    assert!(log.contains("8 done, 0 duplicates, 0 rejected"), "{log}");
    assert_all_done_once(site.folder.path(), 8);
}

/// Files are replaced, cut and deleted while the daemon reads as fast as it can: what stays is scored, what was cut is
/// refused, nothing is half one and half the other.
#[test]
fn files_that_change_under_the_reader_end_well() {
    let site = site("keep", "");
    change_settings(&site, "settle_ms: 100", "settle_ms: 1");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    let inbox = site.path("inbox");
    let mut dice = super::tools::Dice(7);
    for number in 0..150u64 {
        let path = inbox.join(format!("{number}.dcm"));
        put(&inbox, &format!("{number}.dcm"), &stamp.slice(number));
        std::thread::sleep(Duration::from_micros(dice.below(4000)));
        match number % 3 {
            // Another instance over it.
            0 => put(&inbox, &format!("{number}.dcm"), &stamp.slice(1000 + number)),
            1 => fs::remove_file(&path).unwrap(),
            _ => fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3000).unwrap(),
        }
    }
    let has = |number: u64| {
        let name = format!("{}.json", instance_uid(number));
        files(&site.path("results")).iter().any(|file| file.ends_with(&name))
    };
    let reason = |number: u64| site.path(&format!("rejected/{number}.dcm.reason.json"));
    program.wait_until("every last state has its outcome", || {
        (0..150).all(|number| match number % 3 {
            0 => has(1000 + number),
            1 => true,
            _ => reason(number).exists(),
        })
    });
    let log = program.stop();
    assert!(!log.contains("panicked"), "{log}");
    for (file, bytes) in results(&site.path("results")) {
        let result: Value = serde_json::from_slice(&bytes).unwrap();
        let digits: String = result["instance_uid"].as_str().unwrap().chars().skip(6).collect();
        let number: u64 = digits.parse().unwrap();
        assert_eq!(result["source"]["sha256"], ichd::identity::sha256(&stamp.slice(number)), "{}", file.display());
    }
    for number in (2..150).step_by(3) {
        let text = fs::read_to_string(reason(number)).unwrap();
        assert!(
            text.contains("truncated") || text.contains("corrupt-dicom") || text.contains("short-pixels"),
            "{text}"
        );
    }
    assert_eq!(leftovers(&site.path("results")), Vec::<PathBuf>::new());
}
