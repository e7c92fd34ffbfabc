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
    // Still read-only: a restart would not help, and says so before anything is taken.
    assert_refused(&mounts, &site, "results.path");
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

/// The start ends with 78 and names the folder.
fn assert_refused(mounts: &Mounts, site: &Site, key: &str) {
    let mut program = mounts.start(site);
    assert_eq!(program.ended(), (Some(78), None), "{}", program.log());
    let said = program.log().lines().last().unwrap_or_default().to_owned();
    assert!(said.contains(&format!("{key}: ")) && said.contains("cannot be written to: Read-only"), "{said}");
}

/// A rejected folder that cannot be written to while it runs: the reason cannot be given, so 74; then 78.
#[test]
fn a_read_only_rejected_folder_ends_it_with_74_and_loses_nothing() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "");
    let path = site.path("rejected");
    fs::create_dir_all(&path).unwrap();
    let path = path.display();
    mounts.run(&format!("mount --bind '{path}' '{path}'"));
    put_slices(&site, &Stamp::new(), 0..3);
    let mut program = mounts.start(&site);
    program.wait_until("some", || files(&site.path("done")).len() == 3);
    mounts.run(&format!("mount -o remount,ro,bind '{path}'"));
    put(&site.path("inbox"), "x.dcm", b"no DICOM");
    assert_eq!(program.ended().0, Some(74), "{}", program.log());
    assert!(site.path("inbox/x.dcm").exists());
    assert_refused(&mounts, &site, "inbox.rejected_path");
    mounts.run(&format!("mount -o remount,rw,bind '{path}'"));
    let mut program = mounts.start(&site);
    program.wait_until("the reason", || site.path("rejected/x.dcm.reason.json").exists());
    program.wait_until("the file", || site.path("rejected/x.dcm").exists());
    program.stop();
}

/// What is found out at the start, before a file is taken: by the folders themselves, and as a user without rights to one.
#[test]
fn folders_that_cannot_be_written_end_the_start_with_78() {
    let Some(mounts) = Mounts::new() else { return };
    for (folder, key) in [("results", "results.path"), ("rejected", "inbox.rejected_path"), ("record", "ledger.path")] {
        let site = site("keep", "");
        change_settings(&site, "path: ledger.sqlite", "path: record/ledger.sqlite");
        put_slices(&site, &Stamp::new(), 0..1);
        fs::create_dir(site.path(folder)).unwrap();
        let path = site.path(folder).display().to_string();
        mounts.run(&format!("mount --bind '{path}' '{path}' && mount -o remount,ro,bind '{path}'"));
        assert_refused(&mounts, &site, key);
        mounts.run(&format!("umount '{path}'"));
        let mut program = mounts.start(&site);
        program.wait_until("the result", || results(&site.path("results")).len() == 1);
        program.stop();
        for part in ["results", "rejected", "record"] {
            assert_eq!(leftovers(&site.path(part)), Vec::<PathBuf>::new(), "something was left in {part}");
        }
    }
}

/// An inbox that can only be read, with `after: keep`: it serves, and a second daemon on it is refused all the same.
#[test]
fn a_read_only_inbox_is_served_and_held() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("keep", "");
    put_slices(&site, &Stamp::new(), 0..5);
    let path = site.path("inbox").display().to_string();
    mounts.run(&format!("mount --bind '{path}' '{path}' && mount -o remount,ro,bind '{path}'"));
    let mut program = mounts.start(&site);
    program.wait_until("results", || results(&site.path("results")).len() == 5);
    let other = super::tools::site("keep", "");
    change_settings(&other, "path: inbox,", &format!("path: {path},"));
    let mut second = mounts.start(&other);
    assert_eq!(second.ended(), (Some(78), None), "{}", second.log());
    assert!(second.log().contains("holds inbox.path"), "{}", second.log());
    let log = program.stop();
    assert!(log.contains("5 files: 5 done, 0 duplicates, 0 rejected"), "{log}");
    assert!(!log.contains("cannot be locked"), "{log}");
}

/// Made immutable with chattr, and back when it is dropped, so that its folder can be cleared away.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: PathBuf) -> Option<Immutable> {
        let changed = std::process::Command::new("chattr").arg("+i").arg(&path).output();
        if changed.is_ok_and(|output| output.status.success()) {
            return Some(Immutable(path));
        }
        println!("skipped: no file can be made immutable here (needs root, and a file system that knows it)");
        None
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = std::process::Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

