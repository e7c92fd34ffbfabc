//! The ledger on a real file.

use super::*;

const PRINT: Fingerprint = Fingerprint { inode: 7, bytes: 100, mtime_ns: 5 };

fn slice(instance: &str, picture: &str) -> SliceRecord {
    SliceRecord {
        study: "s".into(),
        series: "r".into(),
        instance: instance.into(),
        frame: 0,
        key: WorkKey { picture: picture.into(), scorer: "m".into() },
        logits: vec![-1.5, 0.25],
        file_sha256: "f".into(),
        result: format!("s/{instance}.json"),
    }
}

#[test]
fn attempts_are_counted_per_content_and_end_with_an_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    assert_eq!(ledger.begin("a", PRINT, "t").unwrap(), 1);
    assert_eq!(ledger.begin("a", PRINT, "t").unwrap(), 2);
    let grown = Fingerprint { bytes: 101, ..PRINT };
    assert_eq!(ledger.begin("a", grown, "t").unwrap(), 1);
    let outcome = FileOutcome {
        path: "a".into(),
        fingerprint: grown,
        state: FileState::Done,
        sha256: Some("f".into()),
        code: None,
        sentence: None,
    };
    ledger.commit(&[outcome], &[], "t").unwrap();
    let record = ledger.file("a").unwrap().unwrap();
    assert_eq!((record.state, record.attempts, record.fingerprint), (FileState::Done, 0, grown));
    assert_eq!(ledger.begin("a", grown, "t").unwrap(), 1);
}

#[test]
fn slices_are_found_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let (a, b) = (slice("a", "p1"), slice("b", "p2"));
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.commit(&[], &[a.clone(), b.clone()], "t").unwrap(), [1, 2]);
    drop(ledger);
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.slice_of_picture(&a.key).unwrap(), Some(a.clone()));
    assert_eq!(ledger.slices_of_study("s").unwrap().len(), 2);
    assert_eq!(ledger.slices_of_file("f").unwrap().len(), 2);
    assert_eq!(ledger.slices_of_file("other").unwrap(), []);
    assert_eq!(ledger.slices_after(1).unwrap(), [(2, b)]);
    assert_eq!(ledger.dirty_studies().unwrap(), ["s"]);
    ledger.study_written("s", 1).unwrap();
    assert_eq!(ledger.dirty_studies().unwrap(), Vec::<String>::new());
    assert_eq!(ledger.commit(&[], &[a], "t").unwrap(), [3], "a replaced slice gets a new number");
    assert_eq!(ledger.revision("s").unwrap(), 1);
    ledger.set_logged(3).unwrap();
    assert_eq!(ledger.logged().unwrap(), 3);
}

#[test]
fn a_newer_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    drop(Ledger::open(&path).unwrap());
    Connection::open(&path).unwrap().execute("UPDATE meta SET value = 99 WHERE key = 'schema'", []).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Version { found: 99 })));
}

#[test]
fn an_outcome_of_older_content_does_not_hide_the_newer() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    let newer = Fingerprint { inode: 8, bytes: 0, mtime_ns: 6 };
    let outcome = |fingerprint, state| FileOutcome {
        path: "a".into(),
        fingerprint,
        state,
        sha256: None,
        code: None,
        sentence: None,
    };
    // Both are on their way at once; the newer one is refused without waiting for the device.
    ledger.begin("a", PRINT, "t").unwrap();
    ledger.begin("a", newer, "t").unwrap();
    for (print, state) in [(PRINT, FileState::Done), (newer, FileState::Rejected), (PRINT, FileState::Done)] {
        ledger.commit(&[outcome(print, state)], &[], "t").unwrap();
        let record = ledger.file("a").unwrap().unwrap();
        assert_eq!(record.fingerprint, newer);
        assert!(matches!(record.state, FileState::Started | FileState::Rejected), "{record:?}");
    }
    assert_eq!(ledger.file("a").unwrap().unwrap().state, FileState::Rejected);
}

#[test]
fn damage_is_no_reason_to_start_again_and_a_busy_disk_is() {
    use crate::error::{Exit, Fatal};
    let exit = |code| {
        Fatal::from(LedgerError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))).exit
    };
    assert_eq!(exit(rusqlite::ffi::SQLITE_CORRUPT), Exit::Config);
    assert_eq!(exit(rusqlite::ffi::SQLITE_NOTADB), Exit::Config);
    assert_eq!(exit(rusqlite::ffi::SQLITE_IOERR), Exit::Io);
    assert_eq!(Fatal::from(LedgerError::Version { found: 99 }).exit, Exit::Config);
}

#[test]
fn counting_attempts_leaves_the_database_alone_until_an_outcome_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let ledger = Ledger::open(&path).unwrap();
    let bytes = || std::fs::metadata(&path).unwrap().len();
    let before = bytes();
    // More pages than are taken in by themselves elsewhere.
    for number in 0..3000 {
        ledger.begin(&format!("{number}-{}", "x".repeat(200)), PRINT, "t").unwrap();
    }
    assert_eq!(bytes(), before, "nobody waited for the disk");
    ledger.commit(&[], &[slice("1", "p")], "t").unwrap();
    assert!(bytes() > before + 600_000, "{} bytes", bytes());
}
