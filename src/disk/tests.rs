//! The disk as the daemon uses it, on a real file system.

use super::*;

#[test]
fn moving_never_overwrites() {
    let site = tempfile::tempdir().unwrap();
    let done = site.path().join("done");
    for text in ["first", "second", "third"] {
        let path = site.path().join("a.dcm");
        fs::write(&path, text).unwrap();
        let print = RealDisk.fingerprint(&path).unwrap().unwrap();
        let other = Fingerprint { mtime_ns: print.mtime_ns + 1, ..print };
        assert_eq!(RealDisk.move_into(&path, other, &done, "x").unwrap(), None, "another state stays");
        assert!(RealDisk.move_into(&path, print, &done, "x").unwrap().is_some());
        assert!(!path.exists());
    }
    let read = |name: &str| fs::read_to_string(done.join(name)).unwrap();
    assert_eq!((read("a.dcm"), read("a.dcm.x"), read("a.dcm.x.1")), ("first".into(), "second".into(), "third".into()));
}

#[test]
fn links_pipes_and_large_files_are_not_read() {
    let site = tempfile::tempdir().unwrap();
    let file = site.path().join("file");
    fs::write(&file, "12345").unwrap();
    let link = site.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let pipe = site.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(RealDisk.fingerprint(&link).unwrap(), None);
    assert_eq!(RealDisk.fingerprint(&pipe).unwrap(), None);
    assert!(RealDisk.read(&link, 10).is_err());
    assert!(RealDisk.read(&pipe, 10).is_err());
    assert!(RealDisk.read(site.path(), 10).is_err());
    assert_eq!(RealDisk.read(&file, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert_eq!(RealDisk.read(&file, 5).unwrap().1, b"12345");
}

#[test]
fn a_torn_line_is_cut_off() {
    let site = tempfile::tempdir().unwrap();
    let log = site.path().join("deep/er/log.jsonl");
    assert_eq!(RealDisk.tail(&log).unwrap(), Tail::default());
    assert_eq!(RealDisk.append(&log, 0, b"one\ntwo\nthr").unwrap(), 11);
    assert_eq!(RealDisk.tail(&log).unwrap(), Tail { end: 8, line: Some("two".into()) });
    assert_eq!(RealDisk.append(&log, 8, b"three\n").unwrap(), 14);
    assert_eq!(RealDisk.append(&log, 8, b"3\n").unwrap(), 10, "a second try replaces the first");
    assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntwo\n3\n");
}

#[test]
fn only_a_file_that_did_not_change_is_deleted() {
    let site = tempfile::tempdir().unwrap();
    let path = site.path().join("a");
    fs::write(&path, "1").unwrap();
    let before = RealDisk.fingerprint(&path).unwrap().unwrap();
    fs::write(&path, "22").unwrap();
    assert!(!RealDisk.remove_unchanged(&path, before).unwrap());
    let now = RealDisk.fingerprint(&path).unwrap().unwrap();
    assert!(RealDisk.remove_unchanged(&path, now).unwrap());
    assert_eq!(fs::read_dir(site.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn room_is_that_of_the_file_system() {
    let room = RealDisk.room(&std::env::temp_dir()).unwrap();
    assert!(room.bytes > 0 && room.files > 0, "{room:?}");
    assert_eq!(RealDisk.room(Path::new("/no/such")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_folder_appears_whole_and_is_never_replaced() {
    let site = tempfile::tempdir().unwrap();
    let path = site.path().join("model/1");
    write_folder(&path, &[("a", b"1"), ("b", b"2")]).unwrap();
    assert_eq!((fs::read(path.join("a")).unwrap(), fs::read(path.join("b")).unwrap()), (b"1".to_vec(), b"2".to_vec()));
    let error = write_folder(&path, &[("a", b"3")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
    assert!(write_folder(&site.path().join("model/2"), &[("no/such", b"")]).is_err());
    assert_eq!(fs::read_dir(site.path().join("model")).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn whole_files_replace_and_leave_nothing_behind() {
    let site = tempfile::tempdir().unwrap();
    let path = site.path().join("study/a.json");
    RealDisk.write_whole(&path, b"1").unwrap();
    RealDisk.write_whole(&path, b"22").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"22");
    assert_eq!(fs::read_dir(site.path().join("study")).unwrap().count(), 1);
}

#[test]
fn many_files_appear_whole_in_several_folders() {
    let site = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..75).map(|n| site.path().join(format!("study-{}/{n}.json", n % 3))).collect();
    let texts: Vec<String> = (0..75).map(|n| format!("result {n}")).collect();
    let whole = |path, bytes| Whole { path, bytes, prepared: None };
    let files: Vec<Whole<'_>> = paths.iter().zip(&texts).map(|(path, text)| whole(path, text.as_bytes())).collect();
    RealDisk.write_all_whole(&files).unwrap();
    RealDisk.write_all_whole(&[]).unwrap();
    for (path, text) in paths.iter().zip(&texts) {
        assert_eq!(fs::read_to_string(path).unwrap(), *text);
    }
    for study in 0..3 {
        assert_eq!(fs::read_dir(site.path().join(format!("study-{study}"))).unwrap().count(), 25);
    }
    // One that cannot be written takes nobody's name away and leaves nothing behind.
    let blocked = site.path().join("study-0/0.json/inside");
    assert!(RealDisk.write_all_whole(&[whole(&paths[0], b"new"), whole(&blocked, b"x")]).is_err());
    assert_eq!(fs::read_to_string(&paths[0]).unwrap(), texts[0]);
    assert_eq!(fs::read_dir(site.path().join("study-0")).unwrap().count(), 25);
}

#[test]
fn what_was_prepared_gets_its_name_or_goes() {
    let site = tempfile::tempdir().unwrap();
    let names = |folder: &str| RealDisk.names(&site.path().join(folder)).unwrap();
    let prepared = RealDisk.prepare(site.path(), &[b"one", b"two", b"three", b"four"]).unwrap();
    assert_eq!(names(""), prepared.iter().map(|path| path.file_name().unwrap()).collect::<Vec<_>>());
    let paths: Vec<PathBuf> = (1..=3).map(|n| site.path().join(format!("study/{n}.json"))).collect();
    // One that somebody took away is written like any other.
    fs::remove_file(&prepared[1]).unwrap();
    let texts: [&[u8]; 3] = [b"one", b"two", b"three"];
    let files: Vec<Whole<'_>> = (0..3)
        .map(|at| Whole { path: &paths[at], bytes: texts[at], prepared: (at < 2).then_some(prepared[at].as_path()) })
        .collect();
    RealDisk.write_all_whole(&files).unwrap();
    // A second try after one that came that far.
    RealDisk.write_all_whole(&files).unwrap();
    for (path, text) in paths.iter().zip(texts) {
        assert_eq!(fs::read(path).unwrap(), text);
    }
    RealDisk.discard(&prepared[2]);
    RealDisk.discard(&prepared[2]);
    // One that cannot get its name is not left behind.
    fs::create_dir(site.path().join("study/4.json")).unwrap();
    let blocked = site.path().join("study/4.json");
    let file = Whole { path: &blocked, bytes: b"four", prepared: Some(&prepared[3]) };
    assert!(RealDisk.write_all_whole(&[file]).is_err());
    assert_eq!((names("").len(), names("study").len()), (1, 4));
    assert!(RealDisk.prepare(&site.path().join("no/such"), &[b"x"]).is_err());
}