/// An input that cannot be moved: it has its result, once, and stays where it is until it can be moved.
#[test]
fn an_immutable_input_is_scored_once_and_stays() {
    let site = site("move", "");
    put_slices(&site, &Stamp::new(), 0..3);
    let Some(immutable) = Immutable::new(site.path("inbox/1.dcm")) else { return };
    let mut program = Program::start(&site);
    program.wait_until("results", || results(&site.path("results")).len() == 3);
    program.wait_until("the others", || files(&site.path("done")).len() == 2);
    let log = program.stop();
    assert!(log.contains("An input file could not be moved away; its outcome is on record."), "{log}");
    assert_eq!(files(&site.path("inbox")), [site.path("inbox/1.dcm")]);
    drop(immutable);
    let mut program = Program::start(&site);
    program.wait_until("it is moved", || files(&site.path("inbox")).is_empty());
    assert!(program.stop().contains("0 files: 0 done"), "it was scored again");
    assert_all_done_once(site.folder.path(), 3);
}

/// Refusals have no room for their reasons: that is waited for. Done inputs have none: they stay, and are moved at the next
/// start.
#[test]
fn full_disks_under_done_and_rejected_cost_nothing() {
    let Some(mounts) = Mounts::new() else { return };
    let site = site("move", "disk: { free_bytes_min: 0 }\n");
    mount_small(&mounts, &site, "done", 64);
    mount_small(&mounts, &site, "rejected", 64);
    let seen = mounts.seen(site.folder.path());
    put_slices(&site, &Stamp::new(), 0..30);
    let mut program = mounts.start(&site);
    program.wait_until("results", || results(&site.path("results")).len() == 30);
    program.wait_for_log("An input file could not be moved away; its outcome is on record.");
    for number in 0..40 {
        put(&site.path("inbox"), &format!("x{number}.dcm"), format!("no DICOM {number}").as_bytes());
    }
    program.wait_for_log("Failed, and is tried again: writing a reason.");
    std::thread::sleep(Duration::from_secs(1));
    assert!(program.is_running(), "{}", program.log());
    make_room(&mounts, &site, "done");
    make_room(&mounts, &site, "rejected");
    program.wait_until("every reason", || {
        files(&seen.join("rejected")).iter().filter(|file| file.to_string_lossy().ends_with(".reason.json")).count()
            == 40
    });
    program.stop();
    let mut program = mounts.start(&site);
    program.wait_until("all are moved", || files(&site.path("inbox")).is_empty());
    assert!(program.stop().contains("0 files: 0 done"), "something was scored again");
    assert_all_done_once(&seen, 30);
    assert_eq!((files(&seen.join("done")).len(), files(&seen.join("rejected")).len()), (30, 80));
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

/// The same with scans so rare that only events can serve so soon: those of the folder that is there now.
#[test]
fn an_inbox_that_comes_back_is_heard_again_between_scans() {
    const SCAN: Duration = Duration::from_secs(10);
    let site = site("move", "");
    change_settings(&site, "scan_secs: 1", "scan_secs: 10");
    let stamp = Stamp::new();
    let mut program = Program::start(&site);
    put_slices(&site, &stamp, 0..1);
    program.wait_until("the first", || files(&site.path("done")).len() == 1);
    let mut next = 1;
    for replace in [true, false] {
        fs::rename(site.path("inbox"), site.path("elsewhere")).unwrap();
        if replace {
            fs::create_dir(site.path("inbox")).unwrap();
        } else {
            program.wait_for_log("The inbox cannot be read");
            fs::rename(site.path("elsewhere"), site.path("inbox")).unwrap();
        }
        // Whatever it hears of this one, the next scan has come when it is done twice, the second time at once.
        let scanned = Instant::now();
        while scanned.elapsed() < SCAN + Duration::from_secs(1) {
            put_slices(&site, &stamp, next..next + 1);
            next += 1;
            let before = Instant::now();
            program.wait_until("one more", || files(&site.path("done")).len() as u64 == next);
            println!("replaced: {replace}: done after {:.1} s", before.elapsed().as_secs_f64());
            std::thread::sleep(Duration::from_millis(1500));
        }
        for _ in 0..2 {
            put_slices(&site, &stamp, next..next + 1);
            next += 1;
            let before = Instant::now();
            program.wait_until("one by its event", || files(&site.path("done")).len() as u64 == next);
            assert!(before.elapsed() < SCAN / 2, "it waited for a scan: {:?}", before.elapsed());
        }
        if replace {
            // Events of the old folder mean nothing.
            put(&site.path("elsewhere"), "x.dcm", &stamp.slice(999));
            std::thread::sleep(Duration::from_millis(500));
            fs::remove_dir_all(site.path("elsewhere")).unwrap();
        }
    }
    program.stop();
    assert_all_done_once(site.folder.path(), next);
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
